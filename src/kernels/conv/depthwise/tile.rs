//! The inner loops of depthwise and grouped convolution: every lane of a vector is a channel, and keeps to itself.
//!
//! A tile is one vector of channels at [`TILE`] neighbouring cells of a row. It reads *strips*: places of a source row at which up to seven
//! neighbouring taps are applied together, so that a source vector stays close by for all the cells that see it. Forward, the sums of the
//! cells stay in registers while all strips go by; for the weight gradient the cells' output gradients do, and each strip's sums pass.

use std::ops::Range;

use pulp::Simd;

use crate::kernels::elementwise::epilogue::Activation;
use crate::kernels::gemm::microkernel::lanes;
use crate::kernels::norm::moments::MomentAccumulator;
use crate::kernels::runtime::nontemporal;
use crate::kernels::runtime::simd::{Real, array, prefetch};

/// Cells of a tile. It divides the widths of the usual maps, 7 to 112.
pub(crate) const TILE: usize = 7;

/// Taps of one kernel row that lie side by side in the source, and their weights or the sums for those.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowBlock {
    /// Elements from the row of cells to where cell 0 meets the first tap; negative in the padding.
    pub(crate) source: isize,
    /// The same in columns, within the source row.
    pub(crate) distance: isize,
    /// Elements to the weights, `[taps][lanes]`, from the vector's first.
    pub(crate) weights: usize,
}

/// A row of cells, and what they see.
#[derive(Clone, Copy)]
pub(crate) struct Cells<'a, T> {
    pub(crate) source: &'a [T],
    /// Columns of a source row, and elements from one to the next.
    pub(crate) width: usize,
    pub(crate) pitch: usize,
    /// Source columns from one cell to the next.
    pub(crate) step: usize,
    pub(crate) count: usize,
    /// Taps in each of the strips.
    pub(crate) run: usize,
    pub(crate) strips: &'a [RowBlock],
    /// What the next row will see and this one does not.
    pub(crate) ahead: &'a [T],
}

impl<T> Cells<'_, T> {
    /// Whether the tile from cell `first` on reads columns of the source only.
    fn inside(&self, first: usize) -> bool {
        let (start, end) = (first * self.step, (first + TILE - 1) * self.step + self.run);
        self.strips.iter().all(|strip| strip.distance + start as isize >= 0 && strip.distance + end as isize <= self.width as isize)
    }
}

/// Asks for the part of what is ahead that falls to the tile from cell `first` of `count` on: so that memory is never idle, nor asked for more at
/// once than it can take.
#[inline(always)]
fn look_ahead<T>(ahead: &[T], first: usize, count: usize) {
    let part = |cell: usize| ahead.len() * cell / count;
    let lines = ahead[part(first)..part(count.min(first + TILE))].iter().step_by((64 / size_of::<T>()).max(1));
    lines.for_each(|line| prefetch(line));
}

/// Vectors of channels: the first channel of each.
#[derive(Clone, Copy)]
pub(crate) struct Vectors<'a> {
    /// In the source and in the target.
    pub(crate) channels: &'a [[usize; 2]],
    /// Elements from one vector's weights, or sums of those, to the next.
    pub(crate) weights: usize,
    /// Channels of the target that a vector has, when those are fewer than its lanes.
    pub(crate) lanes: usize,
}

/// What is done with tiles, for any number of taps.
pub(crate) trait Tiles<T: Real> {
    /// Handles the row of cells with strips of `K` taps. For `K > 1`, cells lie `STEP` columns apart.
    ///
    /// # Safety
    /// As [`Sums`] and [`WeightSums`] say.
    unsafe fn run<S: Simd, const K: usize, const STEP: usize>(self, simd: S, cells: Cells<'_, T>, vectors: Vectors<'_>);
}

/// How many of `taps` that lie side by side are taken together, where cells lie `step` apart; see
/// [`run_tiles`]. One where speed does not count, or vectors have one lane: each number is a loop
/// of its own to compile.
pub(crate) fn taps_together<T: Real>(taps: usize, step: usize) -> usize {
    let most = match step {
        _ if !T::FAST || lanes::<T>() == 1 => 1,
        1 => 7,
        2 => 5,
        _ => 1,
    };
    let fits = |&run: &usize| run <= most && taps.is_multiple_of(run) && (run, step) != (2, 2);
    [7, 5, 3, 2].into_iter().find(fits).unwrap_or(1)
}

