//! The layers: convolution, dense, normalisation, pooling, activation, dropout, and layers that
//! only change the shape.

mod activation;
pub(crate) mod conv;
mod dropout;
mod flatten;
mod linear;
pub(crate) mod norm;
pub(crate) mod pair;
mod pool;
pub(crate) mod prepared_cache;
mod upsample;

pub(crate) use activation::activation_of;
pub use activation::{
    ELU, GELU, Hardsigmoid, Hardswish, LeakyReLU, LogSoftmax, Maxout, ReLU, ReLU6, SiLU, Sigmoid, Softmax, Softplus, Tanh,
};
pub use conv::{Conv1d, Conv2d, ConvTranspose2d};
pub use dropout::{Dropout, Dropout2d, StochasticDepth};
pub use flatten::{Flatten, Identity};
pub use linear::Linear;
pub(crate) use norm::average_statistics;
pub use norm::{BatchNorm, BatchNorm1d, BatchNorm2d, GroupNorm, LayerNorm, LocalResponseNorm};
pub use pair::Pair;
pub use pool::{AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d};
pub use upsample::Upsample;
