//! Division of maps into tiles, and the transforms of tiles.

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::transforms::{Transform, both_axes};
use crate::kernels::elementwise::epilogue::Epilogue;
use crate::kernels::runtime::arrays::MapEach;
use crate::kernels::runtime::parallel::Disjoint;
use crate::kernels::runtime::simd::{Real, dispatch_light};

/// A channels-last map, divided into overlapping or adjacent tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    /// Number of tiles of an image: rows, columns.
    pub(super) tiles: [usize; 2],
    /// Pixels from one tile to the next.
    pub(super) step: usize,
    /// Height and width of the map.
    pub(super) size: [usize; 2],
    pub(super) channels: usize,
    /// Rows and columns of zeros before the map's first.
    pub(super) padding: [usize; 2],
}

/// The `extent × extent` pixels that a tile reads or writes. Those inside the map form a rectangle.
struct TileWindow {
    extent: usize,
    /// Rows and columns of the window that are inside the map; if there are none along one axis,
    /// both ranges are empty.
    inside: [Range<usize>; 2],
    /// Offset in the map's elements of the window's first pixel. Before the map's start, the offset
    /// wraps around.
    origin: usize,
    /// Elements from one row to the next, and from one pixel to the next.
    pitch: [usize; 2],
}

impl Grid {
    fn window(&self, tile: usize, extent: usize) -> TileWindow {
        let [rows, columns] = self.tiles;
        let (image, tile) = (tile / (rows * columns), tile % (rows * columns));
        let corner = [tile / columns * self.step, tile % columns * self.step];
        let mut inside = [0, 1].map_each(|axis| {
            let end = (self.size[axis] + self.padding[axis]).saturating_sub(corner[axis]).min(extent);
            self.padding[axis].saturating_sub(corner[axis]).min(end)..end
        });
        if inside.iter().any(Range::is_empty) {
            inside = [0..0, 0..0];
        }
        let [top, left] = [0, 1].map_each(|axis| corner[axis].wrapping_sub(self.padding[axis]));
        let pitch = [self.size[1] * self.channels, self.channels];
        let first = image.wrapping_mul(self.size[0] * pitch[0]);
        let origin = first.wrapping_add(top.wrapping_mul(pitch[0])).wrapping_add(left.wrapping_mul(pitch[1]));
        TileWindow { extent, inside, origin, pitch }
    }
}

impl TileWindow {
    /// Returns the number of elements of the window's pixels, stored without gaps.
    fn length(&self) -> usize {
        self.extent * self.extent * self.pitch[1]
    }

    /// Returns the elements of a row's pixels that are inside the map: their range in the map, and
    /// their range in the window's pixels, stored without gaps.
    fn row(&self, row: usize) -> [Range<usize>; 2] {
        let (columns, channels) = (&self.inside[1], self.pitch[1]);
        [self.at(row, columns.start), (row * self.extent + columns.start) * channels].map_each(|at| at..at + columns.len() * channels)
    }

    /// Returns whether the whole window is inside the map.
    fn is_whole(&self) -> bool {
        self.inside.iter().all(|range| range.len() == self.extent)
    }

    /// Returns the offset of a pixel in the map.
    #[inline(always)]
    fn at(&self, row: usize, column: usize) -> usize {
        self.origin.wrapping_add(row * self.pitch[0] + column * self.pitch[1])
    }

    /// Returns the elements from the first pixel inside the map to the end of the last; empty if
    /// there is no such pixel.
    fn reach(&self) -> Range<usize> {
        let [rows, columns] = &self.inside;
        if rows.is_empty() {
            return 0..0;
        }
        self.at(rows.start, columns.start)..self.at(rows.end - 1, columns.end - 1) + self.pitch[1]
    }
}

/// The layout of transformed tiles: `[N · N][blocks][tiles][width]`, with channels in blocks of
/// `width`, the last of which may not be full.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transformed {
    /// Number of channels.
    pub(super) channels: usize,
    /// Number of channels of a block.
    pub(super) width: usize,
    /// Number of tiles that fit.
    pub(super) tiles: usize,
}

impl Transformed {
    /// Returns the number of elements from one position to the next. It is not a multiple of a
    /// large power of two, with which all positions would share one set of the cache.
    pub(super) fn position(&self) -> usize {
        self.channels.div_ceil(self.width) * self.width * self.tiles + 64
    }

    /// Returns the offset of a block of channels within a position.
    pub(super) fn block(&self, block: usize) -> usize {
        block * self.width * self.tiles
    }

    /// Returns the offset of a tile's channels, from `channel` on to the end of its block.
    fn at(&self, tile: usize, channel: usize) -> usize {
        self.block(channel / self.width) + tile * self.width + channel % self.width
    }
}

/// Transforms tiles of `x` by `F` into `out`, the first into slot `first`.
///
/// # Safety
/// No other thread may access the slots that this call writes.
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
    /// Slot of the first tile in the layout.
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
                // A vector must not cross the end of its block.
                let most = (grid.channels - channel).min(layout.width - channel % layout.width);
                // SAFETY: the pixels have all channels; no other call accesses the slot.
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
    /// Transforms `count` channels of a tile's pixels, which are `pitch` apart, and returns
    /// `count`. `MASKED` must be set if they do not fill a vector.
    ///
    /// # Safety
    /// All pixels must exist, and have `count` channels from `channel` on. No other thread may
    /// access the slot.
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
        // SAFETY: each pixel has `count` channels from `channel` on.
        let load = |i: usize, j: usize| unsafe {
            let from = from.add(i * pitch[0] + j * pitch[1]);
            T::load::<S, MASKED>(simd, mask, from)
        };
        // SAFETY: each position of `out` has them too, as `pointer` has checked for the last; no
        // other call accesses the slot.
        both_axes::<T, S, F>(simd, load, |i, j, value| unsafe {
            let to = out.add((i * F::TO + j) * position);
            T::store::<S, MASKED>(simd, mask, to, value);
        });
        count
    }
}

/// Transforms the products at the points, from slot `first` on, by `F` into tiles of `y`.
///
/// # Safety
/// No other thread may access the pixels of `y` that these tiles cover.
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
    /// Slot of the first tile in the layout.
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
            // SAFETY: no other call accesses the window's pixels inside the map.
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
    /// Transforms a slot's tile into pixels that are `pitch` apart, and applies the epilogue if it
    /// fits registers.
    ///
    /// # Safety
    /// All channels of all pixels from `to` on must be writable, and no other thread may access
    /// them.
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

    /// Does the work of [`tile`](Scatter::tile) for one vector of channels. `MASKED` must be set if
    /// there are too few channels to fill it.
    ///
    /// # Safety
    /// The contract of [`tile`](Scatter::tile) must hold.
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
        // SAFETY: each position of `products` has the mask's channels, as `scatter` has asserted.
        let load = |i: usize, j: usize| unsafe {
            let from = from.add((i * F::FROM + j) * position);
            T::load::<S, MASKED>(simd, mask, from)
        };
        // SAFETY: each pixel has them, by this function's contract.
        both_axes::<T, S, F>(simd, load, |i, j, value| unsafe {
            let to = to.add(i * pitch[0] + j * pitch[1] + channel);
            let value = clamp.clamp::<S, T>(simd, T::vector_add(simd, value, bias));
            T::store::<S, MASKED>(simd, mask, to, value);
        });
    }
}
