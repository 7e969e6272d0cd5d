//! General matrix products, built on the register tile.

pub(crate) mod microkernel;
pub(crate) mod pack;
pub mod small_m;
pub(crate) mod transposed_a;

use std::ops::Range;

use super::elementwise;
use super::elementwise::epilogue::Epilogue;
use super::runtime::allocator::AlignedVec;
use super::runtime::parallel::{self, Disjoint};
use super::runtime::simd::Real;
use crate::kernels::gemm::microkernel::{Ascending, Rows, multiply};
use crate::kernels::gemm::pack::Panels;
use crate::kernels::gemm::transposed_a::multiply_transposed;

/// Rows of the result that one task computes: a multiple of the row count of every tile.
const BLOCK: usize = 48;
/// Elements of the second operand that are packed at a time.
const PACKED: usize = 4 << 20;
/// Rows that one partial sum of a transposed product covers.
const PART: usize = 1024;

/// The storage order of a matrix in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[rows, columns]`.
    Plain,
    /// `[columns, rows]`.
    Transposed,
}

/// Computes `c[m, n] = Σ_k a[m, k] · b[k, n]`, plus `bias[n]`; `b` may be stored as `[n, k]`.
pub fn gemm<T: Real>([m, n, k]: [usize; 3], a: &[T], b: &[T], b_layout: Layout, bias: Option<&[T]>, c: &mut [T]) {
    assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n);
    if b_layout == Layout::Transposed && m <= small_m::FEW_ROWS {
        return small_m::product([m, n, k], a, b, Epilogue::bias(bias), c);
    }
    if b_layout == Layout::Plain && m <= small_m::FEW_ROWS / 2 && bias.is_none() {
        return small_m::product_plain([m, n, k], a, b, c);
    }
    let [row_step, column_step] = if b_layout == Layout::Plain { [n, 1] } else { [1, k] };
    // Packs a large matrix in parts, so that memory never holds a second whole copy of it.
    let part = (PACKED / k.max(1)).max(BLOCK).next_multiple_of(64);
    for first in (0..n).step_by(part) {
        let columns = part.min(n - first);
        let panels = Panels::pack(k, columns, &b[(first * column_step).min(b.len())..], [row_step, column_step]);
        let epilogue = Epilogue::bias(bias.map(|bias| &bias[first..first + columns]));
        in_blocks(m, n, BLOCK, 2 * m * columns * k, c, |rows, c| {
            let starts: Vec<usize> = rows.clone().map(|m| m * k).collect();
            let out_starts: Vec<usize> = (0..rows.len()).map(|m| m * n).collect();
            let rows = Rows { starts: Ascending::new(&starts), taps: &[0], run: k };
            multiply(a, rows, panels.view(), &mut c[first..], Ascending::new(&out_starts), epilogue);
        });
    }
}

/// Computes `c[k, n] = Σ_m a[m, k] · b[m, n]`: the first operand is read transposed.
pub fn gemm_transposed<T: Real>([k, n, m]: [usize; 3], a: &[T], b: &[T], c: &mut [T]) {
    assert!(a.len() == m * k && b.len() == m * n && c.len() == k * n);
    if c.is_empty() {
        // The number of rows is unbounded if rows have no elements, so allocate nothing for them.
        return;
    }
    let parts = m.div_ceil(PART).max(1);
    // Tasks are (part of the sum, block of the result's rows); the sums of the parts are added in
    // order.
    let mut partial = AlignedVec::zeroed(if parts > 1 { (parts - 1) * k * n } else { 0 });
    c.fill(T::zero());
    let starts: Vec<usize> = (0..m).map(|m| m * k).collect();
    let columns: Vec<usize> = (0..k).collect();
    let sum_part = |part: usize, block: usize, out: &mut [T]| {
        let rows = part * PART..m.min((part + 1) * PART);
        let columns = &columns[block * BLOCK..k.min((block + 1) * BLOCK)];
        multiply_transposed(a, &starts[rows.clone()], columns, &b[rows.start * n..rows.end * n], n, n, out);
    };
    let blocks = k.div_ceil(BLOCK);
    let first = parallel::Disjoint::new(c);
    let others = parallel::Disjoint::new(&mut partial);
    parallel::for_each(parts * blocks, 2 * m * n * k, |task| {
        let (part, block) = (task / blocks, task % blocks);
        let (start, length) = (block * BLOCK * n, BLOCK.min(k - block * BLOCK) * n);
        // SAFETY: each task has its own rows of its own part.
        let out = unsafe { if part == 0 { first.slice(start, length) } else { others.slice((part - 1) * k * n + start, length) } };
        sum_part(part, block, out);
    });
    elementwise::add_parts(c, &partial);
}

