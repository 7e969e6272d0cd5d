//! Reductions in a fixed order.
//!
//! Every reduction views its input as `[outer, reduced, inner]` and its result as `[outer, inner]`.
//! Long sums are divided into parts of fixed size, which are combined in order, so that the result
//! depends neither on the number of threads nor on the vector width used for other parts. An
//! accumulator takes at most [`BLOCK`] elements before it is added to a second one: the rounding
//! error of a sum of values of one sign grows with the number of terms.

use std::ops::Range;

use super::runtime::allocator::AlignedVec;
use super::runtime::parallel::{self, Disjoint};
use super::runtime::simd::{Real, Scalar, for_pairs, for_triples, vectorize};

/// The number of elements of a contiguous run that one partial sum covers.
const RUN: usize = 16 * 1024;
/// The smallest number of parts into which columns are divided, unless parts would have fewer than
/// [`SHORT`] elements.
const FEW_PARTS: usize = 8;
const SHORT: usize = 4 * 1024;
/// The number of independent accumulators in a contiguous run: enough for the compiler to vectorise
/// and to hide latency.
const LANES: usize = 32;
/// The number of elements that an accumulator takes before it is joined to those of earlier blocks.
const BLOCK: usize = 32;
/// The number of accumulators in a line of short rows.
const WIDE: usize = 128;

/// Returns the larger number; NaN if either is NaN.
#[inline(always)]
#[allow(clippy::eq_op)] // only NaN differs from itself
pub fn larger<T: Scalar>(a: T, b: T) -> T {
    if a > b || a != a { a } else { b }
}

/// Returns the smaller number; NaN if either is NaN.
#[inline(always)]
#[allow(clippy::eq_op)] // only NaN differs from itself
pub fn smaller<T: Scalar>(a: T, b: T) -> T {
    if a < b || a != a { a } else { b }
}

/// Sets `y[o, i]` to the first `r` at which `x[o, r, i]` is the best element: for no other element
/// `beats(other, best)` is true. A NaN beats all numbers.
pub fn position<T: Scalar>([outer, reduced, inner]: [usize; 3], x: &[T], y: &mut [i64], beats: impl Fn(T, T) -> bool + Copy + Sync) {
    assert!(x.len() == outer * reduced * inner && y.len() == outer * inner);
    if x.is_empty() {
        return y.fill(0);
    }
    #[allow(clippy::eq_op)] // only NaN differs from itself
    let wins = |x: T, best: T| beats(x, best) || (x != x && best == best);
    // A task takes some rows, or some columns of one outer index.
    let columns = inner.min(RUN);
    let rows = (RUN / (reduced * inner)).max(1);
    let (row_tasks, column_tasks) = (outer.div_ceil(rows), inner.div_ceil(columns));
    let y = Disjoint::new(y);
    parallel::for_each(row_tasks * column_tasks, 4 * x.len(), |task| {
        let start = task % column_tasks * columns;
        let width = columns.min(inner - start);
        let mut best = AlignedVec::uninit(width);
        for row in task / column_tasks * rows..outer.min((task / column_tasks + 1) * rows) {
            // SAFETY: tasks own distinct (row, column) ranges of the result.
            let y = unsafe { y.slice(row * inner + start, width) };
            let line = |r: usize| &x[(row * reduced + r) * inner + start..][..width];
            best.copy_from_slice(line(0));
            y.fill(0);
            vectorize!(T, {
                for r in 1..reduced {
                    for ((y, best), &x) in y.iter_mut().zip(best.iter_mut()).zip(line(r)) {
                        let won = wins(x, *best);
                        *best = if won { x } else { *best };
                        *y = if won { r as i64 } else { *y };
                    }
                }
            });
        }
    });
}

/// Folds a contiguous slice in independent lanes, then the lanes in order.
pub fn fold<T: Scalar, A: Scalar>(x: &[T], zero: A, add: impl Fn(A, T) -> A + Copy, join: impl Fn(A, A) -> A + Copy) -> A {
    vectorize!(T, fold_lanes(x, zero, add, join))
}

