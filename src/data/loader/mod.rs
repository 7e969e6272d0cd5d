//! The loader: batches, made ahead of time on worker threads.
//!
//! The content of a batch depends only on its number, the seed and the epoch, so the number of
//! workers changes nothing but the speed. Dropping the iterator stops each worker after its current
//! sample and joins it.

mod builder;
mod pool;

use std::fmt;
use std::iter::FusedIterator;
use std::sync::{Arc, PoisonError};

use self::builder::{BatchBuilder, Failures};
use self::pool::Pool;
use super::rng::Purpose;
use super::samplers::{Batches, RandomSampler, Sampler, SequentialSampler, Share};
use super::{BatchTransform, Collate, Dataset, Image, Rng, Transform};
use crate::error::{Error, Result};

/// What becomes of a sample that cannot be read or transformed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The epoch ends with the error.
    #[default]
    Fail,
    /// The sample is left out; its batch is smaller.
    Skip,
    /// The next sample of the dataset takes its place.
    Replace,
}

/// Turns a dataset into batches, epoch after epoch.
///
/// The type of a batch follows from the type of the samples, `S`: see [`Collate`]. See [the
/// module](super) for an example.
pub struct DataLoader<S: Collate = (Image, i64)> {
    dataset: Arc<dyn Dataset<Sample = S>>,
    batch: usize,
    seed: u64,
    sampler: Option<Arc<dyn Sampler>>,
    workers: usize,
    prefetch: Option<usize>,
    drop_last: bool,
    transforms: Vec<Arc<dyn Transform>>,
    batch_transforms: Vec<Arc<dyn BatchTransform<S::Batch>>>,
    pad: Option<f32>,
    on_error: OnError,
    failures: Failures,
}

impl<S: Collate> DataLoader<S> {
    /// Makes a loader of batches of `batch` samples, in the dataset's order, made on the calling
    /// thread. An `Arc` of a dataset is a dataset too.
    pub fn new(dataset: impl Dataset<Sample = S> + 'static, batch: usize) -> DataLoader<S> {
        DataLoader {
            dataset: Arc::new(dataset),
            batch,
            seed: 0,
            sampler: None,
            workers: 0,
            prefetch: None,
            drop_last: false,
            transforms: Vec::new(),
            batch_transforms: Vec::new(),
            pad: None,
            on_error: OnError::Fail,
            failures: Arc::default(),
        }
    }

    /// Shuffles the samples, differently in each epoch. The seed decides the order and the random
    /// numbers of datasets and transforms; without this call they draw from seed 0.
    pub fn shuffle(self, seed: u64) -> DataLoader<S> {
        let samples = self.dataset.len();
        self.seed(seed).sampler(RandomSampler::new(samples))
    }

    /// Sets the seed of samplers, datasets and transforms; 0 by default.
    pub fn seed(mut self, seed: u64) -> DataLoader<S> {
        self.seed = seed;
        self
    }

    /// Sets which samples an epoch has, and in what order.
    pub fn sampler(mut self, sampler: impl Sampler + 'static) -> DataLoader<S> {
        self.sampler = Some(Arc::new(sampler));
        self
    }

    /// Sets the number of threads that make batches; 0, the default, makes them on the calling
    /// thread when they are asked for.
    pub fn workers(mut self, workers: usize) -> DataLoader<S> {
        self.workers = workers;
        self
    }

    /// Sets how many batches the workers may be ahead, at least one; two for each worker by
    /// default. Without workers it has no effect.
    pub fn prefetch(mut self, batches: usize) -> DataLoader<S> {
        self.prefetch = Some(batches);
        self
    }

    /// Sets whether to leave out the last batch when it is smaller than the others; off by default.
    pub fn drop_last(mut self, drop_last: bool) -> DataLoader<S> {
        self.drop_last = drop_last;
        self
    }

    /// Appends a transform to those that every sample passes through. Masks, boxes and key points
    /// move with their image.
    pub fn transform(mut self, transform: impl Transform + 'static) -> DataLoader<S> {
        self.transforms.push(Arc::new(transform));
        self
    }

