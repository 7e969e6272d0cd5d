//! The random generator of datasets and transforms.

use rand::rngs::ChaCha8Rng;
use rand::{Rng as _, SeedableRng};

use crate::tensor::rng::{below, copy_of, fill_normal, unit, with_generator_at};

/// The use of a generator, which keeps the streams of one seed apart.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Shuffle = 1,
    Samples = 2,
    /// Tensors that a dataset or a transform of samples draws.
    Tensors = 3,
    Batches = 4,
    Splits = 5,
    /// Tensors that a step of training draws.
    Steps = 6,
    /// Tensors that are drawn while a batch is made of its samples.
    BatchTensors = 7,
}

/// A source of random numbers whose stream is stable between releases and machines (ChaCha8).
///
/// The loader gives each sample a separate generator, so that datasets and transforms that draw
/// from nothing else are deterministic.
#[derive(Debug)]
pub struct Rng {
    generator: ChaCha8Rng,
}

impl Clone for Rng {
    fn clone(&self) -> Rng {
        Rng { generator: copy_of(&self.generator) }
    }
}

impl Rng {
    /// Returns a generator for use outside of a loader.
    pub fn new(seed: u64) -> Rng {
        Rng::for_sample(seed, 0, 0)
    }

    /// Returns the generator of a sample in an epoch: the one that a
    /// [`DataLoader`](super::DataLoader) with this seed hands to the dataset and then to the
    /// transforms.
    pub fn for_sample(seed: u64, epoch: u64, index: u64) -> Rng {
        Rng::keyed(Purpose::Samples, seed, epoch, index)
    }

    /// Runs `body` with the generator of [`keyed`](Rng::keyed) in place of the thread's, from which
    /// dropout and `Tensor::randn` and its like draw.
    pub(crate) fn lend<R>(purpose: Purpose, seed: u64, epoch: u64, index: u64, body: impl FnOnce() -> R) -> R {
        with_generator_at(&Rng::keyed(purpose, seed, epoch, index).generator, body)
    }

    /// Returns a generator whose key is made of these numbers, so that different ones give
    /// unrelated streams.
    pub(crate) fn keyed(purpose: Purpose, seed: u64, epoch: u64, index: u64) -> Rng {
        let mut key = [0; 32];
        for (part, number) in key.chunks_exact_mut(8).zip([seed, epoch, index, purpose as u64]) {
            part.copy_from_slice(&number.to_le_bytes());
        }
        Rng { generator: ChaCha8Rng::from_seed(key) }
    }

    /// Returns 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.generator.next_u64()
    }

    /// Returns a number uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        unit(&mut self.generator)
    }

    /// Returns a number uniform in `[low, high)`; `low` when they are equal.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Returns a number of the standard normal distribution.
    pub fn normal(&mut self) -> f64 {
        let mut number = [0.0];
        fill_normal(&mut self.generator, &mut number);
        number[0]
    }

    /// Returns numbers of sum 1 of the Dirichlet distribution with these parameters, all positive
    /// and finite.
    pub(super) fn dirichlet(&mut self, parameters: &[f64]) -> Vec<f64> {
        // In logarithms: with small parameters, all numbers of the gamma distribution may be zero
        // in `f64`.
        let logs: Vec<f64> = parameters.iter().map(|&shape| self.log_gamma_variate(shape)).collect();
        let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let parts: Vec<f64> = logs.iter().map(|log| (log - largest).exp()).collect();
        let sum: f64 = parts.iter().sum();
        parts.iter().map(|part| part / sum).collect()
    }

    /// Returns the logarithm of a number of the gamma distribution (Marsaglia and Tsang, 2000).
    fn log_gamma_variate(&mut self, shape: f64) -> f64 {
        // A number for `shape + 1` times a uniform one to the power of `1 / shape`.
        let uniform = 1.0 - self.unit();
        let d = shape + 2.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && (1.0 - self.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                // Not less than any number, so that differences are numbers.
                return ((d * v).ln() + uniform.ln() / shape).max(f64::MIN);
            }
        }
    }

    /// Returns true with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Returns a number uniform in `0..bound`; 0 when the bound is 0 or 1.
    pub fn below(&mut self, bound: usize) -> usize {
        below(&mut self.generator, bound as u64) as usize
    }

    /// Shuffles a slice (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_of_a_sample_is_pinned() {
        // Pinned: a change here would change every augmented training run.
        let mut random = Rng::for_sample(1, 2, 3);
        assert_eq!([random.bits(), random.bits()], PINNED);
    }

    const PINNED: [u64; 2] = [10_524_200_955_395_800_979, 7_007_766_858_581_985_048];

    #[test]
    fn seed_epoch_and_index_each_change_the_stream() {
        let first = |seed, epoch, index| Rng::for_sample(seed, epoch, index).bits();
        let all = [first(0, 0, 0), first(1, 0, 0), first(0, 1, 0), first(0, 0, 1)];
        assert!((0..4).all(|i| (0..i).all(|j| all[i] != all[j])), "{all:?}");
    }

    #[test]
    fn shuffle_keeps_every_item() {
        let mut items: Vec<usize> = (0..1000).collect();
        Rng::for_sample(0, 0, 0).shuffle(&mut items);
        assert!(items.iter().enumerate().filter(|&(i, &item)| i == item).count() < 10);
        items.sort_unstable();
        assert!(items.into_iter().eq(0..1000));
    }
}
