//! The loader: batches, made ahead of time on worker threads.
//!
//! Worker threads claim batch numbers from a counter, make whole batches, and put them where the
//! consumer takes them in order. A worker waits when it is too far ahead of the consumer. Dropping
//! the iterator stops each worker after its current sample and joins it. The content of a batch
//! depends only on its number, the seed and the epoch, so the number of workers changes nothing but
//! the speed.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::iter::FusedIterator;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::rng::Purpose;
use super::{Dataset, Image, Rng, Transform};
use crate::error::{Error, Result};
use crate::tensor::shape::try_numel;
use crate::tensor::{MemoryFormat, Tensor};

/// A dataset for classification.
type LabelledImages = dyn Dataset<Sample = (Image, i64)>;

/// Images and labels of several samples.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[B, C, H, W]`, `f32`; channels-last in memory.
    pub images: Tensor,
    /// `[B]`, `i64`.
    pub labels: Tensor,
}

/// Turns a dataset into batches, epoch after epoch.
///
/// See [the module](super) for an example.
#[derive(Clone)]
pub struct DataLoader {
    dataset: Arc<LabelledImages>,
    batch: usize,
    seed: Option<u64>,
    workers: usize,
    prefetch: Option<usize>,
    drop_last: bool,
    transforms: Vec<Arc<dyn Transform>>,
}

impl DataLoader {
    /// Makes a loader of batches of `batch` samples, in the dataset's order, made on the calling
    /// thread. An `Arc` of a dataset is a dataset too.
    pub fn new(dataset: impl Dataset<Sample = (Image, i64)> + 'static, batch: usize) -> DataLoader {
        let dataset = Arc::new(dataset);
        DataLoader { dataset, batch, seed: None, workers: 0, prefetch: None, drop_last: false, transforms: Vec::new() }
    }

    /// Shuffles the samples, differently in each epoch. The seed decides the order and the random
    /// numbers of datasets and transforms; without this call they draw from seed 0.
    pub fn shuffle(mut self, seed: u64) -> DataLoader {
        self.seed = Some(seed);
        self
    }

    /// Sets the number of threads that make batches; 0, the default, makes them on the calling
    /// thread when they are asked for.
    pub fn workers(mut self, workers: usize) -> DataLoader {
        self.workers = workers;
        self
    }

    /// Sets how many batches the workers may be ahead, at least one; two for each worker by
    /// default. Without workers it has no effect.
    pub fn prefetch(mut self, batches: usize) -> DataLoader {
        self.prefetch = Some(batches);
        self
    }

    /// Sets whether to leave out the last batch when it is smaller than the others; off by default.
    pub fn drop_last(mut self, drop_last: bool) -> DataLoader {
        self.drop_last = drop_last;
        self
    }

    /// Appends a transform to those that every image passes through.
    pub fn transform(mut self, transform: impl Transform + 'static) -> DataLoader {
        self.transforms.push(Arc::new(transform));
        self
    }

    /// Returns the dataset.
    pub fn dataset(&self) -> &Arc<dyn Dataset<Sample = (Image, i64)>> {
        &self.dataset
    }

    /// Returns the number of batches in an epoch.
    pub fn len(&self) -> usize {
        self.batches_of(self.dataset.len())
    }

    fn batches_of(&self, samples: usize) -> usize {
        match self.batch {
            0 => 0,
            batch if self.drop_last => samples / batch,
            batch => samples.div_ceil(batch),
        }
    }

