//! Brightness, contrast and saturation: blends of an image with black, with its mean, with grey.

use super::{BLOCK, Blocks, Plane, checked_factor, expect_gray_or_rgb, for_each_block, truncated};
use crate::data::Image;
use crate::data::image::Pixels;
use crate::data::transforms::grayscale::{gray, luminance};
use crate::data::transforms::{Deterministic, deterministic};
use crate::error::Result;
use crate::kernels::runtime::arrays::MapEach;
use crate::kernels::runtime::simd::vectorize;

/// Multiplies the brightness (torchvision's `adjust_brightness`).
///
/// ```
/// use convnet::data::{Brightness, Image};
///
/// let mut image = Image::from_bytes([1, 1, 3], vec![0, 100, 200])?;
/// image.apply(&Brightness::new(1.5))?;
/// assert_eq!(image.bytes(), Some(&[0, 150, 255][..]));
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`](crate::Error::Argument) when the factor is negative or not
/// finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Brightness {
    factor: f64,
}

/// Moves values away from their mean, or towards it (torchvision's `adjust_contrast`).
///
/// A factor of 0 gives a plain grey image, 1 the image as it is, 2 twice the contrast. The mean is
/// that of the image in grey.
///
/// ```
/// use convnet::data::{Contrast, Image};
///
/// let mut image = Image::from_bytes([1, 1, 2], vec![100, 200])?;
/// image.apply(&Contrast::new(0.5))?;
/// assert_eq!(image.bytes(), Some(&[125, 175][..]));
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`](crate::Error::Argument) when the factor is negative or not
/// finite, or the image has neither 1 nor 3 channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contrast {
    factor: f64,
}

/// Moves colours away from grey, or towards it (torchvision's `adjust_saturation`).
///
/// A factor of 0 gives a grey image, 1 the image as it is, 2 twice the saturation. An image of one
/// channel stays as it is.
///
/// ```
/// use convnet::data::{Image, Saturation};
///
/// let mut image = Image::from_bytes([3, 1, 1], vec![200, 100, 0])?;
/// image.apply(&Saturation::new(0.0))?;
/// assert_eq!(image.bytes(), Some(&[118; 3][..]));
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`](crate::Error::Argument) when the factor is negative or not
/// finite, or the image has neither 1 nor 3 channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Saturation {
    factor: f64,
}

macro_rules! with_factor {
    ($($name:ident),+) => {
        $(impl $name {
            /// Makes a change by this factor, at least 0; 1 changes nothing.
            pub fn new(factor: f64) -> $name {
                $name { factor }
            }
        })+
    };
}
with_factor!(Brightness, Contrast, Saturation);

impl Deterministic for Brightness {
    fn transform(&self, image: &mut Image) -> Result<()> {
        let factor = checked_factor("brightness", self.factor)?;
        match &mut image.pixels {
            Pixels::Bytes(bytes) => blend_bytes(bytes, 0.0, factor),
            Pixels::Floats(values) => blend_floats(values, 0.0, self.factor),
        }
        Ok(())
    }
}

impl Deterministic for Contrast {
    fn transform(&self, image: &mut Image) -> Result<()> {
        let factor = checked_factor("contrast", self.factor)?;
        expect_gray_or_rgb("contrast", image)?;
        let (channels, pixels) = (image.channels(), (image.height() * image.width()).max(1) as f64);
        match &mut image.pixels {
            Pixels::Bytes(bytes) => {
                let sum = if channels == 3 { sum_of_luminance(bytes) } else { bytes.iter().map(|&byte| u64::from(byte)).sum() };
                blend_bytes(bytes, (sum as f64 / pixels + 0.5).floor() as f32, factor);
            }
            Pixels::Floats(values) => {
                let sum: f64 = match channels {
                    3 => values.as_chunks().0.iter().map(|pixel| f64::from(gray(pixel))).sum(),
                    _ => values.iter().map(|&x| f64::from(x)).sum(),
                };
                blend_floats(values, (sum / pixels) as f32, self.factor);
            }
        }
        Ok(())
    }
}

impl Deterministic for Saturation {
    fn transform(&self, image: &mut Image) -> Result<()> {
        let factor = checked_factor("saturation", self.factor)?;
        expect_gray_or_rgb("saturation", image)?;
        if image.channels() == 1 || factor == 1.0 {
            return Ok(());
        }
        match &mut image.pixels {
            Pixels::Bytes(bytes) => for_each_block(bytes, &mut FromGray { factor }),
            Pixels::Floats(values) => {
                let rest = (1.0 - self.factor) as f32;
                for pixel in values.as_chunks_mut::<3>().0 {
                    let gray = rest * gray(pixel);
                    *pixel = (*pixel).map_each(|x| (factor * x + gray).clamp(0.0, 1.0));
                }
            }
        }
        Ok(())
    }
}

deterministic!(Brightness, Contrast, Saturation);

/// Moves bytes from `base`, at factor 0, through themselves, at factor 1, and beyond, as Pillow's
/// `Image.blend` does: in `f32`, without a fraction.
fn blend_bytes(bytes: &mut [u8], base: f32, factor: f32) {
    if factor == 1.0 {
        return;
    }
    vectorize!(f32, {
        for x in bytes.iter_mut() {
            *x = truncated(base + factor * (f32::from(*x) - base));
        }
    });
}

/// Moves values from `base` through themselves and beyond, within `[0, 1]`, as torchvision's
/// tensors.
fn blend_floats(values: &mut [f32], base: f32, factor: f64) {
    let (factor, base) = (factor as f32, (1.0 - factor) as f32 * base);
    vectorize!(f32, {
        for x in values.iter_mut() {
            *x = (factor * *x + base).clamp(0.0, 1.0);
        }
    });
}

/// Moves colours from their grey, at factor 0, through themselves, and beyond.
struct FromGray {
    factor: f32,
}

impl Blocks for FromGray {
    #[inline(always)]
    fn block(&mut self, [red, green, blue]: &mut [Plane; 3]) {
        for i in 0..BLOCK {
            let color = [red[i], green[i], blue[i]];
            let gray = f32::from(luminance(&color));
            [red[i], green[i], blue[i]] = color.map_each(|x| truncated(gray + self.factor * (f32::from(x) - gray)));
        }
    }
}

/// The sum of the pixels' brightness, rounded for each as Pillow's.
struct SumOfLuminance(u64);

impl Blocks for SumOfLuminance {
    #[inline(always)]
    fn block(&mut self, [red, green, blue]: &mut [Plane; 3]) {
        let brightness = (0..BLOCK).map(|i| u32::from(luminance(&[red[i], green[i], blue[i]])));
        self.0 += u64::from(brightness.sum::<u32>());
    }
}

fn sum_of_luminance(bytes: &mut [u8]) -> u64 {
    let mut sum = SumOfLuminance(0);
    for_each_block(bytes, &mut sum);
    sum.0
}
