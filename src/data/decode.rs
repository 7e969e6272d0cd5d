//! Pictures from files: JPEG and PNG, by content.

use std::io::Cursor;
use std::path::Path;

use png::{ColorType, Transformations};

use super::{Image, jpeg};
use crate::error::{Error, Result};
use crate::nn::safetensors::read_file;

/// A decoded picture, pixel by pixel.
pub(super) struct Pixels {
    pub(super) width: usize,
    pub(super) height: usize,
    /// 1: gray; 2: gray and alpha; 3: red, green, blue; 4 of a PNG: those and alpha; 4 of a JPEG: inverted cyan, magenta, yellow, black.
    pub(super) channels: usize,
    pub(super) bytes: Vec<u8>,
}

/// The longest side of a picture.
const LONGEST: usize = 65_535;

/// How many pixels any file may have, and how many more for each of its bytes. Photographs have less than 10 for a byte.
const PIXELS: usize = 1 << 24;
const PIXELS_PER_BYTE: usize = 64;

/// That a picture is not empty, and not larger than a file of this length justifies.
pub(super) fn check_size(width: usize, height: usize, length: usize) -> Result<(), String> {
    let most = PIXELS.saturating_add(length.saturating_mul(PIXELS_PER_BYTE));
    if width == 0 || height == 0 {
        return Err(format!("it has no pixels: {width}×{height}"));
    }
    if width > LONGEST || height > LONGEST || width * height > most {
        return Err(format!("oversized: {width}×{height} pixels in {length} bytes"));
    }
    Ok(())
}

impl Image {
    /// Reads a JPEG or PNG file as red, green and blue: `[3, H, W]`, an [image of bytes](Image::is_bytes).
    ///
    /// Pixels are those that Pillow's `Image.open(path).convert("RGB")` has, to the bit (of PNG files with 16 bits, the upper 8): gray is
    /// repeated, transparency is left out, and a camera's note of how it was held is not heeded.
    ///
    /// ```
    /// use convnet::data::Image;
    ///
    /// # std::env::set_current_dir("tests/fixtures/images").unwrap();
    /// let tensor = Image::open("rgb.jpg")?.to_tensor(); // in [0, 1]
    /// assert_eq!(tensor.shape(), [3, 37, 53]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Format`] when it is of another kind, damaged, truncated, or has more pixels
    /// than its length justifies: 16 million, and 64 for each byte.
    pub fn open(path: impl AsRef<Path>) -> Result<Image> {
        let mut image = Image::default();
        image.read(path.as_ref())?;
        Ok(image)
    }

    /// As [`open`](Self::open), from a file's content.
    ///
    /// # Errors
    /// [`Error::Value`] where `open` has [`Error::Format`].
    pub fn decode(bytes: &[u8]) -> Result<Image> {
        let mut image = Image::default();
        image.set_encoded(bytes).map_err(|message| Error::value("image", message))?;
        Ok(image)
    }

    /// Overwrites the image with a file's.
    pub(super) fn read(&mut self, path: &Path) -> Result<()> {
        self.set_encoded(&read_file(path)?).map_err(|message| Error::format(path, message))
    }

    fn set_encoded(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut pixels = match bytes {
            [0xFF, 0xD8, ..] => {
                let mut pixels = jpeg::decode(bytes)?;
                if pixels.channels == 4 {
                    pixels.bytes.as_chunks_mut::<4>().0.iter_mut().for_each(without_black);
                }
                pixels
            }
            [0x89, b'P', b'N', b'G', ..] => decode_png(bytes)?,
            [] => return Err("an empty file".to_string()),
            _ => return Err("neither a JPEG nor a PNG file".to_string()),
        };
        if pixels.channels != 3 {
            pixels.bytes = match pixels.channels {
                1 => pixels.bytes.iter().flat_map(|&gray| [gray; 3]).collect(),
                2 => pixels.bytes.as_chunks::<2>().0.iter().flat_map(|&[gray, _]| [gray; 3]).collect(),
                _ => pixels.bytes.as_chunks::<4>().0.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect(),
            };
        }
        self.set_bytes([3, pixels.height, pixels.width], &pixels.bytes, 255.0).map_err(|error| error.to_string())
    }
}

/// Inks to light, as Pillow does it; files have inks inverted, as Adobe's programs write them.
fn without_black(pixel: &mut [u8; 4]) {
    let white = u32::from(pixel[3]);
    for value in &mut pixel[..3] {
        // The product in 255ths, rounded.
        let product = u32::from(255 - *value) * white + 128;
        *value = white.saturating_sub((product + (product >> 8)) >> 8) as u8;
    }
}

fn decode_png(bytes: &[u8]) -> Result<Pixels, String> {
    let damaged = |error: png::DecodingError| format!("a damaged PNG file: {error}");
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: 64 << 20 });
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    // Texts and profiles are of no use here, and may be large.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(damaged)?;
    let (width, height) = (header.width as usize, header.height as usize);
    check_size(width, height, bytes.len())?;
    let mut reader = decoder.read_info().map_err(damaged)?;
    let channels = match reader.output_color_type().0 {
        ColorType::Grayscale | ColorType::Indexed => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb => 3,
        ColorType::Rgba => 4,
    };
    let size = width * height * channels;
    if reader.output_buffer_size() != Some(size) {
        return Err(format!("a damaged PNG file: its picture is not of {size} bytes"));
    }
    let mut pixels = vec![0; size];
    reader.next_frame(&mut pixels).map_err(damaged)?;
    Ok(Pixels { width, height, channels, bytes: pixels })
}
