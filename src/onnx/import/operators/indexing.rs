//! Reading and writing of elements by index, and selection of boxes.

use super::Operator::General;
use super::Table;
use super::elementwise::sizes;
use crate::error::Result;
use crate::onnx::element::{ElementType, Value};
use crate::onnx::import::node::Call;
use crate::tensor::meta::is_meta;
use crate::tensor::{DType, Element, Tensor};

pub(super) const TABLE: Table = &[
    ("Slice", General(slice)),
    ("Gather", General(gather)),
    ("GatherElements", General(gather_elements)),
    ("GatherND", General(gather_nd)),
    ("ScatterND", General(scatter_nd)),
    ("ScatterElements", General(scatter_elements)),
    ("NonZero", General(non_zero)),
    ("NonMaxSuppression", General(non_max_suppression)),
];

/// Returns indices with negative ones counted from the end of `size` elements.
fn from_start(call: &Call<'_>, at: usize, size: usize) -> Result<Tensor> {
    let index = call.tensor(at)?;
    let size = size as i64;
    let fixed: Vec<i64> = call.value(at)?.ints()?.into_iter().map(|i| if i < 0 { i.saturating_add(size) } else { i }).collect();
    if let Some(wrong) = fixed.iter().find(|&&i| i < 0 || i >= size) {
        return Err(call.node.error(format!("index {wrong} is outside a dimension of size {size}")));
    }
    Tensor::from_vec(fixed, index.shape())
}

fn slice(call: &Call<'_>) -> Result<Vec<Value>> {
    let mut x = call.tensor(0)?.clone();
    let required = |list: Option<Vec<i64>>| list.ok_or_else(|| call.node.error("has no starts or ends"));
    let (starts, ends) = (required(call.ints(1, "starts")?)?, required(call.ints(2, "ends")?)?);
    let axes = match call.ints(3, "axes")? {
        Some(axes) => call.axes(&axes, x.ndim())?,
        None => (0..starts.len().min(x.ndim())).collect(),
    };
    let steps = call.optional(4).map(Value::ints).transpose()?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(call.node.error("starts, ends, axes and steps differ in length"));
    }
    for (((&start, &end), &axis), &step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
        let size = x.shape()[axis] as i64;
        let place = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
        let (start, end) = match step {
            0 => return Err(call.node.error("a step of 0")),
            1.. => (place(start).clamp(0, size), place(end).clamp(0, size)),
            _ => (place(start).clamp(-1, size - 1), place(end).clamp(-1, size - 1)),
        };
        let distance = if step > 0 { end - start } else { start - end }.max(0) as usize;
        let count = distance.div_ceil(usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX));
        x = match step {
            1 => x.narrow(axis as i64, start as usize, count)?,
            // A dimension may be long when there are no elements.
            _ if x.numel() == 0 => x.narrow(axis as i64, 0, count)?,
            _ => {
                let index = (0..count as i64).map(|i| start + i * step).collect();
                x.index_select(axis as i64, &Tensor::from_vec::<i64>(index, [count])?)?
            }
        };
    }
    call.like_first(x)
}

fn gather(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let axis = call.axis(call.node.int("axis", 0)?, x.ndim())?;
    let index = from_start(call, 1, x.shape()[axis])?;
    let picked = x.index_select(axis as i64, &index.reshape([-1i64])?)?;
    let dims = sizes(x);
    call.like_first(picked.reshape([&dims[..axis], &sizes(&index), &dims[axis + 1..]].concat())?)
}

fn gather_elements(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let axis = call.axis(call.node.int("axis", 0)?, x.ndim())?;
    call.like_first(x.gather(axis as i64, &from_start(call, 1, x.shape()[axis])?)?)
}

/// Returns the numbers of the rows that `[…, k]` indices name in a tensor whose first dimensions
/// are `dims`; the first `batch` of them are those of the indices.
fn rows(call: &Call<'_>, dims: &[usize], index: &Value, batch: usize) -> Result<Tensor> {
    let shape = index.tensor.shape();
    let &depth = shape.last().ok_or_else(|| call.node.error("indices have no dimensions"))?;
    let (outer, inner) = (dims.get(..batch).unwrap_or_default(), dims.get(batch..batch.saturating_add(depth)));
    // Without a depth, there would be as many rows as the indices' shape says, of no elements.
    let inner = inner.filter(|_| depth > 0 && shape.len() > batch && shape[..batch] == *outer);
    let inner = inner.ok_or_else(|| call.node.error(format!("indices {shape:?} do not fit data {dims:?}")))?;
    let entries: usize = shape[batch..shape.len() - 1].iter().product();
    let block: i64 = inner.iter().map(|&size| size as i64).product();
    let numbers = index.ints()?;
    let count: usize = shape[..shape.len() - 1].iter().product();
    let mut found = Vec::with_capacity(numbers.len().min(count));
    for at in 0..count {
        let mut row = 0i64;
        for (&i, &size) in numbers[at * depth..(at + 1) * depth].iter().zip(inner) {
            let size = size as i64;
            let i = if i < 0 { i.saturating_add(size) } else { i };
            if !(0..size).contains(&i) {
                return Err(call.node.error(format!("index {i} is outside a dimension of size {size}")));
            }
            row = row * size + i;
        }
        found.push((at / entries.max(1)) as i64 * block + row);
    }
    let count = found.len();
    Tensor::from_vec(found, [count])
}

