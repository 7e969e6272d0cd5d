//! The traversal that direct convolution is based on: cells of target pixels, each of which is a
//! row of a matrix product on padded source images.

use std::ops::Range;

use super::ConvGeometry;
use crate::kernels::elementwise::epilogue::Epilogue;
use crate::kernels::gemm::microkernel::{Ascending, Rows, multiply_into};
use crate::kernels::gemm::pack::{Panels, copy_strided, filled_up};
use crate::kernels::norm::moments::Parts;
use crate::kernels::runtime::allocator::{AlignedVec, Elements};
use crate::kernels::runtime::arrays::{MapEach, sort_by};
use crate::kernels::runtime::parallel::{self, Disjoint};
use crate::kernels::runtime::simd::{Real, vectorize};

/// Approximate number of pixels of an area: enough to make good use of a packed panel.
const BAND: usize = 192;
/// Minimum number of pixels of an area (if the image has as many), even if that leaves few areas.
const SHORT_BAND: usize = 24;
/// Approximate number of padded elements that one task writes.
const PADDED: usize = 8 * 1024;
/// Minimum number of tasks, where possible: a small number of tasks is rarely divided evenly among
/// threads.
const TASKS: usize = 16;

/// Along one axis: the kernel positions that a phase uses.
pub(super) struct AxisTaps {
    /// The first target coordinate.
    pub(super) at: usize,
    /// (Kernel position, distance in source pixels from the cell's first), by distance.
    pub(super) taps: Vec<(usize, usize)>,
}

impl AxisTaps {
    /// Returns the taps of `pixels` cells that are `step` source pixels apart, relative to the
    /// first.
    pub(super) fn widen(&self, pixels: usize, step: usize) -> WideTaps {
        let of_pixel = |pixel: usize| self.taps.iter().map(move |&(k, distance)| (distance + pixel * step, pixel, k));
        let mut reads: Vec<(usize, usize, usize)> = (0..pixels).flat_map(of_pixel).collect();
        sort_by(&mut reads, |a, b| a.cmp(b));
        let mut taps: Vec<(Vec<Option<usize>>, usize)> = vec![];
        for (distance, pixel, k) in reads {
            match taps.last_mut() {
                Some((kernel_taps, last)) if *last == distance => kernel_taps[pixel] = Some(k),
                _ => taps.push(((0..pixels).map(|other| (other == pixel).then_some(k)).collect(), distance)),
            }
        }
        WideTaps { at: self.at, taps }
    }
}

/// The counterpart of [`AxisTaps`] for several neighbouring target pixels at once.
pub(super) struct WideTaps {
    at: usize,
    /// (For each pixel the kernel position that applies there, distance in source pixels from the
    /// first pixel's cell), by distance.
    taps: Vec<(Vec<Option<usize>>, usize)>,
}

/// A weight, and its strides between groups, target channels and source channels; kernel positions
/// are contiguous.
pub(super) struct Weights<'a, T> {
    pub(super) w: &'a [T],
    pub(super) group: usize,
    pub(super) n: usize,
    pub(super) channel: usize,
}

/// One phase: the taps and packed weights of the target pixels at one position within their cells.
pub(super) struct PhaseProduct<T> {
    /// Position within the cell.
    at: [usize; 2],
    /// Rows and columns of the taps, in source pixels from the cell's first.
    rows: Vec<usize>,
    columns: Vec<usize>,
    /// Whether the columns are adjacent, with all their channels, so that they form one run.
    merged: bool,
    /// The packed weights of each group.
    panels: Vec<Panels<T>>,
}

