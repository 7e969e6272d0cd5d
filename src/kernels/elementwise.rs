//! Element-wise maps and broadcasting zips.
//!
//! An operation is a small struct with an `apply`, generic over the element type, so that one definition serves every dtype and is
//! compiled into one vectorised loop for each instruction set.

use super::parallel::{self, Disjoint};
use super::simd::{Real, Scalar, vectorize};
use super::stream;

/// The elementary operations that it takes to fetch an element and bring it away: another thread pays early, as what two of them wrote is slow to
/// gather for one.
const TOUCH: usize = 2;

/// Elements that one task handles.
const GRAIN: usize = 16 * 1024;

/// A function of one floating-point element.
pub trait Unary: Copy + Sync {
    /// About how many elementary operations one element costs; decides when threads are worth it.
    const COST: usize = 1;

    /// The function.
    fn apply<T: Real>(self, x: T) -> T;
}

/// A function of two floating-point elements.
pub trait Binary: Copy + Sync {
    /// As [`Unary::COST`].
    const COST: usize = 1;

    /// The function.
    fn apply<T: Real>(self, a: T, b: T) -> T;
}

/// Runs `body(at, part)` for parts of `y`, the one from element `at` on, compiled for the instruction set.
#[inline(always)]
fn fill<Y: Scalar>(y: &mut [Y], work: usize, body: impl Fn(usize, &mut [Y]) + Sync) {
    let streamed = stream::pays::<Y>(y.len());
    parallel::chunks_mut(y, GRAIN, work, |i, y| {
        vectorize(
            #[inline(always)]
            || {
                stream::in_pieces(
                    y,
                    streamed,
                    #[inline(always)]
                    |at, y| body(i * GRAIN + at, y),
                );
            },
        );
    });
}

/// `y[i] = f(x[i])`.
pub fn map<X: Scalar, Y: Scalar>(x: &[X], y: &mut [Y], cost: usize, f: impl Fn(X) -> Y + Copy + Sync) {
    assert_eq!(x.len(), y.len());
    fill(
        y,
        x.len() * (TOUCH + cost),
        #[inline(always)]
        |at, y| {
            for (y, &x) in y.iter_mut().zip(&x[at..]) {
                *y = f(x);
            }
        },
    );
}

/// `y[i] = f(y[i])`.
pub fn map_in_place<T: Scalar>(y: &mut [T], cost: usize, f: impl Fn(T) -> T + Copy + Sync) {
    let work = y.len() * (TOUCH + cost);
    parallel::chunks_mut(y, GRAIN, work, |_, y| {
        vectorize(|| {
            for y in y {
                *y = f(*y);
            }
        });
    });
}

/// `y[i] = f(a[i], b[i])`.
pub fn zip<A: Scalar, B: Scalar, Y: Scalar>(a: &[A], b: &[B], y: &mut [Y], cost: usize, f: impl Fn(A, B) -> Y + Copy + Sync) {
    assert!(a.len() == y.len() && b.len() == y.len());
    fill(
        y,
        a.len() * (TOUCH + cost),
        #[inline(always)]
        |at, y| {
            for ((y, &a), &b) in y.iter_mut().zip(&a[at..]).zip(&b[at..]) {
                *y = f(a, b);
            }
        },
    );
}

/// Adds parts of `length` elements each, not 0, up into the first, in their order, which is returned.
pub fn sum_parts<T: Scalar>(parts: &mut [T], length: usize) -> &mut [T] {
    let (sum, others) = parts.split_at_mut(length);
    others.chunks_exact(length).for_each(|other| zip_in_place(sum, other, 1, |a, b| a + b));
    sum
}

/// `y[i] = f(y[i], b[i])`.
pub fn zip_in_place<T: Scalar, B: Scalar>(y: &mut [T], b: &[B], cost: usize, f: impl Fn(T, B) -> T + Copy + Sync) {
    assert_eq!(b.len(), y.len());
    let work = y.len() * (TOUCH + cost);
    parallel::chunks_mut(y, GRAIN, work, |i, y| {
        let b = &b[i * GRAIN..][..y.len()];
        vectorize(|| {
            for (y, &b) in y.iter_mut().zip(b) {
                *y = f(*y, b);
            }
        });
    });
}

/// `y[i] = a[i]` where `condition[i]` is not 0, else `b[i]`.
pub fn select<T: Scalar>(condition: &[u8], a: &[T], b: &[T], y: &mut [T]) {
    assert!(condition.len() == y.len() && a.len() == y.len() && b.len() == y.len());
    let work = y.len() * TOUCH;
    parallel::chunks_mut(y, GRAIN, work, |i, y| {
        let range = i * GRAIN..i * GRAIN + y.len();
        let (condition, a, b) = (&condition[range.clone()], &a[range.clone()], &b[range]);
        vectorize(|| {
            for (((y, &c), &a), &b) in y.iter_mut().zip(condition).zip(a).zip(b) {
                *y = if c != 0 { a } else { b };
            }
        });
    });
}

/// The dimensions of a result and the strides with which two operands walk along them; a stride of 0 repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broadcast {
    dims: Vec<usize>,
    strides: [Vec<usize>; 2],
}

