//! The tensor: an immutable, shared, dense array whose element type is a run-time value.
//!
//! A [`Tensor`] is a handle: cloning it shares the elements. Shapes read as in PyTorch, images are `[N, C, H, W]`; how 4-D tensors lie in
//! memory is their [`MemoryFormat`], which users need not know: every operation takes either. There are no views and no strides; strided
//! work that is not hot goes through `ndarray` views over the same memory.

pub(crate) mod bytes;
mod compare;
pub(crate) mod compute;
mod convert;
pub(crate) mod create;
mod display;
mod dtype;
pub(crate) mod guard;
pub(crate) mod meta;
pub(crate) mod node;
pub(crate) mod rng;
pub(crate) mod shape;
pub(crate) mod storage;

use std::fmt;
use std::sync::Arc;

pub use compare::Difference;
pub use dtype::{DType, Element};
pub(crate) use dtype::{with_dtype, with_float};
use node::Node;
pub use rng::{manual_seed, manual_seed_all};
pub use shape::{Dim, Dims, MemoryFormat, ReshapeDims};
use storage::Storage;

use crate::error::{Error, Result};
use crate::kernels::runtime::allocator::catching;

/// A dense array of `f32`, `f64`, `i64` or `u8`, and what autograd knows of its history.
///
/// ```
/// use convnet::{DType, Tensor};
///
/// let x = Tensor::zeros([2, 3, 32, 32]);
/// assert!(x.shape() == [2, 3, 32, 32] && x.dtype() == DType::F32);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor {
    storage: Arc<Storage>,
    shape: Arc<[usize]>,
    dtype: DType,
    format: MemoryFormat,
    node: Option<Arc<Node>>,
}

/// Writes a tensor's elements. (Behind `dyn FnMut` each closure would be compiled twice: such a
/// pointer can also consume what it points to.)
trait Fill {
    fn run(&mut self, storage: &mut Storage) -> Result<()>;
}

impl<F: FnMut(&mut Storage) -> Result<()>> Fill for F {
    fn run(&mut self, storage: &mut Storage) -> Result<()> {
        self(storage)
    }
}

impl Tensor {
    /// Puts a tensor together; the storage's length must fit.
    pub(crate) fn from_storage(storage: Storage, shape: &[usize], dtype: DType, format: MemoryFormat) -> Tensor {
        debug_assert_eq!(storage.len(), shape::numel(shape) * dtype.size());
        debug_assert!(format == MemoryFormat::RowMajor || shape.len() == 4);
        Tensor { storage: Arc::new(storage), shape: shape.into(), dtype, format, node: None }
    }

    /// A new tensor whose elements, in memory order, `fill` writes. Their content before is unspecified.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when memory cannot hold it, or the scratch memory of the kernels that `fill` runs.
    pub(crate) fn build<T: Element>(shape: &[usize], format: MemoryFormat, mut fill: impl FnMut(&mut [T])) -> Result<Tensor> {
        Tensor::build_storage(T::DTYPE, shape, format, &mut |storage: &mut Storage| {
            fill(storage.slice_mut());
            Ok(())
        })
    }

    /// As [`build`](Self::build), for kernels that can fail on the values they meet.
    pub(crate) fn try_build<T: Element>(
        shape: &[usize],
        format: MemoryFormat,
        mut fill: impl FnMut(&mut [T]) -> Result<()>,
    ) -> Result<Tensor> {
        Tensor::build_storage(T::DTYPE, shape, format, &mut |storage: &mut Storage| fill(storage.slice_mut()))
    }

    /// As [`try_build`](Self::try_build), compiled once for all kernels. Calls `fill` at most once.
    fn build_storage(dtype: DType, shape: &[usize], format: MemoryFormat, fill: &mut dyn Fill) -> Result<Tensor> {
        let Some(length) = shape::try_numel(shape) else { return Err(shape::too_large(shape)) };
        if meta::is_meta() {
            return Ok(Tensor::untouched(dtype, shape, format));
        }
        let of_tensor = |source| Error::OutOfMemory { what: format!("a tensor {shape:?} of {dtype}"), source };
        let mut storage = Storage::uninit(length, dtype).map_err(of_tensor)?;
        catching(|| fill.run(&mut storage))??;
        Ok(Tensor::from_storage(storage, shape, dtype, format))
    }

