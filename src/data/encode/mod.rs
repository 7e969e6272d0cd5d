//! Pictures to files: PNG (ISO/IEC 15948), written here on top of deflate, and JPEG by the crate
//! `jpeg-encoder`.
//!
//! Each row of a PNG file gets the filter whose result has the smallest sum of absolute values,
//! which is the heuristic that the standard recommends (§12.8).

use std::io::{self, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::Image;
use crate::error::{Error, Result};
use crate::io::atomic_file::write_atomically;

/// The first bytes of every PNG file.
const SIGNATURE: &[u8; 8] = b"\x89PNG\r\n\x1a\n";

/// The longest piece of image data in a chunk; the format allows 2³¹ - 1 bytes.
const LONGEST_CHUNK: usize = 1 << 30;

/// The quality of JPEG files that [`Image::save`] writes.
#[cfg(feature = "image")]
const JPEG_QUALITY: u8 = 90;

impl Image {
    /// Writes a picture file; its extension names the format: `png`, or `jpg` and `jpeg` (quality
    /// 90, behind the feature `image`). A file of that name is replaced, atomically.
    ///
    /// Values of `f32` are limited to `[0, 1]` and rounded to 255ths. One channel is gray, three
    /// are red, green and blue; in PNG files, two are gray with opacity and four are colours with
    /// opacity.
    ///
    /// ```
    /// use convnet::data::Image;
    ///
    /// # let folder = tempfile::tempdir().unwrap();
    /// # std::env::set_current_dir(&folder).unwrap();
    /// let gradient = (0..32 * 32).map(|i| (i % 32) as f32 / 31.0).collect();
    /// let image = Image::from_floats([1, 32, 32], gradient)?;
    /// image.save("gradient.png")?;
    /// assert!(image.save("gradient.xyz").is_err());
    /// # Ok::<(), convnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] when the extension is another one, [`Error::Shape`] when the format
    /// cannot hold a picture of this shape, [`Error::Io`] when the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
        let bytes = match extension.as_deref() {
            Some("png") => self.encode_png()?,
            #[cfg(feature = "image")]
            Some("jpg" | "jpeg") => self.encode_jpeg(JPEG_QUALITY)?,
            #[cfg(not(feature = "image"))]
            Some("jpg" | "jpeg") => {
                return Err(Error::argument("save", "JPEG files are written with the crate's feature `image`, PNG files without"));
            }
            _ => {
                let message = format!("{} has to end in .png, .jpg or .jpeg, which names the format", path.display());
                return Err(Error::argument("save", message));
            }
        };
        write_atomically(path, |out| out.write_all(&bytes))
    }

    /// Returns the content of a PNG file; see [`save`](Self::save).
    ///
    /// # Errors
    /// [`Error::Shape`] unless there are 1 to 4 channels and at least one pixel.
    pub fn encode_png(&self) -> Result<Vec<u8>> {
        let [channels, height, width] = self.shape();
        let colour = match channels {
            1 => 0,
            2 => 4,
            3 => 2,
            4 => 6,
            _ => {
                return Err(Error::shape(
                    "encode_png",
                    format!("PNG files have 1 to 4 channels, the image {:?} has {channels}", self.shape()),
                ));
            }
        };
        let [columns, rows] = [width, height].map(|size| u32::try_from(size).ok().filter(|size| (1..1 << 31).contains(size)));
        let (Some(columns), Some(rows)) = (columns, rows) else {
            return Err(Error::shape("encode_png", format!("PNG files have 1 to 2³¹-1 rows and columns, the image is {:?}", self.shape())));
        };
        let quantised;
        let pixels = match self.bytes() {
            Some(bytes) => bytes,
            None => {
                quantised = self.to_bytes();
                quantised.bytes().unwrap_or_default()
            }
        };
        write_png([columns, rows], colour, channels, pixels).map_err(|error| Error::msg(format!("encode_png: {error}")))
    }

    /// Returns the content of a JPEG file. The quality is that of libjpeg, from 1 to 100; up to 90,
    /// colours have half the resolution.
    ///
    /// # Errors
    /// [`Error::Argument`] for another quality, [`Error::Shape`] unless there are 1 or 3 channels
    /// and 1 to 65,535 rows and columns.
    #[cfg(feature = "image")]
    pub fn encode_jpeg(&self, quality: u8) -> Result<Vec<u8>> {
        use jpeg_encoder::{Encoder, SamplingFactor};

        if !(1..=100).contains(&quality) {
            return Err(Error::argument("encode_jpeg", format!("the quality is 1 to 100, got {quality}")));
        }
        let unfit = |wanted: &str| Error::shape("encode_jpeg", format!("JPEG files have {wanted}, the image is {:?}", self.shape()));
        if ![1, 3].contains(&self.channels()) {
            return Err(unfit("1 or 3 channels"));
        }
        let [height, width] = self.size().map(|size| u16::try_from(size).ok().filter(|&size| size > 0));
        let (Some(width), Some(height)) = (width, height) else { return Err(unfit("1 to 65535 rows and columns")) };
        let mut file = Vec::new();
        let mut encoder = Encoder::new(&mut file, quality);
        encoder.set_sampling_factor(if quality > 90 { SamplingFactor::R_4_4_4 } else { SamplingFactor::R_4_2_0 });
        let picture = self.to_bytes();
        let pixels = Pixels { bytes: picture.bytes().unwrap_or_default(), channels: self.channels(), width, height };
        encoder.encode_image(pixels).map_err(Error::other)?;
        Ok(file)
    }
}

