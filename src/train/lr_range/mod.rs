//! The learning-rate range test.

use super::number_of;
use crate::error::{Error, Result};
use crate::nn::{Buffer, Module, Parameter};
use crate::optim::{Optimizer, OptimizerState};
use crate::tensor::Tensor;
use crate::tensor::rng::{generator, with_generator_at};

/// Finds a range of learning rates (Smith, 2017): trains for some steps with rates that grow
/// geometrically, and records the loss.
///
/// The loss falls while the rate is useful, and rises when it is too high. Afterwards the model,
/// the optimiser and this thread's random numbers are as they were. The model's mode is not
/// changed: call `model.train()` before.
///
/// Each parameter group keeps its share of the largest group's rate; the tested rate is that of the
/// largest.
///
/// ```
/// use convnet::prelude::*;
/// use convnet::train::LrRangeTest;
///
/// convnet::manual_seed(0);
/// let model = Linear::new(4, 3);
/// let mut optimizer = Sgd::new(model.parameters(), 0.1);
/// let (x, labels) = (Tensor::randn([64, 4]), Tensor::from_vec((0..64).map(|i| i % 3).collect::<Vec<i64>>(), [64])?);
/// let batches = (0..50).map(|_| Ok((x.clone(), labels.clone())));
/// let test = LrRangeTest::new(1e-4, 100.0, 50);
/// let range = test.run(&model, &mut optimizer, batches, |model, (x, labels)| model.forward(&x)?.cross_entropy(&labels))?;
/// let rate = range.suggestion().expect("the loss falls somewhere");
/// assert!((1e-4..100.0).contains(&rate));
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LrRangeTest {
    start: f64,
    end: f64,
    steps: usize,
    smoothing: f64,
    divergence: f64,
}

/// Runs a [range test](LrRangeTest) with its default settings: 100 steps from 1e-7 to 10.
///
/// # Errors
/// Those of [`LrRangeTest::run`].
pub fn lr_find<M: Module + ?Sized, B>(
    model: &M,
    optimizer: &mut dyn Optimizer,
    batches: impl IntoIterator<Item = Result<B>>,
    loss: impl FnMut(&M, B) -> Result<Tensor>,
) -> Result<LrRange> {
    LrRangeTest::default().run(model, optimizer, batches, loss)
}

impl Default for LrRangeTest {
    fn default() -> LrRangeTest {
        LrRangeTest::new(1e-7, 10.0, 100)
    }
}

impl LrRangeTest {
    /// Makes a test of this many rates from `start` to `end`, each the same factor above the one
    /// before; the losses are smoothed by 0.9, and the test stops at 4 times the lowest.
    pub fn new(start: f64, end: f64, steps: usize) -> LrRangeTest {
        LrRangeTest { start, end, steps, smoothing: 0.9, divergence: 4.0 }
    }

    /// Sets the share of the running mean that a new loss keeps, in `[0, 1)`; 0 does not smooth.
    /// The mean is corrected for its start at 0.
    #[must_use]
    pub fn smoothing(self, smoothing: f64) -> LrRangeTest {
        LrRangeTest { smoothing, ..self }
    }

    /// Sets how many times the lowest smoothed loss ends the test; infinity does not.
    #[must_use]
    pub fn divergence(self, divergence: f64) -> LrRangeTest {
        LrRangeTest { divergence, ..self }
    }

    fn check(&self) -> Result<()> {
        let op = "lr_find";
        if !(self.start > 0.0 && self.end > self.start && self.end.is_finite()) {
            let message = format!("the rates must grow from above 0, got {} to {}", self.start, self.end);
            return Err(Error::argument(op, message));
        }
        if self.steps < 2 {
            return Err(Error::argument(op, format!("there must be at least 2 steps, got {}", self.steps)));
        }
        if !(0.0..1.0).contains(&self.smoothing) {
            return Err(Error::argument(op, format!("the smoothing must be in [0, 1), got {}", self.smoothing)));
        }
        if self.divergence.is_nan() || self.divergence <= 1.0 {
            return Err(Error::argument(op, format!("the divergence must be above 1, got {}", self.divergence)));
        }
        Ok(())
    }

    /// Runs the test: `loss` returns the loss of the model on a batch. It ends after the last rate,
    /// with the last batch, or when the loss diverges.
    ///
    /// # Errors
    /// [`Error::Argument`] for settings out of range and when there is no batch; the errors of the
    /// batches, the loss and the optimiser. The model and the optimiser are restored after an error
    /// too.
    pub fn run<M: Module + ?Sized, B>(
        &self,
        model: &M,
        optimizer: &mut dyn Optimizer,
        batches: impl IntoIterator<Item = Result<B>>,
        loss: impl FnMut(&M, B) -> Result<Tensor>,
    ) -> Result<LrRange> {
        self.check()?;
        let before = Snapshot::of(model.as_module(), optimizer)?;
        let range = with_generator_at(&generator(), || self.sweep(model, optimizer, batches, loss));
        before.restore(optimizer)?;
        range
    }

