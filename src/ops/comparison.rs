//! Comparisons, and selection by their results.

use std::cmp::Ordering;

use super::logical::Operand;
use crate::error::{Error, Result};
use crate::kernels::elementwise::select;
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::compute::{map_with, promote, zip_with};
use crate::tensor::shape::broadcast_shapes;
use crate::tensor::{DType, MemoryFormat, Tensor, with_dtype};

/// Returns 1 where `holds`, which gets `None` when either element is NaN.
fn compare(op: &'static str, a: &Tensor, b: &Tensor, holds: impl Fn(Option<Ordering>) -> bool + Copy + Sync) -> Result<Tensor> {
    let observed = operation(op);
    let dtype = promote(a, b);
    let (left, right) = (a.cast(dtype)?, b.cast(dtype)?);
    let y = with_dtype!(dtype, T => zip_with(op, &left, &right, 1, |a: T, b: T| u8::from(holds(a.partial_cmp(&b))))?);
    observed.result(&[a, b], &[&y]);
    Ok(y)
}

/// Compares with one number, rounded to the dtype of a floating-point tensor; otherwise like
/// [`compare`].
fn compare_scalar(op: &'static str, a: &Tensor, value: f64, holds: impl Fn(Option<Ordering>) -> bool + Copy + Sync) -> Result<Tensor> {
    let observed = operation(op);
    observed.details(|| Details::new().float("value", value));
    let y = match a.dtype() {
        DType::F32 => map_with(a, 1, |a: f32| u8::from(holds(a.partial_cmp(&(value as f32)))))?,
        DType::F64 => map_with(a, 1, |a: f64| u8::from(holds(a.partial_cmp(&value))))?,
        DType::I64 => map_with(a, 1, |a: i64| u8::from(holds((a as f64).partial_cmp(&value))))?,
        DType::U8 => map_with(a, 1, |a: u8| u8::from(holds(f64::from(a).partial_cmp(&value))))?,
    };
    observed.result(&[a], &[&y]);
    Ok(y)
}

#[inline(always)]
fn equal(order: Option<Ordering>) -> bool {
    order == Some(Ordering::Equal)
}

#[inline(always)]
fn greater(order: Option<Ordering>) -> bool {
    order == Some(Ordering::Greater)
}

#[inline(always)]
fn less(order: Option<Ordering>) -> bool {
    order == Some(Ordering::Less)
}

impl Tensor {
    /// Returns 1 where `self = other`, else 0, as u8. NaN differs from everything.
    ///
    /// # Shape
    /// The common shape of both, broadcast as NumPy does; dtypes promote first:
    /// `u8 < i64 < f32 < f64`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when the shapes do not broadcast.
    #[allow(clippy::should_implement_trait)] // PyTorch's name; equality of tensors is not one truth value
    pub fn eq(&self, other: &Tensor) -> Result<Tensor> {
        compare("eq", self, other, equal)
    }

    /// Returns 1 where `self = value`, else 0, as u8.
    ///
    /// # Shape
    /// Any; the result has the input's shape and memory format.
    ///
    /// # Errors
    /// None so far: a `Result` for uniformity with [`eq`](Tensor::eq).
    pub fn eq_scalar(&self, value: f64) -> Result<Tensor> {
        compare_scalar("eq_scalar", self, value, equal)
    }

    /// Returns 1 where `self ≠ other`, else 0, as u8. NaN differs from everything.
    ///
    /// # Shape
    /// As [`eq`](Tensor::eq).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when the shapes do not broadcast.
    pub fn ne(&self, other: &Tensor) -> Result<Tensor> {
        compare("ne", self, other, |order| !equal(order))
    }

    /// Returns 1 where `self ≠ value`, else 0, as u8.
    ///
    /// # Shape
    /// Any; the result has the input's shape and memory format.
    ///
    /// # Errors
    /// None so far: a `Result` for uniformity with [`ne`](Tensor::ne).
    pub fn ne_scalar(&self, value: f64) -> Result<Tensor> {
        compare_scalar("ne_scalar", self, value, |order| !equal(order))
    }

    /// Returns 1 where `self > other`, else 0, as u8. The result is 0 for NaN.
    ///
    /// # Shape
    /// As [`eq`](Tensor::eq).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when the shapes do not broadcast.
    pub fn gt(&self, other: &Tensor) -> Result<Tensor> {
        compare("gt", self, other, greater)
    }

    /// Returns 1 where `self > value`, else 0, as u8.
    ///
    /// # Shape
    /// Any; the result has the input's shape and memory format.
    ///
    /// # Errors
    /// None so far: a `Result` for uniformity with [`gt`](Tensor::gt).
    pub fn gt_scalar(&self, value: f64) -> Result<Tensor> {
        compare_scalar("gt_scalar", self, value, greater)
    }

