//! How far φ(g·x) is from g·φ(x), layer by layer.

use convnet::data::DataLoader;
use convnet::nn::{Module, Sequential};
use convnet::{Result, Tensor, inspect, manual_seed, no_grad};

use super::{NETWORKS, Parts, STAGES, network};
use crate::lab::{Lab, Pictures, batch, first, fit, spread, table};

/// Measures how far networks are from equivariance. Returns the largest error of the plain one's
/// output under shifts, and the error of the usual one's output at 4 pixels.
pub fn layer_by_layer(lab: &Lab, train: &Pictures, test: &Pictures) -> Result<(f64, f64)> {
    let x = batch(&first(test, lab.pick(50, 200))?)?.images;
    let moves = ["shift by 1", "shift by 4", "rotation by 90°"];
    let mut rows = vec![["network", "change", "stage 1", "stage 2", "stage 3", "output", "other class"].map(String::from)];
    let (mut exact, mut broken) = (0f64, 0.0);
    for (at, (name, parts)) in NETWORKS.into_iter().enumerate() {
        // For each move the errors of the stages, of the output, and the share of other classes.
        let mut errors = vec![vec![Vec::new(); 5]; moves.len()];
        for seed in lab.seed..lab.seed + lab.pick(1, 3) {
            manual_seed(seed);
            let net = network(parts);
            fit(&net, &DataLoader::new(train.clone(), 25).shuffle(seed), lab.pick(2, 4), 0.05)?;
            for (which, errors) in errors.iter_mut().enumerate() {
                for (list, error) in errors.iter_mut().zip(errors_of(&net, parts, &x, which)?) {
                    list.push(error);
                }
            }
        }
        for (which, (errors, change)) in errors.iter().zip(moves).enumerate() {
            let means: Vec<f64> = errors.iter().map(|list| spread(list).0).collect();
            if at == 0 && which < 2 {
                exact = exact.max(means[3]);
            }
            if at == NETWORKS.len() - 1 && which == 1 {
                broken = means[3];
            }
            let number = |value: f64| if value < 1e-4 { format!("{value:.0e}") } else { format!("{value:.3}") };
            let first = if which == 0 { name } else { "" };
            let cells = [first.to_string(), change.to_string()].into_iter().chain(means[..4].iter().map(|&mean| number(mean)));
            rows.extend(<[String; 7]>::try_from(cells.chain([format!("{:.1} %", 100.0 * means[4])]).collect::<Vec<_>>()));
        }
    }
    table(&rows);
    Ok((exact, broken))
}

/// Returns the errors after each stage and of the output, and the share of pictures whose class
/// changes, for a shift by 1, by 4 or a rotation by 90°.
fn errors_of(net: &Sequential, parts: Parts, x: &Tensor, which: usize) -> Result<Vec<f64>> {
    // From 2 pixels left of the middle to at most 2 pixels right of it, so that all that a kernel
    // answers to stays inside.
    let left = x.roll(-2, 3)?;
    let (before, after, pixels) = match which {
        0 => (left.clone(), left.roll(1, 3)?, 1.0),
        1 => (left.clone(), left.roll(4, 3)?, 4.0),
        _ => (x.clone(), turned(x)?, 0.0),
    };
    let run = |x: &Tensor| no_grad(|| inspect::capture(net, STAGES, || net.forward(x)));
    let (blank, before, after) = (run(&x.zeros_like())?, run(&before)?, run(&after)?);
    let mut errors = Vec::new();
    let strides = if parts.pooling || parts.stride { [2.0, 4.0, 4.0] } else { [1.0; 3] };
    for (stage, stride) in STAGES.into_iter().zip(strides) {
        let (maps, moved) = (before.output(stage)?, after.output(stage)?);
        let expected = if which == 2 { turned(maps)? } else { shifted(maps, pixels / stride)? };
        errors.push(relative(&expected, moved, &maps.sub(blank.output(stage)?)?)?);
    }
    errors.push(relative(&before.value, &after.value, &before.value.sub(&blank.value)?)?);
    let (a, b) = (before.value.argmax(1)?.to_vec::<i64>()?, after.value.argmax(1)?.to_vec::<i64>()?);
    errors.push(a.iter().zip(&b).filter(|(a, b)| a != b).count() as f64 / a.len() as f64);
    Ok(errors)
}

/// Moves maps to the right; by a part of a pixel, by linear interpolation.
fn shifted(maps: &Tensor, pixels: f64) -> Result<Tensor> {
    let whole = maps.roll(pixels.floor() as i64, 3)?;
    let next = maps.roll(pixels.floor() as i64 + 1, 3)?;
    let part = pixels - pixels.floor();
    Ok(&(&whole * (1.0 - part)) + &(&next * part))
}

/// Turns pictures or maps by 90 degrees.
fn turned(maps: &Tensor) -> Result<Tensor> {
    maps.transpose(2, 3)?.flip([2])
}

fn relative(expected: &Tensor, found: &Tensor, scale: &Tensor) -> Result<f64> {
    let norm = |x: &Tensor| Ok::<_, convnet::Error>(f64::from((x * x).sum(..)?.item::<f32>()?).sqrt());
    Ok(norm(&expected.sub(found)?)? / norm(scale)?.max(1e-12))
}
