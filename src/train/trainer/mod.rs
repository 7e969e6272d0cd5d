//! The trainer: a training loop with what surrounds the step.

mod interrupt;
mod progress;
mod report;
mod run;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Map, Value};

pub use report::{Ending, EpochRecord, TrainReport};

use self::run::Run;
use super::{Callback, Checkpoints, Distributed, Logger, Metric, WeightAverage};
use crate::data::{Collate, DataLoader};
use crate::error::{Context as _, Error, Result};
use crate::nn::Module;
use crate::optim::{LrSchedule, Optimizer};
use crate::tensor::Tensor;

/// A unit of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// Each step of the optimiser.
    Step,
    /// Each pass over the training data.
    Epoch,
}

/// What a batch gave: its loss, and metrics.
#[derive(Clone, Debug)]
pub struct Step {
    loss: Tensor,
    metrics: Vec<(String, f64)>,
    outputs: Option<(Tensor, Tensor)>,
}

impl Step {
    /// Makes a step of a loss of one element, the mean over the batch.
    pub fn new(loss: Tensor) -> Step {
        Step { loss, metrics: Vec::new(), outputs: None }
    }

    /// Adds a metric, the mean over the batch. It is averaged over the epoch and logged.
    ///
    /// That is right for accuracies and other means over samples. An F1 score, an IoU, an RMSE or
    /// an area under a curve is no mean of those of batches: [`Trainer::metric`] computes it from
    /// all.
    #[must_use]
    pub fn metric(mut self, name: impl Into<String>, value: f64) -> Step {
        self.metrics.push((name.into(), value));
        self
    }

    /// Adds what the metrics of [`Trainer::metric`] are computed from: outputs and targets in the
    /// shapes that they take.
    #[must_use]
    pub fn outputs(mut self, outputs: &Tensor, targets: &Tensor) -> Step {
        self.outputs = Some((outputs.clone(), targets.clone()));
        self
    }

    /// Returns the loss.
    pub fn loss(&self) -> &Tensor {
        &self.loss
    }

    /// Returns the metrics by name.
    pub fn metrics(&self) -> &[(String, f64)] {
        &self.metrics
    }
}

/// Trains a model: epochs, validation, schedule, gradient accumulation and clipping, averages of
/// the weights, checkpoints and exact resumption, logs, progress, callbacks.
///
/// What is computed from a batch is a closure from the model and the batch to a [`Step`]. It serves
/// training, where its loss is differentiated, and validation, where nothing is recorded and the
/// model is in evaluation mode.
///
/// ```
/// use convnet::data::{Batch, Digits};
/// use convnet::optim::CosineAnnealingLr;
/// use convnet::prelude::*;
/// use convnet::train::{Checkpoints, EarlyStopping, Every, Step, Trainer, accuracy};
///
/// # let dir = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(&dir).unwrap();
/// let model = Sequential::new().push(Flatten).push(Linear::new(64, 10));
/// let train = DataLoader::new(Digits::train(), 64).shuffle(0);
/// let valid = DataLoader::new(Digits::test(), 64);
/// let report = Trainer::new(&model, Sgd::new(model.parameters(), 0.5).momentum(0.9))
///     .schedule(CosineAnnealingLr::new(0.0), Every::Step)
///     .epochs(2)
///     .checkpoints(Checkpoints::in_dir("runs/digits").every_steps(10).keep_best("valid/accuracy"))
///     .callback(EarlyStopping::on("valid/loss").patience(5))
///     .resume(true)
///     .fit(&train, &valid, |model, Batch { images, labels }| {
///         let logits = model.forward(images)?;
///         Ok(Step::new(logits.cross_entropy(labels)?).metric("accuracy", accuracy(&logits, labels)?))
///     })?;
/// assert!(report.epochs.len() == 2 && report.last().expect("two epochs")["valid/accuracy"] > 0.8);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Reproducible and resumable
/// Dropout, and all else that draws in the closure, draws from a generator of
/// ([`seed`](Trainer::seed), epoch, batch). So the bits of a run depend on its seeds alone, not on
/// threads, nor on whether it was interrupted: with [`checkpoints`](Trainer::checkpoints) and
/// [`resume`](Trainer::resume), a run that was killed at any instant goes on from its last
/// checkpoint, in the middle of an epoch too, and ends with the same bits.
///
/// # Frozen parts
/// Parts of the model that are in evaluation mode when the run starts stay in it: batch
/// normalisations there keep their running statistics (Lightning's rule). A model that is in
/// evaluation mode as a whole, as after another run, is put into training mode, apart from modules
/// whose parameters are all frozen. Each epoch starts with these modes; validation and
/// [`after_epoch`](Callback::after_epoch) run in evaluation mode.
///
/// # Names of metrics
/// The means over an epoch are `train/loss`, `train/NAME`, `valid/loss`, `valid/NAME`. Logs also
/// get `learning_rate`, and for single steps `step/loss` and `step/NAME`.
pub struct Trainer<'a, M: Module> {
    model: &'a M,
    optimizer: Box<dyn Optimizer + 'a>,
    schedule: Option<(Box<dyn LrSchedule>, Every)>,
    schedule_metric: Option<String>,
    epochs: Option<u64>,
    steps: Option<u64>,
    accumulate: usize,
    clip_norm: Option<f64>,
    clip_value: Option<f64>,
    average: Option<Box<dyn WeightAverage + 'a>>,
    average_every: Every,
    average_from: u64,
    update_batch_norm: bool,
    checkpoints: Option<Checkpoints>,
    loggers: Vec<Box<dyn Logger + 'a>>,
    log_every: u64,
    callbacks: Vec<Box<dyn Callback + 'a>>,
    metrics: Vec<(String, Box<dyn Metric + 'a>)>,
    notes: Map<String, Value>,
    resume: bool,
    seed: u64,
    progress: bool,
    ctrl_c: bool,
    stop_flag: Option<Arc<AtomicBool>>,
    distributed: Option<Distributed<'a>>,
}

