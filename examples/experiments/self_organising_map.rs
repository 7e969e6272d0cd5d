//! # Networks that learn without being told
//!
//! Kohonen (*Self-organized formation of topologically correct feature maps*, 1982) puts units on a
//! square lattice. Each has a prototype; a picture moves the prototype nearest to it, and those of
//! the lattice's neighbours, towards itself, while learning rate and neighbourhood shrink. What is
//! claimed: the prototypes cover the data almost as well as k-means (*quantisation error*, the mean
//! distance of a picture to the nearest prototype), and in addition neighbours on the lattice are
//! neighbours in the data (*topographic error*, the share of pictures whose two nearest units do
//! not touch). The U-matrix shows each unit's mean distance to its neighbours: bright ridges divide
//! the classes, which the map has never been told.
//!
//! A network of Hopfield (1982) stores pictures as minima of an energy, `w = Σ x·xᵀ / n`, and a
//! damaged picture falls into the nearest one. His rule holds for random pictures; digits resemble
//! each other, and then the projection rule `W = X·(XᵀX)⁻¹·Xᵀ` (Personnaz et al., 1985) is needed.
//!
//! An autoencoder (Hinton & Salakhutdinov, 2006) passes each picture through a narrow layer and has
//! to restore it: the narrower, the lower the peak signal-to-noise ratio.
//!
//! Look at: the two errors beside k-means', the map and its U-matrix, and which rule recalls.

mod autoencoder;
mod hopfield;

use convnet::data::{ColorMap, Image, Resize, ResizeFilter, Rng};
use convnet::prelude::*;

use super::lab::{Experiment, Lab, batch, ensure, first, plus_minus, say, spread, table};

pub const EXPERIMENT: Experiment = Experiment {
    name: "self_organising_map",
    claim: "a map orders digits without labels; a Hopfield network completes them; an autoencoder compresses them",
    run,
};

/// Units along a side of the map.
const SIDE: usize = 12;

fn run(lab: &Lab) -> Result<String> {
    let digits = lab.digits()?;
    let train = batch(&first(&digits.train, lab.pick(1438, 20_000))?)?;
    let test = batch(&first(&digits.test, 10_000)?)?;
    let (x, seen) = (train.images.flatten(1, -1)?, test.images.flatten(1, -1)?);

    let mut rows = vec![["units", "quantisation error", "topographic error", "accuracy of labelled units"].map(String::from)];
    let mut errors = [vec![], vec![], vec![], vec![]];
    let mut accuracies = [vec![], vec![]];
    for seed in lab.seed..lab.seed + 3 {
        let (map, means) = (organise(&x, lab.pick(10, 20), seed)?, k_means(&x, lab.pick(10, 20), seed)?);
        for (i, units) in [&map, &means].into_iter().enumerate() {
            let (quantisation, topographic) = map_errors(units, &seen)?;
            errors[2 * i].push(quantisation);
            errors[2 * i + 1].push(topographic);
            accuracies[i].push(labelled_accuracy(units, (&x, &train.labels), (&seen, &test.labels))?);
        }
        if seed == lab.seed {
            draw(lab, &map, digits.size)?;
        }
    }
    for (i, name) in ["Kohonen's map", "k-means"].into_iter().enumerate() {
        rows.push([name.into(), plus_minus(&errors[2 * i]), plus_minus(&errors[2 * i + 1]), plus_minus(&accuracies[i])]);
    }
    say(format_args!("{}: {} to train on, {} to test on, {SIDE}×{SIDE} units, three seeds", digits.name, x.shape()[0], seen.shape()[0]));
    table(&rows);
    let (quantisation, topographic) = (spread(&errors[0]).0, spread(&errors[1]).0);
    ensure(quantisation < 1.25 * spread(&errors[2]).0, "the map covers the digits far worse than k-means")?;
    ensure(topographic < 0.25 && spread(&errors[3]).0 > 0.8, "the map does not keep the order of the data")?;

    let restored = hopfield::complete(lab, &train)?;
    let psnr = autoencoder::compress(lab, &x, &seen)?;
    Ok(format!(
        "quantisation error {quantisation:.2} (k-means {:.2}), topographic error {topographic:.3}; {restored}; {psnr}",
        spread(&errors[2]).0
    ))
}

/// Trains a map by small batches of Kohonen's rule, `w += Σ η·h·(x − w)`, where `h` falls with the
/// distance on the lattice from the unit that is nearest to `x`.
fn organise(x: &Tensor, epochs: usize, seed: u64) -> Result<Tensor> {
    let (mut units, mut rng, batches) = (start(x, seed)?, Rng::new(seed), x.shape()[0] / 64);
    let mut order: Vec<i64> = (0..x.shape()[0] as i64).collect();
    let place = |unit: usize| [(unit / SIDE) as f64, (unit % SIDE) as f64];
    let squared: Vec<f32> = (0..SIDE.pow(4))
        .map(|i| (place(i / (SIDE * SIDE)), place(i % (SIDE * SIDE))))
        .map(|(a, b)| ((a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2)) as f32)
        .collect();
    let squared = Tensor::from_vec(squared, [SIDE * SIDE, SIDE * SIDE])?;
    for epoch in 0..epochs {
        rng.shuffle(&mut order);
        for (step, chosen) in order.chunks_exact(64).enumerate() {
            let progress = (epoch * batches + step) as f64 / (epochs * batches) as f64;
            let radius = SIDE as f64 / 2.0 * (1.0 / SIDE as f64).powf(progress);
            let rate = 0.1 * (0.1f64).powf(progress);
            let x = x.index_select(0, &Tensor::from_slice(chosen, [64])?)?;
            let nearest = distances(&x, &units)?.argmin(1)?;
            let h = squared.mul_scalar(-0.5 / (radius * radius)).exp()?.index_select(0, &nearest)?; // [64, units]
            let pull = h.sum(0)?.unsqueeze(1)?;
            // A unit that many pictures pull at once moves to their mean and not beyond.
            let step = pull.recip()?.clamp(0.0, rate)?;
            units = units.add(&step.mul(&h.transpose(0, 1)?.matmul(&x)?.sub(&pull.mul(&units)?)?)?)?;
        }
    }
    Ok(units)
}