impl<T: Real> PhaseProduct<T> {
    pub(super) fn new(
        g: &ConvGeometry,
        rows: &AxisTaps,
        columns: &WideTaps,
        [channels, n]: [usize; 2],
        weights: &Weights<'_, T>,
    ) -> PhaseProduct<T> {
        let [rows_of_kernel, width] = [rows.taps.len(), columns.taps.len()];
        let pixels = columns.taps.first().map_or(1, |(kernel_taps, _)| kernel_taps.len());
        let pack = |group: usize| {
            Panels::pack_with(rows_of_kernel * width * channels, pixels * n, |range, panel| {
                let nr = panel.len() / (rows_of_kernel * width * channels);
                if pixels > 1 {
                    panel.fill(T::zero());
                }
                for (position, out) in panel.chunks_mut(channels * nr).enumerate() {
                    let ((kh, _), (kernel_taps, _)) = (rows.taps[position / width], &columns.taps[position % width]);
                    // Each run of the panel's columns belongs to one pixel.
                    let mut from = range.start;
                    while from < range.end {
                        let (pixel, to) = (from / n, range.end.min((from / n + 1) * n));
                        if let Some(kw) = kernel_taps[pixel] {
                            let w = &weights.w[group * weights.group + from % n * weights.n + kh * g.window.kernel[1] + kw..];
                            copy_strided(w, [weights.channel, weights.n], [channels, to - from], &mut out[from - range.start..], nr);
                        }
                        from = to;
                    }
                }
            })
        };
        let distances: Vec<usize> = columns.taps.iter().map(|&(_, distance)| distance).collect();
        let side_by_side = distances.windows(2).all(|pair| pair[1] == pair[0] + 1);
        PhaseProduct {
            at: [rows.at, columns.at],
            rows: rows.taps.iter().map(|&(_, distance)| distance).collect(),
            columns: distances,
            merged: g.groups == 1 && side_by_side,
            panels: (0..g.groups).map(pack).collect(),
        }
    }
}

/// The source pixels that cells read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) size: [usize; 2],
    /// Rows and columns of zeros before the first.
    pub(super) padding: [usize; 2],
    pub(super) cells: [usize; 2],
    /// Source pixels from one cell to the next.
    pub(super) step: [usize; 2],
    /// Source pixels that a cell reads.
    pub(super) span: [usize; 2],
}

/// Images, or bands of them, with the padding written out.
pub(super) struct Padded<'x, T> {
    pub(super) elements: Elements<'x, T>,
    /// Pixels from one row to the next.
    pub(super) pitch: usize,
    /// Elements from one image to the next.
    pub(super) image: usize,
}

impl Source {
    /// Returns the number of source rows (axis 0) or columns (axis 1) that `cells` cells read.
    fn extent(&self, axis: usize, cells: usize) -> usize {
        cells.saturating_sub(1) * self.step[axis] + self.span[axis]
    }

    /// Returns whether all cells read only pixels of the source, and no padding.
    fn is_whole(&self) -> bool {
        self.padding == [0, 0] && (0..2).all(|axis| self.extent(axis, self.cells[axis]) <= self.size[axis])
    }

    /// Returns the pixels from one row to the next, and the elements from one image to the next, of
    /// the source area that `rows` rows of cells read.
    fn pitch(&self, channels: usize, rows: usize) -> [usize; 2] {
        let [height, width] = if self.is_whole() { self.size } else { [self.extent(0, rows), self.extent(1, self.cells[1])] };
        [width, height * width * channels]
    }

