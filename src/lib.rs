//! Convolutional networks on the CPU: tensors with reverse-mode autograd, the operations CNNs are made of, a layer API, classic
//! architectures, and what it takes to train them.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs)]
#![deny(unsafe_code)]

pub mod autograd;
pub mod data;
mod error;
mod io;
#[allow(unsafe_code)]
pub(crate) mod kernels;
pub mod models;
pub mod nn;
pub mod ops;
pub mod optim;
mod profiling;
mod tensor;
pub mod train;
pub mod weights;

pub use autograd::{enable_grad, is_grad_enabled, no_grad};
pub use error::{Context, Error, Result};
pub use kernels::parallel::num_threads;
pub use kernels::simd::instruction_set;
pub use ops::{ConvAlgorithm, with_algorithm};
pub use profiling::{ConvChoice, Cost, Explanation, Profile, ProfileRow, explain, profile};
pub use tensor::{DType, Dim, Dims, Element, MemoryFormat, ReshapeDims, Tensor, manual_seed};

/// What tensors' memory is doing, and its limit; freed buffers are recycled.
pub mod memory {
    pub use crate::kernels::memory::{MemoryStats, OutOfMemory, limit, set_limit, stats, trim};
}

/// Sets the number of threads that operations use, the caller's included; 0 returns to the default: the cores that this process
/// may use, unless the environment variable `RAYON_NUM_THREADS` says otherwise, which is looked at once.
///
/// Results do not depend on it: work is split by problem size.
///
/// # Errors
/// [`Error::Argument`] when the system cannot start that many threads.
pub fn set_num_threads(count: usize) -> Result<()> {
    kernels::parallel::set_num_threads(count).map_err(|error| Error::Argument { op: "set_num_threads", message: error.to_string() })
}

/// Runs the README's examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
