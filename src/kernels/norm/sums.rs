//! The passes that read maps and compute sums: statistics, and the sums for gradients.

use std::ops::Range;

use pulp::Simd;

use super::moments::{Moments, join};
use super::passes::{add, normalise};
use super::{Chunk, LONGEST, LanePass, Maps, run_lanes};
use crate::kernels::elementwise::epilogue::Activation;
use crate::kernels::runtime::allocator::AlignedVec;
use crate::kernels::runtime::arrays::MapEach;
use crate::kernels::runtime::parallel::{self, Disjoint};
use crate::kernels::runtime::simd::{Real, for_pairs};

/// Two numbers for each image and channel.
pub struct Pairs {
    /// The sums of the gradient.
    pub first: Vec<f64>,
    /// The sums of the gradient times the deviation.
    pub second: Vec<f64>,
}

impl Pairs {
    fn zeros(maps: Maps) -> Pairs {
        Pairs { first: vec![0.0; maps.images * maps.channels], second: vec![0.0; maps.images * maps.channels] }
    }
}

/// Two sums of each lane: those of a block of rows, and those of the blocks before it.
///
/// The latter are `f64`: the rounding error of a sum affects all gradients of a channel equally, so
/// that it appears many times larger in the sums of the preceding layers, whose terms nearly
/// cancel.
struct LaneSums<'a, T> {
    block: [&'a mut [T]; 2],
    total: [&'a mut [f64]; 2],
}

impl<T: Real> LaneSums<'_, T> {
    /// Adds the block's sums to those of the blocks before it and clears them.
    #[inline(always)]
    fn end_block(&mut self) {
        for which in 0..2 {
            for_pairs(self.total[which], self.block[which], |total, sum| *total += sum.to_f64().unwrap_or(f64::NAN));
            for sum in &mut *self.block[which] {
                *sum = T::zero();
            }
        }
    }

    /// Adds vectors to the block's sums.
    ///
    /// # Safety
    /// The lanes from `lane` on, a vector or those of the mask if `MASKED`, must exist in all sums.
    #[inline(always)]
    unsafe fn add<S: Simd, const MASKED: bool>(&mut self, simd: S, mask: T::Mask<S>, lane: usize, more: [T::Vector<S>; 2]) {
        #[allow(clippy::needless_range_loop)] // a plain loop, as in `for_pairs`
        for which in 0..2 {
            let at = self.block[which].as_mut_ptr().wrapping_add(lane);
            // SAFETY: by this function's contract.
            unsafe {
                let sum = T::load::<S, MASKED>(simd, mask, at);
                T::store::<S, MASKED>(simd, mask, at, T::vector_add(simd, sum, more[which]));
            }
        }
    }
}

/// Returns both halves of a slice.
fn halves<T>(slice: &mut [T]) -> [&mut [T]; 2] {
    slice.split_at_mut(slice.len() / 2).into()
}

/// Adds the lanes of each channel to its sum.
fn fold_lanes(lanes: &[f64], sums: &mut [f64]) {
    sums.fill(0.0);
    for row in lanes.chunks_exact(sums.len()) {
        sums.iter_mut().zip(row).for_each(|(sum, lane)| *sum += lane);
    }
}

/// Computes two sums for each chunk and channel, `[images · chunks][2][channels]`: `add` sums a
/// chunk lane by lane.
fn partial_sums<T: Real>(maps: Maps, work: usize, add: impl Fn(&Chunk, LaneSums<'_, T>) + Sync) -> AlignedVec<f64> {
    let tasks = maps.images * maps.chunks();
    let mut partial = AlignedVec::uninit(tasks * 2 * maps.channels);
    parallel::chunks_mut(&mut partial, 2 * maps.channels, work, |task, sums| {
        let (chunk, lanes) = (maps.chunk(task), maps.lanes());
        let (mut block, mut total) = (AlignedVec::<T>::zeroed(2 * lanes), AlignedVec::<f64>::zeroed(2 * lanes));
        add(&chunk, LaneSums { block: halves(&mut block), total: halves(&mut total) });
        let [first, second] = halves(&mut total);
        let (sums, more) = sums.split_at_mut(maps.channels);
        fold_lanes(first, sums);
        fold_lanes(second, more);
    });
    partial
}

/// The pass that sums the deviations from the center and their squares.
struct Deviations<'a, T> {
    x: &'a [T],
    center: &'a [T],
    sums: LaneSums<'a, T>,
}

