//! How one batch is made of samples.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};

use super::OnError;
use crate::data::annotations::Part;
use crate::data::rng::Purpose;
use crate::data::samplers::{Batches, Share};
use crate::data::transforms::pad_to;
use crate::data::{BatchTransform, Collate, Dataset, Rng, Transform};
use crate::error::{Context as _, Error, Result};

/// What the batches of an epoch are made from.
pub(super) struct BatchBuilder<S: Collate> {
    pub(super) dataset: Arc<dyn Dataset<Sample = S>>,
    pub(super) transforms: Vec<Arc<dyn Transform>>,
    pub(super) batch_transforms: Vec<Arc<dyn BatchTransform<S::Batch>>>,
    pub(super) pad: Option<f32>,
    pub(super) on_error: OnError,
    pub(super) failures: Failures,
    pub(super) batches: Batches,
    /// The batches that this loader makes.
    pub(super) share: Share,
    pub(super) seed: u64,
    pub(super) epoch: u64,
}

/// The first error of each sample that was skipped or replaced, by the sample's index.
pub(super) type Failures = Arc<Mutex<BTreeMap<usize, Error>>>;

/// A batch that was made.
pub(super) struct Made<B> {
    pub(super) batch: B,
    /// The number of its samples, without those that were skipped.
    pub(super) samples: usize,
}

impl<S: Collate> BatchBuilder<S> {
    /// Returns the number of batches in the share.
    pub(super) fn len(&self) -> usize {
        self.share.len(self.batches.len())
    }

    /// Makes the batch at a position in the share, or fails early once it is not wanted. Panics
    /// inside of datasets and transforms become errors. `None` when all its samples were skipped.
    pub(super) fn make(&self, position: usize, wanted: impl Fn() -> bool) -> Result<Option<Made<S::Batch>>> {
        let number = self.share.number(position);
        let indices = self.batches.get(number);
        let mut samples = Vec::with_capacity(indices.len());
        for &index in indices {
            if !wanted() {
                return Err(Error::value("data loader", format!("batch {number} is not wanted any more")));
            }
            samples.extend(self.sample_or_substitute(index)?);
        }
        let count = samples.len();
        if count == 0 {
            return Ok(None);
        }
        let finish = || {
            if let Some(fill) = self.pad {
                pad_to_largest(&mut samples, fill)?;
            }
            let mut batch = S::collate(samples)?;
            let mut rng = Rng::keyed(Purpose::Batches, self.seed, self.epoch, number as u64);
            for transform in &self.batch_transforms {
                batch = transform.apply(batch, &mut rng)?;
            }
            Ok(Some(Made { batch, samples: count }))
        };
        let finish = || Rng::lend(Purpose::BatchTensors, self.seed, self.epoch, number as u64, finish);
        catching(finish).with_context(|| format!("batch {number} of samples {}", shortened(indices)))
    }

    /// Returns a sample, or what stands for it when it cannot be had.
    fn sample_or_substitute(&self, index: usize) -> Result<Option<S>> {
        let count = match self.on_error {
            OnError::Fail | OnError::Skip => 1,
            OnError::Replace => self.dataset.len(),
        };
        for step in 0..count {
            let index = (index + step) % self.dataset.len().max(1);
            match self.sample(index) {
                Ok(sample) => return Ok(Some(sample)),
                Err(error) if self.on_error == OnError::Fail => return Err(error),
                Err(error) => {
                    self.failures.lock().unwrap_or_else(PoisonError::into_inner).entry(index).or_insert(error);
                }
            }
        }
        match self.on_error {
            OnError::Skip => Ok(None),
            _ => Err(Error::value("data loader", "no sample of the dataset can be read")),
        }
    }

    fn sample(&self, index: usize) -> Result<S> {
        let get = || {
            let mut rng = Rng::for_sample(self.seed, self.epoch, index as u64);
            let mut sample = self.dataset.get(index, &mut rng)?;
            if !self.transforms.is_empty() {
                let mut parts = sample.parts();
                match &mut parts[..] {
                    [] => {}
                    [Part::Image(image)] => self.transforms.iter().try_for_each(|transform| transform.apply(image, &mut rng))?,
                    parts => self.transforms.iter().try_for_each(|transform| transform.apply_to_parts(parts, &mut rng))?,
                }
            }
            Ok(sample)
        };
        let get = || Rng::lend(Purpose::Tensors, self.seed, self.epoch, index as u64, get);
        catching(get).map_err(|error| {
            let name = self.dataset.name(index);
            let name = if error.to_string().contains(&name) { String::new() } else { name };
            Error::Sample { index, name, source: Box::new(error) }
        })
    }
}

/// Turns a panic of users' code into an error.
fn catching<R>(body: impl FnOnce() -> Result<R>) -> Result<R> {
    panic::catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|panic| Err(Error::value("data loader", format!("the dataset or a transform panicked: {}", message_of(&*panic)))))
}

/// Returns the message of a panic.
pub(super) fn message_of(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

/// Lists at most four indices.
fn shortened(indices: &[usize]) -> String {
    let mut list: Vec<String> = indices.iter().take(4).map(usize::to_string).collect();
    if indices.len() > 4 {
        list.push(format!("… ({} in all)", indices.len()));
    }
    list.join(", ")
}

/// Fills images and masks up at their right and lower ends, so that all are as large as the largest
/// of each side.
fn pad_to_largest<S: Collate>(samples: &mut [S], fill: f32) -> Result<()> {
    let mut largest = [0, 0];
    for sample in samples.iter_mut() {
        for [height, width] in sample.parts().iter().filter_map(Part::size) {
            largest = [largest[0].max(height), largest[1].max(width)];
        }
    }
    samples.iter_mut().try_for_each(|sample| pad_to(&mut sample.parts(), largest, fill))
}
