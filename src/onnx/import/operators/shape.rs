//! Shapes: reshaping, transposing, joining, cutting, padding, and tensors made from shapes.

use super::Operator::General;
use super::Table;
use super::elementwise::sizes;
use crate::error::Result;
use crate::onnx::element::{ElementType, Value};
use crate::onnx::import::node::Call;
use crate::onnx::proto::TensorProto;
use crate::onnx::tensors;
use crate::ops::PadMode;
use crate::tensor::shape::broadcast_shapes;
use crate::tensor::{DType, Tensor};
use crate::weights::alloc_limit::AllocLimit;
use crate::weights::elements::check_rank;

pub(super) const TABLE: Table = &[
    ("Shape", General(shape)),
    ("Size", General(|call| call.one(Tensor::scalar(call.tensor(0)?.numel() as i64), ElementType::Int64))),
    ("Reshape", General(reshape)),
    ("Flatten", General(flatten)),
    ("Squeeze", General(squeeze)),
    ("Unsqueeze", General(unsqueeze)),
    ("Transpose", General(transpose)),
    ("Expand", General(expand)),
    ("Tile", General(tile)),
    ("Concat", General(concat)),
    ("Split", General(split)),
    ("Pad", General(pad)),
    ("DepthToSpace", General(depth_to_space)),
    ("SpaceToDepth", General(space_to_depth)),
    ("Constant", General(constant)),
    ("ConstantOfShape", General(constant_of_shape)),
    ("Range", General(range)),
    ("Trilu", General(triangle)),
    ("OneHot", General(one_hot)),
];

fn shape(call: &Call<'_>) -> Result<Vec<Value>> {
    let dims = sizes(call.tensor(0)?);
    let rank = dims.len() as i64;
    let place = |at: i64| if at < 0 { at.saturating_add(rank) } else { at }.clamp(0, rank) as usize;
    let (start, end) = (place(call.node.int("start", 0)?), place(call.node.int("end", rank)?));
    Ok(vec![Value::of_ints(dims[start..end.max(start)].to_vec())?])
}

fn reshape(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let mut wanted = call.ints(1, "shape")?.ok_or_else(|| call.node.error("has no shape"))?;
    check_rank(wanted.len()).map_err(|message| call.node.error(message))?;
    if !call.node.flag("allowzero", false)? {
        for (at, size) in wanted.iter_mut().enumerate().filter(|(_, size)| **size == 0) {
            *size =
                *x.shape().get(at).ok_or_else(|| call.node.error(format!("dimension {at} of shape {:?} is not there", x.shape())))? as i64;
        }
    }
    call.like_first(x.reshape(wanted)?)
}

fn flatten(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let axis = call.node.int("axis", 1)?;
    let axis = if axis == x.ndim() as i64 { x.ndim() } else { call.axis(axis, x.ndim())? };
    let size = |dims: &[usize]| dims.iter().product::<usize>() as i64;
    call.like_first(x.reshape([size(&x.shape()[..axis]), size(&x.shape()[axis..])])?)
}

fn squeeze(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let axes = match call.ints(1, "axes")? {
        Some(axes) => call.axes(&axes, x.ndim())?,
        None => (0..x.ndim()).filter(|&axis| x.shape()[axis] == 1).collect(),
    };
    if let Some(&axis) = axes.iter().find(|&&axis| x.shape()[axis] != 1) {
        return Err(call.node.error(format!("dimension {axis} of shape {:?} is not 1", x.shape())));
    }
    let kept = sizes(x).into_iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, size)| size);
    call.like_first(x.reshape(kept.collect::<Vec<i64>>())?)
}

fn unsqueeze(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let axes = call.ints(1, "axes")?.ok_or_else(|| call.node.error("has no axes"))?;
    let rank = x.ndim() + axes.len();
    let axes = call.axes(&axes, rank)?;
    let mut own = sizes(x).into_iter();
    let wanted: Vec<i64> = (0..rank).map(|axis| if axes.contains(&axis) { 1 } else { own.next().unwrap_or(1) }).collect();
    call.like_first(x.reshape(wanted)?)
}

fn transpose(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let order = match call.node.ints("perm")? {
        Some(order) => call.axes(order, x.ndim())?,
        None => (0..x.ndim()).rev().collect(),
    };
    call.like_first(x.permute(order)?)
}

fn expand(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let wanted = counts(call, call.value(1)?.ints()?)?;
    call.like_first(x.expand(broadcast_shapes("expand", x.shape(), &wanted)?)?)
}

/// Returns numbers as sizes.
fn counts(call: &Call<'_>, numbers: Vec<i64>) -> Result<Vec<usize>> {
    tensors::shape(&numbers).map_err(|message| call.node.error(message))
}

fn tile(call: &Call<'_>) -> Result<Vec<Value>> {
    let repeats = counts(call, call.value(1)?.ints()?)?;
    call.like_first(call.tensor(0)?.repeat(repeats)?)
}

