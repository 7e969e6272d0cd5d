//! The inverse transform of blocks: libjpeg's accurate integer one (`jidctint.c`, after Loeffler,
//! Ligtenberg and Moschytz, 1989).
//!
//! Coefficients that no encoder writes may overflow: the result is then that of libjpeg-turbo's
//! SIMD version, which keeps 16 bits of products, of some sums and, clamped, between the passes.

use std::num::Wrapping;

#[cfg(target_arch = "x86_64")]
use crate::kernels::runtime::simd::has_avx2;

type Fixed = Wrapping<i32>;

const BITS: usize = 13;
/// Bits that the first pass keeps beyond the point.
const KEPT: usize = 2;

const fn fixed(value: i32) -> Fixed {
    Wrapping(value)
}

/// Transforms a row of blocks to eight rows of samples: `out[y · stride + 8 · block + x]`, where
/// `stride` is eight times the number of blocks.
pub fn idct(blocks: &[[i16; 64]], quantisation: &[u16; 64], out: &mut [u8]) {
    assert_eq!(out.len(), 64 * blocks.len());
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the processor has the instructions.
        return unsafe { avx2::idct(blocks, quantisation, out) };
    }
    let stride = 8 * blocks.len();
    for (i, block) in blocks.iter().enumerate() {
        idct_block(block, quantisation, &mut out[8 * i..], stride);
    }
}

/// Writes the samples of a block to `out[y · stride + x]`.
fn idct_block(coefficients: &[i16; 64], quantisation: &[u16; 64], out: &mut [u8], stride: usize) {
    if any(&coefficients[8..]) {
        idct_full(coefficients, quantisation, out, stride);
    } else {
        idct_flat(coefficients, quantisation, out, stride);
    }
}

/// Returns whether a coefficient is not zero.
#[inline(always)]
fn any(coefficients: &[i16]) -> bool {
    // Without an early exit, the compiler compares several at once.
    coefficients.iter().fold(0, |bits, coefficient| bits | coefficient) != 0
}

#[inline(always)]
fn dequantised(coefficients: &[i16; 64], quantisation: &[u16; 64], i: usize) -> Fixed {
    fixed(i32::from(coefficients[i].wrapping_mul(quantisation[i] as i16)))
}

/// Transforms a block whose coefficients are zero but for the first row: all rows are alike.
fn idct_flat(coefficients: &[i16; 64], quantisation: &[u16; 64], out: &mut [u8], stride: usize) {
    let value = |i: usize| narrow(dequantised(coefficients, quantisation, i) << KEPT);
    let first = if any(&coefficients[1..8]) {
        transform(std::array::from_fn(value)).map(|value| sample(descale(value, BITS + KEPT + 3)))
    } else {
        [sample((value(0) + fixed(16)) >> (KEPT + 3)); 8]
    };
    out.chunks_mut(stride).take(8).for_each(|row| row[..8].copy_from_slice(&first));
}

/// Transforms any block.
fn idct_full(coefficients: &[i16; 64], quantisation: &[u16; 64], out: &mut [u8], stride: usize) {
    let mut columns = [[fixed(0); 8]; 8];
    for x in 0..8 {
        let column = transform(std::array::from_fn(|y| dequantised(coefficients, quantisation, 8 * y + x)));
        for (row, value) in columns.iter_mut().zip(column) {
            row[x] = fixed(descale(value, BITS - KEPT).0.clamp(-32768, 32767));
        }
    }
    for (row, out) in columns.into_iter().zip(out.chunks_mut(stride)) {
        for (out, value) in out.iter_mut().zip(transform(row)) {
            *out = sample(descale(value, BITS + KEPT + 3));
        }
    }
}

#[inline(always)]
fn descale(value: Fixed, bits: usize) -> Fixed {
    (value + fixed(1 << (bits - 1))) >> bits
}

#[inline(always)]
fn sample(value: Fixed) -> u8 {
    (value + fixed(128)).0.clamp(0, 255) as u8
}

