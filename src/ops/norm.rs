//! Normalisation: batch (Ioffe and Szegedy, 2015), layer (Ba et al., 2016), group (Wu and He,
//! 2018).
//!
//! All compute `(x - mean) / √(var + eps) · weight + bias` with the biased variance. They differ in
//! the elements over which the statistics are taken. Statistics, and the factors computed from
//! them, are `f64` for every dtype of the tensor.

use crate::error::{Error, Result};
use crate::kernels::elementwise::epilogue::Activation;
use crate::kernels::norm::layer;
use crate::kernels::norm::moments::Moments;
use crate::kernels::norm::{self, ActivationSource, Maps};
use crate::kernels::runtime::allocator::{self, Buffer, catching};
use crate::kernels::runtime::simd::Real;
use crate::profiling::hooks::operation;
use crate::tensor::compute::like_input;
use crate::tensor::meta::is_meta;
use crate::tensor::shape::{numel, try_numel};
use crate::tensor::{DType, MemoryFormat, Tensor, with_float};

/// The result of [`Tensor::batch_norm_train`].
#[derive(Clone, Debug)]
pub struct BatchNormOutput {
    /// The normalised input.
    pub output: Tensor,
    /// The batch's mean of each channel, without history.
    pub mean: Tensor,
    /// The batch's biased variance of each channel, without history.
    pub var: Tensor,
    /// The number of values of each channel. It is 0 for an empty input, which has no statistics:
    /// leave running estimates unchanged then.
    pub count: usize,
}

/// Returns an error when memory cannot hold the statistics and factors of `channels` channels in
/// `f64`.
fn expect_statistics(channels: usize) -> Result<()> {
    const BYTES: usize = 64;
    Ok(allocator::check(channels.saturating_mul(BYTES))?)
}

/// Returns `[N, C, ..]` as a channels-last map, without history.
pub(super) fn as_map(x: &Tensor) -> Result<(Tensor, Maps)> {
    let shape = x.shape();
    let rest = numel(&shape[2..]);
    let map = if x.ndim() == 4 { x.detach() } else { x.with_shape(&[shape[0], shape[1], rest, 1], MemoryFormat::RowMajor) };
    Ok((map.to_format(MemoryFormat::ChannelsLast)?, Maps { images: shape[0], rows: rest, channels: shape[1] }))
}

/// Returns a gradient of shape `[N, C, ..]` as a channels-last map.
pub(super) fn grad_map(grad: &Tensor, map: &[usize]) -> Result<Tensor> {
    let grad = if grad.ndim() == 4 { grad.detach() } else { grad.with_shape(map, MemoryFormat::RowMajor) };
    grad.to_format(MemoryFormat::ChannelsLast)
}

/// Does the same as [`grad_map`], for a gradient that may be overwritten when its storage is not
/// shared.
fn into_map(grad: Tensor, map: &[usize]) -> Result<Tensor> {
    grad_map(&grad, map)
}

/// Calls [`norm::gradient_sums_in_place`] on tensors. With a shortcut, `kept` is the activation's
/// result where that determines the gradient, else the shortcut.
fn gradient_sums_in_place(
    op: &'static str,
    maps: Maps,
    grad: &mut Tensor,
    x: &Tensor,
    factors: [&[f64]; 3],
    kept: Option<&Tensor>,
    activation: Activation,
) -> Result<norm::Pairs> {
    Ok(with_float!(x.dtype(), op, T => {
        let source = match kept {
            None => ActivationSource::Normalised,
            Some(kept) if activation.reads_output() => ActivationSource::Output(kept.data()),
            Some(kept) => ActivationSource::NormalisedPlus(kept.data()),
        };
        let grad = grad.make_mut()?;
        catching(|| norm::gradient_sums_in_place::<T>(maps, grad, x.data(), factors, source, activation))?
    }))
}

