//! Windows of images, scaled to one size.

use super::crop::refuse_empty;
use super::resize::ScaleTo;
use super::{Geometric, Geometry, ResizeFilter};
use crate::data::annotations::Mask;
use crate::data::{Image, Rng};
use crate::error::{Error, Result};
use crate::tensor::Pair;

/// Cuts out a window and scales it (torchvision's `resized_crop`), without a copy of the window.
///
/// ```
/// use convnet::data::{Image, ResizedCrop};
///
/// let mut image = Image::new(3, 375, 500)?;
/// image.apply(&ResizedCrop::new(100, 50, [200, 300], 224))?;
/// assert_eq!(image.shape(), [3, 224, 224]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] when the window is empty or reaches beyond the image, or
/// the new size is empty or more than memory can hold.
#[derive(Clone, Debug)]
pub struct ResizedCrop {
    at: [usize; 2],
    from: [usize; 2],
    to: [usize; 2],
    filter: ResizeFilter,
}

impl ResizedCrop {
    /// Makes a change of the window of height and width `from`, whose top left pixel is in this row
    /// and column, to height and width `to`; bilinear.
    pub fn new(top: usize, left: usize, from: impl Into<Pair>, to: impl Into<Pair>) -> ResizedCrop {
        ResizedCrop { at: [top, left], from: from.into().0, to: to.into().0, filter: ResizeFilter::default() }
    }

    /// Sets how pixels are weighted; bilinear by default.
    pub fn interpolation(mut self, interpolation: ResizeFilter) -> ResizedCrop {
        self.filter = interpolation;
        self
    }

    fn scale(&self, size: [usize; 2]) -> Result<ScaleTo> {
        refuse_empty("resized crop", self.from)?;
        if (0..2).any(|axis| self.at[axis].saturating_add(self.from[axis]) > size[axis]) {
            let ([top, left], [height, width]) = (self.at, self.from);
            let message =
                format!("a window of {height}×{width} at row {top} and column {left} reaches beyond the image of {}×{}", size[0], size[1]);
            return Err(Error::argument("resized crop", message));
        }
        Ok(ScaleTo { size: self.to, filter: self.filter })
    }
}

impl Geometry for ResizedCrop {
    fn output_size(&self, _: [usize; 2]) -> [usize; 2] {
        self.to
    }

    fn image(&self, image: &mut Image) -> Result<()> {
        self.scale(image.size())?.scale_part(image, self.at, self.from)
    }

    fn mask(&self, mask: &mut Mask) -> Result<()> {
        self.scale(mask.size())?.scale_part_of_mask(mask, self.at, self.from)
    }

    fn point(&self, point: [f32; 2], _: [usize; 2]) -> [f32; 2] {
        let along = |axis: usize| (point[1 - axis] - self.at[axis] as f32) * self.to[axis] as f32 / self.from[axis] as f32;
        [along(1), along(0)]
    }
}

/// Cuts out a window of random area, aspect ratio and place, and scales it: the augmentation of
/// ImageNet (Szegedy et al., 2014; torchvision's `RandomResizedCrop`).
///
/// The area is uniform, the logarithm of the ratio of width to height too. After ten windows that
/// do not fit the image, the largest one in the middle with an allowed ratio is taken.
///
/// ```
/// use convnet::data::{IMAGENET_MEAN, IMAGENET_STD, Normalize, RandomHorizontalFlip, RandomResizedCrop};
///
/// let augment = (RandomResizedCrop::new(224), RandomHorizontalFlip::new(0.5), Normalize::new(IMAGENET_MEAN, IMAGENET_STD));
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] when the size or the image is empty, or a range is not one
/// of positive numbers.
#[derive(Clone, Debug)]
pub struct RandomResizedCrop {
    size: [usize; 2],
    scale: [f64; 2],
    ratio: [f64; 2],
    filter: ResizeFilter,
}

impl RandomResizedCrop {
    /// Makes a crop that is scaled to this height and width.
    pub fn new(size: impl Into<Pair>) -> RandomResizedCrop {
        RandomResizedCrop { size: size.into().0, scale: [0.08, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0], filter: ResizeFilter::default() }
    }

    /// Sets the smallest and the largest part of the image's area; 0.08 and 1 by default.
    pub fn scale(mut self, scale: [f64; 2]) -> RandomResizedCrop {
        self.scale = scale;
        self
    }

    /// Sets the smallest and the largest ratio of width to height; 3/4 and 4/3 by default.
    pub fn ratio(mut self, ratio: [f64; 2]) -> RandomResizedCrop {
        self.ratio = ratio;
        self
    }

    /// Sets how pixels are weighted; bilinear by default.
    pub fn interpolation(mut self, interpolation: ResizeFilter) -> RandomResizedCrop {
        self.filter = interpolation;
        self
    }

    /// Draws the place and size of the window.
    fn window(&self, [height, width]: [usize; 2], rng: &mut Rng) -> ([usize; 2], [usize; 2]) {
        let area = height as f64 * width as f64;
        for _ in 0..10 {
            let target = area * rng.uniform(self.scale[0], self.scale[1]);
            let ratio = rng.uniform(self.ratio[0].ln(), self.ratio[1].ln()).exp();
            let w = (target * ratio).sqrt().round_ties_even() as usize;
            let h = (target / ratio).sqrt().round_ties_even() as usize;
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                return ([rng.below(height - h + 1), rng.below(width - w + 1)], [h, w]);
            }
        }
        let ratio = width as f64 / height as f64;
        let [low, high] = self.ratio;
        let (h, w) = if ratio < low {
            ((width as f64 / low).round_ties_even() as usize, width)
        } else if ratio > high {
            (height, (height as f64 * high).round_ties_even() as usize)
        } else {
            (height, width)
        };
        // A ratio of at least half a pixel's length rounds to a window of no pixel in a thin image.
        let (h, w) = (h.clamp(1, height.max(1)), w.clamp(1, width.max(1)));
        ([(height.saturating_sub(h)) / 2, (width.saturating_sub(w)) / 2], [h, w])
    }
}

impl Geometric for RandomResizedCrop {
    fn draw(&self, [_, height, width]: [usize; 3], rng: &mut Rng) -> Result<Option<Box<dyn Geometry>>> {
        for (name, [low, high]) in [("scale", self.scale), ("ratio", self.ratio)] {
            if !(low > 0.0 && low <= high && high.is_finite()) {
                let message = format!("{name} takes a smaller and a larger positive number, got [{low}, {high}]");
                return Err(Error::argument("random resized crop", message));
            }
        }
        let (at, from) = self.window([height, width], rng);
        Ok(Some(Box::new(ResizedCrop { at, from, to: self.size, filter: self.filter })))
    }
}