/// Transforms eight values; the results are scaled by 2¹³.
#[inline(always)]
fn transform([x0, x1, x2, x3, x4, x5, x6, x7]: [Fixed; 8]) -> [Fixed; 8] {
    // Rotation by √2·c6, then butterflies: the even half.
    let z = (x2 + x6) * fixed(4433);
    let (t2, t3) = (z - x6 * fixed(15137), z + x2 * fixed(6270));
    let (t0, t1) = (narrow(x0 + x4) << BITS, narrow(x0 - x4) << BITS);
    let (e0, e1, e2, e3) = (t0 + t3, t1 + t2, t1 - t2, t0 - t3);

    let (z3, z4) = (narrow(x7 + x3), narrow(x5 + x1));
    let z5 = (z3 + z4) * fixed(9633);
    let z1 = (x7 + x1) * fixed(-7373);
    let z2 = (x5 + x3) * fixed(-20995);
    let z3 = z3 * fixed(-16069) + z5;
    let z4 = z4 * fixed(-3196) + z5;
    let o0 = x7 * fixed(2446) + z1 + z3;
    let o1 = x5 * fixed(16819) + z2 + z4;
    let o2 = x3 * fixed(25172) + z2 + z3;
    let o3 = x1 * fixed(12299) + z1 + z4;

    [e0 + o3, e1 + o2, e2 + o1, e3 + o0, e3 - o0, e2 - o1, e1 - o2, e0 - o3]
}

#[inline(always)]
fn narrow(value: Fixed) -> Fixed {
    fixed(i32::from(value.0 as i16))
}

