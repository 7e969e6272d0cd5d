//! Group normalisation.

use super::scale_and_shift;
use crate::error::{Error, Result};
use crate::nn::module::Module;
use crate::nn::module::layer::{Layer, LayerPath};
use crate::nn::module::parameter::Parameter;
use crate::tensor::Tensor;
use crate::visit_fields;

/// Group normalisation (Wu and He, 2018): normalises groups of channels to mean 0 and variance 1,
/// then multiplies by `weight` and adds `bias`, per channel.
///
/// # Shape
/// `[N, C, …]`; the result has the input's shape.
///
/// ```
/// use convnet::Tensor;
/// use convnet::nn::{GroupNorm, Module};
///
/// let norm = GroupNorm::new(4, 32); // 4 groups of 8 channels
/// assert!(norm.forward(&Tensor::randn([2, 32, 7, 7]))?.shape() == [2, 32, 7, 7]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct GroupNorm {
    /// The factors, `[C]`; initially 1.
    pub weight: Option<Parameter>,
    /// The offsets, `[C]`; initially 0.
    pub bias: Option<Parameter>,
    groups: usize,
    channels: usize,
    eps: f64,
    path: LayerPath,
}

impl GroupNorm {
    /// Creates the layer with `groups` groups over `channels` channels, with eps 1e-5, weight and
    /// bias. When the groups do not divide the channels, [`forward`](Module::forward) returns an
    /// error.
    pub fn new(groups: usize, channels: usize) -> GroupNorm {
        let [weight, bias] = scale_and_shift(true, &[channels]);
        GroupNorm { weight, bias, groups, channels, eps: 1e-5, path: LayerPath::new() }
    }

    /// Sets the number that is added to the variance (default: 1e-5).
    pub fn eps(mut self, eps: f64) -> GroupNorm {
        self.eps = eps;
        self
    }

    /// Sets whether the layer has weight and bias (default: true).
    pub fn affine(mut self, affine: bool) -> GroupNorm {
        [self.weight, self.bias] = scale_and_shift(affine, &[self.channels]);
        self
    }
}

impl Layer for GroupNorm {
    fn describe(&self) -> String {
        format!("GroupNorm {} in {} groups", self.channels, self.groups)
    }
}

impl Module for GroupNorm {
    /// # Errors
    /// [`Error::Layer`] around [`Error::Shape`] when the input has a different number of channels,
    /// [`Error::Argument`] when the groups do not divide them, [`Error::MixedDTypes`] when the
    /// input's dtype is not the weight's.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.path.scope(self, x, || {
            if x.ndim() < 2 || x.shape()[1] != self.channels {
                return Err(Error::shape("group_norm", format!("expected {} channels, got shape {:?}", self.channels, x.shape())));
            }
            let [weight, bias] = Parameter::values([&self.weight, &self.bias])?;
            x.group_norm(self.groups, weight.as_ref(), bias.as_ref(), self.eps)
        })
    }

    visit_fields!(layer path, weight, bias, skip(groups, channels, eps));
}
