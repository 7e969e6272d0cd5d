//! Number crunching on plain slices and small geometry structs; the only floor with `unsafe`.
//!
//! Every function here takes slices and returns nothing or plain values. Shapes have been checked above; a kernel asserts what its safety
//! rests on and nothing more.

pub mod activation;
pub mod conv;
pub mod copy;
pub mod dropout;
pub mod elementwise;
pub mod epilogue;
pub(crate) mod gate;
pub mod gemm;
pub mod geometry;
pub(crate) mod growing;
pub mod layer_norm;
pub mod layout;
pub mod loss;
pub mod lrn;
pub mod math;
pub mod memory;
pub mod moments;
pub mod norm;
pub mod optim;
pub(crate) mod outer;
pub mod parallel;
pub mod pool;
pub mod reduce;
pub mod resample;
pub mod simd;
pub mod skinny;
pub mod softmax;
pub mod stream;
mod thread_pool;
pub(crate) mod tile;

/// Whether a test of so many elementary operations ends in reasonable time: under Miri each takes microseconds.
#[cfg(test)]
fn affordable(work: usize) -> bool {
    !cfg!(miri) || work < 4_000
}
