//! Schedules that are a formula of the step: steps, exponential, cosine, polynomial, any function.

use std::f64::consts::PI;
use std::fmt;
use std::sync::Arc;

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

/// Moves the rate along half a cosine wave from its initial value down to a minimum over a run
/// (Loshchilov & Hutter, 2017), and up again after it; PyTorch's `CosineAnnealingLR`.
///
/// The length of the run is [set](CosineAnnealingLr::steps), or filled in by a
/// [`Trainer`](crate::train::Trainer), which knows it.
///
/// ```
/// use convnet::optim::{CosineAnnealingLr, LrSchedule};
///
/// let schedule = CosineAnnealingLr::new(0.01).steps(90);
/// assert!((schedule.at(45, 0, 0.1)?.learning_rate - 0.055).abs() < 1e-12);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct CosineAnnealingLr {
    minimum: f64,
    steps: Option<u64>,
}

impl CosineAnnealingLr {
    /// Makes a schedule with this minimum (PyTorch's `eta_min`).
    pub fn new(minimum: f64) -> CosineAnnealingLr {
        CosineAnnealingLr { minimum, steps: None }
    }

    /// Sets the number of steps to the minimum (PyTorch's `T_max`).
    #[must_use]
    pub fn steps(self, steps: u64) -> CosineAnnealingLr {
        CosineAnnealingLr { steps: Some(steps), ..self }
    }

    fn length(&self) -> Result<u64> {
        let steps = self.steps.ok_or_else(|| Error::argument("CosineAnnealingLr", "the number of steps is not set; `steps` sets it"))?;
        check_positive("CosineAnnealingLr", "the number of steps", steps)?;
        Ok(steps)
    }
}

impl LrSchedule for CosineAnnealingLr {
    fn check(&self) -> Result<()> {
        self.length()?;
        check_range("CosineAnnealingLr", "the minimum", self.minimum, f64::INFINITY)
    }

    fn at(&self, step: u64, _group: usize, base: f64) -> Result<Rates> {
        let turn = PI * step as f64 / self.length()? as f64;
        Rates::of(self.minimum + (base - self.minimum) * (1.0 + turn.cos()) / 2.0)
    }

    fn set_steps(&mut self, steps: u64) {
        self.steps.get_or_insert(steps);
    }
}

/// Moves the rate along half a cosine wave down to a minimum and starts again at the initial rate,
/// each time after a longer period (SGDR; Loshchilov & Hutter, 2017); PyTorch's
/// `CosineAnnealingWarmRestarts`.
///
/// ```
/// use convnet::optim::{CosineWarmRestarts, LrSchedule};
///
/// let schedule = CosineWarmRestarts::new(10).multiplier(2); // restarts at 10, 30, 70, …
/// assert_eq!(schedule.at(30, 0, 0.1)?.learning_rate, 0.1);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct CosineWarmRestarts {
    period: u64,
    multiplier: u64,
    minimum: f64,
}

impl CosineWarmRestarts {
    /// Makes a schedule with a first period of this many steps (`T_0`), equal periods, and a
    /// minimum of 0.
    pub fn new(period: u64) -> CosineWarmRestarts {
        CosineWarmRestarts { period, multiplier: 1, minimum: 0.0 }
    }

    /// Sets the factor by which each period is longer than the one before (`T_mult`), at least 1.
    #[must_use]
    pub fn multiplier(self, multiplier: u64) -> CosineWarmRestarts {
        CosineWarmRestarts { multiplier, ..self }
    }

    /// Sets the minimum (`eta_min`).
    #[must_use]
    pub fn minimum(self, minimum: f64) -> CosineWarmRestarts {
        CosineWarmRestarts { minimum, ..self }
    }
}

impl LrSchedule for CosineWarmRestarts {
    fn check(&self) -> Result<()> {
        check_positive("CosineWarmRestarts", "the period", self.period)?;
        check_positive("CosineWarmRestarts", "the multiplier", self.multiplier)?;
        check_range("CosineWarmRestarts", "the minimum", self.minimum, f64::INFINITY)
    }

    fn at(&self, step: u64, _group: usize, base: f64) -> Result<Rates> {
        let (mut since, mut period) = (step, self.period.max(1));
        if self.multiplier < 2 {
            since %= period;
        } else {
            while since >= period {
                since -= period;
                period = period.saturating_mul(self.multiplier);
            }
        }
        let turn = PI * since as f64 / period as f64;
        Rates::of(self.minimum + (base - self.minimum) * (1.0 + turn.cos()) / 2.0)
    }
}

/// Lowers the rate to 0 in `steps` steps as `(1 - step / steps)^power`; PyTorch's `PolynomialLR`.
///
/// ```
/// use convnet::optim::{LrSchedule, PolynomialLr};
///
/// let schedule = PolynomialLr::new(100).power(2.0);
/// assert_eq!(schedule.at(50, 0, 0.1)?.learning_rate, 0.025);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PolynomialLr {
    steps: u64,
    power: f64,
}

impl PolynomialLr {
    /// Makes a schedule with a power of 1: a straight line.
    pub fn new(steps: u64) -> PolynomialLr {
        PolynomialLr { steps, power: 1.0 }
    }

    /// Sets the power, at least 0.
    #[must_use]
    pub fn power(self, power: f64) -> PolynomialLr {
        PolynomialLr { power, ..self }
    }
}

impl LrSchedule for PolynomialLr {
    fn check(&self) -> Result<()> {
        check_positive("PolynomialLr", "the number of steps", self.steps)?;
        check_range("PolynomialLr", "the power", self.power, f64::INFINITY)
    }

    fn at(&self, step: u64, _group: usize, base: f64) -> Result<Rates> {
        let left = 1.0 - step.min(self.steps) as f64 / self.steps as f64;
        Rates::of(base * left.powf(self.power))
    }
}

/// Multiplies the initial rate by a function of the step; PyTorch's `LambdaLR`.
///
/// A snapshot does not contain the function: attach the same one before restoring.
///
/// ```
/// use convnet::optim::{LambdaLr, LrSchedule};
///
/// let schedule = LambdaLr::new(|step| 1.0 / (1.0 + step as f64));
/// assert_eq!(schedule.at(3, 0, 0.1)?.learning_rate, 0.025);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone)]
pub struct LambdaLr {
    factor: Arc<dyn Fn(u64, usize) -> f64 + Send + Sync>,
}

impl LambdaLr {
    /// Makes a schedule with one factor for all groups, a function of the step.
    pub fn new(factor: impl Fn(u64) -> f64 + Send + Sync + 'static) -> LambdaLr {
        LambdaLr::by_group(move |step, _| factor(step))
    }

    /// Makes a schedule with a factor that is a function of the step and of the group's number.
    pub fn by_group(factor: impl Fn(u64, usize) -> f64 + Send + Sync + 'static) -> LambdaLr {
        LambdaLr { factor: Arc::new(factor) }
    }
}

impl LrSchedule for LambdaLr {
    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn at(&self, step: u64, group: usize, base: f64) -> Result<Rates> {
        Rates::of(base * (self.factor)(step, group))
    }
}

impl fmt::Debug for LambdaLr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LambdaLr")
    }
}

fn power(gamma: f64, exponent: u64) -> f64 {
    gamma.powf(exponent as f64)
}
