//! Arithmetic, comparisons, activations and conversions.

use super::Operator::{Binary, General, Number, Test, Unary};
use super::{Table, as_float, signed};
use crate::autograd::CustomOp;
use crate::error::Result;
use crate::onnx::element::{ElementType, Value, power_of_two, refuse_large, rounded};
use crate::onnx::import::node::Call;
use crate::tensor::compute::zip_with;
use crate::tensor::{DType, Tensor, with_float};

pub(super) const TABLE: Table = &[
    ("Abs", Number(Tensor::try_abs)),
    ("Neg", Number(Tensor::try_neg)),
    ("Relu", Number(|x| if x.dtype().is_float() { Ok(x.relu()) } else { x.maximum(&Tensor::scalar(0i64)) })),
    ("Sign", Number(sign)),
    ("Sqrt", Unary(Tensor::sqrt)),
    ("Exp", Unary(Tensor::exp)),
    ("Log", Unary(Tensor::ln)),
    ("Sin", Unary(Tensor::sin)),
    ("Cos", Unary(Tensor::cos)),
    ("Tan", Unary(Tensor::tan)),
    ("Atan", Unary(Tensor::atan)),
    ("Sigmoid", Unary(Tensor::sigmoid)),
    ("Tanh", Unary(Tensor::tanh)),
    ("Softplus", Unary(Tensor::softplus)),
    ("HardSwish", Unary(Tensor::hardswish)),
    ("Mish", Unary(Tensor::mish)),
    ("Reciprocal", Unary(Tensor::recip)),
    ("Floor", Unary(Tensor::floor)),
    ("Ceil", Unary(Tensor::ceil)),
    ("Round", Unary(Tensor::round)),
    ("Erf", Unary(Tensor::erf)),
    ("Softsign", Unary(|x| x.div(&x.abs().add_scalar(1.0)))),
    ("Add", Binary(Tensor::add)),
    ("Sub", Binary(Tensor::sub)),
    ("Mul", Binary(Tensor::mul)),
    ("Div", Binary(div)),
    ("PRelu", Binary(prelu)),
    ("Equal", Test(Tensor::eq)),
    ("Greater", Test(Tensor::gt)),
    ("GreaterOrEqual", Test(Tensor::ge)),
    ("Less", Test(Tensor::lt)),
    ("LessOrEqual", Test(Tensor::le)),
    ("And", Test(Tensor::mul)),
    ("Or", Test(|a, b| a.add(b)?.gt_scalar(0.0))),
    ("Xor", Test(Tensor::ne)),
    ("Not", Test(|x, _| x.eq_scalar(0.0))),
    ("IsNaN", Test(|x, _| x.isnan())),
    ("IsInf", General(is_infinite)),
    ("Min", General(|call| fold(call, Tensor::minimum))),
    ("Max", General(|call| fold(call, Tensor::maximum))),
    ("Sum", General(|call| fold(call, Tensor::add))),
    ("Mean", General(mean)),
    ("Pow", General(pow)),
    ("Mod", General(modulo)),
    ("Where", General(choose)),
    ("Clip", General(clip)),
    ("LeakyRelu", General(|call| call.like_first(call.tensor(0)?.leaky_relu(call.node.float("alpha", 0.01)?)?))),
    ("ThresholdedRelu", General(thresholded)),
    ("Elu", General(|call| call.like_first(call.tensor(0)?.elu(call.node.float("alpha", 1.0)?)?))),
    ("Celu", General(|call| call.like_first(call.tensor(0)?.celu(call.node.float("alpha", 1.0)?)?))),
    ("Selu", General(selu)),
    ("Gelu", General(gelu)),
    ("Swish", General(swish)),
    ("HardSigmoid", General(hard_sigmoid)),
    ("Softmax", General(|call| softmax(call, |x, axis| x.softmax(axis)))),
    ("LogSoftmax", General(|call| softmax(call, |x, axis| x.log_softmax(axis)))),
    ("Hardmax", General(|call| softmax(call, hardmax))),
    ("Dropout", General(dropout)),
    ("Cast", General(cast)),
    ("CastLike", General(|call| convert_to(call, call.value(1)?.element))),
];

