//! Initial values: bad ones, and what normalisation does to them.
//!
//! The claims. Weights that are too small or too large make signals and gradients vanish or
//! explode, and equal weights never become different (Glorot and Bengio, 2010; He et al., 2015).
//! Inputs that are not normalised have the same effect (LeCun et al., 1998, *Efficient BackProp*).
//! Batch normalisation makes a network insensitive to the size of its weights (Ioffe and Szegedy,
//! 2015), because it divides by whatever size they give.
//!
//! The program trains one small convolutional network on digits with pixels from 0 to 255 from five
//! initialisations, in three forms: plain, with a normalisation layer in front, and with batch
//! normalisation behind each convolution. Every form gets the same number of steps.
//!
//! The second part lets numbers overflow: weights of ten million multiply the signal in each layer
//! until f32 has no number for it. `inspect::first_non_finite` names the layer; the same network in
//! f64, whose numbers reach further, says which layer it has to be.
//!
//! Biases of convolutions and of the classifier keep their random values in all five, and the
//! classifier its size in those of another size: no normalisation follows it.
//!
//! What to look at: the rows of convolutions a hundred times too small or too large, which batch
//! normalisation repairs, against the row of zeros, which it does not; and the row of equal
//! weights, whose channels only their random biases tell apart.

use convnet::chart::Chart;
use convnet::data::{Dataset, Normalize};
use convnet::nn::{BatchNorm2d, Conv2d, Flatten, Linear, MaxPool2d, Module, ModuleExt, ReLU, Sequential, init};
use convnet::optim::{Optimizer, Sgd};
use convnet::{DType, Error, Result, Tensor, inspect, manual_seed};

use super::lab::{Experiment, Lab, accuracy_of, ensure, plus_minus, say, shuffled, spread, table, tensors};

pub const EXPERIMENT: Experiment =
    Experiment { name: "initial_values", claim: "batch normalisation repairs initial values of any size, but not one of zeros", run };

const INITIALISATIONS: [&str; 5] = ["Kaiming", "Kaiming / 100", "Kaiming · 100", "all 0.01", "all zero"];
const FORMS: [&str; 3] = ["plain", "normalised input", "batch normalisation"];

fn network(form: &str, initialisation: &str, size: usize) -> Result<Sequential> {
    let mut net = Sequential::new();
    if form == "normalised input" {
        net = net.push(BatchNorm2d::new(1));
    }
    for (inputs, outputs) in [(1, 16), (16, 16), (16, 32)] {
        net = net.push(Conv2d::new(inputs, outputs, 3).padding(1));
        if form == "batch normalisation" {
            net = net.push(BatchNorm2d::new(outputs));
        }
        net = net.push(ReLU);
        if outputs == 32 || inputs == 1 {
            net = net.push(MaxPool2d::new(2));
        }
    }
    let net = net.push(Flatten).push(Linear::new(32 * (size / 4).pow(2), 10));
    for parameter in net.parameters().iter().filter(|parameter| parameter.shape().len() > 1) {
        let kaiming = init::kaiming_normal(parameter.shape(), init::Fan::In, init::Gain::Relu)?;
        // No normalisation follows the classifier, so its size stays.
        let convolution = parameter.shape().len() == 4;
        parameter.set(&match initialisation {
            "Kaiming / 100" if convolution => kaiming.div_scalar(100.0),
            "Kaiming · 100" if convolution => kaiming.mul_scalar(100.0),
            "all 0.01" => init::constant(parameter.shape(), 0.01)?,
            "all zero" => init::constant(parameter.shape(), 0.0)?,
            _ => kaiming,
        })?;
    }
    Ok(net)
}

