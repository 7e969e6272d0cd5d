//! Resampling of images to another size.

use super::pool::expect_tables;
use crate::error::{Error, Result};
use crate::kernels::resample::{Taps, bilinear, bilinear_backward, linear_taps, nearest, nearest_positions, nearest_taps};
use crate::kernels::runtime::arrays::MapEach;
use crate::kernels::runtime::simd::Real;
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::meta::InputExtent;
use crate::tensor::shape::try_numel;
use crate::tensor::{MemoryFormat, Pair, Tensor, with_dtype, with_float};

/// How [`Tensor::interpolate`] computes the pixels of the new image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// The nearest pixel, `floor(i · in / out)` along each axis: PyTorch's `nearest`.
    Nearest,
    /// The weighted average of the four surrounding pixels, with weights by distance.
    Bilinear {
        /// Whether the centres of the corner pixels stay at the corners; otherwise pixels are
        /// squares, and the image's outer edges stay.
        align_corners: bool,
    },
}

impl Interpolation {
    /// Returns the pixels that are read; pixels of weight 0 are not.
    fn reach(self, input: [usize; 2], size: [usize; 2]) -> InputExtent {
        let taps = self.taps::<f64>(input, size);
        let scale = [0, 1].map_each(|axis| input[axis] as f64 / size[axis] as f64);
        InputExtent::new(size, scale, |axis, at| {
            let Taps { at, weight } = taps[axis][at as usize];
            let read = |tap: usize| at[if weight[tap] == 0.0 { 1 - tap } else { tap }] as isize;
            [read(0), read(1)]
        })
    }

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
    /// Scales images up or down to `size`, height and width, as PyTorch's `interpolate` does
    /// without `antialias`.
    ///
    /// # Shape
    /// `[N, C, H, W]` becomes `[N, C, size[0], size[1]]`; channels-last, whatever the input's
    /// format.
    ///
    /// # Errors
    /// [`Error::Shape`] for a tensor that is not 4-D, a height or width of 0, or a result that
    /// memory cannot hold; [`Error::DType`] for bilinear interpolation unless the tensor is
    /// floating point.
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
    pub fn interpolate(&self, size: impl Into<Pair>, mode: Interpolation) -> Result<Tensor> {
        self.resample(size.into().0, mode)
    }

