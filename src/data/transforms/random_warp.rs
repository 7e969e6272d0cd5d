//! Random rotations, affine changes and perspectives.

use super::fill::Fill;
use super::geometry::check_chance;
use super::warp::{Affine, Look, Perspective, Planned, Rotate, look_methods};
use super::{Geometric, Geometry, ResizeFilter};
use crate::data::Rng;
use crate::error::{Error, Result};

/// A range of angles in degrees: one number `d` for `[-d, d]`, or both ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Degrees([f64; 2]);

impl From<f64> for Degrees {
    fn from(degrees: f64) -> Degrees {
        Degrees([-degrees, degrees])
    }
}

impl From<[f64; 2]> for Degrees {
    fn from(range: [f64; 2]) -> Degrees {
        Degrees(range)
    }
}

impl Degrees {
    fn draw(self, what: &'static str, rng: &mut Rng) -> Result<f64> {
        let [low, high] = check_range(what, "a range of angles", self.0)?;
        Ok(rng.uniform(low, high))
    }
}

fn check_range(what: &'static str, of: &str, [low, high]: [f64; 2]) -> Result<[f64; 2]> {
    if low.is_finite() && high.is_finite() && low <= high {
        return Ok([low, high]);
    }
    Err(Error::argument(what, format!("{of} goes from a smaller to a larger number, got [{low}, {high}]")))
}

/// Rotates by a random angle (torchvision's `RandomRotation`): uniform in a range, or one of a
/// list.
///
/// ```
/// use convnet::data::{RandomRotation, ResizeFilter};
///
/// let slight = RandomRotation::new(15.0).interpolation(ResizeFilter::Bilinear);
/// let quarters = RandomRotation::of([0, 90, 180, 270]);
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] for a range that is not one, an empty list, and the errors
/// of [`Rotate`].
#[derive(Clone, Debug)]
pub struct RandomRotation {
    angles: Angles,
    expand: bool,
    center: Option<[f64; 2]>,
    look: Look,
}

#[derive(Clone, Debug)]
enum Angles {
    Between(Degrees),
    Of(Vec<f64>),
}

impl RandomRotation {
    fn with(angles: Angles) -> RandomRotation {
        RandomRotation { angles, expand: false, center: None, look: Look::new(ResizeFilter::Nearest) }
    }

    /// Makes a rotation by at most this angle in both directions, or by one between two angles.
    pub fn new(degrees: impl Into<Degrees>) -> RandomRotation {
        RandomRotation::with(Angles::Between(degrees.into()))
    }

    /// Makes a rotation by one of these angles in degrees.
    pub fn of(angles: impl IntoIterator<Item = impl Into<f64>>) -> RandomRotation {
        RandomRotation::with(Angles::Of(angles.into_iter().map(Into::into).collect()))
    }

    /// Makes the result large enough for the whole rotated image.
    pub fn expand(mut self, expand: bool) -> RandomRotation {
        self.expand = expand;
        self
    }

    /// Sets the point `[x, y]` that stays in place; the centre by default.
    pub fn center(mut self, center: [f64; 2]) -> RandomRotation {
        self.center = Some(center);
        self
    }
}

impl Geometric for RandomRotation {
    fn draw(&self, [_, height, width]: [usize; 3], rng: &mut Rng) -> Result<Option<Box<dyn Geometry>>> {
        let degrees = match &self.angles {
            Angles::Between(range) => range.draw("random rotation", rng)?,
            Angles::Of(angles) if angles.is_empty() => {
                return Err(Error::argument("random rotation", "takes at least one angle, got none"));
            }
            Angles::Of(angles) => angles[rng.below(angles.len())],
        };
        let mut rotate = Rotate::by(degrees).expand(self.expand).interpolation(self.look.filter).fill(self.look.fill.clone());
        if let Some(center) = self.center {
            rotate = rotate.center(center);
        }
        rotate.plan([height, width])?;
        Ok(Some(Box::new(rotate)))
    }
}

/// Rotates, moves, scales and shears at random about the centre (torchvision's `RandomAffine`).
///
/// ```
/// use convnet::data::RandomAffine;
///
/// let affine = RandomAffine::new(10.0).translate([0.1, 0.1]).scale([0.9, 1.1]).shear(5.0);
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] for ranges that are not, parts of a side for `translate`
/// that are not between 0 and 1, scales that are not positive, and the errors of [`Affine`].
#[derive(Clone, Debug)]
pub struct RandomAffine {
    degrees: Degrees,
    translate: Option<[f64; 2]>,
    scale: Option<[f64; 2]>,
    shear: [Option<Degrees>; 2],
    center: Option<[f64; 2]>,
    look: Look,
}

impl RandomAffine {
    /// Makes a change with a rotation by at most this angle in both directions, or by one between
    /// two angles.
    pub fn new(degrees: impl Into<Degrees>) -> RandomAffine {
        RandomAffine {
            degrees: degrees.into(),
            translate: None,
            scale: None,
            shear: [None, None],
            center: None,
            look: Look::new(ResizeFilter::Nearest),
        }
    }

