//! Transforms of images between the dataset and the batch; names and semantics are torchvision's.

mod choice;
mod color;
mod crop;
mod elastic;
mod erasing;
mod fill;
mod flip;
mod geometry;
mod grayscale;
mod normalize;
mod pad;
mod policies;
mod presets;
mod random_warp;
mod resize;
mod resized_crop;
mod sample;
mod scale;
mod warp;

use std::sync::Arc;

pub use choice::{RandomApply, RandomChoice, RandomOrder};
pub use color::{
    Autocontrast, Blur, Brightness, ColorJitter, Contrast, Equalize, GaussianBlur, Hue, Invert, Posterize, RandomAdjustSharpness,
    RandomAutocontrast, RandomEqualize, RandomGrayscale, RandomInvert, RandomPosterize, RandomSolarize, Saturation, Sharpness, Solarize,
    Spread,
};
pub(super) use crop::pad_to;
pub use crop::{CenterCrop, Crop, five_crop, ten_crop};
pub use elastic::{Elastic, ElasticTransform};
pub use erasing::{Erase, RandomErasing};
pub use fill::Fill;
pub use flip::{HorizontalFlip, RandomHorizontalFlip, RandomVerticalFlip, VerticalFlip};
pub use geometry::{Geometric, Geometry, apply_geometry};
pub use grayscale::Grayscale;
pub use normalize::{IMAGENET_MEAN, IMAGENET_STD, Normalize};
pub use pad::{Pad, Padding, PaddingMode, RandomCrop};
pub use policies::{AugMix, AutoAugment, AutoAugmentPolicy, RandAugment, TrivialAugmentWide};
pub use presets::ImageClassification;
pub use random_warp::{Degrees, RandomAffine, RandomPerspective, RandomRotation};
pub use resize::{Resize, ResizeFilter};
pub use resized_crop::{RandomResizedCrop, ResizedCrop};
pub use warp::{Affine, Perspective, Rotate};

use super::annotations::Part;
use super::{Image, Rng};
use crate::error::Result;

/// Changes the images of a sample, at random or not.
///
/// Random numbers come from `rng`, which belongs to the sample alone, so that the result does not
/// depend on threads. Several transforms in turn are a tuple, a [`Compose`], or several calls of
/// [`DataLoader::transform`](super::DataLoader::transform). A closure of `&mut Image` and `&mut
/// Rng` that returns `Result<()>` is a transform too. Transforms that draw nothing are
/// [`Deterministic`] as well, which [`Image::apply`] takes.
///
/// A transform that moves pixels implements [`Geometric`] beside this trait, or
/// [`apply_to_parts`](Transform::apply_to_parts), so that masks, boxes and key points move with
/// their image.
///
/// ```
/// use convnet::data::{DataLoader, Digits, Image, Normalize, Rng, Resize};
///
/// let invert = |image: &mut Image, _: &mut Rng| {
///     image.pixels_mut().iter_mut().for_each(|x| *x = 1.0 - *x);
///     Ok(())
/// };
/// let loader = DataLoader::new(Digits::train(), 32).transform((Resize::new([28, 28]), invert, Normalize::new([0.5], [0.5])));
/// assert!(loader.epoch(0).next().expect("45 batches")?.images.shape() == [32, 1, 28, 28]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub trait Transform: Send + Sync {
    /// Changes an image.
    ///
    /// # Errors
    /// When the transform's arguments make no sense, or do not fit the image.
    fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()>;

    /// Changes all parts of a sample alike. As provided, it changes each image with the same random
    /// numbers and leaves masks, boxes and key points as they are, which is right for colours.
    ///
    /// # Errors
    /// When the transform's arguments make no sense, or do not fit the sample.
    fn apply_to_parts(&self, parts: &mut [Part<'_>], rng: &mut Rng) -> Result<()> {
        let start = rng.clone();
        for part in parts {
            if let Part::Image(image) = part {
                *rng = start.clone();
                self.apply(image, rng)?;
            }
        }
        Ok(())
    }
}

impl<F: Fn(&mut Image, &mut Rng) -> Result<()> + Send + Sync> Transform for F {
    fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()> {
        self(image, rng)
    }
}

/// A transform that draws no random numbers: [`Image::apply`] needs no generator for it.
///
/// ```
/// use convnet::data::{CenterCrop, Image, Normalize, Resize};
///
/// let mut image = Image::new(1, 40, 60)?;
/// image.apply(&(Resize::shorter(32), CenterCrop::new([28, 28]), Normalize::new([0.5], [0.5])))?;
/// assert_eq!(image.shape(), [1, 28, 28]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub trait Deterministic: Transform {
    /// Changes the image.
    ///
    /// # Errors
    /// When the transform's arguments make no sense, or do not fit the image.
    fn transform(&self, image: &mut Image) -> Result<()>;
}

