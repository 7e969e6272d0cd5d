//! The operators of ONNX, as tables of names and functions.

mod conv;
mod einsum;
mod elementwise;
mod indexing;
mod normalisation;
mod pool;
mod quantised;
mod reduction;
mod resize;
mod shape;

pub(super) use conv::{ConvOptions, padded};

use super::node::Call;
use crate::error::Result;
use crate::onnx::element::{ElementType, Value};
use crate::tensor::{DType, Tensor};

/// What an operator does.
#[derive(Clone, Copy)]
pub(super) enum Operator {
    /// One tensor to one of the same element type, computed in floating point.
    Unary(fn(&Tensor) -> Result<Tensor>),
    /// One tensor to one of the same element type, integers as `i64`.
    Number(fn(&Tensor) -> Result<Tensor>),
    /// Two broadcast tensors to one of the same element type.
    Binary(fn(&Tensor, &Tensor) -> Result<Tensor>),
    /// One or two tensors to booleans.
    Test(fn(&Tensor, &Tensor) -> Result<Tensor>),
    /// A reduction of these dimensions, which are kept with size 1.
    Reduce(fn(&Tensor, &[i64]) -> Result<Tensor>),
    /// Anything else.
    General(fn(&Call<'_>) -> Result<Vec<Value>>),
    /// One of two graphs inside, by a condition. It is taken apart when the graph is checked.
    If,
}

/// A table of operators.
type Table = &'static [(&'static str, Operator)];

const TABLES: &[Table] = &[
    elementwise::TABLE,
    reduction::TABLE,
    shape::TABLE,
    indexing::TABLE,
    conv::TABLE,
    einsum::TABLE,
    pool::TABLE,
    normalisation::TABLE,
    resize::TABLE,
    quantised::TABLE,
];

/// Returns the operator of this name in ONNX's own domain.
pub(super) fn find(name: &str) -> Option<Operator> {
    if name == "If" {
        return Some(Operator::If);
    }
    TABLES.iter().flat_map(|table| table.iter()).find(|(known, _)| *known == name).map(|&(_, operator)| operator)
}

/// Runs an operator.
pub(super) fn run(call: &Call<'_>) -> Result<Vec<Value>> {
    match call.node.operator {
        Operator::Unary(f) => {
            let x = call.value(0)?;
            let y = if x.element.is_float() { f(&x.tensor)? } else { f(&x.tensor.to_dtype(DType::F64)?)?.to_dtype(DType::I64)? };
            call.one(y, x.element)
        }
        Operator::Number(f) => {
            let x = call.value(0)?;
            call.one(f(&signed(x)?)?, x.element)
        }
        Operator::Binary(f) => {
            let (a, b) = (call.value(0)?, call.value(1)?);
            call.one(f(&signed(a)?, &signed(b)?)?, a.element)
        }
        Operator::Test(f) => {
            let a = call.tensor(0)?;
            call.one(f(a, call.optional_tensor(1).unwrap_or(a))?, ElementType::Bool)
        }
        Operator::Reduce(f) => reduction::reduce(call, f),
        Operator::General(f) => f(call),
        Operator::If => Err(call.node.error("is not run by itself")),
    }
}

/// Returns integers as `i64`, in which sums and differences of bytes fit.
fn signed(value: &Value) -> Result<Tensor> {
    if value.element.is_float() { Ok(value.tensor.clone()) } else { value.tensor.to_dtype(DType::I64) }
}

/// Returns a tensor as floating point, integers as `f64`.
fn as_float(x: &Tensor) -> Result<Tensor> {
    if x.dtype().is_float() { Ok(x.clone()) } else { x.to_dtype(DType::F64) }
}
