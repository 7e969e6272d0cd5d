//! Changes of geometry: one set of drawn numbers for the image and all that moves with it.

use crate::data::annotations::{Mask, Part, common_size};
use crate::data::{Image, Rng};
use crate::error::{Error, Result};

/// A change of geometry with fixed numbers, such as a crop at one place or a rotation by one angle.
///
/// [`apply_geometry`] applies it to all parts of a sample.
pub trait Geometry: Send + Sync {
    /// Returns the height and width of what becomes of an image of this height and width.
    fn output_size(&self, size: [usize; 2]) -> [usize; 2];

    /// Changes an image.
    ///
    /// # Errors
    /// When the numbers do not fit the image.
    fn image(&self, image: &mut Image) -> Result<()>;

    /// Changes a mask: as an image, but without interpolation, and filled with [`Mask::IGNORE`].
    ///
    /// # Errors
    /// When the numbers do not fit the mask.
    fn mask(&self, mask: &mut Mask) -> Result<()>;

    /// Returns where the point `[x, y]` of an image of this height and width goes.
    fn point(&self, point: [f32; 2], size: [usize; 2]) -> [f32; 2];
}

/// A transform that moves pixels: it draws a [`Geometry`] for each sample.
pub trait Geometric: Send + Sync {
    /// Draws the change for an image of this shape, `[C, H, W]`; `None` leaves the sample as it is.
    ///
    /// # Errors
    /// When the transform's arguments make no sense, or do not fit the image.
    fn draw(&self, shape: [usize; 3], rng: &mut Rng) -> Result<Option<Box<dyn Geometry>>>;
}

/// Applies a change of geometry to all parts of a sample. A box becomes the smallest one around its
/// four corners, limited to the image.
///
/// # Errors
/// When images and masks are of different sizes, or the change does not fit them.
pub fn apply_geometry(geometry: &dyn Geometry, parts: &mut [Part<'_>]) -> Result<()> {
    let size = common_size(parts)?;
    let [height, width] = geometry.output_size(size).map(|length| length as f32);
    for part in parts {
        match part {
            Part::Image(image) => geometry.image(image)?,
            Part::Mask(mask) => geometry.mask(mask)?,
            Part::KeyPoints(points) => points.0.iter_mut().for_each(|point| *point = geometry.point(*point, size)),
            Part::Boxes(boxes) => {
                for corners in &mut boxes.0 {
                    let [left, top, right, bottom] = *corners;
                    let moved = [[left, top], [right, top], [left, bottom], [right, bottom]].map(|corner| geometry.point(corner, size));
                    let bound = |axis: usize, end: f32| {
                        let all = moved.iter().map(|corner| corner[axis].clamp(0.0, end));
                        (all.clone().fold(end, f32::min), all.fold(0.0, f32::max))
                    };
                    let ((left, right), (top, bottom)) = (bound(0, width), bound(1, height));
                    *corners = [left, top, right, bottom];
                }
            }
        }
    }
    Ok(())
}

/// Draws a change for a sample and applies it to all parts.
pub(super) fn draw_and_apply(transform: &(impl Geometric + ?Sized), parts: &mut [Part<'_>], rng: &mut Rng) -> Result<()> {
    let channels = parts.iter().find_map(|part| match part {
        Part::Image(image) => Some(image.channels()),
        _ => None,
    });
    let [height, width] = common_size(parts)?;
    match transform.draw([channels.unwrap_or(1), height, width], rng)? {
        Some(geometry) => apply_geometry(&*geometry, parts),
        None => Ok(()),
    }
}

/// Several changes in turn.
pub(super) struct Chain(pub(super) Vec<Box<dyn Geometry>>);

impl Geometry for Chain {
    fn output_size(&self, size: [usize; 2]) -> [usize; 2] {
        self.0.iter().fold(size, |size, geometry| geometry.output_size(size))
    }

    fn image(&self, image: &mut Image) -> Result<()> {
        self.0.iter().try_for_each(|geometry| geometry.image(image))
    }

    fn mask(&self, mask: &mut Mask) -> Result<()> {
        self.0.iter().try_for_each(|geometry| geometry.mask(mask))
    }

    fn point(&self, point: [f32; 2], size: [usize; 2]) -> [f32; 2] {
        self.0.iter().fold((point, size), |(point, size), geometry| (geometry.point(point, size), geometry.output_size(size))).0
    }
}

/// Returns an error for what is not a probability.
pub(super) fn check_chance(what: &'static str, chance: f64) -> Result<()> {
    if (0.0..=1.0).contains(&chance) {
        return Ok(());
    }
    Err(Error::argument(what, format!("a probability is between 0 and 1, got {chance}")))
}