fn gather_nd(call: &Call<'_>) -> Result<Vec<Value>> {
    let (x, index) = (call.tensor(0)?, call.value(1)?);
    let batch = usize::try_from(call.node.int("batch_dims", 0)?).unwrap_or(usize::MAX).min(x.ndim());
    let rows = rows(call, x.shape(), index, batch)?;
    let shape = sizes(&index.tensor);
    let depth = index.tensor.shape().last().copied().unwrap_or(0);
    let (dims, rank) = (sizes(x), shape.len() - 1);
    let rest = &dims[batch + depth..];
    let flat: Vec<i64> = [&[dims[..batch + depth].iter().product()], rest].concat();
    let picked = x.reshape(flat)?.index_select(0, &rows)?;
    call.like_first(picked.reshape([&shape[..rank], rest].concat())?)
}

fn scatter_nd(call: &Call<'_>) -> Result<Vec<Value>> {
    let (x, index, updates) = (call.value(0)?, call.value(1)?, call.tensor(2)?);
    let rows = rows(call, x.tensor.shape(), index, 0)?;
    let depth = index.tensor.shape().last().copied().unwrap_or(0);
    let dims = sizes(&x.tensor);
    let inner: i64 = dims[depth..].iter().product();
    let count = rows.numel() as i64;
    let flat = super::signed(x)?.reshape([dims[..depth].iter().product::<i64>(), inner])?;
    let updates = updates.to_dtype(flat.dtype())?.reshape([count, inner])?;
    let y = match call.node.text("reduction", "none")? {
        "none" => {
            let index = rows.reshape([count, 1])?.expand([count as usize, inner as usize])?;
            flat.scatter(0, &index, &updates)?
        }
        "add" => flat.index_add(0, &rows, &updates)?,
        other => {
            let places = rows.to_vec::<i64>()?.into_iter().flat_map(|row| row * inner..(row + 1) * inner);
            combined(call, &flat, places, &updates, other)?
        }
    };
    call.like_first(y.reshape(dims)?)
}

fn scatter_elements(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = super::signed(call.value(0)?)?;
    let axis = call.axis(call.node.int("axis", 0)?, x.ndim())?;
    let (index, updates) = (from_start(call, 1, x.shape()[axis])?, call.tensor(2)?.to_dtype(x.dtype())?);
    match call.node.text("reduction", "none")? {
        "none" => call.like_first(x.scatter(axis as i64, &index, &updates)?),
        "add" => call.like_first(x.scatter_add(axis as i64, &index, &updates)?),
        other => {
            let (shape, among) = (x.shape(), index.shape());
            let fits = shape.len() == among.len() && (0..shape.len()).all(|dim| dim == axis || among[dim] <= shape[dim]);
            if !fits || updates.shape() != among {
                return Err(call.node.error(format!("indices {among:?} and updates {:?} do not fit {shape:?}", updates.shape())));
            }
            let place = |(at, row): (usize, i64)| {
                let (mut rest, mut place, mut step) = (at, 0, 1);
                for dim in (0..shape.len()).rev() {
                    place += step * if dim == axis { row as usize } else { rest % among[dim] };
                    (rest, step) = (rest / among[dim], step * shape[dim]);
                }
                place as i64
            };
            call.like_first(combined(call, &x, index.to_vec::<i64>()?.into_iter().enumerate().map(place), &updates, other)?)
        }
    }
}

