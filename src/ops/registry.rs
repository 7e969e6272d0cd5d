//! The list of differentiable operations.

/// Every operation that a graph can record, by name.
///
/// Tests walk this list: an operation without a comparison with PyTorch and a gradient check fails the build, and recording an operation that
/// is not listed panics in debug builds.
pub const OPERATIONS: &[&str] = &[
    "abs",
    "add",
    "add_scalar",
    "clamp",
    "conv1d",
    "conv2d",
    "conv_transpose2d",
    "cos",
    "div",
    "div_scalar",
    "dropout",
    "dropout2d",
    "elu",
    "exp",
    "expand",
    "fold",
    "gelu",
    "gelu_tanh",
    "hardsigmoid",
    "hardswish",
    "leaky_relu",
    "linear",
    "ln",
    "log_softmax",
    "logsumexp",
    "matmul",
    "max",
    "maximum",
    "maxout",
    "min",
    "minimum",
    "mish",
    "mul",
    "mul_scalar",
    "neg",
    "pow",
    "recip",
    "relu",
    "relu6",
    "reshape",
    "sigmoid",
    "silu",
    "sin",
    "softmax",
    "softplus",
    "sqrt",
    "square",
    "sub",
    "sub_scalar",
    "sum",
    "tanh",
    "to_dtype",
    "unfold",
    "var",
    "where_",
];

/// Whether `name` is in the list.
pub(crate) fn is_registered(name: &str) -> bool {
    OPERATIONS.contains(&name)
}
