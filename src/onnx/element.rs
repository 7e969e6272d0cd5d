//! The element types of ONNX, and the tensors that hold them here.

use super::proto::tensor_proto::DataType;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// An element type of ONNX.
///
/// Tensors of this crate hold floating point of up to 32 bits as `f32`, `double` as `f64`, bytes
/// and booleans as `u8`, and all other integers as `i64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum ElementType {
    Float8E4m3fn,
    Float8E4m3fnuz,
    Float8E5m2,
    Float8E5m2fnuz,
    Float16,
    Bfloat16,
    Float32,
    Float64,
    Bool,
    Int2,
    Int4,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint2,
    Uint4,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
}

use ElementType::*;

/// Each type with its number in files, ONNX's name, and the bits of an element.
const TYPES: &[(ElementType, DataType, &str, u32)] = &[
    (Float8E4m3fn, DataType::Float8e4m3fn, "float8e4m3fn", 8),
    (Float8E4m3fnuz, DataType::Float8e4m3fnuz, "float8e4m3fnuz", 8),
    (Float8E5m2, DataType::Float8e5m2, "float8e5m2", 8),
    (Float8E5m2fnuz, DataType::Float8e5m2fnuz, "float8e5m2fnuz", 8),
    (Float16, DataType::Float16, "float16", 16),
    (Bfloat16, DataType::Bfloat16, "bfloat16", 16),
    (Float32, DataType::Float, "float", 32),
    (Float64, DataType::Double, "double", 64),
    (Bool, DataType::Bool, "bool", 8),
    (Int2, DataType::Int2, "int2", 2),
    (Int4, DataType::Int4, "int4", 4),
    (Int8, DataType::Int8, "int8", 8),
    (Int16, DataType::Int16, "int16", 16),
    (Int32, DataType::Int32, "int32", 32),
    (Int64, DataType::Int64, "int64", 64),
    (Uint2, DataType::Uint2, "uint2", 2),
    (Uint4, DataType::Uint4, "uint4", 4),
    (Uint8, DataType::Uint8, "uint8", 8),
    (Uint16, DataType::Uint16, "uint16", 16),
    (Uint32, DataType::Uint32, "uint32", 32),
    (Uint64, DataType::Uint64, "uint64", 64),
];

impl ElementType {
    fn row(self) -> &'static (ElementType, DataType, &'static str, u32) {
        TYPES.iter().find(|row| row.0 == self).expect("every type has a row")
    }

    /// Returns the type of this number in ONNX files.
    pub(super) fn of_code(code: i32) -> std::result::Result<ElementType, String> {
        TYPES.iter().find(|row| row.1 as i32 == code).map(|row| row.0).ok_or_else(|| {
            let name = DataType::try_from(code).map_or_else(|_| code.to_string(), |named| named.as_str_name().to_lowercase());
            format!("element type {name} is not supported; floating point of 8 to 64 bits, bool and integers of 2 to 64 bits are")
        })
    }

    /// Returns ONNX's name of the type.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Returns the number of bits of an element in a file.
    pub(super) fn bits(self) -> u32 {
        self.row().3
    }

    /// Whether the type is floating point.
    pub fn is_float(self) -> bool {
        matches!(self, Float8E4m3fn | Float8E4m3fnuz | Float8E5m2 | Float8E5m2fnuz | Float16 | Bfloat16 | Float32 | Float64)
    }

    /// Returns the type of tensors that hold such elements here.
    pub fn dtype(self) -> DType {
        match self {
            Float64 => DType::F64,
            Bool | Uint8 => DType::U8,
            _ if self.is_float() => DType::F32,
            _ => DType::I64,
        }
    }

    /// Returns the type of ONNX whose elements a tensor of this type holds exactly.
    pub(super) fn of_dtype(dtype: DType) -> ElementType {
        match dtype {
            DType::F32 => Float32,
            DType::F64 => Float64,
            DType::I64 => Int64,
            DType::U8 => Uint8,
        }
    }

    /// Returns the least and the greatest integer of the type; `None` for floating point.
    pub(super) fn range(self) -> Option<[i64; 2]> {
        let bits = self.bits();
        match self {
            _ if self.is_float() => None,
            Bool => Some([0, 1]),
            Int64 | Uint64 => Some([i64::MIN, i64::MAX]),
            Uint2 | Uint4 | Uint8 | Uint16 | Uint32 => Some([0, (1 << bits) - 1]),
            _ => Some([-(1 << (bits - 1)), (1 << (bits - 1)) - 1]),
        }
    }

    /// Returns an integer reduced to the type's bits, as overflow does.
    pub(super) fn wrap(self, value: i64) -> i64 {
        match self.range() {
            Some([least, greatest]) if self.bits() < 64 && self != Bool => least + (value - least).rem_euclid(greatest - least + 1),
            _ => value,
        }
    }
}

/// A tensor, and the type of ONNX that its elements have.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) tensor: Tensor,
    pub(super) element: ElementType,
}

