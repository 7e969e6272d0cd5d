//! Convolution: forward pass, input gradient and weight gradient, each by several algorithms.
//!
//! Feature maps are channels-last, `[N, H, W, C]`; weights are `[C_out, C_in / groups, kH, kW]`. A
//! transposed convolution is computed as the input gradient of the convolution that maps its output
//! back to the shape of its input.

mod correlation;
mod cost;
mod depthwise;
mod direct;
mod im2col;
mod naive;
mod overlap_add;
#[cfg(test)]
mod tests;
mod weight;
mod winograd;

pub use im2col::{fold, unfold};

use std::fmt;

use correlation::Correlation;
use depthwise::Depthwise;
use overlap_add::OverlapAdd;
use winograd::{Tile, Winograd};

use super::elementwise::epilogue::Epilogue;
use super::gemm::small_m;
use super::geometry::Window;
use super::norm::moments::{Moments, Parts};
use super::norm::{self, Maps};
use super::runtime::allocator::AlignedVec;
use super::runtime::simd::Real;
use crate::kernels::runtime::arrays::MapEach;

/// Pixels that a padded map may always have, divided by 16, however small the map and the windows
/// are.
const SCATTERED: usize = 1 << 12;

/// The geometry of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvGeometry {
    /// Number of images.
    pub batch: usize,
    /// Number of input channels.
    pub channels_in: usize,
    /// Number of output channels.
    pub channels_out: usize,
    /// Number of groups; divides both numbers of channels.
    pub groups: usize,
    /// Height and width: sizes, kernel, stride, padding, dilation.
    pub window: Window,
}

/// The algorithm that computes a convolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConvAlgorithm {
    /// The fastest algorithm that supports the geometry.
    #[default]
    Auto,
    /// Unfolds the input into a matrix of patches, and multiplies matrices.
    Im2col,
    /// Runs the register tile on rows of the padded image: im2col without the copy.
    Direct,
    /// Winograd's F(2×2, 3×3) where it applies (`f32`, 3×3 taps, one group), else the fastest
    /// algorithm that does. A forward pass or a weight gradient may have a stride `s`: it is
    /// computed as a kernel of `⌈k / s⌉` taps along each axis, for example 5×5 with stride 2 as
    /// 3×3.
    Winograd2,
    /// Winograd's F(4×4, 3×3), under the same conditions; or F(3×3, 4×4) or F(2×2, 5×5) for kernels
    /// of 4×4 and 5×5 taps, for example 7×7 with stride 2 as 4×4.
    Winograd4,
    /// Vectors along the channels, where each lane computes its own channel: for groups of few
    /// channels, such as depthwise convolution with one channel per group. If groups have very many
    /// channels, the fastest algorithm that supports them.
    Depthwise,
    /// Seven nested loops, for comparison. Also used, whatever algorithm is requested, for windows
    /// that are almost entirely in the padding, and for taps so far apart that almost the whole map
    /// is between them.
    Naive,
}

impl fmt::Display for ConvAlgorithm {
    /// Writes the name in lower case, such as `winograd4`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ConvAlgorithm::Auto => "auto",
            ConvAlgorithm::Im2col => "im2col",
            ConvAlgorithm::Direct => "direct",
            ConvAlgorithm::Winograd2 => "winograd2",
            ConvAlgorithm::Winograd4 => "winograd4",
            ConvAlgorithm::Depthwise => "depthwise",
            ConvAlgorithm::Naive => "naive",
        })
    }
}

/// The part of a convolution that is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConvPass {
    /// Computes the output from the input and the weight.
    Forward,
    /// Computes the input's gradient from the output's gradient and the weight.
    InputGradient,
    /// Computes the weight's gradient from the input and the output's gradient.
    WeightGradient,
}

impl fmt::Display for ConvPass {
    /// Writes the name in lower case, such as `input gradient`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ConvPass::Forward => "forward",
            ConvPass::InputGradient => "input gradient",
            ConvPass::WeightGradient => "weight gradient",
        })
    }
}

