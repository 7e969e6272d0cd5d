//! What users hook into a run.

use std::collections::BTreeMap;

use super::{EarlyStopping, LogValue, Logger};
use crate::autograd::Gradients;
use crate::error::{Error, Result};
use crate::nn::{Module, StateDict};
use crate::optim::Optimizer;

/// The mean metrics of an epoch, by name: `train/loss`, `valid/accuracy`.
pub type MetricValues = BTreeMap<String, f64>;

/// A run, as its callbacks see it.
pub struct RunState<'a> {
    /// The model.
    pub model: &'a dyn Module,
    /// The optimiser.
    pub optimizer: &'a mut dyn Optimizer,
    /// The number of optimiser steps so far.
    pub step: u64,
    /// The number of the epoch, from 0.
    pub epoch: u64,
    /// After a step: the loss and the metrics of its last batch, as `step/loss`. After an epoch:
    /// the means of training and validation.
    pub metrics: &'a MetricValues,
    pub(super) stop: &'a mut Option<String>,
    pub(super) loggers: &'a mut dyn Logger,
    /// The step of what is logged: before a step, the one that will be made, so that a run that
    /// goes on from before it logs it once.
    pub(super) log_step: u64,
}

impl RunState<'_> {
    /// Ends the run after this step or epoch; the reason is in the report.
    pub fn stop(&mut self, reason: impl Into<String>) {
        self.stop.get_or_insert_with(|| reason.into());
    }

    /// Writes values to all logs of the run, for this step: numbers, pictures, histograms of
    /// tensors, texts. Before a step, that is the step that will be made.
    ///
    /// ```
    /// use convnet::autograd::Gradients;
    /// use convnet::train::{Callback, LogValue, RunState};
    ///
    /// /// Logs the distribution of the gradients of each parameter.
    /// struct GradientHistograms;
    ///
    /// impl Callback for GradientHistograms {
    ///     fn before_step(&mut self, run: &mut RunState<'_>, gradients: &mut Gradients) -> convnet::Result<()> {
    ///         for (name, parameter) in run.model.named_parameters() {
    ///             if let Some(gradient) = gradients.get(&parameter.tensor()) {
    ///                 run.log(&[(&format!("gradients/{name}"), LogValue::Histogram(gradient))])?;
    ///             }
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// When a log cannot be written.
    pub fn log(&mut self, values: &[(&str, LogValue<'_>)]) -> Result<()> {
        self.loggers.log(self.log_step, values)
    }

    /// Returns a metric.
    ///
    /// # Errors
    /// [`Error::Training`] with the names that there are when there is none of this name.
    pub fn metric(&self, name: &str) -> Result<f64> {
        self.metrics.get(name).copied().ok_or_else(|| no_such_metric(name, self.metrics))
    }
}

pub(super) fn no_such_metric(name: &str, metrics: &MetricValues) -> Error {
    let names: Vec<&str> = metrics.keys().map(String::as_str).collect();
    Error::Training(format!("there is no metric {name:?}; there are {}", names.join(", ")))
}

/// Code that runs at certain points of a [`Trainer`](super::Trainer)'s run. Each method is provided
/// and does nothing.
///
/// ```
/// use convnet::train::{Callback, RunState};
///
/// /// Stops after a number of steps.
/// struct Limit(u64);
///
/// impl Callback for Limit {
///     fn after_step(&mut self, run: &mut RunState<'_>) -> convnet::Result<()> {
///         if run.step >= self.0 {
///             run.stop("the limit of steps");
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Callback: Send {
    /// Runs before the optimiser's step, with the gradients that it will take, before they are
    /// clipped.
    ///
    /// # Errors
    /// An error ends the run.
    fn before_step(&mut self, _run: &mut RunState<'_>, _gradients: &mut Gradients) -> Result<()> {
        Ok(())
    }

    /// Runs after the optimiser's step.
    ///
    /// # Errors
    /// An error ends the run.
    fn after_step(&mut self, _run: &mut RunState<'_>) -> Result<()> {
        Ok(())
    }

    /// Runs after an epoch and its validation, with the model in evaluation mode.
    ///
    /// # Errors
    /// An error ends the run.
    fn after_epoch(&mut self, _run: &mut RunState<'_>) -> Result<()> {
        Ok(())
    }

    /// Returns the name of the metric that [`after_epoch`](Callback::after_epoch) needs, if it
    /// needs one. A run without data to validate on refuses `valid/…` when it starts. When an epoch
    /// does not have the metric, the callback is left out, the log and the checkpoint of the epoch
    /// are written, and then the run ends with an error that lists the metrics.
    fn observes(&self) -> Option<&str> {
        None
    }

    /// Returns what a checkpoint has to hold so that a resumed run goes on in the same way.
    fn state(&self) -> StateDict {
        StateDict::new()
    }

    /// Restores what [`state`](Callback::state) returned. It is not called when the checkpoint has
    /// nothing for the callback, which was added since.
    ///
    /// # Errors
    /// [`Error::StateDict`] when it is the state of something else. A callback without a state
    /// refuses any.
    fn load_state(&mut self, _state: &StateDict) -> Result<()> {
        let message = "the checkpoint has the state of another callback here: callbacks with a state come first, in the order of that run";
        Err(Error::StateDict(message.into()))
    }
}

impl Callback for EarlyStopping {
    fn after_epoch(&mut self, run: &mut RunState<'_>) -> Result<()> {
        let value = run.metric(self.metric())?;
        if self.update(value) {
            run.stop(format!("{} has not improved in {} epochs", self.metric(), self.waited()));
        }
        Ok(())
    }

    fn observes(&self) -> Option<&str> {
        Some(self.metric())
    }

    fn state(&self) -> StateDict {
        EarlyStopping::state(self)
    }

    fn load_state(&mut self, state: &StateDict) -> Result<()> {
        EarlyStopping::load_state(self, state)
    }
}
