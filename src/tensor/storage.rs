//! A tensor's elements: a recycled aligned block, or a vector that came from outside.

use crate::kernels::memory::Block;
use crate::tensor::dtype::{DType, Element};

/// A vector that a tensor took over without copying.
#[doc(hidden)]
pub enum Adopted {
    U8(Vec<u8>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

pub(crate) enum Storage {
    Block(Block),
    Adopted(Adopted),
}

impl Storage {
    /// Room for `length` elements, content unspecified.
    pub(crate) fn uncleared(length: usize, dtype: DType) -> Storage {
        Storage::Block(Block::uncleared(length * dtype.size()))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Storage::Block(block) => block.as_slice(),
            Storage::Adopted(Adopted::U8(data)) => data,
            Storage::Adopted(Adopted::I64(data)) => bytemuck::cast_slice(data),
            Storage::Adopted(Adopted::F32(data)) => bytemuck::cast_slice(data),
            Storage::Adopted(Adopted::F64(data)) => bytemuck::cast_slice(data),
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Storage::Block(block) => block.as_mut_slice(),
            Storage::Adopted(Adopted::U8(data)) => data,
            Storage::Adopted(Adopted::I64(data)) => bytemuck::cast_slice_mut(data),
            Storage::Adopted(Adopted::F32(data)) => bytemuck::cast_slice_mut(data),
            Storage::Adopted(Adopted::F64(data)) => bytemuck::cast_slice_mut(data),
        }
    }

    pub(crate) fn slice<T: Element>(&self) -> &[T] {
        bytemuck::cast_slice(self.bytes())
    }

    pub(crate) fn slice_mut<T: Element>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(self.bytes_mut())
    }
}
