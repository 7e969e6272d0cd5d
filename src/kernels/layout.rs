//! Conversions between channels-first and channels-last memory: a batch of matrix transposes.

use super::parallel;
use super::simd::Scalar;

/// Side of the square blocks in which a matrix is transposed, so that both sides stay in L1.
const SIDE: usize = 16;

/// `y[b, j, i] = x[b, i, j]` for `batch` matrices of `rows × columns`.
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
        let x = &x[image * size..][..size];
        // SAFETY: each task has its own band of its own matrix.
        let y = unsafe { y.slice(image * size + first * rows, (last - first) * rows) };
        for j0 in (first..last).step_by(SIDE) {
            for i0 in (0..rows).step_by(SIDE) {
                for j in j0..last.min(j0 + SIDE) {
                    let y = &mut y[(j - first) * rows..][..rows];
                    for i in i0..rows.min(i0 + SIDE) {
                        y[i] = x[i * columns + j];
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_moves_every_element() {
        for (batch, rows, columns) in [(1, 1, 5), (2, 3, 7), (1, 40, 33), (3, 64, 17), (0, 4, 4), (2, 0, 3)] {
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
