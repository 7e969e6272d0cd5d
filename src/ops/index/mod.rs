//! Selection of elements by index.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::kernels::copy;
use crate::kernels::runtime::allocator;
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::meta::InputExtent;
use crate::tensor::shape::{Index, outer_axis_inner, resolve_dim, strides, try_numel};
use crate::tensor::{DType, Dim, MemoryFormat, Tensor, with_dtype};

/// Returns indices as positions within a dimension of `size`; negative indices are errors, as in
/// PyTorch.
fn positions(op: &'static str, index: &Tensor, axis: usize, size: usize) -> Result<Vec<usize>> {
    index.expect_dtype(op, DType::I64)?;
    let index = index.to_format(MemoryFormat::RowMajor)?;
    let position = |(at, &index): (usize, &i64)| {
        usize::try_from(index)
            .ok()
            .filter(|&index| index < size)
            .ok_or_else(|| Error::value(op, format!("index {index} (element {at}) is out of range for dimension {axis} of size {size}")))
    };
    let too_many = || Error::argument(op, format!("{} indices are more than memory can hold", index.numel()));
    let mut found = allocator::list(index.numel(), size_of::<usize>()).ok_or_else(too_many)?;
    for entry in index.data::<i64>().iter().enumerate() {
        found.push(position(entry)?);
    }
    Ok(found)
}

/// Returns the offset in memory, in a tensor of this shape and format, of the element that each
/// index names along `axis`.
pub(super) fn offsets(op: &'static str, x: &[usize], format: MemoryFormat, axis: usize, index: &Tensor) -> Result<Vec<usize>> {
    let fits = |(at, (x, index)): (usize, (&usize, &usize))| at == axis || index <= x;
    if index.ndim() != x.len() || x.is_empty() || !x.iter().zip(index.shape()).enumerate().all(fits) {
        let message = format!("indices of shape {:?} do not fit a tensor of shape {x:?} outside dimension {axis}", index.shape());
        return Err(Error::shape(op, message));
    }
    let mut at = positions(op, index, axis, x[axis])?;
    if at.is_empty() {
        return Ok(at);
    }
    let steps = strides(x, format);
    let mut counter = vec![0; x.len()];
    for at in &mut at {
        let elsewhere: usize = counter.iter().zip(&steps).enumerate().map(|(d, (i, step))| if d == axis { 0 } else { i * step }).sum();
        *at = *at * steps[axis] + elsewhere;
        for (i, &size) in counter.iter_mut().zip(index.shape()).rev() {
            *i += 1;
            if *i < size {
                break;
            }
            *i = 0;
        }
    }
    Ok(at)
}

impl Tensor {
    /// Selects the slices of a dimension that `index` names, in its order.
    ///
    /// # Shape
    /// The input's shape with the length of `index`, an `i64` tensor `[M]` or `[]`, in that
    /// dimension; the input's memory format. A tensor without dimensions takes one index, and the
    /// result has no dimensions either.
    ///
    /// # Errors
    /// [`Error::Value`] for an index out of range (negative ones too), [`Error::DType`] unless
    /// indices are `i64`, [`Error::Shape`] for indices of more than one dimension,
    /// [`Error::Argument`] for a dimension that does not exist.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let x = Tensor::from_vec(vec![10i64, 20, 30], [3])?;
    /// let index = Tensor::from_vec(vec![2i64, 0, 2], [3])?;
    /// assert_eq!(x.index_select(0, &index)?.to_vec::<i64>()?, [30, 10, 30]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn index_select(&self, dim: impl Dim, index: &Tensor) -> Result<Tensor> {
        self.select_along(Index(dim.index()), index)
    }

    fn select_along(&self, dim: Index, index: &Tensor) -> Result<Tensor> {
        let observed = operation("index_select");
        let axis = resolve_dim("index_select", dim, self.ndim())?;
        observed.details(|| Details::new().int("axis", axis).tensor("index", index));
        if index.ndim() > 1 {
            return Err(Error::shape("index_select", format!("expected indices [M], got shape {:?}", index.shape())));
        }
        if self.ndim() == 0 {
            if index.numel() != 1 {
                let message = format!("a tensor without dimensions takes one index, got shape {:?}", index.shape());
                return Err(Error::shape("index_select", message));
            }
            return self.reshape([1])?.index_select(axis, index)?.reshape(self.shape());
        }
        let at = positions("index_select", index, axis, self.shape()[axis])?;
        let mut shape = self.shape().to_vec();
        shape[axis] = at.len();
        try_numel(&shape).ok_or_else(|| Error::shape("index_select", format!("a result of shape {shape:?} exceeds memory")))?;
        let [_, size, inner] = outer_axis_inner(self.shape(), self.memory_format(), axis);
        let y = with_dtype!(self.dtype(), T => Tensor::build(&shape, self.memory_format(), |y: &mut [T]| {
            copy::select([size, inner], &at, self.data(), y);
        })?);
        let x = self.shape().to_vec();
        Ok(y.record_window(
            "index_select",
            [self],
            |y| [InputExtent::along(y, axis)],
            move |grad, _wanted| {
                let [_, size, inner] = outer_axis_inner(&x, grad.memory_format(), axis);
                Ok([Some(with_dtype!(grad.dtype(), T => Tensor::build(&x, grad.memory_format(), |dx: &mut [T]| {
                copy::fill(dx, T::default());
                copy::select_add([size, inner], &at, grad.data(), dx);
            })?))])
            },
        ))
    }

    /// Selects one element for each index: along dimension 1 of a matrix,
    /// `y[i, j] = x[i, index[i, j]]`.
    ///
    /// # Shape
    /// `index` is an `i64` tensor with as many dimensions as the input, and no larger than the
    /// input in dimensions other than `dim`. A tensor or an index without dimensions counts as a
    /// vector of one element. The result has the shape of `index`; row-major.
    ///
    /// # Errors
    /// [`Error::Value`] for an index out of range (negative ones too), [`Error::DType`] unless
    /// indices are `i64`, [`Error::Shape`] for indices that do not fit, [`Error::Argument`] for a
    /// dimension that does not exist.
    pub fn gather(&self, dim: impl Dim, index: &Tensor) -> Result<Tensor> {
        let observed = operation("gather");
        let axis = resolve_dim("gather", dim, self.ndim())?;
        observed.details(|| Details::new().int("axis", axis).tensor("index", index));
        if self.ndim().min(index.ndim()) == 0 && self.ndim().max(index.ndim()) <= 1 {
            // A tensor or an index without dimensions counts as a vector of one element.
            return self.reshape([-1])?.gather(axis, &index.reshape([-1])?)?.reshape(index.shape());
        }
        let at = offsets("gather", self.shape(), self.memory_format(), axis, index)?;
        let at: Arc<[usize]> = at.into();
        let y = with_dtype!(self.dtype(), T => Tensor::build(index.shape(), MemoryFormat::RowMajor, |y: &mut [T]| {
            copy::select([self.numel(), 1], &at, self.data(), y);
        })?);
        let (x, format) = (self.shape().to_vec(), self.memory_format());
        Ok(y.record("gather", [self], move |grad, _wanted| {
            let grad = grad.to_format(MemoryFormat::RowMajor)?;
            Ok([Some(with_dtype!(grad.dtype(), T => Tensor::build(&x, format, |dx: &mut [T]| {
                copy::fill(dx, T::default());
                let size = dx.len();
                copy::select_add([size, 1], &at, grad.data(), dx);
            })?))])
        }))
    }
}

#[cfg(test)]
mod tests;