fn concat(call: &Call<'_>) -> Result<Vec<Value>> {
    let parts = (0..call.inputs.len()).map(|at| call.tensor(at)).collect::<Result<Vec<_>>>()?;
    let axis = call.axis(call.node.int("axis", 1)?, call.tensor(0)?.ndim())?;
    match parts.as_slice() {
        [one] => call.like_first((*one).clone()),
        _ => call.like_first(Tensor::cat(&parts, axis as i64)?),
    }
}

fn split(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let axis = call.axis(call.node.int("axis", 0)?, x.ndim())?;
    let size = x.shape()[axis];
    let parts = match call.ints(1, "split")? {
        Some(parts) => {
            let sizes = parts.iter().map(|&part| usize::try_from(part).ok()).collect::<Option<Vec<usize>>>();
            sizes.ok_or_else(|| call.node.error("a part of negative size"))?
        }
        None => {
            let number = call.node.outputs.len().max(1);
            let each = size.div_ceil(number);
            (0..number).map(|at| each.min(size.saturating_sub(at * each))).collect()
        }
    };
    if parts.iter().try_fold(0usize, |sum, &part| sum.checked_add(part)) != Some(size) {
        let shown = &parts[..parts.len().min(8)];
        return Err(call.node.error(format!("{} parts {shown:?} do not make dimension {axis} of shape {:?}", parts.len(), x.shape())));
    }
    let (mut values, mut start) = (vec![], 0);
    for part in parts {
        values.push(Value::of(x.narrow(axis as i64, start, part)?, call.value(0)?.element)?);
        start += part;
    }
    Ok(values)
}