    fn sweep<M: Module + ?Sized, B>(
        &self,
        model: &M,
        optimizer: &mut dyn Optimizer,
        batches: impl IntoIterator<Item = Result<B>>,
        mut loss: impl FnMut(&M, B) -> Result<Tensor>,
    ) -> Result<LrRange> {
        let shares = shares(&optimizer.learning_rates());
        let mut range = LrRange::default();
        let (mut mean, mut lowest) = (0.0, f64::INFINITY);
        let mut batches = batches.into_iter();
        for step in 0..self.steps {
            let Some(batch) = batches.next() else { break };
            let rate = self.start * (self.end / self.start).powf(step as f64 / (self.steps as f64 - 1.0));
            for (group, share) in shares.iter().enumerate() {
                optimizer.set_learning_rate(group, rate * share)?;
            }
            let value = loss(model, batch?)?;
            let number = number_of(&value)?;
            mean = self.smoothing * mean + (1.0 - self.smoothing) * number;
            let smoothed = mean / (1.0 - self.smoothing.powf(step as f64 + 1.0));
            if !smoothed.is_finite() || smoothed > self.divergence * lowest && lowest > 0.0 {
                break;
            }
            lowest = lowest.min(smoothed);
            range.rates.push(rate);
            range.losses.push(number);
            range.smoothed.push(smoothed);
            optimizer.step(&value.backward()?)?;
        }
        if range.rates.is_empty() {
            return Err(Error::argument("lr_find", "there is no batch with a finite loss to test rates on"));
        }
        Ok(range)
    }
}

/// Returns each rate over the largest one; 1 where all are 0.
fn shares(rates: &[f64]) -> Vec<f64> {
    let largest = rates.iter().copied().fold(0.0, f64::max);
    rates.iter().map(|&rate| if largest > 0.0 { rate / largest } else { 1.0 }).collect()
}

/// The result of a [range test](LrRangeTest): the loss at each rate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LrRange {
    rates: Vec<f64>,
    losses: Vec<f64>,
    smoothed: Vec<f64>,
}

impl LrRange {
    /// Returns the rates that were tested, rising.
    pub fn rates(&self) -> &[f64] {
        &self.rates
    }

    /// Returns the loss before the step with each rate.
    pub fn losses(&self) -> &[f64] {
        &self.losses
    }

    /// Returns the running mean of the losses.
    pub fn smoothed(&self) -> &[f64] {
        &self.smoothed
    }

    /// Returns the rate at which the smoothed loss falls most steeply over the logarithm of the
    /// rate, apart from the first tenth, whose mean is of few losses, and the last rate; `None`
    /// when it falls nowhere.
    ///
    /// It is a good highest rate for a schedule that rises to it; for a constant rate, take less.
    pub fn suggestion(&self) -> Option<f64> {
        let last = self.smoothed.len().checked_sub(1)?;
        let slope = |i: usize| self.smoothed[i + 1] - self.smoothed[i - 1];
        let steepest = (1 + last / 10..last).min_by(|&a, &b| slope(a).total_cmp(&slope(b)))?;
        (slope(steepest) < 0.0).then(|| self.rates[steepest])
    }
}

/// The values that a test changes.
struct Snapshot {
    parameters: Vec<(Parameter, Tensor)>,
    buffers: Vec<(Buffer, Tensor)>,
    optimizer: OptimizerState,
}

impl Snapshot {
    fn of(model: &dyn Module, optimizer: &dyn Optimizer) -> Result<Snapshot> {
        let parameters = model.parameters().into_iter().chain(optimizer.parameters());
        let with_value = |parameter: Parameter| {
            let value = parameter.try_tensor()?.detach();
            Ok((parameter, value))
        };
        let buffers = model.buffers().into_iter().map(|buffer| {
            let value = buffer.tensor();
            (buffer, value)
        });
        let parameters = parameters.map(with_value).collect::<Result<_>>()?;
        Ok(Snapshot { parameters, buffers: buffers.collect(), optimizer: optimizer.state() })
    }

    fn restore(&self, optimizer: &mut dyn Optimizer) -> Result<()> {
        self.parameters.iter().try_for_each(|(parameter, value)| parameter.set(value))?;
        self.buffers.iter().try_for_each(|(buffer, value)| buffer.set(value))?;
        optimizer.load_state(&self.optimizer)
    }
}

#[cfg(test)]
mod tests;
