//! Normalisation by channel: the passes of batch and group normalisation, fused with a following
//! shortcut and activation.
//!
//! Data is `[images, rows, channels]` with channels contiguous; statistics are kept for each image
//! and channel. Batch normalisation treats the whole batch as one image; group normalisation joins
//! channels. The forward pass reads the data twice ([`moments`], [`forward`]), and so does the
//! backward pass (two sums, the gradient), for any activation. The argument of the activation is
//! recomputed from the input, which is cheaper than storing it: for a clamp in both backward
//! passes; for other activations in the first one, which stores the gradient before the activation
//! for the second. A second pass reads the data from the end and finds in the cache what the first
//! one read last.
//!
//! Statistics take one pass: each chunk of rows is summed relative to its own first row, and the
//! sums of the chunks are combined ([`moments`](crate::kernels::norm::moments)). With few channels,
//! several rows are summed as one, which keeps vectors full.

pub mod layer;
pub mod local_response;
pub mod moments;
mod passes;
mod sums;

use std::ops::Range;

pub use passes::{forward, gradient};
pub use sums::{ActivationSource, Pairs, gradient_sums, gradient_sums_in_place, take_moments};

use pulp::{Simd, WithSimd};

use super::runtime::allocator::AlignedVec;
use super::runtime::simd::{Real, dispatch_light};

/// The number of elements that one task handles.
const GRAIN: usize = 64 * 1024;
/// The number of elements that are worth processing side by side.
const LANES: usize = 128;
/// The number of lanes that are handled at a time: few enough to stay in the innermost cache from
/// one step to the next, and for loads of one piece to overlap with stores of the previous one.
const PIECE: usize = 128;
/// The number of rows of lanes that are summed before they are added to earlier rows: the rounding
/// error of a sum of values of one sign grows with the number of terms.
const BLOCK: usize = 16;
/// The largest number of lanes that are not divided into pieces.
const LONGEST: usize = PIECE + PIECE / 2;

/// The sizes of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maps {
    /// The number of parts with separate statistics.
    pub images: usize,
    /// The number of values of each channel in an image.
    pub rows: usize,
    /// The number of channels, contiguous in memory.
    pub channels: usize,
}

/// A part of an image's rows.
struct Chunk {
    image: usize,
    /// The start of the chunk in the data, and its number of elements.
    start: usize,
    length: usize,
}

impl Maps {
    fn len(self) -> usize {
        self.images * self.rows * self.channels
    }

    /// Returns the number of elements in the rows that are processed side by side.
    fn lanes(self) -> usize {
        (LANES / self.channels).max(1) * self.channels
    }

    fn chunk_rows(self) -> usize {
        (GRAIN / self.lanes()).max(1) * (self.lanes() / self.channels)
    }

    /// Returns the number of chunks in an image.
    fn chunks(self) -> usize {
        self.rows.div_ceil(self.chunk_rows())
    }

    fn chunk(self, task: usize) -> Chunk {
        let (image, first) = (task / self.chunks(), task % self.chunks() * self.chunk_rows());
        let rows = self.chunk_rows().min(self.rows - first);
        Chunk { image, start: (image * self.rows + first) * self.channels, length: rows * self.channels }
    }

    /// Returns the values of an image, one for each channel, repeated along the lanes.
    fn repeated<T: Real>(self, image: usize, values: &[f64]) -> AlignedVec<T> {
        let values = &values[image * self.channels..][..self.channels];
        let mut lanes = AlignedVec::uninit(self.lanes());
        for row in lanes.chunks_exact_mut(self.channels) {
            row.iter_mut().zip(values).for_each(|(lane, &value)| *lane = T::of(value));
        }
        lanes
    }
}

/// A pass over the elements of a chunk in vectors, each of which belongs to some of the lanes.
trait LanePass<T: Real> {
    /// Runs before the vectors of a piece: the chunk's elements from `at` on, which belong to these
    /// lanes of a row.
    fn before(&mut self, _at: usize, _lanes: Range<usize>) {}

    /// Handles a vector, or the lanes of the mask if `MASKED`, that starts at element `at` of the
    /// chunk and lane `lane` of a row.
    ///
    /// # Safety
    /// These elements and lanes must exist.
    unsafe fn vector<S: Simd, const MASKED: bool>(&mut self, simd: S, at: usize, lane: usize, mask: T::Mask<S>);

    /// Runs after the vectors of a piece.
    fn after(&mut self, _at: usize, _lanes: Range<usize>) {}

    /// Runs after every [`BLOCK`] rows of lanes, and after the last.
    fn after_block(&mut self) {}
}

/// Runs a pass over the elements of a chunk, in rows of `lanes` elements.
fn run_lanes<T: Real>(lanes: usize, elements: usize, pass: &mut impl LanePass<T>) {
    struct LaneLoop<'a, T, P> {
        lanes: usize,
        elements: usize,
        pass: &'a mut P,
        element: std::marker::PhantomData<T>,
    }
    impl<T: Real, P: LanePass<T>> WithSimd for LaneLoop<'_, T, P> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let LaneLoop { lanes, elements, pass, .. } = self;
            let (step, width) = (if lanes <= LONGEST { lanes } else { PIECE }, T::lanes::<S>());
            for (index, row) in (0..elements).step_by(lanes).enumerate() {
                let length = lanes.min(elements - row);
                for first in (0..length).step_by(step) {
                    let piece = first..length.min(first + step);
                    pass.before(row + first, piece.clone());
                    let whole = piece.start + piece.len() / width * width;
                    for lane in (piece.start..whole).step_by(width) {
                        // SAFETY: a whole vector is inside the piece, all of it in the chunk and
                        // its lanes.
                        unsafe { pass.vector::<S, false>(simd, row + lane, lane, T::mask(simd, width)) };
                    }
                    if whole < piece.end {
                        // SAFETY: the mask ends with the piece.
                        unsafe { pass.vector::<S, true>(simd, row + whole, whole, T::mask(simd, piece.end - whole)) };
                    }
                    pass.after(row + first, piece);
                }
                if index % BLOCK == BLOCK - 1 {
                    pass.after_block();
                }
            }
            pass.after_block();
        }
    }
    dispatch_light::<T, _>(LaneLoop { lanes, elements, pass, element: std::marker::PhantomData });
}

#[cfg(test)]
mod tests;
