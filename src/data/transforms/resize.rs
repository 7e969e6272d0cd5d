//! Scaling with antialiasing, as Pillow does it.

use super::scale::Scale;
use super::{Deterministic, Geometric, Geometry};
use crate::data::annotations::Mask;
use crate::data::image::{resample, try_reserved};
use crate::data::{Image, Rng};
use crate::error::{Error, Result};
use crate::tensor::Pair;

/// The filter by which [`Resize`] and other transforms weight pixels; tensors are resized by
/// [`Tensor::interpolate`](crate::Tensor::interpolate).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResizeFilter {
    /// The pixel that the centre of the new one is in.
    Nearest,
    /// A triangle.
    #[default]
    Bilinear,
    /// Keys' cubic with a = -1/2, which sharpens.
    Bicubic,
}

impl ResizeFilter {
    /// Returns the radius of the filter.
    pub(super) fn support(self) -> f64 {
        match self {
            ResizeFilter::Nearest => 0.5,
            ResizeFilter::Bilinear => 1.0,
            ResizeFilter::Bicubic => 2.0,
        }
    }

    pub(super) fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            ResizeFilter::Nearest => f64::from(u8::from(x <= 0.5)),
            ResizeFilter::Bilinear => (1.0 - x).max(0.0),
            ResizeFilter::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            ResizeFilter::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            ResizeFilter::Bicubic => 0.0,
        }
    }
}

/// Scales an image with antialiasing: when it becomes smaller, each pixel is a weighted mean of all
/// the pixels it covers (torchvision's `Resize(size, antialias=True)`).
///
/// Values are those of Pillow 13, to the bit: for an [image of bytes](Image::is_bytes) those of its
/// images of bytes, which is what torchvision's transforms give for PIL images; for others those of
/// its images of floats (mode `F`), which are not rounded to bytes. As in Pillow 13, columns are
/// scaled before rows where the height shrinks by more pixels than twice what the width shrinks by;
/// rounding in between makes the order visible.
///
/// ```
/// use convnet::data::{Image, Resize, ResizeFilter};
///
/// let mut image = Image::new(3, 480, 640)?;
/// image.apply(&Resize::shorter(256))?;
/// assert_eq!(image.shape(), [3, 256, 341]);
/// image.apply(&Resize::new([32, 32]).interpolation(ResizeFilter::Bicubic))?;
/// assert_eq!(image.shape(), [3, 32, 32]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] when either size, or the image, is empty, or when the
/// shorter side of a very thin image would make the longer one too long.
#[derive(Clone, Debug)]
pub struct Resize {
    size: Size,
    max_size: Option<usize>,
    interpolation: ResizeFilter,
}

#[derive(Clone, Copy, Debug)]
enum Size {
    Exact([usize; 2]),
    Shorter(usize),
}

/// The most pixels that a thin image may become: scaled to a given width, an image of one column
/// and sixteen million rows would take gigabytes.
const LARGEST: usize = 1 << 24;

impl Resize {
    /// Makes a resize to this height and width.
    pub fn new(size: impl Into<Pair>) -> Resize {
        Resize { size: Size::Exact(size.into().0), max_size: None, interpolation: ResizeFilter::default() }
    }

    /// Makes a resize of the shorter side to this length, the other in proportion (rounded down):
    /// torchvision's `Resize(256)`.
    pub fn shorter(length: usize) -> Resize {
        Resize { size: Size::Shorter(length), max_size: None, interpolation: ResizeFilter::default() }
    }

    /// Sets the most pixels that the longer side may get with [`shorter`](Resize::shorter): where
    /// it would get more, it gets these, and the shorter side less in proportion.
    pub fn max_size(mut self, longer: usize) -> Resize {
        self.max_size = Some(longer);
        self
    }

    /// Sets how pixels are weighted; bilinear by default.
    pub fn interpolation(mut self, interpolation: ResizeFilter) -> Resize {
        self.interpolation = interpolation;
        self
    }
}

