//! Resampling of images to another size.

use crate::error::{Error, Result};
use crate::kernels::resample::{Taps, bilinear, bilinear_backward, linear_taps, nearest, nearest_positions, nearest_taps};
use crate::kernels::simd::Real;
use crate::tensor::shape::try_numel;
use crate::tensor::{MemoryFormat, Tensor, with_dtype, with_float};

/// How [`Tensor::interpolate`] fills the new image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// The nearest pixel, `floor(i · in / out)` along each axis: PyTorch's `nearest`.
    Nearest,
    /// The four pixels around, weighted by distance.
    Bilinear {
        /// Whether the corner pixels' centres stay at the corners; else pixels are squares whose outer edges stay.
        align_corners: bool,
    },
}

impl Interpolation {
    fn taps<T: Real>(self, [height, width]: [usize; 2], size: [usize; 2]) -> [Vec<Taps<T>>; 2] {
        match self {
            Interpolation::Nearest => [nearest_taps(height, size[0]), nearest_taps(width, size[1])],
            Interpolation::Bilinear { align_corners } => {
                [linear_taps(height, size[0], align_corners), linear_taps(width, size[1], align_corners)]
            }
        }
    }
}

impl Tensor {
    /// Scales images up or down to `size`, height and width, as PyTorch's `interpolate` without `antialias`.
    ///
    /// # Shape
    /// `[N, C, H, W]` becomes `[N, C, size[0], size[1]]`; channels-last, whatever the input's format.
    ///
    /// # Errors
    /// [`Error::Shape`] for a tensor that is not 4-D, a height or width of 0, or a result that memory cannot hold; [`Error::DType`] for
    /// bilinear interpolation unless the tensor is floating point.
    ///
    /// ```
    /// use convnet::{Tensor, ops::Interpolation};
    ///
    /// let x = Tensor::from_vec(vec![1.0f32, 3.0], [1, 1, 1, 2])?;
    /// assert_eq!(x.interpolate([1, 4], Interpolation::Nearest)?.to_vec::<f32>()?, [1.0, 1.0, 3.0, 3.0]);
    /// let y = x.interpolate([1, 3], Interpolation::Bilinear { align_corners: true })?;
    /// assert_eq!(y.to_vec::<f32>()?, [1.0, 2.0, 3.0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn interpolate(&self, size: [usize; 2], mode: Interpolation) -> Result<Tensor> {
        let &[n, c, height, width] = self.shape() else {
            return Err(Error::shape("interpolate", format!("expected input [N, C, H, W], got shape {:?}", self.shape())));
        };
        if size.contains(&0) || height == 0 || width == 0 {
            let message = format!("cannot scale shape {:?} to {size:?}: heights and widths must be at least 1", self.shape());
            return Err(Error::shape("interpolate", message));
        }
        let shape = [n, c, size[0], size[1]];
        // Positions along each axis are tabulated, so the axes count even when there are no images.
        if try_numel(&shape).is_none() || try_numel(&size).is_none() {
            let message = format!("scaling shape {:?} to {size:?} asks for more than memory can hold", self.shape());
            return Err(Error::shape("interpolate", message));
        }
        if matches!(mode, Interpolation::Bilinear { .. }) {
            self.expect_float("interpolate")?;
        }
        if n == 0 || c == 0 {
            let y = with_dtype!(self.dtype(), T => Tensor::build(&shape, MemoryFormat::ChannelsLast, |_: &mut [T]| {}));
            return Ok(
                y.record("interpolate", [self], move |grad, _wanted| Ok([Some(Tensor::full([n, c, height, width], 0.0, grad.dtype()))]))
            );
        }
        let (x, dims) = (self.in_format(MemoryFormat::ChannelsLast), [height, width, c]);
        let y = match mode {
            Interpolation::Nearest => with_dtype!(x.dtype(), T => Tensor::build(&shape, MemoryFormat::ChannelsLast, |y: &mut [T]| {
                nearest(dims, &nearest_positions(height, size[0]), &nearest_positions(width, size[1]), x.data(), y);
            })),
            Interpolation::Bilinear { .. } => with_float!(x.dtype(), "interpolate", T => {
                let [rows, columns] = mode.taps::<T>([height, width], size);
                Tensor::build(&shape, MemoryFormat::ChannelsLast, |y: &mut [T]| bilinear(dims, &rows, &columns, x.data(), y))
            }),
        };
        Ok(y.record("interpolate", [self], move |grad, _wanted| {
            let grad = grad.in_format(MemoryFormat::ChannelsLast);
            Ok([Some(with_float!(grad.dtype(), "interpolate", T => {
                let [rows, columns] = mode.taps::<T>([height, width], size);
                Tensor::build(&[n, c, height, width], MemoryFormat::ChannelsLast, |dx: &mut [T]| {
                    bilinear_backward(dims, &rows, &columns, grad.data(), dx);
                })
            }))])
        }))
    }
}
