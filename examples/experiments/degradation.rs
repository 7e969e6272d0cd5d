//! The degradation problem: deeper plain networks train worse, deeper residual ones do not.
//!
//! The claim (He et al., 2015, fig. 6): a plain network of 56 layers has a higher *training* error
//! on CIFAR-10 than one of 20 layers, so it is not overfitting; with shortcuts around every two
//! layers the deeper network is at least as good. Batch normalisation is in all of them, so it is
//! not the vanishing gradient of `activations`; before training the gradient of the plain network
//! rather explodes towards the first layer, and without shortcuts normalisation itself is the
//! reason (Yang et al., 2019). Li et al. (2018) see the cause in the shape of the loss: without
//! shortcuts the surface around a deep network is rough, with them it is smooth.
//!
//! The program trains plain and residual networks of 20 and 56 layers on the same pictures and
//! draws training errors by epoch, the gradient's norm by layer before training, and the loss of
//! the two deep networks around their final weights along two random directions. Each filter of a
//! direction has the norm of the filter that it is added to, so that maps of networks of different
//! scale can be compared; biases and normalisation stay as they are.
//!
//! The plain network is the library's residual network with every block replaced by its two
//! convolutions alone, of the same size and from the same distribution of initial weights.
//!
//! What to look at: the order of the four curves, and the contours: few wide rings against narrow
//! ones.

use convnet::chart::Chart;
use convnet::data::{Dataset, ImageFolder, Normalize};
use convnet::models::cifar_resnet20;
use convnet::models::{CifarResNet, cifar_resnet56};
use convnet::nn::{BatchNorm2d, Conv2d, Module, ModuleExt, ReLU, Sequential, init};
use convnet::ops::Interpolation;
use convnet::optim::{Optimizer, Sgd};
use convnet::{Result, Tensor, manual_seed, no_grad};
use std::sync::Arc;

use super::lab::{Experiment, Lab, Pictures, ensure, say, shuffled, table, tensors};

pub const EXPERIMENT: Experiment =
    Experiment { name: "degradation", claim: "56 plain layers train worse than 20; with shortcuts they do not", run };

/// A network, and its name in charts.
struct Candidate {
    name: &'static str,
    deep: bool,
    shortcuts: bool,
}

const CANDIDATES: [Candidate; 4] = [
    Candidate { name: "plain, 20 layers", deep: false, shortcuts: false },
    Candidate { name: "plain, 56 layers", deep: true, shortcuts: false },
    Candidate { name: "residual, 20 layers", deep: false, shortcuts: true },
    Candidate { name: "residual, 56 layers", deep: true, shortcuts: true },
];

fn network(candidate: &Candidate) -> Result<CifarResNet> {
    let mut net = if candidate.deep { cifar_resnet56(10) } else { cifar_resnet20(10) };
    if candidate.shortcuts {
        return Ok(net);
    }
    let blocks: Vec<(String, [usize; 2])> = net
        .named_parameters()
        .into_iter()
        .filter_map(|(name, weight)| Some((name.strip_suffix(".conv1.weight")?.to_string(), [weight.shape()[1], weight.shape()[0]])))
        .collect();
    for (path, [inputs, outputs]) in blocks {
        let convolution = |inputs: usize, stride: usize| -> Result<Conv2d> {
            let layer = Conv2d::new(inputs, outputs, 3).stride(stride).padding(1).bias(false);
            layer.weight.set(&init::kaiming_normal(layer.weight.shape(), init::Fan::Out, init::Gain::Relu)?)?;
            Ok(layer)
        };
        let plain = Sequential::new()
            .push_named("conv1", convolution(inputs, if inputs == outputs { 1 } else { 2 })?)
            .push_named("bn1", BatchNorm2d::new(outputs))
            .push_named("relu1", ReLU)
            .push_named("conv2", convolution(outputs, 1)?)
            .push_named("bn2", BatchNorm2d::new(outputs))
            .push_named("relu2", ReLU);
        net.replace(&path, plain)?;
    }
    Ok(net)
}

/// Returns pictures and labels: CIFAR-10, or embedded digits with three equal channels.
fn data(lab: &Lab) -> Result<(Tensor, Tensor, &'static str)> {
    match lab.data("cifar10") {
        Some(dir) => {
            let folder = ImageFolder::new(dir.join("train"))?;
            let (all, count) = (folder.len(), lab.pick(500, 3000));
            let pictures: Pictures = Arc::new(folder);
            let normalise = Normalize::new([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]);
            let (images, labels) = tensors(&pictures, (0..count).map(|i| i * all / count), normalise)?;
            Ok((images, labels, "CIFAR-10"))
        }
        None => {
            let digits = lab.digits()?;
            let (images, labels) = tensors(&digits.train, 0..lab.pick(500, 1400), Normalize::new([0.3], [0.4]))?;
            let images = images.interpolate([8, 8], Interpolation::Nearest)?;
            Ok((Tensor::cat(&[&images, &images, &images], 1)?, labels, digits.name))
        }
    }
}

