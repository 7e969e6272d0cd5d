//! Losses: what a network's output is held against.
//!
//! Each is one fused kernel with one backward. `x_loss` takes the mean; `x_loss_with` says how.

mod classes;
mod pairs;

pub use classes::{CrossEntropyOptions, NllOptions};
pub use pairs::BceOptions;

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
