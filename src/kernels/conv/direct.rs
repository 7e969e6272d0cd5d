//! Direct convolution: the register tile on rows of the padded image, without unfolding it.
//!
//! In a channels-last image with its zero padding written out, what a kernel position sees of a pixel's neighbourhood is a run of contiguous
//! elements at a fixed distance from the pixel: a *tap*. Where kernel positions lie side by side, a whole kernel row is one run. So an output
//! pixel's row of the im2col matrix is a start and a list of taps, which is just what the tile takes.
//!
//! The input gradient is the same walk over the output's gradient. With stride `s` the input's pixels fall into `s · s` *phases*, each of
//! which meets its own subset of the kernel, so a strided gradient is `s · s` dense correlations, none of which multiplies a zero. Images are cut
//! into bands of rows, which are the tasks; a band pads what it needs into scratch memory that stays in the cache.

use std::ops::Range;

use super::ConvGeometry;
use crate::kernels::elementwise;
use crate::kernels::memory::Buffer;
use crate::kernels::parallel::{self, Disjoint};
use crate::kernels::simd::{Real, Scalar};
use crate::kernels::tile::{Finish, Panels, Rows, lanes, multiply, multiply_transposed};

/// Pixels a task has at least, where there are as many: enough to use a packed panel well.
const BAND: usize = 192;
/// Pixels that one partial sum of a weight gradient covers at least.
const PART: usize = 2048;
/// Elements that all partial sums of a weight gradient together have at most.
const PARTIALS: usize = 1 << 22;
/// Elements of the weight gradient that one task computes, about: they stay in L2.
const BLOCK: usize = 1 << 17;
/// Elements of input or output that a task reads before it returns to its first row: they stay in L2 too.
const STRETCH: usize = 1 << 15;

pub(super) fn forward<T: Real>(g: &ConvGeometry, x: &[T], w: &[T], bias: Option<&[T]>, y: &mut [T]) {
    let window = &g.window;
    let [rows, columns] =
        [0, 1].map(|axis| Axis { at: 0, taps: (0..window.kernel[axis]).map(|k| (k, k * window.dilation[axis])).collect() });
    let taps = g.taps();
    let weights = Weights { w, group: g.group_out() * g.group_in() * taps, n: g.group_in() * taps, channel: taps };
    let pixels = pixels_together::<T>(g, g.channels_out, window.output[1], window.stride[1]);
    let correlation = Correlation {
        source: source_of_input(g),
        target: window.output,
        channels: [g.channels_in, g.channels_out],
        groups: g.groups,
        scatter: [1, 1],
        phases: vec![Phase::new(g, &rows, &columns.widen(pixels, window.stride[1]), [g.group_in(), g.group_out()], &weights)],
        pixels,
        bias: bias.map(|bias| bias.repeat(pixels)),
        work: g.work(),
    };
    correlation.run(g.batch, x, y);
}

pub(super) fn input_gradient<T: Real>(g: &ConvGeometry, dy: &[T], w: &[T], bias: Option<&[T]>, dx: &mut [T]) {
    let window = &g.window;
    let axes = [0, 1].map(|axis| phases(g, axis));
    let pixels = if window.stride[1] == 1 { pixels_together::<T>(g, g.channels_in, window.input[1], 1) } else { 1 };
    let taps = g.taps();
    let weights = Weights { w, group: g.group_out() * g.group_in() * taps, n: taps, channel: g.group_in() * taps };
    let correlation = Correlation {
        source: Source {
            size: window.output,
            padding: [0, 1].map(|axis| axes[axis].before),
            cells: [0, 1].map(|axis| window.input[axis].div_ceil(window.stride[axis])),
            step: [1, 1],
            span: [0, 1].map(|axis| axes[axis].span),
        },
        target: window.input,
        channels: [g.channels_out, g.channels_in],
        groups: g.groups,
        scatter: window.stride,
        phases: (axes[0].phases.iter())
            .flat_map(|rows| axes[1].phases.iter().map(move |columns| (rows, columns.widen(pixels, 1))))
            .map(|(rows, columns)| Phase::new(g, rows, &columns, [g.group_out(), g.group_in()], &weights))
            .collect(),
        pixels,
        bias: bias.map(|bias| bias.repeat(pixels)),
        work: g.work(),
    };
    correlation.run(g.batch, dy, dx);
}

