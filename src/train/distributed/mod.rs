//! Training on several machines: ranks that compute parts of each batch and add up their gradients.
//!
//! A batch is cut into a fixed number of shards. Each rank computes the gradients of some of them;
//! the sums are added as a fixed tree over the shards. So 1, 2, 4 or 8 ranks, with any number of
//! threads, give the same bits.

mod collective;
mod data_parallel;
mod gradients;
mod group;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(test)]
mod tests;
mod transport;

pub use data_parallel::{DataParallel, Distributed, ParallelEpoch};
pub use group::{Group, Traffic};
pub use transport::Transport;
