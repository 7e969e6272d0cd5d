//! Differentiable operations: shape checks, forward, backward.
//!
//! An operation is one screen: what it checks, its forward, and directly under it the closure that undoes it. The list of all of them is
//! [`registry::OPERATIONS`], which tests walk.

mod activation;
mod arithmetic;
mod lrn;
mod matmul;
mod norm;
mod pool;
mod reduction;
pub mod registry;
mod shape;

pub use norm::BatchNormOutput;
pub use pool::Pool2dOptions;
