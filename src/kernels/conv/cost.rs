//! Which algorithm a convolution takes: the one whose estimated cost is least.
//!
//! Costs are in multiplications and additions at the register tile's speed. What Winograd's algorithms have to do beside their products
//! (transforms, weights) is counted in the same unit by factors that were fitted to measured times; they are ratios of a core's arithmetic to
//! its caches' bandwidth and move little between machines. Nothing here depends on threads, so neither do results.

use super::winograd::{self, Tile};
use super::{ConvAlgorithm, ConvGeometry, ConvPass, Pass, depthwise};
use crate::kernels::gemm::microkernel::lanes;
use crate::kernels::runtime::simd::Real;

/// For an element of a transformed map, forward and input gradient, or of one that is spread out.
const TRANSFORM: f64 = 28.0;
/// For an element of a transformed map, weight gradient.
const TRANSFORM_FOR_WEIGHTS: f64 = 36.0;
/// For an element of Winograd's weights that are made for the call, and read from beyond L2.
const WEIGHT: f64 = 60.0;
/// For an element of any weights that are kept from call to call: those of a whole network do not stay in the caches.
const KEPT_WEIGHT: f64 = 20.0;

/// The algorithms with the tiles of input that they take.
const WINOGRAD: [(ConvAlgorithm, Tile); 2] = [(ConvAlgorithm::Winograd2, Tile::Four), (ConvAlgorithm::Winograd4, Tile::Six)];

/// For an operation whose lanes are channels of their own: little but the arithmetic, or with the input spread out first.
const DEPTHWISE: f64 = 0.9;
const SPREAD: f64 = 1.5;

/// The algorithms that fit a pass, with their costs, the cheapest first; weights are made for the call, or `kept`.
pub(super) fn candidates<T: Real>(g: &ConvGeometry, pass: ConvPass, kept: bool) -> Vec<(ConvAlgorithm, f64)> {
    let reading = if kept { KEPT_WEIGHT * g.weights() as f64 } else { 0.0 };
    let mut candidates = vec![(ConvAlgorithm::Direct, direct::<T>(g, pass) + reading)];
    if depthwise::unsupported_reason(g, direction(pass)).is_none() {
        let factor = if g.groups > 1 && g.group_in() * g.group_out() == 1 { DEPTHWISE } else { SPREAD };
        candidates.push((ConvAlgorithm::Depthwise, factor * g.work() as f64 + reading));
    }
    for (algorithm, tile) in WINOGRAD {
        if winograd::unsupported_reason::<T>(tile, g, pass).is_none() {
            candidates.push((algorithm, winograd_by(tile, g, pass, kept)));
        }
    }
    candidates.sort_by(|a, b| a.1.total_cmp(&b.1));
    candidates
}

/// The algorithms that do not fit a pass, with the reason.
pub(super) fn unsupported<T: Real>(g: &ConvGeometry, pass: ConvPass) -> Vec<(ConvAlgorithm, &'static str)> {
    let winograd = WINOGRAD.map(|(algorithm, tile)| (algorithm, winograd::unsupported_reason::<T>(tile, g, pass)));
    let depthwise = (ConvAlgorithm::Depthwise, depthwise::unsupported_reason(g, direction(pass)));
    let all = winograd.into_iter().chain([depthwise]);
    all.filter_map(|(algorithm, unsupported_reason)| Some((algorithm, unsupported_reason?))).collect()
}

/// The weight gradient goes through the input in the same direction as the forward pass.
fn direction(pass: ConvPass) -> Pass {
    if pass == ConvPass::InputGradient { Pass::InputGradient } else { Pass::Forward }
}

fn direct<T: Real>(g: &ConvGeometry, pass: ConvPass) -> f64 {
    let [_, columns] = direction(pass).group(g);
    let lanes = if g.groups > 1 { columns.next_multiple_of(lanes::<T>()) as f64 / columns.max(1) as f64 } else { 1.0 };
    lanes * g.work() as f64
}

fn winograd_by(tile: Tile, g: &ConvGeometry, pass: ConvPass, kept: bool) -> f64 {
    let size = winograd::size(tile, g, pass);
    let [positions, tiles] = [size.positions, size.tiles].map(|count| count as f64);
    let [k, n] = size.channels.map(|channels| channels as f64);
    let transform = if pass == ConvPass::WeightGradient { TRANSFORM_FOR_WEIGHTS } else { TRANSFORM };
    let weight = if kept { KEPT_WEIGHT } else { WEIGHT };
    positions * (tiles * (2.0 * k * n + transform * (k + n)) + weight * k * n) + TRANSFORM * size.spread as f64
}
