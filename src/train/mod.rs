//! The trainer, and the parts that it is made of: metrics and evaluation, averages of weights,
//! early stopping, the learning-rate range test, checkpoints, callbacks, logs, reports.
//!
//! Each part works alone in a loop written by hand.

mod average;
mod batch_norm;
mod callback;
pub mod checkpoint;
mod distributed;
mod early_stopping;
mod log;
mod lr_range;
pub mod metrics;
mod report;
mod trainer;

pub use average::{AverageRule, Averaged, Ema, EmaRule, Swa, SwaRule, WeightAverage, with_average};
pub use batch_norm::update_batch_norm;
pub use callback::{Callback, MetricValues, RunState};
pub use checkpoint::{Checkpoint, Checkpoints};
pub use distributed::{DataParallel, Distributed, Group, ParallelEpoch, Traffic, Transport};
pub use early_stopping::EarlyStopping;
pub use log::{CsvLog, JsonLines, LogValue, Logger, TensorBoard};
pub use lr_range::{LrRange, LrRangeTest, lr_find};
pub use metrics::{Mean, Metric, Metrics, accuracy, evaluate, lower_is_better, top_k_accuracy};
pub use report::{Curve, HtmlReport, ReportPicture, WorstSamples};
pub use trainer::{Ending, EpochRecord, Every, Step, TrainReport, Trainer};

use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Returns the value of a loss, a tensor with one element of f32 or f64.
pub(crate) fn number_of(loss: &Tensor) -> Result<f64> {
    match loss.dtype() {
        DType::F32 => Ok(f64::from(loss.item::<f32>()?)),
        _ => loss.item::<f64>(),
    }
}
