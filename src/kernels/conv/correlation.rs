//! The walk that direct convolution is made of: cells of target pixels, each a row of a matrix product on padded source images.

use std::ops::Range;

use super::ConvGeometry;
use crate::kernels::epilogue::Epilogue;
use crate::kernels::memory::Buffer;
use crate::kernels::parallel::{self, Disjoint};
use crate::kernels::simd::{Real, Scalar, vectorize};
use crate::kernels::tile::{Panels, Rows, copy_strided, multiply_into};

/// Pixels a task has at least, where there are as many: enough to use a packed panel well.
const BAND: usize = 192;
/// Tasks that there are at least, where there are as many panels.
const TASKS: usize = 8;

/// Along one axis: the kernel positions that a phase meets.
pub(super) struct Axis {
    /// The first target coordinate.
    pub(super) at: usize,
    /// (Kernel position, distance in source pixels from the cell's first), by distance.
    pub(super) taps: Vec<(usize, usize)>,
}

impl Axis {
    /// The taps of `pixels` cells that lie `step` source pixels apart, seen from the first.
    pub(super) fn widen(&self, pixels: usize, step: usize) -> WideAxis {
        let last = self.taps.last().map_or(0, |&(_, distance)| distance);
        let met = |distance: usize| -> Vec<Option<usize>> {
            (0..pixels)
                .map(|pixel| {
                    let own = distance.checked_sub(pixel * step)?;
                    self.taps.iter().find(|&&(_, distance)| distance == own).map(|&(k, _)| k)
                })
                .collect()
        };
        let all = (0..=last + (pixels - 1) * step).map(|distance| (met(distance), distance));
        WideAxis { at: self.at, taps: all.filter(|(met, _)| met.iter().any(Option::is_some)).collect() }
    }
}

/// As [`Axis`], for several neighbouring target pixels at once.
pub(super) struct WideAxis {
    at: usize,
    /// (For each pixel the kernel position that it meets there, distance in source pixels from the first pixel's cell), by distance.
    taps: Vec<(Vec<Option<usize>>, usize)>,
}

/// A weight and the distances in it between groups, target channels, and source channels; positions are contiguous.
pub(super) struct Weights<'a, T> {
    pub(super) w: &'a [T],
    pub(super) group: usize,
    pub(super) n: usize,
    pub(super) channel: usize,
}

/// One phase: the taps and packed weights of the target pixels at one place of their cells.
pub(super) struct Phase<T> {
    /// Place in the cell.
    at: [usize; 2],
    /// Rows and columns, in source pixels from the cell's first, of the taps.
    rows: Vec<usize>,
    columns: Vec<usize>,
    /// Whether the columns lie side by side with all their channels, so that they make one run.
    merged: bool,
    /// For each group.
    panels: Vec<Panels<T>>,
}

