//! The passes that write a map: the normalised data, and the gradient.

use std::ops::Range;

use pulp::Simd;

use super::{Chunk, LONGEST, LanePass, Maps, run_lanes};
use crate::kernels::elementwise::epilogue::Activation;
use crate::kernels::runtime::arrays::MapEach;
use crate::kernels::runtime::nontemporal;
use crate::kernels::runtime::parallel::{self, Disjoint};
use crate::kernels::runtime::simd::{Real, for_pairs};

/// Computes `z = (x - center) · scale + shift`; must be called where loops are vectorised already.
#[inline(always)]
pub(super) fn normalise<T: Real>(x: &[T], center: &[T], scale: &[T], shift: &[T], z: &mut [T]) {
    let [x, center, scale, shift] = [x, center, scale, shift].map_each(|values| &values[..z.len()]);
    for i in 0..z.len() {
        z[i] = (x[i] - center[i]) * scale[i] + shift[i];
    }
}

/// Computes `z += shortcut`; must be called where loops are vectorised already.
#[inline(always)]
pub(super) fn add<T: Real>(shortcut: &[T], z: &mut [T]) {
    for_pairs(z, shortcut, |z, shortcut| *z += shortcut);
}

/// The destination of a pass: the output itself, or a buffer from which each piece is copied with
/// non-temporal stores.
struct Target<'a, T> {
    y: &'a mut [T],
    aside: Option<[T; LONGEST]>,
    first_of_piece: usize,
}

impl<T: Real> Target<'_, T> {
    /// Returns the elements of a piece, from `at` on.
    #[inline(always)]
    fn piece(&mut self, at: usize, length: usize) -> &mut [T] {
        match &mut self.aside {
            Some(aside) => &mut aside[..length],
            None => &mut self.y[at..at + length],
        }
    }

    /// Returns where element `at`, which belongs to lane `lane`, is written.
    #[inline(always)]
    fn pointer(&mut self, at: usize, lane: usize) -> *mut T {
        match &mut self.aside {
            Some(aside) => aside.as_mut_ptr().wrapping_add(lane - self.first_of_piece),
            None => self.y.as_mut_ptr().wrapping_add(at),
        }
    }

    /// Copies a finished piece to the output.
    #[inline(always)]
    fn flush(&mut self, at: usize, length: usize) {
        if let Some(aside) = &self.aside {
            nontemporal::copy(&aside[..length], &mut self.y[at..at + length]);
        }
    }
}

/// Runs `pass(chunk, target, repeated)` for every chunk of `y`, with `N` values of each image and
/// channel repeated along the lanes. Chunks are processed from the last to the first. If
/// `streamed`, results are written with non-temporal stores.
fn for_chunks<T: Real, const N: usize>(
    maps: Maps,
    y: &mut [T],
    streamed: bool,
    work: usize,
    values: [&[f64]; N],
    pass: impl Fn(&Chunk, Target<'_, T>, [&[T]; N]) + Sync,
) {
    assert_eq!(y.len(), maps.len());
    if y.is_empty() {
        return;
    }
    let y = Disjoint::new(y);
    parallel::for_each_backwards(maps.images * maps.chunks(), work, |task| {
        let chunk = maps.chunk(task);
        let repeated = values.map(|values| maps.repeated(chunk.image, values));
        // SAFETY: chunks do not overlap.
        let y = unsafe { y.slice(chunk.start, chunk.length) };
        pass(
            &chunk,
            Target { y, aside: streamed.then_some([T::zero(); LONGEST]), first_of_piece: 0 },
            repeated.each_ref().map(|lanes| &lanes[..]),
        );
        if streamed {
            nontemporal::fence();
        }
    });
}

/// The pass that writes the normalised data.
struct Forward<'a, T> {
    x: &'a [T],
    factors: [&'a [T]; 3],
    shortcut: Option<&'a [T]>,
    activation: Activation,
    target: Target<'a, T>,
}

impl<T: Real> LanePass<T> for Forward<'_, T> {
    #[inline(always)]
    fn before(&mut self, _: usize, lanes: Range<usize>) {
        self.target.first_of_piece = lanes.start;
    }

    #[inline(always)]
    unsafe fn vector<S: Simd, const MASKED: bool>(&mut self, simd: S, at: usize, lane: usize, mask: T::Mask<S>) {
        // SAFETY: by this function's contract; `forward` has made all slices as long as the chunk
        // or the lanes.
        unsafe {
            let load = |from: &[T], at: usize| T::load::<S, MASKED>(simd, mask, from.as_ptr().add(at));
            let [center, scale, shift] = self.factors.map_each(|factor| load(factor, lane));
            let mut y = T::vector_add(simd, T::vector_mul(simd, T::vector_sub(simd, load(self.x, at), center), scale), shift);
            if let Some(shortcut) = self.shortcut {
                y = T::vector_add(simd, y, load(shortcut, at));
            }
            T::store::<S, MASKED>(simd, mask, self.target.pointer(at, lane), self.activation.clamp::<S, T>(simd, y));
        }
    }

    #[inline(always)]
    fn after(&mut self, at: usize, lanes: Range<usize>) {
        if self.activation.needs_map() {
            self.activation.map(self.target.piece(at, lanes.len()));
        }
        self.target.flush(at, lanes.len());
    }
}

