//! The inner loops of depthwise and grouped convolution: every lane of a vector is a separate
//! channel.
//!
//! A tile is one vector of channels at [`TILE`] neighbouring cells of a row. It reads *row blocks*:
//! positions of a source row at which up to seven neighbouring taps are applied together, so that a
//! loaded source vector is used for all cells that read it. In the forward pass, the sums of the
//! cells stay in registers during the loop over all row blocks. In the weight gradient, the output
//! gradients of the cells stay in registers, and the sums of each row block are loaded and stored.

// Arrays of vectors are indexed by constants: otherwise the compiler would keep them in memory.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use pulp::Simd;

use crate::kernels::elementwise::epilogue::Activation;
use crate::kernels::norm::moments::MomentAccumulator;
use crate::kernels::runtime::nontemporal;
use crate::kernels::runtime::simd::{Real, array, lanes, prefetch};

/// Number of cells of a tile. It divides the widths of the usual maps, 7 to 112.
pub(crate) const TILE: usize = 7;

/// Adjacent taps of one kernel row in the source, with their weights, or with the sums of the
/// weights' gradients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowBlock {
    /// Offset in elements, relative to the row of cells, at which cell 0 reads the first tap;
    /// negative in the padding.
    pub(crate) source: isize,
    /// The same offset in columns, within the source row.
    pub(crate) distance: isize,
    /// Offset of the weights, `[taps][lanes]`, from the vector's first.
    pub(crate) weights: usize,
}

/// A row of cells, and the row blocks that they read.
#[derive(Clone, Copy)]
pub(crate) struct Cells<'a, T> {
    pub(crate) source: &'a [T],
    /// Columns of a source row, and elements from one column to the next.
    pub(crate) width: usize,
    pub(crate) pitch: usize,
    /// Source columns from one cell to the next.
    pub(crate) step: usize,
    pub(crate) count: usize,
    /// Number of taps in each row block.
    pub(crate) run: usize,
    pub(crate) blocks: &'a [RowBlock],
    /// The source elements that the next row reads and this one does not.
    pub(crate) ahead: &'a [T],
}

impl<T> Cells<'_, T> {
    /// Returns whether the tile from cell `first` on reads only columns inside the source.
    fn inside(&self, first: usize) -> bool {
        let (start, end) = (first * self.step, (first + TILE - 1) * self.step + self.run);
        for block in self.blocks {
            if block.distance + (start as isize) < 0 || block.distance + end as isize > self.width as isize {
                return false;
            }
        }
        true
    }
}

/// Prefetches a share of `ahead`, in proportion to the tile from cell `first` of `count` on: memory
/// is then never idle, and never has more requests than it can handle.
#[inline(always)]
fn look_ahead<T>(ahead: &[T], first: usize, count: usize) {
    let part = |cell: usize| ahead.len() * cell / count;
    let (mut at, end) = (part(first), part(count.min(first + TILE)));
    while at < end {
        prefetch(&ahead[at]);
        at += (64 / size_of::<T>()).max(1);
    }
}

/// The vectors of channels that are computed.
#[derive(Clone, Copy)]
pub(crate) struct Vectors<'a> {
    /// First channel of each vector, in the source and in the target.
    pub(crate) channels: &'a [[usize; 2]],
    /// Elements from one vector's weights, or from the sums of their gradients, to the next.
    pub(crate) weights: usize,
    /// Number of channels per vector: the lanes, or the channels of the target if there are fewer.
    pub(crate) lanes: usize,
}

/// An operation on tiles, for any number of taps.
pub(crate) trait Tiles<T: Real> {
    /// Processes the row of cells, with row blocks of `K` taps. For `K > 1`, cells are `STEP`
    /// columns apart.
    ///
    /// # Safety
    /// The contract of [`Sums`] or [`WeightSums`] must hold.
    unsafe fn run<S: Simd, const K: usize, const STEP: usize>(self, simd: S, cells: Cells<'_, T>, vectors: Vectors<'_>);
}

