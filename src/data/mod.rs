//! Datasets, transforms, and the loader that turns them into batches.
//!
//! A [`Dataset`] is a table of labelled images. A [`DataLoader`] puts samples together to batches, shuffled anew each epoch, on threads of
//! its own while the network trains on the others; [transforms](Transform) change each image on the way. All randomness flows from the
//! loader's seed: datasets and transforms draw from a generator derived from (seed, epoch, index), `Tensor::randn` and the like inside of
//! them too, so the same seed gives the same bits whatever the number of threads.
//!
//! ```
//! use convnet::data::{Batch, DataLoader, Dataset, Digits, Normalize};
//!
//! let train = Digits::train();
//! assert_eq!(train.len(), 1438);
//! let loader = DataLoader::new(train, 64).shuffle(0).workers(1).transform(Normalize::new([0.3], [0.4]));
//! for batch in loader.epoch(0) {
//!     let Batch { images, labels } = batch?; // [B, C, H, W] f32, [B] i64
//!     assert!(images.shape()[1..] == [1, 8, 8] && labels.shape() == &images.shape()[..1]);
//! }
//! # Ok::<(), convnet::Error>(())
//! ```

mod datasets;
#[cfg(feature = "image")]
mod decode;
pub mod idx;
mod image;
#[cfg(feature = "image")]
mod jpeg;
mod loader;
#[cfg(feature = "image")]
mod pixels;
#[cfg(feature = "image")]
mod png;
mod rng;
mod transforms;

use std::sync::Arc;

pub use datasets::{Digits, FashionMnist, IMAGENET_CLASSES, Mnist};
#[cfg(feature = "image")]
pub use datasets::{ImageFolder, ImageFolderOptions};
pub use image::Image;
pub use loader::{Batch, DataLoader, Epoch};
#[cfg(feature = "image")]
pub use pixels::{max_pixels, set_max_pixels};
pub use rng::Rng;
pub use transforms::{
    CenterCrop, Compose, Grayscale, IMAGENET_MEAN, IMAGENET_STD, ImageClassification, Normalize, Resize, ResizeFilter, Transform,
};

use crate::error::Result;
#[cfg(feature = "download")]
pub use crate::io::download::{Checksum, Download};
use crate::tensor::Tensor;

/// A table of labelled images.
///
/// Implement [`len`](Self::len) and [`get`](Self::get). Random tensors that `get` makes are reproducible: while a loader asks for a sample,
/// the thread's generator is one that belongs to the sample, its epoch and the loader's seed.
///
/// ```
/// use convnet::Tensor;
/// use convnet::data::{DataLoader, Dataset};
///
/// struct Noise;
///
/// impl Dataset for Noise {
///     fn len(&self) -> usize {
///         10
///     }
///     fn get(&self, index: usize) -> convnet::Result<(Tensor, i64)> {
///         Ok((Tensor::rand([3, 8, 8]), index as i64 % 2))
///     }
/// }
///
/// let first = |workers| DataLoader::new(Noise, 4).workers(workers).epoch(0).next().expect("three batches");
/// let batch = first(0)?;
/// assert!(batch.images.shape() == [4, 3, 8, 8]);
/// assert!(batch.images.to_vec::<f32>()? == first(2)?.images.to_vec::<f32>()?);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// A dataset that draws single numbers, or writes pixels without making a tensor of each sample, overrides [`load`](Self::load), which is what
/// the loader calls.
///
/// ```
/// use convnet::Tensor;
/// use convnet::data::{DataLoader, Dataset, Image, Rng};
///
/// /// A bright dot somewhere.
/// struct Dots;
///
/// impl Dataset for Dots {
///     fn len(&self) -> usize {
///         1000
///     }
///     fn load(&self, _index: usize, image: &mut Image, random: &mut Rng) -> convnet::Result<i64> {
///         *image = Image::new(1, 8, 8)?;
///         let place = random.below(64);
///         image.pixels_mut()[place] = 1.0;
///         Ok((place % 8 > 3) as i64)
///     }
///     fn get(&self, index: usize) -> convnet::Result<(Tensor, i64)> {
///         let mut image = Image::default();
///         let label = self.load(index, &mut image, &mut Rng::for_sample(0, 0, index as u64))?;
///         Ok((image.to_tensor(), label))
///     }
/// }
///
/// let batch = DataLoader::new(Dots, 100).shuffle(7).workers(1).epoch(0).next().expect("ten batches")?;
/// assert!(batch.images.sum(..)?.item::<f32>()? == 100.0);
/// # Ok::<(), convnet::Error>(())
/// ```
pub trait Dataset: Send + Sync {
    /// The number of samples.
    fn len(&self) -> usize;

    /// One sample: the image `[C, H, W]`, and its label. Images are `f32`, usually in `[0, 1]`, or `u8`, which counts in 255ths.
    ///
    /// # Errors
    /// When there is no such sample, or it cannot be read.
    fn get(&self, index: usize) -> Result<(Tensor, i64)>;

    /// Writes one sample's pixels over `image`, and returns its label. What is random about them comes from `random`, which belongs to the
    /// sample, the epoch and the loader's seed; the transforms go on drawing from it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    fn load(&self, index: usize, image: &mut Image, _random: &mut Rng) -> Result<i64> {
        let (tensor, label) = self.get(index)?;
        image.set_tensor(&tensor)?;
        Ok(label)
    }

    /// The classes' names, label by label; empty when they have none.
    fn classes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether there are no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Implements [`Dataset`] by a dataset inside.
macro_rules! forwarding {
    ([$($generics:tt)*] $dataset:ty, $self:ident => $inside:expr) => {
        impl<$($generics)*> Dataset for $dataset {
            fn len(&$self) -> usize {
                $inside.len()
            }

            fn get(&$self, index: usize) -> Result<(Tensor, i64)> {
                $inside.get(index)
            }

            fn load(&$self, index: usize, image: &mut Image, random: &mut Rng) -> Result<i64> {
                $inside.load(index, image, random)
            }

            fn classes(&$self) -> Vec<String> {
                $inside.classes()
            }
        }
    };
}
forwarding!([D: Dataset + ?Sized] Arc<D>, self => **self);
forwarding!([D: Dataset + ?Sized] Box<D>, self => **self);
forwarding!([] Digits, self => self.0);
forwarding!([] Mnist, self => self.0);
forwarding!([] FashionMnist, self => self.0);
