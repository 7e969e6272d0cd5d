//! Datasets in tensors, changed samples, and samples that are kept in memory.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::data::{Collate, Dataset, Rng};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Samples in tensors whose first dimension counts them (PyTorch's `TensorDataset`): inputs and
/// targets, one tensor alone, or more.
///
/// ```
/// use convnet::Tensor;
/// use convnet::data::{DataLoader, TensorDataset};
///
/// let dataset = TensorDataset::new(Tensor::randn([100, 3, 8, 8]), Tensor::zeros([100]))?;
/// let (inputs, targets) = DataLoader::new(dataset, 32).shuffle(0).epoch(0).next().expect("four batches")?;
/// assert!(inputs.shape() == [32, 3, 8, 8] && targets.shape() == [32]);
///
/// let alone = TensorDataset::of(Tensor::randn([100, 16]))?;
/// let batch = DataLoader::new(alone, 32).epoch(0).next().expect("four batches")?;
/// assert!(batch.shape() == [32, 16]);
///
/// let three = TensorDataset::of((Tensor::randn([10, 4]), Tensor::zeros([10]), Tensor::ones([10, 2])))?;
/// let (inputs, targets, weights) = DataLoader::new(three, 5).epoch(0).next().expect("two batches")?;
/// assert!(inputs.shape() == [5, 4] && targets.shape() == [5] && weights.shape() == [5, 2]);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TensorDataset<T = (Tensor, Tensor)> {
    tensors: T,
    count: usize,
}

/// The tensors of a [`TensorDataset`]: one, a tuple of two to four, or a `Vec`. A sample has the
/// same type.
pub trait DatasetTensors: Sized + Send + Sync {
    /// Makes the same structure of what a function makes of each tensor.
    ///
    /// # Errors
    /// The first one of the function.
    fn try_map(&self, function: &mut dyn FnMut(&Tensor) -> Result<Tensor>) -> Result<Self>;
}

impl DatasetTensors for Tensor {
    fn try_map(&self, function: &mut dyn FnMut(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        function(self)
    }
}

impl DatasetTensors for (Tensor, Tensor) {
    fn try_map(&self, function: &mut dyn FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok((function(&self.0)?, function(&self.1)?))
    }
}

impl DatasetTensors for (Tensor, Tensor, Tensor) {
    fn try_map(&self, function: &mut dyn FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok((function(&self.0)?, function(&self.1)?, function(&self.2)?))
    }
}

impl DatasetTensors for (Tensor, Tensor, Tensor, Tensor) {
    fn try_map(&self, function: &mut dyn FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok((function(&self.0)?, function(&self.1)?, function(&self.2)?, function(&self.3)?))
    }
}

impl DatasetTensors for Vec<Tensor> {
    fn try_map(&self, function: &mut dyn FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        self.iter().map(function).collect()
    }
}

impl TensorDataset {
    /// Makes a dataset of inputs `[N, …]` and targets `[N, …]`. Samples have no history: gradients
    /// do not flow into these tensors.
    ///
    /// # Errors
    /// [`Error::Shape`] when the tensors have no or different first dimensions.
    pub fn new(inputs: Tensor, targets: Tensor) -> Result<TensorDataset> {
        TensorDataset::of((inputs, targets))
    }
}

impl<T: DatasetTensors> TensorDataset<T> {
    /// Makes a dataset of one tensor `[N, …]`, of a tuple of two to four, or of a `Vec`. Samples
    /// have no history.
    ///
    /// # Errors
    /// [`Error::Shape`] when the tensors have no or different first dimensions, or there are none.
    pub fn of(tensors: T) -> Result<TensorDataset<T>> {
        let mut shapes = Vec::new();
        let tensors = tensors.try_map(&mut |tensor| {
            shapes.push(tensor.shape().to_vec());
            Ok(tensor.detach())
        })?;
        match shapes.first().and_then(|shape| shape.first()) {
            Some(&count) if shapes.iter().all(|shape| shape.first() == Some(&count)) => Ok(TensorDataset { tensors, count }),
            _ => {
                let message = format!("tensors of shapes {shapes:?} need one first dimension, the number of samples");
                Err(Error::shape("TensorDataset", message))
            }
        }
    }
}

impl<T: DatasetTensors> Dataset for TensorDataset<T> {
    type Sample = T;

