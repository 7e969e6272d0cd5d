//! The values of pixels that a transform brings in from outside of an image.

use crate::data::annotations::Mask;
use crate::data::image::Pixel;
use crate::error::{Error, Result};

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
