//! The list of differentiable operations.

/// Every operation that a graph can record, by name.
///
/// Tests walk this list: an operation without a comparison with PyTorch and a gradient check fails the build, and recording an operation that
/// is not listed panics in debug builds.
pub const OPERATIONS: &[&str] = &[
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "add",
    "add_scalar",
    "conv1d",
    "conv2d",
    "conv_transpose2d",
    "div",
    "expand",
    "fold",
    "binary_cross_entropy_with_logits",
    "cat",
    "cross_entropy",
    "div",
    "expand",
    "flip",
    "gather",
    "index_select",
    "interpolate",
    "l1_loss",
    "avg_pool2d",
    "batch_norm",
    "div",
    "expand",
    "group_norm",
    "layer_norm",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "matmul",
    "mse_loss",
    "max_pool2d",
    "mul",
    "mul_scalar",
    "narrow",
    "neg",
    "nll_loss",
    "pad",
    "permute",
    "relu",
    "reshape",
    "smooth_l1_loss",
    "sub",
    "sum",
    "tanh",
    "unfold",
    "to_memory_format",
];

/// Whether `name` is in the list.
pub(crate) fn is_registered(name: &str) -> bool {
    OPERATIONS.contains(&name)
}
