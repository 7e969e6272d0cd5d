//! The element types of ONNX, and the tensors that hold them here.

use super::proto::tensor_proto::DataType;
use crate::tensor::meta::is_meta;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// An element type of ONNX.
///
/// Tensors of this crate hold floating point of up to 32 bits as `f32`, `double` as `f64`, bytes
/// and booleans as `u8`, and all other integers as `i64`. A `uint64` from 2^63 on is an error, and
/// so is one that would wrap below 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum ElementType {
    Float4E2m1,
    Float8E4m3fn,
    Float8E4m3fnuz,
    Float8E5m2,
    Float8E5m2fnuz,
    Float8E8m0,
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
    (Float4E2m1, DataType::Float4e2m1, "float4e2m1", 4),
    (Float8E4m3fn, DataType::Float8e4m3fn, "float8e4m3fn", 8),
    (Float8E4m3fnuz, DataType::Float8e4m3fnuz, "float8e4m3fnuz", 8),
    (Float8E5m2, DataType::Float8e5m2, "float8e5m2", 8),
    (Float8E5m2fnuz, DataType::Float8e5m2fnuz, "float8e5m2fnuz", 8),
    (Float8E8m0, DataType::Float8e8m0, "float8e8m0", 8),
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
            format!("element type {name} is not supported; floating point of 4 to 64 bits, bool and integers of 2 to 64 bits are")
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

    /// Returns whether the type is floating point.
    pub fn is_float(self) -> bool {
        self.is_small_float() || matches!(self, Float16 | Bfloat16 | Float32 | Float64)
    }

    /// Returns whether the type is floating point of less than 16 bits.
    pub(super) fn is_small_float(self) -> bool {
        matches!(self, Float4E2m1 | Float8E4m3fn | Float8E4m3fnuz | Float8E5m2 | Float8E5m2fnuz | Float8E8m0)
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
            Int64 => Some([i64::MIN, i64::MAX]),
            // What is greater has no `i64`, and is refused.
            Uint64 => Some([0, i64::MAX]),
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
    /// wrap. Those of 64 bits without sign that need all bits are an error.
    pub(super) fn of(tensor: Tensor, element: ElementType) -> Result<Value> {
        let dtype = element.dtype();
        refuse_large(&tensor, element)?;
        let narrow = element.range().is_some() && element.bits() < 64 && element != Bool;
        if narrow && tensor.dtype() == DType::I64 && !is_meta() {
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

/// Returns whether a tensor of `uint64` has numbers that it cannot hold: it is of `i64`.
pub(super) fn is_too_large(tensor: &Tensor, element: ElementType) -> Result<bool> {
    // A run of shapes alone has no numbers to look at.
    if element != Uint64 || is_meta() {
        return Ok(false);
    }
    Ok(match tensor.dtype() {
        DType::I64 => tensor.to_vec::<i64>()?.iter().any(|&x| x < 0),
        // Numbers above -1 are 0 without their fraction.
        dtype if dtype.is_float() => {
            tensor.to_dtype(DType::F64)?.to_vec::<f64>()?.iter().any(|&x| x <= -1.0 || x >= 9_223_372_036_854_775_808.0)
        }
        _ => false,
    })
}

/// Why a number is refused.
pub(super) const TOO_LARGE: &str = "`uint64` is held as `i64`: numbers below 0, and those from 2^63 on, are not supported";

/// Refuses what [`is_too_large`] finds.
pub(super) fn refuse_large(tensor: &Tensor, element: ElementType) -> Result<()> {
    match is_too_large(tensor, element)? {
        true => Err(Error::argument("onnx", TOO_LARGE)),
        false => Ok(()),
    }
}

/// How numbers of a floating-point type of less than 32 bits are made: see OCP's "8-bit Floating
/// Point Specification" and "Microscaling Formats Specification", and ONNX's table of types.
struct Format {
    /// The bits after the leading one.
    mantissa: u32,
    bias: i32,
    greatest: f64,
    /// What a greater number becomes unless it saturates.
    overflow: f64,
    /// Whether what would be minus zero is not a number; otherwise, whether all ones are not.
    unsigned_zero: bool,
}

impl Format {
    fn of(element: ElementType) -> Option<Format> {
        let format = |mantissa, bias, greatest, overflow, unsigned_zero| Some(Format { mantissa, bias, greatest, overflow, unsigned_zero });
        match element {
            // It has neither infinity nor NaN: it always saturates.
            Float4E2m1 => format(1, 1, 6.0, 6.0, false),
            Float8E4m3fn => format(3, 7, 448.0, f64::NAN, false),
            Float8E4m3fnuz => format(3, 8, 240.0, f64::NAN, true),
            Float8E5m2 => format(2, 15, 57344.0, f64::INFINITY, false),
            Float8E5m2fnuz => format(2, 16, 57344.0, f64::NAN, true),
            Float16 => format(10, 15, 65504.0, f64::INFINITY, false),
            Bfloat16 => format(7, 127, f64::from(f32::from_bits(0x7f7f_0000)), f64::INFINITY, false),
            _ => None,
        }
    }

    /// Rounds to the nearest number, of two to the one whose last bit is zero.
    fn round(&self, x: f64, saturate: bool) -> f64 {
        if x == 0.0 {
            return if self.unsigned_zero { 0.0 } else { x };
        }
        if x.is_nan() {
            return x;
        }
        let exponent = exponent(x.abs().min(self.greatest));
        let step = 2f64.powi(exponent.max(1 - self.bias) - self.mantissa as i32);
        let y = (x / step).round_ties_even() * step;
        match y.abs() > self.greatest {
            true => x.signum() * if saturate { self.greatest } else { self.overflow },
            false if y == 0.0 && self.unsigned_zero => 0.0,
            false => y,
        }
    }
}

/// Returns the exponent of the greatest power of two that is not above a positive number.
fn exponent(x: f64) -> i32 {
    (x.to_bits() >> 52 & 0x7ff) as i32 - 1023
}

/// Rounds to a type of less than 32 bits. Numbers that exceed those of less than 16 bits become the
/// greatest one with `saturate`, otherwise infinity or NaN.
pub(super) fn rounded(element: ElementType, x: f64, saturate: bool) -> f64 {
    match Format::of(element) {
        // Not a number is the sign bit alone, which is minus zero.
        Some(_) if element == Float4E2m1 && x.is_nan() => -0.0,
        Some(format) => format.round(x, element == Float4E2m1 || saturate && element.is_small_float()),
        None if element == Float8E8m0 => power_of_two(x, "up", saturate),
        None => x,
    }
}

/// Rounds to a power of two from 2⁻¹²⁷ to 2¹²⁷, which is what `float8e8m0` holds: the next greater
/// one, the next smaller one, or the nearest, of two the greater one. Negative numbers have none.
pub(super) fn power_of_two(x: f64, mode: &str, saturate: bool) -> f64 {
    let (least, greatest) = (2f64.powi(-127), 2f64.powi(127));
    if x.is_nan() || x < 0.0 {
        return f64::NAN;
    }
    let below = 2f64.powi(exponent(x.clamp(least, greatest)));
    let y = match mode {
        _ if x <= least => least,
        "down" => below,
        "up" if x > below => 2.0 * below,
        "nearest" if x >= 1.5 * below => 2.0 * below,
        _ => below,
    };
    match x.is_infinite() || y > greatest {
        true if saturate => greatest,
        true => f64::NAN,
        false => y,
    }
}

/// Decodes an element of one of the types of less than 16 bits.
pub(super) fn small_float(element: ElementType, bits: u8) -> f32 {
    let Some(format) = Format::of(element) else {
        return if bits == 0xff { f32::NAN } else { 2f64.powi(i32::from(bits) - 127) as f32 };
    };
    let magnitude = element.bits() - 1;
    let (negative, rest) = (bits >> magnitude != 0, bits & ((1 << magnitude) - 1));
    let (e, m) = (i32::from(rest >> format.mantissa), i32::from(rest) & ((1 << format.mantissa) - 1));
    let (m, e) = if e == 0 { (m, 1) } else { (m + (1 << format.mantissa), e) };
    let value = f64::from(m) * 2f64.powi(e - format.bias - format.mantissa as i32);
    let value = if negative { -value } else { value };
    match value.abs() > format.greatest {
        // The codes above the greatest number: of those of `float8e5m2` the first is infinity.
        true if rest == 0x7c => value.signum() as f32 * f32::INFINITY,
        true => f32::NAN,
        false if negative && rest == 0 && format.unsigned_zero => f32::NAN,
        false => value as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_of_few_bits_decode_as_specified() {
        // The largest numbers and the smallest subnormals of ONNX's table of types.
        let cases = [
            (Float8E4m3fn, 0x7e, 448.0),
            (Float8E4m3fn, 0x01, 2f32.powi(-9)),
            (Float8E4m3fnuz, 0x7f, 240.0),
            (Float8E5m2, 0x7b, 57344.0),
            (Float8E5m2, 0xfc, f32::NEG_INFINITY),
            (Float8E5m2fnuz, 0x7f, 57344.0),
            (Float8E5m2fnuz, 0x01, 2f32.powi(-17)),
            (Float4E2m1, 0xf, -6.0),
            (Float4E2m1, 0x1, 0.5),
            (Float8E8m0, 0x80, 2.0),
        ];
        for (element, byte, expected) in cases {
            assert_eq!(small_float(element, byte), expected, "{element:?} {byte:#x}");
        }
        for (element, byte) in [(Float8E4m3fn, 0xff), (Float8E4m3fnuz, 0x80), (Float8E5m2, 0x7f), (Float8E5m2fnuz, 0x80)] {
            assert!(small_float(element, byte).is_nan());
        }
    }

    #[test]
    fn numbers_round_to_those_of_each_type() {
        for element in [Float4E2m1, Float8E4m3fn, Float8E4m3fnuz, Float8E5m2, Float8E5m2fnuz] {
            let codes = || (0..1u32 << element.bits()).map(|code| f64::from(small_float(element, code as u8)));
            let mut numbers: Vec<f64> = codes().filter(|x| x.is_finite()).collect();
            assert!(numbers.iter().all(|&x| rounded(element, x, true).to_bits() == x.to_bits()), "{element:?}");
            numbers.sort_by(f64::total_cmp);
            for pair in numbers.windows(2) {
                let middle = (pair[0] + pair[1]) / 2.0;
                assert_eq!(rounded(element, middle + (pair[1] - pair[0]) / 8.0, true), pair[1], "{element:?}");
                assert!(pair.contains(&rounded(element, middle, true)), "{element:?}");
            }
            assert_eq!(rounded(element, 1e9, true), *numbers.last().unwrap());
        }
        assert_eq!(rounded(Float8E4m3fn, 17.0, true), 16.0, "17 is between 16 and 18; the last bit of 16 is zero");
        assert_eq!([464.0, 465.0].map(|x| rounded(Float8E4m3fn, x, false).is_nan()), [false, true]);
        assert_eq!(rounded(Float8E5m2, -1e9, false), f64::NEG_INFINITY);
        assert_eq!(rounded(Float16, 65520.0, true), f64::INFINITY);
        assert_eq!([1.5, 1.1, 8.0, 0.0].map(|x| power_of_two(x, "nearest", true)), [2.0, 1.0, 8.0, 2f64.powi(-127)]);
        assert_eq!([1.1, 8.0].map(|x| power_of_two(x, "up", true)), [2.0, 8.0]);
        assert_eq!([1.9, f64::INFINITY].map(|x| power_of_two(x, "down", true)), [1.0, 2f64.powi(127)]);
        assert!([-1.0, f64::INFINITY].map(|x| power_of_two(x, "up", false)).iter().all(|y| y.is_nan()));
    }

    #[test]
    fn integers_wrap_to_their_bits() {
        assert_eq!([Int8.wrap(128), Int8.wrap(-129), Uint8.wrap(-1), Int4.wrap(8), Uint32.wrap(1 << 32)], [-128, 127, 255, -8, 0]);
        assert_eq!(Int64.wrap(i64::MIN), i64::MIN);
    }
}
