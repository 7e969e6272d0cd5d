//! A run of a trainer.

mod checkpoints;
mod validation;

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::json;

use self::checkpoints::NOTES;
use super::interrupt::Interrupt;
use super::progress::Progress;
use super::{Ending, EpochRecord, Every, Step, TrainReport, Trainer};
use crate::autograd::Gradients;
use crate::data::rng::Purpose;
use crate::data::{Collate, DataLoader, Rng};
use crate::error::{Context as _, Error, Result};
use crate::nn::{Modes, Module, in_evaluation};
use crate::optim::{LrSchedule, LrScheduler, clip_grad_norm, clip_grad_value};
use crate::train::callback::no_such_metric;
use crate::train::{Callback, DataParallel, LogValue, Logger, Mean, MetricValues, RunState, number_of, with_average};

/// Means by name of metric.
type Means = BTreeMap<String, Mean>;

pub(super) struct Run<'a, 'l, M: Module, S: Collate, F> {
    trainer: Trainer<'a, M>,
    /// The modes in which the model's parts are trained.
    modes: Modes,
    parallel: Option<DataParallel<'a, M>>,
    train: &'l DataLoader<S>,
    valid: Option<&'l DataLoader<S>>,
    step_of: F,
    scheduler: Option<(LrScheduler<Box<dyn LrSchedule>>, Every)>,
    /// The number of batches in an epoch.
    batches: usize,
    epochs: Option<u64>,
    epoch: u64,
    /// The number of batches of the epoch that have been used.
    batch: usize,
    step: u64,
    /// The means of the epoch so far.
    means: Means,
    history: Vec<EpochRecord>,
    /// The epoch that the run has ended in the middle of.
    partial: Option<EpochRecord>,
    best: Option<f64>,
    /// The number of the average's updates when running statistics were last taken for it.
    statistics: Option<u64>,
    stop: Option<String>,
    /// Whether a checkpoint of the last step is due. It is written once the next batch is there:
    /// the one of an epoch's last step comes after what is logged of the epoch.
    checkpoint_due: bool,
    started: Instant,
    /// The time before a resumption.
    seconds: f64,
    progress: Progress,
    interrupt: Interrupt,
}

