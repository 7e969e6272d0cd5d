//! The order of samples in an epoch, and where it is cut into batches.

use std::fmt;

use super::Rng;
use crate::error::{Error, Result};

/// The samples of an epoch, cut into batches.
#[derive(Clone, Debug, Default)]
pub struct Batches {
    order: Vec<usize>,
    /// The end of each batch in `order`.
    ends: Vec<usize>,
}

impl Batches {
    /// Cuts an order into batches of one size. The last one is smaller, or left out.
    pub fn chunks(order: Vec<usize>, batch: usize, drop_last: bool) -> Batches {
        let batch = batch.max(1);
        let whole = order.len() / batch * batch;
        let mut ends: Vec<usize> = (batch..=whole).step_by(batch).collect();
        if whole < order.len() && !drop_last {
            ends.push(order.len());
        }
        Batches { order, ends }
    }

    /// Appends a batch.
    pub fn push(&mut self, batch: impl IntoIterator<Item = usize>) {
        self.order.extend(batch);
        self.ends.push(self.order.len());
    }

    /// Cuts each batch into `parts` of nearly equal sizes, which are batches then; those of a batch
    /// with fewer samples than parts are partly empty.
    pub(crate) fn split(self, parts: usize) -> Batches {
        let mut start = 0;
        let mut ends = Vec::with_capacity(self.ends.len() * parts);
        for end in self.ends {
            ends.extend((1..=parts).map(|part| start + (end - start) * part / parts));
            start = end;
        }
        Batches { order: self.order, ends }
    }

    /// Returns the number of batches.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are no batches.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the samples of a batch; none for a number beyond the last.
    pub fn get(&self, number: usize) -> &[usize] {
        let start = if number == 0 { 0 } else { self.ends.get(number - 1).copied().unwrap_or(self.order.len()) };
        &self.order[start..self.ends.get(number).copied().unwrap_or(start)]
    }
}

/// The batches of one of several processes: of every `world` runs of `run` batches, the one at
/// `rank`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) rank: usize,
    pub(crate) world: usize,
    pub(crate) run: usize,
}

impl Share {
    /// All batches.
    pub(crate) const ALL: Share = Share { rank: 0, world: 1, run: 1 };

    /// Returns the number, among all batches, of the one at a position in this share.
    pub(crate) fn number(self, position: usize) -> usize {
        (position / self.run * self.world + self.rank) * self.run + position % self.run
    }

    /// Returns how many of `count` batches belong to this share.
    pub(crate) fn len(self, count: usize) -> usize {
        let cycle = self.world * self.run;
        let rest = (count % cycle).saturating_sub(self.rank * self.run).min(self.run);
        count / cycle * self.run + rest
    }
}

/// Chooses the samples of an epoch and their order, for
/// [`DataLoader::sampler`](super::DataLoader::sampler).
///
/// `rng` is a generator of the loader's seed and the epoch.
pub trait Sampler: Send + Sync {
    /// Returns the indices of an epoch's samples, in order.
    ///
    /// # Errors
    /// When the sampler's arguments make no sense.
    fn indices(&self, rng: &mut Rng) -> Result<Vec<usize>>;

    /// Returns the batches of an epoch; as provided, the indices cut into equal parts.
    ///
    /// # Errors
    /// When the sampler's arguments make no sense.
    fn batches(&self, batch: usize, drop_last: bool, rng: &mut Rng) -> Result<Batches> {
        Ok(Batches::chunks(self.indices(rng)?, batch, drop_last))
    }

    /// Returns the number of samples in an epoch if it is known without drawing them; `None`, as
    /// provided, lets the loader draw an epoch to count its batches.
    fn samples(&self) -> Option<usize> {
        None
    }

    /// Returns the number of batches in an epoch if it is known without drawing them; as provided,
    /// that of the [`samples`](Sampler::samples) cut into equal parts. A sampler with its own
    /// [`batches`](Sampler::batches) in other numbers overrides it.
    fn num_batches(&self, batch: usize, drop_last: bool) -> Option<usize> {
        self.samples().map(|samples| parts(samples, batch, drop_last))
    }
}

/// Returns the number of batches that samples are cut into.
fn parts(samples: usize, batch: usize, drop_last: bool) -> usize {
    if drop_last { samples / batch.max(1) } else { samples.div_ceil(batch.max(1)) }
}

/// The dataset's order.
#[derive(Clone, Copy, Debug)]
pub struct SequentialSampler {
    samples: usize,
}

impl SequentialSampler {
    /// Makes a sampler of a dataset of that many samples.
    pub fn new(samples: usize) -> SequentialSampler {
        SequentialSampler { samples }
    }
}

impl Sampler for SequentialSampler {
    fn indices(&self, _: &mut Rng) -> Result<Vec<usize>> {
        Ok((0..self.samples).collect())
    }

