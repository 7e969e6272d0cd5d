//! The weight gradient of direct convolution: the rows of the padded image, transposed, times the
//! output's gradient.

use std::ops::Range;

use super::ConvGeometry;
use super::direct::{pixels_together, source_of_input};
use crate::kernels::elementwise;
use crate::kernels::gemm::transposed_a::multiply_transposed;
use crate::kernels::runtime::allocator::AlignedVec;
use crate::kernels::runtime::arrays::MapEach;
use crate::kernels::runtime::parallel::{self, Disjoint};
use crate::kernels::runtime::simd::Real;

/// Minimum number of pixels that one partial sum of a weight gradient covers.
const PART: usize = 2048;
/// Maximum number of elements of all partial sums of a weight gradient together.
const PARTIALS: usize = 1 << 22;
/// Approximate numbers of rows and columns of the `[K, N]` result that one task computes.
const ROWS: usize = 192;
const COLUMNS: usize = 256;
/// Minimum number of tasks, if smaller blocks are enough to reach it.
const TASKS: usize = 16;
/// Pixels that a task sums before it returns to its first row; their input and output stay in L2.
const STRETCH: usize = 128;
/// Side of the squares in which results are transposed.
const SIDE: usize = 16;

pub(super) fn weight_gradient<T: Real>(g: &ConvGeometry, x: &[T], dy: &[T], dw: &mut [T]) {
    let (window, group_in) = (&g.window, g.group_in());
    if g.batch * g.image_out() * dw.len() == 0 {
        return dw.fill(T::zero());
    }
    // Neighbouring pixels of an output of few channels are treated as one pixel of more channels,
    // with a wider window.
    let most = pixels_together::<T>(g, g.channels_out, window.output[1], window.stride[1]);
    let together = (1..=most).rev().find(|together| window.output[1].is_multiple_of(*together)).unwrap_or(1);
    let [rows, columns] = [window.output[0], window.output[1] / together];
    let [height, width] = [window.kernel[0], window.kernel[1] + (together - 1) * window.stride[1]];
    let (pixels, channels_out) = (g.batch * rows * columns, together * g.channels_out);
    let (k, n) = (height * width * group_in, together * g.group_out());
    let padded = source_of_input(g).pad(x, g.channels_in, 0..g.batch, 0..rows, g.work());
    let pixel = |row: usize, column: usize| (row * padded.pitch + column) * g.channels_in;
    // Start of the window of each output pixel. The pixels of one output row are equally far apart.
    let starts_of = |pixels: Range<usize>, starts: &mut Vec<usize>| {
        let step = together * window.stride[1] * g.channels_in;
        for row in pixels.start / columns..pixels.end.div_ceil(columns) {
            let first = row / rows * padded.image + pixel(row % rows * window.stride[0], 0);
            let [from, to] = [pixels.start, pixels.end].map_each(|at| at.saturating_sub(row * columns).min(columns));
            starts.extend((from..to).map(|column| first + column * step));
        }
    };
    let parts = (pixels / PART).clamp(1, (PARTIALS / (g.groups * k * n)).max(1));
    let part = pixels.div_ceil(parts);
    let blocks = Blocks::new(g, [height, width], together, parts);
    let accumulate = |part_index: usize, block: &Block, sums: &mut [T]| {
        let mut offsets = Vec::with_capacity(height * width * block.channels.len());
        for tap in 0..height * width {
            let tap = pixel(tap / width * window.dilation[0], tap % width * window.dilation[1]);
            offsets.extend(block.channels.clone().map(|channel| tap + channel));
        }
        let x = &padded.elements[block.group * group_in..];
        let pixels = part_index * part..pixels.min((part_index + 1) * part);
        let mut starts = Vec::with_capacity(STRETCH);
        for pixel in pixels.clone().step_by(STRETCH) {
            starts.clear();
            starts_of(pixel..pixels.end.min(pixel + STRETCH), &mut starts);
            let dy = &dy[pixel * channels_out + block.group * g.group_out() + block.outputs.start..];
            multiply_transposed(x, &starts, &offsets, dy, channels_out, block.outputs.len(), sums);
        }
    };
    let dw = Disjoint::new(dw);
    if parts == 1 {
        return parallel::for_each(blocks.count(), g.work(), |index| {
            let block = blocks.block(index);
            let mut sums = AlignedVec::zeroed(block.sums.len());
            accumulate(0, &block, &mut sums);
            blocks.finish(&block, &sums, &dw);
        });
    }
    let mut sums = AlignedVec::zeroed(parts * g.groups * k * n);
    {
        let sums = Disjoint::new(&mut sums);
        parallel::for_each(parts * blocks.count(), g.work(), |task| {
            let (part, block) = (task / blocks.count(), blocks.block(task % blocks.count()));
            // SAFETY: each task has its own block of its own part.
            accumulate(part, &block, unsafe { sums.slice(part * g.groups * k * n + block.sums.start, block.sums.len()) });
        });
    }
    let sum = &*elementwise::sum_parts(&mut sums, g.groups * k * n);
    parallel::for_each(blocks.count(), 4 * sum.len(), |index| {
        let block = blocks.block(index);
        blocks.finish(&block, &sum[block.sums.clone()], &dw);
    });
}

