//! Sharpness: a blend of an image with a smoothed one.

use super::{checked_factor, truncated};
use crate::data::Image;
use crate::data::image::Pixels;
use crate::data::transforms::{Deterministic, deterministic};
use crate::error::Result;
use crate::kernels::runtime::simd::vectorize;

/// Blurs or sharpens (torchvision's `adjust_sharpness`).
///
/// A factor of 0 gives a smoothed image, 1 the image as it is, 2 a sharpened one. The smoothed image
/// is the mean over 3×3 pixels, of which the middle one counts fivefold; the pixels at the border,
/// and images of less than 3 pixels along a side, stay as they are.
///
/// ```
/// use convnet::data::{Image, Sharpness};
///
/// let mut image = Image::from_bytes([1, 3, 3], vec![0, 0, 0, 0, 130, 0, 0, 0, 0])?;
/// image.apply(&Sharpness::new(0.0))?;
/// assert_eq!(image.bytes(), Some(&[0, 0, 0, 0, 50, 0, 0, 0, 0][..]));
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`](crate::Error::Argument) when the factor is negative or not
/// finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sharpness {
    factor: f64,
}

impl Sharpness {
    /// Makes a change by this factor, at least 0; 1 changes nothing.
    pub fn new(factor: f64) -> Sharpness {
        Sharpness { factor }
    }
}

impl Deterministic for Sharpness {
    fn transform(&self, image: &mut Image) -> Result<()> {
        let factor = checked_factor("sharpness", self.factor)?;
        let [channels, height, width] = image.shape();
        if channels == 0 || height < 3 || width < 3 || factor == 1.0 {
            return Ok(());
        }
        let inner = Inner { channels, width };
        match &mut image.pixels {
            Pixels::Bytes(bytes) => inner.replace(bytes, |around, x| {
                let sum = around.iter().map(|&x| u16::from(x)).sum::<u16>() + 4 * u16::from(x);
                // The sum's 13th, rounded; the 13th of a whole number is never half-way.
                let smooth = f32::from((2 * sum + 13) / 26);
                truncated(smooth + factor * (f32::from(x) - smooth))
            }),
            Pixels::Floats(values) => {
                let rest = (1.0 - self.factor) as f32;
                inner.replace(values, |around, x| {
                    let smooth = (around.iter().sum::<f32>() + 4.0 * x) / 13.0;
                    (factor * x + rest * smooth).clamp(0.0, 1.0)
                });
                // torchvision limits the border too.
                values.iter_mut().for_each(|x| *x = x.clamp(0.0, 1.0));
            }
        }
        Ok(())
    }
}

deterministic!(Sharpness);

/// The pixels of an image that are not at its border.
struct Inner {
    channels: usize,
    width: usize,
}

impl Inner {
    /// Replaces the values of inner pixels by a function of the nine values around each, and of its
    /// own.
    fn replace<T: Copy>(&self, values: &mut [T], function: impl Fn(&[T; 9], T) -> T) {
        let (step, row) = (self.channels, self.channels * self.width);
        // The rows above and at the current one, before their change.
        let mut above = values[..row].to_vec();
        let mut here = values[row..][..row].to_vec();
        vectorize::<f32, _>(|| {
            let mut rest = &mut values[row..];
            while rest.len() >= 2 * row {
                let (out, below) = rest.split_at_mut(row);
                let inner = row - 2 * step;
                let taps = [&above[..], &here[..], &below[..row]].map(|line| [0, 1, 2].map(|tap| &line[tap * step..][..inner]));
                for (i, out) in out[step..][..inner].iter_mut().enumerate() {
                    let around = [
                        taps[0][0][i],
                        taps[0][1][i],
                        taps[0][2][i],
                        taps[1][0][i],
                        taps[1][1][i],
                        taps[1][2][i],
                        taps[2][0][i],
                        taps[2][1][i],
                        taps[2][2][i],
                    ];
                    *out = function(&around, taps[1][1][i]);
                }
                above.copy_from_slice(&here);
                here.copy_from_slice(&below[..row]);
                rest = below;
            }
        });
    }
}