    /// Zeros that take no memory until they are looked at, for [meta runs](meta).
    #[cold]
    fn untouched(dtype: DType, shape: &[usize], format: MemoryFormat) -> Tensor {
        Tensor::from_storage(Storage::untouched(shape::numel(shape), dtype), shape, dtype, format)
    }

    /// Makes sure that the elements are there, which those of a meta run need not be.
    pub(crate) fn touch(&self) -> Result<()> {
        Ok(self.storage.touch()?)
    }

    /// The size of each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The size of one dimension, negative to count from the end.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is no such dimension.
    pub fn size(&self, dim: impl Dim) -> Result<usize> {
        Ok(self.shape[shape::resolve_size("size", dim, self.shape())?])
    }

    /// The number of dimensions.
    pub fn ndim(&self) -> usize {
        self.shape.len()
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        shape::numel(&self.shape)
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// How the elements lie in memory.
    pub fn memory_format(&self) -> MemoryFormat {
        self.format
    }

    /// The elements in memory order.
    ///
    /// # Panics
    /// When `T` is not the tensor's type: callers have dispatched on it.
    pub(crate) fn data<T: Element>(&self) -> &[T] {
        assert_eq!(T::DTYPE, self.dtype);
        self.storage.slice()
    }

    /// The elements for writing, when nobody else holds them.
    pub(crate) fn data_mut<T: Element>(&mut self) -> Option<&mut [T]> {
        assert_eq!(T::DTYPE, self.dtype);
        Some(Arc::get_mut(&mut self.storage)?.slice_mut())
    }

    /// The elements for writing; copied first when somebody else holds them.
    pub(crate) fn make_mut<T: Element>(&mut self) -> Result<&mut [T]> {
        if !self.is_unique() {
            let copy = Tensor::build(&self.shape, self.format, |out: &mut [T]| out.copy_from_slice(self.data()))?;
            *self = copy.with_node(self.node.take());
        }
        Ok(self.data_mut().expect("unique, or just made"))
    }

    /// Whether this handle is the only one of its elements, so that they may be overwritten.
    pub(crate) fn is_unique(&mut self) -> bool {
        Arc::get_mut(&mut self.storage).is_some()
    }

    /// Whether both are handles of the same elements.
    pub(crate) fn shares_elements(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.storage, &other.storage)
    }

    /// The same elements under another shape of as many, in memory order.
    pub(crate) fn with_shape(&self, shape: &[usize], format: MemoryFormat) -> Tensor {
        debug_assert_eq!(shape::numel(shape), self.numel());
        Tensor { storage: Arc::clone(&self.storage), shape: shape.into(), dtype: self.dtype, format, node: None }
    }

    /// This tensor as an input of a recorded operation.
    pub(crate) fn edge(&self) -> node::Edge {
        node::Edge { node: self.node.clone(), shape: Arc::clone(&self.shape), dtype: self.dtype }
    }

    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }

    pub(crate) fn with_node(mut self, node: Option<Arc<Node>>) -> Tensor {
        self.node = node;
        self
    }

    /// The same values without history: no gradient flows through the result.
    pub fn detach(&self) -> Tensor {
        self.clone().with_node(None)
    }

    /// Fails with [`Error::DType`] unless the tensor is floating point.
    pub(crate) fn expect_float(&self, op: &'static str) -> Result<()> {
        if self.dtype.is_float() {
            return Ok(());
        }
        Err(Error::DType { op, expected: "f32 or f64", got: self.dtype })
    }

    /// Fails with [`Error::DType`] unless the tensor has this type.
    pub(crate) fn expect_dtype(&self, op: &'static str, dtype: DType) -> Result<()> {
        if self.dtype == dtype {
            return Ok(());
        }
        let expected = match dtype {
            DType::U8 => "u8",
            DType::I64 => "i64",
            DType::F32 => "f32",
            DType::F64 => "f64",
        };
        Err(Error::DType { op, expected, got: self.dtype })
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({:?}, {}, {:?}", self.shape, self.dtype, self.format)?;
        if let Some(node) = &self.node {
            write!(f, ", {}", node.op)?;
        }
        f.write_str(")")
    }
}