impl<'a, M: Module> Trainer<'a, M> {
    /// Makes a trainer of a model, for one epoch.
    pub fn new(model: &'a M, optimizer: impl Optimizer + 'a) -> Trainer<'a, M> {
        Trainer {
            model,
            optimizer: Box::new(optimizer),
            schedule: None,
            schedule_metric: None,
            epochs: None,
            steps: None,
            accumulate: 1,
            clip_norm: None,
            clip_value: None,
            average: None,
            average_every: Every::Step,
            average_from: 0,
            update_batch_norm: false,
            checkpoints: None,
            loggers: Vec::new(),
            log_every: 50,
            callbacks: Vec::new(),
            metrics: Vec::new(),
            notes: Map::new(),
            resume: false,
            seed: 0,
            progress: true,
            ctrl_c: false,
            stop_flag: None,
            distributed: None,
        }
    }

    /// Sets the schedule of the learning rate, and whether it advances with each step or epoch. One
    /// that needs the length of the run gets it.
    #[must_use]
    pub fn schedule(mut self, schedule: impl LrSchedule + 'static, every: Every) -> Trainer<'a, M> {
        self.schedule = Some((Box::new(schedule), every));
        self
    }

    /// Sets the metric that the schedule observes, for
    /// [`ReduceLrOnPlateau`](crate::optim::ReduceLrOnPlateau) by epochs, whose `mode` says whether
    /// higher values are better.
    #[must_use]
    pub fn schedule_metric(mut self, metric: impl Into<String>) -> Trainer<'a, M> {
        self.schedule_metric = Some(metric.into());
        self
    }

    /// Sets the number of epochs.
    #[must_use]
    pub fn epochs(mut self, epochs: u64) -> Trainer<'a, M> {
        self.epochs = Some(epochs);
        self
    }

    /// Ends the run after that many steps of the optimiser, in the middle of an epoch if need be:
    /// the model is validated there, but what runs after an epoch (callbacks, schedule, average)
    /// does not, and a run that is resumed with more steps goes on with the same epoch. See
    /// [`TrainReport::partial`].
    #[must_use]
    pub fn steps(mut self, steps: u64) -> Trainer<'a, M> {
        self.steps = Some(steps);
        self
    }

    /// Averages the gradients of that many batches for each step. The last step of an epoch has
    /// fewer when the number does not divide that of the batches.
    #[must_use]
    pub fn accumulate(mut self, batches: usize) -> Trainer<'a, M> {
        self.accumulate = batches.max(1);
        self
    }

    /// Limits the norm of all gradients together: see
    /// [`clip_grad_norm`](crate::optim::clip_grad_norm).
    #[must_use]
    pub fn clip_norm(mut self, max_norm: f64) -> Trainer<'a, M> {
        self.clip_norm = Some(max_norm);
        self
    }

    /// Limits each element of the gradients: see
    /// [`clip_grad_value`](crate::optim::clip_grad_value).
    #[must_use]
    pub fn clip_value(mut self, limit: f64) -> Trainer<'a, M> {
        self.clip_value = Some(limit);
        self
    }

    /// Averages the weights after each step. Validation uses the average, and the model holds it
    /// when the run has ended, unless it was interrupted.
    #[must_use]
    pub fn average(mut self, average: impl WeightAverage + 'a) -> Trainer<'a, M> {
        self.average = Some(Box::new(average));
        self
    }

    /// Sets whether the average is updated after each step or each epoch, and from which epoch on,
    /// counted from 0.
    #[must_use]
    pub fn average_every(mut self, every: Every, from_epoch: u64) -> Trainer<'a, M> {
        (self.average_every, self.average_from) = (every, from_epoch);
        self
    }

    /// Sets whether the running statistics of batch normalisations are taken anew, over the
    /// training data of the epoch, for the averaged weights: before each validation, and at the end
    /// unless those of the last validation are of the same average.
    #[must_use]
    pub fn update_batch_norm(mut self, update: bool) -> Trainer<'a, M> {
        self.update_batch_norm = update;
        self
    }

    /// Sets where checkpoints are written, and when. A run that does not
    /// [`resume`](Trainer::resume) wants a directory without checkpoints, unless
    /// [`Checkpoints::overwrite`] is set.
    #[must_use]
    pub fn checkpoints(mut self, checkpoints: Checkpoints) -> Trainer<'a, M> {
        self.checkpoints = Some(checkpoints);
        self
    }

    /// Adds a note to the checkpoints, such as how pictures are prepared for the model, or the
    /// names of its classes; [`Checkpoint::get`](crate::train::Checkpoint::get) returns it. Notes
    /// change nothing in the run. The names of the run's own notes, such as `step`, are refused by
    /// [`fit`](Trainer::fit).
    #[must_use]
    pub fn note(mut self, key: impl Into<String>, value: impl Into<Value>) -> Trainer<'a, M> {
        self.notes.insert(key.into(), value.into());
        self
    }

    /// Appends a log. A run that starts anew discards what the log has from an earlier run; one
    /// that is resumed, what was logged after its checkpoint.
    #[must_use]
    pub fn log(mut self, logger: impl Logger + 'a) -> Trainer<'a, M> {
        self.loggers.push(Box::new(logger));
        self
    }

    /// Sets after how many steps the loss and the metrics of a single step are logged; 50 by
    /// default, never for 0.
    #[must_use]
    pub fn log_every(mut self, steps: u64) -> Trainer<'a, M> {
        self.log_every = steps;
        self
    }

    /// Adds a metric of the whole validation, `valid/NAME`. It is computed from the
    /// [`outputs`](Step::outputs) of all batches, on several ranks too.
    ///
    /// ```
    /// use convnet::data::Digits;
    /// use convnet::prelude::*;
    /// use convnet::train::metrics::{Averaging, ClassScore};
    /// use convnet::train::{Step, Trainer};
    ///
    /// let model = Sequential::new().push(Flatten).push(Linear::new(64, 10));
    /// let train = DataLoader::new(Digits::train(), 64).shuffle(0);
    /// let report = Trainer::new(&model, Sgd::new(model.parameters(), 0.5))
    ///     .metric("f1", ClassScore::f1(10).averaging(Averaging::Macro))
    ///     .progress(false)
    ///     .fit(&train, &DataLoader::new(Digits::test(), 64), |model, Batch { images, labels }| {
    ///         let logits = model.forward(images)?;
    ///         Ok(Step::new(logits.cross_entropy(labels)?).outputs(&logits, labels))
    ///     })?;
    /// assert!(report.last().expect("an epoch")["valid/f1"] > 0.5);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    #[must_use]
    pub fn metric(mut self, name: impl Into<String>, metric: impl Metric + 'a) -> Trainer<'a, M> {
        self.metrics.push((name.into(), Box::new(metric)));
        self
    }

    /// Appends a callback. A run that is resumed may have more callbacks than before, after those
    /// that have a state.
    #[must_use]
    pub fn callback(mut self, callback: impl Callback + 'a) -> Trainer<'a, M> {
        self.callbacks.push(Box::new(callback));
        self
    }

    /// Sets whether the run goes on from the latest checkpoint, when there is one.
    #[must_use]
    pub fn resume(mut self, resume: bool) -> Trainer<'a, M> {
        self.resume = resume;
        self
    }

    /// Sets the seed of what draws random numbers in the closure, such as dropout; 0 by default.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Trainer<'a, M> {
        self.seed = seed;
        self
    }

    /// Sets whether progress is shown on standard error: a bar on a terminal (with the feature
    /// `progress`), a line for each epoch elsewhere; on by default.
    #[must_use]
    pub fn progress(mut self, progress: bool) -> Trainer<'a, M> {
        self.progress = progress;
        self
    }

    /// Lets Ctrl-C end the run after the current step, with a checkpoint; a second Ctrl-C ends the
    /// process at once.
    #[cfg(feature = "progress")]
    #[must_use]
    pub fn stop_on_ctrl_c(mut self) -> Trainer<'a, M> {
        self.ctrl_c = true;
        self
    }

    /// Sets a flag that ends the run after the current step, with a checkpoint, once it is true.
    #[must_use]
    pub fn stop_flag(mut self, flag: Arc<AtomicBool>) -> Trainer<'a, M> {
        self.stop_flag = Some(flag);
        self
    }

    /// Trains together with the other processes of a group: each computes a part of every batch.
    /// All run the same program with the same settings. Rank 0 shows progress and writes
    /// checkpoints and logs; the others need no common file system.
    ///
    /// Callbacks run in every process, and see the same numbers. All processes have the same
    /// parameters after each step, and a run can be resumed with another number of processes: the
    /// bits are the same.
    ///
    /// With [`average_every`](Distributed::average_every), `step/…` are the values of each
    /// process's own batch, while those of an epoch are the same in all. A callback that stops the
    /// run after a step in one process stops it in all, after the next average or at the end of the
    /// epoch.
    #[must_use]
    pub fn distributed(mut self, distributed: Distributed<'a>) -> Trainer<'a, M> {
        self.distributed = Some(distributed);
        self
    }

    /// Returns the names of the metrics that the run observes.
    fn observed(&self) -> impl Iterator<Item = &str> {
        let best = self.checkpoints.as_ref().and_then(|checkpoints| checkpoints.best_metric.as_deref());
        let of_callbacks = self.callbacks.iter().filter_map(|callback| callback.observes());
        self.schedule_metric.as_deref().into_iter().chain(best).chain(of_callbacks)
    }

    /// Trains on the batches of a loader, and validates on those of another after each epoch, when
    /// there is one: `&valid` or `None`. The model is in evaluation mode afterwards.
    ///
    /// # Errors
    /// The errors of the loaders, the closure and the callbacks, with the epoch and batch;
    /// [`Error::Training`] for a loss that is not a finite number, and for metrics that do not
    /// exist, once the log and the checkpoint of the epoch are written; at the start for metrics of
    /// a validation that there is no data for; [`Error::StateDict`] and [`Error::Format`] when the
    /// run cannot go on from the checkpoint that is there; [`Error::Training`] when there are
    /// checkpoints of another run and [`resume`](Trainer::resume) is not set; [`Error::Io`] when a
    /// checkpoint or a log cannot be written; [`Error::Training`] that names the rank when another
    /// process fails, hangs or has other settings.
    pub fn fit<'v, S: Collate>(
        self,
        train: &DataLoader<S>,
        valid: impl Into<Option<&'v DataLoader<S>>>,
        step: impl FnMut(&M, &S::Batch) -> Result<Step>,
    ) -> Result<TrainReport> {
        let group = self.distributed.map(|distributed| distributed.group());
        let report = train.num_batches().and_then(|batches| match batches {
            0 => Err(Error::Training("there is nothing to train on: the loader has no batches".into())),
            _ => Run::new(self, train, valid.into(), batches, step)?.run(),
        });
        match (group, report) {
            (Some(group), Err(error)) => {
                group.fail(error.to_string());
                Err(error).with_context(|| format!("rank {}", group.rank()))
            }
            (_, report) => report,
        }
    }
}
