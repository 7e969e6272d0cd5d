//! Scaling of images of bytes: each new pixel is a weighted sum of old ones, in Pillow's fixed
//! point.
//!
//! The sums of a column's pixels run over whole rows, which is what vectors are for. Along rows,
//! sixteen rows are transposed first, so that the same is true there.

use pulp::{Simd, WithSimd};

use super::runtime::simd::dispatch_light;

/// The number of bits after the point of weights: 8 bits of the 32 are the value's, 2 are for the
/// overshoot of the cubic filter.
pub const PRECISION: u32 = 32 - 8 - 2;

/// Values that are summed at once.
const LANES: usize = 16;

type Lanes = [u8; LANES];

/// The weighted pixels that make one: the first one's position, and the weights from there on.
pub trait WeightedRuns<'a>: Iterator<Item = (usize, &'a [i32])> + Clone {}

impl<'a, T: Iterator<Item = (usize, &'a [i32])> + Clone> WeightedRuns<'a> for T {}

/// Scales columns, `[from, run]` to `[to, run]`, where `to` is the number of taps and the rows of
/// `pixels` begin every `stride` values.
pub fn scale_columns<'a>(run: usize, stride: usize, taps: impl WeightedRuns<'a>, pixels: &[u8], out: &mut [u8]) {
    dispatch_light::<f32, _>(Columns { run, stride, taps, pixels, out });
}

/// Scales rows, `[height, from, channels]` to `[height, to, channels]`, where `to` is the number of
/// taps and the rows of `pixels` begin every `stride` values.
pub fn scale_rows<'a>(channels: usize, from: usize, stride: usize, taps: impl WeightedRuns<'a>, pixels: &[u8], out: &mut [u8]) {
    dispatch_light::<f32, _>(Rows { channels, from, stride, taps, pixels, out });
}

struct Columns<'s, T> {
    run: usize,
    stride: usize,
    taps: T,
    pixels: &'s [u8],
    out: &'s mut [u8],
}

impl<'a, T: WeightedRuns<'a>> WithSimd for Columns<'_, T> {
    type Output = ();

    // Nothing here is explicitly of vectors: the compiler makes them of loops over lanes.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (run, stride) = (self.run, self.stride);
        let start = run - run % LANES;
        for ((first, weights), out) in self.taps.zip(self.out.chunks_exact_mut(run)) {
            let rows = &self.pixels[first * stride..];
            for (i, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let values = |row: usize| rows[row * stride + i * LANES..].first_chunk().copied().unwrap_or_default();
                *out = weighted(values, weights);
            }
            if start < run {
                let values = |row: usize| padded(&rows[row * stride + start..][..run - start]);
                out[start..].copy_from_slice(&weighted(values, weights)[..run - start]);
            }
        }
    }
}

struct Rows<'s, T> {
    channels: usize,
    from: usize,
    stride: usize,
    taps: T,
    pixels: &'s [u8],
    out: &'s mut [u8],
}

impl<'a, T: WeightedRuns<'a>> WithSimd for Rows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let channels = self.channels;
        let (run, out_run) = (self.from * channels, self.taps.clone().count() * channels);
        // Sixteen rows, byte by byte, before and after.
        let mut columns = vec![[0; LANES]; run.next_multiple_of(LANES)];
        let mut scaled = vec![[0; LANES]; out_run.next_multiple_of(LANES)];
        for (rows, out) in self.pixels.chunks(LANES * self.stride).zip(self.out.chunks_mut(LANES * out_run)) {
            for (i, block) in columns.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let start = i * LANES;
                let mut lines = [[0; LANES]; LANES];
                for r in 0..rows.len().div_ceil(self.stride) {
                    let row = &rows[r * self.stride..][..run];
                    lines[r] = match row[start..].first_chunk() {
                        Some(values) => *values,
                        None => padded(&row[start..]),
                    };
                }
                *block = transposed(lines);
            }
            for ((first, weights), out) in self.taps.clone().zip(scaled.chunks_exact_mut(channels)) {
                let pixels = &columns[first * channels..][..weights.len() * channels];
                for (channel, out) in out.iter_mut().enumerate() {
                    *out = weighted(|i| pixels[i * channels + channel], weights);
                }
            }
            for (i, block) in scaled.as_chunks::<LANES>().0.iter().enumerate() {
                let lines = transposed(*block);
                for r in 0..out.len() / out_run {
                    let row = &mut out[r * out_run..][..out_run][i * LANES..];
                    match row.first_chunk_mut() {
                        Some(values) => *values = lines[r],
                        None => row.copy_from_slice(&lines[r][..row.len()]),
                    }
                }
            }
        }
    }
}