impl<T: Real> LanePass<T> for Deviations<'_, T> {
    #[inline(always)]
    unsafe fn vector<S: Simd, const MASKED: bool>(&mut self, simd: S, at: usize, lane: usize, mask: T::Mask<S>) {
        // SAFETY: by this function's contract; `take_moments` made all slices as long as the chunk
        // or the lanes.
        unsafe {
            let x = T::load::<S, MASKED>(simd, mask, self.x.as_ptr().add(at));
            let deviation = T::vector_sub(simd, x, T::load::<S, MASKED>(simd, mask, self.center.as_ptr().add(lane)));
            self.sums.add::<S, MASKED>(simd, mask, lane, [deviation, T::vector_mul(simd, deviation, deviation)]);
        }
    }

    #[inline(always)]
    fn after_block(&mut self) {
        self.sums.end_block();
    }
}

/// Computes the mean and the sum of squared deviations of each image's channels; `x: [images, rows,
/// channels]`.
pub fn take_moments<T: Real>(maps: Maps, x: &[T]) -> Moments {
    assert_eq!(x.len(), maps.len());
    let channels = maps.channels;
    if x.is_empty() {
        return Moments { mean: vec![0.0; maps.images * channels], m2: vec![0.0; maps.images * channels] };
    }
    let partial = partial_sums(maps, 2 * x.len(), |chunk, sums| {
        let x = &x[chunk.start..][..chunk.length];
        let mut center = AlignedVec::uninit(maps.lanes());
        center.chunks_exact_mut(channels).for_each(|lanes| lanes.copy_from_slice(&x[..channels]));
        run_lanes(maps.lanes(), chunk.length, &mut Deviations { x, center: &center, sums });
    });
    let mut moments = Moments::default();
    for first in (0..maps.images).map(|image| image * maps.chunks()) {
        let chunks: Vec<Chunk> = (first..first + maps.chunks()).map(|task| maps.chunk(task)).collect();
        let rows: Vec<usize> = chunks.iter().map(|chunk| chunk.length / channels).collect();
        let joined = join(channels, &rows, |part, c| {
            let sum = |which: usize| partial[(2 * (first + part) + which) * channels + c];
            [x[chunks[part].start + c].to_f64().unwrap_or(f64::NAN), sum(0), sum(1)]
        });
        moments.mean.extend(joined.mean);
        moments.m2.extend(joined.m2);
    }
    moments
}

/// The source of an activation's argument or result.
#[derive(Clone, Copy, Debug)]
pub enum ActivationSource<'a, T> {
    /// The argument is the normalised input.
    Normalised,
    /// The argument is the normalised input plus these elements.
    NormalisedPlus(&'a [T]),
    /// These elements are the activation's result, which serves as well
    /// ([`Activation::reads_output`]).
    Output(&'a [T]),
}

/// The source of an activation's gradient.
enum Grad<'a, T> {
    /// The gradient of the activation's result.
    Behind(&'a [T]),
    /// The gradient of the activation's result, to be replaced by the gradient of its argument; the
    /// activation's argument or result is available.
    InPlace(&'a mut [T], ActivationSource<'a, T>),
}

/// The pass that sums the gradient before an activation and its products with the deviations.
struct Products<'a, T> {
    grad: Grad<'a, T>,
    x: &'a [T],
    /// Center, scale and shift, along the lanes.
    factors: [&'a [T]; 3],
    activation: Activation,
    /// The activation's argument for a piece.
    scratch: [T; LONGEST],
    sums: LaneSums<'a, T>,
}

impl<T: Real> LanePass<T> for Products<'_, T> {
    #[inline(always)]
    fn before(&mut self, at: usize, lanes: Range<usize>) {
        let Grad::InPlace(grad, source @ (ActivationSource::Normalised | ActivationSource::NormalisedPlus(_))) = &mut self.grad else {
            return;
        };
        let (piece, z) = (at..at + lanes.len(), &mut self.scratch[..lanes.len()]);
        let [center, scale, shift] = self.factors.map_each(|factor| &factor[lanes.clone()]);
        normalise(&self.x[piece.clone()], center, scale, shift, z);
        if let ActivationSource::NormalisedPlus(shortcut) = source {
            add(&shortcut[piece.clone()], z);
        }
        self.activation.chain(z, &mut grad[piece]);
    }

    #[inline(always)]
    unsafe fn vector<S: Simd, const MASKED: bool>(&mut self, simd: S, at: usize, lane: usize, mask: T::Mask<S>) {
        // SAFETY: by this function's contract; `sums` has made all slices as long as the chunk or
        // the lanes, and a piece fits the scratch.
        unsafe {
            let load = |from: &[T], at: usize| T::load::<S, MASKED>(simd, mask, from.as_ptr().add(at));
            let x = load(self.x, at);
            let deviation = T::vector_sub(simd, x, load(self.factors[0], lane));
            let g = match &mut self.grad {
                Grad::Behind(grad) if self.activation.clamps() => {
                    let z = T::vector_mul(simd, deviation, load(self.factors[1], lane));
                    let z = T::vector_add(simd, z, load(self.factors[2], lane));
                    self.activation.chain_clamp::<S, T>(simd, z, load(grad, at))
                }
                Grad::InPlace(grad, ActivationSource::Output(y)) if self.activation.clamps() => {
                    let g = self.activation.chain_clamp::<S, T>(simd, load(y, at), load(grad, at));
                    T::store::<S, MASKED>(simd, mask, grad.as_mut_ptr().add(at), g);
                    g
                }
                Grad::Behind(grad) => load(grad, at),
                Grad::InPlace(grad, _) => load(grad, at),
            };
            self.sums.add::<S, MASKED>(simd, mask, lane, [g, T::vector_mul(simd, g, deviation)]);
        }
    }

    #[inline(always)]
    fn after_block(&mut self) {
        self.sums.end_block();
    }
}