/// Runs the tiles with their numbers of taps and step as constants.
///
/// # Safety
/// As [`Tiles::run`].
#[inline(always)]
pub(crate) unsafe fn run_tiles<T: Real, S: Simd>(simd: S, tiles: impl Tiles<T>, cells: Cells<'_, T>, vectors: Vectors<'_>) {
    // SAFETY: by this function's contract.
    unsafe {
        if const { S::IS_SCALAR || !T::FAST } {
            assert_eq!(cells.run, 1);
            return tiles.run::<S, 1, 1>(simd, cells, vectors);
        }
        match (cells.run, cells.step) {
            (1, _) => tiles.run::<S, 1, 1>(simd, cells, vectors),
            (2, 1) => tiles.run::<S, 2, 1>(simd, cells, vectors),
            (3, 1) => tiles.run::<S, 3, 1>(simd, cells, vectors),
            (3, 2) => tiles.run::<S, 3, 2>(simd, cells, vectors),
            (5, 1) => tiles.run::<S, 5, 1>(simd, cells, vectors),
            (5, 2) => tiles.run::<S, 5, 2>(simd, cells, vectors),
            (7, 1) => tiles.run::<S, 7, 1>(simd, cells, vectors),
            (run, step) => unreachable!("taps_together gives no {run} at step {step}"),
        }
    }
}

/// `target[cell] = clamp(bias + Σ over strips and taps of source[cell · step + tap] · weight[tap])`, lane by lane.
///
/// The contract: every strip's row lies within `source` for each of the vectors; `weights` holds what the strips say for each of them, and `bias`
/// its lanes; `target` holds the vectors' lanes at each cell; and the accumulator's part is this thread's.
pub(crate) struct Sums<'a, T> {
    pub(crate) weights: &'a [T],
    pub(crate) bias: Option<&'a [T]>,
    /// What the sums go through: a clamp, or nothing.
    pub(crate) clamp: Activation,
    pub(crate) target: &'a mut [T],
    /// Elements from one cell's target to the next.
    pub(crate) pitch: usize,
    /// Whether to write past the caches: vectors have all their lanes, and lie aligned in `target`.
    pub(crate) streams: bool,
    /// Where the statistics of each vector go, and whether there are none from rows before.
    pub(crate) accumulator: Option<(MomentAccumulator<'a, T>, bool)>,
}

impl<T: Real> Tiles<T> for Sums<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd, const K: usize, const STEP: usize>(self, simd: S, cells: Cells<'_, T>, vectors: Vectors<'_>) {
        let lanes = T::lanes::<S>();
        let mask = T::mask(simd, vectors.lanes);
        for first in (0..cells.count).step_by(TILE) {
            let (count, inside) = (TILE.min(cells.count - first), cells.inside(first));
            look_ahead(cells.ahead, first, cells.count);
            for (vector, &[from, to]) in vectors.channels.iter().enumerate() {
                // SAFETY: by the contract; a vector with fewer channels than lanes is read and written through its mask.
                unsafe {
                    let weights = self.weights.as_ptr().add(vector * vectors.weights);
                    let start = match self.bias {
                        Some(bias) => T::load_masked(simd, mask, bias.as_ptr().add(to)),
                        None => T::splat(simd, T::zero()),
                    };
                    let mut sums = if inside {
                        sums::<T, S, K, STEP, false>(simd, start, &cells, first, from, weights)
                    } else {
                        sums::<T, S, K, STEP, true>(simd, start, &cells, first, from, weights)
                    };
                    for sum in &mut sums {
                        *sum = self.clamp.clamp::<S, T>(simd, *sum);
                    }
                    let target = self.target.as_mut_ptr().add(first * self.pitch + to);
                    for (t, sum) in sums.iter().copied().enumerate() {
                        if t < count {
                            let target = target.add(t * self.pitch);
                            if self.streams {
                                nontemporal::store(target.cast::<T::Vector<S>>(), sum);
                            } else if vectors.lanes == lanes {
                                target.cast::<T::Vector<S>>().write_unaligned(sum);
                            } else {
                                T::store_masked(simd, mask, target, sum);
                            }
                        }
                    }
                    if let Some((accumulator, fresh)) = self.accumulator {
                        let mut running = accumulator.open::<S>(simd, vector * lanes, fresh && first == 0);
                        for (t, &sum) in sums.iter().enumerate() {
                            if t < count {
                                running.add(simd, sum);
                            }
                        }
                        running.close();
                    }
                }
            }
        }
    }
}

