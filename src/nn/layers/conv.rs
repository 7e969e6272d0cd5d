//! Convolution layers. All are initialised as in PyTorch: weight and bias uniform in ±1/√fan_in,
//! which for the weight is Kaiming's bound with a = √5.

use std::borrow::Cow;
use std::sync::Arc;

use super::norm::{BatchNorm2d, Running};
use super::padding::{Conv1dPadding, ConvPadding, Padding};
use super::pair::{Pair, product, short};
use super::prepared_cache::{Key, PreparedCache, Source, version};
use crate::autograd::is_grad_enabled;
use crate::error::{Error, Result, channels_hint};
use crate::kernels::runtime::arrays::MapEach;
use crate::nn::init::{layer_default, layer_seed};
use crate::nn::module::Module;
use crate::nn::module::layer::{Layer, LayerPath, is_tracing};
use crate::nn::module::parameter::Parameter;
use crate::ops::{Activation, Conv1dOptions, Conv2dOptions, Moments, PadMode, PreparedConv2d, batched};
use crate::profiling::describe_convolution as describe;
use crate::tensor::Tensor;
use crate::tensor::meta::is_meta;
use crate::tensor::shape::try_numel;
use crate::visit_fields;

/// Returns the weight's shape `[first, second / groups, kernel…]`; `None` when the groups do not
/// divide the channels, or when memory cannot hold the weight.
pub(super) fn weight_shape(first: usize, second: usize, groups: usize, kernel: &[usize]) -> Option<Vec<usize>> {
    if groups == 0 || !first.is_multiple_of(groups) || !second.is_multiple_of(groups) {
        return None;
    }
    let mut shape = vec![first, second / groups];
    shape.extend(kernel);
    try_numel(&shape).map(|_| shape)
}

/// Creates the parameters of a convolution. They are empty when the options are invalid: a builder
/// cannot return an error, so `forward` does.
pub(super) fn parameters(shape: Option<Vec<usize>>, outputs: usize, seed: u64, bias: bool) -> (Parameter, Option<Parameter>) {
    let outputs = if shape.is_some() { outputs } else { 0 };
    let shape = shape.unwrap_or_else(|| vec![0]);
    let fan_in = shape[1..].iter().product();
    (layer_default(shape, fan_in, seed, 0), bias.then(|| layer_default(vec![outputs], fan_in, seed, 1)))
}

/// Checks the options, the rank and the channels of the input before a convolution runs.
pub(super) fn check(op: &'static str, weight: &Parameter, x: &Tensor, channels: [usize; 2], groups: usize, rank: usize) -> Result<()> {
    let [inputs, outputs] = channels;
    if weight.dims().len() < 2 {
        let message = match groups > 0 && inputs.is_multiple_of(groups) && outputs.is_multiple_of(groups) {
            true => "the weight has more elements than memory can hold".to_string(),
            false => format!("{inputs} input and {outputs} output channels do not divide into {groups} groups"),
        };
        return Err(Error::argument(op, message));
    }
    if x.ndim() != rank {
        let wanted = if rank == 4 { "[N, C, H, W] or [C, H, W]" } else { "[N, C, L] or [C, L]" };
        return Err(Error::shape(op, format!("expected {wanted}, got shape {:?}", x.shape())));
    }
    if x.shape()[1] != inputs {
        let hint = channels_hint(x.shape(), inputs);
        return Err(Error::shape(op, format!("expected {inputs} input channels, got shape {:?}{hint}", x.shape())));
    }
    Ok(())
}

/// Two-dimensional convolution (cross-correlation) with a weight `[out, in / groups, kH, kW]`.
///
/// ```
/// use convnet::Tensor;
/// use convnet::nn::{Conv2d, Module};
///
/// let conv = Conv2d::new(64, 128, 3).stride(2).padding(1).groups(4).bias(false);
/// assert!(conv.weight.shape() == [128, 16, 3, 3]);
/// assert!(conv.forward(&Tensor::zeros([2, 64, 8, 8]))?.shape() == [2, 128, 4, 4]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct Conv2d {
    /// `[out, in / groups, kH, kW]`.
    pub weight: Parameter,
    /// `[out]`.
    pub bias: Option<Parameter>,
    channels: [usize; 2],
    kernel: [usize; 2],
    // Without padding.
    options: Conv2dOptions,
    padding: Padding,
    seed: u64,
    prepared: PreparedCache,
    path: LayerPath,
}

