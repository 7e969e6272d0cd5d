//! A tensor's elements: a recycled aligned block, a vector that came from outside, or, in a meta run, zeros without memory until they are read.

use std::sync::OnceLock;

use crate::kernels::runtime::allocator::{Block, OutOfMemory};
use crate::tensor::dtype::{DType, Element};

/// A vector that a tensor took over without copying.
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
    /// Takes no memory until its bytes are looked at.
    Untouched {
        length: usize,
        zeros: OnceLock<Block>,
    },
}

/// The zeros of an untouched storage.
///
/// # Panics
/// When memory cannot hold them. What hands elements to users calls [`Storage::touch`] first.
fn touched(length: usize, zeros: &OnceLock<Block>) -> &Block {
    zeros.get_or_init(|| zeroed(length).unwrap_or_else(|failure| panic!("out of memory: elements of a tensor in a meta run: {failure}")))
}

fn zeroed(length: usize) -> Result<Block, OutOfMemory> {
    let mut block = Block::uninit(length)?;
    block.as_mut_slice().fill(0);
    Ok(block)
}

impl Storage {
    /// Room for `length` elements, content unspecified.
    pub(crate) fn uninit(length: usize, dtype: DType) -> Result<Storage, OutOfMemory> {
        Ok(Storage::Block(Block::uninit(length.saturating_mul(dtype.size()))?))
    }

    /// `length` zeros that take no memory until they are looked at.
    pub(crate) fn untouched(length: usize, dtype: DType) -> Storage {
        Storage::Untouched { length: length * dtype.size(), zeros: OnceLock::new() }
    }

    /// The number of bytes, without looking at them.
    pub(crate) fn len(&self) -> usize {
        match self {
            Storage::Untouched { length, .. } => *length,
            touched => touched.bytes().len(),
        }
    }

    /// Makes sure that the bytes are there.
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
