//! Maps cut into tiles, and the transforms of tiles.

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::transforms::{Transform, both_axes};
use crate::kernels::elementwise::epilogue::Epilogue;
use crate::kernels::runtime::parallel::Disjoint;
use crate::kernels::runtime::simd::{Real, dispatch_light};

/// A channels-last map cut into overlapping or adjoining tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    /// Tiles of an image: rows, columns.
    pub(super) tiles: [usize; 2],
    /// Pixels from one tile to the next.
    pub(super) step: usize,
    /// The map's height and width.
    pub(super) size: [usize; 2],
    pub(super) channels: usize,
    /// Rows and columns of zeros before the map's first.
    pub(super) padding: [usize; 2],
}

/// The `extent × extent` pixels that a tile sees. Those inside of the map are a rectangle.
struct TileWindow {
    extent: usize,
    /// Rows and columns of the window that lie in the map; if none does, neither rows nor columns.
    inside: [Range<usize>; 2],
    /// Where in the map's elements the window's first pixel is, or would be: this wraps around before the map's start.
    origin: usize,
    /// Elements from one row to the next, and from one pixel to the next.
    pitch: [usize; 2],
}

impl Grid {
    fn window(&self, tile: usize, extent: usize) -> TileWindow {
        let [rows, columns] = self.tiles;
        let (image, tile) = (tile / (rows * columns), tile % (rows * columns));
        let corner = [tile / columns * self.step, tile % columns * self.step];
        let mut inside = [0, 1].map(|axis| {
            let end = (self.size[axis] + self.padding[axis]).saturating_sub(corner[axis]).min(extent);
            self.padding[axis].saturating_sub(corner[axis]).min(end)..end
        });
        if inside.iter().any(Range::is_empty) {
            inside = [0..0, 0..0];
        }
        let [top, left] = [0, 1].map(|axis| corner[axis].wrapping_sub(self.padding[axis]));
        let pitch = [self.size[1] * self.channels, self.channels];
        let first = image.wrapping_mul(self.size[0] * pitch[0]);
        let origin = first.wrapping_add(top.wrapping_mul(pitch[0])).wrapping_add(left.wrapping_mul(pitch[1]));
        TileWindow { extent, inside, origin, pitch }
    }
}

impl TileWindow {
    /// Elements of its pixels, side by side.
    fn length(&self) -> usize {
        self.extent * self.extent * self.pitch[1]
    }

    /// Where a row's pixels that are inside of the map lie in the map, and where among the window's pixels side by side.
    fn row(&self, row: usize) -> [Range<usize>; 2] {
        let (columns, channels) = (&self.inside[1], self.pitch[1]);
        [self.at(row, columns.start), (row * self.extent + columns.start) * channels].map(|at| at..at + columns.len() * channels)
    }

    /// Whether all of it is in the map.
    fn is_whole(&self) -> bool {
        self.inside.iter().all(|range| range.len() == self.extent)
    }

    /// Where a pixel starts.
    #[inline(always)]
    fn at(&self, row: usize, column: usize) -> usize {
        self.origin.wrapping_add(row * self.pitch[0] + column * self.pitch[1])
    }

    /// The elements from the first pixel inside of the map to the end of the last; none if there is no such pixel.
    fn reach(&self) -> Range<usize> {
        let [rows, columns] = &self.inside;
        if rows.is_empty() {
            return 0..0;
        }
        self.at(rows.start, columns.start)..self.at(rows.end - 1, columns.end - 1) + self.pitch[1]
    }
}

/// Where transformed tiles lie: `[N · N][blocks][tiles][width]`, channels in blocks of `width`, of which the last may not fill its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transformed {
    /// Channels.
    pub(super) channels: usize,
    /// Channels of a block.
    pub(super) width: usize,
    /// Tiles there is room for.
    pub(super) tiles: usize,
}

impl Transformed {
    /// Elements from one position to the next; not a multiple of a large power of two, which would put all into one set of the cache.
    pub(super) fn position(&self) -> usize {
        self.channels.div_ceil(self.width) * self.width * self.tiles + 64
    }

    /// Where a block of channels starts in a position.
    pub(super) fn block(&self, block: usize) -> usize {
        block * self.width * self.tiles
    }

