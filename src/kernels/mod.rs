//! Number crunching on plain slices and small geometry structs; the only floor with `unsafe`.
//!
//! Every function here takes slices and returns nothing or plain values. Shapes have been checked above; a kernel asserts what its safety
//! rests on and nothing more.

pub mod conv;
pub mod elementwise;
pub mod gemm;
pub mod geometry;
pub mod layout;
pub mod memory;
pub mod parallel;
pub mod reduce;
pub mod simd;
pub(crate) mod tile;