fn run(lab: &Lab) -> Result<String> {
    let (images, labels, name) = data(lab)?;
    let epochs = lab.pick(4, 10);
    let mut head = ["epoch"].map(String::from).to_vec();
    let mut errors: Vec<Vec<f64>> = vec![];
    let mut by_layer = Chart::new("Gradient by layer before training").x("part of the depth").y("norm of the weight's gradient").log_y();
    let mut maps = vec![];
    for candidate in &CANDIDATES {
        manual_seed(lab.seed);
        let net = network(candidate)?;
        let probe = images.narrow(0, 0, 128)?;
        let gradients = net.forward(&probe)?.cross_entropy(&labels.narrow(0, 0, 128)?)?.backward()?;
        let of_convolutions: Vec<f64> = net
            .named_gradients(&gradients)
            .into_iter()
            .filter(|(_, gradient)| gradient.ndim() == 4)
            .map(|(_, gradient)| Ok(f64::from(gradient.norm(2.0, ..)?.item::<f32>()?)))
            .collect::<Result<_>>()?;
        let depth = of_convolutions.len() as f64;
        by_layer = by_layer.curve(candidate.name, (1..).map(|i| f64::from(i) / depth).zip(of_convolutions));

        errors.push(train(&net, &images, &labels, epochs)?);
        head.push(candidate.name.to_string());
        if candidate.deep {
            let count = lab.pick(64, 128);
            maps.push(surface(candidate.name, &net, &images.narrow(0, 0, count)?, &labels.narrow(0, 0, count)?, lab.pick(5, 11))?);
        }
    }
    let mut rows: Vec<[String; 5]> = vec![std::array::from_fn(|i| head[i].clone())];
    let row = |epoch: usize| std::array::from_fn(|i| if i == 0 { (epoch + 1).to_string() } else { format!("{:.3}", errors[i - 1][epoch]) });
    rows.extend((0..epochs).map(row));
    say(format_args!("training error by epoch, {} pictures of {name}, one seed", labels.numel()));
    table(&rows);
    let mut by_epoch = Chart::new(format!("Training error, {} pictures of {name}", labels.numel())).x("epoch").y("error");
    for (candidate, errors) in CANDIDATES.iter().zip(&errors) {
        by_epoch = by_epoch.curve(candidate.name, (1..).map(f64::from).zip(errors.iter().copied()));
    }
    lab.chart("degradation.svg", Chart::panels(&[by_epoch, by_layer], 1))?;
    let [(plain, plain_rise), (residual, residual_rise)] = [maps.remove(0), maps.remove(0)];
    lab.chart("degradation_surface.svg", Chart::panels(&[plain, residual], 2))?;
    say(format_args!("rise of the loss at a distance of 0.5: plain {plain_rise:.2}, residual {residual_rise:.2}"));

    let last = |i: usize| errors[i][epochs - 1];
    ensure(last(1) > last(0), format_args!("56 plain layers end at {:.3}, 20 at {:.3}", last(1), last(0)))?;
    ensure(
        last(1) > last(3) + lab.pick(-0.05, 0.02),
        format_args!("56 layers end at {:.3} without shortcuts, {:.3} with them", last(1), last(3)),
    )?;
    Ok(format!("training error of 20 and 56 layers: plain {:.3} and {:.3}, residual {:.3} and {:.3}", last(0), last(1), last(2), last(3)))
}

/// Trains by momentum SGD with a falling rate; returns the error by epoch, counted while training.
fn train(net: &CifarResNet, images: &Tensor, labels: &Tensor, epochs: usize) -> Result<Vec<f64>> {
    let mut optimizer = Sgd::new(net.parameters(), 0.05).momentum(0.9).weight_decay(1e-4);
    let steps = (epochs * labels.numel().div_ceil(64)) as f64;
    let (mut step, mut errors) = (0.0, vec![]);
    for _ in 0..epochs {
        let mut wrong = 0;
        for (x, y) in shuffled(images, labels, 64)? {
            let logits = net.forward(&x)?;
            let (found, wanted) = (logits.detach().argmax(1)?.to_vec::<i64>()?, y.to_vec::<i64>()?);
            wrong += found.iter().zip(wanted).filter(|(found, wanted)| *found != wanted).count();
            optimizer.set_learning_rate(0, 0.025 * (1.0 + (std::f64::consts::PI * step / steps).cos()))?;
            optimizer.step(&logits.cross_entropy(&y)?.backward()?)?;
            step += 1.0;
        }
        errors.push(wrong as f64 / labels.numel() as f64);
    }
    Ok(errors)
}

