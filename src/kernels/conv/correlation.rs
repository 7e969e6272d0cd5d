//! The walk that direct convolution is made of: cells of target pixels, each a row of a matrix product on padded source images.

use std::ops::Range;

use super::ConvGeometry;
use crate::kernels::epilogue::Epilogue;
use crate::kernels::memory::Buffer;
use crate::kernels::parallel::{self, Disjoint};
use crate::kernels::simd::{Real, Scalar, vectorize};
use crate::kernels::tile::{Panels, Rows, multiply};

/// Pixels a task has at least, where there are as many: enough to use a packed panel well.
const BAND: usize = 192;

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
            Panels::pack_with(rows_of_kernel * width * channels, pixels * n, |k, range, out| {
                let (position, channel) = (k / channels, k % channels);
                let ((kh, _), (met, _)) = (rows.taps[position / width], &columns.taps[position % width]);
                let w = &weights.w[group * weights.group + channel * weights.channel..];
                let element = |kw: usize, n: usize| w[n * weights.n + kh * g.window.kernel[1] + kw];
                match met[..] {
                    [Some(kw)] => out.iter_mut().zip(range).for_each(|(out, n)| *out = element(kw, n)),
                    _ => out.iter_mut().zip(range).for_each(|(out, at)| {
                        *out = met[at / n].map_or(T::zero(), |kw| element(kw, at % n));
                    }),
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
        // A task is a band of one image or, where images are small, several images.
        let band = BAND.div_ceil(columns).min(rows);
        let bands = rows.div_ceil(band);
        let images = if bands == 1 { (BAND / (rows * columns)).clamp(1, batch) } else { 1 };
        let y = Disjoint::new(y);
        parallel::for_each(batch.div_ceil(images) * bands, self.work, |task| {
            let first = task / bands * images;
            let images = first..batch.min(first + images);
            let cells = task % bands * band..rows.min((task % bands + 1) * band);
            let [top, bottom] = [cells.start, cells.end].map(|cell| (cell * self.scatter[0]).min(self.target[0]));
            let row = self.target[1] * self.channels[1];
            let first = images.start * image + top * row;
            // SAFETY: tasks own distinct target rows; a task of several images has all rows of each.
            let y = unsafe { y.slice(first, (images.len() - 1) * image + (bottom - top) * row) };
            self.band(x, images, cells, epilogue.from(first), y);
        });
    }

    fn band(&self, x: &[T], images: Range<usize>, cells: Range<usize>, epilogue: Epilogue<'_, T>, y: &mut [T]) {
        let [channels, channels_out] = self.channels;
        let padded = self.source.pad(x, channels, images.clone(), cells.clone(), 0);
        let (mut starts, mut out_starts, mut taps) = (vec![], vec![], vec![]);
        for phase in &self.phases {
            starts.clear();
            out_starts.clear();
            for image in 0..images.len() {
                for (row, cell) in cells.clone().enumerate() {
                    let target = cell * self.scatter[0] + phase.at[0];
                    if target >= self.target[0] {
                        continue;
                    }
                    // Several images have all their rows here; a band of one image starts at its first row.
                    let target_row = image * self.target[0] + target - cells.start * self.scatter[0];
                    let source_row = image * padded.image + row * self.source.step[0] * padded.pitch * channels;
                    let cells = self.target[1].saturating_sub(phase.at[1]).div_ceil(self.scatter[1]);
                    for cell in (0..cells).step_by(self.pixels) {
                        // The last few pixels are computed together with some before them, a second time and to the same bits.
                        let cell = cell.min(cells - self.pixels);
                        starts.push(source_row + cell * self.source.step[1] * channels);
                        let target = phase.at[1] + cell * self.scatter[1];
                        out_starts.push((target_row * self.target[1] + target) * channels_out);
                    }
                }
            }
            taps.clear();
            let run = if phase.merged { phase.columns.len() * channels } else { channels / self.groups };
            for row in &phase.rows {
                let columns = if phase.merged { &phase.columns[..phase.columns.len().min(1)] } else { &phase.columns[..] };
                taps.extend(columns.iter().map(|column| (row * padded.pitch + column) * channels));
            }
            for (group, panels) in phase.panels.iter().enumerate() {
                let n = channels_out / self.groups;
                let bias = epilogue.bias.map(|bias| &bias[group * n..][..self.pixels * n]);
                // Pixels that are computed twice are finished below, once.
                let epilogue = if self.pixels > 1 { Epilogue::bias(bias) } else { Epilogue { bias, ..epilogue.from(group * n) } };
                let source = &padded.elements()[(group * (channels / self.groups)).min(padded.elements().len())..];
                let rows = Rows { starts: &starts, taps: &taps, run };
                multiply(source, rows, panels.view(), &mut y[group * n..], &out_starts, epilogue);
            }
        }
        if self.pixels > 1 && !epilogue.is_plain() {
            vectorize(|| epilogue.finish(0, y));
        }
    }
}
