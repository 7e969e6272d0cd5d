//! Changes of colours that are applied with a probability.

use super::{Autocontrast, Equalize, Invert, Posterize, Sharpness, Solarize};
use crate::data::image::Pixels;
use crate::data::transforms::choice::chance;
use crate::data::transforms::grayscale::{gray, luminance};
use crate::data::transforms::{Deterministic, Transform};
use crate::data::{Image, Rng};
use crate::error::Result;

/// Makes an image grey with a probability, and keeps its channels (torchvision's
/// `RandomGrayscale`).
///
/// # Errors
/// Applying it gives [`Error::Argument`](crate::Error::Argument) when the probability is not
/// between 0 and 1, or the image has neither 1 nor 3 channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomGrayscale {
    probability: f64,
}

impl RandomGrayscale {
    /// Makes a transform with this probability; torchvision's default is 0.1.
    pub fn new(probability: f64) -> RandomGrayscale {
        RandomGrayscale { probability }
    }
}

impl Transform for RandomGrayscale {
    fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()> {
        super::expect_gray_or_rgb("random grayscale", image)?;
        if chance("random grayscale", self.probability, rng)? && image.channels() == 3 {
            match &mut image.pixels {
                Pixels::Bytes(bytes) => bytes.as_chunks_mut().0.iter_mut().for_each(|pixel| *pixel = [luminance(pixel); 3]),
                Pixels::Floats(values) => values.as_chunks_mut().0.iter_mut().for_each(|pixel| *pixel = [gray(pixel); 3]),
            }
        }
        Ok(())
    }
}

/// Defines transforms that apply another with a probability.
macro_rules! with_probability {
    ($($(#[$doc:meta])* $name:ident($inner:ident { $($argument:ident: $type:ty),* }), $op:literal;)+) => {
        $($(#[$doc])*
        ///
        /// # Errors
        #[doc = concat!("Applying it gives [`Error::Argument`](crate::Error::Argument) as [`", stringify!($inner), "`] does, and when the")]
        /// probability is not between 0 and 1.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name {
            change: $inner,
            probability: f64,
        }

        impl $name {
            /// Makes a transform with this probability; torchvision's default is 0.5.
            pub fn new($($argument: $type,)* probability: f64) -> $name {
                $name { change: with_probability!(@make $inner $($argument),*), probability }
            }
        }

        impl Transform for $name {
            fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()> {
                if chance($op, self.probability, rng)? { self.change.transform(image) } else { Ok(()) }
            }
        })+
    };
    (@make $inner:ident) => { $inner };
    (@make $inner:ident $($argument:ident),+) => { $inner::new($($argument),+) };
}

with_probability! {
    /// [Inverts](Invert) an image with a probability (torchvision's `RandomInvert`).
    RandomInvert(Invert {}), "random invert";
    /// [Reduces the bits](Posterize) of an image with a probability (torchvision's
    /// `RandomPosterize`).
    RandomPosterize(Posterize { bits: u32 }), "random posterize";
    /// [Inverts values from a threshold on](Solarize) with a probability (torchvision's
    /// `RandomSolarize`).
    RandomSolarize(Solarize { threshold: f64 }), "random solarize";
    /// [Changes the sharpness](Sharpness) of an image with a probability (torchvision's
    /// `RandomAdjustSharpness`).
    RandomAdjustSharpness(Sharpness { factor: f64 }), "random adjust sharpness";
    /// [Stretches the contrast](Autocontrast) of an image with a probability (torchvision's
    /// `RandomAutocontrast`).
    RandomAutocontrast(Autocontrast {}), "random autocontrast";
    /// [Equalizes the histogram](Equalize) of an image with a probability (torchvision's
    /// `RandomEqualize`).
    RandomEqualize(Equalize {}), "random equalize";
}
