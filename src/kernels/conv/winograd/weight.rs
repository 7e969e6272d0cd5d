//! The weight gradient: a correlation of the input with the output's gradient, three by three outputs, through the same points.
//!
//! Tiles of the input and of the gradient are transformed, and at each position the products of all tiles add up to a `[C_in, C_out]` matrix: a
//! matrix product over the tiles. It is computed in blocks that stay in L2 for all positions, and each block is transformed back as soon as its
//! last tile is in.

#![allow(clippy::needless_range_loop)] // arrays of vectors are indexed by constants, or they would live in memory

use std::marker::PhantomData;

use pulp::{Simd, WithSimd};

use super::scheme::{Evaluate, Four, Inputs, Interpolate, Scheme, Two, both_axes};
use super::tiles::{Grid, Transformed, gather};
use super::{COLUMNS, Tile};
use crate::kernels::conv::ConvGeometry;
use crate::kernels::memory::Buffer;
use crate::kernels::outer::multiply_transposed;
use crate::kernels::parallel::{self, Disjoint};
use crate::kernels::simd::{Real, dispatch};
use crate::kernels::tile::panel_width;

/// Input channels of a block: a multiple of the register tiles' rows.
const BLOCK: usize = 48;
/// Tiles that are summed up one after the other, at most; a longer sum is one of such sums: rounding errors grow with a sum's length.
const SUM: usize = 1024;
/// Bytes of transformed tiles at a time, about: what L3 holds.
const CHUNK: usize = 6 << 20;

pub(in crate::kernels::conv) fn weight_gradient<T: Real>(tile: Tile, g: &ConvGeometry, x: &[T], dy: &[T], dw: &mut [T]) {
    match tile {
        Tile::Two => with_scheme::<T, Two>(g, x, dy, dw),
        Tile::Four => with_scheme::<T, Four>(g, x, dy, dw),
    }
}

