//! Parts of datasets, and several as one.

use std::sync::Arc;

use crate::data::rng::Purpose;
use crate::data::{Dataset, Rng, Sampler, StratifiedSampler};
use crate::error::{Error, Result};

/// Some samples of a dataset, which parts of one dataset share.
///
/// ```
/// use convnet::data::{Dataset, Digits, Rng, Subset};
///
/// let digits = Digits::train();
/// let labels = digits.labels();
/// let sevens = Subset::new(digits, (0..labels.len()).filter(|&i| labels[i] == 7))?;
/// assert!(sevens.get(0, &mut Rng::new(0))?.1 == 7);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Debug)]
pub struct Subset<D: ?Sized> {
    dataset: Arc<D>,
    indices: Arc<[usize]>,
}

impl<D: ?Sized> Clone for Subset<D> {
    fn clone(&self) -> Subset<D> {
        Subset { dataset: Arc::clone(&self.dataset), indices: Arc::clone(&self.indices) }
    }
}

impl<D: Dataset> Subset<D> {
    /// Makes a dataset of the samples with these indices, in this order; an index may come several
    /// times.
    ///
    /// # Errors
    /// [`Error::Argument`] when the dataset does not have a sample of an index.
    pub fn new(dataset: D, indices: impl IntoIterator<Item = usize>) -> Result<Subset<D>> {
        Subset::shared(Arc::new(dataset), indices)
    }
}

impl<D: Dataset + ?Sized> Subset<D> {
    /// Makes a dataset as [`new`](Subset::new) does, of a dataset that others use too.
    ///
    /// # Errors
    /// [`Error::Argument`] when the dataset does not have a sample of an index.
    pub fn shared(dataset: Arc<D>, indices: impl IntoIterator<Item = usize>) -> Result<Subset<D>> {
        let indices: Arc<[usize]> = indices.into_iter().collect();
        let samples = dataset.len();
        if let Some(index) = indices.iter().find(|&&index| index >= samples) {
            return Err(Error::argument("Subset", format!("there is no sample {index}, the dataset has {samples}")));
        }
        Ok(Subset { dataset, indices })
    }

    /// Returns the indices in the whole dataset.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// Returns the whole dataset.
    pub fn whole(&self) -> &Arc<D> {
        &self.dataset
    }

    fn index(&self, index: usize) -> Result<usize> {
        let missing = || Error::argument("Subset", format!("there is no sample {index}, the dataset has {}", self.indices.len()));
        self.indices.get(index).copied().ok_or_else(missing)
    }
}

impl<D: Dataset + ?Sized> Dataset for Subset<D> {
    type Sample = D::Sample;

    fn len(&self) -> usize {
        self.indices.len()
    }

    fn get(&self, index: usize, rng: &mut Rng) -> Result<D::Sample> {
        self.dataset.get(self.index(index)?, rng)
    }

    fn classes(&self) -> Vec<String> {
        self.dataset.classes()
    }

    fn name(&self, index: usize) -> String {
        self.index(index).map(|index| self.dataset.name(index)).unwrap_or_default()
    }
}

/// Several datasets, one after the other.
///
/// ```
/// use convnet::data::{Concat, Dataset, Digits};
///
/// let all = Concat::new([Digits::train(), Digits::test()])?;
/// assert_eq!(all.len(), 1797);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// Datasets of several types with one type of samples are boxed: `Concat::new([Box::new(a) as
/// Box<dyn Dataset<Sample = (Image, i64)>>, Box::new(b)])`.
#[derive(Clone, Debug)]
pub struct Concat<D> {
    datasets: Vec<D>,
    /// The number of samples up to the end of each.
    ends: Vec<usize>,
}

