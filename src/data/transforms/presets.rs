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
        Resize::shorter(self.resize).interpolation(self.interpolation).apply_to_parts(parts, rng)?;
        CenterCrop::new([self.crop, self.crop]).apply_to_parts(parts, rng)?;
        Normalize::new(&self.mean, &self.std).apply_to_parts(parts, rng)
    }
}
