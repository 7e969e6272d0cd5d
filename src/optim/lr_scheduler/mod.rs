//! Learning-rate schedules and the scheduler that runs them.
//!
//! A [`LrSchedule`] is a function from the number of steps to a group's learning rate, given the
//! group's initial rate. Attached to an optimiser it becomes a [`LrScheduler`], which counts the
//! steps. The caller of [`LrScheduler::step`] decides whether a step is a batch or an epoch.

mod chain;
mod closed_form;
mod cyclic;
mod one_cycle;
mod plateau;

pub use chain::{ChainedLr, LinearWarmup, SequentialLr};
pub use closed_form::{CosineAnnealingLr, CosineWarmRestarts, ExponentialLr, LambdaLr, MultiStepLr, PolynomialLr, StepLr};
pub use cyclic::{CyclicLr, CyclicMode};
pub use one_cycle::{Anneal, OneCycleLr};
pub use plateau::{PlateauMode, ReduceLrOnPlateau, ThresholdMode};

use std::fmt;

use super::state::{self, OptimizerState, Reader};
use crate::error::{Error, Result};
use crate::optim::Optimizer;
use crate::tensor::Tensor;

/// The rates of a group at a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The learning rate.
    pub learning_rate: f64,
    /// The momentum (Adam's first beta), when the schedule sets it.
    pub momentum: Option<f64>,
}

impl Rates {
    fn of(learning_rate: f64) -> Result<Rates> {
        Ok(Rates { learning_rate, momentum: None })
    }

    fn set(&self, optimizer: &mut dyn Optimizer, group: usize) -> Result<()> {
        optimizer.set_learning_rate(group, self.learning_rate)?;
        self.momentum.map_or(Ok(()), |momentum| optimizer.set_momentum(group, momentum))
    }
}

/// A learning rate as a function of the step.
///
/// Implementations are `Clone`, so that a boxed schedule can be copied and has snapshots.
pub trait LrSchedule: CloneLrSchedule + Send {
    /// Checks the settings; called when the schedule is attached.
    ///
    /// # Errors
    /// [`Error::Argument`] for settings out of range.
    fn check(&self) -> Result<()>;

    /// Returns the rates after `step` steps of the group number `group`, whose initial learning
    /// rate was `base`.
    ///
    /// # Errors
    /// [`Error::Argument`] when the schedule has no rates for this step or group.
    fn at(&self, step: u64, group: usize, base: f64) -> Result<Rates>;

    /// Records a metric before the rates of `step` are asked for.
    ///
    /// # Errors
    /// [`Error::Argument`] when the schedule needs a metric and there is none.
    fn observe(&mut self, _step: u64, _metric: Option<f64>) -> Result<()> {
        Ok(())
    }

    /// Sets the number of steps of the run for a schedule that needs it and was not given one; a
    /// [`Trainer`](crate::train::Trainer) calls it. As provided, it does nothing.
    fn set_steps(&mut self, _steps: u64) {}

    /// Calls the visitor with the name and value of every number that
    /// [`observe`](LrSchedule::observe) changes, for snapshots.
    fn visit(&mut self, _visitor: &mut dyn FnMut(&str, &mut f64)) {}

    /// Starts this schedule on an optimiser and sets the rates of step 0.
    ///
    /// # Errors
    /// [`Error::Argument`] for settings out of range, and when the optimiser refuses the rates.
    fn attach(self, optimizer: &mut dyn Optimizer) -> Result<LrScheduler<Self>>
    where
        Self: Sized,
    {
        LrScheduler::new(self, optimizer)
    }
}

impl LrSchedule for Box<dyn LrSchedule> {
    fn check(&self) -> Result<()> {
        (**self).check()
    }

    fn at(&self, step: u64, group: usize, base: f64) -> Result<Rates> {
        (**self).at(step, group, base)
    }

    fn observe(&mut self, step: u64, metric: Option<f64>) -> Result<()> {
        (**self).observe(step, metric)
    }

    fn set_steps(&mut self, steps: u64) {
        (**self).set_steps(steps);
    }

    fn visit(&mut self, visitor: &mut dyn FnMut(&str, &mut f64)) {
        (**self).visit(visitor);
    }
}

/// Copies a schedule into a box. Every schedule that is [`Clone`] implements it.
pub trait CloneLrSchedule {
    /// Returns a copy of the schedule.
    fn clone_boxed(&self) -> Box<dyn LrSchedule>;
}

impl<S: LrSchedule + Clone + 'static> CloneLrSchedule for S {
    fn clone_boxed(&self) -> Box<dyn LrSchedule> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn LrSchedule> {
    fn clone(&self) -> Box<dyn LrSchedule> {
        CloneLrSchedule::clone_boxed(&**self)
    }
}

/// A schedule attached to an optimiser: the number of steps so far, and the initial rates of each
/// group.
#[derive(Clone, Debug)]
pub struct LrScheduler<S> {
    schedule: S,
    step: u64,
    bases: Vec<f64>,
}

impl<S: LrSchedule> LrScheduler<S> {
    /// Attaches a schedule as [`LrSchedule::attach`] does.
    ///
    /// # Errors
    /// [`Error::Argument`] for settings out of range, and when the optimiser refuses the rates.
    pub fn new(schedule: S, optimizer: &mut dyn Optimizer) -> Result<LrScheduler<S>> {
        schedule.check()?;
        let scheduler = LrScheduler { schedule, step: 0, bases: optimizer.learning_rates() };
        scheduler.apply(optimizer)?;
        Ok(scheduler)
    }

