//! Normalisation by channel: the passes that batch and group normalisation are made of, with a shortcut and an activation behind them.
//!
//! Data is `[images, rows, channels]` with channels contiguous; statistics are kept for each image and channel. Batch normalisation sees the
//! whole batch as one image, group normalisation joins channels. Forward reads the data twice ([`moments`], [`forward`]), backward twice (two
//! sums, the gradient), whatever activation follows: what it was applied to is worked out again from the input, piece by piece in the innermost
//! cache, which is cheaper than to keep it. A second pass goes through the data backwards, and finds in the cache what the first one read last.
//!
//! Statistics take one pass: each chunk of rows is summed about its own first row, so that nothing cancels, and the chunks' means and squares
//! are put together in `f64` (Chan et al., 1979). Few channels are summed as if several rows were one, which keeps vectors full.

mod passes;

use std::ops::Range;

pub use passes::{forward, gradient};

use super::epilogue::Activation;
use super::memory::Buffer;
use super::parallel::{self, Disjoint};
use super::simd::{Real, vectorize};

/// Elements that one task handles.
const GRAIN: usize = 64 * 1024;
/// Elements that are worth walking side by side.
const LANES: usize = 128;
/// Lanes that are handled at a time: few enough to stay in the innermost cache from one step to the next, and for loads of the next piece to
/// overlap with stores of the last.
const PIECE: usize = 128;
/// The most lanes that are not cut into pieces.
const LONGEST: usize = PIECE + PIECE / 2;

/// The data's sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maps {
    /// Parts with statistics of their own.
    pub images: usize,
    /// Values of each channel in an image.
    pub rows: usize,
    /// Channels, contiguous in memory.
    pub channels: usize,
}

/// A part of an image's rows.
struct Chunk {
    image: usize,
    /// Where the chunk begins in the data, and its elements.
    start: usize,
    length: usize,
}

impl Maps {
    fn len(self) -> usize {
        self.images * self.rows * self.channels
    }

    /// Rows that are walked side by side, and their elements.
    fn lanes(self) -> usize {
        (LANES / self.channels).max(1) * self.channels
    }

    fn chunk_rows(self) -> usize {
        (GRAIN / self.lanes()).max(1) * (self.lanes() / self.channels)
    }

    /// Chunks in an image.
    fn chunks(self) -> usize {
        self.rows.div_ceil(self.chunk_rows())
    }

    fn chunk(self, task: usize) -> Chunk {
        let (image, first) = (task / self.chunks(), task % self.chunks() * self.chunk_rows());
        let rows = self.chunk_rows().min(self.rows - first);
        Chunk { image, start: (image * self.rows + first) * self.channels, length: rows * self.channels }
    }

    /// Repeats an image's values, one for each channel, along the lanes.
    fn repeat<T: Real>(self, image: usize, values: &[f64], lanes: &mut [T]) {
        let values = &values[image * self.channels..][..self.channels];
        for row in lanes.chunks_exact_mut(self.channels) {
            row.iter_mut().zip(values).for_each(|(lane, &value)| *lane = T::of(value));
        }
    }
}

/// Cuts rows of lanes into pieces: `body(at, piece)` for the elements from `at` on, which are these lanes of a row.
#[inline(always)]
fn for_pieces(lanes: usize, elements: usize, mut body: impl FnMut(usize, Range<usize>)) {
    let step = if lanes <= LONGEST { lanes } else { PIECE };
    for row in (0..elements).step_by(lanes) {
        let length = lanes.min(elements - row);
        for first in (0..length).step_by(step) {
            body(row + first, first..length.min(first + step));
        }
    }
}

// In what follows each slice is an argument of its own: so the compiler knows that they do not overlap.

/// Adds `f(a, b, center)` up lane by lane.
#[inline(always)]
fn sum<T: Real>(a: &[T], b: &[T], center: &[T], first: &mut [T], second: &mut [T], f: impl Fn(T, T, T) -> (T, T)) {
    for ((((first, second), &a), &b), &center) in first.iter_mut().zip(second.iter_mut()).zip(a).zip(b).zip(center) {
        let (p, q) = f(a, b, center);
        *first += p;
        *second += q;
    }
}

/// Folds lanes into channels.
fn fold_lanes<T: Real>(lanes: &[T], sums: &mut [f64]) {
    sums.fill(0.0);
    for row in lanes.chunks_exact(sums.len()) {
        sums.iter_mut().zip(row).for_each(|(sum, &lane)| *sum += lane.to_f64().unwrap_or(f64::NAN));
    }
}

/// Two numbers for each image and channel.
pub struct Pairs {
    /// The means, or the sums of the gradient.
    pub first: Vec<f64>,
    /// The sums of squared deviations, or of the gradient times the deviation.
    pub second: Vec<f64>,
}

impl Pairs {
    fn zeros(maps: Maps) -> Pairs {
        Pairs { first: vec![0.0; maps.images * maps.channels], second: vec![0.0; maps.images * maps.channels] }
    }
}

#[inline(always)]
fn deviations<T: Real>(x: T, _: T, center: T) -> (T, T) {
    (x - center, (x - center) * (x - center))
}

