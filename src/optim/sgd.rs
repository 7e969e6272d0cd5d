//! Stochastic gradient descent.

use super::param_groups::GroupedOptimizer;
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule, visit_flag};
use super::{check_range, check_velocity};
use crate::error::Result;
use crate::kernels::optim::{self, update};
use crate::kernels::runtime::simd::Real;
use crate::nn::Parameter;

/// Stochastic gradient descent with momentum (Sutskever et al., 2013), as PyTorch's `SGD`.
///
/// With `g` the gradient plus `weight_decay · p`: `v ← momentum · v + (1 - dampening) · g` (the
/// first `v` is `g`), and `p ← p - learning_rate · v`, or with Nesterov's variant `p -
/// learning_rate · (g + momentum · v)`.
pub type Sgd = GroupedOptimizer<SgdOptions>;

/// The options of [`Sgd`].
#[derive(Clone, Debug, PartialEq)]
pub struct SgdOptions {
    /// The learning rate, at least 0.
    pub learning_rate: f64,
    /// The share of the velocity that is kept in a step, in `[0, 1)`; 0, the default, keeps none.
    pub momentum: f64,
    /// The share of the gradient that does not enter the velocity, in `[0, 1]`; 0 by default.
    pub dampening: f64,
    /// Whether to look ahead (Nesterov); needs momentum and no dampening.
    pub nesterov: bool,
    /// The factor of the L2 penalty, at least 0; 0 by default.
    pub weight_decay: f64,
}

impl Sgd {
    /// Makes an optimiser without momentum on one group of parameters.
    pub fn new(parameters: impl IntoIterator<Item = Parameter>, learning_rate: f64) -> Sgd {
        let options = SgdOptions { learning_rate, momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 };
        GroupedOptimizer::with_options(parameters, options)
    }

    /// Sets the momentum.
    #[must_use]
    pub fn momentum(self, momentum: f64) -> Sgd {
        self.set(|options| options.momentum = momentum)
    }

    /// Sets the dampening.
    #[must_use]
    pub fn dampening(self, dampening: f64) -> Sgd {
        self.set(|options| options.dampening = dampening)
    }

    /// Sets whether to use Nesterov's variant.
    #[must_use]
    pub fn nesterov(self, nesterov: bool) -> Sgd {
        self.set(|options| options.nesterov = nesterov)
    }

    /// Sets the weight decay.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> Sgd {
        self.set(|options| options.weight_decay = weight_decay)
    }
}

impl UpdateRule for SgdOptions {
    const NAME: &'static str = "sgd";
    const SLOTS: &'static [&'static str] = &["momentum_buffer"];

    fn check(&self) -> Result<()> {
        check_range("sgd", "learning rate", self.learning_rate, f64::INFINITY)?;
        check_range("sgd", "weight decay", self.weight_decay, f64::INFINITY)?;
        check_velocity("sgd", self.momentum, self.dampening, self.nesterov)
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
        visit_flag("nesterov", &mut self.nesterov, visitor);
        visitor("weight_decay", &mut self.weight_decay);
    }

    fn update<T: Real>(
        &self,
        progress: &mut Progress,
        parameter: &mut [T],
        gradient: &[T],
        [velocity, ..]: [&mut [T]; MAX_SLOTS],
    ) -> Result<()> {
        let &SgdOptions { learning_rate, momentum, dampening, nesterov, weight_decay } = self;
        let gain = if progress.fresh { 1.0 } else { 1.0 - dampening };
        if momentum == 0.0 {
            update(optim::Sgd::<false> { learning_rate, weight_decay, momentum, gain, nesterov }, parameter, gradient, []);
        } else {
            update(optim::Sgd::<true> { learning_rate, weight_decay, momentum, gain, nesterov }, parameter, gradient, [velocity]);
        }
        Ok(())
    }
}
