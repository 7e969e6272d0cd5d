//! Stochastic gradient descent.

use super::param_groups::GroupedOptimizer;
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule, options};
use super::{check_range, check_velocity};
use crate::error::Result;
use crate::kernels::optim::{self, update};
use crate::kernels::runtime::simd::Real;

/// Stochastic gradient descent with momentum (Sutskever et al., 2013), as PyTorch's `SGD`.
///
/// With `g` the gradient plus `weight_decay · p`: `v ← momentum · v + (1 - dampening) · g` (the
/// first `v` is `g`), and `p ← p - learning_rate · v`, or with Nesterov's variant `p -
/// learning_rate · (g + momentum · v)`.
pub type Sgd = GroupedOptimizer<SgdOptions>;

options! {
    /// The options of [`Sgd`].
    SgdOptions
    /// Makes an optimiser without momentum on one group of parameters.
    new {
        /// The share of the velocity that is kept in a step, in `[0, 1)`; 0, the default, keeps
        /// none.
        momentum: f64 = 0.0,
        /// The share of the gradient that does not enter the velocity, in `[0, 1]`; 0 by default.
        dampening: f64 = 0.0,
        /// Whether to look ahead (Nesterov); needs momentum and no dampening.
        nesterov: bool = false,
        /// The factor of the L2 penalty, at least 0; 0 by default.
        weight_decay: f64 = 0.0,
    }
}

impl UpdateRule for SgdOptions {
    const NAME: &'static str = "sgd";
    const SLOTS: &'static [&'static str] = &["momentum_buffer"];

    fn check(&self) -> Result<()> {
        check_range("sgd", "learning rate", self.learning_rate, f64::INFINITY)?;
        check_range("sgd", "weight decay", self.weight_decay, f64::INFINITY)?;
        check_velocity("sgd", self.momentum, self.dampening, self.nesterov)
    }

    fn needs(&self) -> [bool; MAX_SLOTS] {
        [self.momentum != 0.0, false, false]
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.momentum)
    }

    fn update<T: Real>(
        &self,
        progress: &mut Progress,
        parameter: &mut [T],
        gradient: &[T],
        [velocity, ..]: [&mut [T]; MAX_SLOTS],
    ) -> Result<()> {
        let &SgdOptions { learning_rate, momentum, dampening, nesterov, weight_decay, .. } = self;
        let gain = if progress.fresh { 1.0 } else { 1.0 - dampening };
        if momentum == 0.0 {
            update(optim::Sgd::<false> { learning_rate, weight_decay, momentum, gain, nesterov }, parameter, gradient, []);
        } else {
            update(optim::Sgd::<true> { learning_rate, weight_decay, momentum, gain, nesterov }, parameter, gradient, [velocity]);
        }
        Ok(())
    }
}
