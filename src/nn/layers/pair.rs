//! Sizes along height and width.

pub(crate) use crate::profiling::short_size as short;
pub use crate::tensor::Pair;

/// Returns the product as a count, saturating at the largest `u64`.
pub(crate) fn product(sizes: &[usize]) -> u64 {
    sizes.iter().fold(1u64, |n, &size| n.saturating_mul(size as u64))
}
