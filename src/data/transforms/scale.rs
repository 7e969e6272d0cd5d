//! The arithmetic of scaling: weighted sums along rows and columns, as Pillow 13 computes them.

use super::ResizeFilter;
use crate::kernels::runtime::simd::vectorize;
use crate::kernels::scale::{PRECISION, scale_columns, scale_rows};

/// A type of numbers that images are scaled in.
pub(super) trait Sample: Copy + Default {
    type Weight: Copy + 'static;
    fn weight(weight: f64) -> Self::Weight;
    /// Scales `[height, from, channels]` to `[height, to, channels]`.
    fn rows(channels: usize, taps: &Taps<Self>, from: &Rows<'_, Self>, out: &mut [Self]);
    /// Scales `[from, run]` to `[to, run]`.
    fn columns(taps: &Taps<Self>, from: &Rows<'_, Self>, out: &mut [Self]);
}

impl Sample for f32 {
    type Weight = f64;
    fn weight(weight: f64) -> f64 {
        weight
    }
    fn rows(channels: usize, taps: &Taps<f32>, from: &Rows<'_, f32>, out: &mut [f32]) {
        let rows = from.from(0).zip(out.chunks_exact_mut(taps.ends.len() * channels));
        match channels {
            1 => rows.for_each(|(row, out)| along_row::<1>(taps, row, out)),
            3 => rows.for_each(|(row, out)| along_row::<3>(taps, row, out)),
            _ => rows.for_each(|(row, out)| f32::columns(taps, &Rows::dense(row, channels), out)),
        }
    }
    fn columns(taps: &Taps<f32>, from: &Rows<'_, f32>, out: &mut [f32]) {
        let run = from.length;
        let mut sums = vec![0.0; run];
        for ((first, weights), out) in taps.iter().zip(out.chunks_exact_mut(run)) {
            vectorize!(f32, {
                sums.fill(0.0);
                for (row, &weight) in from.from(first).zip(weights) {
                    sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += weight * f64::from(x));
                }
                out.iter_mut().zip(&sums).for_each(|(out, &sum)| *out = sum as f32);
            });
        }
    }
}

impl Sample for u8 {
    type Weight = i32;
    fn weight(weight: f64) -> i32 {
        // Half-way cases round away from zero: a half is added before truncation.
        (weight * f64::from(1 << PRECISION) + 0.5f64.copysign(weight)) as i32
    }
    fn rows(channels: usize, taps: &Taps<u8>, from: &Rows<'_, u8>, out: &mut [u8]) {
        scale_rows(channels, from.length / channels, from.stride, taps.iter(), from.values, out);
    }
    fn columns(taps: &Taps<u8>, from: &Rows<'_, u8>, out: &mut [u8]) {
        scale_columns(from.length, from.stride, taps.iter(), from.values, out);
    }
}

/// The source pixels and weights of each pixel of a line.
pub(super) struct Taps<S: Sample> {
    /// The first pixel and the end of each one's weights.
    ends: Vec<(usize, usize)>,
    weights: Vec<S::Weight>,
}

impl<S: Sample> Taps<S> {
    fn new(from: usize, to: usize, filter: ResizeFilter) -> Taps<S> {
        let ratio = from as f64 / to as f64;
        let stretch = ratio.max(1.0);
        let support = filter.support() * stretch;
        let mut taps = Taps { ends: Vec::with_capacity(to), weights: Vec::new() };
        let mut weights: Vec<f64> = Vec::new();
        for i in 0..to {
            let center = (i as f64 + 0.5) * ratio;
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            weights.clear();
            weights.extend((first..end).map(|j| filter.weight((j as f64 - center + 0.5) * (1.0 / stretch))));
            let total: f64 = weights.iter().sum();
            taps.weights.extend(weights.iter().map(|weight| S::weight(weight / total)));
            taps.ends.push((first, taps.weights.len()));
        }
        taps
    }

    /// Returns, for each pixel of the result, its first source pixel and its weights.
    fn iter(&self) -> impl Iterator<Item = (usize, &[S::Weight])> + Clone {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|&(_, end)| end));
        self.ends.iter().zip(starts).map(|(&(first, end), start)| (first, &self.weights[start..end]))
    }
}

/// Rows of values, side by side in memory or parts of longer rows.
pub(super) struct Rows<'a, S> {
    values: &'a [S],
    /// The number of values from one row to the next.
    stride: usize,
    /// The number of values of a row that count.
    length: usize,
}