    /// Sets the largest move along x and y, as parts of the image's width and height.
    pub fn translate(mut self, parts: [f64; 2]) -> RandomAffine {
        self.translate = Some(parts);
        self
    }

    /// Sets the smallest and the largest factor.
    pub fn scale(mut self, factors: [f64; 2]) -> RandomAffine {
        self.scale = Some(factors);
        self
    }

    /// Sets the range of angles of the shear along x.
    pub fn shear(mut self, degrees: impl Into<Degrees>) -> RandomAffine {
        self.shear[0] = Some(degrees.into());
        self
    }

    /// Sets the range of angles of the shear along y.
    pub fn shear_y(mut self, degrees: impl Into<Degrees>) -> RandomAffine {
        self.shear[1] = Some(degrees.into());
        self
    }

    /// Sets the point `[x, y]` about which the image turns; the centre by default.
    pub fn center(mut self, center: [f64; 2]) -> RandomAffine {
        self.center = Some(center);
        self
    }
}

impl Geometric for RandomAffine {
    fn draw(&self, [_, height, width]: [usize; 3], rng: &mut Rng) -> Result<Option<Box<dyn Geometry>>> {
        const WHAT: &str = "random affine";
        let mut affine = Affine::new().interpolation(self.look.filter).fill(self.look.fill.clone());
        affine = affine.rotate(self.degrees.draw(WHAT, rng)?);
        if let Some(parts) = self.translate {
            if let Some(part) = parts.iter().find(|part| !(0.0..=1.0).contains(*part)) {
                return Err(Error::argument(WHAT, format!("translate takes parts of the image between 0 and 1, got {part}")));
            }
            let mut pixels = |part: f64, side: usize| rng.uniform(-part * side as f64, part * side as f64).round_ties_even();
            affine = affine.translate([pixels(parts[0], width), pixels(parts[1], height)]);
        }
        if let Some(factors) = self.scale {
            let [low, high] = check_range(WHAT, "a range of scales", factors)?;
            affine = affine.scale(rng.uniform(low, high));
        }
        let mut shear = [0.0; 2];
        for (angle, range) in shear.iter_mut().zip(self.shear) {
            if let Some(range) = range {
                *angle = range.draw(WHAT, rng)?;
            }
        }
        affine = affine.shear(shear);
        if let Some(center) = self.center {
            affine = affine.center(center);
        }
        affine.plan([height, width])?;
        Ok(Some(Box::new(affine)))
    }
}

/// Moves the corners of the image inwards at random, with a probability (torchvision's
/// `RandomPerspective`).
///
/// ```
/// use convnet::data::RandomPerspective;
///
/// let perspective = RandomPerspective::new(0.5).distortion_scale(0.3);
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] when the probability or the distortion is not between 0
/// and 1, and for a fill that does not fit the channels.
#[derive(Clone, Debug)]
pub struct RandomPerspective {
    chance: f64,
    distortion: f64,
    look: Look,
}

impl RandomPerspective {
    /// Makes a change with this probability.
    pub fn new(probability: f64) -> RandomPerspective {
        RandomPerspective { chance: probability, distortion: 0.5, look: Look::new(ResizeFilter::Bilinear) }
    }

    /// Sets the part of half the image by which corners move at most; 0.5 by default.
    pub fn distortion_scale(mut self, scale: f64) -> RandomPerspective {
        self.distortion = scale;
        self
    }
}

impl Geometric for RandomPerspective {
    fn draw(&self, [_, height, width]: [usize; 3], rng: &mut Rng) -> Result<Option<Box<dyn Geometry>>> {
        check_chance("random perspective", self.chance)?;
        if !(0.0..=1.0).contains(&self.distortion) {
            let message = format!("distortion_scale is between 0 and 1, got {}", self.distortion);
            return Err(Error::argument("random perspective", message));
        }
        // Fewer than two rows or columns have no four corners.
        if !rng.chance(self.chance) || height < 2 || width < 2 {
            return Ok(None);
        }
        let (right, bottom) = ((width - 1) as f64, (height - 1) as f64);
        let start = [[0.0, 0.0], [right, 0.0], [right, bottom], [0.0, bottom]];
        let mut inwards = |side: usize| rng.below((self.distortion * (side / 2) as f64) as usize + 1) as f64;
        let end = start.map(|[x, y]| [(x - inwards(width)).abs(), (y - inwards(height)).abs()]);
        let perspective = Perspective::new(start, end).interpolation(self.look.filter).fill(self.look.fill.clone());
        // Corners that meet in a small image make no picture.
        Ok(match perspective.plan([height, width]) {
            Ok(_) => Some(Box::new(perspective)),
            Err(_) => None,
        })
    }
}

look_methods!(RandomRotation, RandomAffine, RandomPerspective);