    /// Returns the source area that some rows of cells of some images read; borrowed if it needs no
    /// padding.
    pub(super) fn pad<'x, T: Real>(
        &self,
        x: &'x [T],
        channels: usize,
        images: Range<usize>,
        cells: Range<usize>,
        work: usize,
    ) -> Padded<'x, T> {
        let [height, width] = self.size;
        let (first, rows, columns) = (cells.start * self.step[0], self.extent(0, cells.len()), self.extent(1, self.cells[1]));
        let image = height * width * channels;
        let [pitch, padded_image] = self.pitch(channels, cells.len());
        if self.is_whole() {
            let elements = Elements::Borrowed(&x[images.start * image + first * width * channels..images.end * image]);
            return Padded { elements, pitch, image: padded_image };
        }
        let mut data = AlignedVec::uninit(images.len() * rows * columns * channels);
        let before = self.padding[1].min(columns);
        let copied = width.min(columns - before);
        let row = (columns * channels).max(1);
        let rows_of_task = (PADDED / row).max(1);
        parallel::chunks_mut(&mut data, rows_of_task * row, work.min(images.len() * image), |task, out| {
            for (index, out) in (task * rows_of_task..).zip(out.chunks_exact_mut(row)) {
                let (n, row) = (images.start + index / rows, (first + index % rows).wrapping_sub(self.padding[0]));
                if row >= height {
                    out.fill(T::zero());
                    continue;
                }
                let (left, rest) = out.split_at_mut(before * channels);
                let (middle, right) = rest.split_at_mut(copied * channels);
                left.fill(T::zero());
                middle.copy_from_slice(&x[n * image + row * width * channels..][..copied * channels]);
                right.fill(T::zero());
            }
        });
        Padded { elements: Elements::Owned(data), pitch, image: padded_image }
    }
}

/// The description of a correlation. A *cell* is a block of `scatter` target pixels and the source
/// pixels that they read.
pub(super) struct CorrelationPlan {
    pub(super) source: Source,
    pub(super) target: [usize; 2],
    /// Channels of source and target.
    pub(super) channels: [usize; 2],
    pub(super) groups: usize,
    pub(super) scatter: [usize; 2],
    /// Neighbouring target pixels that are computed together, like channels of one pixel.
    pub(super) pixels: usize,
    pub(super) batch: usize,
    pub(super) work: usize,
}

impl CorrelationPlan {
    /// Counts cells, for a range of rows of cells and a phase: the rows whose target row is within
    /// the image, and the cells of each such row.
    fn cells<T>(&self, phase: &PhaseProduct<T>, rows: Range<usize>) -> [usize; 2] {
        let [height, width] = [0, 1].map_each(|axis| self.target[axis].saturating_sub(phase.at[axis]).div_ceil(self.scatter[axis]));
        [height.min(rows.end).saturating_sub(rows.start), width]
    }
}

/// A correlation of padded source images with phases of weights, divided into areas: bands of one
/// image or, if images are small, several images.
pub(super) struct Correlation<T> {
    plan: CorrelationPlan,
    phases: Vec<(PhaseProduct<T>, Places)>,
    /// Rows of cells of an area, and images of an area.
    band: usize,
    images: usize,
    /// The largest number of panels of any group.
    panels: usize,
}

/// Offsets of the rows of a phase's matrix product, in the order of an area's images, rows and
/// columns, relative to the start of the area. An area with fewer rows uses the first of them.
struct Places {
    starts: Ascending<Vec<usize>>,
    out_starts: Ascending<Vec<usize>>,
    taps: Vec<usize>,
    run: usize,
}

impl<T: Real> Correlation<T> {
    pub(super) fn new(plan: CorrelationPlan, phases: Vec<PhaseProduct<T>>) -> Correlation<T> {
        let [rows, columns] = plan.source.cells.map_each(|cells| cells.max(1));
        let batch = plan.batch.max(1);
        let panels = phases.iter().flat_map(|phase| &phase.panels).map(|panels| panels.view().count()).max().unwrap_or(1).max(1);
        let mut band = BAND.div_ceil(columns).min(rows);
        let mut images = if band == rows { (BAND / (rows * columns)).clamp(1, batch) } else { 1 };
        if batch.div_ceil(images) * rows.div_ceil(band) * panels < TASKS {
            images = 1;
            band = rows.div_ceil(TASKS.div_ceil(batch * panels)).max(SHORT_BAND.div_ceil(columns)).min(band);
        }
        let phases = phases.into_iter().map(|phase| {
            let places = Places::new(&plan, &phase, images, band);
            (phase, places)
        });
        Correlation { phases: phases.collect(), band, images, panels, plan }
    }

