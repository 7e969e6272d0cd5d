//! Differentiable operations: shape checks, forward, backward.
//!
//! An operation is one screen: what it checks, its forward, and directly under it the closure that undoes it. The list of all of them is
//! [`registry::OPERATIONS`], which tests walk.

mod activation;
mod arithmetic;
mod conv;
mod matmul;
mod reduction;
pub mod registry;
mod shape;

pub use conv::{Conv1dOptions, Conv2dOptions, ConvAlgorithm, ConvTranspose2dOptions, UnfoldOptions, with_algorithm};
