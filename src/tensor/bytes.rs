//! Conversion of bytes in files to elements of tensors.

use std::ops::Neg;

use super::{DType, Element, MemoryFormat, Tensor, shape};

/// An element type in a file, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StoredDType {
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
    pub(crate) fn size(self) -> usize {
        match self {
            StoredDType::I8 | StoredDType::U8 | StoredDType::Bool => 1,
            StoredDType::F16 | StoredDType::Bf16 | StoredDType::I16 | StoredDType::U16 => 2,
            StoredDType::F32 | StoredDType::I32 | StoredDType::U32 => 4,
            StoredDType::F64 | StoredDType::I64 => 8,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, StoredDType::F16 | StoredDType::Bf16 | StoredDType::F32 | StoredDType::F64)
    }

    /// Returns the tensor's type: `f32` or `f64` for floating point, `i64` for integers, `u8` for
    /// bytes and booleans.
    fn dtype(self) -> DType {
        match self {
            StoredDType::F16 | StoredDType::Bf16 | StoredDType::F32 => DType::F32,
            StoredDType::F64 => DType::F64,
            StoredDType::U8 | StoredDType::Bool => DType::U8,
            StoredDType::I8 | StoredDType::I16 | StoredDType::I32 | StoredDType::I64 | StoredDType::U16 | StoredDType::U32 => DType::I64,
        }
    }
}

/// The elements of a storage that make a tensor; offset and strides count elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
    /// Whether the elements' signs are inverted, which is PyTorch's negative bit; floating point
    /// only.
    pub(crate) negated: bool,
}

impl View {
    /// Makes a view of all elements; the last dimension is contiguous, or the first one in Fortran
    /// order. `None` when there are more elements than memory can hold.
    pub(crate) fn dense(shape: Vec<usize>, fortran: bool) -> Option<View> {
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
    fn checked_numel(&self, available: usize) -> Result<usize, String> {
        let View { offset, shape, strides, .. } = self;
        if shape.len() != strides.len() {
            return Err(format!("{} sizes and {} strides do not make a tensor", shape.len(), strides.len()));
        }
        let too_large = || format!("shape {shape:?} has more elements than memory can hold");
        // A size of 0 counts as 1, so that strides and partial products of an empty tensor can be
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

/// Returns the size in bytes of the tensor that `view` makes of `length` stored bytes.
pub(crate) fn size_in_memory(kind: StoredDType, view: &View, length: usize) -> Result<usize, String> {
    if !length.is_multiple_of(kind.size()) {
        return Err(format!("{length} bytes are no whole number of {kind:?}"));
    }
    let count = view.checked_numel(length / kind.size())?;
    if view.negated && !kind.is_float() {
        return Err(format!("{kind:?} with the negative bit is not supported"));
    }
    Ok(count.saturating_mul(kind.dtype().size()))
}

/// Makes the tensor that `view` selects from stored elements.
pub(crate) fn decode(kind: StoredDType, view: &View, bytes: &[u8]) -> Result<Tensor, String> {
    size_in_memory(kind, view, bytes.len())?;
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

/// Reads floating-point elements as [`gather`] does, with inverted signs if the view is negated.
fn floats<const N: usize, T: Element + Neg<Output = T>>(view: &View, bytes: &[u8], decode: impl Fn([u8; N]) -> T) -> crate::Result<Tensor> {
    if view.negated { gather(view, bytes, |b| -decode(b)) } else { gather(view, bytes, decode) }
}

/// Reads the elements of a checked view, in row-major order.
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

/// Converts an IEEE half-precision number (1 sign bit, 5 bits of exponent, 10 of mantissa) to
/// `f32`.
fn f16_to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let (exponent, mantissa) = (u32::from(half >> 10) & 0x1f, u32::from(half & 0x3ff));
    match exponent {
        // Subnormals: mantissa · 2⁻²⁴, exact in f32.
        0 => f32::from_bits(sign | (mantissa as f32 * 2.0f32.powi(-24)).to_bits()),
        0x1f => f32::from_bits(sign | 0x7f80_0000 | mantissa << 13),
        _ => f32::from_bits(sign | (exponent + 127 - 15) << 23 | mantissa << 13),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_decodes_as_in_ieee_754() {
        let cases = [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x0400, 6.103_515_6e-5),
            (0x3555, 0.333_251_95),
            (0x7c00, f32::INFINITY),
            (0xfc00, f32::NEG_INFINITY),
        ];
        for (half, expected) in cases {
            assert_eq!(f16_to_f32(half), expected, "{half:#x}");
        }
        assert_eq!(f16_to_f32(0x8000).to_bits(), (-0.0f32).to_bits());
        assert!(f16_to_f32(0x7e00).is_nan());
    }
}
