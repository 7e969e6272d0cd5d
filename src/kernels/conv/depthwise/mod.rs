//! Depthwise and grouped convolution with few channels per group: vectors along the channels, where
//! each lane is a channel of the result.
//!
//! If a group has fewer channels than a vector has lanes, a matrix product for each group leaves
//! most lanes empty. In a channels-last image neighbouring channels of the result are adjacent in
//! memory, even if they belong to different groups. So here a vector spans groups, and every lane
//! sums its own channel. A depthwise convolution reads its input directly. In a grouped one, each
//! lane reads all channels of its own group in turn: the input is first spread out into *planes*,
//! one for each channel of a group, in scratch memory that stays in the cache ([`Ring`]); the rest
//! is a depthwise convolution with more taps. Channel multipliers, and maps with fewer channels
//! than lanes, are handled as groups too.
//!
//! Along each axis, targets are divided into *phases* as in [`direct`](super::direct): the input
//! gradient of stride `s` is `s` correlations, each with its own part of the kernel, and each
//! writes every `s`th position. The weight gradient reads its input in the same order as the
//! forward pass.

mod row_ring;
mod tile;
pub(super) mod weight;

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::kernels::conv::depthwise::row_ring::Ring;
use crate::kernels::conv::depthwise::tile::{Cells, RowBlock, Sums, Vectors, run_tiles, taps_together};
use crate::kernels::conv::{ConvGeometry, Pass};
use crate::kernels::elementwise::epilogue::Epilogue;
use crate::kernels::gemm::microkernel::lanes;
use crate::kernels::geometry::Window;
use crate::kernels::norm::moments::Parts;
use crate::kernels::runtime::allocator::Buffer;
use crate::kernels::runtime::arrays::MapEach;
use crate::kernels::runtime::nontemporal;
use crate::kernels::runtime::parallel;
use crate::kernels::runtime::simd::{Real, dispatch};

/// Approximate minimum number of target elements that one task computes, and maximum number of
/// tasks: each band reads some rows of its neighbours again, and starts with rows that have not
/// been prefetched.
const GRAIN: usize = 1 << 15;
const TASKS: usize = 32;
/// Number of tasks for fewer elements than that, if reading a row again is cheap: a small number of
/// tasks is rarely divided evenly among threads.
const FEW_TASKS: usize = 16;
/// Approximate number of pixels whose statistics are summed in one piece: longer sums would
/// accumulate rounding errors.
const PART: usize = 1024;
/// Largest number of channels of a group for which lanes are spread out, even if this algorithm is
/// requested: scratch memory grows with the channels.
const PLANES: usize = 64;

/// Returns why a pass cannot be computed by this algorithm with reasonable memory; `None` if it
/// can.
pub(crate) fn unsupported_reason(g: &ConvGeometry, pass: Pass) -> Option<&'static str> {
    (pass.group(g)[0] > PLANES).then_some("groups have many channels")
}

impl Pass {
    /// Returns the number of channels of a group, in the source and in the target.
    pub(crate) fn group(self, g: &ConvGeometry) -> [usize; 2] {
        match self {
            Pass::Forward => [g.group_in(), g.group_out()],
            Pass::InputGradient => [g.group_out(), g.group_in()],
        }
    }
}

/// The targets at `at + cell · scatter`, where `cell` is 0, 1, …, and the taps that they read.
pub(crate) struct Phase {
    pub(crate) at: usize,
    /// (Kernel position, offset in the source from the cell's position), by offset.
    pub(crate) taps: Vec<(usize, isize)>,
    /// Number of taps that are applied together.
    pub(crate) run: usize,
    /// Number of taps of the earlier phases.
    before: usize,
}

/// One axis. The position of cell `i` in the source is `i · step`.
pub(crate) struct Axis {
    pub(crate) source: usize,
    pub(crate) target: usize,
    step: usize,
    scatter: usize,
    kernel: usize,
    pub(crate) phases: Vec<Phase>,
}

