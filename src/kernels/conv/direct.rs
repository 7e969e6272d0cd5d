//! Direct convolution: the register tile on rows of the padded image, without unfolding it.
//!
//! In a channels-last image with its zero padding written out, the elements that a kernel position
//! reads around a pixel are a contiguous run at a fixed distance from the pixel: a *tap*. If kernel
//! positions are adjacent, a whole kernel row is one run. So an output pixel's row of the im2col
//! matrix is a start and a list of taps, which is exactly the form in which the register tile takes
//! its rows.
//!
//! The input gradient is the same computation on the output's gradient. With stride `s` the input's
//! pixels are divided into `s · s` *phases*, each of which uses its own subset of the kernel. So a
//! strided gradient is `s · s` dense correlations, none of which multiplies a zero. Images are
//! divided into bands of rows, which are the tasks; a band is padded in scratch memory that stays
//! in the cache. If the input has few channels, [`overlap_add`](super::overlap_add) may be faster.

use super::ConvGeometry;
use super::correlation::{AxisTaps, Correlation, CorrelationPlan, PhaseProduct, Source, Weights, WideTaps};
use crate::kernels::runtime::arrays::{MapEach, sort_by};
use crate::kernels::runtime::simd::{Real, lanes};

/// Prepares the forward pass with these weights.
pub(super) fn forward<T: Real>(g: &ConvGeometry, w: &[T]) -> Correlation<T> {
    let window = &g.window;
    let [rows, columns] =
        [0, 1].map_each(|axis| AxisTaps { at: 0, taps: (0..window.kernel[axis]).map(|k| (k, k * window.dilation[axis])).collect() });
    let taps = g.taps();
    let weights = Weights { w, group: g.group_out() * g.group_in() * taps, n: g.group_in() * taps, channel: taps };
    let pixels = pixels_together::<T>(g, g.channels_out, window.output[1], window.stride[1]);
    let phase = PhaseProduct::new(g, &rows, &columns.widen(pixels, window.stride[1]), [g.group_in(), g.group_out()], &weights);
    let plan = CorrelationPlan {
        source: source_of_input(g),
        target: window.output,
        channels: [g.channels_in, g.channels_out],
        groups: g.groups,
        scatter: [1, 1],
        pixels,
        batch: g.batch,
        work: g.work(),
    };
    Correlation::new(plan, vec![phase])
}

/// Prepares the input gradient with these weights.
pub(super) fn input_gradient<T: Real>(g: &ConvGeometry, w: &[T]) -> Correlation<T> {
    let window = &g.window;
    let axes = [0, 1].map_each(|axis| phases(g, axis));
    let pixels = if window.stride[1] == 1 { pixels_together::<T>(g, g.channels_in, window.input[1], 1) } else { 1 };
    let taps = g.taps();
    let weights = Weights { w, group: g.group_out() * g.group_in() * taps, n: taps, channel: g.group_in() * taps };
    let columns: Vec<WideTaps> = axes[1].phases.iter().map(|columns| columns.widen(pixels, 1)).collect();
    let mut products = Vec::with_capacity(axes[0].phases.len() * columns.len());
    for rows in &axes[0].phases {
        products.extend(columns.iter().map(|columns| PhaseProduct::new(g, rows, columns, [g.group_out(), g.group_in()], &weights)));
    }
    let plan = CorrelationPlan {
        source: Source {
            size: window.output,
            padding: [0, 1].map_each(|axis| axes[axis].before),
            cells: [0, 1].map_each(|axis| window.input[axis].div_ceil(window.stride[axis])),
            step: [1, 1],
            span: [0, 1].map_each(|axis| axes[axis].span),
        },
        target: window.input,
        channels: [g.channels_out, g.channels_in],
        groups: g.groups,
        scatter: window.stride,
        pixels,
        batch: g.batch,
        work: g.work(),
    };
    Correlation::new(plan, products)
}

/// Returns the input pixels that output pixels read.
pub(super) fn source_of_input(g: &ConvGeometry) -> Source {
    let window = &g.window;
    Source {
        size: window.input,
        padding: window.padding,
        cells: window.output,
        step: window.stride,
        span: [0, 1].map_each(|axis| (window.kernel[axis] - 1) * window.dilation[axis] + 1),
    }
}

/// Returns how many neighbouring target pixels one row of the product computes. If there are few
/// channels, several pixels share a vector: their windows overlap, so that reading a little more
/// and multiplying some zeros saves most of the vectors. (As in Winograd's transforms, products
/// with zero let an infinite input turn a neighbouring pixel into NaN.)
pub(super) fn pixels_together<T: Real>(g: &ConvGeometry, channels: usize, width: usize, step: usize) -> usize {
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
    phases: Vec<AxisTaps>,
    /// Number of source coordinates that cells read before the image's first.
    before: usize,
    /// Number of source coordinates that a cell reads.
    span: usize,
}

fn phases(g: &ConvGeometry, axis: usize) -> Phases {
    let [stride, dilation, padding, kernel] =
        [g.window.stride, g.window.dilation, g.window.padding, g.window.kernel].map_each(|pair| pair[axis] as isize);
    // Input coordinate `cell · stride + at` is connected to output coordinate `cell + distance` by
    // kernel position `k`.
    let taps_at = |at: isize| {
        (0..kernel).filter_map(move |k| {
            let ahead = at + padding - k * dilation;
            (ahead % stride == 0).then_some((k, ahead / stride))
        })
    };
    let distances = || (0..stride).flat_map(taps_at).map(|(_, distance)| distance);
    let (first, last) = (distances().min().unwrap_or(0).min(0), distances().max().unwrap_or(0).max(0));
    let phase = |at: isize| {
        let mut taps: Vec<(usize, usize)> = taps_at(at).map(|(k, distance)| (k as usize, (distance - first) as usize)).collect();
        sort_by(&mut taps, |a, b| a.1.cmp(&b.1));
        AxisTaps { at: at as usize, taps }
    };
    Phases { phases: (0..stride).map(phase).collect(), before: -first as usize, span: (last - first) as usize + 1 }
}
