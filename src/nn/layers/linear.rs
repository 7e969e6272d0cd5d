//! The dense layer.

use super::pair::product;
use crate::error::{Error, Result};
use crate::nn::init::{layer_default, layer_seed};
use crate::nn::module::Module;
use crate::nn::module::layer::{Layer, LayerPath};
use crate::nn::module::parameter::Parameter;
use crate::tensor::Tensor;
use crate::tensor::shape::try_numel;
use crate::visit_fields;

/// Computes `x · weightᵀ + bias` with a weight `[out, in]` and a bias `[out]`.
///
/// Both are initialised uniformly in ±1/√in, as in PyTorch.
///
/// ```
/// use convnet::Tensor;
/// use convnet::nn::{Linear, Module};
///
/// let fc = Linear::new(84, 10);
/// assert!(fc.forward(&Tensor::zeros([64, 84]))?.shape() == [64, 10]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct Linear {
    /// `[out, in]`.
    pub weight: Parameter,
    /// `[out]`.
    pub bias: Option<Parameter>,
    features: [usize; 2],
    seed: u64,
    path: LayerPath,
}

impl Linear {
    /// Creates a layer from `inputs` features to `outputs` features.
    pub fn new(inputs: usize, outputs: usize) -> Linear {
        let seed = layer_seed();
        let sizes = if try_numel(&[outputs, inputs]).is_some() { [outputs, inputs] } else { [0, 0] };
        Linear {
            weight: layer_default(sizes.to_vec(), inputs, seed, 0),
            bias: Some(layer_default(vec![sizes[0]], inputs, seed, 1)),
            features: [inputs, outputs],
            seed,
            path: LayerPath::new(),
        }
    }

    /// Sets whether the layer has a bias (default: true).
    pub fn bias(mut self, bias: bool) -> Linear {
        self.bias = bias.then(|| layer_default(vec![self.weight.dims()[0]], self.features[0], self.seed, 1));
        self
    }
}

#[cfg(feature = "onnx")]
impl Linear {
    /// Returns the layer's path, for a network that names the parameters itself.
    pub(crate) fn path(&self) -> &LayerPath {
        &self.path
    }
}

impl Layer for Linear {
    fn describe(&self) -> String {
        format!("Linear {}→{}", self.features[0], self.features[1])
    }

    fn multiply_adds(&self, _input: &[usize], output: &[usize]) -> u64 {
        product(output).saturating_mul(self.features[0] as u64)
    }
}

impl Module for Linear {
    /// # Shape
    /// `[…, in]` gives `[…, out]`.
    ///
    /// # Errors
    /// [`Error::Layer`] around [`Error::Shape`] when the last size is not `in`,
    /// [`Error::MixedDTypes`] when the input's dtype is not the weight's.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.path.scope(self, x, || {
            let [inputs, outputs] = self.features;
            if self.weight.dims() != [outputs, inputs] {
                return Err(Error::argument("linear", "the weight has more elements than memory can hold"));
            }
            if x.shape().last() != Some(&inputs) {
                let hint = match x.shape() {
                    [_, rest @ ..] if rest.len() > 1 && try_numel(rest) == Some(inputs) => {
                        "; `x.flatten(1, -1)`, or a `Flatten` before the layer, joins them"
                    }
                    _ => "",
                };
                return Err(Error::shape("linear", format!("expected {inputs} input features, got shape {:?}{hint}", x.shape())));
            }
            x.linear(&self.weight.try_tensor()?, self.bias.as_ref().map(Parameter::try_tensor).transpose()?.as_ref())
        })
    }

    visit_fields!(layer path, weight, bias, skip(features, seed));
}