/// Draws contours of the loss in the square of ±1 along two directions, and returns how much larger
/// the loss is at a distance of 0.5, as a mean over four sides.
fn surface(name: &str, net: &CifarResNet, images: &Tensor, labels: &Tensor, side: usize) -> Result<(Chart, f64)> {
    // Normalisation by the statistics of these pictures: running ones belong to the weights of the
    // centre, and far from it they would measure nothing but that.
    net.train();
    let weights: Vec<_> = net.parameters().into_iter().filter(|p| p.shape().len() > 1).collect();
    let start: Vec<Tensor> = weights.iter().map(|p| p.tensor().detach()).collect();
    let direction = || -> Result<Vec<Tensor>> {
        let normalised = |weight: &Tensor| {
            let noise = Tensor::randn(weight.shape());
            let norms = |tensor: &Tensor| -> Result<Tensor> {
                let filters = weight.shape()[0];
                let sizes: Vec<usize> = std::iter::once(filters).chain(weight.shape().iter().skip(1).map(|_| 1)).collect();
                tensor.reshape([filters, weight.numel() / filters])?.norm(2.0, 1)?.reshape(sizes)
            };
            noise.mul(&norms(weight)?.div(&norms(&noise)?)?)
        };
        start.iter().map(normalised).collect()
    };
    let (a, b) = (direction()?, direction()?);
    let at = |i: usize| 2.0 * i as f64 / (side - 1) as f64 - 1.0;
    let loss = |x: f64, y: f64| -> Result<f64> {
        for (i, weight) in weights.iter().enumerate() {
            weight.set(&start[i].add(&a[i].mul_scalar(x))?.add(&b[i].mul_scalar(y))?)?;
        }
        no_grad(|| Ok(f64::from(net.forward(images)?.cross_entropy(labels)?.item::<f32>()?)))
    };
    let mut values = vec![vec![0.0; side]; side];
    for (i, row) in values.iter_mut().enumerate() {
        for (j, value) in row.iter_mut().enumerate() {
            *value = loss(at(j), at(i))?;
        }
    }
    let sides = [(0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5)];
    let rise = sides.iter().map(|&(x, y)| loss(x, y)).sum::<Result<f64>>()? / 4.0 - loss(0.0, 0.0)?;
    let mut chart = Chart::new(format!("Loss around {name}")).x("first direction").y("second direction");
    chart = chart.x_range(-1.0, 1.0).y_range(-1.0, 1.0);
    for level in [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 8.0] {
        for segment in contour(&values, level) {
            chart = chart.curve(
                format!("loss {level}"),
                segment.map(|(x, y)| (2.0 * x / (side - 1) as f64 - 1.0, 2.0 * y / (side - 1) as f64 - 1.0)),
            );
        }
    }
    Ok((chart, rise))
}

/// Returns the segments of a contour line, in steps of the grid: in each of the two triangles of a
/// cell, the line between the two edges on which the values pass the level.
fn contour(values: &[Vec<f64>], level: f64) -> Vec<[(f64, f64); 2]> {
    let mut segments = vec![];
    for i in 0..values.len() - 1 {
        for j in 0..values.len() - 1 {
            let corner = |di: usize, dj: usize| ((j + dj) as f64, (i + di) as f64, values[i + di][j + dj]);
            for triangle in [[corner(0, 0), corner(0, 1), corner(1, 1)], [corner(0, 0), corner(1, 0), corner(1, 1)]] {
                let crossing = |from: usize, to: usize| {
                    let ((x, y, v), (x2, y2, v2)) = (triangle[from], triangle[to]);
                    ((v < level) != (v2 < level)).then(|| {
                        let part = (level - v) / (v2 - v);
                        (x + part * (x2 - x), y + part * (y2 - y))
                    })
                };
                let points: Vec<_> = [(0, 1), (1, 2), (0, 2)].into_iter().filter_map(|(from, to)| crossing(from, to)).collect();
                if let [first, second] = points[..] {
                    segments.push([first, second]);
                }
            }
        }
    }
    segments
}
