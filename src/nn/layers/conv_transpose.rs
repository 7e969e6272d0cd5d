//! Transposed convolution layers.

use super::conv::{check, parameters, weight_shape};
use super::pair::{Pair, product, short};
use crate::error::Result;
use crate::kernels::runtime::arrays::MapEach;
use crate::nn::init::layer_seed;
use crate::nn::module::Module;
use crate::nn::module::layer::{Layer, LayerPath};
use crate::nn::module::parameter::Parameter;
use crate::ops::{ConvTranspose1dOptions, ConvTranspose2dOptions, batched};
use crate::profiling::describe_convolution as describe;
use crate::tensor::Tensor;
use crate::visit_fields;

/// Two-dimensional transposed convolution, the gradient of [`Conv2d`](super::Conv2d) with respect
/// to its input, with a weight `[in, out / groups, kH, kW]`.
///
/// ```
/// use convnet::Tensor;
/// use convnet::nn::{ConvTranspose2d, Module};
///
/// let upscale = ConvTranspose2d::new(16, 8, 2).stride(2);
/// assert!(upscale.forward(&Tensor::randn([4, 16, 7, 7]))?.shape() == [4, 8, 14, 14]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct ConvTranspose2d {
    /// `[in, out / groups, kH, kW]`.
    pub weight: Parameter,
    /// `[out]`.
    pub bias: Option<Parameter>,
    channels: [usize; 2],
    kernel: [usize; 2],
    options: ConvTranspose2dOptions,
    seed: u64,
    path: LayerPath,
}

impl ConvTranspose2d {
    /// Creates a transposed convolution with stride 1, no padding, no dilation, one group and a
    /// bias.
    pub fn new(inputs: usize, outputs: usize, kernel: impl Into<Pair>) -> ConvTranspose2d {
        let (kernel, seed) = (kernel.into().0, layer_seed());
        let (weight, bias) = parameters(weight_shape(inputs, outputs, 1, &kernel), outputs, seed, true);
        let options = ConvTranspose2dOptions::default();
        ConvTranspose2d { weight, bias, channels: [inputs, outputs], kernel, options, seed, path: LayerPath::new() }
    }

    /// Sets the stride: the distance, in the output, between the windows of neighbouring inputs
    /// (default: 1).
    pub fn stride(mut self, stride: impl Into<Pair>) -> ConvTranspose2d {
        self.options.stride = stride.into().0;
        self
    }

    /// Sets how many rows and columns are removed from each side of the output (default: 0).
    pub fn padding(mut self, padding: impl Into<Pair>) -> ConvTranspose2d {
        self.options.padding = padding.into().0;
        self
    }

    /// Sets how many rows and columns are added at the bottom and on the right of the output
    /// (default: 0). This selects one of the sizes that the corresponding convolution maps to the
    /// same size.
    pub fn output_padding(mut self, padding: impl Into<Pair>) -> ConvTranspose2d {
        self.options.output_padding = padding.into().0;
        self
    }

    /// Sets the dilation, the distance between kernel elements (default: 1).
    pub fn dilation(mut self, dilation: impl Into<Pair>) -> ConvTranspose2d {
        self.options.dilation = dilation.into().0;
        self
    }

    /// Splits the channels into independent groups (default: 1). When the groups do not divide the
    /// channels, [`forward`](Module::forward) returns an error.
    pub fn groups(mut self, groups: usize) -> ConvTranspose2d {
        self.options.groups = groups;
        (self.weight, self.bias) = self.parameters(self.bias.is_some());
        self
    }

    /// Returns new weights of the layer's seed and sizes.
    fn parameters(&self, bias: bool) -> (Parameter, Option<Parameter>) {
        let [inputs, outputs] = self.channels;
        parameters(weight_shape(inputs, outputs, self.options.groups, &self.kernel), outputs, self.seed, bias)
    }

    /// Sets whether the layer has a bias (default: true).
    pub fn bias(mut self, bias: bool) -> ConvTranspose2d {
        self.bias = self.parameters(bias).1;
        self
    }
}

impl Layer for ConvTranspose2d {
    fn describe(&self) -> String {
        let ConvTranspose2dOptions { stride, dilation, groups, .. } = self.options;
        format!("ConvTranspose2d {}", describe(self.channels, short(self.kernel), short(stride), short(dilation), groups))
    }

    fn multiply_adds(&self, input: &[usize], _output: &[usize]) -> u64 {
        product(input).saturating_mul(product(&self.weight.dims()[1..]))
    }
}

impl Module for ConvTranspose2d {
    /// # Shape
    /// `[N, in, H, W]` gives `[N, out, H', W']` and `[in, H, W]` gives `[out, H', W']`, with
    /// `H' = (H − 1)·stride − 2·padding + dilation·(k − 1) + output_padding + 1`.
    ///
    /// # Errors
    /// [`Error::Layer`](crate::Error::Layer) around [`Error::Shape`](crate::Error::Shape) when the
    /// input has a different number of channels; otherwise those of [`Conv2d`](super::Conv2d).
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.path.scope(self, x, || {
            batched(x, 4, |x| {
                check("conv_transpose2d", &self.weight, x, self.channels, self.options.groups, 4)?;
                let [bias] = Parameter::values([&self.bias])?;
                x.conv_transpose2d(&self.weight.try_tensor()?, bias.as_ref(), self.options)
            })
        })
    }

    visit_fields!(layer path, weight, bias, skip(channels, kernel, options, seed));
}

