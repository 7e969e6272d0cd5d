//! The runtime of kernels: threads, memory, SIMD vectors of each instruction set, mathematical
//! functions.

pub mod allocator;
pub mod arrays;
pub mod math;
pub mod nontemporal;
pub mod parallel;
pub mod simd;
mod thread_pool;