impl<D: Dataset> Concat<D> {
    /// Makes a dataset of the samples of all these.
    ///
    /// # Errors
    /// [`Error::Argument`] when the datasets' classes differ: their labels would mean different
    /// things.
    pub fn new(datasets: impl IntoIterator<Item = D>) -> Result<Concat<D>> {
        let datasets: Vec<D> = datasets.into_iter().collect();
        let classes: Vec<Vec<String>> = datasets.iter().map(Dataset::classes).collect();
        if let Some(other) = classes.iter().position(|names| *names != classes[0]) {
            let differing = classes[0].iter().zip(&classes[other]).find(|(a, b)| a != b);
            let difference = match differing {
                Some((first, second)) => format!("`{first}` against `{second}`"),
                None => format!("{} against {}", classes[0].len(), classes[other].len()),
            };
            let message = format!("dataset {other} has other classes than dataset 0 ({difference}); `map` changes the labels of one");
            return Err(Error::argument("Concat", message));
        }
        let mut samples = 0usize;
        let mut ends = Vec::with_capacity(datasets.len());
        for dataset in &datasets {
            samples = samples.checked_add(dataset.len()).ok_or_else(|| Error::argument("Concat", "too many samples to be counted"))?;
            ends.push(samples);
        }
        Ok(Concat { datasets, ends })
    }

    /// Returns the dataset that has a sample, and the sample's index there.
    fn place(&self, index: usize) -> Option<(&D, usize)> {
        let number = self.ends.partition_point(|&end| end <= index);
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        self.datasets.get(number).map(|dataset| (dataset, index - start))
    }
}

impl<D: Dataset> Dataset for Concat<D> {
    type Sample = D::Sample;

    fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    fn get(&self, index: usize, rng: &mut Rng) -> Result<D::Sample> {
        let missing = || Error::argument("Concat", format!("there is no sample {index}, the dataset has {}", self.len()));
        let (dataset, index) = self.place(index).ok_or_else(missing)?;
        dataset.get(index, rng)
    }

    fn classes(&self) -> Vec<String> {
        self.datasets.first().map(Dataset::classes).unwrap_or_default()
    }

    fn name(&self, index: usize) -> String {
        self.place(index).map(|(dataset, index)| dataset.name(index)).unwrap_or_default()
    }
}

/// A size of a part of a dataset: a share of its samples (`f64`), or their number (`usize`).
pub trait PartSize: Copy {
    /// Returns the numbers of samples of parts of these sizes.
    ///
    /// # Errors
    /// [`Error::Argument`] when the sizes do not add up to the whole dataset, or a share of its
    /// samples is not even one.
    fn counts(sizes: &[Self], samples: usize) -> Result<Vec<usize>>;
}

impl PartSize for usize {
    fn counts(sizes: &[usize], samples: usize) -> Result<Vec<usize>> {
        let sum = sizes.iter().fold(0usize, |sum, &size| sum.saturating_add(size));
        if sum != samples {
            return Err(Error::argument(
                "split",
                format!("the parts have {sum} samples, the dataset {samples}; all have to be in one part"),
            ));
        }
        Ok(sizes.to_vec())
    }
}

impl PartSize for f64 {
    /// Rounds down, and gives what is left to the first parts, one sample to each, as PyTorch does.
    fn counts(sizes: &[f64], samples: usize) -> Result<Vec<usize>> {
        let sum: f64 = sizes.iter().sum();
        if sizes.iter().any(|size| !(0.0..=1.0).contains(size)) || (sum - 1.0).abs() > 1e-6 {
            return Err(Error::argument("split", format!("shares are from 0 to 1 and add up to 1, got {sizes:?}, which add up to {sum}")));
        }
        let mut counts: Vec<usize> = sizes.iter().map(|size| (size * samples as f64) as usize).collect();
        // The sum of what was rounded down may exceed the number of samples when the shares add up
        // to a little more than 1.
        let mut left = samples.saturating_sub(counts.iter().sum());
        while left > 0 {
            for count in counts.iter_mut().take(left) {
                *count += 1;
                left -= 1;
            }
        }
        let excess = counts.iter().sum::<usize>().saturating_sub(samples);
        if let Some(largest) = counts.iter_mut().max() {
            *largest -= excess;
        }
        if let Some(part) = (0..sizes.len()).find(|&part| counts[part] == 0 && sizes[part] > 0.0) {
            let message = format!("part {part}, a share of {} of {samples} samples, would be empty", sizes[part]);
            return Err(Error::argument("split", message));
        }
        Ok(counts)
    }
}

