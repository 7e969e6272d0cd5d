//! Convolution as its definition says, for tests to hold every other algorithm against.

use super::ConvGeometry;
use crate::kernels::simd::Real;

/// Calls `visit(input index, weight index, output index)` for every product of the convolution.
fn products(g: &ConvGeometry, mut visit: impl FnMut(usize, usize, usize)) {
    let window = &g.window;
    let ([height, width], [rows, columns]) = (window.input, window.output);
    for n in 0..g.batch {
        for (oh, ow) in (0..rows).flat_map(|oh| (0..columns).map(move |ow| (oh, ow))) {
            for (kh, kw) in (0..window.kernel[0]).flat_map(|kh| (0..window.kernel[1]).map(move |kw| (kh, kw))) {
                let ih = (oh * window.stride[0] + kh * window.dilation[0]).wrapping_sub(window.padding[0]);
                let iw = (ow * window.stride[1] + kw * window.dilation[1]).wrapping_sub(window.padding[1]);
                if ih >= height || iw >= width {
                    continue;
                }
                for co in 0..g.channels_out {
                    let first = co / g.group_out() * g.group_in();
                    for c in 0..g.group_in() {
                        visit(
                            ((n * height + ih) * width + iw) * g.channels_in + first + c,
                            ((co * g.group_in() + c) * window.kernel[0] + kh) * window.kernel[1] + kw,
                            ((n * rows + oh) * columns + ow) * g.channels_out + co,
                        );
                    }
                }
            }
        }
    }
}

fn start<T: Real>(out: &mut [T], channels: usize, bias: Option<&[T]>) {
    match bias {
        Some(bias) => out.chunks_exact_mut(channels).for_each(|pixel| pixel.copy_from_slice(bias)),
        None => out.fill(T::zero()),
    }
}

pub(super) fn forward<T: Real>(g: &ConvGeometry, x: &[T], w: &[T], bias: Option<&[T]>, y: &mut [T]) {
    start(y, g.channels_out, bias);
    products(g, |i, k, o| y[o] += x[i] * w[k]);
}

pub(super) fn input_gradient<T: Real>(g: &ConvGeometry, dy: &[T], w: &[T], bias: Option<&[T]>, dx: &mut [T]) {
    start(dx, g.channels_in, bias);
    products(g, |i, k, o| dx[i] += dy[o] * w[k]);
}

pub(super) fn weight_gradient<T: Real>(g: &ConvGeometry, x: &[T], dy: &[T], dw: &mut [T]) {
    dw.fill(T::zero());
    products(g, |i, k, o| dw[k] += x[i] * dy[o]);
}
