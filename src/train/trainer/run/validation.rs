//! The validation of a run.

use super::{Means, Run, add_to, values_of, values_of_step};
use crate::autograd::no_grad;
use crate::data::rng::Purpose;
use crate::data::samplers::Share;
use crate::data::{Collate, DataLoader, Rng};
use crate::error::{Context as _, Error, Result};
use crate::nn::{Module, in_evaluation, keeping_modes};
use crate::tensor::Tensor;
use crate::train::batch_norm::with_new_statistics;
use crate::train::trainer::Step;
use crate::train::{DataParallel, MetricValues, with_average};

impl<M, S, F> Run<'_, '_, M, S, F>
where
    M: Module,
    S: Collate,
    F: FnMut(&M, &S::Batch) -> Result<Step>,
{
    /// Takes the running statistics of batch normalisations anew for the average with this number
    /// of updates, which is in the model, where that is asked for and it has none yet.
    pub(super) fn renew_statistics(&mut self, updates: u64) -> Result<()> {
        if !self.trainer.update_batch_norm || self.statistics == Some(updates) {
            return Ok(());
        }
        // Over the epoch that the average was updated in, which may be complete.
        let epoch = if self.batch == 0 { self.epoch.saturating_sub(1) } else { self.epoch };
        let (step_of, model, seed) = (&mut self.step_of, self.trainer.model, self.trainer.seed);
        let passes = || {
            let mut count = 0;
            for batch in self.train.epoch(epoch) {
                let batch = batch?;
                Rng::lend(Purpose::Steps, seed, epoch, count, || step_of(model, &batch))?;
                count += 1;
            }
            Ok(count)
        };
        keeping_modes(model, || {
            self.modes.set(model);
            with_new_statistics(model, passes)
        })?;
        self.statistics = Some(updates);
        Ok(())
    }

    /// Validates with the average in the model.
    pub(super) fn validate_average(&mut self, valid: &DataLoader<S>) -> Result<MetricValues> {
        let model = self.trainer.model;
        let Some(mut average) = self.trainer.average.take() else { return self.validate(valid) };
        let updates = average.updates();
        let validated = with_average(&mut *average, model, || {
            self.renew_statistics(updates)?;
            self.validate(valid)
        });
        self.trainer.average = Some(average);
        validated
    }

    pub(super) fn validate(&mut self, valid: &DataLoader<S>) -> Result<MetricValues> {
        in_evaluation(self.trainer.model, || self.values_of_validation(valid))
    }

    fn values_of_validation(&mut self, valid: &DataLoader<S>) -> Result<MetricValues> {
        let model = self.trainer.model;
        let mut means = Means::new();
        let share = self.parallel.as_ref().map_or(Share::ALL, DataParallel::share_of_batches);
        let mut batches = valid.share_from(0, 0, 1, share);
        self.trainer.metrics.iter_mut().for_each(|(_, metric)| metric.reset());
        let (mut found, mut outputs) = (Vec::new(), Vec::new());
        while let Some(batch) = batches.next() {
            let position = batches.position() - 1;
            let number = share.number(position);
            let batch = batch?;
            let step_of = &mut self.step_of;
            let mut step = Rng::lend(Purpose::Steps, self.trainer.seed, u64::MAX, number as u64, || no_grad(|| step_of(model, &batch)))?;
            if !self.trainer.metrics.is_empty() {
                let Some((of_batch, targets)) = step.outputs.take() else {
                    let message = "metrics of the validation are computed from outputs: add `.outputs(&outputs, &targets)` to the step";
                    return Err(Error::Training(message.into()));
                };
                if self.parallel.is_some() {
                    outputs.push((number, of_batch, targets));
                } else {
                    self.add_outputs(&of_batch, &targets)?;
                }
            }
            found.push((number, batches.samples(), values_of_step(step)?));
        }
        if let Some(parallel) = &self.parallel {
            found = parallel.gathered(found)?;
            if !self.trainer.metrics.is_empty() {
                let outputs = parallel.gathered_outputs(outputs)?;
                outputs.iter().try_for_each(|(_, outputs, targets)| self.add_outputs(outputs, targets))?;
            }
        }
        for (_, samples, values) in found {
            add_to(&mut means, values, samples)?;
        }
        let mut values = values_of(&means, "valid/");
        values.extend(self.trainer.metrics.iter().map(|(name, metric)| (format!("valid/{name}"), metric.value())));
        Ok(values)
    }

    /// Adds a batch to the metrics of the validation.
    fn add_outputs(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<()> {
        let mut metrics = self.trainer.metrics.iter_mut();
        metrics.try_for_each(|(name, metric)| metric.update(outputs, targets).with_context(|| format!("metric {name}")))
    }
}
