//! # Convolution over time
//!
//! A convolution needs no picture: along one dimension it detects the same shape at any moment of a
//! series. Wang, Yan and Oates (*Time Series Classification from Scratch with Deep Neural Networks:
//! A Strong Baseline*, 2017) stack three of them with batch normalisation, take the mean over time
//! and classify, without features made by hand, and match the best methods of the UCR archive.
//! [`convnet::models::signal_fcn`] is that network. Three sets of data are learnt:
//!
//! * GunPoint: the position of a hand that draws a gun or only points; 50 series to learn from;
//! * ItalyPowerDemand: the electric power that Italy used on a day, in summer or in winter; 67;
//! * Covid3Month: a regression, the share of those who died by April 2020 from the counts of new
//!   cases in the three months before; 140 countries. The counts reach from 0 to tens of
//!   thousands, so the network sees log(1 + count). Beside the network's error stands that of
//!   predicting the mean of the training targets for all.
//!
//! Without `signals` in the data directory the first set is made: noise with one bump, wide or
//! narrow, anywhere; the others are left out.
//!
//! Since only a mean lies between the last maps and the classifier, the classifier applied to each
//! moment says how much that moment raises each class's score (class-activation maps, Zhou et al.,
//! 2015). What to look at: in `signals.svg` the map rises where drawing a gun and pointing differ,
//! at the beginning and the end of the movement, and not where the hand rests.

use std::path::Path;

use convnet::chart::Chart;
use convnet::data::{DataLoader, Rng, SeriesFile, TensorDataset};
use convnet::models::{SignalFcn, signal_fcn};
use convnet::optim::{CosineAnnealingLr, LrSchedule};
use convnet::prelude::*;
use convnet::train::accuracy;
use convnet::train::metrics::rmse;

use super::lab::{Experiment, Lab, ensure, plus_minus, predict, say, spread, table};

pub const EXPERIMENT: Experiment = Experiment {
    name: "signals",
    claim: "a fully convolutional network classifies series without features made by hand (Wang et al., 2017)",
    run,
};

/// Series to learn from and to test on.
struct Task {
    name: &'static str,
    train: [Tensor; 2],
    test: [Tensor; 2],
    epochs: u64,
    /// The least mean accuracy.
    bound: f64,
    /// Of classes 0 and 1.
    names: [&'static str; 2],
}

fn run(lab: &Lab) -> Result<String> {
    let data = lab.data("signals");
    let tasks = match &data {
        Some(dir) => vec![
            classes(dir, "GunPoint", ["draws a gun", "points"], lab.pick(30, 150), lab.pick(0.6, 0.98))?,
            classes(dir, "ItalyPowerDemand", ["October to March", "April to September"], lab.pick(30, 150), lab.pick(0.9, 0.95))?,
        ],
        None => vec![made(lab.seed)?],
    };
    let seeds = lab.pick(1, 3);
    let mut rows = vec![["data", "training", "test", "length", "accuracy"].map(String::from)];
    let mut figures = vec![];
    let mut failures = vec![];
    for (i, task) in tasks.iter().enumerate() {
        let mut accuracies = vec![];
        for seed in 0..seeds {
            let model = trained(lab, task, 2, seed)?;
            accuracies.push(accuracy(&predict(&model, &task.test[0])?, &task.test[1])?);
            if i == 0 && seed == 0 {
                draw(lab, &model, task)?;
            }
        }
        let ((mean, _), shape) = (spread(&accuracies), task.test[0].shape());
        let [train, test, length] = [task.train[0].shape()[0], shape[0], shape[2]].map(|n| n.to_string());
        rows.push([task.name.to_string(), train, test, length, plus_minus(&accuracies)]);
        figures.push(format!("{} {mean:.4}", task.name));
        if mean < task.bound {
            failures.push(format!("the accuracy on {} is {mean:.4}, expected at least {}", task.name, task.bound));
        }
    }
    table(&rows);
    if let Some(dir) = &data {
        figures.push(regression(lab, dir, seeds)?);
    }
    ensure(failures.is_empty(), failures.join("; "))?;
    Ok(format!("{} ({seeds} seeds)", figures.join(", ")))
}

/// Reads a set of the UCR archive whose targets are classes.
fn classes(dir: &Path, name: &'static str, names: [&'static str; 2], epochs: u64, bound: f64) -> Result<Task> {
    let part = |part: &str| {
        let file = SeriesFile::open(dir.join(format!("{name}_{part}.ts")))?;
        Ok::<_, Error>([file.series().clone(), file.labels()?])
    };
    Ok(Task { name, train: part("TRAIN")?, test: part("TEST")?, epochs, bound, names })
}