fn with_scheme<T: Real, C: Scheme>(g: &ConvGeometry, x: &[T], dy: &[T], dw: &mut [T]) {
    let [k, n] = [g.channels_in, g.channels_out];
    let (window, positions) = (&g.window, C::N * C::N);
    let grid = |size, channels, padding| Grid { tiles: window.output.map(|size| size.div_ceil(C::M)), step: C::M, size, channels, padding };
    let (inputs, outputs) = (grid(window.input, k, window.padding), grid(window.output, n, [0, 0]));
    let tiles = g.batch * inputs.tiles[0] * inputs.tiles[1];
    if tiles * k * n == 0 {
        return dw.fill(T::zero());
    }
    let nr = panel_width::<T>(n);
    let most = (CHUNK / (positions * (k + n) * size_of::<T>())).next_multiple_of(16).max(64);
    // Chunks of nearly equal size.
    let chunks = tiles.div_ceil(most);
    let chunk = tiles.div_ceil(chunks);
    let [of_x, of_dy] = [(k, BLOCK.min(k)), (n, nr)].map(|(channels, width)| Transformed { channels, width, tiles: chunk });
    let mut transformed = [of_x, of_dy].map(|layout| Buffer::uncleared(positions * layout.position()));
    let (blocks, panels) = (k.div_ceil(of_x.width), n.div_ceil(nr));
    // With several chunks, every block's sums wait for the next; with one, only those at work exist.
    let sums_of_block = positions * of_x.width * nr;
    let mut sums = Buffer::uncleared(if chunks > 1 { blocks * panels * sums_of_block } else { 0 });
    let (sums, dw) = (Disjoint::new(&mut sums), Disjoint::new(dw));
    let work = 2 * tiles * positions * k * n / chunks;
    let starts: Vec<usize> = (0..chunk).map(|tile| tile * of_x.width).collect();
    for first in (0..tiles).step_by(chunk) {
        let count = chunk.min(tiles - first);
        {
            let [to_x, to_dy] = transformed.each_mut().map(|buffer| Disjoint::new(buffer));
            const PART: usize = 8;
            parallel::for_each(count.div_ceil(PART), work, |part| {
                let (start, end) = (part * PART, count.min((part + 1) * PART));
                // SAFETY: tasks have distinct slots.
                unsafe {
                    gather::<T, Inputs<C>>(&inputs, x, first + start..first + end, &of_x, start, &to_x);
                    if C::M == 2 {
                        gather::<T, Evaluate<C, 2>>(&outputs, dy, first + start..first + end, &of_dy, start, &to_dy);
                    } else {
                        gather::<T, Evaluate<C, 4>>(&outputs, dy, first + start..first + end, &of_dy, start, &to_dy);
                    }
                }
            });
        }
        let [of_inputs, of_outputs] = &transformed;
        parallel::for_each(blocks * panels, work, |task| {
            let (block, panel) = (task / panels, task % panels);
            let [rows, columns] = [(k - block * of_x.width).min(of_x.width), (n - panel * nr).min(nr)];
            let mut own = Buffer::uncleared(if chunks > 1 { 0 } else { sums_of_block });
            // SAFETY: each task has its own block.
            let sums = if chunks > 1 { unsafe { sums.slice(task * sums_of_block, sums_of_block) } } else { &mut own[..] };
            if first == 0 {
                sums.fill(T::zero());
            }
            let offsets: [usize; BLOCK] = std::array::from_fn(|row| row);
            for (position, sums) in sums.chunks_exact_mut(of_x.width * nr).enumerate() {
                let a = &of_inputs[position * of_x.position() + of_x.block(block)..][..count * of_x.width];
                let b = &of_outputs[position * of_dy.position() + of_dy.block(panel)..][..count * nr];
                for tiles in (0..count).step_by(SUM) {
                    let (a, b, starts) = (&a[tiles * of_x.width..], &b[tiles * nr..], &starts[..SUM.min(count - tiles)]);
                    multiply_transposed(a, starts, &offsets[..rows], b, nr, columns, &mut sums[..rows * columns]);
                }
            }
            if first + count == tiles {
                let corner = [block * of_x.width, panel * nr];
                dispatch(Finish::<T, C> { sums, stride: of_x.width * nr, corner, size: [rows, columns], k, dw: &dw, scheme: PhantomData });
            }
        });
    }
}

/// Transforms a block's sums back and puts them where they belong in `dw`.
struct Finish<'a, T, C> {
    sums: &'a [T],
    /// Elements from one position to the next.
    stride: usize,
    /// The block's first input and output channel.
    corner: [usize; 2],
    /// Its input and output channels.
    size: [usize; 2],
    /// Input channels in all.
    k: usize,
    dw: &'a Disjoint<'a, T>,
    scheme: PhantomData<C>,
}

impl<T: Real, C: Scheme> WithSimd for Finish<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [rows, columns] = self.size;
        let lanes = T::lanes::<S>();
        for row in 0..rows {
            let mut taps = [[T::zero(); COLUMNS]; 9];
            for first in (0..columns).step_by(lanes) {
                let mask = T::mask(simd, lanes.min(columns - first));
                // SAFETY: the mask's columns lie within a row, all within the bounds of the slice.
                let load = |i: usize, j: usize| unsafe {
                    T::load_masked(simd, mask, self.sums[(i * C::N + j) * self.stride + row * columns + first..].as_ptr())
                };
                // SAFETY: `first` plus a vector is at most `panel_width`, which `COLUMNS` exceeds.
                both_axes::<T, S, Interpolate<C, 3>>(simd, load, |i, j, value| unsafe {
                    taps[3 * i + j].as_mut_ptr().add(first).cast::<T::Vector<S>>().write_unaligned(value);
                });
            }
            for column in 0..columns {
                let at = ((self.corner[1] + column) * self.k + self.corner[0] + row) * 9;
                // SAFETY: blocks do not share weights.
                let dw = unsafe { self.dw.slice(at, 9) };
                (0..9).for_each(|tap| dw[tap] = taps[tap][column]);
            }
        }
    }
}
