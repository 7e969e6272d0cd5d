//! The register tile: the inner loop that every matrix product and convolution shares.
//!
//! A tile is `MR` rows by `NV` vectors of accumulators, kept in registers while the reduction runs.
//! [`multiply`] computes `out[m, n] = Σ a[m, k] · b[k, n]`. `b` is packed into panels
//! ([`pack`](super::pack)). `a` is not packed: a row is given by its start, and the reduction runs
//! over *taps* (offsets from the start) of `run` contiguous elements each. A plain matrix has one
//! tap; the taps of a convolution are the kernel's positions in a padded image, so im2col needs no
//! copy. The counterpart for weight gradients, where the reduction runs over the rows, is
//! [`transposed_a`](super::transposed_a).
//!
//! The order of the reduction depends on the shape alone.

// Arrays of vectors are indexed by constants: otherwise the compiler would keep them in memory.
#![allow(clippy::needless_range_loop)]

use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};

use super::pack::PanelsView;
use crate::kernels::elementwise::epilogue::{Activation, Epilogue};
use crate::kernels::norm::moments::MomentAccumulator;
use crate::kernels::runtime::nontemporal;
use crate::kernels::runtime::parallel::Disjoint;
use crate::kernels::runtime::simd::{Real, array, dispatch, lanes, prefetch};

/// Number of products that are summed in one piece. Longer sums are sums of such pieces, so that
/// rounding errors grow more slowly with the length.
const PIECE: usize = 1024;

/// Offsets in ascending order, so that the last is the largest.
#[derive(Clone, Copy)]
pub(crate) struct Ascending<S>(S);

impl<S: AsRef<[usize]>> Ascending<S> {
    pub(crate) fn new(offsets: S) -> Self {
        assert!(offsets.as_ref().is_sorted());
        Ascending(offsets)
    }

    /// Returns the first `count` offsets.
    pub(crate) fn first(&self, count: usize) -> Ascending<&[usize]> {
        Ascending(&self.0.as_ref()[..count])
    }
}

impl Ascending<&[usize]> {
    fn last(&self) -> usize {
        self.0.last().copied().unwrap_or(0)
    }
}

/// The rows of the left operand: the start of each row, and the taps (offsets from the start) of
/// `run` elements each that form the row.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) starts: Ascending<&'a [usize]>,
    pub(crate) taps: &'a [usize],
    pub(crate) run: usize,
}

impl Rows<'_> {
    /// Returns the length that the left operand must have to contain all rows.
    fn extent(&self) -> usize {
        let last_tap = self.taps.iter().max();
        last_tap.filter(|_| !self.starts.0.is_empty()).map_or(0, |tap| self.starts.last() + tap + self.run)
    }
}

/// Computes `out[out_starts[m]..][..N] = Σ over taps t, k of a[starts[m] + t + k] · b[(t, k), ..]`
/// on the calling thread, and applies the epilogue. The residual is indexed as `out` is. Rows of
/// `out` may overlap if the epilogue only adds a bias.
pub(crate) fn multiply<T: Real>(
    a: &[T],
    rows: Rows<'_>,
    b: PanelsView<'_, T>,
    out: &mut [T],
    out_starts: Ascending<&[usize]>,
    epilogue: Epilogue<'_, T>,
) {
    // SAFETY: `out` is borrowed exclusively.
    unsafe { multiply_into(a, rows, b, &Disjoint::new(out), out_starts, epilogue) }
}