/// `sums[tap] += Σ over cells of source[cell · step + tap] · gradient[cell]`, lane by lane, for each strip.
///
/// The contract: every strip's row lies within `source` for each of the vectors; `sums` holds what the strips say for each of them; `gradient`
/// the vectors' lanes at each cell.
pub(crate) struct WeightSums<'a, T> {
    pub(crate) sums: &'a mut [T],
    pub(crate) gradient: &'a [T],
    /// Elements from one cell's gradient to the next.
    pub(crate) pitch: usize,
    /// The gradient of the next row.
    pub(crate) ahead: &'a [T],
}

impl<T: Real> Tiles<T> for WeightSums<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd, const K: usize, const STEP: usize>(self, simd: S, cells: Cells<'_, T>, vectors: Vectors<'_>) {
        let lanes = T::lanes::<S>();
        let mask = T::mask(simd, vectors.lanes);
        for first in (0..cells.count).step_by(TILE) {
            let (count, inside) = (TILE.min(cells.count - first), cells.inside(first));
            look_ahead(cells.ahead, first, cells.count);
            look_ahead(self.ahead, first, cells.count);
            for (vector, &[from, to]) in vectors.channels.iter().enumerate() {
                // SAFETY: by the contract; a vector with fewer channels than lanes is read through its mask.
                unsafe {
                    let gradient = self.gradient.as_ptr().add(first * self.pitch + to);
                    let gradients: [T::Vector<S>; TILE] = array(|t| {
                        if t >= count {
                            T::splat(simd, T::zero())
                        } else if vectors.lanes == lanes {
                            load::<T, S>(gradient.add(t * self.pitch))
                        } else {
                            T::load_masked(simd, mask, gradient.add(t * self.pitch))
                        }
                    });
                    let sums = self.sums.as_mut_ptr().add(vector * vectors.weights);
                    if inside {
                        weight_sums::<T, S, K, STEP, false>(simd, &gradients, &cells, first, from, sums);
                    } else {
                        weight_sums::<T, S, K, STEP, true>(simd, &gradients, &cells, first, from, sums);
                    }
                }
            }
        }
    }
}

/// One vector.
///
/// # Safety
/// Its lanes must be readable at `from`.
#[inline(always)]
unsafe fn load<T: Real, S: Simd>(from: *const T) -> T::Vector<S> {
    // SAFETY: by this function's contract; vectors are plain numbers.
    unsafe { from.cast::<T::Vector<S>>().read_unaligned() }
}

/// What the cells of a tile see of one strip.
struct Extent<T> {
    /// Where the first cell meets the first tap; outside the source's row in the padding.
    from: *const T,
    /// Columns of `from` that lie in the row.
    inside: Range<isize>,
    pitch: usize,
}

impl<T: Real> Extent<T> {
    #[inline(always)]
    fn new(cells: &Cells<'_, T>, strip: &RowBlock, first: usize, channel: usize) -> Extent<T> {
        let column = (first * cells.step) as isize;
        let from = cells.source.as_ptr().wrapping_offset(strip.source + column * cells.pitch as isize).wrapping_add(channel);
        let before = column + strip.distance;
        Extent { from, inside: -before..cells.width as isize - before, pitch: cells.pitch }
    }

    /// The vector at a column, zero in the padding.
    ///
    /// # Safety
    /// The source's row must hold the vector's lanes, and unless `EDGE` the column must lie in it.
    #[inline(always)]
    unsafe fn at<S: Simd, const EDGE: bool>(&self, simd: S, column: usize) -> T::Vector<S> {
        if EDGE && !self.inside.contains(&(column as isize)) {
            return T::splat(simd, T::zero());
        }
        // SAFETY: by this function's contract.
        unsafe { load::<T, S>(self.from.wrapping_add(column * self.pitch)) }
    }

