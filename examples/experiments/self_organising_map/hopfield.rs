//! A Hopfield network that completes damaged digits.

use convnet::data::{Batch, Image, Resize, ResizeFilter, Rng};
use convnet::prelude::*;

use crate::lab::{Lab, ensure, plus_minus, say, spread, table};

/// How a picture is damaged: a share of its pixels is inverted, or its lower half erased.
const DAMAGES: [(&str, f64); 5] =
    [("10% inverted", 0.1), ("20% inverted", 0.2), ("30% inverted", 0.3), ("40% inverted", 0.4), ("lower half erased", 0.0)];

/// Stores one digit of each class, damages and recalls it; returns the figure.
pub fn complete(lab: &Lab, digits: &Batch) -> Result<String> {
    let mut right = [const { [const { vec![] }; 3] }; DAMAGES.len()];
    for seed in lab.seed..lab.seed + 5 {
        let mut rng = Rng::new(seed);
        let patterns = one_of_each(digits, &mut rng)?;
        let rules = [hebb(&patterns)?, projection(&patterns)?];
        for (damage, right) in DAMAGES.into_iter().zip(&mut right) {
            let damaged = hurt(&patterns, damage.1, &mut rng)?;
            let recalled = [recall(&damaged, &rules[0])?, recall(&damaged, &rules[1])?];
            for (column, states) in [&damaged, &recalled[0], &recalled[1]].into_iter().enumerate() {
                right[column].push(f64::from(states.eq(&patterns)?.to_dtype(DType::F32)?.mean(..)?.item::<f32>()?));
            }
            if seed == lab.seed && damage.1 == 0.3 {
                draw(lab, &[&patterns, &damaged, &recalled[0], &recalled[1]], digits.images.shape()[2])?;
            }
        }
    }
    let mut rows = vec![["Hopfield, 10 digits, 5 seeds", "pixels right before", "Hebb's rule", "projection rule"].map(String::from)];
    for ((name, _), right) in DAMAGES.iter().zip(&right) {
        rows.push([name.to_string(), plus_minus(&right[0]), plus_minus(&right[1]), plus_minus(&right[2])]);
    }
    say("");
    table(&rows);
    let [_, hebb, projection] = [0, 1, 2].map(|column| spread(&right[1][column]).0);
    ensure(projection > 0.95, "the projection rule does not restore digits with a fifth of their pixels inverted")?;
    ensure(projection > hebb, "Hebb's rule recalls digits better than the projection rule")?;
    Ok(format!("of digits with 20% of pixels inverted, {projection:.3} of pixels are right after recall (Hebb's rule {hebb:.3})"))
}

/// Returns a digit of each class, `[10, pixels]`, as ±1.
fn one_of_each(digits: &Batch, rng: &mut Rng) -> Result<Tensor> {
    let labels = digits.labels.to_vec::<i64>()?;
    let mut order: Vec<usize> = (0..labels.len()).collect();
    rng.shuffle(&mut order);
    let chosen: Option<Vec<i64>> = (0..10).map(|class| order.iter().find(|&&i| labels[i] == class).map(|&i| i as i64)).collect();
    let chosen = chosen.ok_or_else(|| Error::msg("the data lacks a digit"))?;
    sign(&digits.images.index_select(0, &Tensor::from_vec(chosen, [10])?)?.flatten(1, -1)?.sub_scalar(0.5))
}

/// Returns 1 where a number is positive, elsewhere -1.
fn sign(x: &Tensor) -> Result<Tensor> {
    x.gt_scalar(0.0)?.where_(&x.ones_like(), &x.full_like(-1.0))
}

/// Hebb's rule: what is active together is coupled. No unit is coupled to itself.
fn hebb(patterns: &Tensor) -> Result<Tensor> {
    without_diagonal(&patterns.transpose(0, 1)?.matmul(patterns)?)
}

/// The projection onto the space of the patterns, by an orthonormal basis (Gram and Schmidt).
fn projection(patterns: &Tensor) -> Result<Tensor> {
    let mut basis: Vec<Tensor> = Vec::new();
    for pattern in patterns.to_dtype(DType::F64)?.chunk(patterns.shape()[0], 0)? {
        let mut rest = pattern;
        for known in &basis {
            rest = rest.sub(&known.mul(&known.mul(&rest)?.sum(..)?)?)?;
        }
        basis.push(rest.normalize(2.0, 1, 1e-12)?);
    }
    let basis = Tensor::cat(&basis.iter().collect::<Vec<_>>(), 0)?.to_dtype(DType::F32)?;
    without_diagonal(&basis.transpose(0, 1)?.matmul(&basis)?)
}

fn without_diagonal(weights: &Tensor) -> Result<Tensor> {
    weights.mul(&Tensor::eye(weights.shape()[0]).neg().add_scalar(1.0))
}

fn hurt(patterns: &Tensor, share: f64, rng: &mut Rng) -> Result<Tensor> {
    let pixels = patterns.shape()[1];
    let mut values = patterns.to_vec::<f32>()?;
    for (i, value) in values.iter_mut().enumerate() {
        if share == 0.0 {
            *value = if i % pixels < pixels / 2 { *value } else { -1.0 };
        } else if rng.chance(share) {
            *value = -*value;
        }
    }
    Tensor::from_vec(values, patterns.shape())
}

/// Lets all units take the sign of their input until nothing changes.
fn recall(damaged: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let mut state = damaged.clone();
    for _ in 0..50 {
        let next = sign(&state.matmul(weights)?)?;
        if next.to_vec::<f32>()? == state.to_vec::<f32>()? {
            break;
        }
        state = next;
    }
    Ok(state)
}

/// Draws rows of digits.
fn draw(lab: &Lab, rows: &[&Tensor], size: usize) -> Result<()> {
    let mut images = Vec::new();
    for row in rows {
        for digit in row.mul_scalar(0.5).add_scalar(0.5).reshape([10, 1, size, size])?.chunk(10, 0)? {
            let mut image = Image::from_tensor(&digit.squeeze(0)?)?.to_bytes();
            image.apply(&Resize::new([56, 56]).interpolation(ResizeFilter::Nearest))?;
            images.push(image);
        }
    }
    lab.save("self_organising_map_hopfield.png", &Image::grid(&images, 10, 4)?)
}
