//! Products of few rows with a row-major weight, as dense layers compute them, `[M, K] · [N, K]ᵀ`,
//! and their gradients, `[M, N] · [N, K]`.
//!
//! The weight is read once, in its stored order: with few rows, packing it gains nothing, and
//! reading the weights of a large classifier takes longer than multiplying with them. A register
//! block is some rows times some weight rows, whose products are summed in vectors along `K`. The
//! lanes are added up at the end of each run of `K`. A run is short enough to keep the rows in the
//! cache, where several weight rows reuse them.
//!
//! The order of the reduction depends on the shape alone.

// Arrays of vectors are indexed by constants: otherwise the compiler would keep them in memory.
#![allow(clippy::needless_range_loop)]

use pulp::{Simd, WithSimd};

use crate::kernels::elementwise::epilogue::Epilogue;
use crate::kernels::runtime::allocator::AlignedVec;
use crate::kernels::runtime::parallel::{self, Disjoint};
use crate::kernels::runtime::simd::{Real, array, dispatch_light, for_pairs, prefetch};

/// The largest number of rows for which packing the weight for the general product does not pay.
pub(crate) const FEW_ROWS: usize = 64;
/// Weight rows of one task.
const BLOCK: usize = 32;
/// Weight rows of one register block.
const COLUMNS: usize = 4;
/// Length of a run of `K`, in bytes, during which the rows stay in the cache.
const RUN: usize = 8192;

/// Computes `y[m, n] = activation(Σ_k x[m, k] · w[n, k] + bias[n] + residual[m, n])`.
pub(crate) fn product<T: Real>([m, n, k]: [usize; 3], x: &[T], w: &[T], epilogue: Epilogue<'_, T>, y: &mut [T]) {
    assert!(x.len() == m * k && w.len() == n * k && y.len() == m * n);
    assert!(epilogue.bias.is_none_or(|bias| bias.len() == n) && epilogue.residual.is_none_or(|residual| residual.len() == m * n));
    let y = Disjoint::new(y);
    // Reading a weight costs more than multiplying with it, so waking a thread pays off early.
    let work = (2 * m.max(4)).saturating_mul(n * k);
    parallel::for_each(n.div_ceil(BLOCK), work, |task| {
        let first = task * BLOCK;
        let columns = BLOCK.min(n - first);
        let mut sums = AlignedVec::zeroed(m * columns);
        dispatch_light::<T, _>(Sums { rows: m, columns, k, x, w: &w[first * k..][..columns * k], sums: &mut sums });
        for (row, sums) in sums.chunks_exact(columns).enumerate() {
            let at = row * n + first;
            // SAFETY: tasks own distinct columns of the result, and a task borrows one part of it
            // at a time.
            let y = unsafe { y.slice(at, columns) };
            y.copy_from_slice(sums);
            dispatch_light::<T, _>(FinishRow { epilogue, first, at, y });
        }
    });
}

/// Columns of one task of [`product_plain`].
const WIDE: usize = 1024;

/// Computes `y[m, k] = Σ_n x[m, n] · w[n, k]`, reading the weight in its stored order, from the
/// first row to the last.
pub(crate) fn product_plain<T: Real>([m, k, n]: [usize; 3], x: &[T], w: &[T], y: &mut [T]) {
    assert!(x.len() == m * n && w.len() == n * k && y.len() == m * k);
    let y = Disjoint::new(y);
    let work = (2 * m.max(4)).saturating_mul(n * k);
    parallel::for_each(k.div_ceil(WIDE), work, |task| {
        let first = task * WIDE;
        let columns = WIDE.min(k - first);
        let mut sums = AlignedVec::zeroed(m * columns);
        dispatch_light::<T, _>(RowDots { rows: m, n, x, w, first, columns, pitch: k, sums: &mut sums });
        for (row, sums) in sums.chunks_exact(columns).enumerate() {
            // SAFETY: tasks own distinct columns of the result, and a task borrows one part of it
            // at a time.
            unsafe { y.slice(row * k + first, columns) }.copy_from_slice(sums);
        }
    });
}

/// Computes `sums[rows, columns] += x[rows, n] · w[n, first .. first + columns]`.
struct RowDots<'a, T> {
    rows: usize,
    n: usize,
    x: &'a [T],
    w: &'a [T],
    first: usize,
    columns: usize,
    /// Elements from one row of the weight to the next.
    pitch: usize,
    sums: &'a mut [T],
}

