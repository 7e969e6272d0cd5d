//! Convolution in one and two dimensions.

use std::cell::Cell;

use super::batch::batched;
use super::options::option_setters;
use crate::error::{Error, Result};
use crate::kernels::conv::{self, ConvGeometry};
use crate::kernels::geometry::Window;
use crate::kernels::norm::moments::Moments;
use crate::kernels::runtime::arrays::MapEach;
use crate::profiling::hooks::{Convolution, convolution, operation};
use crate::profiling::record::Details;
use crate::tensor::compute::like_input;
use crate::tensor::guard::with_value;
use crate::tensor::meta::InputExtent;
use crate::tensor::shape::try_numel;
use crate::tensor::{DType, MemoryFormat, Tensor, with_float};

pub use crate::kernels::conv::{ConvAlgorithm, ConvPass};

thread_local! {
    static ALGORITHM: Cell<ConvAlgorithm> = const { Cell::new(ConvAlgorithm::Auto) };
}

/// Runs `body` with one algorithm for every convolution on this thread, forward and backward.
///
/// ```
/// use convnet::{Tensor, ops::{Conv2dOptions, ConvAlgorithm}};
///
/// let (x, w) = (Tensor::randn([1, 3, 8, 8]), Tensor::randn([4, 3, 3, 3]));
/// let y = convnet::with_algorithm(ConvAlgorithm::Im2col, || x.conv2d(&w, None, Conv2dOptions::new()))?;
/// assert!(y.shape() == [1, 4, 6, 6]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn with_algorithm<R>(algorithm: ConvAlgorithm, body: impl FnOnce() -> R) -> R {
    with_value(&ALGORITHM, algorithm, body)
}

/// Returns the algorithm that convolutions on this thread use.
pub(crate) fn algorithm() -> ConvAlgorithm {
    ALGORITHM.get()
}

/// Options of [`Tensor::conv2d`]; pairs are (height, width), see [`Pair`](crate::Pair).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dOptions {
    /// Distance between neighbouring windows.
    pub stride: [usize; 2],
    /// Zeros added on both sides.
    pub padding: [usize; 2],
    /// Distance between neighbouring kernel elements.
    pub dilation: [usize; 2],
    /// Groups of channels that are convolved separately; divides the channels of input and output.
    pub groups: usize,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Conv2dOptions { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 }
    }
}

option_setters!(Conv2dOptions, [stride, padding, dilation], groups: usize);

/// Options of [`Tensor::conv1d`], as [`Conv2dOptions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv1dOptions {
    /// Distance between neighbouring windows.
    pub stride: usize,
    /// Zeros added on both sides.
    pub padding: usize,
    /// Distance between neighbouring kernel elements.
    pub dilation: usize,
    /// Groups of channels that are convolved separately.
    pub groups: usize,
}