/// Returns a channels-last map in its original shape: channels-last for four dimensions, else
/// row-major.
pub(super) fn from_map(map: Tensor, shape: &[usize]) -> Result<Tensor> {
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

/// Returns the input of a batch normalisation as a map in which the whole batch is one image.
fn batch_map(x: &Tensor, parameters: &[(&'static str, Option<&Tensor>)]) -> Result<(Tensor, Maps)> {
    x.expect_float("batch_norm")?;
    if !(2..=4).contains(&x.ndim()) {
        return Err(Error::shape("batch_norm", format!("expected [N, C], [N, C, L] or [N, C, H, W], got shape {:?}", x.shape())));
    }
    check_parameters("batch_norm", x, &x.shape()[1..2], parameters)?;
    let (map, Maps { channels, .. }) = as_map(x)?;
    expect_statistics(channels)?;
    let rows = x.numel().checked_div(channels).unwrap_or(0);
    Ok((map, Maps { images: 1, rows, channels }))
}

impl Tensor {
    /// Applies batch normalisation with the given running mean and variance, or with the batch's
    /// statistics, as in training, for `None`.
    ///
    /// # Shape
    /// `[N, C]`, `[N, C, L]` or `[N, C, H, W]`; the statistics, weight and bias are `[C]`. The
    /// result has the input's shape; it is channels-last in four dimensions, else row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] for other shapes, and, without running statistics, when each channel has
    /// only one value; [`Error::DType`] unless all are floating point, [`Error::MixedDTypes`]
    /// unless they have one type.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let x = Tensor::from_vec(vec![1f32, 10., 3., 30.], [2, 2])?;
    /// let y = x.batch_norm(None, None, None, 0.0)?;
    /// assert_eq!(y.to_vec::<f32>()?, [-1., -1., 1., 1.]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn batch_norm(
        &self,
        running: Option<(&Tensor, &Tensor)>,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f64,
    ) -> Result<Tensor> {
        let Some((mean, var)) = running else { return Ok(self.batch_norm_train(weight, bias, eps)?.output) };
        let _op = operation("batch_norm");
        let parameters = [("running mean", Some(mean)), ("running variance", Some(var)), ("weight", weight), ("bias", bias)];
        let (x, maps) = batch_map(self, &parameters)?;
        let mean = to_f64(mean)?;
        let rstd: Vec<f64> = to_f64(var)?.iter().map(|var| 1.0 / (var + eps).sqrt()).collect();
        let scale = zip(&values(weight, maps.channels, 1.0)?, &rstd, |weight, rstd| weight * rstd);
        let factors = [&mean[..], &scale, &values(bias, maps.channels, 0.0)?];
        let y = forward("batch_norm", maps, &x, factors, None, Activation::Linear)?;
        let kept = weight.is_some_and(Tensor::is_recorded).then(|| x.clone());
        let (shape, map_shape, none) = (self.shape().to_vec(), x.shape().to_vec(), Tensor::scalar(0u8));
        let (weight, bias) = (weight.unwrap_or(&none), bias.unwrap_or(&none));
        Ok(from_map(y, self.shape())?.record("batch_norm", [self, weight, bias], move |grad, wanted| {
            let grad = grad_map(grad, &map_shape)?;
            let zeros = &vec![0.0; maps.channels][..];
            let of_x = match wanted[0] {
                true => Some(from_map(forward("batch_norm", maps, &grad, [zeros, &scale, zeros], None, Activation::Linear)?, &shape)?),
                false => None,
            };
            if !wanted[1] && !wanted[2] {
                return Ok([of_x, None, None]);
            }
            // The gradient of the bias alone does not need the second sum, so `grad` can stand in
            // for `x`.
            let x = kept.as_ref().unwrap_or(&grad);
            let sums = gradient_sums("batch_norm", maps, &grad, x, [&mean, &scale, zeros], Activation::Linear)?;
            let of_weight = vector(&zip(&sums.second, &rstd, |sum, rstd| sum * rstd), grad.dtype())?;
            let of_bias = vector(&sums.first, grad.dtype())?;
            Ok([of_x, wanted[1].then_some(of_weight), wanted[2].then_some(of_bias)])
        }))
    }

    /// Applies batch normalisation with the batch's statistics, and returns them too, for running
    /// estimates.
    ///
    /// # Shape
    /// As [`batch_norm`](Tensor::batch_norm); `mean` and `var` are `[C]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when each channel has only one value, whose variance is 0, or for a shape
    /// that [`batch_norm`](Tensor::batch_norm) does not take; [`Error::DType`] unless all are
    /// floating point, [`Error::MixedDTypes`] unless they have one type.
    pub fn batch_norm_train(&self, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<BatchNormOutput> {
        self.batch_norm_act(weight, bias, eps, None, Activation::Linear)
    }

    /// Computes `activation(batch_norm(x) + shortcut)` with the batch's statistics, in the same
    /// passes over the data as [`batch_norm_train`](Tensor::batch_norm_train).
    ///
    /// Backward recomputes the activation's argument from the saved input. With a shortcut it also
    /// saves the shortcut or, for the rectifiers, the result; other operations usually keep both
    /// alive anyway.
    ///
    /// # Shape
    /// As [`batch_norm_train`](Tensor::batch_norm_train); the shortcut has the input's shape.
    ///
    /// # Errors
    /// [`Error::Shape`] when each channel has only one value or the shortcut has another shape;
    /// [`Error::DType`] unless all are floating point, [`Error::MixedDTypes`] unless they have one
    /// type.
    ///
    /// ```
    /// use convnet::{Tensor, nn::Activation};
    ///
    /// let x = Tensor::from_vec(vec![1f32, 10., 3., 30.], [2, 2])?;
    /// let y = x.batch_norm_act(None, None, 0.0, Some(&Tensor::full_like(&x, 0.5)), Activation::Relu)?;
    /// assert_eq!(y.output.to_vec::<f32>()?, [0., 0., 1.5, 1.5]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn batch_norm_act(
        &self,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f64,
        shortcut: Option<&Tensor>,
        activation: Activation,
    ) -> Result<BatchNormOutput> {
        self.batch_norm_of(None, weight, bias, eps, shortcut, activation)
    }

    /// Does the same as [`batch_norm_act`](Tensor::batch_norm_act), with the input's moments when
    /// they are already known, as after [`conv2d_with`](Tensor::conv2d_with).
    ///
    /// # Errors
    /// The errors of [`batch_norm_act`](Tensor::batch_norm_act), mainly [`Error::Shape`] when each
    /// channel has only one value.
    pub(crate) fn batch_norm_of(
        &self,
        moments: Option<Moments>,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f64,
        shortcut: Option<&Tensor>,
        activation: Activation,
    ) -> Result<BatchNormOutput> {
        let _op = operation("batch_norm");
        let (x, maps) = batch_map(self, &[("weight", weight), ("bias", bias)])?;
        check_parameters("batch_norm", self, self.shape(), &[("shortcut", shortcut)])?;
        let count = maps.rows;
        if count == 1 {
            let message = format!(
                "expected more than one value per channel when training, got shape {:?}; use a larger batch, or running statistics (`eval()`)",
                self.shape()
            );
            return Err(Error::shape("batch_norm", message));
        }
        let moments = match moments {
            Some(moments) => moments,
            None => with_float!(x.dtype(), "batch_norm", T => catching(|| norm::take_moments::<T>(maps, x.data()))?),
        };
        let var: Vec<f64> = moments.m2.iter().map(|squares| squares / count.max(1) as f64).collect();
        let rstd: Vec<f64> = var.iter().map(|var| 1.0 / (var + eps).sqrt()).collect();
        if exceeds_f32(self.dtype(), &rstd) {
            let [weight, bias, shortcut] = [widened(weight)?, widened(bias)?, widened(shortcut)?];
            let wide = self.to_dtype(DType::F64)?;
            let wide = wide.batch_norm_of(None, weight.as_ref(), bias.as_ref(), eps, shortcut.as_ref(), activation)?;
            let [output, mean] = [wide.output.to_dtype(DType::F32)?, wide.mean.to_dtype(DType::F32)?];
            // A variance that f32 cannot hold becomes half the largest f32 number: running
            // estimates stay finite and can recover, which they cannot from infinity.
            let var = wide.var.clamp(0.0, f64::from(f32::MAX) / 2.0)?.to_dtype(DType::F32)?;
            return Ok(BatchNormOutput { output, mean, var, count });
        }
        let statistics = [vector(&moments.mean, self.dtype())?, vector(&var, self.dtype())?];
        let (mean, rest) = split_means(&moments.mean, self.dtype());
        let scale = zip(&values(weight, maps.channels, 1.0)?, &rstd, |weight, rstd| weight * rstd);
        let shift = minus_product(&values(bias, maps.channels, 0.0)?, &rest, &scale);
        let added = shortcut.map(as_map).transpose()?.map(|(map, _)| map);
        let y = forward("batch_norm", maps, &x, [&mean, &scale, &shift], added.as_ref(), activation)?;
        // Saves what is needed to recompute the activation's argument where the input alone is not
        // enough.
        let kept =
            added.filter(|_| activation != Activation::Linear).map(|added| if activation.reads_output() { y.clone() } else { added });
        let (shape, none) = (self.shape().to_vec(), Tensor::scalar(0u8));
        let inputs = [self, weight.unwrap_or(&none), bias.unwrap_or(&none), shortcut.unwrap_or(&none)];
        let output = from_map(y, self.shape())?.record_owning("batch_norm", inputs, move |grad, wanted| {
            let mut grad = into_map(grad, x.shape())?;
            let factors = [&mean[..], &scale, &shift];
            // With a shortcut, its gradient is the gradient before the activation. Recomputing the
            // gradient of a nonlinear activation twice is expensive, so it is computed once here.
            let (sums, not_yet) = if kept.is_some() || activation.needs_map() {
                (gradient_sums_in_place("batch_norm", maps, &mut grad, &x, factors, kept.as_ref(), activation)?, Activation::Linear)
            } else {
                (gradient_sums("batch_norm", maps, &grad, &x, factors, activation)?, activation)
            };
            let second = minus_product(&sums.second, &sums.first, &rest);
            let of_shortcut = wanted[3].then(|| from_map(grad.clone(), &shape)).transpose()?;
            let of_weight = zip(&second, &rstd, |sum, rstd| sum * rstd);
            let dtype = grad.dtype();
            let of_x = if wanted[0] {
                let share = -1.0 / count.max(1) as f64;
                let slope = zip(&zip(&of_weight, &rstd, |sum, rstd| sum * rstd * share), &scale, |sum, scale| sum * scale);
                let offset = zip(&sums.first, &scale, |sum, scale| sum * scale * share);
                let offset = minus_product(&offset, &slope, &rest);
                Some(from_map(gradient("batch_norm", maps, grad, &x, factors, [&slope, &offset], not_yet)?, &shape)?)
            } else {
                None
            };
            let [of_weight, of_bias] = [vector(&of_weight, dtype)?, vector(&sums.first, dtype)?];
            Ok([of_x, wanted[1].then_some(of_weight), wanted[2].then_some(of_bias), of_shortcut])
        });
        let [mean, var] = statistics;
        Ok(BatchNormOutput { output, mean, var, count })
    }

    /// Applies group normalisation: splits each image's channels into `groups` and normalises each
    /// group with its own statistics.
    ///
    /// # Shape
    /// `[N, C, ..]`; weight and bias are `[C]`. The result has the input's shape; channels-last in
    /// four dimensions, else row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] for fewer than two dimensions, no channels, no positions or only one value,
    /// [`Error::Argument`] when `groups` does not divide the channels, [`Error::DType`] unless all
    /// are floating point, [`Error::MixedDTypes`] unless they have one type.
    pub fn group_norm(&self, groups: usize, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
        let _op = operation("group_norm");
        self.expect_float("group_norm")?;
        let &[images, channels, ref rest @ ..] = self.shape() else {
            return Err(Error::shape("group_norm", format!("expected [N, C, ..], got shape {:?}", self.shape())));
        };
        if channels == 0 || rest.contains(&0) {
            return Err(Error::shape("group_norm", format!("only the batch may be empty, got shape {:?}", self.shape())));
        }
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(Error::argument("group_norm", format!("{groups} groups do not divide the channels of shape {:?}", self.shape())));
        }
        check_parameters("group_norm", self, &[channels], &[("weight", weight), ("bias", bias)])?;
        if self.numel() == groups {
            return Err(Error::shape("group_norm", format!("expected more than one value per group, got shape {:?}", self.shape())));
        }
        let (x, maps) = as_map(self)?;
        expect_statistics(maps.images.max(1) * maps.channels)?;
        let width = channels / groups;
        let count = (width * maps.rows) as f64;
        let moments = with_float!(x.dtype(), "group_norm", T => catching(|| norm::take_moments::<T>(maps, x.data()))?);
        // Combines the channels' moments to the group's, and repeats them for each channel.
        let (mut mean, mut rstd) = (moments.mean, moments.m2);
        for (mean, rstd) in mean.chunks_exact_mut(width).zip(rstd.chunks_exact_mut(width)) {
            let center = mean.iter().sum::<f64>() / width as f64;
            let deviations = mean.iter().map(|mean| (mean - center) * (mean - center)).sum::<f64>();
            let var = (rstd.iter().sum::<f64>() + deviations * maps.rows as f64) / count;
            mean.fill(center);
            rstd.fill(1.0 / (var + eps).sqrt());
        }
        if exceeds_f32(self.dtype(), &rstd) {
            let (weight, bias) = (widened(weight)?, widened(bias)?);
            return self.to_dtype(DType::F64)?.group_norm(groups, weight.as_ref(), bias.as_ref(), eps)?.to_dtype(DType::F32);
        }
        let (mean, rest) = split_means(&mean, self.dtype());
        let weights = values(weight, channels, 1.0)?.repeat(images);
        let scale = zip(&weights, &rstd, |weight, rstd| weight * rstd);
        let biases = values(bias, channels, 0.0)?.repeat(images);
        let shift = minus_product(&biases, &rest, &scale);
        let factors = [&mean[..], &scale, &shift];
        let y = forward("group_norm", maps, &x, factors, None, Activation::Linear)?;
        let (shape, none) = (self.shape().to_vec(), Tensor::scalar(0u8));
        let (weight, bias) = (weight.unwrap_or(&none), bias.unwrap_or(&none));
        Ok(from_map(y, self.shape())?.record_owning("group_norm", [self, weight, bias], move |grad, wanted| {
            let (grad, dtype) = (into_map(grad, x.shape())?, x.dtype());
            // The shift only matters for the argument of an activation, and there is none: any
            // vector serves as the third factor.
            let factors = [&mean[..], &scale, &mean];
            let sums = gradient_sums("group_norm", maps, &grad, &x, factors, Activation::Linear)?;
            let second = minus_product(&sums.second, &sums.first, &rest);
            let of_x = if wanted[0] {
                let join = |sums: &[f64]| -> Vec<f64> {
                    let group = |sums: &[f64]| vec![-sums.iter().sum::<f64>() / count; width];
                    zip(sums, &scale, |sum, scale| sum * scale).chunks_exact(width).flat_map(group).collect()
                };
                let slope = zip(&join(&second), &rstd, |sum, rstd| sum * rstd * rstd);
                let shift = minus_product(&join(&sums.first), &slope, &rest);
                Some(from_map(gradient("group_norm", maps, grad, &x, factors, [&slope, &shift], Activation::Linear)?, &shape)?)
            } else {
                None
            };
            let over_images = |sums: &[f64]| {
                let mut total = vec![0.0; channels];
                sums.chunks_exact(channels).for_each(|sums| total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum));
                vector(&total, dtype)
            };
            let of_weight = wanted[1].then(|| over_images(&zip(&second, &rstd, |sum, rstd| sum * rstd))).transpose()?;
            Ok([of_x, of_weight, wanted[2].then(|| over_images(&sums.first)).transpose()?])
        }))
    }

    /// Applies layer normalisation over the trailing dimensions `normalized_shape`; each position
    /// of the other dimensions has its own statistics.
    ///
    /// # Shape
    /// `[.., normalized_shape]`; weight and bias have `normalized_shape`. The result has the
    /// input's shape; row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] when the input does not end in `normalized_shape` or that is empty,
    /// [`Error::DType`] unless all are floating point, [`Error::MixedDTypes`] unless they have one
    /// type.
    pub fn layer_norm(&self, normalized_shape: &[usize], weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
        let _op = operation("layer_norm");
        check_parameters("layer_norm", self, normalized_shape, &[("weight", weight), ("bias", bias)])?;
        let length = match try_numel(normalized_shape) {
            Some(length) if !normalized_shape.is_empty() && self.shape().ends_with(normalized_shape) => length,
            _ => {
                let message = format!("expected an input that ends in {normalized_shape:?}, got shape {:?}", self.shape());
                return Err(Error::shape("layer_norm", message));
            }
        };
        let rows = self.numel().checked_div(length).unwrap_or(0);
        let (x, shape) = (self.to_format(MemoryFormat::RowMajor)?, self.shape().to_vec());
        let row_major = |parameter: Option<&Tensor>| parameter.map(|parameter| parameter.to_format(MemoryFormat::RowMajor)).transpose();
        let [w, b] = [row_major(weight)?, row_major(bias)?];
        let none = Tensor::scalar(0u8);
        let (normalized, inputs) = (normalized_shape.to_vec(), [self, weight.unwrap_or(&none), bias.unwrap_or(&none)]);
        with_float!(self.dtype(), "layer_norm", T => {
            let new = || Buffer::<T>::try_uncleared(rows);
            let [mut mean, mut rest, mut rstd] = [new()?, new()?, new()?];
            let y = Tensor::build(&shape, MemoryFormat::RowMajor, |y: &mut [T]| {
                let [w, b] = [&w, &b].map(|parameter| parameter.as_ref().map(Tensor::data));
                layer::forward(length, x.data(), w, b, eps, y, [&mut mean, &mut rest, &mut rstd]);
            })?;
            if length > 0 && exceeds_f32(self.dtype(), &rstd) {
                let (weight, bias) = (widened(weight)?, widened(bias)?);
                return self.to_dtype(DType::F64)?.layer_norm(normalized_shape, weight.as_ref(), bias.as_ref(), eps)?.to_dtype(DType::F32);
            }
            Ok(y.record("layer_norm", inputs, move |grad, wanted| {
                let grad = grad.to_format(MemoryFormat::RowMajor)?;
                let of_x = wanted[0].then(|| Tensor::build(&shape, MemoryFormat::RowMajor, |dx: &mut [T]| {
                    layer::backward(length, grad.data(), x.data(), w.as_ref().map(Tensor::data), [&mean, &rest, &rstd], dx);
                }));
                let of_x = of_x.transpose()?;
                if !wanted[1] && !wanted[2] {
                    return Ok([of_x, None, None]);
                }
                let mut sums = Buffer::<T>::try_uncleared(2 * length)?;
                let (dw, db) = sums.split_at_mut(length);
                catching(|| layer::parameters_backward(length, grad.data(), x.data(), [&mean, &rest, &rstd], [&mut *dw, &mut *db]))?;
                let sum = |wanted: bool, sum: &[T]| {
                    wanted.then(|| Tensor::build(&normalized, MemoryFormat::RowMajor, |out: &mut [T]| out.copy_from_slice(sum))).transpose()
                };
                Ok([of_x, sum(wanted[1], dw)?, sum(wanted[2], db)?])
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::gradcheck;

    fn any(shape: &[usize], seed: usize) -> Tensor {
        let count: usize = shape.iter().product();
        Tensor::from_vec((0..count).map(|i| ((i * 7919 + seed * 131) % 1013) as f64 / 300.0 - 1.0).collect(), shape).unwrap()
    }

    /// Normalises by the plain formula: elements with the same `set` share statistics; `slot` gives
    /// the index into weight and bias.
    fn plain(x: &Tensor, set: impl Fn(usize) -> usize, slot: impl Fn(usize) -> usize, [weight, bias]: [&Tensor; 2], eps: f64) -> Vec<f64> {
        let (x, weight, bias) = (x.to_vec::<f64>().unwrap(), weight.to_vec::<f64>().unwrap(), bias.to_vec::<f64>().unwrap());
        let members = |at: usize| (0..x.len()).filter(|&other| set(other) == set(at)).map(|at| x[at]).collect::<Vec<_>>();
        let normalised = |at: usize| {
            let members = members(at);
            let mean = members.iter().sum::<f64>() / members.len() as f64;
            let var = members.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / members.len() as f64;
            (x[at] - mean) / (var + eps).sqrt() * weight[slot(at)] + bias[slot(at)]
        };
        (0..x.len()).map(normalised).collect()
    }

    fn close(found: &Tensor, expected: &[f64]) {
        let expected = Tensor::from_vec(expected.to_vec(), found.shape()).unwrap();
        // About ten terms near 1, summed in another order.
        assert!(approx::abs_diff_eq!(found, &expected, epsilon = 1e-12), "{:?}", found.worst_difference(&expected));
    }

    const SHAPES: [&[usize]; 3] = [&[5, 4], &[3, 4, 2], &[2, 4, 2, 3]];

    #[test]
    fn every_normalisation_agrees_with_its_formula_in_either_memory_format() {
        let (w, b) = (any(&[4], 1), any(&[4], 2));
        for shape in SHAPES {
            let rest: usize = shape[2..].iter().product();
            let row_major = any(shape, 3);
            let formats =
                if shape.len() == 4 { vec![MemoryFormat::RowMajor, MemoryFormat::ChannelsLast] } else { vec![MemoryFormat::RowMajor] };
            for x in formats.into_iter().map(|format| row_major.to_format(format).unwrap()) {
                let channel = |at: usize| at / rest % 4;
                let expected = plain(&x, channel, channel, [&w, &b], 0.1);
                let trained = x.batch_norm_train(Some(&w), Some(&b), 0.1).unwrap();
                close(&trained.output, &expected);
                assert_eq!(trained.count, x.numel() / 4);
                close(&x.batch_norm(None, Some(&w), Some(&b), 0.1).unwrap(), &expected);
                close(&x.batch_norm(Some((&trained.mean, &trained.var)), Some(&w), Some(&b), 0.1).unwrap(), &expected);
                let expected = plain(&x, |at| at / rest / 2, channel, [&w, &b], 0.1);
                close(&x.group_norm(2, Some(&w), Some(&b), 0.1).unwrap(), &expected);
                let length: usize = shape[1..].iter().product();
                let (w, b) = (any(&shape[1..], 4), any(&shape[1..], 5));
                let expected = plain(&x, |at| at / length, |at| at % length, [&w, &b], 0.1);
                close(&x.layer_norm(&shape[1..], Some(&w), Some(&b), 0.1).unwrap(), &expected);
            }
        }
    }

    #[test]
    fn gradients_agree_with_differences() {
        let settings = Default::default();
        let (w, b) = (any(&[4], 1), any(&[4], 2));
        let (mean, var) = (any(&[4], 6), any(&[4], 7).add_scalar(1.5));
        for shape in SHAPES {
            let inputs = [any(shape, 3), w.clone(), b.clone()];
            gradcheck(&inputs, settings, |t| t[0].batch_norm(None, Some(&t[1]), Some(&t[2]), 0.1)).unwrap();
            gradcheck(&inputs[..1], settings, |t| t[0].batch_norm(None, None, None, 0.1)).unwrap();
            gradcheck(&inputs, settings, |t| t[0].batch_norm(Some((&mean, &var)), Some(&t[1]), Some(&t[2]), 0.1)).unwrap();
            gradcheck(&inputs[2..], settings, |t| inputs[0].batch_norm(Some((&mean, &var)), None, Some(&t[0]), 0.1)).unwrap();
            gradcheck(&inputs, settings, |t| t[0].group_norm(2, Some(&t[1]), Some(&t[2]), 0.1)).unwrap();
            gradcheck(&inputs[..1], settings, |t| t[0].group_norm(1, None, None, 0.1)).unwrap();
            let inputs = [any(shape, 3), any(&shape[1..], 4), any(&shape[1..], 5)];
            gradcheck(&inputs, settings, |t| t[0].layer_norm(&shape[1..], Some(&t[1]), Some(&t[2]), 0.1)).unwrap();
            gradcheck(&inputs[..1], settings, |t| t[0].layer_norm(&shape[1..], None, None, 0.1)).unwrap();
        }
        let last = any(&[2, 4, 2, 3], 3).to_format(MemoryFormat::ChannelsLast).unwrap();
        gradcheck(&[last.clone(), w, b], settings, |t| t[0].batch_norm(None, Some(&t[1]), Some(&t[2]), 0.1)).unwrap();
        gradcheck(&[last], settings, |t| t[0].layer_norm(&[3], None, None, 0.1)).unwrap();
    }

    #[test]
    fn empty_inputs_pass_where_pytorch_lets_them() {
        let w = Tensor::ones([3]).with_grad();
        let x = Tensor::zeros([0, 3, 4, 4]).with_grad();
        let output = x.batch_norm_train(Some(&w), None, 0.1).unwrap();
        assert_eq!((output.output.shape(), output.count), (x.shape(), 0));
        let gradients = output.output.sum(..).unwrap().backward().unwrap();
        assert_eq!(gradients.get(&w).unwrap().to_vec::<f32>().unwrap(), [0.0; 3]);
        assert_eq!(x.group_norm(3, Some(&w), None, 0.1).unwrap().shape(), x.shape());
        assert_eq!(x.layer_norm(&[4], None, None, 0.1).unwrap().shape(), x.shape());
        let none = Tensor::zeros([2, 0, 4]);
        assert_eq!(none.batch_norm(None, None, None, 0.1).unwrap().shape(), [2, 0, 4]);
        assert_eq!(Tensor::zeros([3, 0]).layer_norm(&[0], None, None, 0.1).unwrap().shape(), [3, 0]);
    }

    /// Returns the values and gradients of the three normalisations of `x` with their weights and
    /// biases.
    fn outcomes(x: &Tensor, [weight, bias, upstream]: [&Tensor; 3]) -> Vec<Vec<f64>> {
        type Norm = fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>;
        let norms: [Norm; 3] = [
            |x, w, b| x.batch_norm(None, Some(w), Some(b), 1e-5),
            |x, w, b| x.group_norm(2, Some(w), Some(b), 1e-5),
            |x, w, b| x.permute([0, 2, 1])?.layer_norm(&[4], Some(w), Some(b), 1e-5)?.permute([0, 2, 1]),
        ];
        let mut all = vec![];
        for norm in norms {
            let leaves = [x, weight, bias].map(|tensor| tensor.clone().with_grad());
            let y = norm(&leaves[0], &leaves[1], &leaves[2]).unwrap();
            let grads = y.mul(upstream).unwrap().sum(..).unwrap().backward().unwrap();
            all.push(y.to_dtype(DType::F64).unwrap().to_vec().unwrap());
            all.extend(leaves.iter().map(|leaf| grads.get(leaf).unwrap().to_dtype(DType::F64).unwrap().to_vec().unwrap()));
        }
        all
    }

    /// Returns the greatest over all outcomes of the largest error of `found`, relative to the
    /// largest value of `exact`.
    fn worst_error(x: &Tensor) -> f64 {
        let parameters = [any(&[4], 1), any(&[4], 2), any(x.shape(), 5)];
        let to = |dtype: DType| parameters.each_ref().map(|tensor| tensor.to_dtype(dtype).unwrap());
        let ([a, b, c], [d, e, f]) = (to(DType::F32), to(DType::F64));
        let found = outcomes(x, [&a, &b, &c]);
        let exact = outcomes(&x.to_dtype(DType::F64).unwrap(), [&d, &e, &f]);
        let largest =
            |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, |largest: f64, x| if x.abs() <= largest { largest } else { x.abs() });
        found
            .iter()
            .zip(&exact)
            .map(|(found, exact)| {
                let error = largest(&mut found.iter().zip(exact).map(|(found, exact)| found - exact));
                error / largest(&mut exact.iter().copied())
            })
            .fold(0.0, |worst, error| if error <= worst { worst } else { error })
    }

    #[test]
    fn values_whose_squares_f32_cannot_hold_are_normalised() {
        for scale in [1e-30, 1e18, 1e25, 1e30, 1e38] {
            let x = any(&[3, 4, 5], 3).try_mul_scalar(scale).unwrap().to_dtype(DType::F32).unwrap();
            // A few roundings of f32, 6e-8 each.
            let error = worst_error(&x);
            assert!(error < 2e-6, "{error} at {scale}");
        }
        let x = Tensor::from_vec(vec![1e30f32, 2e30, 4e30, 9e30], [4, 1]).unwrap();
        let trained = x.batch_norm_train(None, None, 1e-5).unwrap();
        assert_eq!(trained.mean.item::<f32>().unwrap(), 4e30);
        assert!(trained.var.item::<f32>().unwrap().is_finite());
    }

    #[test]
    fn large_mean_costs_no_digits_of_small_deviation() {
        let noise = any(&[3, 4, 50], 3).try_mul_scalar(0.006).unwrap();
        let x = noise.try_add_scalar(1e4).unwrap().to_dtype(DType::F32).unwrap();
        // The error of PyTorch 2.15 in layer_norm is 0.12.
        let error = worst_error(&x);
        assert!(error < 1e-5, "{error}");
    }

    #[test]
    fn first_element_far_from_the_others_costs_no_digits() {
        let x: Vec<f32> = (0..768).map(|i| if i == 0 { 100.0 } else { ((i * 7919 % 1013) as f32 - 506.0) / 300.0 }).collect();
        let x = Tensor::from_vec(x, [1, 768]).unwrap();
        let y = x.layer_norm(&[768], None, None, 1e-5).unwrap().to_vec::<f32>().unwrap();
        let exact = x.to_dtype(DType::F64).unwrap().layer_norm(&[768], None, None, 1e-5).unwrap().to_vec::<f64>().unwrap();
        let error = y.iter().zip(&exact).skip(1).map(|(&y, exact)| (f64::from(y) - exact).abs()).fold(0.0, f64::max);
        // The error of PyTorch 2.15 is 5e-8; with deviations from the first element it would be
        // 1.5e-6.
        assert!(error < 2e-7, "{error}");
    }

    #[test]
    fn bias_gradients_of_many_pixels_keep_the_precision_of_f32() {
        // The gradient that global average pooling and ReLU give: one number for each map, or zero.
        let [n, c, size] = [32, 64, 8];
        let number = |i: usize| ((i * 7919 + 13) % 1013) as f64 / 500.0 - 1.0;
        let upstream = (0..n * c * size * size).map(|i| if i * 31 % 7 < 4 { number(i / (size * size)) as f32 } else { 0.0 });
        let upstream = Tensor::from_vec(upstream.collect(), [n, c, size, size]).unwrap();
        let bias = Tensor::zeros([c]).with_grad();
        let y = Tensor::randn([n, c, size, size]).batch_norm(None, None, Some(&bias), 1e-5).unwrap();
        let grads = y.mul(&upstream).unwrap().sum(..).unwrap().backward().unwrap();
        let exact = upstream.to_dtype(DType::F64).unwrap().sum([0, 2, 3]).unwrap().to_vec::<f64>().unwrap();
        let found = grads.get(&bias).unwrap().to_vec::<f32>().unwrap();
        let largest = exact.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        let error = found.iter().zip(&exact).map(|(&found, exact)| (f64::from(found) - exact).abs()).fold(0.0, f64::max) / largest;
        // The error of PyTorch 2.15 is 1.1e-7 here (5.4e-6 in channels-last); that of lanes summed
        // without blocks is 2.0e-6.
        assert!(error < 3e-7, "{error}");
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let message = |result: Result<Tensor>| result.unwrap_err().to_string();
        let x = Tensor::zeros([2, 4, 3]);
        let (three, wide) = (Tensor::ones([3]), Tensor::ones([4]).cast(DType::F64).unwrap());
        let expected = "batch_norm: expected a weight [4] for input [2, 4, 3], got shape [3]";
        assert_eq!(message(x.batch_norm(None, Some(&three), None, 0.1)), expected);
        let expected = "batch_norm: expected a running mean [4] for input [2, 4, 3], got shape [3]";
        assert_eq!(message(x.batch_norm(Some((&three, &three)), None, None, 0.1)), expected);
        assert_eq!(
            message(x.batch_norm(None, None, Some(&wide), 0.1)),
            "batch_norm: the input is f32, the bias f64; convert either, with `.to_dtype(DType::F64)` or `.to_dtype(DType::F32)`"
        );
        let one = Tensor::zeros([1, 4, 1, 1]).batch_norm(None, None, None, 0.1);
        assert_eq!(
            message(one),
            "batch_norm: expected more than one value per channel when training, got shape [1, 4, 1, 1]; use a larger batch, or running statistics (`eval()`)"
        );
        let flat = Tensor::zeros([4]);
        assert_eq!(
            message(flat.batch_norm(None, None, None, 0.1)),
            "batch_norm: expected [N, C], [N, C, L] or [N, C, H, W], got shape [4]"
        );
        let integers = Tensor::full([2, 4], 0.0, DType::I64);
        assert_eq!(
            message(integers.batch_norm(None, None, None, 0.1)),
            "batch_norm: expected f32 or f64, got i64; convert with `.to_dtype(DType::F32)`"
        );
        assert_eq!(message(flat.group_norm(2, None, None, 0.1)), "group_norm: expected [N, C, ..], got shape [4]");
        assert_eq!(message(x.group_norm(3, None, None, 0.1)), "group_norm: 3 groups do not divide the channels of shape [2, 4, 3]");
        assert_eq!(message(x.group_norm(0, None, None, 0.1)), "group_norm: 0 groups do not divide the channels of shape [2, 4, 3]");
        let alone = Tensor::zeros([1, 4]).group_norm(4, None, None, 0.1);
        assert_eq!(message(alone), "group_norm: expected more than one value per group, got shape [1, 4]");
        let hollow = Tensor::zeros([2, 4, 0]).group_norm(2, None, None, 0.1);
        assert_eq!(message(hollow), "group_norm: only the batch may be empty, got shape [2, 4, 0]");
        assert_eq!(message(x.layer_norm(&[4], None, None, 0.1)), "layer_norm: expected an input that ends in [4], got shape [2, 4, 3]");
        assert_eq!(message(x.layer_norm(&[], None, None, 0.1)), "layer_norm: expected an input that ends in [], got shape [2, 4, 3]");
        let expected = "layer_norm: expected a bias [3] for input [2, 4, 3], got shape [4]";
        assert_eq!(message(x.layer_norm(&[3], None, Some(&Tensor::ones([4])), 0.1)), expected);
    }

    #[test]
    fn empty_batches_of_huge_maps_pass() {
        let x = Tensor::zeros([0, 2, 1 << 55, 3]);
        for y in [x.batch_norm(None, None, None, 0.1), x.group_norm(2, None, None, 0.1), x.layer_norm(&[1 << 55, 3], None, None, 0.1)] {
            assert_eq!(y.unwrap().shape(), x.shape());
        }
    }
}
