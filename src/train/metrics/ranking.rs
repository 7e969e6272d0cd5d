//! Metrics of the order of scores: area under the ROC curve and average precision.

use super::classes::binary;
use super::curves::{PrecisionRecallCurve, RocCurve};
use super::{Metric, class, labels, mismatch, numbers};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

const OP: &str = "ranking score";

/// Returns the area under the ROC curve of one batch; see [`RankingScore`].
///
/// # Errors
/// Those of [`RankingScore`]'s `update`.
///
/// ```
/// use convnet::{Tensor, train::metrics::roc_auc};
///
/// let scores = Tensor::from_vec(vec![0.1f32, 0.4, 0.35, 0.8], [4])?;
/// assert_eq!(roc_auc(&scores, &Tensor::from_vec(vec![0i64, 0, 1, 1], [4])?)?, 0.75);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn roc_auc(scores: &Tensor, targets: &Tensor) -> Result<f64> {
    let mut metric = RankingScore::roc_auc();
    metric.update(scores, targets)?;
    Ok(metric.value())
}

/// Returns the average precision of one batch; see [`RankingScore`].
///
/// # Errors
/// Those of [`RankingScore`]'s `update`.
pub fn average_precision(scores: &Tensor, targets: &Tensor) -> Result<f64> {
    let mut metric = RankingScore::average_precision();
    metric.update(scores, targets)?;
    Ok(metric.value())
}

/// The area under the ROC curve, or the average precision. All scores are kept: 16 bytes for each
/// sample and class.
///
/// # Shape
/// - Two classes: scores `[N]` or `[N, 1]` of class 1, targets of the same shape, 0 or 1.
/// - Several classes: scores `[N, C]` that compare between samples, such as probabilities
///   (softmax), and labels `[N]`. Each class is ranked against all others.
/// - Several labels: scores `[N, C]` and targets `[N, C]` of 0 and 1.
///
/// The value is the mean over classes.
///
/// # Where a class does not occur
/// As in scikit-learn, the area is NaN for a class without positives or without negatives, and the
/// average precision is 0 for a class without positives. The mean of areas leaves such classes out,
/// where scikit-learn refuses to compute it.
#[derive(Clone, Debug, PartialEq)]
pub struct RankingScore {
    is_area: bool,
    /// Score and target of each sample, for each class.
    columns: Vec<Vec<(f64, bool)>>,
}

impl RankingScore {
    /// Computes the area under the ROC curve.
    pub fn roc_auc() -> RankingScore {
        RankingScore { is_area: true, columns: vec![] }
    }

    /// Computes the average precision.
    pub fn average_precision() -> RankingScore {
        RankingScore { is_area: false, columns: vec![] }
    }

    /// Returns the score of each class, of which there is one for two-class targets; empty before
    /// the first batch.
    pub fn per_class(&self) -> Vec<f64> {
        let score = |samples: &Vec<(f64, bool)>| match self.is_area {
            true => RocCurve::of(samples).area(),
            false => PrecisionRecallCurve::of(samples).average_precision(),
        };
        self.columns.iter().map(|samples| if samples.is_empty() { f64::NAN } else { score(samples) }).collect()
    }

    /// Returns the ROC curve of a class (0 when there is one column of scores).
    ///
    /// # Errors
    /// [`Error::Argument`] when no sample was added, and when there is no such class.
    pub fn roc_curve(&self, class: usize) -> Result<RocCurve> {
        self.column(class).map(RocCurve::of)
    }

    /// Returns the precision-recall curve of a class (0 when there is one column of scores).
    ///
    /// # Errors
    /// [`Error::Argument`] when no sample was added, and when there is no such class.
    pub fn precision_recall_curve(&self, class: usize) -> Result<PrecisionRecallCurve> {
        self.column(class).map(PrecisionRecallCurve::of)
    }

    fn column(&self, class: usize) -> Result<&[(f64, bool)]> {
        match self.columns.get(class) {
            Some(samples) if !samples.is_empty() => Ok(samples),
            Some(_) => Err(Error::argument(OP, "there are no samples to draw a curve of")),
            None => Err(Error::argument(OP, format!("there are scores of {} classes and none of class {class}", self.columns.len()))),
        }
    }

    /// Returns score and target of each sample, for each class.
    fn read(scores: &Tensor, targets: &Tensor) -> Result<Vec<Vec<(f64, bool)>>> {
        scores.expect_float(OP)?;
        let columns = match *scores.shape() {
            [_] => 1,
            [_, columns] if columns > 0 => columns,
            _ => return Err(Error::shape(OP, format!("expected scores [N] or [N, C], got {:?}", scores.shape()))),
        };
        let one_vs_rest = columns > 1 && targets.ndim() == 1;
        let fits = if one_vs_rest { targets.shape()[0] == scores.shape()[0] } else { targets.numel() == scores.numel() };
        if !fits || targets.ndim() > 2 || (columns > 1 && !one_vs_rest && targets.shape() != scores.shape()) {
            let message = format!(
                "scores {0:?} want targets {0:?} of 0 and 1, or one label for each row, got {1:?}",
                scores.shape(),
                targets.shape()
            );
            return Err(Error::shape(OP, message));
        }
        let (scores, labels) = (numbers(scores)?, labels(OP, targets)?);
        let mut read = vec![Vec::with_capacity(scores.len() / columns); columns];
        for (position, &score) in scores.iter().enumerate() {
            let (sample, column) = (position / columns, position % columns);
            if !score.is_finite() {
                return Err(Error::value(OP, format!("the score of sample {sample} is {score}")));
            }
            let positive = if one_vs_rest {
                class(OP, "label", sample, labels[sample], columns)? == column
            } else {
                binary(OP, sample, labels[position])?
            };
            read[column].push((score, positive));
        }
        Ok(read)
    }

    fn append(&mut self, other: &[Vec<(f64, bool)>]) {
        self.columns.resize(other.len(), vec![]);
        self.columns.iter_mut().zip(other).for_each(|(all, new)| all.extend_from_slice(new));
    }
}

impl Metric for RankingScore {
    fn update(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<()> {
        let read = RankingScore::read(outputs, targets)?;
        if !self.columns.is_empty() && self.columns.len() != read.len() {
            return Err(Error::shape(
                OP,
                format!("earlier batches had scores of {} classes, this one of {}", self.columns.len(), read.len()),
            ));
        }
        self.append(&read);
        Ok(())
    }

    fn value(&self) -> f64 {
        let scores: Vec<f64> = self.per_class().into_iter().filter(|score| !score.is_nan()).collect();
        scores.iter().sum::<f64>() / scores.len() as f64
    }

    fn merge(&mut self, other: &RankingScore) -> Result<()> {
        let differ = !self.columns.is_empty() && !other.columns.is_empty() && self.columns.len() != other.columns.len();
        if differ || self.is_area != other.is_area {
            return Err(mismatch(OP));
        }
        if !other.columns.is_empty() {
            self.append(&other.columns);
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.columns = vec![];
    }
}
