//! Metrics over many batches.

mod evaluation;
mod mean;

pub use evaluation::{Metrics, evaluate};
pub use mean::Mean;
