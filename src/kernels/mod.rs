//! Kernels: computation on plain slices and small geometry structs. The only layer with `unsafe`.
//!
//! Every function here takes slices and returns nothing or plain values. Callers have checked the
//! shapes; a kernel asserts only what its memory safety depends on.

pub(crate) mod concat_buffer;
pub mod conv;
pub mod copy;
pub mod ctc;
pub mod dropout;
pub mod elementwise;
pub mod gemm;
pub mod geometry;
pub mod grid_sample;
#[cfg(feature = "image")]
pub mod jpeg;
pub mod loss;
pub mod norm;
pub mod optim;
pub mod pool;
pub mod reduce;
pub mod resample;
pub mod runtime;
pub mod scale;
pub mod softmax;
pub mod transpose;

/// Returns whether a test of `work` elementary operations ends in reasonable time: under Miri each
/// operation takes microseconds.
#[cfg(test)]
fn affordable(work: usize) -> bool {
    !cfg!(miri) || work < 4_000
}
