//! The memory of a tensor's elements: a recycled aligned block, a vector from outside, or, in a
//! meta run, zeros that take no memory until they are read.

use std::sync::OnceLock;

use crate::kernels::runtime::allocator::{Block, OutOfMemory};
use crate::tensor::dtype::{DType, Element};

/// A vector whose memory a tensor uses without copying.
#[doc(hidden)]
pub enum Owned {
    U8(Vec<u8>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

pub(crate) enum Storage {
    Block(Block),
    Owned(Owned),
    /// Zeros that take no memory until they are read.
    Untouched {
        length: usize,
        zeros: OnceLock<Block>,
    },
}

/// Returns the zeros of an untouched storage, allocated at the first call.
///
/// # Panics
/// When memory cannot hold them. Functions that return elements to users call [`Storage::touch`]
/// first.
fn touched(length: usize, zeros: &OnceLock<Block>) -> &Block {
    zeros.get_or_init(|| zeroed(length).unwrap_or_else(|failure| panic!("out of memory: elements of a tensor in a meta run: {failure}")))
}

fn zeroed(length: usize) -> Result<Block, OutOfMemory> {
    let mut block = Block::uninit(length)?;
    block.as_mut_slice().fill(0);
    Ok(block)
}

impl Storage {
    /// Allocates memory for `length` elements, content unspecified.
    pub(crate) fn uninit(length: usize, dtype: DType) -> Result<Storage, OutOfMemory> {
        Ok(Storage::Block(Block::uninit(length.saturating_mul(dtype.size()))?))
    }

    /// Makes `length` zeros that take no memory until they are read.
    pub(crate) fn untouched(length: usize, dtype: DType) -> Storage {
        Storage::Untouched { length: length * dtype.size(), zeros: OnceLock::new() }
    }

    /// Returns the number of bytes, without allocating them.
    pub(crate) fn len(&self) -> usize {
        match self {
            Storage::Untouched { length, .. } => *length,
            touched => touched.bytes().len(),
        }
    }

    /// Allocates the bytes if they have no memory yet.
    pub(crate) fn touch(&self) -> Result<(), OutOfMemory> {
        if let Storage::Untouched { length, zeros } = self
            && zeros.get().is_none()
        {
            let _ = zeros.set(zeroed(*length)?);
        }
        Ok(())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Storage::Block(block) => block.as_slice(),
            Storage::Untouched { length, zeros } => touched(*length, zeros).as_slice(),
            Storage::Owned(Owned::U8(data)) => data,
            Storage::Owned(Owned::I64(data)) => bytemuck::cast_slice(data),
            Storage::Owned(Owned::F32(data)) => bytemuck::cast_slice(data),
            Storage::Owned(Owned::F64(data)) => bytemuck::cast_slice(data),
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Storage::Block(block) => block.as_mut_slice(),
            Storage::Untouched { length, zeros } => {
                touched(*length, zeros);
                zeros.get_mut().expect("just touched").as_mut_slice()
            }
            Storage::Owned(Owned::U8(data)) => data,
            Storage::Owned(Owned::I64(data)) => bytemuck::cast_slice_mut(data),
            Storage::Owned(Owned::F32(data)) => bytemuck::cast_slice_mut(data),
            Storage::Owned(Owned::F64(data)) => bytemuck::cast_slice_mut(data),
        }
    }

    pub(crate) fn slice<T: Element>(&self) -> &[T] {
        bytemuck::cast_slice(self.bytes())
    }

    pub(crate) fn slice_mut<T: Element>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(self.bytes_mut())
    }
}
