//! The optimiser Lars.

use super::param_groups::GroupedOptimizer;
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule, visit_flag};
use super::{check_range, check_velocity};
use crate::error::Result;
use crate::kernels::optim::{self, norm, update};
use crate::kernels::runtime::simd::Real;
use crate::nn::Parameter;

/// LARS (You et al., 2017), as timm's: gradient descent whose step is scaled for each parameter by
/// the trust ratio `trust_coefficient · ‖p‖ / (‖g‖ + weight_decay · ‖p‖ + epsilon)`, for large
/// batches.
///
/// Without weight decay the ratio is 1, unless [`always_adapt`](Lars::always_adapt) is set; so that
/// biases and normalisations, which have none, take plain steps.
pub type Lars = GroupedOptimizer<LarsOptions>;

/// The options of [`Lars`].
#[derive(Clone, Debug, PartialEq)]
pub struct LarsOptions {
    /// The learning rate, at least 0.
    pub learning_rate: f64,
    /// The share of the velocity that is kept in a step, in `[0, 1)`; 0, the default, keeps none.
    pub momentum: f64,
    /// The share of the gradient that does not enter the velocity, in `[0, 1]`; 0 by default.
    pub dampening: f64,
    /// The factor of the L2 penalty, at least 0; 0 by default.
    pub weight_decay: f64,
    /// Whether to use Nesterov's momentum.
    pub nesterov: bool,
    /// The factor of the trust ratio, at least 0; 0.001 by default.
    pub trust_coefficient: f64,
    /// Keeps the denominator from zero; 1e-8 by default.
    pub epsilon: f64,
    /// Whether the step is at most a plain one (LARC).
    pub trust_clip: bool,
    /// Whether parameters without weight decay are scaled too.
    pub always_adapt: bool,
}

impl Lars {
    /// Makes an optimiser on one group of parameters; timm's default rate is 1.
    pub fn new(parameters: impl IntoIterator<Item = Parameter>, learning_rate: f64) -> Lars {
        let options = LarsOptions {
            learning_rate,
            momentum: 0.0,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
            trust_coefficient: 0.001,
            epsilon: 1e-8,
            trust_clip: false,
            always_adapt: false,
        };
        GroupedOptimizer::with_options(parameters, options)
    }

    /// Sets the momentum.
    #[must_use]
    pub fn momentum(self, momentum: f64) -> Lars {
        self.set(|options| options.momentum = momentum)
    }

    /// Sets the dampening.
    #[must_use]
    pub fn dampening(self, dampening: f64) -> Lars {
        self.set(|options| options.dampening = dampening)
    }

    /// Sets the weight decay.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> Lars {
        self.set(|options| options.weight_decay = weight_decay)
    }

    /// Sets whether to use Nesterov's momentum.
    #[must_use]
    pub fn nesterov(self, nesterov: bool) -> Lars {
        self.set(|options| options.nesterov = nesterov)
    }

    /// Sets the factor of the trust ratio.
    #[must_use]
    pub fn trust_coefficient(self, coefficient: f64) -> Lars {
        self.set(|options| options.trust_coefficient = coefficient)
    }

    /// Sets epsilon.
    #[must_use]
    pub fn epsilon(self, epsilon: f64) -> Lars {
        self.set(|options| options.epsilon = epsilon)
    }

    /// Sets whether the step is at most a plain one (LARC): the ratio, divided by the rate, is at
    /// most 1.
    #[must_use]
    pub fn trust_clip(self, clip: bool) -> Lars {
        self.set(|options| options.trust_clip = clip)
    }

    /// Sets whether parameters without weight decay are scaled too.
    #[must_use]
    pub fn always_adapt(self, always: bool) -> Lars {
        self.set(|options| options.always_adapt = always)
    }
}

impl UpdateRule for LarsOptions {
    const NAME: &'static str = "lars";
    const SLOTS: &'static [&'static str] = &["momentum_buffer"];

    fn check(&self) -> Result<()> {
        check_range("lars", "learning rate", self.learning_rate, f64::INFINITY)?;
        check_range("lars", "weight decay", self.weight_decay, f64::INFINITY)?;
        check_range("lars", "the trust coefficient", self.trust_coefficient, f64::INFINITY)?;
        check_range("lars", "epsilon", self.epsilon, f64::INFINITY)?;
        check_velocity("lars", self.momentum, self.dampening, self.nesterov)
    }

    fn needs(&self) -> [bool; MAX_SLOTS] {
        [self.momentum != 0.0, false, false]
    }

    fn learning_rate(&mut self) -> &mut f64 {
        &mut self.learning_rate
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.momentum)
    }

    fn visit(&mut self, visitor: &mut dyn FnMut(&'static str, &mut f64)) {
        visitor("learning_rate", &mut self.learning_rate);
        visitor("momentum", &mut self.momentum);
        visitor("dampening", &mut self.dampening);
        visitor("weight_decay", &mut self.weight_decay);
        visit_flag("nesterov", &mut self.nesterov, visitor);
        visitor("trust_coefficient", &mut self.trust_coefficient);
        visitor("epsilon", &mut self.epsilon);
        visit_flag("trust_clip", &mut self.trust_clip, visitor);
        visit_flag("always_adapt", &mut self.always_adapt, visitor);
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
        let ratio = self.trust_coefficient * parameter / (gradient + parameter * self.weight_decay + self.epsilon);
        if self.trust_clip { (ratio / self.learning_rate).min(1.0) } else { ratio }
    }
}