impl Conv2d {
    /// Creates a convolution with stride 1, no padding, no dilation, one group and a bias.
    pub fn new(inputs: usize, outputs: usize, kernel: impl Into<Pair>) -> Conv2d {
        let (kernel, seed) = (kernel.into().0, layer_seed());
        let (weight, bias) = parameters(weight_shape(outputs, inputs, 1, &kernel), outputs, seed, true);
        Conv2d {
            weight,
            bias,
            channels: [inputs, outputs],
            kernel,
            options: Conv2dOptions::default(),
            padding: Padding::default(),
            seed,
            prepared: PreparedCache::default(),
            path: LayerPath::new(),
        }
    }

    /// Sets the stride of the window (default: 1).
    pub fn stride(mut self, stride: impl Into<Pair>) -> Conv2d {
        self.options.stride = stride.into().0;
        self
    }

    /// Sets the padding on each side (default: 0): `1`, `[1, 2]` for height and width, `[left,
    /// right, top, bottom]`, or [`ConvPadding::Same`].
    pub fn padding(mut self, padding: impl Into<ConvPadding>) -> Conv2d {
        self.padding.amount = padding.into();
        self
    }

    /// Sets the values of the padding (default: zeros). Padding that is not zeros, or not the same
    /// on both sides, is an operation before the convolution.
    ///
    /// ```
    /// use convnet::nn::{Conv2d, ConvPadding, Module};
    /// use convnet::{Tensor, ops::PadMode};
    ///
    /// let conv = Conv2d::new(3, 8, 4).padding(ConvPadding::Same).padding_mode(PadMode::Reflect);
    /// assert_eq!(conv.forward(&Tensor::randn([1, 3, 9, 9]))?.shape(), [1, 8, 9, 9]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn padding_mode(mut self, mode: PadMode) -> Conv2d {
        self.padding.mode = mode;
        self
    }

    /// Sets the dilation, the distance between kernel elements (default: 1).
    pub fn dilation(mut self, dilation: impl Into<Pair>) -> Conv2d {
        self.options.dilation = dilation.into().0;
        self
    }

    /// Splits the channels into independent groups (default: 1). When the groups do not divide the
    /// channels, [`forward`](Module::forward) returns an error.
    pub fn groups(mut self, groups: usize) -> Conv2d {
        self.options.groups = groups;
        (self.weight, self.bias) = self.parameters(self.bias.is_some());
        self
    }

    /// Returns new weights of the layer's seed and sizes.
    fn parameters(&self, bias: bool) -> (Parameter, Option<Parameter>) {
        let [inputs, outputs] = self.channels;
        parameters(weight_shape(outputs, inputs, self.options.groups, &self.kernel), outputs, self.seed, bias)
    }

    /// Sets whether the layer has a bias (default: true).
    pub fn bias(mut self, bias: bool) -> Conv2d {
        self.bias = self.parameters(bias).1;
        self
    }

    /// Returns the input of the convolution proper and its options: padding that the convolution
    /// itself does not know is added before it.
    fn padded<'x>(&self, x: &'x Tensor) -> Result<(Cow<'x, Tensor>, Conv2dOptions)> {
        let Conv2dOptions { stride, dilation, .. } = self.options;
        let (x, padding) = self.padding.add("conv2d", x, self.kernel, stride, dilation)?;
        Ok((x, Conv2dOptions { padding, ..self.options }))
    }

    /// Computes `activation(norm(conv(x)) + shortcut)` in one pass, when no history is recorded and
    /// the parts fit together; otherwise returns `None`.
    pub(crate) fn fused(
        &self,
        norm: Option<&BatchNorm2d>,
        x: &Tensor,
        shortcut: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Option<Tensor>> {
        let Some(norm) = self.foldable(norm, x, shortcut) else { return Ok(None) };
        let prepared = || {
            let (x, options) = self.padded(x)?;
            Ok(self.prepared(norm, &x, shortcut, options)?.map(|prepared| (x, prepared)))
        };
        let Some((x, prepared)) = prepared().map_err(|error| self.path.locate(error, false, self.describe()))? else {
            return Ok(None);
        };
        self.path.scope(self, &x, || prepared.run(&x, shortcut, activation)).map(Some)
    }

    /// Returns the running estimates of `norm` when prepared weights may serve the input `x`.
    /// Returns `None` in three cases: when history is recorded, in which case the cached weights
    /// are dropped; when layers are traced one by one; and when the layers have to run one by one
    /// to report what is wrong.
    fn foldable<'n>(&self, norm: Option<&'n BatchNorm2d>, x: &Tensor, shortcut: Option<&Tensor>) -> Option<Option<Running<'n>>> {
        if x.ndim() != 4 || is_tracing() || is_meta() {
            return None;
        }
        let norm = match norm {
            Some(norm) => Some(norm.running(self.channels[1])?),
            None => None,
        };
        let frozen = self.weight.is_frozen() && self.bias.as_ref().is_none_or(Parameter::is_frozen);
        let frozen = frozen && norm.as_ref().is_none_or(Running::is_frozen);
        let wanted = |tensor: &Tensor| tensor.requires_grad();
        if is_grad_enabled() && (!frozen || wanted(x) || shortcut.is_some_and(wanted)) {
            self.prepared.clear();
            return None;
        }
        Some(norm)
    }

    /// Returns the prepared weights for an input like `x`, which is padded, with a normalisation
    /// that is [foldable](Conv2d::foldable); `None` when the parts do not fit together.
    fn prepared(
        &self,
        norm: Option<Running<'_>>,
        x: &Tensor,
        shortcut: Option<&Tensor>,
        options: Conv2dOptions,
    ) -> Result<Option<Arc<PreparedConv2d>>> {
        let &[n, c, h, w] = x.shape() else { return Ok(None) };
        let [weight, bias, mean, var] = norm.as_ref().map_or([0; 4], Running::versions);
        let versions = [self.weight.version(), version(self.bias.as_ref()), weight, bias, mean, var];
        let source = Source { options, versions, eps: norm.as_ref().map_or(0.0, Running::eps) };
        let prepared = self.prepared.get(&Key::new([n, c, h, w], x.dtype(), source), || {
            check("conv2d", &self.weight, x, self.channels, self.options.groups, 4)?;
            let values = norm.as_ref().map(|norm| norm.values(x.dtype())).transpose()?;
            if let Some(None) = values {
                return Ok(None);
            }
            let [bias] = Parameter::values([&self.bias])?;
            PreparedConv2d::new(x, &self.weight.try_tensor()?, bias.as_ref(), values.flatten().as_ref(), options).map(Some)
        })?;
        let joins = |y: &PreparedConv2d| shortcut.is_none_or(|s| s.shape() == y.output_shape() && s.dtype() == x.dtype());
        Ok(prepared.filter(|prepared| joins(prepared)))
    }

    /// Runs [`forward`](Module::forward) with a weight computed from the layer's parameter, such as
    /// a masked or normalised one, in its place.
    ///
    /// # Errors
    /// Those of [`forward`](Module::forward), and [`Error::Shape`] inside [`Error::Layer`] when the
    /// shapes of the weight and the parameter differ.
    pub fn forward_with_weight(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        self.path.scope(self, x, || batched(x, 4, |x| Ok(self.with_weight(x, weight, false)?.0)))
    }

    /// Runs [`forward`](Module::forward) and also returns the moments of the result if `norm`, the
    /// normalisation that follows, needs them.
    pub(crate) fn forward_for(&self, norm: &BatchNorm2d, x: &Tensor) -> Result<(Tensor, Option<Moments>)> {
        // The normalisation reports an image without a batch dimension.
        if !norm.takes_statistics() || x.ndim() == 3 {
            return Ok((self.forward(x)?, None));
        }
        self.prepared.clear();
        let mut moments = None;
        let y = self.path.scope(self, x, || {
            let y;
            (y, moments) = self.with_weight(x, &self.weight.try_tensor()?, true)?;
            Ok(y)
        })?;
        Ok((y, moments))
    }

    fn with_weight(&self, x: &Tensor, weight: &Tensor, wants_moments: bool) -> Result<(Tensor, Option<Moments>)> {
        check("conv2d", &self.weight, x, self.channels, self.options.groups, 4)?;
        if weight.shape() != self.weight.dims() {
            return Err(Error::shape("conv2d", format!("expected a weight {:?}, got {:?}", self.weight.dims(), weight.shape())));
        }
        let (x, options) = self.padded(x)?;
        self.convolve(&x, weight, options, wants_moments)
    }

    /// Convolves an input that is [padded](Conv2d::padded) already.
    fn convolve(&self, x: &Tensor, weight: &Tensor, options: Conv2dOptions, wants_moments: bool) -> Result<(Tensor, Option<Moments>)> {
        x.conv2d_with(weight, self.bias.as_ref().map(Parameter::try_tensor).transpose()?.as_ref(), options, wants_moments)
    }
}