pub(super) fn weight_gradient<T: Real>(g: &ConvGeometry, x: &[T], dy: &[T], dw: &mut [T]) {
    let window = &g.window;
    let ([rows, columns], [group_in, group_out], taps) = (window.output, [g.group_in(), g.group_out()], g.taps());
    let pixels = g.batch * rows * columns;
    let (k, n) = (taps * group_in, group_out);
    if pixels == 0 || k * n == 0 {
        return dw.fill(T::zero());
    }
    let padded = source_of_input(g).pad(x, g.channels_in, 0..g.batch, 0..rows, g.work());
    let pixel = |row: usize, column: usize| (row * padded.pitch + column) * g.channels_in;
    // Where the window of an output pixel starts; by row of the output, whose pixels are equally far apart.
    let starts_of = |pixels: Range<usize>, starts: &mut Vec<usize>| {
        let step = window.stride[1] * g.channels_in;
        for row in pixels.start / columns..pixels.end.div_ceil(columns) {
            let first = row / rows * padded.image + pixel(row % rows * window.stride[0], 0);
            let [from, to] = [pixels.start, pixels.end].map(|at| at.saturating_sub(row * columns).min(columns));
            starts.extend((from..to).map(|column| first + column * step));
        }
    };
    let offsets: Vec<usize> = (0..taps)
        .map(|tap| pixel(tap / window.kernel[1] * window.dilation[0], tap % window.kernel[1] * window.dilation[1]))
        .flat_map(|tap| (0..group_in).map(move |c| tap + c))
        .collect();

    // Tasks are (group, part of the sum, block of rows of the `[K, N]` result); a part's sums have a place of their own.
    let parts = (pixels / PART).clamp(1, (PARTIALS / (g.groups * k * n)).max(1));
    let part = pixels.div_ceil(parts);
    let block = (BLOCK / n / 48 * 48).clamp(48, k.next_multiple_of(48));
    let blocks = k.div_ceil(block);
    let stretch = (STRETCH / g.channels_in.max(g.channels_out)).clamp(64, 512);
    let mut sums = Buffer::zeroed(parts * g.groups * k * n);
    {
        let sums = Disjoint::new(&mut sums);
        parallel::for_each(parts * g.groups * blocks, g.work(), |task| {
            let (part_index, group, first) = (task / blocks / g.groups, task / blocks % g.groups, task % blocks * block);
            let pixels = part_index * part..pixels.min((part_index + 1) * part);
            let offsets = &offsets[first..k.min(first + block)];
            let mut starts = Vec::with_capacity(stretch);
            // SAFETY: each task has its own rows of its own sum.
            let out = unsafe { sums.slice(((part_index * g.groups + group) * k + first) * n, offsets.len() * n) };
            for pixel in pixels.clone().step_by(stretch) {
                starts.clear();
                starts_of(pixel..pixels.end.min(pixel + stretch), &mut starts);
                let x = &padded.elements()[group * group_in..];
                multiply_transposed(x, &starts, offsets, &dy[pixel * g.channels_out + group * n..], g.channels_out, n, out);
            }
        });
    }
    let (sum, others) = sums.split_at_mut(g.groups * k * n);
    for other in others.chunks_exact(sum.len()) {
        elementwise::zip_in_place(sum, other, 1, |a, b| a + b);
    }
    // From [group, tap, channel, N] to [group, N, channel, tap].
    parallel::chunks_mut(dw, k, 4 * sum.len(), |row, dw| {
        let (group, column) = (row / n, row % n);
        for (c, dw) in dw.chunks_exact_mut(taps).enumerate() {
            for (tap, dw) in dw.iter_mut().enumerate() {
                *dw = sum[(group * k + tap * group_in + c) * n + column];
            }
        }
    });
}

/// How output pixels see the input.
fn source_of_input(g: &ConvGeometry) -> Source {
    let window = &g.window;
    Source {
        size: window.input,
        padding: window.padding,
        cells: window.output,
        step: window.stride,
        span: [0, 1].map(|axis| (window.kernel[axis] - 1) * window.dilation[axis] + 1),
    }
}

/// Along one axis: the kernel positions that a phase meets.
struct Axis {
    /// The first target coordinate.
    at: usize,
    /// (Kernel position, distance in source pixels from the cell's first), by distance.
    taps: Vec<(usize, usize)>,
}

