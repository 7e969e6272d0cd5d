//! Reductions, positions of extremes, and the largest elements.

use super::Operator::{General, Reduce};
use super::{Table, as_float, signed};
use crate::error::Result;
use crate::onnx::element::{ElementType, Value};
use crate::onnx::import::node::Call;
use crate::tensor::{DType, Tensor};

pub(super) const TABLE: Table = &[
    ("ReduceMean", Reduce(|x, axes| x.mean_keepdim(axes))),
    ("ReduceSum", Reduce(|x, axes| x.sum_keepdim(axes))),
    ("ReduceMax", Reduce(|x, axes| x.max_keepdim(axes))),
    ("ReduceMin", Reduce(|x, axes| x.min_keepdim(axes))),
    ("ReduceProd", Reduce(product)),
    ("ReduceSumSquare", Reduce(|x, axes| x.square()?.sum_keepdim(axes))),
    ("ReduceL1", Reduce(|x, axes| x.abs().sum_keepdim(axes))),
    ("ReduceL2", Reduce(|x, axes| x.square()?.sum_keepdim(axes)?.sqrt())),
    ("ReduceLogSum", Reduce(|x, axes| x.sum_keepdim(axes)?.ln())),
    ("ReduceLogSumExp", Reduce(|x, axes| x.logsumexp_keepdim(axes))),
    ("ArgMax", General(|call| position(call, Tensor::neg))),
    ("ArgMin", General(|call| position(call, Tensor::clone))),
    ("TopK", General(top_k)),
    ("CumSum", General(cumulative_sum)),
];

/// Multiplies along one dimension after the other.
fn product(x: &Tensor, axes: &[i64]) -> Result<Tensor> {
    axes.iter().try_fold(x.clone(), |x, &axis| x.prod_keepdim(axis))
}

/// Reduces the dimensions that an attribute names, or since version 13 or 18 an input; all when
/// there is none.
pub(super) fn reduce(call: &Call<'_>, f: fn(&Tensor, &[i64]) -> Result<Tensor>) -> Result<Vec<Value>> {
    let x = call.value(0)?;
    let rank = x.tensor.ndim();
    let named = call.ints(1, "axes")?.filter(|axes| !axes.is_empty());
    if named.is_none() && call.node.flag("noop_with_empty_axes", false)? {
        return Ok(vec![x.clone()]);
    }
    let axes = match &named {
        Some(axes) => call.axes(axes, rank)?,
        None => (0..rank).collect(),
    };
    let dims: Vec<i64> = axes.iter().map(|&axis| axis as i64).collect();
    // Sums of integers are exact in f64 up to 2⁵³; sums, minima and maxima are taken as they are.
    let exact = matches!(call.node.op.as_str(), "ReduceSum" | "ReduceMax" | "ReduceMin");
    let operand = if exact { signed(x)? } else { as_float(&x.tensor)? };
    if let Some(extreme) = of_nothing(call, &operand, &axes)? {
        let kept = call.node.flag("keepdims", true)?;
        return call.one(if kept { extreme } else { extreme.squeeze(dims.as_slice())? }, x.element);
    }
    let y =
        if dims.is_empty() { f(&operand.unsqueeze(0)?, &[0])?.reshape(super::elementwise::sizes(&operand))? } else { f(&operand, &dims)? };
    let y = if call.node.flag("keepdims", true)? { y } else { y.squeeze(dims.as_slice())? };
    call.one(if x.element.is_float() { y } else { y.to_dtype(DType::I64)? }, x.element)
}

/// Returns the maximum or minimum of no elements: the least or the greatest number of the type.
fn of_nothing(call: &Call<'_>, x: &Tensor, axes: &[usize]) -> Result<Option<Tensor>> {
    let end = match call.node.op.as_str() {
        "ReduceMax" => 0,
        "ReduceMin" => 1,
        _ => return Ok(None),
    };
    if axes.iter().all(|&axis| x.shape()[axis] > 0) {
        return Ok(None);
    }
    let shape: Vec<usize> = (0..x.ndim()).map(|axis| if axes.contains(&axis) { 1 } else { x.shape()[axis] }).collect();
    match call.value(0)?.element.range() {
        Some(range) => Tensor::scalar(range[end]).expand(shape),
        None => Tensor::try_full(shape, [f64::NEG_INFINITY, f64::INFINITY][end], x.dtype()),
    }
    .map(Some)
}

/// Returns the position of the smallest element of `key(x)`.
fn position(call: &Call<'_>, key: fn(&Tensor) -> Tensor) -> Result<Vec<Value>> {
    let x = as_float(call.tensor(0)?)?;
    let axis = call.axis(call.node.int("axis", 0)?, x.ndim().max(1))?;
    let last = call.node.flag("select_last_index", false)?;
    let key = key(&if last { x.flip(axis as i64)? } else { x.clone() });
    let mut at = key.argmin_keepdim(axis as i64)?;
    if last {
        at = Tensor::scalar(x.shape()[axis] as i64 - 1).sub(&at)?;
    }
    call.one(if call.node.flag("keepdims", true)? { at } else { at.squeeze(axis as i64)? }, ElementType::Int64)
}

fn top_k(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.value(0)?;
    let axis = call.axis(call.node.int("axis", -1)?, x.tensor.ndim())?;
    let k = match call.optional(1) {
        Some(k) => k.ints()?.first().copied().unwrap_or(-1),
        None => call.node.int("k", -1)?,
    };
    let k = usize::try_from(k).map_err(|_| call.node.error(format!("k has to be at least 0, got {k}")))?;
    let (largest, keys) = (call.node.flag("largest", true)?, as_float(&x.tensor)?);
    // Of equal elements the first one comes first, in falling and in rising order.
    let order = keys.argsort(axis as i64, largest)?;
    let at = order.narrow(axis as i64, 0, k)?;
    let values = x.tensor.gather(axis as i64, &at)?;
    Ok(vec![Value::of(values, x.element)?, Value { tensor: at, element: ElementType::Int64 }])
}

/// Returns the shape with another size of one dimension.
fn sizes_with(x: &Tensor, axis: usize, size: usize) -> Vec<usize> {
    let mut shape = x.shape().to_vec();
    shape[axis] = size;
    shape
}

fn cumulative_sum(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = signed(call.value(0)?)?;
    let axis = call.axis(call.value(1)?.scalar()? as i64, x.ndim())? as i64;
    let reverse = call.node.flag("reverse", false)?;
    let ahead = if reverse { x.flip(axis)? } else { x.clone() };
    let size = x.shape()[axis as usize];
    let ahead = match call.node.flag("exclusive", false)? && size > 0 {
        // Each sum is that of the elements before: a zero in front, and without the last one.
        true => {
            let zero = Tensor::try_full(sizes_with(&x, axis as usize, 1), 0.0, x.dtype())?;
            Tensor::cat(&[&zero, &ahead.narrow(axis, 0, size - 1)?], axis)?
        }
        false => ahead,
    };
    let sums = ahead.cumsum(axis)?;
    call.like_first(if reverse { sums.flip(axis)? } else { sums })
}
