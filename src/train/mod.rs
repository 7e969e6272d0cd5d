//! What goes around a training step.

mod metrics;

pub use metrics::{Metrics, evaluate};
