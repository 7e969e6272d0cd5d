//! What became of a run.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::train::MetricValues;

/// An epoch of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochRecord {
    /// The number of the epoch, from 0.
    pub epoch: u64,
    /// The number of optimiser steps at its end.
    pub step: u64,
    /// The means of training and validation: `train/loss`, `valid/accuracy`.
    pub metrics: MetricValues,
}

impl EpochRecord {
    pub(super) fn to_json(&self) -> Value {
        let metrics: Map<String, Value> = self.metrics.iter().map(|(name, &value)| (name.clone(), json!(value))).collect();
        json!({"epoch": self.epoch, "step": self.step, "metrics": metrics})
    }

    pub(super) fn from_json(value: &Value) -> Option<EpochRecord> {
        let metrics = value.get("metrics")?.as_object()?;
        Some(EpochRecord {
            epoch: value.get("epoch")?.as_u64()?,
            step: value.get("step")?.as_u64()?,
            // JSON has no NaN: it is written as null.
            metrics: metrics.iter().map(|(name, value)| (name.clone(), value.as_f64().unwrap_or(f64::NAN))).collect(),
        })
    }
}

/// Why a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// All epochs or steps were done.
    Finished,
    /// A callback ended it, for this reason.
    Stopped(String),
    /// Ctrl-C, or the flag of [`Trainer::stop_flag`](super::Trainer::stop_flag), ended it. With
    /// checkpoints, one was written, from which the run goes on.
    Interrupted,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Finished => f.write_str("finished"),
            Ending::Stopped(reason) => write!(f, "stopped: {reason}"),
            Ending::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct TrainReport {
    /// The epochs that were completed, those before a resumption too.
    pub epochs: Vec<EpochRecord>,
    /// The epoch that the run ended in the middle of, because of [`Trainer::steps`] or a callback:
    /// the means over its batches so far, and those of a validation.
    ///
    /// [`Trainer::steps`]: super::Trainer::steps
    pub partial: Option<EpochRecord>,
    /// The number of optimiser steps.
    pub steps: u64,
    /// The time that the run took, in seconds, with that before a resumption.
    pub seconds: f64,
    /// The number of samples that could not be read, in training and validation: the loaders
    /// skipped or replaced them ([`DataLoader::on_error`]). [`DataLoader::failures`] of each loader
    /// returns their errors. On several ranks, those of this rank; after a resumption, those since.
    ///
    /// [`DataLoader::on_error`]: crate::data::DataLoader::on_error
    /// [`DataLoader::failures`]: crate::data::DataLoader::failures
    pub failures: usize,
    /// Why the run ended.
    pub ending: Ending,
}

impl TrainReport {
    /// Returns the latest metrics: those of the [`partial`](TrainReport::partial) epoch, or of the
    /// last one. `None` when the run was interrupted before the end of the first.
    pub fn last(&self) -> Option<&MetricValues> {
        self.partial.as_ref().or(self.epochs.last()).map(|record| &record.metrics)
    }

    /// Returns the values of a metric, epoch by epoch, of the epochs that were completed.
    pub fn curve(&self, metric: &str) -> Vec<f64> {
        self.epochs.iter().filter_map(|record| record.metrics.get(metric).copied()).collect()
    }
}