/// Combines updates with the elements at their places, one after the other, by a reduction that has
/// no gradient here.
fn combined(call: &Call<'_>, x: &Tensor, places: impl Iterator<Item = i64>, updates: &Tensor, reduction: &str) -> Result<Tensor> {
    if x.requires_grad() || updates.requires_grad() {
        return Err(call.node.error(format!("reduction {reduction:?} has no gradient; run it under no_grad")));
    }
    let y = if x.dtype().is_float() {
        let f: Option<fn(f64, f64) -> f64> = match reduction {
            "mul" => Some(|a, b| a * b),
            "max" => Some(|a, b| if a >= b || a.is_nan() { a } else { b }),
            "min" => Some(|a, b| if a <= b || a.is_nan() { a } else { b }),
            _ => None,
        };
        f.map(|f| folded(&x.to_dtype(DType::F64)?, places, &updates.to_dtype(DType::F64)?, f))
    } else {
        let f: Option<fn(i64, i64) -> i64> = match reduction {
            "mul" => Some(i64::wrapping_mul),
            "max" => Some(Ord::max),
            "min" => Some(Ord::min),
            _ => None,
        };
        f.map(|f| folded(x, places, updates, f))
    };
    y.ok_or_else(|| call.node.error(format!("reduction {reduction:?} is not known")))??.to_dtype(x.dtype())
}

/// Applies `f` to the element at each place and its update, in order.
fn folded<T: Element>(x: &Tensor, places: impl Iterator<Item = i64>, updates: &Tensor, f: fn(T, T) -> T) -> Result<Tensor> {
    let (mut values, updates) = (x.to_vec::<T>()?, updates.to_vec::<T>()?);
    places.zip(updates).for_each(|(at, update)| values[at as usize] = f(values[at as usize], update));
    Tensor::from_vec(values, x.shape())
}

fn non_zero(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let set: Vec<usize> =
        x.ne_scalar(0.0)?.to_vec::<u8>()?.into_iter().enumerate().filter(|&(_, set)| set != 0).map(|(at, _)| at).collect();
    let mut places = Vec::with_capacity(set.len() * x.ndim());
    for axis in 0..x.ndim() {
        let inner: usize = x.shape()[axis + 1..].iter().product();
        places.extend(set.iter().map(|at| (at / inner % x.shape()[axis]) as i64));
    }
    call.one(Tensor::from_vec(places, [x.ndim(), set.len()])?, ElementType::Int64)
}

fn non_max_suppression(call: &Call<'_>) -> Result<Vec<Value>> {
    let (boxes, scores) = (call.tensor(0)?.to_dtype(DType::F64)?, call.tensor(1)?.to_dtype(DType::F64)?);
    let (&[batch, count, 4], &[score_batch, classes, score_count]) = (boxes.shape(), scores.shape()) else {
        return Err(call.node.error(format!(
            "expected boxes [N, K, 4] and scores [N, C, K], got {:?} and {:?}",
            boxes.shape(),
            scores.shape()
        )));
    };
    if [score_batch, score_count] != [batch, count] {
        return Err(call.node.error(format!("boxes {:?} and scores {:?} differ in number", boxes.shape(), scores.shape())));
    }
    let number = |at: usize, default: f64| call.optional(at).map_or(Ok(default), Value::scalar);
    if is_meta() {
        // Which boxes are selected depends on their numbers.
        return call.one(Tensor::try_full([0, 3], 0.0, DType::I64)?, ElementType::Int64);
    }
    let (most, threshold) = (number(2, 0.0)?.max(0.0) as usize, number(3, 0.0)?);
    let least = call.optional(4).map(Value::scalar).transpose()?;
    let centred = call.node.flag("center_point_box", false)?;
    let (boxes, scores) = (boxes.to_vec::<f64>()?, scores.to_vec::<f64>()?);
    let mut selected = vec![];
    for (at, scores) in scores.chunks_exact(count.max(1)).enumerate() {
        let boxes = &boxes[at / classes * count * 4..][..count * 4];
        // Corners in order: the least and the greatest of both coordinates.
        let corners: Vec<f64> = boxes
            .as_chunks::<4>()
            .0
            .iter()
            .flat_map(|&[a, b, c, d]| match centred {
                true => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
                false => [a.min(c), b.min(d), a.max(c), b.max(d)],
            })
            .collect();
        let open: Vec<usize> = (0..count).filter(|&i| least.is_none_or(|least| scores[i] > least)).collect();
        let part = |all: &[f64], width: usize| -> Vec<f64> { open.iter().flat_map(|&i| all[i * width..][..width].to_vec()).collect() };
        let open_boxes = Tensor::from_vec(part(&corners, 4), [open.len(), 4])?;
        let open_scores = Tensor::from_vec(part(scores, 1), [open.len()])?;
        let kept = crate::ops::nms(&open_boxes, &open_scores, threshold)?.to_vec::<i64>()?;
        let entry = |kept: i64| [(at / classes) as i64, (at % classes) as i64, open[kept as usize] as i64];
        selected.extend(kept.into_iter().take(most).flat_map(entry));
    }
    let rows = selected.len() / 3;
    call.one(Tensor::from_vec(selected, [rows, 3])?, ElementType::Int64)
}
