//! The tensor: an immutable, shared, dense array whose element type is a run-time value.
//!
//! A [`Tensor`] is a handle: cloning it shares the elements. Shapes are as in PyTorch, images are
//! `[N, C, H, W]`. The order of a 4-D tensor's elements in memory is its [`MemoryFormat`], which
//! users need not know: every operation accepts both formats. There are no views and no strides;
//! strided work that is not performance-critical uses `ndarray` views of the same memory.

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
mod pair;
pub(crate) mod rng;
pub(crate) mod shape;
pub(crate) mod storage;

use std::fmt;
use std::sync::{Arc, Weak};

pub use compare::{Difference, Tolerance};
pub use dtype::{DType, Element};
pub(crate) use dtype::{with_dtype, with_float};
use node::Node;
pub use pair::{Factors, Pair};
pub use rng::{manual_seed, manual_seed_all};
pub use shape::{Dim, Dims, MemoryFormat, ReshapeDims};
use storage::Storage;

use crate::error::{Error, Result};
use crate::kernels::runtime::allocator::catching;

/// A dense array of `f32`, `f64`, `i64` or `u8`, with the history that autograd needs.
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
    /// Makes a tensor from its parts; the storage's length must match the shape.
    pub(crate) fn from_storage(storage: Storage, shape: &[usize], dtype: DType, format: MemoryFormat) -> Tensor {
        debug_assert_eq!(storage.len(), shape::numel(shape) * dtype.size());
        debug_assert!(format == MemoryFormat::RowMajor || shape.len() == 4);
        Tensor { storage: Arc::new(storage), shape: shape.into(), dtype, format, node: None }
    }

    /// Makes a tensor whose elements `fill` writes, in memory order. Their earlier content is
    /// unspecified.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when memory cannot hold the tensor, or the scratch memory of the
    /// kernels that `fill` runs.
    pub(crate) fn build<T: Element>(shape: &[usize], format: MemoryFormat, mut fill: impl FnMut(&mut [T])) -> Result<Tensor> {
        Tensor::build_storage(T::DTYPE, shape, format, &mut |storage: &mut Storage| {
            fill(storage.slice_mut());
            Ok(())
        })
    }

    /// Makes a tensor as [`build`](Self::build) does, for kernels that can fail on the values they
    /// read.
    pub(crate) fn try_build<T: Element>(
        shape: &[usize],
        format: MemoryFormat,
        mut fill: impl FnMut(&mut [T]) -> Result<()>,
    ) -> Result<Tensor> {
        Tensor::build_storage(T::DTYPE, shape, format, &mut |storage: &mut Storage| fill(storage.slice_mut()))
    }

    /// Makes a tensor as [`try_build`](Self::try_build) does, compiled once for all kernels. Calls
    /// `fill` at most once.
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

    /// Makes zeros that take no memory until they are read, for [meta runs](meta).
    #[cold]
    fn untouched(dtype: DType, shape: &[usize], format: MemoryFormat) -> Tensor {
        Tensor::from_storage(Storage::untouched(shape::numel(shape), dtype), shape, dtype, format)
    }

    /// Allocates the elements if they have no memory yet, as in a meta run.
    pub(crate) fn touch(&self) -> Result<()> {
        Ok(self.storage.touch()?)
    }

    /// Returns the size of each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the size of one dimension; a negative `dim` counts from the end.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is no such dimension.
    pub fn size(&self, dim: impl Dim) -> Result<usize> {
        Ok(self.shape[shape::resolve_size("size", dim, self.shape())?])
    }

    /// Returns the number of dimensions.
    pub fn ndim(&self) -> usize {
        self.shape.len()
    }

    /// Returns the number of elements.
    pub fn numel(&self) -> usize {
        shape::numel(&self.shape)
    }

    /// Returns the element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Returns the order of the elements in memory.
    pub fn memory_format(&self) -> MemoryFormat {
        self.format
    }

    /// Returns the elements in memory order.
    ///
    /// # Panics
    /// When `T` is not the tensor's type: callers must have dispatched on it.
    pub(crate) fn data<T: Element>(&self) -> &[T] {
        assert_eq!(T::DTYPE, self.dtype);
        self.storage.slice()
    }

    /// Returns the elements for writing, if no other handle shares them.
    pub(crate) fn data_mut<T: Element>(&mut self) -> Option<&mut [T]> {
        assert_eq!(T::DTYPE, self.dtype);
        Some(Arc::get_mut(&mut self.storage)?.slice_mut())
    }

    /// Returns the elements for writing; copies them first if another handle shares them.
    pub(crate) fn make_mut<T: Element>(&mut self) -> Result<&mut [T]> {
        if !self.is_unique() {
            let copy = Tensor::build(&self.shape, self.format, |out: &mut [T]| out.copy_from_slice(self.data()))?;
            *self = copy.with_node(self.node.take());
        }
        Ok(self.data_mut().expect("unique, or just made"))
    }

    /// Returns whether this handle is the only one of its elements, so that they may be
    /// overwritten.
    pub(crate) fn is_unique(&mut self) -> bool {
        Arc::get_mut(&mut self.storage).is_some()
    }

    /// Returns whether both are handles of the same elements.
    pub(crate) fn shares_elements(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.storage, &other.storage)
    }

    /// Returns a handle that identifies the elements without keeping them. While it exists, their
    /// address stays their own, and no operation overwrites them in place.
    pub(crate) fn storage_handle(&self) -> Weak<Storage> {
        Arc::downgrade(&self.storage)
    }

    /// Returns the same elements, in memory order, under another shape with the same number of
    /// elements.
    pub(crate) fn with_shape(&self, shape: &[usize], format: MemoryFormat) -> Tensor {
        debug_assert_eq!(shape::numel(shape), self.numel());
        Tensor { storage: Arc::clone(&self.storage), shape: shape.into(), dtype: self.dtype, format, node: None }
    }

    /// Returns this tensor as an input of a recorded operation.
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

    /// Returns the same values without history: no gradient flows through the result.
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
        Err(Error::DType { op, expected: dtype.name(), got: self.dtype })
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
