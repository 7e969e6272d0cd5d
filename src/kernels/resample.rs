//! Resampling of channels-last images: nearest neighbour and bilinear.
//!
//! Along each axis an output position reads two input positions, its *taps*. The interpolation of
//! the image is the product of both axes. The forward pass runs over output rows; the backward pass
//! runs over input rows and gathers from the output rows that read them, in their order, so that
//! each row of the gradient has one writer.

use super::runtime::parallel;
use super::runtime::simd::{Real, Scalar, vectorize};

/// The input positions that one output position reads, and their weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taps<T> {
    /// The positions.
    pub at: [usize; 2],
    /// The weights; their sum is 1.
    pub weight: [T; 2],
}

/// Returns the nearest input position for each output position, computed in `f32` as PyTorch does.
pub fn nearest_positions(input: usize, output: usize) -> Vec<usize> {
    let scale = input as f32 / output as f32;
    (0..output)
        .map(|to| match output {
            _ if output == input => to,
            _ if output / 2 == input && output.is_multiple_of(2) => to / 2,
            _ => ((to as f32 * scale).floor() as usize).min(input - 1),
        })
        .collect()
}

/// Returns the only tap of each output position.
pub fn nearest_taps<T: Real>(input: usize, output: usize) -> Vec<Taps<T>> {
    nearest_positions(input, output).into_iter().map(|at| Taps { at: [at, at], weight: [T::one(), T::zero()] }).collect()
}

/// Returns the taps of linear interpolation, computed in `T` as PyTorch does.
pub fn linear_taps<T: Real>(input: usize, output: usize, align_corners: bool) -> Vec<Taps<T>> {
    let number = |n: usize| T::of(n as f64);
    let half = T::of(0.5);
    let scale = match (align_corners, output) {
        (true, 1) => T::zero(),
        (true, _) => number(input - 1) / number(output - 1),
        (false, _) => number(input) / number(output),
    };
    (0..output)
        .map(|to| {
            if input == output {
                return Taps { at: [to, to], weight: [T::one(), T::zero()] };
            }
            let from = if align_corners { scale * number(to) } else { (scale * (number(to) + half) - half).max(T::zero()) };
            let low = from.to_usize().unwrap_or(0).min(input - 1);
            let weight = (from - number(low)).max(T::zero()).min(T::one());
            Taps { at: [low, (low + 1).min(input - 1)], weight: [T::one() - weight, weight] }
        })
        .collect()
}

/// Computes `y[n, i, j, ..] = x[n, rows[i], columns[j], ..]`, where `x` is `[N, height, width,
/// channels]`.
pub fn nearest<T: Scalar>([height, width, channels]: [usize; 3], rows: &[usize], columns: &[usize], x: &[T], y: &mut [T]) {
    let work = y.len();
    parallel::chunks_mut(y, columns.len() * channels, work, |task, y| {
        let (image, row) = (task / rows.len(), task % rows.len());
        let x = &x[(image * height + rows[row]) * width * channels..][..width * channels];
        for (y, &column) in y.chunks_exact_mut(channels).zip(columns) {
            y.copy_from_slice(&x[column * channels..][..channels]);
        }
    });
}

/// Computes `y[n, i, j, ..] = Σ over both axes' taps of weight · x[n, .., .., ..]`, where `x` is
/// `[N, height, width, channels]`.
pub fn bilinear<T: Real>([height, width, channels]: [usize; 3], rows: &[Taps<T>], columns: &[Taps<T>], x: &[T], y: &mut [T]) {
    let work = 8 * y.len();
    parallel::chunks_mut(y, columns.len() * channels, work, |task, y| {
        let (image, row) = (task / rows.len(), &rows[task % rows.len()]);
        let [top, bottom] = row.at.map(|at| &x[(image * height + at) * width * channels..][..width * channels]);
        vectorize::<T, _>(|| {
            for (y, column) in y.chunks_exact_mut(channels).zip(columns) {
                let [left, right] = column.at.map(|at| at * channels);
                let corners = top[left..].iter().zip(&top[right..]).zip(&bottom[left..]).zip(&bottom[right..]);
                for (y, (((&a, &b), &c), &d)) in y.iter_mut().zip(corners) {
                    let upper = column.weight[0] * a + column.weight[1] * b;
                    let lower = column.weight[0] * c + column.weight[1] * d;
                    *y = row.weight[0] * upper + row.weight[1] * lower;
                }
            }
        });
    });
}

/// Computes the gradient of [`bilinear`] (and, with taps of weight 1, of [`nearest`]): `x` from the
/// gradient `y` of the result.
pub fn bilinear_backward<T: Real>([height, width, channels]: [usize; 3], rows: &[Taps<T>], columns: &[Taps<T>], y: &[T], x: &mut [T]) {
    let mut readers = vec![vec![]; height];
    for (row, taps) in rows.iter().enumerate() {
        for (at, weight) in taps.at.into_iter().zip(taps.weight).filter(|&(_, weight)| weight != T::zero()) {
            readers[at].push((row, weight));
        }
    }
    let row_length = columns.len() * channels;
    let work = 4 * y.len() + x.len();
    parallel::chunks_mut(x, width * channels, work, |task, x| {
        let (image, readers) = (task / height, &readers[task % height]);
        x.fill(T::zero());
        vectorize::<T, _>(|| {
            for &(row, row_weight) in readers {
                let y = &y[(image * rows.len() + row) * row_length..][..row_length];
                for (y, column) in y.chunks_exact(channels).zip(columns) {
                    for (at, weight) in column.at.into_iter().zip(column.weight).filter(|&(_, weight)| weight != T::zero()) {
                        let weight = weight * row_weight;
                        x[at * channels..][..channels].iter_mut().zip(y).for_each(|(x, &y)| *x += weight * y);
                    }
                }
            }
        });
    });
}
