//! Convolution: forward, input gradient and weight gradient, by several algorithms.
//!
//! Feature maps are channels-last, `[N, H, W, C]`; weights `[C_out, C_in / groups, kH, kW]`. A transposed convolution is the input gradient of the
//! convolution that leads back.

mod direct;
mod im2col;
mod naive;
#[cfg(test)]
mod tests;

pub use im2col::{fold, unfold};

use super::geometry::Window;
use super::simd::Real;

/// The geometry of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvGeometry {
    /// Images.
    pub batch: usize,
    /// Channels of the input.
    pub channels_in: usize,
    /// Channels of the output.
    pub channels_out: usize,
    /// Groups; they divide both numbers of channels.
    pub groups: usize,
    /// Height and width: sizes, kernel, stride, padding, dilation.
    pub window: Window,
}

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConvAlgorithm {
    /// The fastest that fits.
    #[default]
    Auto,
    /// The input unfolded into a matrix of patches, and a matrix product.
    Im2col,
    /// The register tile on rows of the padded image: im2col without the copy.
    Direct,
    /// Seven nested loops, for comparison.
    Naive,
}

impl ConvGeometry {
    /// Input channels of a group.
    pub(crate) fn group_in(&self) -> usize {
        self.channels_in / self.groups
    }

    /// Output channels of a group.
    pub(crate) fn group_out(&self) -> usize {
        self.channels_out / self.groups
    }

    /// Elements of an input image.
    pub(crate) fn image_in(&self) -> usize {
        self.window.input[0] * self.window.input[1] * self.channels_in
    }

    /// Elements of an output image.
    pub(crate) fn image_out(&self) -> usize {
        self.window.output[0] * self.window.output[1] * self.channels_out
    }

    /// Positions of the kernel.
    pub(crate) fn taps(&self) -> usize {
        self.window.kernel[0] * self.window.kernel[1]
    }

    /// Elements of the weight.
    pub(crate) fn weights(&self) -> usize {
        self.channels_out * self.group_in() * self.taps()
    }

    /// Elementary operations of one pass.
    pub(crate) fn work(&self) -> usize {
        let per_pixel = 2 * self.weights();
        (self.batch * self.window.output[0] * self.window.output[1]).saturating_mul(per_pixel)
    }

    fn check<T>(&self, input: &[T], weight: &[T], output: &[T]) {
        assert_eq!(input.len(), self.batch * self.image_in());
        assert_eq!(weight.len(), self.weights());
        assert_eq!(output.len(), self.batch * self.image_out());
    }
}

/// `y = x ⋆ w + bias`.
pub fn forward<T: Real>(algorithm: ConvAlgorithm, g: &ConvGeometry, x: &[T], w: &[T], bias: Option<&[T]>, y: &mut [T]) {
    g.check(x, w, y);
    match algorithm {
        ConvAlgorithm::Naive => naive::forward(g, x, w, bias, y),
        ConvAlgorithm::Im2col => im2col::forward(g, x, w, bias, y),
        ConvAlgorithm::Auto | ConvAlgorithm::Direct => direct::forward(g, x, w, bias, y),
    }
}

/// The gradient of the input from that of the output; with a bias on the input's channels for transposed convolutions.
pub fn input_gradient<T: Real>(algorithm: ConvAlgorithm, g: &ConvGeometry, dy: &[T], w: &[T], bias: Option<&[T]>, dx: &mut [T]) {
    g.check(dx, w, dy);
    match algorithm {
        ConvAlgorithm::Naive => naive::input_gradient(g, dy, w, bias, dx),
        ConvAlgorithm::Im2col => im2col::input_gradient(g, dy, w, bias, dx),
        ConvAlgorithm::Auto | ConvAlgorithm::Direct => direct::input_gradient(g, dy, w, bias, dx),
    }
}

/// The gradient of the weight from the input and the output's gradient.
pub fn weight_gradient<T: Real>(algorithm: ConvAlgorithm, g: &ConvGeometry, x: &[T], dy: &[T], dw: &mut [T]) {
    g.check(x, dw, dy);
    match algorithm {
        ConvAlgorithm::Naive => naive::weight_gradient(g, x, dy, dw),
        ConvAlgorithm::Im2col => im2col::weight_gradient(g, x, dy, dw),
        ConvAlgorithm::Auto | ConvAlgorithm::Direct => direct::weight_gradient(g, x, dy, dw),
    }
}
