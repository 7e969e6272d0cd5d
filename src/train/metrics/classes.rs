//! Precision, recall, F1, intersection over union, Dice.

use super::{Metric, class, class_numbers, labels, mismatch, numbers};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The largest number of classes, so that counts take a bounded amount of memory.
const MOST_CLASSES: usize = 1 << 20;

/// The way in which the scores of classes become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Averaging {
    /// The mean of the classes' scores. Classes that occur neither in targets nor in predictions
    /// are left out.
    #[default]
    Macro,
    /// The score of the counts of all classes together.
    Micro,
    /// The mean of the classes' scores, weighted by the number of targets of each.
    Weighted,
}

/// A formula on the counts of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Formula {
    Precision,
    Recall,
    F1,
    Iou,
}

/// The counts of classes from which all scores follow.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ClassCounts {
    /// The number of targets of each class that are predicted as such.
    pub(super) hits: Vec<u64>,
    /// The number of predictions of each class.
    pub(super) predicted: Vec<u64>,
    /// The number of targets of each class.
    pub(super) support: Vec<u64>,
}

impl ClassCounts {
    pub(super) fn new(classes: usize) -> ClassCounts {
        ClassCounts { hits: vec![0; classes], predicted: vec![0; classes], support: vec![0; classes] }
    }

    fn add(&mut self, other: &ClassCounts) {
        let pairs = [(&mut self.hits, &other.hits), (&mut self.predicted, &other.predicted), (&mut self.support, &other.support)];
        for (sums, counts) in pairs {
            sums.resize(counts.len(), 0);
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }

    fn occurs(&self, class: usize) -> bool {
        self.predicted[class] + self.support[class] > 0
    }
}

impl Formula {
    /// Returns the score of a class; 0 where its denominator is 0.
    fn of(self, hits: u64, predicted: u64, support: u64) -> f64 {
        let (hits, total) = match self {
            Formula::Precision => (hits, predicted),
            Formula::Recall => (hits, support),
            Formula::F1 => (2 * hits, predicted + support),
            Formula::Iou => (hits, predicted + support - hits),
        };
        if total == 0 { 0.0 } else { hits as f64 / total as f64 }
    }

    /// Returns the score of each class, NaN for a class that does not occur.
    fn per_class(self, counts: &ClassCounts) -> Vec<f64> {
        let score = |class: usize| self.of(counts.hits[class], counts.predicted[class], counts.support[class]);
        (0..counts.hits.len()).map(|class| if counts.occurs(class) { score(class) } else { f64::NAN }).collect()
    }

