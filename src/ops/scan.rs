//! Cumulative sums, and products over dimensions.

use num_traits::One;

use crate::error::Result;
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::shape::{outer_axis_inner, resolve_dim, resolve_dims};
use crate::tensor::{DType, Dim, Dims, Element, MemoryFormat, Tensor, with_dtype, with_float};

/// Adds up the elements of each lane of `[outer, n, inner]`, from its start or from its end.
fn add_up<T: Element>([_, size, inner]: [usize; 3], from_end: bool, data: &mut [T]) {
    if inner == 0 {
        return;
    }
    for block in data.chunks_exact_mut((size * inner).max(1)) {
        for step in 1..size {
            let (to, from) = if from_end { (size - 1 - step, size - step) } else { (step, step - 1) };
            for lane in 0..inner {
                block[to * inner + lane] = block[to * inner + lane].plus(block[from * inner + lane]);
            }
        }
    }
}

fn cumulated(x: &Tensor, axis: usize, from_end: bool) -> Result<Tensor> {
    let x = x.to_format(MemoryFormat::RowMajor)?;
    let lanes = outer_axis_inner(x.shape(), MemoryFormat::RowMajor, axis);
    with_dtype!(x.dtype(), T => Tensor::build(x.shape(), MemoryFormat::RowMajor, |y: &mut [T]| {
        y.copy_from_slice(x.data());
        add_up(lanes, from_end, y);
    }))
}

/// Returns the product of each lane, `[outer, 1, inner]`.
fn products<T: Element>([_, size, inner]: [usize; 3], x: &[T], one: T, y: &mut [T]) {
    y.fill(one);
    if inner == 0 {
        return;
    }
    for (block, y) in x.chunks_exact((size * inner).max(1)).zip(y.chunks_exact_mut(inner)) {
        for row in block.chunks_exact(inner) {
            y.iter_mut().zip(row).for_each(|(y, &x)| *y = y.times(x));
        }
    }
}

/// Writes for each element the product of the others in its lane, so that zeros are no exception.
fn products_of_others<T: Element>([_, size, inner]: [usize; 3], x: &[T], one: T, out: &mut [T]) {
    if inner == 0 {
        return;
    }
    for (block, out) in x.chunks_exact((size * inner).max(1)).zip(out.chunks_exact_mut((size * inner).max(1))) {
        for lane in 0..inner {
            let mut before = one;
            for at in (lane..size * inner).step_by(inner) {
                out[at] = before;
                before = before.times(block[at]);
            }
            let mut after = one;
            for at in (lane..size * inner).step_by(inner).rev() {
                out[at] = out[at].times(after);
                after = after.times(block[at]);
            }
        }
    }
}

impl Tensor {
    /// Returns the sums of the elements up to and with each one along a dimension.
    ///
    /// # Shape
    /// The input's; row-major. Bytes are summed as i64.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a dimension that does not exist.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let x = Tensor::from_vec(vec![1.0f32, 2.0, 3.0], [3])?;
    /// assert_eq!(x.cumsum(0)?.to_vec::<f32>()?, [1.0, 3.0, 6.0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn cumsum(&self, dim: impl Dim) -> Result<Tensor> {
        let observed = operation("cumsum");
        let axis = resolve_dim("cumsum", dim, self.ndim())?;
        observed.details(|| Details::new().int("axis", axis));
        if self.ndim() == 0 {
            return self.reshape([1])?.cumsum(0)?.reshape([0; 0]);
        }
        let y = if self.dtype() == DType::U8 { cumulated(&self.cast(DType::I64)?, axis, false)? } else { cumulated(self, axis, false)? };
        Ok(y.record("cumsum", [self], move |grad, _wanted| Ok([Some(cumulated(grad, axis, true)?)])))
    }

    /// Computes the product of the elements over dimensions; 1 over no elements.
    ///
    /// # Shape
    /// As [`sum`](Tensor::sum).
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a dimension that does not exist or is named
    /// twice.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let x = Tensor::from_vec(vec![1.0f32, 2.0, 3.0, 4.0], [2, 2])?;
    /// assert_eq!(x.prod(1)?.to_vec::<f32>()?, [2.0, 12.0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn prod(&self, dims: impl Dims) -> Result<Tensor> {
        let axes = resolve_dims("prod", &dims, self.ndim())?;
        let kept = self.prod_over(&axes)?;
        let shape: Vec<usize> = (0..self.ndim()).filter(|axis| !axes.contains(axis)).map(|axis| self.shape()[axis]).collect();
        kept.reshape(shape)
    }

    /// Computes [`prod`](Tensor::prod) and keeps the dimensions, with size 1.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a dimension that does not exist or is named
    /// twice.
    pub fn prod_keepdim(&self, dims: impl Dims) -> Result<Tensor> {
        self.prod_over(&resolve_dims("prod", &dims, self.ndim())?)
    }

    fn prod_over(&self, axes: &[usize]) -> Result<Tensor> {
        let mut product = if self.dtype() == DType::U8 { self.cast(DType::I64)? } else { self.clone() };
        for &axis in axes {
            product = product.prod_along(axis)?;
        }
        Ok(product)
    }

    fn prod_along(&self, axis: usize) -> Result<Tensor> {
        let observed = operation("prod");
        observed.details(|| Details::new().ints("axes", &[axis]).flag("keepdim", true));
        let x = self.to_format(MemoryFormat::RowMajor)?;
        let lanes = outer_axis_inner(x.shape(), MemoryFormat::RowMajor, axis);
        let mut shape = x.shape().to_vec();
        shape[axis] = 1;
        let y = with_dtype!(x.dtype(), T => {
            Tensor::build(&shape, MemoryFormat::RowMajor, |y: &mut [T]| products(lanes, x.data(), T::one(), y))?
        });
        Ok(y.record("prod", [self], move |grad, _wanted| {
            let others = with_float!(x.dtype(), "prod", T => {
                Tensor::build(x.shape(), MemoryFormat::RowMajor, |out: &mut [T]| products_of_others(lanes, x.data(), 1.0, out))?
            });
            Ok([Some(others.mul(grad)?)])
        }))
    }
}