fn run(lab: &Lab) -> Result<String> {
    let data = lab.digits()?;
    let limit = lab.pick(800, 5000).min(data.train.len());
    // Back to pixels from 0 to 255, as files have them.
    let raw = || Normalize::new([0.0], [1.0 / 255.0]);
    let (images, labels) = tensors(&data.train, 0..limit, raw())?;
    let (test_images, test_labels) = tensors(&data.test, 0..lab.pick(300, 2000).min(data.test.len()), raw())?;
    let mut rows = vec![["initialisation", "plain", "normalised input", "batch normalisation"].map(String::from)];
    let mut means = [[0.0; 3]; 5];
    let mut chart = Chart::new("Test accuracy after the same number of steps").x("initialisation").y("accuracy").y_range(0.0, 1.0);
    for (i, initialisation) in INITIALISATIONS.iter().enumerate() {
        let mut cells = vec![];
        for (j, form) in FORMS.iter().enumerate() {
            let mut results = vec![];
            for seed in 0..lab.pick(1, 3) {
                manual_seed(lab.seed + seed);
                let net = network(form, initialisation, images.shape()[2])?;
                let mut optimizer = Sgd::new(net.parameters(), 0.02).momentum(0.9);
                for _ in 0..lab.pick(4, 3) {
                    for (x, y) in shuffled(&images, &labels, 32)? {
                        let loss = net.forward(&x)?.cross_entropy(&y)?;
                        if loss.item::<f32>()?.is_finite() {
                            optimizer.step(&loss.backward()?)?;
                        }
                    }
                }
                results.push(accuracy_of(&net, &test_images, &test_labels)?);
            }
            means[i][j] = spread(&results).0;
            cells.push(plus_minus(&results));
        }
        let [a, b, c] = std::array::from_fn(|j| cells[j].clone());
        rows.push([initialisation.to_string(), a, b, c]);
    }
    for (j, form) in FORMS.iter().enumerate() {
        chart = chart.bars(*form, INITIALISATIONS.iter().zip(means).map(|(initialisation, row)| (*initialisation, row[j])));
    }
    say(format_args!("test accuracy, {limit} of {}, pixels from 0 to 255, momentum SGD at 0.02", data.name));
    table(&rows);
    lab.chart("initial_values.svg", chart)?;
    let named = overflow()?;
    let (worst, zero) = (means[1][2].min(means[2][2]), means[4][2]);
    ensure(worst > lab.pick(0.6, 0.9), format_args!("with batch normalisation, initial values of another size give only {worst:.3}"))?;
    // Of the plain ones one in three may learn, through the random values of its biases.
    ensure(zero < worst - lab.pick(0.2, 0.4), format_args!("batch normalisation brings a network of zeros to {zero:.3}"))?;
    Ok(format!("with batch normalisation, weights 100 times too small or large end at {worst:.3} or more, zeros at {zero:.3}; {named}"))
}

/// Lets numbers overflow and finds where they do.
fn overflow() -> Result<String> {
    let net = (0..8).fold(Sequential::new(), |net, i| net.push_named(format!("conv{i}"), Conv2d::new(8, 8, 3).padding(1).bias(false)));
    for parameter in net.parameters() {
        parameter.set(&parameter.tensor().detach().mul_scalar(1e7))?;
    }
    let x = Tensor::randn([1, 8, 8, 8]);
    let found = inspect::first_non_finite(&net, || net.forward(&x))?.ok_or_else(|| Error::msg("no layer overflows"))?;
    say(format_args!("\n{found}"));
    // In f64 the same network has numbers for all layers.
    net.to_dtype(DType::F64)?;
    let names: Vec<String> = (0..8).map(|i| format!("conv{i}")).collect();
    let x = x.to_dtype(DType::F64)?;
    let seen = inspect::capture(&net, &names, || net.forward(&x))?;
    let mut expected = None;
    for name in &names {
        let largest = seen.output(name)?.abs().max(..)?.item::<f64>()?;
        if largest > f64::from(f32::MAX) {
            expected = expected.or(Some(name.clone()));
        }
        say(format_args!("{name}: largest value in f64 {largest:.1e}"));
    }
    ensure(expected.as_deref() == Some(&found.path), format_args!("{} was named, f64 says {expected:?}", found.path))?;
    ensure(net.get(&found.path).is_some(), "the path leads to no layer")?;
    Ok(format!("the overflow is found in `{}`, where f64 passes f32's largest number", found.path))
}