impl Default for Conv1dOptions {
    fn default() -> Self {
        Conv1dOptions { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}

option_setters!(Conv1dOptions, [], stride: usize, padding: usize, dilation: usize, groups: usize);

/// Checks that the operands have one floating-point dtype and that the bias, if any, has one
/// element for each of `channels`.
pub(super) fn check_operands(op: &'static str, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, channels: usize) -> Result<()> {
    x.expect_float(op)?;
    like_input(op, x, "weight", weight)?;
    let Some(bias) = bias else { return Ok(()) };
    like_input(op, x, "bias", bias)?;
    if bias.shape() != [channels] {
        return Err(Error::shape(op, format!("expected a bias [{channels}], got shape {:?}", bias.shape())));
    }
    Ok(())
}

/// Checks that the groups divide the channels.
pub(super) fn check_groups(op: &'static str, groups: usize, channels: &[(&str, usize)]) -> Result<()> {
    for &(name, count) in channels {
        if groups == 0 || count % groups != 0 {
            return Err(Error::argument(op, format!("{groups} groups do not divide {count} {name} channels")));
        }
    }
    Ok(())
}

/// Checks that all elements of a map `[n, c, h, w]` can be addressed, with padding of the kernel's
/// extent as scratch.
pub(super) fn check_size(op: &'static str, [n, c, h, w]: [usize; 4], window: &Window) -> Result<()> {
    let padded =
        |axis: usize, size: usize| size.checked_add(2 * window.padding[axis])?.checked_add(window.kernel[axis] * window.dilation[axis]);
    let fits = padded(0, h).zip(padded(1, w)).and_then(|(h, w)| try_numel(&[n.max(1), c.max(1), h, w]));
    fits.map(|_| ()).ok_or_else(|| Error::shape(op, format!("a map of shape {:?} is larger than memory can hold", [n, c, h, w])))
}

/// Returns the positions that the windows of a convolution or a pooling read.
pub(super) fn input_extent(window: &Window) -> InputExtent {
    let &Window { output, kernel, stride, padding, dilation, .. } = window;
    let extent = InputExtent::new(output, stride.map_each(|stride| stride as f64), |axis, at| {
        let first = at * stride[axis] as isize - padding[axis] as isize;
        [first, first + ((kernel[axis] - 1) * dilation[axis]) as isize]
    });
    InputExtent { step: dilation, ..extent }
}

/// The operation whose forward pass is a convolution's input gradient.
pub(super) const TRANSPOSED: &str = "conv_transpose2d";

/// The three passes of a convolution on tensors, without history.
#[derive(Clone, Copy)]
pub(super) struct ConvCall {
    pub(super) op: &'static str,
    pub(super) geometry: ConvGeometry,
    pub(super) algorithm: ConvAlgorithm,
}

impl ConvCall {
    /// Makes the call of a two-dimensional convolution, after checking its operands.
    pub(super) fn of_conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, options: Conv2dOptions) -> Result<ConvCall> {
        const OP: &str = "conv2d";
        let (&[batch, channels_in, height, width], &[channels_out, group_in, kh, kw]) = (x.shape(), weight.shape()) else {
            let (x, w) = (x.shape(), weight.shape());
            let wanted = "expected input [N, C, H, W] or [C, H, W] and weight [C_out, C_in / groups, kH, kW]";
            return Err(Error::shape(OP, format!("{wanted}, got {x:?} and {w:?}")));
        };
        let Conv2dOptions { stride, padding, dilation, groups } = options;
        check_operands(OP, x, weight, bias, channels_out)?;
        check_groups(OP, groups, &[("input", channels_in), ("output", channels_out)])?;
        if group_in == 0 || group_in.checked_mul(groups) != Some(channels_in) {
            let (x, w, wanted) = (x.shape(), weight.shape(), group_in.saturating_mul(groups));
            return Err(Error::shape(OP, format!("weight {w:?} wants {wanted} input channels, input {x:?} has {channels_in}")));
        }
        let window =
            Window::new([height, width], [kh, kw], stride, padding, dilation, false).map_err(|message| Error::shape(OP, message))?;
        let geometry = ConvGeometry { batch, channels_in, channels_out, groups, window };
        let pass = ConvCall { op: OP, geometry, algorithm: ALGORITHM.get() };
        check_size(OP, pass.input_shape(), &window)?;
        check_size(OP, pass.output_shape(), &window)?;
        Ok(pass)
    }

    pub(super) fn input_shape(&self) -> [usize; 4] {
        let g = &self.geometry;
        [g.batch, g.channels_in, g.window.input[0], g.window.input[1]]
    }

    pub(super) fn output_shape(&self) -> [usize; 4] {
        let g = &self.geometry;
        [g.batch, g.channels_out, g.window.output[0], g.window.output[1]]
    }

    /// Reports to the profiler which pass is computed, whether with weights prepared earlier
    /// (`kept`) or for this call, and the number of multiply-adds, which is the same for every
    /// pass.
    pub(super) fn report(&self, pass: ConvPass, kept: bool, dtype: DType) {
        let ConvCall { op, geometry, algorithm: asked } = *self;
        convolution(|| {
            let of_one = [geometry.group_in(), geometry.taps()];
            let count = self.output_shape().iter().chain(&of_one).fold(1, |count: u64, &size| count.saturating_mul(size as u64));
            (Convolution { geometry, pass, kept, transposed: op == TRANSPOSED, dtype, asked }, count)
        });
    }

    /// Returns the output, and the moments of its channels when they are wanted and elements are
    /// computed.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        wants_moments: bool,
    ) -> Result<(Tensor, Option<Moments>)> {
        self.report(ConvPass::Forward, false, x.dtype());
        let (x, weight) = (x.to_format(MemoryFormat::ChannelsLast)?, weight.to_format(MemoryFormat::RowMajor)?);
        let mut moments = None;
        let y = with_float!(x.dtype(), self.op, T => Tensor::build(&self.output_shape(), MemoryFormat::ChannelsLast, |y: &mut [T]| {
            let (algorithm, geometry, x, w, bias) = (self.algorithm, &self.geometry, x.data(), weight.data(), bias.map(|bias| bias.data()));
            match wants_moments {
                true => moments = Some(conv::forward_with_moments(algorithm, geometry, x, w, bias, y)),
                false => conv::forward(algorithm, geometry, x, w, bias, y),
            }
        })?);
        Ok((y, moments))
    }

