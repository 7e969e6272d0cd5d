//! The optimiser Adagrad.

use super::check_range;
use super::param_groups::GroupedOptimizer;
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule};
use crate::error::Result;
use crate::kernels::optim::{self, update};
use crate::kernels::runtime::simd::Real;
use crate::nn::Parameter;

/// Adagrad (Duchi et al., 2011), as PyTorch's: the gradient is divided by the root of the sum of
/// all its squares so far, plus epsilon.
///
/// Step `t` (from 1) has the learning rate `learning_rate / (1 + (t - 1) · learning_rate_decay)`.
pub type Adagrad = GroupedOptimizer<AdagradOptions>;

/// The options of [`Adagrad`].
#[derive(Clone, Debug, PartialEq)]
pub struct AdagradOptions {
    /// The learning rate, at least 0.
    pub learning_rate: f64,
    /// The rate at which the learning rate falls, at least 0; 0 by default.
    pub learning_rate_decay: f64,
    /// The factor of the L2 penalty, at least 0; 0 by default.
    pub weight_decay: f64,
    /// The initial value of the sums, at least 0; 0 by default. It is used at the first gradient of
    /// a parameter.
    pub initial_accumulator: f64,
    /// Keeps the denominator from zero; 1e-10 by default.
    pub epsilon: f64,
}

impl Adagrad {
    /// Makes an optimiser on one group of parameters.
    pub fn new(parameters: impl IntoIterator<Item = Parameter>, learning_rate: f64) -> Adagrad {
        let (learning_rate_decay, weight_decay, initial_accumulator, epsilon) = (0.0, 0.0, 0.0, 1e-10);
        let options = AdagradOptions { learning_rate, learning_rate_decay, weight_decay, initial_accumulator, epsilon };
        GroupedOptimizer::with_options(parameters, options)
    }

    /// Sets how fast the learning rate falls.
    #[must_use]
    pub fn lr_decay(self, decay: f64) -> Adagrad {
        self.set(|options| options.learning_rate_decay = decay)
    }

    /// Sets the weight decay.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> Adagrad {
        self.set(|options| options.weight_decay = weight_decay)
    }

    /// Sets the initial value of the sums.
    #[must_use]
    pub fn initial_accumulator(self, value: f64) -> Adagrad {
        self.set(|options| options.initial_accumulator = value)
    }

    /// Sets epsilon.
    #[must_use]
    pub fn epsilon(self, epsilon: f64) -> Adagrad {
        self.set(|options| options.epsilon = epsilon)
    }
}

impl UpdateRule for AdagradOptions {
    const NAME: &'static str = "adagrad";
    const SLOTS: &'static [&'static str] = &["sum"];

    fn check(&self) -> Result<()> {
        check_range("adagrad", "learning rate", self.learning_rate, f64::INFINITY)?;
        check_range("adagrad", "learning rate decay", self.learning_rate_decay, f64::INFINITY)?;
        check_range("adagrad", "weight decay", self.weight_decay, f64::INFINITY)?;
        check_range("adagrad", "initial accumulator", self.initial_accumulator, f64::INFINITY)?;
        check_range("adagrad", "epsilon", self.epsilon, f64::INFINITY)
    }

    fn needs(&self) -> [bool; MAX_SLOTS] {
        [true, false, false]
    }

    fn initial(&self) -> f64 {
        self.initial_accumulator
    }

    fn learning_rate(&mut self) -> &mut f64 {
        &mut self.learning_rate
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        None
    }

    fn visit(&mut self, visitor: &mut dyn FnMut(&'static str, &mut f64)) {
        visitor("learning_rate", &mut self.learning_rate);
        visitor("learning_rate_decay", &mut self.learning_rate_decay);
        visitor("weight_decay", &mut self.weight_decay);
        visitor("initial_accumulator", &mut self.initial_accumulator);
        visitor("epsilon", &mut self.epsilon);
    }

    fn update<T: Real>(
        &self,
        progress: &mut Progress,
        parameter: &mut [T],
        gradient: &[T],
        [sum, ..]: [&mut [T]; MAX_SLOTS],
    ) -> Result<()> {
        let learning_rate = self.learning_rate / (1.0 + (progress.step as f64 - 1.0) * self.learning_rate_decay);
        let rule = optim::Adagrad { learning_rate, weight_decay: self.weight_decay, epsilon: self.epsilon };
        update(rule, parameter, gradient, [sum]);
        Ok(())
    }
}
