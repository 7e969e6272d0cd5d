//! Convolution as a matrix product on unfolded images (im2col), and the reverse operation, fold
//! (col2im).
//!
//! The matrix of one image is `[C · kH · kW, L]`, as PyTorch's `unfold` returns it: a row for each
//! channel and kernel position, a column for each output position.

use super::ConvGeometry;
use crate::kernels::gemm::{Layout, gemm, gemm_transposed};
use crate::kernels::geometry::Window;
use crate::kernels::runtime::allocator::AlignedVec;
use crate::kernels::runtime::parallel;
use crate::kernels::runtime::simd::Real;
use crate::kernels::transpose::transpose;

/// Returns the input coordinate along one axis that kernel position `k` reads for output coordinate
/// `o`, if it is inside the input.
fn source(window: &Window, axis: usize, k: usize, o: usize) -> Option<usize> {
    let at = (o * window.stride[axis] + k * window.dilation[axis]).checked_sub(window.padding[axis])?;
    (at < window.input[axis]).then_some(at)
}

/// Writes the patches of one channels-last image as the rows of a matrix. Pixels are `pitch`
/// elements apart; only their first `channels` are used.
pub fn unfold<T: Real>(window: &Window, x: &[T], pitch: usize, channels: usize, columns: &mut [T]) {
    let [rows, width] = window.output;
    let length = rows * width;
    let taps = window.kernel[0] * window.kernel[1];
    assert_eq!(columns.len(), channels * taps * length);
    let work = 4 * columns.len();
    parallel::chunks_mut(columns, length.max(1), work, |row, out| {
        let (channel, tap) = (row / taps, row % taps);
        let (kh, kw) = (tap / window.kernel[1], tap % window.kernel[1]);
        for (oh, out) in out.chunks_exact_mut(width).enumerate() {
            let Some(ih) = source(window, 0, kh, oh) else {
                out.fill(T::zero());
                continue;
            };
            for (ow, out) in out.iter_mut().enumerate() {
                *out = source(window, 1, kw, ow).map_or(T::zero(), |iw| x[(ih * window.input[1] + iw) * pitch + channel]);
            }
        }
    });
}

/// Adds the rows of a matrix of patches to the elements that [`unfold`] read them from.
pub fn fold<T: Real>(window: &Window, columns: &[T], pitch: usize, channels: usize, x: &mut [T]) {
    let [rows, width] = window.output;
    let length = rows * width;
    let taps = window.kernel[0] * window.kernel[1];
    assert_eq!(columns.len(), channels * taps * length);
    if x.is_empty() {
        // Without elements in a row, the number of rows is unbounded.
        return;
    }
    let readers = window.readers(0);
    // A task is a row of the image, so that tasks own what they write.
    parallel::chunks_mut(x, (window.input[1] * pitch).max(1), 4 * columns.len(), |ih, x| {
        // Kernel rows in ascending order.
        for oh in readers.range(ih).step_by(readers.step()).rev() {
            let kh = (ih + window.padding[0] - oh * window.stride[0]) / window.dilation[0];
            for place in 0..channels * window.kernel[1] {
                let (channel, kw) = (place / window.kernel[1], place % window.kernel[1]);
                let row = (channel * window.kernel[0] + kh) * window.kernel[1] + kw;
                for (ow, &value) in columns[row * length + oh * width..][..width].iter().enumerate() {
                    if let Some(iw) = source(window, 1, kw, ow) {
                        x[iw * pitch + channel] += value;
                    }
                }
            }
        }
    });
}

/// Calls `body(image, group)` for each image and group.
fn each_part(g: &ConvGeometry, mut body: impl FnMut(usize, usize)) {
    (0..g.batch).for_each(|image| (0..g.groups).for_each(|group| body(image, group)));
}

/// Returns the sizes of the matrices: output positions, output channels of a group, rows of
/// patches.
fn sizes(g: &ConvGeometry) -> [usize; 3] {
    [g.window.output[0] * g.window.output[1], g.group_out(), g.group_in() * g.taps()]
}

/// Copies a group's channels from a channels-last image, `[L, C]` to `[L, C / groups]`.
fn gather<T: Real>(image: &[T], channels: usize, first: usize, out: &mut [T]) {
    let count = out.len() / (image.len() / channels).max(1);
    for (out, pixel) in out.chunks_exact_mut(count.max(1)).zip(image.chunks_exact(channels)) {
        out.copy_from_slice(&pixel[first..first + count]);
    }
}

