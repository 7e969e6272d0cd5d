//! Generalisation: what a network that knows its training set by heart does on new pictures.
//!
//! The claims. With few examples a network reaches no training error and still errs on new
//! pictures; weight decay, dropout (Srivastava et al., 2014), pictures that are moved and turned
//! (Simard et al., 2003) and stopping early (Prechelt, 1998) narrow the gap. Small batches
//! generalise better than large ones (Keskar et al., 2017). Classes that are rare in training are
//! recognised badly, unless their losses count more or their pictures are drawn more often. And
//! every figure is one draw: ten runs give ten results.
//!
//! The program has three sets of digits: a small one for training; one for validation, which
//! chooses when to stop and nothing else; and one for testing, which is looked at once, at the end.
//! It trains the same network in all experiments and prints the mean and deviation of several
//! seeds.
//!
//! What to look at: the difference between the columns for training and testing, and whether the
//! differences between methods are larger than the spread of ten runs, which is the smallest
//! difference that a single run can show.

mod rare;

use std::sync::Arc;

use convnet::chart::Chart;
use convnet::data::{Batch, DataLoader, Dataset, Normalize, RandomAffine, RandomSampler, Rng, Sampler, Subset, WeightedSampler};
use convnet::nn::{Conv2d, Dropout, Flatten, Linear, MaxPool2d, Module, ModuleExt, ReLU, Sequential};
use convnet::ops::CrossEntropyOptions;
use convnet::optim::{Optimizer, Sgd};
use convnet::train::EarlyStopping;
use convnet::{Result, Tensor, manual_seed, no_grad};

use super::lab::{DigitData, Experiment, Lab, accuracy_of, ensure, plus_minus, say, spread, table, tensors};

pub const EXPERIMENT: Experiment =
    Experiment { name: "generalisation", claim: "augmentation helps a small training set most; one run is one draw", run };

/// How a network is trained.
#[derive(Clone, Copy, Default)]
struct Recipe {
    weight_decay: f64,
    dropout: f64,
    augment: bool,
    stop_early: bool,
    batch: usize,
    balance: Balance,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Balance {
    #[default]
    None,
    Loss,
    Sampler,
}

const PLAIN: Recipe = Recipe { weight_decay: 0.0, dropout: 0.0, augment: false, stop_early: false, batch: 16, balance: Balance::None };

struct Study {
    digits: DigitData,
    validation: (Tensor, Tensor),
    test: (Tensor, Tensor),
    epochs: u64,
}

fn normalise() -> Normalize {
    Normalize::new([0.1307], [0.3081])
}

impl Study {
    fn network(&self, dropout: f64) -> Sequential {
        let flat = 32 * (self.test.0.shape()[2] / 4).pow(2);
        let net = Sequential::new().push(Conv2d::new(1, 16, 3).padding(1)).push(ReLU).push(MaxPool2d::new(2));
        let net = net.push(Conv2d::new(16, 32, 3).padding(1)).push(ReLU).push(MaxPool2d::new(2)).push(Flatten);
        net.push(Linear::new(flat, 64)).push(ReLU).push(Dropout::new(dropout)).push(Linear::new(64, 10))
    }

    /// Trains on these pictures; returns the accuracy on them and on the test set, and the network.
    fn train(&self, indices: &[usize], recipe: Recipe, seed: u64) -> Result<([f64; 2], Sequential)> {
        manual_seed(seed);
        let net = self.network(recipe.dropout);
        let (images, labels) = tensors(&self.digits.train, indices.iter().copied(), normalise())?;
        let classes = labels.to_vec::<i64>()?;
        let subset = Subset::shared(Arc::clone(&self.digits.train), indices.iter().copied())?;
        let mut loader = DataLoader::new(subset, recipe.batch);
        loader = match recipe.balance {
            Balance::Sampler => loader.seed(seed).sampler(WeightedSampler::balanced(&classes)),
            _ => loader.shuffle(seed),
        };
        if recipe.augment {
            loader = loader.transform(RandomAffine::new(12.0).translate([0.1, 0.1]).scale([0.9, 1.1]));
        }
        let loader = loader.transform(normalise());
        let mut options = CrossEntropyOptions::default();
        if recipe.balance == Balance::Loss {
            let count = |class: i64| classes.iter().filter(|&&c| c == class).count().max(1) as f64;
            let weights = (0..10).map(|class| (classes.len() as f64 / 10.0 / count(class)) as f32).collect();
            options.weight = Some(Tensor::from_vec(weights, [10])?);
        }
        let mut optimizer = Sgd::new(net.parameters(), 0.01).momentum(0.9).weight_decay(recipe.weight_decay);
        let mut stopping = EarlyStopping::on("validation loss").patience(5);
        let mut best = net.state_dict();
        for epoch in 0..self.epochs {
            for batch in loader.epoch(epoch) {
                let Batch { images, labels } = batch?;
                optimizer.step(&net.forward(&images)?.cross_entropy_with(&labels, &options)?.backward()?)?;
            }
            if recipe.stop_early {
                net.eval();
                let loss = no_grad(|| net.forward(&self.validation.0)?.cross_entropy(&self.validation.1)?.item::<f32>())?;
                net.train();
                let stop = stopping.update(f64::from(loss));
                if stopping.waited() == 0 {
                    best = net.state_dict();
                }
                if stop {
                    break;
                }
            }
        }
        if recipe.stop_early {
            net.load_state_dict(&best)?;
        }
        Ok(([accuracy_of(&net, &images, &labels)?, accuracy_of(&net, &self.test.0, &self.test.1)?], net))
    }

