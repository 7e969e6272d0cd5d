//! Convolutional networks on the CPU: tensors with reverse-mode autograd, the operations of CNNs, a
//! layer API, classic architectures, and tools to train them.
//!
//! ```
//! use convnet::prelude::*;
//!
//! let net = Sequential::new().push(Conv2d::new(1, 8, 3)).push(ReLU).push(Flatten).push(Linear::new(8 * 6 * 6, 10));
//! let (images, labels) = (Tensor::randn([4, 1, 8, 8]), Tensor::from_vec(vec![0i64, 1, 2, 3], [4])?);
//! let mut optimizer = Sgd::new(net.parameters(), 0.1).momentum(0.9);
//! optimizer.step(&net.forward(&images)?.cross_entropy(&labels)?.backward()?)?;
//! # Ok::<(), convnet::Error>(())
//! ```
//!
//! The [`guide`] teaches the crate in about an hour; [`guide::coming_from_pytorch`] has a table of
//! PyTorch's names. Layers are in [`nn`], optimisers in [`optim`], datasets and transforms in
//! [`data`], architectures in [`models`], pretrained weights in [`weights`], the trainer in
//! [`train`].
//!
//! # Features
//!
//! `image` (JPEG and PNG files) and `progress` (progress bars, Ctrl-C) are on by default;
//! `image-formats` (BMP, GIF, TIFF, WebP), `download`, `hub` (weights from the Hugging Face hub),
//! `onnx`, `parquet` and `mpi` (training on several machines) are not.
//!
//! # Builds without optimisation
//!
//! Without optimisation kernels are about a hundred times slower. A program that depends on this
//! crate can optimise it in its dev profile: `opt-level = 3` under `[profile.dev.package."*"]` in
//! its `Cargo.toml`.
//!
//! # What returns a `Result`
//!
//! A function returns [`Result`] when an argument, the content of a tensor or of a file, or the
//! size of its result can make it fail, and then it does not panic. Three kinds of functions do not
//! return one:
//!
//! - Operators (`&a + &b`, `&a * 2.0`) and functions that fit a tensor of any shape (`relu`, `abs`,
//!   `mul_scalar`, [`Tensor::zeros`]) panic at the caller's line, with the message of the error:
//!   operators when shapes or types do not fit, all of them when memory cannot hold the result.
//!   Operators have methods that return the error ([`Tensor::add`]).
//! - Constructors and setters of layers, optimisers, transforms and loaders accept all values.
//!   Values that make no sense are an error of the first call that does work (`forward`, `step`,
//!   `apply`, an epoch).
//! - Accessors (`shape`, `parameters`, `state_dict`) fail for lack of memory only.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs)]
#![deny(unsafe_code)]

pub mod autograd;
pub mod chart;
pub mod data;
mod error;
pub mod guide;
pub mod inspect;
mod io;
#[allow(unsafe_code)]
pub(crate) mod kernels;
pub mod models;
pub mod nn;
#[cfg(feature = "onnx")]
pub mod onnx;
pub mod ops;
pub mod optim;
pub mod prelude;
mod profiling;
mod tensor;
pub mod train;
pub mod weights;

pub use autograd::{enable_grad, is_grad_enabled, no_grad};
pub use error::{Context, Error, Result};
pub use kernels::runtime::parallel::num_threads;
pub use kernels::runtime::simd::instruction_set;
pub use ops::{ConvAlgorithm, with_algorithm};
pub use profiling::{ConvChoice, Cost, Explanation, Profile, ProfileRow, explain, profile};
#[doc(hidden)]
pub use tensor::Tolerance;
pub use tensor::{DType, Difference, Dim, Dims, Element, Factors, MemoryFormat, Pair, ReshapeDims, Tensor, manual_seed, manual_seed_all};

/// Statistics and the limit of tensor memory; freed buffers are recycled.
pub mod memory {
    pub use crate::kernels::runtime::allocator::{MemoryStats, OutOfMemory, limit, set_limit, stats, trim};
}

/// Sets the number of threads that operations use, including the calling thread, by creating a
/// rayon pool for them; 0 returns to rayon's global pool, which is the default.
///
/// Operations run on the caller and on threads of one rayon pool: the one that the caller is in
/// (that of [`ThreadPool::install`](rayon::ThreadPool::install), of a parallel iterator or of any
/// other job), otherwise the one created here, otherwise the global one. The variable
/// `RAYON_NUM_THREADS` and [`ThreadPoolBuilder`](rayon::ThreadPoolBuilder) size the global pool as
/// in any program, by default with one thread for each core that this process may use. So
/// `set_num_threads` has no effect on calls from a thread of a rayon pool. Operations may be called
/// from within parallel iterators: they use only those threads of that pool that are idle, never
/// more.
///
/// Results do not depend on the number of threads, to the bit: work is split by problem size.
///
/// ```
/// use convnet::Tensor;
///
/// let product = || Tensor::ones([200, 200]).matmul(&Tensor::ones([200, 200]))?.sum(..)?.item::<f32>();
/// convnet::set_num_threads(3)?;
/// assert_eq!((convnet::num_threads(), product()?), (3, 8e6));
/// let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("two threads");
/// assert_eq!(pool.install(|| (convnet::num_threads(), product().ok())), (2, Some(8e6)));
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// Several processes on one machine should share its cores: by default each uses all of them, and a
/// thread that has helped with an operation spins for a moment to wait for the next, which slows
/// the others down. Set each process's share by this function or by the variable. Threads do not
/// spin when they outnumber the cores of their process; they bring no speed-up either.
///
/// A process that is forked after the first larger operation computes on the calling thread alone,
/// since a fork copies one thread only; there, calls with a `count` above 1 fail. Fork while no
/// other thread computes: what that thread was doing, such as allocating memory, is never finished
/// in the child, which may then wait for it forever. Neither limit applies to forking before
/// anything has used rayon, or to starting programs ([`std::process::Command`]).
///
/// # Errors
/// [`Error::Argument`] when the system cannot start that many threads, or in a process forked after
/// the first larger operation.
pub fn set_num_threads(count: usize) -> Result<()> {
    kernels::runtime::parallel::set_num_threads(count)
        .map_err(|error| Error::Argument { op: "set_num_threads", message: error.to_string() })
}

/// Runs the README's examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
