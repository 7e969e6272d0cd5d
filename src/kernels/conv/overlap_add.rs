//! Input gradients of few channels: one product per row, whose windows are added where they
//! overlap.
//!
//! The gradient of an output pixel contributes to a kernel's width of input pixels, which are
//! adjacent in a channels-last row: `kW · C_in` contiguous numbers. Even if one input pixel has too
//! few channels to fill a vector, these numbers fill one or more. So there is one product for each
//! row of the input. Its rows are the output's columns, and its sums run over the output's channels
//! and over the kernel rows that connect the input row to rows of the output. Nothing is multiplied
//! with padding. Then each input pixel sums its parts of all windows that cover it (overlap-add).

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::ConvGeometry;
use super::direct::pixels_together;
use crate::kernels::elementwise::epilogue::Epilogue;
use crate::kernels::gemm::microkernel::{Ascending, Rows, multiply};
use crate::kernels::gemm::pack::{Panels, filled_up};
use crate::kernels::geometry::Window;
use crate::kernels::runtime::allocator::AlignedVec;
use crate::kernels::runtime::arrays::MapEach;
use crate::kernels::runtime::parallel::{self, Disjoint};
use crate::kernels::runtime::simd::{Real, dispatch, lanes, vectorize};

/// Approximate number of rows of a product: enough to make good use of a packed panel, and few
/// enough that their results stay in L1.
const ROWS: usize = 48;
/// Minimum number of tasks, where possible.
const TASKS: usize = 16;
/// Cost of adding a window to a pixel, in multiply-adds of a vector.
const ADD: usize = 2;

/// Returns whether this is cheaper than a [`Correlation`](super::correlation::Correlation).
pub(crate) fn pays<T: Real>(g: &ConvGeometry) -> bool {
    let Window { input, output, kernel, stride, dilation, .. } = g.window;
    if g.groups > 1 || dilation != [1, 1] || g.channels_in > lanes::<T>() {
        return false;
    }
    let vectors = pitch::<T>(g) / lanes::<T>();
    let kernel_rows: usize = (0..input[0]).map(|row| Overlap::new(&g.window, 0, row).shifts.len()).sum();
    let own = kernel_rows * output[1] * g.channels_out * vectors + ADD * input[0] * input[1] * kernel[1].div_ceil(stride[1]);
    let pixels = if stride[1] == 1 { pixels_together::<T>(g, g.channels_in, input[1], 1) } else { 1 };
    let taps = [kernel[0].div_ceil(stride[0]), (kernel[1] + pixels - 1).div_ceil(stride[1])];
    own < input[0] * input[1].div_ceil(pixels) * taps[0] * taps[1] * g.channels_out
}

/// Returns the number of elements from one window of a product to the next: whole vectors, which
/// are faster to write.
fn pitch<T: Real>(g: &ConvGeometry) -> usize {
    filled_up::<T>(g.window.kernel[1] * g.channels_in)
}

/// The kernel and output positions that contribute to an input position along one axis: kernel
/// position `first + shift · stride` at output position `last - shift`, for each `shift` in
/// `shifts`.
struct Overlap {
    first: usize,
    last: usize,
    shifts: Range<usize>,
}

impl Overlap {
    fn new(window: &Window, axis: usize, position: usize) -> Overlap {
        let [stride, kernel, output] = [window.stride, window.kernel, window.output].map_each(|pair| pair[axis]);
        let padded = position + window.padding[axis];
        let (first, last) = (padded % stride, padded / stride);
        let end = kernel.saturating_sub(first).div_ceil(stride).min(last + 1);
        Overlap { first, last, shifts: (last + 1).saturating_sub(output).min(end)..end }
    }
}

