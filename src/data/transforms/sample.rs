//! Sampling of images at positions between pixels, with Pillow's arithmetic.
//!
//! Positions are in pixels from the top left corner of the image: the centre of the first pixel is
//! at 0.5. What is not on the image gets the fill.

use super::ResizeFilter;
use super::fill::Filled;
use crate::data::image::try_reserved;
use crate::error::Result;

/// A type of values that are interpolated as Pillow does it: differences in the type itself, bytes
/// without loss, the rest in `f64`.
pub(super) trait Sampled: Filled {
    /// Interpolates between two values.
    fn lerp(a: Self, b: Self, d: f64) -> f64;
    /// Interpolates between the second and the third of four values.
    fn cubic(values: [Self; 4], d: f64) -> f64;
    /// Converts a result; bytes are limited to their range and rounded down.
    fn narrow(value: f64) -> Self;
    /// Converts a value.
    fn wide(self) -> f64;
    /// Converts a result; bytes are limited to their range and rounded to the nearest.
    fn rounded(value: f64) -> Self;
}

impl Sampled for u8 {
    fn lerp(a: u8, b: u8, d: f64) -> f64 {
        lerp(a.into(), b.into(), d)
    }
    fn cubic(values: [u8; 4], d: f64) -> f64 {
        cubic(values.map(f64::from), d)
    }
    fn narrow(value: f64) -> u8 {
        value as u8
    }
    fn wide(self) -> f64 {
        self.into()
    }
    fn rounded(value: f64) -> u8 {
        value.round_ties_even() as u8
    }
}

impl Sampled for f32 {
    fn lerp(a: f32, b: f32, d: f64) -> f64 {
        f64::from(a) + f64::from(b - a) * d
    }
    fn cubic([a, b, c, e]: [f32; 4], d: f64) -> f64 {
        let terms = [b, -a + c, 2.0 * (a - b) + c - e, -a + b - c + e].map(f64::from);
        polynomial(terms, d)
    }
    fn narrow(value: f64) -> f32 {
        value as f32
    }
    fn wide(self) -> f64 {
        self.into()
    }
    fn rounded(value: f64) -> f32 {
        value as f32
    }
}

fn lerp(a: f64, b: f64, d: f64) -> f64 {
    a + (b - a) * d
}

fn cubic([a, b, c, e]: [f64; 4], d: f64) -> f64 {
    polynomial([b, -a + c, 2.0 * (a - b) + c - e, -a + b - c + e], d)
}

fn polynomial([p, q, r, s]: [f64; 4], d: f64) -> f64 {
    p + d * (q + d * (r + d * s))
}

/// An image that is sampled, `[H, W, C]`.
pub(super) struct Source<'a, T> {
    pub(super) values: &'a [T],
    pub(super) size: [usize; 2],
    /// The pixel outside of the image; its length is the number of channels.
    pub(super) fill: &'a [T],
}

