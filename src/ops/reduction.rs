//! Reductions over one dimension, several, or all.

use crate::error::Result;
use crate::kernels::simd::Scalar;
use crate::tensor::compute::reduce_with;
use crate::tensor::shape::{numel, resolve_dims};
use crate::tensor::{Dims, MemoryFormat, Tensor, with_dtype};

/// A reduced tensor, whose reduced dimensions have size 1, without these dimensions.
fn drop_dims(kept: Tensor, axes: &[usize]) -> Tensor {
    let shape: Vec<usize> = kept.shape().iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, &n)| n).collect();
    kept.in_format(MemoryFormat::RowMajor).relabel(&shape, MemoryFormat::RowMajor)
}

impl Tensor {
    fn sum_over(&self, axes: Vec<usize>, keepdim: bool) -> Tensor {
        let kept = with_dtype!(self.dtype(), T => reduce_with(self, &axes, T::default(), T::plus, T::plus));
        let kept_shape = kept.shape().to_vec();
        let y = if keepdim { kept } else { drop_dims(kept, &axes) };
        let x = self.shape().to_vec();
        y.record("sum", [self], move |grad, _wanted| Ok([Some(grad.reshape(kept_shape.as_slice())?.expand(&x)?)]))
    }

    /// The sum over dimensions.
    ///
    /// # Shape
    /// The input's without the dimensions; row-major.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a dimension that does not exist or is named twice.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let x = Tensor::ones([2, 3, 4]);
    /// assert!(x.sum([0, -1])?.shape() == [3]);
    /// assert_eq!(x.sum(..)?.item::<f32>()?, 24.0);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn sum(&self, dims: impl Dims) -> Result<Tensor> {
        Ok(self.sum_over(resolve_dims("sum", &dims, self.ndim())?, false))
    }

    /// As [`sum`](Tensor::sum), but the dimensions stay, with size 1.
    ///
    /// # Errors
    /// As [`sum`](Tensor::sum).
    pub fn sum_keepdim(&self, dims: impl Dims) -> Result<Tensor> {
        Ok(self.sum_over(resolve_dims("sum", &dims, self.ndim())?, true))
    }

    fn mean_over(&self, axes: Vec<usize>, keepdim: bool) -> Result<Tensor> {
        self.expect_float("mean")?;
        let count = numel(&axes.iter().map(|&axis| self.shape()[axis]).collect::<Vec<_>>());
        Ok(self.sum_over(axes, keepdim).mul_scalar(1.0 / count as f64))
    }

    /// The mean over dimensions; NaN over none.
    ///
    /// # Shape
    /// As [`sum`](Tensor::sum).
    ///
    /// # Errors
    /// As [`sum`](Tensor::sum), and [`Error::DType`](crate::Error::DType) unless the tensor is floating point.
    pub fn mean(&self, dims: impl Dims) -> Result<Tensor> {
        self.mean_over(resolve_dims("mean", &dims, self.ndim())?, false)
    }

    /// As [`mean`](Tensor::mean), but the dimensions stay, with size 1.
    ///
    /// # Errors
    /// As [`mean`](Tensor::mean).
    pub fn mean_keepdim(&self, dims: impl Dims) -> Result<Tensor> {
        self.mean_over(resolve_dims("mean", &dims, self.ndim())?, true)
    }
}
