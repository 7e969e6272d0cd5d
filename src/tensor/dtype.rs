//! Element types.

use std::fmt;

use crate::kernels::runtime::simd::Scalar;

/// The type of a tensor's elements, a run-time value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// Unsigned 8-bit integer: images, and the truth values (0 and 1) that comparisons return.
    U8,
    /// Signed 64-bit integer: labels and indices.
    I64,
    /// 32-bit floating point.
    F32,
    /// 64-bit floating point.
    F64,
}

impl DType {
    /// Returns the name, such as `f32`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            DType::U8 => "u8",
            DType::I64 => "i64",
            DType::F32 => "f32",
            DType::F64 => "f64",
        }
    }

    /// Returns the number of bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::U8 => 1,
            DType::F32 => 4,
            DType::I64 | DType::F64 => 8,
        }
    }

    /// Returns whether the type is `F32` or `F64`.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64)
    }

    /// Returns whether a number is in the type's range and, in an integer type, exact.
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            DType::U8 => f64::from(value as u8) == value,
            // 2^63 rounds down to the largest i64 and back up to itself.
            DType::I64 => value as i64 as f64 == value && value < (1u64 << 63) as f64,
            DType::F32 | DType::F64 => true,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that tensors hold: `f32`, `f64`, `i64` or `u8`.
pub trait Element: Scalar + sealed::Sealed {
    /// The run-time value for this type.
    const DTYPE: DType;

    #[doc(hidden)]
    fn adopt(data: Vec<Self>) -> super::storage::Owned;
    #[doc(hidden)]
    fn release(data: super::storage::Owned) -> Option<Vec<Self>>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! element {
    ($($type:ty => $variant:ident),*) => {$(
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: DType = DType::$variant;

            fn adopt(data: Vec<Self>) -> super::storage::Owned {
                super::storage::Owned::$variant(data)
            }
            fn release(data: super::storage::Owned) -> Option<Vec<Self>> {
                match data {
                    super::storage::Owned::$variant(data) => Some(data),
                    _ => None,
                }
            }
        }
    )*};
}
element!(u8 => U8, i64 => I64, f32 => F32, f64 => F64);

/// Runs an expression with `$T` bound to the element type that a [`DType`] names.
macro_rules! with_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::U8 => {
                type $T = u8;
                $body
            }
            $crate::DType::I64 => {
                type $T = i64;
                $body
            }
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
        }
    };
}
pub(crate) use with_dtype;

/// Runs an expression as [`with_dtype`] does for the floating-point types; for the others, returns
/// [`Error::DType`](crate::Error::DType) from the function.
macro_rules! with_float {
    ($dtype:expr, $op:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
            got => return Err($crate::Error::DType { op: $op, expected: "f32 or f64", got }),
        }
    };
}
pub(crate) use with_float;
