//! Layers that only give their input another shape, or none.

use crate::nn::module::layer::LayerPath;
use crate::nn::module::macros::{plain, stateless};

plain! {
    /// Returns its input.
    Identity, |x| Ok(x.clone());
}

/// Makes several dimensions one: `[N, C, H, W]` becomes `[N, C·H·W]`.
#[derive(Debug)]
pub struct Flatten {
    start: isize,
    end: isize,
    path: LayerPath,
}

/// A new [`struct@Flatten`] of all dimensions but the first.
// Each use is a layer with a place of its own, which is the point.
#[allow(non_upper_case_globals, clippy::declare_interior_mutable_const)]
pub const Flatten: Flatten = Flatten { start: 1, end: -1, path: LayerPath::new() };

impl Flatten {
    /// Of the dimensions `start` to `end`, both included, negative to count from the end.
    pub fn new(start: isize, end: isize) -> Flatten {
        Flatten { start, end, path: LayerPath::new() }
    }
}

impl Default for Flatten {
    fn default() -> Flatten {
        Flatten::new(1, -1)
    }
}

stateless! {
    Flatten { start, end }, |_layer| "Flatten".to_string(), |x| x.flatten(_layer.start, _layer.end);
}