/// Splits `rows` rows into blocks, one task each, and passes each task its disjoint part of `out`,
/// which has `columns` elements per row.
fn in_blocks<T: Real>(rows: usize, columns: usize, block: usize, work: usize, out: &mut [T], body: impl Fn(Range<usize>, &mut [T]) + Sync) {
    let out = Disjoint::new(out);
    parallel::for_each(rows.div_ceil(block), work, |task| {
        let range = task * block..rows.min((task + 1) * block);
        // SAFETY: blocks of rows do not overlap.
        let out = unsafe { out.slice(range.start * columns, range.len() * columns) };
        body(range, out);
    });
}

#[cfg(test)]
mod tests {
    use approx::abs_diff_eq;

    use super::*;
    use crate::kernels::{affordable, numbers, rounding};

    /// Rounds numbers whose sums of products are accurate in single precision too. The `f32`
    /// kernels have other tile sizes.
    fn single(numbers: &[f64]) -> Vec<f32> {
        numbers.iter().map(|&number| number as f32).collect()
    }

    const SIZES: &[[usize; 3]] = &[
        [1, 1, 1],
        [3, 5, 7],
        [48, 32, 16],
        [50, 33, 9],
        [13, 100, 40],
        [97, 20, 65],
        [2, 3, 0],
        [0, 4, 4],
        [4, 0, 2],
        [5, 40, 2100],
        [70, 40, 9],
        [66, 3, 100],
    ];

    #[test]
    fn products_agree_with_the_triple_loop() {
        for &[m, n, k] in SIZES.iter().filter(|sizes| affordable(sizes.iter().product())) {
            let (a, b, bias) = (numbers(m * k, 1), numbers(k * n, 2), numbers(n, 3));
            let transposed: Vec<f64> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
            let naive = |i: usize, j: usize| (0..k).map(|p| a[i * k + p] * b[p * n + j]).sum::<f64>() + bias[j];
            for (b, layout) in [(&b, Layout::Plain), (&transposed, Layout::Transposed)] {
                let mut c = vec![f64::NAN; m * n];
                gemm([m, n, k], &a, b, layout, Some(&bias), &mut c);
                for (at, &c) in c.iter().enumerate() {
                    assert!(abs_diff_eq!(c, naive(at / n, at % n), epsilon = rounding(k, f64::EPSILON)), "{m}×{n}×{k} {layout:?} at {at}");
                }
                let mut c = vec![f32::NAN; m * n];
                gemm([m, n, k], &single(&a), &single(b), layout, Some(&single(&bias)), &mut c);
                for (at, &c) in c.iter().enumerate() {
                    assert!(
                        abs_diff_eq!(f64::from(c), naive(at / n, at % n), epsilon = rounding(k, f32::EPSILON.into())),
                        "{m}×{n}×{k} {layout:?} at {at} in f32"
                    );
                }
            }
        }
    }

    #[test]
    fn transposed_products_agree_with_the_triple_loop() {
        for &[k, n, m] in SIZES.iter().filter(|sizes| affordable(sizes.iter().product())) {
            let (a, b) = (numbers(m * k, 1), numbers(m * n, 2));
            let mut c = vec![f64::NAN; k * n];
            gemm_transposed([k, n, m], &a, &b, &mut c);
            let mut of_single = vec![f32::NAN; k * n];
            gemm_transposed([k, n, m], &single(&a), &single(&b), &mut of_single);
            for (at, (&c, of_single)) in c.iter().zip(of_single).enumerate() {
                let expected: f64 = (0..m).map(|p| a[p * k + at / n] * b[p * n + at % n]).sum();
                assert!(abs_diff_eq!(c, expected, epsilon = rounding(m, f64::EPSILON)), "{k}×{n}×{m} at {at}");
                assert!(
                    abs_diff_eq!(f64::from(of_single), expected, epsilon = rounding(m, f32::EPSILON.into())),
                    "{k}×{n}×{m} at {at} in f32"
                );
            }
        }
    }
}
