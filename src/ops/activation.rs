//! Activation functions.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use super::pointwise::{Pointwise, pointwise};
use super::reduction::max_over_middle;
use crate::error::{Error, Result};
use crate::kernels::elementwise::activation::{HardSigmoid, HardSwish, Nonlinear, Relu6, Silu, above_minus_infinity, finite};
use crate::kernels::elementwise::epilogue::Activation;
use crate::kernels::runtime::simd::Real;
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::profiling::watch;
use crate::tensor::compute::{map_with, zip_onto};
use crate::tensor::create::or_panic;
use crate::tensor::shape::resolve_size;
use crate::tensor::shape::{numel, try_numel};
use crate::tensor::{Dim, MemoryFormat, Tensor, with_dtype};

impl Activation {
    /// Applies the activation.
    ///
    /// # Errors
    /// [`Error::DType`] unless the tensor is floating point, except for `Linear` and `Relu`, which
    /// take every dtype.
    pub fn apply(self, x: Tensor) -> Result<Tensor> {
        match self {
            Activation::Linear => Ok(x),
            Activation::Relu => x.try_relu(),
            Activation::Relu6 => x.relu6(),
            Activation::Silu => x.silu(),
            Activation::Hardswish => x.hardswish(),
            Activation::Sigmoid => x.sigmoid(),
            Activation::Hardsigmoid => x.hardsigmoid(),
        }
    }

    /// Computes `activation(x + residual)`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the residual does not broadcast, [`Error::DType`] for a dtype that the
    /// activation does not take.
    pub(crate) fn apply_to_sum(self, x: Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        self.apply(match residual {
            Some(residual) => x.add(residual)?,
            None => x,
        })
    }
}

impl Tensor {
    /// Applies the rectifier: `x` where `x > 0`, else 0 (Nair and Hinton, 2010). NaN stays NaN.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    #[track_caller]
    pub fn relu(&self) -> Tensor {
        or_panic(self.try_relu())
    }

    /// Computes [`relu`](Tensor::relu), with an error when memory cannot hold the result.
    pub(crate) fn try_relu(&self) -> Result<Tensor> {
        let _op = operation("relu");
        let y = with_dtype!(self.dtype(), T => map_with(self, 1, |x: T| if x < T::default() { T::default() } else { x })?);
        let kept = self.is_recorded().then(|| y.detach());
        let y = y.record_owning("relu", [self], move |grad, _wanted| {
            let y = kept.as_ref().expect("kept when recorded");
            Ok([Some(with_dtype!(y.dtype(), T => {
                zip_onto("relu", grad, y, 1, |g: T, y: T| if y <= T::default() { T::default() } else { g })?
            }))])
        });
        watch::rectified(&y);
        Ok(y)
    }