    // Without type parameters, so that it is compiled once.
    fn resample(&self, size: [usize; 2], mode: Interpolation) -> Result<Tensor> {
        let observed = operation("interpolate");
        observed.details(|| {
            Details::new().ints("size", &size).text(
                "mode",
                match mode {
                    Interpolation::Nearest => "nearest",
                    Interpolation::Bilinear { align_corners: false } => "bilinear",
                    Interpolation::Bilinear { align_corners: true } => "aligned",
                },
            )
        });
        let &[n, c, height, width] = self.shape() else {
            return Err(Error::shape("interpolate", format!("expected input [N, C, H, W], got shape {:?}", self.shape())));
        };
        if size.contains(&0) || height == 0 || width == 0 {
            let message = format!("cannot scale shape {:?} to {size:?}: heights and widths must be at least 1", self.shape());
            return Err(Error::shape("interpolate", message));
        }
        let shape = [n, c, size[0], size[1]];
        // The positions along each axis are put into tables, so the axes' sizes matter even when
        // there are no images.
        if try_numel(&shape).is_none() || try_numel(&size).is_none() {
            let message = format!("scaling shape {:?} to {size:?} asks for more than memory can hold", self.shape());
            return Err(Error::shape("interpolate", message));
        }
        if matches!(mode, Interpolation::Bilinear { .. }) {
            self.expect_float("interpolate")?;
        }
        if n == 0 || c == 0 {
            let y = with_dtype!(self.dtype(), T => Tensor::build(&shape, MemoryFormat::ChannelsLast, |_: &mut [T]| {})?);
            return Ok(y.record_window(
                "interpolate",
                [self],
                |_| [None],
                move |grad, _wanted| Ok([Some(Tensor::try_full([n, c, height, width], 0.0, grad.dtype())?)]),
            ));
        }
        expect_tables(size)?;
        let (x, dims) = (self.to_format(MemoryFormat::ChannelsLast)?, [height, width, c]);
        let y = match mode {
            Interpolation::Nearest => with_dtype!(x.dtype(), T => Tensor::build(&shape, MemoryFormat::ChannelsLast, |y: &mut [T]| {
                nearest(dims, &nearest_positions(height, size[0]), &nearest_positions(width, size[1]), x.data(), y);
            })?),
            Interpolation::Bilinear { .. } => with_float!(x.dtype(), "interpolate", T => {
                let [rows, columns] = mode.taps::<T>([height, width], size);
                Tensor::build(&shape, MemoryFormat::ChannelsLast, |y: &mut [T]| bilinear(dims, &rows, &columns, x.data(), y))?
            }),
        };
        let extents = |_: &[usize]| [Some(mode.reach([height, width], size))];
        Ok(y.record_window("interpolate", [self], extents, move |grad, _wanted| {
            let grad = grad.to_format(MemoryFormat::ChannelsLast)?;
            Ok([Some(with_float!(grad.dtype(), "interpolate", T => {
                let [rows, columns] = mode.taps::<T>([height, width], size);
                Tensor::build(&[n, c, height, width], MemoryFormat::ChannelsLast, |dx: &mut [T]| {
                    bilinear_backward(dims, &rows, &columns, grad.data(), dx);
                })?
            }))])
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::autograd::gradcheck;

    const MODES: [Interpolation; 3] =
        [Interpolation::Nearest, Interpolation::Bilinear { align_corners: false }, Interpolation::Bilinear { align_corners: true }];

    fn image(shape: [usize; 4]) -> Tensor {
        Tensor::randn(shape).cast(DType::F64).unwrap()
    }

    #[test]
    fn same_size_gives_the_same_image() {
        let x = image([2, 3, 4, 5]);
        for mode in MODES {
            assert_eq!(x.interpolate([4, 5], mode).unwrap().to_vec::<f64>().unwrap(), x.to_vec::<f64>().unwrap());
        }
    }

    #[test]
    fn aligned_corners_keep_their_values_and_a_plane_stays_a_plane() {
        let x = Tensor::arange(12).cast(DType::F64).unwrap().reshape([1, 1, 3, 4]).unwrap();
        let plane = ndarray::Array4::from_shape_fn([1, 1, 5, 7], |(_, _, i, j)| i as f64 * 2.0 + j as f64 * 0.5);
        approx::assert_abs_diff_eq!(x.interpolate([5, 7], MODES[2]).unwrap(), Tensor::from_ndarray(plane), epsilon = 1e-12);
    }

    #[test]
    fn bilinear_without_aligned_corners_gives_what_pytorch_gives() {
        // F.interpolate(torch.tensor([[[[1., 2.], [3., 5.]]]]), size=(3, 4), mode="bilinear")
        let x = Tensor::from_vec(vec![1.0f64, 2.0, 3.0, 5.0], [1, 1, 2, 2]).unwrap();
        let y = x.interpolate([3, 4], MODES[1]).unwrap().to_vec::<f64>().unwrap();
        assert_eq!(y, [1.0, 1.25, 1.75, 2.0, 2.0, 2.375, 3.125, 3.5, 3.0, 3.5, 4.5, 5.0]);
    }

    #[test]
    fn gradients_agree_with_differences_up_and_down() {
        for format in [MemoryFormat::RowMajor, MemoryFormat::ChannelsLast] {
            let x = image([2, 2, 3, 4]).to_format(format).unwrap();
            for (mode, size) in MODES.into_iter().flat_map(|mode| [[5, 9], [2, 3], [1, 1], [3, 4], [6, 8]].map(|size| (mode, size))) {
                gradcheck(std::slice::from_ref(&x), Default::default(), |x| x[0].interpolate(size, mode)).unwrap();
            }
        }
    }

    #[test]
    fn empty_batches_are_allowed_and_integers_take_the_nearest_pixel() {
        let y = Tensor::zeros([0, 3, 2, 2]).with_grad().interpolate([4, 4], MODES[1]).unwrap();
        assert!(y.shape() == [0, 3, 4, 4]);
        let bytes = Tensor::from_vec(vec![1u8, 2], [1, 1, 1, 2]).unwrap();
        assert_eq!(bytes.interpolate([1, 3], MODES[0]).unwrap().to_vec::<u8>().unwrap(), [1, 1, 2]);
    }

    #[test]
    fn errors_name_the_shapes() {
        let message = |x: &Tensor, size, mode| x.interpolate(size, mode).unwrap_err().to_string();
        let x = Tensor::zeros([1, 1, 2, 2]);
        assert_eq!(message(&Tensor::zeros([2, 2]), [1, 1], MODES[0]), "interpolate: expected input [N, C, H, W], got shape [2, 2]");
        assert!(message(&x, [0, 3], MODES[0]).contains("heights and widths must be at least 1"));
        assert!(message(&Tensor::zeros([1, 1, 0, 2]), [2, 2], MODES[1]).contains("cannot scale shape [1, 1, 0, 2]"));
        assert!(message(&x, [usize::MAX, 2], MODES[1]).contains("more than memory can hold"));
        assert!(message(&Tensor::zeros([0, 1, 2, 2]), [usize::MAX, 2], MODES[1]).contains("more than memory can hold"));
        assert_eq!(
            message(&Tensor::full([1, 1, 2, 2], 1.0, DType::U8), [2, 2], MODES[1]),
            "interpolate: expected f32 or f64, got u8; convert with `.to_dtype(DType::F32)`"
        );
    }
}
