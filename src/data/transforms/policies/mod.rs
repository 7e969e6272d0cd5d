//! Augmentation by policies: random chains of changes of colours and geometry.

mod aug_mix;
mod auto_augment;

pub use aug_mix::AugMix;
pub use auto_augment::{AutoAugment, AutoAugmentPolicy};

use super::{Affine, Autocontrast, Deterministic, Fill, Geometry, ResizeFilter, Saturation, Transform, apply_geometry};
use crate::data::annotations::{Part, common_size};
use crate::data::{Image, Rng};
use crate::error::{Error, Result};

/// The most changes that a policy may apply to an image one after the other.
const MOST: usize = 256;

/// A kind of change; its magnitude is what the comments say.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    Identity,
    /// The pixels by which a row moves against the one above.
    ShearX,
    /// The pixels by which a column moves against the one to its left.
    ShearY,
    /// Pixels.
    TranslateX,
    /// Pixels.
    TranslateY,
    /// Degrees.
    Rotate,
    /// The factor less 1.
    Brightness,
    /// The factor less 1.
    Color,
    /// The factor less 1.
    Contrast,
    /// The factor less 1.
    Sharpness,
    /// Bits.
    Posterize,
    /// The threshold, in 255ths.
    Solarize,
    AutoContrast,
    Equalize,
    Invert,
}

use Op::*;

/// The changes of a RandAugment or a TrivialAugment, which start with what changes nothing.
const ALL: [Op; 14] = [
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
];

/// The largest magnitudes of a policy.
#[derive(Clone, Copy, Debug)]
struct Space {
    shear: f32,
    /// Pixels along x and y.
    translate: [f64; 2],
    degrees: f32,
    factor: f32,
    /// Bits at the smallest magnitude, and how many fewer at the largest.
    bits: [f32; 2],
}

impl Space {
    /// Returns the magnitude of a change at one of `bins` steps.
    fn magnitude(&self, op: Op, bin: usize, bins: usize) -> f64 {
        let up_to = |end: f32| linspace(0.0, end, bin, bins);
        f64::from(match op {
            ShearX | ShearY => up_to(self.shear),
            TranslateX => up_to(self.translate[0] as f32),
            TranslateY => up_to(self.translate[1] as f32),
            Rotate => up_to(self.degrees),
            Brightness | Color | Contrast | Sharpness => up_to(self.factor),
            Posterize => self.bits[0] - (bin as f32 / ((bins - 1) as f32 / self.bits[1])).round_ties_even(),
            Solarize => linspace(255.0, 0.0, bin, bins),
            Identity | AutoContrast | Equalize | Invert => 0.0,
        })
    }

    fn wide() -> Space {
        Space { shear: 0.99, translate: [32.0; 2], degrees: 135.0, factor: 0.99, bits: [8.0, 6.0] }
    }

    fn relative([height, width]: [usize; 2], part: f64) -> Space {
        Space { shear: 0.3, translate: [part * width as f64, part * height as f64], degrees: 30.0, factor: 0.9, bits: [8.0, 4.0] }
    }
}

/// Returns a number of a row of equal steps, rounded as PyTorch's.
fn linspace(start: f32, end: f32, index: usize, count: usize) -> f32 {
    let step = f64::from((end - start) / (count - 1) as f32);
    let sum = |from: f32, steps: usize, step: f64| (f64::from(from) + step * steps as f64) as f32;
    if index < count / 2 { sum(start, index, step) } else { sum(end, count - 1 - index, -step) }
}

impl Op {
    /// Returns whether the magnitude may be negative.
    fn signed(self) -> bool {
        !matches!(self, Identity | Posterize | Solarize | AutoContrast | Equalize | Invert)
    }
}

/// A drawn change.
enum Step {
    Color(Box<dyn Deterministic>),
    Geometry(Box<dyn Geometry>),
}

/// How pixels are made that geometry brings in.
#[derive(Clone, Debug)]
struct Look {
    interpolation: ResizeFilter,
    fill: Fill,
}

impl Look {
    fn new(interpolation: ResizeFilter) -> Look {
        Look { interpolation, fill: Fill::default() }
    }

