//! The parts of a training loop around the step: metrics and evaluation, averages of weights, early
//! stopping.
//!
//! Each part works alone in a loop written by hand.

mod average;
mod early_stopping;
pub mod metrics;

pub use average::{AverageRule, Averaged, Ema, EmaRule, Swa, SwaRule, WeightAverage, update_batch_norm};
pub use early_stopping::EarlyStopping;
pub use metrics::{Mean, Metric, Metrics, accuracy, evaluate, top_k_accuracy};
