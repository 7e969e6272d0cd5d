//! Depthwise and grouped convolution with few channels per group: vectors along the channels, where
//! each lane is a channel of the result.
//!
//! If a group has fewer channels than a vector has lanes, a matrix product for each group leaves
//! most lanes empty. In a channels-last image neighbouring channels of the result are adjacent in
//! memory, even if they belong to different groups. So here a vector spans groups, and every lane
//! sums its own channel. A depthwise convolution reads its input directly. In a grouped one, each
//! lane reads all channels of its own group in turn: the input is first spread out into *planes*,
//! one for each channel of a group, in scratch memory that stays in the cache ([`SourceRows`]); the
//! rest is a depthwise convolution with more taps. Channel multipliers, and maps with fewer
//! channels than lanes, are handled as groups too.
//!
//! Along each axis, targets are divided into *phases* as in [`direct`](super::direct): the input
//! gradient of stride `s` is `s` correlations, each with its own part of the kernel, and each
//! writes every `s`th position. The weight gradient reads its input in the same order as the
//! forward pass.

mod source_rows;
mod tile;
pub(super) mod weight;
mod window_map;

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::kernels::conv::depthwise::source_rows::SourceRows;
use crate::kernels::conv::depthwise::tile::{Cells, Sums, Vectors, run_tiles};
use crate::kernels::conv::depthwise::window_map::{Phase, WindowMap};
use crate::kernels::conv::{ConvGeometry, Pass};
use crate::kernels::elementwise::epilogue::Epilogue;
use crate::kernels::norm::moments::Parts;
use crate::kernels::runtime::allocator::AlignedVec;
use crate::kernels::runtime::nontemporal;
use crate::kernels::runtime::parallel;
use crate::kernels::runtime::simd::{Real, dispatch};

/// Approximate minimum number of target elements that one task computes, and maximum number of
/// tasks: each band reads some rows of its neighbours again, and starts with rows that have not
/// been prefetched.
const GRAIN: usize = 1 << 15;
const TASKS: usize = 32;
/// Number of tasks for fewer elements than that, if reading a row again is cheap: a small number of
/// tasks is rarely divided evenly among threads.
const FEW_TASKS: usize = 16;
/// Approximate number of pixels whose statistics are summed in one piece: longer sums would
/// accumulate rounding errors.
const PART: usize = 1024;
/// Largest number of channels of a group for which lanes are spread out, even if this algorithm is
/// requested: scratch memory grows with the channels.
const PLANES: usize = 64;

/// Returns why a pass cannot be computed by this algorithm with reasonable memory; `None` if it
/// can.
pub(crate) fn unsupported_reason(g: &ConvGeometry, pass: Pass) -> Option<&'static str> {
    (pass.group(g)[0] > PLANES).then_some("groups have many channels")
}

impl Pass {
    /// Returns the number of channels of a group, in the source and in the target.
    pub(crate) fn group(self, g: &ConvGeometry) -> [usize; 2] {
        match self {
            Pass::Forward => [g.group_in(), g.group_out()],
            Pass::InputGradient => [g.group_out(), g.group_in()],
        }
    }
}

/// A pass with its weights arranged by vectors: see [`WindowMap::weights`].
pub(crate) struct Depthwise<T> {
    map: WindowMap,
    weights: AlignedVec<T>,
    work: usize,
}

impl<T: Real> Depthwise<T> {
    pub(crate) fn new(g: &ConvGeometry, pass: Pass, w: &[T]) -> Depthwise<T> {
        let map = WindowMap::new::<T>(g, pass);
        let mut weights = AlignedVec::zeroed(map.starts.len() * map.weights());
        map.for_weights(|place, at| weights[place] = w[at]);
        Depthwise { map, weights, work: work(g) }
    }

    /// Returns the number of rows of a band, such that bands have about the same size.
    fn band(&self) -> usize {
        let map = &self.map;
        let elements = map.batch * map.images()[1];
        let grain = if map.is_plain() { GRAIN.min(elements / FEW_TASKS).max(1) } else { GRAIN }.max(elements / TASKS);
        map.rows.target.div_ceil((map.rows.target * map.row()[1]).div_ceil(grain).clamp(1, map.rows.target.max(1)))
    }

    /// Returns the number of rows of a band whose statistics are summed in one piece.
    fn part(&self) -> usize {
        PART.div_ceil(self.map.columns.target.max(1))
    }

    /// Returns the parts over which statistics are taken: some rows of a band of an image.
    pub(crate) fn parts(&self) -> Parts {
        let (map, band, part) = (&self.map, self.band(), self.part());
        let (height, width) = (map.rows.target, map.columns.target);
        let mut of_image = vec![];
        for first in (0..height).step_by(band) {
            let of_part = |row: usize| part.min(band - row).min(height.saturating_sub(first + row)) * width;
            of_image.extend((0..band).step_by(part).map(of_part));
        }
        let last = map.starts.len().saturating_sub(1) * map.lanes;
        // If the last vector overlaps the one before it, its first channels have statistics in
        // both.
        let place = |channel: usize| if channel < last { channel } else { last + channel - map.starts.last().unwrap_or(&0) };
        Parts { rows: of_image.repeat(map.batch), width: map.starts.len() * map.lanes, places: (0..map.channels[1]).map(place).collect() }
    }

