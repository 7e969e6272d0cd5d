//! Accuracy: the share of samples whose class is predicted.

use super::{Metric, class, class_numbers, mismatch, numbers};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Returns the share of samples whose largest score is their label's; NaN for no samples.
///
/// # Shape
/// Scores `[N, C, …]` with labels `[N, …]`, or class numbers of the labels' shape.
///
/// # Errors
/// [`Error::Shape`] and [`Error::DType`] for tensors that do not fit, [`Error::Value`] for a label
/// that is not below `C`.
///
/// ```
/// use convnet::{Tensor, train::metrics::accuracy};
///
/// let scores = Tensor::from_vec(vec![0.1f32, 0.9, 0.8, 0.2], [2, 2])?;
/// assert_eq!(accuracy(&scores, &Tensor::from_vec(vec![1i64, 1], [2])?)?, 0.5);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn accuracy(outputs: &Tensor, targets: &Tensor) -> Result<f64> {
    let mut metric = Accuracy::new();
    metric.update(outputs, targets)?;
    Ok(metric.value())
}

/// Returns the share of samples whose label is among the `k` classes of the largest scores; see
/// [`Accuracy::top_k`].
///
/// # Errors
/// Those of [`accuracy`], and [`Error::Argument`] when `k` is 0.
pub fn top_k_accuracy(outputs: &Tensor, targets: &Tensor, k: usize) -> Result<f64> {
    let mut metric = Accuracy::top_k(k);
    metric.update(outputs, targets)?;
    Ok(metric.value())
}

/// The share of samples whose label is among the `k` classes of the largest scores; see
/// [`accuracy`] for shapes.
#[derive(Clone, Debug, PartialEq)]
pub struct Accuracy {
    k: usize,
    ignored: Option<i64>,
    correct: u64,
    samples: u64,
}

impl Accuracy {
    /// Counts samples whose largest score is their label's; of equal scores, the first.
    pub fn new() -> Accuracy {
        Accuracy::top_k(1)
    }

    /// Counts samples whose label is among the `k` classes of the largest scores.
    ///
    /// Of equal scores the lower class number comes first, so that a `k` of 1 gives the accuracy
    /// (scikit-learn's `top_k_accuracy_score` takes the higher one). NaN comes before all numbers.
    pub fn top_k(k: usize) -> Accuracy {
        Accuracy { k, ignored: None, correct: 0, samples: 0 }
    }

    /// Leaves out samples (or pixels) with this label, such as 255.
    #[must_use]
    pub fn ignore_label(self, label: i64) -> Accuracy {
        Accuracy { ignored: Some(label), ..self }
    }

    /// Returns the number of samples so far.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    fn counts(&self, outputs: &Tensor, targets: &Tensor) -> Result<[u64; 2]> {
        let counted = |label: &i64| Some(*label) != self.ignored;
        if self.k == 1 {
            let classes = outputs.dtype().is_float().then(|| outputs.shape().get(1).copied()).flatten();
            let (predicted, labels) = class_numbers("accuracy", outputs, targets)?;
            if let Some(classes) = classes {
                let mut labels = labels.iter().enumerate().filter(|(_, label)| counted(label));
                labels.try_for_each(|(position, &label)| class("accuracy", "label", position, label, classes).map(|_| ()))?;
            }
            let correct = predicted.iter().zip(&labels).filter(|&(predicted, label)| counted(label) && predicted == label).count();
            return Ok([correct as u64, labels.iter().filter(|&label| counted(label)).count() as u64]);
        }
        if self.k == 0 {
            return Err(Error::argument("top_k_accuracy", "k must be at least 1, got 0"));
        }
        outputs.expect_float("top_k_accuracy")?;
        let (_, labels) = class_numbers("top_k_accuracy", outputs, targets)?;
        let scores = numbers(outputs)?;
        let classes = outputs.shape()[1];
        let inner: usize = outputs.shape()[2..].iter().product();
        let (mut correct, mut samples) = (0, 0);
        for (position, &label) in labels.iter().enumerate().filter(|(_, label)| counted(label)) {
            let label = class("top_k_accuracy", "label", position, label, classes)?;
            let score = |class: usize| scores[(position / inner * classes + class) * inner + position % inner];
            let own = score(label);
            let before = |&class: &usize| match score(class) {
                other if other.is_nan() || own.is_nan() => other.is_nan() && (!own.is_nan() || class < label),
                other => other > own || other == own && class < label,
            };
            samples += 1;
            correct += u64::from((0..classes).filter(before).count() < self.k);
        }
        Ok([correct, samples])
    }
}

impl Default for Accuracy {
    fn default() -> Accuracy {
        Accuracy::new()
    }
}

impl Metric for Accuracy {
    fn update(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<()> {
        let [correct, samples] = self.counts(outputs, targets)?;
        self.correct += correct;
        self.samples += samples;
        Ok(())
    }

    fn value(&self) -> f64 {
        self.correct as f64 / self.samples as f64
    }

    fn merge(&mut self, other: &Accuracy) -> Result<()> {
        if (self.k, self.ignored) != (other.k, other.ignored) {
            return Err(mismatch("accuracy"));
        }
        self.correct += other.correct;
        self.samples += other.samples;
        Ok(())
    }

    fn reset(&mut self) {
        (self.correct, self.samples) = (0, 0);
    }
}
