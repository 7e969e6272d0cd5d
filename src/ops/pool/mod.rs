//! Pooling: the largest element or the average of each window of a map.
//!
//! Windows slide ([`Tensor::max_pool2d`], [`Tensor::avg_pool2d`]) or divide the map evenly among a
//! given number of outputs ([`Tensor::adaptive_max_pool2d`], [`Tensor::adaptive_avg_pool2d`]). Max
//! pooling saves the position of each window's largest element in one byte (eight for windows of
//! more than 256 elements), and only when a gradient may be needed.

mod sequences;
mod unpool;

pub use sequences::Pool1dOptions;

use super::batch::batched;
use super::conv::input_extent;
use super::options::option_setters;
use crate::error::{Error, Result};
use crate::kernels::geometry::Window;
use crate::kernels::pool::{self, Divisor, Pooling};
use crate::kernels::runtime::allocator;
use crate::kernels::runtime::arrays::MapEach;
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::compute::map_with;
use crate::tensor::meta::InputExtent;
use crate::tensor::shape::try_numel;
use crate::tensor::{DType, MemoryFormat, Pair, Tensor, with_float};

/// Options of sliding pooling windows. By default the stride is the kernel's size and there is no
/// padding. Pairs are (height, width), see [`Pair`](crate::Pair).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool2dOptions {
    /// Distance between windows; `[0, 0]`, the default, means the kernel's size.
    pub stride: [usize; 2],
    /// Positions added around the map, at most half of the dilated kernel. They count as -∞ for the
    /// maximum and as 0 for the average.
    pub padding: [usize; 2],
    /// Distance between the elements of a window; max pooling only.
    pub dilation: [usize; 2],
    /// Whether the last window may extend past the end of the map, so that no element is left out.
    pub ceil_mode: bool,
    /// Whether the divisor of an average counts the padding.
    pub count_include_pad: bool,
    /// The divisor of an average, at least 1, instead of the number of positions; average pooling
    /// only.
    pub divisor_override: Option<usize>,
}

impl Default for Pool2dOptions {
    fn default() -> Self {
        Pool2dOptions {
            stride: [0, 0],
            padding: [0, 0],
            dilation: [1, 1],
            ceil_mode: false,
            count_include_pad: true,
            divisor_override: None,
        }
    }
}

option_setters!(Pool2dOptions, [stride, padding, dilation], ceil_mode: bool, count_include_pad: bool, divisor_override: Option<usize>);

impl Pool2dOptions {
    fn details(self, kernel: [usize; 2]) -> Details {
        let Pool2dOptions { stride, padding, dilation, ceil_mode, count_include_pad, divisor_override } = self;
        let stride = if stride == [0, 0] { kernel } else { stride };
        let windows = Details::new().ints("kernel", &kernel).ints("stride", &stride).ints("padding", &padding).ints("dilation", &dilation);
        let windows = windows.flag("ceil_mode", ceil_mode).flag("count_include_pad", count_include_pad);
        // 0 stands for the number of positions.
        windows.int("divisor_override", divisor_override.unwrap_or(0))
    }
}

/// Returns the shape of a map, of which only the batch may be empty.
fn map_shape(op: &'static str, x: &Tensor) -> Result<[usize; 4]> {
    x.expect_float(op)?;
    match *x.shape() {
        [n, c, h, w] if c > 0 && h > 0 && w > 0 => Ok([n, c, h, w]),
        _ => Err(Error::shape(op, format!("expected [N, C, H, W] or [C, H, W] of which only N may be 0, got shape {:?}", x.shape()))),
    }
}

fn sliding(op: &'static str, x: &Tensor, kernel: [usize; 2], options: Pool2dOptions) -> Result<Window> {
    let [_, _, h, w] = map_shape(op, x)?;
    let Pool2dOptions { stride, padding, dilation, ceil_mode, .. } = options;
    let stride = if stride == [0, 0] { kernel } else { stride };
    let window = Window::new([h, w], kernel, stride, padding, dilation, ceil_mode).map_err(|message| Error::argument(op, message))?;
    // `Window::new` has checked that the extent does not overflow.
    let extent = [0, 1].map_each(|axis| (kernel[axis] - 1) * dilation[axis] + 1);
    if (0..2).any(|axis| padding[axis] > extent[axis] / 2) {
        let dilated = if extent == kernel { String::new() } else { format!(" (dilated to {extent:?})") };
        return Err(Error::argument(op, format!("padding {padding:?} is more than half of the kernel {kernel:?}{dilated}")));
    }
    if let Some((axis, at)) = (0..2).find_map(|axis| Some((axis, window.only_padding(axis)?))) {
        let along = ["row", "column"][axis];
        let message = format!(
            "{along} {at} of the windows holds padding only: with dilation {dilation:?} and padding {padding:?} the taps of kernel {kernel:?} \
             step over the input {h}×{w}; use a smaller dilation or another padding"
        );
        return Err(Error::argument(op, message));
    }
    Ok(window)
}