/// Computes the same as [`multiply`], into an `out` whose other elements may be written by other
/// threads at the same time.
///
/// # Safety
/// No other thread may access the elements that this call writes, nor its columns of the
/// accumulator's part.
pub(crate) unsafe fn multiply_into<T: Real>(
    a: &[T],
    rows: Rows<'_>,
    b: PanelsView<'_, T>,
    out: &Disjoint<'_, T>,
    out_starts: Ascending<&[usize]>,
    epilogue: Epilogue<'_, T>,
) {
    assert_eq!(rows.taps.len() * rows.run, b.k, "a row has as many elements as the panels have rows");
    assert!(rows.extent() <= a.len() && rows.starts.0.len() == out_starts.0.len());
    let end = if out_starts.0.is_empty() { 0 } else { out_starts.last() + b.n };
    let base = out.pointer(0, end);
    assert!(epilogue.bias.is_none_or(|bias| bias.len() >= b.n) && epilogue.residual.is_none_or(|residual| residual.len() >= end));
    let (starts, out_starts) = (rows.starts.0, out_starts.0);
    let aligned = |lanes: usize| {
        base.addr().is_multiple_of(64) && b.n.is_multiple_of(lanes) && out_starts.iter().all(|start| start.is_multiple_of(lanes))
    };
    let streams = nontemporal::pays::<T>(out.len()) && aligned(lanes::<T>());
    if b.k == 0 {
        for &start in out_starts {
            // SAFETY: by this function's contract.
            let row = unsafe { out.slice(start, b.n) };
            match epilogue.bias {
                Some(bias) => row.copy_from_slice(&bias[..b.n]),
                None => row.fill(T::zero()),
            }
            epilogue.finish(start, row);
        }
    } else if b.n > 0 {
        // Where rows of the result overlap, an element must not receive its earlier pieces twice.
        let apart = b.k <= PIECE || out_starts.windows(2).all(|pair| pair[1] - pair[0] >= b.n);
        let piece = if apart { PIECE } else { b.k };
        dispatch::<T, _>(Multiply { a, starts, taps: rows.taps, run: rows.run, piece, b, base, out_starts, epilogue, streams });
    }
    if streams {
        nontemporal::fence();
    }
}

struct Multiply<'a, T> {
    a: &'a [T],
    starts: &'a [usize],
    taps: &'a [usize],
    run: usize,
    /// Number of products in a piece.
    piece: usize,
    b: PanelsView<'a, T>,
    /// The first element of the result.
    base: *mut T,
    out_starts: &'a [usize],
    epilogue: Epilogue<'a, T>,
    /// Whether results are written with non-temporal stores; all are whole, aligned vectors then.
    streams: bool,
}

impl<T: Real> WithSimd for Multiply<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for_columns(simd, self.b.n, &mut self);
    }
}

/// A product that is computed a few columns at a time.
pub(crate) trait Columns<T> {
    /// Computes the columns that `NV` vectors hold, from `column` on, in tiles of `MOST` rows, or
    /// of `SOME` or `FEW` rows where fewer are left.
    fn columns<S: Simd, const MOST: usize, const SOME: usize, const FEW: usize, const NV: usize>(&mut self, simd: S, column: usize);
}

/// Loops over `n` columns, two vectors at a time; the last step uses one vector if that is enough.
/// Tiles have as many rows as the registers can hold, in addition to a row of the right operand and
/// one broadcast element.
#[inline(always)]
pub(crate) fn for_columns<T: Real, S: Simd>(simd: S, n: usize, product: &mut impl Columns<T>) {
    let lanes = T::lanes::<S>();
    for column in (0..n).step_by(2 * lanes) {
        // Conditions in `const` blocks remove unused variants before they are compiled.
        if n - column <= lanes {
            if const { S::IS_SCALAR || !T::FAST } {
                product.columns::<S, 4, 4, 4, 1>(simd, column);
            } else {
                product.columns::<S, 12, 8, 4, 1>(simd, column);
            }
        } else if const { S::IS_SCALAR || !T::FAST } {
            product.columns::<S, 4, 4, 4, 2>(simd, column);
        } else if const { S::REGISTER_COUNT >= 32 } {
            product.columns::<S, 12, 8, 4, 2>(simd, column);
        } else {
            product.columns::<S, 6, 4, 2, 2>(simd, column);
        }
    }
}

