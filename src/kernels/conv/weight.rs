//! The weight gradient of direct convolution: the padded image's rows, transposed, times the output's gradient.

use std::ops::Range;

use super::ConvGeometry;
use super::direct::source_of_input;
use crate::kernels::elementwise;
use crate::kernels::memory::Buffer;
use crate::kernels::outer::multiply_transposed;
use crate::kernels::parallel::{self, Disjoint};
use crate::kernels::simd::Real;

/// Pixels that one partial sum of a weight gradient covers at least.
const PART: usize = 2048;
/// Elements that all partial sums of a weight gradient together have at most.
const PARTIALS: usize = 1 << 22;
/// Elements of the weight gradient that one task computes, about: they stay in L2.
const BLOCK: usize = 1 << 17;
/// Tasks that there are at least, where that takes no more than smaller blocks.
const TASKS: usize = 8;
/// Elements of input or output that a task reads before it returns to its first row: they stay in L2 too.
const STRETCH: usize = 1 << 15;

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
    // Where there are few parts, blocks are smaller, so that there are tasks to go round.
    let block = (BLOCK / n).min(k.div_ceil(TASKS.div_ceil(parts * g.groups))).next_multiple_of(12);
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
    // From [group, tap, channel, N] to [group, N, channel, tap], several columns at a time, to use what a line of the cache brings.
    let width = if n.is_multiple_of(16) { 16 } else { 1 };
    parallel::chunks_mut(dw, width * k, 4 * sum.len(), |task, dw| {
        let (group, column) = (task * width / n, task * width % n);
        for (row, sum) in sum[group * k * n..][..k * n].chunks_exact(n).enumerate() {
            let at = row % group_in * taps + row / group_in;
            sum[column..][..width].iter().zip(dw.chunks_exact_mut(k)).for_each(|(&sum, dw)| dw[at] = sum);
        }
    });
}
