//! Sorting, and the greatest elements with their positions.

use std::cmp::Ordering;

use crate::error::{Error, Result};
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::shape::{outer_axis_inner, resolve_dim};
use crate::tensor::{Dim, Element, MemoryFormat, Tensor, with_dtype};

/// Compares with NaN as the greatest value, as PyTorch does.
fn nan_last<T: PartialOrd>(a: &T, b: &T) -> Ordering {
    let is_nan = |x: &T| x.partial_cmp(x).is_none();
    a.partial_cmp(b).unwrap_or_else(|| is_nan(a).cmp(&is_nan(b)))
}

/// Returns the positions in sorted order, lane by lane of `[outer, n, inner]`. Equal elements keep
/// their order.
fn sorted_positions<T: Element>(data: &[T], [_, size, inner]: [usize; 3], descending: bool, out: &mut [i64]) {
    // Made as long as a lane where there is one: a tensor without elements may have any size here.
    let mut order: Vec<usize> = Vec::new();
    for (data, out) in data.chunks_exact((size * inner).max(1)).zip(out.chunks_exact_mut((size * inner).max(1))) {
        for lane in 0..inner {
            order.clear();
            order.extend(0..size);
            let compare = |&a: &usize, &b: &usize| nan_last(&data[a * inner + lane], &data[b * inner + lane]);
            if descending {
                order.sort_by(|a, b| compare(b, a));
            } else {
                order.sort_by(compare);
            }
            for (place, &from) in order.iter().enumerate() {
                out[place * inner + lane] = from as i64;
            }
        }
    }
}

impl Tensor {
    /// Returns the positions along a dimension that bring its elements into order; equal elements
    /// keep theirs, and NaN counts as greater than any number.
    ///
    /// # Shape
    /// The input's; i64, row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let x = Tensor::from_vec(vec![3.0f32, 1.0, 2.0], [3])?;
    /// assert_eq!(x.argsort(0, false)?.to_vec::<i64>()?, [1, 2, 0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn argsort(&self, dim: impl Dim, descending: bool) -> Result<Tensor> {
        let observed = operation("argsort");
        let axis = resolve_dim("argsort", dim, self.ndim())?;
        observed.details(|| Details::new().int("axis", axis).flag("descending", descending));
        if self.ndim() == 0 {
            return Ok(Tensor::scalar(0i64));
        }
        let x = self.to_format(MemoryFormat::RowMajor)?;
        let lanes = outer_axis_inner(x.shape(), MemoryFormat::RowMajor, axis);
        let positions = Tensor::build(x.shape(), MemoryFormat::RowMajor, |out: &mut [i64]| {
            with_dtype!(x.dtype(), T => sorted_positions(x.data::<T>(), lanes, descending, out));
        })?;
        observed.result(&[self], &[&positions]);
        Ok(positions)
    }

    /// Sorts along a dimension; returns the values and their positions, as
    /// [`argsort`](Tensor::argsort) has them. Gradients go to where the values came from.
    ///
    /// # Shape
    /// The input's, both; row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist.
    pub fn sort(&self, dim: impl Dim, descending: bool) -> Result<(Tensor, Tensor)> {
        let axis = resolve_dim("sort", dim, self.ndim())?;
        let positions = self.argsort(axis, descending)?;
        Ok((self.gather(axis, &positions)?, positions))
    }

    /// Returns the `k` greatest elements along a dimension, the greatest first, and their
    /// positions.
    ///
    /// # Shape
    /// The input's with size `k` in that dimension, both; row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist, or with fewer than `k` elements.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let logits = Tensor::from_vec(vec![0.1f32, 0.7, 0.2], [1, 3])?;
    /// let (values, classes) = logits.topk(2, 1)?;
    /// assert_eq!((values.to_vec::<f32>()?, classes.to_vec::<i64>()?), (vec![0.7, 0.2], vec![1, 2]));
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn topk(&self, k: usize, dim: impl Dim) -> Result<(Tensor, Tensor)> {
        self.topk_with(k, dim, true)
    }

    /// Computes [`topk`](Tensor::topk), or with `largest` false the `k` smallest elements in
    /// ascending order.
    ///
    /// # Shape
    /// The input's with size `k` in that dimension, both; row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist, or with fewer than `k` elements.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let (nearest, places) = Tensor::from_vec(vec![0.5f32, 0.1, 0.3], [3])?.topk_with(2, 0, false)?;
    /// assert_eq!((nearest.to_vec::<f32>()?, places.to_vec::<i64>()?), (vec![0.1, 0.3], vec![1, 2]));
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn topk_with(&self, k: usize, dim: impl Dim, largest: bool) -> Result<(Tensor, Tensor)> {
        let axis = resolve_dim("topk", dim, self.ndim())?;
        let size = self.shape().get(axis).copied().unwrap_or(1);
        if k > size {
            return Err(Error::argument(
                "topk",
                format!("dimension {axis} of shape {:?} has {size} elements, fewer than {k}", self.shape()),
            ));
        }
        if self.ndim() == 0 {
            return Ok((self.clone(), Tensor::scalar(0i64)));
        }
        let positions = self.argsort(axis, largest)?.narrow(axis, 0, k)?;
        Ok((self.gather(axis, &positions)?, positions))
    }

    /// Returns the greatest element along a dimension and its position (`torch.max(x, dim)`); of
    /// equal elements, the first.
    ///
    /// # Shape
    /// The input's without the dimension, both; row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist, [`Error::Shape`] when it has size
    /// 0.
    pub fn max_with_index(&self, dim: impl Dim) -> Result<(Tensor, Tensor)> {
        let axis = resolve_dim("max_with_index", dim, self.ndim())?;
        self.taken_along(axis, self.argmax_keepdim(axis)?)
    }

    /// Returns the least element along a dimension and its position (`torch.min(x, dim)`); of equal
    /// elements, the first.
    ///
    /// # Shape
    /// The input's without the dimension, both; row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist, [`Error::Shape`] when it has size
    /// 0.
    pub fn min_with_index(&self, dim: impl Dim) -> Result<(Tensor, Tensor)> {
        let axis = resolve_dim("min_with_index", dim, self.ndim())?;
        self.taken_along(axis, self.argmin_keepdim(axis)?)
    }

    fn taken_along(&self, axis: usize, positions: Tensor) -> Result<(Tensor, Tensor)> {
        Ok((self.gather(axis, &positions)?.squeeze(axis)?, positions.squeeze(axis)?))
    }
}
