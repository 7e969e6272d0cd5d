//! Experiments of the field: each is a short program with a claim, a table, a picture and a
//! measured figure. `docs/EXPERIMENTS.md` shows them all.
//!
//! ```sh
//! cargo run --release --example experiments -- list
//! cargo run --release --example experiments -- correlation
//! cargo run --release --example experiments -- equivariance gan --data DIR
//! cargo run --release --example experiments -- all --quick
//! ```

mod activations;
mod approximation;
mod architecture_search;
mod attention;
mod backpropagation;
mod clutter;
#[path = "../common/mod.rs"]
mod common;
mod correlation;
mod degradation;
mod equivariance;
mod faces;
mod gan;
mod generalisation;
mod graph;
mod initial_values;
mod lab;
mod lenet_history;
mod parameters;
mod quantum;
mod reading;
mod segmentation;
mod self_organising_map;
mod shapes;
mod signals;
mod sizes;
mod text;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use convnet::{Context, Error, Result};
use lab::{Experiment, Lab, say};

/// All experiments, in the order of `docs/EXPERIMENTS.md`.
const EXPERIMENTS: &[Experiment] = &[
    // What convolution is.
    correlation::EXPERIMENT,
    parameters::EXPERIMENT,
    equivariance::EXPERIMENT,
    sizes::EXPERIMENT,
    // Why networks learn, and why not.
    activations::EXPERIMENT,
    approximation::EXPERIMENT,
    backpropagation::EXPERIMENT,
    degradation::EXPERIMENT,
    generalisation::EXPERIMENT,
    initial_values::EXPERIMENT,
    // Networks for other tasks.
    gan::EXPERIMENT,
    text::EXPERIMENT,
    signals::EXPERIMENT,
    lenet_history::EXPERIMENT,
    segmentation::EXPERIMENT,
    faces::EXPERIMENT,
    reading::EXPERIMENT,
    shapes::EXPERIMENT,
    self_organising_map::EXPERIMENT,
    graph::EXPERIMENT,
    quantum::EXPERIMENT,
    architecture_search::EXPERIMENT,
    attention::EXPERIMENT,
];

/// Run experiments of the field.
#[derive(Parser)]
struct Options {
    /// Names of experiments, `all`, or `list`
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    lab: Lab,
}

fn main() -> ExitCode {
    let options = Options::parse();
    common::run(|| run(&options))
}

fn run(options: &Options) -> Result<()> {
    if options.names == ["list"] {
        for experiment in EXPERIMENTS {
            say(format_args!("{:<22}{}", experiment.name, experiment.claim));
        }
        return Ok(());
    }
    for experiment in chosen(&options.names)? {
        let start = Instant::now();
        say(format_args!("== {}: {}\n", experiment.name, experiment.claim));
        convnet::manual_seed(options.lab.seed);
        let figure = (experiment.run)(&options.lab).context(experiment.name)?;
        say(format_args!("\n{} ({:.1} s): {figure}\n", experiment.name, start.elapsed().as_secs_f64()));
    }
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Experiment>> {
    if names == ["all"] {
        return Ok(EXPERIMENTS.iter().collect());
    }
    let find = |name: &String| {
        EXPERIMENTS
            .iter()
            .find(|experiment| experiment.name == name)
            .ok_or_else(|| Error::msg(format!("there is no experiment `{name}`; `list` shows their names")))
    };
    names.iter().map(find).collect()
}
