//! PNG decoder that gives the pixels of Pillow 13 (ISO/IEC 15948).
//!
//! The chunks are read here, and only the compressed stream goes to a decoder of another crate.
//! Errors that Pillow ignores are ignored: wrong checksums of image data, a missing end chunk, a
//! palette that is missing or cut short (its missing colours are black), image data that ends after
//! a complete row (the missing rows are black). Up to the image data each chunk's checksum must be
//! right. Transparency, gamma and profiles are ignored. Of samples of 16 bits the upper 8 count,
//! except in gray pictures without transparency, where values above 255 become 255, as with
//! Pillow's `convert("L")` and `convert("RGB")`.

use fdeflate::{DecompressionError, Decompressor};

use super::pixels::{Pixels, check_size, reserved};
use crate::kernels::runtime::simd::array;

/// The best ratio of deflate: 258 bytes of output for two bits.
const MOST_BYTES_PER_BYTE: usize = 1032;

/// The number of bytes of image data that are decompressed before their rows are counted, as in
/// Pillow: a wrong checksum of the stream beyond the piece that completes the picture is not
/// noticed.
const PIECE: usize = 1 << 16;

/// The first column and row of each interlaced pass, and the steps to the next ones (Adam7).
const PASSES: [[usize; 4]; 7] = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];

#[derive(Clone, Copy)]
enum Colour {
    Gray,
    Rgb,
    Indexed,
    GrayAlpha,
    Rgba,
}

struct Header {
    width: usize,
    height: usize,
    colour: Colour,
    /// Bits of a sample.
    depth: usize,
    interlaced: bool,
}

/// Decodes a file that starts as a PNG does, to gray or red-green-blue.
pub(super) fn decode(bytes: &[u8]) -> Result<Pixels, String> {
    let (header, palette, mut rows) = read(bytes)?;
    header.pixels(&mut rows, &palette)
}

/// Decodes the indices of a palette or the gray samples of a file, as they are stored, to one
/// channel.
pub(super) fn decode_classes(bytes: &[u8]) -> Result<Pixels, String> {
    let (header, _, mut rows) = read(bytes)?;
    let decoded = match (header.colour, header.depth) {
        (Colour::Indexed, _) => {
            // Each index as its colour.
            let mut pixels = header.pixels(&mut rows, &array(|index| [index as u8; 3]))?;
            let mut classes = reserved(pixels.width * pixels.height)?;
            classes.extend(pixels.bytes.iter().step_by(3));
            pixels.bytes = classes;
            pixels
        }
        (Colour::Gray, depth @ (1 | 2 | 4 | 8)) => {
            let mut pixels = header.pixels(&mut rows, &[[0; 3]; 256])?;
            let scale = (255 / ((1u16 << depth) - 1)) as u8;
            pixels.bytes.iter_mut().for_each(|byte| *byte /= scale);
            pixels
        }
        _ => return Err("a mask is a PNG file of gray samples of at most 8 bits or with a palette, this one has other colours".to_string()),
    };
    Ok(Pixels { channels: 1, ..decoded })
}

/// Returns the width and height that a file states before its image data.
pub(super) fn size(bytes: &[u8]) -> Result<[usize; 2], String> {
    let (header, ..) = read_header(bytes)?;
    Ok([header.width, header.height])
}

/// Reads a file's header, palette and decompressed rows.
fn read(bytes: &[u8]) -> Result<(Header, [[u8; 3]; 256], Vec<u8>), String> {
    let (header, palette, first, chunks) = read_header(bytes)?;
    let mut data = vec![first.body];
    data.extend(chunks.take_while(|chunk| chunk.name == *b"IDAT").map(|chunk| chunk.body));
    let rows = inflate(&data, header.bytes().ok_or("a damaged PNG file: it is too large")?)?;
    Ok((header, palette, rows))
}

