//! Selection of the algorithm of a convolution, by the lowest estimated cost.
//!
//! The unit of cost is one multiplication or addition at the speed of the register tile. The work
//! that Winograd's algorithms do in addition to their products (transforms, weights) is counted in
//! the same unit, by factors that were fitted to measured times. These factors are ratios of a
//! core's arithmetic to the bandwidth of its caches, and differ little between machines. Nothing
//! here depends on the number of threads, so neither do results.

use super::winograd::{self, Tile};
use super::{ConvAlgorithm, ConvGeometry, ConvPass, Pass, depthwise};
use crate::kernels::runtime::arrays::{MapEach, sort_by};
use crate::kernels::runtime::simd::{Real, lanes};

/// Cost per element of a transformed map, for forward pass and input gradient, or per element of a
/// map rearranged by space to depth.
const TRANSFORM: f64 = 28.0;
/// Cost per element of a transformed map, for the weight gradient.
const TRANSFORM_FOR_WEIGHTS: f64 = 36.0;
/// Cost per element of Winograd's weights that are transformed for this call, and read from beyond
/// L2.
const WEIGHT: f64 = 60.0;
/// Cost per element of any weights that are kept between calls: the weights of a whole network do
/// not stay in the caches.
const KEPT_WEIGHT: f64 = 20.0;

/// Winograd's algorithms with the input tiles that they use.
const WINOGRAD: [(ConvAlgorithm, Tile); 2] = [(ConvAlgorithm::Winograd2, Tile::Four), (ConvAlgorithm::Winograd4, Tile::Six)];

/// Cost per operation of an algorithm whose lanes are separate channels: little more than the
/// arithmetic (`DEPTHWISE`), or with the input spread out first (`SPREAD`).
const DEPTHWISE: f64 = 0.9;
const SPREAD: f64 = 1.5;

/// Returns the algorithms that support a pass, with their costs, the cheapest first. Weights are
/// prepared for this call, or `kept`.
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
    sort_by(&mut candidates, |a, b| a.1.total_cmp(&b.1));
    candidates
}

/// Returns the algorithms that do not support a pass, with the reason.
pub(super) fn unsupported<T: Real>(g: &ConvGeometry, pass: ConvPass) -> Vec<(ConvAlgorithm, &'static str)> {
    let winograd = WINOGRAD.map_each(|(algorithm, tile)| (algorithm, winograd::unsupported_reason::<T>(tile, g, pass)));
    let depthwise = (ConvAlgorithm::Depthwise, depthwise::unsupported_reason(g, direction(pass)));
    let all = winograd.into_iter().chain([depthwise]);
    all.filter_map(|(algorithm, unsupported_reason)| Some((algorithm, unsupported_reason?))).collect()
}

/// Returns the direction in which a pass reads the input. The weight gradient reads it as the
/// forward pass does.
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
    let [positions, tiles] = [size.positions, size.tiles].map_each(|count| count as f64);
    let [k, n] = size.channels.map_each(|channels| channels as f64);
    let transform = if pass == ConvPass::WeightGradient { TRANSFORM_FOR_WEIGHTS } else { TRANSFORM };
    let weight = if kept { KEPT_WEIGHT } else { WEIGHT };
    positions * (tiles * (2.0 * k * n + transform * (k + n)) + weight * k * n) + TRANSFORM * size.spread as f64
}
