//! The confusion matrix.

use std::fmt;

use super::classes::{Averaging, ClassCounts, ClassScore, check_classes, check_scores};
use super::{Metric, class, class_numbers, mismatch};
use crate::error::{Error, Result};
use crate::io::text_table;
use crate::tensor::Tensor;

/// The largest number of classes, whose matrix takes 128 MiB.
const MOST_CLASSES: usize = 4096;

const OP: &str = "confusion matrix";

/// The number of samples of each class (row) that are predicted as each class (column).
///
/// # Shape
/// Scores `[N, C, …]` with labels `[N, …]`, or class numbers of the labels' shape.
///
/// ```
/// use convnet::{Tensor, train::metrics::ConfusionMatrix};
///
/// let predicted = Tensor::from_vec(vec![0i64, 1, 1, 2], [4])?;
/// let labels = Tensor::from_vec(vec![0i64, 1, 2, 2], [4])?;
/// let matrix = ConfusionMatrix::of(&predicted, &labels, 3)?;
/// assert_eq!(matrix.count(2, 1), 1); // a 2 that is taken for a 1
/// assert_eq!(matrix.accuracy(), 0.75);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct ConfusionMatrix {
    classes: usize,
    ignored: Option<i64>,
    /// Row-major; empty before the first batch.
    counts: Vec<u64>,
}

impl ConfusionMatrix {
    /// Makes an empty matrix, of at most 4096 classes.
    pub fn new(classes: usize) -> ConfusionMatrix {
        ConfusionMatrix { classes, ignored: None, counts: vec![] }
    }

    /// Makes the matrix of one batch.
    ///
    /// # Errors
    /// Those of [`update`](Metric::update).
    pub fn of(outputs: &Tensor, targets: &Tensor, classes: usize) -> Result<ConfusionMatrix> {
        let mut matrix = ConfusionMatrix::new(classes);
        matrix.update(outputs, targets)?;
        Ok(matrix)
    }

    /// Leaves out samples (or pixels) with this label, such as 255.
    #[must_use]
    pub fn ignore_label(self, label: i64) -> ConfusionMatrix {
        ConfusionMatrix { ignored: Some(label), ..self }
    }

    /// Returns the number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Returns the number of samples of class `target` that are predicted as `predicted`; 0 for
    /// classes that do not exist.
    pub fn count(&self, target: usize, predicted: usize) -> u64 {
        if target.max(predicted) >= self.classes {
            return 0;
        }
        self.counts.get(target * self.classes + predicted).copied().unwrap_or(0)
    }

