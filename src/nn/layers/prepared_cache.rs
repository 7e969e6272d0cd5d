//! A cache of weights that a convolution has repacked for inference, valid until their sources
//! change.
//!
//! Training does not keep them: they are dropped when the layer runs with history. There are at
//! most a few entries, one for each recent input size. A lookup holds a shared lock only while it
//! compares a few numbers; nothing is computed while a lock is held, so no thread waits for
//! another's computation.

use std::sync::{Arc, PoisonError, RwLock};

use crate::error::Result;
use crate::nn::module::parameter::Parameter;
use crate::ops::{Conv2dOptions, ConvAlgorithm, PreparedConv2d};
use crate::tensor::DType;

/// The number of input sizes whose weights are cached: for example full batches, the last partial
/// batch of a data set, and single images.
const SIZES: usize = 3;

/// Everything that prepared weights depend on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Key {
    input: [usize; 4],
    dtype: DType,
    algorithm: ConvAlgorithm,
    source: Source,
}

/// What the prepared weights are computed from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Source {
    pub(crate) options: Conv2dOptions,
    /// Versions of the convolution's weight and bias, then of the normalisation's weight, bias,
    /// mean and variance; 0 where there is none.
    pub(crate) versions: [u64; 6],
    pub(crate) eps: f64,
}

impl Key {
    pub(crate) fn new(input: [usize; 4], dtype: DType, source: Source) -> Key {
        Key { input, dtype, algorithm: crate::ops::algorithm(), source }
    }
}

/// A cache of prepared weights; see the module. A clone starts empty.
#[derive(Default)]
pub(crate) struct PreparedCache {
    // Newest first.
    entries: RwLock<Vec<(Key, Arc<PreparedConv2d>)>>,
}

impl Clone for PreparedCache {
    fn clone(&self) -> PreparedCache {
        PreparedCache::default()
    }
}

impl PreparedCache {
    /// Returns the entry for this key, or what `prepare` returns, which is then cached if it is
    /// `Some`.
    pub(crate) fn get(&self, key: &Key, prepare: impl FnOnce() -> Result<Option<PreparedConv2d>>) -> Result<Option<Arc<PreparedConv2d>>> {
        if let Some((_, found)) = self.entries.read().unwrap_or_else(PoisonError::into_inner).iter().find(|(kept, _)| kept == key) {
            return Ok(Some(Arc::clone(found)));
        }
        // Outdated entries are dropped first, so that the new weights can reuse their memory.
        drop(self.take(|(kept, _)| kept.source != key.source));
        let Some(new) = prepare()?.map(Arc::new) else { return Ok(None) };
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have added the same entry in the meantime.
        entries.retain(|(kept, _)| kept != key);
        entries.truncate(SIZES - 1);
        entries.insert(0, (*key, Arc::clone(&new)));
        Ok(Some(new))
    }

    /// Frees all cached weights.
    pub(crate) fn clear(&self) {
        if !self.entries.read().unwrap_or_else(PoisonError::into_inner).is_empty() {
            drop(self.take(|_| true));
        }
    }

    /// Removes and returns the unwanted entries, so that the caller drops them after the lock is
    /// released.
    fn take(&self, unwanted: impl Fn(&(Key, Arc<PreparedConv2d>)) -> bool) -> Vec<(Key, Arc<PreparedConv2d>)> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let (old, rest) = std::mem::take(&mut *entries).into_iter().partition(unwanted);
        *entries = rest;
        old
    }
}

/// Returns the version, 0 for `None`.
pub(crate) fn version(parameter: Option<&Parameter>) -> u64 {
    parameter.map_or(0, Parameter::version)
}
