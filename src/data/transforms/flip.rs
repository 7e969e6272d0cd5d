//! Mirror images.

use super::geometry::check_chance;
use super::{Geometric, Geometry};
use crate::data::annotations::Mask;
use crate::data::image::Pixels;
use crate::data::{Image, Rng};
use crate::error::Result;

/// Exchanges left and right (torchvision's `hflip`).
///
/// ```
/// use convnet::data::{HorizontalFlip, Image};
///
/// let mut image = Image::from_bytes([1, 2, 2], vec![1, 2, 3, 4])?;
/// image.apply(&HorizontalFlip)?;
/// assert_eq!(image.bytes(), Some(&[2, 1, 4, 3][..]));
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct HorizontalFlip;

/// Exchanges top and bottom (torchvision's `vflip`).
#[derive(Clone, Copy, Debug, Default)]
pub struct VerticalFlip;

impl Geometry for HorizontalFlip {
    fn output_size(&self, size: [usize; 2]) -> [usize; 2] {
        size
    }

    fn image(&self, image: &mut Image) -> Result<()> {
        let [channels, _, width] = image.shape();
        match &mut image.pixels {
            Pixels::Bytes(values) => reverse_rows(values, channels, width),
            Pixels::Floats(values) => reverse_rows(values, channels, width),
        }
        Ok(())
    }

    fn mask(&self, mask: &mut Mask) -> Result<()> {
        let [_, width] = mask.size();
        reverse_rows(mask.classes_mut(), 1, width);
        Ok(())
    }

    fn point(&self, [x, y]: [f32; 2], [_, width]: [usize; 2]) -> [f32; 2] {
        [width as f32 - x, y]
    }
}

impl Geometry for VerticalFlip {
    fn output_size(&self, size: [usize; 2]) -> [usize; 2] {
        size
    }

    fn image(&self, image: &mut Image) -> Result<()> {
        let [channels, height, width] = image.shape();
        match &mut image.pixels {
            Pixels::Bytes(values) => exchange_rows(values, height, channels * width),
            Pixels::Floats(values) => exchange_rows(values, height, channels * width),
        }
        Ok(())
    }

    fn mask(&self, mask: &mut Mask) -> Result<()> {
        let [height, width] = mask.size();
        exchange_rows(mask.classes_mut(), height, width);
        Ok(())
    }

    fn point(&self, [x, y]: [f32; 2], [height, _]: [usize; 2]) -> [f32; 2] {
        [x, height as f32 - y]
    }
}

/// Reverses the pixels of each row.
fn reverse_rows<T>(values: &mut [T], channels: usize, width: usize) {
    let rows = values.chunks_exact_mut((channels * width).max(1));
    match channels {
        1 => rows.for_each(<[T]>::reverse),
        3 => rows.for_each(|row| row.as_chunks_mut::<3>().0.reverse()),
        _ => rows.for_each(|row| {
            // Reversing all values, and then those of each pixel, reverses the pixels.
            row.reverse();
            row.chunks_exact_mut(channels).for_each(<[T]>::reverse);
        }),
    }
}

/// Exchanges the first row and the last, and so on.
fn exchange_rows<T>(values: &mut [T], height: usize, row: usize) {
    let (upper, lower) = values.split_at_mut((height - height / 2) * row);
    let row = row.max(1);
    upper.chunks_exact_mut(row).zip(lower.chunks_exact_mut(row).rev()).for_each(|(a, b)| a.swap_with_slice(b));
}

/// Exchanges left and right with a probability (torchvision's `RandomHorizontalFlip`).
///
/// ```
/// use convnet::data::{DataLoader, Digits, RandomHorizontalFlip};
///
/// let loader = DataLoader::new(Digits::train(), 32).transform(RandomHorizontalFlip::new(0.5));
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`](crate::Error::Argument) for what is not a probability.
#[derive(Clone, Copy, Debug)]
pub struct RandomHorizontalFlip {
    chance: f64,
}

/// Exchanges top and bottom with a probability (torchvision's `RandomVerticalFlip`).
///
/// # Errors
/// Applying it gives [`Error::Argument`](crate::Error::Argument) for what is not a probability.
#[derive(Clone, Copy, Debug)]
pub struct RandomVerticalFlip {
    chance: f64,
}

impl RandomHorizontalFlip {
    /// Makes a flip with this probability.
    pub fn new(probability: f64) -> RandomHorizontalFlip {
        RandomHorizontalFlip { chance: probability }
    }
}

impl RandomVerticalFlip {
    /// Makes a flip with this probability.
    pub fn new(probability: f64) -> RandomVerticalFlip {
        RandomVerticalFlip { chance: probability }
    }
}

impl Geometric for RandomHorizontalFlip {
    fn draw(&self, _: [usize; 3], rng: &mut Rng) -> Result<Option<Box<dyn Geometry>>> {
        check_chance("random horizontal flip", self.chance)?;
        Ok(if rng.chance(self.chance) { Some(Box::new(HorizontalFlip)) } else { None })
    }
}

impl Geometric for RandomVerticalFlip {
    fn draw(&self, _: [usize; 3], rng: &mut Rng) -> Result<Option<Box<dyn Geometry>>> {
        check_chance("random vertical flip", self.chance)?;
        Ok(if rng.chance(self.chance) { Some(Box::new(VerticalFlip)) } else { None })
    }
}