/// Reads a file's header and palette up to its first chunk of image data, which comes with those
/// that follow it.
fn read_header(bytes: &[u8]) -> Result<(Header, [[u8; 3]; 256], Chunk<'_>, Chunks<'_>), String> {
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        let what = if bytes.starts_with(b"\x89PNG") { "a damaged PNG file: its signature is incomplete" } else { "not a PNG file" };
        return Err(what.to_string());
    }
    let mut chunks = Chunks { bytes, at: 8 };
    let (mut header, mut palette) = (None, [[0; 3]; 256]);
    let first = loop {
        let chunk = chunks.next().ok_or("truncated: a PNG file without image data")?;
        match &chunk.name {
            b"IDAT" => break chunk,
            b"IHDR" => header = Some(Header::parse(chunk.checked()?)?),
            b"PLTE" => palette = read_palette(chunk.checked()?, header.as_ref())?,
            _ => drop(chunk.checked()?),
        }
    };
    let header = header.ok_or("a damaged PNG file: image data without a header")?;
    check_size(header.width, header.height)?;
    Ok((header, palette, first, chunks))
}

struct Chunks<'a> {
    bytes: &'a [u8],
    at: usize,
}

struct Chunk<'a> {
    name: [u8; 4],
    /// Shorter than stated where the file ends within it.
    body: &'a [u8],
    stated: usize,
    checksum: Option<u32>,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        let rest = self.bytes.get(self.at..)?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_first_chunk::<4>()?;
        let stated = u32::from_be_bytes(*length) as usize;
        let (body, rest) = rest.split_at(stated.min(rest.len()));
        self.at = self.at.saturating_add(stated).saturating_add(12);
        Some(Chunk { name: *name, body, stated, checksum: rest.first_chunk::<4>().map(|&sum| u32::from_be_bytes(sum)) })
    }
}

impl<'a> Chunk<'a> {
    /// Returns the body of a complete chunk with the right checksum.
    fn checked(&self) -> Result<&'a [u8], String> {
        let name = self.name.escape_ascii();
        if !self.name.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(format!("a damaged PNG file: no chunk is called {name}"));
        }
        if self.body.len() < self.stated || self.checksum.is_none() {
            return Err(format!("truncated: the PNG file ends within its chunk {name}"));
        }
        let mut crc = flate2::Crc::new();
        crc.update(&self.name);
        crc.update(self.body);
        if Some(crc.sum()) != self.checksum {
            return Err(format!("a damaged PNG file: the checksum of its chunk {name} is wrong"));
        }
        Ok(self.body)
    }
}

fn read_palette(body: &[u8], header: Option<&Header>) -> Result<[[u8; 3]; 256], String> {
    let mut palette = [[0; 3]; 256];
    if let Some(Header { colour: Colour::Indexed, .. }) = header {
        let (colours, _) = body.as_chunks::<3>();
        let place = palette.get_mut(..colours.len()).ok_or("a damaged PNG file: a palette of more than 256 colours")?;
        place.copy_from_slice(colours);
    }
    Ok(palette)
}

impl Header {
    fn parse(body: &[u8]) -> Result<Header, String> {
        let &[w0, w1, w2, w3, h0, h1, h2, h3, depth, colour, _, filter, interlace, ..] = body else {
            return Err("a damaged PNG file: its header is too short".to_string());
        };
        let colour = match (colour, depth) {
            (0, 1 | 2 | 4 | 8 | 16) => Colour::Gray,
            (2, 8 | 16) => Colour::Rgb,
            (3, 1 | 2 | 4 | 8) => Colour::Indexed,
            (4, 8 | 16) => Colour::GrayAlpha,
            (6, 8 | 16) => Colour::Rgba,
            _ => return Err(format!("a damaged PNG file: no colours of kind {colour} have {depth} bits")),
        };
        if filter != 0 {
            return Err(format!("a damaged PNG file: no filters of kind {filter} are known"));
        }
        let (width, height) = (u32::from_be_bytes([w0, w1, w2, w3]) as usize, u32::from_be_bytes([h0, h1, h2, h3]) as usize);
        Ok(Header { width, height, colour, depth: usize::from(depth), interlaced: interlace != 0 })
    }

    fn bits_per_pixel(&self) -> usize {
        self.depth
            * match self.colour {
                Colour::Gray | Colour::Indexed => 1,
                Colour::GrayAlpha => 2,
                Colour::Rgb => 3,
                Colour::Rgba => 4,
            }
    }

    /// Returns, for each pass, its first column and row, its steps, and its columns and rows;
    /// without interlacing there is one pass.
    fn passes(&self) -> impl Iterator<Item = ([usize; 4], [usize; 2])> {
        let passes = if self.interlaced { &PASSES[..] } else { &[[0, 0, 1, 1]] };
        let sizes = passes.iter().map(|&pass| {
            let [x, y, dx, dy] = pass;
            (pass, [self.width.saturating_sub(x).div_ceil(dx), self.height.saturating_sub(y).div_ceil(dy)])
        });
        sizes.filter(|&(_, [columns, rows])| columns > 0 && rows > 0)
    }

