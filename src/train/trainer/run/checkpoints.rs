//! The checkpoints of a run.

use serde_json::Value;

use super::Run;
use crate::data::Collate;
use crate::error::{Context as _, Error, Result};
use crate::nn::{Module, ModuleExt, StateDict};
use crate::tensor::Tensor;
use crate::train::trainer::{EpochRecord, Step};
use crate::train::{Checkpoint, Mean, number_of};

/// The names of a run's own notes.
pub(super) const NOTES: [&str; 11] =
    ["version", "step", "epoch", "batch", "batches", "seed", "seconds", "history", "statistics", "stopped", "partial"];

impl<M, S, F> Run<'_, '_, M, S, F>
where
    M: Module,
    S: Collate,
    F: FnMut(&M, &S::Batch) -> Result<Step>,
{
    /// Writes the best checkpoint, then the one of the epoch, if they are due. With `fails`, that
    /// of the epoch always is: the run ends with an error after it.
    pub(super) fn write_checkpoints_of_epoch(&mut self, fails: bool) -> Result<()> {
        // Before the one of the epoch: a run that is killed in between repeats the epoch.
        self.write_best()?;
        let Some(checkpoints) = &self.trainer.checkpoints else { return Ok(()) };
        let last = fails
            || self.partial.is_some()
            || self.stop.is_some()
            || Some(self.epoch) == self.epochs
            || self.trainer.steps.is_some_and(|steps| self.step >= steps);
        let due = match (checkpoints.every_epochs, checkpoints.every_steps) {
            (Some(epochs), _) => epochs > 0 && self.epoch.is_multiple_of(epochs),
            (None, Some(_)) => false,
            (None, None) => true,
        };
        if due || last || self.checkpoint_due { self.write_checkpoint() } else { Ok(()) }
    }

    /// Writes the best checkpoint if the last epoch was the best.
    fn write_best(&mut self) -> Result<()> {
        let Some(checkpoints) = &self.trainer.checkpoints else { return Ok(()) };
        let Some(value) = checkpoints.best_metric.as_ref().and_then(|name| self.last_record()?.metrics.get(name).copied()) else {
            return Ok(());
        };
        if value.is_nan() || self.best.is_some_and(|best| !checkpoints.is_better(value, best)) {
            return Ok(());
        }
        self.best = Some(value);
        if self.writes_files() { checkpoints.save_best(&self.checkpoint()?) } else { Ok(()) }
    }

    /// Writes the checkpoint of the last step, if it is due.
    pub(super) fn write_due_checkpoint(&mut self) -> Result<()> {
        if self.checkpoint_due { self.write_checkpoint() } else { Ok(()) }
    }

    /// Writes a checkpoint of the present position, when the run keeps any.
    pub(super) fn write_checkpoint(&mut self) -> Result<()> {
        self.checkpoint_due = false;
        // What was logged must not be lost when the run goes on from here.
        self.trainer.loggers.iter_mut().try_for_each(|logger| logger.flush())?;
        match &self.trainer.checkpoints {
            Some(checkpoints) if self.writes_files() => checkpoints.save(self.step, &self.checkpoint()?),
            _ => Ok(()),
        }
    }

    fn checkpoint(&self) -> Result<Checkpoint> {
        let mut means = StateDict::new();
        for (name, mean) in &self.means {
            means.insert(name, Tensor::from_vec(vec![mean.sum(), mean.weight()], [2])?);
        }
        let notes = self.trainer.notes.iter();
        let mut checkpoint = notes
            .fold(Checkpoint::new(), |checkpoint, (key, value)| checkpoint.note(key, value.clone()))
            .with("model", self.trainer.model.state_dict())
            .with("optimizer", self.trainer.optimizer.state())
            .with("means", means)
            .note("step", self.step)
            .note("epoch", self.epoch)
            .note("batch", self.batch)
            .note("batches", self.batches)
            .note("seed", self.trainer.seed)
            .note("seconds", self.seconds())
            .note("history", self.history.iter().map(EpochRecord::to_json).collect::<Vec<_>>());
        if let Some((scheduler, _)) = &self.scheduler {
            checkpoint = checkpoint.with("schedule", scheduler.state());
        }
        if let Some(average) = self.trainer.average.as_ref().filter(|average| average.updates() > 0) {
            checkpoint = checkpoint.with("average", average.state()?);
        }
        for (number, callback) in self.trainer.callbacks.iter().enumerate() {
            checkpoint = checkpoint.with(&format!("callback{number}"), callback.state());
        }
        if let Some(best) = self.best {
            checkpoint = checkpoint.with("best", [("value".to_string(), Tensor::scalar(best))]);
        }
        if let Some(updates) = self.statistics {
            checkpoint = checkpoint.note("statistics", updates);
        }
        if let Some(reason) = &self.stop {
            checkpoint = checkpoint.note("stopped", reason.as_str());
        }
        if let Some(partial) = &self.partial {
            checkpoint = checkpoint.note("partial", partial.to_json());
        }
        Ok(checkpoint)
    }

    /// Goes to the position of a checkpoint.
    pub(super) fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        for (name, now) in [("batches", self.batches as u64), ("seed", self.trainer.seed)] {
            let then = checkpoint.count(name)?;
            if then != now {
                let message = format!(
                    "{name} was {then} and is {now}: it is a run of other data or settings; choose another directory, or remove the checkpoints"
                );
                return Err(Error::Training(message));
            }
        }
        let another = "it is of another model; build the model of that run, or choose another directory";
        self.trainer.model.load_state_dict(&checkpoint.section("model")?).context(another)?;
        let optimizer = &mut self.trainer.optimizer;
        optimizer.load_state(&checkpoint.section("optimizer")?.into_iter().collect())?;
        if let Some((scheduler, _)) = &mut self.scheduler {
            scheduler.load_state(&checkpoint.section("schedule")?.into_iter().collect(), &mut **optimizer)?;
        }
        let average = checkpoint.section("average")?;
        if let Some(own) = &mut self.trainer.average
            && !average.is_empty()
        {
            own.load_state(&average)?;
        }
        for (number, callback) in self.trainer.callbacks.iter_mut().enumerate() {
            let state = checkpoint.section(&format!("callback{number}"))?;
            // A callback may have been added since.
            if !state.is_empty() {
                callback.load_state(&state)?;
            }
        }
        self.best = checkpoint.section("best")?.get("value").map(number_of).transpose()?;
        // Of ranks that step alone, rank 0 has the means of the epoch so far: they count once.
        let counts = self.parallel.as_ref().is_none_or(|parallel| !parallel.distributed().is_local() || parallel.is_first());
        for (name, mean) in checkpoint.section("means")? {
            match mean.to_vec::<f64>()?[..] {
                [_, _] if !counts => self.means.insert(name, Mean::default()),
                [sum, weight] => self.means.insert(name, Mean::from_parts(sum, weight)),
                _ => return Err(Error::StateDict(format!("the mean {name} should be two numbers"))),
            };
        }
        self.step = checkpoint.count("step")?;
        self.epoch = checkpoint.count("epoch")?;
        self.batch = checkpoint.count("batch")? as usize;
        self.seconds = checkpoint.get("seconds").and_then(Value::as_f64).unwrap_or(0.0);
        self.statistics = checkpoint.get("statistics").and_then(Value::as_u64);
        self.stop = checkpoint.get("stopped").and_then(Value::as_str).map(str::to_string);
        let history = checkpoint.get("history").and_then(Value::as_array);
        self.history = history.into_iter().flatten().filter_map(EpochRecord::from_json).collect();
        self.partial = checkpoint.get("partial").and_then(EpochRecord::from_json);
        // The run kept no best checkpoint before, or by a metric that there was not.
        if self.best.is_none() && (self.batch == 0 || self.partial.is_some()) { self.write_best() } else { Ok(()) }
    }
}
