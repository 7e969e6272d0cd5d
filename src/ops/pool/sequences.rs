//! Pooling of sequences, as maps of height 1.

use super::Pool2dOptions;
use crate::error::{Error, Result};
use crate::ops::batch::batched;
use crate::ops::options::option_setters;
use crate::tensor::Tensor;

/// Options of pooling windows that slide along a sequence, as [`Pool2dOptions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool1dOptions {
    /// Distance between windows; 0, the default, means the kernel's size.
    pub stride: usize,
    /// Positions added at each end, at most half of the dilated kernel. They count as -∞ for the
    /// maximum and as 0 for the average.
    pub padding: usize,
    /// Distance between the elements of a window; max pooling only.
    pub dilation: usize,
    /// Whether the last window may extend past the end, so that no element is left out.
    pub ceil_mode: bool,
    /// Whether the divisor of an average counts the padding.
    pub count_include_pad: bool,
}

impl Default for Pool1dOptions {
    fn default() -> Self {
        Pool1dOptions { stride: 0, padding: 0, dilation: 1, ceil_mode: false, count_include_pad: true }
    }
}

option_setters!(Pool1dOptions, [], stride: usize, padding: usize, dilation: usize, ceil_mode: bool, count_include_pad: bool);

impl Pool1dOptions {
    fn of_map(self, kernel: usize) -> Pool2dOptions {
        let Pool1dOptions { stride, padding, dilation, ceil_mode, count_include_pad } = self;
        // [0, 0] alone stands for the kernel's size.
        let stride = [1, if stride == 0 { kernel } else { stride }];
        Pool2dOptions { stride, padding: [0, padding], dilation: [1, dilation], ceil_mode, count_include_pad, divisor_override: None }
    }
}

/// Pools sequences `[N, C, L]` or `[C, L]` as maps of height 1.
fn along_length(op: &'static str, x: &Tensor, pool: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    batched(x, 3, |x| match x.ndim() {
        3 => pool(&x.unsqueeze(2)?)?.squeeze(2),
        _ => Err(Error::shape(op, format!("expected [N, C, L] or [C, L], got shape {:?}", x.shape()))),
    })
}

impl Tensor {
    /// Returns the largest element of each window of a sequence, as
    /// [`max_pool2d`](Tensor::max_pool2d).
    ///
    /// # Shape
    /// `[N, C, L]` gives `[N, C, L']` and `[C, L]` gives `[C, L']`, with
    /// `L' = ⌊(L + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1`; row-major.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for another number of dimensions or an empty sequence,
    /// [`Error::Argument`](crate::Error::Argument) for a window that does not fit or holds only
    /// padding, or a padding of more than half of the kernel,
    /// [`Error::DType`](crate::Error::DType) unless floating point.
    ///
    /// ```
    /// use convnet::{Tensor, ops::Pool1dOptions};
    ///
    /// let x = Tensor::from_vec(vec![1.0f32, 3.0, 2.0, 5.0, 4.0], [1, 5])?;
    /// assert_eq!(x.max_pool1d(2, Pool1dOptions::new())?.to_vec::<f32>()?, [3.0, 5.0]);
    /// assert_eq!(x.avg_pool1d(2, Pool1dOptions::new().stride(1))?.to_vec::<f32>()?, [2.0, 2.5, 3.5, 4.5]);
    /// assert_eq!(x.adaptive_avg_pool1d(1)?.to_vec::<f32>()?, [3.0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn max_pool1d(&self, kernel: usize, options: Pool1dOptions) -> Result<Tensor> {
        along_length("max_pool1d", self, &|x| x.max_pool2d([1, kernel], options.of_map(kernel)))
    }

    /// Returns the average of each window of a sequence, as [`avg_pool2d`](Tensor::avg_pool2d).
    ///
    /// # Shape
    /// As [`max_pool1d`](Tensor::max_pool1d).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for another number of dimensions or an empty sequence,
    /// [`Error::Argument`](crate::Error::Argument) for a window that does not fit or holds only
    /// padding, or a padding of more than half of the kernel,
    /// [`Error::DType`](crate::Error::DType) unless floating point.
    pub fn avg_pool1d(&self, kernel: usize, options: Pool1dOptions) -> Result<Tensor> {
        along_length("avg_pool1d", self, &|x| x.avg_pool2d([1, kernel], options.of_map(kernel)))
    }

    /// Returns the average of each of `output` windows that divide a sequence evenly, as
    /// [`adaptive_avg_pool2d`](Tensor::adaptive_avg_pool2d).
    ///
    /// # Shape
    /// `[N, C, L]` gives `[N, C, output]` and `[C, L]` gives `[C, output]`; row-major.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for another number of dimensions or an empty sequence,
    /// [`Error::DType`](crate::Error::DType) unless floating point.
    pub fn adaptive_avg_pool1d(&self, output: usize) -> Result<Tensor> {
        along_length("adaptive_avg_pool1d", self, &|x| x.adaptive_avg_pool2d([1, output]))
    }
}