    /// Appends a change of whole batches, such as [`MixUp`](super::MixUp); it runs where the batch
    /// is made.
    ///
    /// ```
    /// use convnet::data::{Batch, DataLoader, Digits, Rng};
    ///
    /// let noisy = |Batch { images, labels }: Batch, rng: &mut Rng| {
    ///     Ok(Batch { images: &images + rng.uniform(-0.1, 0.1), labels })
    /// };
    /// let loader = DataLoader::new(Digits::train(), 32).transform_batch(noisy);
    /// # assert!(loader.epoch(0).next().expect("45 batches")?.images.shape() == [32, 1, 8, 8]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn transform_batch(mut self, transform: impl BatchTransform<S::Batch> + 'static) -> DataLoader<S> {
        self.batch_transforms.push(Arc::new(transform));
        self
    }

    /// Fills up the images of a batch, and their masks, at the right and lower ends to the size of
    /// the largest; `fill` is a number of 255ths. Masks are filled with
    /// [`Mask::IGNORE`](super::Mask::IGNORE). Off by default.
    pub fn pad(mut self, fill: f32) -> DataLoader<S> {
        self.pad = Some(fill);
        self
    }

    /// Sets what becomes of a sample that cannot be read or transformed; by default it ends the
    /// epoch. [`failures`](DataLoader::failures) names such samples.
    pub fn on_error(mut self, on_error: OnError) -> DataLoader<S> {
        self.on_error = on_error;
        self
    }

    /// Returns the errors of samples that were skipped or replaced since the last call, each with
    /// the sample's index and name, in the order of the dataset. A sample that failed several
    /// times, as once in each epoch, has its first error. Clones of a loader share the errors.
    pub fn failures(&self) -> Vec<Error> {
        std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner)).into_values().collect()
    }

    /// Returns the number of samples that were skipped or replaced since the last call of
    /// [`failures`](DataLoader::failures), by this loader or another one.
    pub(crate) fn num_failures(&self, other: Option<&DataLoader<S>>) -> usize {
        let number = |loader: &DataLoader<S>| loader.failures.lock().unwrap_or_else(PoisonError::into_inner).len();
        let other = other.filter(|other| !Arc::ptr_eq(&self.failures, &other.failures));
        number(self) + other.map_or(0, number)
    }

    /// Returns the dataset.
    pub fn dataset(&self) -> &Arc<dyn Dataset<Sample = S>> {
        &self.dataset
    }

    /// Returns the number of samples in a batch, apart from a last one that is smaller.
    pub fn batch_size(&self) -> usize {
        self.batch
    }

    /// Returns the number of batches in an epoch; 0 when the arguments make no sense. With a
    /// sampler whose number of batches differs between epochs, it is that of epoch 0.
    pub fn len(&self) -> usize {
        self.num_batches().unwrap_or(0)
    }

    /// Returns the number of batches in an epoch, for which few samplers have to draw the epoch.
    pub(crate) fn num_batches(&self) -> Result<usize> {
        let known = match &self.sampler {
            Some(sampler) => sampler.num_batches(self.batch, self.drop_last),
            None => SequentialSampler::new(self.dataset.len()).num_batches(self.batch, self.drop_last),
        };
        match known {
            Some(batches) if self.batch > 0 => Ok(batches),
            _ => Ok(self.batches(0)?.len()),
        }
    }

    /// Returns whether an epoch has no batches.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the samples of each batch of an epoch.
    ///
    /// # Errors
    /// [`Error::Argument`] for batches of no samples, and when the sampler's arguments make no
    /// sense.
    pub fn batches(&self, epoch: u64) -> Result<Batches> {
        if self.batch == 0 {
            return Err(Error::argument("data loader", "a batch needs at least one sample, got batches of 0"));
        }
        let mut rng = Rng::keyed(Purpose::Shuffle, self.seed, epoch, 0);
        match &self.sampler {
            Some(sampler) => sampler.batches(self.batch, self.drop_last, &mut rng),
            None => SequentialSampler::new(self.dataset.len()).batches(self.batch, self.drop_last, &mut rng),
        }
    }

    /// Returns the batches of an epoch; workers start at once. The same seed and epoch give the
    /// same batches with any number of workers.
    ///
    /// # Errors
    /// The iterator ends with the first error: [`Error::Argument`] for batches of no samples and
    /// samplers whose arguments make no sense, [`Error::Sample`] when the dataset or a transform
    /// fails or panics, [`Error::Context`] with the samples' indices when they cannot be put into
    /// one batch, such as images of several sizes.
    pub fn epoch(&self, epoch: u64) -> Epoch<S> {
        self.epoch_from(epoch, 0)
    }

    /// Returns the batches of an epoch from one in the middle, the same that
    /// [`epoch`](DataLoader::epoch) gives there. The ones before cost nothing.
    ///
    /// # Errors
    /// The iterator ends with the first error, as [`epoch`](DataLoader::epoch) does.
    pub fn epoch_from(&self, epoch: u64, first: usize) -> Epoch<S> {
        self.share_from(epoch, first, 1, Share::ALL)
    }

    /// Returns the batches of an epoch that belong to a share, each cut into `parts`, which count
    /// as batches; `first` is a position in the share.
    pub(crate) fn share_from(&self, epoch: u64, first: usize, parts: usize, share: Share) -> Epoch<S> {
        let (batches, invalid) = match self.batches(epoch) {
            Ok(batches) if parts == 1 => (batches, None),
            Ok(batches) => (batches.split(parts), None),
            Err(error) => (Batches::default(), Some(error)),
        };
        let count = share.len(batches.len());
        let builder = Arc::new(BatchBuilder {
            dataset: Arc::clone(&self.dataset),
            transforms: self.transforms.clone(),
            batch_transforms: self.batch_transforms.clone(),
            pad: self.pad,
            on_error: self.on_error,
            failures: Arc::clone(&self.failures),
            batches,
            share,
            seed: self.seed,
            epoch,
        });
        let window = self.prefetch.unwrap_or(self.workers.saturating_mul(2)).max(1);
        let workers = self.workers.min(window).min(count.saturating_sub(first));
        let pool = Pool::start(&builder, workers, window, first);
        Epoch { builder, pool, next: first.min(count), samples: 0, invalid }
    }
}

