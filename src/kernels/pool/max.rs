//! Max pooling and its gradient.

use pulp::Simd;

use super::gather::{Share, gather};
use super::rows::{Row, block, block_mut, for_rows, has_room, run_row};
use super::windows::{Pooling, Span};
use crate::kernels::runtime::arrays::MapEach;
use crate::kernels::runtime::parallel::Disjoint;
use crate::kernels::runtime::simd::{Real, Scalar};

/// Computes the largest element of each window and its position in the window: `y, at: [N, outH,
/// outW, C]`, `x: [N, H, W, C]`.
///
/// A window that is entirely in the padding gives -∞.
pub fn max<T: Real, I: Scalar>(pooling: &Pooling, channels: usize, x: &[T], y: &mut [T], at: Option<&mut [I]>) {
    let (image, row) = (pooling.input[0] * pooling.input[1] * channels, pooling.output[1] * channels);
    let work = pooling.work(y.len());
    match at {
        None => for_rows(y, row, work, |index, y| {
            let (x, rows) = (&x[index / pooling.output[0] * image..], pooling.spans[0][index % pooling.output[0]]);
            run_row::<T>(pooling.output[1], channels, &mut MaxRow::<T, u8, false> { pooling, channels, x, rows, y, at: &mut [] });
        }),
        Some(at) => {
            assert_eq!(at.len(), y.len());
            let at = Disjoint::new(at);
            for_rows(y, row, work, |index, y| {
                let (x, rows) = (&x[index / pooling.output[0] * image..], pooling.spans[0][index % pooling.output[0]]);
                // SAFETY: each task has its own rows, and `y` ends with them.
                let at = unsafe { at.slice(index * row, y.len()) };
                run_row::<T>(pooling.output[1], channels, &mut MaxRow::<T, I, true> { pooling, channels, x, rows, y, at });
            });
        }
    }
}

/// Computes the position in the image, `row · W + column`, of each window's largest element from
/// its position in the window, which [`max`] has found: `at, positions: [N, outH, outW, C]`.
pub fn positions<I: Scalar>(pooling: &Pooling, channels: usize, at: &[I], positions: &mut [i64]) {
    assert_eq!(at.len(), positions.len());
    let [height, width] = pooling.output;
    // Windows may hold padding only: then there is no tap.
    let widest = pooling.widest[1].max(1);
    for_rows(positions, width * channels, at.len(), |index, positions| {
        let rows = pooling.spans[0][index % height];
        let places = at[index * width * channels..].chunks_exact(channels).zip(positions.chunks_exact_mut(channels));
        for (columns, (at, positions)) in pooling.spans[1].iter().zip(places) {
            for (position, at) in positions.iter_mut().zip(at) {
                let tap = at.to_usize().unwrap_or_default();
                let (i, j) = (tap / widest, tap % widest);
                let (row, column) = (rows.start + i * pooling.step[0], columns.start + j * pooling.step[1]);
                *position = (row * pooling.input[1] + column) as i64;
            }
        }
    });
}

/// Computes the gradient of [`max`]: each window's gradient goes to its maximum. `dx: [N, H, W,
/// C]`, `grad, at: [N, outH, outW, C]`.
pub fn max_backward<T: Real, I: Scalar>(pooling: &Pooling, channels: usize, grad: &[T], at: &[I], dx: &mut [T]) {
    assert_eq!(grad.len(), at.len());
    gather(pooling, channels, dx, &MaxShare { pooling, grad, at });
}

/// One row of the result, and of the positions if `KEEP`.
struct MaxRow<'a, T, I, const KEEP: bool> {
    pooling: &'a Pooling,
    channels: usize,
    /// The input from the image's start to the end of the batch.
    x: &'a [T],
    rows: Span,
    y: &'a mut [T],
    at: &'a mut [I],
}

impl<T: Real, I: Scalar, const KEEP: bool> Row for MaxRow<'_, T, I, KEEP> {
    const FAST: bool = T::FAST && size_of::<I>() == 1;

    #[inline(always)]
    fn has_room(&self, place: usize, block: usize) -> bool {
        has_room(self.pooling, self.rows, place, block, self.channels, [self.x.len(), self.y.len()])
    }

    #[inline(always)]
    fn run<S: Simd, const B: usize>(&mut self, simd: S, place: usize, first: usize) {
        if const { !S::IS_SCALAR && Self::FAST && B > 1 } {
            return self.run_vectors::<S, B>(simd, place, first);
        }
        let (pooling, columns) = (self.pooling, self.pooling.spans[1][place]);
        let mut best = [T::neg_infinity(); B];
        let mut at = [I::zero(); B];
        for i in 0..self.rows.taps {
            let row = (self.rows.start + i * pooling.step[0]) * pooling.input[1];
            for j in 0..columns.taps {
                let from = (row + columns.start + j * pooling.step[1]) * self.channels + first;
                let tap = if KEEP { I::from(i * pooling.widest[1] + j).unwrap_or_default() } else { I::zero() };
                let x = block::<T, B>(self.x, from);
                for c in 0..B {
                    // A NaN wins, the last one if there are several; otherwise the first maximum
                    // wins (PyTorch's rule).
                    let wins = (x[c] > best[c]) | x[c].is_nan();
                    best[c] = if wins { x[c] } else { best[c] };
                    if KEEP {
                        at[c] = if wins { tap } else { at[c] };
                    }
                }
            }
        }
        let to = place * self.channels + first;
        *block_mut(self.y, to) = best;
        if KEEP {
            *block_mut(self.at, to) = at;
        }
    }
}

