//! # Where to look
//!
//! Attention in a convolutional network is a multiplication by factors between 0 and 1 that the
//! network computes from its own maps: one factor for each channel says what matters
//! (squeeze-and-excitation, Hu, Shen and Sun, 2017; CBAM's channel attention), one for each
//! position says where (CBAM's spatial attention; Woo, Park, Lee and Kweon, *CBAM: Convolutional
//! Block Attention Module*, 2018). The paper finds that each helps and that channels first, then
//! positions, helps most.
//!
//! A small residual network of three blocks reads digits that stand anywhere in a picture, among
//! pieces of other digits: a task in which to know where to look should help. The same network is
//! trained with no attention, with squeeze-and-excitation
//! ([`convnet::models::SqueezeExcite`]), with CBAM's channels, with CBAM's positions, and with both
//! ([`convnet::models::Cbam`]), from the same seeds, on the same pictures, for the same steps.
//!
//! What to look at: the means beside their spread over the seeds. In `attention.png` the first row
//! are test pictures, then follow the factors of the positions in the three blocks of a network
//! with both kinds, from the smallest (dark blue) to the largest (yellow). The last column of the
//! table says the same in a number: the mean factor of the first block on the digit, divided by
//! that beside it.

use convnet::data::Image;
use convnet::inspect;
use convnet::models::{BasicBlock, Cbam, ChannelAttention, SpatialAttention, SqueezeExcite};
use convnet::ops::Interpolation;
use convnet::prelude::*;
use convnet::train::accuracy;

use super::clutter::{Clutter, Scenes};
use super::lab::{Experiment, Lab, Pictures, ensure, fit_by, glyphs, predict, say, spread, table};

pub const EXPERIMENT: Experiment = Experiment {
    name: "attention",
    claim: "factors for channels and for positions, and both more than either, improve a residual network (Woo et al., 2018)",
    run,
};

/// Creates the layer at the end of a block with this number of channels.
type Layer = fn(usize) -> Option<Box<dyn Module>>;

const KINDS: [(&str, Layer); 5] = [
    ("none", |_| None),
    ("SE", |channels| Some(Box::new(SqueezeExcite::squeezed(channels, channels / 16)))),
    ("CBAM, channels", |channels| Some(Box::new(ChannelAttention::new(channels)))),
    ("CBAM, positions", |_| Some(Box::new(SpatialAttention::new()))),
    ("CBAM, both", |channels| Some(Box::new(Cbam::new(channels)))),
];

fn run(lab: &Lab) -> Result<String> {
    let digits = lab.digits()?;
    // Digits of MNIST are halved: what the experiment is about are places, not details.
    let digit = if digits.size > 16 { digits.size / 2 } else { digits.size };
    let clutter = Clutter { digit, side: 3 * digit - 6, pieces: digit / 3 };
    let scenes = |pictures: &Pictures, count: usize, seed: u64| {
        let halved = glyphs(pictures, 20_000)?.into_iter().map(|(pixels, label)| {
            let picture = Tensor::from_vec(pixels, [1, 1, digits.size, digits.size])?;
            Ok((picture.adaptive_avg_pool2d(digit)?.to_vec::<f32>()?, label))
        });
        clutter.scenes(&halved.collect::<Result<Vec<_>>>()?, count, seed)
    };
    let train = scenes(&digits.train, lab.pick(4000, 8000), lab.seed)?;
    let test = scenes(&digits.test, lab.pick(300, 2000), lab.seed + 1)?;
    say(format_args!("{} among pieces of others, pictures of {side}×{side}\n", digits.name, side = clutter.side));

    let seeds = lab.pick(1, 5);
    let mut rows = vec![["attention", "parameters", "accuracy", "±", "on / beside the digit"].map(String::from)];
    let (mut means, mut on_digit) = (vec![], 0.0);
    for (name, layer) in KINDS {
        let (mut accuracies, mut ratios, mut parameters) = (vec![], vec![], 0);
        for seed in 0..seeds {
            manual_seed(lab.seed + seed);
            let model = network(layer);
            parameters = model.num_parameters();
            fit_by(&model, train.labels.numel(), lab.pick(2, 6), 50, 3e-3, lab.seed + seed, |batch| {
                model.forward(&train.images.index_select(0, batch)?)?.cross_entropy(&train.labels.index_select(0, batch)?)
            })?;
            accuracies.push(accuracy(&predict(&model, &test.images)?, &test.labels)?);
            if let Some(maps) = positions(&model, &test.images.narrow(0, 0, 100)?)? {
                ratios.push(on_and_beside(&test, &maps[0])?);
                if name == "CBAM, both" && seed == 0 {
                    draw(lab, &test, &maps)?;
                }
            }
        }
        let (mean, deviation) = spread(&accuracies);
        let ratio = if ratios.is_empty() { String::new() } else { format!("{:.2}", spread(&ratios).0) };
        rows.push([name.to_string(), parameters.to_string(), format!("{mean:.4}"), format!("{deviation:.4}"), ratio]);
        means.push(mean);
        if name == "CBAM, positions" {
            on_digit = spread(&ratios).0;
        }
    }
    table(&rows);

    let bound = lab.pick(0.15, 0.5);
    let least = means.iter().copied().fold(1.0, f64::min);
    ensure(least >= bound, format_args!("the least accuracy is {least:.3}, expected at least {bound}"))?;
    // Factors for positions know where the digit is. What they gain is less than the spread of the
    // seeds: they must not cost more than this.
    ensure(on_digit > lab.pick(1.2, 1.4), format_args!("factors on the digit are only {on_digit:.2} times those beside it"))?;
    ensure(means[3] > means[0] - lab.pick(0.25, 0.02), format_args!("{:.3} with positions, {:.3} without", means[3], means[0]))?;
    let figures: Vec<String> = KINDS.iter().zip(&means).map(|((name, _), mean)| format!("{name} {mean:.4}")).collect();
    Ok(format!("accuracy, means of {seeds} seeds: {}", figures.join("; ")))
}

