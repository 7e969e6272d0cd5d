//! The optimiser Lars.

use super::param_groups::GroupedOptimizer;
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule, options};
use super::{check_range, check_velocity};
use crate::error::Result;
use crate::kernels::optim::{self, norm, update};
use crate::kernels::runtime::simd::Real;

/// LARS (You et al., 2017), as timm's: gradient descent whose step is scaled for each parameter by
/// the trust ratio `trust_coefficient · ‖p‖ / (‖g‖ + weight_decay · ‖p‖ + eps)`, for large
/// batches.
///
/// Without weight decay the ratio is 1, unless [`always_adapt`](Lars::always_adapt) is set; so that
/// biases and normalisations, which have none, take plain steps.
pub type Lars = GroupedOptimizer<LarsOptions>;

options! {
    /// The options of [`Lars`].
    LarsOptions
    /// Makes an optimiser on one group of parameters; timm's default rate is 1.
    new {
        /// The share of the velocity that is kept in a step, in `[0, 1)`; 0, the default, keeps
        /// none.
        momentum: f64 = 0.0,
        /// The share of the gradient that does not enter the velocity, in `[0, 1]`; 0 by default.
        dampening: f64 = 0.0,
        /// The factor of the L2 penalty, at least 0; 0 by default.
        weight_decay: f64 = 0.0,
        /// Whether to use Nesterov's momentum.
        nesterov: bool = false,
        /// The factor of the trust ratio, at least 0; 0.001 by default.
        trust_coefficient: f64 = 0.001,
        /// Keeps the denominator from zero; 1e-8 by default.
        eps: f64 = 1e-8,
        /// Whether the step is at most a plain one (LARC).
        trust_clip: bool = false,
        /// Whether parameters without weight decay are scaled too.
        always_adapt: bool = false,
    }
}

impl UpdateRule for LarsOptions {
    const NAME: &'static str = "lars";
    const SLOTS: &'static [&'static str] = &["momentum_buffer"];

    fn check(&self) -> Result<()> {
        check_range("lars", "learning rate", self.learning_rate, f64::INFINITY)?;
        check_range("lars", "weight decay", self.weight_decay, f64::INFINITY)?;
        check_range("lars", "the trust coefficient", self.trust_coefficient, f64::INFINITY)?;
        check_range("lars", "eps", self.eps, f64::INFINITY)?;
        check_velocity("lars", self.momentum, self.dampening, self.nesterov)
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
        let &LarsOptions { learning_rate, momentum, dampening, weight_decay, nesterov, .. } = self;
        let adapt = weight_decay != 0.0 || self.always_adapt;
        let trust_ratio = if adapt { self.trust_ratio(norm(parameter), norm(gradient)) } else { 1.0 };
        let gain = if progress.fresh { 1.0 } else { 1.0 - dampening };
        if momentum == 0.0 {
            let sgd = optim::Sgd::<false> { learning_rate, weight_decay: 0.0, momentum, gain, nesterov };
            update(optim::Lars { trust_ratio, weight_decay, sgd }, parameter, gradient, []);
        } else {
            let sgd = optim::Sgd::<true> { learning_rate, weight_decay: 0.0, momentum, gain, nesterov };
            update(optim::Lars { trust_ratio, weight_decay, sgd }, parameter, gradient, [velocity]);
        }
        Ok(())
    }
}

impl LarsOptions {
    fn trust_ratio(&self, parameter: f64, gradient: f64) -> f64 {
        // A norm of zero, or one that is not a number, gives no ratio.
        if !(parameter > 0.0 && gradient > 0.0) {
            return if self.trust_clip { (1.0 / self.learning_rate).min(1.0) } else { 1.0 };
        }
        let ratio = self.trust_coefficient * parameter / (gradient + parameter * self.weight_decay + self.eps);
        if self.trust_clip { (ratio / self.learning_rate).min(1.0) } else { ratio }
    }
}