/// Computes [`fold`], for callers that are compiled for an instruction set already.
#[inline(always)]
pub fn fold_lanes<T: Scalar, A: Scalar>(x: &[T], zero: A, add: impl Fn(A, T) -> A + Copy, join: impl Fn(A, A) -> A + Copy) -> A {
    fold_blocks(
        x.len(),
        zero,
        join,
        #[inline(always)]
        |block, sums| {
            let (rows, rest) = x[block].as_chunks::<LANES>();
            for row in rows {
                for_pairs(sums, row, |sum, x| *sum = add(*sum, x));
            }
            for_pairs(sums, rest, |sum, x| *sum = add(*sum, x));
        },
    )
}

/// Folds pairs of elements of two slices of one length, as [`fold_lanes`] folds elements.
#[inline(always)]
pub fn fold_pairs<T: Scalar, U: Scalar, A: Scalar>(
    (a, b): (&[T], &[U]),
    zero: A,
    add: impl Fn(A, T, U) -> A + Copy,
    join: impl Fn(A, A) -> A + Copy,
) -> A {
    assert_eq!(a.len(), b.len());
    fold_blocks(
        a.len(),
        zero,
        join,
        #[inline(always)]
        |block, sums| {
            let ((a, rest_a), (b, rest_b)) = (a[block.clone()].as_chunks::<LANES>(), b[block].as_chunks::<LANES>());
            for (a, b) in a.iter().zip(b) {
                for_triples(sums, a, b, |sum, a, b| *sum = add(*sum, a, b));
            }
            for_triples(sums, rest_a, rest_b, |sum, a, b| *sum = add(*sum, a, b));
        },
    )
}

/// Folds `length` elements: `add` adds a block of at most [`BLOCK`] elements for each lane to lanes
/// that are zero; the lanes of the blocks are joined, and at the end with each other, in order.
#[inline(always)]
fn fold_blocks<A: Scalar>(length: usize, zero: A, join: impl Fn(A, A) -> A + Copy, add: impl Fn(Range<usize>, &mut [A; LANES])) -> A {
    let mut lanes = [zero; LANES];
    for start in (0..length).step_by(BLOCK * LANES) {
        let mut sums = [zero; LANES];
        add(start..length.min(start + BLOCK * LANES), &mut sums);
        for_pairs(&mut lanes, &sums, |lane, sum| *lane = join(*lane, sum));
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] = join(lanes[i], lanes[i + width]);
        }
    }
    lanes[0]
}

/// Computes `y[o, i] = fold over r of x[o, r, i]`, where `x` is `[outer, reduced, inner]`.
///
/// `add` adds an element to an accumulator, `join` combines two accumulators; `zero` is neutral for
/// both.
pub fn reduce<T: Scalar, A: Scalar>(
    [outer, reduced, inner]: [usize; 3],
    x: &[T],
    y: &mut [A],
    zero: A,
    add: impl Fn(A, T) -> A + Copy + Sync,
    join: impl Fn(A, A) -> A + Copy + Sync,
) {
    assert!(x.len() == outer * reduced * inner && y.len() == outer * inner);
    if x.is_empty() {
        return y.fill(zero);
    }
    if inner == 1 {
        reduce_rows([outer, reduced], x, y, zero, add, join);
    } else {
        reduce_columns([outer, reduced, inner], x, y, zero, add, join);
    }
}

/// Returns the sum of squares, in f64, so that squares of f32 cannot overflow. Requests no memory,
/// so that it cannot fail in the middle of an optimiser's step.
pub fn sum_of_squares<T: Real>(x: &[T]) -> f64 {
    let add = |sum: f64, x: T| {
        let x = x.to_f64().unwrap_or(f64::NAN);
        sum + x * x
    };
    let mut partial = [0.0; 512];
    let mut sum = 0.0;
    for x in x.chunks(partial.len() * RUN) {
        let partial = &mut partial[..x.len().div_ceil(RUN)];
        parallel::chunks_mut(partial, 1, x.len(), |part, partial| {
            partial[0] = fold(&x[part * RUN..x.len().min((part + 1) * RUN)], 0.0, add, |a, b| a + b);
        });
        sum = partial.iter().fold(sum, |a, &b| a + b);
    }
    sum
}

