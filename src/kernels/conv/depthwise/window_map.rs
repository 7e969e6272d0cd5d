//! The mapping of sources, targets and taps of a convolution onto vectors of channels, which all
//! passes share.
//!
//! Along each axis, targets are divided into phases (polyphase components): those at one position
//! within cells of `scatter` targets read the same taps.

use std::ops::Range;

use super::tile::{Cells, RowBlock, taps_together};
use crate::kernels::conv::{ConvGeometry, Pass};
use crate::kernels::geometry::Window;
use crate::kernels::runtime::arrays::MapEach;
use crate::kernels::runtime::simd::{Real, lanes};

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
pub(crate) struct AxisMap {
    pub(crate) source: usize,
    pub(crate) target: usize,
    step: usize,
    pub(crate) scatter: usize,
    kernel: usize,
    pub(crate) phases: Vec<Phase>,
}

impl AxisMap {
    fn new<T: Real>(window: &Window, axis: usize, pass: Pass) -> AxisMap {
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
        AxisMap { source, target, step, scatter, kernel, phases: (0..scatter.min(target)).map(phase).collect() }
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
    pub(crate) rows: AxisMap,
    pub(crate) columns: AxisMap,
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
            rows: AxisMap::new::<T>(&g.window, 0, pass),
            columns: AxisMap::new::<T>(&g.window, 1, pass),
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
