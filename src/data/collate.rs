//! The types of samples that a loader puts into batches.

use super::annotations::{Boxes, KeyPoints, Mask, Part};
use super::image::Image;
use crate::error::{Error, Result};
use crate::tensor::shape::try_numel;
use crate::tensor::{Element, MemoryFormat, Tensor};

/// A type of samples that can be put into a batch.
///
/// | sample | batch |
/// |---|---|
/// | `Image` | `[B, C, H, W]`, `f32`, channels-last in memory |
/// | `Tensor` of shape `[…]` | `[B, …]` |
/// | `i64`, `f32`, `f64` | `[B]` |
/// | `Vec<T>` of these, of one length `n` | `[B, n]` |
/// | `Vec<bool>`, several labels | `[B, n]`, `f32`, 0 or 1 |
/// | [`Sequence<T>`](Sequence), of any length | [`Sequences`]: `[B, L]` and lengths `[B]` |
/// | [`Mask`] | `[B, H, W]`, `i64` |
/// | [`Boxes`] | for each image `[n, 4]`, `f32` |
/// | [`KeyPoints`], as many in each sample | `[B, n, 2]`, `f32` |
/// | `Vec<Image>`, as many in each sample, such as crops of one picture | `[B, n, C, H, W]` |
/// | `(Image, T)` | [`Batch`] of images, with the batch of `T` as labels |
/// | `(Image, T, U)` | [`Batch`] with a pair as labels |
/// | `(Tensor, T)`, `(Vec<Image>, T)`, `(Sequence<_>, T)` | the pair of batches |
/// | three or four `Tensor`s, `Vec<Tensor>` | as many tensors `[B, …]` |
///
/// Other types are samples by an implementation:
///
/// ```
/// use convnet::data::{Collate, DataLoader, Dataset, Image, Part, Rng};
/// use convnet::{Result, Tensor};
///
/// /// A picture and the hour at which it was taken.
/// struct Photo {
///     image: Image,
///     hour: f32,
/// }
///
/// impl Collate for Photo {
///     type Batch = (Tensor, Tensor);
///
///     fn collate(samples: Vec<Photo>) -> Result<Self::Batch> {
///         let (images, hours) = samples.into_iter().map(|photo| (photo.image, photo.hour)).unzip();
///         Ok((Image::collate(images)?, f32::collate(hours)?))
///     }
///
///     fn parts(&mut self) -> Vec<Part<'_>> {
///         vec![Part::Image(&mut self.image)]
///     }
/// }
///
/// struct Album;
///
/// impl Dataset for Album {
///     type Sample = Photo;
///
///     fn len(&self) -> usize {
///         10
///     }
///
///     fn get(&self, index: usize, _: &mut Rng) -> Result<Photo> {
///         Ok(Photo { image: Image::new(3, 8, 8)?, hour: index as f32 })
///     }
/// }
///
/// let (images, hours) = DataLoader::new(Album, 4).epoch(0).next().expect("three batches")?;
/// assert!(images.shape() == [4, 3, 8, 8] && hours.shape() == [4]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub trait Collate: Sized + 'static {
    /// The type of a batch.
    type Batch: Send + 'static;

    /// Puts samples, at least one, into a batch.
    ///
    /// # Errors
    /// When the samples are not alike, such as images of several sizes.
    fn collate(samples: Vec<Self>) -> Result<Self::Batch>;

    /// Returns the parts that transforms change; as provided, none.
    fn parts(&mut self) -> Vec<Part<'_>> {
        Vec::new()
    }

    /// Returns about how many bytes of memory the sample takes, for the limit of
    /// [`Cached`](super::Cached); as provided, those of the parts.
    fn size_in_memory(&mut self) -> usize {
        size_of::<Self>() + self.parts().iter().map(Part::bytes).sum::<usize>()
    }
}