    /// Returns whether an epoch has no batches.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the batches of an epoch; workers start at once. The same seed and epoch give the
    /// same batches with any number of workers.
    ///
    /// # Errors
    /// The iterator ends with the first error: [`Error::Argument`] for batches of no samples,
    /// [`Error::Sample`] when the dataset or a transform fails or panics, or when an image's shape
    /// differs from that of the first in its batch.
    pub fn epoch(&self, epoch: u64) -> Epoch {
        let seed = self.seed.unwrap_or(0);
        let mut order: Vec<usize> = (0..self.dataset.len()).collect();
        if self.seed.is_some() {
            Rng::keyed(Purpose::Shuffle, seed, epoch, 0).shuffle(&mut order);
        }
        let count = self.batches_of(order.len());
        let builder = Arc::new(SampleBuilder {
            dataset: Arc::clone(&self.dataset),
            transforms: self.transforms.clone(),
            order,
            batch: self.batch,
            count,
            seed,
            epoch,
        });
        let window = self.prefetch.unwrap_or(self.workers.saturating_mul(2)).max(1);
        let pool = Pool::start(&builder, self.workers.min(window).min(count), window);
        let invalid = (self.batch == 0).then(|| Error::argument("data loader", "a batch needs at least one sample, got batches of 0"));
        Epoch { builder, pool, next: 0, invalid }
    }
}

impl fmt::Debug for DataLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataLoader({} samples, batches of {}, {} workers)", self.dataset.len(), self.batch, self.workers)
    }
}

/// What the batches of an epoch are made from.
struct SampleBuilder {
    dataset: Arc<LabelledImages>,
    transforms: Vec<Arc<dyn Transform>>,
    order: Vec<usize>,
    batch: usize,
    count: usize,
    seed: u64,
    epoch: u64,
}

impl SampleBuilder {
    /// Makes one batch, or fails early once it is not wanted. Panics inside of datasets and
    /// transforms become errors.
    fn make(&self, number: usize, wanted: impl Fn() -> bool) -> Result<Batch> {
        let start = number * self.batch;
        let samples = &self.order[start..self.order.len().min(start.saturating_add(self.batch))];
        let (first, label) = self.sample(samples[0])?;
        let mut labels = Vec::with_capacity(samples.len());
        labels.push(label);

        let [channels, height, width] = first.shape();
        let shape = [samples.len(), channels, height, width];
        if try_numel(&shape).is_none() {
            return Err(Error::shape("data loader", format!("a batch of shape {shape:?} is more than memory can hold")));
        }
        let images = Tensor::try_build(&shape, MemoryFormat::ChannelsLast, |out: &mut [f32]| {
            let size = first.pixels().len();
            out[..size].copy_from_slice(first.pixels());
            for (i, &index) in samples.iter().enumerate().skip(1) {
                if !wanted() {
                    return Err(Error::value("data loader", format!("batch {number} is not wanted any more")));
                }
                let (image, label) = self.sample(index)?;
                labels.push(label);
                if image.shape() != shape[1..] {
                    let message = format!(
                        "its shape is {:?}, the first of its batch (sample {}) has {:?}; a `Resize` makes them alike",
                        image.shape(),
                        samples[0],
                        &shape[1..]
                    );
                    return Err(of_sample(index, Error::shape("data loader", message)));
                }
                out[i * size..][..size].copy_from_slice(image.pixels());
            }
            Ok(())
        })?;
        Ok(Batch { images, labels: Tensor::from_slice(&labels, [labels.len()])? })
    }

    fn sample(&self, index: usize) -> Result<(Image, i64)> {
        let get = || {
            let mut rng = Rng::for_sample(self.seed, self.epoch, index as u64);
            let (mut image, label) = self.dataset.get(index, &mut rng)?;
            self.transforms.iter().try_for_each(|transform| transform.apply(&mut image, &mut rng))?;
            Ok((image, label))
        };
        let get = || Rng::tensors_of_sample(self.seed, self.epoch, index as u64, get);
        panic::catch_unwind(AssertUnwindSafe(get))
            .unwrap_or_else(|panic| {
                Err(Error::value("data loader", format!("the dataset or a transform panicked: {}", message_of(&*panic))))
            })
            .map_err(|error| of_sample(index, error))
    }
}

fn of_sample(index: usize, error: Error) -> Error {
    Error::Sample { index, source: Box::new(error) }
}

