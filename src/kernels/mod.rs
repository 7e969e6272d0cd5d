//! Kernels: computation on plain slices and small geometry structs. The only layer with `unsafe`.
//!
//! Every function here takes slices and returns nothing or plain values. Callers have checked the
//! shapes; a kernel asserts only what its memory safety depends on.

pub(crate) mod concat_buffer;
pub mod conv;
pub mod copy;
pub mod ctc;
pub mod dropout;
pub mod elementwise;
pub mod gemm;
pub mod geometry;
pub mod grid_sample;
#[cfg(feature = "image")]
pub mod jpeg;
pub mod loss;
pub mod norm;
pub mod optim;
pub mod pool;
pub mod reduce;
pub mod resample;
pub mod runtime;
pub mod scale;
pub mod softmax;
pub mod transpose;

/// Returns whether a test of `work` elementary operations ends in reasonable time: under Miri each
/// operation takes microseconds.
#[cfg(test)]
fn affordable(work: usize) -> bool {
    !cfg!(miri) || work < 4_000
}

/// Returns numbers in `[-1, 1)` for a test, independent of each other and of those of other seeds.
#[cfg(test)]
fn numbers(length: usize, seed: usize) -> Vec<f64> {
    // SplitMix64 (Steele, Lea & Flood, 2014).
    let mix = |state: u64| {
        let x = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let number = |i: usize| (mix((((seed as u64) << 32) + i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 11) as f64;
    (0..length).map(|i| number(i) / (1u64 << 52) as f64 - 1.0).collect()
}

/// Returns the tolerance for a sum of `terms` products of numbers up to 1, of a type with this
/// `epsilon`. Partial sums are about √terms, and each of the additions rounds once: six times what
/// that gives on average.
#[cfg(test)]
fn rounding(terms: usize, epsilon: f64) -> f64 {
    (terms + 2) as f64 * epsilon
}
