//! Differentiable operations: shape checks, forward, backward.
//!
//! The code of an operation fits on one screen: its checks, its forward pass, and directly below it
//! the closure that computes its gradients. [`registry::OPERATIONS`] lists all operations; tests
//! iterate over it.

mod activation;
mod arithmetic;
mod batch;
mod boxes;
mod channel_scale;
mod comparison;
mod concat_buffer;
mod conv;
mod conv_transpose;
mod dropout;
#[cfg(test)]
mod extremes;
mod fused_conv;
mod grid_sample;
mod index;
mod logical;
mod losses;
mod matmul;
mod norm;
mod options;
mod pad;
mod pixel_shuffle;
mod pointwise;
mod pool;
mod power;
mod rearrange;
mod reduction;
mod resample;
mod rounding;
mod scan;
mod scatter;
mod shape;
mod slice_concat;
mod softmax;
mod sort;
mod unfold;
mod vector_norm;

pub use crate::autograd::registry;
pub use crate::kernels::elementwise::epilogue::Activation;
pub(crate) use crate::kernels::norm::moments::Moments;
pub(crate) use batch::batched;
pub(crate) use concat_buffer::ConcatBuffer;
pub(crate) use conv::algorithm;
// torchvision's name for the overlap, and the short one.
pub use boxes::{batched_nms, box_area, box_iou, box_iou as iou, nms};
pub use conv::{Conv1dOptions, Conv2dOptions, ConvAlgorithm, ConvPass, with_algorithm};
pub use conv_transpose::{ConvTranspose1dOptions, ConvTranspose2dOptions};
pub(crate) use fused_conv::{PreparedConv2d, RunningNorm};
pub use grid_sample::{GridFilter, GridPadding, GridSampleOptions, affine_grid};
pub use logical::Operand;
pub use losses::{BceOptions, CrossEntropyOptions, CtcOptions, KlDivOptions, NllOptions, Reduction, TripletOptions, ctc_greedy_decode};
pub use norm::BatchNormOutput;
pub use pad::PadMode;
pub use pool::{Pool1dOptions, Pool2dOptions};
pub use resample::{Coordinates, Interpolation, ResampleFilter, ResampleOptions, Rounding};
pub use slice_concat::SplitSizes;
pub use unfold::UnfoldOptions;
