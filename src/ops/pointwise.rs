//! Differentiable functions of one element: the code that they share, and the elementary functions.
//!
//! Such an operation is a small struct with its value and its gradient next to each other;
//! [`pointwise`] checks, maps and records. The activation functions follow the same pattern.

use crate::error::Result;
use crate::kernels::elementwise::Unary;
use crate::kernels::runtime::simd::{Real, Scalar};
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::compute::{map, map_with, zip_onto};
use crate::tensor::create::or_panic;
use crate::tensor::{Tensor, with_dtype, with_float};

/// A function of one element and its derivative.
pub(crate) trait Pointwise: Copy + Send + Sync + 'static {
    /// The operation's name.
    const NAME: &'static str;
    /// The approximate number of elementary operations for one element.
    const COST: usize = 1;
    /// Whether `gradient` is computed from the function's output rather than from its input.
    const FROM_OUTPUT: bool = false;
    /// Whether the derivative is zero everywhere; `gradient` is then not called.
    const IS_STEP: bool = false;

    /// Returns the function's options, for a recorder.
    fn details(self) -> Details {
        Details::new()
    }

    /// Computes the function.
    fn value<T: Real>(self, x: T) -> T;

    /// Computes the incoming gradient times the derivative; `kept` is the input or the output.
    fn gradient<T: Real>(self, grad: T, kept: T) -> T;
}

#[derive(Clone, Copy)]
struct Forward<F>(F);

impl<F: Pointwise> Unary for Forward<F> {
    const COST: usize = F::COST;

    #[inline(always)]
    fn apply<T: Real>(self, x: T) -> T {
        self.0.value(x)
    }
}

/// Applies `f` to each element and records its gradient. Returns an error unless the tensor is
/// floating point.
pub(crate) fn pointwise<F: Pointwise>(x: &Tensor, f: F) -> Result<Tensor> {
    let observed = operation(F::NAME);
    observed.details(|| f.details());
    let y = map(F::NAME, x, Forward(f))?;
    let keeps = !F::IS_STEP && x.is_recorded();
    let kept = keeps.then(|| if F::FROM_OUTPUT { y.detach() } else { x.detach() });
    Ok(y.record_owning(F::NAME, [x], move |grad, _wanted| {
        let gradient = if const { F::IS_STEP } {
            // A gradient that is constant needs no more.
            Tensor::try_full(vec![1; grad.ndim()], 0.0, grad.dtype())?
        } else {
            let kept = kept.as_ref().expect("kept when recorded");
            with_float!(grad.dtype(), F::NAME, T => {
                zip_onto(F::NAME, grad, kept, F::COST, |grad: T, kept: T| -> T { f.gradient(grad, kept) })?
            })
        };
        Ok([Some(gradient)])
    }))
}

impl Tensor {
    /// Computes the absolute value. The gradient at 0 is 0; the least `i64` stays unchanged.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    #[track_caller]
    pub fn abs(&self) -> Tensor {
        or_panic(self.try_abs())
    }

    /// Computes [`abs`](Tensor::abs), with an error when memory cannot hold the result.
    pub(crate) fn try_abs(&self) -> Result<Tensor> {
        if self.dtype().is_float() {
            return pointwise(self, Abs);
        }
        with_dtype!(self.dtype(), T => map_with(self, 1, |x: T| if x < T::default() { T::default().minus(x) } else { x }))
    }

    /// Computes `eˣ`.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`](crate::Error::DType) unless the tensor is floating point.
    pub fn exp(&self) -> Result<Tensor> {
        pointwise(self, Exp)
    }

    /// Computes the natural logarithm: -∞ at 0, NaN below 0.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`](crate::Error::DType) unless the tensor is floating point.
    pub fn ln(&self) -> Result<Tensor> {
        pointwise(self, Ln)
    }

    /// Computes the square root: NaN below 0.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`](crate::Error::DType) unless the tensor is floating point.
    pub fn sqrt(&self) -> Result<Tensor> {
        pointwise(self, Sqrt)
    }

    /// Computes `x²`.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`](crate::Error::DType) unless the tensor is floating point.
    pub fn square(&self) -> Result<Tensor> {
        pointwise(self, Square)
    }

