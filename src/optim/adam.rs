//! The optimisers Adam and AdamW.

use super::check_moments;
use super::param_groups::GroupedOptimizer;
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule, visit_flag};
use crate::error::Result;
use crate::kernels::optim::{self, update};
use crate::kernels::runtime::simd::Real;
use crate::nn::Parameter;

/// Adam (Kingma & Ba, 2015), as PyTorch's; weight decay is an L2 penalty, added to the gradient.
///
/// With `m` and `v` the running means of the gradient and its square, both corrected for starting
/// at zero: `p ← p - learning_rate · m / (√v + epsilon)`. AMSGrad (Reddi et al., 2018) uses the
/// largest `v` so far.
pub type Adam = GroupedOptimizer<AdamOptions<false>>;

/// Adam with decoupled weight decay (Loshchilov & Hutter, 2019), as PyTorch's `AdamW`: `p` first
/// shrinks by `learning_rate · weight_decay`, which is 0.01 by default, and the moments do not
/// contain it.
pub type AdamW = GroupedOptimizer<AdamOptions<true>>;

/// The options of [`Adam`] and [`AdamW`].
#[derive(Clone, Debug, PartialEq)]
pub struct AdamOptions<const DECOUPLED: bool> {
    /// The learning rate, at least 0.
    pub learning_rate: f64,
    /// The share of the two moments that is kept in a step, each in `[0, 1)`; 0.9 and 0.999 by
    /// default.
    pub betas: [f64; 2],
    /// Keeps the denominator from zero; 1e-8 by default.
    pub epsilon: f64,
    /// The weight decay, at least 0; 0 by default for [`Adam`], 0.01 for [`AdamW`].
    pub weight_decay: f64,
    /// Whether to use the largest second moment so far.
    pub amsgrad: bool,
}

impl<const DECOUPLED: bool> GroupedOptimizer<AdamOptions<DECOUPLED>> {
    /// Makes an optimiser on one group of parameters.
    pub fn new(parameters: impl IntoIterator<Item = Parameter>, learning_rate: f64) -> Self {
        let weight_decay = if DECOUPLED { 0.01 } else { 0.0 };
        let options = AdamOptions { learning_rate, betas: [0.9, 0.999], epsilon: 1e-8, weight_decay, amsgrad: false };
        GroupedOptimizer::with_options(parameters, options)
    }

    /// Sets both betas.
    #[must_use]
    pub fn betas(self, first: f64, second: f64) -> Self {
        self.set(|options| options.betas = [first, second])
    }

    /// Sets epsilon.
    #[must_use]
    pub fn epsilon(self, epsilon: f64) -> Self {
        self.set(|options| options.epsilon = epsilon)
    }

    /// Sets the weight decay.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> Self {
        self.set(|options| options.weight_decay = weight_decay)
    }

    /// Sets whether to use the largest second moment so far (AMSGrad).
    #[must_use]
    pub fn amsgrad(self, amsgrad: bool) -> Self {
        self.set(|options| options.amsgrad = amsgrad)
    }
}

impl<const DECOUPLED: bool> UpdateRule for AdamOptions<DECOUPLED> {
    const NAME: &'static str = if DECOUPLED { "adamw" } else { "adam" };
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];

    fn check(&self) -> Result<()> {
        check_moments(Self::NAME, self.learning_rate, self.betas, self.epsilon, self.weight_decay)
    }

    fn needs(&self) -> [bool; MAX_SLOTS] {
        [true, true, self.amsgrad]
    }

    fn learning_rate(&mut self) -> &mut f64 {
        &mut self.learning_rate
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.betas[0])
    }

    fn visit(&mut self, visitor: &mut dyn FnMut(&'static str, &mut f64)) {
        visitor("learning_rate", &mut self.learning_rate);
        visitor("beta1", &mut self.betas[0]);
        visitor("beta2", &mut self.betas[1]);
        visitor("epsilon", &mut self.epsilon);
        visitor("weight_decay", &mut self.weight_decay);
        visit_flag("amsgrad", &mut self.amsgrad, visitor);
    }

    fn update<T: Real>(
        &self,
        progress: &mut Progress,
        parameter: &mut [T],
        gradient: &[T],
        [m, v, largest]: [&mut [T]; MAX_SLOTS],
    ) -> Result<()> {
        let &AdamOptions { learning_rate, betas, epsilon, weight_decay, amsgrad } = self;
        let [correction1, correction2] = betas.map(|beta| 1.0 - beta.powf(progress.step as f64));
        let (step_size, unbias) = (learning_rate / correction1, 1.0 / correction2.sqrt());
        let (shrink, weight_decay) = if DECOUPLED { (1.0 - learning_rate * weight_decay, 0.0) } else { (1.0, weight_decay) };
        if amsgrad {
            let rule = optim::Adam::<true> { step_size, shrink, weight_decay, betas, unbias, epsilon };
            update(rule, parameter, gradient, [m, v, largest]);
        } else {
            let rule = optim::Adam::<false> { step_size, shrink, weight_decay, betas, unbias, epsilon };
            update(rule, parameter, gradient, [m, v]);
        }
        Ok(())
    }
}