    /// Returns the number of bytes of a row, without its filter.
    fn row(&self, columns: usize) -> Option<usize> {
        Some(columns.checked_mul(self.bits_per_pixel())?.div_ceil(8))
    }

    /// Returns the number of bytes of all rows with their filters.
    fn bytes(&self) -> Option<usize> {
        self.passes().try_fold(0usize, |sum, (_, [columns, rows])| sum.checked_add((self.row(columns)? + 1).checked_mul(rows)?))
    }

    fn pixels(&self, data: &mut [u8], palette: &[[u8; 3]; 256]) -> Result<Pixels, String> {
        let channels = if matches!(self.colour, Colour::Gray | Colour::GrayAlpha) { 1 } else { 3 };
        let mut pixels = reserved(self.width * self.height * channels)?;
        pixels.resize(self.width * self.height * channels, 0);
        let mut data = data;
        for ([x, y, dx, dy], [columns, rows]) in self.passes() {
            let length = self.row(columns).unwrap_or_default();
            let (pass, rest) = data.split_at_mut(((length + 1) * rows).min(data.len()));
            if !pass.len().is_multiple_of(length + 1) {
                return Err("truncated: its image data ends within a row".to_string());
            }
            data = rest;
            let start = vec![0; length];
            for i in 0..pass.len() / (length + 1) {
                let (done, rest) = pass.split_at_mut(i * (length + 1));
                let Some((&mut filter, line)) = rest[..length + 1].split_first_mut() else { continue };
                let above = if i == 0 { &start } else { &done[done.len() - length..] };
                self.unfilter(filter, line, above)?;
                let out = &mut pixels[(y + i * dy) * self.width * channels..][..self.width * channels];
                self.draw(line, palette, &mut out[x * channels..], dx);
            }
        }
        Ok(Pixels { width: self.width, height: self.height, channels, bytes: pixels })
    }

    /// Writes the pixels of a row, `step` places apart.
    fn draw(&self, line: &[u8], palette: &[[u8; 3]; 256], out: &mut [u8], step: usize) {
        let depth = self.depth;
        match (self.colour, depth) {
            (Colour::Gray | Colour::Rgb, 8) if step == 1 => out.copy_from_slice(line),
            (Colour::Rgba, 8) => {
                let places = out.as_chunks_mut::<3>().0.iter_mut().step_by(step);
                places.zip(line.as_chunks::<4>().0).for_each(|(out, &[r, g, b, _])| *out = [r, g, b]);
            }
            (_, 8) => self.draw_samples(line.iter().copied(), palette, out, step),
            // Pillow opens gray pictures of 16 bits with all bits and clips them on conversion; of
            // the other colours it reads the upper halves.
            (Colour::Gray, 16) => {
                let clipped = line.as_chunks::<2>().0.iter().map(|&[upper, lower]| if upper == 0 { lower } else { 255 });
                self.draw_samples(clipped, palette, out, step);
            }
            (_, 16) => self.draw_samples(line.iter().copied().step_by(2), palette, out, step),
            _ => {
                let mask = (1 << depth) - 1;
                let scale = if matches!(self.colour, Colour::Gray) { 255 / mask } else { 1 };
                let samples = line.iter().flat_map(|byte| (0..8 / depth).rev().map(move |i| ((byte >> (i * depth)) & mask) * scale));
                self.draw_samples(samples, palette, out, step);
            }
        }
    }

    fn draw_samples(&self, mut samples: impl Iterator<Item = u8>, palette: &[[u8; 3]; 256], out: &mut [u8], step: usize) {
        match self.colour {
            Colour::Gray => out.iter_mut().step_by(step).zip(samples).for_each(|(out, gray)| *out = gray),
            Colour::GrayAlpha => out.iter_mut().step_by(step).zip(samples.step_by(2)).for_each(|(out, gray)| *out = gray),
            Colour::Indexed => {
                let places = out.as_chunks_mut::<3>().0.iter_mut().step_by(step);
                places.zip(samples).for_each(|(out, index)| *out = palette[usize::from(index)]);
            }
            Colour::Rgb | Colour::Rgba => {
                for out in out.as_chunks_mut::<3>().0.iter_mut().step_by(step) {
                    *out = array(|_| samples.next().unwrap_or_default());
                    if matches!(self.colour, Colour::Rgba) {
                        samples.next();
                    }
                }
            }
        }
    }

