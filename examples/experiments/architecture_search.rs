//! # Searching for an architecture
//!
//! Two ways to spend twice the multiply-adds, or as few as can be:
//!
//! 1. EfficientNet (Tan & Le, 2019) begins with a grid: a small network is made α times deeper, β
//!    times wider and γ times finer, with α·β²·γ² ≈ 2, so that each choice costs about twice the
//!    network. What is claimed: all three together are better than one alone.
//! 2. Regularised evolution (Real et al., 2019): the best of a few random members of a population
//!    has a child with one change; the child joins, the *oldest* member leaves. MnasNet's reward
//!    (Tan et al., 2019), accuracy · (cost / target)^w with w = -0.07, trades accuracy for cost.
//!    What is claimed: it finds better networks than random search with the same number of
//!    trainings.
//!
//! The space is MobileNet-like: four inverted residual blocks with a choice of kernel, expansion,
//! width and squeeze-and-excitation. Cost is what `summary` counts. Each training is a line of a
//! file of results in the output directory; a search that was interrupted reads what it has trained
//! already, and goes on with the same choices, since they depend on the seed and on rewards alone.
//!
//! Look at: the grid's best row, the rewards of both searches, and their fronts of accuracy and
//! cost.

mod scaling;
mod space;

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use convnet::chart::Chart;
use convnet::data::{Resize, Rng};
use convnet::models::MBConvOptions;
use convnet::prelude::*;
use space::{BLOCKS, CHOICES, Genome, blocks, build};

use super::lab::{Experiment, Lab, Pictures, accuracy, ensure, first, fit, plus_minus, say, spread, table};

pub const EXPERIMENT: Experiment = Experiment {
    name: "architecture_search",
    claim: "scaling depth, width and resolution together beats one alone; evolution beats random search",
    run,
};

/// The exponent of cost in the reward.
const W: f64 = -0.07;

/// What a training gave.
#[derive(Clone, Copy)]
struct Trained {
    accuracy: f64,
    cost: f64,
}

impl Trained {
    fn reward(self, target: f64) -> f64 {
        self.accuracy * (self.cost / target).powf(W)
    }
}

fn run(lab: &Lab) -> Result<String> {
    let digits = lab.digits()?;
    let (train, valid) = (first(&digits.train, lab.pick(600, 2000))?, first(&digits.test, lab.pick(359, 1000))?);
    say(format_args!("{}: {} to train on, {} to validate on", digits.name, train.len(), valid.len()));
    let seeds = lab.pick(1, 3);
    let mut grid = Trainings { train, valid, size: digits.size, epochs: lab.pick(2, 3), known: HashMap::new(), file: None };
    let scaled = scaling::scale(&grid, lab.seed, seeds)?;

    let file = lab.output(&format!("architecture_search_{}_{}.csv", digits.size, grid.train.len()))?;
    grid.remember(file)?;
    let (mut trainings, budget) = (grid, lab.pick(8, 40));
    let target = trainings.cost(&[0, 1, 1, 0].repeat(BLOCKS).try_into().unwrap_or_default())?;
    let mut chart = Chart::new("Fronts of all searches").x("million multiply-adds").y("accuracy").log_x();
    let mut rows = vec![["search", "best reward", "accuracy of it", "million multiply-adds"].map(String::from)];
    let mut best = Vec::new();
    for (name, population) in [("regularised evolution", lab.pick(4, 12)), ("random search", budget)] {
        let (mut rewards, mut all, mut winners) = (vec![], vec![], [vec![], vec![]]);
        for seed in lab.seed..lab.seed + seeds {
            let found = search(&mut trainings, budget, population, target, seed)?;
            let winner = found.iter().copied().max_by(|a, b| a.reward(target).total_cmp(&b.reward(target)));
            let winner = winner.ok_or_else(|| Error::msg("the search trained nothing"))?;
            rewards.push(winner.reward(target));
            winners[0].push(winner.accuracy);
            winners[1].push(winner.cost / 1e6);
            all.extend(found);
        }
        rows.push([name.into(), plus_minus(&rewards), plus_minus(&winners[0]), plus_minus(&winners[1])]);
        chart = chart.curve(name, front(all));
        best.push(spread(&rewards).0);
    }
    say(format_args!("\nbudget {budget} trainings, target {:.2} million multiply-adds, {seeds} seeds", target / 1e6));
    table(&rows);
    lab.chart("architecture_search.svg", chart)?;
    ensure(best[0] > best[1] - lab.pick(0.1, 0.02), "evolution is worse than random search")?;
    Ok(format!("reward {:.3} by evolution, {:.3} by random search; {scaled}", best[0], best[1]))
}