/// Copies a group's channels back; the inverse of [`gather`].
fn scatter<T: Real>(part: &[T], channels: usize, first: usize, image: &mut [T]) {
    let count = part.len() / (image.len() / channels).max(1);
    for (part, pixel) in part.chunks_exact(count.max(1)).zip(image.chunks_exact_mut(channels)) {
        pixel[first..first + count].copy_from_slice(part);
    }
}

pub(super) fn forward<T: Real>(g: &ConvGeometry, x: &[T], w: &[T], bias: Option<&[T]>, y: &mut [T]) {
    let [l, n, k] = sizes(g);
    let (mut columns, mut patches, mut out) = (AlignedVec::uninit(k * l), AlignedVec::uninit(l * k), AlignedVec::uninit(l * n));
    each_part(g, |image, group| {
        let x = &x[image * g.image_in()..][..g.image_in()];
        unfold(&g.window, &x[(group * g.group_in()).min(x.len())..], g.channels_in, g.group_in(), &mut columns);
        transpose(1, k, l, &columns, &mut patches);
        let bias = bias.map(|bias| &bias[group * n..][..n]);
        gemm([l, n, k], &patches, &w[group * n * k..][..n * k], Layout::Transposed, bias, &mut out);
        scatter(&out, g.channels_out, group * n, &mut y[image * g.image_out()..][..g.image_out()]);
    });
}

pub(super) fn input_gradient<T: Real>(g: &ConvGeometry, dy: &[T], w: &[T], bias: Option<&[T]>, dx: &mut [T]) {
    let [l, n, k] = sizes(g);
    match bias {
        Some(bias) => dx.chunks_exact_mut(g.channels_in).for_each(|pixel| pixel.copy_from_slice(bias)),
        None => dx.fill(T::zero()),
    }
    let (mut part, mut patches, mut columns) = (AlignedVec::uninit(l * n), AlignedVec::uninit(l * k), AlignedVec::uninit(k * l));
    each_part(g, |image, group| {
        gather(&dy[image * g.image_out()..][..g.image_out()], g.channels_out, group * n, &mut part);
        gemm([l, k, n], &part, &w[group * n * k..][..n * k], Layout::Plain, None, &mut patches);
        transpose(1, l, k, &patches, &mut columns);
        let dx = &mut dx[image * g.image_in()..][..g.image_in()];
        let first = (group * g.group_in()).min(dx.len());
        fold(&g.window, &columns, g.channels_in, g.group_in(), &mut dx[first..]);
    });
}

pub(super) fn weight_gradient<T: Real>(g: &ConvGeometry, x: &[T], dy: &[T], dw: &mut [T]) {
    let [l, n, k] = sizes(g);
    dw.fill(T::zero());
    let (mut part, mut columns) = (AlignedVec::uninit(l * n), AlignedVec::uninit(k * l));
    let (mut patches, mut product) = (AlignedVec::uninit(l * k), AlignedVec::uninit(n * k));
    each_part(g, |image, group| {
        let x = &x[image * g.image_in()..][..g.image_in()];
        unfold(&g.window, &x[(group * g.group_in()).min(x.len())..], g.channels_in, g.group_in(), &mut columns);
        transpose(1, k, l, &columns, &mut patches);
        gather(&dy[image * g.image_out()..][..g.image_out()], g.channels_out, group * n, &mut part);
        gemm_transposed([n, k, l], &part, &patches, &mut product);
        dw[group * n * k..][..n * k].iter_mut().zip(&*product).for_each(|(dw, &p)| *dw += p);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_folding_is_in_proportion_to_the_columns() {
        // Some 10^10 steps if each row of the image looked at all rows of the columns.
        let height = if cfg!(miri) { 100 } else { 100_000 };
        let window = Window::new([height, 1], [3, 1], [1, 1], [1, 0], [1, 1], false).unwrap();
        let (columns, mut x) = (vec![1f32; 3 * window.output[0]], vec![0f32; height]);
        let start = std::time::Instant::now();
        fold(&window, &columns, 1, 1, &mut x);
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
        assert!(x[0] == 2.0 && x[height - 1] == 2.0 && x[1..height - 1].iter().all(|&x| x == 3.0));
    }
}
