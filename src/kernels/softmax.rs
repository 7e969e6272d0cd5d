//! Softmax and its logarithm over the middle dimension of `[outer, n, inner]`.
//!
//! Both subtract the largest element first, so that no exponential overflows. If the dimension is
//! contiguous (`inner` is 1), one row is processed at a time; otherwise a block of columns, along
//! which everything is vectorised.

use std::ops::Range;

use super::reduce::{fold_lanes, larger};
use super::runtime::parallel;
use super::runtime::simd::{Real, vectorize};

/// The approximate number of elements that one task handles.
const GRAIN: usize = 16 * 1024;
/// The number of columns of a block.
const BLOCK: usize = 128;
/// The approximate number of elementary operations per element.
const COST: usize = 12;

/// The choice between softmax and its logarithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `eˣ / Σ eˣ`
    Softmax,
    /// `x - ln Σ eˣ`
    LogSoftmax,
}

/// Computes `y = softmax(x)`, or its logarithm, over the middle dimension.
pub fn forward<T: Real>(kind: Kind, [outer, n, inner]: [usize; 3], x: &[T], y: &mut [T]) {
    assert!(x.len() == outer * n * inner && y.len() == x.len());
    if inner != 1 {
        return column_blocks([n, inner], y, |start, columns, y| {
            let (mut max, mut sum) = ([T::neg_infinity(); BLOCK], [T::zero(); BLOCK]);
            for x in x[start..][..n * inner].chunks_exact(inner) {
                max.iter_mut().zip(&x[columns.clone()]).for_each(|(max, &x)| *max = larger(*max, x));
            }
            for (y, x) in y.chunks_exact_mut(inner).zip(x[start..].chunks_exact(inner)) {
                for (((y, &x), &max), sum) in y[columns.clone()].iter_mut().zip(&x[columns.clone()]).zip(&max).zip(&mut sum) {
                    let e = (x - max).exp_fast();
                    *sum += e;
                    *y = if kind == Kind::Softmax { e } else { x - max };
                }
            }
            sum.iter_mut().for_each(|sum| *sum = if kind == Kind::Softmax { T::one() / *sum } else { sum.ln() });
            for y in y.chunks_exact_mut(inner) {
                let y = y[columns.clone()].iter_mut().zip(&sum);
                y.for_each(|(y, &sum)| *y = if kind == Kind::Softmax { *y * sum } else { *y - sum });
            }
        });
    }
    rows(n, y, |start, y| {
        let x = &x[start..][..n];
        let max = fold_lanes(x, T::neg_infinity(), larger, larger);
        for (y, &x) in y.iter_mut().zip(x) {
            *y = (x - max).exp_fast();
        }
        let sum = fold_lanes(y, T::zero(), |a, b| a + b, |a, b| a + b);
        if kind == Kind::Softmax {
            let scale = T::one() / sum;
            y.iter_mut().for_each(|y| *y *= scale);
        } else {
            let ln = sum.ln();
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x - max) - ln);
        }
    });
}

/// Computes the gradient of `x` from the output `y` and its gradient.
pub fn backward<T: Real>(kind: Kind, [outer, n, inner]: [usize; 3], y: &[T], grad: &[T], out: &mut [T]) {
    assert!(y.len() == outer * n * inner && grad.len() == y.len() && out.len() == y.len());
    if inner != 1 {
        return column_blocks([n, inner], out, |start, columns, out| {
            let lines = || y[start..][..n * inner].chunks_exact(inner).zip(grad[start..].chunks_exact(inner));
            let mut sum = [T::zero(); BLOCK];
            for (y, grad) in lines() {
                for ((sum, &y), &g) in sum.iter_mut().zip(&y[columns.clone()]).zip(&grad[columns.clone()]) {
                    *sum += if kind == Kind::Softmax { g * y } else { g };
                }
            }
            for (out, (y, grad)) in out.chunks_exact_mut(inner).zip(lines()) {
                let line = out[columns.clone()].iter_mut().zip(&y[columns.clone()]).zip(&grad[columns.clone()]).zip(&sum);
                line.for_each(|(((out, &y), &g), &sum)| *out = if kind == Kind::Softmax { y * (g - sum) } else { g - y.exp_fast() * sum });
            }
        });
    }
    rows(n, out, |start, out| {
        let (y, grad) = (&y[start..][..n], &grad[start..][..n]);
        if kind == Kind::Softmax {
            out.iter_mut().zip(y).zip(grad).for_each(|((out, &y), &g)| *out = g * y);
            let sum = fold_lanes(out, T::zero(), |a, b| a + b, |a, b| a + b);
            out.iter_mut().zip(y).for_each(|(out, &y)| *out -= y * sum);
        } else {
            let sum = fold_lanes(grad, T::zero(), |a, b| a + b, |a, b| a + b);
            for ((out, &y), &g) in out.iter_mut().zip(y).zip(grad) {
                *out = g - y.exp_fast() * sum;
            }
        }
    });
}