    /// Trains with several seeds; returns accuracies in training and testing.
    fn repeat(&self, indices: &[usize], recipe: Recipe, seeds: std::ops::Range<u64>) -> Result<[Vec<f64>; 2]> {
        let mut results = [vec![], vec![]];
        for seed in seeds {
            let (accuracies, _) = self.train(indices, recipe, seed)?;
            results.iter_mut().zip(accuracies).for_each(|(all, one)| all.push(one));
        }
        Ok(results)
    }
}

fn run(lab: &Lab) -> Result<String> {
    let digits = lab.digits()?;
    let (few, of_class, seeds) = (lab.pick(100, 200), lab.pick(60, 200), lab.pick(2, 3));
    let order: Vec<usize> = RandomSampler::new(digits.train.len()).indices(&mut Rng::new(lab.seed))?;
    let (small, validation, rest) = (&order[..few], &order[few..few + lab.pick(200, 1000)], &order[few + lab.pick(200, 1000)..]);
    let validation = tensors(&digits.train, validation.iter().copied(), normalise())?;
    let test = tensors(&digits.test, 0..lab.pick(359, 5000).min(digits.test.len()), normalise())?;
    let study = Study { digits, validation, test, epochs: lab.pick(40, 60) };
    let seeds = lab.seed..lab.seed + seeds;

    say(format_args!("{few} of {} for training, {} epochs, {} seeds", study.digits.name, study.epochs, seeds.end - seeds.start));
    let methods = [
        ("nothing", PLAIN),
        ("weight decay 0.01", Recipe { weight_decay: 0.01, ..PLAIN }),
        ("dropout 0.5", Recipe { dropout: 0.5, ..PLAIN }),
        ("augmentation", Recipe { augment: true, ..PLAIN }),
        ("early stopping", Recipe { stop_early: true, ..PLAIN }),
        ("batches of 4", Recipe { batch: 4, ..PLAIN }),
        ("batches of 64", Recipe { batch: 64, ..PLAIN }),
    ];
    let mut rows = vec![["method", "training", "test"].map(String::from)];
    let mut tests = vec![];
    for (name, recipe) in methods {
        let [training, test] = study.repeat(small, recipe, seeds.clone())?;
        rows.push([name.to_string(), plus_minus(&training), plus_minus(&test)]);
        tests.push((name, spread(&test)));
    }
    table(&rows);
    let mut accuracies = Chart::new(format!("Test accuracy after training on {few} digits")).x("method").y("accuracy");
    accuracies = accuracies.y_range(0.5, 1.0).bars("", tests.iter().map(|(name, (mean, _))| (*name, *mean)));

    let rare = rare::rare_classes(&study, rest, of_class, seeds.clone())?;
    let runs = study.repeat(small, PLAIN, lab.seed..lab.seed + lab.pick(4, 10))?[1].clone();
    let (mean, deviation) = spread(&runs);
    let [least, most] = [runs.iter().copied().fold(f64::INFINITY, f64::min), runs.iter().copied().fold(0.0, f64::max)];
    say(format_args!("\n{} runs: {least:.3} to {most:.3}, mean {mean:.3}, deviation {deviation:.3}", runs.len()));
    let dots = Chart::new("Results of runs that differ in nothing else").x("run").y("test accuracy");
    let dots = dots.points("run", (1..).map(f64::from).zip(runs.iter().copied())).horizontal("mean", mean);
    lab.chart("generalisation.svg", Chart::panels(&[accuracies, dots], 1))?;

    let [nothing, augmented] = [tests[0].1.0, tests[3].1.0];
    ensure(augmented > nothing + lab.pick(-0.2, 0.04), format_args!("{augmented:.3} with augmentation, {nothing:.3} without"))?;
    ensure(most > least, "ten runs give one result")?;
    // The remedies gain nothing here; they must not cost more than this.
    let [none, loss, sampler] = rare;
    ensure(
        loss.min(sampler) > none - lab.pick(0.1, 0.05),
        format_args!("rare classes: {none:.3} without a remedy, {loss:.3} and {sampler:.3} with"),
    )?;
    Ok(format!("test accuracy {nothing:.3} with nothing, {augmented:.3} with augmentation; runs from {least:.3} to {most:.3}"))
}
