//! The table of differentiable operations.

use Extent::{Global, Pointwise, Window};

/// The part of its inputs from which an operation computes one position of its result, along height
/// and width.
///
/// [`ModuleExt::receptive_field`](crate::nn::ModuleExt::receptive_field) combines the extents of a
/// network's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The same position of each input. Inputs and results whose height or width is 1, because they
    /// were reduced or are broadcast, belong to all positions.
    Pointwise,
    /// A window, which the operation passes when it is recorded.
    Window,
    /// The whole map.
    Global,
}

/// Every operation that a graph can record, with its extent in its inputs; by name.
///
/// Tests iterate over this table: an operation without a comparison with PyTorch and a gradient
/// check fails the build. In debug builds, recording an operation panics when it is missing here,
/// and when it has windows but does not pass them (`record_window`). Operations that users define
/// ([`CustomOp`](super::CustomOp)) need no row.
#[rustfmt::skip]
pub const OPERATIONS: &[(&str, Extent)] = &[
    ("abs", Pointwise),
    ("adaptive_avg_pool2d", Window),
    ("adaptive_max_pool2d", Window),
    ("add", Pointwise),
    ("add_scalar", Pointwise),
    ("atan", Pointwise),
    ("avg_pool2d", Window),
    ("batch_norm", Pointwise),
    ("binary_cross_entropy", Global),
    ("binary_cross_entropy_with_logits", Global),
    ("cat", Window),
    ("ceil", Pointwise),
    ("clamp", Pointwise),
    ("conv1d", Window),
    ("conv2d", Window),
    ("conv_transpose2d", Window),
    ("cos", Pointwise),
    ("cross_entropy", Global),
    ("ctc_loss", Global),
    ("cumsum", Global),
    ("div", Pointwise),
    ("div_scalar", Pointwise),
    ("dropout", Pointwise),
    ("dropout2d", Pointwise),
    ("elu", Pointwise),
    ("erf", Pointwise),
    ("exp", Pointwise),
    ("expand", Pointwise),
    ("flip", Window),
    ("floor", Pointwise),
    ("fold", Global),
    ("gather", Global),
    ("gelu", Pointwise),
    ("gelu_tanh", Pointwise),
    ("grid_sample", Global),
    ("group_norm", Global),
    ("hardsigmoid", Pointwise),
    ("hardswish", Pointwise),
    ("index_select", Window),
    ("interpolate", Window),
    ("l1_loss", Global),
    ("layer_norm", Global),
    ("leaky_relu", Pointwise),
    ("linear", Global),
    ("ln", Pointwise),
    ("local_response_norm", Pointwise),
    ("log1p", Pointwise),
    ("log_softmax", Window),
    ("logsumexp", Global),
    ("matmul", Global),
    ("max", Pointwise),
    ("max_pool2d", Window),
    ("maximum", Pointwise),
    ("maxout", Pointwise),
    ("min", Pointwise),
    ("minimum", Pointwise),
    ("mish", Pointwise),
    ("mse_loss", Global),
    ("mul", Pointwise),
    ("mul_scalar", Pointwise),
    ("narrow", Window),
    ("neg", Pointwise),
    ("nll_loss", Global),
    ("pad", Window),
    ("permute", Window),
    ("pow", Pointwise),
    ("pow_by", Pointwise),
    ("prod", Pointwise),
    ("recip", Pointwise),
    ("relu", Pointwise),
    ("relu6", Pointwise),
    ("reshape", Window),
    ("round", Pointwise),
    ("rsqrt", Pointwise),
    ("scatter", Global),
    ("scatter_add", Global),
    ("sigmoid", Pointwise),
    ("sign", Pointwise),
    ("silu", Pointwise),
    ("sin", Pointwise),
    ("smooth_l1_loss", Global),
    ("softmax", Window),
    ("softplus", Pointwise),
    ("sqrt", Pointwise),
    ("square", Pointwise),
    ("stochastic_depth", Pointwise),
    ("sub", Pointwise),
    ("sub_scalar", Pointwise),
    ("sum", Pointwise),
    ("tan", Pointwise),
    ("tanh", Pointwise),
    ("to_dtype", Pointwise),
    ("to_memory_format", Pointwise),
    ("trunc", Pointwise),
    ("unfold", Global),
    ("var", Pointwise),
    ("where_", Pointwise),
];

/// Returns the extent of an operation, `None` when it is not in the table.
pub(crate) fn extent(name: &str) -> Option<Extent> {
    OPERATIONS.iter().find(|(op, _)| *op == name).map(|&(_, extent)| extent)
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use crate::tensor::Tensor;

    fn record(op: &'static str) {
        let x = Tensor::ones([1, 1, 2, 2]).with_grad();
        x.detach().record(op, [&x], |grad, _wanted| Ok([Some(grad.clone())]));
    }

    #[test]
    #[should_panic(expected = "pad is registered as Window, windows given: false")]
    fn recording_an_operation_with_windows_without_them_panics() {
        record("neg");
        record("pad");
    }

    #[test]
    #[should_panic(expected = "operation unlisted is missing from the registry")]
    fn recording_an_operation_that_is_not_listed_panics() {
        record("unlisted");
    }
}
