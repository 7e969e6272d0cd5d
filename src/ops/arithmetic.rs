//! Arithmetic with broadcasting, and the operators.

use std::ops;

use crate::error::Result;
use crate::kernels::elementwise::Binary;
use crate::kernels::simd::{Real, Scalar};
use crate::tensor::compute::{map_with, promote, zip, zip_with};
use crate::tensor::{DType, Tensor, with_dtype};

/// A function of two elements of any one type.
trait Arithmetic: Copy + Sync {
    fn apply<T: Scalar>(self, a: T, b: T) -> T;
}

/// Applies `f` to both operands, broadcast together, in the dtype they promote to.
fn arithmetic(op: &'static str, a: &Tensor, b: &Tensor, f: impl Arithmetic) -> Result<Tensor> {
    let dtype = promote(a, b);
    let (a, b) = (a.cast(dtype), b.cast(dtype));
    with_dtype!(dtype, T => zip_with(op, &a, &b, 1, |a: T, b: T| f.apply(a, b)))
}

#[derive(Clone, Copy)]
struct Add;
impl Arithmetic for Add {
    #[inline(always)]
    fn apply<T: Scalar>(self, a: T, b: T) -> T {
        a.plus(b)
    }
}

#[derive(Clone, Copy)]
struct Sub;
impl Arithmetic for Sub {
    #[inline(always)]
    fn apply<T: Scalar>(self, a: T, b: T) -> T {
        a.minus(b)
    }
}

#[derive(Clone, Copy)]
struct Mul;
impl Arithmetic for Mul {
    #[inline(always)]
    fn apply<T: Scalar>(self, a: T, b: T) -> T {
        a.times(b)
    }
}

#[derive(Clone, Copy)]
struct Div;
impl Binary for Div {
    #[inline(always)]
    fn apply<T: Real>(self, a: T, b: T) -> T {
        a / b
    }
}

impl Tensor {
    /// `self + other`, broadcast as NumPy does.
    ///
    /// # Shape
    /// The common shape of both; channels-last when a 4-D operand of that shape is. Dtypes promote: u8 < i64 < f32 < f64. Integers wrap.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when the shapes do not broadcast.
    pub fn add(&self, other: &Tensor) -> Result<Tensor> {
        let y = arithmetic("add", self, other, Add)?;
        Ok(y.record("add", [self, other], |grad, wanted| Ok([wanted[0].then(|| grad.clone()), wanted[1].then(|| grad.clone())])))
    }

    /// `self - other`, broadcast as NumPy does.
    ///
    /// # Shape
    /// As [`add`](Tensor::add).
    ///
    /// # Errors
    /// As [`add`](Tensor::add).
    pub fn sub(&self, other: &Tensor) -> Result<Tensor> {
        let y = arithmetic("sub", self, other, Sub)?;
        Ok(y.record("sub", [self, other], |grad, wanted| {
            Ok([wanted[0].then(|| grad.clone()), if wanted[1] { Some(grad.neg()) } else { None }])
        }))
    }

    /// `self · other`, element by element, broadcast as NumPy does.
    ///
    /// # Shape
    /// As [`add`](Tensor::add).
    ///
    /// # Errors
    /// As [`add`](Tensor::add).
    pub fn mul(&self, other: &Tensor) -> Result<Tensor> {
        let y = arithmetic("mul", self, other, Mul)?;
        let (a, b) = (other.is_recorded().then(|| self.detach()), self.is_recorded().then(|| other.detach()));
        Ok(y.record("mul", [self, other], move |grad, _wanted| {
            let times = |factor: &Option<Tensor>| factor.as_ref().map(|factor| grad.mul(factor)).transpose();
            Ok([times(&b)?, times(&a)?])
        }))
    }

    /// `self / other`, broadcast as NumPy does. Integers are divided as `f32`.
    ///
    /// # Shape
    /// As [`add`](Tensor::add).
    ///
    /// # Errors
    /// As [`add`](Tensor::add).
    pub fn div(&self, other: &Tensor) -> Result<Tensor> {
        let dtype = promote(self, other).max(DType::F32);
        let (a, b) = (self.cast(dtype), other.cast(dtype));
        let y = zip("div", &a, &b, Div)?;
        let kept = other.is_recorded().then(|| y.detach());
        Ok(y.record("div", [self, other], move |grad, wanted| {
            let of_a = grad.div(&b)?;
            let of_b = if wanted[1] { kept.as_ref().map(|y| Ok(of_a.mul(y)?.neg())).transpose()? } else { None };
            Ok([wanted[0].then_some(of_a), of_b])
        }))
    }

    /// `-self`.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    pub fn neg(&self) -> Tensor {
        let y = with_dtype!(self.dtype(), T => map_with(self, 1, |x: T| T::default().minus(x)));
        y.record("neg", [self], |grad, _wanted| Ok([Some(grad.neg())]))
    }

    /// `self + value`.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format. Integer tensors add the value rounded towards zero.
    pub fn add_scalar(&self, value: f64) -> Tensor {
        let y = with_dtype!(self.dtype(), T => map_with(self, 1, move |x: T| x.plus(value as T)));
        y.record("add_scalar", [self], |grad, _wanted| Ok([Some(grad.clone())]))
    }

    /// `self · value`.
    ///
    /// # Shape
    /// As [`add_scalar`](Tensor::add_scalar).
    pub fn mul_scalar(&self, value: f64) -> Tensor {
        let y = with_dtype!(self.dtype(), T => map_with(self, 1, move |x: T| x.times(value as T)));
        y.record("mul_scalar", [self], move |grad, _wanted| Ok([Some(grad.mul_scalar(value))]))
    }
}

/// An operator on tensors, for owned and borrowed operands, and with a number on the right. Panics on shapes that do not broadcast, as
/// `ndarray`'s operators do; the methods return a `Result` instead.
macro_rules! operator {
    ($($trait:ident $method:ident ($x:ident, $value:ident) => $scalar:expr;)*) => {$(
        operator!(@tensors $trait $method, Tensor, Tensor);
        operator!(@tensors $trait $method, Tensor, &Tensor);
        operator!(@tensors $trait $method, &Tensor, Tensor);
        operator!(@tensors $trait $method, &Tensor, &Tensor);
        operator!(@number $trait $method, Tensor, ($x, $value) => $scalar);
        operator!(@number $trait $method, &Tensor, ($x, $value) => $scalar);
    )*};
    (@tensors $trait:ident $method:ident, $left:ty, $right:ty) => {
        impl ops::$trait<$right> for $left {
            type Output = Tensor;
            fn $method(self, other: $right) -> Tensor {
                Tensor::$method(&self, &other).unwrap_or_else(|error| panic!("{error}"))
            }
        }
    };
    (@number $trait:ident $method:ident, $left:ty, ($x:ident, $value:ident) => $scalar:expr) => {
        impl ops::$trait<f64> for $left {
            type Output = Tensor;
            fn $method(self, $value: f64) -> Tensor {
                let $x = &self;
                $scalar
            }
        }
    };
}
operator! {
    Add add (x, value) => x.add_scalar(value);
    Sub sub (x, value) => x.add_scalar(-value);
    Mul mul (x, value) => x.mul_scalar(value);
    Div div (x, value) => x.mul_scalar(1.0 / value);
}

impl ops::Neg for Tensor {
    type Output = Tensor;
    fn neg(self) -> Tensor {
        Tensor::neg(&self)
    }
}

impl ops::Neg for &Tensor {
    type Output = Tensor;
    fn neg(self) -> Tensor {
        Tensor::neg(self)
    }
}
