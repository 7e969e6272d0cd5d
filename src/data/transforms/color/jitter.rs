//! Random brightness, contrast, saturation and hue.

use super::{Brightness, Contrast, Hue, Saturation};
use crate::data::transforms::{Deterministic, Transform};
use crate::data::{Image, Rng};
use crate::error::{Error, Result};

/// From where to where a factor, or a shift of hue, is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    /// As far as this from what changes nothing, in both directions; factors stay at least 0.
    Around(f64),
    /// From the first to the second number.
    Between(f64, f64),
}

impl From<f64> for Spread {
    fn from(amount: f64) -> Spread {
        Spread::Around(amount)
    }
}

impl From<[f64; 2]> for Spread {
    fn from([low, high]: [f64; 2]) -> Spread {
        Spread::Between(low, high)
    }
}

impl Spread {
    /// Draws a number; `None` when all numbers are `neutral`.
    fn draw(self, name: &str, neutral: f64, [least, most]: [f64; 2], rng: &mut Rng) -> Result<Option<f64>> {
        let (low, high) = match self {
            Spread::Around(amount) if neutral == 1.0 => ((1.0 - amount).max(0.0), 1.0 + amount),
            Spread::Around(amount) => (-amount, amount),
            Spread::Between(low, high) => (low, high),
        };
        if !(least <= low && low <= high && high <= most) {
            let message = format!("{name} must be between {least} and {most}, the smaller number first, got {low} to {high}");
            return Err(Error::argument("color jitter", message));
        }
        Ok(if low == neutral && high == neutral { None } else { Some(rng.uniform(low, high)) })
    }
}

/// Changes brightness, contrast, saturation and hue by random amounts, in random order
/// (torchvision's `ColorJitter`).
///
/// Each is given as an amount, such as 0.4 for a factor from 0.6 to 1.4, or as a range. What is not
/// given does not change.
///
/// ```
/// use convnet::data::{ColorJitter, Image, Rng, Transform};
///
/// let jitter = ColorJitter::new().brightness(0.4).contrast([0.8, 1.2]).saturation(0.4).hue(0.1);
/// let mut image = Image::new(3, 32, 32)?;
/// jitter.apply(&mut image, &mut Rng::new(0))?;
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] for negative factors, shifts of hue outside of -0.5 to
/// 0.5, ranges that are empty, and images that have neither 1 nor 3 channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColorJitter {
    brightness: Spread,
    contrast: Spread,
    saturation: Spread,
    hue: Spread,
}

impl Default for ColorJitter {
    fn default() -> ColorJitter {
        ColorJitter::new()
    }
}

impl ColorJitter {
    /// Makes a transform that changes nothing yet.
    pub fn new() -> ColorJitter {
        let nothing = Spread::Around(0.0);
        ColorJitter { brightness: nothing, contrast: nothing, saturation: nothing, hue: nothing }
    }

    /// Sets the factors of [`Brightness`].
    pub fn brightness(mut self, factors: impl Into<Spread>) -> ColorJitter {
        self.brightness = factors.into();
        self
    }

    /// Sets the factors of [`Contrast`].
    pub fn contrast(mut self, factors: impl Into<Spread>) -> ColorJitter {
        self.contrast = factors.into();
        self
    }

    /// Sets the factors of [`Saturation`].
    pub fn saturation(mut self, factors: impl Into<Spread>) -> ColorJitter {
        self.saturation = factors.into();
        self
    }

    /// Sets the shifts of [`Hue`], at most 0.5.
    pub fn hue(mut self, shifts: impl Into<Spread>) -> ColorJitter {
        self.hue = shifts.into();
        self
    }
}

impl Transform for ColorJitter {
    fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()> {
        let mut order = [0, 1, 2, 3];
        rng.shuffle(&mut order);
        let factors = [0.0, f64::from(f32::MAX)];
        let brightness = self.brightness.draw("factors of brightness", 1.0, factors, rng)?;
        let contrast = self.contrast.draw("factors of contrast", 1.0, factors, rng)?;
        let saturation = self.saturation.draw("factors of saturation", 1.0, factors, rng)?;
        let hue = self.hue.draw("shifts of hue", 0.0, [-0.5, 0.5], rng)?;
        for step in order {
            match (step, brightness, contrast, saturation, hue) {
                (0, Some(factor), ..) => Brightness::new(factor).transform(image)?,
                (1, _, Some(factor), ..) => Contrast::new(factor).transform(image)?,
                (2, _, _, Some(factor), _) => Saturation::new(factor).transform(image)?,
                (3, .., Some(shift)) => Hue::new(shift).transform(image)?,
                _ => {}
            }
        }
        Ok(())
    }
}
