//! Operations that cut, join, pad and mirror: copies of contiguous runs of memory, in either memory
//! format.

use crate::error::{Error, Result};
use crate::kernels::copy::{self, StridedBox};
use crate::kernels::runtime::allocator;
use crate::kernels::runtime::arrays::MapEach;
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::meta::InputExtent;
use crate::tensor::shape::{Index, numel, outer_axis_inner, resolve_dim, resolve_dims, resolve_size, try_numel};
use crate::tensor::{DType, Dim, Dims, MemoryFormat, Tensor, with_dtype};

/// Returns a part of one dimension, in the tensor's memory format, without history.
fn cut(x: &Tensor, axis: usize, start: usize, length: usize) -> Result<Tensor> {
    let mut shape = x.shape().to_vec();
    shape[axis] = length;
    let [outer, size, inner] = outer_axis_inner(x.shape(), x.memory_format(), axis);
    with_dtype!(x.dtype(), T => Tensor::build(&shape, x.memory_format(), |y: &mut [T]| {
        let from = StridedBox { start: start * inner, steps: [0, size * inner] };
        copy::copy_box([1, outer, length * inner], x.data(), from, y, StridedBox { start: 0, steps: [0, length * inner] });
    }))
}

/// The inverse of [`cut`]: returns a tensor of `shape` with `x` as a part of one dimension and
/// zeros around it.
fn put(x: &Tensor, axis: usize, start: usize, shape: &[usize]) -> Result<Tensor> {
    let [outer, length, inner] = outer_axis_inner(x.shape(), x.memory_format(), axis);
    let size = shape[axis];
    with_dtype!(x.dtype(), T => Tensor::build(shape, x.memory_format(), |y: &mut [T]| {
        copy::fill(y, T::default());
        let to = StridedBox { start: start * inner, steps: [0, size * inner] };
        copy::copy_box([1, outer, length * inner], x.data(), StridedBox { start: 0, steps: [0, length * inner] }, y, to);
    }))
}

/// Returns an empty list with room for `count` tensors, or an error when memory cannot hold them
/// even without elements.
fn room_for(op: &'static str, count: usize) -> Result<Vec<Tensor>> {
    // A tensor handle, its shape and its storage.
    const BYTES: usize = 256;
    allocator::list(count, BYTES).ok_or_else(|| Error::argument(op, format!("{count} tensors are more than memory can hold")))
}

/// Returns the shift along height and width of an operation that moves positions along one of
/// `ndim` dimensions.
fn along_map(axis: usize, ndim: usize, shift: isize) -> [isize; 2] {
    [2, 1].map_each(|from_end| if axis > 1 && axis + from_end == ndim { shift } else { 0 })
}

/// The sizes of the parts that a dimension is cut into, for [`Tensor::split`].
#[derive(Clone, Debug)]
pub enum SplitSizes {
    /// All of one size; the last may be smaller.
    Equal(usize),
    /// The size of each.
    Each(Vec<usize>),
}

impl From<usize> for SplitSizes {
    fn from(size: usize) -> SplitSizes {
        SplitSizes::Equal(size)
    }
}

impl From<&[usize]> for SplitSizes {
    fn from(sizes: &[usize]) -> SplitSizes {
        SplitSizes::Each(sizes.to_vec())
    }
}

impl<const N: usize> From<[usize; N]> for SplitSizes {
    fn from(sizes: [usize; N]) -> SplitSizes {
        SplitSizes::Each(sizes.to_vec())
    }
}

impl From<Vec<usize>> for SplitSizes {
    fn from(sizes: Vec<usize>) -> SplitSizes {
        SplitSizes::Each(sizes)
    }
}

impl Tensor {
    /// Returns the part `start .. start + length` of a dimension.
    ///
    /// # Shape
    /// The input's with `length` in that dimension; the input's memory format.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist or a range that exceeds it.
    pub fn narrow(&self, dim: impl Dim, start: usize, length: usize) -> Result<Tensor> {
        let observed = operation("narrow");
        let axis = resolve_size("narrow", dim, self.shape())?;
        observed.details(|| Details::new().int("axis", axis).int("start", start).int("length", length));
        let size = self.shape()[axis];
        if start.checked_add(length).is_none_or(|end| end > size) {
            let message = format!("{length} elements from {start} exceed dimension {axis} of shape {:?}", self.shape());
            return Err(Error::argument("narrow", message));
        }
        if length == size {
            return Ok(self.clone());
        }
        let x = self.shape().to_vec();
        let y = cut(self, axis, start, length)?;
        let extents = |y: &[usize]| [InputExtent::shifted(y, along_map(axis, y.len(), start as isize))];
        Ok(y.record_window("narrow", [self], extents, move |grad, _wanted| Ok([Some(put(grad, axis, start, &x)?)])))
    }

