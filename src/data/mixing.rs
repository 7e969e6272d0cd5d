//! Changes of whole batches: mixtures of images and of their labels.

use super::{Batch, Rng};
use crate::error::{Error, Result};
use crate::kernels::runtime::simd::vectorize;
use crate::tensor::{DType, MemoryFormat, Tensor};

/// Changes a batch, at random or not; see
/// [`DataLoader::transform_batch`](super::DataLoader::transform_batch).
///
/// Random numbers come from `rng`, which belongs to the batch alone. A closure of a batch and `&mut
/// Rng` that returns the new batch is one too.
///
/// ```
/// use convnet::data::{Batch, CutMix, DataLoader, Digits, MixUp, Rng};
///
/// let (mixup, cutmix) = (MixUp::new(0.2, 10), CutMix::new(1.0, 10));
/// let either = move |batch: Batch, rng: &mut Rng| {
///     if rng.chance(0.5) { mixup.apply(batch, rng) } else { cutmix.apply(batch, rng) }
/// };
/// let loader = DataLoader::new(Digits::train(), 32).shuffle(0).transform_batch(either);
/// assert_eq!(loader.epoch(0).next().expect("45 batches")?.labels.shape(), [32, 10]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub trait BatchTransform<B>: Send + Sync {
    /// Changes a batch.
    ///
    /// # Errors
    /// When the transform's arguments make no sense, or do not fit the batch.
    fn apply(&self, batch: B, rng: &mut Rng) -> Result<B>;
}

impl<B, F: Fn(B, &mut Rng) -> Result<B> + Send + Sync> BatchTransform<B> for F {
    fn apply(&self, batch: B, rng: &mut Rng) -> Result<B> {
        self(batch, rng)
    }
}

/// Mixes each image, and its label, with the one before it in the batch (torchvision's `MixUp`;
/// Zhang et al., 2017).
///
/// The part of an image itself, the same for all of a batch, is drawn from the distribution Beta(α,
/// α). Labels become probabilities `[B, K]`, `f32`, which
/// [`cross_entropy`](Tensor::cross_entropy) takes. The samples should be shuffled.
///
/// ```
/// use convnet::data::{DataLoader, Digits, MixUp};
///
/// let loader = DataLoader::new(Digits::train(), 32).shuffle(0).transform_batch(MixUp::new(0.2, 10));
/// let batch = loader.epoch(0).next().expect("45 batches")?;
/// assert_eq!(batch.labels.shape(), [32, 10]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] when α is not positive, [`Error::Shape`] when labels are
/// neither `[B]` nor `[B, K]`, [`Error::DType`] when they are neither `i64` class numbers nor
/// floating point probabilities, [`Error::Value`] for a label that is not a class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MixUp {
    alpha: f64,
    classes: usize,
}

/// Puts a rectangle of the image before it in the batch into each image, and mixes the labels in
/// proportion to the areas (torchvision's `CutMix`; Yun et al., 2019).
///
/// The part of an image that stays is drawn from the distribution Beta(α, α), and the place of the
/// rectangle uniformly; both are the same for all of a batch. The rectangle is cut off at the
/// border. Labels are as for [`MixUp`].
///
/// ```
/// use convnet::data::{CutMix, DataLoader, Digits};
///
/// let loader = DataLoader::new(Digits::train(), 32).shuffle(0).transform_batch(CutMix::new(1.0, 10));
/// let batch = loader.epoch(0).next().expect("45 batches")?;
/// assert_eq!(batch.labels.shape(), [32, 10]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// As [`MixUp`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CutMix {
    alpha: f64,
    classes: usize,
}

macro_rules! mixture {
    ($($name:ident),+) => {
        $(impl $name {
            /// Makes a mixture with α of the Beta distribution, 1 by default in torchvision, and
            /// this number of classes.
            pub fn new(alpha: f64, num_classes: usize) -> $name {
                $name { alpha, classes: num_classes }
            }
        }

        impl BatchTransform<Batch> for $name {
            fn apply(&self, batch: Batch, rng: &mut Rng) -> Result<Batch> {
                $name::apply(self, batch, rng)
            }
        })+
    };
}
mixture!(MixUp, CutMix);

impl MixUp {
    /// Mixes a batch.
    ///
    /// # Errors
    /// As the type says.
    pub fn apply(&self, batch: Batch, rng: &mut Rng) -> Result<Batch> {
        let own = beta("mix up", self.alpha, rng)?;
        self.mix(batch, own)
    }

    /// Mixes a batch by a given share, from 0 to 1, of an image itself, in place of a drawn one.
    ///
    /// ```
    /// use convnet::Tensor;
    /// use convnet::data::{Batch, MixUp};
    ///
    /// let batch = Batch { images: Tensor::ones([2, 3, 8, 8]), labels: Tensor::from_vec(vec![0i64, 1], [2])? };
    /// let mixed = MixUp::new(1.0, 2).mix(batch, 0.75)?;
    /// assert_eq!(mixed.labels.to_vec::<f32>()?, [0.75, 0.25, 0.25, 0.75]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] for another share, and the errors of labels that the type has.
    pub fn mix(&self, Batch { images, labels }: Batch, own: f64) -> Result<Batch> {
        const OP: &str = "mix up";
        check_share(OP, own)?;
        let labels = probabilities(OP, &labels, self.classes, images.shape())?;
        Ok(Batch { images: mixed(&images, own)?, labels: mixed(&labels, own)? })
    }
}

