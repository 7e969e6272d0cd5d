//! Sampling of channels-last images at positions that a grid gives (Jaderberg et al., 2015).
//!
//! Along each axis an output position reads one, two or four input positions, its *taps*; the sum
//! over both axes is weighted by the product of their weights. The forward pass and the grid's
//! gradient run over rows of the output. The input's gradient is written by one task for each
//! image, since any output position may add to any input position.

use super::resample::cubic_weights;
use super::runtime::parallel;
use super::runtime::simd::{Real, vectorize};

/// What is read between pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GridFilter {
    /// The weighted average of the four surrounding pixels.
    #[default]
    Bilinear,
    /// The nearest pixel; half-way between two the even one.
    Nearest,
    /// Cubic convolution over 4×4 pixels (Keys, 1981) with `a = -0.75`.
    Bicubic,
}

/// What is read outside of the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GridPadding {
    /// Zeros.
    #[default]
    Zeros,
    /// The nearest pixel at the edge.
    Border,
    /// The image reflected at its edge, as often as necessary.
    Reflection,
}

/// How positions of a grid are read.
#[derive(Clone, Copy, Debug)]
pub struct GridSample {
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Channels.
    pub channels: usize,
    /// What is read between pixels.
    pub filter: GridFilter,
    /// What is read outside of the image.
    pub padding: GridPadding,
    /// Whether -1 and 1 are the centres of the corner pixels, or the image's outer edges.
    pub align_corners: bool,
}

/// One input position along an axis.
#[derive(Clone, Copy)]
struct Tap<T> {
    /// The position, if it is in the image.
    at: Option<usize>,
    weight: T,
    /// The derivative of the weight by the grid's coordinate.
    slope: T,
}

/// What one output position reads along one axis.
struct AxisReads<T> {
    taps: [Tap<T>; 4],
    count: usize,
}

impl<T: Copy> AxisReads<T> {
    fn iter(&self) -> impl Iterator<Item = Tap<T>> + Clone + '_ {
        self.taps[..self.count].iter().copied()
    }
}

/// One pixel that an output position reads.
struct Read<T> {
    /// Its offset in the image, in pixels.
    pixel: usize,
    weight: T,
    /// The derivatives of the weight by `x` and `y` of the grid.
    slope: [T; 2],
}

impl GridSample {
    /// Returns the coordinate in pixels for one of the grid, and its derivative.
    fn place<T: Real>(&self, at: T, axis: usize) -> (T, T) {
        let [one, two] = [T::one(), T::of(2.0)];
        let size = T::of(self.input[axis] as f64);
        // As PyTorch, which reads NaN as -1.
        let at = if at.is_nan() { -one } else { at };
        let (place, slope) = match self.align_corners {
            true => ((at + one) / two * (size - one), (size - one) / two),
            false => (((at + one) * size - one) / two, size / two),
        };
        // Far outside of any image, where neighbours would be the same number.
        let far = T::of(1e9);
        if place.abs() < far { (place, slope) } else { (place.max(-far).min(far), T::zero()) }
    }

    /// Returns the coordinate in the image for one that may be outside, as the padding says, and
    /// its derivative.
    fn padded<T: Real>(&self, mut place: T, axis: usize) -> (T, T) {
        if self.padding == GridPadding::Zeros {
            return (place, T::one());
        }
        let (mut slope, last) = (T::one(), T::of((self.input[axis] - 1) as f64));
        if self.padding == GridPadding::Reflection {
            let (low, span) = if self.align_corners { (T::zero(), last) } else { (T::of(-0.5), last + T::one()) };
            if span <= T::zero() {
                return (T::zero(), T::zero());
            }
            let inside = place - low;
            slope = if inside < T::zero() { -slope } else { slope };
            let (turns, rest) = ((inside.abs() / span).floor(), inside.abs() % span);
            // An odd number of reflections runs backwards.
            let is_odd = turns % T::of(2.0) == T::one();
            place = if is_odd { span - rest + low } else { rest + low };
            slope = if is_odd { -slope } else { slope };
        }
        if place <= T::zero() {
            (T::zero(), T::zero())
        } else if place >= last {
            (last, T::zero())
        } else {
            (place, slope)
        }
    }

    /// Returns the input position at a whole coordinate, if it is in the image.
    fn inside<T: Real>(&self, place: T, axis: usize) -> Option<usize> {
        let at = place.to_usize()?;
        (place >= T::zero() && at < self.input[axis]).then_some(at)
    }