impl Axis {
    /// The taps of `pixels` cells that lie `step` source pixels apart, seen from the first.
    fn widen(&self, pixels: usize, step: usize) -> WideAxis {
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
struct WideAxis {
    at: usize,
    /// (For each pixel the kernel position that it meets there, distance in source pixels from the first pixel's cell), by distance.
    taps: Vec<(Vec<Option<usize>>, usize)>,
}

/// How many neighbouring target pixels one row of the product computes. Where channels are few, several pixels share a vector: their windows
/// overlap, so that a little more to read and some products with zero save most of the vectors. (Like Winograd's transforms, products with
/// zero let an infinite input turn a neighbouring pixel into NaN.)
fn pixels_together<T: Real>(g: &ConvGeometry, channels: usize, width: usize, step: usize) -> usize {
    let kernel = g.window.kernel[1];
    if g.groups > 1 || g.window.dilation[1] > 1 {
        return 1;
    }
    let most = (lanes::<T>() / channels.max(1)).clamp(1, width.max(1));
    let cost = |pixels: usize| (kernel + (pixels - 1) * step) as f64 / pixels as f64;
    (1..=most).min_by(|&a, &b| cost(a).total_cmp(&cost(b))).unwrap_or(1)
}

/// The phases of an input gradient along one axis.
struct Phases {
    phases: Vec<Axis>,
    /// Source coordinates that cells see before the image's first.
    before: usize,
    /// Source coordinates that a cell sees.
    span: usize,
}

fn phases(g: &ConvGeometry, axis: usize) -> Phases {
    let [stride, dilation, padding, kernel] =
        [g.window.stride, g.window.dilation, g.window.padding, g.window.kernel].map(|pair| pair[axis] as isize);
    // Input coordinate `cell · stride + at` meets output coordinate `cell + distance` through kernel position `k`.
    let meets = |at: isize| {
        (0..kernel).filter_map(move |k| {
            let ahead = at + padding - k * dilation;
            (ahead % stride == 0).then_some((k, ahead / stride))
        })
    };
    let distances = || (0..stride).flat_map(meets).map(|(_, distance)| distance);
    let (first, last) = (distances().min().unwrap_or(0).min(0), distances().max().unwrap_or(0).max(0));
    let phase = |at: isize| {
        let mut taps: Vec<(usize, usize)> = meets(at).map(|(k, distance)| (k as usize, (distance - first) as usize)).collect();
        taps.sort_by_key(|&(_, distance)| distance);
        Axis { at: at as usize, taps }
    };
    Phases { phases: (0..stride).map(phase).collect(), before: -first as usize, span: (last - first) as usize + 1 }
}

/// A weight and the distances in it between groups, target channels, and source channels; positions are contiguous.
struct Weights<'a, T> {
    w: &'a [T],
    group: usize,
    n: usize,
    channel: usize,
}

/// One phase: the taps and packed weights of the target pixels at one place of their cells.
struct Phase<T> {
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
    fn new(g: &ConvGeometry, rows: &Axis, columns: &WideAxis, [channels, n]: [usize; 2], weights: &Weights<'_, T>) -> Phase<T> {
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
struct Source {
    size: [usize; 2],
    /// Rows and columns of zeros before the first.
    padding: [usize; 2],
    cells: [usize; 2],
    /// Source pixels from one cell to the next.
    step: [usize; 2],
    /// Source pixels that a cell sees.
    span: [usize; 2],
}

/// Images, or bands of them, with the padding written out.
struct Padded<'x, T> {
    data: Data<'x, T>,
    /// Pixels from one row to the next.
    pitch: usize,
    /// Elements from one image to the next.
    image: usize,
}

enum Data<'x, T> {
    Borrowed(&'x [T]),
    Owned(Buffer<T>),
}

impl<T: Scalar> Padded<'_, T> {
    fn elements(&self) -> &[T] {
        match &self.data {
            Data::Borrowed(data) => data,
            Data::Owned(data) => data,
        }
    }
}

impl Source {
    /// What the cells in some rows of some images see; borrowed where there is nothing to pad.
    fn pad<'x, T: Real>(&self, x: &'x [T], channels: usize, images: Range<usize>, cells: Range<usize>, work: usize) -> Padded<'x, T> {
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
struct Correlation<T> {
    source: Source,
    target: [usize; 2],
    /// Channels of source and target.
    channels: [usize; 2],
    groups: usize,
    scatter: [usize; 2],
    phases: Vec<Phase<T>>,
    /// Neighbouring target pixels that are computed together, as if they were channels of one.
    pixels: usize,
    /// For each column of the panels.
    bias: Option<Vec<T>>,
    work: usize,
}

impl<T: Real> Correlation<T> {
    fn run(&self, batch: usize, x: &[T], y: &mut [T]) {
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
            // SAFETY: tasks own distinct target rows; a task of several images has all rows of each.
            let y = unsafe { y.slice(images.start * image + top * row, (images.len() - 1) * image + (bottom - top) * row) };
            self.band(x, images, cells, y);
        });
    }

    fn band(&self, x: &[T], images: Range<usize>, cells: Range<usize>, y: &mut [T]) {
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
                let finish = self.bias.as_ref().map_or(Finish::Store, |bias| Finish::Bias(&bias[group * n..][..self.pixels * n]));
                let source = &padded.elements()[(group * (channels / self.groups)).min(padded.elements().len())..];
                let rows = Rows { starts: &starts, taps: &taps, run };
                multiply(source, rows, panels, &mut y[group * n..], &out_starts, finish);
            }
        }
    }
}
