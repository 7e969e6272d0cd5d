//! What stays the same when the picture moves, and what does not.
//!
//! "Whatever the shift, the output stays the same" is said of convolutional networks. A layer φ is
//! *equivariant* when φ(g·x) = g·φ(x): a shifted picture gives shifted maps. Convolution is, for
//! shifts only; a sum over all places, global pooling, then makes the output *invariant*. What
//! breaks it (Azulay and Weiss, 2019; Zhang, 2019): zero padding, since a pixel at the border is
//! computed from other numbers than one inside; pooling and stride, for shifts that are no multiple
//! of the stride; a dense layer, which has separate weights for each place. Nothing in a
//! convolutional network is equivariant to rotations; it can only learn them.
//!
//! The first table has ‖φ(g·x) − g·φ(x)‖ over the norm of what the digit changes in φ, after each
//! stage of trained networks; a map of stride s moves by a fraction of its pixels, by linear
//! interpolation. The second has the accuracy of a digit classifier against shift and angle, with
//! and without shifted and rotated pictures in training. Look at the chart: how fast accuracy
//! falls.

mod layers;

use convnet::chart::Chart;
use convnet::data::{Affine, DataLoader, Dataset, Image, Pad, RandomAffine, Resize, ResizeFilter};
use convnet::nn::{AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential};
use convnet::{Result, manual_seed};

use super::lab::{Experiment, Lab, Pictures, accuracy, ensure, first, fit, say, spread, table};

pub const EXPERIMENT: Experiment = Experiment {
    name: "equivariance",
    claim: "convolution moves with the picture; padding, pooling, stride and dense layers break it, and rotation was never in it",
    run,
};

/// Digits of 16×16 in the middle of 32×32.
const DIGIT: usize = 16;
const MARGIN: usize = 8;

/// What a network is built of.
#[derive(Clone, Copy)]
struct Parts {
    padding: bool,
    pooling: bool,
    stride: bool,
    global: bool,
}

const PLAIN: Parts = Parts { padding: false, pooling: false, stride: false, global: true };
const USUAL: Parts = Parts { padding: true, pooling: true, stride: false, global: false };

const NETWORKS: [(&str, Parts); 6] = [
    ("convolutions, global pooling", PLAIN),
    ("… with zero padding", Parts { padding: true, ..PLAIN }),
    ("… with 2×2 pooling", Parts { pooling: true, ..PLAIN }),
    ("… with stride 2", Parts { stride: true, ..PLAIN }),
    ("… with a dense layer", Parts { global: false, ..PLAIN }),
    ("padding, pooling, dense layer", USUAL),
];

const STAGES: [&str; 3] = ["stage1", "stage2", "stage3"];

/// Three convolutions; pooling or stride halve the maps twice.
fn network(parts: Parts) -> Sequential {
    let mut net = Sequential::new();
    let mut side = DIGIT + 2 * MARGIN;
    for (i, (inputs, outputs)) in [(1, 8), (8, 16), (16, 16)].into_iter().enumerate() {
        let halved = i < 2;
        let stride = if parts.stride && halved { 2 } else { 1 };
        let conv = Conv2d::new(inputs, outputs, 3).padding(usize::from(parts.padding)).stride(stride).bias(false);
        let mut stage = Sequential::new().push(conv).push(BatchNorm2d::new(outputs)).push(ReLU);
        side = (side + 2 * usize::from(parts.padding) - 3) / stride + 1;
        if parts.pooling && halved {
            stage = stage.push(MaxPool2d::new(2));
            side /= 2;
        }
        net = net.push_named(STAGES[i], stage);
    }
    // [N, 16, side, side]
    if parts.global {
        net.push(AdaptiveAvgPool2d::new(1)).push(Flatten).push(Linear::new(16, 10))
    } else {
        net.push(Flatten).push(Linear::new(16 * side * side, 10))
    }
}

fn run(lab: &Lab) -> Result<String> {
    let digits = lab.digits()?;
    let small = |pictures: &Pictures, count| -> Result<Pictures> {
        let pictures = first(pictures, count)?;
        Ok(std::sync::Arc::new(pictures.map(|(mut image, label), _| {
            image.apply(&Resize::new(DIGIT))?;
            image.apply(&Pad::new(MARGIN))?;
            Ok((image, label))
        })))
    };
    let train = small(&digits.train, lab.pick(500, 3000))?;
    let test = small(&digits.test, lab.pick(150, 600))?;
    say(format_args!("{}: {} pictures to train on, {} to test on, {} seeds\n", digits.name, train.len(), test.len(), lab.pick(1, 3)));
    let (exact, broken) = layers::layer_by_layer(lab, &train, &test)?;
    say("");
    let [still, shifted, helped] = accuracies(lab, &train, &test)?;
    ensure(exact < 1e-4, format_args!("convolutions and global pooling alone change by {exact:.1e} under a shift"))?;
    ensure(broken > 0.05, format_args!("the usual network changes by {broken:.3} only under a shift"))?;
    ensure(still - shifted > 0.2, format_args!("accuracy falls from {still:.3} to {shifted:.3} only under a shift of 8 pixels"))?;
    Ok(format!(
        "a shift of 4 pixels changes the outputs of the usual network by {:.0} %, those of convolutions with global pooling by {exact:.0e}; \
         accuracy falls from {still:.3} to {shifted:.3} at 8 pixels, to {helped:.3} with augmentation",
        100.0 * broken
    ))
}

