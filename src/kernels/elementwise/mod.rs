//! Element-wise maps and broadcasting zips.
//!
//! An operation is a small struct with an `apply`, generic over the element type, so that one
//! definition serves every dtype and is compiled into one vectorised loop for each instruction set.

pub mod activation;
pub(crate) mod channel_scale;
pub mod epilogue;

use std::ops::Range;

use super::runtime::nontemporal;
use super::runtime::parallel::{self, ChunkBody, Disjoint};
use super::runtime::simd::{Real, Scalar, for_pairs, for_triples, vectorize};
use crate::kernels::runtime::arrays::MapEach;

/// The elementary operations that reading and writing an element count for. This makes another
/// thread worthwhile early, since gathering on one thread what two threads wrote is slow.
const TOUCH: usize = 2;

/// The number of elements that one task handles.
const GRAIN: usize = 16 * 1024;

/// The number of elements that are copied at a time: they are overwritten while they are in the
/// innermost cache.
const COPIED: usize = 1024;

/// A function of one floating-point element.
pub trait Unary: Copy + Sync {
    /// The approximate number of elementary operations per element; decides when threads are
    /// worthwhile.
    const COST: usize = 1;

    /// Computes the function.
    fn apply<T: Real>(self, x: T) -> T;
}

/// A function of two floating-point elements.
pub trait Binary: Copy + Sync {
    /// The cost, as [`Unary::COST`].
    const COST: usize = 1;

    /// Computes the function.
    fn apply<T: Real>(self, a: T, b: T) -> T;
}

/// The loop `y[i] = f(a[i], b[i])` over slices of one length; see [`pairs`]. It is a trait because
/// each closure behind `dyn Fn` would be compiled twice.
pub trait PairLoop<A, B, Y>: Sync {
    /// Runs the loop.
    fn run(&self, a: &[A], b: &[B], y: &mut [Y]);
}

/// The loop `y[i] = f(y[i], b[i])` over slices of one length; see [`pairs_in_place`].
pub trait OntoLoop<T, B>: Sync {
    /// Runs the loop.
    fn run(&self, y: &mut [T], b: &[B]);
}

/// Returns the loop over pairs, compiled for the instruction set. Only this part is compiled for
/// each function and type; the code that divides slices among tasks and repeats operands is
/// compiled once.
pub fn pairs<A: Scalar, B: Scalar, Y: Scalar>(f: impl Fn(A, B) -> Y + Copy + Sync) -> impl PairLoop<A, B, Y> {
    Loop(f)
}

/// Returns the loop over pairs that overwrites the first operand; see [`pairs`].
pub fn pairs_in_place<T: Scalar, B: Scalar>(f: impl Fn(T, B) -> T + Copy + Sync) -> impl OntoLoop<T, B> {
    Loop(f)
}

struct Loop<F>(F);

impl<A: Scalar, B: Scalar, Y: Scalar, F: Fn(A, B) -> Y + Copy + Sync> PairLoop<A, B, Y> for Loop<F> {
    fn run(&self, a: &[A], b: &[B], y: &mut [Y]) {
        let f = self.0;
        vectorize!((A, B, Y), for_triples(y, a, b, |y, a, b| *y = f(a, b)));
    }
}

impl<T: Scalar, B: Scalar, F: Fn(T, B) -> T + Copy + Sync> OntoLoop<T, B> for Loop<F> {
    fn run(&self, y: &mut [T], b: &[B]) {
        let f = self.0;
        vectorize!((T, B), for_pairs(y, b, |y, b| *y = f(*y, b)));
    }
}

/// Runs `body(at, part)` for parts of `y`, each starting at element `at`.
fn fill<Y: Scalar>(y: &mut [Y], work: usize, body: &dyn ChunkBody<Y>) {
    let streamed = nontemporal::pays::<Y>(y.len());
    parallel::chunks_mut(y, GRAIN, work, |i, y| {
        nontemporal::in_pieces(y, streamed, &mut |at, y| body.run(i * GRAIN + at, y));
    });
}

/// Computes `y[i] = f(x[i])`.
pub fn map<X: Scalar, Y: Scalar>(x: &[X], y: &mut [Y], cost: usize, f: impl Fn(X) -> Y + Copy + Sync) {
    assert_eq!(x.len(), y.len());
    fill(y, x.len() * (TOUCH + cost), &|at: usize, y: &mut [Y]| {
        vectorize!((X, Y), for_pairs(y, &x[at..], |y, x| *y = f(x)));
    });
}