impl<T: Real> Phase<T> {
    pub(super) fn new(g: &ConvGeometry, rows: &Axis, columns: &WideAxis, [channels, n]: [usize; 2], weights: &Weights<'_, T>) -> Phase<T> {
        let [rows_of_kernel, width] = [rows.taps.len(), columns.taps.len()];
        let pixels = columns.taps.first().map_or(1, |(met, _)| met.len());
        let pack = |group: usize| {
            Panels::pack_with(rows_of_kernel * width * channels, pixels * n, |range, panel| {
                let nr = panel.len() / (rows_of_kernel * width * channels);
                if pixels > 1 {
                    panel.fill(T::zero());
                }
                for (position, out) in panel.chunks_mut(channels * nr).enumerate() {
                    let ((kh, _), (met, _)) = (rows.taps[position / width], &columns.taps[position % width]);
                    // A run of the panel's columns belongs to one pixel.
                    let mut from = range.start;
                    while from < range.end {
                        let (pixel, to) = (from / n, range.end.min((from / n + 1) * n));
                        if let Some(kw) = met[pixel] {
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
        Phase {
            at: [rows.at, columns.at],
            rows: rows.taps.iter().map(|&(_, distance)| distance).collect(),
            columns: distances,
            merged: g.groups == 1 && side_by_side,
            panels: (0..g.groups).map(pack).collect(),
        }
    }
}

/// How cells see the source images.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) size: [usize; 2],
    /// Rows and columns of zeros before the first.
    pub(super) padding: [usize; 2],
    pub(super) cells: [usize; 2],
    /// Source pixels from one cell to the next.
    pub(super) step: [usize; 2],
    /// Source pixels that a cell sees.
    pub(super) span: [usize; 2],
}

/// Images, or bands of them, with the padding written out.
pub(super) struct Padded<'x, T> {
    data: Data<'x, T>,
    /// Pixels from one row to the next.
    pub(super) pitch: usize,
    /// Elements from one image to the next.
    pub(super) image: usize,
}

enum Data<'x, T> {
    Borrowed(&'x [T]),
    Owned(Buffer<T>),
}

impl<T: Scalar> Padded<'_, T> {
    pub(super) fn elements(&self) -> &[T] {
        match &self.data {
            Data::Borrowed(data) => data,
            Data::Owned(data) => data,
        }
    }
}

impl Source {
    /// What the cells in some rows of some images see; borrowed where there is nothing to pad.
    pub(super) fn pad<'x, T: Real>(
        &self,
        x: &'x [T],
        channels: usize,
        images: Range<usize>,
        cells: Range<usize>,
        work: usize,
    ) -> Padded<'x, T> {
        let [height, width] = self.size;
        let extent = |axis: usize, cells: usize| (cells - 1) * self.step[axis] + self.span[axis];
        let (first, rows, columns) = (cells.start * self.step[0], extent(0, cells.len()), extent(1, self.cells[1]));
        let image = height * width * channels;
        if self.padding == [0, 0] && columns <= width && first + rows <= height {
            let data = Data::Borrowed(&x[images.start * image + first * width * channels..images.end * image]);
            return Padded { data, pitch: width, image };
        }
        let mut data = Buffer::uncleared(images.len() * rows * columns * channels);
        let before = self.padding[1].min(columns);
        let copied = width.min(columns - before);
        parallel::chunks_mut(&mut data, (columns * channels).max(1), work.min(images.len() * image), |index, out| {
            let (n, row) = (images.start + index / rows, (first + index % rows).wrapping_sub(self.padding[0]));
            if row >= height {
                return out.fill(T::zero());
            }
            let (left, rest) = out.split_at_mut(before * channels);
            let (middle, right) = rest.split_at_mut(copied * channels);
            left.fill(T::zero());
            middle.copy_from_slice(&x[n * image + row * width * channels..][..copied * channels]);
            right.fill(T::zero());
        });
        Padded { data: Data::Owned(data), pitch: columns, image: rows * columns * channels }
    }
}

/// A correlation of padded source images with phases of weights. A *cell* is a block of `scatter` target pixels and the source pixels that
/// they see.
pub(super) struct Correlation<T> {
    pub(super) source: Source,
    pub(super) target: [usize; 2],
    /// Channels of source and target.
    pub(super) channels: [usize; 2],
    pub(super) groups: usize,
    pub(super) scatter: [usize; 2],
    pub(super) phases: Vec<Phase<T>>,
    /// Neighbouring target pixels that are computed together, as if they were channels of one.
    pub(super) pixels: usize,
    pub(super) batch: usize,
    pub(super) work: usize,
}

impl<T: Real> Correlation<T> {
    pub(super) fn run(&self, x: &[T], epilogue: Epilogue<'_, T>, y: &mut [T]) {
        let batch = self.batch;
        // For each column of the panels.
        let bias = epilogue.bias.map(|bias| bias.repeat(self.pixels));
        let epilogue = Epilogue { bias: bias.as_deref(), ..epilogue };
        let [rows, columns] = self.source.cells;
        let image = self.target[0] * self.target[1] * self.channels[1];
        if batch * image == 0 {
            return;
        }
        // A task is a band of one image or, where images are small, several images; where there are few bands, some of their columns.
        let band = BAND.div_ceil(columns).min(rows);
        let bands = rows.div_ceil(band);
        let images = if bands == 1 { (BAND / (rows * columns)).clamp(1, batch) } else { 1 };
        let areas = batch.div_ceil(images) * bands;
        let panels = self.phases.iter().flat_map(|phase| &phase.panels).map(|panels| panels.view().count()).max().unwrap_or(1);
        let parts = if self.pixels == 1 { TASKS.div_ceil(areas).clamp(1, panels) } else { 1 };
        let part = panels.div_ceil(parts);
        let parts = panels.div_ceil(part);
        let y = Disjoint::new(y);
        parallel::for_each(areas * parts, self.work, |task| {
            let (area, first) = (task / parts, task % parts * part);
            let (task, panels) = (area / bands * images, first..panels.min(first + part));
            let images = task..batch.min(task + images);
            let cells = area % bands * band..rows.min((area % bands + 1) * band);
            self.area(x, images, cells, panels, epilogue, &y);
        });
    }

