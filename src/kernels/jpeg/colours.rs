//! Conversion of luminance and colour differences to red, green and blue, with the results of
//! libjpeg's sixteen-bit fixed point.

use crate::kernels::runtime::simd::vectorize;

/// Converts a row of pixels.
pub fn rgb_row(y: &[u8], cb: &[u8], cr: &[u8], out: &mut [u8]) {
    vectorize::<f32, _>(|| {
        for (((out, &y), &cb), &cr) in out.as_chunks_mut::<3>().0.iter_mut().zip(y).zip(cb).zip(cr) {
            *out = rgb([y, cb, cr]);
        }
    });
}

/// Converts a pixel.
#[inline(always)]
pub fn rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (y, cb, cr) = (i16::from(y), i16::from(cb) - 128, i16::from(cr) - 128);
    // The factors 1.402 and 1.772 are reduced by 1 and by 2 so that they fit 16 bits.
    let product = |a: i16, b: i16| ((i32::from(a) * i32::from(b)) >> 16) as i16;
    let level = |value: i16| value.clamp(0, 255) as u8;
    [
        level(y + cr + ((product(2 * cr, 26_345) + 1) >> 1)),
        level(y - cr + ((-22_554 * i32::from(cb) + 18_734 * i32::from(cr) + HALF) >> 16) as i16),
        level(y + 2 * cb + ((product(2 * cb, -14_942) + 1) >> 1)),
    ]
}