impl Axis {
    fn new<T: Real>(window: &Window, axis: usize, pass: Pass) -> Axis {
        let [input, output, kernel, stride] = [window.input, window.output, window.kernel, window.stride].map_each(|pair| pair[axis]);
        let (padding, dilation) = (window.padding[axis] as isize, window.dilation[axis] as isize);
        let (source, target, step, scatter) = match pass {
            Pass::Forward => (input, output, stride, 1),
            Pass::InputGradient => (output, input, 1, stride),
        };
        let mut before = 0;
        let phase = |at: usize| {
            let taps = (0..kernel).map(|k| (k, k as isize * dilation - padding));
            let taps: Vec<_> = match pass {
                Pass::Forward => taps.collect(),
                Pass::InputGradient => (taps.rev().map(|(k, distance)| (k, at as isize - distance)))
                    .filter(|(_, ahead)| ahead % stride as isize == 0)
                    .map(|(k, ahead)| (k, ahead / stride as isize))
                    .collect(),
            };
            let side_by_side = taps.windows(2).all(|pair| pair[1].1 == pair[0].1 + 1);
            let run = if side_by_side { taps_together::<T>(taps.len(), step) } else { 1 };
            before += taps.len();
            Phase { at, run, before: before - taps.len(), taps }
        };
        Axis { source, target, step, scatter, kernel, phases: (0..scatter.min(target)).map(phase).collect() }
    }

    /// Returns the number of cells of a phase.
    fn cells(&self, phase: &Phase) -> usize {
        (self.target - phase.at).div_ceil(self.scatter)
    }

    /// Iterates over the taps that read inside the source for a target, with the source positions
    /// that they read.
    pub(crate) fn taps_inside(&self, target: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let cell = (target / self.scatter * self.step) as isize;
        let taps = &self.phases[target % self.scatter].taps;
        taps.iter().filter_map(move |&(k, distance)| Some((k, usize::try_from(cell + distance).ok().filter(|&at| at < self.source)?)))
    }

    /// Returns the range of source positions, relative to cell 0, that any cell reads, including
    /// cells of a tile past the end of a row.
    pub(crate) fn source_range(&self, tile: usize) -> Range<isize> {
        let (mut first, mut end) = (0, 0);
        for phase in &self.phases {
            let cells = self.cells(phase).next_multiple_of(tile);
            let last = ((cells - 1) * self.step) as isize;
            first = phase.taps.first().map_or(first, |&(_, distance)| first.min(distance));
            end = phase.taps.last().map_or(end, |&(_, distance)| end.max(last + distance + 1));
        }
        first..end
    }

    /// Returns the largest distance, in source positions, from the first to the last position that
    /// one target reads, both included.
    pub(crate) fn span(&self) -> usize {
        let span = |phase: &Phase| Some((phase.taps.last()?.1 - phase.taps.first()?.1) as usize + 1);
        self.phases.iter().filter_map(span).max().unwrap_or(1).min(self.source.max(1))
    }
}

/// The mapping of source and target onto vectors.
pub(crate) struct WindowMap {
    pub(crate) batch: usize,
    pub(crate) rows: Axis,
    pub(crate) columns: Axis,
    /// Number of channels in the source and in the target.
    pub(crate) channels: [usize; 2],
    /// Number of channels of a group, in the source and in the target.
    pub(crate) group: [usize; 2],
    pass: Pass,
    pub(crate) lanes: usize,
    /// The first channel of each vector of the target. The last vector overlaps the one before it
    /// instead of being shorter.
    pub(crate) starts: Vec<usize>,
}

impl WindowMap {
    pub(crate) fn new<T: Real>(g: &ConvGeometry, pass: Pass) -> WindowMap {
        let (lanes, group) = (lanes::<T>(), pass.group(g));
        let channels = group.map_each(|channels| channels * g.groups);
        WindowMap {
            batch: g.batch,
            rows: Axis::new::<T>(&g.window, 0, pass),
            columns: Axis::new::<T>(&g.window, 1, pass),
            channels,
            group,
            pass,
            lanes,
            starts: (0..channels[1]).step_by(lanes).map(|c| c.min(channels[1].saturating_sub(lanes))).collect(),
        }
    }

    /// Returns whether vectors read the source directly.
    pub(crate) fn is_plain(&self) -> bool {
        self.group == [1, 1] && self.channels[1] >= self.lanes
    }