/// The rows of a picture of one or three channels, for `jpeg-encoder`. The buffers that come with
/// it would have the encoder compiled nine times, for as many orders of colours.
#[cfg(feature = "image")]
struct Pixels<'a> {
    bytes: &'a [u8],
    channels: usize,
    width: u16,
    height: u16,
}

#[cfg(feature = "image")]
impl jpeg_encoder::ImageBuffer for Pixels<'_> {
    fn get_jpeg_color_type(&self) -> jpeg_encoder::JpegColorType {
        if self.channels == 1 { jpeg_encoder::JpegColorType::Luma } else { jpeg_encoder::JpegColorType::Ycbcr }
    }

    fn width(&self) -> u16 {
        self.width
    }

    fn height(&self) -> u16 {
        self.height
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let length = usize::from(self.width) * self.channels;
        let row = &self.bytes[usize::from(y) * length..][..length];
        if self.channels == 1 {
            buffers[0].extend_from_slice(row);
            return;
        }
        for &[red, green, blue] in row.as_chunks().0 {
            let (luma, blue_difference, red_difference) = jpeg_encoder::rgb_to_ycbcr(red, green, blue);
            buffers[0].push(luma);
            buffers[1].push(blue_difference);
            buffers[2].push(red_difference);
        }
    }
}

fn write_png([columns, rows]: [u32; 2], colour: u8, channels: usize, pixels: &[u8]) -> io::Result<Vec<u8>> {
    let mut header = [0; 13];
    header[..4].copy_from_slice(&columns.to_be_bytes());
    header[4..8].copy_from_slice(&rows.to_be_bytes());
    header[8..10].copy_from_slice(&[8, colour]);
    let row = columns as usize * channels;
    let mut data = ZlibEncoder::new(Vec::new(), Compression::default());
    let (mut best, mut candidate) = (vec![0; row + 1], vec![0; row + 1]);
    let mut above = &vec![0; row][..];
    for line in pixels.chunks_exact(row) {
        let mut least = u64::MAX;
        for filter in 0..5 {
            let cost = filter_row(filter, channels, line, above, &mut candidate);
            if cost < least {
                least = cost;
                std::mem::swap(&mut best, &mut candidate);
            }
        }
        data.write_all(&best)?;
        above = line;
    }
    let mut file = SIGNATURE.to_vec();
    write_chunk(&mut file, b"IHDR", &header);
    for piece in data.finish()?.chunks(LONGEST_CHUNK) {
        write_chunk(&mut file, b"IDAT", piece);
    }
    write_chunk(&mut file, b"IEND", &[]);
    Ok(file)
}

/// Writes a row after its filter, with the filter's number first, and returns the sum of its
/// absolute values.
fn filter_row(filter: u8, channels: usize, line: &[u8], above: &[u8], out: &mut [u8]) -> u64 {
    out[0] = filter;
    let mut sum = 0;
    for (i, (out, (&value, &up))) in out[1..].iter_mut().zip(line.iter().zip(above)).enumerate() {
        let (left, corner) = if i < channels { (0, 0) } else { (line[i - channels], above[i - channels]) };
        let predicted = match filter {
            0 => 0,
            1 => left,
            2 => up,
            3 => left.midpoint(up),
            _ => paeth(left, up, corner),
        };
        *out = value.wrapping_sub(predicted);
        sum += u64::from((*out as i8).unsigned_abs());
    }
    sum
}

/// Returns the neighbour that is nearest to left + up - corner; the first of equally near ones.
fn paeth(left: u8, up: u8, corner: u8) -> u8 {
    let [l, u, c] = [left, up, corner].map(i16::from);
    let [to_left, to_up, to_corner] = [(u - c).abs(), (l - c).abs(), (l + u - 2 * c).abs()];
    match () {
        () if to_left <= to_up && to_left <= to_corner => left,
        () if to_up <= to_corner => up,
        () => corner,
    }
}

fn write_chunk(file: &mut Vec<u8>, name: &[u8; 4], body: &[u8]) {
    let mut crc = flate2::Crc::new();
    crc.update(name);
    crc.update(body);
    // A chunk is at most `LONGEST_CHUNK` long.
    file.extend_from_slice(&(body.len() as u32).to_be_bytes());
    file.extend_from_slice(name);
    file.extend_from_slice(body);
    file.extend_from_slice(&crc.sum().to_be_bytes());
}

#[cfg(test)]
mod tests;
