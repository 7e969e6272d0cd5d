//! Arithmetic with broadcasting, and the operators.

use std::ops;

use crate::error::Result;
use crate::kernels::elementwise::Binary;
use crate::kernels::reduce::{larger, smaller};
use crate::kernels::runtime::arrays::MapEach;
use crate::kernels::runtime::simd::{Real, Scalar};
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::compute::{gated_gradients, map_with, promote, repeated_rows, zip, zip_with};
use crate::tensor::create::or_panic;
use crate::tensor::{DType, Tensor, with_dtype};

/// A function of two elements of the same type.
trait Arithmetic: Copy + Sync {
    fn apply<T: Scalar>(self, a: T, b: T) -> T;
}

/// Applies `f` to both operands, broadcast together, in the dtype they promote to.
fn arithmetic(op: &'static str, a: &Tensor, b: &Tensor, f: impl Arithmetic) -> Result<Tensor> {
    let dtype = promote(a, b);
    let (a, b) = (a.cast(dtype)?, b.cast(dtype)?);
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
struct Maximum;
impl Arithmetic for Maximum {
    #[inline(always)]
    fn apply<T: Scalar>(self, a: T, b: T) -> T {
        larger(a, b)
    }
}

#[derive(Clone, Copy)]
struct Minimum;
impl Arithmetic for Minimum {
    #[inline(always)]
    fn apply<T: Scalar>(self, a: T, b: T) -> T {
        smaller(a, b)
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
    /// Computes `self + other`, broadcast as NumPy does.
    ///
    /// # Shape
    /// The common shape of both; channels-last when a 4-D operand of that shape is. Dtypes promote:
    /// `u8 < i64 < f32 < f64`. Integers wrap.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when the shapes do not broadcast.
    pub fn add(&self, other: &Tensor) -> Result<Tensor> {
        let _op = operation("add");
        let y = arithmetic("add", self, other, Add)?;
        Ok(y.record("add", [self, other], |grad, wanted| Ok([wanted[0].then(|| grad.clone()), wanted[1].then(|| grad.clone())])))
    }

    /// Computes `self - other`, broadcast as NumPy does.
    ///
    /// # Shape
    /// As [`add`](Tensor::add).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when the shapes do not broadcast.
    pub fn sub(&self, other: &Tensor) -> Result<Tensor> {
        let _op = operation("sub");
        let y = arithmetic("sub", self, other, Sub)?;
        Ok(y.record("sub", [self, other], |grad, wanted| {
            Ok([wanted[0].then(|| grad.clone()), if wanted[1] { Some(grad.try_neg()?) } else { None }])
        }))
    }

    /// Computes `self · other` element by element, broadcast as NumPy does.
    ///
    /// # Shape
    /// As [`add`](Tensor::add).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when the shapes do not broadcast.
    pub fn mul(&self, other: &Tensor) -> Result<Tensor> {
        let _op = operation("mul");
        let y = arithmetic("mul", self, other, Mul)?;
        let (a, b) = (other.is_recorded().then(|| self.detach()), self.is_recorded().then(|| other.detach()));
        Ok(y.record_owning("mul", [self, other], move |grad, _wanted| {
            if let (Some(a), Some(b)) = (&a, &b) {
                let swapped = a.numel() < b.numel();
                let (map, gate) = if swapped { (b, a) } else { (a, b) };
                if let Some(rows) = repeated_rows(&grad, map, gate) {
                    let [of_map, of_gate] = gated_gradients(rows, grad, map, gate)?.map_each(Some);
                    return Ok(if swapped { [of_gate, of_map] } else { [of_map, of_gate] });
                }
            }
            let times = |factor: &Option<Tensor>| factor.as_ref().map(|factor| grad.mul(factor)).transpose();
            Ok([times(&b)?, times(&a)?])
        }))
    }

    /// Computes `self / other`, broadcast as NumPy does. Integers are divided as `f32`.
    ///
    /// # Shape
    /// As [`add`](Tensor::add).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when the shapes do not broadcast.
    pub fn div(&self, other: &Tensor) -> Result<Tensor> {
        let _op = operation("div");
        let dtype = promote(self, other).max(DType::F32);
        let (a, b) = (self.cast(dtype)?, other.cast(dtype)?);
        let y = zip("div", &a, &b, Div)?;
        let kept = other.is_recorded().then(|| y.detach());
        Ok(y.record("div", [self, other], move |grad, wanted| {
            let of_a = wanted[0].then(|| grad.div(&b)).transpose()?;
            // The quotient is divided by `b` again before it is multiplied by the gradient: so
            // `0 / b²` is 0, however small `b` is.
            let of_b = if wanted[1] { kept.as_ref().map(|y| y.div(&b)?.mul(grad)?.try_neg()).transpose()? } else { None };
            Ok([of_a, of_b])
        }))
    }

    /// Returns the larger of each pair (`torch.maximum`), broadcast as NumPy does; NaN where either
    /// is NaN. Equal elements share the gradient evenly.
    ///
    /// # Shape
    /// As [`add`](Tensor::add).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when the shapes do not broadcast.
    pub fn maximum(&self, other: &Tensor) -> Result<Tensor> {
        extremum("maximum", self, other, Maximum, Tensor::lt)
    }

    /// Returns the smaller of each pair (`torch.minimum`), broadcast as NumPy does; NaN where
    /// either is NaN. Equal elements share the gradient evenly.
    ///
    /// # Shape
    /// As [`add`](Tensor::add).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when the shapes do not broadcast.
    pub fn minimum(&self, other: &Tensor) -> Result<Tensor> {
        extremum("minimum", self, other, Minimum, Tensor::gt)
    }

    /// Computes `-self`.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    #[track_caller]
    pub fn neg(&self) -> Tensor {
        or_panic(self.try_neg())
    }

    /// Computes [`neg`](Tensor::neg), with an error when memory cannot hold the result.
    pub(crate) fn try_neg(&self) -> Result<Tensor> {
        let _op = operation("neg");
        // Multiplies by -1, which is 255 in u8; subtracting from 0 would lose the sign of 0.
        let y = with_dtype!(self.dtype(), T => map_with(self, 1, |x: T| x.times(T::default().minus(1 as T)))?);
        Ok(y.record("neg", [self], |grad, _wanted| Ok([Some(grad.try_neg()?)])))
    }

    /// Computes `self + value`.
    ///
    /// # Shape
    /// Any; the result has the input's shape and memory format. It also has the input's dtype,
    /// except that it is f32 for an integer tensor and a value that is not whole. Integers wrap.
    #[track_caller]
    pub fn add_scalar(&self, value: f64) -> Tensor {
        or_panic(self.try_add_scalar(value))
    }

    /// Computes [`add_scalar`](Tensor::add_scalar), with an error when memory cannot hold the
    /// result.
    pub(crate) fn try_add_scalar(&self, value: f64) -> Result<Tensor> {
        let observed = operation("add_scalar");
        observed.details(|| Details::new().float("value", value));
        let y = scalar_arithmetic(self, value, Add)?;
        Ok(y.record("add_scalar", [self], |grad, _wanted| Ok([Some(grad.clone())])))
    }

    /// Computes `self - value`.
    ///
    /// # Shape
    /// As [`add_scalar`](Tensor::add_scalar).
    #[track_caller]
    pub fn sub_scalar(&self, value: f64) -> Tensor {
        let observed = operation("sub_scalar");
        observed.details(|| Details::new().float("value", value));
        let y = or_panic(scalar_arithmetic(self, value, Sub));
        y.record("sub_scalar", [self], |grad, _wanted| Ok([Some(grad.clone())]))
    }

    /// Computes `self · value`.
    ///
    /// # Shape
    /// As [`add_scalar`](Tensor::add_scalar).
    #[track_caller]
    pub fn mul_scalar(&self, value: f64) -> Tensor {
        or_panic(self.try_mul_scalar(value))
    }

    /// Computes [`mul_scalar`](Tensor::mul_scalar), with an error when memory cannot hold the
    /// result.
    pub(crate) fn try_mul_scalar(&self, value: f64) -> Result<Tensor> {
        let observed = operation("mul_scalar");
        observed.details(|| Details::new().float("value", value));
        let y = scalar_arithmetic(self, value, Mul)?;
        Ok(y.record("mul_scalar", [self], move |grad, _wanted| Ok([Some(grad.try_mul_scalar(value)?)])))
    }

    /// Computes `self / value`. Integers are divided as `f32`.
    ///
    /// # Shape
    /// Any; the result has the input's shape and memory format.
    #[track_caller]
    pub fn div_scalar(&self, value: f64) -> Tensor {
        or_panic(self.try_div_scalar(value))
    }

    /// Computes [`div_scalar`](Tensor::div_scalar), with an error when memory cannot hold the
    /// result.
    pub(crate) fn try_div_scalar(&self, value: f64) -> Result<Tensor> {
        let observed = operation("div_scalar");
        observed.details(|| Details::new().float("value", value));
        let y = match self.dtype() {
            DType::F64 => map_with(self, 1, move |x: f64| x / value)?,
            _ => map_with(&self.cast(DType::F32)?, 1, move |x: f32| x / value as f32)?,
        };
        Ok(y.record("div_scalar", [self], move |grad, _wanted| Ok([Some(grad.try_div_scalar(value)?)])))
    }

    /// Converts the elements to another dtype; differentiable between floating-point types.
    ///
    /// Floating point to integer rounds towards zero. Values out of range become the nearest
    /// integer of the type and NaN becomes 0, as with Rust's `as`: 300.0 is 255 in u8, -1.0 is 0
    /// (in PyTorch 44 and 255), ∞ is `i64::MAX` (in PyTorch `i64::MIN`). An i64 converted to u8
    /// keeps its lowest eight bits.
    ///
    /// # Shape
    /// Any; the result has the input's shape and memory format.
    ///
    /// # Errors
    /// None so far: a `Result` because every conversion to a dtype that the caller chooses returns
    /// one.
    pub fn to_dtype(&self, dtype: DType) -> Result<Tensor> {
        if dtype == self.dtype() {
            return Ok(self.clone());
        }
        let observed = operation("to_dtype");
        let y = self.cast(dtype)?;
        if !dtype.is_float() {
            observed.result(&[self], &[&y]);
            return Ok(y);
        }
        Ok(y.record("to_dtype", [self], |grad, _wanted| Ok([Some(grad.clone())])))
    }
}

/// Computes `f` of each pair, which is the second element where `loses`.
fn extremum(
    op: &'static str,
    a: &Tensor,
    b: &Tensor,
    f: impl Arithmetic,
    loses: impl Fn(&Tensor, &Tensor) -> Result<Tensor> + Copy + Send + Sync + 'static,
) -> Result<Tensor> {
    let _op = operation(op);
    let y = arithmetic(op, a, b, f)?;
    let kept = (a.is_recorded() || b.is_recorded()).then(|| (a.detach(), b.detach()));
    Ok(y.record(op, [a, b], move |grad, wanted| {
        let (a, b) = kept.as_ref().expect("kept when recorded");
        // The gradient is half where both are equal, 0 where the other element is the result, and
        // whole where either is NaN.
        let tie = a.eq(b)?;
        let share = |own: &Tensor, other: &Tensor| {
            let halved = with_dtype!(grad.dtype(), T => {
                zip_with(op, grad, &tie, 1, |g: T, tie: u8| if tie != 0 { g / (1 as T + 1 as T) } else { g })?
            });
            with_dtype!(grad.dtype(), T => {
                zip_with(op, &halved, &loses(own, other)?, 1, |g: T, loses: u8| if loses != 0 { T::default() } else { g })
            })
        };
        Ok([wanted[0].then(|| share(a, b)).transpose()?, wanted[1].then(|| share(b, a)).transpose()?])
    }))
}

/// Computes `f` of each element and one number, in f32 for an integer tensor and a number that is
/// not whole.
fn scalar_arithmetic(x: &Tensor, value: f64, f: impl Arithmetic) -> Result<Tensor> {
    let whole = value as i64 as f64 == value;
    let x = if x.dtype().is_float() || whole { x.detach() } else { x.cast(DType::F32)? };
    match x.dtype() {
        DType::F64 => map_with(&x, 1, move |x: f64| f.apply(x, value)),
        DType::F32 => map_with(&x, 1, move |x: f32| f.apply(x, value as f32)),
        DType::I64 => map_with(&x, 1, move |x: i64| f.apply(x, value as i64)),
        // The number wraps, as u8 arithmetic does.
        DType::U8 => map_with(&x, 1, move |x: u8| f.apply(x, value as i64 as u8)),
    }
}

/// Implements an operator on tensors, for owned and borrowed operands, and with a number on either
/// side. It panics on shapes that do not broadcast, as `ndarray`'s operators do; the methods return
/// a `Result` instead.
macro_rules! operator {
    ($($trait:ident $method:ident ($x:ident, $value:ident) => $scalar:expr;)*) => {$(
        operator!(@tensors $trait $method, Tensor, Tensor);
        operator!(@tensors $trait $method, Tensor, &Tensor);
        operator!(@tensors $trait $method, &Tensor, Tensor);
        operator!(@tensors $trait $method, &Tensor, &Tensor);
        operator!(@number $trait $method, Tensor, ($x, $value) => $scalar);
        operator!(@number $trait $method, &Tensor, ($x, $value) => $scalar);
        operator!(@number_first $trait $method, Tensor);
        operator!(@number_first $trait $method, &Tensor);
    )*};
    (@tensors $trait:ident $method:ident, $left:ty, $right:ty) => {
        impl ops::$trait<$right> for $left {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: $right) -> Tensor {
                or_panic(Tensor::$method(&self, &other))
            }
        }
    };
    (@number_first $trait:ident $method:ident, $right:ty) => {
        impl ops::$trait<$right> for f64 {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: $right) -> Tensor {
                or_panic(Tensor::$method(&constant(self, &other), &other))
            }
        }
    };
    (@number $trait:ident $method:ident, $left:ty, ($x:ident, $value:ident) => $scalar:expr) => {
        impl ops::$trait<f64> for $left {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, $value: f64) -> Tensor {
                let $x = &self;
                $scalar
            }
        }
    };
}
/// Returns a number as a tensor that does not change the dtype of the other operand, except that a
/// number that is not whole makes integers f32.
#[track_caller]
fn constant(value: f64, other: &Tensor) -> Tensor {
    // Whole numbers wrap in the integers' arithmetic, as in `add_scalar`.
    let whole = value as i64 as f64 == value;
    match other.dtype() {
        dtype if dtype.is_float() => or_panic(Tensor::scalar(value).cast(dtype)),
        dtype if whole => or_panic(Tensor::scalar(value as i64).cast(dtype)),
        _ => or_panic(Tensor::scalar(value).cast(DType::F32)),
    }
}

