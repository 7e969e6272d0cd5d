//! Resampling of images to another size.

use super::batch::batched;
use super::options::option_setters;
use super::pool::expect_tables;
use crate::error::{Error, Result};
use crate::kernels::resample::{Axis, Taps, backward, bicubic, bilinear, nearest};
pub use crate::kernels::resample::{Coordinates, Rounding};
use crate::kernels::runtime::arrays::MapEach;
use crate::kernels::runtime::simd::Real;
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::meta::InputExtent;
use crate::tensor::shape::try_numel;
use crate::tensor::{Factors, MemoryFormat, Pair, Tensor, with_dtype, with_float};

/// How [`Tensor::interpolate`] computes the pixels of the new image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// The pixel at `floor(i · in / out)` along each axis: PyTorch's `nearest`.
    Nearest,
    /// The pixel nearest to the centre of the new one: PyTorch's `nearest-exact`, which Pillow and
    /// scikit-image compute as well.
    NearestExact,
    /// The weighted average of the four surrounding pixels, with weights by distance.
    Bilinear {
        /// Whether the centres of the corner pixels stay at the corners; otherwise pixels are
        /// squares, and the image's outer edges stay.
        align_corners: bool,
    },
    /// Cubic convolution over 4×4 pixels (Keys, 1981) with `a = -0.75`.
    Bicubic {
        /// As for [`Bilinear`](Interpolation::Bilinear).
        align_corners: bool,
    },
}

impl Interpolation {
    fn options(self) -> ResampleOptions {
        let coordinates = |align_corners| if align_corners { Coordinates::AlignCorners } else { Coordinates::HalfPixel };
        let (filter, coordinates) = match self {
            Interpolation::Nearest => (ResampleFilter::Nearest(Rounding::Floor), Coordinates::Asymmetric),
            Interpolation::NearestExact => (ResampleFilter::Nearest(Rounding::HalfUp), Coordinates::HalfPixel),
            Interpolation::Bilinear { align_corners } => (ResampleFilter::Linear, coordinates(align_corners)),
            Interpolation::Bicubic { align_corners } => (ResampleFilter::Cubic { a: -0.75 }, coordinates(align_corners)),
        };
        ResampleOptions { filter, coordinates, factors: None }
    }
}

/// Which pixels [`Tensor::resample`] combines to a new one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ResampleFilter {
    /// One pixel, whose position is rounded.
    Nearest(Rounding),
    /// The two surrounding pixels along each axis, with weights by distance.
    Linear,
    /// The four surrounding pixels along each axis, with the weights of cubic convolution (Keys,
    /// 1981). Pixels outside of the image are those at its edge.
    Cubic {
        /// The slope of the filter at distance 1: -0.75 in PyTorch and OpenCV, -0.5 in Pillow.
        a: f64,
    },
}

/// Options of [`Tensor::resample`]. By default pixels are squares and are interpolated linearly.
///
/// The modes of ONNX's `Resize` are combinations of these: `half_pixel`, `align_corners` and
/// `asymmetric` are [`Coordinates`], `nearest_mode` is [`Rounding`], `scales` are `factors` and
/// `cubic_coeff_a` is `a`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResampleOptions {
    /// Which pixels are combined.
    pub filter: ResampleFilter,
    /// Where the new image's pixels lie in the original.
    pub coordinates: Coordinates,
    /// The new image's pixels for one of the original, along height and width, where they differ
    /// from the ratio of the sizes; [`Coordinates::AlignCorners`] does not depend on them.
    pub factors: Option<[f64; 2]>,
}

impl Default for ResampleOptions {
    fn default() -> Self {
        ResampleOptions { filter: ResampleFilter::Linear, coordinates: Coordinates::HalfPixel, factors: None }
    }
}

option_setters!(ResampleOptions, [], filter: ResampleFilter, coordinates: Coordinates, factors: Option<[f64; 2]>);

impl ResampleOptions {
    /// Returns the options for a recording; factors that are not given are 0.
    fn details(&self, size: [usize; 2]) -> Details {
        let [height, width] = self.factors.unwrap_or([0.0, 0.0]);
        let (filter, a) = match self.filter {
            ResampleFilter::Nearest(Rounding::Floor) => ("floor", 0.0),
            ResampleFilter::Nearest(Rounding::Ceil) => ("ceil", 0.0),
            ResampleFilter::Nearest(Rounding::HalfDown) => ("round_prefer_floor", 0.0),
            ResampleFilter::Nearest(Rounding::HalfUp) => ("round_prefer_ceil", 0.0),
            ResampleFilter::Linear => ("linear", 0.0),
            ResampleFilter::Cubic { a } => ("cubic", a),
        };
        let coordinates = match self.coordinates {
            Coordinates::HalfPixel => "half_pixel",
            Coordinates::AlignCorners => "align_corners",
            Coordinates::Asymmetric => "asymmetric",
        };
        let details = Details::new().ints("size", &size).text("filter", filter).float("a", a).text("coordinates", coordinates);
        details.float("height_factor", height).float("width_factor", width)
    }