    pub(super) fn input_gradient(&self, dy: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        self.report(ConvPass::InputGradient, false, dy.dtype());
        let (dy, weight) = (dy.to_format(MemoryFormat::ChannelsLast)?, weight.to_format(MemoryFormat::RowMajor)?);
        Ok(with_float!(dy.dtype(), self.op, T => Tensor::build(&self.input_shape(), MemoryFormat::ChannelsLast, |dx: &mut [T]| {
            conv::input_gradient(self.algorithm, &self.geometry, dy.data(), weight.data(), bias.map(|bias| bias.data()), dx);
        })?))
    }

    pub(super) fn weight_gradient(&self, x: &Tensor, dy: &Tensor, shape: &[usize]) -> Result<Tensor> {
        self.report(ConvPass::WeightGradient, false, x.dtype());
        let (x, dy) = (x.to_format(MemoryFormat::ChannelsLast)?, dy.to_format(MemoryFormat::ChannelsLast)?);
        Ok(with_float!(x.dtype(), self.op, T => Tensor::build(shape, MemoryFormat::RowMajor, |dw: &mut [T]| {
            conv::weight_gradient(self.algorithm, &self.geometry, x.data(), dy.data(), dw);
        })?))
    }
}

impl Tensor {
    /// Computes a two-dimensional convolution (cross-correlation, as usual in deep learning).
    ///
    /// # Shape
    /// `[N, C_in, H, W]` with a weight `[C_out, C_in / groups, kH, kW]` and a bias `[C_out]` gives
    /// `[N, C_out, H', W']`, channels-last, where
    /// `H' = ⌊(H + 2·padding − dilation·(kH − 1) − 1) / stride⌋ + 1`. A single image `[C_in, H, W]`
    /// gives `[C_out, H', W']`, row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Argument`] when sizes do not fit, groups do not divide the
    /// channels or the kernel is larger than the padded input; [`Error::DType`] unless all are
    /// floating point, [`Error::MixedDTypes`] unless they have the same type.
    ///
    /// ```
    /// use convnet::{Tensor, ops::Conv2dOptions};
    ///
    /// let (x, w) = (Tensor::randn([2, 3, 32, 32]), Tensor::randn([8, 3, 3, 3]));
    /// let y = x.conv2d(&w, None, Conv2dOptions::new().stride(2).padding(1))?;
    /// assert_eq!(y.shape(), [2, 8, 16, 16]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn conv2d(&self, weight: &Tensor, bias: Option<&Tensor>, options: Conv2dOptions) -> Result<Tensor> {
        batched(self, 4, |x| Ok(x.conv2d_with(weight, bias, options, false)?.0))
    }

    /// Computes [`conv2d`](Tensor::conv2d) of a batch and, when a [batch
    /// normalisation](Tensor::batch_norm_of) needs them, the moments of the result's channels, in
    /// the same pass where the algorithm can.
    /// The moments are `None` when no elements are computed.
    ///
    /// # Errors
    /// The errors of [`conv2d`](Tensor::conv2d), mainly [`Error::Shape`] when sizes do not fit.
    pub(crate) fn conv2d_with(
        &self,
        weight: &Tensor,
        bias: Option<&Tensor>,
        options: Conv2dOptions,
        wants_moments: bool,
    ) -> Result<(Tensor, Option<Moments>)> {
        let observed = operation("conv2d");
        let pass = ConvCall::of_conv2d(self, weight, bias, options)?;
        observed.details(|| {
            let Conv2dOptions { stride, padding, dilation, groups } = options;
            Details::new().ints("stride", &stride).ints("padding", &padding).ints("dilation", &dilation).int("groups", groups)
        });
        let (y, moments) = pass.forward(self, weight, bias, wants_moments)?;
        let x = weight.is_recorded().then(|| self.detach());
        let (w, none) = (weight.detach(), Tensor::scalar(0u8));
        let extents = |_: &[usize]| [Some(input_extent(&pass.geometry.window)), None, None];
        let y = y.record_window(pass.op, [self, weight, bias.unwrap_or(&none)], extents, move |grad, wanted| {
            let of_x = if wanted[0] { Some(pass.input_gradient(grad, &w, None)?) } else { None };
            let of_w = x.as_ref().map(|x| pass.weight_gradient(x, grad, w.shape())).transpose()?;
            let of_bias = if wanted[2] { Some(grad.sum([0, 2, 3])?) } else { None };
            Ok([of_x, of_w, of_bias])
        });
        Ok((y, moments))
    }

    /// Computes a one-dimensional convolution.
    ///
    /// # Shape
    /// `[N, C_in, L]` with a weight `[C_out, C_in / groups, k]` and a bias `[C_out]` gives
    /// `[N, C_out, L']`, and `[C_in, L]` gives `[C_out, L']`; row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Argument`] when sizes do not fit, groups do not divide the
    /// channels or the kernel is longer than the padded input; [`Error::DType`] unless all are
    /// floating point, [`Error::MixedDTypes`] unless they have the same type.
    ///
    /// ```
    /// use convnet::{Tensor, ops::Conv1dOptions};
    ///
    /// let x = Tensor::from_vec(vec![1.0f32, 2.0, 4.0, 7.0], [1, 4])?;
    /// let differences = Tensor::from_vec(vec![-1.0f32, 1.0], [1, 1, 2])?;
    /// assert_eq!(x.conv1d(&differences, None, Conv1dOptions::new())?.to_vec::<f32>()?, [1.0, 2.0, 3.0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn conv1d(&self, weight: &Tensor, bias: Option<&Tensor>, options: Conv1dOptions) -> Result<Tensor> {
        batched(self, 3, |x| x.convolve_sequences(weight, bias, options))
    }

    fn convolve_sequences(&self, weight: &Tensor, bias: Option<&Tensor>, options: Conv1dOptions) -> Result<Tensor> {
        let observed = operation("conv1d");
        let (&[n, c, length], &[channels_out, group_in, k]) = (self.shape(), weight.shape()) else {
            let (x, w) = (self.shape(), weight.shape());
            let wanted = "expected input [N, C, L] or [C, L] and weight [C_out, C_in / groups, k]";
            return Err(Error::shape("conv1d", format!("{wanted}, got {x:?} and {w:?}")));
        };
        let Conv1dOptions { stride, padding, dilation, groups } = options;
        observed.details(|| {
            Details::new().ints("stride", &[stride]).ints("padding", &[padding]).ints("dilation", &[dilation]).int("groups", groups)
        });
        let options = Conv2dOptions { stride: [1, stride], padding: [0, padding], dilation: [1, dilation], groups };
        let y = self.reshape([n, c, 1, length])?.conv2d(&weight.reshape([channels_out, group_in, 1, k])?, bias, options)?;
        let length = y.shape()[3];
        let y = y.reshape([n, channels_out, length])?;
        match bias {
            Some(bias) => observed.result(&[self, weight, bias], &[&y]),
            None => observed.result(&[self, weight], &[&y]),
        }
        Ok(y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn zeros<const N: usize>(shape: [usize; N]) -> Tensor {
        Tensor::zeros(shape)
    }

    fn message(result: Result<Tensor>) -> String {
        result.expect_err("the operands do not fit").to_string()
    }

    #[test]
    fn errors_say_what_does_not_fit() {
        let (x, w) = (zeros([8, 1, 28, 28]), zeros([64, 3, 7, 7]));
        let plain = Conv2dOptions::default();
        for (result, expected) in [
            (x.conv2d(&w, None, plain), "conv2d: weight [64, 3, 7, 7] wants 3 input channels, input [8, 1, 28, 28] has 1"),
            (x.conv2d(&zeros([4, 1, 3]), None, plain), "expected input [N, C, H, W] or [C, H, W]"),
            (x.conv2d(&zeros([4, 1, 30, 3]), None, plain), "kernel 30×3 is larger than the padded input 28×28"),
            (x.conv2d(&zeros([4, 1, 3, 3]), Some(&zeros([5])), plain), "expected a bias [4], got shape [5]"),
            (
                x.conv2d(&zeros([4, 1, 3, 3]).cast(DType::F64).unwrap(), None, plain),
                "the input is f32, the weight f64; convert either, with `.to_dtype(DType::F64)` or `.to_dtype(DType::F32)`",
            ),
            (
                x.cast(DType::I64).unwrap().conv2d(&zeros([4, 1, 3, 3]).cast(DType::I64).unwrap(), None, plain),
                "expected f32 or f64, got i64",
            ),
            (x.conv2d(&zeros([4, 1, 3, 3]), None, Conv2dOptions { groups: 3, ..plain }), "3 groups do not divide 1 input channels"),
            (x.conv2d(&zeros([4, 1, 3, 3]), None, Conv2dOptions { groups: 0, ..plain }), "0 groups"),
            (x.conv2d(&zeros([4, 1, 3, 3]), None, Conv2dOptions { stride: [1, 0], ..plain }), "stride 1×0 must not be zero"),
            (x.conv2d(&zeros([4, 1, 0, 3]), None, plain), "kernel 0×3 must not be zero"),
            (x.conv2d(&zeros([4, 1, 3, 3]), None, Conv2dOptions { padding: [usize::MAX, 0], ..plain }), "overflow"),
            (x.conv2d(&zeros([4, 1, 3, 3]), None, Conv2dOptions { padding: [1 << 40, 1 << 40], ..plain }), "larger than memory"),
            (zeros([1, 2, 9]).conv1d(&zeros([4, 3, 3]), None, Conv1dOptions::default()), "wants 3 input channels"),
            (zeros([9]).conv1d(&zeros([4, 2, 3]), None, Conv1dOptions::default()), "expected input [N, C, L] or [C, L]"),
            (zeros([3, 9, 9]).conv2d(&zeros([4, 1, 3, 3]), None, plain), "wants 1 input channels"),
        ] {
            let message = message(result);
            assert!(message.contains(expected), "{message:?} does not contain {expected:?}");
        }
    }

    #[test]
    fn empty_batches_pass_forward_and_backward() {
        let (x, w) = (zeros([0, 3, 8, 8]).with_grad(), zeros([4, 3, 3, 3]).with_grad());
        let y = x.conv2d(&w, None, Conv2dOptions::default()).unwrap();
        assert_eq!(y.shape(), [0, 4, 6, 6]);
        let grads = y.sum(..).unwrap().backward().unwrap();
        assert_eq!(grads.get(&x).unwrap().shape(), [0, 3, 8, 8]);
        assert_eq!(grads.get(&w).unwrap().to_vec::<f32>().unwrap(), vec![0.0; 108]);
    }
}