impl<T: Real> Columns<T> for Multiply<'_, T> {
    /// Computes all rows of a panel, piece by piece. A piece is as many whole taps as fit into it,
    /// or a part of one tap. Later pieces are added to the results of the earlier ones.
    #[inline(always)]
    fn columns<S: Simd, const MOST: usize, const SOME: usize, const FEW: usize, const NV: usize>(&mut self, simd: S, column: usize) {
        let taps_at_once = (self.piece / self.run).clamp(1, self.taps.len());
        let mut done = 0;
        for taps in self.taps.chunks(taps_at_once) {
            for from in (0..self.run).step_by(self.piece) {
                let piece = Piece { taps, from, run: self.piece.min(self.run - from), done };
                done += taps.len() * piece.run;
                let mut first = 0;
                while first < self.starts.len() {
                    let rest = self.starts.len() - first;
                    first += if const { MOST == FEW } || rest <= FEW {
                        self.tile::<S, FEW, NV>(simd, column, first, piece)
                    } else if rest <= SOME {
                        self.tile::<S, SOME, NV>(simd, column, first, piece)
                    } else {
                        self.tile::<S, MOST, NV>(simd, column, first, piece)
                    };
                }
            }
        }
    }
}

impl<T: Real> Multiply<'_, T> {
    /// Computes one piece of the tile that starts at row `first` and column `column`; returns the
    /// tile's height.
    #[inline(always)]
    fn tile<S: Simd, const MR: usize, const NV: usize>(&self, simd: S, column: usize, first: usize, piece: Piece<'_>) -> usize {
        let Multiply { a, starts, b, base, out_starts, epilogue, .. } = *self;
        let lanes = T::lanes::<S>();
        let panel = &b.data[column * b.k..][..b.k * NV * lanes];
        let width = (NV * lanes).min(b.n - column);
        let masks = masks::<T, S, NV>(simd, width);
        let count = MR.min(starts.len() - first);
        let (is_first, is_last) = (piece.done == 0, piece.done + piece.taps.len() * piece.run == b.k);
        let streams = self.streams && is_last;
        if !streams {
            for &start in &out_starts[first..first + count] {
                (0..NV).for_each(|v| prefetch(base.wrapping_add(start + column + v * lanes)));
            }
        }
        // SAFETY: `multiply_into` has asserted that every row, tap and run is within `a`, that
        // `panel` has `taps · run` rows of `NV` vectors, and that `taps` and `run` are not 0.
        let tile = unsafe {
            // Indices past the last row repeat it; their results are discarded.
            let row = |r: usize| a.as_ptr().add(*starts.get_unchecked(first + r.min(count - 1)) + piece.from);
            dot::<T, S, MR, NV>(simd, &array(row), piece.taps, piece.run, panel.as_ptr().add(piece.done * NV * lanes))
        };
        let bias = epilogue.bias.filter(|_| is_first).map(|bias| {
            // SAFETY: `multiply_into` has asserted that the bias has an element for each column;
            // the mask covers the columns of this panel.
            let load = |v: usize| unsafe { T::load_masked(simd, masks[v], bias.as_ptr().wrapping_add(column + v * lanes)) };
            array(load)
        });
        let addend = if is_first { epilogue.residual.map(|residual| residual.as_ptr()) } else { Some(base.cast_const()) };
        let activation = if is_last { epilogue.activation } else { Activation::Linear };
        let accumulator = epilogue.accumulator.filter(|_| is_last).map(|accumulator| (accumulator.from(column), first == 0));
        let finish = Finish { bias, addend, activation, accumulator, count, masks };
        // SAFETY: `first + r` is a row, `first + count - 1` the last one of this tile.
        let at = |r: usize| unsafe { out_starts.get_unchecked(first + r.min(count - 1)) + column };
        let to = |r: usize, v: usize| base.wrapping_add(at(r) + v * lanes);
        let remaining = epilogue.remaining_activation().filter(|_| is_last);
        // SAFETY: `multiply_into` has asserted that `out` and the residual have room for `b.n`
        // elements at each of `out_starts`, and that results are aligned where they are streamed.
        // By its contract no other thread accesses the elements of this tile or the accumulator's
        // columns. `aside` has room for the whole tile, and is written before it is read.
        unsafe {
            // Where speed matters, store directly from registers. Only there, because each variant
            // is another copy of the code to compile.
            if const { T::FAST && !S::IS_SCALAR } && count == MR && remaining.is_none() {
                match width == NV * lanes {
                    true if streams => finish.tile::<MR, false>(simd, tile, at, |r, v, y| nontemporal::store(to(r, v).cast(), y)),
                    true => finish.tile::<MR, false>(simd, tile, at, |r, v, y| to(r, v).cast::<T::Vector<S>>().write_unaligned(y)),
                    false => finish.tile::<MR, true>(simd, tile, at, |r, v, y| T::store_masked(simd, masks[v], to(r, v), y)),
                }
            } else {
                let mut aside = MaybeUninit::<Aligned<[[T::Vector<S>; NV]; MR]>>::uninit();
                let aside = aside.as_mut_ptr().cast::<T::Vector<S>>();
                finish.tile::<MR, true>(simd, tile, at, |r, v, y| aside.add(r * NV + v).write(y));
                if let Some(remaining) = remaining {
                    remaining.map(std::slice::from_raw_parts_mut(aside.cast::<T>(), MR * NV * lanes));
                }
                for r in 0..count {
                    if streams && width == NV * lanes {
                        (0..NV).for_each(|v| nontemporal::store(to(r, v).cast(), aside.add(r * NV + v).read()));
                    } else {
                        (0..NV).for_each(|v| T::store_masked(simd, masks[v], to(r, v), aside.add(r * NV + v).read()));
                    }
                }
            }
        }
        count
    }
}

