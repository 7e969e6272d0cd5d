//! The optimiser Adagrad.

use super::check_range;
use super::param_groups::GroupedOptimizer;
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule, options};
use crate::error::Result;
use crate::kernels::optim::{self, update};
use crate::kernels::runtime::simd::Real;

/// Adagrad (Duchi et al., 2011), as PyTorch's: the gradient is divided by the root of the sum of
/// all its squares so far, plus eps.
///
/// Step `t` (from 1) has the learning rate `learning_rate / (1 + (t - 1) · learning_rate_decay)`.
pub type Adagrad = GroupedOptimizer<AdagradOptions>;

options! {
    /// The options of [`Adagrad`].
    AdagradOptions
    /// Makes an optimiser on one group of parameters.
    new {
        /// The rate at which the learning rate falls, at least 0; 0 by default.
        learning_rate_decay: f64 = 0.0,
        /// The factor of the L2 penalty, at least 0; 0 by default.
        weight_decay: f64 = 0.0,
        /// The initial value of the sums, at least 0; 0 by default. It is used at the first
        /// gradient of a parameter.
        initial_accumulator: f64 = 0.0,
        /// Keeps the denominator from zero; 1e-10 by default.
        eps: f64 = 1e-10,
    }
}

impl UpdateRule for AdagradOptions {
    const NAME: &'static str = "adagrad";
    const SLOTS: &'static [&'static str] = &["sum"];

    fn check(&self) -> Result<()> {
        check_range("adagrad", "learning rate", self.learning_rate, f64::INFINITY)?;
        check_range("adagrad", "learning rate decay", self.learning_rate_decay, f64::INFINITY)?;
        check_range("adagrad", "weight decay", self.weight_decay, f64::INFINITY)?;
        check_range("adagrad", "initial accumulator", self.initial_accumulator, f64::INFINITY)?;
        check_range("adagrad", "eps", self.eps, f64::INFINITY)
    }

    fn needs(&self) -> [bool; MAX_SLOTS] {
        [true, false, false]
    }

    fn initial(&self) -> f64 {
        self.initial_accumulator
    }

    fn update<T: Real>(
        &self,
        progress: &mut Progress,
        parameter: &mut [T],
        gradient: &[T],
        [sum, ..]: [&mut [T]; MAX_SLOTS],
    ) -> Result<()> {
        let learning_rate = self.learning_rate / (1.0 + (progress.step as f64 - 1.0) * self.learning_rate_decay);
        let rule = optim::Adagrad { learning_rate, weight_decay: self.weight_decay, eps: self.eps };
        update(rule, parameter, gradient, [sum]);
        Ok(())
    }
}
