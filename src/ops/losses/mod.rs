//! Losses: they compare a network's output with its target.
//!
//! The losses of every-day use are one fused kernel with one backward pass each; the others are
//! made of other operations. `x_loss` returns the mean; `x_loss_with` takes the reduction as an
//! option.

mod composed;
mod cross_entropy;
mod ctc;
mod elementwise;

pub use composed::{KlDivOptions, TripletOptions};
pub use cross_entropy::{CrossEntropyOptions, NllOptions};
pub use ctc::{CtcOptions, ctc_greedy_decode};
pub use elementwise::BceOptions;

#[cfg(test)]
mod tests;

/// How the losses of the elements or samples are reduced to the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// The mean, weighted where classes have weights; NaN over no elements.
    #[default]
    Mean,
    /// The sum.
    Sum,
    /// No reduction: one loss for each element or sample.
    None,
}
