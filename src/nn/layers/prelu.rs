//! The parametric rectifier.

use crate::error::{Error, Result, channels_hint};
use crate::nn::init::layer_constant;
use crate::nn::module::Module;
use crate::nn::module::layer::{Layer, LayerPath};
use crate::nn::module::parameter::Parameter;
use crate::tensor::Tensor;
use crate::tensor::shape::try_numel;
use crate::visit_fields;

/// A rectifier that learns its slope for negative inputs (He et al., 2015): `max(x, 0) + weight ·
/// min(x, 0)`, with one weight for all channels or one for each; initially 0.25.
///
/// ```
/// use convnet::nn::PReLU;
/// use convnet::prelude::*;
///
/// let x = Tensor::from_vec(vec![-2.0f32, 4.0], [1, 2, 1, 1])?;
/// assert_eq!(PReLU::new(2).forward(&x)?.to_vec::<f32>()?, [-0.5, 4.0]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct PReLU {
    /// The slopes for negative inputs, `[1]` or `[C]`.
    pub weight: Parameter,
    count: usize,
    path: LayerPath,
}

impl PReLU {
    /// Creates the layer with this many slopes: 1, PyTorch's default, or one for each channel.
    pub fn new(count: usize) -> PReLU {
        PReLU::with_slope(count, 0.25)
    }

    /// Creates the layer with this many slopes, which start with this value.
    pub fn with_slope(count: usize, slope: f64) -> PReLU {
        // `forward` reports a size that memory cannot hold.
        let held = if try_numel(&[count]).is_some() { count } else { 0 };
        PReLU { weight: layer_constant(vec![held], slope), count, path: LayerPath::new() }
    }
}

impl Default for PReLU {
    fn default() -> PReLU {
        PReLU::new(1)
    }
}

impl Layer for PReLU {
    fn describe(&self) -> String {
        format!("PReLU {}", self.count)
    }
}

impl Module for PReLU {
    /// # Shape
    /// With one slope any shape, with one for each channel `[N, C, …]`; the result has the input's
    /// shape.
    ///
    /// # Errors
    /// [`Error::Layer`] around [`Error::Shape`] when the input has a different number of channels,
    /// [`Error::DType`] unless it is floating point.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        const OP: &str = "prelu";
        self.path.scope(self, x, || {
            x.expect_float(OP)?;
            let held = self.weight.dims()[0];
            if held == 0 || held != self.count {
                return Err(Error::argument(OP, format!("expected 1 slope or one for each channel, got {}", self.count)));
            }
            let mut weight = self.weight.try_tensor()?;
            if held > 1 {
                if x.ndim() < 2 || x.shape()[1] != held {
                    let hint = channels_hint(x.shape(), held);
                    return Err(Error::shape(OP, format!("expected {held} channels, got shape {:?}{hint}", x.shape())));
                }
                let mut shape = vec![1; x.ndim()];
                shape[1] = held;
                weight = weight.reshape(shape)?;
            } else if x.ndim() == 0 {
                weight = weight.reshape([0usize; 0])?;
            }
            // The slope at 0 is the weight's, as in PyTorch. Positive inputs are not multiplied by
            // the weight, since infinite ones would make its gradient NaN.
            let positive = x.gt_scalar(0.0)?;
            let negative = positive.where_(&Tensor::full([], 0.0, x.dtype()), x)?;
            positive.where_(x, &negative.mul(&weight)?)
        })
    }

    visit_fields!(layer path, weight, skip count);
}
