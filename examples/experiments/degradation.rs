//! The degradation problem: deeper plain networks train worse, and shortcuts help.
//!
//! The claim (He et al., 2015, fig. 6): a plain network of 56 layers has a higher *training* error
//! on CIFAR-10 than one of 20 layers, so it is not overfitting; with shortcuts around every two
//! layers the deeper network is at least as good. Batch normalisation is in all of them, so it is
//! not the vanishing gradient of `activations`; before training the gradient of the plain network
//! rather explodes towards the first layer, and without shortcuts normalisation itself is the
//! reason (Yang et al., 2019). Li et al. (2018) see the cause in the shape of the loss: without
//! shortcuts the surface around a deep network is rough, with them it is smooth.
//!
//! The program trains plain and residual networks of 20 and 56 layers on the same pictures, halved
//! to 16×16 so that three seeds take minutes. It draws training errors by epoch, the gradient's
//! norm by layer before training, and the loss of the two deep networks around their final weights
//! along two random directions. Each filter of a direction has the norm of the filter that it is
//! added to, so that maps of networks of different scale can be compared; biases and normalisation
//! stay as they are.
//!
//! The plain network is the library's residual network with every block replaced by its two
//! convolutions alone, of the same size and from the same distribution of initial weights.
//!
//! What to look at: the order of the four curves (in so short a training the deep residual network
//! is still behind the shallow one, though far ahead of the plain one of its depth), and the
//! contours: few wide rings against narrow ones.

mod surface;

use std::sync::Arc;

use convnet::chart::Chart;
use convnet::data::{Dataset, ImageFolder, Normalize};
use convnet::models::{CifarResNet, cifar_resnet20, cifar_resnet56};
use convnet::nn::{BatchNorm2d, Conv2d, Module, ModuleExt, ReLU, Sequential, init};
use convnet::ops::Interpolation;
use convnet::optim::{Optimizer, Sgd};
use convnet::{Result, Tensor, manual_seed};

use super::lab::{Experiment, Lab, Pictures, ensure, plus_minus, say, shuffled, spread, table, tensors};

pub const EXPERIMENT: Experiment =
    Experiment { name: "degradation", claim: "56 plain layers train worse than 20; shortcuts more than halve their training error", run };

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
            let (all, count) = (folder.len(), lab.pick(500, 4000));
            let pictures: Pictures = Arc::new(folder);
            let normalise = Normalize::new([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]);
            let (images, labels) = tensors(&pictures, (0..count).map(|i| i * all / count), normalise)?;
            // Halved, which is a quarter of the time.
            Ok((images.adaptive_avg_pool2d(16)?, labels, "CIFAR-10, 16×16"))
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
    let (epochs, seeds) = lab.pick((4, 1), (10, 3));
    // The pictures stand in the order of their classes: those of all are looked at.
    let spread_out = |count: usize| {
        let places: Vec<i64> = (0..count).map(|i| (i * labels.numel() / count) as i64).collect();
        let places = Tensor::from_slice(&places, [count])?;
        Ok::<_, convnet::Error>((images.index_select(0, &places)?, labels.index_select(0, &places)?))
    };
    let (few, few_labels) = spread_out(lab.pick(64, 128))?;
    let mut by_layer = Chart::new("Gradient by layer before training").x("part of the depth").y("norm of the weight's gradient").log_y();
    let mut by_epoch = Chart::new(format!("Training error, {} pictures of {name}", labels.numel())).x("epoch").y("error");
    let mut rows: Vec<[String; 5]> = vec![["epoch"; 5].map(String::from)];
    rows.extend((1..=epochs).map(|epoch| std::array::from_fn(|_| epoch.to_string())));
    let (mut maps, mut last) = (vec![], vec![]);
    for (column, candidate) in (1..).zip(&CANDIDATES) {
        let mut errors = vec![vec![]; epochs];
        for seed in lab.seed..lab.seed + seeds {
            manual_seed(seed);
            let net = network(candidate)?;
            let before = gradients(&net, &few, &few_labels)?;
            let of_epochs = train(&net, &images, &labels, epochs)?;
            errors.iter_mut().zip(of_epochs).for_each(|(errors, error)| errors.push(error));
            if seed == lab.seed {
                by_layer = by_layer.curve(candidate.name, before);
            }
            if seed == lab.seed && candidate.deep {
                maps.push(surface::surface(candidate.name, &net, &few, &few_labels, lab.pick(5, 11))?);
            }
        }
        rows[0][column] = candidate.name.to_string();
        rows[1..].iter_mut().zip(&errors).for_each(|(row, errors)| row[column] = plus_minus(errors));
        let bounds = |errors: &Vec<f64>| (spread(errors).0 - spread(errors).1, spread(errors).0, spread(errors).0 + spread(errors).1);
        let points = || (1..).map(f64::from).zip(errors.iter().map(bounds));
        by_epoch = by_epoch.band(candidate.name, points().map(|(epoch, (low, _, high))| (epoch, low, high)));
        by_epoch = by_epoch.curve(candidate.name, points().map(|(epoch, (_, mean, _))| (epoch, mean)));
        last.push(spread(&errors[epochs - 1]).0);
    }
    say(format_args!("training error by epoch, {} pictures of {name}, {seeds} seed(s)", labels.numel()));
    table(&rows);
    lab.chart("degradation.svg", Chart::panels(&[by_epoch, by_layer], 1))?;
    let [(plain, plain_rise), (residual, residual_rise)] = [maps.remove(0), maps.remove(0)];
    lab.chart("degradation_surface.svg", Chart::panels(&[plain, residual], 2))?;
    say(format_args!("rise of the loss at a distance of 0.5: plain {plain_rise:.2}, residual {residual_rise:.2}"));

    let [shallow_plain, plain, shallow, residual] = [0, 1, 2, 3].map(|i| last[i]);
    ensure(plain > shallow_plain, format_args!("56 plain layers end at {plain:.3}, 20 at {shallow_plain:.3}"))?;
    // 2.15 times as large in the full run.
    let least = lab.pick(residual - 0.05, 2.0 * residual);
    ensure(plain > least, format_args!("56 layers end at {plain:.3} without shortcuts, {residual:.3} with them"))?;
    Ok(format!("training error of 20 and 56 layers: plain {shallow_plain:.3} and {plain:.3}, residual {shallow:.3} and {residual:.3}"))
}

/// Returns the norm of the gradient of each convolution's weight, by the part of the depth.
fn gradients(net: &CifarResNet, images: &Tensor, labels: &Tensor) -> Result<Vec<(f64, f64)>> {
    let gradients = net.forward(images)?.cross_entropy(labels)?.backward()?;
    let convolutions: Vec<_> = net.named_gradients(&gradients).into_iter().filter(|(_, gradient)| gradient.ndim() == 4).collect();
    let part = |i: usize| (i + 1) as f64 / convolutions.len() as f64;
    convolutions.iter().enumerate().map(|(i, (_, gradient))| Ok((part(i), f64::from(gradient.norm(2.0, ..)?.item::<f32>()?)))).collect()
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
