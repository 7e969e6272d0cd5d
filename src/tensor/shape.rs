//! Shapes, dimensions that count from the end, memory formats.

use std::ops::RangeFull;

use crate::error::{Error, Result};
use crate::kernels::elementwise::Broadcast;
use crate::kernels::runtime::arrays::MapEach;

/// The order of a tensor's elements in memory; tensors are always dense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryFormat {
    /// The last dimension is contiguous.
    RowMajor,
    /// 4-D tensors only: `[N, C, H, W]` is stored in the order N, H, W, C.
    ChannelsLast,
}

/// Returns the number of elements of a shape.
///
/// # Panics
/// When it exceeds what memory can address.
pub(crate) fn numel(shape: &[usize]) -> usize {
    try_numel(shape).unwrap_or_else(|| panic!("shape {shape:?} has more elements than memory can hold"))
}

/// Returns the number of elements, `None` for a shape that no tensor can have: one whose elements
/// could not be addressed whatever the dtype, where a dimension of size 0 counts as one of size 1.
/// So the product of any of a tensor's sizes can be computed and, for a tensor without elements,
/// everything that is computed from the other sizes.
pub(crate) fn try_numel(shape: &[usize]) -> Option<usize> {
    let count = shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim.max(1)))?;
    (count <= isize::MAX as usize / 16).then_some(if shape.contains(&0) { 0 } else { count })
}

/// Makes the error for a shape that no tensor can have.
#[cold]
pub(crate) fn too_large(shape: &[usize]) -> Error {
    Error::shape("tensor", format!("shape {shape:?} has more elements than memory can hold (a size of 0 counts as 1)"))
}

/// Returns, for each logical dimension, the distance in memory between neighbours, in elements.
pub(crate) fn strides(shape: &[usize], format: MemoryFormat) -> Vec<usize> {
    match (format, shape) {
        (MemoryFormat::ChannelsLast, &[_, c, h, w]) => vec![h * w * c, 1, w * c, c],
        _ => {
            let mut strides = vec![1; shape.len()];
            for axis in (1..shape.len()).rev() {
                strides[axis - 1] = strides[axis] * shape[axis];
            }
            strides
        }
    }
}

/// Returns whether both formats put the elements of this shape in the same order.
pub(crate) fn formats_agree(shape: &[usize]) -> bool {
    shape.contains(&0) || !matches!(shape, &[_, c, h, w] if c > 1 && h * w > 1)
}

/// Returns a shape in memory order: `[N, C, H, W]` in channels-last is `[N, H, W, C]`.
pub(crate) fn physical<T: Copy>(dims: &[T], format: MemoryFormat) -> Vec<T> {
    match (format, dims) {
        (MemoryFormat::ChannelsLast, &[n, c, h, w]) => vec![n, h, w, c],
        _ => dims.to_vec(),
    }
}

/// Returns a tensor's memory as `[outer, size, inner]` around one of its dimensions; outer and
/// inner are 0 when it has no elements.
pub(crate) fn outer_axis_inner(shape: &[usize], format: MemoryFormat, axis: usize) -> [usize; 3] {
    if shape.contains(&0) {
        return [0, shape[axis], 0];
    }
    let dims = physical(shape, format);
    let at = if format == MemoryFormat::ChannelsLast && shape.len() == 4 { [0, 3, 1, 2][axis] } else { axis };
    [numel(&dims[..at]), dims[at], numel(&dims[at + 1..])]
}

/// Returns the shape to which two operands broadcast by NumPy's rule: aligned at the last
/// dimension, where one of two sizes may be 1.
pub(crate) fn broadcast_shapes(op: &'static str, a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let size = |shape: &[usize], axis: usize| if axis + shape.len() < rank { 1 } else { shape[axis + shape.len() - rank] };
    (0..rank)
        .map(|axis| match (size(a, axis), size(b, axis)) {
            (x, y) if x == y || y == 1 => Ok(x),
            (1, y) => Ok(y),
            _ => Err(Error::shape(op, format!("shapes {a:?} and {b:?} do not broadcast together"))),
        })
        .collect()
}

/// Returns whether a shape broadcasts to another one, without that one being repeated as well.
pub(crate) fn broadcasts_to(shape: &[usize], wanted: &[usize]) -> bool {
    shape.len() <= wanted.len() && shape.iter().rev().zip(wanted.iter().rev()).all(|(&size, &wanted)| size == wanted || size == 1)
}

