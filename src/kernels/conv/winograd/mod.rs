//! Winograd's minimal filtering for kernels of 3×3, 4×4 and 5×5 (Lavin & Gray, 2015),
//! channels-last; and for kernels with a stride that have one of these sizes once the stride is
//! removed by space to depth.
//!
//! The output is divided into tiles of `M × M` pixels, each of which reads `N × N` pixels of the
//! input, `N = M + R - 1` for `R × R` taps. After the transform, a tile's convolution is a product
//! at each of `N · N` positions, and the products of all tiles at one position are a matrix product
//! over the channels: 2.25 times fewer multiplications for F(2×2, 3×3), four times fewer for F(4×4,
//! 3×3) and F(3×3, 4×4), 2.8 times for F(2×2, 5×5). Transforms run along the channels, so they need
//! no shuffles.
//!
//! A group of tiles goes through all three steps (transform, products, inverse transform) while its
//! numbers are in L2. If there are too few groups for all threads, the threads share the steps of
//! one group instead. Both ways give bit-identical results.

mod space_to_depth;
mod tiles;
mod transforms;
mod weight;

use std::ops::Range;

use pulp::{Simd, WithSimd};
use space_to_depth::{Places, SIDES, SpaceToDepth, TAPS};
use tiles::{Grid, Transformed, gather, scatter};
use transforms::{TransformSet, both_axes};
pub(super) use weight::weight_gradient;

use super::{ConvGeometry, ConvPass, Pass};
use crate::kernels::elementwise::epilogue::Epilogue;
use crate::kernels::gemm::microkernel::{Ascending, Rows, multiply};
use crate::kernels::gemm::pack::{PanelsView, filled_up, panel_width};
use crate::kernels::runtime::allocator::AlignedVec;
use crate::kernels::runtime::arrays::MapEach;
use crate::kernels::runtime::parallel::{self, Disjoint};
use crate::kernels::runtime::simd::{Real, dispatch_light};

/// Approximate number of bytes of a group's transformed inputs and products: what L2 holds in
/// addition to the weights, which are streamed through it.
const GROUP: usize = 768 << 10;
/// The same limit for a group that all threads share, which L3 holds.
const SHARED_GROUP: usize = 12 << 20;
/// The number of tiles of a group is a multiple of this, the width of the products' register tile.
const TILE_COLUMNS: usize = 12;
/// Minimum number of tiles of a group: fewer tiles reuse the weights too little.
const FEWEST: usize = 2 * TILE_COLUMNS;
/// Maximum number of tiles of a group that one thread computes: more leave too few groups.
const MOST: usize = 8 * TILE_COLUMNS;
/// Number of bytes of weights that fit into the L2 of every core, so that small groups waste
/// nothing.
const FEW_WEIGHTS: usize = 768 << 10;
/// Number of groups from which on each thread takes its own group.
const MANY: usize = 6;

/// A set of interpolation points, named by the side of the input tiles that have as many pixels
/// along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tile {
    Four,
    Six,
}

impl Tile {
    /// Returns the number of pixels along an axis of an input tile.
    fn side(self) -> usize {
        if self == Tile::Four { 4 } else { 6 }
    }
}

/// Evaluates an expression with the transforms, as a type, for an input tile and the number of a
/// kernel's taps along an axis. A macro, because the expression is compiled for each type.
macro_rules! with_transforms {
    ($tile:expr, $taps:expr, $C:ident => $body:expr) => {{
        use $crate::kernels::conv::winograd::Tile;
        use $crate::kernels::conv::winograd::transforms::{F, FourPoints, SixPoints};
        match ($tile, $taps) {
            (Tile::Four, _) => with_transforms!(@as $C = F<FourPoints, 2, 3>, $body),
            (Tile::Six, 4) => with_transforms!(@as $C = F<SixPoints, 3, 4>, $body),
            (Tile::Six, 5) => with_transforms!(@as $C = F<SixPoints, 2, 5>, $body),
            (Tile::Six, _) => with_transforms!(@as $C = F<SixPoints, 4, 3>, $body),
        }
    }};
    (@as $C:ident = $type:ty, $body:expr) => {{
        type $C = $type;
        $body
    }};
}
use with_transforms;

