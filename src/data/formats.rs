//! Picture formats besides JPEG and PNG, by the crate `image`: BMP, GIF, TIFF, WebP.

use std::io::Cursor;
use std::panic::{self, UnwindSafe};

use image_crate::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::pixels::{Pixels, check_size, max_pixels};

/// The most that these formats expand data of several colours: GIF's codes of 12 bits stand for up
/// to 4,096 pixels each.
const MOST_EXPANSION: u64 = 1 << 12;

/// The bytes granted to any file in addition, for pictures of one colour.
const CONSTANT: u64 = 64 << 20;

/// Decodes a file of the format of this name to red, green and blue.
pub(super) fn decode(bytes: &[u8], name: &str) -> Result<Pixels, String> {
    guarded(name, |format| decode_unguarded(bytes, format))
}

/// Returns the width and height of the picture in a file of the format of this name.
pub(super) fn size(bytes: &[u8], name: &str) -> Result<[usize; 2], String> {
    guarded(name, |format| {
        let (width, height) = ImageReader::with_format(Cursor::new(bytes), format).into_dimensions().map_err(damaged)?;
        check_size(width as usize, height as usize)?;
        Ok([width as usize, height as usize])
    })
}

/// Reads a file with its decoder, which is of another crate: a panic on a hostile file is an error
/// here.
fn guarded<T>(name: &str, read: impl FnOnce(ImageFormat) -> Result<T, String> + UnwindSafe) -> Result<T, String> {
    let format = match name {
        "BMP" => ImageFormat::Bmp,
        "GIF" => ImageFormat::Gif,
        "WebP" => ImageFormat::WebP,
        _ => ImageFormat::Tiff,
    };
    let result = panic::catch_unwind(move || read(format)).unwrap_or_else(|_| Err("damaged: its decoder gave up".to_string()));
    result.map_err(|message| format!("a {name} file: {message}"))
}

fn damaged(error: ImageError) -> String {
    format!("damaged, or of a kind that is not read: {error}")
}

fn decode_unguarded(bytes: &[u8], format: ImageFormat) -> Result<Pixels, String> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some((max_pixels() as u64).saturating_mul(4).max(CONSTANT));
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    check_size(width as usize, height as usize)?;
    if decoder.total_bytes() > (bytes.len() as u64).saturating_mul(MOST_EXPANSION).saturating_add(CONSTANT) {
        return Err(format!("truncated: {} bytes cannot hold {width}×{height} pixels", bytes.len()));
    }
    let picture = DynamicImage::from_decoder(decoder).map_err(damaged)?.into_rgb8();
    Ok(Pixels { width: width as usize, height: height as usize, channels: 3, bytes: picture.into_raw() })
}