impl Value {
    /// Converts the result of an operator to the tensor type of `element`; integers that exceed it
    /// wrap.
    pub(super) fn of(tensor: Tensor, element: ElementType) -> Result<Value> {
        let dtype = element.dtype();
        if !tensor.dtype().is_float() && element.range().is_some() && element.bits() < 64 && element != Bool && tensor.dtype() != DType::U8
        {
            let [least, greatest] = element.range().expect("checked above");
            let exceeds = |&x: &i64| x < least || x > greatest;
            let values = tensor.to_vec::<i64>()?;
            if values.iter().any(exceeds) {
                let wrapped = values.into_iter().map(|x| element.wrap(x)).collect();
                return Ok(Value { tensor: Tensor::from_vec::<i64>(wrapped, tensor.shape())?.to_dtype(dtype)?, element });
            }
        }
        Ok(Value { tensor: tensor.to_dtype(dtype)?, element })
    }

    /// Returns the elements as integers.
    pub(super) fn ints(&self) -> Result<Vec<i64>> {
        match self.tensor.dtype() {
            DType::I64 => self.tensor.to_vec::<i64>(),
            DType::U8 => Ok(self.tensor.to_vec::<u8>()?.into_iter().map(i64::from).collect()),
            got => Err(Error::DType { op: "onnx", expected: "integers", got }),
        }
    }

    /// Returns the elements as `f64`.
    pub(super) fn floats(&self) -> Result<Vec<f64>> {
        match self.tensor.dtype() {
            DType::F32 => Ok(self.tensor.to_vec::<f32>()?.into_iter().map(f64::from).collect()),
            DType::F64 => self.tensor.to_vec::<f64>(),
            _ => Ok(self.ints()?.into_iter().map(|x| x as f64).collect()),
        }
    }

    /// Returns the one element as `f64`.
    pub(super) fn scalar(&self) -> Result<f64> {
        match self.tensor.numel() {
            1 => Ok(self.floats()?[0]),
            _ => Err(Error::shape("onnx", format!("expected one element, got shape {:?}", self.tensor.shape()))),
        }
    }

    /// Makes a tensor `[n]` of `int64`.
    pub(super) fn of_ints(values: Vec<i64>) -> Result<Value> {
        let shape = [values.len()];
        Ok(Value { tensor: Tensor::from_vec(values, shape)?, element: Int64 })
    }
}

/// Decodes a number of `exponent` and `mantissa` bits after a sign; see OCP's "8-bit Floating Point
/// Specification". With `finite` there is no infinity, and only all ones (or minus zero, with
/// `unsigned_zero`) is not a number.
fn small_float(byte: u8, exponent: u32, mantissa: u32, bias: i32, [finite, unsigned_zero]: [bool; 2]) -> f32 {
    let sign = if byte & 0x80 != 0 { -1.0 } else { 1.0 };
    let (e, m) = (i32::from(byte & 0x7f) >> mantissa, i32::from(byte) & ((1 << mantissa) - 1));
    let (last_e, last_m) = ((1 << exponent) - 1, (1 << mantissa) - 1);
    if unsigned_zero {
        if byte == 0x80 {
            return f32::NAN;
        }
    } else if e == last_e && (!finite || m == last_m) {
        return if !finite && m == 0 { sign * f32::INFINITY } else { f32::NAN };
    }
    let (m, e) = if e == 0 { (m as f32, 1) } else { ((m + (1 << mantissa)) as f32, e) };
    sign * m * 2.0f32.powi(e - bias - mantissa as i32)
}

/// Decodes a byte of one of the types of 8 bits.
pub(super) fn float8(element: ElementType, byte: u8) -> f32 {
    match element {
        Float8E4m3fn => small_float(byte, 4, 3, 7, [true, false]),
        Float8E4m3fnuz => small_float(byte, 4, 3, 8, [true, true]),
        Float8E5m2 => small_float(byte, 5, 2, 15, [false, false]),
        _ => small_float(byte, 5, 2, 16, [true, true]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_floats_decode_as_specified() {
        // The largest numbers and the smallest subnormals of ONNX's table of types.
        let cases = [
            (Float8E4m3fn, 0x7e, 448.0),
            (Float8E4m3fn, 0x01, 2f32.powi(-9)),
            (Float8E4m3fnuz, 0x7f, 240.0),
            (Float8E5m2, 0x7b, 57344.0),
            (Float8E5m2, 0xfc, f32::NEG_INFINITY),
            (Float8E5m2fnuz, 0x7f, 57344.0),
            (Float8E5m2fnuz, 0x01, 2f32.powi(-17)),
        ];
        for (element, byte, expected) in cases {
            assert_eq!(float8(element, byte), expected, "{element:?} {byte:#x}");
        }
        for (element, byte) in [(Float8E4m3fn, 0xff), (Float8E4m3fnuz, 0x80), (Float8E5m2, 0x7f), (Float8E5m2fnuz, 0x80)] {
            assert!(float8(element, byte).is_nan());
        }
    }

    #[test]
    fn integers_wrap_to_their_bits() {
        assert_eq!([Int8.wrap(128), Int8.wrap(-129), Uint8.wrap(-1), Int4.wrap(8), Uint32.wrap(1 << 32)], [-128, 127, 255, -8, 0]);
        assert_eq!(Int64.wrap(i64::MIN), i64::MIN);
    }
}