/// Returns how two operands with these shapes and formats are read along a result.
pub(crate) fn broadcast(result: &[usize], format: MemoryFormat, operands: [(&[usize], MemoryFormat); 2]) -> Broadcast {
    let walks = operands.map_each(|(shape, format_of_operand)| {
        let own = strides(shape, format_of_operand);
        let skipped = result.len() - shape.len();
        let along: Vec<usize> =
            (0..result.len()).map(|axis| if axis < skipped || shape[axis - skipped] == 1 { 0 } else { own[axis - skipped] }).collect();
        physical(&along, format)
    });
    Broadcast::new(&physical(result, format), [&walks[0], &walks[1]])
}

/// A dimension as `i32`, `isize`, `i64` or `usize`; negative numbers count from the end. A tensor
/// without dimensions accepts 0 and -1, as in PyTorch.
pub trait Dim: Copy {
    #[doc(hidden)]
    fn index(self) -> i128;
}

/// Returns a dimension as an index. A tensor without dimensions accepts 0 and -1, as in PyTorch, so
/// the index may not belong to a dimension; operations that need one use [`resolve_size`].
pub(crate) fn resolve_dim(op: &'static str, dim: impl Dim, rank: usize) -> Result<usize> {
    let (index, dimensions) = (dim.index(), rank.max(1) as i128);
    let from_start = if index < 0 { index + dimensions } else { index };
    if (0..dimensions).contains(&from_start) {
        return Ok(from_start as usize);
    }
    Err(Error::argument(op, format!("dimension {index} is outside a tensor with {rank} dimensions")))
}

/// Returns a dimension as an index into `shape`, for operations that change or read its size.
pub(crate) fn resolve_size(op: &'static str, dim: impl Dim, shape: &[usize]) -> Result<usize> {
    match shape {
        [] => Err(Error::argument(op, format!("dimension {} is outside a tensor without dimensions", dim.index()))),
        _ => resolve_dim(op, dim, shape.len()),
    }
}

/// The dimensions that a reduction folds: one, several, or all (`..`).
pub trait Dims {
    #[doc(hidden)]
    fn indices(&self) -> Option<Vec<i128>>;
}

impl Dims for RangeFull {
    fn indices(&self) -> Option<Vec<i128>> {
        None
    }
}

/// Returns the dimensions as sorted indices without repetition; none for a tensor without
/// dimensions, whatever `dims` names.
pub(crate) fn resolve_dims(op: &'static str, dims: &impl Dims, rank: usize) -> Result<Vec<usize>> {
    let Some(indices) = dims.indices() else { return Ok((0..rank).collect()) };
    let mut axes = indices.into_iter().map(|i| resolve_dim(op, Index(i), rank)).collect::<Result<Vec<_>>>()?;
    axes.sort_unstable();
    if axes.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Error::argument(op, format!("a dimension is named twice in {axes:?}")));
    }
    axes.truncate(rank);
    Ok(axes)
}

/// A dimension as any integer, for functions that are compiled once for all types of [`Dim`].
#[derive(Clone, Copy)]
pub(crate) struct Index(pub(crate) i128);

impl Dim for Index {
    fn index(self) -> i128 {
        self.0
    }
}

/// The shape that `reshape` takes: sizes, of which one may be -1, to be computed from the others.
/// `expand` takes it too, where -1 keeps a size.
pub trait ReshapeDims {
    #[doc(hidden)]
    fn sizes(&self) -> Vec<i128>;
}

macro_rules! dimension {
    ($($type:ty),*) => {$(
        impl Dim for $type {
            fn index(self) -> i128 {
                self as i128
            }
        }
        impl Dims for $type {
            fn indices(&self) -> Option<Vec<i128>> {
                Some(vec![*self as i128])
            }
        }
        dimension!(@list [$type; N], const N: usize);
        dimension!(@list &[$type; N], const N: usize);
        dimension!(@list &[$type]);
        dimension!(@list Vec<$type>);
        dimension!(@list &Vec<$type>);
    )*};
    (@list $list:ty $(, const $n:ident: usize)?) => {
        impl$(<const $n: usize>)? Dims for $list {
            fn indices(&self) -> Option<Vec<i128>> {
                Some(self.iter().map(|&dim| dim as i128).collect())
            }
        }
        impl$(<const $n: usize>)? ReshapeDims for $list {
            fn sizes(&self) -> Vec<i128> {
                self.iter().map(|&dim| dim as i128).collect()
            }
        }
    };
}
dimension!(i32, i64, isize, usize);
