//! The optimiser Lamb.

use super::check_moments;
use super::param_groups::GroupedOptimizer;
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule, options};
use crate::error::{Error, Result};
use crate::kernels::optim::{self, norm, update};
use crate::kernels::runtime::allocator::AlignedVec;
use crate::kernels::runtime::simd::Real;

/// LAMB (You et al., 2020), as timm's: Adam whose step is scaled for each parameter by the trust
/// ratio `‖p‖ / ‖step‖`, for large batches.
///
/// The gradients of all parameters together are scaled down to a norm of at most
/// [`max_grad_norm`](Lamb::max_grad_norm) first, 1 by default. Without weight decay the ratio is 1,
/// unless [`always_adapt`](Lamb::always_adapt) is set.
pub type Lamb = GroupedOptimizer<LambOptions>;

options! {
    /// The options of [`Lamb`].
    LambOptions
    /// Makes an optimiser on one group of parameters; timm's default rate is 1e-3.
    new {
        /// The share of the two moments that is kept in a step, each in `[0, 1)`; 0.9 and 0.999 by
        /// default.
        betas: [f64; 2] = [0.9, 0.999],
        /// Keeps the denominator from zero; 1e-6 by default.
        eps: f64 = 1e-6,
        /// The weight decay, at least 0; 0.01 by default.
        weight_decay: f64 = 0.01,
        /// The largest norm of all gradients together, above 0; infinity does not limit it.
        max_grad_norm: f64 = 1.0,
        /// Whether the parameter shrinks by `learning_rate · weight_decay` first, instead of being
        /// part of the step.
        decoupled_weight_decay: bool = false,
        /// Whether the trust ratio is at most 1 (LAMBC).
        trust_clip: bool = false,
        /// Whether parameters without weight decay are scaled too.
        always_adapt: bool = false,
    }
}

impl UpdateRule for LambOptions {
    const NAME: &'static str = "lamb";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];

    fn check(&self) -> Result<()> {
        check_moments("lamb", self.learning_rate, self.betas, self.eps, self.weight_decay)?;
        if self.max_grad_norm > 0.0 {
            return Ok(());
        }
        Err(Error::argument("lamb", format!("the largest norm of the gradients must be above 0, got {}", self.max_grad_norm)))
    }

    fn needs(&self) -> [bool; MAX_SLOTS] {
        [true, true, false]
    }

    fn max_norm(&self) -> f64 {
        self.max_grad_norm
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
        let &LambOptions { learning_rate, betas, eps, weight_decay, .. } = self;
        let mut direction = AlignedVec::<T>::try_uninit(parameter.len())?;
        let [correction1, correction2] = betas.map(|beta| 1.0 - beta.powf(progress.step as f64));
        let decoupled = self.decoupled_weight_decay;
        let rule = optim::Lamb {
            clip: progress.clip,
            betas,
            unbias_first: 1.0 / correction1,
            unbias: 1.0 / correction2.sqrt(),
            eps,
            shrink: if decoupled { 1.0 - learning_rate * weight_decay } else { 1.0 },
            weight_decay: if decoupled { 0.0 } else { weight_decay },
        };
        update(rule, parameter, gradient, [m, v, &mut direction]);
        let adapt = weight_decay != 0.0 || self.always_adapt;
        let ratio = if adapt { self.trust_ratio(norm(parameter), norm(&direction)) } else { 1.0 };
        let (learning_rate, weight_decay, momentum, gain, nesterov) = (learning_rate * ratio, 0.0, 0.0, 1.0, false);
        update(optim::Sgd::<false> { learning_rate, weight_decay, momentum, gain, nesterov }, parameter, &direction, []);
        Ok(())
    }
}

impl LambOptions {
    fn trust_ratio(&self, parameter: f64, direction: f64) -> f64 {
        // A norm of zero, or one that is not a number, gives no ratio.
        let ratio = if parameter > 0.0 && direction > 0.0 { parameter / direction } else { 1.0 };
        if self.trust_clip { ratio.min(1.0) } else { ratio }
    }
}
