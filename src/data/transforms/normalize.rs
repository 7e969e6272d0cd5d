//! Normalisation of channels.

use super::Deterministic;
use crate::data::Image;
use crate::data::image::try_filled;
use crate::error::{Error, Result};
use crate::kernels::runtime::simd::vectorize;

/// The mean of ImageNet's training set, red, green and blue, as torchvision's models were trained
/// with.
pub const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];

/// The standard deviation of ImageNet's training set, to [`IMAGENET_MEAN`].
pub const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

/// Computes `(x - mean) / std`, channel by channel (torchvision's `Normalize`).
///
/// ```
/// use convnet::data::{Image, Normalize};
///
/// let mut black = Image::new(1, 2, 2)?;
/// black.apply(&Normalize::new([0.5], [0.25]))?;
/// assert_eq!(black.pixels()[..], [-2.0; 4]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] when a standard deviation is zero, a number is not finite,
/// or the image has another number of channels than there are means and deviations.
#[derive(Clone, Debug)]
pub struct Normalize {
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl Normalize {
    /// Makes a normalisation with one mean and one standard deviation for each channel.
    pub fn new(mean: impl AsRef<[f64]>, std: impl AsRef<[f64]>) -> Normalize {
        let narrow = |numbers: &[f64]| numbers.iter().map(|&x| x as f32).collect();
        Normalize { mean: narrow(mean.as_ref()), std: narrow(std.as_ref()) }
    }

    fn check(&self, channels: usize) -> Result<()> {
        let (means, stds) = (self.mean.len(), self.std.len());
        if means != channels || stds != channels {
            let message = format!(
                "{means} means and {stds} standard deviations do not fit an image of {channels} channels; give one of each for each channel"
            );
            return Err(Error::argument("normalize", message));
        }
        // Checked after rounding to f32, where a deviation may vanish or a mean overflow.
        if let Some(std) = self.std.iter().find(|&&std| std == 0.0 || !std.is_finite()) {
            return Err(Error::argument("normalize", format!("a standard deviation must be finite and not zero, got {std}")));
        }
        if let Some(mean) = self.mean.iter().find(|mean| !mean.is_finite()) {
            return Err(Error::argument("normalize", format!("a mean must be finite, got {mean}")));
        }
        Ok(())
    }

    /// Returns the normalised values of bytes, which are looked up: there are 256 for each channel.
    fn of_bytes(&self, bytes: &[u8], shape: [usize; 3]) -> Result<Vec<f32>> {
        let table = |(&mean, &std): (&f32, &f32)| std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / std);
        let tables: Vec<[f32; 256]> = self.mean.iter().zip(&self.std).map(table).collect();
        let mut values = try_filled(shape, 0.0)?;
        if let [r, g, b] = &tables[..] {
            for (values, bytes) in values.as_chunks_mut::<3>().0.iter_mut().zip(bytes.as_chunks::<3>().0) {
                *values = [r[usize::from(bytes[0])], g[usize::from(bytes[1])], b[usize::from(bytes[2])]];
            }
        } else {
            let channels = tables.len().max(1);
            for (values, bytes) in values.chunks_exact_mut(channels).zip(bytes.chunks_exact(channels)) {
                for ((value, &byte), table) in values.iter_mut().zip(bytes).zip(&tables) {
                    *value = table[usize::from(byte)];
                }
            }
        }
        Ok(values)
    }
}

impl Deterministic for Normalize {
    fn transform(&self, image: &mut Image) -> Result<()> {
        self.check(image.channels())?;
        if let Some(bytes) = image.bytes() {
            let values = self.of_bytes(bytes, image.shape())?;
            *image = Image::from_floats(image.shape(), values)?;
            return Ok(());
        }
        // Blocks of whole pixels, so that the loop runs over vectors.
        let block = self.mean.len() * (48 / self.mean.len().max(1)).max(1);
        let (mean, std) = (repeated(&self.mean, block), repeated(&self.std, block));
        let pixels = image.pixels_mut();
        vectorize!(f32, {
            for pixels in pixels.chunks_mut(block.max(1)) {
                for ((x, mean), std) in pixels.iter_mut().zip(&mean).zip(&std) {
                    *x = (*x - mean) / std;
                }
            }
        });
        Ok(())
    }
}

fn repeated(values: &[f32], length: usize) -> Vec<f32> {
    values.iter().copied().cycle().take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_the_values_of_the_same_numbers() {
        for channels in 0..=4 {
            let bytes: Vec<u8> = (0..=255).flat_map(|byte| vec![byte; channels]).collect();
            let normalize = Normalize::new(&[0.485, 0.456, 0.406, 0.7][..channels], &[0.229, 0.224, 0.225, 0.3][..channels]);
            let image = Image::from_bytes([channels, 16, 16], bytes).unwrap();
            let [mut bytes, mut floats] = [image.clone(), image];
            floats.pixels_mut();
            bytes.apply(&normalize).unwrap();
            floats.apply(&normalize).unwrap();
            assert_eq!(bytes.pixels(), floats.pixels());
        }
    }
}
