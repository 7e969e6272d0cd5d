//! Optimiser updates: one pass in place over parameter, gradient and state.
//!
//! A rule is a small struct with an `apply` for one element; [`update`] is the loop that all rules
//! share. The optional parts of a rule (momentum, AMSGrad's maximum, …) are const parameters, so
//! that each variant is a loop without branches.

mod rules;

pub use rules::{Adadelta, Adagrad, Adam, Blend, Lamb, Lars, Lion, NAdam, RmsProp, Sgd};

use pulp::{Simd, WithSimd};

use crate::kernels::reduce::sum_of_squares;
use crate::kernels::runtime::parallel::{self, Disjoint};
use crate::kernels::runtime::simd::{Real, dispatch_light};

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

/// The loop as a value that [`dispatch_light`] compiles for each instruction set.
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

/// Returns the Euclidean norm, summed in a fixed order.
pub fn norm<T: Real>(x: &[T]) -> f64 {
    sum_of_squares(x).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_tails_and_tasks_agree_with_single_elements() {
        let rule = Adam::<true> { step_size: 0.1, shrink: 0.99, weight_decay: 0.01, betas: [0.9, 0.99], unbias: 1.5, eps: 1e-8 };
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
