//! Optimisers, learning-rate schedules, gradient clipping.
//!
//! An optimiser owns groups of parameters. Each group has separate options, and each parameter has
//! state (velocity, moments, …) that is updated in place with it, in one pass. An optimiser is its
//! options and its kernel; groups, state dicts and the loop over parameters are in
//! [`GroupedOptimizer`].
//!
//! ```
//! use convnet::{Tensor, nn::Parameter};
//! use convnet::optim::{Optimizer, LrSchedule, Sgd, StepLr};
//!
//! let w = Parameter::new(Tensor::ones([2]));
//! let mut optimizer = Sgd::new([w.clone()], 0.1).momentum(0.9);
//! let mut schedule = StepLr::new(10).attach(&mut optimizer)?;
//! for _ in 0..20 {
//!     let loss = w.tensor().mul(&w.tensor())?.sum(..)?;
//!     optimizer.step(&loss.backward()?)?;
//!     schedule.step(&mut optimizer)?;
//! }
//! assert!((optimizer.learning_rate(0)? - 0.001).abs() < 1e-12);
//! # Ok::<(), convnet::Error>(())
//! ```

mod adadelta;
mod adagrad;
mod adam;
mod clip;
mod lamb;
mod lars;
mod lion;
mod lr_scheduler;
mod nadam;
mod param_groups;
mod radam;
mod rmsprop;
mod sgd;
mod state;
mod update_rule;

pub use adadelta::{Adadelta, AdadeltaOptions};
pub use adagrad::{Adagrad, AdagradOptions};
pub use adam::{Adam, AdamOptions, AdamW};
pub use clip::{clip_grad_norm, clip_grad_norm_with, clip_grad_value};
pub use lamb::{Lamb, LambOptions};
pub use lars::{Lars, LarsOptions};
pub use lion::{Lion, LionOptions};
pub use lr_scheduler::{
    Anneal, ChainedLr, CloneLrSchedule, CosineAnnealingLr, CosineWarmRestarts, CyclicLr, CyclicMode, ExponentialLr, LambdaLr, LinearWarmup,
    LrSchedule, LrScheduler, MultiStepLr, OneCycleLr, PlateauMode, PolynomialLr, Rates, ReduceLrOnPlateau, SequentialLr, StepLr,
    ThresholdMode,
};
pub use nadam::{NAdam, NAdamOptions};
pub use param_groups::GroupedOptimizer;
pub use radam::{RAdam, RAdamOptions};
pub use rmsprop::{RmsProp, RmsPropOptions};
pub use sgd::{Sgd, SgdOptions};
pub use state::OptimizerState;

use crate::autograd::Gradients;
use crate::error::{Error, Result};
use crate::nn::Parameter;

/// An algorithm that changes parameters by their gradients.
pub trait Optimizer: Send {
    /// Updates every parameter that has a gradient; others (unused in the loss, or frozen) keep
    /// their values and state. At least one must have a gradient.
    ///
    /// Options are checked here, since setters cannot fail. An error leaves all parameters and
    /// state unchanged, except one of memory in the middle of a step: then the parameters before
    /// have made it.
    ///
    /// # Errors
    /// [`Error::Argument`] for options out of range, for a parameter that is in two groups and when
    /// no parameter has a gradient, as with those of another network; [`Error::Shape`] for a
    /// gradient (inserted by hand) of another shape than its parameter's.
    fn step(&mut self, gradients: &Gradients) -> Result<()>;

    /// Returns the number of parameter groups.
    fn num_groups(&self) -> usize;

    /// Returns the parameters of all groups, in order.
    fn parameters(&self) -> Vec<Parameter>;

    /// Returns the learning rate of a group.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is no such group.
    fn learning_rate(&self, group: usize) -> Result<f64>;

    /// Sets the learning rate of a group.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is no such group, or for a negative or infinite rate or one
    /// that is not a number.
    fn set_learning_rate(&mut self, group: usize, learning_rate: f64) -> Result<()>;

