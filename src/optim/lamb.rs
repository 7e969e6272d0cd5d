//! The optimiser Lamb.

use super::check_moments;
use super::param_groups::GroupedOptimizer;
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule, visit_flag};
use crate::error::{Error, Result};
use crate::kernels::optim::{self, norm, update};
use crate::kernels::runtime::allocator::Buffer;
use crate::kernels::runtime::simd::Real;
use crate::nn::Parameter;

/// LAMB (You et al., 2020), as timm's: Adam whose step is scaled for each parameter by the trust
/// ratio `‖p‖ / ‖step‖`, for large batches.
///
/// The gradients of all parameters together are scaled down to a norm of at most
/// [`max_grad_norm`](Lamb::max_grad_norm) first, 1 by default. Without weight decay the ratio is 1,
/// unless [`always_adapt`](Lamb::always_adapt) is set.
pub type Lamb = GroupedOptimizer<LambOptions>;

/// The options of [`Lamb`].
#[derive(Clone, Debug, PartialEq)]
pub struct LambOptions {
    /// The learning rate, at least 0.
    pub learning_rate: f64,
    /// The share of the two moments that is kept in a step, each in `[0, 1)`; 0.9 and 0.999 by
    /// default.
    pub betas: [f64; 2],
    /// Keeps the denominator from zero; 1e-6 by default.
    pub epsilon: f64,
    /// The weight decay, at least 0; 0.01 by default.
    pub weight_decay: f64,
    /// The largest norm of all gradients together, above 0; infinity does not limit it.
    pub max_grad_norm: f64,
    /// Whether the parameter shrinks by `learning_rate · weight_decay` first, instead of being part
    /// of the step.
    pub decoupled_weight_decay: bool,
    /// Whether the trust ratio is at most 1 (LAMBC).
    pub trust_clip: bool,
    /// Whether parameters without weight decay are scaled too.
    pub always_adapt: bool,
}

impl Lamb {
    /// Makes an optimiser on one group of parameters; timm's default rate is 1e-3.
    pub fn new(parameters: impl IntoIterator<Item = Parameter>, learning_rate: f64) -> Lamb {
        let options = LambOptions {
            learning_rate,
            betas: [0.9, 0.999],
            epsilon: 1e-6,
            weight_decay: 0.01,
            max_grad_norm: 1.0,
            decoupled_weight_decay: false,
            trust_clip: false,
            always_adapt: false,
        };
        GroupedOptimizer::with_options(parameters, options)
    }

    /// Sets both betas.
    #[must_use]
    pub fn betas(self, first: f64, second: f64) -> Lamb {
        self.set(|options| options.betas = [first, second])
    }

    /// Sets epsilon.
    #[must_use]
    pub fn epsilon(self, epsilon: f64) -> Lamb {
        self.set(|options| options.epsilon = epsilon)
    }

    /// Sets the weight decay.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> Lamb {
        self.set(|options| options.weight_decay = weight_decay)
    }

    /// Sets the largest norm of all gradients together; infinity does not limit it.
    #[must_use]
    pub fn max_grad_norm(self, norm: f64) -> Lamb {
        self.set(|options| options.max_grad_norm = norm)
    }

    /// Sets whether weight decay is decoupled: it shrinks the parameter instead of adding to the
    /// step.
    #[must_use]
    pub fn decoupled_weight_decay(self, decoupled: bool) -> Lamb {
        self.set(|options| options.decoupled_weight_decay = decoupled)
    }

    /// Sets whether the trust ratio is at most 1 (LAMBC).
    #[must_use]
    pub fn trust_clip(self, clip: bool) -> Lamb {
        self.set(|options| options.trust_clip = clip)
    }

    /// Sets whether parameters without weight decay are scaled too.
    #[must_use]
    pub fn always_adapt(self, always: bool) -> Lamb {
        self.set(|options| options.always_adapt = always)
    }
}

impl UpdateRule for LambOptions {
    const NAME: &'static str = "lamb";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];

    fn check(&self) -> Result<()> {
        check_moments("lamb", self.learning_rate, self.betas, self.epsilon, self.weight_decay)?;
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
        visitor("max_grad_norm", &mut self.max_grad_norm);
        visit_flag("decoupled_weight_decay", &mut self.decoupled_weight_decay, visitor);
        visit_flag("trust_clip", &mut self.trust_clip, visitor);
        visit_flag("always_adapt", &mut self.always_adapt, visitor);
    }

    fn update<T: Real>(
        &self,
        progress: &mut Progress,
        parameter: &mut [T],
        gradient: &[T],
        [m, v, _]: [&mut [T]; MAX_SLOTS],
    ) -> Result<()> {
        let &LambOptions { learning_rate, betas, epsilon, weight_decay, .. } = self;
        let mut direction = Buffer::<T>::try_uncleared(parameter.len())?;
        let [correction1, correction2] = betas.map(|beta| 1.0 - beta.powf(progress.step as f64));
        let decoupled = self.decoupled_weight_decay;
        let rule = optim::Lamb {
            clip: progress.clip,
            betas,
            unbias_first: 1.0 / correction1,
            unbias: 1.0 / correction2.sqrt(),
            epsilon,
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