/// Returns how many of `taps` adjacent taps are applied together if cells are `step` apart; see
/// [`run_tiles`]. Returns 1 where speed does not matter or vectors have one lane, because each
/// number is another loop to compile.
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

/// Runs the tiles with the number of taps and the step as constants.
///
/// # Safety
/// The contract of [`Tiles::run`] must hold.
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

/// Computes `target[cell] = clamp(bias + Σ over row blocks and taps of source[cell · step + tap] ·
/// weight[tap])`, lane by lane.
///
/// The contract: for each of the vectors, every row block's row is within `source`, `weights`
/// contains the weights at the row blocks' offsets, and `bias` has the vector's lanes; `target` has
/// the vectors' lanes at each cell; and the accumulator's part belongs to this thread.
pub(crate) struct Sums<'a, T> {
    pub(crate) weights: &'a [T],
    pub(crate) bias: Option<&'a [T]>,
    /// The activation that is applied to the sums: a clamp, or none.
    pub(crate) clamp: Activation,
    pub(crate) target: &'a mut [T],
    /// Elements from one cell's target to the next.
    pub(crate) pitch: usize,
    /// Whether to write with non-temporal stores. All lanes of each vector must be used, and each
    /// vector must be aligned in `target`.
    pub(crate) streams: bool,
    /// The accumulator of the statistics of each vector, and whether it is still empty, without
    /// earlier rows.
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
                // SAFETY: by the contract; a vector with fewer channels than lanes is read and
                // written through its mask.
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
                    for t in 0..TILE {
                        sums[t] = self.clamp.clamp::<S, T>(simd, sums[t]);
                    }
                    let target = self.target.as_mut_ptr().add(first * self.pitch + to);
                    for t in 0..TILE {
                        if t < count {
                            let target = target.add(t * self.pitch);
                            if self.streams {
                                nontemporal::store(target.cast::<T::Vector<S>>(), sums[t]);
                            } else if vectors.lanes == lanes {
                                target.cast::<T::Vector<S>>().write_unaligned(sums[t]);
                            } else {
                                T::store_masked(simd, mask, target, sums[t]);
                            }
                        }
                    }
                    if let Some((accumulator, fresh)) = self.accumulator {
                        let mut running = accumulator.open::<S>(simd, vector * lanes, fresh && first == 0);
                        for t in 0..TILE {
                            if t < count {
                                running.add(simd, sums[t]);
                            }
                        }
                        running.close();
                    }
                }
            }
        }
    }
}

/// Computes `sums[tap] += Σ over cells of source[cell · step + tap] · gradient[cell]`, lane by
/// lane, for each row block.
///
/// The contract: for each of the vectors, every row block's row is within `source`, and `sums`
/// contains the sums at the row blocks' offsets; `gradient` has the vectors' lanes at each cell.
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
                // SAFETY: by the contract; a vector with fewer channels than lanes is read through
                // its mask.
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

/// Loads one vector.
///
/// # Safety
/// The vector's lanes must be readable at `from`.
#[inline(always)]
unsafe fn load<T: Real, S: Simd>(from: *const T) -> T::Vector<S> {
    // SAFETY: by this function's contract; vectors are plain numbers.
    unsafe { from.cast::<T::Vector<S>>().read_unaligned() }
}

/// The source columns that the cells of a tile read in one row block.
struct ReadColumns<T> {
    /// Position at which the first cell reads the first tap; outside the source's row in the
    /// padding.
    from: *const T,
    /// Columns, relative to `from`, that are inside the row.
    inside: Range<isize>,
    pitch: usize,
}

impl<T: Real> ReadColumns<T> {
    #[inline(always)]
    fn new(cells: &Cells<'_, T>, block: &RowBlock, first: usize, channel: usize) -> ReadColumns<T> {
        let column = (first * cells.step) as isize;
        let from = cells.source.as_ptr().wrapping_offset(block.source + column * cells.pitch as isize).wrapping_add(channel);
        let before = column + block.distance;
        ReadColumns { from, inside: -before..cells.width as isize - before, pitch: cells.pitch }
    }