/// Divides; integers towards zero, where the quotient by zero is zero.
fn div(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    // Of two kinds of numbers, which are an error, too.
    if a.dtype().is_float() || b.dtype().is_float() {
        return a.div(b);
    }
    zip_with("div", a, b, 1, |a: i64, b: i64| if b == 0 { 0 } else { a.wrapping_div(b) })
}

/// Returns -1, 0 or 1.
fn sign(x: &Tensor) -> Result<Tensor> {
    match x.dtype().is_float() {
        true => x.sign(),
        false => x.gt_scalar(0.0)?.to_dtype(DType::I64)?.sub(&x.lt_scalar(0.0)?.to_dtype(DType::I64)?),
    }
}

/// Multiplies negative elements by a slope, which broadcasts from the last dimension.
fn prelu(x: &Tensor, slope: &Tensor) -> Result<Tensor> {
    let steep = x.mul(slope)?;
    x.lt_scalar(0.0)?.where_(&steep, x)
}

fn fold(call: &Call<'_>, f: fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Vec<Value>> {
    let mut sum = signed(call.value(0)?)?;
    for at in 1..call.inputs.len() {
        sum = f(&sum, &signed(call.value(at)?)?)?;
    }
    call.like_first(sum)
}

fn mean(call: &Call<'_>) -> Result<Vec<Value>> {
    let mut sums = fold(call, Tensor::add)?;
    sums[0].tensor = sums[0].tensor.mul_scalar(1.0 / call.inputs.len() as f64);
    Ok(sums)
}

fn pow(call: &Call<'_>) -> Result<Vec<Value>> {
    let (x, exponent) = (call.tensor(0)?, call.tensor(1)?);
    let base = as_float(x)?;
    let y = if exponent.numel() == 1 && exponent.ndim() <= x.ndim() && !exponent.requires_grad() {
        base.pow(call.value(1)?.scalar()?)?
    } else {
        base.pow_by(&exponent.to_dtype(base.dtype())?)?
    };
    call.number_like_first(y)
}

fn modulo(call: &Call<'_>) -> Result<Vec<Value>> {
    let (a, b) = (call.value(0)?, call.value(1)?);
    let (x, y) = (signed(a)?, signed(b)?);
    if !a.element.is_float() && !b.element.is_float() {
        // The result has the divisor's sign, or with `fmod` the dividend's.
        let like_c = call.node.flag("fmod", false)?;
        let rest = move |a: i64, b: i64| match b {
            0 => 0,
            _ if like_c || (a.wrapping_rem(b) == 0) || ((a < 0) == (b < 0)) => a.wrapping_rem(b),
            _ => a.wrapping_rem(b).wrapping_add(b),
        };
        return call.like_first(zip_with("mod", &x, &y, 1, rest)?);
    }
    x.expect_float("mod")?;
    call.like_first(float_remainder(&x, &y.to_dtype(x.dtype())?, call.node.flag("fmod", false)?)?)
}

/// Returns the exact remainder, which has the sign of `x` with `like_c`, otherwise that of `y`.
fn float_remainder(x: &Tensor, y: &Tensor, like_c: bool) -> Result<Tensor> {
    CustomOp::new("mod").pointwise().apply([x, y], |[x, y]| {
        let rest = with_float!(x.dtype(), "mod", T => zip_with("mod", &x, &y, 16, move |a: T, b: T| {
            let rest = a % b;
            if like_c || rest == 0.0 || (rest < 0.0) == (b < 0.0) { rest } else { rest + b }
        })?);
        Ok((rest, move |grad: &Tensor, [of_x, of_y]: [bool; 2]| {
            let slope = || {
                let quotient = x.div(&y)?;
                grad.mul(&if like_c { quotient.trunc()? } else { quotient.floor()? })?.try_neg()
            };
            Ok([of_x.then(|| grad.clone()), of_y.then(slope).transpose()?])
        }))
    })
}

