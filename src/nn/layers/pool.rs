//! Pooling layers.

use super::pair::{Pair, short};
use crate::error::{Error, Result};
use crate::nn::module::layer::LayerPath;
use crate::nn::module::macros::stateless;
use crate::ops::{Pool2dOptions, batched};
use crate::tensor::Tensor;

/// [`Tensor::max_pool2d`](crate::Tensor::max_pool2d) as a layer.
///
/// ```
/// use convnet::Tensor;
/// use convnet::nn::{MaxPool2d, Module};
///
/// let pool = MaxPool2d::new(3).stride(2).padding(1);
/// assert!(pool.forward(&Tensor::zeros([1, 64, 112, 112]))?.shape() == [1, 64, 56, 56]);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Debug)]
pub struct MaxPool2d {
    kernel: [usize; 2],
    options: Pool2dOptions,
    path: LayerPath,
}

impl MaxPool2d {
    /// Creates the layer with windows of this size and the same stride.
    pub fn new(kernel: impl Into<Pair>) -> MaxPool2d {
        MaxPool2d { kernel: kernel.into().0, options: Pool2dOptions::default(), path: LayerPath::new() }
    }

    /// Sets the stride of the window (default: the kernel size).
    pub fn stride(mut self, stride: impl Into<Pair>) -> MaxPool2d {
        self.options.stride = stride.into().0;
        self
    }

    /// Sets the padding on each side, which is never the maximum (default: 0); at most half of the
    /// dilated kernel.
    pub fn padding(mut self, padding: impl Into<Pair>) -> MaxPool2d {
        self.options.padding = padding.into().0;
        self
    }

    /// Sets the dilation, the distance between window elements (default: 1).
    pub fn dilation(mut self, dilation: impl Into<Pair>) -> MaxPool2d {
        self.options.dilation = dilation.into().0;
        self
    }

    /// Sets whether the last window may extend past the end (default: false).
    pub fn ceil_mode(mut self, ceil: bool) -> MaxPool2d {
        self.options.ceil_mode = ceil;
        self
    }
}

/// [`Tensor::avg_pool2d`](crate::Tensor::avg_pool2d) as a layer.
#[derive(Debug)]
pub struct AvgPool2d {
    kernel: [usize; 2],
    options: Pool2dOptions,
    path: LayerPath,
}

impl AvgPool2d {
    /// Creates the layer with windows of this size and the same stride.
    pub fn new(kernel: impl Into<Pair>) -> AvgPool2d {
        AvgPool2d { kernel: kernel.into().0, options: Pool2dOptions::default(), path: LayerPath::new() }
    }

    /// Sets the stride of the window (default: the kernel size).
    pub fn stride(mut self, stride: impl Into<Pair>) -> AvgPool2d {
        self.options.stride = stride.into().0;
        self
    }

    /// Sets the zero padding on each side (default: 0); at most half the kernel.
    pub fn padding(mut self, padding: impl Into<Pair>) -> AvgPool2d {
        self.options.padding = padding.into().0;
        self
    }

    /// Sets whether the last window may extend past the end (default: false).
    pub fn ceil_mode(mut self, ceil: bool) -> AvgPool2d {
        self.options.ceil_mode = ceil;
        self
    }

    /// Sets whether the padding's zeros count as elements of the mean (default: true).
    pub fn count_include_pad(mut self, count: bool) -> AvgPool2d {
        self.options.count_include_pad = count;
        self
    }

    /// Sets the divisor of every window's sum, at least 1 (default: the number of positions).
    pub fn divisor_override(mut self, divisor: usize) -> AvgPool2d {
        self.options.divisor_override = Some(divisor);
        self
    }
}

/// [`Tensor::adaptive_avg_pool2d`](crate::Tensor::adaptive_avg_pool2d) as a layer: the mean of one
/// window for each output position.
#[derive(Debug)]
pub struct AdaptiveAvgPool2d {
    output: [usize; 2],
    path: LayerPath,
}

impl AdaptiveAvgPool2d {
    /// Creates the layer with this output size; 1 is global average pooling.
    pub fn new(output: impl Into<Pair>) -> AdaptiveAvgPool2d {
        AdaptiveAvgPool2d { output: output.into().0, path: LayerPath::new() }
    }
}