/// An input gradient with its packed weights.
pub(crate) struct OverlapAdd<T> {
    geometry: ConvGeometry,
    /// `[kH · C_out, kW · C_in]`: kernel rows that contribute to the same input rows are grouped,
    /// each group in descending order.
    panels: Panels<T>,
    /// Images of a product, and rows of the input that a task computes.
    images: usize,
    band: usize,
    /// Starts of a product's rows in the output, their taps, and their starts in the result.
    starts: Ascending<Vec<usize>>,
    taps: Vec<usize>,
    out_starts: Ascending<Vec<usize>>,
    /// For each input column: the offset of its part of the first window that covers it, and the
    /// number of windows that do.
    columns: Vec<(usize, usize)>,
}

impl<T: Real> OverlapAdd<T> {
    pub(crate) fn new(g: &ConvGeometry, w: &[T]) -> OverlapAdd<T> {
        let Window { input, output, kernel, stride, .. } = g.window;
        let (channels_in, channels_out) = (g.channels_in, g.channels_out);
        let firsts = 0..stride[0].min(kernel[0]);
        let mut kernel_rows = Vec::with_capacity(kernel[0]);
        for first in firsts {
            kernel_rows.extend((first..kernel[0]).step_by(stride[0]).rev());
        }
        let columns = kernel[1] * channels_in;
        let pitch = pitch::<T>(g);
        let panels = Panels::pack_with(kernel[0] * channels_out, pitch, |range, panel| {
            panel.fill(T::zero());
            let width = range.len();
            let column = |column: usize| column % channels_in * g.taps() + column / channels_in;
            let weights: Vec<usize> = (range.start..range.end.min(columns)).map(column).collect();
            for (at, out) in panel.chunks_exact_mut(width).enumerate() {
                let (kernel_row, channel_out) = (kernel_rows[at / channels_out], at % channels_out);
                let w = &w[channel_out * channels_in * g.taps() + kernel_row * kernel[1]..];
                out.iter_mut().zip(&weights).for_each(|(out, &at)| *out = w[at]);
            }
        });
        let images = (ROWS / output[1]).clamp(1, g.batch.max(1));
        let groups = g.batch.div_ceil(images).max(1);
        let column = |column: usize| {
            let Overlap { first, last, shifts } = Overlap::new(&g.window, 1, column);
            let shift = shifts.end.saturating_sub(1);
            ((last - shift) * pitch + (first + shift * stride[1]) * channels_in, shifts.len())
        };
        let row = |row: usize| row / output[1] * g.image_out() + row % output[1] * channels_out;
        OverlapAdd {
            geometry: *g,
            images,
            band: input[0].div_ceil(TASKS.div_ceil(groups)),
            starts: Ascending::new((0..images * output[1]).map(row).collect()),
            taps: (0..kernel[0].div_ceil(stride[0])).map(|shift| shift * output[1] * channels_out).collect(),
            out_starts: Ascending::new((0..images * output[1]).map(|row| row * pitch).collect()),
            columns: (0..input[1]).map(column).collect(),
            panels,
        }
    }

    pub(crate) fn run(&self, dy: &[T], epilogue: Epilogue<'_, T>, dx: &mut [T]) {
        let g = &self.geometry;
        if dx.is_empty() {
            return;
        }
        let rows = g.window.input[0];
        let bands = rows.div_ceil(self.band);
        let dx = Disjoint::new(dx);
        parallel::for_each(g.batch.div_ceil(self.images) * bands, g.work(), |task| {
            let (first, band) = (task / bands * self.images, task % bands * self.band);
            self.area(dy, first..g.batch.min(first + self.images), band..rows.min(band + self.band), epilogue, &dx);
        });
    }