/// The sizes of the parts of a dataset: an array of two to five, for a tuple of parts, or a slice
/// or vector, for a vector of parts.
pub trait PartSizes {
    /// The type of the parts.
    type Parts<D>;

    /// Returns the numbers of samples of the parts.
    ///
    /// # Errors
    /// [`Error::Argument`] when the sizes do not add up to the whole dataset.
    fn counts(&self, samples: usize) -> Result<Vec<usize>>;

    /// Puts the parts, one for each count, together.
    fn parts<D>(parts: impl Iterator<Item = D>) -> Self::Parts<D>;
}

macro_rules! part_sizes {
    ($count:literal: $($part:ident),+) => {
        impl<S: PartSize> PartSizes for [S; $count] {
            type Parts<D> = ($(part_sizes!(@ D $part)),+);

            fn counts(&self, samples: usize) -> Result<Vec<usize>> {
                S::counts(self, samples)
            }

            fn parts<D>(mut parts: impl Iterator<Item = D>) -> Self::Parts<D> {
                $(let $part = parts.next().expect("a part for each count");)+
                ($($part),+)
            }
        }
    };
    (@ $type:ident $part:ident) => { $type };
}
part_sizes!(2: a, b);
part_sizes!(3: a, b, c);
part_sizes!(4: a, b, c, d);
part_sizes!(5: a, b, c, d, e);

impl<S: PartSize> PartSizes for [S] {
    type Parts<D> = Vec<D>;

    fn counts(&self, samples: usize) -> Result<Vec<usize>> {
        S::counts(self, samples)
    }

    fn parts<D>(parts: impl Iterator<Item = D>) -> Vec<D> {
        parts.collect()
    }
}

impl<S: PartSize> PartSizes for Vec<S> {
    type Parts<D> = Vec<D>;

    fn counts(&self, samples: usize) -> Result<Vec<usize>> {
        S::counts(self, samples)
    }

    fn parts<D>(parts: impl Iterator<Item = D>) -> Vec<D> {
        parts.collect()
    }
}

impl<P: PartSizes + ?Sized> PartSizes for &P {
    type Parts<D> = P::Parts<D>;

    fn counts(&self, samples: usize) -> Result<Vec<usize>> {
        (**self).counts(samples)
    }

    fn parts<D>(parts: impl Iterator<Item = D>) -> P::Parts<D> {
        P::parts(parts)
    }
}

/// Splits a dataset at random into parts that share it (PyTorch's `random_split`).
///
/// Sizes are shares, which add up to 1, or numbers of samples. An array gives a tuple of parts, a
/// slice or a vector a vector of them. The parts depend on the seed, the sizes and the number of
/// samples only.
///
/// ```
/// use convnet::data::{Dataset, Digits, random_split};
///
/// let (train, valid) = random_split(Digits::train(), [0.9, 0.1], 0)?;
/// assert!(train.len() == 1295 && valid.len() == 143);
/// let (first, second, third) = random_split(Digits::train(), [1000, 400, 38], 0)?;
/// let quarters = random_split(Digits::train(), vec![0.25; 4], 0)?;
/// assert!(third.len() == 38 && quarters.len() == 4);
/// # assert!(first.len() == 1000 && second.len() == 400);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// [`Error::Argument`] when the sizes do not add up to the whole dataset, or a part of a share of
/// more than 0 would be empty.
pub fn random_split<D: Dataset, P: PartSizes>(dataset: D, sizes: P, seed: u64) -> Result<P::Parts<Subset<D>>> {
    let order = shuffled(dataset.len(), seed);
    split(dataset, &order, &sizes)
}

