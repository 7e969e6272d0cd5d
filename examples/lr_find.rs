//! Finds a learning rate: trains a few steps with rising rates (Smith, 2015), writes the loss over
//! the rate as a picture and suggests a rate.
//!
//! ```sh
//! cargo run --release --example lr_find -- --optimizer adam --picture rates.svg
//! ```

#[path = "common/mod.rs"]
mod common;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use common::augment::AugmentOptions;
use common::data::DataOptions;
use common::loss::logits_and_loss;
use common::optimizer::OptimizerOptions;
use common::program::say;
use common::{config, weights_file};
use convnet::chart::Chart;
use convnet::data::Batch;
use convnet::ops::CrossEntropyOptions;
use convnet::train::{LrRange, LrRangeTest};
use convnet::{Context as _, Result, models};

/// Find a learning rate by the range test.
#[derive(Parser, Debug)]
struct Options {
    /// A registered architecture
    #[arg(long, default_value = "lenet5")]
    model: String,
    /// Weights to start from
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// TOML file with options; those of the command line win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of a run of `train`, whose options are the defaults
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Lowest rate
    #[arg(long, default_value_t = 1e-5)]
    from: f64,
    /// Highest rate
    #[arg(long, default_value_t = 10.0)]
    to: f64,
    /// Number of rates
    #[arg(long, default_value_t = 100)]
    points: usize,
    /// Share of the running mean of the losses that a new loss keeps
    #[arg(long, default_value_t = 0.9)]
    smoothing: f64,
    /// SVG file to draw the loss to
    #[arg(long, value_name = "FILE", default_value = "out/lr_find.svg")]
    picture: PathBuf,
    /// Threads that compute; 0 for one on each core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    #[command(flatten)]
    data: DataOptions,
    #[command(flatten)]
    augment: AugmentOptions,
    #[command(flatten)]
    optimizer: OptimizerOptions,
}

fn main() -> ExitCode {
    let (options, _) = config::parse::<Options>();
    common::run(|| find(&options))
}

fn find(options: &Options) -> Result<()> {
    convnet::set_num_threads(options.threads)?;
    convnet::manual_seed(options.data.seed);
    let splits = options.data.open()?;
    let weights = options.weights.as_deref().map(weights_file::read).transpose()?;
    let target = options.data.target(&options.model, weights.as_ref())?;
    let (train, _) = options.data.loaders(&splits, &target, &options.augment)?;
    let model = models::create(&options.model, splits.classes.len())?;
    if let Some(weights) = &weights {
        weights.load_into(&model)?;
    }
    let mut optimizer = options.optimizer.build(&model)?;
    let test = LrRangeTest::new(options.from, options.to, options.points).smoothing(options.smoothing);
    let epochs = options.points.div_ceil(train.len().max(1)) as u64;
    let batches = (0..epochs).flat_map(|epoch| train.epoch(epoch));
    let range = test.run(&model, &mut *optimizer, batches, |model, Batch { images, labels }| {
        let options = CrossEntropyOptions::default();
        logits_and_loss(model.as_module(), &images, &labels, &options).map(|(_, loss)| loss)
    })?;

    say("     rate      loss  smoothed");
    let every = range.rates().len().div_ceil(20);
    for ((rate, loss), smoothed) in range.rates().iter().zip(range.losses()).zip(range.smoothed()).step_by(every) {
        say(format_args!("{rate:>9.2e} {loss:>9.4} {smoothed:>9.4}"));
    }
    if let Some(folder) = options.picture.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    chart(&range).save(&options.picture)?;
    say(format_args!("\npicture: {}", options.picture.display()));
    match range.suggestion() {
        Some(rate) => say(format_args!("suggested learning rate: {rate:.2e}")),
        None => say("the loss falls at no rate: look at the data and the model"),
    }
    Ok(())
}

/// Draws the loss over the rate, on a logarithmic axis.
fn chart(range: &LrRange) -> Chart {
    let low = range.smoothed().iter().copied().fold(f64::INFINITY, f64::min);
    // A loss that explodes would press the rest flat.
    let high = (low + 1.5 * (range.smoothed()[0] - low)).max(low + 1e-6);
    let over_rates = |losses: &[f64]| range.rates().iter().copied().zip(losses.iter().copied()).collect::<Vec<_>>();
    let chart = Chart::new("Learning rate range test").x("learning rate").y("loss").log_x().y_range(low - 0.1 * (high - low), high);
    let chart = chart.curve("running mean", over_rates(range.smoothed())).points("loss of a step", over_rates(range.losses()));
    match range.suggestion() {
        Some(rate) => chart.vertical(format!("suggestion {rate:.1e}"), rate),
        None => chart,
    }
}
