//! Which ONNX operators each operation becomes.

use super::call::{Call, Done};
use super::{norms, pointwise, reductions, shapes, windows};

/// How an operation is exported.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    Nodes(fn(&mut Call<'_>) -> Done),
    /// It cannot be exported, for this reason.
    Never(&'static str),
}

use Rule::{Never, Nodes};

const TRAINING: &str = "it drops elements at random, in training; export in evaluation";
const LOSS: &str = "a loss is for training; export the network without it";

/// Every operation: those that record gradients, then those without.
#[rustfmt::skip]
pub(super) const OPERATORS: &[(&str, Rule)] = &[
    ("abs", Nodes(|call| pointwise::unary(call, "Abs"))),
    ("adaptive_avg_pool2d", Nodes(windows::adaptive_average)),
    ("adaptive_max_pool2d", Nodes(windows::adaptive_max)),
    ("add", Nodes(|call| pointwise::binary(call, "Add"))),
    ("add_scalar", Nodes(|call| pointwise::scalar(call, "Add"))),
    ("avg_pool2d", Nodes(windows::average_pool)),
    ("batch_norm", Nodes(norms::batch)),
    ("binary_cross_entropy", Never(LOSS)),
    ("binary_cross_entropy_with_logits", Never(LOSS)),
    ("cat", Nodes(shapes::concat)),
    ("ceil", Nodes(|call| pointwise::unary(call, "Ceil"))),
    ("clamp", Nodes(pointwise::clamp)),
    ("conv1d", Nodes(windows::convolution)),
    ("conv2d", Nodes(windows::convolution)),
    ("conv_transpose2d", Nodes(windows::transposed_convolution)),
    ("cos", Nodes(|call| pointwise::unary(call, "Cos"))),
    ("tan", Nodes(|call| pointwise::unary(call, "Tan"))),
    ("atan", Nodes(|call| pointwise::unary(call, "Atan"))),
    ("cross_entropy", Never(LOSS)),
    ("ctc_loss", Never(LOSS)),
    ("cumsum", Nodes(reductions::cumulated)),
    ("div", Nodes(|call| pointwise::binary(call, "Div"))),
    ("div_scalar", Nodes(|call| pointwise::scalar(call, "Div"))),
    ("dropout", Never(TRAINING)),
    ("dropout2d", Never(TRAINING)),
    ("elu", Nodes(pointwise::elu)),
    ("erf", Nodes(|call| pointwise::unary(call, "Erf"))),
    ("exp", Nodes(|call| pointwise::unary(call, "Exp"))),
    ("expand", Nodes(shapes::expand)),
    ("flip", Nodes(shapes::flip)),
    ("floor", Nodes(|call| pointwise::unary(call, "Floor"))),
    ("fold", Nodes(windows::fold)),
    ("gather", Nodes(shapes::gather)),
    ("gelu", Nodes(pointwise::gelu)),
    ("gelu_tanh", Nodes(pointwise::gelu_tanh)),
    ("grid_sample", Nodes(windows::grid_sample)),
    ("group_norm", Nodes(norms::group)),
    ("hardsigmoid", Nodes(pointwise::hard_sigmoid)),
    ("hardswish", Nodes(|call| pointwise::unary(call, "HardSwish"))),
    ("index_select", Nodes(shapes::select)),
    ("interpolate", Nodes(windows::interpolate)),
    ("l1_loss", Never(LOSS)),
    ("layer_norm", Nodes(norms::layer)),
    ("leaky_relu", Nodes(pointwise::leaky_relu)),
    ("linear", Nodes(windows::linear)),
    ("ln", Nodes(|call| pointwise::unary(call, "Log"))),
    ("local_response_norm", Nodes(norms::local_response)),
    ("log1p", Nodes(pointwise::log1p)),
    ("log_softmax", Nodes(|call| pointwise::softmax(call, "LogSoftmax"))),
    ("logsumexp", Nodes(|call| reductions::reduce(call, "ReduceLogSumExp"))),
    ("matmul", Nodes(|call| pointwise::binary(call, "MatMul"))),
    ("max", Nodes(|call| reductions::reduce(call, "ReduceMax"))),
    ("max_pool2d", Nodes(windows::max_pool)),
    ("maximum", Nodes(|call| pointwise::binary(call, "Max"))),
    ("maxout", Nodes(reductions::maxout)),
    ("min", Nodes(|call| reductions::reduce(call, "ReduceMin"))),
    ("minimum", Nodes(|call| pointwise::binary(call, "Min"))),
    ("mish", Nodes(pointwise::mish)),
    ("mse_loss", Never(LOSS)),
    ("mul", Nodes(|call| pointwise::binary(call, "Mul"))),
    ("mul_scalar", Nodes(|call| pointwise::scalar(call, "Mul"))),
    ("narrow", Nodes(shapes::narrow)),
    ("neg", Nodes(|call| pointwise::unary(call, "Neg"))),
    ("nll_loss", Never(LOSS)),
    ("pad", Nodes(shapes::pad)),
    ("permute", Nodes(shapes::permute)),
    ("pow", Nodes(pointwise::pow)),
    ("pow_by", Nodes(|call| pointwise::binary(call, "Pow"))),
    ("prod", Nodes(|call| reductions::reduce(call, "ReduceProd"))),
    ("recip", Nodes(|call| pointwise::unary(call, "Reciprocal"))),
    ("relu", Nodes(|call| pointwise::unary(call, "Relu"))),
    ("relu6", Nodes(pointwise::relu6)),
    ("reshape", Nodes(shapes::reshape)),
    ("round", Nodes(|call| pointwise::unary(call, "Round"))),
    ("rsqrt", Nodes(pointwise::rsqrt)),
    ("scatter", Nodes(|call| shapes::scatter(call, "none"))),
    ("scatter_add", Nodes(|call| shapes::scatter(call, "add"))),
    ("sigmoid", Nodes(|call| pointwise::unary(call, "Sigmoid"))),
    ("sign", Nodes(|call| pointwise::unary(call, "Sign"))),
    ("silu", Nodes(pointwise::silu)),
    ("sin", Nodes(|call| pointwise::unary(call, "Sin"))),
    ("smooth_l1_loss", Never(LOSS)),
    ("softmax", Nodes(|call| pointwise::softmax(call, "Softmax"))),
    ("softplus", Nodes(|call| pointwise::unary(call, "Softplus"))),
    ("sqrt", Nodes(|call| pointwise::unary(call, "Sqrt"))),
    ("square", Nodes(pointwise::square)),
    ("stochastic_depth", Never(TRAINING)),
    ("sub", Nodes(|call| pointwise::binary(call, "Sub"))),
    ("sub_scalar", Nodes(|call| pointwise::scalar(call, "Sub"))),
    ("sum", Nodes(|call| reductions::reduce(call, "ReduceSum"))),
    ("tanh", Nodes(|call| pointwise::unary(call, "Tanh"))),
    ("to_dtype", Nodes(pointwise::convert)),
    ("to_memory_format", Nodes(pointwise::same)),
    ("trunc", Nodes(pointwise::trunc)),
    ("unfold", Nodes(windows::unfold)),
    ("var", Nodes(reductions::variance)),
    ("where_", Nodes(pointwise::choose)),
    // Composed of operations, or without gradients.
    ("argmax", Nodes(|call| reductions::position(call, "ArgMax"))),
    ("argmin", Nodes(|call| reductions::position(call, "ArgMin"))),
    ("argsort", Nodes(reductions::sorted)),
    ("eq", Nodes(|call| pointwise::compare(call, "Equal", false))),
    ("eq_scalar", Nodes(|call| pointwise::compare(call, "Equal", false))),
    ("ge", Nodes(|call| pointwise::compare(call, "GreaterOrEqual", false))),
    ("ge_scalar", Nodes(|call| pointwise::compare(call, "GreaterOrEqual", false))),
    ("gt", Nodes(|call| pointwise::compare(call, "Greater", false))),
    ("gt_scalar", Nodes(|call| pointwise::compare(call, "Greater", false))),
    ("le", Nodes(|call| pointwise::compare(call, "LessOrEqual", false))),
    ("le_scalar", Nodes(|call| pointwise::compare(call, "LessOrEqual", false))),
    ("lt", Nodes(|call| pointwise::compare(call, "Less", false))),
    ("lt_scalar", Nodes(|call| pointwise::compare(call, "Less", false))),
    ("max_pool2d_with_indices", Nodes(windows::max_pool_with_indices)),
    ("mean", Nodes(|call| reductions::reduce(call, "ReduceMean"))),
    ("ne", Nodes(|call| pointwise::compare(call, "Equal", true))),
    ("ne_scalar", Nodes(|call| pointwise::compare(call, "Equal", true))),
    ("pixel_shuffle", Nodes(shapes::pixel_shuffle)),
    ("pixel_unshuffle", Nodes(shapes::pixel_unshuffle)),
];

/// Returns the rule of an operation; `None` for one that the table does not know.
pub(super) fn rule(op: &str) -> Option<Rule> {
    OPERATORS.iter().find(|(known, _)| *known == op).map(|&(_, rule)| rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::registry;

    #[test]
    fn every_registered_operation_has_nodes_or_a_reason() {
        for (op, _) in registry::OPERATIONS {
            assert!(rule(op).is_some(), "{op} has no row in the table of onnx::export");
        }
        let mut seen = std::collections::BTreeSet::new();
        assert!(OPERATORS.iter().all(|(op, _)| seen.insert(op)), "an operation has two rows");
    }
}
