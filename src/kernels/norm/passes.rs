//! The passes that write a map: the normalised data, and the gradient.

use super::{Chunk, LONGEST, Maps, for_pieces};
use crate::kernels::epilogue::Activation;
use crate::kernels::memory::Buffer;
use crate::kernels::parallel::{self, Disjoint};
use crate::kernels::simd::{Real, vectorize};
use crate::kernels::stream;

/// `z = (x - center) · scale + shift`.
#[inline(always)]
pub(super) fn normalise<T: Real>(x: &[T], center: &[T], scale: &[T], shift: &[T], z: &mut [T]) {
    for ((((z, &x), &center), &scale), &shift) in z.iter_mut().zip(x).zip(center).zip(scale).zip(shift) {
        *z = (x - center) * scale + shift;
    }
}

/// `z += shortcut`.
#[inline(always)]
pub(super) fn add<T: Real>(shortcut: &[T], z: &mut [T]) {
    z.iter_mut().zip(shortcut).for_each(|(z, &shortcut)| *z += shortcut);
}

/// `dx = g · scale + (x - center) · slope + offset`, where `dx` holds `g`.
#[inline(always)]
fn correct<T: Real>(x: &[T], center: &[T], scale: &[T], slope: &[T], offset: &[T], dx: &mut [T]) {
    let factors = center.iter().zip(scale).zip(slope).zip(offset);
    for ((dx, &x), (((&center, &scale), &slope), &offset)) in dx.iter_mut().zip(x).zip(factors) {
        *dx = *dx * scale + (x - center) * slope + offset;
    }
}

/// Runs `body(at, piece, scratch, lanes)` for every piece of `y`, the one from element `at` on, with `N` values of each image and channel repeated
/// along the lanes. The last chunk comes first. If `streamed`, a piece does not show what was there, and goes past the cache.
fn for_map<T: Real, const N: usize>(
    maps: Maps,
    y: &mut [T],
    streamed: bool,
    work: usize,
    values: [&[f64]; N],
    body: impl Fn(usize, &mut [T], &mut [T], [&[T]; N]) + Sync,
) {
    assert_eq!(y.len(), maps.len());
    if y.is_empty() {
        return;
    }
    let (lanes, tasks) = (maps.lanes(), maps.images * maps.chunks());
    let y = Disjoint::new(y);
    parallel::for_each(tasks, work, |task| {
        let Chunk { image, start, length } = maps.chunk(tasks - 1 - task);
        let mut repeated = Buffer::<T>::uncleared(N * lanes);
        repeated.chunks_exact_mut(lanes).zip(values).for_each(|(lanes, values)| maps.repeat(image, values, lanes));
        let repeated: [&[T]; N] = std::array::from_fn(|i| &repeated[i * lanes..][..lanes]);
        let (mut scratch, mut result) = ([T::zero(); LONGEST], [T::zero(); LONGEST]);
        // SAFETY: chunks do not overlap.
        let y = unsafe { y.slice(start, length) };
        vectorize(
            #[inline(always)]
            || {
                for_pieces(
                    lanes,
                    length,
                    #[inline(always)]
                    |at, lanes| {
                        let (y, scratch, result) = (&mut y[at..at + lanes.len()], &mut scratch[..lanes.len()], &mut result[..lanes.len()]);
                        let values = repeated.map(|values| &values[lanes.clone()]);
                        if streamed {
                            body(start + at, result, scratch, values);
                            stream::copy(result, y);
                        } else {
                            body(start + at, y, scratch, values);
                        }
                    },
                );
            },
        );
        if streamed {
            stream::fence();
        }
    });
}

/// `y = activation((x - center) · scale + shift + shortcut)`, the factors given for each image and channel.
pub fn forward<T: Real>(maps: Maps, x: &[T], factors: [&[f64]; 3], shortcut: Option<&[T]>, activation: Activation, y: &mut [T]) {
    let (work, streamed) = ((2 + activation.cost()) * y.len(), stream::pays::<T>(y.len()));
    for_map(
        maps,
        y,
        streamed,
        work,
        factors,
        #[inline(always)]
        |at, y, _, [center, scale, shift]| {
            normalise(&x[at..at + y.len()], center, scale, shift, y);
            if let Some(shortcut) = shortcut {
                add(&shortcut[at..at + y.len()], y);
            }
            activation.map(y);
        },
    );
}

/// `dx = g · scale + (x - center) · slope + offset` with `g = grad · activation'((x - center) · scale + shift)`; without a gradient, `dx` holds it.
pub fn gradient<T: Real>(
    maps: Maps,
    grad: Option<&[T]>,
    x: &[T],
    [center, scale, shift]: [&[f64]; 3],
    [slope, offset]: [&[f64]; 2],
    activation: Activation,
    dx: &mut [T],
) {
    let (work, streamed) = ((2 + activation.cost()) * dx.len(), grad.is_some() && stream::pays::<T>(dx.len()));
    for_map(
        maps,
        dx,
        streamed,
        work,
        [center, scale, shift, slope, offset],
        #[inline(always)]
        |at, dx, z, [center, scale, shift, slope, offset]| {
            let x = &x[at..at + dx.len()];
            if let Some(grad) = grad {
                dx.copy_from_slice(&grad[at..at + dx.len()]);
            }
            if activation != Activation::Linear {
                normalise(x, center, scale, shift, z);
                activation.chain(z, dx);
            }
            correct(x, center, scale, slope, offset, dx);
        },
    );
}