/// Trains networks, and remembers what came out.
struct Trainings {
    train: Pictures,
    valid: Pictures,
    size: usize,
    epochs: u64,
    known: HashMap<String, Trained>,
    file: Option<PathBuf>,
}

impl Trainings {
    /// Reads the results of earlier runs; later ones are added to the file.
    fn remember(&mut self, file: PathBuf) -> Result<()> {
        for line in fs::read_to_string(&file).unwrap_or_default().lines() {
            let parts: Vec<&str> = line.split(',').collect();
            // A line that an interruption cut is trained again.
            if let &[key, accuracy, cost, "end"] = &parts[..]
                && let (Ok(accuracy), Ok(cost)) = (accuracy.parse(), cost.parse())
            {
                self.known.insert(key.into(), Trained { accuracy, cost });
            }
        }
        say(format_args!("{} trainings are in {}", self.known.len(), file.display()));
        self.file = Some(file);
        Ok(())
    }

    fn cost(&self, genome: &Genome) -> Result<f64> {
        Ok(build(&blocks(genome, self.size)).summary([1, 1, self.size, self.size])?.multiply_adds as f64)
    }

    fn run(&self, blocks: &[MBConvOptions], size: usize, seed: u64) -> Result<Trained> {
        convnet::manual_seed(seed);
        let network = build(blocks);
        let loader = |pictures: &Pictures, batch| DataLoader::new(pictures.clone(), batch).transform(Resize::new([size, size]));
        fit(&network, &loader(&self.train, 32).shuffle(seed), self.epochs, 0.1)?;
        let cost = network.summary([1, 1, size, size])?.multiply_adds as f64;
        Ok(Trained { accuracy: accuracy(&network, &loader(&self.valid, 200))?, cost })
    }

    /// Trains the network of a genome, unless that has been done.
    fn of(&mut self, genome: &Genome, seed: u64) -> Result<Trained> {
        let key = format!("{seed}:{}", genome.map(|choice| choice.to_string()).concat());
        if let Some(&trained) = self.known.get(&key) {
            return Ok(trained);
        }
        let trained = self.run(&blocks(genome, self.size), self.size, seed)?;
        if let Some(path) = &self.file {
            let line = format!("{key},{},{},end\n", trained.accuracy, trained.cost);
            let added = fs::OpenOptions::new().create(true).append(true).open(path).and_then(|mut file| file.write_all(line.as_bytes()));
            added.map_err(|source| Error::Io { path: path.clone(), source })?;
        }
        self.known.insert(key, trained);
        Ok(trained)
    }
}

/// Evolves a population; one as large as the budget is random search.
fn search(trainings: &mut Trainings, budget: usize, population: usize, target: f64, seed: u64) -> Result<Vec<Trained>> {
    let mut rng = Rng::new(seed);
    let mut members: VecDeque<(Genome, Trained)> = VecDeque::new();
    let mut found = Vec::new();
    for step in 0..budget {
        let mut genome: Genome = std::array::from_fn(|gene| rng.below(CHOICES[gene % CHOICES.len()]));
        if step >= population {
            let rivals: Vec<_> = (0..population.div_ceil(3).max(2)).map(|_| members[rng.below(members.len())]).collect();
            let parent = rivals.into_iter().max_by(|a, b| a.1.reward(target).total_cmp(&b.1.reward(target)));
            genome = parent.map_or(genome, |(genome, _)| genome);
            let gene = rng.below(genome.len());
            let choices = CHOICES[gene % CHOICES.len()];
            genome[gene] = (genome[gene] + 1 + rng.below(choices - 1)) % choices;
            members.pop_front();
        }
        let trained = trainings.of(&genome, seed)?;
        members.push_back((genome, trained));
        found.push(trained);
    }
    Ok(found)
}

/// Returns the results that no other beats in both accuracy and cost, as a curve.
fn front(mut all: Vec<Trained>) -> Vec<(f64, f64)> {
    all.sort_by(|a, b| a.cost.total_cmp(&b.cost).then(b.accuracy.total_cmp(&a.accuracy)));
    let mut best = 0.0;
    all.retain(|trained| {
        trained.accuracy > best && {
            best = trained.accuracy;
            true
        }
    });
    all.iter().map(|trained| (trained.cost / 1e6, trained.accuracy)).collect()
}
