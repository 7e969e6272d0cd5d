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

use convnet::data::{Image, Rng};
use convnet::inspect;
use convnet::models::{BasicBlock, Cbam, ChannelAttention, SpatialAttention, SqueezeExcite};
use convnet::ops::Interpolation;
use convnet::prelude::*;
use convnet::train::{Mean, accuracy};

use super::lab::{Experiment, Lab, Pictures, ensure, say, spread, table};

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
    let mut rng = Rng::new(lab.seed);
    let train = Scenes::new(&digits.train, lab.pick(4000, 20_000), &mut rng)?;
    let test = Scenes::new(&digits.test, lab.pick(300, 2000), &mut rng)?;
    let size = train.pictures.shape()[2];
    say(format_args!("{} among pieces of others, pictures of {size}×{size}\n", digits.name));

    let seeds = lab.pick(1, 5);
    let mut rows = vec![["attention", "parameters", "accuracy", "±", "on / beside the digit"].map(String::from)];
    let mut means = vec![];
    for (name, layer) in KINDS {
        let (mut accuracies, mut ratios, mut parameters) = (vec![], vec![], 0);
        for seed in 0..seeds {
            manual_seed(lab.seed + seed);
            let model = network(layer);
            parameters = model.num_parameters();
            learn(&model, &train, 2, lab.seed + seed)?;
            accuracies.push(tested(&model, &test)?);
            if let Some(maps) = positions(&model, &test.pictures.narrow(0, 0, 100)?)? {
                ratios.push(test.on_and_beside(&maps[0])?);
                if name == "CBAM, both" && seed == 0 {
                    draw(lab, &test, &maps)?;
                }
            }
        }
        let (mean, deviation) = spread(&accuracies);
        let ratio = if ratios.is_empty() { String::new() } else { format!("{:.2}", spread(&ratios).0) };
        rows.push([name.to_string(), parameters.to_string(), format!("{mean:.4}"), format!("{deviation:.4}"), ratio]);
        means.push(mean);
    }
    table(&rows);

    let bound = lab.pick(0.15, 0.8);
    let least = means.iter().copied().fold(1.0, f64::min);
    ensure(least >= bound, format_args!("the least accuracy is {least:.3}, expected at least {bound}"))?;
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

fn learn(model: &Sequential, scenes: &Scenes, epochs: usize, seed: u64) -> Result<()> {
    let mut optimizer = Adam::new(model.parameters(), 3e-3);
    let mut rng = Rng::new(seed);
    let count = scenes.labels.numel();
    let steps = epochs * count / 50;
    for step in 0..steps {
        // Falls to 0 in a straight line.
        optimizer.set_learning_rate(0, 3e-3 * (1.0 - step as f64 / steps as f64))?;
        let chosen = Tensor::from_vec((0..50).map(|_| rng.below(count) as i64).collect(), [50])?;
        let logits = model.forward(&scenes.pictures.index_select(0, &chosen)?)?;
        optimizer.step(&logits.cross_entropy(&scenes.labels.index_select(0, &chosen)?)?.backward()?)?;
    }
    model.eval();
    Ok(())
}

fn tested(model: &Sequential, scenes: &Scenes) -> Result<f64> {
    let (mut mean, count) = (Mean::default(), scenes.labels.numel());
    for start in (0..count).step_by(100) {
        let part = |of: &Tensor| of.narrow(0, start, 100.min(count - start));
        let labels = part(&scenes.labels)?;
        mean.update(accuracy(&no_grad(|| model.forward(&part(&scenes.pictures)?))?, &labels)?, labels.numel());
    }
    Ok(mean.value())
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
        let picture = of(&scenes.pictures, index)?;
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

/// Pictures of a digit among pieces of others.
struct Scenes {
    /// `[N, 1, S, S]`, 0 to 1.
    pictures: Tensor,
    labels: Tensor,
    /// Top and left of each digit, and the size of all.
    corners: Vec<[usize; 2]>,
    digit: usize,
}

impl Scenes {
    fn new(digits: &Pictures, count: usize, rng: &mut Rng) -> Result<Scenes> {
        // Digits of MNIST are halved, so that 14 or 8 pixels stand in 36 or 18.
        let draw = |rng: &mut Rng| {
            let (image, label) = digits.get(rng.below(digits.len()), rng)?;
            let half = if image.height() > 16 { image.height() / 2 } else { image.height() };
            let pixels = image.to_tensor().unsqueeze(0)?.adaptive_avg_pool2d(half)?;
            Ok::<_, Error>((pixels.to_vec::<f32>()?, half, label))
        };
        let (mut values, mut labels, mut corners) = (vec![], vec![], vec![]);
        let digit = draw(rng)?.1;
        let size = 3 * digit - 6;
        for _ in 0..count {
            let mut picture = vec![0f32; size * size];
            let mut paste = |pixels: &[f32], part: usize, [top, left]: [usize; 2]| {
                for (row, column) in (0..part).flat_map(|row| (0..part).map(move |column| (row, column))) {
                    let place = &mut picture[(top + row) * size + left + column];
                    *place = place.max(pixels[row * digit + column]);
                }
            };
            let corner = |part: usize, rng: &mut Rng| [(); 2].map(|()| rng.below(size - part + 1));
            for _ in 0..digit / 3 {
                let (pixels, ..) = draw(rng)?;
                // The middle of a digit, half its size.
                let start = digit / 4 * (digit + 1);
                paste(&pixels[start..], digit / 2, corner(digit / 2, rng));
            }
            let (pixels, _, label) = draw(rng)?;
            let at = corner(digit, rng);
            paste(&pixels, digit, at);
            values.extend(picture);
            labels.push(label);
            corners.push(at);
        }
        Ok(Scenes {
            pictures: Tensor::from_vec(values, [count, 1, size, size])?,
            labels: Tensor::from_vec(labels, [count])?,
            corners,
            digit,
        })
    }

    /// Returns the mean factor on the digits, divided by that beside them.
    fn on_and_beside(&self, maps: &Tensor) -> Result<f64> {
        let (&[count, _, h, w], size) = (maps.shape(), self.pictures.shape()[2]) else { unreachable!("maps are [N, 1, h, w]") };
        let (mut on, mut beside) = (Mean::default(), Mean::default());
        for (i, &factor) in maps.to_vec::<f32>()?.iter().enumerate() {
            let [top, left] = self.corners[i / (h * w)];
            let [y, x] = [i / w % h * size / h, i % w * size / w];
            let inside = (top..top + self.digit).contains(&y) && (left..left + self.digit).contains(&x);
            if inside { &mut on } else { &mut beside }.update(f64::from(factor), 1);
        }
        debug_assert!(count <= self.corners.len());
        Ok(on.value() / beside.value())
    }
}