/// Returns the message of a panic.
fn message_of(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

/// The batches of one epoch, in order.
pub struct Epoch {
    builder: Arc<SampleBuilder>,
    /// `None` makes batches on the calling thread.
    pool: Option<Pool>,
    next: usize,
    invalid: Option<Error>,
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        if let Some(error) = self.invalid.take() {
            return Some(Err(error));
        }
        if self.next >= self.builder.count {
            return None;
        }
        let batch = match &self.pool {
            Some(pool) => pool.shared.take(self.next),
            None => self.builder.make(self.next, || true),
        };
        self.next = if batch.is_ok() { self.next + 1 } else { self.builder.count };
        if self.next == self.builder.count {
            self.pool = None;
        }
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // The lower bound is 1, since an error ends the iterator.
        let left = self.builder.count - self.next.min(self.builder.count) + usize::from(self.invalid.is_some());
        (left.min(1), Some(left))
    }
}

impl FusedIterator for Epoch {}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch {} (batch {} of {})", self.builder.epoch, self.next, self.builder.count)
    }
}

/// Worker threads; dropping it stops and joins them.
struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// A batch is ready.
    ready: Condvar,
    /// A batch may be claimed, or it is time to stop.
    room: Condvar,
    window: usize,
    /// Batches from this number on are not wanted: the epoch was dropped (0), or one has failed.
    end: AtomicUsize,
}

#[derive(Default)]
struct State {
    batches: BTreeMap<usize, Result<Batch>>,
    claimed: usize,
    taken: usize,
}

impl Pool {
    /// Starts workers. When the system gives fewer threads than asked for, the started ones do the
    /// work; without any, the caller does.
    fn start(builder: &Arc<SampleBuilder>, workers: usize, window: usize) -> Option<Pool> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            ready: Condvar::new(),
            room: Condvar::new(),
            window,
            end: AtomicUsize::new(builder.count),
        });
        let start = |i| {
            let (shared, builder) = (Arc::clone(&shared), Arc::clone(builder));
            thread::Builder::new().name(format!("convnet-data-{i}")).spawn(move || shared.work(&builder)).ok()
        };
        let threads: Vec<JoinHandle<()>> = (0..workers).map_while(start).collect();
        (!threads.is_empty()).then_some(Pool { shared, threads })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.end_at(0);
        for thread in self.threads.drain(..) {
            // Workers do not panic: `SampleBuilder::sample` catches panics of users' code.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, builder: &SampleBuilder) {
        while let Some(number) = self.claim() {
            let wanted = || number < self.end.load(Ordering::Relaxed);
            // A panic must become a batch too, or the consumer would wait for ever.
            let batch = panic::catch_unwind(AssertUnwindSafe(|| builder.make(number, wanted)))
                .unwrap_or_else(|panic| Err(Error::value("data loader", format!("batch {number}: {}", message_of(&*panic)))));
            if !wanted() {
                return;
            }
            let failed = batch.is_err();
            self.lock().batches.insert(number, batch);
            self.ready.notify_all();
            if failed {
                // The epoch ends with the first error; batches before this one are still wanted.
                self.end_at(number);
            }
        }
    }

    /// Stops the work on batches from this number on.
    fn end_at(&self, number: usize) {
        // The lock is held, so that no worker is between reading the end and going to sleep.
        let _state = self.lock();
        self.end.fetch_min(number, Ordering::Relaxed);
        self.room.notify_all();
    }

    /// Returns the number of the next batch to make, once it is within the window; `None` at the
    /// end.
    fn claim(&self) -> Option<usize> {
        let mut state = self.lock();
        loop {
            if state.claimed >= self.end.load(Ordering::Relaxed) {
                return None;
            }
            if state.claimed - state.taken < self.window {
                state.claimed += 1;
                return Some(state.claimed - 1);
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for a batch and returns it.
    fn take(&self, number: usize) -> Result<Batch> {
        let mut state = self.lock();
        loop {
            if let Some(batch) = state.batches.remove(&number) {
                state.taken = number + 1;
                drop(state);
                self.room.notify_all();
                return batch;
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