/// Returns the result's shape, after checking that memory can hold it.
fn pooled_shape(op: &'static str, x: &Tensor, [h, w]: [usize; 2]) -> Result<[usize; 4]> {
    let shape = [x.shape()[0], x.shape()[1], h, w];
    match try_numel(&shape) {
        Some(_) => Ok(shape),
        None => Err(Error::shape(op, format!("the result {shape:?} has more elements than memory can hold"))),
    }
}

/// Checks that memory can hold the tables of the positions along both sides, which are made before
/// the result.
pub(super) fn expect_tables(size: [usize; 2]) -> Result<()> {
    // The size of a table entry: a window or a pair of taps.
    const BYTES: usize = 64;
    Ok(allocator::check(size[0].saturating_add(size[1]).saturating_mul(BYTES))?)
}

/// Returns what adaptive windows read: output `i` reads from `⌊i·in/out⌋` to `⌈(i + 1)·in/out⌉`.
fn shares(input: [usize; 2], output: [usize; 2]) -> InputExtent {
    let scale = [0, 1].map_each(|axis| input[axis] as f64 / output[axis] as f64);
    InputExtent::new(output, scale, |axis, at| {
        let (input, output) = (input[axis] as isize, output[axis] as isize);
        [at * input / output, ((at + 1) * input + output - 1) / output - 1]
    })
}