fn choose(call: &Call<'_>) -> Result<Vec<Value>> {
    let (condition, a, b) = (call.tensor(0)?, call.value(1)?, call.tensor(2)?);
    call.one(condition.where_(&a.tensor, b)?, a.element)
}

fn clip(call: &Call<'_>) -> Result<Vec<Value>> {
    let bound = |at: usize, name: &str, none: f64| match call.optional(at) {
        Some(value) => value.scalar(),
        None => call.node.float(name, none),
    };
    let (low, high) = (bound(1, "min", f64::NEG_INFINITY)?, bound(2, "max", f64::INFINITY)?);
    let x = call.value(0)?;
    if x.element.is_float() {
        // `clamp` wants its bounds in order; ONNX gives the upper one precedence.
        return call.like_first(x.tensor.clamp(low.min(high), high)?);
    }
    let [least, greatest] = x.element.range().unwrap_or([i64::MIN, i64::MAX]);
    let bounds = [low.max(least as f64) as i64, high.min(greatest as f64) as i64];
    let bounds = bounds.map(Tensor::scalar);
    call.like_first(signed(x)?.maximum(&bounds[0])?.minimum(&bounds[1])?)
}

/// Returns where elements are infinite, of either sign unless an attribute excludes it.
fn is_infinite(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = as_float(call.tensor(0)?)?;
    let [positive, negative] = [("detect_positive", f64::INFINITY), ("detect_negative", f64::NEG_INFINITY)].map(|(name, infinity)| {
        let wanted = call.node.flag(name, true)?;
        x.eq_scalar(if wanted { infinity } else { f64::NAN })
    });
    call.one(positive?.add(&negative?)?, ElementType::Bool)
}

fn thresholded(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    call.like_first(x.gt_scalar(call.node.float("alpha", 1.0)?)?.where_(x, 0.0)?)
}

/// Returns 1 where the first maximum along a dimension is, and 0 elsewhere.
fn hardmax(x: &Tensor, axis: i64) -> Result<Tensor> {
    let place = x.argmax_keepdim(axis)?;
    Tensor::try_full(x.shape(), 0.0, x.dtype())?.scatter(axis, &place, &Tensor::try_full(place.shape(), 1.0, x.dtype())?)
}

fn selu(call: &Call<'_>) -> Result<Vec<Value>> {
    let alpha = call.node.float("alpha", 1.673_263_192_176_818_8)?;
    let gamma = call.node.float("gamma", 1.050_700_902_938_842_8)?;
    call.like_first(call.tensor(0)?.elu(alpha)?.mul_scalar(gamma))
}

fn gelu(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    match call.node.text("approximate", "none")? {
        "none" => call.like_first(x.gelu()?),
        "tanh" => call.like_first(x.gelu_tanh()?),
        other => Err(call.node.error(format!("approximate {other:?} is not supported"))),
    }
}

fn swish(call: &Call<'_>) -> Result<Vec<Value>> {
    let (x, alpha) = (call.tensor(0)?, call.node.float("alpha", 1.0)?);
    if alpha == 1.0 {
        return call.like_first(x.silu()?);
    }
    call.like_first(x.mul(&x.mul_scalar(alpha).sigmoid()?)?)
}

fn hard_sigmoid(call: &Call<'_>) -> Result<Vec<Value>> {
    let (alpha, beta) = (call.node.float("alpha", 0.2)?, call.node.float("beta", 0.5)?);
    let x = call.tensor(0)?;
    if beta == 0.5 && (alpha - 1.0 / 6.0).abs() < 1e-6 {
        return call.like_first(x.hardsigmoid()?);
    }
    call.like_first(x.mul_scalar(alpha).add_scalar(beta).clamp(0.0, 1.0)?)
}

