//! The loop over a row of places in blocks of channels, which every pass of pooling runs.
//!
//! The passes index arrays in plain loops: the internal loop of an iterator may be compiled as a
//! separate function, without the vectors of the instruction set.

use pulp::{Simd, WithSimd};

use super::windows::{Pooling, Span};
use crate::kernels::runtime::parallel;
use crate::kernels::runtime::simd::{Real, Scalar, dispatch_light};

/// The approximate number of elements that one task handles.
const GRAIN: usize = 8 * 1024;
/// The largest number of channels in a block; used only with the longest vectors.
const WIDEST: usize = 64;
const WIDE: usize = 32;
pub(super) const MIDDLE: usize = 16;
const NARROW: usize = 8;

/// One row of places, processed a block of channels at a time.
pub(super) trait Row {
    /// Whether to compile for blocks of all sizes, not only for the smallest.
    const FAST: bool;
    /// Returns whether everything that `place` reads and writes in blocks of `block` channels is
    /// inside its source and target.
    fn has_room(&self, place: usize, block: usize) -> bool;
    /// Computes `B` channels of `place`, starting at channel `first`.
    fn run<S: Simd, const B: usize>(&mut self, simd: S, place: usize, first: usize);
}

/// Processes all places of a row in blocks of `B` channels.
#[inline(always)]
fn run_blocks<S: Simd, const B: usize>(simd: S, places: usize, channels: usize, row: &mut impl Row) {
    for place in 0..places {
        if channels >= B {
            // The last block overlaps the previous one, so that all blocks have `B` channels.
            for first in (0..channels).step_by(B) {
                row.run::<S, B>(simd, place, first.min(channels - B));
            }
        } else if row.has_room(place, B) {
            row.run::<S, B>(simd, place, 0);
        } else {
            // The last places of the row, channel by channel.
            for channel in 0..channels {
                row.run::<S, 1>(simd, place, channel);
            }
        }
    }
}

/// Processes all places of a row, in blocks as large as the channels and the instruction set allow.
pub(super) fn run_row<T: Real>(places: usize, channels: usize, row: &mut impl Row) {
    struct RowLoop<'a, R> {
        places: usize,
        channels: usize,
        row: &'a mut R,
    }
    impl<R: Row> WithSimd for RowLoop<'_, R> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let RowLoop { places, channels, row } = self;
            // Conditions in `const` blocks remove unused code before it is compiled.
            if const { S::IS_SCALAR || !R::FAST } {
                return run_blocks::<S, NARROW>(simd, places, channels, row);
            }
            if channels >= WIDE {
                // By itself, so that the branch is not compiled where the condition is false.
                #[allow(clippy::collapsible_if)]
                if const { size_of::<S::f32s>() > NARROW * size_of::<f32>() } {
                    if channels >= WIDEST {
                        return run_blocks::<S, WIDEST>(simd, places, channels, row);
                    }
                }
                run_blocks::<S, WIDE>(simd, places, channels, row);
            } else if const { size_of::<S::f32s>() > NARROW * size_of::<f32>() } || channels >= MIDDLE {
                run_blocks::<S, MIDDLE>(simd, places, channels, row);
            } else {
                run_blocks::<S, NARROW>(simd, places, channels, row);
            }
        }
    }
    dispatch_light::<T, _>(RowLoop { places, channels, row });
}

/// Runs `body(row, elements)` for each of the rows of `y`, which have `length` elements each; a
/// task handles several rows. `elements` is the row and all later rows of the task.
pub(super) fn for_rows<T: Scalar>(y: &mut [T], length: usize, work: usize, body: impl Fn(usize, &mut [T]) + Sync) {
    if y.is_empty() {
        return;
    }
    let rows = (GRAIN / length).max(1);
    parallel::chunks_mut(y, rows * length, work, |task, y| {
        (0..y.len() / length).for_each(|i| body(task * rows + i, &mut y[i * length..]));
    });
}

/// Returns whether `block` channels can be read at the last tap of the window at column `place`,
/// and written at that column, with inputs and outputs of `lengths` elements from the first of the
/// channels on.
#[inline(always)]
pub(super) fn has_room(pooling: &Pooling, rows: Span, place: usize, block: usize, channels: usize, lengths: [usize; 2]) -> bool {
    let last = |span: Span, axis: usize| span.start + span.taps.saturating_sub(1) * pooling.step[axis];
    let furthest = last(rows, 0) * pooling.input[1] + last(pooling.spans[1][place], 1);
    furthest * channels + block <= lengths[0] && place * channels + block <= lengths[1]
}

/// Returns the `B` elements from `from` on.
#[inline(always)]
pub(super) fn block<T, const B: usize>(x: &[T], from: usize) -> &[T; B] {
    x[from..].first_chunk().expect("a block lies within the elements")
}

/// Returns the `B` elements from `from` on.
#[inline(always)]
pub(super) fn block_mut<T, const B: usize>(x: &mut [T], from: usize) -> &mut [T; B] {
    x[from..].first_chunk_mut().expect("a block lies within the elements")
}
