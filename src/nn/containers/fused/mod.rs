//! A convolution fused with the layers that usually follow it.
//!
//! In evaluation under [`no_grad`](crate::no_grad) they run as one operation: the normalisation is
//! folded into the convolution's weights, which are repacked once and cached until they change. In
//! training, the convolution also computes the batch statistics if it can, and normalisation,
//! shortcut and activation are one operation with few passes over the data. The result is that of
//! the layers run one after the other.

use crate::autograd::is_grad_enabled;
use crate::error::Result;
use crate::kernels::elementwise::epilogue::Activation;
use crate::nn::layers::conv::Conv2d;
use crate::nn::layers::norm::{BatchNorm, BatchNorm2d};
use crate::nn::module::Module;
use crate::nn::module::layer::{block, is_observed};
use crate::ops::ConcatBuffer;
use crate::tensor::Tensor;

/// Computes `bn(conv(x))`.
///
/// # Errors
/// Those of the layers.
pub fn conv_bn(conv: &Conv2d, bn: &BatchNorm2d, x: &Tensor) -> Result<Tensor> {
    conv_bn_act(conv, bn, x, Activation::Linear)
}

/// Computes `relu(bn(conv(x)))`.
///
/// # Errors
/// Those of the layers.
pub fn conv_bn_relu(conv: &Conv2d, bn: &BatchNorm2d, x: &Tensor) -> Result<Tensor> {
    conv_bn_act(conv, bn, x, Activation::Relu)
}

/// Computes `relu(bn(conv(x)) + shortcut)`.
///
/// # Errors
/// Those of the layers, and [`Error::Shape`](crate::Error::Shape) when the shortcut does not
/// broadcast with their result.
pub fn conv_bn_add_relu(conv: &Conv2d, bn: &BatchNorm2d, x: &Tensor, shortcut: &Tensor) -> Result<Tensor> {
    conv_bn_add_act(conv, bn, x, shortcut, Activation::Relu)
}

/// Computes `activation(bn(conv(x)))`.
///
/// # Errors
/// Those of the layers.
pub fn conv_bn_act(conv: &Conv2d, bn: &BatchNorm2d, x: &Tensor, activation: Activation) -> Result<Tensor> {
    fused_or_apart(conv, bn, x, None, activation)
}

/// Computes `activation(bn(conv(x)) + shortcut)`.
///
/// # Errors
/// Those of the layers, and [`Error::Shape`](crate::Error::Shape) when the shortcut does not
/// broadcast with their result.
pub fn conv_bn_add_act(conv: &Conv2d, bn: &BatchNorm2d, x: &Tensor, shortcut: &Tensor, activation: Activation) -> Result<Tensor> {
    fused_or_apart(conv, bn, x, Some(shortcut), activation)
}

/// Runs the layers as one operation or, in training, as two, of which the first computes the
/// statistics for the second.
fn fused_or_apart(conv: &Conv2d, bn: &BatchNorm2d, x: &Tensor, shortcut: Option<&Tensor>, activation: Activation) -> Result<Tensor> {
    if let Some(y) = conv.fused(Some(bn), x, shortcut, activation)? {
        return Ok(y);
    }
    let (y, moments) = conv.forward_for(bn, x)?;
    bn.forward_fused(&y, moments, shortcut, activation)
}

/// Computes `activation(conv(x))`.
///
/// # Errors
/// Those of the layer.
pub fn conv_act(conv: &Conv2d, x: &Tensor, activation: Activation) -> Result<Tensor> {
    match conv.fused(None, x, None, activation)? {
        Some(y) => Ok(y),
        None => activation.apply(conv.forward(x)?),
    }
}

/// Computes `activation(bn(x))`.
///
/// # Errors
/// Those of the layer.
pub fn bn_act<const SPATIAL: usize>(bn: &BatchNorm<SPATIAL>, x: &Tensor, activation: Activation) -> Result<Tensor> {
    bn.forward_fused(x, None, None, activation)
}

/// Computes `activation(layer(x) + shortcut)`. When the layer is a
/// [`ChannelScale`](crate::nn::ChannelScale) and `x` is not shared, inference overwrites `x` in one
/// pass.
///
/// ```
/// use convnet::{Tensor, models::SqueezeExcite, no_grad};
/// use convnet::nn::{Activation, Module, scale_add_act};
///
/// let (se, x, shortcut) = (SqueezeExcite::new(16), Tensor::randn([2, 16, 5, 5]), Tensor::randn([2, 16, 5, 5]));
/// let expected = se.forward(&x)?.add(&shortcut)?.relu();
/// let y = no_grad(|| scale_add_act(&se, x, Some(&shortcut), Activation::Relu))?;
/// assert_eq!(y.to_vec::<f32>()?, expected.to_vec::<f32>()?);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Those of the layer, and [`Error::Shape`](crate::Error::Shape) when the shortcut does not
/// broadcast with its result.
pub fn scale_add_act(layer: &dyn Module, x: Tensor, shortcut: Option<&Tensor>, activation: Activation) -> Result<Tensor> {
    match layer.as_channel_scale() {
        Some(channel_scale) if !is_observed() => block(layer, || {
            let scale = channel_scale.scale(&x)?;
            x.channel_scaled(&scale, shortcut, activation)
        }),
        _ => {
            let y = layer.forward(&x)?;
            drop(x);
            activation.apply_to_sum(y, shortcut)
        }
    }
}

/// Computes `activation(bn(maps))` of a buffer of maps that more maps are appended to later, for
/// inference. Returns `None` when the layer has to run by itself: to use the batch's statistics, to
/// be listed by a summary, or to report an error.
///
/// # Errors
/// Those of [`ConcatBuffer::normalised`].
pub(crate) fn buffered_bn_act(bn: &BatchNorm2d, maps: &ConcatBuffer, activation: Activation) -> Result<Option<Tensor>> {
    let running = if is_observed() || is_grad_enabled() { None } else { bn.running(maps.channels()) };
    let norm = running.map(|running| running.values(maps.maps().dtype())).transpose()?.flatten();
    norm.map(|norm| bn.path().scope(bn, maps.maps(), || maps.normalised(&norm, activation))).transpose()
}

#[cfg(test)]
mod tests;
