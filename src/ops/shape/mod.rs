//! Operations that move elements, or change only the shape.

use crate::error::{Error, Result};
use crate::kernels::transpose;
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::compute::repeat_to;
use crate::tensor::meta::{InputExtent, map_size};
use crate::tensor::shape::{Index, broadcasts_to, numel, resolve_dim, resolve_dims, try_numel};
use crate::tensor::{Dim, Dims, MemoryFormat, ReshapeDims, Tensor, with_dtype};

impl Tensor {
    /// Returns the same elements, in row-major order, with another shape; one size may be -1 and is
    /// then computed from the others.
    ///
    /// # Shape
    /// As given; row-major. Elements are shared where the memory format allows, otherwise copied.
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
        self.reshape_to(&shape.sizes())
    }

    fn reshape_to(&self, sizes: &[i128]) -> Result<Tensor> {
        let _op = operation("reshape");
        let shape = resolve_shape(self.shape(), sizes)?;
        let y = self.to_format(MemoryFormat::RowMajor)?.with_shape(&shape, MemoryFormat::RowMajor);
        let x = self.shape().to_vec();
        // Other dimensions may be merged or split, as long as height and width stay the same.
        let extents = |y: &[usize]| [InputExtent::shifted(y, [0, 0]).filter(|_| map_size(y) == map_size(self.shape()))];
        Ok(y.record_window("reshape", [self], extents, move |grad, _wanted| Ok([Some(grad.reshape(x.as_slice())?)])))
    }

    /// Merges the dimensions `start` to `end`, both included, into one.
    ///
    /// # Shape
    /// `[N, C, H, W]` becomes `[N, C·H·W]` with `flatten(1, -1)`; row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] when a dimension does not exist or `end` comes before `start`.
    pub fn flatten(&self, start: impl Dim, end: impl Dim) -> Result<Tensor> {
        self.flatten_between(resolve_dim("flatten", start, self.ndim())?, resolve_dim("flatten", end, self.ndim())?)
    }

    fn flatten_between(&self, start: usize, end: usize) -> Result<Tensor> {
        if self.ndim() == 0 {
            return self.reshape([1]);
        }
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

    /// Removes dimensions of size 1: one, several, or all of them with `..`; dimensions of another
    /// size stay.
    ///
    /// # Shape
    /// The input's shape without the dimensions, row-major; the input itself when nothing changes.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist or is named twice.
    pub fn squeeze(&self, dims: impl Dims) -> Result<Tensor> {
        let axes = resolve_dims("squeeze", &dims, self.ndim())?;
        let stays = |&axis: &usize| self.shape()[axis] != 1 || !axes.contains(&axis);
        let shape: Vec<usize> = (0..self.ndim()).filter(stays).map(|axis| self.shape()[axis]).collect();
        if shape.len() == self.ndim() { Ok(self.clone()) } else { self.reshape(shape) }
    }

    /// Inserts a dimension of size 1 at `dim`; -1 appends one.
    ///
    /// # Shape
    /// The input's shape with one more 1; row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension beyond those of the result.
    pub fn unsqueeze(&self, dim: impl Dim) -> Result<Tensor> {
        let axis = resolve_dim("unsqueeze", dim, self.ndim() + 1)?;
        let mut shape = self.shape().to_vec();
        shape.insert(axis, 1);
        self.reshape(shape)
    }

    /// Reorders the dimensions: dimension `i` of the result is dimension `dims[i]` of the input;
    /// negative ones count from the end.
    ///
    /// # Shape
    /// The input's shape in that order; row-major. Elements are shared where they already have that
    /// order in memory.
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
    pub fn permute(&self, dims: impl Dims) -> Result<Tensor> {
        let indices = dims.indices().ok_or_else(|| Error::argument("permute", "`..` names no order of the dimensions"))?;
        self.reordered(indices.into_iter().map(|dim| resolve_dim("permute", Index(dim), self.ndim())).collect::<Result<_>>()?)
    }

    fn reordered(&self, dims: Vec<usize>) -> Result<Tensor> {
        let observed = operation("permute");
        observed.details(|| Details::new().ints("order", &dims));
        let mut sorted = dims.clone();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..self.ndim()) {
            return Err(Error::argument("permute", format!("{dims:?} does not name each dimension of shape {:?} once", self.shape())));
        }
        let mut inverse = vec![0; dims.len()];
        dims.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
        let maps_stay = dims.len() >= 4 && dims.ends_with(&[dims.len() - 2, dims.len() - 1]);
        let y = permuted(self, &dims)?;
        let extents = |y: &[usize]| [InputExtent::shifted(y, [0, 0]).filter(|_| maps_stay)];
        Ok(y.record_window("permute", [self], extents, move |grad, _wanted| Ok([Some(permuted(grad, &inverse)?)])))
    }

    /// Exchanges two dimensions.
    ///
    /// # Shape
    /// The input's shape with both sizes exchanged; row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist.
    pub fn transpose(&self, first: impl Dim, second: impl Dim) -> Result<Tensor> {
        let (first, second) = (resolve_dim("transpose", first, self.ndim())?, resolve_dim("transpose", second, self.ndim())?);
        let mut dims: Vec<usize> = (0..self.ndim()).collect();
        if first != second {
            dims.swap(first, second);
        }
        self.reordered(dims)
    }

    /// Returns the same values in row-major order, like
    /// [`to_memory_format`](Tensor::to_memory_format) with [`MemoryFormat::RowMajor`].
    ///
    /// # Shape
    /// The input's shape; row-major.
    ///
    /// # Errors
    /// None so far: a `Result` for uniformity with [`to_memory_format`](Tensor::to_memory_format).
    pub fn contiguous(&self) -> Result<Tensor> {
        self.to_memory_format(MemoryFormat::RowMajor)
    }

    /// Returns the same values in a memory format.
    ///
    /// # Shape
    /// The input's shape, in that format. Elements are shared where they already have that order in
    /// memory.
    ///
    /// # Errors
    /// [`Error::Shape`] for channels-last and a tensor that is not 4-D.
    pub fn to_memory_format(&self, format: MemoryFormat) -> Result<Tensor> {
        if format == MemoryFormat::ChannelsLast && self.ndim() != 4 {
            return Err(Error::shape("to_memory_format", format!("channels-last is for 4-D tensors, got shape {:?}", self.shape())));
        }
        let _op = operation("to_memory_format");
        Ok(self.to_format(format)?.record("to_memory_format", [self], |grad, _wanted| Ok([Some(grad.clone())])))
    }

    /// Repeats dimensions of size 1, and adds dimensions in front, until the tensor has this shape.
    ///
    /// # Shape
    /// As given, where -1 keeps the size of a dimension; the input's memory format when both are
    /// 4-D, else row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] when the tensor does not broadcast to the shape, or memory cannot hold the
    /// result.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// assert!(Tensor::zeros([3, 1]).expand([2, -1, 4])?.shape() == [2, 3, 4]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn expand(&self, shape: impl ReshapeDims) -> Result<Tensor> {
        let sizes = shape.sizes();
        let kept = |axis: usize| (axis + self.ndim()).checked_sub(sizes.len()).map(|axis| self.shape()[axis]);
        let size = |(axis, &size): (usize, &i128)| match size {
            -1 => kept(axis).ok_or_else(|| Error::shape("expand", format!("-1 in {sizes:?} is for a dimension of {:?}", self.shape()))),
            size => usize::try_from(size).map_err(|_| Error::shape("expand", format!("{size} is no size, in {sizes:?}"))),
        };
        self.expanded(&sizes.iter().enumerate().map(size).collect::<Result<Vec<usize>>>()?)
    }

    fn expanded(&self, shape: &[usize]) -> Result<Tensor> {
        let _op = operation("expand");
        if !broadcasts_to(self.shape(), shape) {
            return Err(Error::shape("expand", format!("shape {:?} does not broadcast to {shape:?}", self.shape())));
        }
        if try_numel(shape).is_none() {
            return Err(Error::shape("expand", format!("shape {shape:?} has more elements than memory can hold")));
        }
        if shape == self.shape() {
            return Ok(self.clone());
        }
        Ok(repeat_to(self, shape)?.record("expand", [self], |grad, _wanted| Ok([Some(grad.clone())])))
    }
}

fn permuted(x: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let shape: Vec<usize> = dims.iter().map(|&dim| x.shape()[dim]).collect();
    if x.numel() == 0 {
        return Ok(x.with_shape(&shape, MemoryFormat::RowMajor));
    }
    let rank = dims.len();
    let swaps_last_two = rank >= 2 && (0..rank - 2).all(|dim| dims[dim] == dim) && dims[rank - 1] == rank - 2;
    if swaps_last_two && x.memory_format() == MemoryFormat::RowMajor {
        let (batch, rows, columns) = (numel(&shape[..rank - 2]), shape[rank - 1], shape[rank - 2]);
        return Ok(with_dtype!(x.dtype(), T => Tensor::build(&shape, MemoryFormat::RowMajor, |y: &mut [T]| {
            transpose::transpose(batch, rows, columns, x.data(), y);
        })?));
    }
    with_dtype!(x.dtype(), T => {
        let view = x.view::<T>()?.permuted_axes(dims);
        if view.is_standard_layout() { Ok(x.with_shape(&shape, MemoryFormat::RowMajor)) } else { Tensor::try_from_view(view) }
    })
}

/// Returns the sizes with -1 replaced, for a tensor of shape `from`.
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

#[cfg(test)]
mod tests;
