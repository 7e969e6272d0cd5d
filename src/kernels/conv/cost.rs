//! Which algorithm a convolution takes: the one whose estimated cost is least.
//!
//! Costs are in multiplications and additions at the register tile's speed. What Winograd's algorithms have to do beside their products
//! (transforms, weights) is counted in the same unit by factors that were fitted to measured times; they are ratios of a core's arithmetic to
//! its caches' bandwidth and move little between machines. Nothing here depends on threads, so neither do results.

use super::{ConvAlgorithm, ConvGeometry, ConvPass, Pass, depthwise, winograd};
use crate::kernels::simd::Real;
use crate::kernels::tile::lanes;

/// For an element of a transformed map, forward and input gradient.
const TRANSFORM: f64 = 28.0;
/// For an element of a transformed map, weight gradient.
const TRANSFORM_FOR_WEIGHTS: f64 = 36.0;
/// For an element of transformed weights, which are made for the call and read from beyond L2.
const WEIGHT: f64 = 60.0;

/// For an operation whose lanes are channels of their own: little but the arithmetic, or with the input spread out first.
const DEPTHWISE: f64 = 0.9;
const SPREAD: f64 = 1.5;

/// The algorithms that fit a pass, with their costs, the cheapest first.
pub(super) fn candidates<T: Real>(g: &ConvGeometry, pass: ConvPass) -> Vec<(ConvAlgorithm, f64)> {
    let mut candidates = vec![(ConvAlgorithm::Direct, direct::<T>(g, pass))];
    if depthwise::obstacle(g, direction(pass)).is_none() {
        let factor = if g.groups > 1 && g.group_in() * g.group_out() == 1 { DEPTHWISE } else { SPREAD };
        candidates.push((ConvAlgorithm::Depthwise, factor * g.work() as f64));
    }
    if winograd::obstacle(g, pass).is_none() {
        candidates.push((ConvAlgorithm::Winograd2, winograd_by(2, g, pass)));
        candidates.push((ConvAlgorithm::Winograd4, winograd_by(4, g, pass)));
    }
    candidates.sort_by(|a, b| a.1.total_cmp(&b.1));
    candidates
}

/// The algorithms that do not fit a pass, with the reason.
pub(super) fn unfit(g: &ConvGeometry, pass: ConvPass) -> Vec<(ConvAlgorithm, &'static str)> {
    let winograd = winograd::obstacle(g, pass);
    let depthwise = depthwise::obstacle(g, direction(pass));
    let all = [(ConvAlgorithm::Winograd2, winograd), (ConvAlgorithm::Winograd4, winograd), (ConvAlgorithm::Depthwise, depthwise)];
    all.into_iter().filter_map(|(algorithm, obstacle)| Some((algorithm, obstacle?))).collect()
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

/// In tiles of `m × m`.
fn winograd_by(m: usize, g: &ConvGeometry, pass: ConvPass) -> f64 {
    let target = if pass == ConvPass::InputGradient { g.window.input } else { g.window.output };
    let tiles = (g.batch * target[0].div_ceil(m) * target[1].div_ceil(m)) as f64;
    let [k, n] = [g.channels_in, g.channels_out].map(|channels| channels as f64);
    let positions = ((m + 2) * (m + 2)) as f64;
    let transform = if pass == ConvPass::WeightGradient { TRANSFORM_FOR_WEIGHTS } else { TRANSFORM };
    positions * (tiles * (2.0 * k * n + transform * (k + n)) + WEIGHT * k * n)
}