    /// Advances by one step; call it after the optimiser's.
    ///
    /// # Errors
    /// [`Error::Argument`] when the schedule needs a metric
    /// ([`ReduceLrOnPlateau`](super::ReduceLrOnPlateau): use [`step_with`](LrScheduler::step_with))
    /// or has ended, and when the optimiser has other groups than it was attached to.
    pub fn step(&mut self, optimizer: &mut dyn Optimizer) -> Result<()> {
        self.advance(optimizer, None)
    }

    /// Advances by one step with a metric, such as the validation loss; schedules that need none
    /// ignore it.
    ///
    /// # Errors
    /// [`Error::Argument`] when the schedule has ended, and when the optimiser has other groups
    /// than it was attached to.
    pub fn step_with(&mut self, optimizer: &mut dyn Optimizer, metric: f64) -> Result<()> {
        self.advance(optimizer, Some(metric))
    }

    fn advance(&mut self, optimizer: &mut dyn Optimizer, metric: Option<f64>) -> Result<()> {
        self.schedule.observe(self.step + 1, metric)?;
        self.step += 1;
        let applied = self.apply(optimizer);
        self.step -= u64::from(applied.is_err());
        applied
    }

    /// Sets the rates of this step; an error leaves the optimiser unchanged.
    fn apply(&self, optimizer: &mut dyn Optimizer) -> Result<()> {
        if optimizer.num_groups() != self.bases.len() {
            let (bases, groups) = (self.bases.len(), optimizer.num_groups());
            let message =
                format!("attached to {bases} parameter groups, the optimiser has {groups}; attach the schedule once all groups are added");
            return Err(Error::argument("schedule", message));
        }
        let groups = self.bases.iter().enumerate();
        let rates = groups.map(|(group, &base)| self.schedule.at(self.step, group, base)).collect::<Result<Vec<Rates>>>()?;
        let mut before = vec![];
        for (group, rates) in rates.iter().enumerate() {
            before.push(Rates { learning_rate: optimizer.learning_rate(group)?, momentum: optimizer.momentum_of(group)? });
            if let Err(error) = rates.set(optimizer, group) {
                before.iter().enumerate().try_for_each(|(group, rates)| rates.set(optimizer, group))?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Returns the number of steps so far.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Returns a snapshot of the progress, without the settings.
    pub fn state(&self) -> OptimizerState
    where
        S: Clone,
    {
        let mut state = OptimizerState::default();
        state.push("schedule.step".into(), state::count(self.step));
        for (group, &base) in self.bases.iter().enumerate() {
            state.push(format!("schedule.base.{group}"), Tensor::scalar(base));
        }
        self.schedule.clone().visit(&mut |name, value| state.push(format!("schedule.{name}"), Tensor::scalar(*value)));
        state
    }

    /// Restores a snapshot and sets the optimiser's rates to those of its step; the optimiser's own
    /// snapshot may be restored before or after.
    ///
    /// ```
    /// use convnet::{Tensor, nn::Parameter};
    /// use convnet::optim::{ExponentialLr, LinearWarmup, Optimizer, LrSchedule, Sgd};
    ///
    /// let new_optimizer = || Sgd::new([Parameter::new(Tensor::ones([2]))], 0.1);
    /// let new_schedule = || LinearWarmup::new(5, ExponentialLr::new(0.9)).start_factor(0.1);
    /// let mut optimizer = new_optimizer();
    /// let mut schedule = new_schedule().attach(&mut optimizer)?;
    /// for _ in 0..8 {
    ///     schedule.step(&mut optimizer)?;
    /// }
    /// let (of_optimizer, of_schedule) = (optimizer.state(), schedule.state()); // for a checkpoint
    ///
    /// let mut restored = new_optimizer();
    /// let mut schedule = new_schedule().attach(&mut restored)?;
    /// restored.load_state(&of_optimizer)?;
    /// schedule.load_state(&of_schedule, &mut restored)?;
    /// assert_eq!(restored.learning_rates(), optimizer.learning_rates());
    /// # Ok::<(), convnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::StateDict`] when the snapshot does not fit, [`Error::Argument`] when the optimiser
    /// has other groups; then nothing has changed.
    pub fn load_state(&mut self, state: &OptimizerState, optimizer: &mut dyn Optimizer) -> Result<()>
    where
        S: Clone,
    {
        let mut reader = Reader::new(state)?;
        let step = reader.count("schedule.step")?;
        let names = 0..self.bases.len();
        let bases = names.map(|group| reader.number(&format!("schedule.base.{group}"))).collect::<Result<Vec<f64>>>()?;
        let (mut schedule, mut outcome) = (self.schedule.clone(), Ok(()));
        schedule.visit(&mut |name, value| reader.replace(&format!("schedule.{name}"), value, &mut outcome));
        outcome?;
        reader.finish()?;
        let restored = LrScheduler { schedule, step, bases };
        restored.apply(optimizer)?;
        *self = restored;
        Ok(())
    }
}

pub(crate) fn check_positive(op: &'static str, name: &str, value: u64) -> Result<()> {
    if value > 0 { Ok(()) } else { Err(Error::argument(op, format!("{name} must be positive, got 0"))) }
}

impl fmt::Debug for dyn LrSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LrSchedule")
    }
}
