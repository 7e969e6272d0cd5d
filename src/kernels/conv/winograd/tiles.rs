//! Maps cut into tiles, and the transforms of tiles.

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::scheme::{MOST, Transform, both_axes};
use crate::kernels::epilogue::Epilogue;
use crate::kernels::parallel::Disjoint;
use crate::kernels::simd::{Real, dispatch};

/// Pixels of a tile at most.
const PIXELS: usize = MOST * MOST;

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

impl Grid {
    /// Where the pixels of a tile's `extent × extent` window start; `None` for those outside of the map.
    fn pixels(&self, tile: usize, extent: usize) -> [Option<usize>; PIXELS] {
        let [rows, columns] = self.tiles;
        let (image, tile) = (tile / (rows * columns), tile % (rows * columns));
        let [top, left] = [tile / columns * self.step, tile % columns * self.step];
        std::array::from_fn(|at| {
            let row = (top + at / MOST).checked_sub(self.padding[0])?;
            let column = (left + at % MOST).checked_sub(self.padding[1])?;
            let inside = at / MOST < extent && at % MOST < extent && row < self.size[0] && column < self.size[1];
            inside.then(|| ((image * self.size[0] + row) * self.size[1] + column) * self.channels)
        })
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
    dispatch(Gather::<T, F> { grid, x, tiles, layout, first, out, transform: PhantomData });
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
        let Gather { grid, x, tiles, layout, first, out, .. } = self;
        let (lanes, channels, position) = (T::lanes::<S>(), grid.channels, layout.position());
        let zeros = vec![T::zero(); channels];
        for (slot, tile) in (first..).zip(tiles) {
            assert!(slot < layout.tiles);
            let pixels = grid.pixels(tile, F::FROM).map(|pixel| pixel.map_or(&zeros[..], |at| &x[at..at + channels]).as_ptr());
            let mut channel = 0;
            while channel < channels {
                // A vector stays inside its block.
                let count = lanes.min(channels - channel).min(layout.width - channel % layout.width);
                let out = out.pointer(layout.at(slot, channel), (F::TO * F::TO - 1) * position + count);
                let mask = T::mask(simd, count);
                // SAFETY: `count` channels from `channel` on lie in each pixel.
                let load = |i: usize, j: usize| unsafe {
                    let from = pixels[i * MOST + j].add(channel);
                    if count == lanes { from.cast::<T::Vector<S>>().read_unaligned() } else { T::load_masked(simd, mask, from) }
                };
                // SAFETY: they lie in each position of `out` too, as `pointer` has checked for the last; the slots are this call's alone.
                both_axes::<T, S, F>(simd, load, |i, j, value| unsafe {
                    let to = out.add((i * F::TO + j) * position);
                    if count == lanes { to.cast::<T::Vector<S>>().write_unaligned(value) } else { T::store_masked(simd, mask, to, value) }
                });
                channel += count;
            }
        }
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
    dispatch(Scatter::<T, F> { grid, products, layout, first, tiles, epilogue, y, transform: PhantomData });
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
        let Scatter { grid, products, layout, first, tiles, epilogue, y, .. } = self;
        let (lanes, channels, position) = (T::lanes::<S>(), grid.channels, layout.position());
        for (slot, tile) in (first..).zip(tiles) {
            let places = grid.pixels(tile, F::TO);
            let pixels = places.map(|place| place.map_or(std::ptr::null_mut(), |at| y.pointer(at, channels)));
            for channel in (0..channels).step_by(lanes) {
                let mask = T::mask(simd, lanes.min(channels - channel));
                let full = channels - channel >= lanes;
                let from = products[layout.at(slot, channel)..].as_ptr();
                let bias = match epilogue.bias {
                    // SAFETY: `scatter` has asserted that the bias has an element for each channel.
                    Some(bias) => unsafe { T::load_masked(simd, mask, bias[channel..].as_ptr()) },
                    None => T::splat(simd, T::zero()),
                };
                // SAFETY: the mask's channels lie in each position of `products`, as `scatter` has asserted.
                let load = |i: usize, j: usize| unsafe {
                    let from = from.add((i * F::FROM + j) * position);
                    if full { from.cast::<T::Vector<S>>().read_unaligned() } else { T::load_masked(simd, mask, from) }
                };
                // SAFETY: they lie in each pixel, as `pointer` has checked, and the pixels are this call's alone.
                both_axes::<T, S, F>(simd, load, |i, j, value| unsafe {
                    let to = pixels[i * MOST + j];
                    if !to.is_null() {
                        let (to, value) = (to.add(channel), T::vector_add(simd, value, bias));
                        if full { to.cast::<T::Vector<S>>().write_unaligned(value) } else { T::store_masked(simd, mask, to, value) }
                    }
                });
            }
            if !epilogue.is_plain() {
                for at in places.into_iter().flatten() {
                    // SAFETY: the pixel is this call's alone.
                    epilogue.finish(at, unsafe { y.slice(at, channels) });
                }
            }
        }
    }
}