/// Images and labels of several samples.
///
/// For classification, labels are `[B]`, `i64`. For other samples `(Image, T)` they are the batch
/// of `T`: see [`Collate`].
#[derive(Clone, Debug)]
pub struct Batch<L = Tensor> {
    /// `[B, C, H, W]`, `f32`; channels-last in memory.
    pub images: Tensor,
    /// The labels, or what else stands beside the images.
    pub labels: L,
}

/// A list of numbers or tokens whose length differs from sample to sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sequence<T>(pub Vec<T>);

/// Sequences of several samples.
#[derive(Clone, Debug)]
pub struct Sequences {
    /// `[B, L]`, with `L` the greatest length; shorter ones end with zeros.
    pub values: Tensor,
    /// `[B]`, `i64`: the length of each.
    pub lengths: Tensor,
}

/// The error for the first sample of a batch that is not like the first.
fn unlike(index: usize, what: &str, found: &dyn std::fmt::Debug, first: &dyn std::fmt::Debug, help: &str) -> Error {
    Error::shape("collate", format!("{what} {index} of the batch is {found:?}, the first is {first:?}{help}"))
}

/// Returns the number of elements that each of the samples has; `what` names it in the error, which
/// ends with `help`.
fn common_count<T>(what: &str, samples: &[Vec<T>], help: &str) -> Result<usize> {
    let count = samples.first().map_or(0, Vec::len);
    match samples.iter().enumerate().find(|(_, sample)| sample.len() != count) {
        Some((index, sample)) => Err(unlike(index, what, &sample.len(), &count, help)),
        None => Ok(count),
    }
}

impl Collate for Image {
    type Batch = Tensor;

    fn collate(samples: Vec<Image>) -> Result<Tensor> {
        let [channels, height, width] = samples.first().map_or([0; 3], Image::shape);
        let shape = [samples.len(), channels, height, width];
        if try_numel(&shape).is_none() {
            return Err(Error::shape("collate", format!("a batch of shape {shape:?} is more than memory can hold")));
        }
        if let Some((index, image)) = samples.iter().enumerate().find(|(_, image)| image.shape() != shape[1..]) {
            let help = "; `Resize` makes them alike, `DataLoader::pad` fills them up, a `BucketSampler` keeps sizes apart";
            return Err(unlike(index, "image", &image.shape(), &&shape[1..], help));
        }
        let size = channels * height * width;
        Tensor::try_build(&shape, MemoryFormat::ChannelsLast, |out: &mut [f32]| {
            for (i, image) in samples.iter().enumerate() {
                image.write_to(&mut out[i * size..][..size]);
            }
            Ok(())
        })
    }

    fn parts(&mut self) -> Vec<Part<'_>> {
        vec![Part::Image(self)]
    }
}

/// Collates images of one size. Geometric transforms need images of one size in each sample, and
/// change all of them alike.
impl Collate for Vec<Image> {
    type Batch = Tensor;

    fn collate(samples: Vec<Vec<Image>>) -> Result<Tensor> {
        let (batch, count) = (samples.len(), common_count("the number of images of sample", &samples, "")?);
        let images = Image::collate(samples.into_iter().flatten().collect())?;
        let sizes = images.shape()[1..].to_vec();
        images.reshape([&[batch, count][..], &sizes].concat())
    }

    fn parts(&mut self) -> Vec<Part<'_>> {
        self.iter_mut().map(Part::Image).collect()
    }
}

impl Collate for Tensor {
    type Batch = Tensor;

    fn collate(samples: Vec<Tensor>) -> Result<Tensor> {
        let first = samples.first().map(|tensor| tensor.shape().to_vec()).unwrap_or_default();
        if let Some((index, tensor)) = samples.iter().enumerate().find(|(_, tensor)| tensor.shape() != first) {
            return Err(unlike(index, "tensor", &tensor.shape(), &first, ""));
        }
        Tensor::stack(&samples.iter().collect::<Vec<_>>(), 0)
    }

    fn size_in_memory(&mut self) -> usize {
        size_of::<Tensor>() + self.numel() * self.dtype().size()
    }
}

