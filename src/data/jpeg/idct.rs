//! The inverse transform of a block: libjpeg's accurate integer one (`jidctint.c`, after Loeffler,
//! Ligtenberg and Moschytz, 1989).
//!
//! Coefficients that no encoder writes may overflow: the result is then that of libjpeg-turbo's
//! SIMD version, which keeps 16 bits of products, of some sums and, clamped, between the passes.

use std::num::Wrapping;

type Fixed = Wrapping<i32>;

const BITS: usize = 13;
/// Bits that the first pass keeps beyond the point.
const KEPT: usize = 2;

const fn fixed(value: i32) -> Fixed {
    Wrapping(value)
}

/// Writes the samples of a block to `out[y · stride + x]`.
pub(super) fn idct(coefficients: &[i16; 64], quantisation: &[u16; 64], out: &mut [u8], stride: usize) {
    let value = |i: usize| fixed(i32::from(coefficients[i].wrapping_mul(quantisation[i] as i16)));
    if coefficients[8..].iter().all(|&coefficient| coefficient == 0) {
        // All rows are alike.
        let first = if coefficients[1..8].iter().all(|&coefficient| coefficient == 0) {
            [sample((narrow(value(0) << KEPT) + fixed(16)) >> (KEPT + 3)); 8]
        } else {
            transform(std::array::from_fn(|x| narrow(value(x) << KEPT))).map(|value| sample(descale(value, BITS + KEPT + 3)))
        };
        out.chunks_mut(stride).take(8).for_each(|row| row[..8].copy_from_slice(&first));
        return;
    }
    let mut columns = [[fixed(0); 8]; 8];
    for x in 0..8 {
        let column = transform(std::array::from_fn(|y| value(8 * y + x)));
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