    /// Returns the number of elements of an image of the source and of the target.
    pub(crate) fn images(&self) -> [usize; 2] {
        let pixels = [self.rows.source * self.columns.source, self.rows.target * self.columns.target];
        [0, 1].map_each(|side| pixels[side] * self.channels[side])
    }

    /// Returns the number of elements of a row of the source and of the target.
    pub(crate) fn row(&self) -> [usize; 2] {
        [self.columns.source * self.channels[0], self.columns.target * self.channels[1]]
    }

    /// Returns the number of lanes of a vector that are used.
    pub(crate) fn used(&self) -> usize {
        self.lanes.min(self.channels[1])
    }

    /// Returns the number of elements of a vector's weights: `[column phase][kernel row][run of
    /// taps][plane][tap][lane]`.
    pub(crate) fn weights(&self) -> usize {
        self.rows.kernel * self.columns.kernel * self.group[0] * self.lanes
    }

    /// Returns the offset, within a vector's weights, of one plane of a run of taps that starts at
    /// tap `tap` of a phase.
    fn place(&self, phase: &Phase, kernel_row: usize, tap: usize, plane: usize) -> usize {
        let taps = phase.before * self.rows.kernel + kernel_row * phase.taps.len() + tap;
        (taps * self.group[0] + plane * phase.run) * self.lanes
    }

    /// Calls `visit(offset in the weights of all vectors, offset in the convolution's weight)` for
    /// each of the former that is used.
    pub(crate) fn for_weights(&self, mut visit: impl FnMut(usize, usize)) {
        let [planes, group] = self.group;
        for (vector, start) in self.starts.iter().enumerate() {
            for phase in &self.columns.phases {
                for (kernel_row, (tap, &(k, _))) in
                    (0..self.rows.kernel).flat_map(|row| phase.taps.iter().enumerate().map(move |tap| (row, tap)))
                {
                    for plane in 0..planes {
                        let run = self.place(phase, kernel_row, tap / phase.run * phase.run, plane);
                        let place = vector * self.weights() + run + tap % phase.run * self.lanes;
                        // The weight is `[channel out][channel in of the group]`.
                        let channels = |channel: usize| match self.pass {
                            Pass::InputGradient if group > 1 => (channel / group * planes + plane) * group + channel % group,
                            _ => channel * planes + plane,
                        };
                        let at = |channel: usize| (channels(channel) * self.rows.kernel + kernel_row) * self.columns.kernel + k;
                        (0..self.used()).for_each(|lane| visit(place + lane, at(start + lane)));
                    }
                }
            }
        }
    }

    /// Collects the row blocks that a row of targets reads in a phase of its columns. `row(source
    /// row)` is the offset of that row's column `from`: 0, or the first column of the spread-out
    /// source.
    pub(crate) fn row_blocks(
        &self,
        target: usize,
        phase: &Phase,
        (from, pitch): (isize, usize),
        row: impl Fn(usize) -> usize,
        blocks: &mut Vec<RowBlock>,
    ) {
        blocks.clear();
        for (kernel_row, source_row) in self.rows.taps_inside(target) {
            for tap in (0..phase.taps.len()).step_by(phase.run) {
                let distance = phase.taps[tap].1 - from;
                for plane in 0..self.group[0] {
                    let source = row(source_row) as isize + distance * pitch as isize + (plane * self.lanes) as isize;
                    blocks.push(RowBlock { source, distance, weights: self.place(phase, kernel_row, tap, plane) });
                }
            }
        }
    }

    /// Returns the rows of a source image that the next row of targets reads and this one does not.
    pub(crate) fn ahead<'a, T>(&self, image: &'a [T], target: usize) -> &'a [T] {
        let end = |target: usize| self.rows.taps_inside(target).map(|(_, row)| row + 1).max().unwrap_or(0);
        if target + 1 >= self.rows.target {
            return &[];
        }
        let (from, to) = (end(target), end(target + 1));
        &image[from.min(to) * self.row()[0]..to * self.row()[0]]
    }

    /// Returns the cells of a row of targets in a phase of its columns. `width` and `pitch`
    /// describe the source, which has its own columns if it is spread out.
    pub(crate) fn cells<'a, T>(&self, source: &'a [T], [width, pitch]: [usize; 2], phase: &Phase, blocks: &'a [RowBlock]) -> Cells<'a, T> {
        Cells { source, width, pitch, step: self.columns.step, count: self.columns.cells(phase), run: phase.run, blocks, ahead: &[] }
    }
}

