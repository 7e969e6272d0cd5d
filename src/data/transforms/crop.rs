//! Windows of images: the central crop.

use super::fill::{Filled, fill_pixel, mask_pixel};
use super::{Deterministic, Geometric, Geometry};
use crate::data::annotations::{Mask, Part};
use crate::data::image::{redraw, try_filled};
use crate::data::{Image, Rng};
use crate::error::{Error, Result};

/// Cuts out the middle; where the image is smaller than that, black surrounds it (torchvision's
/// `CenterCrop`).
///
/// ```
/// use convnet::data::{CenterCrop, Image};
///
/// let mut image = Image::new(3, 256, 341)?;
/// image.apply(&CenterCrop::new([224, 224]))?;
/// assert_eq!(image.shape(), [3, 224, 224]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] when the size is empty, or more than memory can hold.
#[derive(Clone, Debug)]
pub struct CenterCrop {
    size: [usize; 2],
}

impl CenterCrop {
    /// Makes a crop of this height and width.
    pub fn new(size: [usize; 2]) -> CenterCrop {
        CenterCrop { size }
    }
}

impl Geometric for CenterCrop {
    fn draw(&self, [_, from_height, from_width]: [usize; 3], _: &mut Rng) -> Result<Option<Box<dyn Geometry>>> {
        Ok(Some(Box::new(self.window([from_height, from_width])?)))
    }
}

impl CenterCrop {
    fn window(&self, from: [usize; 2]) -> Result<Crop> {
        let [height, width] = self.size;
        if height == 0 || width == 0 {
            return Err(Error::argument("center crop", format!("cannot crop to {height}×{width}: height and width must be at least 1")));
        }
        Ok(Crop { top: centred(from[0], height), left: centred(from[1], width), height, width, fill: Vec::new() })
    }
}

impl Deterministic for CenterCrop {
    fn transform(&self, image: &mut Image) -> Result<()> {
        self.window(image.size())?.image(image)
    }
}

/// Returns where the middle part of a line begins; negative when it is longer than the line.
fn centred(from: usize, to: usize) -> isize {
    if to > from {
        return -(((to - from) / 2) as isize);
    }
    // Rounds as Python's `round`: half-way to the even number.
    let rest = from - to;
    let half = rest / 2;
    (half + (rest % 2) * (half % 2)) as isize
}

/// The part of an image in a window, which may reach beyond the image.
#[derive(Clone, Debug)]
pub(super) struct Crop {
    /// The window's first row; negative above the image.
    pub(super) top: isize,
    /// The window's first column; negative left of the image.
    pub(super) left: isize,
    pub(super) height: usize,
    pub(super) width: usize,
    /// The values outside of the image, in 255ths: one for each channel, one for all, or none for
    /// black.
    pub(super) fill: Vec<f32>,
}

impl Geometry for Crop {
    fn output_size(&self, _: [usize; 2]) -> [usize; 2] {
        [self.height, self.width]
    }

    fn image(&self, image: &mut Image) -> Result<()> {
        if self.top == 0 && self.left == 0 && image.size() == [self.height, self.width] {
            return Ok(());
        }
        let (shape, size) = ([image.channels(), self.height, self.width], image.size());
        redraw!(image, shape, old => self.window(old, size, &fill_pixel(&self.fill, shape[0])?)?);
        Ok(())
    }

    fn mask(&self, mask: &mut Mask) -> Result<()> {
        let (shape, size) = ([1, self.height, self.width], mask.size());
        let image = mask.image_mut();
        redraw!(image, shape, old => self.window(old, size, &mask_pixel())?);
        Ok(())
    }

    fn point(&self, [x, y]: [f32; 2], _: [usize; 2]) -> [f32; 2] {
        [x - self.left as f32, y - self.top as f32]
    }
}

impl Crop {
    fn window<T: Filled>(&self, old: &[T], [from_height, from_width]: [usize; 2], fill: &[T]) -> Result<Vec<T>> {
        let channels = fill.len();
        let blank = fill.first().copied().unwrap_or_default();
        // Sizes that memory cannot hold are refused first: the windows below would not fit numbers.
        let mut new = try_filled([channels, self.height, self.width], blank)?;
        let rows = shared(self.top, self.height, from_height);
        let columns = shared(self.left, self.width, from_width);
        if channels > 1 && fill.iter().any(|&value| value != blank) && (rows.len() < self.height || columns.len() < self.width) {
            new.chunks_exact_mut(channels).for_each(|pixel| pixel.copy_from_slice(fill));
        }
        let run = columns.len() * channels;
        for row in rows {
            let from_row = (self.top + row as isize) as usize;
            let from = (from_row * from_width + (self.left + columns.start as isize) as usize) * channels;
            let to = (row * self.width + columns.start) * channels;
            new[to..to + run].copy_from_slice(&old[from..from + run]);
        }
        Ok(new)
    }
}

/// Fills up the images and masks of a sample at the right and lower ends to this height and width;
/// `fill` is a number of 255ths.
pub(in crate::data) fn pad_to(parts: &mut [Part<'_>], [height, width]: [usize; 2], fill: f32) -> Result<()> {
    let crop = Crop { top: 0, left: 0, height, width, fill: vec![fill] };
    parts.iter_mut().try_for_each(|part| match part {
        Part::Image(image) => crop.image(image),
        Part::Mask(mask) => crop.mask(mask),
        Part::Boxes(_) | Part::KeyPoints(_) => Ok(()),
    })
}

/// Returns which positions of a window over a line are on the line.
fn shared(start: isize, length: usize, line: usize) -> std::ops::Range<usize> {
    let length = length.min(isize::MAX as usize);
    let before = start.min(0).unsigned_abs().min(length);
    let end = (line as isize).saturating_sub(start).clamp(before as isize, length as isize) as usize;
    before..end
}
