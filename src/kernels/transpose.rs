//! Conversions between channels-first and channels-last memory, and other matrix transposes.

use super::runtime::parallel;
use super::runtime::simd::Scalar;

/// The side of the square blocks in which a matrix is transposed, so that every cache line that is
/// read or written is fully used.
const SIDE: usize = 16;

/// Computes `y[b, j, i] = x[b, i, j]` for `batch` matrices of `rows × columns`.
pub fn transpose<T: Scalar>(batch: usize, rows: usize, columns: usize, x: &[T], y: &mut [T]) {
    let size = rows * columns;
    assert!(x.len() == batch * size && y.len() == x.len());
    if size == 0 {
        return;
    }
    if rows == 1 || columns == 1 {
        return y.copy_from_slice(x);
    }
    let work = 2 * y.len();
    // A task fills a band of the result's rows.
    let band = (64 * 1024 / rows).clamp(1, columns).next_multiple_of(SIDE).min(columns);
    let bands = columns.div_ceil(band);
    let y = parallel::Disjoint::new(y);
    parallel::for_each(batch * bands, work, |task| {
        let (image, first) = (task / bands, task % bands * band);
        let last = columns.min(first + band);
        // SAFETY: each task has its own band of its own matrix.
        let y = unsafe { y.slice(image * size + first * rows, (last - first) * rows) };
        transpose_part([rows, last - first], &x[image * size + first..(image + 1) * size], columns, y, rows);
    });
}

/// Computes `y[j · to + i] = x[i · from + j]` for a part of `rows × columns` of matrices with rows
/// of `from` and `to` elements, on the calling thread.
pub fn transpose_part<T: Scalar>([rows, columns]: [usize; 2], x: &[T], from: usize, y: &mut [T], to: usize) {
    for j0 in (0..columns).step_by(SIDE) {
        for i0 in (0..rows).step_by(SIDE) {
            for j in j0..columns.min(j0 + SIDE) {
                let y = &mut y[j * to + i0..j * to + rows.min(i0 + SIDE)];
                for (y, x) in y.iter_mut().zip(x[i0 * from + j..].iter().step_by(from)) {
                    *y = *x;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transpose_moves_every_element() {
        for (batch, rows, columns) in [(1, 1, 5), (2, 3, 7), (1, 40, 33), (3, 64, 17), (2, 47, 50), (0, 4, 4), (2, 0, 3)] {
            let x: Vec<i64> = (0..batch * rows * columns).map(|i| i as i64).collect();
            let mut y = vec![0; x.len()];
            transpose(batch, rows, columns, &x, &mut y);
            for (at, &value) in y.iter().enumerate() {
                let (b, j, i) = (at / (rows * columns), at / rows % columns, at % rows);
                assert_eq!(value, ((b * rows + i) * columns + j) as i64);
            }
        }
    }
}
