//! The weight gradient: a correlation of the input with the output's gradient. It has as many
//! outputs as the kernel has weights, and uses the same points.
//!
//! Tiles of the input and of the gradient are transformed, and at each position the products of all
//! tiles add up to a `[C_in, C_out]` matrix: a matrix product over the tiles. If there are few
//! channels, each task takes a range of tiles through all steps, in L2, and the sums of the ranges
//! are added up. Otherwise all threads share the steps of one chunk of tiles after the other:
//! matrices are computed in blocks that stay in L2 for all positions, and if there are enough
//! blocks for all threads, each block is transformed back as soon as its last tile is added.

// Arrays of vectors are indexed by constants: otherwise the compiler would keep them in memory.
#![allow(clippy::needless_range_loop)]

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::space_to_depth::{Places, SpaceToDepth, TAPS};
use super::tiles::{Grid, Transformed, gather};
use super::transforms::{TransformSet, both_axes};
use super::{COLUMNS, GROUP, Tile, with_transforms};
use crate::kernels::conv::ConvGeometry;
use crate::kernels::elementwise;
use crate::kernels::gemm::pack::panel_width;
use crate::kernels::gemm::transposed_a::multiply_transposed;
use crate::kernels::runtime::allocator::AlignedVec;
use crate::kernels::runtime::arrays::MapEach;
use crate::kernels::runtime::parallel::{self, Disjoint};
use crate::kernels::runtime::simd::{Real, array, dispatch_light};

/// Input channels of a block: a multiple of the rows of the register tiles.
const BLOCK: usize = 48;
/// Maximum number of tiles that are summed in one piece. A longer sum is a sum of such pieces,
/// because rounding errors grow with the length of a sum.
const SUM: usize = 1024;
/// Approximate number of bytes of the transformed tiles that all threads share: what L3 holds.
const CHUNK: usize = 6 << 20;
/// Bytes of sums, at all positions, that leave room in L2 for tiles.
const FEW_SUMS: usize = 192 << 10;
/// Minimum number of tiles of a range, and maximum number of ranges.
const MIN_RANGE: usize = 256;
const MAX_RANGES: usize = 16;
/// Number of blocks that is enough for all threads; with fewer, the positions of each block are
/// divided among tasks too.
const TASKS: usize = 16;
/// Positions of a block that one task computes in that case.
const POSITIONS: usize = 4;

pub(in crate::kernels::conv) fn weight_gradient<T: Real>(tile: Tile, g: &ConvGeometry, x: &[T], dy: &[T], dw: &mut [T]) {
    let view = SpaceToDepth::new(g);
    with_transforms!(tile, view.taps, C => gradient::<T, C>(&view, &view.spread(x, g.work()), dy, dw));
}

fn gradient<T: Real, C: TransformSet>(view: &SpaceToDepth, x: &[T], dy: &[T], dw: &mut [T]) {
    let (positions, [k, n]) = (C::N * C::N, view.channels);
    let tiles = view.output.map(|size| size.div_ceil(C::M));
    let grid = |size, channels, padding| Grid { tiles, step: C::M, size, channels, padding };
    let grids = [grid(view.size, k, view.padding), grid(view.output, n, [0, 0])];
    let tiles = view.batch * tiles[0] * tiles[1];
    if tiles * k * n == 0 {
        return dw.fill(T::zero());
    }
    let sums = Sums::<T, C> { view, maps: [x, dy], grids, blocks: [(k, BLOCK.min(k)), (n, panel_width::<T>(n))], transforms: PhantomData };
    let work = 2 * tiles * positions * k * n;
    if sums.len() * size_of::<T>() <= FEW_SUMS && tiles >= 2 * MIN_RANGE {
        sums.by_tile_ranges(tiles, work, dw);
    } else {
        sums.by_chunks(tiles, work, dw);
    }
}

/// The sums of the products of the input's and the gradient's tiles: `[blocks of input
/// channels][blocks of output channels][N · N][rows][columns]`.
struct Sums<'a, T, C> {
    view: &'a SpaceToDepth,
    /// Input and gradient.
    maps: [&'a [T]; 2],
    grids: [Grid; 2],
    /// Number of channels of each map, and number of channels of its blocks.
    blocks: [(usize, usize); 2],
    transforms: PhantomData<C>,
}

