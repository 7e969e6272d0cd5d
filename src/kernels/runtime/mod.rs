//! What kernels run on: threads, memory, vectors of the instruction set, mathematical functions.

pub mod allocator;
pub mod math;
pub mod nontemporal;
pub mod parallel;
pub mod simd;
mod thread_pool;
