//! Batch normalisation, alone and with a shortcut and an activation.

use super::{
    as_map, check_parameters, exceeds_f32, expect_statistics, forward, from_map, grad_map, gradient, gradient_sums, into_map,
    minus_product, moments_of, split_means, to_f64, values, vector, widened, zip,
};
use crate::error::{Error, Result};
use crate::kernels::elementwise::epilogue::Activation;
use crate::kernels::norm::moments::Moments;
use crate::kernels::norm::{self, ActivationSource, Maps};
use crate::kernels::runtime::allocator::catching;
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::{DType, Tensor, with_float};

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
        let observed = operation("batch_norm");
        observed.details(|| Details::new().float("eps", eps).tensor("mean", mean).tensor("var", var));
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
        let observed = operation("batch_norm");
        observed.details(|| Details::new().float("eps", eps).flag("linear", activation == Activation::Linear));
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
            None => moments_of("batch_norm", &x, maps)?,
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
}
