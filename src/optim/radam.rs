//! The optimiser RAdam.

use super::check_moments;
use super::param_groups::GroupedOptimizer;
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule, options};
use crate::error::Result;
use crate::kernels::optim::{self, update};
use crate::kernels::runtime::simd::Real;

/// RAdam (Liu et al., 2020), as PyTorch's: Adam whose step is scaled by how well the second moment
/// is known yet; the first steps, when it is not, use the first moment alone.
pub type RAdam = GroupedOptimizer<RAdamOptions>;

options! {
    /// The options of [`RAdam`].
    RAdamOptions
    /// Makes an optimiser on one group of parameters; PyTorch's default rate is 1e-3.
    new {
        /// The share of the two moments that is kept in a step, each in `[0, 1)`; 0.9 and 0.999 by
        /// default.
        betas: [f64; 2] = [0.9, 0.999],
        /// Keeps the denominator from zero; 1e-8 by default.
        eps: f64 = 1e-8,
        /// The weight decay, at least 0; 0 by default.
        weight_decay: f64 = 0.0,
        /// Whether the parameter shrinks by `learning_rate · weight_decay` first, instead of an L2
        /// penalty.
        decoupled_weight_decay: bool = false,
    }
}

impl UpdateRule for RAdamOptions {
    const NAME: &'static str = "radam";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];

    fn check(&self) -> Result<()> {
        check_moments("radam", self.learning_rate, self.betas, self.eps, self.weight_decay)
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
        let &RAdamOptions { learning_rate, betas, eps, weight_decay, decoupled_weight_decay, .. } = self;
        let step = progress.step as f64;
        let [correction1, correction2] = betas.map(|beta| 1.0 - beta.powf(step));
        let (shrink, weight_decay) = if decoupled_weight_decay { (1.0 - learning_rate * weight_decay, 0.0) } else { (1.0, weight_decay) };
        // The lengths of the simple moving average that approximates the second moment's.
        let longest = 2.0 / (1.0 - betas[1]) - 1.0;
        let length = longest - 2.0 * step * (1.0 - correction2) / correction2;
        let step_size = learning_rate / correction1;
        let rule = if length > 5.0 {
            let known = (length - 4.0) * (length - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * length);
            let step_size = step_size * (correction2 * known).sqrt();
            optim::Adam::<false> { step_size, shrink, weight_decay, betas, unbias: 1.0, eps }
        } else {
            // A denominator of 1.
            optim::Adam::<false> { step_size, shrink, weight_decay, betas, unbias: 0.0, eps: 1.0 }
        };
        update(rule, parameter, gradient, [m, v]);
        Ok(())
    }
}
