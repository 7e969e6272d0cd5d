//! Windows of images: crops at given places, in the middle, and in the corners.

use super::fill::{Fill, Filled, mask_pixel};
use super::flip::{HorizontalFlip, VerticalFlip};
use super::pad::PaddingMode;
use super::{Deterministic, Geometric, Geometry};
use crate::data::annotations::{Mask, Part};
use crate::data::image::{Pixels, try_filled};
use crate::data::{Image, Rng};
use crate::error::{Error, Result};
use crate::tensor::Pair;

/// Cuts out the middle; where the image is smaller than that, black surrounds it (torchvision's
/// `CenterCrop`).
///
/// ```
/// use convnet::data::{CenterCrop, Image};
///
/// let mut image = Image::new(3, 256, 341)?;
/// image.apply(&CenterCrop::new(224))?;
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
    pub fn new(size: impl Into<Pair>) -> CenterCrop {
        CenterCrop { size: size.into().0 }
    }
}

impl Geometric for CenterCrop {
    fn draw(&self, [_, from_height, from_width]: [usize; 3], _: &mut Rng) -> Result<Option<Box<dyn Geometry>>> {
        Ok(Some(Box::new(self.window([from_height, from_width])?)))
    }
}

impl CenterCrop {
    fn window(&self, from: [usize; 2]) -> Result<Crop> {
        let size = refuse_empty("center crop", self.size)?;
        Ok(Crop::new(centred(from[0], size[0]), centred(from[1], size[1]), size))
    }
}

impl Deterministic for CenterCrop {
    fn transform(&self, image: &mut Image) -> Result<()> {
        self.window(image.size())?.image(image)
    }
}

/// Returns the size of a crop, or an error when it is empty.
pub(super) fn refuse_empty(what: &'static str, [height, width]: [usize; 2]) -> Result<[usize; 2]> {
    if height == 0 || width == 0 {
        return Err(Error::argument(what, format!("cannot crop to {height}×{width}: height and width must be at least 1")));
    }
    Ok([height, width])
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

/// Cuts out a window at a given place, which may reach beyond the image (torchvision's `crop`).
///
/// ```
/// use convnet::data::{Crop, Image};
///
/// let mut image = Image::from_bytes([1, 2, 2], vec![1, 2, 3, 4])?;
/// image.apply(&Crop::new(1, -1, [1, 2]))?; // the second row, from one column left of the image
/// assert_eq!(image.bytes(), Some(&[0, 3][..]));
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] when the window is empty or more than memory can hold, or
/// the fill does not fit the channels.
#[derive(Clone, Debug)]
pub struct Crop {
    top: isize,
    left: isize,
    size: [usize; 2],
    fill: Fill,
    mode: PaddingMode,
}

impl Crop {
    /// Makes a crop of this height and width whose top left pixel is in this row and column of the
    /// image; negative ones are above and left of it.
    pub fn new(top: isize, left: isize, size: impl Into<Pair>) -> Crop {
        Crop { top, left, size: size.into().0, fill: Fill::default(), mode: PaddingMode::Constant }
    }

    /// Sets the values outside of the image.
    pub fn fill(mut self, fill: impl Into<Fill>) -> Crop {
        self.fill = fill.into();
        self
    }

    /// Sets what is outside of the image; the constant fill by default.
    pub fn padding_mode(mut self, mode: PaddingMode) -> Crop {
        self.mode = mode;
        self
    }
}

impl Geometry for Crop {
    fn output_size(&self, _: [usize; 2]) -> [usize; 2] {
        self.size
    }

    fn image(&self, image: &mut Image) -> Result<()> {
        refuse_empty("crop", self.size)?;
        if self.top == 0 && self.left == 0 && image.size() == self.size {
            return Ok(());
        }
        *image = self.cut(image)?;
        Ok(())
    }

    fn mask(&self, mask: &mut Mask) -> Result<()> {
        refuse_empty("crop", self.size)?;
        let classes = self.window(mask.classes(), mask.size(), &mask_pixel())?;
        *mask = Mask::new(self.size, classes)?;
        Ok(())
    }

    fn point(&self, [x, y]: [f32; 2], _: [usize; 2]) -> [f32; 2] {
        [x - self.left as f32, y - self.top as f32]
    }
}

impl Crop {
    /// Returns the window of an image.
    fn cut(&self, image: &Image) -> Result<Image> {
        let ([channels, ..], [height, width]) = (image.shape(), self.size);
        let shape = [channels, height, width];
        match &image.pixels {
            Pixels::Bytes(old) => Image::from_values(shape, self.window(old, image.size(), &self.fill.pixel(channels)?)?),
            Pixels::Floats(old) => Image::from_values(shape, self.window(old, image.size(), &self.fill.pixel(channels)?)?),
        }
    }