impl<T: Real> WithSimd for RowDots<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if const { S::REGISTER_COUNT >= 32 } { self.run::<S, 4>(simd) } else { self.run::<S, 2>(simd) }
    }
}

impl<T: Real> RowDots<'_, T> {
    #[inline(always)]
    fn run<S: Simd, const MR: usize>(mut self, simd: S) {
        let (whole, quads) = (self.rows / MR * MR, self.n / COLUMNS * COLUMNS);
        // The sums stay in the cache while the weight is read, a few of its rows at a time.
        for n in (0..quads).step_by(COLUMNS) {
            (0..whole).step_by(MR).for_each(|row| self.add::<S, MR, COLUMNS>(simd, row, n));
            (whole..self.rows).for_each(|row| self.add::<S, 1, COLUMNS>(simd, row, n));
        }
        for n in quads..self.n {
            (0..self.rows).for_each(|row| self.add::<S, 1, 1>(simd, row, n));
        }
    }

    /// Adds the products of `NR` rows of the weight, from `n` on, to `MR` rows of the result.
    #[inline(always)]
    fn add<S: Simd, const MR: usize, const NR: usize>(&mut self, simd: S, row: usize, n: usize) {
        let (lanes, columns) = (T::lanes::<S>(), self.columns);
        let w: [&[T]; NR] = array(|i| &self.w[(n + i) * self.pitch + self.first..][..columns]);
        let x: [[T::Vector<S>; NR]; MR] = array(|r| array(|i| T::splat(simd, self.x[(row + r) * self.n + n + i])));
        let sums = &mut self.sums[row * columns..(row + MR) * columns];
        for at in (0..columns).step_by(lanes) {
            let mask = T::mask(simd, lanes.min(columns - at));
            // SAFETY: the mask covers the columns from `at` on; each row of the weight and of the
            // sums has `columns` elements.
            unsafe {
                let w: [T::Vector<S>; NR] = array(|i| T::load_masked(simd, mask, w[i].as_ptr().add(at)));
                for r in 0..MR {
                    let to = sums.as_mut_ptr().add(r * columns + at);
                    let mut sum = T::load_masked(simd, mask, to);
                    for i in 0..NR {
                        sum = T::vector_mul_add(simd, x[r][i], w[i], sum);
                    }
                    T::store_masked(simd, mask, to, sum);
                }
            }
        }
    }
}

/// Applies the epilogue to a part of a row.
struct FinishRow<'a, T> {
    epilogue: Epilogue<'a, T>,
    /// The part's first column, and the part's offset in the result.
    first: usize,
    at: usize,
    y: &'a mut [T],
}

impl<T: Real> WithSimd for FinishRow<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        if let Some(bias) = self.epilogue.bias {
            for_pairs(self.y, &bias[self.first..], |y, bias| *y += bias);
        }
        self.epilogue.finish(self.at, self.y);
    }
}

/// Computes `sums[rows, columns] += x[rows, k] · w[columns, k]ᵀ`.
struct Sums<'a, T> {
    rows: usize,
    columns: usize,
    k: usize,
    x: &'a [T],
    w: &'a [T],
    sums: &'a mut [T],
}

impl<T: Real> WithSimd for Sums<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if const { S::REGISTER_COUNT >= 32 } { self.run::<S, 4>(simd) } else { self.run::<S, 2>(simd) }
    }
}