/// Splits a dataset at random so that each class has in each part the share that it has in the
/// whole dataset, as near as whole numbers allow. See [`random_split`] for the sizes.
///
/// ```
/// use convnet::data::{Digits, stratified_split};
///
/// let digits = Digits::train();
/// let labels = digits.labels();
/// let (train, valid) = stratified_split(digits, &labels, [0.9, 0.1], 0)?;
/// # let _ = (train, valid);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// [`Error::Argument`] when there is not one label for each sample, the sizes do not add up to the
/// whole dataset, or a part of a share of more than 0 would be empty.
pub fn stratified_split<D: Dataset, P: PartSizes>(dataset: D, labels: &[i64], sizes: P, seed: u64) -> Result<P::Parts<Subset<D>>> {
    let order = stratified(dataset.len(), labels, seed)?;
    split(dataset, &order, &sizes)
}

/// Splits a dataset at random into `k` parts of equal sizes, as near as whole numbers allow, and
/// returns for each the rest, for training, and the part, for validation.
///
/// ```
/// use convnet::data::{Dataset, Digits, k_folds};
///
/// for (train, valid) in k_folds(Digits::train(), 5, 0)? {
///     assert!(train.len() + valid.len() == 1438 && (287..=288).contains(&valid.len()));
/// }
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// [`Error::Argument`] for less than two parts, or more than there are samples.
pub fn k_folds<D: Dataset>(dataset: D, k: usize, seed: u64) -> Result<Vec<(Subset<D>, Subset<D>)>> {
    let order = shuffled(dataset.len(), seed);
    folds(dataset, &order, k)
}

/// Splits a dataset as [`k_folds`] does, with the classes' shares in each part as near to those in
/// the whole dataset as whole numbers allow.
///
/// # Errors
/// [`Error::Argument`] when there is not one label for each sample, for less than two parts, or
/// more than there are samples.
pub fn stratified_k_folds<D: Dataset>(dataset: D, labels: &[i64], k: usize, seed: u64) -> Result<Vec<(Subset<D>, Subset<D>)>> {
    let order = stratified(dataset.len(), labels, seed)?;
    folds(dataset, &order, k)
}

fn shuffled(samples: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..samples).collect();
    Rng::keyed(Purpose::Splits, seed, 0, 0).shuffle(&mut order);
    order
}

/// Returns an order in which the samples of each class are spread evenly.
fn stratified(samples: usize, labels: &[i64], seed: u64) -> Result<Vec<usize>> {
    if labels.len() != samples {
        return Err(Error::argument("split", format!("{} labels for {samples} samples; each needs one", labels.len())));
    }
    StratifiedSampler::new(labels).indices(&mut Rng::keyed(Purpose::Splits, seed, 0, 0))
}

fn split<D: Dataset, P: PartSizes>(dataset: D, order: &[usize], sizes: &P) -> Result<P::Parts<Subset<D>>> {
    let counts = sizes.counts(order.len())?;
    let dataset = Arc::new(dataset);
    let mut rest = order;
    let mut parts = Vec::with_capacity(counts.len());
    for count in counts {
        let (part, others) = rest.split_at_checked(count).ok_or_else(|| Error::argument("split", "the parts exceed the dataset"))?;
        rest = others;
        parts.push(Subset::shared(Arc::clone(&dataset), part.iter().copied())?);
    }
    Ok(P::parts(parts.into_iter()))
}

fn folds<D: Dataset>(dataset: D, order: &[usize], k: usize) -> Result<Vec<(Subset<D>, Subset<D>)>> {
    if k < 2 || k > order.len() {
        let message = format!("{k} parts of {} samples; there are at least two, and not more than samples", order.len());
        return Err(Error::argument("k_folds", message));
    }
    let dataset = Arc::new(dataset);
    let subset = |indices: Vec<usize>| Subset::shared(Arc::clone(&dataset), indices);
    let bound = |fold: usize| fold * (order.len() / k) + fold.min(order.len() % k);
    let fold = |fold: usize| {
        let (start, end) = (bound(fold), bound(fold + 1));
        Ok((subset([&order[..start], &order[end..]].concat())?, subset(order[start..end].to_vec())?))
    };
    (0..k).map(fold).collect()
}
