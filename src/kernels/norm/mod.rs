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

use super::runtime::allocator::Buffer;
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
    fn repeated<T: Real>(self, image: usize, values: &[f64]) -> Buffer<T> {
        let values = &values[image * self.channels..][..self.channels];
        let mut lanes = Buffer::uninit(self.lanes());
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
mod tests {
    use proptest::prelude::*;

    use super::super::elementwise::epilogue::Activation;
    use super::*;

    fn values(length: usize, seed: usize) -> Vec<f64> {
        (0..length).map(|i| ((i * 7919 + seed * 31) % 1013) as f64 / 100.0 - 3.0).collect()
    }

    fn close(a: &[f64], b: &[f64]) -> bool {
        approx::relative_eq!(a, b, epsilon = 1e-11, max_relative = 1e-11)
    }

    /// Computes the sums of `f` over the rows in `f64` with a plain loop.
    fn plain_sums(maps: Maps, f: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        let at = |slot: usize, row: usize| (slot / maps.channels * maps.rows + row) * maps.channels + slot % maps.channels;
        (0..maps.images * maps.channels).map(|slot| (0..maps.rows).map(|row| f(slot, at(slot, row))).sum()).collect()
    }

    const ACTIVATIONS: [Activation; 7] = [
        Activation::Linear,
        Activation::Relu,
        Activation::Relu6,
        Activation::Silu,
        Activation::Hardswish,
        Activation::Sigmoid,
        Activation::Hardsigmoid,
    ];

    fn any_maps() -> impl Strategy<Value = Maps> {
        let channels = prop_oneof![1usize..9, 60usize..70];
        let rows = prop_oneof![1usize..20, if cfg!(miri) { 20usize..30 } else { 3000..3020 }];
        (1usize..4, rows, channels).prop_map(|(images, rows, channels)| Maps { images, rows, channels })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 24 }))]

        #[test]
        fn every_pass_agrees_with_plain_loop(maps in any_maps()) {
            let (x, grad) = (values(maps.len(), 1), values(maps.len(), 2));
            let found = take_moments(maps, &x);
            let mean: Vec<f64> = plain_sums(maps, |_, at| x[at]).iter().map(|sum| sum / maps.rows as f64).collect();
            prop_assert!(close(&found.mean, &mean));
            prop_assert!(close(&found.m2, &plain_sums(maps, |slot, at| (x[at] - mean[slot]).powi(2))));
            let [scale, shift, slope, offset] = [3, 4, 5, 6].map(|seed| values(mean.len(), seed));
            let slot = |at: usize| at / (maps.rows * maps.channels) * maps.channels + at % maps.channels;
            let normal = |at: usize| (x[at] - mean[slot(at)]) * scale[slot(at)] + shift[slot(at)];
            let factors = [&mean[..], &scale, &shift];
            let shortcut = values(maps.len(), 7);
            for activation in ACTIVATIONS {
                let act = |x: f64| {
                    let mut y = [x];
                    activation.map(&mut y);
                    y[0]
                };
                let chain = |at: usize, x: f64| {
                    let mut g = [grad[at]];
                    activation.chain(&[x], &mut g);
                    g[0]
                };
                let mut y = vec![0.0; x.len()];
                forward(maps, &x, factors, None, activation, &mut y);
                prop_assert!(close(&y, &(0..x.len()).map(|at| act(normal(at))).collect::<Vec<_>>()));
                forward(maps, &x, factors, Some(&shortcut), activation, &mut y);
                let sum = |at: usize| normal(at) + shortcut[at];
                prop_assert!(close(&y, &(0..x.len()).map(|at| act(sum(at))).collect::<Vec<_>>()));

                if !activation.needs_map() {
                    let found = gradient_sums(maps, &grad, &x, factors, activation);
                    let g: Vec<f64> = (0..x.len()).map(|at| chain(at, normal(at))).collect();
                    prop_assert!(close(&found.first, &plain_sums(maps, |_, at| g[at])));
                    prop_assert!(close(&found.second, &plain_sums(maps, |slot, at| g[at] * (x[at] - mean[slot]))));
                    let expected: Vec<f64> = (0..x.len())
                        .map(|at| g[at] * scale[slot(at)] + (x[at] - mean[slot(at)]) * slope[slot(at)] + offset[slot(at)])
                        .collect();
                    let mut dx = vec![0.0; x.len()];
                    gradient(maps, Some(&grad), &x, factors, [&slope, &offset], activation, &mut dx);
                    prop_assert!(close(&dx, &expected));
                    let mut dx = grad.clone();
                    gradient(maps, None, &x, factors, [&slope, &offset], activation, &mut dx);
                    prop_assert!(close(&dx, &expected));
                }

                let sources = [
                    (ActivationSource::Normalised, false),
                    (ActivationSource::NormalisedPlus(&shortcut[..]), true),
                    (ActivationSource::Output(&y[..]), true),
                ];
                for (source, behind_shortcut) in sources.into_iter().take(if activation.reads_output() { 3 } else { 2 }) {
                    let expected: Vec<f64> = (0..x.len()).map(|at| chain(at, if behind_shortcut { sum(at) } else { normal(at) })).collect();
                    let mut g = grad.clone();
                    let found = gradient_sums_in_place(maps, &mut g, &x, factors, source, activation);
                    prop_assert!(close(&g, &expected));
                    prop_assert!(close(&found.first, &plain_sums(maps, |_, at| g[at])));
                    prop_assert!(close(&found.second, &plain_sums(maps, |slot, at| g[at] * (x[at] - mean[slot]))));
                }
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore)] // large
    fn variance_in_f32_stays_accurate_for_large_mean() {
        let maps = Maps { images: 1, rows: 40_000, channels: 3 };
        let x: Vec<f32> = (0..maps.len()).map(|i| 4096.0 + (i * 7919 % 17) as f32 / 8.0).collect();
        let expected = plain_sums(maps, |slot, at| {
            let mean = plain_sums(Maps { images: 1, rows: 17, channels: 3 }, |_, at| f64::from(x[at]))[slot] / 17.0;
            (f64::from(x[at]) - mean).powi(2)
        });
        // The values are exact in f32; the remaining error is the rounding of sums of a few hundred
        // terms.
        for (found, expected) in take_moments(maps, &x).m2.iter().zip(expected) {
            approx::assert_relative_eq!(*found, expected, max_relative = 1e-5);
        }
    }

    #[test]
    fn sums_of_blocks_of_rows_are_combined_without_rounding() {
        let maps = Maps { images: 1, rows: 16 * 512, channels: 8 };
        // The sum of sixteen terms fits the 24 bits of an f32; the sum of all 512 of a lane needs
        // 28.
        let grad: Vec<f32> = (0..maps.len()).map(|i| 1.0 + (i * 7919 % 1013 % 8) as f32 / 524_288.0).collect();
        let x = vec![1f32; maps.len()];
        let [zeros, ones] = [0.0, 1.0].map(|value| vec![value; maps.channels]);
        let found = gradient_sums(maps, &grad, &x, [&zeros, &ones, &zeros], Activation::Linear);
        let expected = plain_sums(maps, |_, at| f64::from(grad[at]));
        assert_eq!(found.first, expected);
        assert_eq!(found.second, expected);
    }
}
