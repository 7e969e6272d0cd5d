//! The register tile of weight gradients: `out[k, n] += Σ_m a[m, k] · b[m, n]`, with the reduction
//! over the rows of both operands.
//!
//! Rows of `a` are given as for [`multiply`](super::microkernel::multiply), by starts and offsets.
//! Neither operand is packed: packing costs more than it saves. Instead, each tile prefetches what
//! the next tile reads: a few elements of every row, a pattern that no hardware prefetcher
//! predicts.

// Arrays of vectors are indexed by constants: otherwise the compiler would keep them in memory.
#![allow(clippy::needless_range_loop)]

use pulp::{Simd, WithSimd};

use super::microkernel::{Columns, for_columns, masks};
use crate::kernels::runtime::simd::{Real, array, dispatch, prefetch};

/// Computes `out[k, ..] += Σ over rows m of a[starts[m] + columns[k]] · b[m, ..]` on the calling
/// thread. `b` is `[M, N]` with `pitch` elements from row to row; `out` is `[K, N]`.
pub(crate) fn multiply_transposed<T: Real>(a: &[T], starts: &[usize], columns: &[usize], b: &[T], pitch: usize, n: usize, out: &mut [T]) {
    let last = |offsets: &[usize]| offsets.iter().copied().max().unwrap_or(0);
    assert!(starts.is_empty() || columns.is_empty() || last(starts) + last(columns) < a.len());
    assert_eq!(out.len(), columns.len() * n);
    if n == 0 || starts.is_empty() {
        return;
    }
    assert!(n <= pitch && b.len() >= (starts.len() - 1) * pitch + n);
    dispatch::<T, _>(Transposed { a, starts, columns, b, pitch, n, out });
}

struct Transposed<'a, T> {
    a: &'a [T],
    starts: &'a [usize],
    columns: &'a [usize],
    b: &'a [T],
    pitch: usize,
    n: usize,
    out: &'a mut [T],
}

impl<T: Real> WithSimd for Transposed<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for_columns(simd, self.n, &mut self);
    }
}

impl<T: Real> Columns<T> for Transposed<'_, T> {
    #[inline(always)]
    fn columns<S: Simd, const MOST: usize, const SOME: usize, const FEW: usize, const NV: usize>(&mut self, simd: S, column: usize) {
        let mut first = 0;
        while first < self.columns.len() {
            // Rows of the result that read neighbouring elements of `a` are computed in one tile.
            let rest = &self.columns[first..];
            let run = rest.iter().zip(rest[0]..).take(MOST).take_while(|&(&column, next)| column == next).count();
            first += if const { MOST > SOME } && run == MOST {
                self.tile::<S, MOST, NV, true>(simd, column, first)
            } else if run >= SOME {
                self.tile::<S, SOME, NV, true>(simd, column, first)
            } else if const { SOME > FEW } && run >= FEW && run == rest.len() {
                self.tile::<S, FEW, NV, true>(simd, column, first)
            } else {
                self.tile::<S, SOME, NV, false>(simd, column, first)
            };
        }
    }
}

impl<T: Real> Transposed<'_, T> {
    /// Computes one tile of the result, from row `first` and column `column` on; returns its
    /// height. With `CONTIGUOUS`, its `MR` rows read neighbouring elements of `a`, so that one
    /// pointer is enough for all.
    #[inline(always)]
    fn tile<S: Simd, const MR: usize, const NV: usize, const CONTIGUOUS: bool>(&mut self, simd: S, column: usize, first: usize) -> usize {
        // Where speed does not matter, one compiled copy serves both cases.
        if const { T::FAST && !S::IS_SCALAR } && self.n - column >= NV * T::lanes::<S>() {
            self.masked_tile::<S, MR, NV, CONTIGUOUS, false>(simd, column, first)
        } else {
            self.masked_tile::<S, MR, NV, CONTIGUOUS, true>(simd, column, first)
        }
    }

    /// Computes the same as [`tile`](Transposed::tile). `MASKED` must be set if the columns may not
    /// fill the vectors.
    #[inline(always)]
    fn masked_tile<S: Simd, const MR: usize, const NV: usize, const CONTIGUOUS: bool, const MASKED: bool>(
        &mut self,
        simd: S,
        column: usize,
        first: usize,
    ) -> usize {
        let Transposed { a, starts, columns, b, pitch, n, .. } = *self;
        let lanes = T::lanes::<S>();
        let count = MR.min(columns.len() - first);
        let width = (NV * lanes).min(n - column);
        let masks = masks::<T, S, NV>(simd, width);
        let origin = a[columns[first]..].as_ptr();
        // Indices past the last row repeat it; their results are discarded.
        let offsets: [isize; MR] = array(|r| columns[first + r.min(count - 1)] as isize - columns[first] as isize);
        let mut row = b[column..].as_ptr();
        let mut tile = [[T::splat(simd, T::zero()); NV]; MR];
        // SAFETY: `multiply_transposed` returns early if there are none. With this hint the
        // compiler keeps the accumulators in registers.
        unsafe { std::hint::assert_unchecked(!starts.is_empty()) };
        for &start in starts {
            // SAFETY: `multiply_transposed` has asserted that `start + columns[k]` is within `a`
            // for each start, and that `b` holds a row of `n` elements for each start, `pitch`
            // apart; whole vectors are read where all `NV` are within the row, masked ones
            // elsewhere. `row` moves past the end only after the last read.
            unsafe {
                let a = origin.add(start);
                // The elements of these rows that the tiles below and beside this one read.
                prefetch(a.wrapping_add(MR));
                for v in 0..NV {
                    prefetch(row.wrapping_add((NV + v) * lanes));
                }
                let vectors: [T::Vector<S>; NV] = array(|v| {
                    let from = row.wrapping_add(v * lanes);
                    T::load::<S, MASKED>(simd, masks[v], from)
                });
                row = row.wrapping_add(pitch);
                for r in 0..MR {
                    let x = T::splat(simd, if CONTIGUOUS { *a.add(r) } else { *a.offset(offsets[r]) });
                    for v in 0..NV {
                        tile[r][v] = T::vector_mul_add(simd, x, vectors[v], tile[r][v]);
                    }
                }
            }
        }
        // All indices are constants: with any other index, the compiler would keep the array in
        // memory, in the inner loop too.
        for r in 0..MR {
            if r >= count {
                break;
            }
            let out = self.out[(first + r) * n + column..][..width].as_mut_ptr();
            for v in 0..NV {
                let out = out.wrapping_add(v * lanes);
                // SAFETY: `out` has room for `width` elements, the lanes of all masks together; the
                // pointer of a vector without any lane may be past the end. Vectors are plain
                // numbers, and the accesses are unaligned.
                unsafe {
                    let sum = T::vector_add(simd, T::load::<S, MASKED>(simd, masks[v], out), tile[r][v]);
                    T::store::<S, MASKED>(simd, masks[v], out, sum);
                }
            }
        }
        count
    }
}
