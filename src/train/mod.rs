//! The parts of a training loop around the step: metrics and evaluation.

mod metrics;

pub use metrics::{Metrics, evaluate};