/// Returns why a pass is not supported; `None` if it is. Supported are, after space to depth,
/// kernels of 3×3 taps and, with tiles of six, up to 5×5; without dilation or groups; for element
/// types where speed matters.
pub(super) fn unsupported_reason<T: Real>(tile: Tile, g: &ConvGeometry, pass: ConvPass) -> Option<&'static str> {
    if T::FAST { unsupported_shape(tile, g, pass) } else { Some("the elements are not f32") }
}

/// Returns why the geometry is not supported; see [`unsupported_reason`].
fn unsupported_shape(tile: Tile, g: &ConvGeometry, pass: ConvPass) -> Option<&'static str> {
    let (window, [rows, columns]) = (&g.window, space_to_depth::taps(g));
    let (sides, other) = match tile {
        Tile::Four => (3..=3, "the kernel is not 3×3"),
        Tile::Six => (SIDES, "the kernel is not 3×3, 4×4 or 5×5"),
    };
    let (has_stride, gradient) = (window.stride != [1, 1], pass == ConvPass::InputGradient);
    // The input gradient is a convolution whose padding is the number of taps, minus one, minus the
    // original padding. It must not be negative.
    let padded = gradient && window.padding.iter().any(|&padding| padding + 1 > rows);
    let reasons = [
        (has_stride && gradient, "the stride is not 1"),
        (has_stride && rows.min(columns) < 3, "the stride leaves fewer than 3×3 taps"),
        (rows != columns || !sides.contains(&rows), other),
        (window.dilation != [1, 1], "the dilation is not 1"),
        (g.groups != 1, "there are groups"),
        (padded, "the padding is as wide as the kernel"),
    ];
    reasons.into_iter().find_map(|(applies, reason)| applies.then_some(reason))
}

/// The numbers that determine the cost of a pass.
pub(super) struct Size {
    /// Number of products per tile for each pair of channels.
    pub(super) positions: usize,
    pub(super) tiles: usize,
    /// Numbers of channels of the two maps that are transformed.
    pub(super) channels: [usize; 2],
    /// Number of elements of a map that space to depth rearranges; 0 without a stride.
    pub(super) spread: usize,
}

/// Returns the size of a pass, which must be supported.
pub(super) fn size(tile: Tile, g: &ConvGeometry, pass: ConvPass) -> Size {
    let view = SpaceToDepth::new(g);
    let step = tile.side() + 1 - view.taps;
    let target = if pass == ConvPass::InputGradient { g.window.input } else { g.window.output };
    let tiles = g.batch * target[0].div_ceil(step) * target[1].div_ceil(step);
    Size { positions: tile.side() * tile.side(), tiles, channels: view.channels, spread: view.spread_elements() }
}

/// A convolution, or an input gradient, with its transformed weights.
pub(super) struct Winograd<T> {
    tile: Tile,
    view: SpaceToDepth,
    source: Grid,
    target: Grid,
    /// `[N · N]` positions, each of which is a matrix in panels.
    weights: AlignedVec<T>,
    /// Elements from one position of the weights to the next.
    position: usize,
}

impl<T: Real> Winograd<T> {
    pub(super) fn new(tile: Tile, g: &ConvGeometry, pass: Pass, w: &[T]) -> Winograd<T> {
        let view = SpaceToDepth::new(g);
        let step = tile.side() + 1 - view.taps;
        let [from, to] = [(view.size, view.channels[0]), (view.output, view.channels[1])];
        let ([from, to], padding) = match pass {
            Pass::Forward => ([from, to], view.padding),
            Pass::InputGradient => ([to, from], view.padding.map_each(|padding| view.taps - 1 - padding)),
        };
        let tiles = to.0.map_each(|size| size.div_ceil(step));
        let source = Grid { tiles, step, size: from.0, channels: from.1, padding };
        let target = Grid { tiles, step, size: to.0, channels: to.1, padding: [0, 0] };
        let channels = [from.1, to.1];
        // Not a multiple of a large power of two, because packing writes to all positions in turn.
        let position = filled_up::<T>(channels[1]) * channels[0] + 64;
        let weights = with_transforms!(tile, view.taps, C => transform_weights::<T, C>(&view, pass, channels, w, position));
        Winograd { tile, view, source, target, weights, position }
    }

