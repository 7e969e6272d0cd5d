//! The optimiser Lion.

use super::check_range;
use super::param_groups::GroupedOptimizer;
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule, options};
use crate::error::Result;
use crate::kernels::optim::{self, update};
use crate::kernels::runtime::simd::Real;

/// Lion (Chen et al., 2023), as timm's: each step changes every element by the learning rate, in
/// the direction of the sign of a running mean of the gradient.
///
/// Its rate is usually 3 to 10 times smaller than Adam's, its weight decay as many times larger.
pub type Lion = GroupedOptimizer<LionOptions>;

options! {
    /// The options of [`Lion`].
    LionOptions
    /// Makes an optimiser on one group of parameters; timm's default rate is 1e-4.
    new {
        /// The share of the mean gradient in the direction, and the share of it that is kept for
        /// the next step, each in `[0, 1)`; 0.9 and 0.99 by default.
        betas: [f64; 2] = [0.9, 0.99],
        /// The weight decay, decoupled, at least 0; 0 by default.
        weight_decay: f64 = 0.0,
    }
}

impl UpdateRule for LionOptions {
    const NAME: &'static str = "lion";
    const SLOTS: &'static [&'static str] = &["exp_avg"];

    fn check(&self) -> Result<()> {
        check_range("lion", "learning rate", self.learning_rate, f64::INFINITY)?;
        check_range("lion", "the first beta", self.betas[0], 1.0)?;
        check_range("lion", "the second beta", self.betas[1], 1.0)?;
        check_range("lion", "weight decay", self.weight_decay, f64::INFINITY)
    }

    fn needs(&self) -> [bool; MAX_SLOTS] {
        [true, false, false]
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.betas[0])
    }

    fn update<T: Real>(&self, _: &mut Progress, parameter: &mut [T], gradient: &[T], [mean, ..]: [&mut [T]; MAX_SLOTS]) -> Result<()> {
        let &LionOptions { learning_rate, betas, weight_decay, .. } = self;
        let rule = optim::Lion { learning_rate, shrink: 1.0 - learning_rate * weight_decay, betas };
        update(rule, parameter, gradient, [mean]);
        Ok(())
    }
}
