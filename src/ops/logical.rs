//! Tests of elements, and choices by their results.

use crate::error::Result;
use crate::tensor::{DType, Dims, Tensor};

/// A tensor or a number, for [`Tensor::where_`].
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a> {
    /// A tensor.
    Tensor(&'a Tensor),
    /// A number, which takes the dtype of the other operand where that can hold it exactly or is
    /// floating point; else it is f32.
    Scalar(f64),
}

impl<'a> From<&'a Tensor> for Operand<'a> {
    fn from(tensor: &'a Tensor) -> Operand<'a> {
        Operand::Tensor(tensor)
    }
}

impl From<f64> for Operand<'_> {
    fn from(value: f64) -> Self {
        Operand::Scalar(value)
    }
}

impl Operand<'_> {
    /// Returns the operand as a tensor beside another one.
    pub(super) fn beside(self, other: Operand<'_>) -> Result<Tensor> {
        let value = match self {
            Operand::Tensor(tensor) => return Ok(tensor.clone()),
            Operand::Scalar(value) => value,
        };
        let dtype = match other {
            Operand::Tensor(other) if other.dtype().holds(value) => other.dtype(),
            _ => DType::F32,
        };
        Tensor::try_full([], value, dtype)
    }
}

impl Tensor {
    /// Returns 1 where an element is not a number, else 0, as u8.
    ///
    /// # Shape
    /// Any; the result has the input's shape and memory format.
    ///
    /// # Errors
    /// None so far: a `Result` for uniformity with [`eq`](Tensor::eq).
    pub fn isnan(&self) -> Result<Tensor> {
        self.ne(self)
    }

    /// Returns 1 where an element is neither infinite nor NaN, else 0, as u8.
    ///
    /// # Shape
    /// Any; the result has the input's shape and memory format.
    ///
    /// # Errors
    /// None so far: a `Result` for uniformity with [`eq`](Tensor::eq).
    pub fn isfinite(&self) -> Result<Tensor> {
        self.try_abs()?.lt_scalar(f64::INFINITY)
    }

    /// Returns 1 where any element over dimensions is not 0, else 0, as u8; 0 over no elements.
    ///
    /// # Shape
    /// As [`sum`](Tensor::sum).
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a dimension that does not exist or is named
    /// twice.
    pub fn any(&self, dims: impl Dims) -> Result<Tensor> {
        self.ne_scalar(0.0)?.sum(dims)?.gt_scalar(0.0)
    }

    /// Computes [`any`](Tensor::any) and keeps the dimensions, with size 1.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a dimension that does not exist or is named
    /// twice.
    pub fn any_keepdim(&self, dims: impl Dims) -> Result<Tensor> {
        self.ne_scalar(0.0)?.sum_keepdim(dims)?.gt_scalar(0.0)
    }

    /// Returns 1 where all elements over dimensions are not 0, else 0, as u8; 1 over no elements.
    ///
    /// # Shape
    /// As [`sum`](Tensor::sum).
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a dimension that does not exist or is named
    /// twice.
    pub fn all(&self, dims: impl Dims) -> Result<Tensor> {
        self.eq_scalar(0.0)?.sum(dims)?.eq_scalar(0.0)
    }

    /// Computes [`all`](Tensor::all) and keeps the dimensions, with size 1.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a dimension that does not exist or is named
    /// twice.
    pub fn all_keepdim(&self, dims: impl Dims) -> Result<Tensor> {
        self.eq_scalar(0.0)?.sum_keepdim(dims)?.eq_scalar(0.0)
    }

    /// Replaces the elements where `mask` is not 0 by a value. Integers become f32 for a value that
    /// their type does not hold.
    ///
    /// # Shape
    /// The common shape of both, broadcast as NumPy does.
    ///
    /// # Errors
    /// [`Error::DType`](crate::Error::DType) unless the mask is u8,
    /// [`Error::Shape`](crate::Error::Shape) when the shapes do not broadcast.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let x = Tensor::from_vec(vec![1.0f32, -2.0, 3.0], [3])?;
    /// assert_eq!(x.masked_fill(&x.lt_scalar(0.0)?, 0.0)?.to_vec::<f32>()?, [1.0, 0.0, 3.0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn masked_fill(&self, mask: &Tensor, value: f64) -> Result<Tensor> {
        mask.where_(value, self)
    }

    /// Limits each element to a range given by tensors: at least `min` and then at most `max`, as
    /// [`clamp`](Tensor::clamp) does for numbers.
    ///
    /// # Shape
    /// The common shape of all, broadcast as NumPy does.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when the shapes do not broadcast.
    pub fn clamp_by<'a>(&self, min: impl Into<Option<&'a Tensor>>, max: impl Into<Option<&'a Tensor>>) -> Result<Tensor> {
        let raised = min.into().map_or_else(|| Ok(self.clone()), |min| self.maximum(min))?;
        max.into().map_or_else(|| Ok(raised.clone()), |max| raised.minimum(max))
    }
}