/// Draws accuracy over shift and angle. Returns the accuracy of the usual network in place, at a
/// shift of 8 pixels, and there with augmentation.
fn accuracies(lab: &Lab, train: &Pictures, test: &Pictures) -> Result<[f64; 3]> {
    let shifts: Vec<f64> = if lab.quick { vec![0.0, 4.0, 8.0] } else { (0..=8).map(f64::from).collect() };
    let angles: Vec<f64> = if lab.quick { vec![0.0, 45.0, 90.0, 180.0] } else { (0..=12).map(|i| f64::from(i) * 15.0).collect() };
    let global = Parts { global: true, ..USUAL };
    let ways = [("dense", USUAL, false), ("dense, augmented", USUAL, true), ("global", global, false), ("global, augmented", global, true)];
    let mut rows = vec![["accuracy", "in place", "shift 4", "shift 8", "45°", "90°", "180°"].map(String::from)];
    let mut charts = [Chart::new("Shift").x("pixels").y("accuracy"), Chart::new("Rotation").x("degrees").y("accuracy")];
    let mut figures = Vec::new();
    for (name, parts, augmented) in ways {
        let mut by_shift = vec![Vec::new(); shifts.len()];
        let mut by_angle = vec![Vec::new(); angles.len()];
        for seed in lab.seed..lab.seed + lab.pick(1, 3) {
            manual_seed(seed);
            let net = network(parts);
            let mut data = DataLoader::new(train.clone(), 25).shuffle(seed);
            if augmented {
                data = data.transform(RandomAffine::new(45.0).translate([0.25, 0.25]).interpolation(ResizeFilter::Bilinear));
            }
            fit(&net, &data, lab.pick(12, 8), 0.05)?;
            let test = |change: Affine| {
                let changed = test.clone().map(move |(mut image, label): (Image, i64), _| {
                    image.apply(&change.clone().interpolation(ResizeFilter::Bilinear))?;
                    Ok((image, label))
                });
                accuracy(&net, &DataLoader::new(changed, 100))
            };
            for (list, &shift) in by_shift.iter_mut().zip(&shifts) {
                list.push(test(Affine::new().translate([shift, 0.0]))?);
            }
            for (list, &angle) in by_angle.iter_mut().zip(&angles) {
                list.push(test(Affine::new().rotate(angle))?);
            }
        }
        let mut cells = vec![name.to_string()];
        let wanted = [(&shifts, &by_shift, vec![0.0, 4.0, 8.0]), (&angles, &by_angle, vec![45.0, 90.0, 180.0])];
        for ((places, lists, shown), chart) in wanted.into_iter().zip(&mut charts) {
            let (means, deviations): (Vec<f64>, Vec<f64>) = lists.iter().map(|list| spread(list)).unzip();
            let with_means = || places.iter().zip(means.iter().zip(&deviations));
            *chart = chart.clone().band(name, with_means().map(|(&x, (mean, deviation))| (x, mean - deviation, mean + deviation)));
            *chart = chart.clone().curve(name, with_means().map(|(&x, (&mean, _))| (x, mean)));
            for (_, (mean, deviation)) in with_means().filter(|(place, _)| shown.contains(place)) {
                cells.push(format!("{mean:.3} ± {deviation:.3}"));
            }
            figures.extend(
                with_means().filter(|(place, _)| shown[..1].contains(place) || shown[2..].contains(place)).map(|(_, (&mean, _))| mean),
            );
        }
        rows.extend(<[String; 7]>::try_from(cells));
    }
    table(&rows);
    let charts = charts.map(|chart| chart.horizontal("guessing", 0.1).y_range(0.0, 1.0));
    lab.chart("equivariance.svg", Chart::panels(&charts, 2).title("Accuracy of a digit classifier against shift and angle"))?;
    // For each network: in place, shift 8, 45°, 180°.
    Ok([figures[0], figures[1], figures[5]])
}
