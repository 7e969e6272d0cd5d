//! Schedules that are a formula of the step: steps, exponential, cosine, and a linear warm-up.

use std::f64::consts::PI;

use super::{LrSchedule, Rates, check_positive};
use crate::error::{Error, Result};
use crate::optim::check_range;

/// Multiplies the rate by `gamma` every `step_size` steps; PyTorch's `StepLR`.
#[derive(Clone, Debug, PartialEq)]
pub struct StepLr {
    step_size: u64,
    gamma: f64,
}

impl StepLr {
    /// Makes a schedule with a gamma of 0.1.
    pub fn new(step_size: u64) -> StepLr {
        StepLr { step_size, gamma: 0.1 }
    }

    /// Sets the factor, at least 0.
    #[must_use]
    pub fn gamma(self, gamma: f64) -> StepLr {
        StepLr { gamma, ..self }
    }
}

impl LrSchedule for StepLr {
    fn check(&self) -> Result<()> {
        check_positive("StepLr", "the step size", self.step_size)?;
        check_range("StepLr", "gamma", self.gamma, f64::INFINITY)
    }

    fn at(&self, step: u64, _group: usize, base: f64) -> Result<Rates> {
        Rates::of(base * power(self.gamma, step / self.step_size.max(1)))
    }
}

/// Multiplies the rate by `gamma` at each milestone; PyTorch's `MultiStepLR`.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiStepLr {
    milestones: Vec<u64>,
    gamma: f64,
}

impl MultiStepLr {
    /// Makes a schedule with a gamma of 0.1; milestones may come in any order, and a repeated one
    /// counts twice.
    pub fn new(milestones: impl IntoIterator<Item = u64>) -> MultiStepLr {
        MultiStepLr { milestones: milestones.into_iter().collect(), gamma: 0.1 }
    }

    /// Sets the factor, at least 0.
    #[must_use]
    pub fn gamma(self, gamma: f64) -> MultiStepLr {
        MultiStepLr { gamma, ..self }
    }
}

impl LrSchedule for MultiStepLr {
    fn check(&self) -> Result<()> {
        check_range("MultiStepLr", "gamma", self.gamma, f64::INFINITY)
    }

    fn at(&self, step: u64, _group: usize, base: f64) -> Result<Rates> {
        let passed = self.milestones.iter().filter(|&&milestone| milestone <= step).count();
        Rates::of(base * power(self.gamma, passed as u64))
    }
}

/// Multiplies the rate by `gamma` at every step; PyTorch's `ExponentialLR`.
#[derive(Clone, Debug, PartialEq)]
pub struct ExponentialLr {
    gamma: f64,
}

impl ExponentialLr {
    /// Makes a schedule with this factor, at least 0.
    pub fn new(gamma: f64) -> ExponentialLr {
        ExponentialLr { gamma }
    }
}

impl LrSchedule for ExponentialLr {
    fn check(&self) -> Result<()> {
        check_range("ExponentialLr", "gamma", self.gamma, f64::INFINITY)
    }

    fn at(&self, step: u64, _group: usize, base: f64) -> Result<Rates> {
        Rates::of(base * power(self.gamma, step))
    }
}

/// Moves the rate along half a cosine wave from its initial value down to a minimum in `steps`
/// steps (Loshchilov & Hutter, 2017), and up again after them; PyTorch's `CosineAnnealingLR`.
#[derive(Clone, Debug, PartialEq)]
pub struct CosineAnnealingLr {
    steps: u64,
    minimum: f64,
}

impl CosineAnnealingLr {
    /// Makes a schedule with a minimum of 0.
    pub fn new(steps: u64) -> CosineAnnealingLr {
        CosineAnnealingLr { steps, minimum: 0.0 }
    }

    /// Sets the minimum (PyTorch's `eta_min`).
    #[must_use]
    pub fn minimum(self, minimum: f64) -> CosineAnnealingLr {
        CosineAnnealingLr { minimum, ..self }
    }
}

impl LrSchedule for CosineAnnealingLr {
    fn check(&self) -> Result<()> {
        check_positive("CosineAnnealingLr", "the number of steps", self.steps)?;
        check_range("CosineAnnealingLr", "the minimum", self.minimum, f64::INFINITY)
    }

    fn at(&self, step: u64, _group: usize, base: f64) -> Result<Rates> {
        let turn = PI * step as f64 / self.steps as f64;
        Rates::of(self.minimum + (base - self.minimum) * (1.0 + turn.cos()) / 2.0)
    }
}

/// Raises the rate linearly over the first steps to the first rate of another schedule, which then
/// runs from its own step 0; PyTorch's `LinearLR` and another one in a `SequentialLR`.
///
/// ```
/// use convnet::optim::{CosineAnnealingLr, LinearWarmup, LrSchedule};
///
/// let schedule = LinearWarmup::new(5, CosineAnnealingLr::new(90)).start_factor(0.1);
/// assert!((schedule.at(0, 0, 1.0)?.learning_rate - 0.1).abs() < 1e-12);
/// assert!((schedule.at(5, 0, 1.0)?.learning_rate - 1.0).abs() < 1e-12);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LinearWarmup<S> {
    steps: u64,
    start_factor: f64,
    inner: S,
}

impl<S: LrSchedule> LinearWarmup<S> {
    /// Makes a warm-up of `steps` steps that starts at a third of the first rate of `inner`.
    pub fn new(steps: u64, inner: S) -> LinearWarmup<S> {
        LinearWarmup { steps, start_factor: 1.0 / 3.0, inner }
    }

    /// Sets the share of the inner schedule's first rate at which to begin, in `[0, 1]`.
    #[must_use]
    pub fn start_factor(self, start_factor: f64) -> LinearWarmup<S> {
        LinearWarmup { start_factor, ..self }
    }
}

impl<S: LrSchedule> LrSchedule for LinearWarmup<S> {
    fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.start_factor) {
            return Err(Error::argument("LinearWarmup", format!("the start factor must be in [0, 1], got {}", self.start_factor)));
        }
        self.inner.check()
    }

    fn at(&self, step: u64, group: usize, base: f64) -> Result<Rates> {
        if step >= self.steps {
            return self.inner.at(step - self.steps, group, base);
        }
        let first = self.inner.at(0, group, base)?;
        let factor = self.start_factor + (1.0 - self.start_factor) * step as f64 / self.steps as f64;
        Ok(Rates { learning_rate: first.learning_rate * factor, ..first })
    }

    /// The inner schedule gets no metric of the warm-up.
    fn observe(&mut self, step: u64, metric: Option<f64>) -> Result<()> {
        if step > self.steps { self.inner.observe(step - self.steps, metric) } else { Ok(()) }
    }

    fn visit(&mut self, visitor: &mut dyn FnMut(&'static str, &mut f64)) {
        self.inner.visit(visitor);
    }
}

fn power(gamma: f64, exponent: u64) -> f64 {
    gamma.powf(exponent as f64)
}