#[cfg(feature = "onnx")]
impl Conv2d {
    /// Returns the layer's path, for a network that names the parameters itself.
    pub(crate) fn path(&self) -> &LayerPath {
        &self.path
    }
}

impl Layer for Conv2d {
    fn describe(&self) -> String {
        let Conv2dOptions { stride, dilation, groups, .. } = self.options;
        format!("Conv2d {}", describe(self.channels, short(self.kernel), short(stride), short(dilation), groups))
    }

    fn multiply_adds(&self, _input: &[usize], output: &[usize]) -> u64 {
        product(output).saturating_mul(product(&self.weight.dims()[1..]))
    }
}

impl Module for Conv2d {
    /// # Shape
    /// `[N, in, H, W]` gives `[N, out, H', W']` and `[in, H, W]` gives `[out, H', W']`, with
    /// `H' = (H + 2·padding − dilation·(k − 1) − 1) / stride + 1`.
    ///
    /// # Errors
    /// [`Error::Layer`] around [`Error::Shape`] when the input has a different number of channels
    /// or is smaller than the kernel, or than the padding mode needs; [`Error::Argument`] when the
    /// groups do not divide the channels, a stride is zero, or it is not 1 for
    /// [`ConvPadding::Same`]; [`Error::MixedDTypes`] when the input's dtype is not the weight's.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.path.scope(self, x, || {
            batched(x, 4, |x| {
                let (padded, options) = self.padded(x)?;
                if let Some(norm) = self.foldable(None, x, None)
                    && let Some(prepared) = self.prepared(norm, &padded, None, options)?
                {
                    return prepared.run(&padded, None, Activation::Linear);
                }
                check("conv2d", &self.weight, x, self.channels, self.options.groups, 4)?;
                Ok(self.convolve(&padded, &self.weight.try_tensor()?, options, false)?.0)
            })
        })
    }

    visit_fields!(layer path, weight, bias, skip(channels, kernel, options, padding, seed, prepared));
}

