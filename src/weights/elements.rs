//! Conversion of stored elements to tensors.

use super::alloc_limit::{AllocLimit, Parsed};
use crate::tensor::Tensor;
use crate::tensor::bytes;
pub(crate) use crate::tensor::bytes::{StoredDType, View};

/// NumPy's limit, which is PyTorch's too.
pub(crate) const MOST_DIMENSIONS: usize = 64;

/// Checks the number of dimensions of a tensor that a file describes.
pub(crate) fn check_rank(rank: usize) -> Result<(), String> {
    if rank <= MOST_DIMENSIONS {
        return Ok(());
    }
    Err(format!("{rank} dimensions are more than the {MOST_DIMENSIONS} that a tensor may have"))
}

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

/// Makes the tensor of a view of stored elements.
pub(crate) fn tensor(kind: StoredDType, view: &View, content: &[u8], limit: &mut AllocLimit) -> Parsed<Tensor> {
    check_rank(view.shape.len())?;
    limit.take(bytes::size_in_memory(kind, view, content.len())?)?;
    bytes::decode(kind, view, content)
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