/// [`Tensor::adaptive_max_pool2d`](crate::Tensor::adaptive_max_pool2d) as a layer: the maximum of
/// one window for each output position.
#[derive(Debug)]
pub struct AdaptiveMaxPool2d {
    output: [usize; 2],
    path: LayerPath,
}

impl AdaptiveMaxPool2d {
    /// Creates the layer with this output size.
    pub fn new(output: impl Into<Pair>) -> AdaptiveMaxPool2d {
        AdaptiveMaxPool2d { output: output.into().0, path: LayerPath::new() }
    }
}

/// Max pooling of sequences: [`MaxPool2d`] along their length.
///
/// # Shape
/// `[N, C, L]` gives `[N, C, L']` and `[C, L]` gives `[C, L']`, with `L' = ⌊(L + 2·padding −
/// dilation·(kernel − 1) − 1) / stride⌋ + 1`; row-major.
///
/// ```
/// use convnet::Tensor;
/// use convnet::nn::{MaxPool1d, Module};
///
/// let x = Tensor::from_vec(vec![1.0f32, 3.0, 2.0, 5.0, 4.0], [1, 1, 5])?;
/// assert_eq!(MaxPool1d::new(2).forward(&x)?.to_vec::<f32>()?, [3.0, 5.0]);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Debug)]
pub struct MaxPool1d {
    kernel: usize,
    // Those of a map of height 1.
    options: Pool2dOptions,
    path: LayerPath,
}

impl MaxPool1d {
    /// Creates the layer with windows of this size and the same stride.
    pub fn new(kernel: usize) -> MaxPool1d {
        MaxPool1d { kernel, options: Pool2dOptions::default(), path: LayerPath::new() }
    }

    /// Sets the stride of the window (default: the kernel size).
    pub fn stride(mut self, stride: usize) -> MaxPool1d {
        self.options.stride = [1, stride];
        self
    }

    /// Sets the padding at each end, which is never the maximum (default: 0); at most half of the
    /// dilated kernel.
    pub fn padding(mut self, padding: usize) -> MaxPool1d {
        self.options.padding = [0, padding];
        self
    }

    /// Sets the dilation, the distance between window elements (default: 1).
    pub fn dilation(mut self, dilation: usize) -> MaxPool1d {
        self.options.dilation = [1, dilation];
        self
    }

    /// Sets whether the last window may extend past the end (default: false).
    pub fn ceil_mode(mut self, ceil: bool) -> MaxPool1d {
        self.options.ceil_mode = ceil;
        self
    }
}

/// Average pooling of sequences: [`AvgPool2d`] along their length.
///
/// # Shape
/// As [`MaxPool1d`].
#[derive(Debug)]
pub struct AvgPool1d {
    kernel: usize,
    // Those of a map of height 1.
    options: Pool2dOptions,
    path: LayerPath,
}

impl AvgPool1d {
    /// Creates the layer with windows of this size and the same stride.
    pub fn new(kernel: usize) -> AvgPool1d {
        AvgPool1d { kernel, options: Pool2dOptions::default(), path: LayerPath::new() }
    }

    /// Sets the stride of the window (default: the kernel size).
    pub fn stride(mut self, stride: usize) -> AvgPool1d {
        self.options.stride = [1, stride];
        self
    }

    /// Sets the zero padding at each end (default: 0); at most half the kernel.
    pub fn padding(mut self, padding: usize) -> AvgPool1d {
        self.options.padding = [0, padding];
        self
    }

    /// Sets whether the last window may extend past the end (default: false).
    pub fn ceil_mode(mut self, ceil: bool) -> AvgPool1d {
        self.options.ceil_mode = ceil;
        self
    }

    /// Sets whether the padding's zeros count as elements of the mean (default: true).
    pub fn count_include_pad(mut self, count: bool) -> AvgPool1d {
        self.options.count_include_pad = count;
        self
    }
}

/// The mean of one window of a sequence for each output position; see [`AdaptiveAvgPool2d`].
///
/// # Shape
/// `[N, C, L]` gives `[N, C, output]` and `[C, L]` gives `[C, output]`; row-major.
#[derive(Debug)]
pub struct AdaptiveAvgPool1d {
    output: usize,
    path: LayerPath,
}

impl AdaptiveAvgPool1d {
    /// Creates the layer with this output length; 1 is the mean of the whole sequence.
    pub fn new(output: usize) -> AdaptiveAvgPool1d {
        AdaptiveAvgPool1d { output, path: LayerPath::new() }
    }
}