/// Two sums for each chunk and channel, `[images · chunks][2][channels]`: `add` adds a chunk up lane by lane.
fn partial_sums<T: Real>(maps: Maps, work: usize, add: impl Fn(&Chunk, [&mut [T]; 2]) + Sync) -> Buffer<f64> {
    let tasks = maps.images * maps.chunks();
    let mut partial = Buffer::uncleared(tasks * 2 * maps.channels);
    parallel::chunks_mut(&mut partial, 2 * maps.channels, work, |task, sums| {
        let (chunk, lanes) = (maps.chunk(task), maps.lanes());
        let mut scratch = Buffer::<T>::zeroed(2 * lanes);
        let (first, second) = scratch.split_at_mut(lanes);
        add(&chunk, [&mut *first, &mut *second]);
        let (sums, more) = sums.split_at_mut(maps.channels);
        fold_lanes(first, sums);
        fold_lanes(second, more);
    });
    partial
}

/// The mean and the sum of squared deviations of each image's channels; `x: [images, rows, channels]`.
pub fn moments<T: Real>(maps: Maps, x: &[T]) -> Pairs {
    assert_eq!(x.len(), maps.len());
    let mut moments = Pairs::zeros(maps);
    if x.is_empty() {
        return moments;
    }
    let channels = maps.channels;
    let mut partial = partial_sums(maps, 2 * x.len(), |chunk, [first, second]| {
        let x = &x[chunk.start..][..chunk.length];
        let mut center = Buffer::uncleared(maps.lanes());
        center.chunks_exact_mut(channels).for_each(|lanes| lanes.copy_from_slice(&x[..channels]));
        vectorize(
            #[inline(always)]
            || {
                for_pieces(
                    center.len(),
                    x.len(),
                    #[inline(always)]
                    |at, lanes| {
                        let x = &x[at..at + lanes.len()];
                        sum(x, x, &center[lanes.clone()], &mut first[lanes.clone()], &mut second[lanes], deviations);
                    },
                );
            },
        );
    });
    let rows = |task: usize| (maps.chunk(task).length / channels) as f64;
    for (task, sums) in partial.chunks_exact_mut(2 * channels).enumerate() {
        let (first, second) = sums.split_at_mut(channels);
        for ((first, second), &center) in first.iter_mut().zip(second).zip(&x[maps.chunk(task).start..]) {
            let squares = *second - *first * *first / rows(task);
            // Rounding may leave a negative number; NaN stays.
            *second = if squares < 0.0 { 0.0 } else { squares };
            *first = center.to_f64().unwrap_or(f64::NAN) + *first / rows(task);
        }
    }
    for image in 0..maps.images {
        let range = image * channels..(image + 1) * channels;
        let (mean, squares) = (&mut moments.first[range.clone()], &mut moments.second[range]);
        let parts = || (image * maps.chunks()..).zip(partial.chunks_exact(2 * channels).skip(image * maps.chunks()).take(maps.chunks()));
        for (task, part) in parts() {
            let share = rows(task) / maps.rows as f64;
            mean.iter_mut().zip(part).for_each(|(mean, part)| *mean += share * part);
        }
        for (task, part) in parts() {
            let rows = rows(task);
            for (c, squares) in squares.iter_mut().enumerate() {
                let distance = part[c] - mean[c];
                *squares += part[channels + c] + rows * distance * distance;
            }
        }
    }
    moments
}