/// Computes `y[i] = f(y[i])`.
pub fn map_in_place<T: Scalar>(y: &mut [T], cost: usize, f: impl Fn(T) -> T + Copy + Sync) {
    let work = y.len() * (TOUCH + cost);
    parallel::chunks_mut(y, GRAIN, work, |_, y| {
        vectorize!(T, {
            for y in y {
                *y = f(*y);
            }
        });
    });
}

/// Computes `y[i] = f(a[i], b[i])`.
pub fn zip<A: Scalar, B: Scalar, Y: Scalar>(a: &[A], b: &[B], y: &mut [Y], cost: usize, f: &dyn PairLoop<A, B, Y>) {
    assert!(a.len() == y.len() && b.len() == y.len());
    fill(y, a.len() * (TOUCH + cost), &|at: usize, y: &mut [Y]| f.run(&a[at..][..y.len()], &b[at..][..y.len()], y));
}

/// Computes `y[i] = f(a[i], b[i])` by the loop that overwrites its first operand, so that no other
/// loop has to be compiled for `f`.
pub fn zip_copied<T: Scalar, B: Scalar>(a: &[T], b: &[B], y: &mut [T], cost: usize, f: &dyn OntoLoop<T, B>) {
    assert!(a.len() == y.len() && b.len() == y.len());
    fill(y, a.len() * (TOUCH + cost), &|start: usize, y: &mut [T]| {
        for (at, y) in (start..).step_by(COPIED).zip(y.chunks_mut(COPIED)) {
            y.copy_from_slice(&a[at..][..y.len()]);
            f.run(y, &b[at..][..y.len()]);
        }
    });
}

/// Adds up parts of `length` elements each, not 0, into the first part, in their order; returns the
/// first part.
pub fn sum_parts<T: Scalar>(parts: &mut [T], length: usize) -> &mut [T] {
    let (sum, others) = parts.split_at_mut(length);
    add_parts(sum, others);
    sum
}

/// Adds parts, each as long as `sum`, which is not empty, to it in their order.
pub fn add_parts<T: Scalar>(sum: &mut [T], parts: &[T]) {
    parts.chunks_exact(sum.len()).for_each(|part| zip_in_place(sum, part, 1, &pairs_in_place(|a, b| a + b)));
}

/// Computes `y[i] = f(y[i], b[i])`.
pub fn zip_in_place<T: Scalar, B: Scalar>(y: &mut [T], b: &[B], cost: usize, f: &dyn OntoLoop<T, B>) {
    assert_eq!(b.len(), y.len());
    let work = y.len() * (TOUCH + cost);
    parallel::chunks_mut(y, GRAIN, work, |i, y| f.run(y, &b[i * GRAIN..][..y.len()]));
}

/// Computes `y[i] = a[i]` where `condition[i]` is not 0, else `b[i]`.
pub fn select<T: Scalar>(condition: &[u8], a: &[T], b: &[T], y: &mut [T]) {
    assert!(condition.len() == y.len() && a.len() == y.len() && b.len() == y.len());
    let work = y.len() * TOUCH;
    parallel::chunks_mut(y, GRAIN, work, |i, y| {
        let range = i * GRAIN..i * GRAIN + y.len();
        let (condition, a, b) = (&condition[range.clone()], &a[range.clone()], &b[range]);
        vectorize!(T, {
            for (((y, &c), &a), &b) in y.iter_mut().zip(condition).zip(a).zip(b) {
                *y = if c != 0 { a } else { b };
            }
        });
    });
}

/// The dimensions of a result and the strides of two operands along them; an operand repeats where
/// its stride is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broadcast {
    dims: Vec<usize>,
    strides: [Vec<usize>; 2],
}

impl Broadcast {
    /// Drops dimensions of size 1 and merges neighbours along which both operands have a uniform
    /// stride, so that most cases have one or two dimensions left.
    pub fn new(dims: &[usize], strides: [&[usize]; 2]) -> Broadcast {
        let mut merged = Broadcast { dims: vec![], strides: [vec![], vec![]] };
        for (axis, &dim) in dims.iter().enumerate().filter(|&(_, &dim)| dim != 1) {
            let step = strides.map_each(|s| s[axis]);
            let joins = merged.dims.last().is_some() && merged.strides.iter().zip(step).all(|(s, step)| s[s.len() - 1] == step * dim);
            if joins {
                *merged.dims.last_mut().expect("checked above") *= dim;
                for (s, step) in merged.strides.iter_mut().zip(step) {
                    *s.last_mut().expect("as long as dims") = step;
                }
            } else {
                merged.dims.push(dim);
                merged.strides.iter_mut().zip(step).for_each(|(s, step)| s.push(step));
            }
        }
        merged
    }

