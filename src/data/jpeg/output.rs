//! Conversion of coefficients to pixels: transform, upsampling, colours.

use super::idct::idct;
use super::{Component, Frame, Parsed, smooth};
use crate::data::pixels::{Pixels, zeroed};

/// The samples of a component, and how they are spread over the picture.
struct Plane {
    samples: Vec<u8>,
    stride: usize,
    /// Without what fills the last blocks.
    width: usize,
    height: usize,
    /// The number of columns and rows of the picture that a sample covers.
    spread: [usize; 2],
}

enum Colours {
    Gray,
    Rgb,
    YCbCr,
    Cmyk,
    Ycck,
}

/// The meaning of the components, by libjpeg's rules.
fn colours(frame: &Frame, jfif: bool, adobe: Option<u8>) -> Colours {
    let ids: Vec<u8> = frame.components.iter().map(|component| component.id).collect();
    match (ids.len(), adobe) {
        (1, _) => Colours::Gray,
        (4, None | Some(0)) => Colours::Cmyk,
        (4, Some(_)) => Colours::Ycck,
        _ if jfif => Colours::YCbCr,
        (_, Some(0)) => Colours::Rgb,
        (_, None) if ids == *b"RGB" => Colours::Rgb,
        _ => Colours::YCbCr,
    }
}

/// Makes the pixels of a frame after `scans` scans.
pub(super) fn pixels(mut frame: Frame, scans: usize, jfif: bool, adobe: Option<u8>) -> Parsed<Pixels> {
    let colours = colours(&frame, jfif, adobe);
    let (width, height, sampling) = (frame.width, frame.height, frame.sampling);
    if smooth::is_useful(&frame) {
        let (rows, last_good) = (frame.units[1], frame.last_good_row);
        frame.components.iter_mut().for_each(|component| smooth::smooth(component, rows, last_good, scans));
    }
    let planes = frame.components.into_iter().map(|component| Plane::new(component, sampling)).collect::<Parsed<Vec<Plane>>>()?;
    let channels = planes.len();
    let mut lines: Vec<Vec<u8>> = planes.iter().map(|plane| vec![0; plane.width * plane.spread[0] + 1]).collect();
    let mut bytes = zeroed(width * height * channels, 0)?;
    for (y, out) in bytes.chunks_exact_mut(width * channels).enumerate() {
        planes.iter().zip(&mut lines).for_each(|(plane, line)| plane.line(y, line));
        for (x, pixel) in out.chunks_exact_mut(channels).enumerate() {
            pixel.iter_mut().zip(&lines).for_each(|(value, line)| *value = line[x]);
        }
        match colours {
            Colours::Gray | Colours::Rgb | Colours::Cmyk => {}
            Colours::YCbCr => out.as_chunks_mut::<3>().0.iter_mut().for_each(|pixel| *pixel = rgb(*pixel)),
            Colours::Ycck => out.as_chunks_mut::<4>().0.iter_mut().for_each(|[y, cb, cr, _]| {
                [*y, *cb, *cr] = rgb([*y, *cb, *cr]).map(|value| 255 - value);
            }),
        }
    }
    Ok(Pixels { width, height, channels, bytes })
}

/// Converts luminance and colour differences to red, green and blue, in libjpeg's sixteen-bit fixed
/// point.
fn rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let level = |value: i32| value.clamp(0, 255) as u8;
    [
        level(y + ((91_881 * cr + HALF) >> 16)),
        level(y + ((-22_554 * cb - 46_802 * cr + HALF) >> 16)),
        level(y + ((116_130 * cb + HALF) >> 16)),
    ]
}

impl Plane {
    fn new(component: Component, sampling: [usize; 2]) -> Parsed<Plane> {
        // A component without data is of the middle level.
        let table = component.quantisation.unwrap_or([0; 64]);
        let [columns, _] = component.blocks;
        let stride = columns * 8;
        let mut samples = zeroed(component.coefficients.len() * 64, 0)?;
        for (blocks, rows) in component.coefficients.chunks_exact(columns).zip(samples.chunks_exact_mut(stride * 8)) {
            for (x, block) in blocks.iter().enumerate() {
                idct(block, &table, &mut rows[8 * x..], stride);
            }
        }
        let [h, v] = component.sampling;
        Ok(Plane { samples, stride, width: component.width, height: component.height, spread: [sampling[0] / h, sampling[1] / v] })
    }

    fn row(&self, y: usize) -> &[u8] {
        &self.samples[y.min(self.height - 1) * self.stride..][..self.width]
    }

    /// Returns the picture's line `y`: by a triangle (libjpeg's "fancy" upsampling) where samples
    /// are twice as wide or high as pixels, else repeated.
    fn line(&self, y: usize, out: &mut [u8]) {
        let wide = self.width > 2;
        match self.spread {
            [1, 1] => out[..self.width].copy_from_slice(self.row(y)),
            [2, 1] if wide => {
                let row = self.row(y);
                let value = |x: usize| i32::from(row[x]) * 4;
                triangle(self.width, out, value, [4, 8]);
            }
            [1, 2] => {
                let (row, other, bias) = self.neighbours(y);
                for ((out, &near), &far) in out.iter_mut().zip(row).zip(other) {
                    *out = ((i32::from(near) * 3 + i32::from(far) + bias) >> 2) as u8;
                }
            }
            [2, 2] if wide => {
                let (row, other, _) = self.neighbours(y);
                let value = |x: usize| i32::from(row[x]) * 3 + i32::from(other[x]);
                triangle(self.width, out, value, [8, 7]);
            }
            [h, v] => {
                for (out, &value) in out.chunks_mut(h).zip(self.row(y / v)) {
                    out.fill(value);
                }
            }
        }
    }

    /// Returns the row of samples that covers a line, the nearer neighbouring row, and how their
    /// mean is rounded.
    fn neighbours(&self, y: usize) -> (&[u8], &[u8], i32) {
        let near = y / 2;
        let (far, bias) = if y.is_multiple_of(2) { (near.saturating_sub(1), 1) } else { (near + 1, 2) };
        (self.row(near), self.row(far), bias)
    }
}

/// Makes two values of each sample: the left one weighted with the left neighbour, three to one,
/// and the right one with the right neighbour; at the ends the sample alone. `value` is in
/// sixteenths when four of it are summed, and `bias` is what rounds the left and the right ones.
fn triangle(width: usize, out: &mut [u8], value: impl Fn(usize) -> i32, bias: [i32; 2]) {
    for (x, out) in out.as_chunks_mut::<2>().0.iter_mut().enumerate().take(width) {
        let neighbours = [x.saturating_sub(1), (x + 1).min(width - 1)];
        for ((out, neighbour), bias) in out.iter_mut().zip(neighbours).zip(bias) {
            *out = ((3 * value(x) + value(neighbour) + bias) >> 4) as u8;
        }
    }
}
