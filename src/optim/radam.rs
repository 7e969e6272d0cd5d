//! The optimiser RAdam.

use super::check_moments;
use super::param_groups::GroupedOptimizer;
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule, visit_flag};
use crate::error::Result;
use crate::kernels::optim::{self, update};
use crate::kernels::runtime::simd::Real;
use crate::nn::Parameter;

/// RAdam (Liu et al., 2020), as PyTorch's: Adam whose step is scaled by how well the second moment
/// is known yet; the first steps, when it is not, use the first moment alone.
pub type RAdam = GroupedOptimizer<RAdamOptions>;

/// The options of [`RAdam`].
#[derive(Clone, Debug, PartialEq)]
pub struct RAdamOptions {
    /// The learning rate, at least 0.
    pub learning_rate: f64,
    /// The share of the two moments that is kept in a step, each in `[0, 1)`; 0.9 and 0.999 by
    /// default.
    pub betas: [f64; 2],
    /// Keeps the denominator from zero; 1e-8 by default.
    pub epsilon: f64,
    /// The weight decay, at least 0; 0 by default.
    pub weight_decay: f64,
    /// Whether the parameter shrinks by `learning_rate · weight_decay` first, instead of an L2
    /// penalty.
    pub decoupled_weight_decay: bool,
}

impl RAdam {
    /// Makes an optimiser on one group of parameters; PyTorch's default rate is 1e-3.
    pub fn new(parameters: impl IntoIterator<Item = Parameter>, learning_rate: f64) -> RAdam {
        let options = RAdamOptions { learning_rate, betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 0.0, decoupled_weight_decay: false };
        GroupedOptimizer::with_options(parameters, options)
    }

    /// Sets both betas.
    #[must_use]
    pub fn betas(self, first: f64, second: f64) -> RAdam {
        self.set(|options| options.betas = [first, second])
    }

    /// Sets epsilon.
    #[must_use]
    pub fn epsilon(self, epsilon: f64) -> RAdam {
        self.set(|options| options.epsilon = epsilon)
    }

    /// Sets the weight decay.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> RAdam {
        self.set(|options| options.weight_decay = weight_decay)
    }

    /// Sets whether weight decay is decoupled: it shrinks the parameter instead of adding to the
    /// gradient.
    #[must_use]
    pub fn decoupled_weight_decay(self, decoupled: bool) -> RAdam {
        self.set(|options| options.decoupled_weight_decay = decoupled)
    }
}

impl UpdateRule for RAdamOptions {
    const NAME: &'static str = "radam";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];

    fn check(&self) -> Result<()> {
        check_moments("radam", self.learning_rate, self.betas, self.epsilon, self.weight_decay)
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
        visit_flag("decoupled_weight_decay", &mut self.decoupled_weight_decay, visitor);
    }

    fn update<T: Real>(
        &self,
        progress: &mut Progress,
        parameter: &mut [T],
        gradient: &[T],
        [m, v, _]: [&mut [T]; MAX_SLOTS],
    ) -> Result<()> {
        let &RAdamOptions { learning_rate, betas, epsilon, weight_decay, decoupled_weight_decay } = self;
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
            optim::Adam::<false> { step_size, shrink, weight_decay, betas, unbias: 1.0, epsilon }
        } else {
            // A denominator of 1.
            optim::Adam::<false> { step_size, shrink, weight_decay, betas, unbias: 0.0, epsilon: 1.0 }
        };
        update(rule, parameter, gradient, [m, v]);
        Ok(())
    }
}