fn reduce_rows<T: Scalar, A: Scalar>(
    [outer, reduced]: [usize; 2],
    x: &[T],
    y: &mut [A],
    zero: A,
    add: impl Fn(A, T) -> A + Copy + Sync,
    join: impl Fn(A, A) -> A + Copy + Sync,
) {
    let parts = reduced.div_ceil(RUN);
    if parts == 1 {
        let rows = (RUN / reduced).max(1);
        return parallel::chunks_mut(y, rows, x.len(), |task, y| {
            let rows = y.iter_mut().zip(x[task * rows * reduced..].chunks_exact(reduced));
            if reduced < LANES {
                return vectorize!(T, rows.for_each(|(y, x)| *y = x.iter().fold(zero, |a, &x| add(a, x))));
            }
            rows.for_each(|(y, x)| *y = fold(x, zero, add, join));
        });
    }
    let mut partial = AlignedVec::uninit(outer * parts);
    parallel::chunks_mut(&mut partial, 1, x.len(), |task, partial| {
        let (row, part) = (task / parts, task % parts);
        let x = &x[row * reduced..][..reduced];
        partial[0] = fold(&x[part * RUN..reduced.min((part + 1) * RUN)], zero, add, join);
    });
    for (y, partial) in y.chunks_exact_mut(1).zip(partial.chunks_exact(parts)) {
        join_parts(y, partial, zero, join);
    }
}

/// Sets `y` to the joined parts, each as long as `y`, in blocks as elements are.
fn join_parts<A: Scalar>(y: &mut [A], parts: &[A], zero: A, join: impl Fn(A, A) -> A + Copy) {
    by_lines(y, parts.len(), zero, join, |block, line| add_lines(&parts[block], line, join));
}

fn reduce_columns<T: Scalar, A: Scalar>(
    shape: [usize; 3],
    x: &[T],
    y: &mut [A],
    zero: A,
    add: impl Fn(A, T) -> A + Copy + Sync,
    join: impl Fn(A, A) -> A + Copy + Sync,
) {
    by_parts(shape, y, zero, join, |_, part, y| {
        let x = &x[part];
        by_lines(y, x.len(), zero, join, |block, line| {
            vectorize!(T, add_lines(&x[block], line, add));
        });
    });
}

/// Runs `fold(o, part, sums)` for parts of the rows of each outer index `o`, and joins the results
/// of the parts in their order into `y[o, ..]`. A part is a range of the elements, whose size
/// depends on the shape alone.
fn by_parts<A: Scalar>(
    [outer, reduced, inner]: [usize; 3],
    y: &mut [A],
    zero: A,
    join: impl Fn(A, A) -> A + Copy,
    fold: impl Fn(usize, Range<usize>, &mut [A]) + Sync,
) {
    // Uses several parts even for small inputs, so that each thread reads what it wrote: cache
    // lines that two threads share are slow to write.
    let few = reduced.div_ceil(FEW_PARTS.div_ceil(outer)).max(SHORT / inner);
    let rows = (4 * RUN / inner).min(few).clamp(1, reduced);
    let (parts, work) = (reduced.div_ceil(rows), 2 * outer * reduced * inner);
    let fold_part = |task: usize, y: &mut [A]| {
        let (index, part) = (task / parts, task % parts);
        let start = (index * reduced + part * rows) * inner;
        fold(index, start..start + rows.min(reduced - part * rows) * inner, y);
    };
    if parts == 1 {
        return parallel::chunks_mut(y, inner, work, fold_part);
    }
    let mut partial = AlignedVec::uninit(outer * parts * inner);
    parallel::chunks_mut(&mut partial, inner, work, fold_part);
    for (y, partial) in y.chunks_exact_mut(inner).zip(partial.chunks_exact(parts * inner)) {
        join_parts(y, partial, zero, join);
    }
}