/// Computes `y = activation((x - center) · scale + shift + shortcut)`, with the factors given for
/// each image and channel.
pub fn forward<T: Real>(maps: Maps, x: &[T], factors: [&[f64]; 3], shortcut: Option<&[T]>, activation: Activation, y: &mut [T]) {
    assert!(x.len() == maps.len() && shortcut.is_none_or(|shortcut| shortcut.len() == maps.len()));
    let (work, streamed) = ((2 + activation.cost()) * y.len(), nontemporal::pays::<T>(y.len()));
    for_chunks(maps, y, streamed, work, factors, |chunk, target, factors| {
        let (x, shortcut) = (&x[chunk.start..][..chunk.length], shortcut.map(|shortcut| &shortcut[chunk.start..][..chunk.length]));
        run_lanes(maps.lanes(), chunk.length, &mut Forward { x, factors, shortcut, activation, target });
    });
}

/// The pass that writes the input's gradient.
struct Gradient<'a, T> {
    /// The gradient of the activation's result; if `None`, the target contains it.
    grad: Option<&'a [T]>,
    x: &'a [T],
    /// Center, scale, shift, slope and offset.
    factors: [&'a [T]; 5],
    activation: Activation,
    target: Target<'a, T>,
}

impl<T: Real> LanePass<T> for Gradient<'_, T> {
    #[inline(always)]
    fn before(&mut self, _: usize, lanes: Range<usize>) {
        self.target.first_of_piece = lanes.start;
    }

    #[inline(always)]
    unsafe fn vector<S: Simd, const MASKED: bool>(&mut self, simd: S, at: usize, lane: usize, mask: T::Mask<S>) {
        // SAFETY: by this function's contract; `gradient` has made all slices as long as the chunk
        // or the lanes.
        unsafe {
            let load = |from: &[T], at: usize| T::load::<S, MASKED>(simd, mask, from.as_ptr().add(at));
            let [center, scale, shift, slope, offset] = self.factors;
            let (deviation, scale, to) =
                (T::vector_sub(simd, load(self.x, at), load(center, lane)), load(scale, lane), self.target.pointer(at, lane));
            let mut g = match self.grad {
                Some(grad) => load(grad, at),
                None => T::load::<S, MASKED>(simd, mask, to),
            };
            if self.activation.clamps() {
                let z = T::vector_add(simd, T::vector_mul(simd, deviation, scale), load(shift, lane));
                g = self.activation.chain_clamp::<S, T>(simd, z, g);
            }
            let dx = T::vector_add(simd, T::vector_mul(simd, g, scale), T::vector_mul(simd, deviation, load(slope, lane)));
            T::store::<S, MASKED>(simd, mask, to, T::vector_add(simd, dx, load(offset, lane)));
        }
    }

    #[inline(always)]
    fn after(&mut self, at: usize, lanes: Range<usize>) {
        self.target.flush(at, lanes.len());
    }
}

/// Computes `dx = g · scale + (x - center) · slope + offset` with `g = grad · activation'((x -
/// center) · scale + shift)`; if `grad` is `None`, `dx` contains the gradient. The activation must
/// be the identity or a clamp.
pub fn gradient<T: Real>(
    maps: Maps,
    grad: Option<&[T]>,
    x: &[T],
    [center, scale, shift]: [&[f64]; 3],
    [slope, offset]: [&[f64]; 2],
    activation: Activation,
    dx: &mut [T],
) {
    assert!(x.len() == maps.len() && grad.is_none_or(|grad| grad.len() == maps.len()) && !activation.needs_map());
    let (work, streamed) = ((2 + activation.cost()) * dx.len(), grad.is_some() && nontemporal::pays::<T>(dx.len()));
    for_chunks(maps, dx, streamed, work, [center, scale, shift, slope, offset], |chunk, target, factors| {
        let (grad, x) = (grad.map(|grad| &grad[chunk.start..][..chunk.length]), &x[chunk.start..][..chunk.length]);
        run_lanes(maps.lanes(), chunk.length, &mut Gradient { grad, x, factors, activation, target });
    });
}