    /// Computes `1 / x` (`torch.reciprocal`).
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`](crate::Error::DType) unless the tensor is floating point.
    pub fn recip(&self) -> Result<Tensor> {
        pointwise(self, Recip)
    }

    /// Computes the sine of an angle in radians.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`](crate::Error::DType) unless the tensor is floating point.
    pub fn sin(&self) -> Result<Tensor> {
        pointwise(self, Sin)
    }

    /// Computes the cosine of an angle in radians.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`](crate::Error::DType) unless the tensor is floating point.
    pub fn cos(&self) -> Result<Tensor> {
        pointwise(self, Cos)
    }

    /// Computes `xᵖ`; NaN for negative `x` unless the exponent is whole. The exponents 2 and 0.5
    /// give the square and the square root.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`](crate::Error::DType) unless the tensor is floating point.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let x = Tensor::from_vec(vec![1.0f32, 4.0, 9.0], [3])?;
    /// assert_eq!(x.pow(0.5)?.to_vec::<f32>()?, [1.0, 2.0, 3.0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn pow(&self, exponent: f64) -> Result<Tensor> {
        match exponent {
            2.0 => self.square(),
            0.5 => self.sqrt(),
            _ => pointwise(self, Pow { exponent }),
        }
    }

    /// Limits `x` to at least `min` and then to at most `max`; an infinite bound means no bound.
    /// NaN stays NaN, and a bound that is NaN makes every value NaN.
    ///
    /// The gradient is passed on strictly between the bounds, and at NaN; it is 0 elsewhere, and
    /// when a bound is NaN.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`](crate::Error::DType) unless the tensor is floating point.
    pub fn clamp(&self, min: f64, max: f64) -> Result<Tensor> {
        pointwise(self, Clamp { min, max })
    }
}

#[derive(Clone, Copy)]
struct Abs;

impl Pointwise for Abs {
    const NAME: &'static str = "abs";

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x.abs()
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        let below = if x < T::zero() { -grad } else { T::zero() };
        if x > T::zero() { grad } else { below }
    }
}

#[derive(Clone, Copy)]
struct Exp;

impl Pointwise for Exp {
    const NAME: &'static str = "exp";
    const COST: usize = 8;
    const FROM_OUTPUT: bool = true;

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x.exp_fast()
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, y: T) -> T {
        grad * y
    }
}

#[derive(Clone, Copy)]
struct Ln;

impl Pointwise for Ln {
    const NAME: &'static str = "ln";
    const COST: usize = 8;

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x.ln_fast()
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        grad / x
    }
}

#[derive(Clone, Copy)]
struct Sqrt;

impl Pointwise for Sqrt {
    const NAME: &'static str = "sqrt";
    const FROM_OUTPUT: bool = true;

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x.sqrt()
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, y: T) -> T {
        grad / (y + y)
    }
}

#[derive(Clone, Copy)]
struct Square;

impl Pointwise for Square {
    const NAME: &'static str = "square";

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x * x
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        // `x + x` would overflow where the gradient does not.
        T::of(2.0) * (grad * x)
    }
}

#[derive(Clone, Copy)]
struct Recip;

impl Pointwise for Recip {
    const NAME: &'static str = "recip";
    const FROM_OUTPUT: bool = true;

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        T::one() / x
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, y: T) -> T {
        -grad * y * y
    }
}

#[derive(Clone, Copy)]
struct Sin;

impl Pointwise for Sin {
    const NAME: &'static str = "sin";
    const COST: usize = 32;

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x.sin()
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        grad * x.cos()
    }
}

#[derive(Clone, Copy)]
struct Cos;

impl Pointwise for Cos {
    const NAME: &'static str = "cos";
    const COST: usize = 32;

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x.cos()
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        -grad * x.sin()
    }
}

#[derive(Clone, Copy)]
struct Pow {
    exponent: f64,
}

impl Pointwise for Pow {
    const NAME: &'static str = "pow";
    const COST: usize = 64;

    fn details(self) -> Details {
        Details::new().float("exponent", self.exponent)
    }

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x.powf(T::of(self.exponent))
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        // The function is constant; the formula would give 0 · ∞ at 0.
        if self.exponent == 0.0 {
            return T::zero();
        }
        grad * T::of(self.exponent) * x.powf(T::of(self.exponent - 1.0))
    }
}

#[derive(Clone, Copy)]
struct Clamp {
    min: f64,
    max: f64,
}

impl Clamp {
    #[inline(always)]
    fn is_undefined(self) -> bool {
        self.min.is_nan() || self.max.is_nan()
    }
}

impl Pointwise for Clamp {
    const NAME: &'static str = "clamp";

    fn details(self) -> Details {
        Details::new().float("min", self.min).float("max", self.max)
    }

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        if self.is_undefined() {
            return T::nan();
        }
        let (min, max) = (T::of(self.min), T::of(self.max));
        let x = if x < min { min } else { x };
        if x > max { max } else { x }
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        // Comparisons with NaN are false: an infinite bound, replaced by NaN, excludes no number,
        // not even infinity.
        let bound = |bound: f64| if bound.is_infinite() { T::nan() } else { T::of(bound) };
        let outside = (x <= bound(self.min)) | (x >= bound(self.max)) | self.is_undefined();
        if outside { T::zero() } else { grad }
    }
}