    /// Where the channels from `channel` on, up to the end of their block, lie for a tile.
    fn at(&self, tile: usize, channel: usize) -> usize {
        self.block(channel / self.width) + tile * self.width + channel % self.width
    }
}

/// Transforms tiles of `x` by `F` into `out`, the first to slot `first`.
///
/// # Safety
/// No other thread may touch the slots that this call writes.
pub(super) unsafe fn gather<T: Real, F: Transform>(
    grid: &Grid,
    x: &[T],
    tiles: Range<usize>,
    layout: &Transformed,
    first: usize,
    out: &Disjoint<'_, T>,
) {
    dispatch_light::<T, _>(Gather::<T, F> { grid, x, tiles, layout, first, out, transform: PhantomData });
}

struct Gather<'a, T, F> {
    grid: &'a Grid,
    x: &'a [T],
    tiles: Range<usize>,
    layout: &'a Transformed,
    /// Where the first tile lies in the layout.
    first: usize,
    out: &'a Disjoint<'a, T>,
    transform: PhantomData<F>,
}

impl<T: Real, F: Transform> WithSimd for Gather<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Gather { grid, x, ref tiles, layout, first, .. } = self;
        let mut aside = vec![];
        for (slot, tile) in (first..).zip(tiles.clone()) {
            assert!(slot < layout.tiles);
            let window = grid.window(tile, F::FROM);
            let (pixels, pitch) = if window.is_whole() {
                (&x[window.reach()], window.pitch)
            } else {
                aside.clear();
                aside.resize(window.length(), T::zero());
                for [from, to] in window.inside[0].clone().map(|row| window.row(row)) {
                    aside[to].copy_from_slice(&x[from]);
                }
                (&aside[..], [F::FROM * grid.channels, grid.channels])
            };
            let mut channel = 0;
            while channel < grid.channels {
                // A vector stays inside its block.
                let most = (grid.channels - channel).min(layout.width - channel % layout.width);
                // SAFETY: the pixels are there for all channels; the slot is this call's alone.
                channel += unsafe {
                    match most < T::lanes::<S>() {
                        true => self.transform::<S, true>(simd, pixels, pitch, slot, channel, most),
                        false => self.transform::<S, false>(simd, pixels, pitch, slot, channel, T::lanes::<S>()),
                    }
                };
            }
        }
    }
}

impl<T: Real, F: Transform> Gather<'_, T, F> {
    /// Transforms `count` channels of a tile's pixels, which lie `pitch` apart, and returns their number; `MASKED` if they do not fill a vector.
    ///
    /// # Safety
    /// There must be all pixels and so many channels. No other thread may touch the slot.
    #[inline(always)]
    unsafe fn transform<S: Simd, const MASKED: bool>(
        &self,
        simd: S,
        pixels: &[T],
        pitch: [usize; 2],
        slot: usize,
        channel: usize,
        count: usize,
    ) -> usize {
        let (position, mask) = (self.layout.position(), T::mask(simd, count));
        let from = pixels[channel..].as_ptr();
        let out = self.out.pointer(self.layout.at(slot, channel), (F::TO * F::TO - 1) * position + count);
        // SAFETY: `count` channels from `channel` on lie in each pixel.
        let load = |i: usize, j: usize| unsafe {
            let from = from.add(i * pitch[0] + j * pitch[1]);
            T::load::<S, MASKED>(simd, mask, from)
        };
        // SAFETY: they lie in each position of `out` too, as `pointer` has checked for the last; the slot is this call's alone.
        both_axes::<T, S, F>(simd, load, |i, j, value| unsafe {
            let to = out.add((i * F::TO + j) * position);
            T::store::<S, MASKED>(simd, mask, to, value);
        });
        count
    }
}

/// Transforms products at the points, from slot `first` on, by `F` into tiles of `y`.
///
/// # Safety
/// No other thread may touch the pixels of `y` that these tiles cover.
pub(super) unsafe fn scatter<T: Real, F: Transform>(
    grid: &Grid,
    products: &[T],
    layout: &Transformed,
    first: usize,
    tiles: Range<usize>,
    epilogue: Epilogue<'_, T>,
    y: &Disjoint<'_, T>,
) {
    assert!(products.len() >= F::FROM * F::FROM * layout.position() && layout.width >= grid.channels);
    assert!(first + tiles.len() <= layout.tiles);
    assert!(epilogue.bias.is_none_or(|bias| bias.len() >= grid.channels));
    dispatch_light::<T, _>(Scatter::<T, F> { grid, products, layout, first, tiles, epilogue, y, transform: PhantomData });
}