    /// Makes the change of this magnitude; `None` for what changes nothing.
    fn step(&self, op: Op, magnitude: f64) -> Option<Step> {
        let affine =
            |affine: Affine| -> Step { Step::Geometry(Box::new(affine.interpolation(self.interpolation).fill(self.fill.clone()))) };
        let shear = |along: [f64; 2]| affine(Affine::new().shear(along.map(|x| x.atan().to_degrees())).center([0.0; 2]));
        Some(match op {
            Identity => return None,
            ShearX => shear([magnitude, 0.0]),
            ShearY => shear([0.0, magnitude]),
            TranslateX => affine(Affine::new().translate([magnitude.trunc(), 0.0])),
            TranslateY => affine(Affine::new().translate([0.0, magnitude.trunc()])),
            Rotate => {
                let rotate = super::Rotate::by(magnitude).interpolation(self.interpolation).fill(self.fill.clone());
                Step::Geometry(Box::new(rotate))
            }
            Brightness => Step::Color(Box::new(super::Brightness::new(1.0 + magnitude))),
            Color => Step::Color(Box::new(Saturation::new(1.0 + magnitude))),
            Contrast => Step::Color(Box::new(super::Contrast::new(1.0 + magnitude))),
            Sharpness => Step::Color(Box::new(super::Sharpness::new(1.0 + magnitude))),
            Posterize => Step::Color(Box::new(super::Posterize::new(magnitude as u32))),
            Solarize => Step::Color(Box::new(super::Solarize::new(magnitude))),
            AutoContrast => Step::Color(Box::new(Autocontrast)),
            Equalize => Step::Color(Box::new(super::Equalize)),
            Invert => Step::Color(Box::new(super::Invert)),
        })
    }

    /// Makes a change with a random sign.
    fn with_sign(&self, op: Op, magnitude: f64, rng: &mut Rng) -> Option<Step> {
        let negative = op.signed() && rng.chance(0.5);
        self.step(op, if negative { -magnitude } else { magnitude })
    }
}

impl Step {
    fn apply(&self, image: &mut Image) -> Result<()> {
        match self {
            Step::Color(change) => change.transform(image),
            Step::Geometry(geometry) => geometry.image(image),
        }
    }

    fn apply_to_parts(&self, parts: &mut [Part<'_>]) -> Result<()> {
        match self {
            Step::Geometry(geometry) => apply_geometry(&**geometry, parts),
            Step::Color(change) => parts.iter_mut().try_for_each(|part| match part {
                Part::Image(image) => change.transform(image),
                _ => Ok(()),
            }),
        }
    }
}

/// A policy whose changes apply to a sample one after the other.
trait Policy {
    /// Draws the changes for an image of this height and width.
    fn draw(&self, size: [usize; 2], rng: &mut Rng) -> Result<Vec<Step>>;
}

macro_rules! policy {
    ($($name:ident),+) => {
        $(impl Transform for $name {
            fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()> {
                self.draw(image.size(), rng)?.iter().try_for_each(|step| step.apply(image))
            }

            fn apply_to_parts(&self, parts: &mut [Part<'_>], rng: &mut Rng) -> Result<()> {
                self.draw(common_size(parts)?, rng)?.iter().try_for_each(|step| step.apply_to_parts(parts))
            }
        })+
    };
}
use policy;
policy!(RandAugment, TrivialAugmentWide);

macro_rules! look_methods {
    ($($name:ident $interpolation:literal),+) => {
        $(impl $name {
            #[doc = concat!("Sets how geometry makes values between pixels; ", $interpolation, " by default.")]
            pub fn interpolation(mut self, interpolation: ResizeFilter) -> $name {
                self.look.interpolation = interpolation;
                self
            }

            /// Sets the values outside of the image; black by default.
            pub fn fill(mut self, fill: impl Into<Fill>) -> $name {
                self.look.fill = fill.into();
                self
            }
        })+
    };
}
use look_methods;
look_methods!(RandAugment "the nearest pixel", TrivialAugmentWide "the nearest pixel");

fn check_bins(op: &'static str, bins: usize) -> Result<()> {
    if bins >= 2 { Ok(()) } else { Err(Error::argument(op, format!("needs at least 2 bins of magnitudes, got {bins}"))) }
}

fn check_count(op: &'static str, what: &str, count: usize) -> Result<()> {
    if count <= MOST { Ok(()) } else { Err(Error::argument(op, format!("{what} is at most {MOST}, got {count}"))) }
}

/// Applies several random changes of one magnitude (torchvision's `RandAugment`; Cubuk et al.,
/// 2019).
///
/// The geometric ones move masks, boxes and key points too.
///
/// ```
/// use convnet::data::{Image, RandAugment, Rng, Transform};
///
/// let mut image = Image::from_bytes([3, 32, 32], vec![90; 3072])?;
/// RandAugment::new().num_ops(2).magnitude(9).apply(&mut image, &mut Rng::new(0))?;
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] for fewer than 2 bins, a magnitude that is none of them,
/// more than 256 changes, and images that have neither 1 nor 3 channels.
#[derive(Clone, Debug)]
pub struct RandAugment {
    num_ops: usize,
    magnitude: usize,
    bins: usize,
    look: Look,
}

impl Default for RandAugment {
    fn default() -> RandAugment {
        RandAugment::new()
    }
}

impl RandAugment {
    /// Makes a policy of 2 changes of magnitude 9 of 31.
    pub fn new() -> RandAugment {
        RandAugment { num_ops: 2, magnitude: 9, bins: 31, look: Look::new(ResizeFilter::Nearest) }
    }