    /// Returns `[outer, repeats, inner]` if the result has this shape and the second operand is
    /// `[outer, inner]`.
    pub fn repeated_rows(&self) -> Option<[usize; 3]> {
        match (&self.dims[..], &self.strides[1][..]) {
            (&[repeats, inner], [0, 1]) => Some([1, repeats, inner]),
            (&[outer, repeats, inner], &[step, 0, 1]) if step == inner => Some([outer, repeats, inner]),
            _ => None,
        }
    }

    /// Returns the size of the last dimension.
    fn inner(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    /// Returns the strides of the operands along the last dimension.
    fn steps(&self) -> [usize; 2] {
        [0, 1].map_each(|i| self.strides[i].last().copied().unwrap_or(1))
    }

    /// Returns the start of an operand's row (a run along the last dimension) for row `row` of the
    /// result.
    fn offset(&self, operand: usize, mut row: usize) -> usize {
        let mut at = 0;
        for axis in (0..self.dims.len().saturating_sub(1)).rev() {
            at += row % self.dims[axis] * self.strides[operand][axis];
            row /= self.dims[axis];
        }
        at
    }
}

/// The number of elements of a non-contiguous operand that are made contiguous at a time.
const LAID_OUT: usize = 256;
/// The number of elements from which a row is handled separately.
const LONG: usize = 32;

/// An operand that repeats or is not contiguous.
struct Operand<'a, X> {
    shape: &'a Broadcast,
    /// The index of the operand, 0 or 1.
    which: usize,
    x: &'a [X],
    /// The distance between elements of a row.
    step: usize,
    /// The last row that was requested, and its start.
    last: (usize, usize),
    side_by_side: [X; LAID_OUT],
}

impl<'a, X: Scalar> Operand<'a, X> {
    fn new(shape: &'a Broadcast, which: usize, x: &'a [X]) -> Self {
        Operand { shape, which, x, step: shape.steps()[which], last: (usize::MAX, 0), side_by_side: [X::zero(); LAID_OUT] }
    }

    /// Returns the start of a row.
    fn start(&mut self, row: usize) -> usize {
        if row == self.last.0 {
            return self.last.1;
        }
        // Rows along the last dimension but one are evenly spaced.
        let axis = self.shape.dims.len().wrapping_sub(2);
        let at = match self.shape.dims.get(axis) {
            Some(&run) if row.wrapping_sub(1) == self.last.0 && !row.is_multiple_of(run) => {
                self.last.1 + self.shape.strides[self.which][axis]
            }
            _ => self.shape.offset(self.which, row),
        };
        self.last = (row, at);
        at
    }

    /// Returns the elements of some columns of some rows, contiguous: one row, or at most
    /// [`LAID_OUT`] elements.
    fn elements(&mut self, rows: Range<usize>, columns: Range<usize>) -> &[X] {
        let step = self.step;
        if rows.len() == 1 && step == 1 {
            return &self.x[self.start(rows.start)..][columns];
        }
        let width = columns.len();
        for (i, row) in rows.clone().enumerate() {
            let start = self.start(row) + columns.start * step;
            let out = &mut self.side_by_side[i * width..][..width];
            match step {
                0 => out.fill(self.x[start]),
                1 => out.copy_from_slice(&self.x[start..][..width]),
                _ => out.iter_mut().zip(self.x[start..].iter().step_by(step)).for_each(|(out, &x)| *out = x),
            }
        }
        &self.side_by_side[..rows.len() * width]
    }
}

/// Computes `y[..] = f(a[..], b[..])`, where `shape` describes how the operands repeat.
pub fn zip_broadcast<A: Scalar, B: Scalar, Y: Scalar>(
    shape: &Broadcast,
    a: &[A],
    b: &[B],
    y: &mut [Y],
    cost: usize,
    f: &dyn PairLoop<A, B, Y>,
) {
    if y.is_empty() {
        return;
    }
    let inner = shape.inner();
    if shape.dims.len() == 1 && shape.steps() == [1, 1] {
        return zip(&a[..inner], &b[..inner], y, cost, f);
    }
    let pieces = Pieces::new(inner, shape.steps() == [1, 1]);
    for_rows(inner, y, cost, &|rows, columns, y| {
        let (mut a, mut b) = (Operand::new(shape, 0, a), Operand::new(shape, 1, b));
        pieces.run(rows, columns, &mut |rows, columns, at| {
            let y = &mut y[at..][..rows.len() * columns.len()];
            f.run(a.elements(rows.clone(), columns.clone()), b.elements(rows, columns), y);
        });
    });
}

