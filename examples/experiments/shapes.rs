//! Triangles, squares, stars and circles in any position, size and angle: how much data it takes.
//!
//! Convolution brings shift with it; nothing in a convolutional network brings angle, size or
//! brightness: those it has to see. Data sets of drawn shapes are the field's first exercise, and
//! since shapes can be drawn without end, they show how accuracy grows with the number of examples
//! when nothing else changes (Hestness et al., *Deep Learning Scaling is Predictable, Empirically*,
//! 2017, find a power law for the error).
//!
//! The same network takes the same number of steps on 16 to 4,096 pictures, and is tested on 2,000
//! others. A step sees 32 pictures, or all where there are fewer. Look at the middle of the chart,
//! where the error is a straight line on logarithmic axes, and at its left end, where the network
//! has learned pictures by heart.

use convnet::chart::Chart;
use convnet::data::{ColorMap, Image, Rng};
use convnet::prelude::*;

use super::lab::{Experiment, Lab, enlarged, ensure, fit_steps, percent, predict, say, spread, table};

pub const EXPERIMENT: Experiment = Experiment {
    name: "shapes",
    claim: "accuracy on shapes of any position, size and angle grows with the data as a power of its amount",
    run,
};

const NAMES: [&str; 4] = ["triangle", "square", "star", "circle"];
const SIDE: usize = 32;

/// Returns the corners of a shape of radius 1; a circle is a polygon of many.
fn corners(class: usize) -> Vec<[f64; 2]> {
    let (count, inner) = [(3, 1.0), (4, 1.0), (10, 0.45), (40, 1.0)][class];
    let corner = |i: usize| {
        let (radius, angle) = (if i % 2 == 1 { inner } else { 1.0 }, std::f64::consts::TAU * i as f64 / count as f64);
        [radius * angle.cos(), radius * angle.sin()]
    };
    (0..count).map(corner).collect()
}

/// Returns whether a point is in a polygon: a ray from it crosses an odd number of sides.
fn inside(polygon: &[[f64; 2]], [x, y]: [f64; 2]) -> bool {
    let sides = polygon.iter().zip(polygon.iter().cycle().skip(1));
    sides.filter(|&(a, b)| (a[1] > y) != (b[1] > y) && x < a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0])).count() % 2 == 1
}

/// Draws a shape in a random position, size, angle, brightness and noise.
fn draw(class: usize, rng: &mut Rng) -> Vec<f32> {
    let side = SIDE as f64;
    let (radius, angle) = (side * rng.uniform(0.14, 0.4), rng.uniform(0.0, std::f64::consts::TAU));
    let centre = [rng.uniform(radius, side - radius), rng.uniform(radius, side - radius)];
    let (sin, cos) = angle.sin_cos();
    let turned = |[x, y]: [f64; 2]| [centre[0] + radius * (x * cos - y * sin), centre[1] + radius * (x * sin + y * cos)];
    let polygon: Vec<[f64; 2]> = corners(class).into_iter().map(turned).collect();
    let (dark, light) = (rng.uniform(0.0, 0.4), rng.uniform(0.6, 1.0));
    let (background, ink) = if rng.chance(0.5) { (dark, light) } else { (light, dark) };
    let pixel = |at: usize| {
        // Four points in a pixel soften its edges.
        let points = [[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]];
        let covered =
            points.iter().filter(|[x, y]| inside(&polygon, [(at % SIDE) as f64 + x, (at / SIDE) as f64 + y])).count() as f64 / 4.0;
        background + (ink - background) * covered
    };
    (0..SIDE * SIDE).map(|at| (pixel(at) + 0.05 * rng.normal()).clamp(0.0, 1.0) as f32).collect()
}

fn pictures(count: usize, seed: u64) -> Result<(Tensor, Tensor)> {
    let pixels = (0..count).flat_map(|i| draw(i % 4, &mut Rng::for_sample(seed, 0, i as u64))).collect();
    let classes = (0..count).map(|i| (i % 4) as i64).collect();
    Ok((Tensor::from_vec(pixels, [count, 1, SIDE, SIDE])?, Tensor::from_vec(classes, [count])?))
}

fn network() -> Sequential {
    let block = |from, to| Sequential::new().push(Conv2d::new(from, to, 3).padding(1)).push(BatchNorm2d::new(to)).push(ReLU);
    let features = block(1, 16).push(MaxPool2d::new(2)).push(block(16, 32)).push(MaxPool2d::new(2)).push(block(32, 64)).push(block(64, 64));
    Sequential::new().push(features).push(AdaptiveAvgPool2d::new(1)).push(Flatten).push(Linear::new(64, 4))
}

