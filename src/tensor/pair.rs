//! Height and width as an argument.

/// Height and width, as an argument of operations, options and layers: `3`, `[3, 5]` or `(3, 5)`.
///
/// Everything that takes the size of a kernel or an image, a stride, a padding or a dilation takes
/// `impl Into<Pair>`: a number means the same for height and width. Arrays are in the fields of
/// options, which can be set by name as well:
///
/// ```
/// use convnet::nn::MaxPool2d;
/// use convnet::ops::{Conv2dOptions, Pool2dOptions};
/// use convnet::Tensor;
///
/// let (x, w) = (Tensor::randn([1, 3, 32, 32]), Tensor::randn([8, 3, 3, 5]));
/// let options = Conv2dOptions::new().stride(2).padding([1, 2]);
/// assert_eq!(options, Conv2dOptions { stride: [2, 2], padding: [1, 2], ..Default::default() });
///
/// let y = x.conv2d(&w, None, options)?; //                                      [1, 8, 16, 16]
/// let z = y.max_pool2d(3, Pool2dOptions::new().stride(2).padding(1))?; //       [1, 8, 8, 8]
/// assert_eq!(z, y.apply(&MaxPool2d::new([3, 3]).stride(2).padding(1))?);
/// assert_eq!(z.adaptive_avg_pool2d(1)?.shape(), [1, 8, 1, 1]);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair(pub [usize; 2]);

impl From<usize> for Pair {
    fn from(size: usize) -> Pair {
        Pair([size, size])
    }
}

impl From<[usize; 2]> for Pair {
    fn from(sizes: [usize; 2]) -> Pair {
        Pair(sizes)
    }
}

impl From<(usize, usize)> for Pair {
    fn from((height, width): (usize, usize)) -> Pair {
        Pair([height, width])
    }
}

/// Factors of height and width, as an argument of operations and layers that scale images: `2`,
/// `1.5`, `[2.0, 0.5]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factors(pub [f64; 2]);

impl From<f64> for Factors {
    fn from(factor: f64) -> Factors {
        Factors([factor, factor])
    }
}

impl From<[f64; 2]> for Factors {
    fn from(factors: [f64; 2]) -> Factors {
        Factors(factors)
    }
}

impl From<usize> for Factors {
    fn from(factor: usize) -> Factors {
        Factors([factor as f64; 2])
    }
}

impl From<[usize; 2]> for Factors {
    fn from([height, width]: [usize; 2]) -> Factors {
        Factors([height as f64, width as f64])
    }
}