/// Spatial pyramid pooling (He et al., 2014): the maxima of grids of several sizes as one vector,
/// whose length does not depend on the size of the map.
///
/// # Shape
/// `[N, C, H, W]` gives `[N, C · (n₁² + n₂² + …)]` for grids of n₁×n₁, n₂×n₂, … windows: first all
/// channels of the first grid, then those of the next. `[C, H, W]` gives one such vector. Row-major.
///
/// ```
/// use convnet::nn::SpatialPyramidPooling;
/// use convnet::prelude::*;
///
/// let pool = SpatialPyramidPooling::new([1, 2, 4]);
/// for size in [13, 20] {
///     assert_eq!(pool.forward(&Tensor::zeros([1, 256, size, size]))?.shape(), [1, 256 * (1 + 4 + 16)]);
/// }
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Debug)]
pub struct SpatialPyramidPooling {
    grids: Vec<usize>,
    path: LayerPath,
}

impl SpatialPyramidPooling {
    /// Creates the layer with grids of these numbers of windows along each side.
    pub fn new(grids: impl AsRef<[usize]>) -> SpatialPyramidPooling {
        SpatialPyramidPooling { grids: grids.as_ref().to_vec(), path: LayerPath::new() }
    }

    fn pool(&self, x: &Tensor) -> Result<Tensor> {
        if self.grids.is_empty() {
            return Err(Error::argument("spatial_pyramid_pooling", "expected at least one grid"));
        }
        let grids = self.grids.iter().map(|&grid| x.adaptive_max_pool2d(grid)?.flatten(-3, -1)).collect::<Result<Vec<_>>>()?;
        Tensor::cat(&grids.iter().collect::<Vec<_>>(), -1)
    }
}

/// Pools sequences `[N, C, L]` or `[C, L]` as maps of height 1.
fn along_length(op: &'static str, x: &Tensor, pool: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    batched(x, 3, |x| match x.ndim() {
        3 => pool(&x.unsqueeze(2)?)?.squeeze(2),
        _ => Err(Error::shape(op, format!("expected [N, C, L] or [C, L], got shape {:?}", x.shape()))),
    })
}

/// Formats a window along one axis, such as `k3, s2`.
fn window1d(kernel: usize, stride: [usize; 2]) -> String {
    window([kernel; 2], [stride[1]; 2])
}

/// Formats a window, such as `k3, s2`; the stride only where it differs from the kernel.
fn window(kernel: [usize; 2], stride: [usize; 2]) -> String {
    let mut text = format!("k{}", short(kernel));
    if stride != kernel && stride != [0, 0] {
        text.push_str(&format!(", s{}", short(stride)));
    }
    text
}

stateless! {
    MaxPool2d { kernel, options }, |layer| format!("MaxPool2d {}", window(layer.kernel, layer.options.stride)), |x| x.max_pool2d(layer.kernel, layer.options);
    AvgPool2d { kernel, options }, |layer| format!("AvgPool2d {}", window(layer.kernel, layer.options.stride)), |x| x.avg_pool2d(layer.kernel, layer.options);
    AdaptiveAvgPool2d { output }, |layer| format!("AdaptiveAvgPool2d {}", short(layer.output)), |x| x.adaptive_avg_pool2d(layer.output);
    AdaptiveMaxPool2d { output }, |layer| format!("AdaptiveMaxPool2d {}", short(layer.output)), |x| x.adaptive_max_pool2d(layer.output);
    MaxPool1d { kernel, options }, |layer| format!("MaxPool1d {}", window1d(layer.kernel, layer.options.stride)),
        |x| along_length("max_pool1d", x, |x| x.max_pool2d([1, layer.kernel], layer.options));
    AvgPool1d { kernel, options }, |layer| format!("AvgPool1d {}", window1d(layer.kernel, layer.options.stride)),
        |x| along_length("avg_pool1d", x, |x| x.avg_pool2d([1, layer.kernel], layer.options));
    AdaptiveAvgPool1d { output }, |layer| format!("AdaptiveAvgPool1d {}", layer.output),
        |x| along_length("adaptive_avg_pool1d", x, |x| x.adaptive_avg_pool2d([1, layer.output]));
    SpatialPyramidPooling { grids }, |layer| format!("SpatialPyramidPooling {:?}", layer.grids), |x| layer.pool(x);
}