    /// Cuts a dimension into at most `chunks` parts of one size; the last part may be smaller. As
    /// in PyTorch, there are fewer parts when parts of size `⌈size / chunks⌉` already cover the
    /// dimension.
    ///
    /// # Shape
    /// As [`narrow`](Tensor::narrow) for each part.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist or no chunks.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let sizes: Vec<usize> = Tensor::zeros([7, 2]).chunk(3, 0)?.iter().map(|part| part.shape()[0]).collect();
    /// assert_eq!(sizes, [3, 3, 1]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn chunk(&self, chunks: usize, dim: impl Dim) -> Result<Vec<Tensor>> {
        let axis = resolve_size("chunk", dim, self.shape())?;
        if chunks == 0 {
            return Err(Error::argument("chunk", "expected at least one chunk"));
        }
        let size = self.shape()[axis];
        if size > 0 {
            return self.split_equally(size.div_ceil(chunks), axis);
        }
        let mut parts = room_for("chunk", chunks)?;
        parts.resize(chunks, self.clone());
        Ok(parts)
    }

    /// Cuts a dimension into parts: of one size, where the last may be smaller, or of the sizes in
    /// a list.
    ///
    /// # Shape
    /// As [`narrow`](Tensor::narrow) for each part.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist, a size of 0 where the dimension has
    /// elements, and a list that does not add up to the dimension.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let parts = Tensor::zeros([7, 2]).split([2, 5], 0)?;
    /// assert!(parts[0].shape() == [2, 2] && parts[1].shape() == [5, 2]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn split(&self, sizes: impl Into<SplitSizes>, dim: impl Dim) -> Result<Vec<Tensor>> {
        let axis = resolve_size("split", dim, self.shape())?;
        match sizes.into() {
            SplitSizes::Equal(size) => self.split_equally(size, axis),
            SplitSizes::Each(sizes) => self.split_by(&sizes, axis),
        }
    }

    fn split_by(&self, sizes: &[usize], axis: usize) -> Result<Vec<Tensor>> {
        let total = sizes.iter().fold(0usize, |total, &size| total.saturating_add(size));
        if total != self.shape()[axis] {
            let message = format!("parts of {sizes:?} do not add up to dimension {axis} of shape {:?}", self.shape());
            return Err(Error::argument("split", message));
        }
        let (mut parts, mut start) = (room_for("split", sizes.len())?, 0);
        for &size in sizes {
            parts.push(self.narrow(axis, start, size)?);
            start += size;
        }
        Ok(parts)
    }

    fn split_equally(&self, size: usize, axis: usize) -> Result<Vec<Tensor>> {
        let total = self.shape()[axis];
        if total == 0 {
            return Ok(vec![self.clone()]);
        }
        if size == 0 {
            return Err(Error::argument("split", format!("parts of size 0 do not cover dimension {axis} of shape {:?}", self.shape())));
        }
        let mut parts = room_for("split", total.div_ceil(size))?;
        for start in (0..total).step_by(size) {
            parts.push(self.narrow(axis, start, size.min(total - start))?);
        }
        Ok(parts)
    }

    /// Concatenates tensors along a dimension.
    ///
    /// # Shape
    /// All dimensions but this one must agree; the result has the sum of the sizes in this one. It
    /// is channels-last when any of the tensors is, else row-major. Dtypes promote:
    /// `u8 < i64 < f32 < f64`. As in PyTorch, tensors of shape `[0]` are allowed among others and
    /// are left out.
    ///
    /// # Errors
    /// [`Error::Argument`] for an empty list or a dimension that does not exist, [`Error::Shape`]
    /// when the other dimensions differ.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let (a, b) = (Tensor::zeros([2, 3, 4, 4]), Tensor::ones([2, 5, 4, 4]));
    /// assert!(Tensor::cat(&[&a, &b], 1)?.shape() == [2, 8, 4, 4]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn cat(tensors: &[&Tensor], dim: impl Dim) -> Result<Tensor> {
        Tensor::cat_along(tensors, Index(dim.index()))
    }

    fn cat_along(tensors: &[&Tensor], dim: Index) -> Result<Tensor> {
        let observed = operation("cat");
        let left_out = |t: &Tensor| t.shape() == [0];
        let Some(&first) = tensors.iter().find(|t| !left_out(t)).or(tensors.first()) else {
            return Err(Error::argument("cat", "expected at least one tensor, got an empty list"));
        };
        let axis = resolve_size("cat", dim, first.shape())?;
        observed.details(|| Details::new().int("axis", axis));
        let mut shape = first.shape().to_vec();
        shape[axis] = 0;
        let (mut dtype, mut format) = (DType::U8, MemoryFormat::RowMajor);
        // The start and the length of each tensor's part.
        let mut parts = Vec::with_capacity(tensors.len());
        for (index, tensor) in tensors.iter().enumerate() {
            dtype = dtype.max(tensor.dtype());
            let skipped = left_out(tensor) && shape.len() != 1;
            let alike = |(at, (a, b)): (usize, (&usize, &usize))| at == axis || a == b;
            let joins = tensor.ndim() == shape.len() && tensor.shape().iter().zip(&shape).enumerate().all(alike);
            if !skipped && !joins {
                let (other, shape) = (first.shape(), tensor.shape());
                let message = format!("tensor {index} of shape {shape:?} does not join {other:?} along dimension {axis}");
                return Err(Error::shape("cat", message));
            }
            if tensor.memory_format() == MemoryFormat::ChannelsLast {
                format = MemoryFormat::ChannelsLast;
            }
            let length = if skipped { 0 } else { tensor.shape()[axis] };
            parts.push((shape[axis], length));
            shape[axis] = shape[axis].checked_add(length).ok_or_else(|| too_large("cat", tensors.len()))?;
        }
        try_numel(&shape).ok_or_else(|| too_large("cat", tensors.len()))?;
        let [_, _, inner] = outer_axis_inner(&shape, format, axis);
        let input = |t: &&Tensor| if left_out(t) { t.cast(dtype) } else { t.to_format(format)?.cast(dtype) };
        let inputs = tensors.iter().map(input).collect::<Result<Vec<_>>>()?;
        let y = with_dtype!(dtype, T => Tensor::build(&shape, format, |y: &mut [T]| {
            let runs: Vec<(&[T], usize)> = inputs.iter().zip(&parts).map(|(x, &(_, length))| (x.data(), length * inner)).collect();
            copy::join(&runs, y);
        })?);
        let shapes: Vec<Vec<usize>> = tensors.iter().map(|t| t.shape().to_vec()).collect();
        let extents = |y: &[usize]| {
            // Each input's positions are shifted by the sizes of the inputs before it.
            let mut start = 0;
            let mut of_input = |input: &&Tensor| {
                let shift = along_map(axis, y.len(), -(start as isize));
                start += if input.ndim() == y.len() { input.shape()[axis] } else { 0 };
                InputExtent::shifted(y, shift).filter(|_| input.ndim() == y.len())
            };
            tensors.iter().map(&mut of_input).collect()
        };
        Ok(y.record_window_many("cat", tensors, &extents, move |grad, wanted| {
            let of_part = |((&(start, length), shape), &wanted): ((&(usize, usize), &Vec<usize>), &bool)| {
                let alike = shape.len() == grad.ndim();
                wanted.then(|| if alike { cut(grad, axis, start, length) } else { Tensor::try_full(shape, 0.0, grad.dtype()) }).transpose()
            };
            parts.iter().zip(&shapes).zip(wanted).map(of_part).collect()
        }))
    }

    /// Joins tensors of one shape along a new dimension.
    ///
    /// # Shape
    /// The tensors' shape with their number inserted at `dim`; row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] for an empty list or a dimension beyond those of the result,
    /// [`Error::Shape`] when the shapes differ.
    pub fn stack(tensors: &[&Tensor], dim: impl Dim) -> Result<Tensor> {
        let Some(&first) = tensors.first() else {
            return Err(Error::argument("stack", "expected at least one tensor, got an empty list"));
        };
        let axis = resolve_dim("stack", dim, first.ndim() + 1)?;
        if let Some((index, other)) = tensors.iter().enumerate().find(|(_, t)| t.shape() != first.shape()) {
            let message = format!("tensor {index} has shape {:?}, the first {:?}", other.shape(), first.shape());
            return Err(Error::shape("stack", message));
        }
        let parts = tensors.iter().map(|t| t.unsqueeze(axis)).collect::<Result<Vec<_>>>()?;
        Tensor::cat(&parts.iter().collect::<Vec<_>>(), axis)
    }

    /// Pads the last two dimensions with a value; `padding` is left, right, top, bottom.
    ///
    /// # Shape
    /// `[.., H, W]` becomes `[.., top + H + bottom, left + W + right]` in the input's memory
    /// format. For integer tensors the value is rounded towards zero.
    ///
    /// # Errors
    /// [`Error::Shape`] for a tensor of fewer than two dimensions or a result that memory cannot
    /// hold.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let y = Tensor::ones([1, 2]).pad([1, 0, 0, 1], 7.0)?;
    /// assert_eq!(y.to_vec::<f32>()?, [7.0, 1.0, 1.0, 7.0, 7.0, 7.0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn pad(&self, padding: [usize; 4], value: f64) -> Result<Tensor> {
        let observed = operation("pad");
        observed.details(|| Details::new().ints("sides", &padding).float("value", value).text("mode", "constant"));
        let &[ref front @ .., height, width] = self.shape() else {
            return Err(Error::shape("pad", format!("expected at least two dimensions, got shape {:?}", self.shape())));
        };
        if padding == [0; 4] {
            return Ok(self.clone());
        }
        let [left, right, top, bottom] = padding;
        let sum = |parts: [usize; 3]| parts.into_iter().try_fold(0usize, usize::checked_add);
        let shape = sum([top, height, bottom]).zip(sum([left, width, right])).map(|(height, width)| [front, &[height, width]].concat());
        let shape = shape.filter(|shape| try_numel(shape).is_some()).ok_or_else(|| {
            Error::shape("pad", format!("padding {padding:?} of shape {:?} asks for more than memory can hold", self.shape()))
        })?;
        let inner = Inner { small: self.shape().to_vec(), large: shape, left, top };
        let y = with_dtype!(self.dtype(), T => Tensor::build(&inner.large, self.memory_format(), |y: &mut [T]| {
            copy::fill(y, value as T);
            let (dims, window, dense) = inner.windows(self.memory_format());
            copy::copy_box(dims, self.data(), dense, y, window);
        })?);
        let extents = |y: &[usize]| [InputExtent::shifted(y, [-(top as isize), -(left as isize)])];
        Ok(y.record_window("pad", [self], extents, move |grad, _wanted| {
            let (dims, window, dense) = inner.windows(grad.memory_format());
            Ok([Some(with_dtype!(grad.dtype(), T => Tensor::build(&inner.small, grad.memory_format(), |x: &mut [T]| {
                copy::copy_box(dims, grad.data(), window, x, dense);
            })?))])
        }))
    }

    /// Reverses the order along dimensions: one, several, or all (`..`).
    ///
    /// # Shape
    /// The input's shape and memory format.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist or is named twice.
    pub fn flip(&self, dims: impl Dims) -> Result<Tensor> {
        let observed = operation("flip");
        let axes = resolve_dims("flip", &dims, self.ndim())?;
        observed.details(|| Details::new().ints("axes", &axes));
        let map = self.ndim().checked_sub(2).filter(|&channels| channels > 1);
        let turned = [0, 1].map_each(|axis| map.is_some_and(|map| axes.contains(&(map + axis))));
        let scale = turned.map_each(|turned| if turned { -1.0 } else { 1.0 });
        let extent = |map: usize| {
            let size = [self.shape()[map], self.shape()[map + 1]];
            let place = |axis: usize, at: isize| if turned[axis] { size[axis] as isize - 1 - at } else { at };
            InputExtent::new(size, scale, |axis, at| [place(axis, at); 2])
        };
        let y = flipped(self, &axes)?;
        Ok(y.record_window("flip", [self], |_| [map.map(extent)], move |grad, _wanted| Ok([Some(flipped(grad, &axes)?)])))
    }
}