/// The algorithm that computes a pass, and the alternatives.
pub(crate) struct Choice {
    pub(crate) ran: ConvAlgorithm,
    /// The algorithms that support the pass, with their estimated costs, the cheapest first.
    pub(crate) candidates: Vec<(ConvAlgorithm, f64)>,
    /// The algorithms that do not support the pass, with the reason.
    pub(crate) unsupported: Vec<(ConvAlgorithm, &'static str)>,
}

impl ConvAlgorithm {
    /// Returns the choice for this requested algorithm, with weights prepared for one call, or
    /// `kept` for many.
    pub(crate) fn choice<T: Real>(self, g: &ConvGeometry, pass: ConvPass, kept: bool) -> Choice {
        let ran = self.resolve::<T>(g, pass, kept);
        if g.is_empty() || g.is_scattered() {
            return Choice { ran, candidates: vec![], unsupported: vec![] };
        }
        Choice { ran, candidates: cost::candidates::<T>(g, pass, kept), unsupported: cost::unsupported::<T>(g, pass) }
    }

    /// Returns the algorithm that computes a pass if this one is requested: the cheapest for
    /// `Auto`, and for an algorithm that does not support the pass.
    fn resolve<T: Real>(self, g: &ConvGeometry, pass: ConvPass, kept: bool) -> ConvAlgorithm {
        match self {
            _ if g.is_empty() || g.is_scattered() => ConvAlgorithm::Naive,
            ConvAlgorithm::Naive | ConvAlgorithm::Im2col | ConvAlgorithm::Direct => self,
            _ => {
                let candidates = cost::candidates::<T>(g, pass, kept);
                let asked = candidates.iter().find(|(candidate, _)| *candidate == self);
                asked.unwrap_or(&candidates[0]).0
            }
        }
    }
}

impl ConvGeometry {
    /// Returns the number of input channels of a group.
    pub(crate) fn group_in(&self) -> usize {
        self.channels_in / self.groups
    }

    /// Returns the number of output channels of a group.
    pub(crate) fn group_out(&self) -> usize {
        self.channels_out / self.groups
    }

    /// Returns the number of elements of an input image.
    pub(crate) fn image_in(&self) -> usize {
        self.window.input[0] * self.window.input[1] * self.channels_in
    }

    /// Returns the number of elements of an output image.
    pub(crate) fn image_out(&self) -> usize {
        self.window.output[0] * self.window.output[1] * self.channels_out
    }

    /// Returns the number of positions of the kernel.
    pub(crate) fn taps(&self) -> usize {
        self.window.kernel[0] * self.window.kernel[1]
    }

    /// Returns the number of elements of the weight.
    pub(crate) fn weights(&self) -> usize {
        self.channels_out * self.group_in() * self.taps()
    }

    /// Returns whether there is nothing to multiply: no images, no input or output channels, or
    /// maps without pixels.
    fn is_empty(&self) -> bool {
        self.batch == 0 || self.weights() == 0 || self.image_in() == 0 || self.image_out() == 0
    }

    /// Returns whether the windows reach so far into the padding, or their taps are so far apart,
    /// that building the padded map takes memory and time out of proportion to the map and the
    /// products.
    fn is_scattered(&self) -> bool {
        let Window { input, output, kernel, stride, dilation, .. } = self.window;
        let extent = |axis: usize| (output[axis] - 1).saturating_mul(stride[axis]).saturating_add((kernel[axis] - 1) * dilation[axis] + 1);
        let area = |sizes: [usize; 2]| sizes[0].saturating_mul(sizes[1]);
        let taps = area(output).saturating_mul(area(kernel));
        // The input gradient has a part for each remainder by the stride.
        let parts = area(stride) / 16 > area(kernel).saturating_add(SCATTERED);
        parts
            || area([0, 1].map_each(|axis| extent(axis).max(input[axis]))) / 16 > area(input).saturating_add(taps).saturating_add(SCATTERED)
    }

    /// Returns whether this is a dense layer for few vectors: one pixel, one tap, one group.
    fn is_dense(&self) -> bool {
        let Window { input, output, kernel, padding, .. } = self.window;
        [input, output, kernel] == [[1, 1]; 3] && padding == [0, 0] && self.groups == 1 && self.batch <= small_m::FEW_ROWS
    }

