//! Normalisation by channel: the passes that batch and group normalisation are made of.
//!
//! Data is `[images, rows, channels]` with channels contiguous; statistics are kept for each image and channel. Batch normalisation sees the
//! whole batch as one image, group normalisation joins channels. Forward reads the data twice (statistics, result), backward twice (two sums,
//! the gradient).
//!
//! Statistics take one pass: each chunk of rows is summed about its own first row, so that nothing cancels, and the chunks' means and squares
//! are put together in `f64` (Chan et al., 1979). Few channels are summed as if several rows were one, which keeps vectors full.

use super::memory::Buffer;
use super::parallel::{self, Disjoint};
use super::simd::{Real, vectorize};

/// Elements that one task handles.
const GRAIN: usize = 64 * 1024;
/// Elements that are worth walking side by side.
const LANES: usize = 64;

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
    fn tile<T: Real>(self, image: usize, values: &[f64], lanes: &mut [T]) {
        let values = &values[image * self.channels..][..self.channels];
        for row in lanes.chunks_exact_mut(self.channels) {
            row.iter_mut().zip(values).for_each(|(lane, &value)| *lane = T::of(value));
        }
    }
}

/// Adds `f(a, b, center)` up lane by lane.
#[inline(always)]
fn sum_lanes<T: Real>(a: &[T], b: &[T], center: &[T], [first, second]: [&mut [T]; 2], f: impl Fn(T, T, T) -> (T, T)) {
    let lanes = center.len();
    let (first, second) = (&mut first[..lanes], &mut second[..lanes]);
    let (quads_a, quads_b) = (a.chunks_exact(4 * lanes), b.chunks_exact(4 * lanes));
    let (rest_a, rest_b) = (quads_a.remainder(), quads_b.remainder());
    for (a, b) in quads_a.zip(quads_b) {
        let [a0, a1, a2, a3] = [0, 1, 2, 3].map(|row| &a[row * lanes..][..lanes]);
        let [b0, b1, b2, b3] = [0, 1, 2, 3].map(|row| &b[row * lanes..][..lanes]);
        for i in 0..lanes {
            let (p0, q0) = f(a0[i], b0[i], center[i]);
            let (p1, q1) = f(a1[i], b1[i], center[i]);
            let (p2, q2) = f(a2[i], b2[i], center[i]);
            let (p3, q3) = f(a3[i], b3[i], center[i]);
            first[i] += (p0 + p1) + (p2 + p3);
            second[i] += (q0 + q1) + (q2 + q3);
        }
    }
    for (a, b) in rest_a.chunks(lanes).zip(rest_b.chunks(lanes)) {
        for ((((first, second), &a), &b), &center) in first.iter_mut().zip(second.iter_mut()).zip(a).zip(b).zip(center) {
            let (p, q) = f(a, b, center);
            *first += p;
            *second += q;
        }
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

/// Two sums for each chunk and channel, `[images · chunks][2][channels]`. `center` fills the lanes for a chunk.
fn partial_sums<T: Real>(
    maps: Maps,
    [a, b]: [&[T]; 2],
    center: impl Fn(&Chunk, &mut [T]) + Sync,
    f: impl Fn(T, T, T) -> (T, T) + Copy + Sync,
    finish: impl Fn(&Chunk, &mut [f64], &mut [f64]) + Sync,
) -> Buffer<f64> {
    let tasks = maps.images * maps.chunks();
    let mut partial = Buffer::uncleared(tasks * 2 * maps.channels);
    parallel::chunks_mut(&mut partial, 2 * maps.channels, 2 * a.len(), |task, sums| {
        let (chunk, lanes) = (maps.chunk(task), maps.lanes());
        let mut scratch = Buffer::<T>::zeroed(3 * lanes);
        let (first, rest) = scratch.split_at_mut(lanes);
        let (second, middle) = rest.split_at_mut(lanes);
        center(&chunk, middle);
        let range = chunk.start..chunk.start + chunk.length;
        vectorize(|| sum_lanes(&a[range.clone()], &b[range], middle, [&mut *first, &mut *second], f));
        let (sums, more) = sums.split_at_mut(maps.channels);
        fold_lanes(first, sums);
        fold_lanes(second, more);
        finish(&chunk, sums, more);
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
    let center = |chunk: &Chunk, lanes: &mut [T]| {
        lanes.chunks_exact_mut(channels).for_each(|lanes| lanes.copy_from_slice(&x[chunk.start..][..channels]));
    };
    let finish = |chunk: &Chunk, first: &mut [f64], second: &mut [f64]| {
        let rows = (chunk.length / channels) as f64;
        for ((first, second), &center) in first.iter_mut().zip(second).zip(&x[chunk.start..]) {
            let squares = *second - *first * *first / rows;
            // Rounding may leave a negative number; NaN stays.
            *second = if squares < 0.0 { 0.0 } else { squares };
            *first = center.to_f64().unwrap_or(f64::NAN) + *first / rows;
        }
    };
    let deviations = |x: T, _: T, center: T| (x - center, (x - center) * (x - center));
    let partial = partial_sums(maps, [x, x], center, deviations, finish);
    let rows = |task: usize| (maps.chunk(task).length / channels) as f64;
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

/// `Σ grad` and `Σ grad · (x - center)` of each image's channels.
pub fn gradient_sums<T: Real>(maps: Maps, grad: &[T], x: &[T], center: &[f64]) -> Pairs {
    assert!(grad.len() == maps.len() && x.len() == maps.len());
    let mut sums = Pairs::zeros(maps);
    if x.is_empty() {
        return sums;
    }
    let tile = |chunk: &Chunk, lanes: &mut [T]| maps.tile(chunk.image, center, lanes);
    let partial = partial_sums(maps, [grad, x], tile, |grad, x, center| (grad, grad * (x - center)), |_, _, _| {});
    for (task, part) in partial.chunks_exact(2 * maps.channels).enumerate() {
        let range = task / maps.chunks() * maps.channels..(task / maps.chunks() + 1) * maps.channels;
        let (first, second) = part.split_at(maps.channels);
        sums.first[range.clone()].iter_mut().zip(first).for_each(|(sum, part)| *sum += part);
        sums.second[range].iter_mut().zip(second).for_each(|(sum, part)| *sum += part);
    }
    sums
}

/// Runs `body(chunk, y, lanes)` for every chunk of `y`, with `N` values of each image and channel repeated along the lanes.
fn for_chunks<T: Real, const N: usize>(maps: Maps, y: &mut [T], values: [&[f64]; N], body: impl Fn(&Chunk, &mut [T], [&[T]; N]) + Sync) {
    assert_eq!(y.len(), maps.len());
    if y.is_empty() {
        return;
    }
    let (work, lanes) = (2 * y.len(), maps.lanes());
    let y = Disjoint::new(y);
    parallel::for_each(maps.images * maps.chunks(), work, |task| {
        let chunk = maps.chunk(task);
        let mut tiled = Buffer::<T>::uncleared(N * lanes);
        tiled.chunks_exact_mut(lanes).zip(values).for_each(|(lanes, values)| maps.tile(chunk.image, values, lanes));
        // SAFETY: chunks do not overlap.
        let y = unsafe { y.slice(chunk.start, chunk.length) };
        body(&chunk, y, std::array::from_fn(|i| &tiled[i * lanes..][..lanes]));
    });
}

/// `y = (x - center) · scale + shift`, each given for each image and channel.
pub fn affine<T: Real>(maps: Maps, x: &[T], [center, scale, shift]: [&[f64]; 3], y: &mut [T]) {
    for_chunks(maps, y, [center, scale, shift], |chunk, y, [center, scale, shift]| {
        let x = &x[chunk.start..][..chunk.length];
        vectorize(|| {
            for (y, x) in y.chunks_mut(center.len()).zip(x.chunks(center.len())) {
                for ((((y, &x), &center), &scale), &shift) in y.iter_mut().zip(x).zip(center).zip(scale).zip(shift) {
                    *y = (x - center) * scale + shift;
                }
            }
        });
    });
}

/// `dx = grad · scale + (x - center) · slope + shift`, each given for each image and channel.
pub fn gradient<T: Real>(maps: Maps, grad: &[T], x: &[T], [scale, center, slope, shift]: [&[f64]; 4], dx: &mut [T]) {
    for_chunks(maps, dx, [scale, center, slope, shift], |chunk, dx, [scale, center, slope, shift]| {
        let range = chunk.start..chunk.start + chunk.length;
        let (grad, x, lanes) = (&grad[range.clone()], &x[range], center.len());
        vectorize(|| {
            for ((dx, grad), x) in dx.chunks_mut(lanes).zip(grad.chunks(lanes)).zip(x.chunks(lanes)) {
                let (scale, center, slope, shift) = (&scale[..dx.len()], &center[..dx.len()], &slope[..dx.len()], &shift[..dx.len()]);
                for i in 0..dx.len() {
                    dx[i] = grad[i] * scale[i] + (x[i] - center[i]) * slope[i] + shift[i];
                }
            }
        });
    });
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
    fn sums(maps: Maps, f: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        let at = |slot: usize, row: usize| (slot / maps.channels * maps.rows + row) * maps.channels + slot % maps.channels;
        (0..maps.images * maps.channels).map(|slot| (0..maps.rows).map(|row| f(slot, at(slot, row))).sum()).collect()
    }

    fn any_maps() -> impl Strategy<Value = Maps> {
        let channels = prop_oneof![1usize..9, 60usize..70];
        let rows = prop_oneof![1usize..20, 3000usize..3020];
        (1usize..4, rows, channels).prop_map(|(images, rows, channels)| Maps { images, rows, channels })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn every_pass_agrees_with_the_plain_loop(maps in any_maps()) {
            let (x, grad) = (values(maps.len(), 1), values(maps.len(), 2));
            let found = moments(maps, &x);
            let mean: Vec<f64> = sums(maps, |_, at| x[at]).iter().map(|sum| sum / maps.rows as f64).collect();
            prop_assert!(close(&found.first, &mean));
            prop_assert!(close(&found.second, &sums(maps, |slot, at| (x[at] - mean[slot]).powi(2))));
            let found = gradient_sums(maps, &grad, &x, &mean);
            prop_assert!(close(&found.first, &sums(maps, |_, at| grad[at])));
            prop_assert!(close(&found.second, &sums(maps, |slot, at| grad[at] * (x[at] - mean[slot]))));
            let [a, b, c] = [3, 4, 5].map(|seed| values(mean.len(), seed));
            let slot = |at: usize| at / (maps.rows * maps.channels) * maps.channels + at % maps.channels;
            let mut y = vec![0.0; x.len()];
            affine(maps, &x, [&mean, &a, &b], &mut y);
            let expected: Vec<f64> = (0..x.len()).map(|at| (x[at] - mean[slot(at)]) * a[slot(at)] + b[slot(at)]).collect();
            prop_assert!(close(&y, &expected));
            gradient(maps, &grad, &x, [&a, &mean, &b, &c], &mut y);
            let expected: Vec<f64> =
                (0..x.len()).map(|at| grad[at] * a[slot(at)] + (x[at] - mean[slot(at)]) * b[slot(at)] + c[slot(at)]).collect();
            prop_assert!(close(&y, &expected));
        }
    }

    #[test]
    fn a_large_mean_does_not_spoil_the_variance_in_f32() {
        let maps = Maps { images: 1, rows: 40_000, channels: 3 };
        let x: Vec<f32> = (0..maps.len()).map(|i| 4096.0 + (i * 7919 % 17) as f32 / 8.0).collect();
        let expected = sums(maps, |slot, at| {
            let mean = sums(Maps { images: 1, rows: 17, channels: 3 }, |_, at| f64::from(x[at]))[slot] / 17.0;
            (f64::from(x[at]) - mean).powi(2)
        });
        // The values are exact in f32; what remains is the rounding of sums of a few hundred terms.
        for (found, expected) in moments(maps, &x).second.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5 * expected, "{found} instead of {expected}");
        }
    }
}