impl<T: Real, C: TransformSet> Sums<'_, T, C> {
    /// Returns the number of blocks along the rows and along the columns.
    fn counts(&self) -> [usize; 2] {
        self.blocks.map_each(|(channels, width)| channels.div_ceil(width))
    }

    /// Returns the number of elements of a block.
    fn block(&self) -> usize {
        C::N * C::N * self.blocks[0].1 * self.blocks[1].1
    }

    /// Returns the number of elements of all blocks.
    fn len(&self) -> usize {
        self.counts().iter().product::<usize>() * self.block()
    }

    /// Allocates buffers for `tiles` transformed tiles of input and gradient, with their layouts.
    fn room(&self, tiles: usize) -> [(Transformed, AlignedVec<T>); 2] {
        self.blocks.map_each(|(channels, width)| {
            let layout = Transformed { channels, width, tiles };
            (layout, AlignedVec::uninit(C::N * C::N * layout.position()))
        })
    }

    /// Returns how many tiles take about `bytes` bytes when they are transformed; the number is
    /// adjusted so that the chunks of `tiles` are nearly equal.
    fn chunk(&self, bytes: usize, tiles: usize) -> usize {
        let channels: usize = self.blocks.iter().map(|(channels, _)| channels).sum();
        let most = (bytes / (C::N * C::N * channels * size_of::<T>())).next_multiple_of(16).max(64);
        tiles.div_ceil(tiles.div_ceil(most))
    }

    /// Transforms tiles of input and gradient.
    fn transform(&self, tiles: Range<usize>, work: usize, [x, dy]: &mut [(Transformed, AlignedVec<T>); 2]) {
        const PART: usize = 8;
        let (to_x, to_dy) = (Disjoint::new(&mut x.1), Disjoint::new(&mut dy.1));
        let ([of_x, of_dy], [grid_of_x, grid_of_dy]) = ([x.0, dy.0], &self.grids);
        parallel::for_each(tiles.len().div_ceil(PART), work, |part| {
            let first = part * PART;
            let part = tiles.start + first..tiles.end.min(tiles.start + first + PART);
            // SAFETY: tasks have distinct slots.
            unsafe {
                gather::<T, C::Inputs>(grid_of_x, self.maps[0], part.clone(), &of_x, first, &to_x);
                gather::<T, C::OutputGradient>(grid_of_dy, self.maps[1], part, &of_dy, first, &to_dy);
            }
        });
    }

    /// Adds the products of the first `count` tiles to a block's sums at some positions.
    fn multiply(&self, [x, dy]: &[(Transformed, AlignedVec<T>); 2], count: usize, block: usize, positions: Range<usize>, sums: &mut [T]) {
        let [[row, column], [height, width], [rows, columns]] = self.place(block);
        let offsets: [usize; BLOCK] = array(|row| row);
        let starts: [usize; SUM] = array(|tile| tile * height);
        for (position, sums) in positions.zip(sums.chunks_exact_mut(height * width)) {
            let [a, b] =
                [(x, row), (dy, column)].map_each(|((layout, data), block)| &data[position * layout.position() + layout.block(block)..]);
            for tiles in (0..count).step_by(SUM) {
                let (a, b, starts) = (&a[tiles * height..], &b[tiles * width..], &starts[..SUM.min(count - tiles)]);
                multiply_transposed(a, starts, &offsets[..rows], b, width, columns, &mut sums[..rows * columns]);
            }
        }
    }

    /// Returns a block's row and column among the blocks, the nominal height and width of blocks,
    /// and the height and width of this block.
    fn place(&self, block: usize) -> [[usize; 2]; 3] {
        let at = [block / self.counts()[1], block % self.counts()[1]];
        let size = self.blocks.map_each(|(_, width)| width);
        [at, size, [0, 1].map_each(|axis| (self.blocks[axis].0 - at[axis] * size[axis]).min(size[axis]))]
    }

    /// Transforms a block's sums back, and writes them to their places in the gradient.
    fn finish(&self, block: usize, sums: &[T], dw: &Disjoint<'_, T>) {
        let [[row, column], [height, width], size] = self.place(block);
        let corner = [row * height, column * width];
        dispatch_light::<T, _>(FinishBlock::<T, C> {
            view: self.view,
            sums,
            stride: height * width,
            corner,
            size,
            dw,
            transforms: PhantomData,
        });
    }

    /// Computes the gradient if the sums are small: each task has its own sums, for one range of
    /// tiles.
    fn by_tile_ranges(&self, tiles: usize, work: usize, dw: &mut [T]) {
        let range = tiles.div_ceil((tiles / MIN_RANGE).min(MAX_RANGES));
        let mut sums = AlignedVec::zeroed(tiles.div_ceil(range) * self.len());
        parallel::chunks_mut(&mut sums, self.len(), work, |task, sums| {
            let tiles = task * range..tiles.min((task + 1) * range);
            let chunk = self.chunk(GROUP - FEW_SUMS, tiles.len());
            let mut room = self.room(chunk);
            for first in tiles.clone().step_by(chunk) {
                let part = first..tiles.end.min(first + chunk);
                self.transform(part.clone(), 0, &mut room);
                for (block, sums) in sums.chunks_exact_mut(self.block()).enumerate() {
                    self.multiply(&room, part.len(), block, 0..C::N * C::N, sums);
                }
            }
        });
        let sum = elementwise::sum_parts(&mut sums, self.len());
        let dw = Disjoint::new(dw);
        sum.chunks_exact(self.block()).enumerate().for_each(|(block, sums)| self.finish(block, sums, &dw));
    }

    /// Computes the gradient if the sums are large: all threads share the work on one chunk of
    /// tiles after the other.
    fn by_chunks(&self, tiles: usize, work: usize, dw: &mut [T]) {
        let (blocks, chunk) = (self.len() / self.block(), self.chunk(CHUNK, tiles));
        let (by_block, at_once) = (blocks >= TASKS, chunk >= tiles);
        let mut room = self.room(chunk);
        // If every block can be finished at once, sums are allocated only for the blocks in
        // progress.
        let mut sums = if by_block && at_once { AlignedVec::uninit(0) } else { AlignedVec::zeroed(self.len()) };
        let (sums, dw) = (Disjoint::new(&mut sums), Disjoint::new(dw));
        // SAFETY: only one task at a time accesses the sums of a block, or of a part of it.
        let sums_at = |start: usize, length: usize| unsafe { sums.slice(start, length) };
        for first in (0..tiles).step_by(chunk) {
            let part = first..tiles.min(first + chunk);
            let work = work / tiles * part.len();
            self.transform(part.clone(), work, &mut room);
            if by_block {
                parallel::for_each(blocks, work, |block| {
                    let mut own = AlignedVec::zeroed(if at_once { self.block() } else { 0 });
                    let sums = if at_once { &mut own[..] } else { sums_at(block * self.block(), self.block()) };
                    self.multiply(&room, part.len(), block, 0..C::N * C::N, sums);
                    if part.end == tiles {
                        self.finish(block, sums, &dw);
                    }
                });
            } else {
                let runs = C::N * C::N / POSITIONS;
                parallel::for_each(blocks * runs, work, |task| {
                    let positions = task % runs * POSITIONS..(task % runs + 1) * POSITIONS;
                    let length = self.block() / runs;
                    self.multiply(&room, part.len(), task / runs, positions, sums_at(task * length, length));
                });
            }
        }
        if !by_block {
            parallel::for_each(blocks, work, |block| self.finish(block, sums_at(block * self.block(), self.block()), &dw));
        }
    }
}

