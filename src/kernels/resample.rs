//! Resampling of channels-last images: nearest neighbour, bilinear and bicubic.
//!
//! Along each axis an output position reads two or four input positions, its *taps*. The
//! interpolation of the image is the product of both axes. The forward pass runs over output rows;
//! the backward pass runs over input rows and gathers from the output rows that read them, in their
//! order, so that each row of the gradient has one writer.

use super::runtime::arrays::MapEach;
use super::runtime::parallel;
use super::runtime::simd::{Real, Scalar, vectorize};

/// The input positions that one output position reads, and their weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taps<T, const N: usize> {
    /// The positions.
    pub at: [usize; N],
    /// The weights; their sum is 1.
    pub weight: [T; N],
}

/// Where the pixels of a resampled image lie in its original.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coordinates {
    /// Pixels are squares, and the image's outer edges stay: `(i + 0.5) · in / out - 0.5`.
    #[default]
    HalfPixel,
    /// The centres of the corner pixels stay: `i · (in - 1) / (out - 1)`.
    AlignCorners,
    /// The first pixels' centres stay: `i · in / out`.
    Asymmetric,
}

/// How a position between two pixels is rounded to the nearest one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// To the pixel before.
    #[default]
    Floor,
    /// To the pixel after.
    Ceil,
    /// To the nearer one; half-way to the pixel before.
    HalfDown,
    /// To the nearer one; half-way to the pixel after.
    HalfUp,
}

/// The geometry of one axis: sizes, and how positions of the output map to the input.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// The input's size, at least 1.
    pub input: usize,
    /// The output's size, at least 1.
    pub output: usize,
    /// The output positions for one input position; `out / in` when it is not given.
    pub factor: Option<f64>,
    /// The mapping.
    pub coordinates: Coordinates,
}

impl Axis {
    /// Returns the number of input positions for one output position, computed in `T` as PyTorch
    /// does.
    fn step<T: Real>(&self) -> T {
        let number = |n: usize| T::of(n as f64);
        match (self.coordinates, self.factor) {
            (Coordinates::AlignCorners, _) if self.output == 1 => T::zero(),
            (Coordinates::AlignCorners, _) => number(self.input - 1) / number(self.output - 1),
            (_, Some(factor)) => T::of(1.0 / factor),
            (_, None) => number(self.input) / number(self.output),
        }
    }

    /// Returns whether output and input positions are the same.
    fn is_identity(&self) -> bool {
        self.input == self.output && self.factor.is_none_or(|factor| factor == 1.0 || self.coordinates == Coordinates::AlignCorners)
    }

    /// Returns the input position of each output position, which may be outside of the input.
    fn positions<T: Real>(&self) -> impl Iterator<Item = T> {
        let (step, half, coordinates) = (self.step::<T>(), T::of(0.5), self.coordinates);
        (0..self.output).map(move |to| {
            let to = T::of(to as f64);
            if coordinates == Coordinates::HalfPixel { step * (to + half) - half } else { step * to }
        })
    }

    /// Returns the nearest input position for each output position, computed in `f32` as PyTorch
    /// does.
    pub fn nearest(&self, rounding: Rounding) -> Vec<usize> {
        if self.is_identity() {
            return (0..self.output).collect();
        }
        let last = (self.input - 1) as f32;
        if self.coordinates == Coordinates::HalfPixel && rounding == Rounding::HalfUp {
            // Without taking a half off and adding it again, which rounds twice.
            let step: f32 = self.step();
            return (0..self.output).map(|to| ((to as f32 + 0.5) * step).floor().min(last) as usize).collect();
        }
        let rounded = |from: f32| match rounding {
            Rounding::Floor => from.floor(),
            Rounding::Ceil => from.ceil(),
            Rounding::HalfDown => (from - 0.5).ceil(),
            Rounding::HalfUp => (from + 0.5).floor(),
        };
        self.positions::<f32>().map(|from| rounded(from).max(0.0).min(last) as usize).collect()
    }

    /// Returns the only tap of each output position.
    pub fn nearest_taps<T: Real>(&self, rounding: Rounding) -> Vec<Taps<T, 2>> {
        self.nearest(rounding).into_iter().map(|at| Taps { at: [at, at], weight: [T::one(), T::zero()] }).collect()
    }

    /// Returns the taps of linear interpolation, computed in `T` as PyTorch does.
    pub fn linear_taps<T: Real>(&self) -> Vec<Taps<T, 2>> {
        if self.is_identity() {
            return (0..self.output).map(|at| Taps { at: [at, at], weight: [T::one(), T::zero()] }).collect();
        }
        let last = self.input - 1;
        self.positions::<T>()
            .map(|from| {
                let from = from.max(T::zero()).min(T::of(last as f64));
                let low = from.to_usize().unwrap_or(0).min(last);
                let weight = (from - T::of(low as f64)).max(T::zero()).min(T::one());
                Taps { at: [low, (low + 1).min(last)], weight: [T::one() - weight, weight] }
            })
            .collect()
    }

