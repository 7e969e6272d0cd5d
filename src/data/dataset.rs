//! The trait of tables of samples.

use std::sync::Arc;

use super::{Map, Rng};
use crate::error::Result;

/// A table of samples.
///
/// Implement [`len`](Self::len) and [`get`](Self::get). Random numbers come from the generator that
/// `get` is given: it belongs to the sample, the epoch and the loader's seed, so that the loader's
/// threads do not change what is drawn. Random tensors are reproducible as well: while a loader
/// asks for a sample, `Tensor::rand` and its like draw from another generator of that sample.
///
/// ```
/// use convnet::data::{DataLoader, Dataset, Image, Rng};
///
/// /// One bright dot on a black square; the label says whether it is in the right half.
/// struct Dots;
///
/// impl Dataset for Dots {
///     type Sample = (Image, i64);
///
///     fn len(&self) -> usize {
///         1000
///     }
///
///     fn get(&self, _index: usize, rng: &mut Rng) -> convnet::Result<(Image, i64)> {
///         let mut image = Image::new(1, 8, 8)?;
///         let place = rng.below(64);
///         image.pixels_mut()[place] = 1.0;
///         Ok((image, i64::from(place % 8 > 3)))
///     }
/// }
///
/// let first = |workers| DataLoader::new(Dots, 100).shuffle(7).workers(workers).epoch(0).next().expect("ten batches");
/// let batch = first(0)?;
/// assert!(batch.images.shape() == [100, 1, 8, 8] && batch.images.sum(..)?.item::<f32>()? == 100.0);
/// assert!(batch.images.to_vec::<f32>()? == first(2)?.images.to_vec::<f32>()?);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// Images that are computed as tensors are converted:
///
/// ```
/// use convnet::Tensor;
/// use convnet::data::{Dataset, Image, Rng};
///
/// struct Noise;
///
/// impl Dataset for Noise {
///     type Sample = (Image, i64);
///
///     fn len(&self) -> usize {
///         10
///     }
///
///     fn get(&self, index: usize, _: &mut Rng) -> convnet::Result<(Image, i64)> {
///         Ok((Image::from_tensor(&Tensor::rand([3, 8, 8]))?, index as i64 % 2))
///     }
/// }
///
/// // Outside of a loader, any generator serves.
/// let (image, label) = Noise.get(3, &mut Rng::new(0))?;
/// assert!(image.shape() == [3, 8, 8] && label == 1);
/// # Ok::<(), convnet::Error>(())
/// ```
pub trait Dataset: Send + Sync {
    /// The type of a sample, such as `(Image, i64)`, an image and its class. A
    /// [`DataLoader`](super::DataLoader) takes all types that [`Collate`](super::Collate).
    type Sample;

    /// Returns the number of samples.
    fn len(&self) -> usize;

    /// Returns one sample. What is random about it comes from `rng`; the transforms go on drawing
    /// from it.
    ///
    /// # Errors
    /// When there is no such sample, or it cannot be read.
    fn get(&self, index: usize, rng: &mut Rng) -> Result<Self::Sample>;

    /// Returns the classes' names, label by label; an empty vector when they have none.
    fn classes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns a name for a sample in messages, such as the path of its file; an empty one when it
    /// has none.
    fn name(&self, _index: usize) -> String {
        String::new()
    }

    /// Returns whether there are no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a dataset that applies `function` to each sample when it is read. The function may
    /// draw from the sample's generator.
    ///
    /// ```
    /// use convnet::data::{Dataset, Digits, Rng};
    ///
    /// let is_even = Digits::train().map(|(image, label), _| Ok((image, f32::from(label % 2 == 0))));
    /// assert_eq!(is_even.get(3, &mut Rng::new(0))?.1, 0.0);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    fn map<T, F>(self, function: F) -> Map<Self, F>
    where
        Self: Sized,
        F: Fn(Self::Sample, &mut Rng) -> Result<T> + Send + Sync,
    {
        Map::new(self, function)
    }
}

/// Implements [`Dataset`] by an inner dataset.
macro_rules! forward_dataset {
    ([$($generics:tt)*] $dataset:ty, $sample:ty, $self:ident => $inner:expr) => {
        impl<$($generics)*> $crate::data::Dataset for $dataset {
            type Sample = $sample;

            fn len(&$self) -> usize {
                $inner.len()
            }

            fn get(&$self, index: usize, rng: &mut $crate::data::Rng) -> $crate::Result<$sample> {
                $inner.get(index, rng)
            }

            fn classes(&$self) -> Vec<String> {
                $inner.classes()
            }

            fn name(&$self, index: usize) -> String {
                $inner.name(index)
            }
        }
    };
}
forward_dataset!([D: Dataset + ?Sized] Arc<D>, D::Sample, self => **self);
forward_dataset!([D: Dataset + ?Sized] Box<D>, D::Sample, self => **self);
pub(super) use forward_dataset;