/// Makes series of noise with a bump, which is narrow in class 0 and wide in class 1.
fn made(seed: u64) -> Result<Task> {
    const LENGTH: usize = 60;
    let mut rng = Rng::new(seed);
    let mut part = |count: usize| {
        let labels: Vec<i64> = (0..count as i64).map(|i| i % 2).collect();
        let mut values = vec![];
        for &label in &labels {
            let (middle, width) = (rng.uniform(10.0, 50.0), if label == 0 { 2.0 } else { 5.0 });
            values.extend((0..LENGTH).map(|t| (2.0 * (-((t as f64 - middle) / width).powi(2)).exp() + 0.3 * rng.normal()) as f32));
        }
        Ok::<_, Error>([Tensor::from_vec(values, [count, 1, LENGTH])?, Tensor::from_vec(labels, [count])?])
    };
    Ok(Task { name: "made bumps", train: part(64)?, test: part(200)?, epochs: 25, bound: 0.9, names: ["narrow", "wide"] })
}

/// Trains a network with `outputs` outputs: on classes, or on numbers when there is one.
fn trained(lab: &Lab, task: &Task, outputs: usize, seed: u64) -> Result<SignalFcn> {
    manual_seed(lab.seed + seed);
    let model = signal_fcn(1, outputs);
    let mut optimizer = Adam::new(model.parameters(), 1e-3);
    let mut schedule = CosineAnnealingLr::new(0.0).steps(task.epochs).attach(&mut optimizer)?;
    let loader = DataLoader::new(TensorDataset::new(task.train[0].clone(), task.train[1].clone())?, 16).shuffle(lab.seed + seed);
    for epoch in 0..task.epochs {
        for batch in loader.epoch(epoch) {
            let (series, targets) = batch?;
            let y = model.forward(&series)?;
            let loss = if outputs == 1 { y.squeeze(1)?.mse_loss(&targets)? } else { y.cross_entropy(&targets)? };
            optimizer.step(&loss.backward()?)?;
        }
        schedule.step(&mut optimizer)?;
    }
    model.eval();
    Ok(model)
}

/// Predicts Covid3Month's numbers and returns the figure: the error beside the mean predictor's.
fn regression(lab: &Lab, dir: &Path, seeds: u64) -> Result<String> {
    let part = |part: &str| {
        let file = SeriesFile::open(dir.join(format!("Covid3Month_{part}.ts")))?;
        Ok::<_, Error>([file.series().log1p()?, file.numbers()?])
    };
    let (train, test) = (part("TRAIN")?, part("TEST")?);
    let (mean, deviation) = (train[1].mean(..)?, train[1].std(..)?);
    let of_mean = rmse(&mean.expand(test[1].shape())?, &test[1])?;
    let task = Task {
        name: "Covid3Month",
        train: [train[0].clone(), train[1].sub(&mean)?.div(&deviation)?],
        test,
        epochs: lab.pick(10, 40),
        bound: 0.0,
        names: [""; 2],
    };
    let mut errors = vec![];
    for seed in 0..seeds {
        let model = trained(lab, &task, 1, seed)?;
        let found = predict(&model, &task.test[0])?.squeeze(1)?.mul(&deviation)?.add(&mean)?;
        errors.push(rmse(&found, &task.test[1])?);
    }
    let (error, deviation) = spread(&errors);
    say("\nCovid3Month, root of the mean square error:\n");
    table(&[
        ["predictor".to_string(), "error".to_string(), "±".to_string()],
        ["network".to_string(), format!("{error:.4}"), format!("{deviation:.4}")],
        ["mean of the training targets".to_string(), format!("{of_mean:.4}"), String::new()],
    ]);
    // The quick run stops before the network has learned more than the mean.
    let most = lab.pick(1.5, 1.05) * of_mean;
    ensure(error < most, format_args!("the error on Covid3Month is {error:.4}, that of the mean {of_mean:.4}"))?;
    Ok(format!("Covid3Month RMSE {error:.4} (mean predictor {of_mean:.4})"))
}

/// Draws two series of each class with the map of that class less the other's, for series that the
/// network classifies rightly.
fn draw(lab: &Lab, model: &SignalFcn, task: &Task) -> Result<()> {
    let [series, labels] = &task.test;
    let maps = no_grad(|| model.class_maps(series))?;
    let found = predict(model, series)?.argmax(1)?.to_vec::<i64>()?;
    let labels = labels.to_vec::<i64>()?;
    let mut charts = vec![];
    for class in [0, 1] {
        for index in (0..labels.len()).filter(|&i| labels[i] == class && found[i] == class).take(2) {
            let row = |of: &Tensor, channel: usize| of.narrow(0, index, 1)?.narrow(1, channel, 1)?.to_vec::<f32>();
            let (own, other) = (row(&maps, class as usize)?, row(&maps, 1 - class as usize)?);
            let map: Vec<f32> = own.iter().zip(&other).map(|(own, other)| own - other).collect();
            let largest = map.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
            let curve =
                |values: &[f32], scale: f32| values.iter().enumerate().map(|(t, &v)| (t as f64, f64::from(v * scale))).collect::<Vec<_>>();
            charts.push(
                Chart::new(format!("{}: {}, series {index}", task.name, task.names[class as usize]))
                    .x("moment")
                    .y("series; map, scaled to 2")
                    .curve("series", curve(&row(series, 0)?, 1.0))
                    .curve("raises this class's score (above 0)", curve(&map, 2.0 / largest))
                    .horizontal("", 0.0),
            );
        }
    }
    lab.chart("signals.svg", Chart::panels(&charts, 2))
}