/// Two blocks at once, in the upper and the lower halves of vectors of 16 numbers, as
/// libjpeg-turbo computes one (`jidctint-sse2.asm`).
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;
    use std::array::from_fn;

    use bytemuck::cast;

    use super::{BITS, KEPT, any, idct_flat};

    /// A row or a column of both blocks.
    type Line = __m256i;

    #[target_feature(enable = "avx2")]
    pub(super) fn idct(blocks: &[[i16; 64]], quantisation: &[u16; 64], out: &mut [u8]) {
        let stride = 8 * blocks.len();
        let steps = rows([quantisation, quantisation].map(bytemuck::cast_ref));
        let mut waiting = None;
        for (i, block) in blocks.iter().enumerate() {
            if !any(&block[8..]) {
                idct_flat(block, quantisation, &mut out[8 * i..], stride);
            } else if let Some(first) = waiting.take() {
                pair(&steps, blocks, [first, i], out);
            } else {
                waiting = Some(i);
            }
        }
        if let Some(last) = waiting {
            pair(&steps, blocks, [last, last], out);
        }
    }

    /// Transforms the blocks of two numbers, which may be equal.
    #[target_feature(enable = "avx2")]
    fn pair(steps: &[Line; 8], blocks: &[[i16; 64]], numbers: [usize; 2], out: &mut [u8]) {
        let stride = 8 * blocks.len();
        let coefficients = rows(numbers.map(|number| &blocks[number]));
        let values: [Line; 8] = from_fn(|y| _mm256_mullo_epi16(coefficients[y], steps[y]));
        let columns = transpose(pass::<{ (BITS - KEPT) as i32 }>(values));
        let samples = bytes(pass::<{ (BITS + KEPT + 3) as i32 }>(columns));
        for (y, samples) in samples.iter().enumerate() {
            for (number, &row) in numbers.iter().zip(samples) {
                out[y * stride + 8 * number..][..8].copy_from_slice(&row);
            }
        }
    }

    #[target_feature(enable = "avx2")]
    fn rows(blocks: [&[i16; 64]; 2]) -> [Line; 8] {
        let halves = |y: usize| blocks.map(|block| block.as_chunks::<8>().0[y]);
        from_fn(|y| cast(halves(y)))
    }

    /// Transforms eight lines, element by element; the results have `SHIFT` bits less.
    #[target_feature(enable = "avx2")]
    fn pass<const SHIFT: i32>([x0, x1, x2, x3, x4, x5, x6, x7]: [Line; 8]) -> [Line; 8] {
        // Numbers of 32 bits are in two vectors: those of the elements 0 to 3 of both blocks, and
        // those of 4 to 7.
        let pairs = |a, b| [_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)];
        let products = |pairs: [Line; 2], a: i16, b: i16| {
            let weights = _mm256_set1_epi32(i32::from(a as u16) | i32::from(b) << 16);
            pairs.map(|pairs| _mm256_madd_epi16(pairs, weights))
        };
        let plus = |a: [Line; 2], b: [Line; 2]| [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])];
        let minus = |a: [Line; 2], b: [Line; 2]| [_mm256_sub_epi32(a[0], b[0]), _mm256_sub_epi32(a[1], b[1])];
        let half = _mm256_set1_epi32(1 << (SHIFT - 1));
        let scaled = |x| pairs(_mm256_setzero_si256(), x).map(|x| _mm256_add_epi32(_mm256_srai_epi32::<{ 16 - BITS as i32 }>(x), half));

        let even = pairs(x2, x6);
        let (t2, t3) = (products(even, 4433, 4433 - 15137), products(even, 4433 + 6270, 4433));
        let (t0, t1) = (scaled(_mm256_add_epi16(x0, x4)), scaled(_mm256_sub_epi16(x0, x4)));
        let (e0, e1, e2, e3) = (plus(t0, t3), plus(t1, t2), minus(t1, t2), minus(t0, t3));

        let sums = pairs(_mm256_add_epi16(x7, x3), _mm256_add_epi16(x5, x1));
        let (z3, z4) = (products(sums, 9633 - 16069, 9633), products(sums, 9633, 9633 - 3196));
        let (outer, inner) = (pairs(x7, x1), pairs(x5, x3));
        let o0 = plus(products(outer, 2446 - 7373, -7373), z3);
        let o1 = plus(products(inner, 16819 - 20995, -20995), z4);
        let o2 = plus(products(inner, -20995, 25172 - 20995), z3);
        let o3 = plus(products(outer, -7373, 12299 - 7373), z4);

        let descaled = |[low, high]: [Line; 2]| _mm256_packs_epi32(_mm256_srai_epi32::<SHIFT>(low), _mm256_srai_epi32::<SHIFT>(high));
        [plus(e0, o3), plus(e1, o2), plus(e2, o1), plus(e3, o0), minus(e3, o0), minus(e2, o1), minus(e1, o2), minus(e0, o3)].map(descaled)
    }

    #[target_feature(enable = "avx2")]
    fn transpose(lines: [Line; 8]) -> [Line; 8] {
        let [a0, a1, a2, a3, a4, a5, a6, a7] = lines;
        let (low, high) = (|a, b| _mm256_unpacklo_epi16(a, b), |a, b| _mm256_unpackhi_epi16(a, b));
        // Three times the perfect shuffle of 64 elements by eight.
        let [b0, b1, b2, b3, b4, b5, b6, b7] =
            [low(a0, a4), high(a0, a4), low(a1, a5), high(a1, a5), low(a2, a6), high(a2, a6), low(a3, a7), high(a3, a7)];
        let [c0, c1, c2, c3, c4, c5, c6, c7] =
            [low(b0, b4), high(b0, b4), low(b1, b5), high(b1, b5), low(b2, b6), high(b2, b6), low(b3, b7), high(b3, b7)];
        [low(c0, c4), high(c0, c4), low(c1, c5), high(c1, c5), low(c2, c6), high(c2, c6), low(c3, c7), high(c3, c7)]
    }

    /// Returns the rows of both blocks, by row and block, from their columns, as levels.
    #[target_feature(enable = "avx2")]
    fn bytes(columns: [Line; 8]) -> [[[u8; 8]; 2]; 8] {
        let middle = _mm256_set1_epi8(-128);
        let packed: [Line; 4] = from_fn(|x| _mm256_xor_si256(_mm256_packs_epi16(columns[x], columns[x + 4]), middle));
        let [a, b, c, d] = packed;
        // Columns 0 and 1, 2 and 3, 4 and 5, 6 and 7.
        let twos = [_mm256_unpacklo_epi8(a, b), _mm256_unpacklo_epi8(c, d), _mm256_unpackhi_epi8(a, b), _mm256_unpackhi_epi8(c, d)];
        // Columns 0 to 3 and 4 to 7, of rows 0 to 3 and of 4 to 7.
        let upper = [_mm256_unpacklo_epi16(twos[0], twos[1]), _mm256_unpacklo_epi16(twos[2], twos[3])];
        let lower = [_mm256_unpackhi_epi16(twos[0], twos[1]), _mm256_unpackhi_epi16(twos[2], twos[3])];
        let rows = [upper, lower].map(|[left, right]| [_mm256_unpacklo_epi32(left, right), _mm256_unpackhi_epi32(left, right)]);
        let rows: [[[u8; 8]; 4]; 4] = cast(rows);
        from_fn(|y| [rows[y / 2][y % 2], rows[y / 2][2 + y % 2]])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_of_blocks_are_transformed_as_single_blocks_are(
            mut blocks in prop::collection::vec(prop::array::uniform(any::<i16>()), 0..6),
            shift in 0..14,
            quantisation in prop::array::uniform(1..300u16),
            kept in 1..=64usize,
        ) {
            // From overflowing coefficients to those of photographs.
            blocks.iter_mut().for_each(|block: &mut [i16; 64]| {
                block.iter_mut().for_each(|value| *value >>= shift);
                block[kept..].fill(0);
            });
            let stride = 8 * blocks.len();
            let (mut together, mut single) = (vec![0; 64 * blocks.len()], vec![0; 64 * blocks.len()]);
            idct(&blocks, &quantisation, &mut together);
            blocks.iter().enumerate().for_each(|(i, block)| idct_block(block, &quantisation, &mut single[8 * i..], stride));
            prop_assert_eq!(together, single);
        }
    }
}
