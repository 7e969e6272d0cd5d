//! A guide to the crate: what a newcomer has to know to train a network on data of their own, in
//! about an hour.
//!
//! The chapters build on each other, but each has whole programs that run as they stand; they are
//! tested with the crate.

/// Tensors: making them, operations, images, gradients.
///
#[doc = include_str!("../../docs/guide/tensors.md")]
///
/// ## Reference
/// [`Tensor`](crate::Tensor), [`ops`](crate::ops), [`autograd`](crate::autograd)
pub mod tensors {}

/// Training: the loop by hand, a network as a type, the trainer, the learning rate.
///
#[doc = include_str!("../../docs/guide/training.md")]
///
/// ## Reference
/// [`nn`](crate::nn), [`optim`](crate::optim), [`models`](crate::models), [`DataLoader`](crate::data::DataLoader),
/// [`Trainer`](crate::train::Trainer), [`Callback`](crate::train::Callback),
/// [`metrics`](crate::train::metrics)
pub mod training {}