impl Size {
    fn of(self, height: usize, width: usize) -> [usize; 2] {
        match self {
            Size::Exact(size) => size,
            Size::Shorter(length) => {
                let scaled = |long: usize, short: usize| (length as u128 * long as u128 / short.max(1) as u128) as usize;
                if width <= height { [scaled(height, width), length] } else { [length, scaled(width, height)] }
            }
        }
    }
}

impl Geometric for Resize {
    fn draw(&self, [_, height, width]: [usize; 3], _: &mut Rng) -> Result<Option<Box<dyn Geometry>>> {
        Ok(Some(Box::new(self.scale([height, width])?)))
    }
}

impl Resize {
    fn scale(&self, from: [usize; 2]) -> Result<ScaleTo> {
        let mut size = self.size.of(from[0], from[1]);
        if let Some(limit) = self.max_size {
            size = self.limited(size, limit)?;
        }
        // The order of the passes keeps the intermediate image below the larger of both sizes.
        if matches!(self.size, Size::Shorter(_)) && size[0].saturating_mul(size[1]) > LARGEST.max(from[0] * from[1]) {
            return Err(refused(from, size, ": it is too thin"));
        }
        Ok(ScaleTo { size, filter: self.interpolation })
    }

    /// Limits the longer side.
    fn limited(&self, size: [usize; 2], limit: usize) -> Result<[usize; 2]> {
        let Size::Shorter(length) = self.size else {
            return Err(Error::argument("resize", "max_size limits Resize::shorter; Resize::new sets both sides already"));
        };
        if limit <= length {
            let message = format!("max_size = {limit} must be greater than the length of the shorter side, {length}");
            return Err(Error::argument("resize", message));
        }
        let side = |of: usize, longer: usize| if of == longer { limit } else { (limit as u128 * of as u128 / longer as u128) as usize };
        let longer = size[0].max(size[1]);
        Ok(if longer > limit { size.map(|of| side(of, longer)) } else { size })
    }
}

impl Deterministic for Resize {
    fn transform(&self, image: &mut Image) -> Result<()> {
        self.scale(image.size())?.image(image)
    }
}

fn refused(from: [usize; 2], to: [usize; 2], why: &str) -> Error {
    let message = format!("cannot scale an image of {}×{} pixels to {}×{}{why}", from[0], from[1], to[0], to[1]);
    Error::argument("resize", message)
}

/// A change of the whole image to one height and width.
pub(super) struct ScaleTo {
    pub(super) size: [usize; 2],
    pub(super) filter: ResizeFilter,
}

impl Geometry for ScaleTo {
    fn output_size(&self, _: [usize; 2]) -> [usize; 2] {
        self.size
    }

    fn image(&self, image: &mut Image) -> Result<()> {
        if self.size == image.size() && !self.size.contains(&0) {
            return Ok(());
        }
        self.scale_part(image, [0, 0], image.size())
    }

    fn mask(&self, mask: &mut Mask) -> Result<()> {
        self.scale_part_of_mask(mask, [0, 0], mask.size())
    }

    fn point(&self, [x, y]: [f32; 2], [height, width]: [usize; 2]) -> [f32; 2] {
        [x * self.size[1] as f32 / width as f32, y * self.size[0] as f32 / height as f32]
    }
}

impl ScaleTo {
    /// Replaces an image by a scaled window of it.
    pub(super) fn scale_part(&self, image: &mut Image, at: [usize; 2], from: [usize; 2]) -> Result<()> {
        let (channels, [height, width]) = (image.channels(), self.size);
        if [height, width, channels, from[0], from[1]].contains(&0) {
            return Err(refused(from, self.size, ""));
        }
        // Neither pass makes an image larger than the larger one of both.
        drop(try_reserved::<f32>([channels, height, width])?);
        let scale = Scale { channels, at, from, width: image.width(), to: self.size, interpolation: self.filter };
        resample!(image, [channels, height, width], old => scale.apply(old));
        Ok(())
    }

    /// Replaces a mask by a scaled window of it: each pixel is one of the window.
    pub(super) fn scale_part_of_mask(&self, mask: &mut Mask, at: [usize; 2], from: [usize; 2]) -> Result<()> {
        let nearest = ScaleTo { size: self.size, filter: ResizeFilter::Nearest };
        nearest.scale_part(mask.image_mut(), at, from)
    }
}