    /// Applies the leaky rectifier: `x` where `x > 0`, else `slope · x` (Maas et al., 2013).
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`] unless the tensor is floating point.
    pub fn leaky_relu(&self, slope: f64) -> Result<Tensor> {
        pointwise(self, LeakyRelu { slope })
    }

    /// Applies the rectifier with an upper limit of 6 (Howard et al., 2017): `x` limited to 0 to 6.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`] unless the tensor is floating point.
    pub fn relu6(&self) -> Result<Tensor> {
        let y = pointwise(self, Relu6)?;
        watch::rectified(&y);
        Ok(y)
    }

    /// Applies the exponential linear unit: `x` where `x > 0`, else `alpha · (eˣ - 1)` (Clevert et
    /// al., 2016).
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`] unless the tensor is floating point.
    pub fn elu(&self, alpha: f64) -> Result<Tensor> {
        pointwise(self, Elu { alpha })
    }

    /// Applies the Gaussian error linear unit: `x · Φ(x)` with the normal distribution function Φ
    /// (Hendrycks and Gimpel, 2016).
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`] unless the tensor is floating point.
    pub fn gelu(&self) -> Result<Tensor> {
        pointwise(self, Gelu)
    }

    /// Applies the usual approximation of [`gelu`](Tensor::gelu):
    /// `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`; `approximate="tanh"` in PyTorch.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`] unless the tensor is floating point.
    pub fn gelu_tanh(&self) -> Result<Tensor> {
        pointwise(self, GeluTanh)
    }

    /// Applies the sigmoid linear unit, or swish: `x · sigmoid(x)` (Elfwing et al., 2018;
    /// Ramachandran et al., 2017).
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`] unless the tensor is floating point.
    pub fn silu(&self) -> Result<Tensor> {
        pointwise(self, Silu)
    }

    /// Applies the logistic function: `1 / (1 + e⁻ˣ)`.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`] unless the tensor is floating point.
    pub fn sigmoid(&self) -> Result<Tensor> {
        pointwise(self, Sigmoid)
    }

    /// Applies the hyperbolic tangent.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`] unless the tensor is floating point.
    pub fn tanh(&self) -> Result<Tensor> {
        pointwise(self, Tanh)
    }

    /// Applies the piecewise linear sigmoid: `relu6(x + 3) / 6` (Howard et al., 2019).
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`] unless the tensor is floating point.
    pub fn hardsigmoid(&self) -> Result<Tensor> {
        pointwise(self, HardSigmoid)
    }

    /// Applies the piecewise quadratic swish: `x · relu6(x + 3) / 6` (Howard et al., 2019).
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`] unless the tensor is floating point.
    pub fn hardswish(&self) -> Result<Tensor> {
        pointwise(self, HardSwish)
    }

    /// Applies the smooth rectifier: `ln(1 + eˣ)`, and `x` itself above 20, as in PyTorch.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`] unless the tensor is floating point.
    pub fn softplus(&self) -> Result<Tensor> {
        pointwise(self, Softplus)
    }

    /// Applies the smooth rectifier with a sharpness: `ln(1 + e^(beta·x)) / beta`, and `x` itself
    /// where `beta · x` is above `threshold`.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`] unless the tensor is floating point.
    pub fn softplus_with(&self, beta: f64, threshold: f64) -> Result<Tensor> {
        let x = self.try_mul_scalar(beta)?;
        // `maximum` gives equal elements half of the gradient each: the slope at 0 is 1/2.
        let positive = x.maximum(&Tensor::try_full([], 0.0, x.dtype())?)?;
        let smooth = positive.add(&x.try_abs()?.try_neg()?.exp()?.log1p()?)?.try_div_scalar(beta)?;
        x.detach().gt_scalar(threshold)?.where_(self, &smooth)
    }

    /// Computes the logarithm of the sigmoid, `-ln(1 + e⁻ˣ)`.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`] unless the tensor is floating point.
    pub fn logsigmoid(&self) -> Result<Tensor> {
        self.try_neg()?.softplus_with(1.0, f64::INFINITY)?.try_neg()
    }

    /// Applies the scaled exponential linear unit (Klambauer et al., 2017): 1.0507 times
    /// [`elu`](Tensor::elu) with an `alpha` of 1.6733.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`] unless the tensor is floating point.
    pub fn selu(&self) -> Result<Tensor> {
        self.elu(1.673_263_242_354_377_2)?.try_mul_scalar(1.050_700_987_355_480_5)
    }

    /// Applies the continuously differentiable exponential linear unit (Barron, 2017): `x` above 0,
    /// `alpha · (e^(x/alpha) - 1)` below.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`] unless the tensor is floating point.
    pub fn celu(&self, alpha: f64) -> Result<Tensor> {
        self.try_div_scalar(alpha)?.elu(1.0)?.try_mul_scalar(alpha)
    }

    /// Applies the gated linear unit (Dauphin et al., 2016): the first half of a dimension times
    /// the sigmoid of the second.
    ///
    /// # Shape
    /// The input's shape with half the size in that dimension.
    ///
    /// # Errors
    /// [`Error::Shape`] when the size is odd, [`Error::Argument`] for a dimension that does not
    /// exist, [`Error::DType`] unless the tensor is floating point.
    pub fn glu(&self, dim: impl Dim) -> Result<Tensor> {
        let axis = resolve_size("glu", dim, self.shape())?;
        let size = self.shape()[axis];
        if size % 2 == 1 {
            return Err(Error::shape("glu", format!("dimension {axis} of shape {:?} cannot be halved", self.shape())));
        }
        self.narrow(axis, 0, size / 2)?.mul(&self.narrow(axis, size / 2, size / 2)?.sigmoid()?)
    }

    /// Computes `x · tanh(softplus(x))` (Misra, 2019).
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`] unless the tensor is floating point.
    pub fn mish(&self) -> Result<Tensor> {
        pointwise(self, Mish)
    }

    /// Returns the greatest of each `pieces` consecutive channels (Goodfellow et al., 2013); equal
    /// greatest channels share the gradient evenly.
    ///
    /// # Shape
    /// `[N, C, ..]` gives `[N, C / pieces, ..]` in the input's memory format.
    ///
    /// # Errors
    /// [`Error::Shape`] when there is no channel dimension, [`Error::Argument`] when `pieces` is 0
    /// or does not divide the channels.
    pub fn maxout(&self, pieces: usize) -> Result<Tensor> {
        let &[n, c, ref rest @ ..] = self.shape() else {
            return Err(Error::shape("maxout", format!("expected [N, C, ..], got shape {:?}", self.shape())));
        };
        if pieces == 0 || c % pieces != 0 {
            return Err(Error::argument("maxout", format!("{c} channels do not divide into groups of {pieces}")));
        }
        let shape = [&[n, c / pieces], rest].concat();
        // In memory the pieces are between the dimensions before and after the channels.
        let inner = if self.memory_format() == MemoryFormat::ChannelsLast { 1 } else { try_numel(rest).unwrap_or(0) };
        let outer = numel(&shape).checked_div(inner).unwrap_or(0);
        // With zero channels any `pieces` divides them, so limit it.
        max_over_middle("maxout", self, [outer, pieces.min(c.max(1)), inner], &shape)
    }
}

#[derive(Clone, Copy)]
struct LeakyRelu {
    slope: f64,
}

impl Pointwise for LeakyRelu {
    const NAME: &'static str = "leaky_relu";

    fn details(self) -> Details {
        Details::new().float("slope", self.slope)
    }

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        if x > T::zero() { x } else { T::of(self.slope) * x }
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        if x > T::zero() { grad } else { T::of(self.slope) * grad }
    }
}

/// Implements `Pointwise` for functions that fused kernels apply too: type, name, cost, and
/// whether the gradient is computed from the output.
macro_rules! of_kernels {
    ($($function:ty, $name:literal, $cost:literal, $from_output:literal;)*) => {$(
        impl Pointwise for $function {
            const NAME: &'static str = $name;
            const COST: usize = $cost;
            const FROM_OUTPUT: bool = $from_output;

            #[inline(always)]
            fn value<T: Real>(self, x: T) -> T {
                Nonlinear::value(self, x)
            }
            #[inline(always)]
            fn gradient<T: Real>(self, grad: T, kept: T) -> T {
                Nonlinear::gradient(self, grad, kept)
            }
        }
    )*};
}
of_kernels! {
    Relu6, "relu6", 1, true;
    Silu, "silu", 12, false;
    HardSigmoid, "hardsigmoid", 2, false;
    HardSwish, "hardswish", 2, false;
}

#[derive(Clone, Copy)]
struct Elu {
    alpha: f64,
}

impl Pointwise for Elu {
    const NAME: &'static str = "elu";
    const COST: usize = 8;

    fn details(self) -> Details {
        Details::new().float("alpha", self.alpha)
    }

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        let below = T::of(self.alpha) * x.exp_m1_fast();
        if x > T::zero() { x } else { below }
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        let below = grad * T::of(self.alpha) * x.exp_fast();
        if x > T::zero() { grad } else { below }
    }
}

#[derive(Clone, Copy)]
struct Gelu;

impl Pointwise for Gelu {
    const NAME: &'static str = "gelu";
    const COST: usize = 16;

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        above_minus_infinity(x) * normal_distribution(x)
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        let x = finite(x);
        // 1/√(2π) = (2/√π) / √8
        let density = (T::of(-0.5) * x * x).exp_fast() * T::of(FRAC_2_SQRT_PI / 8f64.sqrt());
        grad * (normal_distribution(x) + x * density)
    }
}

/// `Φ(x)`, the normal distribution function.
#[inline(always)]
fn normal_distribution<T: Real>(x: T) -> T {
    T::of(0.5) * (T::one() + (x * T::of(FRAC_1_SQRT_2)).error_function())
}

#[derive(Clone, Copy)]
struct GeluTanh;

impl Pointwise for GeluTanh {
    const NAME: &'static str = "gelu_tanh";
    const COST: usize = 16;

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        above_minus_infinity(x) * gelu_tanh_gate(x)
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        let x = finite(x);
        let gate = gelu_tanh_gate(x);
        let slope = T::of(GELU_TANH) * (T::one() + T::of(3.0 * 0.044715) * x * x);
        grad * (gate + x * gate * (T::one() - gate) * slope)
    }
}

/// 2 √(2/π)
const GELU_TANH: f64 = FRAC_2_SQRT_PI * std::f64::consts::SQRT_2;

/// Computes `(1 + tanh(u)) / 2 = sigmoid(2u)`, which has no cancellation for negative `u`.
#[inline(always)]
fn gelu_tanh_gate<T: Real>(x: T) -> T {
    (T::of(GELU_TANH) * x * (T::one() + T::of(0.044715) * x * x)).sigmoid()
}

#[derive(Clone, Copy)]
struct Sigmoid;

impl Pointwise for Sigmoid {
    const NAME: &'static str = "sigmoid";
    const COST: usize = 12;
    const FROM_OUTPUT: bool = true;

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x.sigmoid()
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, y: T) -> T {
        grad * y * (T::one() - y)
    }
}

#[derive(Clone, Copy)]
struct Tanh;

impl Pointwise for Tanh {
    const NAME: &'static str = "tanh";
    const COST: usize = 12;
    const FROM_OUTPUT: bool = true;

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x.tanh_fast()
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, y: T) -> T {
        grad * (T::one() - y * y)
    }
}

#[derive(Clone, Copy)]
struct Softplus;

impl Pointwise for Softplus {
    const NAME: &'static str = "softplus";
    const COST: usize = 16;

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        let below = if x < T::zero() { T::zero() } else { x } + (-x.abs()).exp_fast().ln_1p_fast();
        if x > T::of(20.0) { x } else { below }
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        if x > T::of(20.0) { grad } else { grad * x.sigmoid() }
    }
}

#[derive(Clone, Copy)]
struct Mish;

impl Pointwise for Mish {
    const NAME: &'static str = "mish";
    const COST: usize = 12;

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        let [tanh, _] = mish_terms(x);
        above_minus_infinity(x) * tanh
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        let [tanh, slope] = mish_terms(x);
        grad * (tanh + finite(x) * slope)
    }
}

/// Computes `tanh(ln(1 + eˣ))` and its derivative, which are `n / (n + 2)` and
/// `4 e (1 + e) / (n + 2)²` with `n = e (e + 2)` and `e = eˣ`. For positive `x`, numerator and
/// denominator of both quotients are multiplied by powers of `e⁻ˣ`, so that nothing overflows and
/// the derivative vanishes for large `x`.
#[inline(always)]
fn mish_terms<T: Real>(x: T) -> [T; 2] {
    let (one, two) = (T::one(), T::of(2.0));
    let u = (-x.abs()).exp_fast();
    let positive = x > T::zero();
    let n = if positive { one + two * u } else { u * (u + two) };
    let d = n + if positive { two * u * u } else { two };
    let slope = T::of(4.0) * u * (one + u) / (d * d);
    [n / d, if positive { slope * u } else { slope }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_of_softplus_and_logsigmoid_at_zero_are_one_half() {
        let x = Tensor::from_vec(vec![0f64, -0.0], [2]).unwrap().with_grad();
        for y in [x.softplus(), x.softplus_with(3.0, 20.0), x.logsigmoid()] {
            let gradients = y.unwrap().sum(..).unwrap().backward().unwrap();
            assert_eq!(gradients.get(&x).unwrap().to_vec::<f64>().unwrap(), [0.5, 0.5]);
        }
        let ends = Tensor::from_vec(vec![f64::NEG_INFINITY, f64::INFINITY], [2]).unwrap();
        assert_eq!(ends.softplus_with(1.0, f64::INFINITY).unwrap().to_vec::<f64>().unwrap(), [0.0, f64::INFINITY]);
    }

    #[test]
    fn every_function_keeps_nan() {
        let nan = Tensor::from_vec(vec![f32::NAN; 40], [40]).unwrap();
        let one = Tensor::ones([40]);
        let results = [
            Ok(nan.relu()),
            nan.leaky_relu(0.1),
            nan.relu6(),
            nan.elu(1.0),
            nan.gelu(),
            nan.gelu_tanh(),
            nan.silu(),
            nan.sigmoid(),
            nan.tanh(),
            nan.hardsigmoid(),
            nan.hardswish(),
            nan.softplus(),
            nan.mish(),
            nan.softmax(0),
            nan.log_softmax(0),
            nan.dropout(0.5),
            nan.clamp(-1.0, 1.0),
            Ok(nan.abs()),
            nan.exp(),
            nan.ln(),
            nan.sqrt(),
            nan.maximum(&one),
            one.maximum(&nan),
            nan.minimum(&one),
            one.minimum(&nan),
            nan.reshape([1, 40]).unwrap().maxout(40),
        ];
        for (index, result) in results.into_iter().enumerate() {
            assert!(result.unwrap().to_vec::<f32>().unwrap().iter().all(|x| x.is_nan()), "function {index}");
        }
    }

    #[test]
    fn unsuitable_arguments_and_types_are_refused() {
        let (x, integers) = (Tensor::ones([2, 6]), Tensor::arange(3));
        for (result, message) in [
            (integers.tanh(), "tanh: expected f32 or f64, got i64; convert with `.to_dtype(DType::F32)`"),
            (integers.gelu(), "gelu: expected f32 or f64, got i64; convert with `.to_dtype(DType::F32)`"),
            (integers.clamp(0.0, 1.0), "clamp: expected f32 or f64, got i64; convert with `.to_dtype(DType::F32)`"),
            (integers.dropout(0.5), "dropout: expected f32 or f64, got i64; convert with `.to_dtype(DType::F32)`"),
            (x.dropout(1.5), "dropout: expected a probability between 0 and 1, got 1.5"),
            (x.dropout2d(f64::NAN), "dropout2d: expected a probability between 0 and 1, got NaN"),
            (Tensor::ones([6]).dropout2d(0.5), "dropout2d: expected [N, C, ..], got shape [6]"),
            (x.maxout(4), "maxout: 6 channels do not divide into groups of 4"),
            (x.maxout(0), "maxout: 6 channels do not divide into groups of 0"),
            (Tensor::ones([6]).maxout(2), "maxout: expected [N, C, ..], got shape [6]"),
            (x.where_(&x, &x), "where_: expected a condition of u8, as comparisons such as `gt` return, got f32"),
            (x.maximum(&Tensor::ones([4])), "maximum: shapes [2, 6] and [4] do not broadcast together"),
            (x.eq(&Tensor::ones([4])), "eq: shapes [2, 6] and [4] do not broadcast together"),
        ] {
            assert_eq!(result.unwrap_err().to_string(), message);
        }
    }
}
