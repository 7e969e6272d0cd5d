//! The mean and the squared deviations of a map's channels, combined from those of parts of its
//! pixels.
//!
//! A part is summed in the map's precision relative to a value of the part, so that nothing
//! cancels; parts are combined in `f64` (Chan et al., 1979). Direct and depthwise convolution
//! compute the moments of their output while it is in registers ([`MomentAccumulator`]), so that a
//! following normalisation need not read it twice.

use pulp::Simd;

use crate::kernels::runtime::allocator::AlignedVec;
use crate::kernels::runtime::parallel::{self, Disjoint};
use crate::kernels::runtime::simd::Real;

/// The number of channels that one task combines.
const CHANNELS: usize = 32;

/// The moments of each channel of a map.
#[derive(Clone, Debug, Default)]
pub struct Moments {
    /// The mean.
    pub mean: Vec<f64>,
    /// The sum of squared deviations from the mean.
    pub m2: Vec<f64>,
}

/// Combines the moments of `channels` channels from those of parts. Part `p` has `rows[p]` values
/// of each channel; `sums(p, c)` returns the center from which the part's deviations were taken,
/// their sum, and the sum of their squares. It is not called for parts without values.
pub(crate) fn join(channels: usize, rows: &[usize], sums: impl Fn(usize, usize) -> [f64; 3] + Sync) -> Moments {
    let total = rows.iter().sum::<usize>().max(1) as f64;
    let parts = || rows.iter().enumerate().filter(|&(_, &rows)| rows > 0).map(|(part, &rows)| (part, rows as f64, 1.0 / rows as f64));
    let mut joined = vec![[0.0; 2]; channels];
    parallel::chunks_mut(&mut joined, CHANNELS, 20 * rows.len() * channels, |block, joined| {
        let first = block * CHANNELS;
        for (part, rows, inverse) in parts() {
            let share = rows / total;
            for (c, [mean, _]) in joined.iter_mut().enumerate() {
                let [center, sum, _] = sums(part, first + c);
                *mean += share * (center + sum * inverse);
            }
        }
        for (part, rows, inverse) in parts() {
            for (c, [mean, squares]) in joined.iter_mut().enumerate() {
                let [center, sum, more] = sums(part, first + c);
                let own = sum * inverse;
                let distance = center + own - *mean;
                // Rounding may produce a negative number; NaN stays.
                let around_own = more - sum * own;
                *squares += if around_own < 0.0 { 0.0 } else { around_own } + rows * distance * distance;
            }
        }
    });
    let (mean, squares) = joined.into_iter().map(|[mean, squares]| (mean, squares)).unzip();
    Moments { mean, m2: squares }
}

/// The division of a map into parts for a [`MomentAccumulator`].
pub(crate) struct Parts {
    /// The number of pixels of each part.
    pub(crate) rows: Vec<usize>,
    /// The number of places for channels in a part.
    pub(crate) width: usize,
    /// The place of each channel.
    pub(crate) places: Vec<usize>,
}

impl Parts {
    /// Returns the moments of the map that `compute` writes; `compute` stores the sums of every
    /// part in the accumulator passed to it.
    pub(crate) fn moments<T: Real>(&self, compute: impl FnOnce(MomentAccumulator<'_, T>)) -> Moments {
        let mut sums = AlignedVec::<T>::uninit(self.rows.len() * 3 * self.width);
        compute(MomentAccumulator { sums: &Disjoint::new(&mut sums), start: 0, width: self.width });
        join(self.places.len(), &self.rows, |part, channel| {
            let at = part * 3 * self.width + self.places[channel];
            let value = |which: usize| sums[at + which * self.width].to_f64().unwrap_or(f64::NAN);
            [value(0), value(1), value(2)]
        })
    }
}

/// The destination of the sums of a map's parts, `[parts][3][width]`: centers, sums of deviations
/// and sums of their squares.
#[derive(Clone, Copy)]
pub struct MomentAccumulator<'a, T> {
    sums: &'a Disjoint<'a, T>,
    start: usize,
    width: usize,
}

impl<'a, T: Real> MomentAccumulator<'a, T> {
    /// Returns the sums of the part that is `parts` further on.
    pub(crate) fn part(self, parts: usize) -> Self {
        MomentAccumulator { start: self.start + parts * 3 * self.width, ..self }
    }

    /// Returns the sums from place `place` on.
    pub(crate) fn from(self, place: usize) -> Self {
        MomentAccumulator { start: self.start + place, ..self }
    }

    /// Loads the sums of a vector of channels from place `place` on, to add to them; `fresh` if
    /// there are none yet.
    ///
    /// # Safety
    /// No other thread may touch these sums until they are closed.
    #[inline(always)]
    pub(crate) unsafe fn open<S: Simd>(self, simd: S, place: usize, fresh: bool) -> Running<T, S> {
        let lanes = T::lanes::<S>();
        let at = self.sums.pointer(self.start + place, 2 * self.width + lanes);
        let zero = T::splat(simd, T::zero());
        if fresh {
            return Running { center: zero, sum: zero, squares: zero, fresh, at, width: self.width };
        }
        // SAFETY: `pointer` has checked the last of the three vectors; by this function's contract
        // only this thread uses them.
        let read = |which: usize| unsafe { at.add(which * self.width).cast::<T::Vector<S>>().read_unaligned() };
        Running { center: read(0), sum: read(1), squares: read(2), fresh, at, width: self.width }
    }
}

impl<T> std::fmt::Debug for MomentAccumulator<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MomentAccumulator").field("start", &self.start).field("width", &self.width).finish()
    }
}

/// A part's sums of a vector of channels while they are in registers.
pub(crate) struct Running<T: Real, S: Simd> {
    center: T::Vector<S>,
    sum: T::Vector<S>,
    squares: T::Vector<S>,
    /// Whether no value has been added yet; the first value becomes the center.
    fresh: bool,
    at: *mut T,
    width: usize,
}

impl<T: Real, S: Simd> Running<T, S> {
    /// Adds a pixel's values.
    #[inline(always)]
    pub(crate) fn add(&mut self, simd: S, values: T::Vector<S>) {
        if self.fresh {
            (self.center, self.fresh) = (values, false);
        }
        let deviations = T::vector_sub(simd, values, self.center);
        self.sum = T::vector_add(simd, self.sum, deviations);
        self.squares = T::vector_mul_add(simd, deviations, deviations, self.squares);
    }

    /// Writes the sums back.
    #[inline(always)]
    pub(crate) fn close(self) {
        // SAFETY: `open` has checked that all three vectors are in the buffer, and by its contract
        // only this thread uses them.
        let write = |which: usize, sums| unsafe { self.at.add(which * self.width).cast::<T::Vector<S>>().write_unaligned(sums) };
        write(0, self.center);
        write(1, self.sum);
        write(2, self.squares);
    }
}
