//! A convolution with what usually follows it.
//!
//! In training, normalisation, shortcut and activation are one operation with few passes over the data; the result is that of the layers one
//! after the other.

use super::conv::Conv2d;
use super::module::Module;
use super::norm::{BatchNorm, BatchNorm2d};
use crate::error::Result;
use crate::kernels::epilogue::Activation;
use crate::tensor::Tensor;

/// `bn(conv(x))`.
///
/// # Errors
/// The layers'.
pub fn conv_bn(conv: &Conv2d, bn: &BatchNorm2d, x: &Tensor) -> Result<Tensor> {
    conv_bn_act(conv, bn, x, Activation::Linear)
}

/// `relu(bn(conv(x)))`.
///
/// # Errors
/// The layers'.
pub fn conv_bn_relu(conv: &Conv2d, bn: &BatchNorm2d, x: &Tensor) -> Result<Tensor> {
    conv_bn_act(conv, bn, x, Activation::Relu)
}

/// `relu(bn(conv(x)) + shortcut)`.
///
/// # Errors
/// As [`conv_bn_add_act`].
pub fn conv_bn_add_relu(conv: &Conv2d, bn: &BatchNorm2d, x: &Tensor, shortcut: &Tensor) -> Result<Tensor> {
    conv_bn_add_act(conv, bn, x, shortcut, Activation::Relu)
}

/// `activation(bn(conv(x)))`.
///
/// # Errors
/// The layers'.
pub fn conv_bn_act(conv: &Conv2d, bn: &BatchNorm2d, x: &Tensor, activation: Activation) -> Result<Tensor> {
    bn.forward_fused(&conv.forward(x)?, None, activation)
}

/// `activation(bn(conv(x)) + shortcut)`.
///
/// # Errors
/// The layers', and [`Error::Shape`](crate::Error::Shape) when the shortcut does not broadcast with what comes out of them.
pub fn conv_bn_add_act(conv: &Conv2d, bn: &BatchNorm2d, x: &Tensor, shortcut: &Tensor, activation: Activation) -> Result<Tensor> {
    bn.forward_fused(&conv.forward(x)?, Some(shortcut), activation)
}

/// `activation(bn(x))`.
///
/// # Errors
/// The layer's.
pub fn bn_act<const SPATIAL: usize>(bn: &BatchNorm<SPATIAL>, x: &Tensor, activation: Activation) -> Result<Tensor> {
    bn.forward_fused(x, None, activation)
}
