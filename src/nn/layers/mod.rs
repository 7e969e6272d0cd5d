//! The layers: convolution, dense, normalisation, pooling, activation, dropout, and layers that
//! only change the shape.

mod activation;
pub(crate) mod conv;
mod conv_transpose;
mod dropout;
mod embedding;
mod flatten;
mod linear;
pub(crate) mod norm;
mod padding;
pub(crate) mod pair;
mod pixel_shuffle;
mod pool;
mod prelu;
pub(crate) mod prepared_cache;
mod upsample;

pub(crate) use activation::activation_of;
pub use activation::{
    CELU, ELU, GELU, GLU, Hardsigmoid, Hardswish, Hardtanh, LeakyReLU, LogSigmoid, LogSoftmax, Maxout, Mish, ReLU, ReLU6, SELU, SiLU,
    Sigmoid, Softmax, Softplus, Tanh,
};
pub use conv::{Conv1d, Conv2d};
pub use conv_transpose::{ConvTranspose1d, ConvTranspose2d};
pub use dropout::{Dropout, Dropout2d, StochasticDepth};
pub use embedding::Embedding;
pub use flatten::{Flatten, Identity};
pub use linear::Linear;
pub use norm::{
    BatchNorm, BatchNorm1d, BatchNorm2d, GroupNorm, InstanceNorm, InstanceNorm1d, InstanceNorm2d, LayerNorm, LocalResponseNorm,
};
pub(crate) use norm::{JoinSum, average_statistics, synchronized};
pub use padding::{Conv1dPadding, ConvPadding, Pad};
pub use pair::Pair;
pub use pixel_shuffle::{ChannelShuffle, PixelShuffle, PixelUnshuffle};
pub use pool::{
    AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool1d, AvgPool2d, MaxPool1d, MaxPool2d, MaxUnpool2d, SpatialPyramidPooling,
};
pub use prelu::PReLU;
pub use upsample::Upsample;