/// Three residual blocks, each with a layer of attention at the end of its branch.
fn network(layer: Layer) -> Sequential {
    let block = |inputs: usize, outputs: usize, stride: usize| {
        let mut block = BasicBlock::new(inputs, outputs, stride);
        block.se = layer(outputs);
        block
    };
    Sequential::new()
        .push(Conv2d::new(1, 16, 3).stride(2).padding(1).bias(false))
        .push(BatchNorm2d::new(16))
        .push(ReLU)
        .push_named("block1", block(16, 16, 1))
        .push_named("block2", block(16, 32, 2))
        .push_named("block3", block(32, 64, 2))
        .push(AdaptiveAvgPool2d::new(1))
        .push(Flatten)
        .push(Linear::new(64, 10))
}

/// Returns the factors `[N, 1, h, w]` of the positions in the three blocks, if the network has
/// them.
fn positions(model: &Sequential, pictures: &Tensor) -> Result<Option<Vec<Tensor>>> {
    // What attention gets is the output of a block's last normalisation.
    let blocks = ["block1", "block2", "block3"];
    let seen = no_grad(|| inspect::capture(model, blocks.map(|block| format!("{block}.bn2")), || model.forward(pictures)))?;
    let mut maps = vec![];
    for block in blocks {
        let x = seen.output(&format!("{block}.bn2"))?;
        let Ok(layer) = model.try_get(&format!("{block}.se")) else { return Ok(None) };
        maps.push(no_grad(|| match (layer.downcast_ref::<SpatialAttention>(), layer.downcast_ref::<Cbam>()) {
            (Some(layer), _) => layer.scale(x).map(Some),
            (_, Some(layer)) => layer.spatial.scale(&layer.channel.forward(x)?).map(Some),
            _ => Ok(None),
        })?);
    }
    Ok(maps.into_iter().collect())
}

/// Draws six pictures and the factors of their positions, by block.
fn draw(lab: &Lab, scenes: &Scenes, maps: &[Tensor]) -> Result<()> {
    let of = |tensor: &Tensor, index: usize| tensor.narrow(0, index, 1);
    let large = |index: usize| {
        let picture = of(&scenes.images, index)?;
        let side = picture.shape()[2] * (72 / picture.shape()[2]).max(1);
        Image::from_tensor(&picture.interpolate(side, Interpolation::Nearest)?.squeeze(0)?)
    };
    let mut images = (0..6).map(large).collect::<Result<Vec<Image>>>()?;
    for map in maps {
        for index in 0..6 {
            let heat = of(map, index)?.squeeze([0, 1])?;
            images.push(large(index)?.overlay_with(&heat, Default::default(), 0.7)?);
        }
    }
    lab.save("attention.png", &Image::grid(&images, 6, 3)?)
}

/// Returns the mean factor in the squares of the digits, divided by that beside them.
fn on_and_beside(scenes: &Scenes, maps: &Tensor) -> Result<f64> {
    let squares = scenes.squares.narrow(0, 0, maps.size(0)?)?;
    let maps = maps.interpolate([squares.size(2)?, squares.size(3)?], Interpolation::Nearest)?;
    let mean = |weights: &Tensor| Ok::<_, Error>(f64::from(maps.mul(weights)?.sum(..)?.div(&weights.sum(..)?)?.item::<f32>()?));
    Ok(mean(&squares)? / mean(&squares.neg().add_scalar(1.0))?)
}
