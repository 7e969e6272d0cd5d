//! Convolution by its definition. Tests compare every other algorithm with it, and it serves
//! geometries for which the others would build far larger arrays than there are products.

use super::ConvGeometry;
use crate::kernels::runtime::allocator::AlignedVec;
use crate::kernels::runtime::simd::Real;

/// Calls `visit(input index, weight index, output index)` for every product of the convolution.
fn products(g: &ConvGeometry, mut visit: impl FnMut(usize, usize, usize)) {
    let window = &g.window;
    if g.weights() == 0 || g.image_in() == 0 {
        return;
    }
    let ([height, width], [rows, columns]) = (window.input, window.output);
    for n in 0..g.batch {
        for pixel in 0..rows * columns {
            let (oh, ow) = (pixel / columns, pixel % columns);
            for tap in 0..window.kernel[0] * window.kernel[1] {
                let (kh, kw) = (tap / window.kernel[1], tap % window.kernel[1]);
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

/// Sums the products, starting from the bias. Sums are in `f64` whatever the type is, so that each
/// result is rounded once.
fn sum<T: Real>(g: &ConvGeometry, bias: Option<&[T]>, product: impl Fn(&mut [f64], usize, usize, usize), out: &mut [T]) {
    let wide = |x: &T| x.to_f64().unwrap_or(f64::NAN);
    let mut sums = AlignedVec::<f64>::zeroed(out.len());
    if let Some(bias) = bias {
        sums.chunks_exact_mut(bias.len().max(1)).for_each(|pixel| pixel.iter_mut().zip(bias).for_each(|(sum, bias)| *sum = wide(bias)));
    }
    products(g, |i, k, o| product(&mut sums, i, k, o));
    out.iter_mut().zip(sums.iter()).for_each(|(out, &sum)| *out = T::of(sum));
}

fn product<T: Real>(a: T, b: T) -> f64 {
    a.to_f64().zip(b.to_f64()).map_or(f64::NAN, |(a, b)| a * b)
}

pub(super) fn forward<T: Real>(g: &ConvGeometry, x: &[T], w: &[T], bias: Option<&[T]>, y: &mut [T]) {
    sum(g, bias, |y, i, k, o| y[o] += product(x[i], w[k]), y);
}

pub(super) fn input_gradient<T: Real>(g: &ConvGeometry, dy: &[T], w: &[T], bias: Option<&[T]>, dx: &mut [T]) {
    sum(g, bias, |dx, i, k, o| dx[i] += product(dy[o], w[k]), dx);
}

pub(super) fn weight_gradient<T: Real>(g: &ConvGeometry, x: &[T], dy: &[T], dw: &mut [T]) {
    sum(g, None, |dw, i, k, o| dw[k] += product(x[i], dy[o]), dw);
}
