//! Conversion of luminance and colour differences to red, green and blue, with the results of
//! libjpeg's sixteen-bit fixed point.

#[cfg(target_arch = "x86_64")]
use crate::kernels::runtime::simd::has_avx2;

// The factors 1.402 and 1.772 are reduced by 1 and by 2, and that of red in green, -0.714, is
// raised by 1, so that they fit 16 bits.
const RED_OF_CR: i16 = 26_345;
const GREEN_OF_CB: i16 = -22_554;
const GREEN_OF_CR: i16 = 18_734;
const BLUE_OF_CB: i16 = -14_942;
const HALF: i32 = 1 << 15;

/// Converts a row of pixels, of luminance and the two differences, to `[out.len() / 3, 3]`.
pub fn rgb_row([y, cb, cr]: [&[u8]; 3], out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the processor has the instructions.
        return unsafe { avx2::rgb_row([y, cb, cr], out) };
    }
    rgb_pixels([y, cb, cr], out);
}

fn rgb_pixels([y, cb, cr]: [&[u8]; 3], out: &mut [u8]) {
    for (((out, &y), &cb), &cr) in out.as_chunks_mut::<3>().0.iter_mut().zip(y).zip(cb).zip(cr) {
        *out = rgb([y, cb, cr]);
    }
}

/// Converts a pixel.
pub fn rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let sum = |cb_factor: i16, cr_factor: i16| (i32::from(cb_factor) * cb + i32::from(cr_factor) * cr + HALF) >> 16;
    [y + cr + sum(0, RED_OF_CR), y - cr + sum(GREEN_OF_CB, GREEN_OF_CR), y + 2 * cb + sum(BLUE_OF_CB, 0)]
        .map(|value| value.clamp(0, 255) as u8)
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use bytemuck::cast;

    use super::{BLUE_OF_CB, GREEN_OF_CB, GREEN_OF_CR, HALF, RED_OF_CR, rgb_pixels};

    #[target_feature(enable = "avx2")]
    pub(super) fn rgb_row([y, cb, cr]: [&[u8]; 3], out: &mut [u8]) {
        let (whole, rest) = out.as_chunks_mut::<96>();
        let parts = y.as_chunks::<32>().0.iter().zip(cb.as_chunks::<32>().0).zip(cr.as_chunks::<32>().0);
        for (out, ((&y, &cb), &cr)) in whole.iter_mut().zip(parts) {
            *out = rgb_32(cast(y), cast(cb), cast(cr));
        }
        let done = 32 * whole.len();
        rgb_pixels([&y[done..], &cb[done..], &cr[done..]], rest);
    }

    /// Converts 32 pixels.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn rgb_32(y: __m256i, cb: __m256i, cr: __m256i) -> [u8; 96] {
        let zero = _mm256_setzero_si256();
        // The first and the second eight of each half of the bytes, as numbers of 16 bits.
        let low = rgb_16(_mm256_unpacklo_epi8(y, zero), _mm256_unpacklo_epi8(cb, zero), _mm256_unpacklo_epi8(cr, zero));
        let high = rgb_16(_mm256_unpackhi_epi8(y, zero), _mm256_unpackhi_epi8(cb, zero), _mm256_unpackhi_epi8(cr, zero));
        let levels = [_mm256_packus_epi16(low[0], high[0]), _mm256_packus_epi16(low[1], high[1]), _mm256_packus_epi16(low[2], high[2])];
        let (a, b, c) = (third::<0>(levels), third::<1>(levels), third::<2>(levels));
        // Each has a third of the first 16 pixels and one of the others.
        cast([_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x30>(c, a), _mm256_permute2x128_si256::<0x31>(b, c)])
    }

    /// Returns red, green and blue of 16 pixels.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn rgb_16(y: __m256i, cb: __m256i, cr: __m256i) -> [__m256i; 3] {
        let middle = _mm256_set1_epi16(128);
        let (cb, cr) = (_mm256_sub_epi16(cb, middle), _mm256_sub_epi16(cr, middle));
        // Of twice the number, the upper half of the product has one bit more than needed: for
        // rounding.
        let product = |x, factor| {
            let twice = _mm256_mulhi_epi16(_mm256_add_epi16(x, x), _mm256_set1_epi16(factor));
            _mm256_srai_epi16::<1>(_mm256_add_epi16(twice, _mm256_set1_epi16(1)))
        };
        let red = _mm256_add_epi16(_mm256_add_epi16(y, cr), product(cr, RED_OF_CR));
        let blue = _mm256_add_epi16(_mm256_add_epi16(y, _mm256_add_epi16(cb, cb)), product(cb, BLUE_OF_CB));
        let factors = _mm256_set1_epi32(GREEN_OF_CB as u16 as i32 | i32::from(GREEN_OF_CR) << 16);
        let sum = |pairs| _mm256_srai_epi32::<16>(_mm256_add_epi32(_mm256_madd_epi16(pairs, factors), _mm256_set1_epi32(HALF)));
        let sums = _mm256_packs_epi32(sum(_mm256_unpacklo_epi16(cb, cr)), sum(_mm256_unpackhi_epi16(cb, cr)));
        [red, _mm256_add_epi16(_mm256_sub_epi16(y, cr), sums), blue]
    }

    /// Returns one of the thirds, of 16 bytes, of 16 pixels side by side, from their channels; in
    /// both halves.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn third<const N: usize>(levels: [__m256i; 3]) -> __m256i {
        // The places of a channel's bytes: byte `i` of the pixels is of channel `i % 3`.
        const fn places(third: usize, channel: usize) -> [i8; 32] {
            let mut places = [-1; 32];
            let mut i = 0;
            while i < 32 {
                let byte = 16 * third + i % 16;
                if byte % 3 == channel {
                    places[i] = (byte / 3) as i8;
                }
                i += 1;
            }
            places
        }
        let red = _mm256_shuffle_epi8(levels[0], cast(const { places(N, 0) }));
        let green = _mm256_shuffle_epi8(levels[1], cast(const { places(N, 1) }));
        let blue = _mm256_shuffle_epi8(levels[2], cast(const { places(N, 2) }));
        _mm256_or_si256(_mm256_or_si256(red, green), blue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Libjpeg's formulas, with factors in 65536ths.
    fn expected([y, cb, cr]: [u8; 3]) -> [u8; 3] {
        let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
        let green = (-22_554 * cb - 46_802 * cr + HALF) >> 16;
        [y + ((91_881 * cr + HALF) >> 16), y + green, y + ((116_130 * cb + HALF) >> 16)].map(|value| value.clamp(0, 255) as u8)
    }

    #[test]
    fn every_colour_is_converted_exactly() {
        let levels: Vec<u8> = (0..=255).collect();
        let mut out = [0; 768];
        // All pairs of differences, each at 256 levels of luminance that the row has in turn.
        for cb in 0..=255 {
            for shift in (0..=255usize).step_by(if cfg!(miri) { 200 } else { 1 }) {
                let mut cr = levels.clone();
                cr.rotate_left(shift);
                let width = 256 - shift % 40;
                rgb_row([&levels[..width], &vec![cb; width], &cr[..width]], &mut out[..3 * width]);
                for (x, out) in out.as_chunks::<3>().0[..width].iter().enumerate() {
                    assert_eq!(*out, expected([levels[x], cb, cr[x]]));
                }
            }
        }
    }
}
