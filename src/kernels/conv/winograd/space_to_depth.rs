//! Rewrites a convolution with a stride as one without (space to depth).
//!
//! With stride `s` the input's pixels are divided into `s · s` *phases*, by their position in cells
//! of `s × s` pixels. If a cell is treated as one pixel, with the phases as channels, the kernel
//! has stride 1 and `⌈k / s⌉` taps along each axis. Some of them are zero if `s` does not divide
//! `k`: 7×7 with stride 2 is 4×4 on four times the channels.

use std::ops::RangeInclusive;

use pulp::{Simd, WithSimd};

use super::ConvGeometry;
use crate::kernels::runtime::allocator::{AlignedVec, Elements};
use crate::kernels::runtime::arrays::MapEach;
use crate::kernels::runtime::parallel;
use crate::kernels::runtime::simd::{Real, dispatch_light};

/// Numbers of taps along each axis for which there are tiles: taps of a kernel, or of its form
/// without a stride.
pub(crate) const SIDES: RangeInclusive<usize> = 3..=5;
/// Maximum number of taps of a kernel.
pub(crate) const TAPS: usize = SIDES.end().pow(2);
/// Approximate number of elements that one task rearranges.
const TASK: usize = 8 * 1024;

/// The equivalent convolution without a stride.
pub(crate) struct SpaceToDepth {
    pub(crate) batch: usize,
    /// Number of taps along each axis of the kernel.
    pub(crate) taps: usize,
    /// Height and width of the map; in cells, padding included, if there is a stride.
    pub(crate) size: [usize; 2],
    /// Rows and columns of zeros before the map's first.
    pub(crate) padding: [usize; 2],
    /// Number of channels of the map, phases included, and of the output.
    pub(crate) channels: [usize; 2],
    /// Height and width of the output.
    pub(crate) output: [usize; 2],
    of: ConvGeometry,
}

impl SpaceToDepth {
    /// Builds the equivalent convolution; the kernel must have the same number of taps along both
    /// axes.
    pub(crate) fn new(g: &ConvGeometry) -> SpaceToDepth {
        let (window, [taps, _]) = (&g.window, taps(g));
        let phases = window.stride[0] * window.stride[1];
        let (size, padding) =
            if phases == 1 { (window.input, window.padding) } else { (window.output.map_each(|output| output + taps - 1), [0, 0]) };
        let channels = [phases * g.channels_in, g.channels_out];
        SpaceToDepth { batch: g.batch, taps, size, padding, channels, output: window.output, of: *g }
    }

    /// Returns the number of weights of an output channel.
    pub(crate) fn weights_of_output(&self) -> usize {
        self.of.channels_in * self.of.taps()
    }

    /// Returns the offsets of a channel's taps in the weights of an output channel.
    pub(crate) fn places(&self, channel: usize) -> Places {
        let [stride, kernel] = [self.of.window.stride, self.of.window.kernel];
        if stride == [1, 1] {
            return Places::Run(channel * kernel[0] * kernel[1]);
        }
        let (phase, channel) = (channel / self.of.channels_in, channel % self.of.channels_in);
        let phase = [phase / stride[1], phase % stride[1]];
        let place = |tap: usize| {
            let at = [tap / self.taps * stride[0] + phase[0], tap % self.taps * stride[1] + phase[1]];
            let is_inside = at[0] < kernel[0] && at[1] < kernel[1];
            is_inside.then_some((tap, (channel * kernel[0] + at[0]) * kernel[1] + at[1]))
        };
        Places::Scattered((0..self.taps * self.taps).filter_map(place).collect())
    }

    /// Returns the number of elements of the rearranged map; 0 without a stride.
    pub(crate) fn spread_elements(&self) -> usize {
        if self.of.window.stride == [1, 1] { 0 } else { self.batch * self.size[0] * self.size[1] * self.channels[0] }
    }

    /// Returns the map: `x` itself if there is no stride.
    pub(crate) fn spread<'x, T: Real>(&self, x: &'x [T], work: usize) -> Elements<'x, T> {
        if self.of.window.stride == [1, 1] {
            return Elements::Borrowed(x);
        }
        let [height, width] = self.size;
        let row = width * self.channels[0];
        let mut map = AlignedVec::uninit(self.spread_elements());
        if !map.is_empty() {
            let rows = (TASK / row).max(1);
            parallel::chunks_mut(&mut map, rows * row, work.min(2 * x.len()), |task, map| {
                for (index, map) in (task * rows..).zip(map.chunks_exact_mut(row)) {
                    dispatch_light::<T, _>(Spread { view: self, x, image: index / height, row: index % height, map });
                }
            });
        }
        Elements::Owned(map)
    }
}

/// Offsets of taps in the weights.
pub(crate) enum Places {
    /// All taps are adjacent, row by row, from this offset on.
    Run(usize),
    /// Each tap that is not zero, with its offset.
    Scattered(Vec<(usize, usize)>),
}

/// Returns the number of taps along each axis that a kernel has once its stride is removed.
pub(crate) fn taps(g: &ConvGeometry) -> [usize; 2] {
    [0, 1].map_each(|axis| g.window.kernel[axis].div_ceil(g.window.stride[axis]))
}

/// Fills a row of cells.
struct Spread<'a, T> {
    view: &'a SpaceToDepth,
    x: &'a [T],
    image: usize,
    row: usize,
    map: &'a mut [T],
}

impl<T: Real> WithSimd for Spread<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Spread { view, x, image, row, map } = self;
        let (window, channels) = (&view.of.window, view.of.channels_in);
        let ([height, width], padding) = (window.input, window.padding);
        let [cell, run] = [view.channels[0], window.stride[1] * channels];
        // Returns the image coordinate of a position of the padded image, if it is inside the
        // image.
        let inside = |axis: usize, at: usize| at.checked_sub(padding[axis]).filter(|&at| at < window.input[axis]);
        // Cells whose pixels are all within the image's columns.
        let first = padding[1].div_ceil(window.stride[1]).min(view.size[1]);
        let last = ((width + padding[1]) / window.stride[1]).clamp(first, view.size[1]);
        for phase in 0..window.stride[0] {
            let at = phase * run;
            let Some(row) = inside(0, row * window.stride[0] + phase) else {
                map.chunks_exact_mut(cell).for_each(|cell| cell[at..at + run].fill(T::zero()));
                continue;
            };
            let x = &x[(image * height + row) * width * channels..][..width * channels];
            for j in (0..first).chain(last..view.size[1]) {
                let cell = &mut map[j * cell + at..][..run];
                cell.fill(T::zero());
                for (phase, to) in cell.chunks_exact_mut(channels).enumerate() {
                    if let Some(column) = inside(1, j * window.stride[1] + phase) {
                        to.copy_from_slice(&x[column * channels..][..channels]);
                    }
                }
            }
            if first == last {
                continue;
            }
            let from = &x[(first * window.stride[1] - padding[1]) * channels..][..(last - first) * run];
            let to = &mut map[first * cell + at..][..(last - first - 1) * cell + run];
            let lanes = T::lanes::<S>();
            for part in (0..run).step_by(lanes) {
                let mask = T::mask(simd, lanes.min(run - part));
                for j in 0..last - first {
                    // SAFETY: the mask's elements are within a cell's run, and the runs of all
                    // cells are within `from` and `to`.
                    unsafe {
                        let value = T::load_masked(simd, mask, from.as_ptr().add(j * run + part));
                        T::store_masked(simd, mask, to.as_mut_ptr().add(j * cell + part), value);
                    }
                }
            }
        }
    }
}
