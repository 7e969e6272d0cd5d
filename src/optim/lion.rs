//! The optimiser Lion.

use super::check_range;
use super::param_groups::GroupedOptimizer;
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule};
use crate::error::Result;
use crate::kernels::optim::{self, update};
use crate::kernels::runtime::simd::Real;
use crate::nn::Parameter;

/// Lion (Chen et al., 2023), as timm's: each step changes every element by the learning rate, in
/// the direction of the sign of a running mean of the gradient.
///
/// Its rate is usually 3 to 10 times smaller than Adam's, its weight decay as many times larger.
pub type Lion = GroupedOptimizer<LionOptions>;

/// The options of [`Lion`].
#[derive(Clone, Debug, PartialEq)]
pub struct LionOptions {
    /// The learning rate, at least 0.
    pub learning_rate: f64,
    /// The share of the mean gradient in the direction, and the share of it that is kept for the
    /// next step, each in `[0, 1)`; 0.9 and 0.99 by default.
    pub betas: [f64; 2],
    /// The weight decay, decoupled, at least 0; 0 by default.
    pub weight_decay: f64,
}

impl Lion {
    /// Makes an optimiser on one group of parameters; timm's default rate is 1e-4.
    pub fn new(parameters: impl IntoIterator<Item = Parameter>, learning_rate: f64) -> Lion {
        let options = LionOptions { learning_rate, betas: [0.9, 0.99], weight_decay: 0.0 };
        GroupedOptimizer::with_options(parameters, options)
    }

    /// Sets both betas.
    #[must_use]
    pub fn betas(self, first: f64, second: f64) -> Lion {
        self.set(|options| options.betas = [first, second])
    }

    /// Sets the weight decay.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> Lion {
        self.set(|options| options.weight_decay = weight_decay)
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
        visitor("weight_decay", &mut self.weight_decay);
    }

    fn update<T: Real>(&self, _: &mut Progress, parameter: &mut [T], gradient: &[T], [mean, ..]: [&mut [T]; MAX_SLOTS]) -> Result<()> {
        let &LionOptions { learning_rate, betas, weight_decay } = self;
        let rule = optim::Lion { learning_rate, shrink: 1.0 - learning_rate * weight_decay, betas };
        update(rule, parameter, gradient, [mean]);
        Ok(())
    }
}
