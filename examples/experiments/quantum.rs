//! # A convolutional network for a quantum computer
//!
//! Kerenidis, Landman and Prakash (*Quantum Algorithms for Deep Convolutional Neural Networks*,
//! 2019) compute all inner products of patches and kernels of a layer in superposition. What comes
//! out differs from the classical layer in four ways, which they simulate classically, as this
//! does:
//!
//! 1. Amplitude estimation gives an inner product with an error of size ε: Gaussian noise of
//!    standard deviation 2εM, where M bounds patch norm times kernel norm. Now and then it fails,
//!    and then the result is any number in ±M.
//! 2. The activation is a ReLU with a cap C, which must be bounded to be put into an amplitude.
//! 3. The outputs are not read but sampled: `σ · outputs` draws, each finding an output with a
//!    probability proportional to its square. Those that are never drawn are 0.
//! 4. The gradient of a kernel has a relative error δ.
//!
//! What is claimed: a network trained and tested so is nearly as accurate as a classical one, and
//! its layers take `Õ(σ · outputs · M·√C / (ε·√E))` steps, where E is the mean activation, which
//! does not grow with the kernel's volume, instead of `outputs · kernel volume`.
//!
//! Look at: the fall of accuracy with small σ and large ε, and the size from which it would pay.

use convnet::chart::Chart;
use convnet::data::{Batch, DataLoader};
use convnet::ops::Conv2dOptions;
use convnet::prelude::*;

use super::lab::{DigitData, Experiment, Lab, ensure, first, plus_minus, say, spread, table};

pub const EXPERIMENT: Experiment = Experiment {
    name: "quantum",
    claim: "a network of simulated quantum convolutions learns digits nearly as well as a classical one",
    run,
};

/// C, the bound of activations.
const CAP: f64 = 10.0;
/// δ, the relative error of gradients.
const DELTA: f64 = 0.01;
/// The probability that an estimate fails.
const FAILURE: f64 = 0.001;

/// The precision of a simulated device.
#[derive(Clone, Copy)]
struct Device {
    epsilon: f64,
    sigma: f64,
}

fn run(lab: &Lab) -> Result<String> {
    let digits = lab.digits()?;
    let digits =
        DigitData { train: first(&digits.train, lab.pick(1438, 2000))?, test: first(&digits.test, lab.pick(359, 1000))?, ..digits };
    let (epsilons, sigmas): (&[f64], &[f64]) = lab.pick((&[0.001, 0.03], &[0.2, 1.0]), (&[0.001, 0.01, 0.03], &[0.1, 0.3, 0.5, 1.0]));
    let seeds = lab.pick(1, 3);
    let measure = |device: Option<Device>| -> Result<(f64, String)> {
        let of_seed = |seed| accuracy(lab, &digits, device, seed).map(|(accuracy, _)| accuracy);
        let accuracies = (lab.seed..lab.seed + seeds).map(of_seed).collect::<Result<Vec<f64>>>()?;
        Ok((spread(&accuracies).0, plus_minus(&accuracies)))
    };
    let (classical, cell) = measure(None)?;
    let mut rows = vec![["ε", "σ", "accuracy"].map(String::from), ["classical".into(), String::new(), cell]];
    let mut chart = Chart::new("Accuracy of the simulated network").x("σ, draws for each output").y("accuracy");
    let (mut best, mut worst) = (0.0f64, 1.0f64);
    for &epsilon in epsilons {
        let mut points = Vec::new();
        for &sigma in sigmas {
            let (accuracy, cell) = measure(Some(Device { epsilon, sigma }))?;
            rows.push([epsilon.to_string(), sigma.to_string(), cell]);
            points.push((sigma, accuracy));
            (best, worst) = (best.max(accuracy), worst.min(accuracy));
        }
        chart = chart.curve(format!("ε = {epsilon}"), points);
    }
    let (train, test) = (digits.train.len(), digits.test.len());
    say(format_args!("{}: {train} to train on, {test} to test on, {seeds} seeds, C = {CAP}, δ = {DELTA}", digits.name));
    table(&rows);
    let (_, network) = accuracy(lab, &digits, None, lab.seed)?;
    let times = run_times(&network, &digits)?;
    lab.chart("quantum.svg", Chart::panels(&[chart.horizontal("classical", classical), times], 2))?;
    let least = classical - lab.pick(0.15, 0.1);
    ensure(best > least, format_args!("the best simulated network has {best:.3}, expected more than {least:.3}"))?;
    ensure(best > worst, "neither ε nor σ makes a difference")?;
    Ok(format!("accuracy {best:.3} at best, {worst:.3} at worst, classical {classical:.3}"))
}

/// Two convolutions, each with pooling, and a linear classifier.
struct Network {
    convolutions: [Conv2d; 2],
    classifier: Linear,
}

impl Network {
    fn new(size: usize) -> Network {
        let convolutions = [Conv2d::new(1, 8, 5).padding(2), Conv2d::new(8, 16, 5).padding(2)];
        Network { convolutions, classifier: Linear::new(16 * (size / 4).pow(2), 10) }
    }

    fn parameters(&self) -> Vec<Parameter> {
        self.convolutions.iter().flat_map(Module::parameters).chain(self.classifier.parameters()).collect()
    }

