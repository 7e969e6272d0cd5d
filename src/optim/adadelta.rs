//! The optimiser Adadelta.

use super::check_range;
use super::param_groups::GroupedOptimizer;
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule, options};
use crate::error::Result;
use crate::kernels::optim::{self, update};
use crate::kernels::runtime::simd::Real;

/// Adadelta (Zeiler, 2012), as PyTorch's: the gradient is divided by the root of its running mean
/// square and multiplied by that of the updates so far, `√(u + eps) / √(v + eps)`.
pub type Adadelta = GroupedOptimizer<AdadeltaOptions>;

options! {
    /// The options of [`Adadelta`].
    AdadeltaOptions
    /// Makes an optimiser on one group of parameters; PyTorch's default rate is 1.
    new {
        /// The share of the mean squares that is kept in a step, in `[0, 1)`; 0.9 by default.
        rho: f64 = 0.9,
        /// Keeps the denominator from zero, and starts the updates; 1e-6 by default.
        eps: f64 = 1e-6,
        /// The factor of the L2 penalty, at least 0; 0 by default.
        weight_decay: f64 = 0.0,
    }
}

impl UpdateRule for AdadeltaOptions {
    const NAME: &'static str = "adadelta";
    const SLOTS: &'static [&'static str] = &["square_avg", "acc_delta"];

    fn check(&self) -> Result<()> {
        check_range("adadelta", "learning rate", self.learning_rate, f64::INFINITY)?;
        check_range("adadelta", "rho", self.rho, 1.0)?;
        check_range("adadelta", "eps", self.eps, f64::INFINITY)?;
        check_range("adadelta", "weight decay", self.weight_decay, f64::INFINITY)
    }

    fn needs(&self) -> [bool; MAX_SLOTS] {
        [true, true, false]
    }

    fn update<T: Real>(
        &self,
        _: &mut Progress,
        parameter: &mut [T],
        gradient: &[T],
        [square, delta, _]: [&mut [T]; MAX_SLOTS],
    ) -> Result<()> {
        let &AdadeltaOptions { learning_rate, rho, eps, weight_decay, .. } = self;
        update(optim::Adadelta { learning_rate, rho, eps, weight_decay }, parameter, gradient, [square, delta]);
        Ok(())
    }
}