/// One-dimensional transposed convolution, the gradient of [`Conv1d`](super::Conv1d) with respect
/// to its input, with a weight `[in, out / groups, k]`.
///
/// ```
/// use convnet::Tensor;
/// use convnet::nn::{ConvTranspose1d, Module};
///
/// let upscale = ConvTranspose1d::new(16, 8, 4).stride(2).padding(1);
/// assert!(upscale.forward(&Tensor::randn([4, 16, 50]))?.shape() == [4, 8, 100]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct ConvTranspose1d {
    /// `[in, out / groups, k]`.
    pub weight: Parameter,
    /// `[out]`.
    pub bias: Option<Parameter>,
    channels: [usize; 2],
    kernel: usize,
    options: ConvTranspose1dOptions,
    seed: u64,
    path: LayerPath,
}

impl ConvTranspose1d {
    /// Creates a transposed convolution with stride 1, no padding, no dilation, one group and a
    /// bias.
    pub fn new(inputs: usize, outputs: usize, kernel: usize) -> ConvTranspose1d {
        let seed = layer_seed();
        let (weight, bias) = parameters(weight_shape(inputs, outputs, 1, &[kernel]), outputs, seed, true);
        let options = ConvTranspose1dOptions::default();
        ConvTranspose1d { weight, bias, channels: [inputs, outputs], kernel, options, seed, path: LayerPath::new() }
    }

    /// Sets the stride: the distance, in the output, between the windows of neighbouring inputs
    /// (default: 1).
    pub fn stride(mut self, stride: usize) -> ConvTranspose1d {
        self.options.stride = stride;
        self
    }

    /// Sets how many positions are removed from each end of the output (default: 0).
    pub fn padding(mut self, padding: usize) -> ConvTranspose1d {
        self.options.padding = padding;
        self
    }

    /// Sets how many positions are added at the end of the output (default: 0). This selects one
    /// of the lengths that the corresponding convolution maps to the same length.
    pub fn output_padding(mut self, padding: usize) -> ConvTranspose1d {
        self.options.output_padding = padding;
        self
    }

    /// Sets the dilation, the distance between kernel elements (default: 1).
    pub fn dilation(mut self, dilation: usize) -> ConvTranspose1d {
        self.options.dilation = dilation;
        self
    }

    /// Splits the channels into independent groups (default: 1). When the groups do not divide the
    /// channels, [`forward`](Module::forward) returns an error.
    pub fn groups(mut self, groups: usize) -> ConvTranspose1d {
        self.options.groups = groups;
        (self.weight, self.bias) = self.parameters(self.bias.is_some());
        self
    }

    /// Returns new weights of the layer's seed and sizes.
    fn parameters(&self, bias: bool) -> (Parameter, Option<Parameter>) {
        let [inputs, outputs] = self.channels;
        parameters(weight_shape(inputs, outputs, self.options.groups, &[self.kernel]), outputs, self.seed, bias)
    }

    /// Sets whether the layer has a bias (default: true).
    pub fn bias(mut self, bias: bool) -> ConvTranspose1d {
        self.bias = self.parameters(bias).1;
        self
    }
}

impl Layer for ConvTranspose1d {
    fn describe(&self) -> String {
        let ConvTranspose1dOptions { stride, dilation, groups, .. } = self.options;
        let [kernel, stride, dilation] = [self.kernel, stride, dilation].map_each(|size| size.to_string());
        format!("ConvTranspose1d {}", describe(self.channels, kernel, stride, dilation, groups))
    }

    fn multiply_adds(&self, input: &[usize], _output: &[usize]) -> u64 {
        product(input).saturating_mul(product(&self.weight.dims()[1..]))
    }
}

impl Module for ConvTranspose1d {
    /// # Shape
    /// `[N, in, L]` gives `[N, out, L']` and `[in, L]` gives `[out, L']`, with
    /// `L' = (L − 1)·stride − 2·padding + dilation·(k − 1) + output_padding + 1`; row-major.
    ///
    /// # Errors
    /// [`Error::Layer`](crate::Error::Layer) around [`Error::Shape`](crate::Error::Shape) when the
    /// input has a different number of channels; otherwise those of [`Conv2d`](super::Conv2d).
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.path.scope(self, x, || {
            batched(x, 3, |x| {
                check("conv_transpose1d", &self.weight, x, self.channels, self.options.groups, 3)?;
                let [bias] = Parameter::values([&self.bias])?;
                x.conv_transpose1d(&self.weight.try_tensor()?, bias.as_ref(), self.options)
            })
        })
    }

    visit_fields!(layer path, weight, bias, skip(channels, kernel, options, seed));
}
