//! The backward pass, which gathers: each input position sums its shares of the gradients of the
//! windows that cover it.

use std::ops::Range;

use pulp::Simd;

use super::rows::{MIDDLE, Row, block_mut, for_rows, run_row};
use super::windows::Pooling;
use crate::kernels::runtime::nontemporal;
use crate::kernels::runtime::simd::Real;

/// The rule for an input position's part of a window's gradient.
pub(super) trait Share<T> {
    /// See [`Row::FAST`].
    const FAST: bool;
    /// Adds to `sum` what the `B` elements of the gradient from `from` on contribute to tap `(i,
    /// j)` of window `(row, column)`.
    fn add<S: Simd, const B: usize>(&self, simd: S, sum: &mut [T; B], from: usize, window: [usize; 2], tap: [usize; 2]);
    /// Returns the length of the gradient.
    fn length(&self) -> usize;
}

/// One row of the input's gradient.
struct GatherRow<'a, T, S> {
    pooling: &'a Pooling,
    channels: usize,
    share: &'a S,
    /// The image and the input row within it.
    image: usize,
    position: usize,
    dx: &'a mut [T],
    /// Whether whole blocks are written with non-temporal stores.
    streamed: bool,
}

impl<T: Real, G: Share<T>> Row for GatherRow<'_, T, G> {
    const FAST: bool = G::FAST;

    #[inline(always)]
    fn has_room(&self, place: usize, block: usize) -> bool {
        let last = |axis: usize, position: usize| self.pooling.readers[axis].range(position).end.saturating_sub(1);
        let [height, width] = self.pooling.output;
        let window = (self.image * height + last(0, self.position)) * width + last(1, place);
        window * self.channels + block <= self.share.length() && place * self.channels + block <= self.dx.len()
    }

    #[inline(always)]
    fn run<S: Simd, const B: usize>(&mut self, simd: S, place: usize, first: usize) {
        let pooling = self.pooling;
        let mut sum = [T::zero(); B];
        let [rows, columns] = &pooling.readers;
        // Plain loops, also because `step_by` divides to count.
        let Range { start: mut row, end: last_row } = rows.range(self.position);
        while row < last_row {
            if let Some(i) = pooling.tap(0, row, self.position) {
                let Range { start: mut column, end: last_column } = columns.range(place);
                while column < last_column {
                    if let Some(j) = pooling.tap(1, column, place) {
                        let from = ((self.image * pooling.output[0] + row) * pooling.output[1] + column) * self.channels + first;
                        self.share.add(simd, &mut sum, from, [row, column], [i, j]);
                    }
                    column += columns.step();
                }
            }
            row += rows.step();
        }
        let dx = block_mut(self.dx, place * self.channels + first);
        if self.streamed { nontemporal::copy(&sum, dx) } else { *dx = sum }
    }
}

/// A row of the input that belongs to one row of windows without overlap: a place is a window,
/// which writes its part to each of its positions.
struct ScatterRow<'a, T, S> {
    pooling: &'a Pooling,
    channels: usize,
    share: &'a S,
    /// The row of windows in its image, its index in the whole batch, and its tap that reads the
    /// input row.
    row: usize,
    row_of_batch: usize,
    tap: usize,
    dx: &'a mut [T],
}

impl<T: Real, G: Share<T>> Row for ScatterRow<'_, T, G> {
    const FAST: bool = G::FAST;

    #[inline(always)]
    fn has_room(&self, place: usize, block: usize) -> bool {
        let window = self.row_of_batch * self.pooling.output[1] + place;
        let span = self.pooling.spans[1][place];
        let last = span.start + span.taps.saturating_sub(1);
        window * self.channels + block <= self.share.length() && last * self.channels + block <= self.dx.len()
    }

    #[inline(always)]
    fn run<S: Simd, const B: usize>(&mut self, simd: S, place: usize, first: usize) {
        let span = self.pooling.spans[1][place];
        let from = (self.row_of_batch * self.pooling.output[1] + place) * self.channels + first;
        for j in 0..span.taps {
            let mut part = [T::zero(); B];
            self.share.add(simd, &mut part, from, [self.row, place], [self.tap, j]);
            *block_mut(self.dx, (span.start + j) * self.channels + first) = part;
        }
    }
}

/// Computes the gradient of the input: each input position sums its shares of the windows that
/// cover it.
pub(super) fn gather<T: Real>(pooling: &Pooling, channels: usize, dx: &mut [T], share: &(impl Share<T> + Sync)) {
    let [height, width] = pooling.input;
    let work = pooling.work(share.length()).max(dx.len());
    // With streamed stores no block may extend into another place, because their order of arrival
    // is not defined.
    let streamed = nontemporal::pays::<T>(dx.len()) && channels.is_multiple_of(MIDDLE);
    let shared_out = pooling.is_shared_out() && !streamed;
    for_rows(dx, width * channels, work, |index, dx| {
        let (image, position) = (index / height, index % height);
        if shared_out {
            let row = pooling.readers[0].range(position).start;
            let Some(tap) = pooling.spans[0].get(row).and_then(|_| pooling.tap(0, row, position)) else {
                return dx[..width * channels].fill(T::zero());
            };
            let row_of_batch = image * pooling.output[0] + row;
            run_row::<T>(pooling.output[1], channels, &mut ScatterRow { pooling, channels, share, row, row_of_batch, tap, dx });
            let end = pooling.spans[1].last().map_or(0, |span| span.start + span.taps);
            return dx[end * channels..width * channels].fill(T::zero());
        }
        run_row::<T>(width, channels, &mut GatherRow { pooling, channels, share, image, position, dx, streamed });
        if streamed {
            nontemporal::fence();
        }
    });
}
