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
    "max_pool2d",
    "mul",
    "mul_scalar",
    "neg",
    "relu",
    "reshape",
    "sub",
    "sum",
    "tanh",
];

/// Whether `name` is in the list.
pub(crate) fn is_registered(name: &str) -> bool {
    OPERATIONS.contains(&name)
}