/// The division of each group's `[K, N]` result into blocks: all taps of some input channels, and
/// some outputs.
struct Blocks<'a> {
    g: &'a ConvGeometry,
    /// The size of the window of output pixels that are computed together, and the number of these
    /// pixels.
    taps: [usize; 2],
    together: usize,
    /// Number of input channels and of outputs of a block.
    channels: usize,
    outputs: usize,
}

/// A block. Its sums are `[tap, channel, output]`, with the outputs of neighbouring pixels next to
/// each other.
struct Block {
    group: usize,
    channels: Range<usize>,
    outputs: Range<usize>,
    /// Range of the block's sums in the sums of all blocks.
    sums: Range<usize>,
}

impl<'a> Blocks<'a> {
    /// Chooses the size of the blocks, for `parts` partial sums, each of which has all blocks.
    fn new(g: &'a ConvGeometry, taps: [usize; 2], together: usize, parts: usize) -> Blocks<'a> {
        let (k, n) = (taps[0] * taps[1] * g.group_in(), together * g.group_out());
        let outputs = if together == 1 { n.div_ceil(n.div_ceil(COLUMNS)).next_multiple_of(32).min(n) } else { n };
        let others = parts * g.groups * n.div_ceil(outputs);
        let count = k.div_ceil(ROWS).max(TASKS.div_ceil(others).min(k.div_ceil(ROWS / 6)));
        Blocks { g, taps, together, channels: g.group_in().div_ceil(count), outputs }
    }

    /// Returns the number of blocks of a group along the rows and along the columns.
    fn counts(&self) -> [usize; 2] {
        [self.g.group_in().div_ceil(self.channels), (self.together * self.g.group_out()).div_ceil(self.outputs)]
    }

    /// Returns the total number of blocks.
    fn count(&self) -> usize {
        self.g.groups * self.counts()[0] * self.counts()[1]
    }

    fn block(&self, index: usize) -> Block {
        let ([rows, columns], taps, n) = (self.counts(), self.taps[0] * self.taps[1], self.together * self.g.group_out());
        let (group, row, column) = (index / (rows * columns), index / columns % rows, index % columns);
        let channels = row * self.channels..self.g.group_in().min((row + 1) * self.channels);
        let outputs = column * self.outputs..n.min((column + 1) * self.outputs);
        let first = taps * ((group * self.g.group_in() + channels.start) * n + channels.len() * outputs.start);
        let length = taps * channels.len() * outputs.len();
        Block { group, channels, outputs, sums: first..first + length }
    }

    /// Copies a block's sums to the weight's gradient: from `[tap, channel, pixel, output]` to
    /// `[output, channel, tap]`. For each of the pixels computed together, a tap of the kernel is a
    /// different tap of the shared window.
    fn finish<T: Real>(&self, block: &Block, sums: &[T], dw: &Disjoint<'_, T>) {
        let (kernel, taps, group_out) = (self.g.window.kernel, self.g.taps(), self.g.group_out());
        let (channels, columns) = (block.channels.len(), block.outputs.len());
        let mut rows = Vec::with_capacity(channels * taps);
        for channel in 0..channels {
            rows.extend((0..taps).map(|tap| (tap / kernel[1] * self.taps[1] + tap % kernel[1]) * channels + channel));
        }
        let next_pixel = self.g.window.stride[1] * channels * columns + group_out;
        let outputs = columns / self.together;
        for first in (0..outputs).step_by(SIDE) {
            for (part, rows) in rows.chunks(SIDE).enumerate() {
                for output in first..outputs.min(first + SIDE) {
                    let of = (block.group * group_out + block.outputs.start + output) * self.g.group_in() + block.channels.start;
                    // SAFETY: blocks do not share weights.
                    let dw = unsafe { dw.slice(of * taps + part * SIDE, rows.len()) };
                    for (dw, row) in dw.iter_mut().zip(rows) {
                        let at = row * columns + output;
                        *dw = (1..self.together).fold(sums[at], |sum, pixel| sum + sums[at + pixel * next_pixel]);
                    }
                }
            }
        }
    }
}