macro_rules! collate_numbers {
    ($($number:ty),+) => {
        $(impl Collate for $number {
            type Batch = Tensor;

            fn collate(samples: Vec<$number>) -> Result<Tensor> {
                let count = samples.len();
                Tensor::from_vec(samples, [count])
            }
        }

        impl Collate for Vec<$number> {
            type Batch = Tensor;

            fn collate(samples: Vec<Vec<$number>>) -> Result<Tensor> {
                rows(&samples, |&value| value)
            }

            fn size_in_memory(&mut self) -> usize {
                size_of::<Self>() + size_of_val(&self[..])
            }
        }

        impl Collate for Sequence<$number> {
            type Batch = Sequences;

            fn collate(samples: Vec<Sequence<$number>>) -> Result<Sequences> {
                let longest = samples.iter().map(|sequence| sequence.0.len()).max().unwrap_or(0);
                let lengths = samples.iter().map(|sequence| sequence.0.len() as i64).collect();
                let filled = |Sequence(mut values): Sequence<$number>| {
                    values.resize(longest, <$number>::default());
                    values
                };
                let samples: Vec<Vec<$number>> = samples.into_iter().map(filled).collect();
                Ok(Sequences { values: rows(&samples, |&value| value)?, lengths: i64::collate(lengths)? })
            }

            fn size_in_memory(&mut self) -> usize {
                size_of::<Self>() + size_of_val(&self.0[..])
            }
        })+
    };
}
collate_numbers!(i64, f32, f64);

impl Collate for Vec<bool> {
    type Batch = Tensor;

    fn collate(samples: Vec<Vec<bool>>) -> Result<Tensor> {
        rows(&samples, |&value| f32::from(u8::from(value)))
    }

    fn size_in_memory(&mut self) -> usize {
        size_of::<Self>() + self.len()
    }
}

/// Makes `[B, n]` of `B` lists of `n` values.
fn rows<T, E: Element>(samples: &[Vec<T>], convert: impl Fn(&T) -> E) -> Result<Tensor> {
    let length = common_count("the length of list", samples, "; a `Sequence` may have any length")?;
    let mut values = Vec::with_capacity(samples.len() * length);
    for list in samples {
        values.extend(list.iter().map(&convert));
    }
    Tensor::from_vec(values, [samples.len(), length])
}

impl Collate for Mask {
    type Batch = Tensor;

    fn collate(samples: Vec<Mask>) -> Result<Tensor> {
        let [height, width] = samples.first().map_or([0; 2], Mask::size);
        if let Some((index, mask)) = samples.iter().enumerate().find(|(_, mask)| mask.size() != [height, width]) {
            return Err(unlike(
                index,
                "mask",
                &mask.size(),
                &[height, width],
                "; `Resize` makes them alike, `DataLoader::pad` fills them up",
            ));
        }
        let classes = samples.iter().flat_map(Mask::classes).map(|&class| i64::from(class)).collect();
        Tensor::from_vec(classes, [samples.len(), height, width])
    }

    fn parts(&mut self) -> Vec<Part<'_>> {
        vec![Part::Mask(self)]
    }
}

impl Collate for Boxes {
    type Batch = Vec<Tensor>;

    fn collate(samples: Vec<Boxes>) -> Result<Vec<Tensor>> {
        samples.into_iter().map(|Boxes(corners)| Tensor::from_slice(corners.as_flattened(), [corners.len(), 4])).collect()
    }

    fn parts(&mut self) -> Vec<Part<'_>> {
        vec![Part::Boxes(self)]
    }
}

impl Collate for KeyPoints {
    type Batch = Tensor;

    fn collate(samples: Vec<KeyPoints>) -> Result<Tensor> {
        let count = samples.first().map_or(0, |points| points.0.len());
        if let Some((index, points)) = samples.iter().enumerate().find(|(_, points)| points.0.len() != count) {
            return Err(unlike(index, "the number of key points", &points.0.len(), &count, ""));
        }
        let values = samples.iter().flat_map(|points| points.0.as_flattened()).copied().collect();
        Tensor::from_vec(values, [samples.len(), count, 2])
    }

