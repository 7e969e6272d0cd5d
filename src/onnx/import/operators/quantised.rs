//! Operators on quantised numbers, computed exactly in `f64`.

use super::Operator::General;
use super::Table;
use super::conv::{conv, mat_mul};
use super::elementwise::{converted, sizes};
use crate::error::Result;
use crate::onnx::element::{ElementType, Value};
use crate::onnx::import::node::Call;
use crate::tensor::{DType, Tensor};

pub(super) const TABLE: Table = &[
    ("QuantizeLinear", General(quantise)),
    ("DequantizeLinear", General(dequantise)),
    ("DynamicQuantizeLinear", General(quantise_by_range)),
    ("QLinearConv", General(linear_conv)),
    ("QLinearMatMul", General(linear_mat_mul)),
    ("ConvInteger", General(|call| integer(call, |call, x, weight| conv(call.node, x, weight, None)))),
    ("MatMulInteger", General(|call| integer(call, |_, a, b| mat_mul(a, b)))),
];

/// Returns a scale or a zero point in a shape that broadcasts to that of `x`: one number, one for
/// each position along the axis, or one for each block of positions.
fn beside(call: &Call<'_>, x: &Tensor, parameter: &Tensor) -> Result<Tensor> {
    let parameter = parameter.to_dtype(DType::F64)?;
    if parameter.numel() == 1 && parameter.ndim() <= 1 {
        return parameter.reshape([0i64; 0]);
    }
    let axis = call.axis(call.node.int("axis", 1)?, x.ndim())?;
    if x.numel() == 0 {
        // A dimension may be long when there are no elements.
        return Ok(Tensor::scalar(1.0));
    }
    let block = usize::try_from(call.node.int("block_size", 0)?).unwrap_or(0);
    if block > 0 && parameter.ndim() == x.ndim() {
        let (size, blocks) = (x.shape()[axis], parameter.shape()[axis]);
        if size.div_ceil(block) != blocks {
            return Err(call.node.error(format!("{blocks} blocks of {block} do not make {size} positions")));
        }
        let index: Vec<i64> = (0..size).map(|at| (at / block) as i64).collect();
        return parameter.index_select(axis as i64, &Tensor::from_vec(index, [size])?);
    }
    let mut shape = vec![1i64; x.ndim()];
    shape[axis] = -1;
    parameter.reshape(shape)
}

/// Rounds half to even, adds the zero point and clamps to the element type.
fn to_integers(call: &Call<'_>, scaled: &Tensor, zero: Option<&Tensor>, element: ElementType) -> Result<Vec<Value>> {
    let [least, greatest] = element
        .range()
        .ok_or_else(|| call.node.error(format!("quantisation to {} is not supported; that to integers is", element.name())))?;
    let shifted = match zero {
        Some(zero) => scaled.round()?.add(zero)?,
        None => scaled.round()?,
    };
    call.one(shifted.clamp(least as f64, greatest as f64)?.to_dtype(DType::I64)?, element)
}

/// Returns the element type of an attribute's number.
fn named(call: &Call<'_>, code: i64) -> Result<ElementType> {
    ElementType::of_code(i32::try_from(code).unwrap_or(0)).map_err(|message| call.node.error(message))
}

fn quantise(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.value(0)?;
    let scale = beside(call, &x.tensor, call.tensor(1)?)?;
    let element = match (call.optional(2), call.node.int("output_dtype", 0)?) {
        (Some(zero), _) => zero.element,
        (None, 0) => ElementType::Uint8,
        (None, code) => named(call, code)?,
    };
    let zero = call.optional_tensor(2).map(|zero| beside(call, &x.tensor, zero)).transpose()?;
    let saturate = call.node.flag("saturate", true)?;
    // The quotient is taken in the input's type, as other runtimes do, so that halves round alike.
    let scaled = match x.element.is_float() {
        true => x.tensor.div(&scale.to_dtype(x.tensor.dtype())?)?.to_dtype(DType::F64)?,
        false => x.tensor.to_dtype(DType::F64)?.div(&scale)?,
    };
    if element.is_small_float() {
        // Their zero point is zero.
        let quotient = Value { tensor: scaled, element: ElementType::Float64 };
        return Ok(vec![Value { tensor: converted(&quotient, element, saturate)?, element }]);
    }
    to_integers(call, &scaled, zero.as_ref(), element)
}

/// Returns `(x - zero) · scale` in `f64`.
fn numbers(call: &Call<'_>, x: &Tensor, scale: Option<&Tensor>, zero: Option<&Tensor>) -> Result<Tensor> {
    let mut y = x.to_dtype(DType::F64)?;
    if let Some(zero) = zero {
        y = y.sub(&beside(call, x, zero)?)?;
    }
    if let Some(scale) = scale {
        y = y.mul(&beside(call, x, scale)?)?;
    }
    Ok(y)
}

fn dequantise(call: &Call<'_>) -> Result<Vec<Value>> {
    let y = numbers(call, call.tensor(0)?, call.optional_tensor(1), call.optional_tensor(2))?;
    let element = match call.node.int("output_dtype", 0)? {
        0 => call.value(1)?.element,
        code => named(call, code)?,
    };
    if !element.is_float() || element.bits() < 16 {
        return Err(call.node.error(format!("output_dtype {} is no floating point of at least 16 bits", element.name())));
    }
    Ok(vec![Value { tensor: converted(&Value { tensor: y, element: ElementType::Float64 }, element, true)?, element }])
}