    fn forward(&self, x: &Tensor, device: Option<Device>) -> Result<Tensor> {
        let mut x = x.clone();
        for convolution in &self.convolutions {
            let mut y = convolution.forward(&x)?;
            if let Some(Device { epsilon, .. }) = device {
                y = y.add(&estimation_error(y.shape(), epsilon, bound(&x, convolution)?)?)?;
            }
            y = y.clamp(0.0, CAP)?;
            if let Some(Device { sigma, .. }) = device {
                y = y.mul(&drawn(&y.detach(), sigma)?)?;
            }
            x = MaxPool2d::new(2).forward(&y)?;
        }
        self.classifier.forward(&x.flatten(1, -1)?)
    }
}

/// M: the largest norm of a patch times the largest norm of a kernel.
fn bound(x: &Tensor, convolution: &Conv2d) -> Result<f64> {
    let weight = convolution.weight.tensor().detach();
    let ones = Tensor::ones([1, x.shape()[1], 5, 5]);
    let patches = x.detach().square()?.conv2d(&ones, None, Conv2dOptions::new().padding(2))?.max(..)?.item::<f32>()?;
    let kernels = weight.square()?.sum([1, 2, 3])?.max(..)?.item::<f32>()?;
    Ok(f64::from(patches * kernels).max(0.0).sqrt())
}

/// The error of amplitude estimation: Gaussian, or, where the estimate fails, anything in ±M.
fn estimation_error(shape: &[usize], epsilon: f64, bound: f64) -> Result<Tensor> {
    let failed = Tensor::rand(shape).lt_scalar(FAILURE)?;
    let anything = Tensor::rand(shape).mul_scalar(2.0 * bound).sub_scalar(bound);
    failed.where_(&anything, &Tensor::randn(shape).mul_scalar(2.0 * epsilon * bound))
}

/// Returns 1 for outputs that are found among `sigma` draws for each output, else 0.
fn drawn(y: &Tensor, sigma: f64) -> Result<Tensor> {
    let squares = y.square()?;
    let draws = sigma * y.shape()[1..].iter().product::<usize>() as f64;
    let expected = squares.div(&squares.sum_keepdim([1, 2, 3])?.clamp(1e-12, f64::INFINITY)?)?.mul_scalar(draws);
    // The number of draws of a rare output has Poisson's distribution: none with exp(-expected).
    let missed = expected.neg().exp()?;
    Tensor::rand(y.shape()).ge(&missed)?.to_dtype(DType::F32)
}

/// Trains a network on a device, or classically, and returns its accuracy there.
fn accuracy(lab: &Lab, digits: &DigitData, device: Option<Device>, seed: u64) -> Result<(f64, Network)> {
    convnet::manual_seed(seed);
    let network = Network::new(digits.size);
    let mut optimizer = Adam::new(network.parameters(), 3e-3);
    let train = DataLoader::new(digits.train.clone(), 64).shuffle(seed);
    // The embedded digits are fewer and smaller.
    for epoch in 0..if digits.size == 8 { lab.pick(8, 20) } else { 4 } {
        for batch in train.epoch(epoch) {
            let Batch { images, labels } = batch?;
            let mut gradients = network.forward(&images, device)?.cross_entropy(&labels)?.backward()?;
            for parameter in network.convolutions.iter().flat_map(Module::parameters).filter(|_| device.is_some()) {
                let leaf = parameter.tensor();
                if let Some(gradient) = gradients.remove(&leaf) {
                    let size = DELTA * f64::from(gradient.square()?.mean(..)?.item::<f32>()?).sqrt();
                    gradients.insert(&leaf, gradient.add(&Tensor::randn(gradient.shape()).mul_scalar(size))?);
                }
            }
            optimizer.step(&gradients)?;
        }
    }
    let mut metrics = convnet::train::Metrics::default();
    for batch in DataLoader::new(digits.test.clone(), 200).epoch(0) {
        let Batch { images, labels } = batch?;
        let logits = no_grad(|| network.forward(&images, device))?;
        metrics.add(&logits.cross_entropy(&labels)?, &logits, &labels)?;
    }
    Ok((metrics.accuracy(), network))
}

/// Steps for each output of a layer of 5×5 kernels by the number of its input channels, without the
/// logarithms, with the M and E of the trained network's second layer.
fn run_times(network: &Network, digits: &DigitData) -> Result<Chart> {
    let (epsilon, sigma) = (0.01, 0.3);
    let images = DataLoader::new(digits.test.clone(), 200).epoch(0).next().ok_or_else(|| Error::msg("no digits"))??.images;
    let [one, two] = &network.convolutions;
    let x = no_grad(|| MaxPool2d::new(2).forward(&one.forward(&images)?.clamp(0.0, CAP)?))?;
    let mean = f64::from(no_grad(|| two.forward(&x)?.clamp(0.0, CAP)?.mean(..))?.item::<f32>()?);
    let bound = bound(&x, two)?;
    let quantum = sigma / epsilon * bound * CAP.sqrt() / mean.sqrt();
    let mut rows = vec![["input channels", "classical steps for an output", "quantum, ε 0.01, σ 0.3"].map(String::from)];
    let (mut classical, mut constant) = (vec![], vec![]);
    for channels in [1usize, 8, 64, 512, 4096] {
        let steps = 25 * channels;
        rows.push([channels.to_string(), steps.to_string(), format!("{quantum:.0}")]);
        classical.push((channels as f64, steps as f64));
        constant.push((channels as f64, quantum));
    }
    say(format_args!("\ntheoretical run time with M = {bound:.2} and E = {mean:.3}, equal from {:.0} channels", quantum / 25.0));
    table(&rows);
    let chart = Chart::new("Theoretical steps for an output").x("input channels").y("steps").log_x().log_y();
    Ok(chart.curve("classical", classical).curve("quantum", constant))
}
