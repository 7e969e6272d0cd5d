//! Transposed convolution: the input gradient of a convolution, as an operation.

use super::batch::batched;
use super::conv::{ConvCall, TRANSPOSED, algorithm, check_groups, check_operands, check_size};
use super::options::option_setters;
use crate::error::{Error, Result};
use crate::kernels::conv::ConvGeometry;
use crate::kernels::geometry::Window;
use crate::kernels::runtime::arrays::MapEach;
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::Tensor;
use crate::tensor::meta::InputExtent;

/// Options of [`Tensor::conv_transpose2d`]; pairs are (height, width), see
/// [`Pair`](crate::Pair).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvTranspose2dOptions {
    /// Distance in the output between neighbouring input elements.
    pub stride: [usize; 2],
    /// Rows and columns cut off on both sides of the output.
    pub padding: [usize; 2],
    /// Rows and columns added at the bottom and the right of the output; less than stride or
    /// dilation.
    pub output_padding: [usize; 2],
    /// Distance between neighbouring kernel elements.
    pub dilation: [usize; 2],
    /// Groups of channels that are convolved separately.
    pub groups: usize,
}

impl Default for ConvTranspose2dOptions {
    fn default() -> Self {
        ConvTranspose2dOptions { stride: [1, 1], padding: [0, 0], output_padding: [0, 0], dilation: [1, 1], groups: 1 }
    }
}

option_setters!(ConvTranspose2dOptions, [stride, padding, output_padding, dilation], groups: usize);

/// Options of [`Tensor::conv_transpose1d`], as [`ConvTranspose2dOptions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvTranspose1dOptions {
    /// Distance in the output between neighbouring input elements.
    pub stride: usize,
    /// Positions cut off at each end of the output.
    pub padding: usize,
    /// Positions added at the end of the output; less than stride or dilation.
    pub output_padding: usize,
    /// Distance between neighbouring kernel elements.
    pub dilation: usize,
    /// Groups of channels that are convolved separately.
    pub groups: usize,
}

impl Default for ConvTranspose1dOptions {
    fn default() -> Self {
        ConvTranspose1dOptions { stride: 1, padding: 0, output_padding: 0, dilation: 1, groups: 1 }
    }
}

option_setters!(ConvTranspose1dOptions, [], stride: usize, padding: usize, output_padding: usize, dilation: usize, groups: usize);

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Returns the inverse of `a` modulo `m`: the number whose product with `a` has remainder 1 when
/// divided by `m`. The two must have no common factor.
fn inverse(a: i64, m: i64) -> i64 {
    // The extended Euclidean algorithm.
    let (mut rest, mut factor) = ([m, a.rem_euclid(m.max(1))], [0, 1]);
    while rest[1] != 0 {
        let quotient = rest[0] / rest[1];
        rest = [rest[1], rest[0] - quotient * rest[1]];
        factor = [factor[1], factor[0] - quotient * factor[1]];
    }
    factor[0].rem_euclid(m)
}

/// Returns the positions that a transposed convolution reads, given the window of the convolution
/// whose input gradient it is.
fn input_extent(window: &Window) -> InputExtent {
    let &Window { input, kernel, stride, padding, dilation, .. } = window;
    // Of the windows that have a tap on one position, neighbouring ones are `step` windows apart.
    let step = [0, 1].map_each(|axis| dilation[axis] / gcd(dilation[axis], stride[axis]));
    let extent = InputExtent::new(input, stride.map_each(|stride| 1.0 / stride as f64), |axis, at| {
        // Window `i` has taps from `i·stride − padding` on, `dilation` apart.
        let (stride, place, dilation) = (stride[axis] as isize, at + padding[axis] as isize, dilation[axis] as isize);
        let extent = (kernel[axis] as isize - 1) * dilation;
        let (first, last) = ((place - extent + stride - 1).div_euclid(stride), place.div_euclid(stride));
        // Windows with a tap on the position are `step` apart; the inverse of the stride gives one
        // of them.
        let (step, common) = (step[axis] as isize, gcd(dilation as usize, stride as usize) as isize);
        if place % common != 0 {
            return [last + 1, last];
        }
        let inverse = i128::from(inverse((stride / common) as i64, step as i64));
        let one = (i128::from((place / common) as i64) * inverse).rem_euclid(step as i128) as isize;
        let ends = [first + (one - first).rem_euclid(step), last - (last - one).rem_euclid(step)];
        if ends[0] > last { [last + 1, last] } else { ends }
    });
    InputExtent { step, ..extent }
}