fn run(lab: &Lab) -> Result<String> {
    let sizes: &[usize] = lab.pick(&[16, 128, 1024], &[16, 64, 256, 1024, 4096]);
    let (steps, batch) = (lab.pick(128, 300), 32usize);
    let (test, truth) = pictures(lab.pick(400, 2000), lab.seed + 1_000_000)?;
    let truth = truth.to_vec::<i64>()?;
    let mut accuracies = vec![];
    let mut confusion = [[0usize; 4]; 4];
    for &size in sizes {
        let mut results = vec![];
        for seed in 0..lab.pick(1, 3) {
            let (images, classes) = pictures(size, lab.seed + seed)?;
            convnet::manual_seed(lab.seed + seed);
            let net = network();
            fit_steps(&net, size, steps, batch, 0.01, lab.seed + seed, |batch| {
                net.forward(&images.index_select(0, batch)?)?.cross_entropy(&classes.index_select(0, batch)?)
            })?;
            let found = predict(&net, &test)?.argmax(1)?.to_vec::<i64>()?;
            results.push(found.iter().zip(&truth).filter(|(a, b)| a == b).count() as f64 / truth.len() as f64);
            if size == sizes[sizes.len() - 1] {
                found.iter().zip(&truth).for_each(|(&found, &class)| confusion[class as usize][found as usize] += 1);
            }
        }
        accuracies.push(results);
    }

    let mut rows = vec![["pictures".to_string(), "accuracy".to_string()]];
    rows.extend(sizes.iter().zip(&accuracies).map(|(size, results)| [size.to_string(), percent(results)]));
    table(&rows);
    let mut rows = vec![["shape, found as".to_string()].into_iter().chain(NAMES.map(str::to_string)).collect::<Vec<_>>()];
    rows.extend(NAMES.iter().zip(&confusion).map(|(name, row)| [name.to_string()].into_iter().chain(row.map(|n| n.to_string())).collect()));
    say("");
    table(&rows.into_iter().map(|row| row.try_into().expect("five columns")).collect::<Vec<[String; 5]>>());

    let points = || sizes.iter().zip(&accuracies).map(|(&size, results)| (size as f64, spread(results)));
    let chart = Chart::new("Error on shapes by the number of training pictures").x("training pictures").y("error, %").log_x().log_y();
    let error = |mean: f64| 100.0 * (1.0 - mean);
    let chart = chart
        .band("mean and spread", points().map(|(x, (mean, deviation))| (x, error(mean + deviation).max(0.01), error(mean - deviation))))
        .curve("mean and spread", points().map(|(x, (mean, _))| (x, error(mean))))
        .horizontal("by chance", 75.0);
    lab.chart("shapes.svg", chart)?;
    let shapes = (0..32).map(|i| enlarged(&test.narrow(0, i, 1)?.squeeze(0)?, ColorMap::Gray, 2)).collect::<Result<Vec<_>>>()?;
    lab.save("shapes.png", &Image::grid(&shapes, 8, 4)?)?;

    let (first, last) = (spread(&accuracies[0]).0, spread(&accuracies[accuracies.len() - 1]).0);
    ensure(last > first && last > lab.pick(0.7, 0.9), format_args!("accuracy {first:.3} of the least, {last:.3} of the most data"))?;
    // The slope of the straight line through the errors on logarithmic axes.
    let logs: Vec<[f64; 2]> = points().map(|(x, (mean, _))| [x.ln(), (1.0 - mean).max(1e-4).ln()]).collect();
    let [x, y] = [0, 1].map(|axis| spread(&logs.iter().map(|point| point[axis]).collect::<Vec<_>>()).0);
    let sum = |axis: usize| logs.iter().map(|point| (point[0] - x) * (point[axis] - [x, y][axis])).sum::<f64>();
    let slope = sum(1) / sum(0);
    ensure(slope < lab.pick(-0.1, -0.4), format_args!("the error falls as the number to the power {slope:.2} only"))?;
    let [least, most] = [0, sizes.len() - 1].map(|at| format!("{} from {}", percent(&accuracies[at]), sizes[at]));
    Ok(format!("accuracy {least}, {most} pictures; the error falls as the number to the power {slope:.2}"))
}