    pub(crate) fn run(&self, x: &[T], epilogue: Epilogue<'_, T>, y: &mut [T]) {
        let (map, row) = (&self.map, self.map.row()[1]);
        if y.is_empty() {
            return;
        }
        let (band, part) = (self.band(), self.part());
        let bands = map.rows.target.div_ceil(band);
        let [image, target_image] = map.images();
        let vector = map.lanes * size_of::<T>();
        let aligned = (y.as_ptr() as usize).is_multiple_of(vector) && (map.channels[1] * size_of::<T>()).is_multiple_of(vector);
        let streams = nontemporal::pays::<T>(y.len()) && map.is_plain() && epilogue.fits_registers() && aligned;
        let y = parallel::Disjoint::new(y);
        parallel::for_each(map.batch * bands, self.work, |task| {
            let rows = task % bands * band..map.rows.target.min((task % bands + 1) * band);
            let first = task / bands * target_image + rows.start * row;
            // SAFETY: tasks own distinct rows of the target.
            let y = unsafe { y.slice(first, rows.len() * row) };
            let x = &x[task / bands * image..][..image];
            let accumulator = epilogue.accumulator.map(|accumulator| accumulator.part(task * band.div_ceil(part)));
            let epilogue = Epilogue { accumulator, ..epilogue.from(first) };
            dispatch::<T, _>(Band { map, weights: &self.weights, x, rows, epilogue, part, y, streams });
            if streams {
                nontemporal::fence();
            }
        });
    }
}

/// Returns the cost of a pass, in the elementary operations that decide whether threads are woken:
/// the operations of a vector count as two.
pub(crate) fn work(g: &ConvGeometry) -> usize {
    g.work() / 8
}

/// Some rows of one image.
struct Band<'a, T> {
    map: &'a WindowMap,
    weights: &'a [T],
    x: &'a [T],
    rows: Range<usize>,
    epilogue: Epilogue<'a, T>,
    /// Number of rows whose statistics are summed in one piece.
    part: usize,
    y: &'a mut [T],
    /// Whether `y` is written with non-temporal stores.
    streams: bool,
}

impl<T: Real> WithSimd for Band<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (map, row) = (self.map, self.map.row()[1]);
        assert_eq!(T::lanes::<S>(), map.lanes);
        let mut sources = SourceRows::new(map);
        let mut blocks = vec![];
        let together = sources.vectors_together(map.starts.len());
        for first in (0..map.starts.len()).step_by(together) {
            let end = first + together;
            let vectors = Vectors { channels: &sources.select(first..end), weights: map.weights(), lanes: map.used() };
            for (index, target) in self.rows.clone().enumerate() {
                sources.prepare(self.x, 0, target);
                for phase in &map.columns.phases {
                    let mut cells = sources.cells(self.x, target, phase, &mut blocks);
                    if phase.at == 0 && target + 1 < self.rows.end {
                        cells.ahead = sources.ahead(self.x, target);
                    }
                    self.sums(simd, index, phase, first, cells, vectors);
                }
                if end == map.starts.len() && !self.epilogue.fits_registers() {
                    self.epilogue.finish(index * row, &mut self.y[index * row..][..row]);
                }
            }
        }
    }
}

impl<T: Real> Band<'_, T> {
    /// Computes a row of targets in a phase, for vectors from `first` on.
    #[inline(always)]
    fn sums<S: Simd>(&mut self, simd: S, index: usize, phase: &Phase, first: usize, cells: Cells<'_, T>, vectors: Vectors<'_>) {
        let map = self.map;
        let channels = map.channels[1];
        let (part, is_first) = (index / self.part, index.is_multiple_of(self.part));
        let accumulator = self.epilogue.accumulator.map(|accumulator| (accumulator.part(part).from(first * map.lanes), is_first));
        let sums = Sums {
            weights: &self.weights[first * map.weights()..],
            bias: self.epilogue.bias,
            clamp: self.epilogue.clamp_in_registers(),
            target: &mut self.y[index * map.row()[1] + phase.at * channels..],
            pitch: map.columns.scatter * channels,
            streams: self.streams,
            accumulator,
        };
        // SAFETY: the row blocks are those of `map`, in a source with all of its rows and as many
        // columns as the cells state (`Prepared::run` has checked the sizes; `SourceRows` allocates
        // its own); weights are laid out by `map` too; a row of the target has cells of `pitch`
        // elements, of which the last has at least all channels; if it is streamed, `run` has
        // checked that all vectors are aligned; and `run` gives each band its own parts of the
        // accumulator.
        unsafe { run_tiles::<T, S>(simd, sums, cells, vectors) }
    }
}
