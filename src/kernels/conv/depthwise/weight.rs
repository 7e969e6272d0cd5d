//! The weight gradient of depthwise and grouped convolution: each lane sums its own channel.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::source_rows::SourceRows;
use super::tile::{Vectors, WeightSums, run_tiles};
use super::window_map::WindowMap;
use super::work;
use crate::kernels::conv::{ConvGeometry, Pass};
use crate::kernels::elementwise;
use crate::kernels::runtime::allocator::AlignedVec;
use crate::kernels::runtime::parallel::{self, Disjoint};
use crate::kernels::runtime::simd::{Real, dispatch};

/// Minimum number of output elements, and of pixels, that a task reads: adding up its sums must
/// cost little compared with computing them.
const GRAIN: usize = 1 << 16;
const PIXELS: usize = 256;
/// Maximum number of parts: each starts with rows that have not been prefetched.
const PARTS: usize = 64;
/// Approximate number of elements of the sums of a task, if there are as many: they stay in the
/// cache.
const SUMS: usize = 1 << 13;
/// Maximum number of elements of all partial sums together.
const PARTIALS: usize = 1 << 22;

pub(crate) fn weight_gradient<T: Real>(g: &ConvGeometry, x: &[T], dy: &[T], dw: &mut [T]) {
    let map = WindowMap::new::<T>(g, Pass::Forward);
    let vectors = map.starts.len();
    let (rows, all) = (map.batch * map.rows.target, vectors * map.weights());
    if rows == 0 || all == 0 {
        return dw.fill(T::zero());
    }
    // Tasks are (part of the sum, vectors of channels).
    let parts = (PARTIALS / all).clamp(1, PARTS);
    let part = GRAIN.div_ceil(map.row()[1]).max(PIXELS.div_ceil(map.columns.target)).max(rows.div_ceil(parts));
    let part = rows.div_ceil(rows.div_ceil(part));
    let block = (SUMS / map.weights()).clamp(1, vectors);
    let block = vectors.div_ceil(vectors.div_ceil(block));
    let (parts, blocks) = (rows.div_ceil(part), vectors.div_ceil(block));
    let mut sums = AlignedVec::uninit(parts * all);
    {
        let sums = Disjoint::new(&mut sums);
        parallel::for_each(parts * blocks, work(g), |task| {
            let (part_index, first) = (task / blocks, task % blocks * block);
            let vectors = first..vectors.min(first + block);
            let rows = part_index * part..rows.min((part_index + 1) * part);
            // SAFETY: each task has its own vectors of its own part.
            let sums = unsafe { sums.slice(part_index * all + first * map.weights(), vectors.len() * map.weights()) };
            sums.fill(T::zero());
            dispatch::<T, _>(Task { map: &map, x, dy, rows, vectors, sums });
        });
    }
    let sum = elementwise::sum_parts(&mut sums, all);
    map.for_weights(|place, at| dw[at] = sum[place]);
}

struct Task<'a, T> {
    map: &'a WindowMap,
    x: &'a [T],
    dy: &'a [T],
    /// Rows of the output, counted through all images.
    rows: Range<usize>,
    vectors: Range<usize>,
    sums: &'a mut [T],
}

impl<T: Real> WithSimd for Task<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Task { map, x, dy, .. } = self;
        assert_eq!(T::lanes::<S>(), map.lanes);
        let row = map.row()[1];
        let mut sources = SourceRows::new(map);
        let mut blocks = vec![];
        let together = sources.vectors_together(self.vectors.len());
        for (first, sums) in self.vectors.step_by(together).zip(self.sums.chunks_exact_mut(together * map.weights())) {
            let vectors = Vectors { channels: &sources.select(first..first + together), weights: map.weights(), lanes: map.used() };
            for index in self.rows.clone() {
                let (image, target) = (index / map.rows.target, index % map.rows.target);
                let x = &x[image * map.images()[0]..][..map.images()[0]];
                sources.prepare(x, image, target);
                for phase in &map.columns.phases {
                    let mut cells = sources.cells(x, target, phase, &mut blocks);
                    cells.ahead = sources.ahead(x, target);
                    let (gradient, ahead) = dy[index * row..].split_at(row);
                    let ahead = if map.is_plain() { &ahead[..row.min(ahead.len())] } else { &[] };
                    let sums = WeightSums { sums, gradient, pitch: map.channels[1], ahead };
                    // SAFETY: the row blocks are those of `map`, in an image with all of its rows
                    // and columns or in a ring, which contains the rows that the target reads and
                    // the columns of whole tiles; sums are laid out by `map` too; the gradient is a
                    // row with all channels.
                    unsafe { run_tiles::<T, S>(simd, sums, cells, vectors) }
                }
            }
        }
    }
}
