//! The list of differentiable operations.

/// Every operation that a graph can record, by name.
///
/// Tests walk this list: an operation without a comparison with PyTorch and a gradient check fails the build, and recording an operation that
/// is not listed panics in debug builds.
pub const OPERATIONS: &[&str] = &[
    "add",
    "add_scalar",
    "conv1d",
    "conv2d",
    "conv_transpose2d",
    "div",
    "expand",
    "fold",
    "leaky_relu",
    "linear",
    "matmul",
    "mul",
    "mul_scalar",
    "neg",
    "relu",
    "reshape",
    "sub",
    "sum",
    "tanh",
    "unfold",
];

/// Whether `name` is in the list.
pub(crate) fn is_registered(name: &str) -> bool {
    OPERATIONS.contains(&name)
}
