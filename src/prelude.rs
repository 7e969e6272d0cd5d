//! The items that most programs need, for `use convnet::prelude::*`: tensors, modules, all layers,
//! the usual optimisers, data loading.
//!
//! ```
//! use convnet::prelude::*;
//!
//! let net = Sequential::new().push(Conv2d::new(1, 4, 3)).push(ReLU).push(Flatten).push(Linear::new(4 * 6 * 6, 10));
//! let mut optimizer = Sgd::new(net.parameters(), 0.1).momentum(0.9);
//! let (images, labels) = (Tensor::randn([2, 1, 8, 8]), Tensor::from_vec(vec![3i64, 7], [2])?);
//! let loss = images.apply(&net)?.cross_entropy(&labels)?;
//! optimizer.step(&loss.backward()?)?;
//! # Ok::<(), convnet::Error>(())
//! ```

pub use crate::autograd::no_grad;
pub use crate::data::{Batch, DataLoader, Dataset, Transform};
pub use crate::error::{Error, Result};
pub use crate::nn::{
    AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool1d, AvgPool2d, BatchNorm, BatchNorm1d, BatchNorm2d, CELU,
    ChannelShuffle, Conv1d, Conv1dPadding, Conv2d, ConvPadding, ConvTranspose1d, ConvTranspose2d, Dropout, Dropout2d, ELU, Embedding,
    Flatten, GELU, GLU, GroupNorm, Hardsigmoid, Hardswish, Hardtanh, Identity, InstanceNorm, InstanceNorm1d, InstanceNorm2d, LayerNorm,
    LeakyReLU, Linear, LocalResponseNorm, LogSigmoid, LogSoftmax, MaxPool1d, MaxPool2d, MaxUnpool2d, Maxout, Mish, Module, ModuleExt,
    PReLU, Pad, Pair, Parameter, PixelShuffle, PixelUnshuffle, ReLU, ReLU6, SELU, Sequential, SiLU, Sigmoid, Softmax, Softplus,
    SpatialPyramidPooling, StateDict, StochasticDepth, Tanh, Upsample, Visitor,
};
pub use crate::optim::{Adam, AdamW, LrScheduler, Optimizer, Sgd};
pub use crate::tensor::{DType, Tensor, manual_seed, manual_seed_all};
pub use crate::visit_fields;