/// A pass with its weights arranged by vectors: see [`WindowMap::weights`].
pub(crate) struct Depthwise<T> {
    map: WindowMap,
    weights: Buffer<T>,
    work: usize,
}

impl<T: Real> Depthwise<T> {
    pub(crate) fn new(g: &ConvGeometry, pass: Pass, w: &[T]) -> Depthwise<T> {
        let map = WindowMap::new::<T>(g, pass);
        let mut weights = Buffer::zeroed(map.starts.len() * map.weights());
        map.for_weights(|place, at| weights[place] = w[at]);
        Depthwise { map, weights, work: work(g) }
    }

    /// Returns the number of rows of a band, such that bands have about the same size.
    fn band(&self) -> usize {
        let map = &self.map;
        let elements = map.batch * map.images()[1];
        let grain = if map.is_plain() { GRAIN.min(elements / FEW_TASKS).max(1) } else { GRAIN }.max(elements / TASKS);
        map.rows.target.div_ceil((map.rows.target * map.row()[1]).div_ceil(grain).clamp(1, map.rows.target.max(1)))
    }

    /// Returns the number of rows of a band whose statistics are summed in one piece.
    fn part(&self) -> usize {
        PART.div_ceil(self.map.columns.target.max(1))
    }

    /// Returns the parts over which statistics are taken: some rows of a band of an image.
    pub(crate) fn parts(&self) -> Parts {
        let (map, band, part) = (&self.map, self.band(), self.part());
        let (height, width) = (map.rows.target, map.columns.target);
        let of_band =
            |first: usize| (0..band).step_by(part).map(move |row| part.min(band - row).min(height.saturating_sub(first + row)) * width);
        let of_image = || (0..height).step_by(band).flat_map(of_band);
        let last = map.starts.len().saturating_sub(1) * map.lanes;
        // If the last vector overlaps the one before it, its first channels have statistics in
        // both.
        let place = |channel: usize| if channel < last { channel } else { last + channel - map.starts.last().unwrap_or(&0) };
        Parts {
            rows: (0..map.batch).flat_map(|_| of_image()).collect(),
            width: map.starts.len() * map.lanes,
            places: (0..map.channels[1]).map(place).collect(),
        }
    }

    pub(crate) fn run(&self, x: &[T], epilogue: Epilogue<'_, T>, y: &mut [T]) {
        let (map, row) = (&self.map, self.map.row()[1]);
        if y.is_empty() {
            return;
        }
        let (band, part) = (self.band(), self.part());
        let bands = map.rows.target.div_ceil(band);
        let [image, target_image] = map.images();
        let vector = map.lanes * size_of::<T>();
        let aligned = (y.as_ptr() as usize).is_multiple_of(vector) && (map.channels[1] * size_of::<T>()).is_multiple_of(vector);
        let streams = nontemporal::pays::<T>(y.len()) && map.is_plain() && epilogue.fits_registers() && aligned;
        let y = parallel::Disjoint::new(y);
        parallel::for_each(map.batch * bands, self.work, |task| {
            let rows = task % bands * band..map.rows.target.min((task % bands + 1) * band);
            let first = task / bands * target_image + rows.start * row;
            // SAFETY: tasks own distinct rows of the target.
            let y = unsafe { y.slice(first, rows.len() * row) };
            let x = &x[task / bands * image..][..image];
            let accumulator = epilogue.accumulator.map(|accumulator| accumulator.part(task * band.div_ceil(part)));
            let epilogue = Epilogue { accumulator, ..epilogue.from(first) };
            dispatch::<T, _>(Band { map, weights: &self.weights, x, rows, epilogue, part, y, streams });
            if streams {
                nontemporal::fence();
            }
        });
    }
}

/// Returns the cost of a pass, in the elementary operations that decide whether threads are woken:
/// the operations of a vector count as two.
pub(crate) fn work(g: &ConvGeometry) -> usize {
    g.work() / 8
}