    fn average(self, counts: &ClassCounts, averaging: Averaging, absent: Option<f64>) -> f64 {
        let total = |counts: &[u64]| counts.iter().sum::<u64>();
        if (0..counts.hits.len()).all(|class| !counts.occurs(class)) {
            return f64::NAN;
        }
        let scores = || self.per_class(counts).into_iter().map(|score| if score.is_nan() { absent } else { Some(score) });
        match averaging {
            Averaging::Micro => self.of(total(&counts.hits), total(&counts.predicted), total(&counts.support)),
            Averaging::Macro => scores().flatten().sum::<f64>() / scores().flatten().count() as f64,
            Averaging::Weighted => {
                let weighted = scores().zip(&counts.support).map(|(score, &support)| score.unwrap_or(0.0) * support as f64);
                // Without a target the mean has no weights.
                match total(&counts.support) {
                    0 => 0.0,
                    total => weighted.sum::<f64>() / total as f64,
                }
            }
        }
    }
}

/// A score of classes from hits and misses: [`precision`](ClassScore::precision),
/// [`recall`](ClassScore::recall), [`f1`](ClassScore::f1), [`iou`](ClassScore::iou) or
/// [`dice`](ClassScore::dice).
///
/// # Shape
/// Scores `[N, C, …]` with labels `[N, …]` (the largest score is the prediction), or class numbers
/// of the labels' shape: classification and segmentation alike. After
/// [`multi_label`](ClassScore::multi_label), scores `[N, C]` and targets `[N, C]` of 0 and 1.
///
/// # Where a class does not occur
/// As in scikit-learn with `zero_division=0`: precision is 0 for a class that is never predicted,
/// recall is 0 for one that is no sample's label; a class that is neither has no part in a macro
/// average, and its own score is NaN.
///
/// ```
/// use convnet::Tensor;
/// use convnet::train::metrics::{ClassScore, Metric};
///
/// // A picture of 2×2 pixels and its mask; 255 marks pixels without a label.
/// let predicted = Tensor::from_vec(vec![0u8, 1, 1, 1], [1, 2, 2])?;
/// let mask = Tensor::from_vec(vec![0u8, 1, 0, 255], [1, 2, 2])?;
/// let mut iou = ClassScore::iou(2).ignore_label(255);
/// iou.update(&predicted, &mask)?;
/// assert_eq!((iou.value(), iou.per_class()), (0.5, vec![0.5, 0.5]));
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ClassScore {
    formula: Formula,
    classes: usize,
    averaging: Averaging,
    ignored: Option<i64>,
    threshold: Option<f64>,
    counts: ClassCounts,
}

impl ClassScore {
    fn with_formula(formula: Formula, classes: usize) -> ClassScore {
        let counts = ClassCounts::default();
        ClassScore { formula, classes, averaging: Averaging::Macro, ignored: None, threshold: None, counts }
    }

    /// Computes precision: hits per prediction of a class.
    pub fn precision(classes: usize) -> ClassScore {
        ClassScore::with_formula(Formula::Precision, classes)
    }

    /// Computes recall: hits per target of a class.
    pub fn recall(classes: usize) -> ClassScore {
        ClassScore::with_formula(Formula::Recall, classes)
    }

    /// Computes F1, the harmonic mean of precision and recall.
    pub fn f1(classes: usize) -> ClassScore {
        ClassScore::with_formula(Formula::F1, classes)
    }

    /// Computes intersection over union (Jaccard index); its macro average over pixels is the mean
    /// IoU of segmentation.
    pub fn iou(classes: usize) -> ClassScore {
        ClassScore::with_formula(Formula::Iou, classes)
    }

    /// Computes the Dice coefficient `2 |A ∩ B| / (|A| + |B|)`, which is F1 under the name that
    /// segmentation uses.
    pub fn dice(classes: usize) -> ClassScore {
        ClassScore::f1(classes)
    }

    /// Sets how the classes' scores become one (default: macro).
    #[must_use]
    pub fn averaging(self, averaging: Averaging) -> ClassScore {
        ClassScore { averaging, ..self }
    }

    /// Leaves out samples (or pixels) with this label, such as 255.
    #[must_use]
    pub fn ignore_label(self, label: i64) -> ClassScore {
        ClassScore { ignored: Some(label), ..self }
    }

    /// Takes several labels for each sample: targets `[N, C]` of 0 and 1. A class is predicted
    /// where its score is above the threshold: 0 for logits, 0.5 for probabilities.
    ///
    /// As in scikit-learn, a class that does not occur then has a part in a macro average, with the
    /// score 0.
    #[must_use]
    pub fn multi_label(self, threshold: f64) -> ClassScore {
        ClassScore { threshold: Some(threshold), ..self }
    }

    /// Returns the score of each class; NaN for a class that does not occur. Empty before the first
    /// batch.
    pub fn per_class(&self) -> Vec<f64> {
        self.formula.per_class(&self.counts)
    }

    /// Returns the number of targets of each class; empty before the first batch.
    pub fn support(&self) -> &[u64] {
        &self.counts.support
    }

    /// Replaces the counts with those of as many classes.
    pub(super) fn with_counts(self, counts: ClassCounts) -> Result<ClassScore> {
        check_classes("class score", self.classes, MOST_CLASSES)?;
        if counts.hits.len() != self.classes {
            let message = format!("the score is of {} classes, the matrix of {}", self.classes, counts.hits.len());
            return Err(Error::argument("class score", message));
        }
        Ok(ClassScore { counts, ..self })
    }