/// Computes `y[..] = f(y[..], b[..])`, where `shape` describes how `b` repeats; its first operand
/// is `y` itself.
pub fn zip_broadcast_in_place<T: Scalar, B: Scalar>(shape: &Broadcast, y: &mut [T], b: &[B], cost: usize, f: &dyn OntoLoop<T, B>) {
    if y.is_empty() {
        return;
    }
    let (inner, [y_step, b_step]) = (shape.inner(), shape.steps());
    assert!(y_step == 1 && shape.dims.iter().product::<usize>() == y.len());
    let pieces = Pieces::new(inner, b_step == 1);
    for_rows(inner, y, cost, &|rows, columns, y| {
        let mut b = Operand::new(shape, 1, b);
        pieces.run(rows, columns, &mut |rows, columns, at| {
            let y = &mut y[at..][..rows.len() * columns.len()];
            f.run(y, b.elements(rows, columns));
        });
    });
}

/// The division of a task's rows and columns into pieces, so that non-contiguous operands can be
/// made contiguous a piece at a time.
struct Pieces {
    rows: usize,
    columns: usize,
}

impl Pieces {
    /// Returns the pieces for rows of `inner` elements; `dense` if each row is contiguous in both
    /// operands.
    fn new(inner: usize, dense: bool) -> Pieces {
        match inner {
            LONG.. if dense => Pieces { rows: 1, columns: inner },
            _ => Pieces { rows: (LAID_OUT / inner).max(1), columns: inner.min(LAID_OUT) },
        }
    }

    /// Calls `body(rows, columns, at)` for each piece; `at` is the index of its first element among
    /// all elements.
    fn run(&self, rows: Range<usize>, columns: Range<usize>, body: &mut dyn FnMut(Range<usize>, Range<usize>, usize)) {
        let mut at = 0;
        for row in rows.clone().step_by(self.rows) {
            let rows = row..rows.end.min(row + self.rows);
            for column in columns.clone().step_by(self.columns) {
                let columns = column..columns.end.min(column + self.columns);
                body(rows.clone(), columns.clone(), at);
                at += rows.len() * columns.len();
            }
        }
    }
}

/// Runs `body(rows, columns, part)` for parts of `y`, which has rows of `inner` elements: some
/// whole rows, or a part of a long one.
fn for_rows<Y: Scalar>(inner: usize, y: &mut [Y], cost: usize, body: &(dyn Fn(Range<usize>, Range<usize>, &mut [Y]) + Sync)) {
    let rows = y.len() / inner;
    let (rows_per_task, columns_per_task) = ((GRAIN / inner).max(1), inner.min(GRAIN));
    let (row_tasks, column_tasks) = (rows.div_ceil(rows_per_task), inner.div_ceil(columns_per_task));
    let work = y.len() * (TOUCH + cost);
    let y = Disjoint::new(y);
    parallel::for_each(row_tasks * column_tasks, work, |task| {
        let first = task / column_tasks * rows_per_task;
        let start = task % column_tasks * columns_per_task;
        let (rows, columns) = (first..rows.min(first + rows_per_task), start..inner.min(start + columns_per_task));
        // SAFETY: tasks own distinct runs of the result: whole rows, or columns of one row.
        let y = unsafe { y.slice(first * inner + start, (rows.len() - 1) * inner + columns.len()) };
        body(rows, columns, y);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copied_pairs_are_those_of_the_loop_that_overwrites() {
        // A piece and a part; several tasks; streamed past the cache.
        for length in [0, 1, COPIED + 5, 3 * GRAIN + 7, if cfg!(miri) { 0 } else { (4 << 20) + 9 }] {
            let a: Vec<f32> = (0..length).map(|i| (i % 1013) as f32).collect();
            let b: Vec<f32> = (0..length).map(|i| (i % 7) as f32).collect();
            let f = pairs_in_place(|a: f32, b: f32| a - 3.0 * b);
            let (mut y, mut expected) = (vec![-1.0; length], a.clone());
            zip_copied(&a, &b, &mut y, 1, &f);
            zip_in_place(&mut expected, &b, 1, &f);
            assert!(y == expected, "{length} elements");
        }
    }
}