    pub(super) fn run(&self, x: &[T], epilogue: Epilogue<'_, T>, y: &mut [T]) {
        // Only a forward pass can have a stride.
        let x = &self.view.spread(x, 2 * y.len());
        with_transforms!(self.tile, self.view.taps, C => self.run_with::<C>(x, epilogue, y));
    }

    fn run_with<C: TransformSet>(&self, x: &[T], epilogue: Epilogue<'_, T>, y: &mut [T]) {
        let tiles = self.view.batch * self.source.tiles[0] * self.source.tiles[1];
        let [k, n] = [self.source.channels, self.target.channels];
        if tiles * n == 0 {
            return;
        }
        let work = 2 * tiles * C::N * C::N * k * n;
        let per_tile = C::N * C::N * (k + n) * size_of::<T>();
        let y = Disjoint::new(y);
        let mut group = (GROUP / per_tile).next_multiple_of(TILE_COLUMNS).clamp(FEWEST, MOST);
        if self.weights.len() * size_of::<T>() <= FEW_WEIGHTS {
            group = group.min(tiles.div_ceil(MANY).next_multiple_of(TILE_COLUMNS)).max(FEWEST);
        }
        if tiles.div_ceil(group) >= MANY {
            parallel::for_each(tiles.div_ceil(group), work, |task| {
                self.group::<C>(x, task * group..tiles.min((task + 1) * group), epilogue, &y, 0);
            });
        } else {
            let group = (SHARED_GROUP / per_tile).next_multiple_of(TILE_COLUMNS).max(FEWEST);
            for first in (0..tiles).step_by(group) {
                self.group::<C>(x, first..tiles.min(first + group), epilogue, &y, work);
            }
        }
    }

    /// Computes some tiles, on several threads if `work` is large enough.
    fn group<C: TransformSet>(&self, x: &[T], tiles: Range<usize>, epilogue: Epilogue<'_, T>, y: &Disjoint<'_, T>, work: usize) {
        let [k, n] = [self.source.channels, self.target.channels];
        let inputs = Transformed { channels: k, width: k, tiles: tiles.len() };
        let outputs = Transformed { channels: n, width: n, tiles: tiles.len() };
        let mut transformed = AlignedVec::uninit(C::N * C::N * inputs.position());
        let mut products = AlignedVec::uninit(C::N * C::N * outputs.position());
        // Number of tiles that one task transforms: all of them if a single thread computes the
        // group.
        let part = if work == 0 { tiles.len() } else { 4 };
        let parts = tiles.len().div_ceil(part);
        let of = |task: usize| task * part..tiles.len().min((task + 1) * part);
        {
            let out = Disjoint::new(&mut transformed);
            parallel::for_each(parts, work, |task| {
                let part = of(task);
                let absolute = tiles.start + part.start..tiles.start + part.end;
                // SAFETY: tasks have distinct slots.
                unsafe { gather::<T, C::Inputs>(&self.source, x, absolute, &inputs, part.start, &out) };
            });
        }
        let [starts, out_starts] =
            [k, n].map_each(|channels| Ascending::new((0..tiles.len()).map(|tile| tile * channels).collect::<Vec<_>>()));
        let panels = filled_up::<T>(n) * k;
        parallel::chunks_mut(&mut products, outputs.position(), work, |position, products| {
            let weights = PanelsView::new(k, n, &self.weights[position * self.position..][..panels]);
            let rows = Rows { starts: starts.first(tiles.len()), taps: &[0], run: k };
            let transformed = &transformed[position * inputs.position()..][..inputs.position()];
            multiply(transformed, rows, weights, products, out_starts.first(tiles.len()), Epilogue::default());
        });
        parallel::for_each(parts, work, |task| {
            let part = of(task);
            let absolute = tiles.start + part.start..tiles.start + part.end;
            // SAFETY: tiles do not overlap, and each belongs to one task.
            unsafe { scatter::<T, C::Outputs>(&self.target, &products, &outputs, part.start, absolute, epilogue, y) };
        });
    }
}

