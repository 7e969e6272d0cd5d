//! Optimiser updates: one pass in place over parameter, gradient and state.
//!
//! A rule is a small struct with an `apply` for one element; [`update`] is the loop that all rules
//! share. The optional parts of a rule (momentum, AMSGrad's maximum, …) are const parameters, so
//! that each variant is a loop without branches.

use pulp::{Simd, WithSimd};

use super::runtime::parallel::{self, Disjoint};
use super::runtime::simd::{Real, dispatch_light};

/// The number of elements that one task handles.
const GRAIN: usize = 16 * 1024;

/// An update rule for one element of a parameter with `N` numbers of state (at most three).
pub trait Update<const N: usize>: Copy + Sync {
    /// The approximate number of elementary operations per element; decides when threads are
    /// worthwhile.
    const COST: usize;

    /// Returns the parameter's next value and overwrites `state` with the next state.
    fn apply<T: Real>(self, parameter: T, gradient: T, state: &mut [T; N]) -> T;
}

/// Applies a rule to every element.
pub fn update<T: Real, const N: usize, U: Update<N>>(rule: U, parameter: &mut [T], gradient: &[T], state: [&mut [T]; N]) {
    let total = parameter.len();
    assert!(gradient.len() == total && state.iter().all(|state| state.len() == total));
    let (parameter, state) = (Disjoint::new(parameter), state.map(Disjoint::new));
    parallel::for_each(total.div_ceil(GRAIN), total * U::COST, |task| {
        let start = task * GRAIN;
        let length = GRAIN.min(total - start);
        // SAFETY: only task `task` touches the range `[task * GRAIN, (task + 1) * GRAIN)` of each
        // slice.
        let (parameter, state) = unsafe { (parameter.slice(start, length), state.each_ref().map(|state| state.slice(start, length))) };
        run(rule, parameter, &gradient[start..start + length], state);
    });
}

fn run<T: Real, const N: usize, U: Update<N>>(rule: U, parameter: &mut [T], gradient: &[T], state: [&mut [T]; N]) {
    const { assert!(N <= 3) };
    let mut state = state.into_iter();
    let [a, b, c] = std::array::from_fn(|_| state.next().unwrap_or_default());
    dispatch_light::<T, _>(Loop::<T, U, N> { rule, p: parameter, g: gradient, a, b, c });
}

/// The loop as a value: a closure of this size passed to `vectorize` would not be inlined, and
/// would be compiled without the instruction set.
struct Loop<'a, T, U, const N: usize> {
    rule: U,
    p: &'a mut [T],
    g: &'a [T],
    a: &'a mut [T],
    b: &'a mut [T],
    c: &'a mut [T],
}

impl<T: Real, const N: usize, U: Update<N>> WithSimd for Loop<'_, T, U, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        update_all(self.rule, self.p, self.g, self.a, self.b, self.c);
    }
}

/// Updates every element. Each slice is an argument, not an element of an array, so the compiler
/// knows that they do not overlap; without this it does not vectorise a loop over four of them.
#[inline(always)]
fn update_all<T: Real, const N: usize, U: Update<N>>(rule: U, p: &mut [T], g: &[T], a: &mut [T], b: &mut [T], c: &mut [T]) {
    let length = |slot: usize| if slot < N { p.len() } else { 0 };
    let (g, a, b, c) = (&g[..p.len()], &mut a[..length(0)], &mut b[..length(1)], &mut c[..length(2)]);
    for i in 0..p.len() {
        let mut state = [T::zero(); N];
        if N > 0 {
            state[0] = a[i];
        }
        if N > 1 {
            state[1] = b[i];
        }
        if N > 2 {
            state[2] = c[i];
        }
        p[i] = rule.apply(p[i], g[i], &mut state);
        if N > 0 {
            a[i] = state[0];
        }
        if N > 1 {
            b[i] = state[1];
        }
        if N > 2 {
            c[i] = state[2];
        }
    }
}

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
    pub epsilon: f64,
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
        p - T::of(self.step_size) * first / (scale.sqrt() * T::of(self.unbias) + T::of(self.epsilon))
    }
}

/// RMSprop; the state is the mean square, with `CENTERED` the mean, with `MOMENTUM` (last) the
/// velocity.
#[derive(Clone, Copy)]
pub struct RmsProp<const CENTERED: bool, const MOMENTUM: bool> {
    pub learning_rate: f64,
    pub weight_decay: f64,
    pub alpha: f64,
    pub epsilon: f64,
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
        let mut step = g / (square.sqrt() + T::of(self.epsilon));
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
    pub epsilon: f64,
}

impl Update<1> for Adagrad {
    const COST: usize = 16;

    #[inline(always)]
    fn apply<T: Real>(self, p: T, g: T, state: &mut [T; 1]) -> T {
        let g = g + T::of(self.weight_decay) * p;
        state[0] += g * g;
        p - T::of(self.learning_rate) * g / (state[0].sqrt() + T::of(self.epsilon))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_tails_and_tasks_agree_with_single_elements() {
        let rule = Adam::<true> { step_size: 0.1, shrink: 0.99, weight_decay: 0.01, betas: [0.9, 0.99], unbias: 1.5, epsilon: 1e-8 };
        for total in [0, 1, 7, 32, 101, 2 * GRAIN + 17] {
            let number = |i: usize| (i * 7919 % 1013) as f32 / 500.0 - 1.0;
            let gradient: Vec<f32> = (0..total).map(number).collect();
            let mut p: Vec<f32> = (0..total).map(|i| number(i + 3)).collect();
            let mut state: [Vec<f32>; 3] = std::array::from_fn(|k| (0..total).map(|i| number(i + k).abs()).collect());
            let mut expected: Vec<(f32, [f32; 3])> = (0..total).map(|i| (p[i], std::array::from_fn(|k| state[k][i]))).collect();
            for ((p, state), &g) in expected.iter_mut().zip(&gradient) {
                *p = rule.apply(*p, g, state);
            }
            update(rule, &mut p, &gradient, state.each_mut().map(|state| state.as_mut_slice()));
            for (i, (value, slots)) in expected.iter().enumerate() {
                assert_eq!(p[i].to_bits(), value.to_bits());
                assert!((0..3).all(|k| state[k][i].to_bits() == slots[k].to_bits()));
            }
        }
    }
}
