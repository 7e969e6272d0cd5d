//! Conversion to one channel.

use super::Deterministic;
use crate::data::Image;
use crate::data::image::Pixels;
use crate::error::{Error, Result};

/// Computes the brightness of red, green and blue as one channel (torchvision's `Grayscale`, ITU-R
/// 601-2); an image of one channel is left as it is.
///
/// An [image of bytes](Image::is_bytes) gets Pillow's values, rounded.
///
/// ```
/// use convnet::data::{Grayscale, Image};
///
/// let mut image = Image::new(3, 20, 30)?;
/// image.apply(&Grayscale)?;
/// assert_eq!(image.shape(), [1, 20, 30]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] for another number of channels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Grayscale;

impl Deterministic for Grayscale {
    fn transform(&self, image: &mut Image) -> Result<()> {
        let [channels, height, width] = image.shape();
        match channels {
            1 => return Ok(()),
            3 => {}
            _ => return Err(Error::argument("grayscale", format!("takes images of 1 or 3 channels, got {channels}"))),
        }
        *image = match &image.pixels {
            Pixels::Bytes(bytes) => Image::from_bytes([1, height, width], bytes.as_chunks().0.iter().map(luminance).collect())?,
            Pixels::Floats(values) => Image::from_floats([1, height, width], values.as_chunks().0.iter().map(gray).collect())?,
        };
        Ok(())
    }
}

/// Returns the brightness of a colour with torchvision's factors for tensors.
#[inline(always)]
pub(super) fn gray(&[r, g, b]: &[f32; 3]) -> f32 {
    0.2989 * r + 0.587 * g + 0.114 * b
}

/// Returns the brightness of a colour in Pillow's sixteen-bit fixed point.
#[inline(always)]
pub(super) fn luminance(&[r, g, b]: &[u8; 3]) -> u8 {
    ((u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471 + 0x8000) >> 16) as u8
}