    /// Returns 1 where `self ≥ other`, else 0, as u8. The result is 0 for NaN.
    ///
    /// # Shape
    /// As [`eq`](Tensor::eq).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when the shapes do not broadcast.
    pub fn ge(&self, other: &Tensor) -> Result<Tensor> {
        compare("ge", self, other, |order| greater(order) || equal(order))
    }

    /// Returns 1 where `self ≥ value`, else 0, as u8.
    ///
    /// # Shape
    /// Any; the result has the input's shape and memory format.
    ///
    /// # Errors
    /// None so far: a `Result` for uniformity with [`ge`](Tensor::ge).
    pub fn ge_scalar(&self, value: f64) -> Result<Tensor> {
        compare_scalar("ge_scalar", self, value, |order| greater(order) || equal(order))
    }

    /// Returns 1 where `self < other`, else 0, as u8. The result is 0 for NaN.
    ///
    /// # Shape
    /// As [`eq`](Tensor::eq).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when the shapes do not broadcast.
    pub fn lt(&self, other: &Tensor) -> Result<Tensor> {
        compare("lt", self, other, less)
    }

    /// Returns 1 where `self < value`, else 0, as u8.
    ///
    /// # Shape
    /// Any; the result has the input's shape and memory format.
    ///
    /// # Errors
    /// None so far: a `Result` for uniformity with [`lt`](Tensor::lt).
    pub fn lt_scalar(&self, value: f64) -> Result<Tensor> {
        compare_scalar("lt_scalar", self, value, less)
    }

    /// Returns 1 where `self ≤ other`, else 0, as u8. The result is 0 for NaN.
    ///
    /// # Shape
    /// As [`eq`](Tensor::eq).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when the shapes do not broadcast.
    pub fn le(&self, other: &Tensor) -> Result<Tensor> {
        compare("le", self, other, |order| less(order) || equal(order))
    }

    /// Returns 1 where `self ≤ value`, else 0, as u8.
    ///
    /// # Shape
    /// Any; the result has the input's shape and memory format.
    ///
    /// # Errors
    /// None so far: a `Result` for uniformity with [`le`](Tensor::le).
    pub fn le_scalar(&self, value: f64) -> Result<Tensor> {
        compare_scalar("le_scalar", self, value, |order| less(order) || equal(order))
    }
}

impl Tensor {
    /// Returns the elements of `a` where `self` is not 0, else those of `b` (`torch.where`); all
    /// three broadcast together.
    ///
    /// # Shape
    /// The common shape; channels-last when a 4-D operand of that shape is. The dtype is what `a`
    /// and `b` promote to.
    ///
    /// # Errors
    /// [`Error::DType`] unless `self` is u8, [`Error::Shape`] when the shapes do not broadcast.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let x = Tensor::from_vec(vec![-1.0f32, 2.0], [2])?;
    /// let y = x.gt_scalar(0.0)?.where_(&x, &Tensor::zeros([1]))?;
    /// assert_eq!(y.to_vec::<f32>()?, [0.0, 2.0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn where_<'a>(&self, a: impl Into<Operand<'a>>, b: impl Into<Operand<'a>>) -> Result<Tensor> {
        let (a, b) = (a.into(), b.into());
        self.choose(&a.beside(b)?, &b.beside(a)?)
    }

    fn choose(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let observed = operation("where_");
        observed.details(|| Details::new().tensor("condition", self));
        if self.dtype() != DType::U8 {
            let expected = "a condition of u8, as comparisons such as `gt` return";
            return Err(Error::DType { op: "where_", expected, got: self.dtype() });
        }
        let shape = broadcast_shapes("where_", &broadcast_shapes("where_", self.shape(), a.shape())?, b.shape())?;
        let (dtype, condition) = (promote(a, b), self.detach());
        let asks = |t: &&Tensor| t.memory_format() == MemoryFormat::ChannelsLast && t.shape() == shape;
        let format = if [self, a, b].iter().any(asks) { MemoryFormat::ChannelsLast } else { MemoryFormat::RowMajor };
        let aligned = |t: Tensor| t.expand(&shape)?.to_format(format);
        let (c, left, right) = (aligned(condition.clone())?, aligned(a.cast(dtype)?)?, aligned(b.cast(dtype)?)?);
        let y = with_dtype!(dtype, T => Tensor::build(&shape, format, |y: &mut [T]| select(c.data(), left.data(), right.data(), y))?);
        Ok(y.record("where_", [a, b], move |grad, wanted| {
            let part = |chosen: bool| {
                with_dtype!(grad.dtype(), T => {
                    zip_with("where_", grad, &condition, 1, |g: T, c: u8| if (c != 0) == chosen { g } else { T::default() })
                })
            };
            Ok([wanted[0].then(|| part(true)).transpose()?, wanted[1].then(|| part(false)).transpose()?])
        }))
    }
}
