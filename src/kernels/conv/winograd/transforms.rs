//! The one-dimensional transforms: polynomials are evaluated at a few points, multiplied there, and
//! interpolated.
//!
//! A correlation of `n = m + r - 1` inputs with `r` weights has `m` outputs. It needs only `n`
//! products if all polynomials are given by their values at `n` points (Toom–Cook; Winograd, 1980).
//! The points are 0, ∞ and pairs ±p. Weights are *evaluated* at the points. Outputs are
//! *interpolated*: their transform is the transpose of an evaluation. The transform of the inputs
//! depends only on the points. So the same points, and the same transform of the inputs, serve
//! kernels of several sizes, and also the weight gradient, where the roles are exchanged: `m`
//! weights and `r` outputs.

// Arrays of vectors are indexed by constants: otherwise the compiler would keep them in memory.
#![allow(clippy::needless_range_loop)]

use std::marker::PhantomData;

use pulp::Simd;

use crate::kernels::runtime::simd::Real;

/// Maximum number of points.
pub(crate) const MOST: usize = 6;

/// A value at each point; may be only partly used.
pub(crate) type Line<T, S> = [<T as Real>::Vector<S>; MOST];

/// A set of points.
pub(crate) trait Points: Copy + Send + Sync + 'static {
    /// Number of points: inputs along an axis of a tile, and values in the transformed line.
    const N: usize;
    /// Each point `p` of a pair ±p, and `1 / Π (p - q)` over the other finite points `q`.
    const PAIRS: &'static [(f64, f64)];
    /// `1 / Π (0 - q)` over the other finite points `q`.
    const NORM_OF_ZERO: f64;

    /// Computes the transform of the inputs.
    fn input<T: Real, S: Simd>(simd: S, d: Line<T, S>) -> Line<T, S>;
}

/// The points 0, ±1, ∞.
#[derive(Clone, Copy)]
pub(crate) struct FourPoints;

impl Points for FourPoints {
    const N: usize = 4;
    const PAIRS: &'static [(f64, f64)] = &[(1.0, 0.5)];
    const NORM_OF_ZERO: f64 = -1.0;

    #[inline(always)]
    fn input<T: Real, S: Simd>(simd: S, d: Line<T, S>) -> Line<T, S> {
        let sub = |a, b| T::vector_sub(simd, a, b);
        [sub(d[2], d[0]), T::vector_add(simd, d[2], d[1]), sub(d[2], d[1]), sub(d[3], d[1]), d[4], d[5]]
    }
}

/// The points 0, ±√½, ±√2, ∞. The usual points 0, ±1, ±2, ∞ have an error four times as large: here
/// the powers that enter the transforms stay near 1, and they are reciprocals of each other.
#[derive(Clone, Copy)]
pub(crate) struct SixPoints;

impl Points for SixPoints {
    const N: usize = 6;
    const PAIRS: &'static [(f64, f64)] = &[(std::f64::consts::FRAC_1_SQRT_2, -2.0 / 3.0), (std::f64::consts::SQRT_2, 1.0 / 6.0)];
    const NORM_OF_ZERO: f64 = 1.0;

    #[inline(always)]
    fn input<T: Real, S: Simd>(simd: S, d: Line<T, S>) -> Line<T, S> {
        let fma = |factor: f64, a, b| T::vector_mul_add(simd, T::splat(simd, T::of(factor)), a, b);
        let (near, far) = (Self::PAIRS[0].0, Self::PAIRS[1].0);
        let (even_near, odd_near) = (fma(-2.0, d[2], d[4]), fma(-2.0, d[1], d[3]));
        let (even_far, odd_far) = (fma(-0.5, d[2], d[4]), fma(-0.5, d[1], d[3]));
        [
            fma(-2.5, d[2], T::vector_add(simd, d[0], d[4])),
            fma(near, odd_near, even_near),
            fma(-near, odd_near, even_near),
            fma(far, odd_far, even_far),
            fma(-far, odd_far, even_far),
            fma(-2.5, d[3], T::vector_add(simd, d[1], d[5])),
        ]
    }
}

/// A transform along one axis.
pub(crate) trait Transform {
    /// Number of input values.
    const FROM: usize;
    /// Number of output values.
    const TO: usize;

    /// Computes the transform. Values past `FROM` in the input line and past `TO` in the result are
    /// unspecified.
    fn line<T: Real, S: Simd>(simd: S, from: Line<T, S>) -> Line<T, S>;
}

/// The transforms of F(m, r), for tiles of `m × m` outputs and kernels of `r × r` weights.
pub(crate) trait TransformSet: Copy + Send + Sync + 'static {
    /// Outputs along an axis of a tile.
    const M: usize;
    /// Weights along an axis of a kernel.
    const R: usize;
    /// Inputs along an axis of a tile, and number of points.
    const N: usize;
    /// Transforms inputs to their values at the points.
    type Inputs: Transform;
    /// Transforms weights to their values at the points.
    type Weights: Transform;
    /// Transforms products at the points to outputs.
    type Outputs: Transform;
    /// Transforms the output's gradient to its values at the points.
    type OutputGradient: Transform;
    /// Transforms products at the points to the weights' gradient.
    type WeightGradient: Transform;
}

