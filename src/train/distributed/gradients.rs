//! The sums of a step: over the shards of a batch, in the order of a fixed tree, then over the
//! ranks, while the backward pass still runs.

use std::collections::HashMap;

use super::group::{Group, Numbers, Pending};
use crate::autograd::Gradients;
use crate::error::Result;
use crate::nn::Parameter;
use crate::tensor::{DType, Element, Tensor, compute};

/// What is summed over shards.
pub(super) trait Term: Sized {
    /// Adds another one of the same size.
    fn plus(self, other: Self) -> Result<Self>;

    /// Adds zeros, which turns -0 into 0.
    fn plus_zeros(self) -> Self;
}

impl Term for Tensor {
    fn plus(self, other: Tensor) -> Result<Tensor> {
        compute::accumulate(self, other)
    }

    fn plus_zeros(self) -> Tensor {
        self.add_scalar(0.0)
    }
}

impl Term for Vec<f64> {
    fn plus(mut self, other: Vec<f64>) -> Result<Vec<f64>> {
        self.iter_mut().zip(&other).for_each(|(sum, term)| *sum += term);
        Ok(self)
    }

    fn plus_zeros(mut self) -> Vec<f64> {
        self.iter_mut().for_each(|value| *value += 0.0);
        self
    }
}

/// The sum of terms that come one after the other, added as a balanced binary tree: the pairs
/// (0, 1), (2, 3), … first. A missing one counts as zeros.
pub(super) struct TreeSum<T> {
    /// Sums of consecutive terms, whose number is a power of two, with its logarithm; largest
    /// first.
    parts: Vec<(u32, Option<T>)>,
}

impl<T: Term> TreeSum<T> {
    pub(super) fn new() -> TreeSum<T> {
        TreeSum { parts: Vec::new() }
    }

    pub(super) fn push(&mut self, term: Option<T>) -> Result<()> {
        let (mut level, mut sum) = (0, term);
        while let Some((_, part)) = self.parts.pop_if(|(of_part, _)| *of_part == level) {
            sum = match (part, sum) {
                (Some(a), Some(b)) => Some(a.plus(b)?),
                // Where the zeros come from another rank, they are added as well.
                (Some(only), None) | (None, Some(only)) => Some(only.plus_zeros()),
                (None, None) => None,
            };
            level += 1;
        }
        self.parts.push((level, sum));
        Ok(())
    }

    /// Returns the sum and starts anew. The number of terms is a power of two.
    pub(super) fn take(&mut self) -> Option<T> {
        debug_assert!(self.parts.len() <= 1, "the number of terms is a power of two");
        self.parts.pop().and_then(|(_, sum)| sum)
    }
}

/// The number of buckets that gradients are cut into unless their size is set.
const BUCKETS: usize = 8;

/// The least bytes of a bucket unless its size is set: smaller ones take little more than latency.
const SMALLEST: usize = 256 << 10;

/// The most bytes at which a bucket is closed unless its size is set.
const LARGEST: usize = 4 << 20;

/// Parameters of one type whose gradients are sent together.
struct Bucket {
    dtype: DType,
    parameters: Vec<usize>,
    /// How many of them have no complete sum of this rank yet.
    open: usize,
    pending: Option<Pending<Numbers>>,
}

/// Sums gradients over the shards of a rank and over ranks.
///
/// A bucket is sent as soon as all its gradients of the rank's last shard are there. All ranks send
/// their buckets in one order, since messages are matched by their order.
pub(super) struct GradientSum<'g> {
    /// `None` when there is nothing to add from other ranks.
    group: Option<&'g Group>,
    by_tree: bool,
    parameters: Vec<Parameter>,
    sums: Vec<TreeSum<Tensor>>,
    bucket_of: Vec<usize>,
    buckets: Vec<Bucket>,
    sent: usize,
    shards: usize,
    done: usize,
}

