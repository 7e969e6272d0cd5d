//! Search for the coefficients of a block that are not zero.

/// Returns bits, from the lowest one up, that are 1 where a coefficient is not zero.
#[cfg(target_arch = "x86_64")]
pub fn present(block: &[i16; 64]) -> u64 {
    use std::arch::x86_64::{__m128i, _mm_cmpeq_epi16, _mm_movemask_epi8, _mm_packs_epi16, _mm_setzero_si128};

    let rows: &[[i16; 8]; 8] = bytemuck::cast_ref(block);
    let mut bits = 0;
    for (i, two) in rows.as_chunks::<2>().0.iter().enumerate() {
        let [a, b]: [__m128i; 2] = bytemuck::cast(*two);
        // SAFETY: every processor of this architecture has the instructions.
        let zeros = unsafe {
            let zero = _mm_setzero_si128();
            _mm_movemask_epi8(_mm_packs_epi16(_mm_cmpeq_epi16(a, zero), _mm_cmpeq_epi16(b, zero)))
        };
        bits |= u64::from(!zeros as u16) << (16 * i);
    }
    bits
}

/// Returns bits, from the lowest one up, that are 1 where a coefficient is not zero.
#[cfg(not(target_arch = "x86_64"))]
pub fn present(block: &[i16; 64]) -> u64 {
    block.iter().rev().fold(0, |bits, &coefficient| bits << 1 | u64::from(coefficient != 0))
}

#[cfg(test)]
mod tests {
    #[test]
    fn bits_are_those_of_the_coefficients_that_are_not_zero() {
        for bits in [0, 1, 1 << 63, 0x8000_0100_0001_8180, 0x0123_4567_89AB_CDEF, u64::MAX] {
            for value in [1, -1, i16::MIN, 256] {
                let mut block = [0; 64];
                block.iter_mut().enumerate().for_each(|(k, coefficient)| *coefficient = if bits >> k & 1 == 1 { value } else { 0 });
                assert_eq!(super::present(&block), bits);
            }
        }
    }
}
