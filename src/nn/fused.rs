//! A convolution with what usually follows it.
//!
//! In evaluation these are the places where the layers run as one; the result is that of the layers one after the other.

use super::conv::Conv2d;
use super::module::Module;
use super::norm::BatchNorm2d;
use crate::error::Result;
use crate::tensor::Tensor;

/// `bn(conv(x))`.
///
/// # Errors
/// The layers'.
pub fn conv_bn(conv: &Conv2d, bn: &BatchNorm2d, x: &Tensor) -> Result<Tensor> {
    bn.forward(&conv.forward(x)?)
}

/// `relu(bn(conv(x)))`.
///
/// # Errors
/// The layers'.
pub fn conv_bn_relu(conv: &Conv2d, bn: &BatchNorm2d, x: &Tensor) -> Result<Tensor> {
    Ok(conv_bn(conv, bn, x)?.relu())
}

/// `relu(bn(conv(x)) + shortcut)`.
///
/// # Errors
/// The layers', and [`Error::Shape`](crate::Error::Shape) when the shortcut does not broadcast with what comes out of them.
pub fn conv_bn_add_relu(conv: &Conv2d, bn: &BatchNorm2d, x: &Tensor, shortcut: &Tensor) -> Result<Tensor> {
    Ok(conv_bn(conv, bn, x)?.add(shortcut)?.relu())
}
