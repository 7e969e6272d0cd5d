//! Copies of contiguous runs: concatenation, slicing, padding, selection by index.

use super::runtime::parallel::{self, Disjoint};
use super::runtime::simd::{Scalar, vectorize};

/// The number of elements that one task copies.
const GRAIN: usize = 32 * 1024;

/// The layout of a box of runs in a slice: its first element, and the distances between planes and
/// between rows.
#[derive(Clone, Copy, Debug)]
pub struct StridedBox {
    /// The index of the first element.
    pub start: usize,
    /// The distance between planes and the distance between rows.
    pub steps: [usize; 2],
}

impl StridedBox {
    fn offset(&self, plane: usize, row: usize) -> usize {
        self.start + plane * self.steps[0] + row * self.steps[1]
    }
}

/// Copies `[planes, rows, run]` elements from one box to another; runs are contiguous in both.
pub fn copy_box<T: Scalar>([planes, rows, run]: [usize; 3], x: &[T], from: StridedBox, y: &mut [T], to: StridedBox) {
    if planes * rows * run == 0 {
        return;
    }
    let dense = |window: StridedBox| rows == 1 || window.steps[1] == run;
    let (rows, run) = if dense(from) && dense(to) { (1, rows * run) } else { (rows, run) };
    assert!(rows == 1 || to.steps[1] >= run, "rows overlap");
    assert!(planes == 1 || to.steps[0] >= (rows - 1) * to.steps[1] + run, "planes overlap");
    let block = (GRAIN / run).max(1);
    let total = planes * rows;
    let y = Disjoint::new(y);
    parallel::for_each(total.div_ceil(block), total * run, |task| {
        let first = task * block;
        let (mut plane, mut row) = (first / rows, first % rows);
        for _ in first..total.min(first + block) {
            // SAFETY: the assertions above keep rows and planes apart, and each task has its own
            // rows.
            let y = unsafe { y.slice(to.offset(plane, row), run) };
            y.copy_from_slice(&x[from.offset(plane, row)..][..run]);
            row += 1;
            if row == rows {
                (plane, row) = (plane + 1, 0);
            }
        }
    });
}

/// Concatenates: `y[o] = parts[0][o], parts[1][o], …` for each outer index `o`, where each part is
/// `[outer, run]` with its own run.
pub fn join<T: Scalar>(parts: &[(&[T], usize)], y: &mut [T]) {
    let row: usize = parts.iter().map(|&(_, run)| run).sum();
    if y.is_empty() {
        return;
    }
    let block = (GRAIN / row).max(1);
    let work = y.len();
    parallel::chunks_mut(y, block * row, work, |task, y| {
        let mut at = 0;
        for &(x, run) in parts.iter().filter(|&&(_, run)| run > 0) {
            let rows = x[task * block * run..].chunks_exact(run);
            for (y, x) in y.chunks_exact_mut(row).zip(rows) {
                y[at..at + run].copy_from_slice(x);
            }
            at += run;
        }
    });
}

/// Computes `y[o, j, ..] = x[o, index[j], ..]`, where `x` is `[outer, size, inner]`.
pub fn select<T: Scalar>([size, inner]: [usize; 2], index: &[usize], x: &[T], y: &mut [T]) {
    if y.is_empty() {
        return;
    }
    let rows = (GRAIN / inner).max(1);
    let work = y.len();
    parallel::chunks_mut(y, rows * inner, work, |task, y| {
        let (mut outer, mut j) = (task * rows / index.len(), task * rows % index.len());
        for y in y.chunks_exact_mut(inner) {
            let at = (outer * size + index[j]) * inner;
            // A call that copies one element would cost more than the copy.
            if inner == 1 {
                y[0] = x[at];
            } else {
                y.copy_from_slice(&x[at..at + inner]);
            }
            j += 1;
            if j == index.len() {
                (outer, j) = (outer + 1, 0);
            }
        }
    });
}

/// Computes `x[o, index[j], ..] += y[o, j, ..]`, in the order of `j`: the transpose of [`select`].
pub fn select_add<T: Scalar>([size, inner]: [usize; 2], index: &[usize], y: &[T], x: &mut [T]) {
    if y.is_empty() || x.is_empty() {
        return;
    }
    parallel::chunks_mut(x, size * inner, y.len(), |outer, x| {
        let y = &y[outer * index.len() * inner..][..index.len() * inner];
        vectorize!(T, {
            for (y, &at) in y.chunks_exact(inner).zip(index) {
                x[at * inner..][..inner].iter_mut().zip(y).for_each(|(x, &y)| *x = x.plus(y));
            }
        });
    });
}

/// Sets `y[..] = value`.
pub fn fill<T: Scalar>(y: &mut [T], value: T) {
    let work = y.len();
    parallel::chunks_mut(y, GRAIN, work, |_, y| y.fill(value));
}