/// Runs `body(start, row)` for each row of `n` elements.
fn rows<T: Real>(n: usize, y: &mut [T], body: impl Fn(usize, &mut [T]) + Sync) {
    if y.is_empty() {
        return;
    }
    let length = (GRAIN / n).max(1) * n;
    let work = y.len() * COST;
    parallel::chunks_mut(y, length, work, |task, y| {
        vectorize!(T, {
            for (i, y) in y.chunks_exact_mut(n).enumerate() {
                body(task * length + i * n, y);
            }
        });
    });
}

/// Runs `body(start, columns, image)` for each block of columns of each `[n, inner]` image; `start`
/// is the start of the image.
fn column_blocks<T: Real>([n, inner]: [usize; 2], y: &mut [T], body: impl Fn(usize, Range<usize>, &mut [T]) + Sync) {
    let work = y.len() * COST;
    parallel::chunks_mut(y, n * inner, work, |image, y| {
        for column in (0..inner).step_by(BLOCK) {
            vectorize!(T, body(image * n * inner, column..inner.min(column + BLOCK), y));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_column_blocks_agree_with_definition() {
        for [outer, n, inner] in [[3, 10, 1], [2, 100, 1], [1, 1, 5], [2, 7, 130], [1, 40_000, 1], [2, 0, 3], [0, 3, 1], [2, 3, 0]] {
            let x: Vec<f64> = (0..outer * n * inner).map(|i| (i * 7919 % 1013) as f64 / 50.0 + 700.0).collect();
            let grad: Vec<f64> = (0..x.len()).map(|i| (i * 31 % 17) as f64 - 8.0).collect();
            let at = |o: usize, r: usize, i: usize| (o * n + r) * inner + i;
            for kind in [Kind::Softmax, Kind::LogSoftmax] {
                let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
                forward(kind, [outer, n, inner], &x, &mut y);
                backward(kind, [outer, n, inner], &y, &grad, &mut dx);
                for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
                    let total: f64 = (0..n).map(|r| (x[at(o, r, i)] - 720.0).exp()).sum();
                    let p = |r: usize| (x[at(o, r, i)] - 720.0).exp() / total;
                    let sum: f64 = (0..n).map(|r| grad[at(o, r, i)] * if kind == Kind::Softmax { p(r) } else { 1.0 }).sum();
                    for r in 0..n {
                        let g = grad[at(o, r, i)];
                        let (value, slope) = match kind {
                            Kind::Softmax => (p(r), p(r) * (g - sum)),
                            Kind::LogSoftmax => (p(r).ln(), g - p(r) * sum),
                        };
                        assert!(approx::abs_diff_eq!(y[at(o, r, i)], value, epsilon = 1e-12), "{kind:?} [{outer}, {n}, {inner}]");
                        // Sums over 40 000 rows lose some digits.
                        assert!(approx::abs_diff_eq!(dx[at(o, r, i)], slope, epsilon = 1e-9), "{kind:?} [{outer}, {n}, {inner}]");
                    }
                }
            }
        }
    }
}
