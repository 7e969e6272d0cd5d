//! Number crunching on plain slices and small geometry structs; the only floor with `unsafe`.
//!
//! Every function here takes slices and returns nothing or plain values. Shapes have been checked above; a kernel asserts what its safety
//! rests on and nothing more.

pub(crate) mod concat_buffer;
pub mod conv;
pub mod copy;
pub mod dropout;
pub mod elementwise;
pub mod gemm;
pub mod geometry;
pub mod loss;
pub mod norm;
pub mod optim;
pub mod pool;
pub mod reduce;
pub mod resample;
pub mod runtime;
pub mod softmax;
pub mod transpose;

/// Whether a test of so many elementary operations ends in reasonable time: under Miri each takes microseconds.
#[cfg(test)]
fn affordable(work: usize) -> bool {
    !cfg!(miri) || work < 4_000
}
