//! Activations that can be fused into the pass of another operation: values and derivatives.

use super::epilogue::Activation;
use crate::kernels::runtime::math::Math;
use crate::kernels::runtime::simd::{Real, for_pairs};

/// A function of one element, and its gradient.
pub trait Nonlinear: Copy {
    /// Computes the function.
    fn value<T: Real>(self, x: T) -> T;
    /// Returns the incoming gradient times the derivative at `x`.
    fn gradient<T: Real>(self, grad: T, x: T) -> T;
}

/// Clamps `x` to the bounds; NaN stays NaN.
#[inline(always)]
fn clamp<T: Real>(x: T, low: f64, high: f64) -> T {
    let x = if x < T::of(low) { T::of(low) } else { x };
    if x > T::of(high) { T::of(high) } else { x }
}

/// A number at which every saturating function here is saturated, and whose square is finite.
const FAR: f64 = 1e18;

/// Replaces an infinite `x` by a large number, for products with a factor that is 0 there: `0 · ∞`
/// is NaN instead of the limit. NaN stays NaN.
#[inline(always)]
pub(crate) fn finite<T: Real>(x: T) -> T {
    clamp(x, -FAR, FAR)
}

/// Replaces -∞ by a large negative number, for a product with a factor that is 0 at -∞; NaN stays
/// NaN.
#[inline(always)]
pub(crate) fn above_minus_infinity<T: Real>(x: T) -> T {
    if x < T::of(-FAR) { T::of(-FAR) } else { x }
}

/// `max(x, 0)`.
#[derive(Clone, Copy)]
pub struct Relu;

impl Nonlinear for Relu {
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        if x < T::zero() { T::zero() } else { x }
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        if x <= T::zero() { T::zero() } else { grad }
    }
}

/// `min(max(x, 0), 6)`.
#[derive(Clone, Copy)]
pub struct Relu6;

impl Nonlinear for Relu6 {
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        clamp(x, 0.0, 6.0)
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        if (x > T::zero()) & (x < T::of(6.0)) { grad } else { T::zero() }
    }
}

/// `x · sigmoid(x)`.
#[derive(Clone, Copy)]
pub struct Silu;

impl Nonlinear for Silu {
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        above_minus_infinity(x) * Math::sigmoid(x)
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        let (x, s) = (finite(x), Math::sigmoid(x));
        grad * s * (T::one() + x * (T::one() - s))
    }
}

/// `1 / (1 + e⁻ˣ)`.
#[derive(Clone, Copy)]
pub struct Sigmoid;

impl Nonlinear for Sigmoid {
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        Math::sigmoid(x)
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        let y = Math::sigmoid(x);
        grad * y * (T::one() - y)
    }
}

/// `relu6(x + 3) / 6`.
#[derive(Clone, Copy)]
pub struct HardSigmoid;

impl Nonlinear for HardSigmoid {
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        clamp(x + T::of(3.0), 0.0, 6.0) * T::of(1.0 / 6.0)
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        if (x > T::of(-3.0)) & (x < T::of(3.0)) { grad * T::of(1.0 / 6.0) } else { T::zero() }
    }
}

/// `x · relu6(x + 3) / 6`.
#[derive(Clone, Copy)]
pub struct HardSwish;

impl Nonlinear for HardSwish {
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        // Below -3 the factor is 0; from 3 on it is 1, so that the product does not overflow.
        let x = if x < T::of(-3.0) { T::of(-3.0) } else { x };
        let factor = x + T::of(3.0);
        x * (if factor > T::of(6.0) { T::of(6.0) } else { factor } * T::of(1.0 / 6.0))
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        let middle = grad * (x * T::of(1.0 / 3.0) + T::of(0.5));
        let upper = if x >= T::of(3.0) { grad } else { middle };
        if x <= T::of(-3.0) { T::zero() } else { upper }
    }
}

#[inline(always)]
fn map<T: Real>(f: impl Nonlinear, x: &mut [T]) {
    for x in x {
        *x = f.value(*x);
    }
}

#[inline(always)]
fn chain<T: Real>(f: impl Nonlinear, x: &[T], grad: &mut [T]) {
    for_pairs(grad, x, |grad, x| *grad = f.gradient(*grad, x));
}

// These functions must be called where loops are vectorised already: inside `vectorize!` or a
// `WithSimd`. Each activation has its own loop, so that the choice is made outside it. They are
// loops because a closure passed to an iterator may remain a separate function, compiled without
// the instruction set.
impl Activation {
    /// Applies the activation to each element.
    #[inline(always)]
    pub(crate) fn map<T: Real>(self, x: &mut [T]) {
        match self {
            Activation::Linear => {}
            Activation::Relu => map(Relu, x),
            Activation::Relu6 => map(Relu6, x),
            Activation::Silu => map(Silu, x),
            Activation::Hardswish => map(HardSwish, x),
            Activation::Sigmoid => map(Sigmoid, x),
            Activation::Hardsigmoid => map(HardSigmoid, x),
        }
    }

    /// Multiplies each gradient by the derivative at `x`, the argument of the activation. If
    /// [`reads_output`](Self::reads_output), `x` may also be its result.
    #[inline(always)]
    pub(crate) fn chain<T: Real>(self, x: &[T], grad: &mut [T]) {
        match self {
            Activation::Linear => {}
            Activation::Relu => chain(Relu, x, grad),
            Activation::Relu6 => chain(Relu6, x, grad),
            Activation::Silu => chain(Silu, x, grad),
            Activation::Hardswish => chain(HardSwish, x, grad),
            Activation::Sigmoid => chain(Sigmoid, x, grad),
            Activation::Hardsigmoid => chain(HardSigmoid, x, grad),
        }
    }

    /// Returns whether the derivative at the result equals the derivative at the argument.
    pub(crate) fn reads_output(self) -> bool {
        matches!(self, Activation::Linear | Activation::Relu | Activation::Relu6)
    }

    /// Returns the approximate number of elementary operations per element.
    pub(crate) fn cost(self) -> usize {
        match self {
            Activation::Silu | Activation::Sigmoid => 12,
            Activation::Hardswish | Activation::Hardsigmoid => 2,
            Activation::Linear | Activation::Relu | Activation::Relu6 => 1,
        }
    }
}