    fn len(&self) -> usize {
        self.count
    }

    fn get(&self, index: usize, _: &mut Rng) -> Result<T> {
        if index >= self.count {
            return Err(Error::argument("TensorDataset", format!("there is no sample {index}, the dataset has {}", self.count)));
        }
        self.tensors.try_map(&mut |tensor| tensor.narrow(0, index, 1)?.squeeze(0))
    }
}

/// A dataset whose samples a function makes of another dataset's: see [`Dataset::map`].
#[derive(Clone)]
pub struct Map<D, F> {
    dataset: D,
    function: F,
}

impl<D, F> Map<D, F> {
    pub(in crate::data) fn new(dataset: D, function: F) -> Map<D, F> {
        Map { dataset, function }
    }
}

impl<D: fmt::Debug, F> fmt::Debug for Map<D, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("dataset", &self.dataset).finish_non_exhaustive()
    }
}

impl<D: Dataset, T, F: Fn(D::Sample, &mut Rng) -> Result<T> + Send + Sync> Dataset for Map<D, F> {
    type Sample = T;

    fn len(&self) -> usize {
        self.dataset.len()
    }

    fn get(&self, index: usize, rng: &mut Rng) -> Result<T> {
        (self.function)(self.dataset.get(index, rng)?, rng)
    }

    fn classes(&self) -> Vec<String> {
        self.dataset.classes()
    }

    fn name(&self, index: usize) -> String {
        self.dataset.name(index)
    }
}

/// A dataset that keeps samples in memory once they have been read, such as decoded pictures, until
/// a number of bytes is reached; samples beyond it are read again each time.
///
/// The inner dataset must give the same sample each time: what it draws from its generator stays as
/// it was drawn first. Transforms of the loader come later and are drawn anew.
///
/// ```
/// use convnet::data::{Cached, DataLoader, Digits};
///
/// let cached = Cached::new(Digits::train(), 1 << 20);
/// let loader = DataLoader::new(cached, 64).shuffle(0).workers(2);
/// assert_eq!(loader.epoch(0).count(), 23);
/// ```
pub struct Cached<D: Dataset> {
    dataset: D,
    limit: usize,
    state: Mutex<CacheState<D::Sample>>,
}

struct CacheState<S> {
    samples: HashMap<usize, Arc<S>>,
    bytes: usize,
}

/// What an entry of the table takes besides the sample.
const PER_ENTRY: usize = 64;

impl<D: Dataset> Cached<D> {
    /// Keeps samples of up to `limit` bytes together, as [`Collate::size_in_memory`] counts them.
    pub fn new(dataset: D, limit: usize) -> Cached<D> {
        Cached { dataset, limit, state: Mutex::new(CacheState { samples: HashMap::new(), bytes: 0 }) }
    }

    /// Returns how many samples are kept, and their bytes.
    pub fn usage(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.samples.len(), state.bytes)
    }
}

impl<D: Dataset> fmt::Debug for Cached<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (samples, bytes) = self.usage();
        write!(f, "Cached({samples} of {} samples, {bytes} of {} bytes)", self.dataset.len(), self.limit)
    }
}

impl<D: Dataset> Dataset for Cached<D>
where
    D::Sample: Collate + Clone + Send + Sync,
{
    type Sample = D::Sample;

    fn len(&self) -> usize {
        self.dataset.len()
    }

    fn get(&self, index: usize, rng: &mut Rng) -> Result<D::Sample> {
        let lock = || self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = lock().samples.get(&index).cloned();
        if let Some(sample) = state {
            return Ok(D::Sample::clone(&sample));
        }
        let mut sample = self.dataset.get(index, rng)?;
        let bytes = sample.size_in_memory().saturating_add(PER_ENTRY);
        let fits = |state: &CacheState<D::Sample>| state.bytes.saturating_add(bytes) <= self.limit && !state.samples.contains_key(&index);
        if fits(&lock()) {
            // The copy is made without the lock, so that other threads go on.
            let copy = Arc::new(sample.clone());
            let mut state = lock();
            if fits(&state) {
                state.bytes += bytes;
                state.samples.insert(index, copy);
            }
        }
        Ok(sample)
    }

    fn classes(&self) -> Vec<String> {
        self.dataset.classes()
    }

    fn name(&self, index: usize) -> String {
        self.dataset.name(index)
    }
}