impl CutMix {
    /// Mixes a batch.
    ///
    /// # Errors
    /// As the type says.
    pub fn apply(&self, batch: Batch, rng: &mut Rng) -> Result<Batch> {
        let own = beta("cut mix", self.alpha, rng)?;
        // `mix` refuses images of another number of dimensions.
        let [height, width] = match *batch.images.shape() {
            [_, _, height, width] => [height, width].map(|length| length.max(1)),
            _ => [1; 2],
        };
        let column = rng.below(width);
        self.mix(batch, own, [rng.below(height), column])
    }

    /// Mixes a batch by a rectangle around a given row and column, of which `own`, from 0 to 1, is
    /// the share of the area that stays before the rectangle is cut off at the border.
    ///
    /// # Errors
    /// [`Error::Argument`] for another share, or a centre that is not in the image, and the errors
    /// of labels that the type has.
    pub fn mix(&self, Batch { images, labels }: Batch, own: f64, [y, x]: [usize; 2]) -> Result<Batch> {
        const OP: &str = "cut mix";
        check_share(OP, own)?;
        let labels = probabilities(OP, &labels, self.classes, images.shape())?;
        let &[count, channels, height, width] = images.shape() else {
            return Err(Error::shape(OP, format!("expected images [B, C, H, W], got shape {:?}", images.shape())));
        };
        if images.numel() > 0 && (y >= height || x >= width) {
            return Err(Error::argument(OP, format!("row {y}, column {x} is not in images of {height}×{width}")));
        }
        let half = 0.5 * (1.0 - own).sqrt();
        let range = |centre: usize, length: usize| {
            let reach = (half * length as f64) as usize;
            centre.saturating_sub(reach)..(centre + reach).min(length)
        };
        let (rows, columns) = (range(y, height), range(x, width));
        let pasted = rows.len() * columns.len();
        let own = if pasted == 0 { 1.0 } else { 1.0 - pasted as f64 / (height * width) as f64 };
        let images = images.to_dtype(DType::F32)?.to_format(MemoryFormat::ChannelsLast)?;
        let (old, size) = (images.data::<f32>(), channels * height * width);
        let images = Tensor::build(images.shape(), MemoryFormat::ChannelsLast, |new: &mut [f32]| {
            new.copy_from_slice(old);
            for sample in 0..count {
                let before = (sample + count - 1) % count;
                for row in rows.clone() {
                    let start = (row * width + columns.start) * channels;
                    let length = columns.len() * channels;
                    new[sample * size + start..][..length].copy_from_slice(&old[before * size + start..][..length]);
                }
            }
        })?;
        Ok(Batch { images, labels: mixed(&labels, own)? })
    }
}

/// Returns labels as probabilities `[B, K]`, `f32`.
fn probabilities(op: &'static str, labels: &Tensor, classes: usize, images: &[usize]) -> Result<Tensor> {
    let Some(&count) = images.first() else {
        return Err(Error::shape(op, "expected images [B, …], got a tensor without dimensions"));
    };
    match *labels.shape() {
        [samples] if samples == count => {
            if labels.dtype() != DType::I64 {
                let expected = "class numbers, which are i64, or probabilities [B, K]";
                return Err(Error::DType { op, expected, got: labels.dtype() });
            }
            let labels: Vec<i64> = labels.to_vec()?;
            if let Some(label) = labels.iter().find(|label| !(0..classes as i64).contains(label)) {
                return Err(Error::value(op, format!("label {label} is outside 0..{classes}: the mixture was made for {classes} classes")));
            }
            Tensor::build(&[samples, classes], MemoryFormat::RowMajor, |out: &mut [f32]| {
                out.fill(0.0);
                labels.iter().enumerate().for_each(|(row, &label)| out[row * classes + label as usize] = 1.0);
            })
        }
        [samples, width] if samples == count && width == classes => {
            if !labels.dtype().is_float() {
                return Err(Error::DType { op, expected: "probabilities of f32 or f64", got: labels.dtype() });
            }
            labels.to_dtype(DType::F32)?.to_format(MemoryFormat::RowMajor)
        }
        _ => {
            let message =
                format!("{count} images and {classes} classes want labels [{count}] or [{count}, {classes}], got {:?}", labels.shape());
            Err(Error::shape(op, message))
        }
    }
}

/// Computes `own · x + (1 - own) · (the sample before)`, for each sample.
fn mixed(x: &Tensor, own: f64) -> Result<Tensor> {
    let x = x.to_dtype(DType::F32)?;
    let (count, values) = (x.shape()[0], x.data::<f32>());
    let (own, other) = (own as f32, (1.0 - own) as f32);
    let size = values.len() / count.max(1);
    Tensor::build(x.shape(), x.memory_format(), |out: &mut [f32]| {
        for (sample, out) in out.chunks_exact_mut(size.max(1)).enumerate() {
            let (this, before) = (&values[sample * size..][..size], &values[(sample + count - 1) % count * size..][..size]);
            vectorize!(f32, {
                for ((out, this), before) in out.iter_mut().zip(this).zip(before) {
                    *out = other * before + own * this;
                }
            });
        }
    })
}

/// Checks the share of an image itself in a mixture.
fn check_share(op: &'static str, own: f64) -> Result<()> {
    if (0.0..=1.0).contains(&own) {
        return Ok(());
    }
    Err(Error::argument(op, format!("the share of an image itself is from 0 to 1, got {own}")))
}

/// Draws a number of the distribution Beta(α, α).
fn beta(op: &'static str, alpha: f64, rng: &mut Rng) -> Result<f64> {
    if !(alpha > 0.0 && alpha.is_finite()) {
        return Err(Error::argument(op, format!("alpha must be positive and finite, got {alpha}")));
    }
    Ok(rng.dirichlet(&[alpha; 2])[0])
}