impl<'a, 'l, M, S, F> Run<'a, 'l, M, S, F>
where
    M: Module,
    S: Collate,
    F: FnMut(&M, &S::Batch) -> Result<Step>,
{
    pub(super) fn new(
        mut trainer: Trainer<'a, M>,
        train: &'l DataLoader<S>,
        valid: Option<&'l DataLoader<S>>,
        batches: usize,
        step_of: F,
    ) -> Result<Self> {
        let parallel = match trainer.distributed {
            Some(distributed) => {
                if trainer.accumulate > 1 {
                    let message = "a distributed run accumulates over the shards of a batch: give the loader larger batches instead";
                    return Err(Error::argument("accumulate", message));
                }
                if !distributed.group().is_first() {
                    // Rank 0 writes and shows what concerns all.
                    trainer.loggers.clear();
                    trainer.progress = false;
                }
                let settings = json!({
                    "batches": batches,
                    "samples in a batch": train.batch_size(),
                    "epochs": trainer.epochs,
                    "steps": trainer.steps,
                    "seed": trainer.seed,
                    "validation": valid.map(DataLoader::len),
                    "metrics": trainer.metrics.iter().map(|(name, _)| name).collect::<Vec<_>>(),
                });
                Some(DataParallel::with_settings(trainer.model, distributed, &settings)?)
            }
            None => None,
        };
        check_names(&trainer, valid)?;
        let model: &dyn Module = trainer.model;
        let modes = if model.is_training() { Modes::of(model) } else { Modes::for_training(model) };
        let epochs = if trainer.steps.is_none() { Some(trainer.epochs.unwrap_or(1)) } else { trainer.epochs };
        let steps_of_epoch = batches.div_ceil(trainer.accumulate) as u64;
        let steps = [epochs.map(|epochs| epochs.saturating_mul(steps_of_epoch)), trainer.steps].into_iter().flatten().min().unwrap_or(0);
        let scheduler = match trainer.schedule.take() {
            Some((mut schedule, every)) => {
                schedule.set_steps(if every == Every::Step { steps } else { steps.div_ceil(steps_of_epoch) });
                Some((LrScheduler::new(schedule, &mut *trainer.optimizer)?, every))
            }
            None => None,
        };
        Ok(Run {
            progress: Progress::new(trainer.progress, epochs, batches_of(steps, batches, trainer.accumulate)),
            interrupt: Interrupt::new(trainer.ctrl_c, trainer.stop_flag.take()),
            modes,
            trainer,
            parallel,
            train,
            valid,
            step_of,
            scheduler,
            batches,
            epochs,
            epoch: 0,
            batch: 0,
            step: 0,
            means: Means::new(),
            history: Vec::new(),
            partial: None,
            best: None,
            statistics: None,
            stop: None,
            checkpoint_due: false,
            started: Instant::now(),
            seconds: 0.0,
        })
    }

    pub(super) fn run(mut self) -> Result<TrainReport> {
        let checkpoint = match &self.trainer.checkpoints {
            Some(checkpoints) if self.trainer.resume => match &self.parallel {
                Some(parallel) => {
                    let latest = if parallel.is_first() { checkpoints.latest()? } else { None };
                    parallel.of_first(latest)?
                }
                None => checkpoints.latest()?,
            },
            Some(checkpoints) if self.writes_files() => {
                checkpoints.start_anew()?;
                None
            }
            _ => None,
        };
        if let Some(checkpoint) = checkpoint {
            self.restore(&checkpoint).context("the run cannot go on from its checkpoint")?;
        }
        let step = self.step;
        Loggers(&mut self.trainer.loggers).rewind(step)?;
        let ending = loop {
            if let Some(reason) = &self.stop {
                break Ending::Stopped(reason.clone());
            }
            let enough = |limit: Option<u64>, done| limit.is_some_and(|limit| done >= limit);
            if enough(self.epochs, self.epoch) || enough(self.trainer.steps, self.step) {
                break Ending::Finished;
            }
            if self.epoch()? {
                break Ending::Interrupted;
            }
        };
        Loggers(&mut self.trainer.loggers).flush()?;
        // A run that is finished already has no epoch at whose end this would be found.
        if let (Ending::Finished, Some(record)) = (&ending, self.last_record())
            && let Some(error) = self.unknown_metric(&record.metrics)
        {
            return Err(error);
        }
        if ending != Ending::Interrupted {
            self.leave_average()?;
        }
        self.trainer.model.eval();
        let (seconds, failures) = (self.seconds(), self.train.num_failures(self.valid));
        self.progress.end(failures);
        Ok(TrainReport { seconds, epochs: self.history, partial: self.partial, steps: self.step, failures, ending })
    }

    /// Puts the average into the model, if there is one. After an error the model has its own
    /// weights.
    fn leave_average(&mut self) -> Result<()> {
        let Some(mut average) = self.trainer.average.take().filter(|average| average.updates() > 0) else { return Ok(()) };
        let model = self.trainer.model;
        // The new statistics become a part of the average, which then takes the model's place for
        // good.
        let updates = average.updates();
        with_average(&mut *average, model, || self.renew_statistics(updates))?;
        average.swap(model)
    }

    /// Returns the error for the first metric that the run observes and that is not among these.
    fn unknown_metric(&self, metrics: &MetricValues) -> Option<Error> {
        let name = self.trainer.observed().find(|&name| !metrics.contains_key(name))?;
        Some(no_such_metric(name, metrics))
    }

    /// Returns the record of the last epoch, or of the part of one with which the run ended.
    fn last_record(&self) -> Option<&EpochRecord> {
        self.partial.as_ref().or(self.history.last())
    }

    fn seconds(&self) -> f64 {
        self.seconds + self.started.elapsed().as_secs_f64()
    }

    /// Trains for the rest of an epoch together with other ranks and ends it; returns whether it
    /// was interrupted.
    fn parallel_epoch(&mut self, mut parallel: DataParallel<'a, M>) -> Result<bool> {
        self.progress.begin(self.epoch, self.batch, self.batches);
        let mut steps = parallel.epoch_from(self.train, self.epoch, self.batch, self.trainer.seed);
        let is_local = steps.is_local();
        let (mut interrupted, mut stopped) = (false, false);
        loop {
            let stop = self.interrupt.is_requested();
            let place = format!("epoch {}, batch {}", self.epoch, self.batch);
            let Some(joined) = steps.next_step(stop, &mut self.step_of).with_context(|| place.clone())? else { break };
            let values = add_to(&mut self.means, joined.values, joined.samples).with_context(|| place)?;
            self.batch = steps.position();
            let means = &self.means;
            self.progress.batch(joined.samples, || values_of(means, ""));
            // The other ranks receive a callback's request to stop with the next average: their
            // values differ.
            let stop = is_local && self.stop.is_some();
            self.update((joined.gradients, 1), &values, |step| {
                [interrupted, stopped] = steps.average(step, [joined.stop, stop])?;
                Ok(())
            })?;
            stopped |= !is_local && self.stop.is_some();
            if interrupted || stopped || self.trainer.steps.is_some_and(|steps| self.step >= steps) {
                break;
            }
            if !steps.is_finished() {
                self.write_due_checkpoint()?;
            }
        }
        let whole = steps.is_finished();
        drop(steps);
        parallel.average(self.step, [], true)?;
        self.means = parallel.joined_means(std::mem::take(&mut self.means))?;
        self.stop = parallel.joined_reason(self.stop.take())?;
        self.parallel = Some(parallel);
        if interrupted {
            self.write_checkpoint()?;
            self.progress.end_of_batches();
            return Ok(true);
        }
        self.end_epoch(whole)?;
        Ok(false)
    }

    /// Trains for the rest of an epoch and ends it; returns whether it was interrupted.
    fn epoch(&mut self) -> Result<bool> {
        self.partial = None;
        self.modes.set(self.trainer.model.as_module());
        if let Some(parallel) = self.parallel.take() {
            return self.parallel_epoch(parallel);
        }
        let mut batches = self.train.epoch_from(self.epoch, self.batch);
        self.progress.begin(self.epoch, self.batch, self.batches);
        let mut pending: Option<(Gradients, usize)> = None;
        while let Some(batch) = batches.next() {
            self.write_due_checkpoint()?;
            let number = batches.position() - 1;
            let place = || format!("epoch {}, batch {number}", self.epoch);
            let batch = batch.with_context(place)?;
            let (step_of, model) = (&mut self.step_of, self.trainer.model);
            let (step, gradients) = Rng::lend(Purpose::Steps, self.trainer.seed, self.epoch, number as u64, || {
                let step = step_of(model, &batch)?;
                let gradients = step.loss.backward()?;
                Ok::<_, Error>((step, gradients))
            })
            .with_context(place)?;
            drop(batch);
            let samples = batches.samples();
            let values = add_to(&mut self.means, values_of_step(step)?, samples).with_context(place)?;
            self.batch = number + 1;
            let means = &self.means;
            self.progress.batch(samples, || values_of(means, ""));
            let sum = match pending.take() {
                Some((mut sum, count)) => {
                    sum.add(&gradients)?;
                    (sum, count + 1)
                }
                None => (gradients, 1),
            };
            if sum.1 < self.trainer.accumulate && self.batch < self.batches {
                pending = Some(sum);
                continue;
            }
            self.update(sum, &values, |_| Ok(()))?;
            if self.interrupt.is_requested() {
                self.write_checkpoint()?;
                self.progress.end_of_batches();
                return Ok(true);
            }
            if self.stop.is_some() || self.trainer.steps.is_some_and(|steps| self.step >= steps) {
                break;
            }
        }
        // The last batches may have been left out by the loader.
        if let Some(sum) = pending {
            let values = values_of(&self.means, "step/");
            self.update(sum, &values, |_| Ok(()))?;
        }
        self.end_epoch(batches.is_finished())?;
        Ok(false)
    }

    /// Makes a step of the optimiser with the sum of gradients of some batches. `join` gets the
    /// number of the step and brings parameters of ranks together.
    fn update(
        &mut self,
        (mut gradients, count): (Gradients, usize),
        values: &MetricValues,
        join: impl FnOnce(u64) -> Result<()>,
    ) -> Result<()> {
        if count > 1 {
            gradients.scale(1.0 / count as f64);
        }
        let trainer = &mut self.trainer;
        let model: &dyn Module = trainer.model;
        let mut state = RunState {
            model,
            optimizer: &mut *trainer.optimizer,
            step: self.step,
            epoch: self.epoch,
            metrics: values,
            stop: &mut self.stop,
            loggers: &mut Loggers(&mut trainer.loggers),
            log_step: self.step + 1,
        };
        trainer.callbacks.iter_mut().try_for_each(|callback| callback.before_step(&mut state, &mut gradients))?;
        let mut norm = None;
        if trainer.clip_norm.is_some() || trainer.clip_value.is_some() {
            let parameters = state.optimizer.parameters();
            if let Some(limit) = trainer.clip_value {
                clip_grad_value(&parameters, &mut gradients, limit)?;
            }
            if let Some(limit) = trainer.clip_norm {
                norm = Some(clip_grad_norm(&parameters, &mut gradients, limit)?);
            }
        }
        state.optimizer.step(&gradients)?;
        drop(gradients);
        self.step += 1;
        join(self.step)?;
        if let Some(average) = &mut trainer.average
            && trainer.average_every == Every::Step
            && self.epoch >= trainer.average_from
        {
            average.update(model)?;
        }
        let rate = state.optimizer.learning_rate(0).ok();
        if let Some((scheduler, Every::Step)) = &mut self.scheduler {
            scheduler.step(state.optimizer)?;
        }
        (state.step, state.log_step) = (self.step, self.step);
        trainer.callbacks.iter_mut().try_for_each(|callback| callback.after_step(&mut state))?;
        if trainer.log_every > 0 && self.step.is_multiple_of(trainer.log_every) && !trainer.loggers.is_empty() {
            let mut values = values.clone();
            values.extend(rate.map(|rate| ("step/learning_rate".to_string(), rate)));
            values.extend(norm.map(|norm| ("step/gradient_norm".to_string(), norm)));
            self.log(&values)?;
        }
        let due = self.trainer.checkpoints.as_ref().and_then(|checkpoints| checkpoints.every_steps);
        self.checkpoint_due = due.is_some_and(|steps| steps > 0 && self.step.is_multiple_of(steps));
        Ok(())
    }

    /// Validates and, after a whole epoch, runs what runs after an epoch, and goes on to the next
    /// one. In the middle of one, where the run ends, the position stays.
    fn end_epoch(&mut self, whole: bool) -> Result<()> {
        let rate = self.progress.rate();
        self.progress.end_of_batches();
        let mut metrics = values_of(&self.means, "train/");
        if let Some(average) = &mut self.trainer.average
            && whole
            && self.trainer.average_every == Every::Epoch
            && self.epoch >= self.trainer.average_from
        {
            average.update(self.trainer.model)?;
        }
        if let Some(valid) = self.valid {
            let validated = if self.has_average() { self.validate_average(valid) } else { self.validate(valid) };
            let place = || format!("validation {} epoch {}", if whole { "after" } else { "in" }, self.epoch);
            metrics.extend(validated.with_context(place)?);
        }
        metrics.extend(self.trainer.optimizer.learning_rate(0).ok().map(|rate| ("learning_rate".to_string(), rate)));
        self.log(&metrics)?;
        let unknown = self.unknown_metric(&metrics);
        if whole {
            self.after_epoch(&metrics)?;
        }
        let record = EpochRecord { epoch: self.epoch, step: self.step, metrics };
        self.progress.end_of_epoch(&record, if whole { 1.0 } else { self.batch as f64 / self.batches as f64 }, rate);
        if whole {
            self.epoch += 1;
            self.batch = 0;
            self.means.clear();
            self.history.push(record);
        } else {
            self.partial = Some(record);
        }
        self.write_checkpoints_of_epoch(unknown.is_some())?;
        unknown.map_or(Ok(()), Err)
    }

    /// Lets the schedule and the callbacks take note of the end of an epoch, apart from those whose
    /// metric does not exist.
    fn after_epoch(&mut self, metrics: &MetricValues) -> Result<()> {
        let observed = self.trainer.schedule_metric.as_ref().map(|name| metrics.get(name).copied());
        if let Some((scheduler, Every::Epoch)) = &mut self.scheduler {
            match observed {
                Some(Some(value)) => scheduler.step_with(&mut *self.trainer.optimizer, value)?,
                Some(None) => {}
                None => scheduler.step(&mut *self.trainer.optimizer)?,
            }
        }
        let trainer = &mut self.trainer;
        let mut state = RunState {
            model: trainer.model,
            optimizer: &mut *trainer.optimizer,
            step: self.step,
            epoch: self.epoch,
            metrics,
            stop: &mut self.stop,
            loggers: &mut Loggers(&mut trainer.loggers),
            log_step: self.step,
        };
        let exists = |callback: &&mut Box<dyn Callback + '_>| callback.observes().is_none_or(|name| metrics.contains_key(name));
        let mut callbacks = trainer.callbacks.iter_mut().filter(exists);
        in_evaluation(trainer.model, || callbacks.try_for_each(|callback| callback.after_epoch(&mut state)))
    }

    /// Returns whether this process writes the files of the run.
    fn writes_files(&self) -> bool {
        self.trainer.distributed.is_none_or(|distributed| distributed.group().is_first())
    }

    /// Returns whether there is an average that has seen the model.
    fn has_average(&self) -> bool {
        self.trainer.average.as_ref().is_some_and(|average| average.updates() > 0)
    }

    fn log(&mut self, metrics: &MetricValues) -> Result<()> {
        let values: Vec<(&str, LogValue<'_>)> = metrics.iter().map(|(name, &value)| (name.as_str(), LogValue::Scalar(value))).collect();
        Loggers(&mut self.trainer.loggers).log(self.step, &values)
    }
}

/// Refuses notes with the names of a run's own, and metrics of a validation without data.
fn check_names<M: Module, S: Collate>(trainer: &Trainer<'_, M>, valid: Option<&DataLoader<S>>) -> Result<()> {
    if let Some(name) = trainer.notes.keys().find(|name| NOTES.contains(&name.as_str())) {
        return Err(Error::argument("note", format!("the run itself notes `{name}`: give the note another name")));
    }
    let validates = valid.map(DataLoader::num_batches).transpose()?.is_some_and(|batches| batches > 0);
    match trainer.observed().find(|name| !validates && name.starts_with("valid/")) {
        Some(name) => {
            let message = format!("there will be no metric {name:?}: the run has no data to validate on; `train/loss` is one of training");
            Err(Error::Training(message))
        }
        None => Ok(()),
    }
}

/// Returns the number of batches that this many steps take, in epochs of `batches`.
fn batches_of(steps: u64, batches: usize, accumulate: usize) -> u64 {
    let (steps_of_epoch, batches) = (batches.div_ceil(accumulate).max(1) as u64, batches as u64);
    (steps / steps_of_epoch).saturating_mul(batches).saturating_add((steps % steps_of_epoch).saturating_mul(accumulate as u64).min(batches))
}

/// The logs of a run as one.
struct Loggers<'r, 'a>(&'r mut [Box<dyn Logger + 'a>]);