/// Where the argument of an activation behind a shortcut is found again.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a, T> {
    /// It is the normalised input plus this.
    Plus(&'a [T]),
    /// This is what the activation made of it, and does as well ([`Activation::reads_output`]).
    Output(&'a [T]),
}

/// `Σ g` and `Σ g · (x - center)` of each image's channels, where `g = grad · activation'((x - center) · scale + shift)`, the factors being given
/// for each image and channel.
pub fn gradient_sums<T: Real>(maps: Maps, grad: &[T], x: &[T], factors: [&[f64]; 3], activation: Activation) -> Pairs {
    assert!(grad.len() == maps.len() && x.len() == maps.len());
    sums(
        maps,
        x,
        factors,
        activation,
        #[inline(always)]
        |at, x, [center, scale, shift], z, g, first, second| {
            let grad = &grad[at..at + x.len()];
            if activation == Activation::Linear {
                return sum(grad, x, center, first, second, products);
            }
            g.copy_from_slice(grad);
            passes::normalise(x, center, scale, shift, z);
            activation.chain(z, g);
            sum(g, x, center, first, second, products);
        },
    )
}

/// As [`gradient_sums`], for an activation of what `seen` tells; leaves `g` in the place of the gradient.
pub fn chain_and_sum<T: Real>(
    maps: Maps,
    grad: &mut [T],
    x: &[T],
    factors: [&[f64]; 3],
    seen: Seen<'_, T>,
    activation: Activation,
) -> Pairs {
    assert!(grad.len() == maps.len() && x.len() == maps.len());
    let grad = Disjoint::new(grad);
    sums(
        maps,
        x,
        factors,
        activation,
        #[inline(always)]
        |at, x, [center, scale, shift], z, _, first, second| {
            // SAFETY: pieces do not overlap.
            let g = unsafe { grad.slice(at, x.len()) };
            match seen {
                Seen::Output(y) => activation.chain(&y[at..at + x.len()], g),
                Seen::Plus(shortcut) => {
                    passes::normalise(x, center, scale, shift, z);
                    passes::add(&shortcut[at..at + x.len()], z);
                    activation.chain(z, g);
                }
            }
            sum(g, x, center, first, second, products);
        },
    )
}

#[inline(always)]
fn products<T: Real>(g: T, x: T, center: T) -> (T, T) {
    (g, g * (x - center))
}

/// Adds up what `piece(at, x, factors, scratch, more scratch, sums …)` puts into the two sums for each piece of a row, from element `at` on.
fn sums<T: Real>(
    maps: Maps,
    x: &[T],
    factors: [&[f64]; 3],
    activation: Activation,
    piece: impl Fn(usize, &[T], [&[T]; 3], &mut [T], &mut [T], &mut [T], &mut [T]) + Sync,
) -> Pairs {
    let mut total = Pairs::zeros(maps);
    if x.is_empty() {
        return total;
    }
    let lanes = maps.lanes();
    let partial = partial_sums(maps, (2 + activation.cost()) * x.len(), |chunk, [first, second]| {
        let mut repeated = Buffer::<T>::uncleared(3 * lanes);
        repeated.chunks_exact_mut(lanes).zip(factors).for_each(|(lanes, values)| maps.repeat(chunk.image, values, lanes));
        let factors: [&[T]; 3] = std::array::from_fn(|i| &repeated[i * lanes..][..lanes]);
        let (mut z, mut g) = ([T::zero(); LONGEST], [T::zero(); LONGEST]);
        vectorize(
            #[inline(always)]
            || {
                for_pieces(
                    lanes,
                    chunk.length,
                    #[inline(always)]
                    |at, lanes| {
                        let (at, length) = (chunk.start + at, lanes.len());
                        let factors = factors.map(|factor| &factor[lanes.clone()]);
                        let (first, second) = (&mut first[lanes.clone()], &mut second[lanes]);
                        piece(at, &x[at..at + length], factors, &mut z[..length], &mut g[..length], first, second);
                    },
                );
            },
        );
    });
    for (task, part) in partial.chunks_exact(2 * maps.channels).enumerate() {
        let range = task / maps.chunks() * maps.channels..(task / maps.chunks() + 1) * maps.channels;
        let (first, second) = part.split_at(maps.channels);
        total.first[range.clone()].iter_mut().zip(first).for_each(|(sum, part)| *sum += part);
        total.second[range].iter_mut().zip(second).for_each(|(sum, part)| *sum += part);
    }
    total
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(length: usize, seed: usize) -> Vec<f64> {
        (0..length).map(|i| ((i * 7919 + seed * 31) % 1013) as f64 / 100.0 - 3.0).collect()
    }

    fn close(a: &[f64], b: &[f64]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-11 * b.abs().max(1.0))
    }

    /// Sums of `f` over the rows, in `f64`, by the plain loop.
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
        fn every_pass_agrees_with_the_plain_loop(maps in any_maps()) {
            let (x, grad) = (values(maps.len(), 1), values(maps.len(), 2));
            let found = moments(maps, &x);
            let mean: Vec<f64> = plain_sums(maps, |_, at| x[at]).iter().map(|sum| sum / maps.rows as f64).collect();
            prop_assert!(close(&found.first, &mean));
            prop_assert!(close(&found.second, &plain_sums(maps, |slot, at| (x[at] - mean[slot]).powi(2))));
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

                let expected: Vec<f64> = (0..x.len()).map(|at| chain(at, sum(at))).collect();
                for seen in [Some(Seen::Plus(&shortcut[..])), activation.reads_output().then_some(Seen::Output(&y[..]))].into_iter().flatten() {
                    let mut g = grad.clone();
                    let found = chain_and_sum(maps, &mut g, &x, factors, seen, activation);
                    prop_assert!(close(&g, &expected));
                    prop_assert!(close(&found.first, &plain_sums(maps, |_, at| g[at])));
                    prop_assert!(close(&found.second, &plain_sums(maps, |slot, at| g[at] * (x[at] - mean[slot]))));
                }
            }
        }
    }

    #[test]
    fn a_large_mean_does_not_spoil_the_variance_in_f32() {
        let maps = Maps { images: 1, rows: 40_000, channels: 3 };
        let x: Vec<f32> = (0..maps.len()).map(|i| 4096.0 + (i * 7919 % 17) as f32 / 8.0).collect();
        let expected = plain_sums(maps, |slot, at| {
            let mean = plain_sums(Maps { images: 1, rows: 17, channels: 3 }, |_, at| f64::from(x[at]))[slot] / 17.0;
            (f64::from(x[at]) - mean).powi(2)
        });
        // The values are exact in f32; what remains is the rounding of sums of a few hundred terms.
        for (found, expected) in moments(maps, &x).second.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5 * expected, "{found} instead of {expected}");
        }
    }
}
