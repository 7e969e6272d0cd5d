//! The weight gradient of direct convolution: the padded image's rows, transposed, times the output's gradient.

use std::ops::Range;

use super::ConvGeometry;
use super::direct::{pixels_together, source_of_input};
use crate::kernels::elementwise;
use crate::kernels::layout::transpose;
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
    let (window, group_in) = (&g.window, g.group_in());
    if g.batch * g.image_out() * dw.len() == 0 {
        return dw.fill(T::zero());
    }
    // Neighbouring pixels of an output of few channels are taken as one pixel of more channels, which see a wider window.
    let most = pixels_together::<T>(g, g.channels_out, window.output[1], window.stride[1]);
    let together = (1..=most).rev().find(|together| window.output[1].is_multiple_of(*together)).unwrap_or(1);
    let [rows, columns] = [window.output[0], window.output[1] / together];
    let [height, width] = [window.kernel[0], window.kernel[1] + (together - 1) * window.stride[1]];
    let (pixels, channels_out) = (g.batch * rows * columns, together * g.channels_out);
    let (k, n) = (height * width * group_in, together * g.group_out());
    let padded = source_of_input(g).pad(x, g.channels_in, 0..g.batch, 0..rows, g.work());
    let pixel = |row: usize, column: usize| (row * padded.pitch + column) * g.channels_in;
    // Where the window of an output pixel starts; by row of the output, whose pixels are equally far apart.
    let starts_of = |pixels: Range<usize>, starts: &mut Vec<usize>| {
        let step = together * window.stride[1] * g.channels_in;
        for row in pixels.start / columns..pixels.end.div_ceil(columns) {
            let first = row / rows * padded.image + pixel(row % rows * window.stride[0], 0);
            let [from, to] = [pixels.start, pixels.end].map(|at| at.saturating_sub(row * columns).min(columns));
            starts.extend((from..to).map(|column| first + column * step));
        }
    };
    let offsets: Vec<usize> = (0..height * width)
        .map(|tap| pixel(tap / width * window.dilation[0], tap % width * window.dilation[1]))
        .flat_map(|tap| (0..group_in).map(move |c| tap + c))
        .collect();

    // Tasks are (group, part of the sum, block of rows of the `[K, N]` result); a part's sums have a place of their own.
    let parts = (pixels / PART).clamp(1, (PARTIALS / (g.groups * k * n)).max(1));
    let part = pixels.div_ceil(parts);
    // Where there are few parts, blocks are smaller, so that there are tasks to go round.
    let block = (BLOCK / n).min(k.div_ceil(TASKS.div_ceil(parts * g.groups))).next_multiple_of(12);
    let blocks = k.div_ceil(block);
    let stretch = (STRETCH / g.channels_in.max(channels_out)).clamp(64, 512);
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
                multiply_transposed(x, &starts, offsets, &dy[pixel * channels_out + group * n..], channels_out, n, out);
            }
        });
    }
    let sum = elementwise::sum_parts(&mut sums, g.groups * k * n);
    // From [group, tap, channel, pixel, N] to [group, N, channel, tap].
    let (group_out, taps) = (g.group_out(), g.taps());
    if taps == 1 && together == 1 {
        return transpose(g.groups, k, n, sum, dw);
    }
    // Several columns at a time and several channels, to use what lines of the cache bring.
    let block = if group_out.is_multiple_of(16) { 16 } else { 1 };
    parallel::chunks_mut(dw, block * taps * group_in, 4 * sum.len(), |task, dw| {
        let (group, first) = (task * block / group_out, task * block % group_out);
        let sum = &sum[group * k * n..][..k * n];
        dw.fill(T::zero());
        for channels in (0..group_in).step_by(16) {
            for (tap, channel) in
                (0..height * width).flat_map(|tap| (channels..group_in.min(channels + 16)).map(move |channel| (tap, channel)))
            {
                for (pixel, sum) in sum[(tap * group_in + channel) * n..][..n].chunks_exact(group_out).enumerate() {
                    // Where the pixel itself sees the tap.
                    let Some(column) = (tap % width).checked_sub(pixel * window.stride[1]).filter(|&column| column < window.kernel[1])
                    else {
                        continue;
                    };
                    let at = channel * taps + tap / width * window.kernel[1] + column;
                    sum[first..][..block].iter().zip(dw.chunks_exact_mut(taps * group_in)).for_each(|(&sum, dw)| dw[at] += sum);
                }
            }
        }
    });
}
