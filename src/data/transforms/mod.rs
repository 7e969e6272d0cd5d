//! Transforms of images between the dataset and the batch; names and semantics are torchvision's.

mod crop;
mod grayscale;
mod normalize;
mod presets;
mod resize;

use std::sync::Arc;

pub use crop::CenterCrop;
pub use grayscale::Grayscale;
pub use normalize::{IMAGENET_MEAN, IMAGENET_STD, Normalize};
pub use presets::ImageClassification;
pub use resize::{Resize, ResizeFilter};

use super::{Image, Rng};
use crate::error::Result;

/// Changes one image, at random or not.
///
/// Random numbers come from `rng`, which belongs to the sample alone, so that the result does not
/// depend on threads. Several transforms in turn are a tuple, a [`Compose`], or several calls of
/// [`DataLoader::transform`](super::DataLoader::transform). A closure of `&mut Image` and `&mut
/// Rng` that returns `Result<()>` is a transform too. Transforms that draw nothing are
/// [`Deterministic`] as well, which [`Image::apply`] takes.
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
    /// Changes the image.
    ///
    /// # Errors
    /// When the transform's arguments make no sense, or do not fit the image.
    fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()>;
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

macro_rules! deterministic {
    ($($name:ident),+) => {
        $(impl Transform for $name {
            fn apply(&self, image: &mut Image, _: &mut Rng) -> Result<()> {
                self.transform(image)
            }
        })+
    };
}
deterministic!(CenterCrop, Grayscale, ImageClassification, Normalize, Resize);

impl Transform for Box<dyn Transform> {
    fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()> {
        (**self).apply(image, rng)
    }
}

impl Transform for Arc<dyn Transform> {
    fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()> {
        (**self).apply(image, rng)
    }
}

macro_rules! tuple {
    ($($name:ident $index:tt),+) => {
        impl<$($name: Transform),+> Transform for ($($name,)+) {
            fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()> {
                $(self.$index.apply(image, rng)?;)+
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
}
