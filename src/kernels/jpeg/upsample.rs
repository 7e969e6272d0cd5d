//! Upsampling by a triangle (libjpeg's "fancy" upsampling): each new sample is three quarters of
//! the sample that covers it and one quarter of the next nearest one.

use crate::kernels::runtime::simd::vectorize;

/// Computes `out[x] = (3 · near[x] + far[x] + bias) / 4`, rounded down.
pub fn double_rows(near: &[u8], far: &[u8], bias: u16, out: &mut [u8]) {
    vectorize!(f32, {
        for ((out, &near), &far) in out.iter_mut().zip(near).zip(far) {
            *out = ((3 * u16::from(near) + u16::from(far) + bias) >> 2) as u8;
        }
    });
}

/// Makes two samples of each one of `3 · near + far`, in `out[2x]` and `out[2x + 1]`: the left one
/// with the left neighbour, the right one with the right neighbour, at the ends the sample alone.
/// They are in sixteenths, rounded down after addition of `bias`. `sums` is a buffer.
pub fn double_columns(near: &[u8], far: &[u8], bias: [u16; 2], sums: &mut Vec<u16>, out: &mut [u8]) {
    let width = near.len();
    sums.resize(width + 2, 0);
    let inner = &mut sums[1..=width];
    vectorize!(f32, {
        for ((sum, &near), &far) in inner.iter_mut().zip(near).zip(far) {
            *sum = 3 * u16::from(near) + u16::from(far);
        }
    });
    (sums[0], sums[width + 1]) = (sums[1], sums[width]);
    let (before, at, after) = (&sums[..width], &sums[1..=width], &sums[2..]);
    let out = out.as_chunks_mut::<2>().0;
    vectorize!(f32, {
        for (((out, &before), &at), &after) in out.iter_mut().zip(before).zip(at).zip(after) {
            let (left, right) = ((3 * at + before + bias[0]) >> 4, (3 * at + after + bias[1]) >> 4);
            *out = (left | right << 8).to_le_bytes();
        }
    });
}
