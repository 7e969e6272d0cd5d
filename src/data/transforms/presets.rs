//! Preprocessing for classification.

use super::{CenterCrop, Deterministic, Grayscale, IMAGENET_MEAN, IMAGENET_STD, Normalize, Resize, ResizeFilter, Transform};
use crate::data::annotations::Part;
use crate::data::{Image, Rng};
use crate::error::Result;

/// Prepares a picture for classification: scales its shorter side, cuts out the middle, normalises
/// the channels (torchvision's `ImageClassification` preset).
/// [`models::preprocessing`](crate::models::preprocessing) has the settings of each model.
///
/// ```
/// use convnet::data::{Image, ImageClassification};
///
/// let mut image = Image::new(3, 375, 500)?;
/// image.apply(&ImageClassification::new(224))?;
/// assert_eq!(image.shape(), [3, 224, 224]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives the errors of its parts: [`Error::Argument`](crate::Error::Argument) for sizes
/// of 0, for numbers of channels other than 1 and 3 where gray is wanted, and for means and
/// deviations that do not fit the channels.
#[derive(Clone, Debug)]
pub struct ImageClassification {
    crop: usize,
    resize: usize,
    interpolation: ResizeFilter,
    mean: Vec<f64>,
    std: Vec<f64>,
}

impl ImageClassification {
    /// Makes a preset for a square of this size, out of a picture scaled to 256 on its shorter
    /// side, bilinear, with ImageNet's mean and deviation.
    pub fn new(crop: usize) -> ImageClassification {
        ImageClassification {
            crop,
            resize: 256,
            interpolation: ResizeFilter::Bilinear,
            mean: IMAGENET_MEAN.to_vec(),
            std: IMAGENET_STD.to_vec(),
        }
    }

    /// Sets the length of the shorter side before the middle is cut out.
    pub fn resize(mut self, shorter: usize) -> ImageClassification {
        self.resize = shorter;
        self
    }

    /// Sets how pixels are weighted when the picture is scaled.
    pub fn interpolation(mut self, interpolation: ResizeFilter) -> ImageClassification {
        self.interpolation = interpolation;
        self
    }

    /// Sets the means and deviations of the channels; one of each converts the picture to gray
    /// first.
    pub fn normalize(mut self, mean: impl AsRef<[f64]>, std: impl AsRef<[f64]>) -> ImageClassification {
        (self.mean, self.std) = (mean.as_ref().to_vec(), std.as_ref().to_vec());
        self
    }

    /// Returns the means that are subtracted from the channels.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Returns the deviations that the channels are divided by.
    pub fn std(&self) -> &[f64] {
        &self.std
    }

    /// Returns the length to which the shorter side is scaled.
    pub fn shorter_side(&self) -> usize {
        self.resize
    }

    /// Returns the filter of the scaling.
    pub fn filter(&self) -> ResizeFilter {
        self.interpolation
    }

    /// Returns what a network sees of a picture, in the picture's own colours, `scale` times as
    /// large as the network's input: the picture to lay a heat map over, such as that of
    /// [`grad_cam`](crate::inspect::grad_cam), whose ends are those of the part cut out.
    ///
    /// ```
    /// use convnet::data::{Image, ImageClassification};
    ///
    /// let seen = ImageClassification::new(224).view(&Image::new(3, 375, 500)?, 2)?;
    /// assert_eq!(seen.shape(), [3, 448, 448]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for sizes of 0, and for a picture that is too
    /// thin.
    pub fn view(&self, picture: &Image, scale: usize) -> Result<Image> {
        let mut seen = picture.clone();
        self.cut_out(scale, &mut [Part::Image(&mut seen)], &mut Rng::new(0))?;
        Ok(seen)
    }

    /// Scales parts of a sample and cuts out the middle, in `scale` times the sizes.
    fn cut_out(&self, scale: usize, parts: &mut [Part<'_>], rng: &mut Rng) -> Result<()> {
        let [shorter, crop] = [self.resize, self.crop].map(|size| size.saturating_mul(scale));
        Resize::shorter(shorter).interpolation(self.interpolation).apply_to_parts(parts, rng)?;
        CenterCrop::new([crop, crop]).apply_to_parts(parts, rng)
    }

    /// Returns the shape of the result, `[C, H, W]`.
    pub fn shape(&self) -> [usize; 3] {
        [self.mean.len(), self.crop, self.crop]
    }
}

impl Deterministic for ImageClassification {
    fn transform(&self, image: &mut Image) -> Result<()> {
        // None of the parts draws a number.
        self.apply(image, &mut Rng::new(0))
    }
}

impl Transform for ImageClassification {
    fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()> {
        self.apply_to_parts(&mut [Part::Image(image)], rng)
    }

    fn apply_to_parts(&self, parts: &mut [Part<'_>], rng: &mut Rng) -> Result<()> {
        if self.mean.len() == 1 {
            Grayscale.apply_to_parts(parts, rng)?;
        }
        self.cut_out(1, parts, rng)?;
        Normalize::new(&self.mean, &self.std).apply_to_parts(parts, rng)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn view_is_what_the_network_sees_without_normalisation() {
        // A ramp in each channel, the third one the sum of the others.
        let bytes = (0..50 * 70).flat_map(|i| [(i % 70) as u8, (i / 70) as u8, (i % 70 + i / 70) as u8]).collect();
        let picture = Image::from_bytes([3, 50, 70], bytes).unwrap();
        let preset = ImageClassification::new(24).resize(32);
        let mut input = picture.clone();
        input.apply(&preset.clone().normalize([0.0; 3], [1.0; 3])).unwrap();
        assert_eq!(preset.view(&picture, 1).unwrap().pixels(), input.pixels());
        // At twice the size, the same part: its means over 2×2 pixels are the input, apart from
        // rounding to bytes and from the ramp's ends.
        let mut large = preset.view(&picture, 2).unwrap();
        assert_eq!(large.shape(), [3, 48, 48]);
        large.apply(&Resize::new([24, 24])).unwrap();
        let pixels = large.pixels();
        let worst = pixels.iter().zip(input.pixels().iter()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 2.0 / 255.0, "{worst}");
        // A network of gray pictures: its view keeps the colours.
        assert_eq!(preset.normalize([0.5], [0.5]).view(&picture, 1).unwrap().channels(), 3);
        assert!(ImageClassification::new(usize::MAX).view(&picture, 3).is_err());
        assert!(ImageClassification::new(0).view(&picture, 1).is_err());
    }
}