/// F(`M`, `R`) at the points `P`.
#[derive(Clone, Copy)]
pub(crate) struct F<P, const M: usize, const R: usize>(PhantomData<P>);

impl<P: Points, const M: usize, const R: usize> TransformSet for F<P, M, R> {
    const M: usize = M;
    const R: usize = R;
    const N: usize = {
        assert!(P::N == M + R - 1 && P::N <= MOST);
        P::N
    };
    type Inputs = Inputs<P>;
    type Weights = Evaluate<P, R>;
    type Outputs = Interpolate<P, M>;
    type OutputGradient = Evaluate<P, M>;
    type WeightGradient = Interpolate<P, R>;
}

/// Transforms inputs to their values at the points.
pub(crate) struct Inputs<P>(PhantomData<P>);
/// Transforms `R` coefficients (weights, or the output's gradient) to their values at the points,
/// times the norms of the points.
pub(crate) struct Evaluate<P, const R: usize>(PhantomData<P>);
/// Transforms products at the points to `R` outputs.
pub(crate) struct Interpolate<P, const R: usize>(PhantomData<P>);

impl<P: Points> Transform for Inputs<P> {
    const FROM: usize = P::N;
    const TO: usize = P::N;

    #[inline(always)]
    fn line<T: Real, S: Simd>(simd: S, from: Line<T, S>) -> Line<T, S> {
        P::input::<T, S>(simd, from)
    }
}

impl<P: Points, const R: usize> Transform for Evaluate<P, R> {
    const FROM: usize = R;
    const TO: usize = P::N;

    #[inline(always)]
    fn line<T: Real, S: Simd>(simd: S, from: Line<T, S>) -> Line<T, S> {
        let mut values = from;
        values[0] = T::vector_mul(simd, T::splat(simd, T::of(P::NORM_OF_ZERO)), from[0]);
        for (pair, &(p, norm)) in P::PAIRS.iter().enumerate() {
            // The even and the odd part of the polynomial.
            let scaled = |j: usize| T::vector_mul(simd, T::splat(simd, T::of(norm * power(p, j))), from[j]);
            let mut parts = [scaled(0), scaled(1)];
            for j in 2..R {
                parts[j % 2] = T::vector_mul_add(simd, T::splat(simd, T::of(norm * power(p, j))), from[j], parts[j % 2]);
            }
            values[1 + 2 * pair] = T::vector_add(simd, parts[0], parts[1]);
            values[2 + 2 * pair] = T::vector_sub(simd, parts[0], parts[1]);
        }
        values[P::N - 1] = from[R - 1];
        values
    }
}

impl<P: Points, const R: usize> Transform for Interpolate<P, R> {
    const FROM: usize = P::N;
    const TO: usize = R;

    #[inline(always)]
    fn line<T: Real, S: Simd>(simd: S, from: Line<T, S>) -> Line<T, S> {
        let mut sums = [T::splat(simd, T::zero()); MOST];
        sums[0] = from[0];
        for (pair, &(p, _)) in P::PAIRS.iter().enumerate() {
            let (plus, minus) = (from[1 + 2 * pair], from[2 + 2 * pair]);
            let both = [T::vector_add(simd, plus, minus), T::vector_sub(simd, plus, minus)];
            for (k, sum) in sums.iter_mut().enumerate().take(R) {
                *sum = T::vector_mul_add(simd, T::splat(simd, T::of(power(p, k))), both[k % 2], *sum);
            }
        }
        sums[R - 1] = T::vector_add(simd, sums[R - 1], from[P::N - 1]);
        sums
    }
}

#[inline(always)]
fn power(p: f64, exponent: usize) -> f64 {
    (0..exponent).fold(1.0, |power, _| power * p)
}

/// Applies a transform to the columns of a tile, and then to the rows of the result.
#[inline(always)]
pub(crate) fn both_axes<T: Real, S: Simd, F: Transform>(
    simd: S,
    load: impl Fn(usize, usize) -> T::Vector<S>,
    mut store: impl FnMut(usize, usize, T::Vector<S>),
) {
    let zero = T::splat(simd, T::zero());
    let mut middle = [[zero; MOST]; MOST];
    for j in 0..F::FROM {
        let mut column = [zero; MOST];
        for i in 0..F::FROM {
            column[i] = load(i, j);
        }
        let column = F::line::<T, S>(simd, column);
        for i in 0..F::TO {
            middle[i][j] = column[i];
        }
    }
    for i in 0..F::TO {
        let row = F::line::<T, S>(simd, middle[i]);
        for j in 0..F::TO {
            store(i, j, row[j]);
        }
    }
}