/// Aligns vectors so that none spans two cache lines; the vector types alone do not require that.
#[repr(align(64))]
struct Aligned<V>(#[allow(dead_code)] V);

/// A part of the products that each element of the result sums.
#[derive(Clone, Copy)]
struct Piece<'a> {
    taps: &'a [usize],
    /// Offset of the piece's first element within a tap, and number of elements per tap.
    from: usize,
    run: usize,
    /// Number of products in the earlier pieces.
    done: usize,
}

/// The operations that are applied to a tile's sums before they are written.
struct Finish<'a, T: Real, S: Simd, const NV: usize> {
    bias: Option<[T::Vector<S>; NV]>,
    /// Base pointer of the addends of all rows.
    addend: Option<*const T>,
    activation: Activation,
    /// The accumulator of the statistics of the tile's columns, and whether this tile is the first
    /// of these columns.
    accumulator: Option<(MomentAccumulator<'a, T>, bool)>,
    /// Number of rows that are valid.
    count: usize,
    masks: [T::Mask<S>; NV],
}

impl<T: Real, S: Simd, const NV: usize> Finish<'_, T, S, NV> {
    /// Finishes a tile, whose row `r` has its addends at `at(r)`, and passes it to `put(r, v,
    /// vector)`. All indices are constants: with any other index, the compiler would keep the tile
    /// in memory, in the inner loop too.
    ///
    /// # Safety
    /// The vectors (if `MASKED`, their lanes in the masks) must be readable in the addends, and the
    /// accumulator's columns must belong to this thread.
    #[inline(always)]
    unsafe fn tile<const MR: usize, const MASKED: bool>(
        &self,
        simd: S,
        mut tile: [[T::Vector<S>; NV]; MR],
        at: impl Fn(usize) -> usize,
        put: impl Fn(usize, usize, T::Vector<S>),
    ) {
        let lanes = T::lanes::<S>();
        if let Some(bias) = self.bias {
            for r in 0..MR {
                for v in 0..NV {
                    tile[r][v] = T::vector_add(simd, tile[r][v], bias[v]);
                }
            }
        }
        if let Some(addend) = self.addend {
            for r in 0..MR {
                for v in 0..NV {
                    let from = addend.wrapping_add(at(r) + v * lanes);
                    // SAFETY: by this function's contract.
                    let addend = unsafe { T::load::<S, MASKED>(simd, self.masks[v], from) };
                    tile[r][v] = T::vector_add(simd, tile[r][v], addend);
                }
            }
        }
        if let Some(low) = self.activation.lowest() {
            let low = T::splat(simd, low);
            for r in 0..MR {
                for v in 0..NV {
                    tile[r][v] = T::vector_raise(simd, tile[r][v], low);
                }
            }
        }
        if let Some(high) = self.activation.highest() {
            let high = T::splat(simd, high);
            for r in 0..MR {
                for v in 0..NV {
                    tile[r][v] = T::vector_lower(simd, tile[r][v], high);
                }
            }
        }
        for r in 0..MR {
            for v in 0..NV {
                put(r, v, tile[r][v]);
            }
        }
        if let Some((accumulator, fresh)) = self.accumulator {
            for v in 0..NV {
                // SAFETY: by this function's contract.
                let mut running = unsafe { accumulator.open::<S>(simd, v * lanes, fresh) };
                for r in 0..MR {
                    if r < self.count {
                        running.add(simd, tile[r][v]);
                    }
                }
                running.close();
            }
        }
    }
}

