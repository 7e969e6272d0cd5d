//! Metrics over many batches, and functions for one.
//!
//! | to measure | over many batches | of one batch |
//! |---|---|---|
//! | accuracy, top-k accuracy | [`Accuracy`] | [`accuracy`], [`top_k_accuracy`] |
//! | confusions | [`ConfusionMatrix`] | [`ConfusionMatrix::of`] |
//! | precision, recall, F1, IoU, Dice | [`ClassScore`] | |
//! | area under the ROC curve, average precision, both curves | [`RankingScore`] | [`roc_auc`], [`average_precision`] |
//! | MAE, MSE, RMSE, R² | [`RegressionScore`] | [`mae`], [`rmse`], [`r2_score`] |
//! | loss | [`Mean`] | |
//!
//! All but [`Mean`] are a [`Metric`], which [`Trainer::metric`](crate::train::Trainer::metric)
//! takes. The values are those of scikit-learn, also where a class does not occur; where the two
//! differ, the documentation says so.
//!
//! ```
//! use convnet::Tensor;
//! use convnet::train::metrics::{Averaging, ClassScore, Metric};
//!
//! let mut f1 = ClassScore::f1(3).averaging(Averaging::Macro);
//! let batches = [(vec![0i64, 1, 2], vec![0i64, 2, 2]), (vec![1, 1], vec![1, 0])];
//! for (predicted, labels) in batches {
//!     let count = labels.len();
//!     f1.update(&Tensor::from_vec(predicted, [count])?, &Tensor::from_vec(labels, [count])?)?;
//! }
//! assert!((f1.value() - (2.0 / 3.0 + 0.5 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
//! assert_eq!(f1.per_class().len(), 3);
//! # Ok::<(), convnet::Error>(())
//! ```

mod accuracy;
mod classes;
mod confusion;
mod curves;
mod evaluation;
mod mean;
mod ranking;
mod regression;

pub use accuracy::{Accuracy, accuracy, top_k_accuracy};
pub use classes::{Averaging, ClassScore};
pub use confusion::{ClassReport, ConfusionMatrix};
pub use curves::{PrecisionRecallCurve, RocCurve};
pub use evaluation::{Metrics, evaluate};
pub use mean::Mean;
pub use ranking::{RankingScore, average_precision, roc_auc};
pub use regression::{RegressionScore, mae, r2_score, rmse};

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// A number that is computed from the outputs and targets of many batches.
pub trait Metric: Send {
    /// Adds a batch. The documentation of each metric says which shapes and types it takes.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] for tensors that do not fit, [`Error::Value`] for
    /// labels out of range and scores that are not numbers; then nothing is added.
    fn update(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<()>;

    /// Returns the metric over all batches so far; NaN where it is not defined, as before the
    /// first.
    fn value(&self) -> f64;

    /// Adds all that another accumulator of the same settings has seen, such as that of another
    /// shard of the data.
    ///
    /// # Errors
    /// [`Error::Argument`] when the settings differ; then nothing is added.
    fn merge(&mut self, other: &Self) -> Result<()>
    where
        Self: Sized;

    /// Forgets all batches.
    fn reset(&mut self);
}

/// Returns whether lower values of a metric are better, judged by its name: if the part after the
/// last `/` has a word that ends in `loss` or `error`, or is `mae`, `mse`, `rmse` or `perplexity`.
///
/// [`Checkpoints`](crate::train::Checkpoints) and [`EarlyStopping`](crate::train::EarlyStopping) go
/// by it unless they are told otherwise.
///
/// ```
/// use convnet::train::lower_is_better;
///
/// assert!(lower_is_better("valid/loss") && lower_is_better("valid/top5_error"));
/// assert!(!lower_is_better("valid/accuracy") && !lower_is_better("loss/f1"));
/// ```
pub fn lower_is_better(metric: &str) -> bool {
    let name = metric.rsplit('/').next().unwrap_or(metric).to_lowercase();
    let mut words = name.split(|c: char| !c.is_alphanumeric());
    words.any(|word| word.ends_with("loss") || word.ends_with("error") || ["mae", "mse", "rmse", "perplexity"].contains(&word))
}

/// Returns predicted and true class of each sample (or pixel), in row-major order.
///
/// `outputs` are scores `[N, C, …]`, whose largest is the prediction, or class numbers of the shape
/// of `targets`, `[N, …]`.
fn class_numbers(op: &'static str, outputs: &Tensor, targets: &Tensor) -> Result<(Vec<i64>, Vec<i64>)> {
    let labels = labels(op, targets)?;
    if !outputs.dtype().is_float() {
        if outputs.shape() != targets.shape() {
            let message = format!("expected predictions and labels of one shape, got {:?} and {:?}", outputs.shape(), targets.shape());
            return Err(Error::shape(op, message));
        }
        return Ok((outputs.cast(DType::I64)?.to_vec()?, labels));
    }
    let [samples, classes, rest @ ..] = outputs.shape() else {
        return Err(Error::shape(op, format!("expected scores [N, C, …] or integer class numbers, got scores {:?}", outputs.shape())));
    };
    let wanted: Vec<usize> = std::iter::once(samples).chain(rest).copied().collect();
    if targets.shape() != wanted || *classes == 0 {
        let message = format!("scores {:?} want labels {wanted:?}, got {:?}", outputs.shape(), targets.shape());
        return Err(Error::shape(op, message));
    }
    Ok((outputs.argmax(1)?.to_vec()?, labels))
}

/// Returns integer targets in row-major order.
fn labels(op: &'static str, targets: &Tensor) -> Result<Vec<i64>> {
    if targets.dtype().is_float() {
        return Err(Error::DType { op, expected: "labels of i64 or u8", got: targets.dtype() });
    }
    targets.cast(DType::I64)?.to_vec()
}

/// Returns the elements as f64 in row-major order.
fn numbers(x: &Tensor) -> Result<Vec<f64>> {
    x.cast(DType::F64)?.to_vec()
}

/// Returns a class number as an index.
fn class(op: &'static str, what: &str, position: usize, number: i64, classes: usize) -> Result<usize> {
    match usize::try_from(number) {
        Ok(index) if index < classes => Ok(index),
        _ => Err(Error::value(
            op,
            format!("{what} {number} of sample {position} is not one of the {classes} classes, from 0 to {}", classes as i128 - 1),
        )),
    }
}

fn mismatch(op: &'static str) -> Error {
    Error::argument(op, "only metrics of the same settings can be merged")
}