fn softmax(call: &Call<'_>, f: fn(&Tensor, i64) -> Result<Tensor>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    if call.node.version >= 13 {
        return call.like_first(f(x, call.node.int("axis", -1)?)?);
    }
    // Before version 13, all dimensions from the axis on are one.
    let axis = call.axis(call.node.int("axis", 1)?, x.ndim().max(1))?;
    let rows: usize = x.shape()[..axis].iter().product();
    let columns: usize = x.shape()[axis..].iter().product();
    call.like_first(f(&x.reshape([rows as i64, columns as i64])?, 1)?.reshape(sizes(x))?)
}

/// Returns the shape as `reshape` takes it.
pub(super) fn sizes(x: &Tensor) -> Vec<i64> {
    x.shape().iter().map(|&size| size as i64).collect()
}

fn dropout(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    // Before version 12 the mode is that of the run.
    let training = match call.optional(2) {
        Some(mode) => mode.scalar()? != 0.0,
        None => call.node.version < 12 && call.training,
    };
    let ratio = call.optional(1).map_or_else(|| call.node.float("ratio", 0.5), Value::scalar)?;
    let (y, kept) = if training || call.training {
        // Drawn apart from `x`, whose own zeros are not dropped.
        let factors = Tensor::try_full(x.shape(), 1.0, x.dtype())?.dropout(ratio)?;
        (x.mul(&factors)?, factors.ne_scalar(0.0)?)
    } else {
        (x.clone(), Tensor::try_full(x.shape(), 1.0, DType::U8)?)
    };
    Ok(vec![Value::of(y, call.value(0)?.element)?, Value { tensor: kept, element: ElementType::Bool }])
}

fn cast(call: &Call<'_>) -> Result<Vec<Value>> {
    let code = i32::try_from(call.node.int("to", 0)?).unwrap_or(0);
    let element = ElementType::of_code(code).map_err(|message| call.node.error(message))?;
    convert_to(call, element)
}

/// Converts the first input as the attributes say.
fn convert_to(call: &Call<'_>, element: ElementType) -> Result<Vec<Value>> {
    let (node, x) = (call.node, call.value(0)?);
    let saturate = node.flag("saturate", true)?;
    let tensor = match element {
        ElementType::Float8E8m0 if x.element != element => {
            let mode = node.text("round_mode", "up")?;
            if !["up", "down", "nearest"].contains(&mode) {
                return Err(node.error(format!("round_mode {mode:?} is not known")));
            }
            rounded_by(x, |number| power_of_two(number, mode, saturate))?
        }
        _ => converted(x, element, saturate)?,
    };
    Ok(vec![Value { tensor, element }])
}

/// Converts to another element type: towards zero for integers, to the nearest for floating point
/// of less than 32 bits, where too large numbers of less than 16 bits become the greatest one with
/// `saturate`.
pub(super) fn converted(value: &Value, element: ElementType, saturate: bool) -> Result<Tensor> {
    let x = &value.tensor;
    match element {
        ElementType::Bool => x.ne_scalar(0.0),
        _ if element.is_float() && element.bits() < 32 && value.element != element => {
            rounded_by(value, |number| rounded(element, number, saturate))
        }
        _ if element.is_float() => x.to_dtype(element.dtype()),
        _ => {
            // Before a number that is too large becomes the greatest `i64`.
            refuse_large(x, element)?;
            Ok(Value::of(x.to_dtype(DType::I64)?, element)?.tensor)
        }
    }
}

/// Rounds each element to a number that is exact in `f32`.
fn rounded_by(value: &Value, round: impl Fn(f64) -> f64) -> Result<Tensor> {
    Tensor::from_vec(value.floats()?.into_iter().map(|x| round(x) as f32).collect::<Vec<f32>>(), value.tensor.shape())
}