operator! {
    Add add (x, value) => x.add_scalar(value);
    Sub sub (x, value) => x.sub_scalar(value);
    Mul mul (x, value) => x.mul_scalar(value);
    Div div (x, value) => x.div_scalar(value);
}

impl ops::Neg for Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        Tensor::neg(&self)
    }
}

impl ops::Neg for &Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        Tensor::neg(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryFormat::{ChannelsLast, RowMajor};
    use crate::autograd::{BackwardOptions, gradcheck};

    fn numbers(shape: &[usize]) -> Tensor {
        let count: usize = shape.iter().product();
        Tensor::from_vec((0..count).map(|i| 0.5 + (i * 7919 % 101) as f64 / 101.0).collect(), shape).unwrap()
    }

    #[test]
    fn gradients_of_product_with_repeated_factor_agree_with_differences() {
        let factors: [&[usize]; 8] = [&[2, 3, 1, 1], &[1, 3, 1, 1], &[3, 1, 1], &[2, 1, 4, 5], &[2, 1, 1, 1], &[5], &[1], &[2, 3, 4, 5]];
        for shape in factors {
            for (x_format, factor_format) in
                [(RowMajor, RowMajor), (RowMajor, ChannelsLast), (ChannelsLast, RowMajor), (ChannelsLast, ChannelsLast)]
            {
                let x = numbers(&[2, 3, 4, 5]).to_format(x_format).unwrap();
                let factor = numbers(shape);
                let factor = if factor.ndim() == 4 { factor.to_format(factor_format).unwrap() } else { factor };
                let checked = gradcheck(&[x.clone(), factor.clone()], Default::default(), |x| x[0].mul(&x[1])?.square());
                checked.unwrap_or_else(|error| panic!("{x:?} · {factor:?}: {error}"));
                let checked = gradcheck(&[x.clone(), factor.clone()], Default::default(), |x| x[1].mul(&x[0])?.square());
                checked.unwrap_or_else(|error| panic!("{factor:?} · {x:?}: {error}"));
            }
        }
    }

    #[test]
    fn gradients_of_channel_scaled_map_equal_two_products_and_leave_upstream_unchanged() {
        for channels in [3, 16, 70] {
            let x = Tensor::randn([2, channels, 9, 11]).to_format(ChannelsLast).unwrap();
            let gate = Tensor::randn([2, channels, 1, 1]);
            let start = Tensor::randn([2, channels, 9, 11]).to_format(ChannelsLast).unwrap();
            let before = start.to_vec::<f32>().unwrap();
            let (x_leaf, gate_leaf) = (x.with_grad(), gate.with_grad());
            let y = x_leaf.mul(&gate_leaf).unwrap();
            let gradients = y.backward_with(BackwardOptions { gradient: Some(start.clone()), ..Default::default() }).unwrap();
            assert_eq!(start.to_vec::<f32>().unwrap(), before);
            let of_x = gradients.get(&x_leaf).unwrap();
            assert_eq!(of_x.memory_format(), ChannelsLast);
            assert_eq!(of_x.to_vec::<f32>().unwrap(), start.mul(&gate).unwrap().to_vec::<f32>().unwrap());
            // The sums equal those of the products, added in the same order.
            let expected = start.mul(&x).unwrap().sum_keepdim([2, 3]).unwrap();
            assert_eq!(gradients.get(&gate_leaf).unwrap().to_vec::<f32>().unwrap(), expected.to_vec::<f32>().unwrap());
        }
    }

    #[test]
    fn integers_stay_integers_with_whole_numbers_only() {
        let bytes = Tensor::from_vec(vec![1u8, 255], [2]).unwrap();
        assert_eq!((&bytes - 2.0).to_vec::<u8>().unwrap(), [255, 253]);
        assert_eq!((&bytes * 0.5).to_vec::<f32>().unwrap(), [0.5, 127.5]);
        assert_eq!((&bytes / 255.0).to_vec::<f32>().unwrap(), [1.0 / 255.0, 1.0]);
        assert_eq!((1.0 - &Tensor::arange(3)).to_vec::<i64>().unwrap(), [1, 0, -1]);
        assert_eq!((6.0 / &Tensor::arange(4)).to_vec::<f32>().unwrap(), [f32::INFINITY, 6.0, 3.0, 2.0]);
    }
}