    /// Returns the areas over which the statistics of a single phase are taken; `None` if pixels
    /// are computed twice.
    pub(super) fn parts(&self) -> Option<Parts> {
        let CorrelationPlan { source, target, channels: [_, channels], groups, pixels, batch, .. } = self.plan;
        let (rows, n) = (source.cells[0], channels / groups);
        let place = |channel: usize| channel / n * filled_up::<T>(n) + channel % n;
        if pixels != 1 || self.phases.len() != 1 {
            return None;
        }
        let mut part_rows = vec![];
        for first in (0..batch).step_by(self.images) {
            let images = self.images.min(batch - first);
            part_rows.extend((0..rows).step_by(self.band).map(|row| images * self.band.min(rows - row) * target[1]));
        }
        Some(Parts { rows: part_rows, width: groups * filled_up::<T>(n), places: (0..channels).map(place).collect() })
    }

    pub(super) fn run(&self, x: &[T], epilogue: Epilogue<'_, T>, y: &mut [T]) {
        let CorrelationPlan { batch, pixels, work, .. } = self.plan;
        // Repeats the bias for each column of the panels.
        let bias = epilogue.bias.map(|bias| bias.repeat(pixels));
        let epilogue = Epilogue { bias: bias.as_deref(), ..epilogue };
        if y.is_empty() {
            return;
        }
        // A task is an area or, if there are few areas, some of its columns.
        let rows = self.plan.source.cells[0];
        let bands = rows.div_ceil(self.band);
        let areas = batch.div_ceil(self.images) * bands;
        // Each part of an area's columns writes its own padded copy of the source.
        let tasks = if self.plan.source.is_whole() { TASKS } else { TASKS / 2 };
        let part = if pixels == 1 { (areas * self.panels / tasks).clamp(1, self.panels) } else { self.panels };
        let parts = self.panels.div_ceil(part);
        let y = Disjoint::new(y);
        parallel::for_each(areas * parts, work, |task| {
            let (area, first) = (task / parts, task % parts * part);
            let (image, panels) = (area / bands * self.images, first..self.panels.min(first + part));
            let images = image..batch.min(image + self.images);
            let cells = area % bands * self.band..rows.min((area % bands + 1) * self.band);
            let epilogue = Epilogue { accumulator: epilogue.accumulator.map(|accumulator| accumulator.part(area)), ..epilogue };
            self.area(x, images, cells, panels, epilogue, &y);
        });
    }

    /// Computes the target pixels of some cells of some images, for a range of the panels of each
    /// group.
    fn area(
        &self,
        x: &[T],
        images: Range<usize>,
        cells: Range<usize>,
        panels: Range<usize>,
        epilogue: Epilogue<'_, T>,
        y: &Disjoint<'_, T>,
    ) {
        let CorrelationPlan { source, target, channels: [channels, channels_out], groups, scatter, pixels, .. } = self.plan;
        let padded = source.pad(x, channels, images.clone(), cells.clone(), 0);
        let row = target[1] * channels_out;
        let area = (images.start * target[0] + cells.start * scatter[0]) * row;
        for (phase, places) in &self.phases {
            let count = images.len() * places.rows(&self.plan, phase, cells.clone());
            let rows = Rows { starts: places.starts.first(count), taps: &places.taps, run: places.run };
            for (group, packed) in phase.panels.iter().enumerate() {
                let (packed, n) = (packed.view(), channels_out / groups);
                let panels = panels.start.min(packed.count())..panels.end.min(packed.count());
                let first = panels.start * packed.width();
                let bias = epilogue.bias.map(|bias| &bias[group * n + first..]);
                let at = area + group * n + first;
                let accumulator = epilogue.accumulator.map(|accumulator| accumulator.from(group * filled_up::<T>(n) + first));
                // If pixels are computed twice, the epilogue is applied once, below.
                let epilogue = if pixels > 1 { Epilogue::bias(bias) } else { Epilogue { bias, accumulator, ..epilogue.from(at) } };
                let source = &padded.elements[(group * (channels / groups)).min(padded.elements.len())..];
                // SAFETY: tasks own distinct target pixels, or distinct channels of them; the same
                // holds for the statistics of an area.
                unsafe { multiply_into(source, rows, packed.panels(panels), &y.from(at), places.out_starts.first(count), epilogue) };
            }
        }
        if pixels > 1 && !epilogue.is_plain() {
            for image in images {
                let [top, bottom] = [cells.start, cells.end].map_each(|cell| (cell * scatter[0]).min(target[0]));
                let at = (image * target[0] + top) * row;
                // SAFETY: no other task accesses these rows.
                let y = unsafe { y.slice(at, (bottom - top) * row) };
                vectorize!(T, epilogue.finish(at, y));
            }
        }
    }
}