    fn unfilter(&self, filter: u8, line: &mut [u8], above: &[u8]) -> Result<(), String> {
        match self.bits_per_pixel().div_ceil(8) {
            1 => unfilter::<1>(filter, line, above),
            2 => unfilter::<2>(filter, line, above),
            3 => unfilter::<3>(filter, line, above),
            4 => unfilter::<4>(filter, line, above),
            6 => unfilter::<6>(filter, line, above),
            _ => unfilter::<8>(filter, line, above),
        }
    }
}

/// Decompresses `total` bytes; fewer where the stream ends after a complete row.
fn inflate(chunks: &[&[u8]], total: usize) -> Result<Vec<u8>, String> {
    let length: usize = chunks.iter().map(|chunk| chunk.len()).sum();
    if total / MOST_BYTES_PER_BYTE > length {
        return Err(format!("truncated: {length} bytes of image data cannot hold {total}"));
    }
    let damaged = |error: DecompressionError| format!("a damaged PNG file: its image data cannot be decompressed ({error:?})");
    let mut stream = Decompressor::new();
    let (mut out, mut written) = (Vec::new(), 0);
    for mut piece in chunks.iter().flat_map(|chunk| chunk.chunks(PIECE)) {
        loop {
            if written == out.len() && written < total {
                // The buffer grows with the data, not with the promise of the header.
                let more = (2 * written).max(4 * length).clamp(PIECE, total.max(PIECE)).min(total) - written;
                out.try_reserve_exact(more).map_err(|_| too_large(total))?;
                out.resize(written + more, 0);
            }
            let (read, added) = stream.read(piece, &mut out, written, false).map_err(damaged)?;
            (piece, written) = (&piece[read..], written + added);
            if stream.is_done() || written == total || (piece.is_empty() && written < out.len()) || (read, added) == (0, 0) {
                break;
            }
        }
        if written == total {
            // The checksum is only checked when it follows at once.
            if stream.read(piece, &mut out, written, false) == Err(DecompressionError::WrongChecksum) {
                return Err(damaged(DecompressionError::WrongChecksum));
            }
            return Ok(out);
        }
        if stream.is_done() {
            out.truncate(written);
            return Ok(out);
        }
    }
    Err("truncated: its image data ends too early".to_string())
}

fn too_large(bytes: usize) -> String {
    format!("oversized: {bytes} bytes are more than memory can hold")
}

/// Undoes a row's filter, for pixels of `B` bytes.
fn unfilter<const B: usize>(filter: u8, line: &mut [u8], above: &[u8]) -> Result<(), String> {
    let pixels = line.as_chunks_mut::<B>().0.iter_mut().zip(above.as_chunks::<B>().0);
    let mut left = [0u8; B];
    let mut corner = [0u8; B];
    match filter {
        0 => {}
        1 => pixels.for_each(|(pixel, _)| {
            *pixel = array(|c| pixel[c].wrapping_add(left[c]));
            left = *pixel;
        }),
        2 => line.iter_mut().zip(above).for_each(|(x, &up)| *x = x.wrapping_add(up)),
        3 => pixels.for_each(|(pixel, up)| {
            *pixel = array(|c| pixel[c].wrapping_add(left[c].midpoint(up[c])));
            left = *pixel;
        }),
        4 => pixels.for_each(|(pixel, up)| {
            *pixel = array(|c| pixel[c].wrapping_add(paeth(left[c], up[c], corner[c])));
            (left, corner) = (*pixel, *up);
        }),
        _ => return Err(format!("a damaged PNG file: a row has a filter of kind {filter}")),
    }
    Ok(())
}

/// Returns the left, upper or upper left value that is nearest to left + upper - upper left, with
/// the few steps of `stb_image`.
#[inline(always)]
fn paeth(left: u8, up: u8, corner: u8) -> u8 {
    let bound = 3 * i16::from(corner) - i16::from(left) - i16::from(up);
    let (low, high) = (left.min(up), left.max(up));
    let nearest = if i16::from(high) <= bound { low } else { corner };
    if bound <= i16::from(low) { high } else { nearest }
}
