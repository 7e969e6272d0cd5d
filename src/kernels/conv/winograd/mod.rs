//! Winograd's minimal filtering for 3×3 kernels of stride 1 (Lavin & Gray, 2015), channels-last.
//!
//! The output is cut into tiles of `M × M` pixels, each of which sees `N × N` pixels of the input, `N = M + 2`. Transformed, a tile's convolution
//! is a product at each of `N · N` positions, and all tiles' products at one position are a matrix product over the channels: 2.25 times fewer
//! multiplications for F(2×2), four times fewer for F(4×4). Transforms run along the channels, so they need no shuffles.
//!
//! A group of tiles goes through all three steps (transform, products, transform back) while its numbers are in L2. Where there are too few
//! groups to go round, threads share the steps of one group instead. Both give the same bits.

mod scheme;
mod tiles;
mod weight;

use std::ops::Range;

use pulp::{Simd, WithSimd};
use scheme::{Evaluate, Four, Inputs, Interpolate, MOST, Scheme, Two, both_axes};
use tiles::{Grid, Transformed, gather, scatter};
pub(super) use weight::weight_gradient;

use super::{ConvGeometry, ConvPass, Pass};
use crate::kernels::epilogue::Epilogue;
use crate::kernels::memory::Buffer;
use crate::kernels::parallel::{self, Disjoint};
use crate::kernels::simd::{Real, dispatch};
use crate::kernels::tile::{Ascending, PanelsView, Rows, filled_up, multiply, panel_width};

/// Bytes of transformed inputs and products that a group of tiles has about: what L2 holds beside the weights passing through.
const GROUP: usize = 768 << 10;
/// The same for a group that all threads share, which L3 holds.
const SHARED_GROUP: usize = 12 << 20;
/// Tiles of a group at least: less makes poor use of the weights.
const FEWEST: usize = 24;
/// Bytes of weights that every core's L2 has room for, so that small groups are no waste.
const FEW_WEIGHTS: usize = 768 << 10;
/// Groups from which on each thread takes its own.
const MANY: usize = 6;

/// The side of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tile {
    Two,
    Four,
}

/// Why a pass does not have this form, unless it does: 3×3, dense, one group.
pub(super) fn obstacle(g: &ConvGeometry, pass: ConvPass) -> Option<&'static str> {
    let window = &g.window;
    // The input gradient is a convolution with what is left of a padding of 2.
    let padded = pass == ConvPass::InputGradient && window.padding.iter().any(|&padding| padding > 2);
    let obstacles = [
        (window.kernel != [3, 3], "the kernel is not 3×3"),
        (window.stride != [1, 1], "the stride is not 1"),
        (window.dilation != [1, 1], "the dilation is not 1"),
        (g.groups != 1, "there are groups"),
        (padded, "the padding is more than 2"),
    ];
    obstacles.into_iter().find_map(|(stands, obstacle)| stands.then_some(obstacle))
}

/// A convolution, or an input gradient, with its transformed weights.
pub(super) struct Winograd<T> {
    tile: Tile,
    batch: usize,
    source: Grid,
    target: Grid,
    /// `[N · N]` positions of panels.
    weights: Buffer<T>,
    /// Elements from one position of the weights to the next.
    position: usize,
}

impl<T: Real> Winograd<T> {
    pub(super) fn new(tile: Tile, g: &ConvGeometry, pass: Pass, w: &[T]) -> Winograd<T> {
        let step = if tile == Tile::Two { Two::M } else { Four::M };
        let (sizes, channels, padding) = match pass {
            Pass::Forward => ([g.window.input, g.window.output], [g.channels_in, g.channels_out], g.window.padding),
            Pass::InputGradient => {
                ([g.window.output, g.window.input], [g.channels_out, g.channels_in], g.window.padding.map(|padding| 2 - padding))
            }
        };
        let tiles = sizes[1].map(|size| size.div_ceil(step));
        let source = Grid { tiles, step, size: sizes[0], channels: channels[0], padding };
        let target = Grid { tiles, step, size: sizes[1], channels: channels[1], padding: [0, 0] };
        // Not a multiple of a large power of two: packing writes all positions in turn.
        let position = filled_up::<T>(channels[1]) * channels[0] + 64;
        let weights = match tile {
            Tile::Two => transform_weights::<T, Two>(pass, channels, w, position),
            Tile::Four => transform_weights::<T, Four>(pass, channels, w, position),
        };
        Winograd { tile, batch: g.batch, source, target, weights, position }
    }

    pub(super) fn run(&self, x: &[T], epilogue: Epilogue<'_, T>, y: &mut [T]) {
        match self.tile {
            Tile::Two => self.run_with::<Two>(x, epilogue, y),
            Tile::Four => self.run_with::<Four>(x, epilogue, y),
        }
    }

    fn run_with<C: Scheme>(&self, x: &[T], epilogue: Epilogue<'_, T>, y: &mut [T]) {
        let tiles = self.batch * self.source.tiles[0] * self.source.tiles[1];
        let [k, n] = [self.source.channels, self.target.channels];
        if tiles * n == 0 {
            return;
        }
        let work = 2 * tiles * C::N * C::N * k * n;
        let per_tile = C::N * C::N * (k + n) * size_of::<T>();
        let y = Disjoint::new(y);
        let mut group = (GROUP / per_tile).next_multiple_of(12).clamp(FEWEST, 96);
        if self.weights.len() * size_of::<T>() <= FEW_WEIGHTS {
            group = group.min(tiles.div_ceil(MANY).next_multiple_of(12)).max(FEWEST);
        }
        if tiles.div_ceil(group) >= MANY {
            parallel::for_each(tiles.div_ceil(group), work, |task| {
                self.group::<C>(x, task * group..tiles.min((task + 1) * group), epilogue, &y, 0);
            });
        } else {
            let group = (SHARED_GROUP / per_tile).next_multiple_of(12).max(FEWEST);
            for first in (0..tiles).step_by(group) {
                self.group::<C>(x, first..tiles.min(first + group), epilogue, &y, work);
            }
        }
    }

