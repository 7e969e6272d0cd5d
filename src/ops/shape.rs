//! Operations that move elements or only name them anew.

use crate::error::{Error, Result};
use crate::kernels::elementwise::zip_broadcast;
use crate::kernels::layout;
use crate::tensor::shape::{broadcast, broadcast_shapes, numel, resolve_dim, try_numel};
use crate::tensor::{Dim, MemoryFormat, ReshapeDims, Tensor, with_dtype};

impl Tensor {
    /// The same elements, in row-major order, under another shape; one size may be -1, to be worked out from the others.
    ///
    /// # Shape
    /// As asked; row-major. Elements are shared where the memory format allows, copied otherwise.
    ///
    /// # Errors
    /// [`Error::Shape`] when the numbers of elements differ.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// assert!(Tensor::zeros([2, 3, 4]).reshape([2, -1])?.shape() == [2, 12]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn reshape(&self, shape: impl ReshapeDims) -> Result<Tensor> {
        let shape = resolve_shape(self.shape(), &shape.sizes())?;
        let y = self.in_format(MemoryFormat::RowMajor).relabel(&shape, MemoryFormat::RowMajor);
        let x = self.shape().to_vec();
        Ok(y.record("reshape", [self], move |grad, _wanted| Ok([Some(grad.reshape(x.as_slice())?)])))
    }

    /// The dimensions `start` to `end`, both included, made one.
    ///
    /// # Shape
    /// `[N, C, H, W]` becomes `[N, C·H·W]` with `flatten(1, -1)`; row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] when a dimension does not exist or `end` comes before `start`.
    pub fn flatten(&self, start: impl Dim, end: impl Dim) -> Result<Tensor> {
        if self.ndim() == 0 {
            return self.reshape([1]);
        }
        let (start, end) = (resolve_dim("flatten", start, self.ndim())?, resolve_dim("flatten", end, self.ndim())?);
        if start > end {
            return Err(Error::argument("flatten", format!("dimension {start} comes after dimension {end}")));
        }
        let mut shape = self.shape().to_vec();
        let merged = try_numel(&shape[start..=end]).ok_or_else(|| {
            Error::shape("flatten", format!("dimensions {start} to {end} of shape {:?} are more than memory can hold", self.shape()))
        })?;
        shape.splice(start..=end, [merged]);
        self.reshape(shape)
    }

    /// Without a dimension of size 1; a dimension of another size stays.
    ///
    /// # Shape
    /// The input's without the dimension, row-major; the input itself when nothing changes.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist.
    pub fn squeeze(&self, dim: impl Dim) -> Result<Tensor> {
        let axis = resolve_dim("squeeze", dim, self.ndim())?;
        if self.shape()[axis] != 1 {
            return Ok(self.clone());
        }
        let mut shape = self.shape().to_vec();
        shape.remove(axis);
        self.reshape(shape)
    }

    /// With a dimension of size 1 inserted at `dim`; -1 appends one.
    ///
    /// # Shape
    /// The input's with a 1 more; row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension beyond the new ones.
    pub fn unsqueeze(&self, dim: impl Dim) -> Result<Tensor> {
        let axis = resolve_dim("unsqueeze", dim, self.ndim() + 1)?;
        let mut shape = self.shape().to_vec();
        shape.insert(axis, 1);
        self.reshape(shape)
    }

    /// The dimensions in another order: dimension `i` of the result is dimension `dims[i]` of the input.
    ///
    /// # Shape
    /// The input's in that order; row-major. Elements are shared where that is their order in memory.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `dims` names each dimension once.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// assert!(Tensor::zeros([2, 3, 4]).permute([2, 0, 1])?.shape() == [4, 2, 3]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn permute(&self, dims: impl AsRef<[usize]>) -> Result<Tensor> {
        let dims = dims.as_ref().to_vec();
        let mut sorted = dims.clone();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..self.ndim()) {
            return Err(Error::argument("permute", format!("{dims:?} does not name each dimension of shape {:?} once", self.shape())));
        }
        let mut inverse = vec![0; dims.len()];
        dims.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
        Ok(permuted(self, &dims)?.record("permute", [self], move |grad, _wanted| Ok([Some(permuted(grad, &inverse)?)])))
    }

    /// Two dimensions exchanged.
    ///
    /// # Shape
    /// The input's with both sizes exchanged; row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist.
    pub fn transpose(&self, first: impl Dim, second: impl Dim) -> Result<Tensor> {
        let (first, second) = (resolve_dim("transpose", first, self.ndim())?, resolve_dim("transpose", second, self.ndim())?);
        let mut dims: Vec<usize> = (0..self.ndim()).collect();
        dims.swap(first, second);
        self.permute(dims)
    }

    /// The same values in row-major order: [`to_memory_format`](Tensor::to_memory_format) with [`MemoryFormat::RowMajor`].
    ///
    /// # Shape
    /// The input's; row-major.
    ///
    /// # Errors
    /// None; a `Result` as its siblings return.
    pub fn contiguous(&self) -> Result<Tensor> {
        self.to_memory_format(MemoryFormat::RowMajor)
    }

    /// The same values in a memory format.
    ///
    /// # Shape
    /// The input's; in that format. Elements are shared where they already lie so.
    ///
    /// # Errors
    /// [`Error::Shape`] when a tensor that is not 4-D is to be channels-last.
    pub fn to_memory_format(&self, format: MemoryFormat) -> Result<Tensor> {
        if format == MemoryFormat::ChannelsLast && self.ndim() != 4 {
            return Err(Error::shape("to_memory_format", format!("channels-last is for 4-D tensors, got shape {:?}", self.shape())));
        }
        Ok(self.in_format(format).record("to_memory_format", [self], |grad, _wanted| Ok([Some(grad.clone())])))
    }

    /// Repeats dimensions of size 1, and adds dimensions in front, until the tensor has this shape.
    ///
    /// # Shape
    /// As asked; the input's memory format when both are 4-D, else row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] when the tensor does not broadcast to it, or it is more than memory can hold.
    pub fn expand(&self, shape: impl AsRef<[usize]>) -> Result<Tensor> {
        let shape = shape.as_ref();
        if !broadcast_shapes("expand", self.shape(), shape).is_ok_and(|common| common == shape) {
            return Err(Error::shape("expand", format!("shape {:?} does not broadcast to {shape:?}", self.shape())));
        }
        if try_numel(shape).is_none() {
            return Err(Error::shape("expand", format!("shape {shape:?} has more elements than memory can hold")));
        }
        if shape == self.shape() {
            return Ok(self.clone());
        }
        let format = if self.ndim() == 4 && shape.len() == 4 { self.memory_format() } else { MemoryFormat::RowMajor };
        let own = (self.shape(), self.memory_format());
        let y = with_dtype!(self.dtype(), T => Tensor::build(shape, format, |y: &mut [T]| {
            if !y.is_empty() {
                zip_broadcast(&broadcast(shape, format, [own, own]), self.data(), self.data(), y, 1, |x: T, _: T| x);
            }
        }));
        Ok(y.record("expand", [self], |grad, _wanted| Ok([Some(grad.clone())])))
    }
}