    fn count(&self, outputs: &Tensor, targets: &Tensor) -> Result<ClassCounts> {
        const OP: &str = "class score";
        check_classes(OP, self.classes, MOST_CLASSES)?;
        if let Some(threshold) = self.threshold {
            return self.count_multi_label(outputs, targets, threshold);
        }
        check_scores(OP, outputs, self.classes)?;
        let (predicted, labels) = class_numbers(OP, outputs, targets)?;
        let mut counts = ClassCounts::new(self.classes);
        for (position, (&predicted, &label)) in predicted.iter().zip(&labels).enumerate() {
            if Some(label) == self.ignored {
                continue;
            }
            let label = class(OP, "label", position, label, self.classes)?;
            let predicted = class(OP, "prediction", position, predicted, self.classes)?;
            counts.support[label] += 1;
            counts.predicted[predicted] += 1;
            counts.hits[label] += u64::from(predicted == label);
        }
        Ok(counts)
    }

    fn count_multi_label(&self, outputs: &Tensor, targets: &Tensor, threshold: f64) -> Result<ClassCounts> {
        const OP: &str = "class score";
        if outputs.ndim() != 2 || outputs.shape() != targets.shape() || outputs.shape()[1] != self.classes {
            let (classes, outputs, targets) = (self.classes, outputs.shape(), targets.shape());
            return Err(Error::shape(OP, format!("expected scores and targets [N, {classes}], got {outputs:?} and {targets:?}")));
        }
        let (scores, labels) = (numbers(outputs)?, labels(OP, targets)?);
        let mut counts = ClassCounts::new(self.classes);
        for (position, (&score, &label)) in scores.iter().zip(&labels).enumerate() {
            let (sample, class) = (position / self.classes, position % self.classes);
            if Some(label) == self.ignored {
                continue;
            }
            let (target, predicted) = (binary(OP, sample, label)?, score > threshold);
            counts.support[class] += u64::from(target);
            counts.predicted[class] += u64::from(predicted);
            counts.hits[class] += u64::from(target && predicted);
        }
        Ok(counts)
    }
}

impl Metric for ClassScore {
    fn update(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<()> {
        let counts = self.count(outputs, targets)?;
        self.counts.add(&counts);
        Ok(())
    }

    fn value(&self) -> f64 {
        let absent = self.threshold.map(|_| 0.0);
        self.formula.average(&self.counts, self.averaging, absent)
    }

    fn merge(&mut self, other: &ClassScore) -> Result<()> {
        let settings = |score: &ClassScore| (score.formula, score.classes, score.averaging, score.ignored, score.threshold);
        if settings(self) != settings(other) {
            return Err(mismatch("class score"));
        }
        if !other.counts.hits.is_empty() {
            self.counts.add(&other.counts);
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.counts = ClassCounts::default();
    }
}

/// Checks the number of classes of a metric.
pub(super) fn check_classes(op: &'static str, classes: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&classes) {
        return Ok(());
    }
    Err(Error::argument(op, format!("the number of classes must be from 1 to {most}, got {classes}")))
}

/// Checks that scores are of this number of classes.
pub(super) fn check_scores(op: &'static str, outputs: &Tensor, classes: usize) -> Result<()> {
    match outputs.shape() {
        [_, given, ..] if outputs.dtype().is_float() && *given != classes => {
            Err(Error::shape(op, format!("expected scores of {classes} classes, [N, {classes}, …], got {:?}", outputs.shape())))
        }
        _ => Ok(()),
    }
}

/// Returns a target of 0 or 1 as a flag.
pub(super) fn binary(op: &'static str, sample: usize, label: i64) -> Result<bool> {
    match label {
        0 | 1 => Ok(label == 1),
        _ => Err(Error::value(op, format!("targets must be 0 or 1, that of sample {sample} is {label}"))),
    }
}
