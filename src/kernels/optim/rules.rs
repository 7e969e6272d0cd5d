//! The updates of one element.

use super::Update;
use crate::kernels::runtime::simd::Real;

/// Gradient descent; with `MOMENTUM` the state is the velocity.
#[derive(Clone, Copy)]
pub struct Sgd<const MOMENTUM: bool> {
    pub learning_rate: f64,
    pub weight_decay: f64,
    pub momentum: f64,
    /// The factor of the gradient in the velocity: `1 - dampening`.
    pub gain: f64,
    pub nesterov: bool,
}

impl<const MOMENTUM: bool, const N: usize> Update<N> for Sgd<MOMENTUM> {
    const COST: usize = 4;

    #[inline(always)]
    fn apply<T: Real>(self, p: T, g: T, state: &mut [T; N]) -> T {
        let mut step = g + T::of(self.weight_decay) * p;
        if MOMENTUM {
            let velocity = T::of(self.momentum) * state[0] + T::of(self.gain) * step;
            state[0] = velocity;
            step = if self.nesterov { step + T::of(self.momentum) * velocity } else { velocity };
        }
        p - T::of(self.learning_rate) * step
    }
}

/// Adam; the state is the two moments and, with `AMSGRAD`, the maximum of the second one.
#[derive(Clone, Copy)]
pub struct Adam<const AMSGRAD: bool> {
    /// The learning rate divided by the first moment's bias correction.
    pub step_size: f64,
    /// The factor by which the parameter is multiplied first: decoupled weight decay.
    pub shrink: f64,
    /// The weight decay that is added to the gradient.
    pub weight_decay: f64,
    pub betas: [f64; 2],
    /// The reciprocal of the square root of the second moment's bias correction.
    pub unbias: f64,
    pub eps: f64,
}

impl<const AMSGRAD: bool, const N: usize> Update<N> for Adam<AMSGRAD> {
    const COST: usize = 16;

    #[inline(always)]
    fn apply<T: Real>(self, p: T, g: T, state: &mut [T; N]) -> T {
        let p = p * T::of(self.shrink);
        let g = g + T::of(self.weight_decay) * p;
        let first = state[0] + T::of(1.0 - self.betas[0]) * (g - state[0]);
        let second = T::of(self.betas[1]) * state[1] + T::of(1.0 - self.betas[1]) * g * g;
        (state[0], state[1]) = (first, second);
        let mut scale = second;
        if AMSGRAD {
            // Written so that a NaN second moment propagates.
            scale = if state[2] >= second { state[2] } else { second };
            state[2] = scale;
        }
        p - T::of(self.step_size) * first / (scale.sqrt() * T::of(self.unbias) + T::of(self.eps))
    }
}

/// RMSprop; the state is the mean square, with `CENTERED` the mean, with `MOMENTUM` (last) the
/// velocity.
#[derive(Clone, Copy)]
pub struct RmsProp<const CENTERED: bool, const MOMENTUM: bool> {
    pub learning_rate: f64,
    pub weight_decay: f64,
    pub alpha: f64,
    pub eps: f64,
    pub momentum: f64,
}

impl<const CENTERED: bool, const MOMENTUM: bool, const N: usize> Update<N> for RmsProp<CENTERED, MOMENTUM> {
    const COST: usize = 16;

    #[inline(always)]
    fn apply<T: Real>(self, p: T, g: T, state: &mut [T; N]) -> T {
        let g = g + T::of(self.weight_decay) * p;
        let fresh = T::of(1.0 - self.alpha);
        state[0] = T::of(self.alpha) * state[0] + fresh * g * g;
        let mut square = state[0];
        if CENTERED {
            state[1] = state[1] + fresh * (g - state[1]);
            square -= state[1] * state[1];
        }
        let mut step = g / (square.sqrt() + T::of(self.eps));
        if MOMENTUM {
            step = T::of(self.momentum) * state[N - 1] + step;
            state[N - 1] = step;
        }
        p - T::of(self.learning_rate) * step
    }
}

/// Adagrad; the state is the sum of squares.
#[derive(Clone, Copy)]
pub struct Adagrad {
    pub learning_rate: f64,
    pub weight_decay: f64,
    pub eps: f64,
}

impl Update<1> for Adagrad {
    const COST: usize = 16;

    #[inline(always)]
    fn apply<T: Real>(self, p: T, g: T, state: &mut [T; 1]) -> T {
        let g = g + T::of(self.weight_decay) * p;
        state[0] += g * g;
        p - T::of(self.learning_rate) * g / (state[0].sqrt() + T::of(self.eps))
    }
}

/// A step towards a value, which takes the gradient's place: `p + share · (value - p)`.
#[derive(Clone, Copy)]
pub struct Blend {
    pub share: f64,
}

impl Update<0> for Blend {
    const COST: usize = 2;

    #[inline(always)]
    fn apply<T: Real>(self, p: T, value: T, _: &mut [T; 0]) -> T {
        p + T::of(self.share) * (value - p)
    }
}