/// Returns the masks of a panel's vectors, of which `width` columns are valid.
#[inline(always)]
pub(crate) fn masks<T: Real, S: Simd, const NV: usize>(simd: S, width: usize) -> [T::Mask<S>; NV] {
    let lanes = T::lanes::<S>();
    array(|v| T::mask(simd, width.saturating_sub(v * lanes).min(lanes)))
}

/// Computes one tile: `tile[r][v] = Σ over taps t, k of rows[r][t + k] · panel[(t, k)][v]`.
///
/// # Safety
/// `rows[r] + t .. + run` must be readable for each tap `t`, and `panel` for `taps · run · NV`
/// vectors. There must be at least one tap, and `run` must not be 0.
#[inline(always)]
unsafe fn dot<T: Real, S: Simd, const MR: usize, const NV: usize>(
    simd: S,
    rows: &[*const T; MR],
    taps: &[usize],
    run: usize,
    panel: *const T,
) -> [[T::Vector<S>; NV]; MR] {
    // SAFETY: by this function's contract.
    unsafe { std::hint::assert_unchecked(!taps.is_empty() && run > 0) };
    let mut tile = [[T::splat(simd, T::zero()); NV]; MR];
    let mut b = panel.cast::<T::Vector<S>>();
    // Elements per cache line. Short runs are left to the hardware prefetcher.
    let line = if run * size_of::<T>() < 128 { run } else { 64 / size_of::<T>() };
    // Approximate distance to the rows of the next tile.
    let ahead = MR.wrapping_mul((rows[MR - 1] as usize).wrapping_sub(rows[0] as usize) / (MR - 1));
    // The loops have no early exit, so that the accumulators stay in registers until the end.
    for &tap in taps {
        let (mut k, mut left) = (tap, run);
        loop {
            let steps = left.min(line);
            for row in rows.iter().filter(|_| line < run) {
                prefetch(row.wrapping_add(k).wrapping_byte_add(ahead));
            }
            let end = k + steps;
            loop {
                // SAFETY: by this function's contract; `b` advances `NV` vectors for each of the
                // `taps · run` steps.
                let columns: [T::Vector<S>; NV] = array(|v| unsafe { b.add(v).read_unaligned() });
                b = b.wrapping_add(NV);
                for r in 0..MR {
                    // SAFETY: by this function's contract.
                    let x = T::splat(simd, unsafe { *rows[r].add(k) });
                    for v in 0..NV {
                        tile[r][v] = T::vector_mul_add(simd, x, columns[v], tile[r][v]);
                    }
                }
                k += 1;
                if k == end {
                    break;
                }
            }
            left -= steps;
            if left == 0 {
                break;
            }
        }
    }
    tile
}