/// Some rows of one image.
struct Band<'a, T> {
    map: &'a WindowMap,
    weights: &'a [T],
    x: &'a [T],
    rows: Range<usize>,
    epilogue: Epilogue<'a, T>,
    /// Number of rows whose statistics are summed in one piece.
    part: usize,
    y: &'a mut [T],
    /// Whether `y` is written with non-temporal stores.
    streams: bool,
}

impl<T: Real> WithSimd for Band<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        assert_eq!(T::lanes::<S>(), self.map.lanes);
        if self.map.is_plain() { self.plain(simd) } else { self.spread(simd) }
    }
}

impl<T: Real> Band<'_, T> {
    #[inline(always)]
    fn plain<S: Simd>(&mut self, simd: S) {
        let map = self.map;
        let (channels, [source_row, row]) = (map.channels[0], map.row());
        let vectors: Vec<_> = map.starts.iter().map(|&start| [start, start]).collect();
        let vectors = Vectors { channels: &vectors, weights: map.weights(), lanes: map.lanes };
        let mut blocks = vec![];
        for (index, target) in self.rows.clone().enumerate() {
            for phase in &map.columns.phases {
                map.row_blocks(target, phase, (0, channels), |source| source * source_row, &mut blocks);
                let mut cells = map.cells(self.x, [map.columns.source, channels], phase, &blocks);
                if phase.at == 0 && target + 1 < self.rows.end {
                    cells.ahead = map.ahead(self.x, target);
                }
                self.sums(simd, index, phase, 0, cells, vectors);
            }
            if !self.epilogue.fits_registers() {
                self.epilogue.finish(index * row, &mut self.y[index * row..][..row]);
            }
        }
    }

    #[inline(always)]
    fn spread<S: Simd>(&mut self, simd: S) {
        let map = self.map;
        let mut ring = Ring::new(map);
        let mut blocks = vec![];
        for (vector, &start) in map.starts.iter().enumerate() {
            ring.select(map, start);
            let vectors = Vectors { channels: &[[0, start]], weights: map.weights(), lanes: map.used() };
            for (index, target) in self.rows.clone().enumerate() {
                map.rows.taps_inside(target).for_each(|(_, source)| ring.spread(map, self.x, 0, source));
                for phase in &map.columns.phases {
                    map.row_blocks(target, phase, ring.columns(), |source| ring.row(source), &mut blocks);
                    let cells = map.cells(ring.elements(), [ring.width(), ring.columns().1], phase, &blocks);
                    self.sums(simd, index, phase, vector, cells, vectors);
                }
            }
        }
        if !self.epilogue.fits_registers() {
            self.epilogue.finish(0, self.y);
        }
    }

    /// Computes a row of targets in a phase, for vectors from `first` on.
    #[inline(always)]
    fn sums<S: Simd>(&mut self, simd: S, index: usize, phase: &Phase, first: usize, cells: Cells<'_, T>, vectors: Vectors<'_>) {
        let map = self.map;
        let channels = map.channels[1];
        let (part, is_first) = (index / self.part, index.is_multiple_of(self.part));
        let accumulator = self.epilogue.accumulator.map(|accumulator| (accumulator.part(part).from(first * map.lanes), is_first));
        let sums = Sums {
            weights: &self.weights[first * map.weights()..],
            bias: self.epilogue.bias,
            clamp: self.epilogue.clamp_in_registers(),
            target: &mut self.y[index * map.row()[1] + phase.at * channels..],
            pitch: map.columns.scatter * channels,
            streams: self.streams,
            accumulator,
        };
        // SAFETY: the row blocks are those of `map`, in a source with all of its rows and as many
        // columns as the cells state (`Prepared::run` has checked the sizes; `Ring` allocates its
        // own); weights are laid out by `map` too; a row of the target has cells of `pitch`
        // elements, of which the last has at least all channels; if it is streamed, `run` has
        // checked that all vectors are aligned; and `run` gives each band its own parts of the
        // accumulator.
        unsafe { run_tiles::<T, S>(simd, sums, cells, vectors) }
    }
}
