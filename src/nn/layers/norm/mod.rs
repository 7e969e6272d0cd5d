//! Normalisation layers.

mod batch;
mod group;
mod instance;
mod layer;
mod local_response;
mod sync;

pub use batch::{BatchNorm, BatchNorm1d, BatchNorm2d};
pub(crate) use batch::{Running, average_statistics};
pub use group::GroupNorm;
pub use instance::{InstanceNorm, InstanceNorm1d, InstanceNorm2d};
pub use layer::LayerNorm;
pub use local_response::LocalResponseNorm;
pub(crate) use sync::{JoinSum, synchronized};

use crate::nn::init::layer_constant;
use crate::nn::module::parameter::Parameter;
use crate::tensor::shape::try_numel;

/// Returns weight and bias of a normalisation, if it has them. They are empty for a shape that
/// memory cannot hold, which `forward` reports.
fn scale_and_shift(affine: bool, shape: &[usize]) -> [Option<Parameter>; 2] {
    let shape = || if try_numel(shape).is_some() { shape.to_vec() } else { vec![0] };
    [1.0, 0.0].map(|value| affine.then(|| layer_constant(shape(), value)))
}