    /// Returns the counts of a class by prediction, for each class; empty before the first batch.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[u64]> {
        self.counts.chunks(self.classes.max(1))
    }

    /// Returns the number of samples.
    pub fn samples(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the share of samples on the diagonal; NaN before the first.
    pub fn accuracy(&self) -> f64 {
        let hits: u64 = self.counts.iter().step_by(self.classes.saturating_add(1)).sum();
        hits as f64 / self.samples() as f64
    }

    /// Fills a score with the samples of this matrix, so that one pass over the data gives all of
    /// them: `matrix.score(ClassScore::f1(10))?.per_class()`.
    ///
    /// # Errors
    /// [`Error::Argument`] when the score is of another number of classes, and when that number is
    /// out of range.
    pub fn score(&self, score: ClassScore) -> Result<ClassScore> {
        check_classes(OP, self.classes, MOST_CLASSES)?;
        let column = |class: usize| (0..self.classes).map(|target| self.count(target, class)).sum();
        let row = |class: usize| (0..self.classes).map(|predicted| self.count(class, predicted)).sum();
        let counts = ClassCounts {
            hits: (0..self.classes).map(|class| self.count(class, class)).collect(),
            predicted: (0..self.classes).map(column).collect(),
            support: (0..self.classes).map(row).collect(),
        };
        score.with_counts(counts)
    }

    /// Makes a table of precision, recall, F1 and samples by class, with their averages, as
    /// scikit-learn's `classification_report`. Classes without a name have their number; those that
    /// do not occur are left out.
    ///
    /// ```
    /// use convnet::{Tensor, train::metrics::ConfusionMatrix};
    ///
    /// let predicted = Tensor::from_vec(vec![0i64, 1, 1, 1], [4])?;
    /// let labels = Tensor::from_vec(vec![0i64, 1, 0, 1], [4])?;
    /// println!("{}", ConfusionMatrix::of(&predicted, &labels, 2)?.report(&["cat", "dog"])?);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] when the number of classes is out of range.
    pub fn report<N: AsRef<str>>(&self, names: &[N]) -> Result<ClassReport> {
        let scores = [ClassScore::precision, ClassScore::recall, ClassScore::f1].map(|score| self.score(score(self.classes)));
        let [precision, recall, f1] = scores;
        let scores = [precision?, recall?, f1?];
        let number = |value: f64| format!("{value:.4}");
        let line = |name: String, values: [f64; 3], samples: u64| {
            let [precision, recall, f1] = values.map(number);
            [name, precision, recall, f1, text_table::grouped(samples)]
        };
        let mut rows = vec![["", "precision", "recall", "F1", "samples"].map(str::to_string)];
        let by_class = scores.each_ref().map(ClassScore::per_class);
        for (class, &samples) in scores[0].support().iter().enumerate() {
            let values = by_class.each_ref().map(|scores| scores[class]);
            if !values[0].is_nan() {
                let name = names.get(class).map_or_else(|| class.to_string(), |name| name.as_ref().to_string());
                rows.push(line(name, values, samples));
            }
        }
        let ruled = [1, rows.len()];
        let samples = self.samples();
        rows.push(["accuracy".into(), String::new(), String::new(), number(self.accuracy()), text_table::grouped(samples)]);
        for (name, averaging) in [("macro average", Averaging::Macro), ("weighted average", Averaging::Weighted)] {
            let averages = scores.each_ref().map(|score| score.clone().averaging(averaging).value());
            rows.push(line(name.into(), averages, samples));
        }
        Ok(ClassReport { rows, ruled })
    }

    /// Returns the counts as shares of each row: of a class's samples. NaN in the row of a class
    /// without samples.
    pub fn normalized(&self) -> Vec<Vec<f64>> {
        let shares = |row: &[u64]| {
            let total = row.iter().sum::<u64>() as f64;
            row.iter().map(|&count| count as f64 / total).collect()
        };
        self.rows().map(shares).collect()
    }
}

impl Metric for ConfusionMatrix {
    fn update(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<()> {
        check_classes(OP, self.classes, MOST_CLASSES)?;
        check_scores(OP, outputs, self.classes)?;
        let (predicted, labels) = class_numbers(OP, outputs, targets)?;
        let mut cells = Vec::with_capacity(labels.len());
        for (position, (&predicted, &label)) in predicted.iter().zip(&labels).enumerate() {
            if Some(label) != self.ignored {
                let label = class(OP, "label", position, label, self.classes)?;
                cells.push(label * self.classes + class(OP, "prediction", position, predicted, self.classes)?);
            }
        }
        let size = self.classes * self.classes;
        if self.counts.try_reserve_exact(size - self.counts.len()).is_err() {
            return Err(Error::argument(OP, format!("memory cannot hold a matrix of {} classes", self.classes)));
        }
        self.counts.resize(size, 0);
        cells.into_iter().for_each(|cell| self.counts[cell] += 1);
        Ok(())
    }

    /// Returns the accuracy.
    fn value(&self) -> f64 {
        self.accuracy()
    }

    fn merge(&mut self, other: &ConfusionMatrix) -> Result<()> {
        if (self.classes, self.ignored) != (other.classes, other.ignored) {
            return Err(mismatch(OP));
        }
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        Ok(())
    }

    fn reset(&mut self) {
        self.counts = vec![];
    }
}

/// A table of scores by class; see [`ConfusionMatrix::report`]. Prints as text.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassReport {
    rows: Vec<[String; 5]>,
    ruled: [usize; 2],
}

impl fmt::Display for ClassReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text_table::write(f, &self.rows, 1, &self.ruled)
    }
}

impl fmt::Debug for ConfusionMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfusionMatrix({} classes, {} samples)", self.classes, self.samples())
    }
}