    fn axes(&self, input: [usize; 2], size: [usize; 2]) -> [Axis; 2] {
        [0, 1].map_each(|axis| Axis {
            input: input[axis],
            output: size[axis],
            factor: self.factors.map(|factors| factors[axis]),
            coordinates: self.coordinates,
        })
    }

    /// Returns the pixels that are read; pixels of weight 0 are not.
    fn input_extent(&self, input: [usize; 2], size: [usize; 2]) -> InputExtent {
        fn bounds<const N: usize>(taps: &[Taps<f64, N>]) -> Vec<[isize; 2]> {
            let used = |taps: &Taps<f64, N>| {
                let read = taps.at.into_iter().zip(taps.weight).filter(|&(_, weight)| weight != 0.0).map(|(at, _)| at as isize);
                read.fold([isize::MAX, isize::MIN], |[first, last], at| [first.min(at), last.max(at)])
            };
            taps.iter().map(used).collect()
        }
        let places = self.axes(input, size).map_each(|axis| match self.filter {
            ResampleFilter::Nearest(rounding) => bounds(&axis.nearest_taps(rounding)),
            ResampleFilter::Linear => bounds(&axis.linear_taps()),
            ResampleFilter::Cubic { a } => bounds(&axis.cubic_taps(a)),
        });
        let scale = [0, 1].map_each(|axis| input[axis] as f64 / size[axis] as f64);
        InputExtent::new(size, scale, |axis, at| places[axis][at as usize])
    }

    /// Writes the gradient of an image `x` from that of the resampled one.
    fn backward<T: Real>(&self, dims: [usize; 3], size: [usize; 2], grad: &[T], dx: &mut [T]) {
        let axes = self.axes([dims[0], dims[1]], size);
        let pairs = |[rows, columns]: [Vec<Taps<T, 2>>; 2], dx| backward(dims, &rows, &columns, grad, dx);
        match self.filter {
            ResampleFilter::Nearest(rounding) => pairs(axes.map_each(|axis| axis.nearest_taps(rounding)), dx),
            ResampleFilter::Linear => pairs(axes.map_each(|axis| axis.linear_taps()), dx),
            ResampleFilter::Cubic { a } => {
                let [rows, columns] = axes.map_each(|axis| axis.cubic_taps(a));
                backward(dims, &rows, &columns, grad, dx);
            }
        }
    }
}

