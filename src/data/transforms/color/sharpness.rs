//! Sharpness: a blend of an image with a smoothed one.

use std::ops::Add;

use super::{checked_factor, truncated};
use crate::data::Image;
use crate::data::image::Pixels;
use crate::data::transforms::{Deterministic, deterministic};
use crate::error::Result;
use crate::kernels::runtime::simd::vectorize;

/// Blurs or sharpens (torchvision's `adjust_sharpness`).
///
/// A factor of 0 gives a smoothed image, 1 the image as it is, 2 a sharpened one. The smoothed
/// image is the mean over 3×3 pixels, of which the middle one counts fivefold; the pixels at the
/// border, and images of less than 3 pixels along a side, stay as they are.
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
            Pixels::Bytes(bytes) => {
                let finish = |nine: u16, x: u8| {
                    // The sum's 13th, rounded; the 13th of a whole number is never half-way.
                    let smooth = f32::from((2 * (nine + 4 * u16::from(x)) + 13) / 26);
                    truncated(smooth + factor * (f32::from(x) - smooth))
                };
                inner.replace(bytes, |three| three.map(u16::from).iter().sum(), finish);
            }
            Pixels::Floats(values) => {
                let rest = (1.0 - self.factor) as f32;
                let finish = |nine: f32, x: f32| (factor * x + rest * ((nine + 4.0 * x) / 13.0)).clamp(0.0, 1.0);
                inner.replace(values, |three| three.iter().sum(), finish);
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
    /// Replaces the values of inner pixels by a function of the sum of the nine values around each,
    /// and of the value. `sum` adds up three.
    fn replace<T: Copy, S: Copy + Default + Add<Output = S>>(
        &self,
        values: &mut [T],
        sum: impl Fn([T; 3]) -> S,
        finish: impl Fn(S, T) -> T,
    ) {
        let (step, row) = (self.channels, self.channels * self.width);
        // The rows above and at the current one, before their change.
        let mut above = values[..row].to_vec();
        let mut here = values[row..][..row].to_vec();
        let mut columns = vec![S::default(); row];
        vectorize!(f32, {
            let mut rest = &mut values[row..];
            while rest.len() >= 2 * row {
                let (out, below) = rest.split_at_mut(row);
                for (((columns, &a), &h), &b) in columns.iter_mut().zip(&above).zip(&here).zip(&below[..row]) {
                    *columns = sum([a, h, b]);
                }
                let inner = step..row - step;
                let (left, middle, right) = (&columns[..row - 2 * step], &columns[inner.clone()], &columns[2 * step..]);
                let around = left.iter().zip(middle).zip(right).map(|((&l, &m), &r)| l + m + r);
                for ((out, nine), &x) in out[inner.clone()].iter_mut().zip(around).zip(&here[inner]) {
                    *out = finish(nine, x);
                }
                above.copy_from_slice(&here);
                here.copy_from_slice(&below[..row]);
                rest = below;
            }
        });
    }
}
