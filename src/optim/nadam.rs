//! The optimiser NAdam.

use super::param_groups::GroupedOptimizer;
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule, visit_flag};
use super::{check_moments, check_range};
use crate::error::Result;
use crate::kernels::optim::{self, update};
use crate::kernels::runtime::simd::Real;
use crate::nn::Parameter;

/// NAdam (Dozat, 2016), as PyTorch's: Adam with Nesterov's momentum, whose first beta rises from
/// half of its value as `beta1 · (1 - 0.96^(step · momentum_decay) / 2)`.
pub type NAdam = GroupedOptimizer<NAdamOptions>;

/// The options of [`NAdam`].
#[derive(Clone, Debug, PartialEq)]
pub struct NAdamOptions {
    /// The learning rate, at least 0.
    pub learning_rate: f64,
    /// The share of the two moments that is kept in a step, each in `[0, 1)`; 0.9 and 0.999 by
    /// default.
    pub betas: [f64; 2],
    /// Keeps the denominator from zero; 1e-8 by default.
    pub epsilon: f64,
    /// The weight decay, at least 0; 0 by default.
    pub weight_decay: f64,
    /// How fast the first beta rises, at least 0; 4e-3 by default.
    pub momentum_decay: f64,
    /// Whether the parameter shrinks by `learning_rate · weight_decay` first, instead of an L2
    /// penalty.
    pub decoupled_weight_decay: bool,
}

impl NAdam {
    /// Makes an optimiser on one group of parameters; PyTorch's default rate is 2e-3.
    pub fn new(parameters: impl IntoIterator<Item = Parameter>, learning_rate: f64) -> NAdam {
        let options = NAdamOptions {
            learning_rate,
            betas: [0.9, 0.999],
            epsilon: 1e-8,
            weight_decay: 0.0,
            momentum_decay: 4e-3,
            decoupled_weight_decay: false,
        };
        GroupedOptimizer::with_options(parameters, options)
    }

    /// Sets both betas.
    #[must_use]
    pub fn betas(self, first: f64, second: f64) -> NAdam {
        self.set(|options| options.betas = [first, second])
    }

    /// Sets epsilon.
    #[must_use]
    pub fn epsilon(self, epsilon: f64) -> NAdam {
        self.set(|options| options.epsilon = epsilon)
    }

    /// Sets the weight decay.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> NAdam {
        self.set(|options| options.weight_decay = weight_decay)
    }

    /// Sets how fast the first beta rises.
    #[must_use]
    pub fn momentum_decay(self, decay: f64) -> NAdam {
        self.set(|options| options.momentum_decay = decay)
    }

    /// Sets whether weight decay is decoupled: it shrinks the parameter instead of adding to the
    /// gradient.
    #[must_use]
    pub fn decoupled_weight_decay(self, decoupled: bool) -> NAdam {
        self.set(|options| options.decoupled_weight_decay = decoupled)
    }
}

impl UpdateRule for NAdamOptions {
    const NAME: &'static str = "nadam";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    /// The product of the first betas so far.
    const NUMBER: Option<&'static str> = Some("mu_product");

    fn check(&self) -> Result<()> {
        check_moments("nadam", self.learning_rate, self.betas, self.epsilon, self.weight_decay)?;
        check_range("nadam", "momentum decay", self.momentum_decay, f64::INFINITY)
    }

    fn needs(&self) -> [bool; MAX_SLOTS] {
        [true, true, false]
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
        visitor("momentum_decay", &mut self.momentum_decay);
        visit_flag("decoupled_weight_decay", &mut self.decoupled_weight_decay, visitor);
    }

    fn update<T: Real>(
        &self,
        progress: &mut Progress,
        parameter: &mut [T],
        gradient: &[T],
        [m, v, _]: [&mut [T]; MAX_SLOTS],
    ) -> Result<()> {
        let &NAdamOptions { learning_rate, betas, epsilon, weight_decay, momentum_decay, decoupled_weight_decay } = self;
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
            epsilon,
        };
        update(rule, parameter, gradient, [m, v]);
        Ok(())
    }
}
