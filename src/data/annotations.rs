//! What stands beside an image in a sample and moves with it: masks, boxes, key points.

use super::image::Image;
use crate::error::{Error, Result};

/// A class for each pixel of an image, as a byte. Class 255 is the field's mark for pixels that do
/// not count; transforms fill with it what they bring in from outside of the image.
#[derive(Clone, Debug)]
pub struct Mask(Image);

impl Mask {
    /// The class of pixels that do not count.
    pub const IGNORE: u8 = 255;

    /// Makes a mask of this height and width from classes, row by row.
    ///
    /// # Errors
    /// [`Error::Shape`] when there is not one class for each pixel.
    pub fn new([height, width]: [usize; 2], classes: Vec<u8>) -> Result<Mask> {
        Image::from_bytes([1, height, width], classes).map(Mask)
    }

    /// Takes the bytes of an image of one channel as classes.
    ///
    /// # Errors
    /// [`Error::Argument`] for an image of several channels, or one that is not of bytes.
    pub fn from_image(image: Image) -> Result<Mask> {
        if image.channels() == 1 && image.is_bytes() {
            return Ok(Mask(image));
        }
        let kind = if image.is_bytes() { "bytes" } else { "f32" };
        Err(Error::argument("mask", format!("takes an image of one channel of bytes, got {:?} of {kind}", image.shape())))
    }

    /// Returns `[H, W]`.
    pub fn size(&self) -> [usize; 2] {
        self.0.size()
    }

    /// Returns the classes, row by row.
    pub fn classes(&self) -> &[u8] {
        self.0.bytes().expect("a mask holds bytes")
    }

    /// Returns the classes, row by row, for writing.
    pub fn classes_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut().expect("a mask holds bytes")
    }

    /// Returns the classes as an image of one channel of bytes, for geometry.
    pub(super) fn image_mut(&mut self) -> &mut Image {
        &mut self.0
    }
}

/// Boxes in an image: left, top, right, bottom of each, in pixels. The top left corner of the image
/// is `[0, 0]`; right and bottom are outside of the box.
///
/// Geometric transforms limit boxes to the image. None is removed, so that they stay in line with
/// their labels: a box outside of a crop has no area afterwards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Boxes(pub Vec<[f32; 4]>);

/// Key points in an image: x and y of each, in pixels from the top left corner of the image, so
/// that the centre of the first pixel is `[0.5, 0.5]`. Points may be outside of the image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyPoints(pub Vec<[f32; 2]>);

/// A part of a sample that transforms change.
#[derive(Debug)]
pub enum Part<'a> {
    /// An image: all transforms change it.
    Image(&'a mut Image),
    /// A mask: moves with the images of its sample, without interpolation.
    Mask(&'a mut Mask),
    /// Boxes: move with the images of their sample.
    Boxes(&'a mut Boxes),
    /// Key points: move with the images of their sample.
    KeyPoints(&'a mut KeyPoints),
}

impl Part<'_> {
    /// Returns the height and width of an image or a mask.
    pub fn size(&self) -> Option<[usize; 2]> {
        match self {
            Part::Image(image) => Some(image.size()),
            Part::Mask(mask) => Some(mask.size()),
            Part::Boxes(_) | Part::KeyPoints(_) => None,
        }
    }
}

impl Part<'_> {
    /// Returns the bytes of memory that the part points to.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Part::Image(image) => image.bytes_in_memory(),
            Part::Mask(mask) => mask.0.bytes_in_memory(),
            Part::Boxes(boxes) => size_of_val(&boxes.0[..]),
            Part::KeyPoints(points) => size_of_val(&points.0[..]),
        }
    }
}

/// Returns the height and width that all images and masks of a sample have.
///
/// # Errors
/// [`Error::Argument`] when they differ, or there are none.
pub(super) fn common_size(parts: &[Part<'_>]) -> Result<[usize; 2]> {
    let mut sizes = parts.iter().filter_map(Part::size);
    let Some(size) = sizes.next() else {
        return Err(Error::argument("transform", "boxes and key points need the image that they are in"));
    };
    match sizes.find(|&other| other != size) {
        Some([height, width]) => {
            let message = format!("the images and masks of a sample must have one size, got {}×{} and {height}×{width}", size[0], size[1]);
            Err(Error::argument("transform", message))
        }
        None => Ok(size),
    }
}
