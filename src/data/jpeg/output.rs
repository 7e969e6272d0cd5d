//! Conversion of samples to pixels: upsampling, colours.

use super::{Component, Frame, Parsed, smooth};
use crate::data::pixels::{Pixels, reserved};
use crate::kernels::jpeg::{double_columns, double_rows, rgb, rgb_row};

/// The samples of a component, and how they are spread over the picture.
struct Plane {
    samples: Vec<u8>,
    stride: usize,
    /// Without what fills the last blocks.
    width: usize,
    height: usize,
    /// The number of columns and rows of the picture that a sample covers.
    spread: [usize; 2],
    /// Buffers of [`line`](Plane::line).
    sums: Vec<u16>,
    line: Vec<u8>,
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
    if !frame.by_rows {
        frame.components.iter_mut().for_each(Component::transform);
    }
    let mut planes: Vec<Plane> = frame.components.into_iter().map(|component| Plane::new(component, sampling)).collect();
    let channels = planes.len();
    let mut bytes = reserved(width * height * channels)?;
    for y in 0..height {
        bytes.resize((y + 1) * width * channels, 0);
        let out = &mut bytes[y * width * channels..];
        let mut lines = [&[][..]; 4];
        lines.iter_mut().zip(&mut planes).for_each(|(line, plane)| *line = &plane.line(y)[..width]);
        let [a, b, c, _] = lines;
        match colours {
            Colours::Gray => out.copy_from_slice(a),
            Colours::YCbCr => rgb_row([a, b, c], out),
            Colours::Rgb => interleave([a, b, c], out),
            Colours::Cmyk => interleave(lines, out),
            Colours::Ycck => {
                interleave(lines, out);
                out.as_chunks_mut::<4>().0.iter_mut().for_each(|[y, cb, cr, _]| {
                    [*y, *cb, *cr] = rgb([*y, *cb, *cr]).map(|value| 255 - value);
                });
            }
        }
    }
    Ok(Pixels { width, height, channels, bytes })
}

/// Puts the channels of each pixel side by side.
fn interleave<const N: usize>(lines: [&[u8]; N], out: &mut [u8]) {
    for (x, pixel) in out.as_chunks_mut::<N>().0.iter_mut().enumerate() {
        *pixel = lines.map(|line| line[x]);
    }
}

impl Plane {
    fn new(component: Component, sampling: [usize; 2]) -> Plane {
        let ([h, v], width) = (component.sampling, component.width);
        let spread = [sampling[0] / h, sampling[1] / v];
        Plane {
            samples: component.samples,
            stride: component.blocks[0] * 8,
            width,
            height: component.height,
            spread,
            sums: Vec::new(),
            line: vec![0; width * spread[0]],
        }
    }

    /// Returns the picture's line `y`: by a triangle (libjpeg's "fancy" upsampling) where samples
    /// are twice as wide or high as pixels, else repeated.
    fn line(&mut self, y: usize) -> &[u8] {
        let row = |y: usize| &self.samples[y.min(self.height - 1) * self.stride..][..self.width];
        let wide = self.width > 2;
        // The row of samples that covers a line, the nearer neighbouring row, and how their mean is
        // rounded.
        let neighbours = || {
            let near = y / 2;
            let (far, bias) = if y.is_multiple_of(2) { (near.saturating_sub(1), 1) } else { (near + 1, 2) };
            (row(near), row(far), bias)
        };
        match self.spread {
            [1, 1] => return row(y),
            [2, 1] if wide => double_columns(row(y), row(y), [4, 8], &mut self.sums, &mut self.line),
            [1, 2] => {
                let (near, far, bias) = neighbours();
                double_rows(near, far, bias, &mut self.line);
            }
            [2, 2] if wide => {
                let (near, far, _) = neighbours();
                double_columns(near, far, [8, 7], &mut self.sums, &mut self.line);
            }
            [h, v] => {
                for (out, &value) in self.line.chunks_mut(h).zip(row(y / v)) {
                    out.fill(value);
                }
            }
        }
        &self.line
    }
}
