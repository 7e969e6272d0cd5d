//! A guide to the crate: what a newcomer has to know to train a network on data of their own, in
//! about an hour.
//!
//! | chapter | answers |
//! |---|---|
//! | [`tensors`] | what numbers are kept in, and how gradients come about |
//! | [`training`] | how a network learns: the loop by hand, and the trainer |
//! | [`data`] | how files, folders and samples of any type become batches |
//! | [`augmentation`] | how to show more variants of a picture than there are |
//! | [`fine_tuning`] | how to start from what others trained |
//! | [`saving`] | what files there are, and how a run goes on after a crash |
//! | [`speed`] | what threads, memory and the seed do |
//! | [`inspecting`] | what a network is, computes and looks at |
//! | [`coming_from_pytorch`] | what PyTorch's names are here, and what differs |
//!
//! The programs of the chapters are tested with the crate. In a program of your own, some of them
//! need `cargo add ndarray@0.17 approx@0.5 tempfile` as well. Those who know PyTorch may begin with
//! the last chapter.

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
/// [`nn`](crate::nn), [`optim`](crate::optim), [`models`](crate::models),
/// [`DataLoader`](crate::data::DataLoader), [`Trainer`](crate::train::Trainer),
/// [`Callback`](crate::train::Callback), [`metrics`](crate::train::metrics)
pub mod training {}

/// Data: datasets, folders of pictures, samples of any type, samplers, worker threads.
///
#[doc = include_str!("../../docs/guide/data.md")]
///
/// ## Reference
/// [`Dataset`](crate::data::Dataset), [`DataLoader`](crate::data::DataLoader),
/// [`Collate`](crate::data::Collate), [`Sampler`](crate::data::Sampler), [`data`](crate::data)
pub mod data {}

/// Augmentation: transforms, masks and boxes that move along, mixtures of batches.
///
#[doc = include_str!("../../docs/guide/augmentation.md")]
///
/// ## Reference
/// [`Transform`](crate::data::Transform), [`Deterministic`](crate::data::Deterministic),
/// [`Geometric`](crate::data::Geometric), [`BatchTransform`](crate::data::BatchTransform)
pub mod augmentation {}

/// Fine-tuning: published weights, a new head, freezing, groups of parameters.
///
#[doc = include_str!("../../docs/guide/fine_tuning.md")]
///
/// ## Reference
/// [`models`](crate::models), [`weights`](crate::weights),
/// [`ModuleExt::replace`](crate::nn::ModuleExt::replace),
/// [`Module::freeze`](crate::nn::Module::freeze),
/// [`GroupedOptimizer::group`](crate::optim::GroupedOptimizer::group)
pub mod fine_tuning {}

/// Saving and resuming: weights, checkpoints, exact resumption, reading them from Python.
///
#[doc = include_str!("../../docs/guide/saving.md")]
///
/// ## Reference
/// [`ModuleExt::save`](crate::nn::ModuleExt::save), [`Checkpoint`](crate::train::Checkpoint),
/// [`Checkpoints`](crate::train::Checkpoints), [the format](crate::train::checkpoint)
pub mod saving {}

/// Speed and threads: what is deterministic, inference, profiles, memory.
///
#[doc = include_str!("../../docs/guide/speed.md")]
///
/// ## Reference
/// [`set_num_threads`](crate::set_num_threads), [`profile`](crate::profile()),
/// [`explain`](crate::explain()), [`memory`](crate::memory), [`Checkpoint`](crate::nn::Checkpoint)
pub mod speed {}

/// Inspecting: summaries, outputs and gradients by path, maps of what a class depends on.
///
#[doc = include_str!("../../docs/guide/inspecting.md")]
///
/// ## Reference
/// [`inspect`](crate::inspect), [`Summary`](crate::nn::Summary),
/// [`ReceptiveFields`](crate::nn::ReceptiveFields), [`Image`](crate::data::Image)
pub mod inspecting {}

/// Coming from PyTorch: what differs, and tables of names.
///
#[doc = include_str!("../../docs/guide/coming_from_pytorch.md")]
pub mod coming_from_pytorch {}
