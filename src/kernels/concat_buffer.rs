//! Rows of channels inside wider rows: appends channels and normalises the first ones.

use super::elementwise::epilogue::Activation;
use super::runtime::allocator::AlignedVec;
use super::runtime::parallel::{self, Disjoint};
use super::runtime::simd::{Real, vectorize};

/// The number of elements that one task handles.
const GRAIN: usize = 32 * 1024;

/// Writes `added` channels of each row of `x` after the first `used` channels of each row of `y`,
/// whose rows have `pitch` elements.
pub(crate) fn put<T: Real>(y: &mut [T], pitch: usize, used: usize, x: &[T], added: usize) {
    if x.is_empty() {
        return;
    }
    let rows = x.len() / added;
    assert!(used + added <= pitch && x.len() == rows * added && y.len() == rows * pitch);
    let block = (GRAIN / added).max(1);
    parallel::chunks_mut(y, block * pitch, 2 * x.len(), |i, y| {
        for (y, x) in y.chunks_exact_mut(pitch).zip(x[i * block * added..].chunks_exact(added)) {
            y[used..used + added].copy_from_slice(x);
        }
    });
}

/// Computes `y = activation(x · scale + offset)` channel by channel, for the first channels of each
/// row of `x`, whose rows have `pitch` elements.
pub(crate) fn affine<T: Real>(x: &[T], pitch: usize, [scale, offset]: [&[f64]; 2], activation: Activation, y: &mut [T]) {
    let channels = scale.len();
    if y.is_empty() {
        return;
    }
    let rows = y.len() / channels;
    assert!(offset.len() == channels && channels <= pitch && y.len() == rows * channels && x.len() == rows * pitch);
    let rounded = |values: &[f64]| {
        let mut buffer = AlignedVec::uninit(channels);
        buffer.iter_mut().zip(values).for_each(|(to, &from)| *to = T::of(from));
        buffer
    };
    let (scale, offset): (AlignedVec<T>, AlignedVec<T>) = (rounded(scale), rounded(offset));
    let block = (GRAIN / channels).max(1);
    let work = 2 * y.len();
    let y = Disjoint::new(y);
    parallel::for_each(rows.div_ceil(block), work, |task| {
        let first = task * block;
        let count = block.min(rows - first);
        // SAFETY: tasks own distinct rows.
        let y = unsafe { y.slice(first * channels, count * channels) };
        vectorize!(T, {
            for (y, x) in y.chunks_exact_mut(channels).zip(x[first * pitch..].chunks(pitch)) {
                for (((y, &x), &scale), &offset) in y.iter_mut().zip(x).zip(scale.iter()).zip(offset.iter()) {
                    *y = x * scale + offset;
                }
                activation.map(y);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_appended_to_rows_and_normalised() {
        let (rows, pitch) = (5000, 7);
        let mut maps = vec![f64::NAN; rows * pitch];
        put(&mut maps, pitch, 0, &vec![1.0; rows * 2], 2);
        put(&mut maps, pitch, 2, &(0..rows * 3).map(|i| i as f64).collect::<Vec<_>>(), 3);
        let mut y = vec![f64::NAN; rows * 5];
        affine(&maps, pitch, [&[1.0, 2.0, 1.0, 1.0, -1.0], &[-3.0, 0.0, 0.0, 1.0, 6.0]], Activation::Relu, &mut y);
        for (row, y) in y.chunks_exact(5).enumerate() {
            let first = 3.0 * row as f64;
            assert_eq!(y, [0.0, 2.0, first, first + 2.0, (4.0 - first).max(0.0)], "row {row}");
        }
    }
}
