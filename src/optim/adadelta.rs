//! The optimiser Adadelta.

use super::check_range;
use super::param_groups::GroupedOptimizer;
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule};
use crate::error::Result;
use crate::kernels::optim::{self, update};
use crate::kernels::runtime::simd::Real;
use crate::nn::Parameter;

/// Adadelta (Zeiler, 2012), as PyTorch's: the gradient is divided by the root of its running mean
/// square and multiplied by that of the updates so far, `√(u + epsilon) / √(v + epsilon)`.
pub type Adadelta = GroupedOptimizer<AdadeltaOptions>;

/// The options of [`Adadelta`].
#[derive(Clone, Debug, PartialEq)]
pub struct AdadeltaOptions {
    /// The learning rate, at least 0.
    pub learning_rate: f64,
    /// The share of the mean squares that is kept in a step, in `[0, 1)`; 0.9 by default.
    pub rho: f64,
    /// Keeps the denominator from zero, and starts the updates; 1e-6 by default.
    pub epsilon: f64,
    /// The factor of the L2 penalty, at least 0; 0 by default.
    pub weight_decay: f64,
}

impl Adadelta {
    /// Makes an optimiser on one group of parameters; PyTorch's default rate is 1.
    pub fn new(parameters: impl IntoIterator<Item = Parameter>, learning_rate: f64) -> Adadelta {
        let options = AdadeltaOptions { learning_rate, rho: 0.9, epsilon: 1e-6, weight_decay: 0.0 };
        GroupedOptimizer::with_options(parameters, options)
    }

    /// Sets rho.
    #[must_use]
    pub fn rho(self, rho: f64) -> Adadelta {
        self.set(|options| options.rho = rho)
    }

    /// Sets epsilon.
    #[must_use]
    pub fn epsilon(self, epsilon: f64) -> Adadelta {
        self.set(|options| options.epsilon = epsilon)
    }

    /// Sets the weight decay.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> Adadelta {
        self.set(|options| options.weight_decay = weight_decay)
    }
}

impl UpdateRule for AdadeltaOptions {
    const NAME: &'static str = "adadelta";
    const SLOTS: &'static [&'static str] = &["square_avg", "acc_delta"];

    fn check(&self) -> Result<()> {
        check_range("adadelta", "learning rate", self.learning_rate, f64::INFINITY)?;
        check_range("adadelta", "rho", self.rho, 1.0)?;
        check_range("adadelta", "epsilon", self.epsilon, f64::INFINITY)?;
        check_range("adadelta", "weight decay", self.weight_decay, f64::INFINITY)
    }

    fn needs(&self) -> [bool; MAX_SLOTS] {
        [true, true, false]
    }

    fn learning_rate(&mut self) -> &mut f64 {
        &mut self.learning_rate
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        None
    }

    fn visit(&mut self, visitor: &mut dyn FnMut(&'static str, &mut f64)) {
        visitor("learning_rate", &mut self.learning_rate);
        visitor("rho", &mut self.rho);
        visitor("epsilon", &mut self.epsilon);
        visitor("weight_decay", &mut self.weight_decay);
    }

    fn update<T: Real>(
        &self,
        _: &mut Progress,
        parameter: &mut [T],
        gradient: &[T],
        [square, delta, _]: [&mut [T]; MAX_SLOTS],
    ) -> Result<()> {
        let &AdadeltaOptions { learning_rate, rho, epsilon, weight_decay } = self;
        update(optim::Adadelta { learning_rate, rho, epsilon, weight_decay }, parameter, gradient, [square, delta]);
        Ok(())
    }
}