impl Logger for Loggers<'_, '_> {
    fn log(&mut self, step: u64, values: &[(&str, LogValue<'_>)]) -> Result<()> {
        self.0.iter_mut().try_for_each(|logger| logger.log(step, values))
    }

    fn flush(&mut self) -> Result<()> {
        self.0.iter_mut().try_for_each(|logger| logger.flush())
    }

    fn rewind(&mut self, step: u64) -> Result<()> {
        self.0.iter_mut().try_for_each(|logger| logger.rewind(step))
    }
}

/// Returns the loss and the metrics of a batch by name, the loss first.
fn values_of_step(step: Step) -> Result<Vec<(String, f64)>> {
    Ok(std::iter::once(("loss".to_string(), number_of(&step.loss)?)).chain(step.metrics).collect())
}

/// Adds the values of a batch to means; returns them with names of a single step.
fn add_to(means: &mut Means, values: Vec<(String, f64)>, samples: usize) -> Result<MetricValues> {
    if let Some((_, loss)) = values.first().filter(|(_, loss)| !loss.is_finite()) {
        let hint = "a lower learning rate, or a look at the data, may help; `inspect::first_non_finite` finds the layer";
        return Err(Error::Training(format!("the loss is {loss}; {hint}")));
    }
    let mut of_step = MetricValues::new();
    for (name, value) in values {
        means.entry(name.clone()).or_default().update(value, samples);
        of_step.insert(format!("step/{name}"), value);
    }
    Ok(of_step)
}

fn values_of(means: &Means, prefix: &str) -> MetricValues {
    means.iter().map(|(name, mean)| (format!("{prefix}{name}"), mean.value())).collect()
}
