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
    if has_value(&coefficients[8..]) {
        idct_full(coefficients, quantisation, out, stride);
    } else {
        idct_flat(coefficients, quantisation, out, stride);
    }
}

/// Returns whether a coefficient is not zero.
#[inline(always)]
fn has_value(coefficients: &[i16]) -> bool {
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
    let first = if has_value(&coefficients[1..8]) {
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

    use bytemuck::{cast, cast_ref};

    use super::{BITS, KEPT, has_value, idct_flat};

    // Vectors are not mapped by `array::map` and its like: compiled for any processor, they cannot
    // take in code for this one, and call it.

    /// A row or a column of both blocks.
    type Line = __m256i;

    /// A line of numbers of 32 bits: the elements 0 to 3 of both blocks, and 4 to 7.
    type Wide = [__m256i; 2];

    #[target_feature(enable = "avx2")]
    pub(super) fn idct(blocks: &[[i16; 64]], quantisation: &[u16; 64], out: &mut [u8]) {
        let stride = 8 * blocks.len();
        let steps = cast_ref(quantisation);
        let mut waiting = None;
        for (i, block) in blocks.iter().enumerate() {
            if !has_value(&block[8..]) {
                idct_flat(block, quantisation, &mut out[8 * i..], stride);
            } else if let Some(first) = waiting.take() {
                pair(steps, blocks, [first, i], out);
            } else {
                waiting = Some(i);
            }
        }
        if let Some(last) = waiting {
            pair(steps, blocks, [last, last], out);
        }
    }

    /// Transforms the blocks of two numbers, which may be equal.
    #[target_feature(enable = "avx2")]
    fn pair(steps: &[i16; 64], blocks: &[[i16; 64]], numbers: [usize; 2], out: &mut [u8]) {
        let stride = 8 * blocks.len();
        let (first, second) = (&blocks[numbers[0]], &blocks[numbers[1]]);
        let value = |y: usize| _mm256_mullo_epi16(row(first, second, y), row(steps, steps, y));
        let values = [value(0), value(1), value(2), value(3), value(4), value(5), value(6), value(7)];
        let columns = transpose(pass::<{ (BITS - KEPT) as i32 }>(values));
        let samples = bytes(pass::<{ (BITS + KEPT + 3) as i32 }>(columns));
        for (y, row) in out.chunks_exact_mut(stride).enumerate() {
            row[8 * numbers[0]..][..8].copy_from_slice(&samples[y / 2][y % 2]);
            row[8 * numbers[1]..][..8].copy_from_slice(&samples[y / 2][2 + y % 2]);
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn row(first: &[i16; 64], second: &[i16; 64], y: usize) -> Line {
        let [first, second] = [first, second].map(|block| cast::<[i16; 8], __m128i>(block.as_chunks().0[y]));
        _mm256_set_m128i(second, first)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn plus(a: Wide, b: Wide) -> Wide {
        [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn minus(a: Wide, b: Wide) -> Wide {
        [_mm256_sub_epi32(a[0], b[0]), _mm256_sub_epi32(a[1], b[1])]
    }

    /// Puts the elements of two lines side by side.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn zip(a: Line, b: Line) -> Wide {
        [_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)]
    }

    /// Computes `A · a + B · b` for the pairs `a`, `b` of a zip.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn products<const A: i16, const B: i16>(pairs: Wide) -> Wide {
        let weights = _mm256_set1_epi32(A as u16 as i32 | (B as i32) << 16);
        [_mm256_madd_epi16(pairs[0], weights), _mm256_madd_epi16(pairs[1], weights)]
    }

    /// Transforms eight lines, element by element; the results have `SHIFT` bits less.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn pass<const SHIFT: i32>([x0, x1, x2, x3, x4, x5, x6, x7]: [Line; 8]) -> [Line; 8] {
        let even = zip(x2, x6);
        let (t2, t3) = (products::<4433, { 4433 - 15137 }>(even), products::<{ 4433 + 6270 }, 4433>(even));
        let half = _mm256_set1_epi32(1 << (SHIFT - 1));
        let scaled = |x| {
            let [low, high] = zip(_mm256_setzero_si256(), x);
            plus([_mm256_srai_epi32::<{ 16 - BITS as i32 }>(low), _mm256_srai_epi32::<{ 16 - BITS as i32 }>(high)], [half; 2])
        };
        let (t0, t1) = (scaled(_mm256_add_epi16(x0, x4)), scaled(_mm256_sub_epi16(x0, x4)));
        let (e0, e1, e2, e3) = (plus(t0, t3), plus(t1, t2), minus(t1, t2), minus(t0, t3));

        let sums = zip(_mm256_add_epi16(x7, x3), _mm256_add_epi16(x5, x1));
        let (z3, z4) = (products::<{ 9633 - 16069 }, 9633>(sums), products::<9633, { 9633 - 3196 }>(sums));
        let (outer, inner) = (zip(x7, x1), zip(x5, x3));
        let o0 = plus(products::<{ 2446 - 7373 }, -7373>(outer), z3);
        let o1 = plus(products::<{ 16819 - 20995 }, -20995>(inner), z4);
        let o2 = plus(products::<-20995, { 25172 - 20995 }>(inner), z3);
        let o3 = plus(products::<-7373, { 12299 - 7373 }>(outer), z4);

        let descaled = |[low, high]: Wide| _mm256_packs_epi32(_mm256_srai_epi32::<SHIFT>(low), _mm256_srai_epi32::<SHIFT>(high));
        [
            descaled(plus(e0, o3)),
            descaled(plus(e1, o2)),
            descaled(plus(e2, o1)),
            descaled(plus(e3, o0)),
            descaled(minus(e3, o0)),
            descaled(minus(e2, o1)),
            descaled(minus(e1, o2)),
            descaled(minus(e0, o3)),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn transpose(lines: [Line; 8]) -> [Line; 8] {
        // Three times the perfect shuffle of 64 elements.
        shuffle(shuffle(shuffle(lines)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn shuffle([a, b, c, d, e, f, g, h]: [Line; 8]) -> [Line; 8] {
        let ([ae0, ae1], [bf0, bf1], [cg0, cg1], [dh0, dh1]) = (zip(a, e), zip(b, f), zip(c, g), zip(d, h));
        [ae0, ae1, bf0, bf1, cg0, cg1, dh0, dh1]
    }

    /// Returns the rows, as levels, from the columns: two rows of the first block and two of the
    /// second one, four times.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn bytes([a, b, c, d, e, f, g, h]: [Line; 8]) -> [[[u8; 8]; 4]; 4] {
        let pack = |left, right| _mm256_xor_si256(_mm256_packs_epi16(left, right), _mm256_set1_epi8(-128));
        let [ae, bf, cg, dh] = [pack(a, e), pack(b, f), pack(c, g), pack(d, h)];
        let (ab, ef) = (_mm256_unpacklo_epi8(ae, bf), _mm256_unpackhi_epi8(ae, bf));
        let (cd, gh) = (_mm256_unpacklo_epi8(cg, dh), _mm256_unpackhi_epi8(cg, dh));
        // Columns a to d and e to h, of rows 0 to 3 and of 4 to 7.
        let ([abcd0, abcd4], [efgh0, efgh4]) = (zip(ab, cd), zip(ef, gh));
        cast([
            _mm256_unpacklo_epi32(abcd0, efgh0),
            _mm256_unpackhi_epi32(abcd0, efgh0),
            _mm256_unpacklo_epi32(abcd4, efgh4),
            _mm256_unpackhi_epi32(abcd4, efgh4),
        ])
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