impl<T: Sampled> Source<'_, T> {
    /// Makes an image of what is at the positions `[x, y]` of its pixels' centres.
    pub(super) fn draw(&self, to: [usize; 2], filter: ResizeFilter, at: impl Fn(usize, usize) -> [f64; 2]) -> Result<Vec<T>> {
        match self.fill.len() {
            1 => self.draw_channels::<1>(to, filter, at),
            3 => self.draw_channels::<3>(to, filter, at),
            _ => self.draw_channels::<0>(to, filter, at),
        }
    }

    /// Draws an image of `C` channels; 0 stands for any number.
    fn draw_channels<const C: usize>(
        &self,
        [height, width]: [usize; 2],
        filter: ResizeFilter,
        at: impl Fn(usize, usize) -> [f64; 2],
    ) -> Result<Vec<T>> {
        let channels = if C == 0 { self.fill.len() } else { C };
        let [w, h] = [self.size[1] as f64, self.size[0] as f64];
        let mut out = try_reserved([channels, height, width])?;
        for row in 0..height {
            for column in 0..width {
                let [x, y] = at(row, column);
                // Written so that NaN, from a perspective's horizon, is outside.
                if !(x >= 0.0 && x < w && y >= 0.0 && y < h) {
                    out.extend_from_slice(&self.fill[..channels]);
                    continue;
                }
                match filter {
                    ResizeFilter::Nearest => out.extend_from_slice(self.pixel(channels, y as usize, x as usize)),
                    ResizeFilter::Bilinear => self.bilinear(channels, x - 0.5, y - 0.5, &mut out),
                    ResizeFilter::Bicubic => self.bicubic(channels, x - 0.5, y - 0.5, &mut out),
                }
            }
        }
        Ok(out)
    }

    #[inline(always)]
    pub(super) fn pixel(&self, channels: usize, row: usize, column: usize) -> &[T] {
        &self.values[(row * self.size[1] + column) * channels..][..channels]
    }

    #[inline(always)]
    fn bilinear(&self, channels: usize, x: f64, y: f64, out: &mut Vec<T>) {
        let ([left, top], [right, bottom]) = ([x.floor(), y.floor()], [self.size[1] as isize - 1, self.size[0] as isize - 1]);
        let (dx, dy) = (x - left, y - top);
        let columns = [left as isize, left as isize + 1].map(|column| column.clamp(0, right) as usize);
        let rows = [top as isize, top as isize + 1].map(|row| row.clamp(0, bottom) as usize);
        let [[a, b], [c, d]] = rows.map(|row| columns.map(|column| self.pixel(channels, row, column)));
        for i in 0..channels {
            let (upper, lower) = (T::lerp(a[i], b[i], dx), T::lerp(c[i], d[i], dx));
            out.push(T::narrow(lerp(upper, lower, dy)));
        }
    }

    #[inline(always)]
    fn bicubic(&self, channels: usize, x: f64, y: f64, out: &mut Vec<T>) {
        let ([left, top], [right, bottom]) = ([x.floor(), y.floor()], [self.size[1] as isize - 1, self.size[0] as isize - 1]);
        let (dx, dy) = (x - left, y - top);
        let columns = [-1, 0, 1, 2].map(|i| (left as isize + i).clamp(0, right) as usize);
        let rows = [-1, 0, 1, 2].map(|i| (top as isize + i).clamp(0, bottom) as usize);
        let pixels = rows.map(|row| columns.map(|column| self.pixel(channels, row, column)));
        for i in 0..channels {
            out.push(T::narrow(cubic(pixels.map(|row| T::cubic(row.map(|pixel| pixel[i]), dx)), dy)));
        }
    }

    /// Makes an image of the pixels at `(a·x + b·y + c, d·x + e·y + f)`, adding up steps as Pillow
    /// does: of 65536ths of a pixel where these are enough.
    pub(super) fn nearest_affine(&self, to: [usize; 2], matrix: [f64; 6]) -> Result<Vec<T>> {
        let [a, b, c, d, e, f] = matrix;
        let fits = |x: f64, y: f64| (x * a + y * b + c).abs() < 32768.0 && (x * d + y * e + f).abs() < 32768.0;
        let [height, width] = to.map(|length| length as f64);
        let scales = b == 0.0 && d == 0.0;
        if !scales && fits(0.0, 0.0) && fits(width, height) && fits(0.0, height) && fits(width, 0.0) {
            let fixed = |value: f64| (value * 65536.0 + 0.5).floor() as i32;
            let start = [c + a * 0.5 + b * 0.5, f + d * 0.5 + e * 0.5].map(fixed);
            self.walk(to, start, [a, d].map(fixed), [b, e].map(fixed), i32::wrapping_add, |at| usize::try_from(at >> 16).ok())
        } else {
            let start = [c + b * 0.5 + a * 0.5, f + e * 0.5 + d * 0.5];
            self.walk(to, start, [a, d], [b, e], |a, b| a + b, |at| (at >= 0.0).then_some(at as usize))
        }
    }

    /// Makes an image of pixels whose positions are one step along each row and column apart.
    fn walk<N: Copy>(
        &self,
        [height, width]: [usize; 2],
        start: [N; 2],
        along: [N; 2],
        down: [N; 2],
        add: impl Fn(N, N) -> N,
        index: impl Fn(N) -> Option<usize>,
    ) -> Result<Vec<T>> {
        let channels = self.fill.len();
        let mut out = try_reserved([channels, height, width])?;
        let mut line = start;
        for _ in 0..height {
            let [mut x, mut y] = line;
            for _ in 0..width {
                match (index(x), index(y)) {
                    (Some(column), Some(row)) if column < self.size[1] && row < self.size[0] => {
                        out.extend_from_slice(self.pixel(channels, row, column));
                    }
                    _ => out.extend_from_slice(self.fill),
                }
                (x, y) = (add(x, along[0]), add(y, along[1]));
            }
            line = [add(line[0], down[0]), add(line[1], down[1])];
        }
        Ok(out)
    }
}