struct Scatter<'a, T, F> {
    grid: &'a Grid,
    products: &'a [T],
    layout: &'a Transformed,
    /// Where the first tile lies in the layout.
    first: usize,
    tiles: Range<usize>,
    epilogue: Epilogue<'a, T>,
    y: &'a Disjoint<'a, T>,
    transform: PhantomData<F>,
}

impl<T: Real, F: Transform> WithSimd for Scatter<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Scatter { grid, first, ref tiles, epilogue, y, .. } = self;
        let mut aside = vec![];
        for (slot, tile) in (first..).zip(tiles.clone()) {
            let window = grid.window(tile, F::TO);
            // SAFETY: the window's pixels inside of the map are this call's alone.
            unsafe {
                if window.is_whole() {
                    let reach = window.reach();
                    self.tile(simd, slot, y.pointer(reach.start, reach.len()), window.pitch);
                } else {
                    aside.resize(window.length(), T::zero());
                    self.tile(simd, slot, aside.as_mut_ptr(), [F::TO * grid.channels, grid.channels]);
                    for [to, from] in window.inside[0].clone().map(|row| window.row(row)) {
                        y.slice(to.start, to.len()).copy_from_slice(&aside[from]);
                    }
                }
                if !epilogue.fits_registers() {
                    for [row, _] in window.inside[0].clone().map(|row| window.row(row)) {
                        epilogue.finish(row.start, y.slice(row.start, row.len()));
                    }
                }
            }
        }
    }
}

impl<T: Real, F: Transform> Scatter<'_, T, F> {
    /// Transforms a slot's tile to pixels `pitch` apart, and finishes them if the epilogue fits registers.
    ///
    /// # Safety
    /// All pixels from `to` on must be writable for all channels, by this thread alone.
    #[inline(always)]
    unsafe fn tile<S: Simd>(&self, simd: S, slot: usize, to: *mut T, pitch: [usize; 2]) {
        let (lanes, channels) = (T::lanes::<S>(), self.grid.channels);
        for channel in (0..channels).step_by(lanes) {
            // SAFETY: by this function's contract.
            unsafe {
                match channels - channel < lanes {
                    true => self.transform::<S, true>(simd, slot, channel, to, pitch),
                    false => self.transform::<S, false>(simd, slot, channel, to, pitch),
                }
            }
        }
    }

    /// As [`tile`](Scatter::tile), for a vector of channels; `MASKED` if there are too few to fill it.
    ///
    /// # Safety
    /// As for [`tile`](Scatter::tile).
    #[inline(always)]
    unsafe fn transform<S: Simd, const MASKED: bool>(&self, simd: S, slot: usize, channel: usize, to: *mut T, pitch: [usize; 2]) {
        let Scatter { grid, products, layout, epilogue, .. } = self;
        let (position, mask) = (layout.position(), T::mask(simd, T::lanes::<S>().min(grid.channels - channel)));
        let from = products[layout.at(slot, channel)..].as_ptr();
        let bias = match epilogue.bias {
            // SAFETY: `scatter` has asserted that the bias has an element for each channel.
            Some(bias) => unsafe { T::load_masked(simd, mask, bias[channel..].as_ptr()) },
            None => T::splat(simd, T::zero()),
        };
        let clamp = epilogue.clamp_in_registers();
        // SAFETY: the mask's channels lie in each position of `products`, as `scatter` has asserted.
        let load = |i: usize, j: usize| unsafe {
            let from = from.add((i * F::FROM + j) * position);
            T::load::<S, MASKED>(simd, mask, from)
        };
        // SAFETY: they lie in each pixel, by this function's contract.
        both_axes::<T, S, F>(simd, load, |i, j, value| unsafe {
            let to = to.add(i * pitch[0] + j * pitch[1] + channel);
            let value = clamp.clamp::<S, T>(simd, T::vector_add(simd, value, bias));
            T::store::<S, MASKED>(simd, mask, to, value);
        });
    }
}