impl Tensor {
    /// Scales images up or down to `size`, height and width, as PyTorch's `interpolate` does
    /// without `antialias`.
    ///
    /// # Shape
    /// `[N, C, H, W]` becomes `[N, C, size[0], size[1]]`, channels-last, whatever the input's
    /// format. A single image `[C, H, W]`, which PyTorch would take for `[N, C, L]`, becomes
    /// `[C, size[0], size[1]]`, row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of dimensions, a height or width of 0, or a result that
    /// memory cannot hold; [`Error::DType`] unless the tensor is floating point, except for the
    /// nearest pixel.
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
        self.resample(size, mode.options())
    }

    /// Scales images by a factor for height and width, or by one for each, as PyTorch's
    /// `interpolate` does with `scale_factor`: positions are computed with the factors, not with
    /// the ratio of the rounded sizes.
    ///
    /// # Shape
    /// `[N, C, H, W]` becomes `[N, C, ⌊H · factor⌋, ⌊W · factor⌋]`; a single image `[C, H, W]` as
    /// in [`interpolate`](Tensor::interpolate).
    ///
    /// # Errors
    /// [`Error::Argument`] for a factor that is not finite and positive, otherwise those of
    /// [`interpolate`](Tensor::interpolate).
    ///
    /// ```
    /// use convnet::{Tensor, ops::Interpolation};
    ///
    /// let x = Tensor::ones([1, 1, 4, 6]);
    /// assert_eq!(x.interpolate_by([2.5, 0.5], Interpolation::Nearest)?.shape(), [1, 1, 10, 3]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn interpolate_by(&self, factors: impl Into<Factors>, mode: Interpolation) -> Result<Tensor> {
        let factors = factors.into().0;
        batched(self, 4, |x| x.scale_by(factors, mode))
    }

    fn scale_by(&self, mut factors: [f64; 2], mode: Interpolation) -> Result<Tensor> {
        let size = scaled_size(self, factors)?;
        if let (Interpolation::Bilinear { .. }, &[_, _, height, width]) = (mode, self.shape()) {
            // PyTorch keeps the pixels where the size does not change, as with a factor of 1.
            for (axis, input) in [height, width].into_iter().enumerate() {
                if size[axis] == input {
                    factors[axis] = 1.0;
                }
            }
        }
        self.resample_to(size, mode.options().factors(Some(factors)))
    }

    /// Scales images to `size`, height and width, with any combination of a filter and of positions
    /// of pixels; [`interpolate`](Tensor::interpolate) has those of PyTorch.
    ///
    /// # Shape
    /// As [`interpolate`](Tensor::interpolate).
    ///
    /// # Errors
    /// Those of [`interpolate`](Tensor::interpolate), and [`Error::Argument`] for a factor that is
    /// not finite and positive.
    ///
    /// ```
    /// use convnet::{Tensor, ops::{Coordinates, ResampleOptions}};
    ///
    /// let x = Tensor::from_vec(vec![1.0f32, 3.0], [1, 1, 1, 2])?;
    /// let y = x.resample([1, 4], ResampleOptions::new().coordinates(Coordinates::Asymmetric))?;
    /// assert_eq!(y.to_vec::<f32>()?, [1.0, 2.0, 3.0, 3.0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn resample(&self, size: impl Into<Pair>, options: ResampleOptions) -> Result<Tensor> {
        let size = size.into().0;
        batched(self, 4, |x| x.resample_to(size, options))
    }

    // Without type parameters, so that it is compiled once.
    fn resample_to(&self, size: [usize; 2], options: ResampleOptions) -> Result<Tensor> {
        let observed = operation("interpolate");
        observed.details(|| options.details(size));
        let &[n, c, height, width] = self.shape() else {
            return Err(expected_images(self));
        };
        if size.contains(&0) || height == 0 || width == 0 {
            let message = format!("cannot scale shape {:?} to {size:?}: heights and widths must be at least 1", self.shape());
            return Err(Error::shape("interpolate", message));
        }
        options.factors.map_or(Ok(()), expect_factors)?;
        let shape = [n, c, size[0], size[1]];
        // The positions along each axis are put into tables, so the axes' sizes matter even when
        // there are no images.
        if try_numel(&shape).is_none() || try_numel(&size).is_none() {
            let message = format!("scaling shape {:?} to {size:?} asks for more than memory can hold", self.shape());
            return Err(Error::shape("interpolate", message));
        }
        if !matches!(options.filter, ResampleFilter::Nearest(_)) {
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
        let axes = options.axes([height, width], size);
        let y = match options.filter {
            ResampleFilter::Nearest(rounding) => {
                let [rows, columns] = axes.map_each(|axis| axis.nearest(rounding));
                with_dtype!(x.dtype(), T => Tensor::build(&shape, MemoryFormat::ChannelsLast, |y: &mut [T]| {
                    nearest(dims, &rows, &columns, x.data(), y);
                })?)
            }
            ResampleFilter::Linear => with_float!(x.dtype(), "interpolate", T => {
                let [rows, columns] = axes.map_each(|axis| axis.linear_taps());
                Tensor::build(&shape, MemoryFormat::ChannelsLast, |y: &mut [T]| bilinear(dims, &rows, &columns, x.data(), y))?
            }),
            ResampleFilter::Cubic { a } => with_float!(x.dtype(), "interpolate", T => {
                let [rows, columns] = axes.map_each(|axis| axis.cubic_taps(a));
                Tensor::build(&shape, MemoryFormat::ChannelsLast, |y: &mut [T]| bicubic(dims, &rows, &columns, x.data(), y))?
            }),
        };
        let extents = |_: &[usize]| [Some(options.input_extent([height, width], size))];
        Ok(y.record_window("interpolate", [self], extents, move |grad, _wanted| {
            let grad = grad.to_format(MemoryFormat::ChannelsLast)?;
            Ok([Some(with_float!(grad.dtype(), "interpolate", T => {
                Tensor::build(&[n, c, height, width], MemoryFormat::ChannelsLast, |dx: &mut [T]| {
                    options.backward(dims, size, grad.data(), dx);
                })?
            }))])
        }))
    }
}

fn expected_images(x: &Tensor) -> Error {
    Error::shape("interpolate", format!("expected input [N, C, H, W] or [C, H, W], got shape {:?}", x.shape()))
}

fn expect_factors(factors: [f64; 2]) -> Result<()> {
    // Positions are computed in f32 for the nearest pixel.
    if factors.into_iter().all(|factor| factor > 0.0 && (1.0 / factor) as f32 > 0.0 && ((1.0 / factor) as f32).is_finite()) {
        return Ok(());
    }
    Err(Error::argument("interpolate", format!("the factors must be finite and positive, got {factors:?}")))
}

/// Returns height and width of images that are scaled by factors.
fn scaled_size(x: &Tensor, factors: [f64; 2]) -> Result<[usize; 2]> {
    let &[_, _, height, width] = x.shape() else {
        return Err(expected_images(x));
    };
    expect_factors(factors)?;
    // The conversion ends at the largest size, which memory cannot hold.
    Ok([(height as f64 * factors[0]).floor() as usize, (width as f64 * factors[1]).floor() as usize])
}

#[cfg(test)]
mod tests;
