//! Conversions to other dtypes, memory formats, vectors and `ndarray` arrays.

use std::sync::Arc;

use ndarray::{Array, ArrayD, ArrayViewD, Dimension, IxDyn, ShapeBuilder};
use num_traits::AsPrimitive;

use super::create::or_panic;
use super::storage::Storage;
use super::{DType, Element, MemoryFormat, Tensor, shape, with_dtype};
use crate::error::{Error, Result};
use crate::kernels::runtime::allocator;
use crate::kernels::{elementwise, transpose};

/// Returns a vector of these elements; fails when memory cannot hold it.
fn copied<T: Element>(elements: &[T]) -> Result<Vec<T>> {
    allocator::check(size_of_val(elements))?;
    Ok(elements.to_vec())
}

impl Tensor {
    /// Returns the same values in another memory format, without history; shares the elements where
    /// both formats agree.
    pub(crate) fn to_format(&self, format: MemoryFormat) -> Result<Tensor> {
        if self.format == format {
            return Ok(self.detach());
        }
        if shape::formats_agree(self.shape()) {
            let format = if self.ndim() == 4 { format } else { MemoryFormat::RowMajor };
            return Ok(self.with_shape(self.shape(), format));
        }
        let &[n, c, h, w] = self.shape() else { unreachable!("formats differ for 4-D tensors only") };
        let (rows, columns) = if format == MemoryFormat::ChannelsLast { (c, h * w) } else { (h * w, c) };
        with_dtype!(self.dtype(), T => {
            Tensor::build(self.shape(), format, |out: &mut [T]| transpose::transpose(n, rows, columns, self.data(), out))
        })
    }

    /// Returns the same values as another dtype, without history. Floating point to integer rounds
    /// towards zero and saturates, as Rust's `as`.
    pub(crate) fn cast(&self, dtype: DType) -> Result<Tensor> {
        if self.dtype() == dtype {
            return Ok(self.detach());
        }
        with_dtype!(self.dtype(), X => with_dtype!(dtype, Y => {
            Tensor::build(self.shape(), self.format, |out: &mut [Y]| {
                elementwise::map(self.data::<X>(), out, 1, |x| -> Y { x.as_() });
            })
        }))
    }

    /// Makes a tensor of an `ndarray` array of any dimension, without copying when it is dense in
    /// row-major or, for 4-D arrays, channels-last order.
    ///
    /// ```
    /// let t = convnet::Tensor::from_ndarray(ndarray::array![[1.0f32, 2.0], [3.0, 4.0]]);
    /// assert!(t.shape() == [2, 2]);
    /// ```
    pub fn from_ndarray<T: Element, D: Dimension>(array: Array<T, D>) -> Tensor {
        let array = array.into_dyn();
        let dims = array.shape().to_vec();
        if array.is_standard_layout() {
            let (data, offset) = array.into_raw_vec_and_offset();
            return Tensor::adopt(data, offset.unwrap_or(0), &dims, MemoryFormat::RowMajor);
        }
        if dims.len() == 4 && array.view().permuted_axes(IxDyn(&[0, 2, 3, 1])).is_standard_layout() {
            let (data, offset) = array.into_raw_vec_and_offset();
            return Tensor::adopt(data, offset.unwrap_or(0), &dims, MemoryFormat::ChannelsLast);
        }
        Tensor::from_view(array.view())
    }

    #[track_caller]
    fn adopt<T: Element>(data: Vec<T>, offset: usize, dims: &[usize], format: MemoryFormat) -> Tensor {
        let length = shape::numel(dims);
        if data.len() == length {
            return Tensor::from_storage(Storage::Owned(T::adopt(data)), dims, T::DTYPE, format);
        }
        or_panic(Tensor::build(dims, format, |out| out.copy_from_slice(&data[offset..offset + length])))
    }

    /// Copies an `ndarray` view, with any strides, into row-major order.
    #[track_caller]
    pub fn from_view<T: Element>(view: ArrayViewD<'_, T>) -> Tensor {
        or_panic(Tensor::try_from_view(view))
    }

    /// Copies as [`from_view`](Tensor::from_view) does, with an error when memory cannot hold the
    /// copy.
    pub(crate) fn try_from_view<T: Element>(view: ArrayViewD<'_, T>) -> Result<Tensor> {
        Tensor::build(view.shape(), MemoryFormat::RowMajor, |out| {
            let mut target = ndarray::ArrayViewMutD::from_shape(view.raw_dim(), out).expect("as many elements as the view");
            target.assign(&view);
        })
    }

    /// Returns the elements as an `ndarray` view in logical order, without copying.
    ///
    /// # Errors
    /// [`Error::DType`] when `T` is not the tensor's type.
    pub fn view<T: Element>(&self) -> Result<ArrayViewD<'_, T>> {
        self.expect_dtype("view", T::DTYPE)?;
        self.touch()?;
        Ok(ArrayViewD::from_shape(self.strided_shape(), self.data()).expect("a tensor is dense in its format"))
    }

    fn strided_shape(&self) -> ndarray::StrideShape<IxDyn> {
        if self.numel() == 0 || self.format == MemoryFormat::RowMajor {
            return IxDyn(self.shape()).into();
        }
        IxDyn(self.shape()).strides(IxDyn(&shape::strides(self.shape(), self.format)))
    }

    /// Copies the elements into an `ndarray` array in row-major order.
    ///
    /// # Errors
    /// [`Error::DType`] when `T` is not the tensor's type.
    pub fn to_ndarray<T: Element>(&self) -> Result<ArrayD<T>> {
        self.expect_dtype("to_ndarray", T::DTYPE)?;
        self.to_format(MemoryFormat::RowMajor)?.into_ndarray()
    }

    /// Moves the elements into an `ndarray` array; copies only when they are shared or are in
    /// recycled memory. The array's strides follow the memory format.
    ///
    /// # Errors
    /// [`Error::DType`] when `T` is not the tensor's type.
    pub fn into_ndarray<T: Element>(self) -> Result<ArrayD<T>> {
        self.expect_dtype("into_ndarray", T::DTYPE)?;
        self.touch()?;
        let dims = self.strided_shape();
        let data = match Arc::try_unwrap(self.storage) {
            Ok(Storage::Owned(data)) => T::release(data).expect("the dtype was checked"),
            Ok(storage) => copied(storage.slice())?,
            Err(shared) => copied(shared.slice())?,
        };
        Ok(ArrayD::from_shape_vec(dims, data).expect("a tensor is dense in its format"))
    }

    /// Copies the elements into a vector, in row-major order.
    ///
    /// # Errors
    /// [`Error::DType`] when `T` is not the tensor's type.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        self.expect_dtype("to_vec", T::DTYPE)?;
        self.touch()?;
        copied(self.to_format(MemoryFormat::RowMajor)?.data())
    }

    /// Returns the value of a tensor with one element.
    ///
    /// # Errors
    /// [`Error::Shape`] when the tensor has more or fewer elements, [`Error::DType`] when `T` is
    /// not the tensor's type.
    pub fn item<T: Element>(&self) -> Result<T> {
        self.expect_dtype("item", T::DTYPE)?;
        match self.numel() {
            1 => Ok(self.data()[0]),
            _ => Err(Error::shape("item", format!("expected one element, got shape {:?}", self.shape()))),
        }
    }
}
