//! The optimiser RMSprop.

use super::check_range;
use super::param_groups::GroupedOptimizer;
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule, visit_flag};
use crate::error::Result;
use crate::kernels::optim::{self, update};
use crate::kernels::runtime::simd::Real;
use crate::nn::Parameter;

/// RMSprop (Hinton's Coursera lecture 6e, 2012; centered: Graves, 2013), as PyTorch's.
///
/// The gradient is divided by the root of its running mean square (of its running variance when
/// centered) plus epsilon; with momentum, the quotients go through a velocity.
pub type RmsProp = GroupedOptimizer<RmsPropOptions>;

/// The options of [`RmsProp`].
#[derive(Clone, Debug, PartialEq)]
pub struct RmsPropOptions {
    /// The learning rate, at least 0.
    pub learning_rate: f64,
    /// The share of the mean square that is kept in a step, in `[0, 1)`; 0.99 by default.
    pub alpha: f64,
    /// Keeps the denominator from zero; 1e-8 by default.
    pub epsilon: f64,
    /// The factor of the L2 penalty, at least 0; 0 by default.
    pub weight_decay: f64,
    /// The share of the velocity that is kept in a step, in `[0, 1)`; 0, the default, keeps none.
    pub momentum: f64,
    /// Whether the variance replaces the mean square.
    pub centered: bool,
}

impl RmsProp {
    /// Makes an optimiser on one group of parameters.
    pub fn new(parameters: impl IntoIterator<Item = Parameter>, learning_rate: f64) -> RmsProp {
        let options = RmsPropOptions { learning_rate, alpha: 0.99, epsilon: 1e-8, weight_decay: 0.0, momentum: 0.0, centered: false };
        GroupedOptimizer::with_options(parameters, options)
    }

    /// Sets alpha.
    #[must_use]
    pub fn alpha(self, alpha: f64) -> RmsProp {
        self.set(|options| options.alpha = alpha)
    }

    /// Sets epsilon.
    #[must_use]
    pub fn epsilon(self, epsilon: f64) -> RmsProp {
        self.set(|options| options.epsilon = epsilon)
    }

    /// Sets the weight decay.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> RmsProp {
        self.set(|options| options.weight_decay = weight_decay)
    }

    /// Sets the momentum.
    #[must_use]
    pub fn momentum(self, momentum: f64) -> RmsProp {
        self.set(|options| options.momentum = momentum)
    }

    /// Sets whether the variance replaces the mean square.
    #[must_use]
    pub fn centered(self, centered: bool) -> RmsProp {
        self.set(|options| options.centered = centered)
    }
}

impl UpdateRule for RmsPropOptions {
    const NAME: &'static str = "rmsprop";
    const SLOTS: &'static [&'static str] = &["square_avg", "grad_avg", "momentum_buffer"];

    fn check(&self) -> Result<()> {
        check_range("rmsprop", "learning rate", self.learning_rate, f64::INFINITY)?;
        check_range("rmsprop", "alpha", self.alpha, 1.0)?;
        check_range("rmsprop", "epsilon", self.epsilon, f64::INFINITY)?;
        check_range("rmsprop", "weight decay", self.weight_decay, f64::INFINITY)?;
        check_range("rmsprop", "momentum", self.momentum, 1.0)
    }

    fn needs(&self) -> [bool; MAX_SLOTS] {
        [true, self.centered, self.momentum != 0.0]
    }

    fn learning_rate(&mut self) -> &mut f64 {
        &mut self.learning_rate
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.momentum)
    }

    fn visit(&mut self, visitor: &mut dyn FnMut(&'static str, &mut f64)) {
        visitor("learning_rate", &mut self.learning_rate);
        visitor("alpha", &mut self.alpha);
        visitor("epsilon", &mut self.epsilon);
        visitor("weight_decay", &mut self.weight_decay);
        visitor("momentum", &mut self.momentum);
        visit_flag("centered", &mut self.centered, visitor);
    }

    fn update<T: Real>(
        &self,
        _: &mut Progress,
        parameter: &mut [T],
        gradient: &[T],
        [square, mean, velocity]: [&mut [T]; MAX_SLOTS],
    ) -> Result<()> {
        match (self.centered, self.momentum != 0.0) {
            (false, false) => update(self.rule::<false, false>(), parameter, gradient, [square]),
            (true, false) => update(self.rule::<true, false>(), parameter, gradient, [square, mean]),
            (false, true) => update(self.rule::<false, true>(), parameter, gradient, [square, velocity]),
            (true, true) => update(self.rule::<true, true>(), parameter, gradient, [square, mean, velocity]),
        }
        Ok(())
    }
}

impl RmsPropOptions {
    fn rule<const CENTERED: bool, const MOMENTUM: bool>(&self) -> optim::RmsProp<CENTERED, MOMENTUM> {
        let &RmsPropOptions { learning_rate, alpha, epsilon, weight_decay, momentum, .. } = self;
        optim::RmsProp { learning_rate, weight_decay, alpha, epsilon, momentum }
    }
}