impl<T: Real, I: Scalar, const KEEP: bool> MaxRow<'_, T, I, KEEP> {
    /// Computes `run` for a whole block whose positions fit a byte: they are kept as numbers of
    /// type `T` during the search, lane by lane.
    #[inline(always)]
    fn run_vectors<S: Simd, const B: usize>(&mut self, simd: S, place: usize, first: usize) {
        let (pooling, columns, lanes) = (self.pooling, self.pooling.spans[1][place], T::lanes::<S>());
        let mut best = [T::neg_infinity(); B];
        let mut at = [T::zero(); B];
        for i in 0..self.rows.taps {
            let row = (self.rows.start + i * pooling.step[0]) * pooling.input[1];
            for j in 0..columns.taps {
                let from = (row + columns.start + j * pooling.step[1]) * self.channels + first;
                let x = block::<T, B>(self.x, from);
                let tap = T::splat(simd, T::of((i * pooling.widest[1] + j) as f64));
                for v in (0..B).step_by(lanes) {
                    let leader = [read::<S, T>(&best[v..v + lanes]), read::<S, T>(&at[v..v + lanes])];
                    let [new_best, new_at] = T::vector_leader(simd, [read::<S, T>(&x[v..v + lanes]), tap], leader);
                    write::<S, T>(new_best, &mut best[v..v + lanes]);
                    if KEEP {
                        write::<S, T>(new_at, &mut at[v..v + lanes]);
                    }
                }
            }
        }
        let to = place * self.channels + first;
        *block_mut(self.y, to) = best;
        if KEEP {
            let bytes = block_mut::<u8, B>(bytemuck::cast_slice_mut(self.at), to);
            for c in 0..B {
                bytes[c] = at[c].to_byte();
            }
        }
    }
}

/// The gradient of a window goes to the position of its maximum.
struct MaxShare<'a, T, I> {
    pooling: &'a Pooling,
    grad: &'a [T],
    at: &'a [I],
}

impl<T: Real, I: Scalar> Share<T> for MaxShare<'_, T, I> {
    const FAST: bool = T::FAST && size_of::<I>() == 1;

    #[inline(always)]
    fn add<S: Simd, const B: usize>(&self, simd: S, sum: &mut [T; B], from: usize, _: [usize; 2], [i, j]: [usize; 2]) {
        let tap = i * self.pooling.widest[1] + j;
        let (grad, at) = (block::<T, B>(self.grad, from), block::<I, B>(self.at, from));
        if const { !S::IS_SCALAR && Self::FAST && B > 1 } {
            // Compared as numbers of type `T`, lane by lane.
            let (lanes, tap) = (T::lanes::<S>(), T::splat(simd, T::of(tap as f64)));
            let bytes = block::<u8, B>(bytemuck::cast_slice(at), 0);
            let mut numbers = [T::zero(); B];
            for c in 0..B {
                numbers[c] = T::of_byte(bytes[c]);
            }
            for v in (0..B).step_by(lanes) {
                let [at, grad, old] = [&numbers[v..v + lanes], &grad[v..v + lanes], &sum[v..v + lanes]].map_each(read::<S, T>);
                write::<S, T>(T::vector_add(simd, old, T::vector_where_equal(simd, [at, tap], grad)), &mut sum[v..v + lanes]);
            }
            return;
        }
        let tap = I::from(tap).unwrap_or_default();
        for c in 0..B {
            sum[c] += if at[c] == tap { grad[c] } else { T::zero() };
        }
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.grad.len()
    }
}

/// Reads a vector from as many elements.
#[inline(always)]
fn read<S: Simd, T: Real>(x: &[T]) -> T::Vector<S> {
    assert_eq!(x.len(), T::lanes::<S>());
    // SAFETY: the slice has the elements of a vector, which is plain numbers; the read is
    // unaligned.
    unsafe { x.as_ptr().cast::<T::Vector<S>>().read_unaligned() }
}

/// Writes a vector to as many elements.
#[inline(always)]
fn write<S: Simd, T: Real>(x: T::Vector<S>, out: &mut [T]) {
    assert_eq!(out.len(), T::lanes::<S>());
    // SAFETY: as in `read`, borrowed exclusively.
    unsafe { out.as_mut_ptr().cast::<T::Vector<S>>().write_unaligned(x) }
}