/// Adadelta; the state is the mean squares of the gradient and of the update.
#[derive(Clone, Copy)]
pub struct Adadelta {
    pub learning_rate: f64,
    pub rho: f64,
    pub eps: f64,
    pub weight_decay: f64,
}

impl Update<2> for Adadelta {
    const COST: usize = 32;

    #[inline(always)]
    fn apply<T: Real>(self, p: T, g: T, state: &mut [T; 2]) -> T {
        let (rho, fresh, eps) = (T::of(self.rho), T::of(1.0 - self.rho), T::of(self.eps));
        let g = g + T::of(self.weight_decay) * p;
        state[0] = rho * state[0] + fresh * g * g;
        let step = (state[1] + eps).sqrt() / (state[0] + eps).sqrt() * g;
        state[1] = rho * state[1] + fresh * step * step;
        p - T::of(self.learning_rate) * step
    }
}

/// NAdam; the state is the two moments.
#[derive(Clone, Copy)]
pub struct NAdam {
    /// The factor of the gradient: the learning rate times its share in Nesterov's momentum.
    pub gradient_size: f64,
    /// The factor of the first moment.
    pub moment_size: f64,
    /// The factor by which the parameter is multiplied first: decoupled weight decay.
    pub shrink: f64,
    /// The weight decay that is added to the gradient.
    pub weight_decay: f64,
    pub betas: [f64; 2],
    /// The reciprocal of the square root of the second moment's bias correction.
    pub unbias: f64,
    pub eps: f64,
}

impl Update<2> for NAdam {
    const COST: usize = 16;

    #[inline(always)]
    fn apply<T: Real>(self, p: T, g: T, state: &mut [T; 2]) -> T {
        let p = p * T::of(self.shrink);
        let g = g + T::of(self.weight_decay) * p;
        state[0] = state[0] + T::of(1.0 - self.betas[0]) * (g - state[0]);
        state[1] = T::of(self.betas[1]) * state[1] + T::of(1.0 - self.betas[1]) * g * g;
        let step = T::of(self.gradient_size) * g + T::of(self.moment_size) * state[0];
        p - step / (state[1].sqrt() * T::of(self.unbias) + T::of(self.eps))
    }
}

/// Lamb's direction, which replaces the third state; the first two are the moments. The parameter
/// changes by decoupled weight decay only.
#[derive(Clone, Copy)]
pub struct Lamb {
    /// The factor of the gradient.
    pub clip: f64,
    pub betas: [f64; 2],
    /// The reciprocal of the first moment's bias correction.
    pub unbias_first: f64,
    /// The reciprocal of the square root of the second moment's bias correction.
    pub unbias: f64,
    pub eps: f64,
    /// The factor by which the parameter is multiplied: decoupled weight decay.
    pub shrink: f64,
    /// The weight decay that is added to the direction.
    pub weight_decay: f64,
}

impl Update<3> for Lamb {
    const COST: usize = 16;

    #[inline(always)]
    fn apply<T: Real>(self, p: T, g: T, state: &mut [T; 3]) -> T {
        let p = p * T::of(self.shrink);
        let g = g * T::of(self.clip);
        state[0] = state[0] + T::of(1.0 - self.betas[0]) * (g - state[0]);
        state[1] = T::of(self.betas[1]) * state[1] + T::of(1.0 - self.betas[1]) * g * g;
        let direction = state[0] * T::of(self.unbias_first) / (state[1].sqrt() * T::of(self.unbias) + T::of(self.eps));
        state[2] = direction + T::of(self.weight_decay) * p;
        p
    }
}

/// Lars: gradient descent whose gradient, weight decay included, is scaled by a trust ratio.
#[derive(Clone, Copy)]
pub struct Lars<const MOMENTUM: bool> {
    pub trust_ratio: f64,
    pub weight_decay: f64,
    /// The descent, without weight decay.
    pub sgd: Sgd<MOMENTUM>,
}

impl<const MOMENTUM: bool, const N: usize> Update<N> for Lars<MOMENTUM> {
    const COST: usize = 8;

    #[inline(always)]
    fn apply<T: Real>(self, p: T, g: T, state: &mut [T; N]) -> T {
        let g = (g + T::of(self.weight_decay) * p) * T::of(self.trust_ratio);
        self.sgd.apply(p, g, state)
    }
}

/// Lion; the state is the mean gradient.
#[derive(Clone, Copy)]
pub struct Lion {
    pub learning_rate: f64,
    /// The factor by which the parameter is multiplied first: decoupled weight decay.
    pub shrink: f64,
    pub betas: [f64; 2],
}

impl Update<1> for Lion {
    const COST: usize = 8;

    #[inline(always)]
    fn apply<T: Real>(self, p: T, g: T, state: &mut [T; 1]) -> T {
        let p = p * T::of(self.shrink);
        let direction = state[0] + T::of(1.0 - self.betas[0]) * (g - state[0]);
        state[0] = state[0] + T::of(1.0 - self.betas[1]) * (g - state[0]);
        // Zero and NaN stay as they are.
        let sign = if direction > T::zero() {
            T::one()
        } else if direction < T::zero() {
            -T::one()
        } else {
            direction
        };
        p - T::of(self.learning_rate) * sign
    }
}