    fn samples(&self) -> Option<usize> {
        Some(self.samples)
    }
}

/// All samples in random order.
#[derive(Clone, Copy, Debug)]
pub struct RandomSampler {
    samples: usize,
}

impl RandomSampler {
    /// Makes a sampler of a dataset of that many samples.
    pub fn new(samples: usize) -> RandomSampler {
        RandomSampler { samples }
    }
}

impl Sampler for RandomSampler {
    fn indices(&self, rng: &mut Rng) -> Result<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.samples).collect();
        rng.shuffle(&mut order);
        Ok(order)
    }

    fn samples(&self) -> Option<usize> {
        Some(self.samples)
    }
}

/// Draws samples with replacement, each with a probability in proportion to its weight (PyTorch's
/// `WeightedRandomSampler`): rare classes come as often as others when a sample's weight is one
/// over the size of its class.
///
/// ```
/// use convnet::data::{DataLoader, Digits, WeightedSampler};
///
/// let weights = (0..1438).map(|i| if i < 10 { 1.0 } else { 0.0 });
/// let loader = DataLoader::new(Digits::train(), 50).sampler(WeightedSampler::new(weights, 100));
/// assert_eq!(loader.len(), 2);
/// ```
#[derive(Clone, Debug)]
pub struct WeightedSampler {
    /// The sum of the weights up to and with each sample.
    sums: Vec<f64>,
    count: usize,
    invalid: Option<(usize, f64)>,
}

impl WeightedSampler {
    /// Makes a sampler of `count` draws in an epoch, from a weight for each sample.
    pub fn new(weights: impl IntoIterator<Item = f64>, count: usize) -> WeightedSampler {
        let (mut sum, mut invalid) = (0.0, None);
        let mut add = |(index, weight): (usize, f64)| {
            if !(weight >= 0.0 && weight.is_finite()) && invalid.is_none() {
                invalid = Some((index, weight));
            }
            sum += weight;
            sum
        };
        let sums = weights.into_iter().enumerate().map(&mut add).collect();
        WeightedSampler { sums, count, invalid }
    }

    /// Makes a sampler that draws all classes equally often: as many samples in an epoch as there
    /// are labels.
    pub fn balanced(labels: &[i64]) -> WeightedSampler {
        let mut counts = std::collections::HashMap::new();
        for label in labels {
            *counts.entry(label).or_insert(0u64) += 1;
        }
        WeightedSampler::new(labels.iter().map(|label| 1.0 / counts[label] as f64), labels.len())
    }

    /// Returns the sum of the weights.
    fn total(&self) -> Result<f64> {
        if let Some((index, weight)) = self.invalid {
            return Err(Error::argument("weighted sampler", format!("the weight of sample {index} is {weight}; weights are 0 or more")));
        }
        let total = self.sums.last().copied().unwrap_or(0.0);
        if !(total > 0.0 && total.is_finite()) {
            return Err(Error::argument("weighted sampler", format!("the weights' sum is {total}; at least one must be more than 0")));
        }
        Ok(total)
    }
}

impl Sampler for WeightedSampler {
    fn indices(&self, rng: &mut Rng) -> Result<Vec<usize>> {
        let total = self.total()?;
        let draw = |_| {
            let place = rng.unit() * total;
            self.sums.partition_point(|&sum| sum <= place).min(self.sums.len() - 1)
        };
        Ok((0..self.count).map(draw).collect())
    }

    fn samples(&self) -> Option<usize> {
        self.total().is_ok().then_some(self.count)
    }
}

/// Batches in which each class has the share that it has in the dataset, as near as whole numbers
/// allow; in random order.
#[derive(Clone, Debug)]
pub struct StratifiedSampler {
    classes: Vec<Vec<usize>>,
}

impl StratifiedSampler {
    /// Makes a sampler from the label of each sample.
    pub fn new(labels: &[i64]) -> StratifiedSampler {
        let mut classes = std::collections::BTreeMap::<i64, Vec<usize>>::new();
        for (index, &label) in labels.iter().enumerate() {
            classes.entry(label).or_default().push(index);
        }
        StratifiedSampler { classes: classes.into_values().collect() }
    }
}

impl Sampler for StratifiedSampler {
    fn indices(&self, rng: &mut Rng) -> Result<Vec<usize>> {
        // Each sample gets a place in the epoch: the samples of a class are spread evenly over it.
        let mut places = Vec::new();
        for class in &self.classes {
            let mut class = class.clone();
            rng.shuffle(&mut class);
            let step = 1.0 / class.len() as f64;
            let offset = rng.unit();
            places.extend(class.into_iter().enumerate().map(|(i, index)| ((i as f64 + offset) * step, index)));
        }
        places.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(places.into_iter().map(|(_, index)| index).collect())
    }

