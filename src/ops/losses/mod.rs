//! Losses: what a network's output is held against.
//!
//! Each is one fused kernel with one backward. `x_loss` takes the mean; `x_loss_with` says how.

mod cross_entropy;
mod elementwise;

pub use cross_entropy::{CrossEntropyOptions, NllOptions};
pub use elementwise::BceOptions;

#[cfg(test)]
mod tests;

/// How the losses of the elements or samples become the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// Their mean, weighted where classes have weights; NaN over none.
    #[default]
    Mean,
    /// Their sum.
    Sum,
    /// Each for itself.
    None,
}