fn permuted(x: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let shape: Vec<usize> = dims.iter().map(|&dim| x.shape()[dim]).collect();
    if x.numel() == 0 {
        return Ok(x.relabel(&shape, MemoryFormat::RowMajor));
    }
    let rank = dims.len();
    let swaps_last_two = rank >= 2 && (0..rank - 2).all(|dim| dims[dim] == dim) && dims[rank - 1] == rank - 2;
    if swaps_last_two && x.memory_format() == MemoryFormat::RowMajor {
        let (batch, rows, columns) = (numel(&shape[..rank - 2]), shape[rank - 1], shape[rank - 2]);
        return Ok(with_dtype!(x.dtype(), T => Tensor::build(&shape, MemoryFormat::RowMajor, |y: &mut [T]| {
            layout::transpose(batch, rows, columns, x.data(), y);
        })));
    }
    with_dtype!(x.dtype(), T => {
        let view = x.view::<T>()?.permuted_axes(dims);
        Ok(if view.is_standard_layout() { x.relabel(&shape, MemoryFormat::RowMajor) } else { Tensor::from_view(view) })
    })
}

/// Sizes with -1 replaced, for a tensor of shape `from`.
fn resolve_shape(from: &[usize], sizes: &[i128]) -> Result<Vec<usize>> {
    let fail = || Error::shape("reshape", format!("shape {from:?} does not reshape to {sizes:?}"));
    let total = try_numel(from).ok_or_else(fail)?;
    let known: Option<Vec<usize>> = sizes.iter().filter(|&&n| n != -1).map(|&n| usize::try_from(n).ok()).collect();
    let known = try_numel(&known.ok_or_else(fail)?).ok_or_else(fail)?;
    let free = sizes.iter().filter(|&&n| n == -1).count();
    let worked_out = match free {
        0 if known == total => 0,
        1 if known > 0 && total % known == 0 => total / known,
        _ => return Err(fail()),
    };
    Ok(sizes.iter().map(|&n| if n == -1 { worked_out } else { n as usize }).collect())
}