    /// Some tiles, on several threads if `work` is worth it.
    fn group<C: Scheme>(&self, x: &[T], tiles: Range<usize>, epilogue: Epilogue<'_, T>, y: &Disjoint<'_, T>, work: usize) {
        let [k, n] = [self.source.channels, self.target.channels];
        let inputs = Transformed { channels: k, width: k, tiles: tiles.len() };
        let outputs = Transformed { channels: n, width: n, tiles: tiles.len() };
        let mut transformed = Buffer::uncleared(C::N * C::N * inputs.position());
        let mut products = Buffer::uncleared(C::N * C::N * outputs.position());
        // Tiles that one task transforms: all, when there is one thread for all.
        let part = if work == 0 { tiles.len() } else { 4 };
        let parts = tiles.len().div_ceil(part);
        let of = |task: usize| task * part..tiles.len().min((task + 1) * part);
        {
            let out = Disjoint::new(&mut transformed);
            parallel::for_each(parts, work, |task| {
                let part = of(task);
                let absolute = tiles.start + part.start..tiles.start + part.end;
                // SAFETY: tasks have distinct slots.
                unsafe { gather::<T, Inputs<C>>(&self.source, x, absolute, &inputs, part.start, &out) };
            });
        }
        let [starts, out_starts] = [k, n].map(|channels| Ascending::new((0..tiles.len()).map(|tile| tile * channels).collect::<Vec<_>>()));
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
            // SAFETY: tiles do not overlap, and each is one task's.
            unsafe {
                if C::M == 2 {
                    scatter::<T, Interpolate<C, 2>>(&self.target, &products, &outputs, part.start, absolute, epilogue, y);
                } else {
                    scatter::<T, Interpolate<C, 4>>(&self.target, &products, &outputs, part.start, absolute, epilogue, y);
                }
            }
        });
    }
}

/// Rows of a panel that one task transforms.
const ROWS: usize = 32;
/// Columns of a panel at most.
const COLUMNS: usize = 64;

/// The transformed weights, `[N · N]` positions of panels, `position` elements from one to the next; `[k, n]` are the channels of source and target.
fn transform_weights<T: Real, C: Scheme>(pass: Pass, [k, n]: [usize; 2], w: &[T], position: usize) -> Buffer<T> {
    let mut weights = Buffer::uncleared(C::N * C::N * position);
    let nr = panel_width::<T>(n);
    {
        let out = Disjoint::new(&mut weights);
        // A task is a run of rows of one panel.
        let (panels, runs) = (n.div_ceil(nr), k.div_ceil(ROWS));
        parallel::for_each(panels * runs, 20 * w.len(), |task| {
            let (panel, first) = (task / runs, task % runs * ROWS);
            dispatch(TransformWeights::<T, C> {
                w,
                pass,
                k: first..k.min(first + ROWS),
                columns: panel * nr..n.min((panel + 1) * nr),
                channels: [k, n],
                out: &out,
                position,
                scheme: std::marker::PhantomData,
            });
        });
    }
    weights
}

struct TransformWeights<'a, T, C> {
    w: &'a [T],
    pass: Pass,
    k: Range<usize>,
    columns: Range<usize>,
    /// Of source and target.
    channels: [usize; 2],
    out: &'a Disjoint<'a, T>,
    position: usize,
    scheme: std::marker::PhantomData<C>,
}

impl<T: Real, C: Scheme> WithSimd for TransformWeights<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [source, target] = self.channels;
        let nr = filled_up::<T>(self.columns.len());
        for k in self.k {
            // The nine weights of each column, side by side.
            let mut taps = [[T::zero(); COLUMNS]; 9];
            for (column, n) in self.columns.clone().enumerate() {
                match self.pass {
                    Pass::Forward => {
                        let w = &self.w[(n * source + k) * 9..][..9];
                        (0..9).for_each(|tap| taps[tap][column] = w[tap]);
                    }
                    Pass::InputGradient => {
                        let w = &self.w[(k * target + n) * 9..][..9];
                        (0..9).for_each(|tap| taps[tap][column] = w[8 - tap]);
                    }
                }
            }
            for first in (0..nr).step_by(T::lanes::<S>()) {
                let at = self.columns.start * source + k * nr + first;
                let out = self.out.pointer(at, (C::N * C::N - 1) * self.position + T::lanes::<S>());
                // SAFETY: `first` plus a vector lies within the `nr` columns, at most `COLUMNS`.
                let load = |i: usize, j: usize| unsafe { taps[3 * i + j].as_ptr().add(first).cast::<T::Vector<S>>().read_unaligned() };
                both_axes::<T, S, Evaluate<C, 3>>(simd, load, |i, j, value| {
                    // SAFETY: `pointer` has checked the last position's vector, and tasks have distinct rows and panels.
                    unsafe { out.add((i * C::N + j) * self.position).cast::<T::Vector<S>>().write_unaligned(value) };
                });
            }
        }
    }
}

const _: () = assert!(MOST == Four::M + 2);
