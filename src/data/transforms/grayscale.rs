//! Conversion to one channel.

use super::Deterministic;
use crate::data::Image;
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
        let bytes = image.is_bytes();
        image.resample(1, height, width, |old, new| {
            for (&[r, g, b], gray) in old.pixels().as_chunks::<3>().0.iter().zip(new) {
                *gray = if bytes {
                    let level = |x: f32| (x * 255.0 + 0.5) as u32;
                    // Pillow's sixteen-bit fixed point.
                    f32::from(((level(r) * 19_595 + level(g) * 38_470 + level(b) * 7_471 + 0x8000) >> 16) as u8) / 255.0
                } else {
                    0.2989 * r + 0.587 * g + 0.114 * b
                };
            }
        })
    }
}
