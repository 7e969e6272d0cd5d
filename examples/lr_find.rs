//! Finds a learning rate: trains a few steps with rising rates (Smith, 2015), writes the loss over
//! the rate as a picture and suggests a rate.
//!
//! ```sh
//! cargo run --release --example lr_find -- --optimizer adam --picture rates.svg
//! ```

#[path = "common/mod.rs"]
mod common;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use common::augment::AugmentOptions;
use common::data::DataOptions;
use common::optimizer::OptimizerOptions;
use common::{config, model, say};
use convnet::data::Batch;
use convnet::nn::Module;
use convnet::train::{LrRange, LrRangeTest};
use convnet::{Error, Result};

/// Find a learning rate by the range test.
#[derive(Parser, Debug)]
struct Options {
    /// A registered architecture
    #[arg(long, default_value = "lenet5")]
    model: String,
    /// Weights to start from
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// TOML file with options, such as that of a run of `train`; those of the command line win
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
    #[arg(long, value_name = "FILE", default_value = "lr_find.svg")]
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
    let (train, _) = options.data.loaders(&splits, model::input(&options.model)?, &options.augment)?;
    let model = model::create(&options.model, splits.classes.len())?;
    if let Some(path) = &options.weights {
        model::load(&model, path)?;
    }
    let mut optimizer = options.optimizer.build(&model)?;
    let test = LrRangeTest::new(options.from, options.to, options.points).smoothing(options.smoothing);
    let epochs = options.points.div_ceil(train.len().max(1)) as u64;
    let batches = (0..epochs).flat_map(|epoch| train.epoch(epoch));
    let range =
        test.run(&model, &mut *optimizer, batches, |model, Batch { images, labels }| model.forward(&images)?.cross_entropy(&labels))?;

    say("     rate      loss  smoothed");
    let every = range.rates().len().div_ceil(20);
    for ((rate, loss), smoothed) in range.rates().iter().zip(range.losses()).zip(range.smoothed()).step_by(every) {
        say(format_args!("{rate:>9.2e} {loss:>9.4} {smoothed:>9.4}"));
    }
    std::fs::write(&options.picture, svg(&range)).map_err(|source| Error::Io { path: options.picture.clone(), source })?;
    say(format_args!("\npicture: {}", options.picture.display()));
    match range.suggestion() {
        Some(rate) => say(format_args!("suggested learning rate: {rate:.2e}")),
        None => say("the loss falls at no rate: look at the data and the model"),
    }
    Ok(())
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const MARGIN: f64 = 50.0;

/// Draws the loss over the logarithm of the rate. Colours follow the reader's light or dark mode.
fn svg(range: &LrRange) -> String {
    let rates: Vec<f64> = range.rates().iter().map(|rate| rate.log10()).collect();
    let (first, last) = (rates[0], rates[rates.len() - 1]);
    let low = range.smoothed().iter().copied().fold(f64::INFINITY, f64::min);
    // A loss that explodes would press the rest flat.
    let high = (low + 1.5 * (range.smoothed()[0] - low)).max(low + 1e-6);
    let low = low - 0.1 * (high - low);
    let x = |rate: f64| MARGIN + (rate - first) / (last - first).max(1e-9) * (WIDTH - 2.0 * MARGIN);
    let y = |loss: f64| HEIGHT - MARGIN - (loss.clamp(low, high) - low) / (high - low) * (HEIGHT - 2.0 * MARGIN);
    let line =
        |losses: &[f64]| rates.iter().zip(losses).map(|(&rate, &loss)| format!("{:.1},{:.1} ", x(rate), y(loss))).collect::<String>();

    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <style>svg {{ background: #fff; color: #222 }} text {{ fill: currentColor }}\n\
         @media (prefers-color-scheme: dark) {{ svg {{ background: #181818; color: #ddd }} }}</style>\n"
    );
    for power in first.ceil() as i32..=last.floor() as i32 {
        let at = x(f64::from(power));
        let _ = writeln!(
            out,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{MARGIN}\" y2=\"{0}\" stroke=\"currentColor\" opacity=\"0.2\"/>\
             <text x=\"{at:.1}\" y=\"{1}\" text-anchor=\"middle\">1e{power}</text>",
            HEIGHT - MARGIN,
            HEIGHT - MARGIN + 20.0
        );
    }
    for i in 0..=4 {
        let loss = low + (high - low) * f64::from(i) / 4.0;
        let _ = writeln!(
            out,
            "<line x1=\"{MARGIN}\" x2=\"{0}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"currentColor\" opacity=\"0.2\"/>\
             <text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{loss:.2}</text>",
            WIDTH - MARGIN,
            y(loss),
            MARGIN - 6.0,
            y(loss) + 4.0
        );
    }
    let _ = writeln!(out, "<polyline points=\"{}\" fill=\"none\" stroke=\"currentColor\" opacity=\"0.3\"/>", line(range.losses()));
    let _ = writeln!(out, "<polyline points=\"{}\" fill=\"none\" stroke=\"#3b82f6\" stroke-width=\"2\"/>", line(range.smoothed()));
    if let Some(rate) = range.suggestion() {
        let at = x(rate.log10());
        let _ = writeln!(
            out,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{MARGIN}\" y2=\"{}\" stroke=\"#ef4444\" stroke-dasharray=\"4\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">suggestion {rate:.1e}</text>",
            HEIGHT - MARGIN,
            MARGIN - 8.0
        );
    }
    let _ = writeln!(out, "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">learning rate</text>", WIDTH / 2.0, HEIGHT - 8.0);
    let _ = writeln!(out, "<text x=\"8\" y=\"20\">loss, and its running mean</text>\n</svg>");
    out
}