    /// Returns the momentum of a group, or Adam's first beta; `None` for an optimiser that has
    /// neither. (`momentum` is the setter with which an optimiser is created.)
    ///
    /// # Errors
    /// [`Error::Argument`] when there is no such group.
    fn momentum_of(&self, group: usize) -> Result<Option<f64>>;

    /// Sets the momentum of a group, or Adam's first beta.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is no such group, for an optimiser that has no momentum, and
    /// for a value outside `[0, 1)`.
    fn set_momentum(&mut self, group: usize, momentum: f64) -> Result<()>;

    /// Returns a snapshot of all options and state. It shares memory with the optimiser until the
    /// next step.
    fn state(&self) -> OptimizerState;

    /// Restores a snapshot, so that training continues with the same bits; the parameters' values
    /// are not part of it.
    ///
    /// # Errors
    /// [`Error::StateDict`] when the snapshot is of another kind of optimiser or does not fit the
    /// parameters; then nothing has changed.
    fn load_state(&mut self, state: &OptimizerState) -> Result<()>;

    /// Returns the learning rates of all groups.
    fn learning_rates(&self) -> Vec<f64> {
        (0..self.num_groups()).filter_map(|group| self.learning_rate(group).ok()).collect()
    }
}

/// Holds any optimiser, such as one that is chosen while the program runs.
impl<O: Optimizer + ?Sized> Optimizer for Box<O> {
    fn step(&mut self, gradients: &Gradients) -> Result<()> {
        (**self).step(gradients)
    }

    fn num_groups(&self) -> usize {
        (**self).num_groups()
    }

    fn parameters(&self) -> Vec<Parameter> {
        (**self).parameters()
    }

    fn learning_rate(&self, group: usize) -> Result<f64> {
        (**self).learning_rate(group)
    }

    fn set_learning_rate(&mut self, group: usize, learning_rate: f64) -> Result<()> {
        (**self).set_learning_rate(group, learning_rate)
    }

    fn momentum_of(&self, group: usize) -> Result<Option<f64>> {
        (**self).momentum_of(group)
    }

    fn set_momentum(&mut self, group: usize, momentum: f64) -> Result<()> {
        (**self).set_momentum(group, momentum)
    }

    fn state(&self) -> OptimizerState {
        (**self).state()
    }

    fn load_state(&mut self, state: &OptimizerState) -> Result<()> {
        (**self).load_state(state)
    }
}

/// Checks the options that Adam and its variants share.
pub(crate) fn check_moments(op: &'static str, learning_rate: f64, betas: [f64; 2], eps: f64, weight_decay: f64) -> Result<()> {
    check_range(op, "learning rate", learning_rate, f64::INFINITY)?;
    check_range(op, "the first beta", betas[0], 1.0)?;
    check_range(op, "the second beta", betas[1], 1.0)?;
    check_range(op, "eps", eps, f64::INFINITY)?;
    check_range(op, "weight decay", weight_decay, f64::INFINITY)
}

/// Checks the options of gradient descent with a velocity.
pub(crate) fn check_velocity(op: &'static str, momentum: f64, dampening: f64, nesterov: bool) -> Result<()> {
    check_range(op, "momentum", momentum, 1.0)?;
    if !(0.0..=1.0).contains(&dampening) {
        return Err(Error::argument(op, format!("dampening must be in [0, 1], got {dampening}")));
    }
    if nesterov && (momentum == 0.0 || dampening != 0.0) {
        return Err(Error::argument(op, "nesterov needs a momentum above 0 and no dampening"));
    }
    Ok(())
}

/// Checks that `value` is in `[0, ∞)`, or in `[0, below)`.
pub(crate) fn check_range(op: &'static str, name: &str, value: f64, below: f64) -> Result<()> {
    if value >= 0.0 && value < below {
        return Ok(());
    }
    Err(Error::argument(op, format!("{name} must be in [0, {below}), got {value}")))
}