    /// Calls `visit(tap, cell, vector)` for each tap and cell that meet, loading each vector once.
    ///
    /// # Safety
    /// As [`at`](Extent::at), for all columns that the tile sees.
    #[inline(always)]
    unsafe fn meet<S: Simd, const K: usize, const STEP: usize, const EDGE: bool>(
        &self,
        simd: S,
        step: usize,
        mut visit: impl FnMut(usize, usize, T::Vector<S>),
    ) {
        // SAFETY: by this function's contract.
        unsafe {
            if const { K == 1 } {
                for t in 0..TILE {
                    visit(0, t, self.at::<S, EDGE>(simd, t * step));
                }
                return;
            }
            // In parts that the compiler unrolls, however long the whole is: what is summed has to stay in registers.
            self.part::<S, K, STEP, EDGE, 0>(simd, &mut visit);
            if const { (TILE - 1) * STEP + K > 8 } {
                self.part::<S, K, STEP, EDGE, 8>(simd, &mut visit);
            }
            if const { (TILE - 1) * STEP + K > 16 } {
                self.part::<S, K, STEP, EDGE, 16>(simd, &mut visit);
            }
        }
    }

    /// [`meet`](Extent::meet) for eight columns.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn part<S: Simd, const K: usize, const STEP: usize, const EDGE: bool, const FROM: usize>(
        &self,
        simd: S,
        visit: &mut impl FnMut(usize, usize, T::Vector<S>),
    ) {
        for column in FROM..(FROM + 8).min((TILE - 1) * STEP + K) {
            // SAFETY: by this function's contract.
            let x = unsafe { self.at::<S, EDGE>(simd, column) };
            for k in 0..K {
                if let Some(t) = cell(column, k, STEP) {
                    visit(k, t, x);
                }
            }
        }
    }
}

/// The cell whose tap `k` meets column `column` of a tile, if any.
#[inline(always)]
const fn cell(column: usize, k: usize, step: usize) -> Option<usize> {
    match column.checked_sub(k) {
        Some(distance) if distance.is_multiple_of(step) && distance / step < TILE => Some(distance / step),
        _ => None,
    }
}

/// # Safety
/// As [`Sums`] says; `EDGE` where a cell may see padding.
#[inline(always)]
unsafe fn sums<T: Real, S: Simd, const K: usize, const STEP: usize, const EDGE: bool>(
    simd: S,
    start: T::Vector<S>,
    cells: &Cells<'_, T>,
    first: usize,
    channel: usize,
    weights: *const T,
) -> [T::Vector<S>; TILE] {
    let lanes = T::lanes::<S>();
    let mut sums = [start; TILE];
    for strip in cells.strips {
        let sight = Extent::new(cells, strip, first, channel);
        // SAFETY: by this function's contract.
        unsafe {
            let weights: [T::Vector<S>; K] = array(|k| load::<T, S>(weights.add(strip.weights + k * lanes)));
            sight.meet::<S, K, STEP, EDGE>(simd, cells.step, |k, t, x| sums[t] = T::vector_mul_add(simd, x, weights[k], sums[t]));
        }
    }
    sums
}

/// # Safety
/// As [`WeightSums`] says; `EDGE` where a cell may see padding.
#[inline(always)]
unsafe fn weight_sums<T: Real, S: Simd, const K: usize, const STEP: usize, const EDGE: bool>(
    simd: S,
    gradients: &[T::Vector<S>; TILE],
    cells: &Cells<'_, T>,
    first: usize,
    channel: usize,
    sums: *mut T,
) {
    let lanes = T::lanes::<S>();
    for strip in cells.strips {
        let sight = Extent::new(cells, strip, first, channel);
        // SAFETY: by this function's contract.
        unsafe {
            let place = sums.add(strip.weights);
            let mut sums: [T::Vector<S>; K] = array(|k| load::<T, S>(place.add(k * lanes)));
            sight.meet::<S, K, STEP, EDGE>(simd, cells.step, |k, t, x| sums[k] = T::vector_mul_add(simd, x, gradients[t], sums[k]));
            for (k, sum) in sums.into_iter().enumerate() {
                place.add(k * lanes).cast::<T::Vector<S>>().write_unaligned(sum);
            }
        }
    }
}
