//! Conversion of stored elements to tensors.

use std::ops::Neg;

use super::alloc_limit::{AllocLimit, Parsed};
use crate::nn::state::safetensors::f16_to_f32;
use crate::tensor::{DType, Element, MemoryFormat, Tensor, shape};

/// NumPy's limit, which is PyTorch's too.
pub(super) const MOST_DIMENSIONS: usize = 64;

/// An element type that is recognised and not read.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Unread {
    /// PyTorch's name of the dtype.
    pub(super) name: &'static str,
    /// PyTorch's name of the typed storage, without `Storage`; empty when there is none.
    pub(super) storage: &'static str,
    /// Bytes of one element.
    size: usize,
}

/// The element types of PyTorch that have no counterpart here.
pub(super) const UNREAD: &[Unread] = &[
    Unread { name: "complex64", storage: "ComplexFloat", size: 8 },
    Unread { name: "complex128", storage: "ComplexDouble", size: 16 },
    Unread { name: "complex32", storage: "ComplexHalf", size: 4 },
    Unread { name: "qint8", storage: "QInt8", size: 1 },
    Unread { name: "quint8", storage: "QUInt8", size: 1 },
    Unread { name: "qint32", storage: "QInt32", size: 4 },
    Unread { name: "quint4x2", storage: "QUInt4x2", size: 1 },
    Unread { name: "quint2x4", storage: "QUInt2x4", size: 1 },
    Unread { name: "uint64", storage: "", size: 8 },
    Unread { name: "float8_e4m3fn", storage: "", size: 1 },
    Unread { name: "float8_e5m2", storage: "", size: 1 },
    Unread { name: "float8_e4m3fnuz", storage: "", size: 1 },
    Unread { name: "float8_e5m2fnuz", storage: "", size: 1 },
    Unread { name: "float8_e8m0fnu", storage: "", size: 1 },
    Unread { name: "float4_e2m1fn_x2", storage: "", size: 1 },
];

impl Unread {
    /// Returns the reason why a tensor of this type is not read.
    pub(super) fn reason(&self) -> String {
        format!("dtype {} is not supported; floating point of 16 to 64 bits, bool and integers up to i64 are", self.name)
    }
}

/// An element type that a pickle names: one that is read, or one that is only recognised.
pub(super) type NamedDType = Result<StoredDType, &'static Unread>;

/// Returns the number of bytes of one element in the file.
pub(super) fn named_size(dtype: NamedDType) -> usize {
    dtype.map_or_else(|unread| unread.size, StoredDType::size)
}

/// An element type as files have it, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum StoredDType {
    F16,
    Bf16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    Bool,
}

impl StoredDType {
    /// Returns the number of bytes of one element in the file.
    pub(super) fn size(self) -> usize {
        match self {
            StoredDType::I8 | StoredDType::U8 | StoredDType::Bool => 1,
            StoredDType::F16 | StoredDType::Bf16 | StoredDType::I16 | StoredDType::U16 => 2,
            StoredDType::F32 | StoredDType::I32 | StoredDType::U32 => 4,
            StoredDType::F64 | StoredDType::I64 => 8,
        }
    }

    pub(super) fn is_float(self) -> bool {
        matches!(self, StoredDType::F16 | StoredDType::Bf16 | StoredDType::F32 | StoredDType::F64)
    }

    /// Returns the type of the tensor: floating point at least `f32`, integers `i64`, bytes and
    /// truth values `u8`.
    fn dtype(self) -> DType {
        match self {
            StoredDType::F16 | StoredDType::Bf16 | StoredDType::F32 => DType::F32,
            StoredDType::F64 => DType::F64,
            StoredDType::U8 | StoredDType::Bool => DType::U8,
            StoredDType::I8 | StoredDType::I16 | StoredDType::I32 | StoredDType::I64 | StoredDType::U16 | StoredDType::U32 => DType::I64,
        }
    }
}

/// Which elements of a storage make a tensor; offset and strides count elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct View {
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
    /// Whether the elements' signs are inverted, which is PyTorch's negative bit; floating point
    /// only.
    pub(super) negated: bool,
}

impl View {
    /// Makes a view of all elements, the last dimension contiguous, or the first in Fortran's
    /// order. `None` when that is more than memory can hold.
    pub(super) fn dense(shape: Vec<usize>, fortran: bool) -> Option<View> {
        let (mut strides, mut step) = (vec![0; shape.len()], 1usize);
        let mut put = |axis: usize| {
            strides[axis] = step;
            step = step.checked_mul(shape[axis].max(1))?;
            Some(())
        };
        if fortran {
            (0..shape.len()).try_for_each(&mut put)?
        } else {
            (0..shape.len()).rev().try_for_each(&mut put)?
        }
        Some(View { offset: 0, shape, strides, negated: false })
    }

    fn is_row_major(&self) -> bool {
        let mut step = 1usize;
        self.shape.iter().zip(&self.strides).rev().all(|(&dim, &stride)| {
            let fits = dim <= 1 || stride == step;
            step = step.saturating_mul(dim.max(1));
            fits
        })
    }

