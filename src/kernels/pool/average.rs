//! Average pooling and its gradient.

use pulp::Simd;

use super::gather::{Share, gather};
use super::rows::{Row, block, block_mut, for_rows, has_room, run_row};
use super::windows::{Pooling, Span};
use crate::kernels::runtime::simd::Real;

/// Computes the average of each window: `y: [N, outH, outW, C]`, `x: [N, H, W, C]`.
pub fn average<T: Real>(pooling: &Pooling, channels: usize, x: &[T], y: &mut [T]) {
    let (image, row) = (pooling.input[0] * pooling.input[1] * channels, pooling.output[1] * channels);
    let work = pooling.work(y.len());
    for_rows(y, row, work, |index, y| {
        let (x, rows) = (&x[index / pooling.output[0] * image..], pooling.spans[0][index % pooling.output[0]]);
        run_row::<T>(pooling.output[1], channels, &mut AverageRow { pooling, channels, x, rows, y });
    });
}

/// Computes the gradient of [`average`]. `dx: [N, H, W, C]`, `grad: [N, outH, outW, C]`.
pub fn average_backward<T: Real>(pooling: &Pooling, channels: usize, grad: &[T], dx: &mut [T]) {
    gather(pooling, channels, dx, &AverageShare { pooling, grad });
}

/// One row of the result.
struct AverageRow<'a, T> {
    pooling: &'a Pooling,
    channels: usize,
    x: &'a [T],
    rows: Span,
    y: &'a mut [T],
}

impl<T: Real> Row for AverageRow<'_, T> {
    const FAST: bool = T::FAST;

    #[inline(always)]
    fn has_room(&self, place: usize, block: usize) -> bool {
        has_room(self.pooling, self.rows, place, block, self.channels, [self.x.len(), self.y.len()])
    }

    #[inline(always)]
    fn run<S: Simd, const B: usize>(&mut self, _: S, place: usize, first: usize) {
        let (pooling, columns) = (self.pooling, self.pooling.spans[1][place]);
        let mut total = [T::zero(); B];
        for i in 0..self.rows.taps {
            let row = (self.rows.start + i * pooling.step[0]) * pooling.input[1];
            // Summing each row of the window first loses less precision for large windows.
            let mut sum = [T::zero(); B];
            for j in 0..columns.taps {
                let from = (row + columns.start + j * pooling.step[1]) * self.channels + first;
                let x = block::<T, B>(self.x, from);
                for c in 0..B {
                    sum[c] += x[c];
                }
            }
            for c in 0..B {
                total[c] += sum[c];
            }
        }
        let count = T::of((self.rows.counted * columns.counted).max(1) as f64);
        let y = block_mut::<T, B>(self.y, place * self.channels + first);
        for c in 0..B {
            y[c] = total[c] / count;
        }
    }
}

/// The gradient of a window is divided evenly among its positions.
struct AverageShare<'a, T> {
    pooling: &'a Pooling,
    grad: &'a [T],
}

impl<T: Real> Share<T> for AverageShare<'_, T> {
    const FAST: bool = T::FAST;

    #[inline(always)]
    fn add<S: Simd, const B: usize>(&self, _: S, sum: &mut [T; B], from: usize, [row, column]: [usize; 2], _: [usize; 2]) {
        let share = T::one() / T::of((self.pooling.spans[0][row].counted * self.pooling.spans[1][column].counted) as f64);
        let grad = block::<T, B>(self.grad, from);
        for c in 0..B {
            sum[c] += grad[c] * share;
        }
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.grad.len()
    }
}
