//! Writing and adding of elements at indices.

use std::sync::Arc;

use super::index::offsets;
use crate::error::{Error, Result};
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::shape::resolve_dim;
use crate::tensor::{Dim, MemoryFormat, Tensor, with_dtype};

/// Checks the arguments of a scatter; returns the offset in `x`, row-major, of each index.
fn targets(op: &'static str, x: &Tensor, axis: usize, index: &Tensor, src: &Tensor) -> Result<Arc<[usize]>> {
    if x.dtype() != src.dtype() {
        let message = format!("the tensor is {}, what is written {}; convert one with `to_dtype`", x.dtype(), src.dtype());
        return Err(Error::argument(op, message));
    }
    if src.shape() != index.shape() {
        return Err(Error::shape(op, format!("{:?} values do not fit indices of shape {:?}", src.shape(), index.shape())));
    }
    Ok(offsets(op, x.shape(), MemoryFormat::RowMajor, axis, index)?.into())
}

impl Tensor {
    /// Writes elements at indices: along dimension 1 of a matrix, `y[i, index[i, j]] = src[i, j]`,
    /// and `y = self` elsewhere. Of several elements for one place the last in row-major order
    /// counts.
    ///
    /// # Shape
    /// `index`, `i64`, and `src` have one shape, with as many dimensions as the input, and no
    /// larger than the input in dimensions other than `dim`. The result has the input's shape;
    /// row-major.
    ///
    /// # Errors
    /// [`Error::Value`] for an index out of range (negative ones too), [`Error::DType`] unless
    /// indices are `i64`, [`Error::Shape`] for tensors that do not fit, [`Error::Argument`] for a
    /// dimension that does not exist and for values of another dtype.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let labels = Tensor::from_vec(vec![2i64, 0], [2, 1])?;
    /// let y = Tensor::zeros([2, 3]).scatter(1, &labels, &Tensor::ones([2, 1]))?;
    /// assert_eq!(y.to_vec::<f32>()?, [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn scatter(&self, dim: impl Dim, index: &Tensor, src: &Tensor) -> Result<Tensor> {
        let observed = operation("scatter");
        let axis = resolve_dim("scatter", dim, self.ndim())?;
        observed.details(|| Details::new().int("axis", axis).tensor("index", index));
        let at = targets("scatter", self, axis, index, src)?;
        let (x, values) = (self.to_format(MemoryFormat::RowMajor)?, src.to_format(MemoryFormat::RowMajor)?);
        let y = with_dtype!(x.dtype(), T => Tensor::build(x.shape(), MemoryFormat::RowMajor, |y: &mut [T]| {
            y.copy_from_slice(x.data());
            at.iter().zip(values.data::<T>()).for_each(|(&at, &value)| y[at] = value);
        })?);
        let index = index.detach();
        Ok(y.record("scatter", [self, src], move |grad, wanted| {
            let grad = grad.to_format(MemoryFormat::RowMajor)?;
            let rest = || {
                with_dtype!(grad.dtype(), T => Tensor::build(grad.shape(), MemoryFormat::RowMajor, |dx: &mut [T]| {
                    dx.copy_from_slice(grad.data());
                    at.iter().for_each(|&at| dx[at] = T::default());
                }))
            };
            Ok([wanted[0].then(rest).transpose()?, wanted[1].then(|| grad.gather(axis, &index)).transpose()?])
        }))
    }

    /// Adds elements at indices: along dimension 1 of a matrix, `y[i, index[i, j]] += src[i, j]`,
    /// beginning with `y = self`. Sums are in row-major order.
    ///
    /// # Shape
    /// As [`scatter`](Tensor::scatter).
    ///
    /// # Errors
    /// [`Error::Value`] for an index out of range (negative ones too), [`Error::DType`] unless
    /// indices are `i64`, [`Error::Shape`] for tensors that do not fit, [`Error::Argument`] for a
    /// dimension that does not exist and for values of another dtype.
    pub fn scatter_add(&self, dim: impl Dim, index: &Tensor, src: &Tensor) -> Result<Tensor> {
        let observed = operation("scatter_add");
        let axis = resolve_dim("scatter_add", dim, self.ndim())?;
        observed.details(|| Details::new().int("axis", axis).tensor("index", index));
        let at = targets("scatter_add", self, axis, index, src)?;
        let (x, values) = (self.to_format(MemoryFormat::RowMajor)?, src.to_format(MemoryFormat::RowMajor)?);
        let y = with_dtype!(x.dtype(), T => Tensor::build(x.shape(), MemoryFormat::RowMajor, |y: &mut [T]| {
            use crate::kernels::runtime::simd::Scalar as _;
            y.copy_from_slice(x.data());
            at.iter().zip(values.data::<T>()).for_each(|(&at, &value)| y[at] = y[at].plus(value));
        })?);
        let index = index.detach();
        Ok(y.record("scatter_add", [self, src], move |grad, wanted| {
            Ok([wanted[0].then(|| grad.clone()), wanted[1].then(|| grad.gather(axis, &index)).transpose()?])
        }))
    }

    /// Adds slices of a dimension at the places that `index` names: `y[index[i]] += src[i]` along
    /// dimension 0.
    ///
    /// # Shape
    /// `index` is `[M]`, `i64`; `src` has the input's shape with size `M` in that dimension. The
    /// result has the input's shape; row-major.
    ///
    /// # Errors
    /// [`Error::Value`] for an index out of range (negative ones too), [`Error::DType`] unless
    /// indices are `i64`, [`Error::Shape`] for tensors that do not fit, [`Error::Argument`] for a
    /// dimension that does not exist and for values of another dtype.
    pub fn index_add(&self, dim: impl Dim, index: &Tensor, src: &Tensor) -> Result<Tensor> {
        let axis = resolve_dim("index_add", dim, self.ndim())?;
        let mut wanted = self.shape().to_vec();
        if index.ndim() != 1 || self.ndim() == 0 {
            let message = format!("expected indices [M] and a tensor with dimensions, got {:?} and {:?}", index.shape(), self.shape());
            return Err(Error::shape("index_add", message));
        }
        wanted[axis] = index.shape()[0];
        if src.shape() != wanted {
            return Err(Error::shape("index_add", format!("expected values {wanted:?}, got {:?}", src.shape())));
        }
        let mut along = vec![1; self.ndim()];
        along[axis] = wanted[axis];
        self.scatter_add(axis, &index.reshape(along)?.expand(wanted)?, src)
    }
}