    /// Returns the number of elementary operations of one pass.
    pub(crate) fn work(&self) -> usize {
        let per_pixel = 2 * self.weights();
        (self.batch * self.window.output[0] * self.window.output[1]).saturating_mul(per_pixel)
    }
}

/// A convolution, or its input gradient, with the weights in the layout of the algorithm that
/// computes it. Kept weights serve any number of inputs; the fastest algorithm may then differ from
/// the fastest one for a single call.
pub struct Prepared<T> {
    geometry: ConvGeometry,
    pass: Pass,
    plan: Plan<T>,
}

/// The passes that are computed from the weights and a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Forward,
    InputGradient,
}

impl From<Pass> for ConvPass {
    fn from(pass: Pass) -> ConvPass {
        match pass {
            Pass::Forward => ConvPass::Forward,
            Pass::InputGradient => ConvPass::InputGradient,
        }
    }
}

enum Plan<T> {
    /// The weights, unchanged.
    Naive(AlignedVec<T>),
    Im2col(AlignedVec<T>),
    Direct(Correlation<T>),
    /// Also [`ConvAlgorithm::Direct`].
    Overlap(OverlapAdd<T>),
    Winograd(Winograd<T>),
    Depthwise(Depthwise<T>),
    /// The weights, unchanged: each image is one pixel, and the weights are the rows of a matrix.
    Dense(AlignedVec<T>),
}

impl<T: Real> Prepared<T> {
    /// Prepares weights for `y = x ⋆ w`, to be used for many inputs.
    pub fn forward(algorithm: ConvAlgorithm, geometry: &ConvGeometry, w: &[T]) -> Prepared<T> {
        Prepared::new(algorithm, geometry, Pass::Forward, true, w)
    }

    fn new(algorithm: ConvAlgorithm, g: &ConvGeometry, pass: Pass, kept: bool, w: &[T]) -> Prepared<T> {
        assert_eq!(w.len(), g.weights());
        let plan = match (algorithm.resolve::<T>(g, pass.into(), kept), pass) {
            (ConvAlgorithm::Naive, _) => Plan::Naive(AlignedVec::copy_of(w)),
            (ConvAlgorithm::Im2col, _) => Plan::Im2col(AlignedVec::copy_of(w)),
            (ConvAlgorithm::Winograd2 | ConvAlgorithm::Winograd4, _) if const { !T::FAST } => unreachable!("an unsupported algorithm"),
            (ConvAlgorithm::Winograd2, _) => Plan::Winograd(Winograd::new(Tile::Four, g, pass, w)),
            (ConvAlgorithm::Winograd4, _) => Plan::Winograd(Winograd::new(Tile::Six, g, pass, w)),
            (ConvAlgorithm::Depthwise, _) => Plan::Depthwise(Depthwise::new(g, pass, w)),
            (ConvAlgorithm::Direct, Pass::Forward) if g.is_dense() => Plan::Dense(AlignedVec::copy_of(w)),
            (_, Pass::Forward) => Plan::Direct(direct::forward(g, w)),
            (ConvAlgorithm::Direct, Pass::InputGradient) if overlap_add::pays::<T>(g) => Plan::Overlap(OverlapAdd::new(g, w)),
            (_, Pass::InputGradient) => Plan::Direct(direct::input_gradient(g, w)),
        };
        Prepared { geometry: *g, pass, plan }
    }

    /// Computes the pass. The epilogue's channels are those of the result.
    pub fn run(&self, from: &[T], epilogue: Epilogue<'_, T>, to: &mut [T]) {
        let g = &self.geometry;
        let (input, output, channels) = match self.pass {
            Pass::Forward => (from.len(), to.len(), g.channels_out),
            Pass::InputGradient => (to.len(), from.len(), g.channels_in),
        };
        assert!(input == g.batch * g.image_in() && output == g.batch * g.image_out());
        assert!(epilogue.bias.is_none_or(|bias| bias.len() == channels));
        assert!(epilogue.residual.is_none_or(|residual| residual.len() == to.len()));
        match (&self.plan, self.pass) {
            (Plan::Direct(correlation), _) => return correlation.run(from, epilogue, to),
            (Plan::Overlap(overlap), _) => return overlap.run(from, epilogue, to),
            (Plan::Winograd(_), _) if const { !T::FAST } => unreachable!("an unsupported algorithm"),
            (Plan::Winograd(winograd), _) => return winograd.run(from, epilogue, to),
            (Plan::Depthwise(depthwise), _) => return depthwise.run(from, epilogue, to),
            (Plan::Dense(w), _) => return small_m::product([g.batch, g.channels_out, g.channels_in], from, w, epilogue, to),
            (Plan::Naive(w), Pass::Forward) => naive::forward(g, from, w, epilogue.bias, to),
            (Plan::Naive(w), Pass::InputGradient) => naive::input_gradient(g, from, w, epilogue.bias, to),
            (Plan::Im2col(w), Pass::Forward) => im2col::forward(g, from, w, epilogue.bias, to),
            (Plan::Im2col(w), Pass::InputGradient) => im2col::input_gradient(g, from, w, epilogue.bias, to),
        }
        epilogue.finish(0, to);
    }