/// Rows of a panel that one task transforms.
const ROWS: usize = 32;
/// Maximum number of columns of a panel.
const COLUMNS: usize = 64;

/// Computes the transformed weights: `[N · N]` positions of panels, `position` elements from one to
/// the next. `[k, n]` are the channels of source and target.
fn transform_weights<T: Real, C: TransformSet>(
    view: &SpaceToDepth,
    pass: Pass,
    [k, n]: [usize; 2],
    w: &[T],
    position: usize,
) -> AlignedVec<T> {
    let mut weights = AlignedVec::uninit(C::N * C::N * position);
    let nr = panel_width::<T>(n);
    {
        let out = Disjoint::new(&mut weights);
        // A task is a run of rows of one panel.
        let (panels, runs) = (n.div_ceil(nr), k.div_ceil(ROWS));
        parallel::for_each(panels * runs, 20 * w.len(), |task| {
            let (panel, first) = (task / runs, task % runs * ROWS);
            dispatch_light::<T, _>(TransformWeights::<T, C> {
                view,
                w,
                pass,
                k: first..k.min(first + ROWS),
                columns: panel * nr..n.min((panel + 1) * nr),
                channels: [k, n],
                out: &out,
                position,
                transforms: std::marker::PhantomData,
            });
        });
    }
    weights
}

struct TransformWeights<'a, T, C> {
    view: &'a SpaceToDepth,
    w: &'a [T],
    pass: Pass,
    k: Range<usize>,
    columns: Range<usize>,
    /// Channels of source and target.
    channels: [usize; 2],
    out: &'a Disjoint<'a, T>,
    position: usize,
    transforms: std::marker::PhantomData<C>,
}

impl<T: Real, C: TransformSet> WithSimd for TransformWeights<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [source, target] = self.channels;
        let nr = filled_up::<T>(self.columns.len());
        // For each tap, the weights of all columns.
        let mut taps = [[T::zero(); COLUMNS]; TAPS];
        let tapped = C::R * C::R;
        for k in self.k {
            let (first, stride, places) = match self.pass {
                Pass::Forward => (0, self.view.weights_of_output(), self.view.places(k)),
                Pass::InputGradient => (k * target * tapped, tapped, Places::Run(0)),
            };
            if let Places::Scattered(_) = places {
                taps = [[T::zero(); COLUMNS]; TAPS];
            }
            #[allow(clippy::needless_range_loop)] // a plain loop, as in `for_pairs`
            for column in 0..self.columns.len() {
                let w = &self.w[first + (self.columns.start + column) * stride..];
                match (&places, self.pass) {
                    (&Places::Run(first), Pass::Forward) => {
                        let w = &w[first..][..tapped];
                        (0..tapped).for_each(|tap| taps[tap][column] = w[tap]);
                    }
                    // The kernel is rotated by 180°.
                    (Places::Run(_), Pass::InputGradient) => {
                        let w = &w[..tapped];
                        (0..tapped).for_each(|tap| taps[tap][column] = w[tapped - 1 - tap]);
                    }
                    (Places::Scattered(places), _) => {
                        for &(tap, place) in places {
                            taps[tap][column] = w[place];
                        }
                    }
                }
            }
            for first in (0..nr).step_by(T::lanes::<S>()) {
                let at = self.columns.start * source + k * nr + first;
                let out = self.out.pointer(at, (C::N * C::N - 1) * self.position + T::lanes::<S>());
                // SAFETY: `first` plus a vector is within the `nr` columns, which are at most
                // `COLUMNS`.
                let load = |i: usize, j: usize| unsafe { taps[C::R * i + j].as_ptr().add(first).cast::<T::Vector<S>>().read_unaligned() };
                both_axes::<T, S, C::Weights>(simd, load, |i, j, value| {
                    // SAFETY: `pointer` has checked the last position's vector, and tasks have
                    // distinct rows and panels.
                    unsafe { out.add((i * C::N + j) * self.position).cast::<T::Vector<S>>().write_unaligned(value) };
                });
            }
        }
    }
}