impl Tensor {
    /// Computes a transposed convolution, the input gradient of a convolution; networks use it for
    /// learned upsampling.
    ///
    /// # Shape
    /// `[N, C_in, H, W]` with a weight `[C_in, C_out / groups, kH, kW]` and a bias `[C_out]` gives
    /// `[N, C_out, H', W']`, channels-last, where
    /// `H' = (H − 1)·stride − 2·padding + dilation·(kH − 1) + output_padding + 1`. A single image
    /// `[C_in, H, W]` gives `[C_out, H', W']`, row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] when sizes do not fit or leave no output, [`Error::Argument`] when groups
    /// do not divide the channels or the output padding is not less than stride or dilation;
    /// [`Error::DType`] unless all are floating point, [`Error::MixedDTypes`] unless they have the
    /// same type.
    ///
    /// ```
    /// use convnet::{Tensor, ops::ConvTranspose2dOptions};
    ///
    /// // Each pixel becomes a square of 2×2.
    /// let x = Tensor::from_vec(vec![1.0f32, 3.0], [1, 1, 1, 2])?;
    /// let y = x.conv_transpose2d(&Tensor::ones([1, 1, 2, 2]), None, ConvTranspose2dOptions::new().stride(2))?;
    /// assert_eq!(y.to_vec::<f32>()?, [1.0, 1.0, 3.0, 3.0, 1.0, 1.0, 3.0, 3.0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn conv_transpose2d(&self, weight: &Tensor, bias: Option<&Tensor>, options: ConvTranspose2dOptions) -> Result<Tensor> {
        batched(self, 4, |x| x.transposed(weight, bias, options))
    }

    fn transposed(&self, weight: &Tensor, bias: Option<&Tensor>, options: ConvTranspose2dOptions) -> Result<Tensor> {
        const OP: &str = TRANSPOSED;
        let (&[batch, channels_in, height, width], &[rows, group_out, kh, kw]) = (self.shape(), weight.shape()) else {
            let (x, w) = (self.shape(), weight.shape());
            let wanted = "expected input [N, C, H, W] or [C, H, W] and weight [C_in, C_out / groups, kH, kW]";
            return Err(Error::shape(OP, format!("{wanted}, got {x:?} and {w:?}")));
        };
        let observed = operation(OP);
        let ConvTranspose2dOptions { stride, padding, output_padding, dilation, groups } = options;
        observed.details(|| {
            let windows = Details::new().ints("stride", &stride).ints("padding", &padding).ints("dilation", &dilation);
            windows.ints("output_padding", &output_padding).int("groups", groups)
        });
        let too_large = || Error::shape(OP, "the output is larger than memory can hold");
        let channels_out = group_out.checked_mul(groups).ok_or_else(too_large)?;
        check_operands(OP, self, weight, bias, channels_out)?;
        check_groups(OP, groups, &[("input", channels_in), ("output", channels_out)])?;
        if rows != channels_in || rows == 0 {
            let (x, w) = (self.shape(), weight.shape());
            return Err(Error::shape(OP, format!("weight {w:?} wants {rows} input channels, input {x:?} has {channels_in}")));
        }
        let mut output = [0; 2];
        for axis in 0..2 {
            if output_padding[axis] >= stride[axis].max(dilation[axis]) {
                return Err(Error::argument(
                    OP,
                    format!("output padding {output_padding:?} must be less than stride {stride:?} or dilation {dilation:?}"),
                ));
            }
            let kernel = [kh, kw][axis];
            let reach = kernel.checked_sub(1).and_then(|k| k.checked_mul(dilation[axis]));
            let steps = [height, width][axis].checked_sub(1).and_then(|n| n.checked_mul(stride[axis]));
            let full = reach.zip(steps).and_then(|(reach, steps)| reach.checked_add(steps)?.checked_add(output_padding[axis] + 1));
            let cut = padding[axis].checked_mul(2).ok_or_else(too_large)?;
            output[axis] = match full.and_then(|full| full.checked_sub(cut)) {
                Some(size) if size > 0 => size,
                _ => {
                    let x = self.shape();
                    return Err(Error::shape(OP, format!("input {x:?}, kernel {kh}×{kw} and padding {padding:?} leave no output")));
                }
            };
        }
        // The convolution whose input gradient this is: it maps the output's size to the input's.
        let mut window = Window::new(output, [kh, kw], stride, padding, dilation, false).map_err(|message| Error::shape(OP, message))?;
        window.output = [height, width];
        let geometry = ConvGeometry { batch, channels_in: channels_out, channels_out: channels_in, groups, window };
        let pass = ConvCall { op: OP, geometry, algorithm: algorithm() };
        check_size(OP, pass.input_shape(), &window)?;

        let y = pass.input_gradient(self, weight, bias)?;
        let x = weight.is_recorded().then(|| self.detach());
        let (w, none) = (weight.detach(), Tensor::scalar(0u8));
        let extents = |_: &[usize]| [Some(input_extent(&window)), None, None];
        Ok(y.record_window(OP, [self, weight, bias.unwrap_or(&none)], extents, move |grad, wanted| {
            let of_x = if wanted[0] { Some(pass.forward(grad, &w, None, false)?.0) } else { None };
            let of_w = x.as_ref().map(|x| pass.weight_gradient(grad, x, w.shape())).transpose()?;
            let of_bias = if wanted[2] { Some(grad.sum([0, 2, 3])?) } else { None };
            Ok([of_x, of_w, of_bias])
        }))
    }

    /// Computes a one-dimensional transposed convolution, as
    /// [`conv_transpose2d`](Tensor::conv_transpose2d).
    ///
    /// # Shape
    /// `[N, C_in, L]` with a weight `[C_in, C_out / groups, k]` and a bias `[C_out]` gives
    /// `[N, C_out, L']`, and `[C_in, L]` gives `[C_out, L']`, with
    /// `L' = (L − 1)·stride − 2·padding + dilation·(k − 1) + output_padding + 1`; row-major.
    ///
    /// # Errors
    /// Those of [`conv_transpose2d`](Tensor::conv_transpose2d): [`Error::Shape`] when sizes do not
    /// fit.
    ///
    /// ```
    /// use convnet::{Tensor, ops::ConvTranspose1dOptions};
    ///
    /// let x = Tensor::from_vec(vec![1.0f32, 3.0], [1, 2])?;
    /// let y = x.conv_transpose1d(&Tensor::ones([1, 1, 2]), None, ConvTranspose1dOptions::new().stride(2))?;
    /// assert_eq!(y.to_vec::<f32>()?, [1.0, 1.0, 3.0, 3.0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn conv_transpose1d(&self, weight: &Tensor, bias: Option<&Tensor>, options: ConvTranspose1dOptions) -> Result<Tensor> {
        batched(self, 3, |x| {
            if x.ndim() != 3 || weight.ndim() != 3 {
                let wanted = "expected input [N, C, L] or [C, L] and weight [C_in, C_out / groups, k]";
                return Err(Error::shape("conv_transpose1d", format!("{wanted}, got {:?} and {:?}", x.shape(), weight.shape())));
            }
            let ConvTranspose1dOptions { stride, padding, output_padding, dilation, groups } = options;
            // A sequence is a map of height 1.
            let options = ConvTranspose2dOptions {
                stride: [1, stride],
                padding: [0, padding],
                output_padding: [0, output_padding],
                dilation: [1, dilation],
                groups,
            };
            x.unsqueeze(2)?.conv_transpose2d(&weight.unsqueeze(2)?, bias, options)?.squeeze(2)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_does_not_fit() {
        let x = Tensor::zeros([1, 4, 5, 5]);
        let plain = ConvTranspose2dOptions::default();
        for (result, expected) in [
            (x.conv_transpose2d(&Tensor::zeros([3, 2, 3, 3]), None, plain), "wants 3 input channels"),
            (
                x.conv_transpose2d(&Tensor::zeros([4, 2, 3, 3]), None, ConvTranspose2dOptions { output_padding: [1, 0], ..plain }),
                "output padding",
            ),
            (
                x.conv_transpose2d(&Tensor::zeros([4, 2, 1, 1]), None, ConvTranspose2dOptions { padding: [3, 3], ..plain }),
                "leave no output",
            ),
            (x.conv_transpose2d(&Tensor::zeros([4, 2, 0, 1]), None, plain), "leave no output"),
        ] {
            let message = result.expect_err("the operands do not fit").to_string();
            assert!(message.contains(expected), "{message:?} does not contain {expected:?}");
        }
    }

    #[test]
    fn transposed_convolution_reads_from_first_to_last_window_with_a_tap_on_the_position() {
        for (stride, dilation, padding, kernel) in [(1, 1, 0, 3), (2, 3, 1, 3), (4, 6, 3, 4), (6, 4, 2, 2), (3, 3, 0, 2), (5, 12, 7, 3)] {
            let size = [40, 1];
            let window = Window::new(size, [kernel, 1], [stride, 1], [padding, 0], [dilation, 1], false).unwrap();
            let extent = input_extent(&window);
            for (at, &[first, last]) in extent.places[0].iter().enumerate() {
                let has_tap = |i: &isize| {
                    let distance = at as isize + padding as isize - i * stride as isize;
                    (0..kernel as isize).any(|tap| tap * dilation as isize == distance)
                };
                let windows: Vec<isize> = (-100..100).filter(has_tap).collect();
                match (windows.first(), windows.last()) {
                    (Some(&from), Some(&to)) => assert_eq!([first, last], [from, to], "{window:?} at {at}"),
                    _ => assert!(first > last, "{window:?} at {at}: {first}..={last}"),
                }
            }
        }
    }

    #[test]
    fn empty_batches_pass() {
        let x = Tensor::zeros([0, 3, 8, 8]);
        let y = x.conv_transpose2d(&Tensor::zeros([3, 2, 2, 2]), None, ConvTranspose2dOptions::default()).unwrap();
        assert_eq!(y.shape(), [0, 2, 9, 9]);
    }
}
