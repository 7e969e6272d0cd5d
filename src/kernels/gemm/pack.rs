//! The right operand of a product, packed into panels of `NR` columns, `[N / NR][K][NR]`: the order
//! in which the register tile reads it.

use std::ops::Range;

use crate::kernels::runtime::allocator::AlignedVec;
use crate::kernels::runtime::arrays::MapEach;
use crate::kernels::runtime::parallel;
use crate::kernels::runtime::simd::{Real, lanes};
use crate::kernels::transpose::transpose_part;

/// A `[K, N]` matrix, packed into [panels](PanelsView) that it owns.
pub(crate) struct Panels<T> {
    data: AlignedVec<T>,
    k: usize,
    n: usize,
}

impl<T: Real> Panels<T> {
    pub(crate) fn view(&self) -> PanelsView<'_, T> {
        PanelsView::new(self.k, self.n, &self.data)
    }

    /// Packs a matrix that is given by its strides: between its rows, and between its columns.
    pub(crate) fn pack(k: usize, n: usize, b: &[T], steps: [usize; 2]) -> Panels<T> {
        Panels::pack_with(k, n, |columns, panel| {
            let width = panel.len() / k;
            copy_strided(&b[columns.start * steps[1]..], steps, [k, columns.len()], panel, width);
        })
    }

    /// Packs a matrix whose panels are written by `fill(columns, panel)`. A panel that is wider
    /// than its columns is set to zero first.
    pub(crate) fn pack_with(k: usize, n: usize, fill: impl Fn(Range<usize>, &mut [T]) + Sync) -> Panels<T> {
        let nr = panel_width::<T>(n);
        let mut data = AlignedVec::uninit(filled_up::<T>(n) * k);
        parallel::chunks_mut(&mut data, nr * k.max(1), 4 * n * k, |panel, out| {
            let columns = panel * nr..n.min((panel + 1) * nr);
            if columns.len() * k < out.len() {
                out.fill(T::zero());
            }
            fill(columns, out);
        });
        Panels { data, k, n }
    }
}

/// Copies a strided matrix: `out[k · pitch + n] = b[k · steps[0] + n · steps[1]]`, reading along
/// the shorter stride.
pub(crate) fn copy_strided<T: Real>(b: &[T], steps: [usize; 2], [rows, columns]: [usize; 2], out: &mut [T], pitch: usize) {
    /// Rows whose part of `out` stays in L1 during the loop over the columns.
    const ROWS: usize = 64;
    if rows * columns == 0 {
        return;
    }
    if steps[0] == 1 && steps[1] != 1 {
        return transpose_part([columns, rows], b, steps[1], out, pitch);
    }
    if steps[1] <= steps[0] {
        for (k, out) in out.chunks_mut(pitch).take(rows).enumerate() {
            let row = b[k * steps[0]..].iter().step_by(steps[1].max(1));
            out.iter_mut().take(columns).zip(row).for_each(|(out, &b)| *out = b);
        }
        return;
    }
    for (block, out) in out.chunks_mut(ROWS * pitch).enumerate().take(rows.div_ceil(ROWS)) {
        let first = block * ROWS;
        for n in 0..columns {
            let column = b[first * steps[0] + n * steps[1]..].iter().step_by(steps[0].max(1));
            let out = out[n..].iter_mut().step_by(pitch);
            out.take(rows - first).zip(column).for_each(|(out, &b)| *out = b);
        }
    }
}

/// A view of the panels of a `[K, N]` matrix: blocks of `NR` columns, `[K][NR]`, stored one after
/// the other. The last panel may be one vector wide instead of two, and is padded with zeros.
#[derive(Clone, Copy)]
pub(crate) struct PanelsView<'a, T> {
    pub(super) data: &'a [T],
    pub(super) k: usize,
    pub(super) n: usize,
    nr: usize,
}

/// Returns the number of columns of every panel but the last, for a matrix of `n` columns: one
/// vector or two.
pub(crate) fn panel_width<T: Real>(n: usize) -> usize {
    if n <= lanes::<T>() { lanes::<T>() } else { 2 * lanes::<T>() }
}

/// Returns the number of columns of all panels together, padding included, for a matrix of `n`
/// columns.
pub(crate) fn filled_up<T: Real>(n: usize) -> usize {
    n.next_multiple_of(lanes::<T>())
}

impl<'a, T: Real> PanelsView<'a, T> {
    /// Views panels in an existing buffer.
    pub(crate) fn new(k: usize, n: usize, data: &'a [T]) -> PanelsView<'a, T> {
        assert_eq!(data.len(), filled_up::<T>(n) * k);
        PanelsView { data, k, n, nr: panel_width::<T>(n) }
    }

    /// Returns a range of the panels: the columns of a narrower matrix.
    pub(crate) fn panels(&self, range: Range<usize>) -> PanelsView<'a, T> {
        let [start, end] = [range.start, range.end].map_each(|panel| panel * self.nr);
        let data = &self.data[start * self.k..self.data.len().min(end * self.k)];
        PanelsView { data, n: end.min(self.n) - start.min(self.n), ..*self }
    }

    /// Returns a range of the rows. There must be at most one panel.
    pub(crate) fn rows(&self, range: Range<usize>) -> PanelsView<'a, T> {
        assert!(self.count() <= 1, "each panel has rows of its own");
        let width = filled_up::<T>(self.n);
        PanelsView { data: &self.data[range.start * width..range.end * width], k: range.len(), ..*self }
    }

    /// Returns the number of panels.
    pub(crate) fn count(&self) -> usize {
        self.n.div_ceil(self.nr)
    }

    /// Returns the number of columns of every panel but the last.
    pub(crate) fn width(&self) -> usize {
        self.nr
    }
}
