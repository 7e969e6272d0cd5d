//! Height and width as arguments of layers.

/// Height and width; a single number sets both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair(pub [usize; 2]);

impl From<usize> for Pair {
    fn from(size: usize) -> Pair {
        Pair([size, size])
    }
}

impl From<[usize; 2]> for Pair {
    fn from(sizes: [usize; 2]) -> Pair {
        Pair(sizes)
    }
}

impl From<(usize, usize)> for Pair {
    fn from((height, width): (usize, usize)) -> Pair {
        Pair([height, width])
    }
}

pub(crate) use crate::profiling::short_size as short;

/// Returns the product as a count, saturating at the largest `u64`.
pub(crate) fn product(sizes: &[usize]) -> u64 {
    sizes.iter().fold(1u64, |n, &size| n.saturating_mul(size as u64))
}
