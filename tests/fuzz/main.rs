//! Mutated files and random calls. Whatever a file holds, reading it gives a value or an error, in
//! time and memory in proportion to its length; and whatever an operation or a layer is called
//! with, it returns a value or an error. The seed is fixed. An ordinary run takes a few hundred
//! files of each kind and a few thousand calls; this takes 20,000 files and 20,000 calls, and
//! prints figures:
//!
//! ```text
//! CONVNET_FUZZ=20000 cargo test --all-features --test fuzz -- --nocapture
//! ```

#[path = "../weights/archive.rs"]
mod archive;
mod datasets;
mod generator;
mod idx;
#[cfg(feature = "onnx")]
mod message;
mod mutate;
#[cfg(feature = "onnx")]
mod onnx;
mod operations;
#[cfg(feature = "image")]
mod pictures;
mod weights;
