//! The options of a run.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser};
use convnet::train::Every;

use crate::common::augment::AugmentOptions;
use crate::common::data::DataOptions;
use crate::common::optimizer::OptimizerOptions;
use crate::common::schedule::{ScheduleOptions, Unit};
use crate::watching::WatchOptions;

/// Train a registered model; without options LeNet-5 on the digits that come with the crate.
#[derive(Parser, Clone, Debug)]
pub struct Options {
    /// A registered architecture, such as cifar_resnet20
    #[arg(long, default_value = "lenet5")]
    pub model: String,
    /// Weights to start from: a checkpoint, .pth, .safetensors or .npz
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// TOML file with options; those of the command line win
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the run: checkpoints, log.csv, TensorBoard's files, report.html, the
    /// options
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on from the last checkpoint in --out, with the options of its run
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub resume: bool,
    /// Threads that compute; 0 for one on each core
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    #[command(flatten)]
    pub data: DataOptions,
    #[command(flatten)]
    pub augment: AugmentOptions,
    #[command(flatten)]
    pub optimizer: OptimizerOptions,
    #[command(flatten)]
    pub schedule: ScheduleOptions,
    #[command(flatten)]
    pub run: RunOptions,
    #[command(flatten)]
    pub watch: WatchOptions,
}

/// The course of a run.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Training")]
pub struct RunOptions {
    /// Passes over the training pictures [default: 15, or as many as --steps takes]
    #[arg(long)]
    pub epochs: Option<u64>,
    /// End after this many steps of the optimiser
    #[arg(long)]
    pub steps: Option<u64>,
    /// Parts of the model that are not trained; they keep their running statistics
    #[arg(long, action = ArgAction::Set, value_delimiter = ',', value_name = "PREFIX")]
    pub freeze: Vec<String>,
    /// Share of each label that is spread over all classes
    #[arg(long, default_value_t = 0.0)]
    pub label_smoothing: f64,
    /// Batches whose gradients are averaged for a step
    #[arg(long, default_value_t = 1)]
    pub accumulate: usize,
    /// Limit of the norm of all gradients
    #[arg(long)]
    pub clip_norm: Option<f64>,
    /// Limit of each element of the gradients
    #[arg(long)]
    pub clip_value: Option<f64>,
    /// Validate the exponential average of the weights with this decay, which is lower in the first
    /// steps: the n-th has `1 - (1 + n)^(-2/3)` at most
    #[arg(long, value_name = "DECAY", group = "average")]
    pub ema: Option<f64>,
    /// Validate the equal average of the weights after each epoch from this one on; the first is 1
    #[arg(long, value_name = "EPOCH", group = "average", value_parser = clap::value_parser!(u64).range(1..))]
    pub swa_from: Option<u64>,
    /// First epoch of --ema; the first is 1
    #[arg(long, value_name = "EPOCH", requires = "ema", conflicts_with = "swa_from", value_parser = clap::value_parser!(u64).range(1..))]
    pub ema_from: Option<u64>,
    /// When --ema or --swa-from averages [default: after each step for --ema, each epoch for
    /// --swa-from]
    #[arg(long, value_enum, requires = "average")]
    pub average_unit: Option<Unit>,
    /// Take the statistics of batch normalisations anew for the weights that --ema or --swa-from
    /// averages
    #[arg(
        long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        requires_if("true", "average"),
    )]
    pub update_batch_norm: bool,
    /// Metric of the best checkpoint, early stopping and a plateau; losses and errors are better
    /// when they are lower, as their names say [default: valid/accuracy, or train/accuracy when
    /// there is nothing to validate on]
    #[arg(long)]
    pub monitor: Option<String>,
    /// Stop when --monitor has not improved for this many epochs
    #[arg(long, value_name = "EPOCHS")]
    pub patience: Option<u64>,
    /// Write a checkpoint after this many steps [default: after each epoch]
    #[arg(long, value_name = "STEPS")]
    pub checkpoint_steps: Option<u64>,
    /// Write a checkpoint after this many epochs
    #[arg(long, value_name = "EPOCHS")]
    pub checkpoint_epochs: Option<u64>,
    /// Number of last checkpoints that are kept
    #[arg(long, default_value_t = 3)]
    pub keep_last: usize,
    /// Keep the best checkpoint too
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub keep_best: bool,
    /// Log the loss of a single step after this many; 0 for never
    #[arg(long, default_value_t = 50)]
    pub log_every: u64,
    /// Write log.jsonl too, a line of JSON for each line of log.csv
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub json_lines: bool,
    /// Train together with the other processes that mpirun has started
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub distributed: bool,
    /// Parts of a batch, a power of two; numbers of processes that divide it give the same bits
    #[arg(long, default_value_t = 8)]
    pub shards: usize,
    /// Let MPI add in any order: faster, and other bits for other numbers of processes
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub any_order: bool,
    /// Batch normalisation over all processes; with --any-order, or as many shards as processes
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub sync_batch_norm: bool,
    /// Average the parameters after this many steps of each process instead of gradients in each
    /// step, for slow networks
    #[arg(long, value_name = "STEPS")]
    pub average_every: Option<u64>,
}

impl RunOptions {
    /// Returns when weights are averaged.
    pub fn average_unit(&self, usual: Every) -> Every {
        self.average_unit.map_or(usual, |unit| if unit == Unit::Step { Every::Step } else { Every::Epoch })
    }

    /// Returns the metric to observe in a run that validates, or not.
    pub fn monitor(&self, validates: bool) -> String {
        self.monitor.clone().unwrap_or_else(|| if validates { "valid/accuracy" } else { "train/accuracy" }.to_string())
    }

    /// Returns the limit of epochs; `None` when steps alone limit the run.
    pub fn epochs(&self) -> Option<u64> {
        self.epochs.or(if self.steps.is_none() { Some(15) } else { None })
    }

    /// Returns the number of steps of a run whose epochs have this many.
    pub fn total_steps(&self, steps_of_epoch: u64) -> u64 {
        let of_epochs = self.epochs().map(|epochs| epochs.saturating_mul(steps_of_epoch));
        [of_epochs, self.steps].into_iter().flatten().min().unwrap_or(0)
    }
}
