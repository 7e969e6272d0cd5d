//! Normalisation: batch (Ioffe and Szegedy, 2015), layer (Ba et al., 2016), group (Wu and He,
//! 2018), local response (Krizhevsky et al., 2012).
//!
//! The first three compute `(x - mean) / √(var + eps) · weight + bias` with the biased variance.
//! They differ in the elements over which the statistics are taken. Statistics, and the factors
//! computed from them, are `f64` for every dtype of the tensor.

mod batch;
mod group;
mod layer;
mod local_response;
#[cfg(test)]
mod tests;

pub use batch::BatchNormOutput;

use crate::error::{Error, Result};
use crate::kernels::elementwise::epilogue::Activation;
use crate::kernels::norm::moments::Moments;
use crate::kernels::norm::{self, Maps};
use crate::kernels::runtime::allocator::{self, catching};
use crate::kernels::runtime::simd::Real;
use crate::tensor::compute::like_input;
use crate::tensor::meta::is_meta;
use crate::tensor::shape::numel;
use crate::tensor::{DType, MemoryFormat, Tensor, with_float};

/// Returns an error when memory cannot hold the statistics and factors of `channels` channels in
/// `f64`.
fn expect_statistics(channels: usize) -> Result<()> {
    const BYTES: usize = 64;
    Ok(allocator::check(channels.saturating_mul(BYTES))?)
}

/// Returns the moments of a map; zeros in a meta run, which has shapes alone.
fn moments_of(op: &'static str, x: &Tensor, maps: Maps) -> Result<Moments> {
    if is_meta() {
        let zeros = vec![0.0; maps.images * maps.channels];
        return Ok(Moments { mean: zeros.clone(), m2: zeros });
    }
    Ok(with_float!(x.dtype(), op, T => catching(|| norm::take_moments::<T>(maps, x.data()))?))
}

/// Returns `[N, C, ..]` as a channels-last map, without history.
fn as_map(x: &Tensor) -> Result<(Tensor, Maps)> {
    let shape = x.shape();
    let rest = numel(&shape[2..]);
    let map = if x.ndim() == 4 { x.detach() } else { x.with_shape(&[shape[0], shape[1], rest, 1], MemoryFormat::RowMajor) };
    Ok((map.to_format(MemoryFormat::ChannelsLast)?, Maps { images: shape[0], rows: rest, channels: shape[1] }))
}

/// Returns a gradient of shape `[N, C, ..]` as a channels-last map.
fn grad_map(grad: &Tensor, map: &[usize]) -> Result<Tensor> {
    let grad = if grad.ndim() == 4 { grad.detach() } else { grad.with_shape(map, MemoryFormat::RowMajor) };
    grad.to_format(MemoryFormat::ChannelsLast)
}

/// Does the same as [`grad_map`], for a gradient that may be overwritten when its storage is not
/// shared.
fn into_map(grad: Tensor, map: &[usize]) -> Result<Tensor> {
    grad_map(&grad, map)
}

/// Returns a channels-last map in its original shape: channels-last for four dimensions, else
/// row-major.
fn from_map(map: Tensor, shape: &[usize]) -> Result<Tensor> {
    Ok(if shape.len() == 4 { map } else { map.to_format(MemoryFormat::RowMajor)?.with_shape(shape, MemoryFormat::RowMajor) })
}

/// Checks that every given tensor has the input's dtype and the wanted shape.
fn check_parameters(op: &'static str, x: &Tensor, wanted: &[usize], given: &[(&'static str, Option<&Tensor>)]) -> Result<()> {
    x.expect_float(op)?;
    for (name, tensor) in given.iter().filter_map(|&(name, tensor)| Some((name, tensor?))) {
        like_input(op, x, name, tensor)?;
        if tensor.shape() != wanted {
            return Err(Error::shape(
                op,
                format!("expected a {name} {wanted:?} for input {:?}, got shape {:?}", x.shape(), tensor.shape()),
            ));
        }
    }
    Ok(())
}

fn to_f64(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.cast(DType::F64)?.to_vec()
}

/// Returns a parameter's values, or `default` for each channel.
fn values(parameter: Option<&Tensor>, channels: usize, default: f64) -> Result<Vec<f64>> {
    parameter.map_or_else(|| Ok(vec![default; channels]), to_f64)
}

fn vector(values: &[f64], dtype: DType) -> Result<Tensor> {
    Tensor::build(&[values.len()], MemoryFormat::RowMajor, |out: &mut [f64]| out.copy_from_slice(values))?.cast(dtype)
}

/// Rounds means to `dtype`, and returns the rounded means and the rounding errors.
///
/// A pass subtracts the rounded mean, which is exact for values near it. The rounding error goes
/// into the shift, so that a mean much larger than the deviation costs no digits.
fn split_means(mean: &[f64], dtype: DType) -> (Vec<f64>, Vec<f64>) {
    let round = |mean: f64| if dtype == DType::F32 { f64::from(mean as f32) } else { mean };
    mean.iter().map(|&mean| (round(mean), mean - round(mean))).unzip()
}

/// Returns whether `f32` cannot hold the squares that a normalisation with these `1/√(var + eps)`
/// computes; true also for values that are not finite. The normalisation is then computed in `f64`.
fn exceeds_f32<T: Real>(dtype: DType, rstd: &[T]) -> bool {
    dtype == DType::F32 && !is_meta() && rstd.iter().any(|rstd| !(T::of(1e-15)..=T::of(1e15)).contains(rstd))
}

fn widened(tensor: Option<&Tensor>) -> Result<Option<Tensor>> {
    tensor.map(|tensor| tensor.to_dtype(DType::F64)).transpose()
}

/// Applies `f` element by element.
fn zip(a: &[f64], b: &[f64], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
}

/// Computes `a - b · c` element by element.
fn minus_product(a: &[f64], b: &[f64], c: &[f64]) -> Vec<f64> {
    zip(a, &zip(b, c, |b, c| b * c), |a, product| a - product)
}

/// Calls [`norm::forward`] on tensors.
fn forward(
    op: &'static str,
    maps: Maps,
    x: &Tensor,
    factors: [&[f64]; 3],
    shortcut: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    Ok(with_float!(x.dtype(), op, T => Tensor::build(x.shape(), x.memory_format(), |y: &mut [T]| {
        norm::forward(maps, x.data(), factors, shortcut.map(Tensor::data), activation, y);
    })?))
}

/// Calls [`norm::gradient_sums`] on tensors.
fn gradient_sums(
    op: &'static str,
    maps: Maps,
    grad: &Tensor,
    x: &Tensor,
    factors: [&[f64]; 3],
    activation: Activation,
) -> Result<norm::Pairs> {
    Ok(with_float!(x.dtype(), op, T => catching(|| norm::gradient_sums::<T>(maps, grad.data(), x.data(), factors, activation))?))
}

/// Calls [`norm::gradient`] on tensors; the result overwrites the gradient when its storage is not
/// shared.
fn gradient(
    op: &'static str,
    maps: Maps,
    mut grad: Tensor,
    x: &Tensor,
    factors: [&[f64]; 3],
    corrections: [&[f64]; 2],
    activation: Activation,
) -> Result<Tensor> {
    with_float!(x.dtype(), op, T => {
        if let Some(dx) = grad.data_mut::<T>() {
            catching(|| norm::gradient(maps, None, x.data(), factors, corrections, activation, dx))?;
            return Ok(grad);
        }
        Tensor::build(x.shape(), x.memory_format(), |dx: &mut [T]| {
            norm::gradient(maps, Some(grad.data()), x.data(), factors, corrections, activation, dx);
        })
    })
}