impl<'g> GradientSum<'g> {
    /// Makes the sum of `shards` shards of this rank. Buckets are closed once they have
    /// `bucket_bytes`, by default a size with which most of them are sent before the backward pass
    /// ends; the last parameters come first, as in a backward pass.
    pub(super) fn new(
        group: Option<&'g Group>,
        by_tree: bool,
        parameters: Vec<Parameter>,
        shards: usize,
        bucket_bytes: Option<usize>,
    ) -> GradientSum<'g> {
        let size = |parameter: &Parameter| parameter.numel() * parameter.dtype().size();
        let bucket_bytes = bucket_bytes.unwrap_or_else(|| {
            let all: usize = parameters.iter().map(size).sum();
            (all / BUCKETS).clamp(SMALLEST, LARGEST)
        });
        let mut buckets: Vec<Bucket> = Vec::new();
        let (mut bucket_of, mut bytes) = (vec![0; parameters.len()], 0);
        for (index, parameter) in parameters.iter().enumerate().rev() {
            let dtype = parameter.dtype();
            if buckets.last().is_none_or(|last| last.dtype != dtype || bytes >= bucket_bytes) {
                buckets.push(Bucket { dtype, parameters: Vec::new(), open: 0, pending: None });
                bytes = 0;
            }
            bytes += size(parameter);
            bucket_of[index] = buckets.len() - 1;
            if let Some(last) = buckets.last_mut() {
                last.parameters.push(index);
                last.open += 1;
            }
        }
        let sums = parameters.iter().map(|_| TreeSum::new()).collect();
        GradientSum { group, by_tree, parameters, sums, bucket_of, buckets, sent: 0, shards, done: 0 }
    }

    /// Adds the gradients of `scale` times the loss of a shard; none for a shard without samples.
    /// Returns which parameters had one.
    pub(super) fn add(&mut self, loss: Option<(&Tensor, f64)>) -> Result<Vec<bool>> {
        self.done += 1;
        let mut given = vec![false; self.parameters.len()];
        if let Some((loss, scale)) = loss {
            let mut by_leaf = HashMap::new();
            for (index, parameter) in self.parameters.iter().enumerate() {
                by_leaf.extend(parameter.leaf()?.node().map(|node| (node.number, index)));
            }
            loss.backward_by_leaf(scale, &mut |leaf, gradient| match by_leaf.get(&leaf) {
                Some(&index) => {
                    given[index] = true;
                    self.complete(index, Some(gradient))
                }
                None => Ok(()),
            })?;
        }
        for index in (0..given.len()).rev().filter(|&index| !given[index]) {
            self.complete(index, None)?;
        }
        Ok(given)
    }

    /// Adds what a shard gave to a parameter, and sends what became complete by it.
    fn complete(&mut self, index: usize, gradient: Option<Tensor>) -> Result<()> {
        self.sums[index].push(gradient)?;
        let (Some(group), true) = (self.group, self.done == self.shards) else { return Ok(()) };
        self.buckets[self.bucket_of[index]].open -= 1;
        while let Some(bucket) = self.buckets.get_mut(self.sent).filter(|bucket| bucket.open == 0) {
            let numbers = if bucket.dtype == DType::F64 {
                Numbers::F64(packed(&bucket.parameters, &self.parameters, &mut self.sums)?)
            } else {
                Numbers::F32(packed(&bucket.parameters, &self.parameters, &mut self.sums)?)
            };
            bucket.pending = Some(group.start_sum(numbers, self.by_tree));
            self.sent += 1;
        }
        Ok(())
    }

    /// Waits for the sums over all ranks. `used` says which parameters have a gradient in any.
    pub(super) fn finish(mut self, used: impl Fn(usize) -> bool) -> Result<Gradients> {
        let mut gradients = Gradients::default();
        for bucket in self.buckets {
            let Some(pending) = bucket.pending else {
                for index in bucket.parameters {
                    if let Some(sum) = self.sums[index].take() {
                        gradients.insert(&self.parameters[index].leaf()?, sum);
                    }
                }
                continue;
            };
            let numbers = pending.wait()?;
            let mut start = 0;
            for index in bucket.parameters {
                let parameter = &self.parameters[index];
                let range = start..start + parameter.numel();
                start = range.end;
                if used(index) {
                    let gradient = match &numbers {
                        Numbers::F32(values) => Tensor::from_vec(values[range].to_vec(), parameter.shape())?,
                        Numbers::F64(values) => Tensor::from_vec(values[range].to_vec(), parameter.shape())?,
                    };
                    gradients.insert(&parameter.leaf()?, gradient);
                }
            }
        }
        Ok(gradients)
    }
}

/// Returns the sums of some parameters' gradients, one after the other; zeros where there is none.
fn packed<T: Element>(indices: &[usize], parameters: &[Parameter], sums: &mut [TreeSum<Tensor>]) -> Result<Vec<T>> {
    let mut values = Vec::with_capacity(indices.iter().map(|&index| parameters[index].numel()).sum());
    for &index in indices {
        match sums[index].take() {
            Some(sum) => values.extend(sum.to_vec::<T>()?),
            None => values.resize(values.len() + parameters[index].numel(), T::default()),
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_added_as_a_balanced_tree() {
        // In f32 steps of 8 around 1e8: 3 is rounded away, 3 + 3 is not.
        let terms = [1e8f32, 3.0, 3.0, 3.0];
        let mut sum = TreeSum::new();
        for term in terms {
            sum.push(Some(Tensor::from_vec(vec![term], [1]).unwrap())).unwrap();
        }
        let found = sum.take().unwrap().item::<f32>().unwrap();
        assert_eq!(found, (1e8f32 + 3.0) + (3.0 + 3.0));
        assert_ne!(found, ((1e8f32 + 3.0) + 3.0) + 3.0);
    }

    #[test]
    fn missing_terms_are_zeros() {
        let mut sum = TreeSum::new();
        for term in [None, Some(vec![-0.0, 1.0]), None, None] {
            sum.push(term).unwrap();
        }
        let found = sum.take().unwrap();
        assert!(found == [0.0, 1.0] && found[0].is_sign_positive());
        (0..2).for_each(|_| sum.push(None).unwrap());
        assert!(sum.take().is_none());
    }
}