    /// Returns the taps of cubic convolution (Keys, 1981) with the parameter `a`; positions outside
    /// of the input are moved to its edge.
    pub fn cubic_taps<T: Real>(&self, a: f64) -> Vec<Taps<T, 4>> {
        let (a, last) = (T::of(a), T::of((self.input - 1) as f64));
        self.positions::<T>()
            .map(|from| {
                let low = from.floor();
                let (weight, _) = cubic_weights(from - low, a);
                let at = |offset: f64| (low + T::of(offset)).max(T::zero()).min(last).to_usize().unwrap_or(0);
                Taps { at: [at(-1.0), at(0.0), at(1.0), at(2.0)], weight }
            })
            .collect()
    }
}

/// Returns the weights of the four pixels around a position, at distances `x + 1`, `x`, `1 - x` and
/// `2 - x`, of cubic convolution with the parameter `a`, and their derivatives by `x`.
pub fn cubic_weights<T: Real>(x: T, a: T) -> ([T; 4], [T; 4]) {
    let [one, two, three, eight] = [1.0, 2.0, 3.0, 8.0].map(T::of);
    let near = |x: T| ((a + two) * x - (a + three)) * x * x + one;
    let far = |x: T| ((a * x - T::of(5.0) * a) * x + eight * a) * x - T::of(4.0) * a;
    let near_slope = |x: T| (three * (a + two) * x - two * (a + three)) * x;
    let far_slope = |x: T| (three * a * x - T::of(10.0) * a) * x + eight * a;
    let weights = [far(x + one), near(x), near(one - x), far(two - x)];
    (weights, [far_slope(x + one), near_slope(x), -near_slope(one - x), -far_slope(two - x)])
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
pub fn bilinear<T: Real>([height, width, channels]: [usize; 3], rows: &[Taps<T, 2>], columns: &[Taps<T, 2>], x: &[T], y: &mut [T]) {
    let work = 8 * y.len();
    parallel::chunks_mut(y, columns.len() * channels, work, |task, y| {
        let (image, row) = (task / rows.len(), &rows[task % rows.len()]);
        let [top, bottom] = row.at.map(|at| &x[(image * height + at) * width * channels..][..width * channels]);
        vectorize!(T, {
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

/// Computes `y` from four taps along each axis, as [`bilinear`] does from two.
pub fn bicubic<T: Real>([height, width, channels]: [usize; 3], rows: &[Taps<T, 4>], columns: &[Taps<T, 4>], x: &[T], y: &mut [T]) {
    let work = 32 * y.len();
    parallel::chunks_mut(y, columns.len() * channels, work, |task, y| {
        let (image, row) = (task / rows.len(), &rows[task % rows.len()]);
        vectorize!(T, {
            y.fill(T::zero());
            for (at, row_weight) in row.at.into_iter().zip(row.weight) {
                let x = &x[(image * height + at) * width * channels..][..width * channels];
                for (y, column) in y.chunks_exact_mut(channels).zip(columns) {
                    let [a, b, c, d] = column.at.map_each(|at| &x[at * channels..][..channels]);
                    let weight = column.weight;
                    for (y, (((&a, &b), &c), &d)) in y.iter_mut().zip(a.iter().zip(b).zip(c).zip(d)) {
                        *y += row_weight * (weight[0] * a + weight[1] * b + weight[2] * c + weight[3] * d);
                    }
                }
            }
        });
    });
}

/// Computes the gradient of [`bilinear`], [`bicubic`] and, with taps of weight 1, [`nearest`]: `x`
/// from the gradient `y` of the result.
pub fn backward<T: Real, const N: usize>(
    [height, width, channels]: [usize; 3],
    rows: &[Taps<T, N>],
    columns: &[Taps<T, N>],
    y: &[T],
    x: &mut [T],
) {
    gather([height, width, channels], [rows.len(), columns.len()], &reads(rows), &reads(columns), y, x);
}

/// An output position, an input position that it reads, and the weight.
#[derive(Clone, Copy)]
struct Read<T> {
    output: usize,
    input: usize,
    weight: T,
}

/// Returns all reads along an axis, in the order of the output positions, except those of weight 0.
fn reads<T: Real, const N: usize>(taps: &[Taps<T, N>]) -> Vec<Read<T>> {
    let mut reads = Vec::with_capacity(N * taps.len());
    for (output, taps) in taps.iter().enumerate() {
        reads.extend(taps.at.into_iter().zip(taps.weight).map(|(input, weight)| Read { output, input, weight }));
    }
    reads.retain(|read| read.weight != T::zero());
    reads
}

/// Computes [`backward`] for outputs of `[out_height, out_width]`; compiled once for all numbers of
/// taps.
fn gather<T: Real>(
    [height, width, channels]: [usize; 3],
    [out_height, out_width]: [usize; 2],
    rows: &[Read<T>],
    columns: &[Read<T>],
    y: &[T],
    x: &mut [T],
) {
    let mut readers = vec![vec![]; height];
    rows.iter().for_each(|&row| readers[row.input].push(row));
    let row_length = out_width * channels;
    let work = 4 * y.len() + x.len();
    parallel::chunks_mut(x, width * channels, work, |task, x| {
        let (image, readers) = (task / height, &readers[task % height]);
        x.fill(T::zero());
        vectorize!(T, {
            for row in readers {
                let y = &y[(image * out_height + row.output) * row_length..][..row_length];
                for column in columns {
                    let weight = column.weight * row.weight;
                    let (x, y) = (&mut x[column.input * channels..][..channels], &y[column.output * channels..][..channels]);
                    x.iter_mut().zip(y).for_each(|(x, &y)| *x += weight * y);
                }
            }
        });
    });
}
