//! Picture formats besides JPEG and PNG, by the crate `image`: BMP, GIF, TIFF, WebP.

use std::io::Cursor;
use std::panic;

use image_crate::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::pixels::{Pixels, check_size, max_pixels};

/// The most that these formats expand data of several colours: GIF's codes of 12 bits stand for up
/// to 4,096 pixels each.
const MOST_EXPANSION: u64 = 1 << 12;

/// The bytes granted to any file in addition, for pictures of one colour.
const CONSTANT: u64 = 64 << 20;

/// Decodes a file of one of the formats to red, green and blue.
pub(super) fn decode(bytes: &[u8], format: ImageFormat) -> Result<Pixels, String> {
    // The decoders are of another crate: a panic on a hostile file is an error here.
    panic::catch_unwind(|| decode_unguarded(bytes, format)).unwrap_or_else(|_| Err("damaged: its decoder gave up".to_string()))
}

fn decode_unguarded(bytes: &[u8], format: ImageFormat) -> Result<Pixels, String> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some((max_pixels() as u64).saturating_mul(4).max(CONSTANT));
    reader.limits(limits);
    let damaged = |error: image_crate::ImageError| format!("damaged, or of a kind that is not read: {error}");
    let decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    check_size(width as usize, height as usize)?;
    if decoder.total_bytes() > (bytes.len() as u64).saturating_mul(MOST_EXPANSION).saturating_add(CONSTANT) {
        return Err(format!("truncated: {} bytes cannot hold {width}×{height} pixels", bytes.len()));
    }
    let picture = DynamicImage::from_decoder(decoder).map_err(damaged)?.into_rgb8();
    Ok(Pixels { width: width as usize, height: height as usize, channels: 3, bytes: picture.into_raw() })
}