/// Computes `Σ g` and `Σ g · (x - center)` of each image's channels, where `g = grad ·
/// activation'((x - center) · scale + shift)`, with the factors given for each image and channel.
/// The activation must be the identity or a clamp.
pub fn gradient_sums<T: Real>(maps: Maps, grad: &[T], x: &[T], factors: [&[f64]; 3], activation: Activation) -> Pairs {
    assert!(grad.len() == maps.len() && x.len() == maps.len() && !activation.needs_map());
    sums(maps, x, factors, activation, |range| Grad::Behind(&grad[range]))
}

/// Computes the sums of [`gradient_sums`] for any activation, whose argument or result `source`
/// describes; overwrites `grad` with `g`.
pub fn gradient_sums_in_place<T: Real>(
    maps: Maps,
    grad: &mut [T],
    x: &[T],
    factors: [&[f64]; 3],
    source: ActivationSource<'_, T>,
    activation: Activation,
) -> Pairs {
    assert!(grad.len() == maps.len() && x.len() == maps.len());
    let grad = Disjoint::new(grad);
    sums(maps, x, factors, activation, |range| {
        let source = match source {
            ActivationSource::Normalised => ActivationSource::Normalised,
            ActivationSource::NormalisedPlus(shortcut) => ActivationSource::NormalisedPlus(&shortcut[range.clone()]),
            ActivationSource::Output(y) => ActivationSource::Output(&y[range.clone()]),
        };
        // SAFETY: chunks do not overlap.
        Grad::InPlace(unsafe { grad.slice(range.start, range.len()) }, source)
    })
}

/// Computes the sums of [`Products`]; `grad_of` returns a chunk's gradient.
fn sums<'a, T: Real>(
    maps: Maps,
    x: &[T],
    factors: [&[f64]; 3],
    activation: Activation,
    grad_of: impl Fn(Range<usize>) -> Grad<'a, T> + Sync,
) -> Pairs {
    let mut total = Pairs::zeros(maps);
    if x.is_empty() {
        return total;
    }
    let lanes = maps.lanes();
    let partial = partial_sums(maps, (2 + activation.cost()) * x.len(), |chunk, sums| {
        let repeated = factors.map(|values| maps.repeated(chunk.image, values));
        let factors = repeated.each_ref().map(|lanes| &lanes[..]);
        let range = chunk.start..chunk.start + chunk.length;
        let (grad, x) = (grad_of(range.clone()), &x[range]);
        run_lanes(lanes, chunk.length, &mut Products { grad, x, factors, activation, scratch: [T::zero(); LONGEST], sums });
    });
    for (task, part) in partial.chunks_exact(2 * maps.channels).enumerate() {
        let range = task / maps.chunks() * maps.channels..(task / maps.chunks() + 1) * maps.channels;
        let (first, second) = part.split_at(maps.channels);
        total.first[range.clone()].iter_mut().zip(first).for_each(|(sum, part)| *sum += part);
        total.second[range].iter_mut().zip(second).for_each(|(sum, part)| *sum += part);
    }
    total
}