/// One-dimensional convolution (cross-correlation) with a weight `[out, in / groups, k]`.
///
/// ```
/// use convnet::Tensor;
/// use convnet::nn::{Conv1d, Module};
///
/// let conv = Conv1d::new(2, 8, 5).stride(2).padding(2);
/// assert!(conv.forward(&Tensor::randn([4, 2, 100]))?.shape() == [4, 8, 50]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct Conv1d {
    /// `[out, in / groups, k]`.
    pub weight: Parameter,
    /// `[out]`.
    pub bias: Option<Parameter>,
    channels: [usize; 2],
    kernel: usize,
    // Without padding.
    options: Conv1dOptions,
    padding: Padding,
    seed: u64,
    path: LayerPath,
}

impl Conv1d {
    /// Creates a convolution with stride 1, no padding, no dilation, one group and a bias.
    pub fn new(inputs: usize, outputs: usize, kernel: usize) -> Conv1d {
        let seed = layer_seed();
        let (weight, bias) = parameters(weight_shape(outputs, inputs, 1, &[kernel]), outputs, seed, true);
        Conv1d {
            weight,
            bias,
            channels: [inputs, outputs],
            kernel,
            options: Conv1dOptions::default(),
            padding: Padding::default(),
            seed,
            path: LayerPath::new(),
        }
    }