    /// Computes a range of rows of a range of images.
    fn area(&self, dy: &[T], images: Range<usize>, rows: Range<usize>, epilogue: Epilogue<'_, T>, dx: &Disjoint<'_, T>) {
        let (g, Window { input, output, .. }) = (&self.geometry, self.geometry.window);
        let pitch = pitch::<T>(g);
        let count = images.len() * output[1];
        // A pixel reads a whole vector at its part of a window, which may reach past the end.
        let mut windows = AlignedVec::uninit(count * pitch + lanes::<T>());
        for row in rows {
            self.windows(&dy[images.start * g.image_out()..], row, count, &mut windows);
            for (image, windows) in images.clone().zip((0..count).step_by(output[1]).map(|first| &windows[first * pitch..])) {
                let at = (image * input[0] + row) * input[1] * g.channels_in;
                // SAFETY: no other task accesses this row.
                let dx = unsafe { dx.slice(at, input[1] * g.channels_in) };
                let step = pitch.wrapping_sub(g.window.stride[1] * g.channels_in);
                dispatch::<T, _>(Add { windows, columns: &self.columns, step, channels: g.channels_in, bias: epilogue.bias, dx });
                if !epilogue.is_plain() {
                    vectorize!(T, epilogue.finish(at, dx));
                }
            }
        }
    }

    /// Computes what `count` pixels of output rows, in `dy` and the images after it, contribute to
    /// an input row.
    fn windows(&self, dy: &[T], row: usize, count: usize, windows: &mut [T]) {
        let (g, Window { output, kernel, stride, .. }) = (&self.geometry, self.geometry.window);
        let Overlap { first, last, shifts } = Overlap::new(&g.window, 0, row);
        if shifts.is_empty() {
            return windows.fill(T::zero());
        }
        let kernel_rows = |first: usize| (kernel[0] - first).div_ceil(stride[0]);
        let packed = (0..first).map(kernel_rows).sum::<usize>() + kernel_rows(first) - shifts.end;
        let packed = packed * g.channels_out..(packed + shifts.len()) * g.channels_out;
        let dy = &dy[(last + 1 - shifts.end) * output[1] * g.channels_out..];
        let rows = Rows { starts: self.starts.first(count), taps: &self.taps[..shifts.len()], run: g.channels_out };
        let panels = self.panels.view();
        for panel in 0..panels.count() {
            let to = &mut windows[panel * panels.width()..];
            multiply(dy, rows, panels.panels(panel..panel + 1).rows(packed.clone()), to, self.out_starts.first(count), Epilogue::default());
        }
    }
}

/// Computes a row of the input gradient from the windows of the output's columns.
struct Add<'a, T> {
    windows: &'a [T],
    columns: &'a [(usize, usize)],
    /// Elements from a pixel's part of a window to its part of the next window.
    step: usize,
    channels: usize,
    bias: Option<&'a [T]>,
    dx: &'a mut [T],
}

impl<T: Real> WithSimd for Add<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Add { windows, columns, step, channels, bias, dx } = self;
        let lanes = T::lanes::<S>();
        assert!(channels <= lanes && dx.len() == columns.len() * channels && bias.is_none_or(|bias| bias.len() == channels));
        let mask = T::mask(simd, channels);
        let bias = match bias {
            // SAFETY: the bias has an element for each channel.
            Some(bias) => unsafe { T::load_masked(simd, mask, bias.as_ptr()) },
            None => T::splat(simd, T::zero()),
        };
        for (column, &(first, count)) in columns.iter().enumerate() {
            let (mut sum, mut at) = (bias, first);
            for _ in 0..count {
                sum = T::vector_add(simd, sum, bytemuck::pod_read_unaligned(bytemuck::cast_slice(&windows[at..][..lanes])));
                at = at.wrapping_add(step);
            }
            // Lanes past the pixel's channels belong to the next pixel, which is written next.
            let to = &mut dx[column * channels..];
            // SAFETY: from here on, the row has as many elements as the vector has lanes, or at
            // least the pixel's channels, which the mask covers.
            unsafe {
                if to.len() >= lanes {
                    to.as_mut_ptr().cast::<T::Vector<S>>().write_unaligned(sum);
                } else {
                    T::store_masked(simd, mask, to.as_mut_ptr(), sum);
                }
            }
        }
    }
}