/// Storage for a line of short rows.
#[repr(align(64))]
struct Line<A>([A; WIDE]);

/// Folds `length` elements in blocks: `fold` adds each block, a range of the elements, to a line of
/// accumulators that are zero. A line is one row, or several rows side by side if one row is too
/// short to fill vectors; these rows are combined at the end. No vector of the line crosses a
/// boundary between cache lines, where reading a vector that was just written is slow.
#[inline(always)]
fn by_lines<A: Scalar>(y: &mut [A], length: usize, zero: A, join: impl Fn(A, A) -> A + Copy, mut fold: impl FnMut(Range<usize>, &mut [A])) {
    let inner = y.len();
    let mut in_blocks = |block: &mut [A], total: &mut [A]| {
        let step = BLOCK * total.len();
        total.fill(zero);
        for start in (0..length).step_by(step) {
            block.fill(zero);
            fold(start..length.min(start + step), block);
            total.iter_mut().zip(&*block).for_each(|(total, &sum)| *total = join(*total, sum));
        }
    };
    if inner > WIDE / 2 {
        return in_blocks(&mut AlignedVec::uninit(inner), y);
    }
    let (mut block, mut total) = (Line([zero; WIDE]), Line([zero; WIDE]));
    let width = WIDE / inner * inner;
    in_blocks(&mut block.0[..width], &mut total.0[..width]);
    y.fill(zero);
    for row in total.0[..width].chunks_exact(inner) {
        y.iter_mut().zip(row).for_each(|(y, &sum)| *y = join(*y, sum));
    }
}

/// Adds the lines of `x`, each as long as `y`, to `y`; the last may be shorter.
#[inline(always)]
fn add_lines<T: Scalar, A: Scalar>(x: &[T], y: &mut [A], add: impl Fn(A, T) -> A + Copy) {
    for line in x.chunks(y.len()) {
        for_pairs(y, line, |y, x| *y = add(*y, x));
    }
}

/// Computes the gradients of `y[o, r, i] = x[o, r, i] · factor[o, i]` in one pass: `grad`, which
/// contains the gradient of `y`, is overwritten with that of `x`, and `sums[o, i]` is set to that
/// of the factor.
pub fn product_gradients<T: Scalar>(shape: [usize; 3], x: &[T], factor: &[T], grad: &mut [T], sums: &mut [T]) {
    let [outer, reduced, inner] = shape;
    assert!(x.len() == outer * reduced * inner && grad.len() == x.len() && factor.len() == outer * inner && sums.len() == factor.len());
    if x.is_empty() {
        return sums.fill(T::default());
    }
    let grad = Disjoint::new(grad);
    by_parts(shape, sums, T::default(), T::plus, |index, part, sums| {
        // SAFETY: parts do not overlap.
        let (x, grad) = (&x[part.clone()], unsafe { grad.slice(part.start, part.len()) });
        let factor = &factor[index * inner..][..inner];
        by_lines(sums, x.len(), T::default(), T::plus, |block, sums| {
            let (x, grad) = (&x[block.clone()], &mut grad[block]);
            let mut repeated = Line([T::default(); WIDE]);
            let factors = if sums.len() == inner {
                factor
            } else {
                let line = &mut repeated.0[..sums.len()];
                line.chunks_exact_mut(inner).for_each(|row| row.copy_from_slice(factor));
                line
            };
            vectorize!(T, product_lines(x, factors, grad, sums));
        });
    });
}

