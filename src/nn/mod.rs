//! Layers, and what networks are put together with.
//!
//! A network is a [`Module`]: it maps a tensor to a tensor, and names its parts to a [`Visitor`]. One such walk drives all that is done to a
//! whole network: collecting [`Parameter`]s, switching between training and evaluation, freezing, [state dicts](StateDict), saving,
//! [summaries](Summary), and telling each layer its path, which error messages give:
//!
//! ```
//! use convnet::nn::{Conv2d, Module, ReLU, Sequential};
//! use convnet::Tensor;
//!
//! let net = Sequential::new().push_named("conv1", Conv2d::new(64, 64, 3)).push(ReLU);
//! let error = net.forward(&Tensor::zeros([2, 3, 56, 56])).unwrap_err().to_string();
//! assert_eq!(error, "conv1 (Conv2d 64→64, k3): expected 64 input channels, got shape [2, 3, 56, 56]");
//! ```
//!
//! Layers are built by `new` with what must be given, and setters for the rest; options that make no sense, such as groups that do not divide
//! the channels, are reported by `forward`. Names and defaults are PyTorch's.

mod activation;
mod checkpoint;
mod conv;
mod dropout;
mod fused;
pub mod init;
mod kept;
mod linear;
mod module;
mod norm;
mod parameter;
mod pool;
mod receptive;
pub(crate) mod safetensors;
mod sequential;
mod shape;
mod site;
mod size;
mod state_dict;
mod summary;
mod tree;
mod upsample;
mod visitor;

pub use crate::ops::Activation;
pub use activation::{
    ELU, GELU, Hardsigmoid, Hardswish, LeakyReLU, LogSoftmax, Maxout, ReLU, ReLU6, SiLU, Sigmoid, Softmax, Softplus, Tanh,
};
pub use checkpoint::{Checkpoint, checkpoint};
pub(crate) use conv::describe as describe_convolution;
pub use conv::{Conv1d, Conv2d, ConvTranspose2d};
pub use dropout::{Dropout, Dropout2d, StochasticDepth};
pub(crate) use fused::growing_bn_act;
pub use fused::{bn_act, conv_act, conv_bn, conv_bn_act, conv_bn_add_act, conv_bn_add_relu, conv_bn_relu, gate_add_act};
pub use linear::Linear;
pub use module::{Gate, Module, Part};
pub use norm::{BatchNorm, BatchNorm1d, BatchNorm2d, GroupNorm, LayerNorm, LocalResponseNorm};
pub use parameter::{Buffer, Parameter};
pub use pool::{AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d};
#[cfg(test)]
pub(crate) use receptive::tests::check as check_fields;
pub use receptive::{ReceptiveField, ReceptiveFields};
pub use sequential::Sequential;
pub use shape::{Flatten, Identity};
pub use site::{Leaf, Mode, Site, block};
pub use size::Pair;
pub(crate) use size::short as short_size;
pub use state_dict::{LoadReport, StateDict};
pub use summary::{Summary, SummaryRow};
pub use upsample::Upsample;
pub use visitor::{Item, Visit, Visitor};
