//! The values of pixels that a transform brings in from outside of an image.

use crate::data::annotations::Mask;
use crate::data::image::Pixel;
use crate::error::{Error, Result};

/// The values of pixels that a transform brings in from outside of an image, in 255ths, for images
/// of bytes and of `f32` alike: one number for all channels, or one for each. The default is black.
///
/// Masks get [`Mask::IGNORE`] there, whatever the fill.
///
/// ```
/// use convnet::data::{Image, Pad};
///
/// let mut image = Image::from_bytes([3, 1, 1], vec![1, 2, 3])?;
/// image.apply(&Pad::new([1, 0, 0, 0]).fill([124.0, 116.0, 104.0]))?;
/// assert_eq!(image.bytes(), Some(&[124, 116, 104, 1, 2, 3][..]));
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fill(Vec<f32>);

impl Fill {
    /// Returns the pixel of an image of this number of channels.
    pub(super) fn pixel<T: Filled>(&self, channels: usize) -> Result<Vec<T>> {
        fill_pixel(&self.0, channels)
    }
}

impl From<f32> for Fill {
    fn from(value: f32) -> Fill {
        Fill(vec![value])
    }
}

impl<const N: usize> From<[f32; N]> for Fill {
    fn from(values: [f32; N]) -> Fill {
        Fill(values.to_vec())
    }
}

impl From<Vec<f32>> for Fill {
    fn from(values: Vec<f32>) -> Fill {
        Fill(values)
    }
}

/// A type of values that has 255ths.
pub(super) trait Filled: Pixel + PartialEq {
    /// Converts a number of 255ths.
    fn of_255ths(value: f32) -> Self;
}

impl Filled for u8 {
    fn of_255ths(value: f32) -> u8 {
        value as u8
    }
}

impl Filled for f32 {
    fn of_255ths(value: f32) -> f32 {
        value / 255.0
    }
}

/// Returns a pixel of this fill, given in 255ths: one value for each channel, one for all, or none
/// for black.
pub(super) fn fill_pixel<T: Filled>(fill: &[f32], channels: usize) -> Result<Vec<T>> {
    match fill {
        [] => Ok(vec![T::of_255ths(0.0); channels]),
        &[value] => Ok(vec![T::of_255ths(value); channels]),
        values if values.len() == channels => Ok(values.iter().map(|&value| T::of_255ths(value)).collect()),
        values => {
            let message = format!("{} fill values do not fit an image of {channels} channels; give one, or one for each", values.len());
            Err(Error::argument("fill", message))
        }
    }
}

/// Returns the pixel of a mask outside of the image.
pub(super) fn mask_pixel<T: Filled>() -> Vec<T> {
    vec![T::of_255ths(f32::from(Mask::IGNORE))]
}