fn quantise_by_range(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?.to_dtype(DType::F64)?;
    let (low, high) = (x.min(..)?.item::<f64>()?.min(0.0), x.max(..)?.item::<f64>()?.max(0.0));
    let scale = f64::from(((high - low) / 255.0) as f32);
    let scale = if scale == 0.0 { 1.0 } else { scale };
    let zero = f64::from((-low / scale) as f32).round_ties_even().clamp(0.0, 255.0);
    let scaled = call.tensor(0)?.div(&Tensor::scalar(scale as f32))?.to_dtype(DType::F64)?;
    let mut values = to_integers(call, &scaled, Some(&Tensor::scalar(zero)), ElementType::Uint8)?;
    values.push(Value { tensor: Tensor::scalar(scale as f32), element: ElementType::Float32 });
    values.push(Value { tensor: Tensor::scalar(zero as u8), element: ElementType::Uint8 });
    Ok(values)
}

/// Returns the scale or the zero point of a weight, one for each output channel.
fn of_channels(parameter: &Tensor, rank: usize) -> Result<Tensor> {
    let mut shape = vec![1i64; rank];
    if parameter.numel() > 1 {
        shape[0] = -1;
    }
    parameter.to_dtype(DType::F64)?.reshape(shape)
}

fn linear_conv(call: &Call<'_>) -> Result<Vec<Value>> {
    let [x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero] =
        [call.value(0)?, call.value(1)?, call.value(2)?, call.value(3)?, call.value(4)?, call.value(5)?, call.value(6)?, call.value(7)?];
    let rank = w.tensor.ndim();
    if rank < 3 {
        return Err(call.node.error(format!("expected a weight of at least 3 dimensions, got shape {:?}", w.tensor.shape())));
    }
    let input = x.tensor.to_dtype(DType::F64)?.sub_scalar(x_zero.scalar()?);
    let weight = w.tensor.to_dtype(DType::F64)?.sub(&of_channels(&w_zero.tensor, rank)?)?;
    // The bias is quantised by the product of both scales.
    let bias = call.optional_tensor(8).map(|bias| bias.to_dtype(DType::F64)).transpose()?;
    let sums = conv(call.node, &input, &weight, bias.as_ref())?;
    let mut channels = vec![1i64; rank];
    channels[1] = -1;
    let factor = of_channels(&w_scale.tensor, rank)?.reshape(channels)?.mul_scalar(x_scale.scalar()? / y_scale.scalar()?);
    let zero = y_zero.tensor.to_dtype(DType::F64)?.reshape([0i64; 0])?;
    to_integers(call, &sums.mul(&factor)?, Some(&zero), y_zero.element)
}

fn linear_mat_mul(call: &Call<'_>) -> Result<Vec<Value>> {
    let [a, a_scale, a_zero, b, b_scale, b_zero, y_scale] =
        [call.tensor(0)?, call.tensor(1)?, call.tensor(2)?, call.tensor(3)?, call.tensor(4)?, call.tensor(5)?, call.tensor(6)?];
    let y_zero = call.value(7)?;
    // Scales and zero points of rows of the left matrix, of columns of the right one.
    let shaped = |parameter: &Tensor, rows: bool| -> Result<Tensor> {
        let wide = parameter.to_dtype(DType::F64)?;
        if rows && wide.ndim() == 1 && wide.numel() > 1 { wide.reshape([-1i64, 1]) } else { Ok(wide) }
    };
    let left = a.to_dtype(DType::F64)?.sub(&shaped(a_zero, true)?)?.mul(&shaped(a_scale, true)?)?;
    let right = b.to_dtype(DType::F64)?.sub(&shaped(b_zero, false)?)?.mul(&shaped(b_scale, false)?)?;
    let scaled = mat_mul(&left, &right)?.div(&shaped(y_scale, true)?)?;
    to_integers(call, &scaled, Some(&shaped(&y_zero.tensor, true)?), y_zero.element)
}

/// Computes a product of integers less their zero points.
fn integer(call: &Call<'_>, f: fn(&Call<'_>, &Tensor, &Tensor) -> Result<Tensor>) -> Result<Vec<Value>> {
    let (a, b) = (call.tensor(0)?, call.tensor(1)?);
    let less = |x: &Tensor, zero: Option<&Tensor>, rows: bool| -> Result<Tensor> {
        let wide = x.to_dtype(DType::F64)?;
        let Some(zero) = zero else { return Ok(wide) };
        let zero = zero.to_dtype(DType::F64)?;
        match zero.numel() {
            1 => wide.sub(&zero.reshape([0i64; 0])?),
            _ if rows && zero.ndim() == 1 && x.ndim() > 2 => wide.sub(&of_channels(&zero, x.ndim())?),
            _ if rows && zero.ndim() == 1 => wide.sub(&zero.reshape([-1i64, 1])?),
            _ => wide.sub(&zero),
        }
    };
    let images = call.node.op == "ConvInteger";
    let y = f(call, &less(a, call.optional_tensor(2), true)?, &less(b, call.optional_tensor(3), images)?)?;
    call.one(y.reshape(sizes(&y))?.to_dtype(DType::I64)?, ElementType::Int32)
}
