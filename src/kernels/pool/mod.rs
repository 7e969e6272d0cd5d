//! Pooling over channels-last maps, `[N, H, W, C]` in memory.
//!
//! [`Pooling`] describes sliding and adaptive windows alike: for each output position along an
//! axis, a [`Span`] of input positions. Every kernel iterates over a row of places (output
//! positions in the forward pass, input positions in the backward pass) and handles a block of `B`
//! channels at a time in registers. With fewer than `B` channels, a block extends into the next
//! place or the next row, whose own block is computed later and overwrites the overhang, so that
//! few channels (6 in LeNet) are vectorised too. The backward pass gathers: each input position
//! sums the gradients of the windows that cover it, so overlapping windows need neither locks nor
//! an order of threads.

mod average;
mod gather;
mod max;
mod rows;
mod windows;

pub use average::{average, average_backward};
pub use max::{max, max_backward, positions};
pub use windows::{Divisor, Pooling};

#[cfg(test)]
mod tests;
