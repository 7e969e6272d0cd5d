//! The optimisers Adam and AdamW.

use super::check_moments;
use super::param_groups::GroupedOptimizer;
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule, options};
use crate::error::Result;
use crate::kernels::optim::{self, update};
use crate::kernels::runtime::simd::Real;

/// Adam (Kingma & Ba, 2015), as PyTorch's; weight decay is an L2 penalty, added to the gradient.
///
/// With `m` and `v` the running means of the gradient and its square, both corrected for starting
/// at zero: `p ← p - learning_rate · m / (√v + eps)`. AMSGrad (Reddi et al., 2018) uses the
/// largest `v` so far.
pub type Adam = GroupedOptimizer<AdamOptions<false>>;

/// Adam with decoupled weight decay (Loshchilov & Hutter, 2019), as PyTorch's `AdamW`: `p` first
/// shrinks by `learning_rate · weight_decay`, which is 0.01 by default, and the moments do not
/// contain it.
pub type AdamW = GroupedOptimizer<AdamOptions<true>>;

options! {
    /// The options of [`Adam`] and [`AdamW`].
    AdamOptions<const DECOUPLED>
    /// Makes an optimiser on one group of parameters.
    new {
        /// The share of the two moments that is kept in a step, each in `[0, 1)`; 0.9 and 0.999 by
        /// default.
        betas: [f64; 2] = [0.9, 0.999],
        /// Keeps the denominator from zero; 1e-8 by default.
        eps: f64 = 1e-8,
        /// The weight decay, at least 0; 0 by default for [`Adam`], 0.01 for [`AdamW`].
        weight_decay: f64 = if DECOUPLED { 0.01 } else { 0.0 },
        /// Whether to use the largest second moment so far.
        amsgrad: bool = false,
    }
}

impl<const DECOUPLED: bool> UpdateRule for AdamOptions<DECOUPLED> {
    const NAME: &'static str = if DECOUPLED { "adamw" } else { "adam" };
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];

    fn check(&self) -> Result<()> {
        check_moments(Self::NAME, self.learning_rate, self.betas, self.eps, self.weight_decay)
    }

    fn needs(&self) -> [bool; MAX_SLOTS] {
        [true, true, self.amsgrad]
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.betas[0])
    }

    fn update<T: Real>(
        &self,
        progress: &mut Progress,
        parameter: &mut [T],
        gradient: &[T],
        [m, v, largest]: [&mut [T]; MAX_SLOTS],
    ) -> Result<()> {
        let &AdamOptions { learning_rate, betas, eps, weight_decay, amsgrad, .. } = self;
        let [correction1, correction2] = betas.map(|beta| 1.0 - beta.powf(progress.step as f64));
        let (step_size, unbias) = (learning_rate / correction1, 1.0 / correction2.sqrt());
        let (shrink, weight_decay) = if DECOUPLED { (1.0 - learning_rate * weight_decay, 0.0) } else { (1.0, weight_decay) };
        if amsgrad {
            let rule = optim::Adam::<true> { step_size, shrink, weight_decay, betas, unbias, eps };
            update(rule, parameter, gradient, [m, v, largest]);
        } else {
            let rule = optim::Adam::<false> { step_size, shrink, weight_decay, betas, unbias, eps };
            update(rule, parameter, gradient, [m, v]);
        }
        Ok(())
    }
}