    /// Returns what one axis reads at a coordinate of the grid.
    fn taps<T: Real>(&self, at: T, axis: usize) -> AxisReads<T> {
        let [zero, one] = [T::zero(), T::one()];
        let none = Tap { at: None, weight: zero, slope: zero };
        let (place, scale) = self.place(at, axis);
        if self.filter == GridFilter::Bicubic {
            let low = place.floor();
            let (weights, slopes) = cubic_weights(place - low, T::of(-0.75));
            let tap = |i: usize| {
                // The padding moves each pixel that is read, not the position between them.
                let (at, _) = self.padded(low + T::of(i as f64 - 1.0), axis);
                Tap { at: self.inside(at, axis), weight: weights[i], slope: slopes[i] * scale }
            };
            return AxisReads { taps: [tap(0), tap(1), tap(2), tap(3)], count: 4 };
        }
        let (place, slope) = self.padded(place, axis);
        let low = place.floor();
        let rest = place - low;
        if self.filter == GridFilter::Nearest {
            let half = T::of(0.5);
            let is_up = rest > half || rest == half && low % T::of(2.0) != zero;
            let at = self.inside(if is_up { low + one } else { low }, axis);
            return AxisReads { taps: [Tap { at, weight: one, slope: zero }, none, none, none], count: 1 };
        }
        let slope = slope * scale;
        let before = Tap { at: self.inside(low, axis), weight: one - rest, slope: -slope };
        let after = Tap { at: self.inside(low + one, axis), weight: rest, slope };
        AxisReads { taps: [before, after, none, none], count: 2 }
    }

    /// Calls `visit` for each pixel of the image that the position `[x, y]` of a grid reads.
    #[inline(always)]
    fn for_reads<T: Real>(&self, grid: &[T], mut visit: impl FnMut(Read<T>)) {
        let (rows, columns) = (self.taps(grid[1], 0), self.taps(grid[0], 1));
        for row in rows.iter() {
            for column in columns.iter() {
                if let (Some(y), Some(x)) = (row.at, column.at) {
                    let slope = [row.weight * column.slope, row.slope * column.weight];
                    visit(Read { pixel: y * self.input[1] + x, weight: row.weight * column.weight, slope });
                }
            }
        }
    }

    fn image_length(&self) -> usize {
        self.input[0] * self.input[1] * self.channels
    }

    /// Computes `y[n, i, j, ..]` from `x`, `[N, H, W, C]`, at `grid[n, i, j]`, `(x, y)` each;
    /// `size` is the output's height and width.
    pub fn forward<T: Real>(&self, size: [usize; 2], x: &[T], grid: &[T], y: &mut [T]) {
        let work = 16 * y.len();
        parallel::chunks_mut(y, size[1] * self.channels, work, |row, y| {
            let x = &x[row / size[0] * self.image_length()..][..self.image_length()];
            let grid = &grid[row * size[1] * 2..][..size[1] * 2];
            vectorize!(T, {
                y.fill(T::zero());
                for (y, grid) in y.chunks_exact_mut(self.channels).zip(grid.chunks_exact(2)) {
                    self.for_reads(grid, |Read { pixel, weight, .. }| {
                        let x = &x[pixel * self.channels..][..self.channels];
                        y.iter_mut().zip(x).for_each(|(y, &x)| *y += weight * x);
                    });
                }
            });
        });
    }

    /// Computes the gradient of the input from that of the output, `dy`.
    pub fn input_gradient<T: Real>(&self, size: [usize; 2], grid: &[T], dy: &[T], dx: &mut [T]) {
        let (work, positions) = (16 * dy.len(), size[0] * size[1]);
        parallel::chunks_mut(dx, self.image_length(), work, |image, dx| {
            let dy = &dy[image * positions * self.channels..][..positions * self.channels];
            let grid = &grid[image * positions * 2..][..positions * 2];
            vectorize!(T, {
                dx.fill(T::zero());
                for (dy, grid) in dy.chunks_exact(self.channels).zip(grid.chunks_exact(2)) {
                    self.for_reads(grid, |Read { pixel, weight, .. }| {
                        let dx = &mut dx[pixel * self.channels..][..self.channels];
                        dx.iter_mut().zip(dy).for_each(|(dx, &dy)| *dx += weight * dy);
                    });
                }
            });
        });
    }

    /// Computes the gradient of the grid from that of the output, `dy`.
    pub fn grid_gradient<T: Real>(&self, size: [usize; 2], x: &[T], grid: &[T], dy: &[T], dgrid: &mut [T]) {
        if self.channels == 0 {
            return dgrid.fill(T::zero());
        }
        let work = 16 * dy.len();
        parallel::chunks_mut(dgrid, size[1] * 2, work, |row, dgrid| {
            let x = &x[row / size[0] * self.image_length()..][..self.image_length()];
            let grid = &grid[row * size[1] * 2..][..size[1] * 2];
            let dy = &dy[row * size[1] * self.channels..][..size[1] * self.channels];
            for ((dgrid, grid), dy) in dgrid.chunks_exact_mut(2).zip(grid.chunks_exact(2)).zip(dy.chunks_exact(self.channels)) {
                dgrid.fill(T::zero());
                self.for_reads(grid, |Read { pixel, slope, .. }| {
                    let x = &x[pixel * self.channels..][..self.channels];
                    let product = x.iter().zip(dy).fold(T::zero(), |sum, (&x, &dy)| sum + x * dy);
                    dgrid[0] += slope[0] * product;
                    dgrid[1] += slope[1] * product;
                });
            }
        });
    }
}
