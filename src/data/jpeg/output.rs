//! Conversion of coefficients to pixels, a row of units at a time: transform, upsampling, colours.

use super::{Component, Frame, Parsed, ZIGZAG, smooth};
use crate::data::pixels::{Pixels, reserved};
use crate::kernels::jpeg::{double_columns, double_rows, idct, rgb, rgb_row};

/// The pixels, as far as they are made, and the samples that they and the next ones are made of.
pub(super) struct Output {
    planes: Vec<Plane>,
    colours: Colours,
    width: usize,
    height: usize,
    /// The number of lines in `bytes`.
    lines: usize,
    bytes: Vec<u8>,
}

/// Some rows of a component's samples, and how they are spread over the picture.
struct Plane {
    samples: Vec<u8>,
    stride: usize,
    /// The number of rows before those of `samples`.
    dropped: usize,
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
pub(super) fn finish(mut frame: Frame, scans: usize) -> Parsed<Pixels> {
    if smooth::is_useful(&frame) {
        let (rows, last_good) = (frame.units[1], frame.last_good_row);
        frame.components.iter_mut().for_each(|component| smooth::smooth(component, rows, last_good, scans));
    }
    if !frame.by_rows {
        (0..frame.units[1]).for_each(|row| frame.draw(row));
    }
    let Output { planes, width, height, bytes, .. } = frame.output.ok_or("it has no picture data")?;
    Ok(Pixels { width, height, channels: planes.len(), bytes })
}

impl Frame {
    /// Makes samples of the coefficients in a row of units, and pixels as far as the samples
    /// suffice. The coefficients become zeros.
    pub(super) fn draw(&mut self, row: usize) {
        let Some(output) = &mut self.output else { return };
        for (component, plane) in self.components.iter_mut().zip(&mut output.planes) {
            // A component without data is of the middle level.
            let quantisation = component.quantisation.unwrap_or([0; 64]);
            let ([columns, _], rows) = (component.blocks, component.sampling[1]);
            for blocks in component.coefficients[row * rows * columns..][..rows * columns].chunks_exact_mut(columns) {
                if self.progressive {
                    blocks.iter_mut().for_each(by_rows);
                }
                let start = plane.samples.len();
                plane.samples.resize(start + 64 * columns, 0);
                idct(blocks, &quantisation, &mut plane.samples[start..]);
                blocks.fill([0; 64]);
            }
        }
        while output.lines < output.height && output.planes.iter().all(|plane| plane.suffices(output.lines)) {
            output.line();
        }
        output.planes.iter_mut().for_each(|plane| plane.drop_before(output.lines));
    }
}

/// Brings a block from the file's order into that of its rows.
fn by_rows(block: &mut [i16; 64]) {
    let before = *block;
    ZIGZAG.iter().zip(before).for_each(|(&place, value)| block[usize::from(place)] = value);
}

impl Output {
    /// Makes an output without lines.
    pub(super) fn new(frame: &Frame, jfif: bool, adobe: Option<u8>) -> Parsed<Output> {
        let (width, height) = (frame.width, frame.height);
        let planes: Vec<Plane> = frame.components.iter().map(|component| Plane::new(component, frame.sampling)).collect();
        let bytes = reserved(width * height * planes.len())?;
        Ok(Output { planes, colours: colours(frame, jfif, adobe), width, height, lines: 0, bytes })
    }

    /// Appends a line.
    fn line(&mut self) {
        let (start, length) = (self.bytes.len(), self.width * self.planes.len());
        self.bytes.resize(start + length, 0);
        let out = &mut self.bytes[start..];
        let mut lines = [&[][..]; 4];
        lines.iter_mut().zip(&mut self.planes).for_each(|(line, plane)| *line = &plane.line(self.lines)[..self.width]);
        let [a, b, c, _] = lines;
        match self.colours {
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
        self.lines += 1;
    }
}

/// Puts the channels of each pixel side by side.
fn interleave<const N: usize>(lines: [&[u8]; N], out: &mut [u8]) {
    for (x, pixel) in out.as_chunks_mut::<N>().0.iter_mut().enumerate() {
        *pixel = lines.map(|line| line[x]);
    }
}

impl Plane {
    fn new(component: &Component, sampling: [usize; 2]) -> Plane {
        let ([h, v], width) = (component.sampling, component.width);
        let spread = [sampling[0] / h, sampling[1] / v];
        Plane {
            samples: Vec::new(),
            stride: component.blocks[0] * 8,
            dropped: 0,
            width,
            height: component.height,
            spread,
            sums: Vec::new(),
            line: vec![0; width * spread[0]],
        }
    }

    /// Returns whether there are samples for the picture's line `y`: those that cover it and those
    /// below.
    fn suffices(&self, y: usize) -> bool {
        ((y + 1) / self.spread[1]).min(self.height - 1) < self.dropped + self.samples.len() / self.stride
    }

    /// Drops the samples that are not needed from the picture's line `y` on.
    fn drop_before(&mut self, y: usize) {
        let rows = (y / self.spread[1]).saturating_sub(1).min(self.dropped + self.samples.len() / self.stride) - self.dropped;
        self.samples.drain(..rows * self.stride);
        self.dropped += rows;
    }

    /// Returns the picture's line `y`: by a triangle (libjpeg's "fancy" upsampling) where samples
    /// are twice as wide or high as pixels, else repeated.
    fn line(&mut self, y: usize) -> &[u8] {
        let row = |y: usize| &self.samples[(y.min(self.height - 1) - self.dropped) * self.stride..][..self.width];
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