fn pad(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let pads = call.ints(1, if call.node.version < 2 { "paddings" } else { "pads" })?.ok_or_else(|| call.node.error("has no pads"))?;
    let axes = match call.optional(3) {
        Some(axes) => call.axes(&axes.ints()?, x.ndim())?,
        None => (0..x.ndim()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(call.node.error(format!("pads {pads:?} are not two for each of {} dimensions", axes.len())));
    }
    let value = call.optional(2).map_or_else(|| call.node.float("value", 0.0), Value::scalar)?;
    let mode = match call.node.text("mode", "constant")? {
        "constant" => PadMode::Constant(value),
        "reflect" => PadMode::Reflect,
        "edge" => PadMode::Replicate,
        "wrap" => PadMode::Circular,
        other => return Err(call.node.error(format!("mode {other:?} is not supported"))),
    };
    // From the last dimension to the first, before and after.
    let mut sides = vec![0isize; 2 * x.ndim()];
    for (at, &axis) in axes.iter().enumerate() {
        let place = 2 * (x.ndim() - 1 - axis);
        let side = |number: i64| isize::try_from(number).unwrap_or(isize::MAX);
        (sides[place], sides[place + 1]) = (side(pads[at]), side(pads[at + axes.len()]));
    }
    // Dimensions in front that are not padded need no copy.
    while sides.ends_with(&[0, 0]) {
        sides.truncate(sides.len() - 2);
    }
    call.like_first(x.pad_with(sides, mode)?)
}

/// Checks the block size of an image.
fn blocks(call: &Call<'_>) -> Result<([i64; 4], i64)> {
    let (x, block) = (call.tensor(0)?, call.node.int("blocksize", 0)?);
    match sizes(x)[..] {
        [n, c, h, w] if (1..1 << 16).contains(&block) => Ok(([n, c, h, w], block)),
        _ => Err(call.node.error(format!("expected [N, C, H, W] and blocks of at least 1, got {:?} and {block}", x.shape()))),
    }
}

fn depth_to_space(call: &Call<'_>) -> Result<Vec<Value>> {
    let ([n, c, h, w], b) = blocks(call)?;
    let rest = c / (b * b);
    let x = call.tensor(0)?;
    let y = match call.node.text("mode", "DCR")? {
        "CRD" => x.reshape([n, rest, b, b, h, w])?.permute([0, 1, 4, 2, 5, 3])?,
        "DCR" => x.reshape([n, b, b, rest, h, w])?.permute([0, 3, 4, 1, 5, 2])?,
        other => return Err(call.node.error(format!("mode {other:?} is not known; DCR and CRD are"))),
    };
    call.like_first(y.reshape([n, rest, h * b, w * b])?)
}

fn space_to_depth(call: &Call<'_>) -> Result<Vec<Value>> {
    let ([n, c, h, w], b) = blocks(call)?;
    let order = if call.node.text("mode", "DCR")? == "CRD" { [0, 1, 3, 5, 2, 4] } else { [0, 3, 5, 1, 2, 4] };
    let y = call.tensor(0)?.reshape([n, c, h / b, b, w / b, b])?.permute(order)?;
    call.like_first(y.reshape([n, c * b * b, h / b, w / b])?)
}

/// Reads a tensor of an attribute; its data are here, since the graph has read those of other
/// files.
fn attribute(call: &Call<'_>, tensor: &TensorProto) -> Result<Value> {
    let length = 64 + tensor.raw_data.len() + 8 * (tensor.int64_data.len() + tensor.float_data.len() + tensor.double_data.len());
    tensors::value(tensor, None, &mut AllocLimit::new(length)).map_err(|message| call.node.error(message))
}

fn triangle(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let diagonal = call.optional(1).map(Value::ints).transpose()?.and_then(|k| k.first().copied()).unwrap_or(0);
    call.like_first(if call.node.flag("upper", true)? { x.triu(diagonal)? } else { x.tril(diagonal)? })
}

/// Returns the second value at the place along a new dimension that each index names, and the first
/// value elsewhere. Negative indices count from the end; for others outside there is no such place.
fn one_hot(call: &Call<'_>) -> Result<Vec<Value>> {
    let (index, depth, values) = (call.tensor(0)?.to_dtype(DType::I64)?, call.value(1)?, call.value(2)?);
    let depth = match depth.tensor.to_dtype(DType::I64)?.to_vec::<i64>()?[..] {
        [depth] if depth >= 0 => depth,
        _ => return Err(call.node.error("the depth is not one number of at least 0")),
    };
    if values.tensor.shape() != [2] {
        return Err(call.node.error(format!("expected two values, got shape {:?}", values.tensor.shape())));
    }
    let axis = call.axis(call.node.int("axis", -1)?, index.ndim() + 1)?;
    let mut shape = vec![1i64; index.ndim() + 1];
    shape[axis] = depth;
    let from_start = index.lt_scalar(0.0)?.where_(&index.add(&Tensor::scalar(depth))?, &index)?;
    let places = counting(depth as usize)?.reshape(shape)?;
    let [off, on] = [0, 1].map(|at| values.tensor.narrow(0, at, 1)?.reshape([0i64; 0]));
    call.one(from_start.unsqueeze(axis as i64)?.eq(&places)?.where_(&on?, &off?)?, values.element)
}

fn constant(call: &Call<'_>) -> Result<Vec<Value>> {
    let node = call.node;
    if let Some(tensor) = node.attributes.iter().find(|found| found.name == "value").and_then(|found| found.t.as_ref()) {
        return Ok(vec![attribute(call, tensor)?]);
    }
    if let Some(values) = node.ints("value_ints")? {
        return Ok(vec![Value::of_ints(values.to_vec())?]);
    }
    if let Some(values) = node.floats("value_floats")? {
        return call.one(Tensor::from_slice(values, [values.len()])?, ElementType::Float32);
    }
    let has = |name: &str| node.attributes.iter().any(|found| found.name == name);
    if has("value_int") {
        return call.one(Tensor::scalar(node.int("value_int", 0)?), ElementType::Int64);
    }
    if has("value_float") {
        return call.one(Tensor::scalar(node.float("value_float", 0.0)? as f32), ElementType::Float32);
    }
    Err(node.error("holds neither a dense tensor nor numbers, which are what is supported"))
}

fn constant_of_shape(call: &Call<'_>) -> Result<Vec<Value>> {
    let shape = counts(call, call.value(0)?.ints()?)?;
    let fill = match call.node.attributes.iter().find(|found| found.name == "value").and_then(|found| found.t.as_ref()) {
        Some(tensor) => attribute(call, tensor)?,
        None => Value { tensor: Tensor::scalar(0f32), element: ElementType::Float32 },
    };
    if fill.tensor.dtype() == DType::I64 {
        let value = fill.ints()?.first().copied().unwrap_or(0);
        return call.one(Tensor::scalar(value).expand(shape)?, fill.element);
    }
    call.one(Tensor::try_full(shape, fill.scalar()?, fill.tensor.dtype())?, fill.element)
}

/// Returns the numbers 0, 1, … of this many elements, made within the limits of memory.
fn counting(count: usize) -> Result<Tensor> {
    Tensor::try_full([count], 1.0, DType::I64)?.cumsum(0)?.sub(&Tensor::scalar(1i64))
}

fn range(call: &Call<'_>) -> Result<Vec<Value>> {
    let [start, limit, step] = [call.value(0)?, call.value(1)?, call.value(2)?];
    let element = start.element;
    let numbers = [start.scalar()?, limit.scalar()?, step.scalar()?];
    let count = ((numbers[1] - numbers[0]) / numbers[2]).ceil().max(0.0);
    if !count.is_finite() || count > (1u64 << 40) as f64 {
        return Err(call.node.error(format!("{numbers:?} is not a range")));
    }
    let steps = counting(count as usize)?;
    if element.is_float() {
        return call.one(steps.to_dtype(element.dtype())?.mul(&step.tensor)?.add(&start.tensor)?, element);
    }
    let whole = |value: &Value| value.tensor.to_dtype(DType::I64);
    call.one(steps.mul(&whole(step)?)?.add(&whole(start)?)?, element)
}