    /// Returns the vector at a column; zero in the padding.
    ///
    /// # Safety
    /// The source's row must contain the vector's lanes and, unless `EDGE`, the column.
    #[inline(always)]
    unsafe fn at<S: Simd, const EDGE: bool>(&self, simd: S, column: usize) -> T::Vector<S> {
        if EDGE && !self.inside.contains(&(column as isize)) {
            return T::splat(simd, T::zero());
        }
        // SAFETY: by this function's contract.
        unsafe { load::<T, S>(self.from.wrapping_add(column * self.pitch)) }
    }

    /// Calls `visit(tap, cell, vector)` for each tap and each cell that reads a source vector
    /// through it, loading each vector once.
    ///
    /// # Safety
    /// The contract of [`at`](ReadColumns::at) must hold for all columns that the tile reads.
    #[inline(always)]
    unsafe fn for_each_read<S: Simd, const K: usize, const STEP: usize, const EDGE: bool>(
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
            // Split into parts that the compiler unrolls, however long the whole is: the sums have
            // to stay in registers.
            self.eight_columns::<S, K, STEP, EDGE, 0>(simd, &mut visit);
            if const { (TILE - 1) * STEP + K > 8 } {
                self.eight_columns::<S, K, STEP, EDGE, 8>(simd, &mut visit);
            }
            if const { (TILE - 1) * STEP + K > 16 } {
                self.eight_columns::<S, K, STEP, EDGE, 16>(simd, &mut visit);
            }
        }
    }

    /// Processes eight columns for [`for_each_read`](ReadColumns::for_each_read).
    ///
    /// # Safety
    /// The contract of [`at`](ReadColumns::at) must hold for these columns.
    #[inline(always)]
    unsafe fn eight_columns<S: Simd, const K: usize, const STEP: usize, const EDGE: bool, const FROM: usize>(
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

/// Returns the cell that reads column `column` of a tile through tap `k`, if any.
#[inline(always)]
const fn cell(column: usize, k: usize, step: usize) -> Option<usize> {
    match column.checked_sub(k) {
        Some(distance) if distance.is_multiple_of(step) && distance / step < TILE => Some(distance / step),
        _ => None,
    }
}

/// Returns the sums of the cells of a tile.
///
/// # Safety
/// The contract of [`Sums`] must hold, and `EDGE` must be set if a cell may read padding.
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
    for block in cells.blocks {
        let columns = ReadColumns::new(cells, block, first, channel);
        // SAFETY: by this function's contract.
        unsafe {
            let weights: [T::Vector<S>; K] = array(|k| load::<T, S>(weights.add(block.weights + k * lanes)));
            columns
                .for_each_read::<S, K, STEP, EDGE>(simd, cells.step, |k, t, x| sums[t] = T::vector_mul_add(simd, x, weights[k], sums[t]));
        }
    }
    sums
}

/// Adds the contribution of a tile to the sums of the weights' gradients.
///
/// # Safety
/// The contract of [`WeightSums`] must hold, and `EDGE` must be set if a cell may read padding.
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
    for block in cells.blocks {
        let columns = ReadColumns::new(cells, block, first, channel);
        // SAFETY: by this function's contract.
        unsafe {
            let place = sums.add(block.weights);
            let mut sums: [T::Vector<S>; K] = array(|k| load::<T, S>(place.add(k * lanes)));
            columns
                .for_each_read::<S, K, STEP, EDGE>(simd, cells.step, |k, t, x| sums[k] = T::vector_mul_add(simd, x, gradients[t], sums[k]));
            for k in 0..K {
                place.add(k * lanes).cast::<T::Vector<S>>().write_unaligned(sums[k]);
            }
        }
    }
}