/// Lloyd's algorithm (1957): each unit moves to the mean of the pictures nearest to it.
fn k_means(x: &Tensor, rounds: usize, seed: u64) -> Result<Tensor> {
    let mut units = start(x, seed)?;
    for _ in 0..rounds {
        let nearest = distances(x, &units)?.argmin(1)?;
        let sums = units.zeros_like().index_add(0, &nearest, x)?;
        let counts = Tensor::zeros([SIDE * SIDE, 1]).index_add(0, &nearest, &Tensor::ones([x.shape()[0], 1]))?;
        // A unit without pictures stays where it is.
        units = counts.gt_scalar(0.0)?.where_(&sums.div(&counts.clamp(1.0, f64::INFINITY)?)?, &units)?;
    }
    Ok(units)
}

/// Returns pictures drawn at random, one for each unit.
fn start(x: &Tensor, seed: u64) -> Result<Tensor> {
    let mut rng = Rng::new(seed);
    let chosen = (0..SIDE * SIDE).map(|_| rng.below(x.shape()[0]) as i64).collect();
    x.index_select(0, &Tensor::from_vec(chosen, [SIDE * SIDE])?)
}

/// Squared distances `[pictures, units]`.
fn distances(x: &Tensor, units: &Tensor) -> Result<Tensor> {
    let products = x.matmul(&units.transpose(0, 1)?)?;
    x.square()?.sum_keepdim(1)?.add(&units.square()?.sum(1)?)?.sub(&products.mul_scalar(2.0))
}

/// Quantisation and topographic error.
fn map_errors(units: &Tensor, x: &Tensor) -> Result<(f64, f64)> {
    let (values, nearest) = distances(x, units)?.neg().topk(2, 1)?;
    let quantisation = values.narrow(1, 0, 1)?.neg().clamp(0.0, f64::INFINITY)?.sqrt()?.mean(..)?.item::<f32>()?;
    let nearest = nearest.to_vec::<i64>()?;
    let apart = nearest.chunks(2).filter(|pair| {
        let [a, b] = [pair[0] as usize, pair[1] as usize];
        (a / SIDE).abs_diff(b / SIDE) > 1 || (a % SIDE).abs_diff(b % SIDE) > 1
    });
    Ok((f64::from(quantisation), apart.count() as f64 / x.shape()[0] as f64))
}

/// Names each unit after the class most frequent among its training pictures, and returns the share
/// of test pictures whose nearest unit has the name of their class.
fn labelled_accuracy(units: &Tensor, (x, classes): (&Tensor, &Tensor), (seen, expected): (&Tensor, &Tensor)) -> Result<f64> {
    let nearest = distances(x, units)?.argmin(1)?;
    let votes = Tensor::zeros([SIDE * SIDE, 10]).index_add(0, &nearest, &classes.one_hot(10)?.to_dtype(DType::F32)?)?;
    let given = votes.argmax(1)?.index_select(0, &distances(seen, units)?.argmin(1)?)?;
    Ok(f64::from(given.eq(expected)?.to_dtype(DType::F32)?.mean(..)?.item::<f32>()?))
}

/// Draws the prototypes as they lie on the lattice, and the U-matrix.
fn draw(lab: &Lab, units: &Tensor, size: usize) -> Result<()> {
    let side = 28;
    let enlarge = Resize::new([side, side]).interpolation(ResizeFilter::Nearest);
    let mut prototypes = Vec::new();
    for unit in units.reshape([SIDE * SIDE, 1, size, size])?.chunk(SIDE * SIDE, 0)? {
        let mut image = Image::from_tensor(&unit.squeeze(0)?)?.to_bytes();
        image.apply(&enlarge)?;
        prototypes.push(image);
    }
    lab.save("self_organising_map.png", &Image::grid(&prototypes, SIDE, 1)?)?;

    let apart = distances(units, units)?.clamp(0.0, f64::INFINITY)?.sqrt()?.to_vec::<f32>()?;
    let mut heights = Vec::new();
    for unit in 0..SIDE * SIDE {
        let touches = |other: &usize| (unit / SIDE).abs_diff(other / SIDE) + (unit % SIDE).abs_diff(other % SIDE) == 1;
        let near: Vec<f32> = (0..SIDE * SIDE).filter(touches).map(|other| apart[unit * SIDE * SIDE + other]).collect();
        heights.push(near.iter().sum::<f32>() / near.len() as f32);
    }
    let mut picture = ColorMap::Viridis.paint(&Tensor::from_vec(heights, [SIDE, SIDE])?)?;
    picture.apply(&Resize::new([SIDE * (side + 1); 2]).interpolation(ResizeFilter::Nearest))?;
    lab.save("self_organising_map_u_matrix.png", &picture)
}