/// Transforms a block's sums back, and writes them to their places in `dw`.
struct FinishBlock<'a, T, C> {
    view: &'a SpaceToDepth,
    sums: &'a [T],
    /// Elements from one position to the next.
    stride: usize,
    /// The block's first input and output channel.
    corner: [usize; 2],
    /// The block's number of input and output channels.
    size: [usize; 2],
    dw: &'a Disjoint<'a, T>,
    transforms: PhantomData<C>,
}

impl<T: Real, C: TransformSet> WithSimd for FinishBlock<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [rows, columns] = self.size;
        let lanes = T::lanes::<S>();
        let mut taps = [[T::zero(); COLUMNS]; TAPS];
        for row in 0..rows {
            for first in (0..columns).step_by(lanes) {
                let mask = T::mask(simd, lanes.min(columns - first));
                // SAFETY: the mask's columns are within a row, and all are within the bounds of the
                // slice.
                let load = |i: usize, j: usize| unsafe {
                    T::load_masked(simd, mask, self.sums[(i * C::N + j) * self.stride + row * columns + first..].as_ptr())
                };
                // SAFETY: `first` plus a vector is at most `panel_width`, which does not exceed
                // `COLUMNS`.
                both_axes::<T, S, C::WeightGradient>(simd, load, |i, j, value| unsafe {
                    taps[C::R * i + j].as_mut_ptr().add(first).cast::<T::Vector<S>>().write_unaligned(value);
                });
            }
            let (places, length) = (self.view.places(self.corner[0] + row), self.view.weights_of_output());
            for column in 0..columns {
                let dw = self.dw.pointer((self.corner[1] + column) * length, length);
                // SAFETY: places are within an output's weights, and blocks do not share weights.
                let put = |tap: usize, place: usize| unsafe { *dw.add(place) = taps[tap][column] };
                match &places {
                    Places::Run(first) => (0..C::R * C::R).for_each(|tap| put(tap, first + tap)),
                    Places::Scattered(places) => places.iter().for_each(|&(tap, place)| put(tap, place)),
                }
            }
        }
    }
}