    /// Sets the number of changes of an image.
    pub fn num_ops(mut self, num_ops: usize) -> RandAugment {
        self.num_ops = num_ops;
        self
    }

    /// Sets the magnitude, below the number of bins.
    pub fn magnitude(mut self, magnitude: usize) -> RandAugment {
        self.magnitude = magnitude;
        self
    }

    /// Sets the number of magnitudes from the smallest to the largest.
    pub fn num_magnitude_bins(mut self, bins: usize) -> RandAugment {
        self.bins = bins;
        self
    }
}

impl Policy for RandAugment {
    fn draw(&self, size: [usize; 2], rng: &mut Rng) -> Result<Vec<Step>> {
        const OP: &str = "rand augment";
        check_bins(OP, self.bins)?;
        check_count(OP, "the number of changes", self.num_ops)?;
        if self.magnitude >= self.bins {
            let message = format!("the magnitude must be below the number of bins, {}, got {}", self.bins, self.magnitude);
            return Err(Error::argument(OP, message));
        }
        let space = Space::relative(size, 150.0 / 331.0);
        let step = |_| {
            let op = ALL[rng.below(ALL.len())];
            self.look.with_sign(op, space.magnitude(op, self.magnitude, self.bins), rng)
        };
        Ok((0..self.num_ops).filter_map(step).collect())
    }
}

/// Applies one random change of random magnitude (torchvision's `TrivialAugmentWide`; Müller and
/// Hutter, 2021).
///
/// The geometric ones move masks, boxes and key points too.
///
/// ```
/// use convnet::data::{Image, Rng, Transform, TrivialAugmentWide};
///
/// let mut image = Image::from_bytes([3, 32, 32], vec![90; 3072])?;
/// TrivialAugmentWide::new().apply(&mut image, &mut Rng::new(0))?;
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] for fewer than 2 bins, and images that have neither 1 nor
/// 3 channels.
#[derive(Clone, Debug)]
pub struct TrivialAugmentWide {
    bins: usize,
    look: Look,
}

impl Default for TrivialAugmentWide {
    fn default() -> TrivialAugmentWide {
        TrivialAugmentWide::new()
    }
}

impl TrivialAugmentWide {
    /// Makes a policy of 31 magnitudes.
    pub fn new() -> TrivialAugmentWide {
        TrivialAugmentWide { bins: 31, look: Look::new(ResizeFilter::Nearest) }
    }

    /// Sets the number of magnitudes from the smallest to the largest.
    pub fn num_magnitude_bins(mut self, bins: usize) -> TrivialAugmentWide {
        self.bins = bins;
        self
    }
}

impl Policy for TrivialAugmentWide {
    fn draw(&self, _: [usize; 2], rng: &mut Rng) -> Result<Vec<Step>> {
        check_bins("trivial augment", self.bins)?;
        let op = ALL[rng.below(ALL.len())];
        let magnitude = Space::wide().magnitude(op, rng.below(self.bins), self.bins);
        Ok(self.look.with_sign(op, magnitude, rng).into_iter().collect())
    }
}