    fn window<T: Filled>(&self, old: &[T], [from_height, from_width]: [usize; 2], fill: &[T]) -> Result<Vec<T>> {
        let (channels, [height, width]) = (fill.len(), self.size);
        let blank = fill.first().copied().unwrap_or_default();
        // Sizes that memory cannot hold are refused first: the windows below would not fit numbers.
        let mut new = try_filled([channels, height, width], blank)?;
        let (rows, columns) = (shared(self.top, height, from_height), shared(self.left, width, from_width));
        let inside = rows.len() == height && columns.len() == width;
        if self.mode != PaddingMode::Constant && !inside {
            self.mode.check([from_height, from_width])?;
            let at = |start: isize, i: usize, line: usize| self.mode.position(start.saturating_add_unsigned(i), line);
            for (row, out) in new.chunks_exact_mut((width * channels).max(1)).enumerate() {
                let from_row = &old[at(self.top, row, from_height) * from_width * channels..][..from_width * channels];
                let run = columns.len() * channels;
                let from = (self.left + columns.start as isize).max(0) as usize * channels;
                out[columns.start * channels..][..run].copy_from_slice(&from_row[from.min(from_row.len() - run)..][..run]);
                for column in (0..columns.start).chain(columns.end..width) {
                    let from = at(self.left, column, from_width) * channels;
                    out[column * channels..][..channels].copy_from_slice(&from_row[from..][..channels]);
                }
            }
            return Ok(new);
        }
        if !inside && fill.iter().any(|&value| value != blank) {
            new.chunks_exact_mut(channels).for_each(|pixel| pixel.copy_from_slice(fill));
        }
        let run = columns.len() * channels;
        for row in rows {
            let from_row = (self.top + row as isize) as usize;
            let from = (from_row * from_width + (self.left + columns.start as isize) as usize) * channels;
            let to = (row * width + columns.start) * channels;
            new[to..to + run].copy_from_slice(&old[from..from + run]);
        }
        Ok(new)
    }
}

/// Fills up the images and masks of a sample at the right and lower ends to this height and width;
/// `fill` is a number of 255ths.
pub(in crate::data) fn pad_to(parts: &mut [Part<'_>], size: [usize; 2], fill: f32) -> Result<()> {
    let crop = Crop::new(0, 0, size).fill(fill);
    parts.iter_mut().try_for_each(|part| match part {
        Part::Image(image) => crop.image(image),
        Part::Mask(mask) => crop.mask(mask),
        Part::Boxes(_) | Part::KeyPoints(_) => Ok(()),
    })
}

/// Returns which positions of a window over a line are on the line.
fn shared(start: isize, length: usize, line: usize) -> std::ops::Range<usize> {
    let before = start.min(0).unsigned_abs().min(length);
    let end = (line as isize).saturating_sub(start).clamp(before as isize, length as isize) as usize;
    before..end
}

/// Cuts out the four corners and the middle: top left, top right, bottom left, bottom right, centre
/// (torchvision's `FiveCrop`).
///
/// ```
/// use convnet::data::{Image, five_crop};
///
/// let image = Image::from_bytes([1, 3, 3], (0..9).collect())?;
/// let crops = five_crop(&image, 1)?;
/// assert_eq!(crops.map(|crop| crop.bytes().unwrap()[0]), [0, 2, 6, 8, 4]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// In a dataset, [`map`](crate::data::Dataset::map) makes a sample of the crops; the loader's
/// transforms change each of them. A prediction is the mean over the crops:
///
/// ```
/// use convnet::data::{DataLoader, Dataset, Digits, Normalize, five_crop};
/// use convnet::prelude::*;
///
/// let crops = Digits::test().map(|(image, label), _| Ok((five_crop(&image, 6)?.to_vec(), label)));
/// let (images, labels) = DataLoader::new(crops, 4).transform(Normalize::new([0.3], [0.35])).epoch(0).next().expect("a batch")?;
/// assert_eq!((images.shape(), labels.shape()), (&[4, 5, 1, 6, 6][..], &[4][..]));
///
/// let model = Sequential::new().push(Flatten).push(Linear::new(36, 10));
/// let logits = model.forward(&images.flatten(0, 1)?)?.reshape([4, 5, 10])?.mean(1)?;
/// assert_eq!(logits.shape(), [4, 10]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// [`Error::Argument`] when the size is empty or larger than the image.
pub fn five_crop(image: &Image, size: impl Into<Pair>) -> Result<[Image; 5]> {
    let ([height, width], size) = (image.size(), refuse_empty("five crop", size.into().0)?);
    if size[0] > height || size[1] > width {
        let message = format!("crops of {}×{} are larger than the image of {height}×{width}; resize it first", size[0], size[1]);
        return Err(Error::argument("five crop", message));
    }
    let (bottom, right) = ((height - size[0]) as isize, (width - size[1]) as isize);
    let cut = |top, left| Crop::new(top, left, size).cut(image);
    let centre = cut(centred(height, size[0]), centred(width, size[1]))?;
    Ok([cut(0, 0)?, cut(0, right)?, cut(bottom, 0)?, cut(bottom, right)?, centre])
}

/// Cuts out five parts as [`five_crop`] does, and the same ones of the image that is flipped, left
/// to right or upside down (torchvision's `TenCrop`).
///
/// # Errors
/// [`Error::Argument`] when the size is empty or larger than the image.
pub fn ten_crop(image: &Image, size: impl Into<Pair>, vertical_flip: bool) -> Result<[Image; 10]> {
    let size = size.into();
    let [a, b, c, d, e] = five_crop(image, size)?;
    let mut flipped = image.clone();
    if vertical_flip {
        flipped.apply(&VerticalFlip)?;
    } else {
        flipped.apply(&HorizontalFlip)?;
    }
    let [f, g, h, i, j] = five_crop(&flipped, size)?;
    Ok([a, b, c, d, e, f, g, h, i, j])
}
