//! Modules made of other modules: sequences, recomputed segments, and neighbouring layers that run
//! as one kernel.

mod checkpoint;
mod fused;
mod sequential;

pub use checkpoint::{Checkpoint, checkpoint};
pub(crate) use fused::buffered_bn_act;
pub use fused::{bn_act, conv_act, conv_bn, conv_bn_act, conv_bn_add_act, conv_bn_add_relu, conv_bn_relu, scale_add_act};
pub use sequential::Sequential;