    /// Returns the parts over which statistics are taken during a forward pass; `None` if the
    /// algorithm takes none. (For Winograd this would be slower than a separate pass over the map,
    /// because tiles are transformed back a few pixels at a time.)
    fn parts(&self) -> Option<Parts> {
        match &self.plan {
            Plan::Direct(correlation) => correlation.parts(),
            Plan::Depthwise(depthwise) => Some(depthwise.parts()),
            _ => None,
        }
    }
}

/// Computes `y = x ⋆ w + bias`.
pub fn forward<T: Real>(algorithm: ConvAlgorithm, g: &ConvGeometry, x: &[T], w: &[T], bias: Option<&[T]>, y: &mut [T]) {
    Prepared::new(algorithm, g, Pass::Forward, false, w).run(x, Epilogue::bias(bias), y);
}

/// Computes [`forward`] and the moments of the output's channels over the whole batch. Direct and
/// depthwise convolution take the moments while they compute the output.
pub fn forward_with_moments<T: Real>(
    algorithm: ConvAlgorithm,
    g: &ConvGeometry,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    y: &mut [T],
) -> Moments {
    let prepared = Prepared::new(algorithm, g, Pass::Forward, false, w);
    let epilogue = Epilogue::bias(bias);
    match prepared.parts().filter(|_| !y.is_empty() && !w.is_empty()) {
        Some(parts) => parts.moments(|accumulator| prepared.run(x, Epilogue { accumulator: Some(accumulator), ..epilogue }, y)),
        None => {
            prepared.run(x, epilogue, y);
            norm::take_moments(Maps { images: 1, rows: y.len() / g.channels_out.max(1), channels: g.channels_out }, y)
        }
    }
}

/// Computes the input's gradient from the output's gradient; a transposed convolution adds a bias
/// on the input's channels.
pub fn input_gradient<T: Real>(algorithm: ConvAlgorithm, g: &ConvGeometry, dy: &[T], w: &[T], bias: Option<&[T]>, dx: &mut [T]) {
    Prepared::new(algorithm, g, Pass::InputGradient, false, w).run(dy, Epilogue::bias(bias), dx);
}

/// Computes the weight's gradient from the input and the output's gradient.
pub fn weight_gradient<T: Real>(algorithm: ConvAlgorithm, g: &ConvGeometry, x: &[T], dy: &[T], dw: &mut [T]) {
    assert!(x.len() == g.batch * g.image_in() && dw.len() == g.weights() && dy.len() == g.batch * g.image_out());
    match algorithm.resolve::<T>(g, ConvPass::WeightGradient, false) {
        ConvAlgorithm::Naive => naive::weight_gradient(g, x, dy, dw),
        ConvAlgorithm::Im2col => im2col::weight_gradient(g, x, dy, dw),
        ConvAlgorithm::Winograd2 | ConvAlgorithm::Winograd4 if const { !T::FAST } => unreachable!("an unsupported algorithm"),
        ConvAlgorithm::Winograd2 => winograd::weight_gradient(Tile::Four, g, x, dy, dw),
        ConvAlgorithm::Winograd4 => winograd::weight_gradient(Tile::Six, g, x, dy, dw),
        ConvAlgorithm::Depthwise => depthwise::weight::weight_gradient(g, x, dy, dw),
        _ => weight::weight_gradient(g, x, dy, dw),
    }
}
