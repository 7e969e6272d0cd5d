//! The optimiser RMSprop.

use super::check_range;
use super::param_groups::GroupedOptimizer;
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule, options};
use crate::error::Result;
use crate::kernels::optim::{self, update};
use crate::kernels::runtime::simd::Real;

/// RMSprop (Hinton's Coursera lecture 6e, 2012; centered: Graves, 2013), as PyTorch's.
///
/// The gradient is divided by the root of its running mean square (of its running variance when
/// centered) plus eps; with momentum, the quotients go through a velocity.
pub type RmsProp = GroupedOptimizer<RmsPropOptions>;

options! {
    /// The options of [`RmsProp`].
    RmsPropOptions
    /// Makes an optimiser on one group of parameters.
    new {
        /// The share of the mean square that is kept in a step, in `[0, 1)`; 0.99 by default.
        alpha: f64 = 0.99,
        /// Keeps the denominator from zero; 1e-8 by default.
        eps: f64 = 1e-8,
        /// The factor of the L2 penalty, at least 0; 0 by default.
        weight_decay: f64 = 0.0,
        /// The share of the velocity that is kept in a step, in `[0, 1)`; 0, the default, keeps
        /// none.
        momentum: f64 = 0.0,
        /// Whether the variance replaces the mean square.
        centered: bool = false,
    }
}

impl UpdateRule for RmsPropOptions {
    const NAME: &'static str = "rmsprop";
    const SLOTS: &'static [&'static str] = &["square_avg", "grad_avg", "momentum_buffer"];

    fn check(&self) -> Result<()> {
        check_range("rmsprop", "learning rate", self.learning_rate, f64::INFINITY)?;
        check_range("rmsprop", "alpha", self.alpha, 1.0)?;
        check_range("rmsprop", "eps", self.eps, f64::INFINITY)?;
        check_range("rmsprop", "weight decay", self.weight_decay, f64::INFINITY)?;
        check_range("rmsprop", "momentum", self.momentum, 1.0)
    }

    fn needs(&self) -> [bool; MAX_SLOTS] {
        [true, self.centered, self.momentum != 0.0]
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.momentum)
    }

    fn update<T: Real>(
        &self,
        _: &mut Progress,
        parameter: &mut [T],
        gradient: &[T],
        [square, mean, velocity]: [&mut [T]; MAX_SLOTS],
    ) -> Result<()> {
        match (self.centered, self.momentum != 0.0) {
            (false, false) => update(self.rule::<false, false>(), parameter, gradient, [square]),
            (true, false) => update(self.rule::<true, false>(), parameter, gradient, [square, mean]),
            (false, true) => update(self.rule::<false, true>(), parameter, gradient, [square, velocity]),
            (true, true) => update(self.rule::<true, true>(), parameter, gradient, [square, mean, velocity]),
        }
        Ok(())
    }
}

impl RmsPropOptions {
    fn rule<const CENTERED: bool, const MOMENTUM: bool>(&self) -> optim::RmsProp<CENTERED, MOMENTUM> {
        let &RmsPropOptions { learning_rate, alpha, eps, weight_decay, momentum, .. } = self;
        optim::RmsProp { learning_rate, weight_decay, alpha, eps, momentum }
    }
}
