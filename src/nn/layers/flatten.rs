//! Layers that only change the shape of their input, and the identity.

use crate::nn::module::layer::LayerPath;
use crate::nn::module::macros::{plain, stateless};

plain! {
    /// Returns its input.
    Identity, |x| Ok(x.clone());
}

/// Joins several dimensions into one: `[N, C, H, W]` becomes `[N, C·H·W]`.
#[derive(Debug)]
pub struct Flatten {
    start: isize,
    end: isize,
    path: LayerPath,
}

/// A new [`struct@Flatten`] of all dimensions but the first.
// Each use of the constant is a new layer with its own path, as intended.
#[allow(non_upper_case_globals, clippy::declare_interior_mutable_const)]
pub const Flatten: Flatten = Flatten { start: 1, end: -1, path: LayerPath::new() };

impl Flatten {
    /// Creates a layer that joins the dimensions `start` to `end`, inclusive; negative ones count
    /// from the end.
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
