//! Changes of colours.
//!
//! Each comes as a transform with fixed numbers, such as [`Brightness`], and as one that draws
//! them, such as [`ColorJitter`]. Images of bytes get the bytes that torchvision's functions give
//! for PIL images; images of `f32` what they give for tensors of values in `[0, 1]`. Loops over
//! bytes run over vectors, without branches.

mod blur;
mod enhance;
mod hue;
mod jitter;
mod levels;
mod random;
mod sharpness;

pub use blur::{Blur, GaussianBlur};
pub use enhance::{Brightness, Contrast, Saturation};
pub use hue::Hue;
pub use jitter::{ColorJitter, Spread};
pub use levels::{Autocontrast, Equalize, Invert, Posterize, Solarize};
pub use random::{
    RandomAdjustSharpness, RandomAutocontrast, RandomEqualize, RandomGrayscale, RandomInvert, RandomPosterize, RandomSolarize,
};
pub use sharpness::Sharpness;

use crate::data::Image;
use crate::error::{Error, Result};
use crate::kernels::runtime::simd::{Real, vectorize};

/// Pixels in a block of [`for_each_block`].
const BLOCK: usize = 64;

/// One channel of a block of pixels.
type Plane = [u8; BLOCK];

/// What is done with each block of pixels of red, green and blue, whose channels lie apart.
///
/// The methods are `inline(always)`: they become part of a loop that is compiled for the machine's
/// vectors.
trait Blocks {
    /// Reads or changes a block.
    fn block(&mut self, planes: &mut [Plane; 3]);
}

/// Does it to all blocks, of which the last is filled up with black.
fn for_each_block<B: Blocks>(bytes: &mut [u8], blocks: &mut B) {
    vectorize!(f32, {
        let mut planes = [[0; BLOCK]; 3];
        let (whole, rest) = bytes.as_chunks_mut::<{ 3 * BLOCK }>();
        for block in whole {
            split(block, &mut planes);
            blocks.block(&mut planes);
            join(&planes, block);
        }
        planes = [[0; BLOCK]; 3];
        split(rest, &mut planes);
        blocks.block(&mut planes);
        join(&planes, rest);
    });
}

#[inline(always)]
fn split(bytes: &[u8], planes: &mut [Plane; 3]) {
    for (i, pixel) in bytes.as_chunks::<3>().0.iter().take(BLOCK).enumerate() {
        (0..3).for_each(|c| planes[c][i] = pixel[c]);
    }
}

#[inline(always)]
fn join(planes: &[Plane; 3], bytes: &mut [u8]) {
    for (i, pixel) in bytes.as_chunks_mut::<3>().0.iter_mut().take(BLOCK).enumerate() {
        (0..3).for_each(|c| pixel[c] = planes[c][i]);
    }
}

/// Limits a number to the range of bytes and drops its fraction.
#[inline(always)]
fn truncated(value: f32) -> u8 {
    value.clamp(0.0, 255.0).floor().to_byte()
}

/// Checks that an image is grey or of red, green and blue.
fn expect_gray_or_rgb(op: &'static str, image: &Image) -> Result<()> {
    match image.channels() {
        1 | 3 => Ok(()),
        channels => Err(Error::argument(op, format!("takes images of 1 or 3 channels, got {channels}"))),
    }
}

/// Checks a factor, which 0 takes to its limit and 1 leaves without effect, and narrows it.
fn checked_factor(op: &'static str, factor: f64) -> Result<f32> {
    let narrow = factor as f32;
    if factor >= 0.0 && narrow.is_finite() {
        return Ok(narrow);
    }
    Err(Error::argument(op, format!("a factor must be finite and at least 0, got {factor}; 1 changes nothing")))
}
