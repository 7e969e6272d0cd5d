//! Group normalisation; with one channel in each group, instance normalisation.

use super::{
    as_map, check_parameters, exceeds_f32, expect_statistics, forward, from_map, gradient, gradient_sums, into_map, minus_product,
    moments_of, split_means, values, vector, widened, zip,
};
use crate::error::{Error, Result};
use crate::kernels::elementwise::epilogue::Activation;
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::{DType, Tensor};

impl Tensor {
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
        let observed = operation("group_norm");
        observed.details(|| Details::new().int("groups", groups).float("eps", eps));
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
        let moments = moments_of("group_norm", &x, maps)?;
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
}
