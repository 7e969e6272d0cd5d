//! Operations of single elements.

use super::call::{Call, Done, float, int, type_number};
use crate::tensor::DType;

/// An operator of one input without attributes.
pub(super) fn unary(call: &mut Call<'_>, op: &'static str) -> Done {
    let x = call.x(0)?;
    call.done(op, &[&x], vec![])
}

/// An operator of two inputs, which are converted to the result's type, as ONNX does not promote.
pub(super) fn binary(call: &mut Call<'_>, op: &'static str) -> Done {
    let dtype = call.output_dtype();
    let (a, b) = (call.x_as(0, dtype)?, call.x_as(1, dtype)?);
    call.done(op, &[&a, &b], vec![])
}

/// An operator of an input and a number.
pub(super) fn scalar(call: &mut Call<'_>, op: &'static str) -> Done {
    let (dtype, value) = (call.output_dtype(), call.float("value")?);
    let (a, b) = (call.x_as(0, dtype)?, call.scalar(value, dtype)?);
    call.done(op, &[&a, &b], vec![])
}

/// Comparisons return bytes here and truth values in ONNX.
pub(super) fn compare(call: &mut Call<'_>, op: &'static str, is_negated: bool) -> Done {
    let [a, b] = if call.step().inputs.len() == 2 {
        let dtype = call.dtype(0)?.max(call.dtype(1)?);
        [call.x_as(0, dtype)?, call.x_as(1, dtype)?]
    } else {
        // A number may be no whole one, so that integers are compared as f64.
        let value = call.float("value")?;
        let dtype = if call.dtype(0)? == DType::F32 { DType::F32 } else { DType::F64 };
        [call.x_as(0, dtype)?, call.scalar(value, dtype)?]
    };
    let mut holds = call.part(op, &[&a, &b], vec![]);
    if is_negated {
        holds = call.part("Not", &[&holds], vec![]);
    }
    call.done("Cast", &[&holds], vec![int("to", type_number(DType::U8))])
}

pub(super) fn choose(call: &mut Call<'_>) -> Done {
    let dtype = call.output_dtype();
    let condition = call.tensor("condition")?;
    let condition = call.truth(&condition);
    let (a, b) = (call.x_as(0, dtype)?, call.x_as(1, dtype)?);
    call.done("Where", &[&condition, &a, &b], vec![])
}

/// Operations that change nothing in ONNX, which has no memory formats.
pub(super) fn same(call: &mut Call<'_>) -> Done {
    let x = call.x(0)?;
    call.is(x)
}

pub(super) fn convert(call: &mut Call<'_>) -> Done {
    let x = call.x(0)?;
    let to = type_number(call.output_dtype());
    call.done("Cast", &[&x], vec![int("to", to)])
}

fn limit(call: &mut Call<'_>, min: f64, max: f64) -> Done {
    let (x, dtype) = (call.x(0)?, call.dtype(0)?);
    let mut bound = |value: f64| if value.is_finite() { call.scalar(value, dtype) } else { Ok(String::new()) };
    let (min, max) = (bound(min)?, bound(max)?);
    call.done("Clip", &[&x, &min, &max], vec![])
}

pub(super) fn clamp(call: &mut Call<'_>) -> Done {
    let (min, max) = (call.float("min")?, call.float("max")?);
    limit(call, min, max)
}

pub(super) fn relu6(call: &mut Call<'_>) -> Done {
    limit(call, 0.0, 6.0)
}

pub(super) fn leaky_relu(call: &mut Call<'_>) -> Done {
    let (x, slope) = (call.x(0)?, call.float("slope")?);
    call.done("LeakyRelu", &[&x], vec![float("alpha", slope)])
}

pub(super) fn elu(call: &mut Call<'_>) -> Done {
    let (x, alpha) = (call.x(0)?, call.float("alpha")?);
    call.done("Elu", &[&x], vec![float("alpha", alpha)])
}

pub(super) fn silu(call: &mut Call<'_>) -> Done {
    let x = call.x(0)?;
    let gate = call.part("Sigmoid", &[&x], vec![]);
    call.done("Mul", &[&x, &gate], vec![])
}

