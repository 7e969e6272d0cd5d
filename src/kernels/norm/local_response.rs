//! Local response normalisation across channels (Krizhevsky et al., 2012, §3.3), over pixels of
//! contiguous channels.
//!
//! `y = x · s^-β` with `s[c] = k + α/size · Σ x²` over the channels `c - size/2 ..= c + (size -
//! 1)/2` that exist.

use crate::kernels::runtime::allocator::AlignedVec;
use crate::kernels::runtime::parallel;
use crate::kernels::runtime::simd::{Real, vectorize};

/// The number of elements that one task handles.
const GRAIN: usize = 16 * 1024;

/// The parameters, named as in the paper (`n` is `size`); α is divided by the size, as PyTorch
/// does.
#[derive(Clone, Copy, Debug)]
pub struct Response {
    /// The number of channels in a window, at least 1.
    pub size: usize,
    /// α.
    pub alpha: f64,
    /// β.
    pub beta: f64,
    /// k.
    pub k: f64,
}

impl Response {
    /// Computes `sums[c] = Σ x[c - before ..= c + after]`, without elements outside the slice.
    #[inline(always)]
    fn windows<T: Real>(before: usize, after: usize, x: &[T], sums: &mut [T]) {
        sums.copy_from_slice(x);
        for distance in 1..=before.min(x.len() - 1) {
            sums[distance..].iter_mut().zip(x).for_each(|(sum, &x)| *sum += x);
        }
        for distance in 1..=after.min(x.len() - 1) {
            sums.iter_mut().zip(&x[distance..]).for_each(|(sum, &x)| *sum += x);
        }
    }

    /// Computes `s` of a pixel; `squares` is scratch.
    #[inline(always)]
    fn scales<T: Real>(self, x: &[T], squares: &mut [T], scales: &mut [T]) {
        squares.iter_mut().zip(x).for_each(|(square, &x)| *square = x * x);
        Response::windows(self.size / 2, (self.size - 1) / 2, squares, scales);
        let (alpha, k) = (T::of(self.alpha / self.size as f64), T::of(self.k));
        scales.iter_mut().for_each(|scale| *scale = *scale * alpha + k);
    }

    /// Computes `out = s^-β`. Uses square roots instead of a power where possible: AlexNet's 0.75
    /// is vectorised this way.
    #[inline(always)]
    fn powers<T: Real>(self, scales: &[T], out: &mut [T]) {
        let pairs = out.iter_mut().zip(scales);
        if self.beta == 0.75 {
            pairs.for_each(|(out, &s)| *out = T::one() / (s.sqrt() * s.sqrt().sqrt()));
        } else if self.beta == 0.5 {
            pairs.for_each(|(out, &s)| *out = T::one() / s.sqrt());
        } else {
            let power = T::of(-self.beta);
            pairs.for_each(|(out, &s)| *out = s.powf(power));
        }
    }

    /// Computes `y` from `x`, both `[pixels, channels]`.
    pub fn forward<T: Real>(self, channels: usize, x: &[T], y: &mut [T]) {
        assert_eq!(x.len(), y.len());
        if x.is_empty() {
            return;
        }
        let pixels = (GRAIN / channels).max(1);
        parallel::chunks_mut(y, pixels * channels, x.len().saturating_mul(8 + self.size.min(channels)), |task, y| {
            let x = &x[task * pixels * channels..][..y.len()];
            let mut scratch = AlignedVec::uninit(2 * channels);
            let (squares, scales) = scratch.split_at_mut(channels);
            vectorize!(T, {
                for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                    self.scales(x, squares, scales);
                    self.powers(scales, y);
                    y.iter_mut().zip(x).for_each(|(y, &x)| *y *= x);
                }
            });
        });
    }

    /// Computes `dx[i] = grad[i] · s[i]^-β - 2αβ/size · x[i] · Σ grad[j] · x[j] · s[j]^(-β - 1)`,
    /// over the `j` whose window contains `i`.
    pub fn backward<T: Real>(self, channels: usize, grad: &[T], x: &[T], dx: &mut [T]) {
        assert!(x.len() == dx.len() && grad.len() == dx.len());
        if x.is_empty() {
            return;
        }
        let pixels = (GRAIN / channels).max(1);
        let factor = T::of(-2.0 * self.alpha * self.beta / self.size as f64);
        parallel::chunks_mut(dx, pixels * channels, x.len().saturating_mul(16 + 2 * self.size.min(channels)), |task, dx| {
            let range = task * pixels * channels..task * pixels * channels + dx.len();
            let (grad, x) = (&grad[range.clone()], &x[range]);
            let mut scratch = AlignedVec::uninit(3 * channels);
            let (first, rest) = scratch.split_at_mut(channels);
            let (second, third) = rest.split_at_mut(channels);
            vectorize!(T, {
                for ((dx, grad), x) in dx.chunks_exact_mut(channels).zip(grad.chunks_exact(channels)).zip(x.chunks_exact(channels)) {
                    let (scales, powers) = (&mut *second, &mut *third);
                    self.scales(x, first, scales);
                    self.powers(scales, powers);
                    for (c, first) in first.iter_mut().enumerate() {
                        dx[c] = grad[c] * powers[c];
                        *first = dx[c] * x[c] / scales[c];
                    }
                    let sums = scales;
                    Response::windows((self.size - 1) / 2, self.size / 2, first, sums);
                    dx.iter_mut().zip(&*sums).zip(x).for_each(|((dx, &sum), &x)| *dx += factor * x * sum);
                }
            });
        });
    }
}