    /// The target pixels of some cells of some images, as far as some panels of each group go.
    fn area(
        &self,
        x: &[T],
        images: Range<usize>,
        cells: Range<usize>,
        panels: Range<usize>,
        epilogue: Epilogue<'_, T>,
        y: &Disjoint<'_, T>,
    ) {
        let [channels, channels_out] = self.channels;
        let padded = self.source.pad(x, channels, images.clone(), cells.clone(), 0);
        let (mut starts, mut out_starts, mut taps) = (vec![], vec![], vec![]);
        for phase in &self.phases {
            starts.clear();
            out_starts.clear();
            let most = images.len() * cells.len() * self.source.cells[1];
            starts.reserve(most);
            out_starts.reserve(most);
            for image in 0..images.len() {
                for (row, cell) in cells.clone().enumerate() {
                    let target = cell * self.scatter[0] + phase.at[0];
                    if target >= self.target[0] {
                        continue;
                    }
                    let target_row = (images.start + image) * self.target[0] + target;
                    let source_row = image * padded.image + row * self.source.step[0] * padded.pitch * channels;
                    let cells = self.target[1].saturating_sub(phase.at[1]).div_ceil(self.scatter[1]);
                    // The last few pixels are computed together with some before them, a second time and to the same bits.
                    let cells = (0..cells).step_by(self.pixels).map(|cell| cell.min(cells - self.pixels));
                    let step = self.source.step[1] * channels;
                    starts.extend(cells.clone().map(|cell| source_row + cell * step));
                    let [first, step] = [target_row * self.target[1] + phase.at[1], self.scatter[1]];
                    out_starts.extend(cells.map(|cell| (first + cell * step) * channels_out));
                }
            }
            taps.clear();
            let run = if phase.merged { phase.columns.len() * channels } else { channels / self.groups };
            for row in &phase.rows {
                let columns = if phase.merged { &phase.columns[..phase.columns.len().min(1)] } else { &phase.columns[..] };
                taps.extend(columns.iter().map(|column| (row * padded.pitch + column) * channels));
            }
            for (group, packed) in phase.panels.iter().enumerate() {
                let (packed, n) = (packed.view(), channels_out / self.groups);
                let panels = panels.start.min(packed.count())..panels.end.min(packed.count());
                let first = panels.start * packed.width();
                let bias = epilogue.bias.map(|bias| &bias[group * n + first..]);
                // Pixels that are computed twice are finished below, once.
                let epilogue = if self.pixels > 1 { Epilogue::bias(bias) } else { Epilogue { bias, ..epilogue.from(group * n + first) } };
                let source = &padded.elements()[(group * (channels / self.groups)).min(padded.elements().len())..];
                let rows = Rows { starts: &starts, taps: &taps, run };
                // SAFETY: tasks own distinct target pixels, or distinct channels of them.
                unsafe { multiply_into(source, rows, packed.panels(panels), &y.from(group * n + first), &out_starts, epilogue) };
            }
        }
        if self.pixels > 1 && !epilogue.is_plain() {
            let row = self.target[1] * channels_out;
            for image in images {
                let [top, bottom] = [cells.start, cells.end].map(|cell| (cell * self.scatter[0]).min(self.target[0]));
                let at = (image * self.target[0] + top) * row;
                // SAFETY: this task alone has these rows.
                let y = unsafe { y.slice(at, (bottom - top) * row) };
                vectorize(|| epilogue.finish(at, y));
            }
        }
    }
}