/// Implements [`Transform`] by [`Deterministic`], for changes of colours.
macro_rules! deterministic {
    ($($name:ty),+ $(,)?) => {
        $(impl $crate::data::Transform for $name {
            fn apply(&self, image: &mut $crate::data::Image, _: &mut $crate::data::Rng) -> $crate::error::Result<()> {
                self.transform(image)
            }
        })+
    };
}
use deterministic;
deterministic!(Grayscale, Normalize);

/// Implements [`Transform`] by [`Geometric`].
macro_rules! geometric {
    ($($name:ty),+ $(,)?) => {
        $(impl Transform for $name {
            fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()> {
                match self.draw(image.shape(), rng)? {
                    Some(geometry) => geometry.image(image),
                    None => Ok(()),
                }
            }

            fn apply_to_parts(&self, parts: &mut [Part<'_>], rng: &mut Rng) -> Result<()> {
                geometry::draw_and_apply(self, parts, rng)
            }
        })+
    };
}
geometric!(
    Affine,
    CenterCrop,
    Crop,
    Elastic,
    ElasticTransform,
    HorizontalFlip,
    Pad,
    Perspective,
    RandomAffine,
    RandomCrop,
    RandomHorizontalFlip,
    RandomPerspective,
    RandomResizedCrop,
    RandomRotation,
    RandomVerticalFlip,
    Resize,
    ResizedCrop,
    Rotate,
    VerticalFlip,
);

/// Implements [`Geometric`] and [`Deterministic`] for a [`Geometry`] with fixed numbers.
macro_rules! fixed {
    ($($name:ty),+ $(,)?) => {
        $(impl Geometric for $name {
            fn draw(&self, _: [usize; 3], _: &mut Rng) -> Result<Option<Box<dyn Geometry>>> {
                Ok(Some(Box::new(self.clone())))
            }
        }

        impl Deterministic for $name {
            fn transform(&self, image: &mut Image) -> Result<()> {
                self.image(image)
            }
        })+
    };
}
fixed!(Affine, Crop, Elastic, HorizontalFlip, Pad, Perspective, ResizedCrop, Rotate, VerticalFlip);

macro_rules! forward_transform {
    ($($pointer:ty),+) => {
        $(impl Transform for $pointer {
            fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()> {
                (**self).apply(image, rng)
            }

            fn apply_to_parts(&self, parts: &mut [Part<'_>], rng: &mut Rng) -> Result<()> {
                (**self).apply_to_parts(parts, rng)
            }
        })+
    };
}
forward_transform!(Box<dyn Transform>, Arc<dyn Transform>);

macro_rules! tuple {
    ($($name:ident $index:tt),+) => {
        impl<$($name: Transform),+> Transform for ($($name,)+) {
            fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()> {
                $(self.$index.apply(image, rng)?;)+
                Ok(())
            }

            fn apply_to_parts(&self, parts: &mut [Part<'_>], rng: &mut Rng) -> Result<()> {
                $(self.$index.apply_to_parts(parts, rng)?;)+
                Ok(())
            }
        }

        impl<$($name: Deterministic),+> Deterministic for ($($name,)+) {
            fn transform(&self, image: &mut Image) -> Result<()> {
                $(self.$index.transform(image)?;)+
                Ok(())
            }
        }
    };
}
tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);

/// Applies several transforms in order, chosen at run time.
///
/// ```
/// use convnet::data::{Compose, Normalize, Resize};
///
/// let mut steps = Compose::new().push(Resize::new([32, 32]));
/// let normalised = true;
/// if normalised {
///     steps = steps.push(Normalize::new([0.5], [0.5]));
/// }
/// ```
#[derive(Default)]
pub struct Compose {
    steps: Vec<Box<dyn Transform>>,
}

impl Compose {
    /// Makes an empty list, which leaves images as they are.
    pub fn new() -> Compose {
        Compose::default()
    }

    /// Appends a transform.
    pub fn push(mut self, step: impl Transform + 'static) -> Compose {
        self.steps.push(Box::new(step));
        self
    }
}

impl Transform for Compose {
    fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()> {
        self.steps.iter().try_for_each(|step| step.apply(image, rng))
    }

    fn apply_to_parts(&self, parts: &mut [Part<'_>], rng: &mut Rng) -> Result<()> {
        self.steps.iter().try_for_each(|step| step.apply_to_parts(parts, rng))
    }
}