impl<T: Real> Sums<'_, T> {
    #[inline(always)]
    fn run<S: Simd, const MR: usize>(mut self, simd: S) {
        // A single block of rows reads each weight only once, so `K` need not be split into runs.
        let run = if self.rows <= MR { self.k.max(1) } else { RUN / size_of::<T>() };
        for start in (0..self.k).step_by(run) {
            let length = run.min(self.k - start);
            for column in (0..self.columns).step_by(COLUMNS) {
                let whole = self.rows / MR * MR;
                for row in (0..whole).step_by(MR) {
                    self.block::<S, MR>(simd, row, column, start, length);
                }
                for row in whole..self.rows {
                    self.block::<S, 1>(simd, row, column, start, length);
                }
            }
        }
    }

    /// Adds a run of `length` elements from `start` on, for `MR` rows and up to [`COLUMNS`]
    /// columns.
    #[inline(always)]
    fn block<S: Simd, const MR: usize>(&mut self, simd: S, row: usize, column: usize, start: usize, length: usize) {
        let Sums { columns, k, x, w, .. } = *self;
        let lanes = T::lanes::<S>();
        let x: [&[T]; MR] = array(|r| &x[(row + r) * k + start..][..length]);
        // Indices past the last column repeat it; their results are discarded.
        let w: [&[T]; COLUMNS] = array(|c| &w[(column + c).min(columns - 1) * k + start..][..length]);
        let mut sums = [[T::splat(simd, T::zero()); COLUMNS]; MR];
        let whole = length / lanes * lanes;
        for at in (0..whole).step_by(lanes) {
            // SAFETY: whole vectors from `at` on are within the `length` elements of each row and
            // column; vectors are plain numbers, and the reads are unaligned.
            let read = |from: &[T]| unsafe { from.as_ptr().add(at).cast::<T::Vector<S>>().read_unaligned() };
            // Prefetches the weight rows of the next block, so that memory is not idle while the
            // lanes of this block are added up.
            for c in 0..COLUMNS {
                prefetch(w[c].as_ptr().wrapping_add(at + COLUMNS * k));
            }
            let w: [T::Vector<S>; COLUMNS] = array(|c| read(w[c]));
            for r in 0..MR {
                let x = read(x[r]);
                for c in 0..COLUMNS {
                    sums[r][c] = T::vector_mul_add(simd, x, w[c], sums[r][c]);
                }
            }
        }
        if whole < length {
            let mask = T::mask(simd, length - whole);
            // SAFETY: the mask covers the elements from `whole` on, which are within each row and
            // column.
            let read = |from: &[T]| unsafe { T::load_masked(simd, mask, from.as_ptr().add(whole)) };
            let w: [T::Vector<S>; COLUMNS] = array(|c| read(w[c]));
            for r in 0..MR {
                let x = read(x[r]);
                for c in 0..COLUMNS {
                    sums[r][c] = T::vector_mul_add(simd, x, w[c], sums[r][c]);
                }
            }
        }
        for r in 0..MR {
            for c in 0..COLUMNS.min(columns - column) {
                self.sums[(row + r) * columns + column + c] += T::vector_sum(simd, sums[r][c]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use approx::abs_diff_eq;

    use super::*;
    use crate::kernels::elementwise::epilogue::Activation;
    use crate::kernels::{affordable, numbers, rounding};

    #[test]
    fn products_with_the_plain_weight_agree_with_the_triple_loop() {
        for [m, k, n] in [[1, 1, 1], [1, 5, 7], [2, 33, 40], [4, 4, 64], [7, 1500, 31], [9, 2100, 7], [3, 0, 2], [0, 3, 4], [3, 4, 0]] {
            if !affordable(m * k * n) {
                continue;
            }
            let (x, w) = (numbers(m * n, 1), numbers(n * k, 2));
            let mut y = vec![f64::NAN; m * k];
            product_plain([m, k, n], &x, &w, &mut y);
            for (at, &y) in y.iter().enumerate() {
                let expected: f64 = (0..n).map(|p| x[at / k * n + p] * w[p * k + at % k]).sum();
                assert!(abs_diff_eq!(y, expected, epsilon = rounding(n, f64::EPSILON)), "{m}×{k}×{n} at {at}");
            }
        }
    }

    #[test]
    fn products_agree_with_the_triple_loop() {
        for [m, n, k] in [[1, 1, 1], [1, 5, 7], [2, 33, 40], [4, 4, 64], [7, 31, 1500], [9, 70, 2100], [3, 2, 0], [0, 3, 4], [3, 0, 4]] {
            if !affordable(m * n * k) {
                continue;
            }
            let (x, w, bias, residual) = (numbers(m * k, 1), numbers(n * k, 2), numbers(n, 3), numbers(m * n, 4));
            let naive = |i: usize, j: usize| (0..k).map(|p| x[i * k + p] * w[j * k + p]).sum::<f64>();
            let mut y = vec![f64::NAN; m * n];
            product([m, n, k], &x, &w, Epilogue::default(), &mut y);
            for (at, &y) in y.iter().enumerate() {
                assert!(abs_diff_eq!(y, naive(at / n, at % n), epsilon = rounding(k, f64::EPSILON)), "{m}×{n}×{k} at {at}");
            }
            let epilogue = Epilogue { residual: Some(&residual), activation: Activation::Relu, ..Epilogue::bias(Some(&bias)) };
            product([m, n, k], &x, &w, epilogue, &mut y);
            for (at, &y) in y.iter().enumerate() {
                let expected = (naive(at / n, at % n) + bias[at % n] + residual[at]).max(0.0);
                assert!(abs_diff_eq!(y, expected, epsilon = rounding(k, f64::EPSILON)), "{m}×{n}×{k} at {at}");
            }
        }
    }
}
