//! Layer normalisation.

use super::scale_and_shift;
use crate::error::{Error, Result};
use crate::nn::module::Module;
use crate::nn::module::layer::{Layer, LayerPath};
use crate::nn::module::parameter::Parameter;
use crate::tensor::Tensor;
use crate::visit_fields;

/// Layer normalisation (Ba et al., 2016) over the last dimensions, followed by multiplication by
/// `weight` and addition of `bias`.
///
/// # Shape
/// `[…, normalized shape]`; the result has the input's shape.
///
/// ```
/// use convnet::Tensor;
/// use convnet::nn::{LayerNorm, Module};
///
/// let y = LayerNorm::new([64]).forward(&(&Tensor::randn([10, 64]) + 3.0))?;
/// assert!(y.shape() == [10, 64] && y.mean(..)?.item::<f32>()?.abs() < 1e-4);
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct LayerNorm {
    /// The factors, of the normalised shape; initially 1.
    pub weight: Option<Parameter>,
    /// The offsets, of the normalised shape; initially 0.
    pub bias: Option<Parameter>,
    shape: Vec<usize>,
    eps: f64,
    path: LayerPath,
}

impl LayerNorm {
    /// Creates the layer for last dimensions of this shape, with eps 1e-5, weight and bias.
    pub fn new(shape: impl AsRef<[usize]>) -> LayerNorm {
        let shape = shape.as_ref().to_vec();
        let [weight, bias] = scale_and_shift(true, &shape);
        LayerNorm { weight, bias, shape, eps: 1e-5, path: LayerPath::new() }
    }

    /// Sets the number that is added to the variance (default: 1e-5).
    pub fn eps(mut self, eps: f64) -> LayerNorm {
        self.eps = eps;
        self
    }

    /// Sets whether the layer has weight and bias (default: true).
    pub fn affine(mut self, affine: bool) -> LayerNorm {
        [self.weight, self.bias] = scale_and_shift(affine, &self.shape);
        self
    }
}

impl Layer for LayerNorm {
    fn describe(&self) -> String {
        format!("LayerNorm {:?}", self.shape)
    }
}

impl Module for LayerNorm {
    /// # Errors
    /// [`Error::Layer`] around [`Error::Shape`] when the input's shape does not end with the
    /// layer's, [`Error::MixedDTypes`] when its dtype is not the weight's.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.path.scope(self, x, || {
            if !x.shape().ends_with(&self.shape) {
                return Err(Error::shape("layer_norm", format!("expected a shape that ends with {:?}, got {:?}", self.shape, x.shape())));
            }
            let [weight, bias] = Parameter::values([&self.weight, &self.bias])?;
            x.layer_norm(&self.shape, weight.as_ref(), bias.as_ref(), self.eps)
        })
    }

    visit_fields!(layer path, weight, bias, skip(shape, eps));
}