impl<'a, S> Rows<'a, S> {
    fn dense(values: &'a [S], length: usize) -> Rows<'a, S> {
        Rows { values, stride: length, length }
    }

    fn from(&self, first: usize) -> impl Iterator<Item = &'a [S]> {
        let length = self.length;
        self.values[first * self.stride..].chunks(self.stride).map(move |row| &row[..length])
    }
}

/// A change of a window of an image to another height and width.
pub(super) struct Scale {
    pub(super) channels: usize,
    /// The first row and column of the window.
    pub(super) at: [usize; 2],
    /// The height and width of the window.
    pub(super) from: [usize; 2],
    /// The number of columns of the image.
    pub(super) width: usize,
    pub(super) to: [usize; 2],
    pub(super) interpolation: ResizeFilter,
}

impl Scale {
    /// Applies Pillow's rule since version 13: the height shrinks, and by more than twice what the
    /// width does.
    fn columns_first(&self) -> bool {
        let shrinks = |axis: usize| self.from[axis] as i128 - self.to[axis] as i128;
        shrinks(0) > 0 && shrinks(0) > 2 * shrinks(1)
    }

    /// Scales the window of `[H, W, C]` to `[height, width, C]`. The image, its window and the
    /// result are not empty.
    pub(super) fn apply<S: Sample>(&self, pixels: &[S]) -> Vec<S> {
        let ([from_height, from_width], [height, width], channels) = (self.from, self.to, self.channels);
        let (stride, length) = (self.width * channels, from_width * channels);
        let values = &pixels[self.at[0] * stride + self.at[1] * channels..][..(from_height - 1) * stride + length];
        let window = Rows { values, stride, length };
        if self.interpolation == ResizeFilter::Nearest {
            self.nearest(&window)
        } else if from_height == height {
            self.rows(&window, height)
        } else if from_width == width {
            self.columns(&window)
        } else if self.columns_first() {
            self.rows(&Rows::dense(&self.columns(&window), length), height)
        } else {
            self.columns(&Rows::dense(&self.rows(&window, from_height), width * channels))
        }
    }

    /// Takes for each pixel the one that its centre is in.
    fn nearest<S: Sample>(&self, window: &Rows<'_, S>) -> Vec<S> {
        let ([height, width], channels) = (self.to, self.channels);
        let (rows, columns) = (nearest(self.from[0], height), nearest(self.from[1], width));
        let mut scaled = vec![S::default(); height * width * channels];
        for (out, row) in scaled.chunks_exact_mut(width * channels).zip(rows) {
            let from = &window.values[row * window.stride..][..window.length];
            for (out, &column) in out.chunks_exact_mut(channels).zip(&columns) {
                out.copy_from_slice(&from[column * channels..][..channels]);
            }
        }
        scaled
    }

    /// Scales `[height, from_width, C]` to `[height, width, C]`.
    fn rows<S: Sample>(&self, from: &Rows<'_, S>, height: usize) -> Vec<S> {
        let mut scaled = vec![S::default(); height * self.to[1] * self.channels];
        S::rows(self.channels, &Taps::new(self.from[1], self.to[1], self.interpolation), from, &mut scaled);
        scaled
    }

    /// Scales `[from_height, run]` to `[height, run]`.
    fn columns<S: Sample>(&self, from: &Rows<'_, S>) -> Vec<S> {
        let mut scaled = vec![S::default(); self.to[0] * from.length];
        S::columns(&Taps::new(self.from[0], self.to[0], self.interpolation), from, &mut scaled);
        scaled
    }
}

/// Returns, for each position on the new line, the one on the old line that its centre is in. Like
/// Pillow, it adds up steps, whose rounding decides where a centre is between two pixels.
fn nearest(from: usize, to: usize) -> Vec<usize> {
    let step = from as f64 / to as f64;
    let mut position = step * 0.5;
    let mut next = || {
        let at = position as usize;
        position += step;
        at.min(from - 1)
    };
    (0..to).map(|_| next()).collect()
}

/// Scales `[from, C]` to `[to, C]` for few channels, which stay in registers.
fn along_row<const C: usize>(taps: &Taps<f32>, row: &[f32], out: &mut [f32]) {
    let (pixels, _) = row.as_chunks::<C>();
    for ((first, weights), out) in taps.iter().zip(out.as_chunks_mut::<C>().0) {
        let mut sums = [0.0; C];
        for (pixel, &weight) in pixels[first..].iter().zip(weights) {
            for (sum, &x) in sums.iter_mut().zip(pixel) {
                *sum += weight * f64::from(x);
            }
        }
        *out = sums.map(|sum| sum as f32);
    }
}