impl<S: Collate> Clone for DataLoader<S> {
    fn clone(&self) -> DataLoader<S> {
        DataLoader {
            dataset: Arc::clone(&self.dataset),
            sampler: self.sampler.clone(),
            transforms: self.transforms.clone(),
            batch_transforms: self.batch_transforms.clone(),
            failures: Arc::clone(&self.failures),
            ..*self
        }
    }
}

impl<S: Collate> fmt::Debug for DataLoader<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataLoader({} samples, batches of {}, {} workers)", self.dataset.len(), self.batch, self.workers)
    }
}

/// The batches of one epoch, in order.
pub struct Epoch<S: Collate = (Image, i64)> {
    builder: Arc<BatchBuilder<S>>,
    /// `None` makes batches on the calling thread.
    pool: Option<Pool<S::Batch>>,
    next: usize,
    /// The number of samples in the batch that was returned last.
    samples: usize,
    invalid: Option<Error>,
}

impl<S: Collate> Epoch<S> {
    /// Returns the number of the next batch.
    pub fn position(&self) -> usize {
        self.next
    }

    /// Returns the number of samples in the batch that was returned last, of which some may have
    /// been [skipped](OnError::Skip); 0 before the first.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Returns the indices of a batch's samples in the dataset, of those that were skipped too.
    pub fn indices(&self, batch: usize) -> &[usize] {
        self.builder.batches.get(self.builder.share.number(batch))
    }
}

impl<S: Collate> Epoch<S> {
    /// Returns whether there are no more batches; false before an error.
    pub(crate) fn is_finished(&self) -> bool {
        self.invalid.is_none() && self.next >= self.builder.len()
    }

    /// Returns the indices of the samples of a batch by its number among those of all shares.
    pub(crate) fn indices_of_number(&self, number: usize) -> &[usize] {
        self.builder.batches.get(number)
    }

    /// Returns the next batch, as nothing when it has no samples.
    pub(crate) fn take_next(&mut self) -> Option<Result<Option<S::Batch>>> {
        if let Some(error) = self.invalid.take() {
            return Some(Err(error));
        }
        let count = self.builder.len();
        if self.next >= count {
            return None;
        }
        let batch = match &self.pool {
            Some(pool) => pool.take(self.next),
            None => self.builder.make(self.next, || true),
        };
        self.next = if batch.is_ok() { self.next + 1 } else { count };
        if self.next == count {
            self.pool = None;
        }
        let made = match batch {
            Ok(made) => made,
            Err(error) => return Some(Err(error)),
        };
        self.samples = made.as_ref().map_or(0, |made| made.samples);
        Some(Ok(made.map(|made| made.batch)))
    }
}

impl<S: Collate> Iterator for Epoch<S> {
    type Item = Result<S::Batch>;

    fn next(&mut self) -> Option<Result<S::Batch>> {
        // A batch whose samples were all skipped is passed over.
        std::iter::from_fn(|| self.take_next()).find_map(Result::transpose)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.builder.len() - self.next + usize::from(self.invalid.is_some());
        // The lower bound is 1, since an error ends the iterator; 0 when batches may be skipped.
        let least = if self.builder.on_error == OnError::Skip { 0 } else { left.min(1) };
        (least, Some(left))
    }
}

impl<S: Collate> FusedIterator for Epoch<S> {}

impl<S: Collate> fmt::Debug for Epoch<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch {} (batch {} of {})", self.builder.epoch, self.next, self.builder.len())
    }
}