fn flipped(x: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let mut y = x.detach();
    for &axis in axes.iter().filter(|_| x.numel() > 0) {
        let [_, size, inner] = outer_axis_inner(x.shape(), x.memory_format(), axis);
        let backwards: Vec<usize> = (0..size).rev().collect();
        y = with_dtype!(x.dtype(), T => Tensor::build(x.shape(), x.memory_format(), |out: &mut [T]| {
            copy::select([size, inner], &backwards, y.data(), out);
        })?);
    }
    Ok(y)
}

/// A map inside a larger one, over the last two dimensions.
struct Inner {
    small: Vec<usize>,
    large: Vec<usize>,
    left: usize,
    top: usize,
}

impl Inner {
    /// Returns the size of the box of runs to copy, and its place in the larger map and in the
    /// smaller one.
    fn windows(&self, format: MemoryFormat) -> ([usize; 3], StridedBox, StridedBox) {
        if self.small.contains(&0) {
            let nowhere = StridedBox { start: 0, steps: [0, 0] };
            return ([0; 3], nowhere, nowhere);
        }
        let rank = self.small.len();
        // In channels-last memory a row holds all channels of each column.
        let channels = if format == MemoryFormat::ChannelsLast { self.small[1] } else { 1 };
        let maps = numel(&self.small[..rank - 2]) / channels;
        let [height, width] = [rank - 2, rank - 1].map_each(|axis| self.small[axis]);
        let (row, large_row) = (width * channels, self.large[rank - 1] * channels);
        let large = StridedBox { start: self.top * large_row + self.left * channels, steps: [self.large[rank - 2] * large_row, large_row] };
        ([maps, height, row], large, StridedBox { start: 0, steps: [height * row, row] })
    }
}

fn too_large(op: &'static str, count: usize) -> Error {
    Error::shape(op, format!("the {count} tensors together are more than memory can hold"))
}

#[cfg(test)]
mod tests;