impl Tensor {
    /// Returns the largest element of each window; NaN counts as the largest. Of equal elements the
    /// first one in row-major order gets the gradient.
    ///
    /// # Shape
    /// `[N, C, H, W]` gives `[N, C, outH, outW]`, channels-last, and `[C, H, W]` gives
    /// `[C, outH, outW]`, row-major, with
    /// `outH = ⌊(H + 2·padding - dilation·(kernel - 1) - 1) / stride⌋ + 1`, rounded up with
    /// `ceil_mode` unless the last window would start after the end of the map.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of dimensions or an empty map (an empty batch is
    /// allowed), [`Error::Argument`] for a window that does not fit, a padding of more than half of
    /// the dilated kernel, or a window that holds only padding (for which PyTorch gives -∞),
    /// [`Error::DType`] unless floating point.
    ///
    /// ```
    /// use convnet::{Tensor, ops::Pool2dOptions};
    ///
    /// let x = Tensor::from_vec(vec![1f32, 2., 3., 4., 5., 6., 7., 8., 9.], [1, 1, 3, 3])?;
    /// let y = x.max_pool2d(2, Pool2dOptions::new().stride(1))?;
    /// assert_eq!(y.to_vec::<f32>()?, [5., 6., 8., 9.]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn max_pool2d(&self, kernel: impl Into<Pair>, options: Pool2dOptions) -> Result<Tensor> {
        let kernel = kernel.into().0;
        batched(self, 4, |x| Ok(x.max_windows(kernel, options, false)?.0))
    }

    // The code of the public functions is in functions without type parameters, so that it is
    // compiled once, not for each type of argument.
    fn max_windows(&self, kernel: [usize; 2], options: Pool2dOptions, positions: bool) -> Result<(Tensor, Option<Tensor>)> {
        let observed = operation("max_pool2d");
        observed.details(|| options.details(kernel));
        let window = sliding("max_pool2d", self, kernel, options)?;
        let shape = pooled_shape("max_pool2d", self, window.output)?;
        self.max_pool("max_pool2d", shape, positions, || Pooling::sliding(&window, Divisor::Taps), &|| input_extent(&window))
    }

    /// Returns the largest element of each of `h × w` windows that divide the map evenly; `h` and
    /// `w` may also be larger than the map.
    ///
    /// # Shape
    /// `[N, C, H, W]` gives `[N, C, h, w]`, channels-last, and `[C, H, W]` gives `[C, h, w]`,
    /// row-major. Output `i` reads the rows from `⌊i·H/h⌋`
    /// to `⌈(i + 1)·H/h⌉`.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of dimensions or an empty map, [`Error::DType`] unless
    /// floating point.
    pub fn adaptive_max_pool2d(&self, output: impl Into<Pair>) -> Result<Tensor> {
        let output = output.into().0;
        batched(self, 4, |x| x.adaptive_max(output))
    }

    fn adaptive_max(&self, output: [usize; 2]) -> Result<Tensor> {
        let observed = operation("adaptive_max_pool2d");
        observed.details(|| Details::new().ints("size", &output));
        let [_, _, h, w] = map_shape("adaptive_max_pool2d", self)?;
        let shape = pooled_shape("adaptive_max_pool2d", self, output)?;
        let pooling = || Pooling::adaptive([h, w], output);
        Ok(self.max_pool("adaptive_max_pool2d", shape, false, pooling, &|| shares([h, w], output))?.0)
    }

    /// Computes a max pooling and, with `positions`, where in the map each maximum is.
    fn max_pool(
        &self,
        op: &'static str,
        shape: [usize; 4],
        positions: bool,
        pooling: impl FnOnce() -> Pooling,
        extent: &dyn Fn() -> InputExtent,
    ) -> Result<(Tensor, Option<Tensor>)> {
        if shape.contains(&0) {
            let none = if positions { Some(Tensor::try_full(shape, 0.0, DType::I64)?) } else { None };
            return Ok((self.nothing(op, shape, extent)?, none));
        }
        expect_tables([shape[2], shape[3]])?;
        let pooling = pooling();
        let x = self.to_format(MemoryFormat::ChannelsLast)?;
        let format = MemoryFormat::ChannelsLast;
        let (channels, x_shape) = (shape[1], self.shape().to_vec());
        with_float!(self.dtype(), op, T => {
            let mut winners = None;
            let y = Tensor::try_build(&shape, format, |y: &mut [T]| {
                if !self.is_recorded() && !positions {
                    pool::max::<T, u8>(&pooling, channels, x.data(), y, None);
                } else if pooling.fits_byte() {
                    winners = Some(Tensor::build(&shape, format, |at: &mut [u8]| pool::max(&pooling, channels, x.data(), y, Some(at)))?);
                } else {
                    winners = Some(Tensor::build(&shape, format, |at: &mut [i64]| pool::max(&pooling, channels, x.data(), y, Some(at)))?);
                }
                Ok(())
            })?;
            let positions = if positions {
                Some(Tensor::build(&shape, format, |positions: &mut [i64]| match &winners {
                    Some(at) if pooling.fits_byte() => pool::positions(&pooling, channels, at.data::<u8>(), positions),
                    Some(at) => pool::positions(&pooling, channels, at.data::<i64>(), positions),
                    None => {}
                })?)
            } else {
                None
            };
            let y = y.record_window(op, [self], |_| [Some(extent())], move |grad, _wanted| {
                let grad = grad.to_format(format)?;
                let at = winners.as_ref().expect("kept when recorded");
                Ok([Some(Tensor::build(&x_shape, format, |dx: &mut [T]| if pooling.fits_byte() {
                    pool::max_backward(&pooling, channels, grad.data(), at.data::<u8>(), dx);
                } else {
                    pool::max_backward(&pooling, channels, grad.data(), at.data::<i64>(), dx);
                })?)])
            });
            Ok((y, positions))
        })
    }

    /// Returns the average of each window.
    ///
    /// # Shape
    /// As [`max_pool2d`](Tensor::max_pool2d).
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of dimensions or an empty map (an empty batch is
    /// allowed), [`Error::Argument`] for a window that does not fit, a padding of more than half of
    /// the kernel, a window that holds only padding, a dilation, or a `divisor_override` of 0;
    /// [`Error::DType`] unless floating point.
    ///
    /// ```
    /// use convnet::{Tensor, ops::Pool2dOptions};
    ///
    /// let y = Tensor::ones([1, 1, 2, 2]).avg_pool2d(2, Pool2dOptions::new().stride(1).padding(1))?;
    /// assert_eq!(y.to_vec::<f32>()?, [0.25, 0.5, 0.25, 0.5, 1.0, 0.5, 0.25, 0.5, 0.25]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn avg_pool2d(&self, kernel: impl Into<Pair>, options: Pool2dOptions) -> Result<Tensor> {
        let kernel = kernel.into().0;
        batched(self, 4, |x| x.average_windows(kernel, options))
    }

    fn average_windows(&self, kernel: [usize; 2], options: Pool2dOptions) -> Result<Tensor> {
        let observed = operation("avg_pool2d");
        observed.details(|| options.details(kernel));
        if options.dilation != [1, 1] {
            return Err(Error::argument("avg_pool2d", format!("windows cannot be dilated, got dilation {:?}", options.dilation)));
        }
        if options.divisor_override == Some(0) {
            return Err(Error::argument(
                "avg_pool2d",
                "divisor_override must be at least 1, got 0; None divides by the number of positions",
            ));
        }
        let window = sliding("avg_pool2d", self, kernel, options)?;
        let shape = pooled_shape("avg_pool2d", self, window.output)?;
        let whole_map = window.output == [1, 1] && kernel == window.input && options.padding == [0, 0];
        let divisor = match options.divisor_override {
            Some(divisor) => Divisor::Given(divisor),
            None if options.count_include_pad => Divisor::Padded,
            None => Divisor::Taps,
        };
        let pooling = || Pooling::sliding(&window, divisor);
        let whole_map = whole_map.then_some(options.divisor_override.unwrap_or(kernel[0] * kernel[1]));
        self.average_pool("avg_pool2d", shape, whole_map, pooling, &|| input_extent(&window))
    }

    /// Returns the average of each of `h × w` windows that divide the map evenly; `[1, 1]` is
    /// global average pooling (Lin et al., 2013).
    ///
    /// # Shape
    /// As [`adaptive_max_pool2d`](Tensor::adaptive_max_pool2d).
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of dimensions or an empty map, [`Error::DType`] unless
    /// floating point.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let x = Tensor::from_vec(vec![1.0f32, 2.0, 3.0, 6.0, 8.0], [1, 1, 5])?;
    /// assert_eq!(x.adaptive_avg_pool2d(1)?.to_vec::<f32>()?, [4.0]);
    /// // Windows overlap where the size does not divide: 1 2 3 and 3 6 8.
    /// assert_eq!(x.adaptive_max_pool2d([1, 2])?.to_vec::<f32>()?, [3.0, 8.0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn adaptive_avg_pool2d(&self, output: impl Into<Pair>) -> Result<Tensor> {
        let output = output.into().0;
        batched(self, 4, |x| x.adaptive_average(output))
    }

    fn adaptive_average(&self, output: [usize; 2]) -> Result<Tensor> {
        let observed = operation("adaptive_avg_pool2d");
        observed.details(|| Details::new().ints("size", &output));
        let [_, _, h, w] = map_shape("adaptive_avg_pool2d", self)?;
        let shape = pooled_shape("adaptive_avg_pool2d", self, output)?;
        let pooling = || Pooling::adaptive([h, w], output);
        self.average_pool("adaptive_avg_pool2d", shape, (output == [1, 1]).then_some(h * w), pooling, &|| shares([h, w], output))
    }

    /// Computes an average pooling; with `whole_map`, a divisor, there is one window, which covers
    /// the whole map.
    fn average_pool(
        &self,
        op: &'static str,
        shape: [usize; 4],
        whole_map: Option<usize>,
        pooling: impl FnOnce() -> Pooling,
        extent: &dyn Fn() -> InputExtent,
    ) -> Result<Tensor> {
        if shape.contains(&0) {
            return self.nothing(op, shape, extent);
        }
        expect_tables([shape[2], shape[3]])?;
        let pooling = pooling();
        let format = MemoryFormat::ChannelsLast;
        let x = self.to_format(format)?;
        let (channels, x_shape) = (shape[1], self.shape().to_vec());
        with_float!(self.dtype(), op, T => {
            let y = Tensor::build(&shape, format, |y: &mut [T]| pool::average(&pooling, channels, x.data(), y))?;
            Ok(y.record_window(op, [self], |_| [Some(extent())], move |grad, _wanted| {
                let grad = grad.to_format(format)?;
                if let Some(divisor) = whole_map {
                    // Every position has the same gradient, so the autograd engine expands it.
                    let share = 1.0 / divisor as T;
                    return Ok([Some(map_with(&grad, 1, |grad: T| grad * share)?)]);
                }
                Ok([Some(Tensor::build(&x_shape, format, |dx: &mut [T]| pool::average_backward(&pooling, channels, grad.data(), dx))?)])
            }))
        })
    }

    /// Returns a result without elements, whose input's gradient is zero. No tables are built,
    /// because sizes next to a 0 may be arbitrarily large.
    fn nothing(&self, op: &'static str, shape: [usize; 4], extent: &dyn Fn() -> InputExtent) -> Result<Tensor> {
        let zeros = self.detach();
        let y = Tensor::try_full(shape, 0.0, self.dtype())?;
        Ok(y.record_window(op, [self], |_| [Some(extent())], move |_grad, _wanted| Ok([Some(zeros.try_full_like(0.0)?)])))
    }
}

#[cfg(test)]
mod tests;