impl Broadcast {
    /// Drops dimensions of size 1 and merges neighbours that both operands walk evenly, so that most cases have one or two left.
    pub fn new(dims: &[usize], strides: [&[usize]; 2]) -> Broadcast {
        let mut merged = Broadcast { dims: vec![], strides: [vec![], vec![]] };
        for (axis, &dim) in dims.iter().enumerate().filter(|&(_, &dim)| dim != 1) {
            let step = strides.map(|s| s[axis]);
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

    /// `[outer, repeats, inner]`, if the result is that and the second operand `[outer, inner]`.
    pub fn repeated_rows(&self) -> Option<[usize; 3]> {
        match (&self.dims[..], &self.strides[1][..]) {
            (&[repeats, inner], [0, 1]) => Some([1, repeats, inner]),
            (&[outer, repeats, inner], &[step, 0, 1]) if step == inner => Some([outer, repeats, inner]),
            _ => None,
        }
    }

    /// The operands' strides along the last dimension.
    fn steps(&self) -> [usize; 2] {
        [0, 1].map(|i| self.strides[i].last().copied().unwrap_or(1))
    }

    /// Where the operands' rows (runs along the last dimension) start for row `row` of the result.
    fn offsets(&self, mut row: usize) -> [usize; 2] {
        let mut at = [0; 2];
        for axis in (0..self.dims.len().saturating_sub(1)).rev() {
            let index = row % self.dims[axis];
            row /= self.dims[axis];
            for (at, strides) in at.iter_mut().zip(&self.strides) {
                *at += index * strides[axis];
            }
        }
        at
    }
}

/// `y[..] = f(a[..], b[..])` where `shape` tells how the operands repeat.
pub fn zip_broadcast<A: Scalar, B: Scalar, Y: Scalar>(
    shape: &Broadcast,
    a: &[A],
    b: &[B],
    y: &mut [Y],
    cost: usize,
    f: impl Fn(A, B) -> Y + Copy + Sync,
) {
    let Some(&inner) = shape.dims.last() else {
        y.iter_mut().for_each(|y| *y = f(a[0], b[0]));
        return;
    };
    if y.is_empty() {
        return;
    }
    let [a_step, b_step] = shape.steps();
    if shape.dims.len() == 1 && (a_step, b_step) == (1, 1) {
        return zip(&a[..inner], &b[..inner], y, cost, f);
    }
    for_rows(
        shape,
        y,
        cost,
        #[inline(always)]
        |[a_at, b_at], y| {
            let (a, b) = (&a[a_at..], &b[b_at..]);
            match (a_step, b_step) {
                (1, 1) => y.iter_mut().zip(a).zip(b).for_each(|((y, &a), &b)| *y = f(a, b)),
                (1, 0) => y.iter_mut().zip(a).for_each(|(y, &a)| *y = f(a, b[0])),
                (0, 1) => y.iter_mut().zip(b).for_each(|(y, &b)| *y = f(a[0], b)),
                _ => y.iter_mut().enumerate().for_each(|(i, y)| *y = f(a[i * a_step], b[i * b_step])),
            }
        },
    );
}

/// `y[..] = f(y[..], b[..])` where `shape` tells how `b` repeats; its first operand is `y` itself.
pub fn zip_broadcast_in_place<T: Scalar, B: Scalar>(
    shape: &Broadcast,
    y: &mut [T],
    b: &[B],
    cost: usize,
    f: impl Fn(T, B) -> T + Copy + Sync,
) {
    let [y_step, b_step] = shape.steps();
    if y.is_empty() {
        return;
    }
    assert!(y_step == 1 && shape.dims.iter().product::<usize>() == y.len());
    for_rows(
        shape,
        y,
        cost,
        #[inline(always)]
        |[_, b_at], y| {
            let b = &b[b_at..];
            match b_step {
                1 => y.iter_mut().zip(b).for_each(|(y, &b)| *y = f(*y, b)),
                0 => y.iter_mut().for_each(|y| *y = f(*y, b[0])),
                _ => y.iter_mut().enumerate().for_each(|(i, y)| *y = f(*y, b[i * b_step])),
            }
        },
    );
}

/// Runs `body(at, part)` for rows of `y`, long ones in parts, compiled for the instruction set; `at` is where the operands' parts start.
#[inline(always)]
fn for_rows<Y: Scalar>(shape: &Broadcast, y: &mut [Y], cost: usize, body: impl Fn([usize; 2], &mut [Y]) + Sync) {
    let (inner, steps) = (shape.dims.last().copied().unwrap_or(1), shape.steps());
    let rows = y.len() / inner;
    // Rows along the last but one dimension lie evenly.
    let (run, stride) = match shape.dims.len().checked_sub(2) {
        Some(axis) => (shape.dims[axis], [0, 1].map(|i| shape.strides[i][axis])),
        None => (1, [0, 0]),
    };
    let (rows_per_task, columns_per_task) = ((GRAIN / inner).max(1), inner.min(GRAIN));
    let (row_tasks, column_tasks) = (rows.div_ceil(rows_per_task), inner.div_ceil(columns_per_task));
    let work = y.len() * (TOUCH + cost);
    let y = Disjoint::new(y);
    parallel::for_each(row_tasks * column_tasks, work, |task| {
        let first = task / column_tasks * rows_per_task;
        let start = task % column_tasks * columns_per_task;
        let length = columns_per_task.min(inner - start);
        vectorize(
            #[inline(always)]
            || {
                let end = rows.min(first + rows_per_task);
                let mut at = [0; 2];
                for row in first..end {
                    let goes_on = row > first && row % run != 0;
                    at = if goes_on { [at[0] + stride[0], at[1] + stride[1]] } else { shape.offsets(row) };
                    // SAFETY: tasks own distinct (row, column) ranges of the result.
                    let y = unsafe { y.slice(row * inner + start, length) };
                    body([at[0] + start * steps[0], at[1] + start * steps[1]], y);
                }
            },
        );
    });
}
