//! Inspection of networks while they compute: outputs and gradients at any path, features of a
//! truncated network, maps of what a class depends on.
//!
//! [`capture`](capture()) runs a forward pass and keeps the outputs of the layers and blocks that
//! are named. They are tensors of the pass's graph, so a backward pass also returns their
//! gradients. [`features`] stops the pass at a path and returns the output there.
//!
//! ```
//! use convnet::{Tensor, inspect, models, nn::Module};
//!
//! let model = models::create("resnet18", 10)?;
//! let x = Tensor::randn([2, 3, 32, 32]);
//! let seen = inspect::capture(&model, ["layer4", "layer1.0.conv1"], || model.forward(&x))?;
//! assert_eq!(seen.output("layer1.0.conv1")?.shape(), [2, 64, 8, 8]);
//! let gradients = seen.value.sum(..)?.backward()?;
//! assert_eq!(seen.gradient(&gradients, "layer4")?.shape(), [2, 512, 1, 1]);
//! # Ok::<(), convnet::Error>(())
//! ```
//!
//! Paths are those of [`named_modules`](crate::nn::ModuleExt::named_modules) and of state-dict
//! keys: `layer4`, `layer4.1.conv2`. A layer or block that occurs twice in a network has the first
//! of its paths. A block of your own reports its output when its `forward` runs inside
//! [`nn::block`](crate::nn::block), or when it is in a [`Sequential`](crate::nn::Sequential) or a
//! `Vec`.
//!
//! [`grad_cam`], [`grad_cam_plus_plus`], [`saliency`], [`smooth_grad`], [`integrated_gradients`]
//! and [`occlusion`] show which parts of a picture a class depends on; [`kernels`] and
//! [`feature_maps`] draw what a network has learned. [`weight_histograms`] and its like show
//! distributions, and [`first_non_finite`], [`without_gradient`], [`dead_relus`] and
//! [`UpdateRatios`] find out why training fails.

mod attribution;
mod capture;
mod diagnoses;
mod histogram;
mod network;
mod pictures;

pub use attribution::{grad_cam, grad_cam_plus_plus, heat_of, integrated_gradients, last_maps, occlusion, saliency, smooth_grad};
pub use capture::{Captured, capture, features};
pub use diagnoses::{DeadReLUs, NonFinite, UpdateRatios, dead_relus, first_non_finite, without_gradient};
pub use histogram::{Histogram, activation_histograms, gradient_histograms, weight_histograms};
pub use pictures::{feature_maps, kernels};
pub(crate) use pictures::{kernel_shape, kernel_tiles};
