//! Erasing of a random rectangle.

use super::choice::chance;
use super::{Deterministic, Transform, deterministic};
use crate::data::image::Pixels;
use crate::data::{Image, Rng};
use crate::error::{Error, Result};

/// Overwrites a rectangle (torchvision's `erase`).
///
/// ```
/// use convnet::data::{Erase, Image};
///
/// let mut image = Image::from_bytes([1, 2, 3], vec![9; 6])?;
/// image.apply(&Erase::new([0, 1], [1, 2], [7.0]))?;
/// assert_eq!(image.bytes(), Some(&[9, 7, 7, 9, 9, 9][..]));
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] when the rectangle is not inside of the image, or the
/// values are neither one nor one for each channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Erase {
    top_left: [usize; 2],
    size: [usize; 2],
    value: Vec<f32>,
}

impl Erase {
    /// Makes a transform that overwrites the rectangle with this row and column at the top left,
    /// and this height and width, by one value, or by one for each channel. Values are those of the
    /// image: 0 to 255 for bytes.
    pub fn new(top_left: [usize; 2], size: [usize; 2], value: impl AsRef<[f32]>) -> Erase {
        Erase { top_left, size, value: value.as_ref().to_vec() }
    }
}

impl Deterministic for Erase {
    fn transform(&self, image: &mut Image) -> Result<()> {
        let ([top, left], [height, width], [channels, rows, columns]) = (self.top_left, self.size, image.shape());
        let inside = |start: usize, length: usize, end: usize| start.checked_add(length).is_some_and(|sum| sum <= end);
        if !(inside(top, height, rows) && inside(left, width, columns)) {
            let message = format!("{height}×{width} pixels at row {top}, column {left} are not inside of an image of {rows}×{columns}");
            return Err(Error::argument("erase", message));
        }
        check_value(&self.value, channels)?;
        let mut values = self.value.iter().cycle();
        overwrite(image, [top, left, height, width], || values.next().copied().unwrap_or_default());
        Ok(())
    }
}

deterministic!(Erase);

fn check_value(value: &[f32], channels: usize) -> Result<()> {
    if value.len() == 1 || value.len() == channels {
        return Ok(());
    }
    let message = format!("{} values do not fit an image of {channels} channels; give one, or one for each", value.len());
    Err(Error::argument("erase", message))
}

/// Overwrites a rectangle (top, left, height, width) inside of an image, value by value.
fn overwrite(image: &mut Image, [top, left, height, width]: [usize; 4], mut value: impl FnMut() -> f32) {
    let [channels, _, columns] = image.shape();
    for row in top..top + height {
        let (start, length) = ((row * columns + left) * channels, width * channels);
        match &mut image.pixels {
            Pixels::Bytes(bytes) => bytes[start..][..length].iter_mut().for_each(|x| *x = value() as u8),
            Pixels::Floats(values) => values[start..][..length].iter_mut().for_each(|x| *x = value()),
        }
    }
}

/// What a [`RandomErasing`] writes.
#[derive(Clone, Debug, PartialEq)]
enum Erased {
    Value(Vec<f32>),
    Random,
}

/// Overwrites a random rectangle with a probability (torchvision's `RandomErasing`; Zhong et al.,
/// 2017).
///
/// Usually comes after [`Normalize`](super::Normalize), so that 0 is the mean colour.
///
/// ```
/// use convnet::data::{IMAGENET_MEAN, IMAGENET_STD, Normalize, RandomErasing};
///
/// let augment = (Normalize::new(IMAGENET_MEAN, IMAGENET_STD), RandomErasing::new(0.25).scale([0.02, 0.2]).random());
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] for a probability or a part of the area outside of 0 to 1,
/// a ratio that is not positive, empty ranges, and values that are neither one nor one for each
/// channel.
#[derive(Clone, Debug, PartialEq)]
pub struct RandomErasing {
    probability: f64,
    scale: [f64; 2],
    ratio: [f64; 2],
    value: Erased,
}

impl RandomErasing {
    /// Makes a transform with this probability, torchvision's default is 0.5, that writes 0 over
    /// 0.02 to 0.33 of the area, with a height of 0.3 to 3.3 times the width.
    pub fn new(probability: f64) -> RandomErasing {
        RandomErasing { probability, scale: [0.02, 0.33], ratio: [0.3, 3.3], value: Erased::Value(vec![0.0]) }
    }

    /// Sets the least and the greatest part of the image's area.
    pub fn scale(mut self, range: [f64; 2]) -> RandomErasing {
        self.scale = range;
        self
    }

    /// Sets the least and the greatest ratio of height to width.
    pub fn ratio(mut self, range: [f64; 2]) -> RandomErasing {
        self.ratio = range;
        self
    }

    /// Sets what is written: one value, or one for each channel. Values are those of the image: 0
    /// to 255 for bytes.
    pub fn value(mut self, value: impl AsRef<[f32]>) -> RandomErasing {
        self.value = Erased::Value(value.as_ref().to_vec());
        self
    }

    /// Writes random values: of the standard normal distribution, or any bytes into an image of
    /// bytes.
    pub fn random(mut self) -> RandomErasing {
        self.value = Erased::Random;
        self
    }

    fn check(&self, channels: usize) -> Result<()> {
        let ([least, most], [low, high]) = (self.scale, self.ratio);
        if !(0.0 <= least && least <= most && most <= 1.0) {
            return Err(Error::argument("random erasing", format!("scale must be a range within 0 and 1, got {least} to {most}")));
        }
        if !(0.0 < low && low <= high && high.is_finite()) {
            return Err(Error::argument("random erasing", format!("ratio must be a range of positive numbers, got {low} to {high}")));
        }
        match &self.value {
            Erased::Value(value) => check_value(value, channels),
            Erased::Random => Ok(()),
        }
    }

    /// Draws top, left, height and width; `None` when ten rectangles did not fit.
    fn draw(&self, [height, width]: [usize; 2], rng: &mut Rng) -> Option<[usize; 4]> {
        for _ in 0..10 {
            let area = (height * width) as f64 * rng.uniform(self.scale[0], self.scale[1]);
            let ratio = rng.uniform(self.ratio[0].ln(), self.ratio[1].ln()).exp();
            let [h, w] = [area * ratio, area / ratio].map(|square| square.sqrt().round_ties_even() as usize);
            if h < height && w < width {
                return Some([rng.below(height - h + 1), rng.below(width - w + 1), h, w]);
            }
        }
        None
    }
}

impl Transform for RandomErasing {
    fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()> {
        self.check(image.channels())?;
        if !chance("random erasing", self.probability, rng)? {
            return Ok(());
        }
        let Some(rectangle @ [top, left, height, width]) = self.draw(image.size(), rng) else { return Ok(()) };
        match &self.value {
            Erased::Value(value) => return Erase::new([top, left], [height, width], value).transform(image),
            Erased::Random if image.is_bytes() => overwrite(image, rectangle, || rng.below(256) as f32),
            Erased::Random => overwrite(image, rectangle, || rng.normal() as f32),
        }
        Ok(())
    }
}