    fn batches(&self, batch: usize, drop_last: bool, rng: &mut Rng) -> Result<Batches> {
        let mut order = self.indices(rng)?;
        // Within a batch, samples of one class are near each other's places; their order is drawn
        // again.
        order.chunks_mut(batch.max(1)).for_each(|batch| rng.shuffle(batch));
        Ok(Batches::chunks(order, batch, drop_last))
    }

    fn samples(&self) -> Option<usize> {
        Some(self.classes.iter().map(Vec::len).sum())
    }
}

/// One process's share of another sampler's batches: process `rank` of `world` takes every
/// `world`th. They are repeated from the first one on until all processes have the same number.
///
/// What the other sampler makes of a batch holds for each share, such as the one size of a
/// [`BucketSampler`]'s. Its [`indices`](Sampler::indices), in the same way every `world`th of the
/// other's, are those of PyTorch's `DistributedSampler`.
pub struct DistributedSampler {
    inner: Box<dyn Sampler>,
    rank: usize,
    world: usize,
}

impl DistributedSampler {
    /// Makes a sampler of a share. All processes need the same inner sampler and loader's seed.
    pub fn new(inner: impl Sampler + 'static, rank: usize, world: usize) -> DistributedSampler {
        DistributedSampler { inner: Box::new(inner), rank, world }
    }

    fn check_rank(&self) -> Result<()> {
        if self.rank < self.world {
            return Ok(());
        }
        let message = format!("there is no rank {} among {}; ranks count from 0", self.rank, self.world);
        Err(Error::argument("distributed sampler", message))
    }
}

impl fmt::Debug for DistributedSampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DistributedSampler({} of {})", self.rank, self.world)
    }
}

impl Sampler for DistributedSampler {
    fn indices(&self, rng: &mut Rng) -> Result<Vec<usize>> {
        self.check_rank()?;
        let order = self.inner.indices(rng)?;
        let share = order.len().div_ceil(self.world);
        Ok(order.iter().cycle().skip(self.rank).step_by(self.world).take(share).copied().collect())
    }

    fn batches(&self, batch: usize, drop_last: bool, rng: &mut Rng) -> Result<Batches> {
        self.check_rank()?;
        let all = self.inner.batches(batch, drop_last, rng)?;
        let mut share = Batches::default();
        for position in 0..all.len().div_ceil(self.world) {
            let number = (position * self.world + self.rank) % all.len();
            share.push(all.get(number).iter().copied());
        }
        Ok(share)
    }

    fn samples(&self) -> Option<usize> {
        self.inner.samples().filter(|_| self.rank < self.world).map(|samples| samples.div_ceil(self.world))
    }

    fn num_batches(&self, batch: usize, drop_last: bool) -> Option<usize> {
        let batches = self.inner.num_batches(batch, drop_last).filter(|_| self.rank < self.world);
        batches.map(|batches| batches.div_ceil(self.world))
    }
}

/// Batches of samples of one size, such as the height and width of their images: each batch is cut
/// from one bucket, and batches come in random order.
///
/// The last batch of each bucket is smaller, or left out where the loader drops the last.
#[derive(Clone, Debug)]
pub struct BucketSampler {
    buckets: Vec<Vec<usize>>,
}

impl BucketSampler {
    /// Makes a sampler from the size of each sample; samples of equal sizes share a bucket.
    pub fn new<K: Ord>(sizes: impl IntoIterator<Item = K>) -> BucketSampler {
        let mut buckets = std::collections::BTreeMap::<K, Vec<usize>>::new();
        for (index, size) in sizes.into_iter().enumerate() {
            buckets.entry(size).or_default().push(index);
        }
        BucketSampler { buckets: buckets.into_values().collect() }
    }
}

impl Sampler for BucketSampler {
    fn indices(&self, rng: &mut Rng) -> Result<Vec<usize>> {
        Ok(self.batches(1, false, rng)?.order)
    }

    fn batches(&self, batch: usize, drop_last: bool, rng: &mut Rng) -> Result<Batches> {
        let mut parts: Vec<Vec<usize>> = Vec::new();
        for bucket in &self.buckets {
            let mut bucket = bucket.clone();
            rng.shuffle(&mut bucket);
            parts.extend(bucket.chunks(batch.max(1)).filter(|part| part.len() == batch || !drop_last).map(<[usize]>::to_vec));
        }
        rng.shuffle(&mut parts);
        let mut batches = Batches::default();
        parts.into_iter().for_each(|part| batches.push(part));
        Ok(batches)
    }

    fn samples(&self) -> Option<usize> {
        Some(self.buckets.iter().map(Vec::len).sum())
    }

    fn num_batches(&self, batch: usize, drop_last: bool) -> Option<usize> {
        Some(self.buckets.iter().map(|bucket| parts(bucket.len(), batch, drop_last)).sum())
    }
}