pub(super) fn hard_sigmoid(call: &mut Call<'_>) -> Done {
    let x = call.x(0)?;
    call.done("HardSigmoid", &[&x], vec![float("alpha", 1.0 / 6.0), float("beta", 0.5)])
}

pub(super) fn gelu(call: &mut Call<'_>) -> Done {
    let (x, dtype) = (call.x(0)?, call.dtype(0)?);
    if call.opset() >= 20 {
        return call.done("Gelu", &[&x], vec![]);
    }
    let (root, one, half) = (call.scalar(std::f64::consts::FRAC_1_SQRT_2, dtype)?, call.scalar(1.0, dtype)?, call.scalar(0.5, dtype)?);
    let scaled = call.part("Mul", &[&x, &root], vec![]);
    let erf = call.part("Erf", &[&scaled], vec![]);
    let twice = call.part("Add", &[&erf, &one], vec![]);
    let product = call.part("Mul", &[&x, &twice], vec![]);
    call.done("Mul", &[&product, &half], vec![])
}

pub(super) fn gelu_tanh(call: &mut Call<'_>) -> Done {
    let (x, dtype) = (call.x(0)?, call.dtype(0)?);
    // x · sigmoid(2·√(2/π) · (x + 0.044715·x³))
    let (cubic, factor) = (call.scalar(0.044715, dtype)?, call.scalar(2.0 * (2.0 / std::f64::consts::PI).sqrt(), dtype)?);
    let square = call.part("Mul", &[&x, &x], vec![]);
    let cube = call.part("Mul", &[&square, &x], vec![]);
    let weighted = call.part("Mul", &[&cube, &cubic], vec![]);
    let inner = call.part("Add", &[&x, &weighted], vec![]);
    let scaled = call.part("Mul", &[&inner, &factor], vec![]);
    let gate = call.part("Sigmoid", &[&scaled], vec![]);
    call.done("Mul", &[&x, &gate], vec![])
}

pub(super) fn mish(call: &mut Call<'_>) -> Done {
    let x = call.x(0)?;
    if call.opset() >= 18 {
        return call.done("Mish", &[&x], vec![]);
    }
    let smooth = call.part("Softplus", &[&x], vec![]);
    let gate = call.part("Tanh", &[&smooth], vec![]);
    call.done("Mul", &[&x, &gate], vec![])
}

pub(super) fn pow(call: &mut Call<'_>) -> Done {
    let (x, dtype, exponent) = (call.x(0)?, call.dtype(0)?, call.float("exponent")?);
    let exponent = call.scalar(exponent, dtype)?;
    call.done("Pow", &[&x, &exponent], vec![])
}

pub(super) fn square(call: &mut Call<'_>) -> Done {
    let x = call.x(0)?;
    call.done("Mul", &[&x, &x], vec![])
}

pub(super) fn rsqrt(call: &mut Call<'_>) -> Done {
    let x = call.x(0)?;
    let root = call.part("Sqrt", &[&x], vec![]);
    call.done("Reciprocal", &[&root], vec![])
}

pub(super) fn log1p(call: &mut Call<'_>) -> Done {
    let (x, dtype) = (call.x(0)?, call.dtype(0)?);
    let one = call.scalar(1.0, dtype)?;
    let sum = call.part("Add", &[&x, &one], vec![]);
    call.done("Log", &[&sum], vec![])
}

pub(super) fn trunc(call: &mut Call<'_>) -> Done {
    let x = call.x(0)?;
    let (sign, size) = (call.part("Sign", &[&x], vec![]), call.part("Abs", &[&x], vec![]));
    let whole = call.part("Floor", &[&size], vec![]);
    call.done("Mul", &[&sign, &whole], vec![])
}

pub(super) fn softmax(call: &mut Call<'_>, op: &'static str) -> Done {
    let (x, axis) = (call.x(0)?, call.int("axis")?);
    call.done(op, &[&x], vec![int("axis", axis)])
}