/// Computes `sums += grad · x` and `grad *= factors` for all lines of `x` and `grad`, which are as
/// long as `sums` and `factors`; the last may be shorter.
#[inline(always)]
fn product_lines<T: Scalar>(x: &[T], factors: &[T], grad: &mut [T], sums: &mut [T]) {
    for start in (0..x.len()).step_by(sums.len()) {
        let line = start..x.len().min(start + sums.len());
        let (x, grad) = (&x[line.clone()], &mut grad[line]);
        let (sums, factors) = (&mut sums[..x.len()], &factors[..x.len()]);
        for i in 0..x.len() {
            sums[i] = sums[i].plus(grad[i].times(x[i]));
            grad[i] = grad[i].times(factors[i]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_agree_with_plain_loop() {
        for [outer, reduced, inner] in [
            [1, 1, 1],
            [3, 70_000, 1],
            [5, 7, 1],
            [2, 9, 4],
            [1, 30_000, 5],
            [3, 41, 6],
            [1, 20_001, 63],
            [2, 77, 65],
            [2, 3, 40_000],
            [0, 3, 2],
            [2, 0, 3],
        ] {
            let x: Vec<i64> = (0..outer * reduced * inner).map(|i| (i * 7919 % 1013) as i64).collect();
            let mut y = vec![-1; outer * inner];
            reduce([outer, reduced, inner], &x, &mut y, 0, |a, x| a + x, |a, b| a + b);
            for (at, &sum) in y.iter().enumerate() {
                let (o, i) = (at / inner, at % inner);
                let expected: i64 = (0..reduced).map(|r| x[(o * reduced + r) * inner + i]).sum();
                assert_eq!(sum, expected, "[{outer}, {reduced}, {inner}] at {at}");
            }
        }
    }

    #[test]
    fn long_sums_of_one_sign_keep_precision_of_f32() {
        for [reduced, inner] in [[1 << 20, 1], [1 << 16, 3], [1 << 14, 64], [1 << 14, 100]] {
            let x: Vec<f32> = (0..reduced * inner).map(|i| 1.0 + (i * 7919 % 1013) as f32 / 1013.0).collect();
            let mut y = vec![0f32; inner];
            reduce([1, reduced, inner], &x, &mut y, 0.0, |a, x| a + x, |a, b| a + b);
            for (i, &sum) in y.iter().enumerate() {
                let exact: f64 = x.iter().skip(i).step_by(inner).map(|&x| f64::from(x)).sum();
                let error = (f64::from(sum) - exact).abs() / exact;
                // Blocks of 32 and their joins: a few roundings of 6e-8.
                assert!(error < 3e-7, "{error} of [{reduced}, {inner}] at {i}");
            }
        }
    }

    #[test]
    fn thousands_of_parts_keep_precision_of_f32() {
        for inner in [1, 3, 100] {
            // Roundings of equal numbers do not cancel.
            let parts = vec![1.1f32; 5000 * inner];
            let mut y = vec![0f32; inner];
            join_parts(&mut y, &parts, 0.0, |a, b| a + b);
            let exact = 5000.0 * f64::from(1.1f32);
            let error = y.iter().map(|&sum| (f64::from(sum) - exact).abs() / exact).fold(0.0, f64::max);
            // Totals of 32 blocks and joins of lanes: some tens of roundings of 6e-8. One after the
            // other, the parts would have an error of 5e-5.
            assert!(error < 2e-6, "{error} of {inner}");
        }
    }

    #[test]
    fn gradients_of_product_agree_with_plain_loop() {
        for shape in [[1, 1, 2], [3, 7, 2], [2, 9_000, 8], [2, 41, 24], [1, 20_001, 63], [2, 77, 65], [2, 3, 40_000], [0, 3, 2], [2, 0, 3]]
        {
            let [outer, reduced, inner] = shape;
            let numbers = |count: usize, step: usize| (0..count).map(|i| (i * step % 1013) as i64 - 500).collect::<Vec<_>>();
            let (x, factor, of_y) =
                (numbers(outer * reduced * inner, 7919), numbers(outer * inner, 31), numbers(outer * reduced * inner, 523));
            let (mut grad, mut sums) = (of_y.clone(), vec![-1; outer * inner]);
            product_gradients(shape, &x, &factor, &mut grad, &mut sums);
            let mut expected = vec![0; outer * inner];
            for (at, (&of_y, &x)) in of_y.iter().zip(&x).enumerate() {
                let column = at / (reduced * inner) * inner + at % inner;
                expected[column] += of_y * x;
                assert_eq!(grad[at], of_y * factor[column], "{shape:?} at {at}");
            }
            assert_eq!(sums, expected, "{shape:?}");
        }
    }
}
