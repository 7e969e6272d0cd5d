//! The optimiser NAdam.

use super::param_groups::GroupedOptimizer;
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule, options};
use super::{check_moments, check_range};
use crate::error::Result;
use crate::kernels::optim::{self, update};
use crate::kernels::runtime::simd::Real;

/// NAdam (Dozat, 2016), as PyTorch's: Adam with Nesterov's momentum, whose first beta rises from
/// half of its value as `beta1 · (1 - 0.96^(step · momentum_decay) / 2)`.
pub type NAdam = GroupedOptimizer<NAdamOptions>;

options! {
    /// The options of [`NAdam`].
    NAdamOptions
    /// Makes an optimiser on one group of parameters; PyTorch's default rate is 2e-3.
    new {
        /// The share of the two moments that is kept in a step, each in `[0, 1)`; 0.9 and 0.999 by
        /// default.
        betas: [f64; 2] = [0.9, 0.999],
        /// Keeps the denominator from zero; 1e-8 by default.
        eps: f64 = 1e-8,
        /// The weight decay, at least 0; 0 by default.
        weight_decay: f64 = 0.0,
        /// How fast the first beta rises, at least 0; 4e-3 by default.
        momentum_decay: f64 = 4e-3,
        /// Whether the parameter shrinks by `learning_rate · weight_decay` first, instead of an L2
        /// penalty.
        decoupled_weight_decay: bool = false,
    }
}

impl UpdateRule for NAdamOptions {
    const NAME: &'static str = "nadam";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    /// The product of the first betas so far.
    const NUMBER: Option<&'static str> = Some("mu_product");

    fn check(&self) -> Result<()> {
        check_moments("nadam", self.learning_rate, self.betas, self.eps, self.weight_decay)?;
        check_range("nadam", "momentum decay", self.momentum_decay, f64::INFINITY)
    }

    fn needs(&self) -> [bool; MAX_SLOTS] {
        [true, true, false]
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.betas[0])
    }

    fn update<T: Real>(
        &self,
        progress: &mut Progress,
        parameter: &mut [T],
        gradient: &[T],
        [m, v, _]: [&mut [T]; MAX_SLOTS],
    ) -> Result<()> {
        let &NAdamOptions { learning_rate, betas, eps, weight_decay, momentum_decay, decoupled_weight_decay, .. } = self;
        let step = progress.step as f64;
        let momentum = |step: f64| betas[0] * (1.0 - 0.5 * 0.96f64.powf(step * momentum_decay));
        let (now, next) = (momentum(step), momentum(step + 1.0));
        progress.number *= now;
        let (shrink, weight_decay) = if decoupled_weight_decay { (1.0 - learning_rate * weight_decay, 0.0) } else { (1.0, weight_decay) };
        let rule = optim::NAdam {
            gradient_size: learning_rate * (1.0 - now) / (1.0 - progress.number),
            moment_size: learning_rate * next / (1.0 - progress.number * next),
            shrink,
            weight_decay,
            betas,
            unbias: 1.0 / (1.0 - betas[1].powf(step)).sqrt(),
            eps,
        };
        update(rule, parameter, gradient, [m, v]);
        Ok(())
    }
}