/// Returns the sum of weights and the values by their number, rounded.
#[inline(always)]
fn weighted(values: impl Fn(usize) -> Lanes, weights: &[i32]) -> Lanes {
    let mut sums = [1 << (PRECISION - 1); LANES];
    for (i, &weight) in weights.iter().enumerate() {
        for (sum, value) in sums.iter_mut().zip(values(i)) {
            *sum += weight * i32::from(value);
        }
    }
    let mut levels = [0; LANES];
    for (level, sum) in levels.iter_mut().zip(sums) {
        *level = (sum >> PRECISION).clamp(0, 255) as u8;
    }
    levels
}

fn padded(values: &[u8]) -> Lanes {
    let mut lanes = [0; LANES];
    lanes[..values.len()].copy_from_slice(values);
    lanes
}

#[inline(always)]
fn transposed(mut lines: [Lanes; LANES]) -> [Lanes; LANES] {
    // Four times the perfect shuffle of 256 bytes.
    for _ in 0..LANES.ilog2() {
        let mut shuffled = [[0; LANES]; LANES];
        for i in 0..LANES / 2 {
            [shuffled[2 * i], shuffled[2 * i + 1]] = zipped(lines[i], lines[i + LANES / 2]);
        }
        lines = shuffled;
    }
    lines
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn zipped(a: Lanes, b: Lanes) -> [Lanes; 2] {
    use std::arch::x86_64::{_mm_unpackhi_epi8, _mm_unpacklo_epi8};

    use bytemuck::cast;
    // SAFETY: every processor of this architecture has the instructions.
    unsafe { [cast(_mm_unpacklo_epi8(cast(a), cast(b))), cast(_mm_unpackhi_epi8(cast(a), cast(b)))] }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn zipped(a: Lanes, b: Lanes) -> [Lanes; 2] {
    let half = |start: usize| super::runtime::simd::array(|i| if i % 2 == 0 { a[start + i / 2] } else { b[start + i / 2] });
    [half(0), half(LANES / 2)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_of_any_length_are_scaled_as_single_pixels_are(
            (height, from, channels, gap) in (1..40usize, 1..30usize, 1..5usize, 0..7usize),
            places in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..20),
            seed in any::<u32>(),
        ) {
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state >> 8
            };
            // The last row has no gap after it.
            let stride = from * channels + gap;
            let pixels: Vec<u8> = (0..height * stride - gap).map(|_| next() as u8).collect();
            // Weights of both signs whose sums leave the range of bytes.
            let weights: Vec<i32> = (0..from).map(|_| (next() % (1 << 22)) as i32 - (1 << 21)).map(|weight| weight / 8).collect();
            let taps: Vec<(usize, &[i32])> = places
                .iter()
                .map(|(first, length)| {
                    let first = first.index(from);
                    (first, &weights[..=length.index(from - first)])
                })
                .collect();
            let to = taps.len();
            let sum = |(first, weights): (usize, &[i32]), value: &dyn Fn(usize) -> u8| {
                let sum: i32 = weights.iter().enumerate().map(|(i, weight)| weight * i32::from(value(first + i))).sum();
                ((sum + (1 << (PRECISION - 1))) >> PRECISION).clamp(0, 255) as u8
            };

            let mut out = vec![0; height * to * channels];
            scale_rows(channels, from, stride, taps.iter().copied(), &pixels, &mut out);
            for (i, &level) in out.iter().enumerate() {
                let (row, x, channel) = (i / channels / to, i / channels % to, i % channels);
                prop_assert_eq!(level, sum(taps[x], &|x| pixels[row * stride + x * channels + channel]));
            }

            // The same as columns: each of them has `from` pixels.
            let run = height * channels;
            let stride = run + gap;
            let pixels: Vec<u8> = (0..from * stride - gap).map(|_| next() as u8).collect();
            let mut out = vec![0; to * run];
            scale_columns(run, stride, taps.iter().copied(), &pixels, &mut out);
            for (i, &level) in out.iter().enumerate() {
                prop_assert_eq!(level, sum(taps[i / run], &|y| pixels[y * stride + i % run]));
            }
        }
    }
}
