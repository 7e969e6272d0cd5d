//! Layer normalisation: normalises every row of `[rows, length]` by its mean and variance, then
//! scales and shifts it element by element.
//!
//! A mean is kept as two numbers, its rounded value and the mean of the remainders after that value
//! is subtracted, so that a large mean costs no digits of a small deviation.

use crate::kernels::reduce::{fold, fold_pairs};
use crate::kernels::runtime::allocator::AlignedVec;
use crate::kernels::runtime::parallel::{self, Disjoint};
use crate::kernels::runtime::simd::{Real, vectorize};

/// The number of elements that one task handles.
const GRAIN: usize = 16 * 1024;
/// The number of rows whose share of a parameter's gradient is summed before it is added to that of
/// earlier rows.
const BLOCK: usize = 32;

/// Computes `y = (x - mean) · rstd · weight + bias` for each row; stores the two parts of the mean
/// and `rstd = 1/√(var + eps)` for the backward pass.
pub fn forward<T: Real>(
    length: usize,
    x: &[T],
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    eps: f64,
    y: &mut [T],
    statistics: [&mut [T]; 3],
) {
    assert!(x.len() == y.len() && statistics.iter().all(|values| values.len() * length == x.len()));
    if x.is_empty() {
        return;
    }
    let (rows, count) = ((GRAIN / length).max(1), T::of(length as f64));
    let statistics = statistics.map(Disjoint::new);
    parallel::chunks_mut(y, rows * length, 4 * x.len(), |task, y| {
        for (i, y) in y.chunks_exact_mut(length).enumerate() {
            let row = task * rows + i;
            let x = &x[row * length..][..length];
            let mean = fold(x, T::zero(), T::plus, T::plus) / count;
            let rest = fold(x, T::zero(), |sum, x| sum + (x - mean), T::plus) / count;
            let deviation = |x: T| (x - mean) - rest;
            let squares = fold(x, T::zero(), |sum, x| sum + deviation(x) * deviation(x), T::plus);
            let rstd = T::one() / (squares / count + T::of(eps)).sqrt();
            for (values, value) in statistics.iter().zip([mean, rest, rstd]) {
                // SAFETY: each row belongs to one task.
                unsafe { values.slice(row, 1)[0] = value };
            }
            vectorize!(T, {
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = deviation(x) * rstd);
                if let Some(weight) = weight {
                    y.iter_mut().zip(weight).for_each(|(y, &weight)| *y *= weight);
                }
                if let Some(bias) = bias {
                    y.iter_mut().zip(bias).for_each(|(y, &bias)| *y += bias);
                }
            });
        }
    });
}

/// Computes the input's gradient.
pub fn backward<T: Real>(length: usize, grad: &[T], x: &[T], weight: Option<&[T]>, [mean, rest, rstd]: [&[T]; 3], dx: &mut [T]) {
    assert!(grad.len() == dx.len() && x.len() == dx.len() && mean.len() * length == dx.len());
    if x.is_empty() {
        return;
    }
    let (rows, count) = ((GRAIN / length).max(1), T::of(length as f64));
    parallel::chunks_mut(dx, rows * length, 4 * x.len(), |task, dx| {
        for (i, dx) in dx.chunks_exact_mut(length).enumerate() {
            let row = task * rows + i;
            let (mean, rest, rstd) = (mean[row], rest[row], rstd[row]);
            let range = row * length..(row + 1) * length;
            let (grad, x) = (&grad[range.clone()], &x[range]);
            match weight {
                Some(weight) => vectorize!(T, dx.iter_mut().zip(grad).zip(weight).for_each(|((dx, &grad), &weight)| *dx = grad * weight)),
                None => dx.copy_from_slice(grad),
            }
            let deviation = |x: T| (x - mean) - rest;
            let average = fold(dx, T::zero(), T::plus, T::plus) / count;
            let product = vectorize!(T, fold_pairs((&*dx, x), T::zero(), |sum, dx, x| sum + dx * deviation(x), T::plus));
            let slope = product * rstd * rstd / count;
            vectorize!(T, dx.iter_mut().zip(x).for_each(|(dx, &x)| *dx = (*dx - average - deviation(x) * slope) * rstd));
        }
    });
}

/// Computes `dw = Σ grad · x̂` and `db = Σ grad` over the rows.
pub fn parameters_backward<T: Real>(length: usize, grad: &[T], x: &[T], [mean, rest, rstd]: [&[T]; 3], [dw, db]: [&mut [T]; 2]) {
    assert!(grad.len() == x.len() && mean.len() * length == x.len() && dw.len() == length && db.len() == length);
    dw.fill(T::zero());
    db.fill(T::zero());
    if x.is_empty() {
        return;
    }
    // Long sums are computed in parts, which are combined in order.
    let rows = (8 * GRAIN / length).max(1);
    let mut partial = AlignedVec::<T>::zeroed(mean.len().div_ceil(rows) * 2 * length);
    parallel::chunks_mut(&mut partial, 2 * length, 2 * x.len(), |task, partial| {
        let mut block = AlignedVec::<T>::uninit(2 * length);
        let last = mean.len().min((task + 1) * rows);
        for first in (task * rows..last).step_by(BLOCK) {
            block.fill(T::zero());
            let (dw, db) = block.split_at_mut(length);
            for row in first..last.min(first + BLOCK) {
                let (mean, rest, rstd) = (mean[row], rest[row], rstd[row]);
                let range = row * length..(row + 1) * length;
                vectorize!(T, {
                    for (((dw, db), &grad), &x) in dw.iter_mut().zip(db.iter_mut()).zip(&grad[range.clone()]).zip(&x[range]) {
                        *dw += grad * (((x - mean) - rest) * rstd);
                        *db += grad;
                    }
                });
            }
            partial.iter_mut().zip(&*block).for_each(|(sum, &block)| *sum += block);
        }
    });
    for part in partial.chunks_exact(2 * length) {
        dw.iter_mut().zip(part).for_each(|(sum, &part)| *sum += part);
        db.iter_mut().zip(&part[length..]).for_each(|(sum, &part)| *sum += part);
    }
}