    fn parts(&mut self) -> Vec<Part<'_>> {
        vec![Part::KeyPoints(self)]
    }
}

impl<T: Collate> Collate for (Image, T) {
    type Batch = Batch<T::Batch>;

    fn collate(samples: Vec<(Image, T)>) -> Result<Batch<T::Batch>> {
        let (images, labels) = samples.into_iter().unzip();
        Ok(Batch { images: Image::collate(images)?, labels: T::collate(labels)? })
    }

    fn parts(&mut self) -> Vec<Part<'_>> {
        let mut parts = vec![Part::Image(&mut self.0)];
        parts.extend(self.1.parts());
        parts
    }

    fn size_in_memory(&mut self) -> usize {
        self.0.size_in_memory() + self.1.size_in_memory()
    }
}

impl<T: Collate, U: Collate> Collate for (Image, T, U) {
    type Batch = Batch<(T::Batch, U::Batch)>;

    fn collate(samples: Vec<(Image, T, U)>) -> Result<Self::Batch> {
        let (mut images, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
        for (image, t, u) in samples {
            images.push(image);
            first.push(t);
            second.push(u);
        }
        Ok(Batch { images: Image::collate(images)?, labels: (T::collate(first)?, U::collate(second)?) })
    }

    fn parts(&mut self) -> Vec<Part<'_>> {
        let mut parts = vec![Part::Image(&mut self.0)];
        parts.extend(self.1.parts());
        parts.extend(self.2.parts());
        parts
    }

    fn size_in_memory(&mut self) -> usize {
        self.0.size_in_memory() + self.1.size_in_memory() + self.2.size_in_memory()
    }
}

macro_rules! collate_pairs {
    ($($first:ty),+) => {
        $(impl<T: Collate> Collate for ($first, T) {
            type Batch = (<$first as Collate>::Batch, T::Batch);

            fn collate(samples: Vec<($first, T)>) -> Result<Self::Batch> {
                let (first, second) = samples.into_iter().unzip();
                Ok((<$first>::collate(first)?, T::collate(second)?))
            }

            fn parts(&mut self) -> Vec<Part<'_>> {
                let mut parts = self.0.parts();
                parts.extend(self.1.parts());
                parts
            }

            fn size_in_memory(&mut self) -> usize {
                self.0.size_in_memory() + self.1.size_in_memory()
            }
        })+
    };
}
collate_pairs!(Tensor, Vec<Image>, Sequence<i64>, Sequence<f32>, Sequence<f64>);

macro_rules! collate_tensors {
    ($($index:tt $list:ident),+) => {
        impl Collate for ($(replace_by_tensor!($index)),+) {
            type Batch = Self;

            fn collate(samples: Vec<Self>) -> Result<Self> {
                $(let mut $list = Vec::with_capacity(samples.len());)+
                for sample in samples {
                    $($list.push(sample.$index);)+
                }
                Ok(($(Tensor::collate($list)?),+))
            }

            fn size_in_memory(&mut self) -> usize {
                0 $(+ self.$index.size_in_memory())+
            }
        }
    };
}
macro_rules! replace_by_tensor {
    ($index:tt) => {
        Tensor
    };
}
collate_tensors!(0 a, 1 b, 2 c);
collate_tensors!(0 a, 1 b, 2 c, 3 d);

impl Collate for Vec<Tensor> {
    type Batch = Vec<Tensor>;

    fn collate(samples: Vec<Vec<Tensor>>) -> Result<Vec<Tensor>> {
        let count = common_count("the number of tensors of sample", &samples, "")?;
        (0..count).map(|i| Tensor::collate(samples.iter().map(|tensors| tensors[i].clone()).collect())).collect()
    }

    fn size_in_memory(&mut self) -> usize {
        size_of::<Self>() + self.iter_mut().map(Collate::size_in_memory).sum::<usize>()
    }
}
