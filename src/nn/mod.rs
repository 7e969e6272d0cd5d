//! Layers, containers and the tools to build networks from them.
//!
//! A network is a [`Module`]: it maps a tensor to a tensor, and names its parts to a [`Visitor`].
//! One visitor serves every operation on a whole network: collecting [`Parameter`]s, switching
//! between training and evaluation, freezing, [state dicts](StateDict), saving,
//! [summaries](Summary), and setting each layer's path, which error messages contain:
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
//! Layers are created by `new` with their required arguments, and have setters for the optional
//! ones; `forward` reports invalid options, such as groups that do not divide the channels. Names
//! and defaults are PyTorch's.

mod containers;
pub mod init;
pub(crate) mod inspect;
mod layers;
mod module;
mod module_ext;
pub(crate) mod state;

pub use crate::ops::Activation;
pub(crate) use containers::buffered_bn_act;
pub use containers::{
    Checkpoint, Sequential, bn_act, checkpoint, conv_act, conv_bn, conv_bn_act, conv_bn_add_act, conv_bn_add_relu, conv_bn_relu,
    scale_add_act,
};
#[cfg(test)]
pub(crate) use inspect::check_fields;
pub use inspect::{ReceptiveField, ReceptiveFields, Summary, SummaryRow};
pub use layers::{
    AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool1d, AvgPool2d, BatchNorm, BatchNorm1d, BatchNorm2d, CELU,
    ChannelShuffle, Conv1d, Conv1dPadding, Conv2d, ConvPadding, ConvTranspose1d, ConvTranspose2d, Dropout, Dropout2d, ELU, Embedding,
    Flatten, GELU, GLU, GroupNorm, Hardsigmoid, Hardswish, Hardtanh, Identity, InstanceNorm, InstanceNorm1d, InstanceNorm2d, LayerNorm,
    LeakyReLU, Linear, LocalResponseNorm, LogSigmoid, LogSoftmax, MaxPool1d, MaxPool2d, MaxUnpool2d, Maxout, Mish, PReLU, Pad, Pair,
    PixelShuffle, PixelUnshuffle, ReLU, ReLU6, SELU, SiLU, Sigmoid, Softmax, Softplus, SpatialPyramidPooling, StochasticDepth, Tanh,
    Upsample,
};
pub(crate) use layers::{JoinSum, average_statistics, synchronized};
pub(crate) use module::layer::is_observed;
pub(crate) use module::macros::visit_with;
pub(crate) use module::parameter::as_constants;
pub use module::{
    AsModule, Buffer, ChannelScale, Copier, Item, Layer, LayerPath, Module, Parameter, Parts, PartsMut, TrainingMode, Visit, Visitor, block,
};
pub(crate) use module::{Modes, in_evaluation, keeping_modes, near_names};
pub use module_ext::ModuleExt;
pub use state::{LoadReport, StateDict, StateDifference};