impl Places {
    /// Builds the offsets for areas of `images` images and `band` rows of cells.
    fn new<T>(plan: &CorrelationPlan, phase: &PhaseProduct<T>, images: usize, band: usize) -> Places {
        let &CorrelationPlan { source, target, channels: [channels, channels_out], groups, scatter, pixels, .. } = plan;
        let [pitch, image] = source.pitch(channels, band);
        let [rows, cells] = plan.cells(phase, 0..band);
        let (mut starts, mut out_starts) = (vec![], vec![]);
        for place in 0..images * rows {
            let (n, row) = (place / rows, place % rows);
            // If the cells are not a multiple of `pixels`, the last product repeats some pixels of
            // the one before, with bit-identical results.
            let cells = (0..cells).step_by(pixels).map(|cell| cell.min(cells - pixels));
            let from = n * image + row * source.step[0] * pitch * channels;
            starts.extend(cells.clone().map(|cell| from + cell * source.step[1] * channels));
            let to = (n * target[0] + row * scatter[0] + phase.at[0]) * target[1] + phase.at[1];
            out_starts.extend(cells.map(|cell| (to + cell * scatter[1]) * channels_out));
        }
        let columns = if phase.merged { &phase.columns[..phase.columns.len().min(1)] } else { &phase.columns[..] };
        let mut taps = Vec::with_capacity(phase.rows.len() * columns.len());
        for row in &phase.rows {
            taps.extend(columns.iter().map(|column| (row * pitch + column) * channels));
        }
        let run = if phase.merged { phase.columns.len() * channels } else { channels / groups };
        Places { starts: Ascending::new(starts), out_starts: Ascending::new(out_starts), taps, run }
    }

    /// Returns the number of rows of the product for an image's rows of cells.
    fn rows<T>(&self, plan: &CorrelationPlan, phase: &PhaseProduct<T>, cells: Range<usize>) -> usize {
        let [rows, columns] = plan.cells(phase, cells);
        rows * columns.div_ceil(plan.pixels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_pixels_share_taps_at_one_distance() {
        let columns = AxisTaps { at: 0, taps: vec![(0, 0), (1, 1), (2, 4)] };
        let one = columns.widen(1, 7);
        assert_eq!(one.taps, [(vec![Some(0)], 0), (vec![Some(1)], 1), (vec![Some(2)], 4)]);
        let two = columns.widen(2, 3);
        let expected = [(Some(0), None, 0), (Some(1), None, 1), (None, Some(0), 3), (Some(2), Some(1), 4), (None, Some(2), 7)];
        assert_eq!(two.taps, expected.map(|(first, second, distance)| (vec![first, second], distance)));
    }

    #[test]
    fn time_of_widening_is_in_proportion_to_the_taps() {
        // Some 10^10 steps if each tap of each pixel were searched for.
        let (taps, pixels) = if cfg!(miri) { (60, 4) } else { (150_000, 4) };
        let columns = AxisTaps { at: 0, taps: (0..taps).map(|k| (k, k)).collect() };
        let start = std::time::Instant::now();
        let wide = columns.widen(pixels, 1);
        assert!(start.elapsed().as_secs() < 15, "{:?}", start.elapsed());
        assert_eq!(wide.taps.len(), taps + pixels - 1);
        assert!(wide.taps[pixels..taps].iter().all(|(kernel_taps, _)| kernel_taps.iter().all(Option::is_some)));
    }
}