    /// Sets the stride of the window (default: 1).
    pub fn stride(mut self, stride: usize) -> Conv1d {
        self.options.stride = stride;
        self
    }

    /// Sets the padding at each end (default: 0): `1`, `[left, right]`, or [`Conv1dPadding::Same`].
    ///
    /// ```
    /// use convnet::Tensor;
    /// use convnet::nn::{Conv1d, Conv1dPadding, Module};
    ///
    /// let x = Tensor::randn([1, 2, 50]);
    /// // A causal convolution: no output depends on what follows it.
    /// assert_eq!(Conv1d::new(2, 8, 4).padding([3, 0]).forward(&x)?.shape(), [1, 8, 50]);
    /// assert_eq!(Conv1d::new(2, 8, 4).padding(Conv1dPadding::Same).forward(&x)?.shape(), [1, 8, 50]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn padding(mut self, padding: impl Into<Conv1dPadding>) -> Conv1d {
        self.padding.amount = padding.into().of_map();
        self
    }

    /// Sets the values of the padding (default: zeros); see [`Conv2d::padding_mode`].
    pub fn padding_mode(mut self, mode: PadMode) -> Conv1d {
        self.padding.mode = mode;
        self
    }

    /// Sets the dilation, the distance between kernel elements (default: 1).
    pub fn dilation(mut self, dilation: usize) -> Conv1d {
        self.options.dilation = dilation;
        self
    }

    /// Splits the channels into independent groups (default: 1). When the groups do not divide the
    /// channels, [`forward`](Module::forward) returns an error.
    pub fn groups(mut self, groups: usize) -> Conv1d {
        self.options.groups = groups;
        (self.weight, self.bias) = self.parameters(self.bias.is_some());
        self
    }

    /// Returns new weights of the layer's seed and sizes.
    fn parameters(&self, bias: bool) -> (Parameter, Option<Parameter>) {
        let [inputs, outputs] = self.channels;
        parameters(weight_shape(outputs, inputs, self.options.groups, &[self.kernel]), outputs, self.seed, bias)
    }

    /// Sets whether the layer has a bias (default: true).
    pub fn bias(mut self, bias: bool) -> Conv1d {
        self.bias = self.parameters(bias).1;
        self
    }
}

impl Layer for Conv1d {
    fn describe(&self) -> String {
        let Conv1dOptions { stride, dilation, groups, .. } = self.options;
        let [kernel, stride, dilation] = [self.kernel, stride, dilation].map_each(|size| size.to_string());
        format!("Conv1d {}", describe(self.channels, kernel, stride, dilation, groups))
    }

    fn multiply_adds(&self, _input: &[usize], output: &[usize]) -> u64 {
        product(output).saturating_mul(product(&self.weight.dims()[1..]))
    }
}

impl Module for Conv1d {
    /// # Shape
    /// `[N, in, L]` gives `[N, out, L']` and `[in, L]` gives `[out, L']`, with
    /// `L' = (L + 2·padding − dilation·(k − 1) − 1) / stride + 1`.
    ///
    /// # Errors
    /// [`Error::Layer`] around [`Error::Shape`] when the input has a different number of channels
    /// or is shorter than the kernel; otherwise those of [`Conv2d`].
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.path.scope(self, x, || {
            batched(x, 3, |x| {
                check("conv1d", &self.weight, x, self.channels, self.options.groups, 3)?;
                let Conv1dOptions { stride, dilation, .. } = self.options;
                let (x, [_, padding]) = self.padding.add("conv1d", x, [1, self.kernel], [1, stride], [1, dilation])?;
                let [bias] = Parameter::values([&self.bias])?;
                x.conv1d(&self.weight.try_tensor()?, bias.as_ref(), Conv1dOptions { padding, ..self.options })
            })
        })
    }

    visit_fields!(layer path, weight, bias, skip(channels, kernel, options, padding, seed));
}
