//! Weights that a convolution has laid out for inference and keeps until what they were made from changes.
//!
//! Training must not pay for them: they are dropped when the layer runs with history, and are a few at most, one for each size of input seen
//! last. Looking them up takes a shared lock for as long as it takes to compare some numbers; nothing is computed while a lock is held, so that no
//! thread waits here for another's work.

use std::sync::{Arc, PoisonError, RwLock};

use crate::error::Result;
use crate::nn::module::parameter::Parameter;
use crate::ops::{Conv2dOptions, ConvAlgorithm, PreparedConv2d};
use crate::tensor::DType;

/// Sizes of input whose weights are kept: say full batches, the rest of a data set, and single images.
const SIZES: usize = 3;

/// Everything that prepared weights depend on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Key {
    input: [usize; 4],
    dtype: DType,
    algorithm: ConvAlgorithm,
    source: Source,
}

/// What they are made from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Source {
    pub(crate) options: Conv2dOptions,
    /// Of the convolution's weight and bias, then of the normalisation's weight, bias, mean and variance; 0 where there is none.
    pub(crate) versions: [u64; 6],
    pub(crate) eps: f64,
}

impl Key {
    pub(crate) fn new(input: [usize; 4], dtype: DType, source: Source) -> Key {
        Key { input, dtype, algorithm: crate::ops::algorithm(), source }
    }
}

/// See the module. A clone starts empty.
#[derive(Default)]
pub(crate) struct PreparedCache {
    // The newest first.
    entries: RwLock<Vec<(Key, Arc<PreparedConv2d>)>>,
}

impl Clone for PreparedCache {
    fn clone(&self) -> PreparedCache {
        PreparedCache::default()
    }
}

impl PreparedCache {
    /// What is kept under this key, or what `prepare` makes, if it does, which is kept from now on.
    pub(crate) fn get(&self, key: &Key, prepare: impl FnOnce() -> Result<Option<PreparedConv2d>>) -> Result<Option<Arc<PreparedConv2d>>> {
        if let Some((_, found)) = self.entries.read().unwrap_or_else(PoisonError::into_inner).iter().find(|(kept, _)| kept == key) {
            return Ok(Some(Arc::clone(found)));
        }
        // What is out of date goes first, so that the new weights can take its place in memory.
        drop(self.take(|(kept, _)| kept.source != key.source));
        let Some(new) = prepare()?.map(Arc::new) else { return Ok(None) };
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been as fast.
        entries.retain(|(kept, _)| kept != key);
        entries.truncate(SIZES - 1);
        entries.insert(0, (*key, Arc::clone(&new)));
        Ok(Some(new))
    }

    /// Gives all memory back.
    pub(crate) fn clear(&self) {
        if !self.entries.read().unwrap_or_else(PoisonError::into_inner).is_empty() {
            drop(self.take(|_| true));
        }
    }

    /// Takes out the entries of a kind; they are to be dropped without the lock.
    fn take(&self, unwanted: impl Fn(&(Key, Arc<PreparedConv2d>)) -> bool) -> Vec<(Key, Arc<PreparedConv2d>)> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let (old, rest) = std::mem::take(&mut *entries).into_iter().partition(unwanted);
        *entries = rest;
        old
    }
}

/// The version, 0 for none.
pub(crate) fn version(parameter: Option<&Parameter>) -> u64 {
    parameter.map_or(0, Parameter::version)
}