    /// Returns the number of elements, if all of them are among the first `available` of a storage.
    fn checked_numel(&self, available: usize) -> Parsed<usize> {
        let View { offset, shape, strides, .. } = self;
        if shape.len() != strides.len() || shape.len() > MOST_DIMENSIONS {
            return Err(format!("{} sizes and {} strides do not make a tensor", shape.len(), strides.len()));
        }
        let too_large = || format!("shape {shape:?} has more elements than memory can hold");
        // Without the zeros, so that strides and partial products of an empty tensor can be
        // computed as well.
        let extents: Vec<usize> = shape.iter().map(|&dim| dim.max(1)).collect();
        let count = shape::try_numel(&extents).ok_or_else(too_large)?;
        if shape.contains(&0) {
            return Ok(0);
        }
        let last = shape.iter().zip(strides).try_fold(*offset, |at, (&dim, &stride)| at.checked_add((dim - 1).checked_mul(stride)?));
        match last {
            Some(last) if last < available => Ok(count),
            _ => Err(format!("shape {shape:?} with strides {strides:?} from {offset} reaches outside its {available} elements")),
        }
    }
}

/// Makes the tensor of a view of stored elements.
pub(super) fn tensor(kind: StoredDType, view: &View, bytes: &[u8], budget: &mut AllocLimit) -> Parsed<Tensor> {
    if !bytes.len().is_multiple_of(kind.size()) {
        return Err(format!("{} bytes are no whole number of {kind:?}", bytes.len()));
    }
    let (count, dtype) = (view.checked_numel(bytes.len() / kind.size())?, kind.dtype());
    if view.negated && !kind.is_float() {
        return Err(format!("{kind:?} with the negative bit is not supported"));
    }
    budget.take(count.saturating_mul(dtype.size()))?;
    match kind {
        StoredDType::F16 => floats(view, bytes, |b| f16_to_f32(u16::from_le_bytes(b))),
        StoredDType::Bf16 => floats(view, bytes, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
        StoredDType::F32 => floats(view, bytes, f32::from_le_bytes),
        StoredDType::F64 => floats(view, bytes, f64::from_le_bytes),
        StoredDType::I8 => gather(view, bytes, |b| i64::from(i8::from_le_bytes(b))),
        StoredDType::I16 => gather(view, bytes, |b| i64::from(i16::from_le_bytes(b))),
        StoredDType::I32 => gather(view, bytes, |b| i64::from(i32::from_le_bytes(b))),
        StoredDType::I64 => gather(view, bytes, i64::from_le_bytes),
        StoredDType::U8 => gather(view, bytes, |[b]| b),
        StoredDType::U16 => gather(view, bytes, |b| i64::from(u16::from_le_bytes(b))),
        StoredDType::U32 => gather(view, bytes, |b| i64::from(u32::from_le_bytes(b))),
        StoredDType::Bool => gather(view, bytes, |[b]| u8::from(b != 0)),
    }
    .map_err(|error| error.to_string())
}

/// Reads elements as [`gather`] does, with the sign of the view.
fn floats<const N: usize, T: Element + Neg<Output = T>>(view: &View, bytes: &[u8], decode: impl Fn([u8; N]) -> T) -> crate::Result<Tensor> {
    if view.negated { gather(view, bytes, |b| -decode(b)) } else { gather(view, bytes, decode) }
}

/// Reads the elements of a checked view, row by row.
fn gather<const N: usize, T: Element>(view: &View, bytes: &[u8], decode: impl Fn([u8; N]) -> T) -> crate::Result<Tensor> {
    let (values, _) = bytes.as_chunks::<N>();
    Tensor::build(&view.shape, MemoryFormat::RowMajor, |out: &mut [T]| {
        if out.is_empty() {
            return;
        }
        if view.is_row_major() {
            out.iter_mut().zip(&values[view.offset..]).for_each(|(x, &value)| *x = decode(value));
            return;
        }
        // A dimension of size 1 may have any stride, even one that overflows.
        let axes: Vec<(usize, usize)> = view.shape.iter().copied().zip(view.strides.iter().copied()).filter(|&(dim, _)| dim > 1).collect();
        let (mut index, mut at) = (vec![0; axes.len()], view.offset);
        for x in out {
            *x = decode(values[at]);
            for (i, &(dim, stride)) in index.iter_mut().zip(&axes).rev() {
                *i += 1;
                at += stride;
                if *i < dim {
                    break;
                }
                *i = 0;
                at -= stride * dim;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(offset: usize, shape: &[usize], strides: &[usize]) -> View {
        View { offset, shape: shape.to_vec(), strides: strides.to_vec(), negated: false }
    }

    #[test]
    fn strided_views_read_the_elements_that_they_name() {
        let bytes: Vec<u8> = (0..12).collect();
        let read = |view| tensor(StoredDType::U8, &view, &bytes, &mut AllocLimit::new(12)).unwrap().to_vec::<u8>().unwrap();
        assert_eq!(read(view(0, &[4, 3], &[1, 4])), [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]);
        assert_eq!(read(view(5, &[2, 1, 2], &[4, usize::MAX, 0])), [5, 5, 9, 9]);
        assert!(read(view(99, &[0, 3], &[3, 1])).is_empty());
        assert_eq!(read(view(11, &[], &[])), [11]);
    }

    #[test]
    fn views_that_reach_outside_or_overflow_are_errors() {
        let huge = usize::MAX / 2;
        let views = [
            view(0, &[13], &[1]),
            view(12, &[], &[]),
            view(usize::MAX, &[2], &[1]),
            view(0, &[3], &[huge + 1]),
            view(0, &[huge, huge], &[0, 0]),
            view(0, &[0, huge, huge], &[1, 1, 1]),
            view(0, &[2], &[1, 1]),
            view(0, &[1; 65], &[1; 65]),
            view(0, &[1 << 40], &[0]),
        ];
        for view in views {
            assert!(tensor(StoredDType::U8, &view, &[0; 12], &mut AllocLimit::new(12)).is_err(), "{view:?}");
        }
    }
}
