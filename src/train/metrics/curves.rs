//! ROC and precision-recall curves of scores for one class.

/// The ROC curve: the share of positives and of negatives whose score is at least a threshold, for
/// falling thresholds. It has scikit-learn's points: the first is (0, 0) at an infinite threshold,
/// and points on the straight line between their neighbours are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RocCurve {
    /// The false positive rates, rising; NaN without a negative.
    pub false_positive_rates: Vec<f64>,
    /// The true positive rates, rising; NaN without a positive.
    pub true_positive_rates: Vec<f64>,
    /// The thresholds, falling.
    pub thresholds: Vec<f64>,
}

/// Precision and recall where scores of at least a threshold are positive, for rising thresholds.
/// It has scikit-learn's points: the last is precision 1 and recall 0, without a threshold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PrecisionRecallCurve {
    /// The precisions.
    pub precisions: Vec<f64>,
    /// The recalls, falling; all 1 without a positive, but the last.
    pub recalls: Vec<f64>,
    /// The thresholds, rising; one fewer than points.
    pub thresholds: Vec<f64>,
}

/// The numbers of samples at or above each distinct score, from the highest score down.
struct Cumulative {
    thresholds: Vec<f64>,
    positives: Vec<u64>,
    negatives: Vec<u64>,
}

impl Cumulative {
    fn of(samples: &[(f64, bool)]) -> Cumulative {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let mut cumulative = Cumulative { thresholds: vec![], positives: vec![], negatives: vec![] };
        let (mut positives, mut negatives) = (0, 0);
        for (index, &(score, positive)) in sorted.iter().enumerate() {
            positives += u64::from(positive);
            negatives += u64::from(!positive);
            // Equal scores are one point; 0 and -0 are equal.
            if sorted.get(index + 1).is_none_or(|next| next.0 != score) {
                cumulative.thresholds.push(score);
                cumulative.positives.push(positives);
                cumulative.negatives.push(negatives);
            }
        }
        cumulative
    }
}

/// Returns each count over the last one; NaN when that is 0.
fn rates(counts: &[u64]) -> Vec<f64> {
    let total = counts.last().copied().unwrap_or(0);
    counts.iter().map(|&count| if total == 0 { f64::NAN } else { count as f64 / total as f64 }).collect()
}

impl RocCurve {
    pub(super) fn of(samples: &[(f64, bool)]) -> RocCurve {
        let Cumulative { thresholds, positives, negatives } = Cumulative::of(samples);
        let points = thresholds.len();
        let bends = |counts: &[u64], i: usize| counts[i + 1] - counts[i] != counts[i] - counts[i - 1];
        let kept = |&i: &usize| i == 0 || i + 1 == points || bends(&positives, i) || bends(&negatives, i);
        let kept: Vec<usize> = (0..points).filter(kept).collect();
        let select = |counts: &[u64]| std::iter::once(0).chain(kept.iter().map(|&i| counts[i])).collect::<Vec<u64>>();
        RocCurve {
            false_positive_rates: rates(&select(&negatives)),
            true_positive_rates: rates(&select(&positives)),
            thresholds: std::iter::once(f64::INFINITY).chain(kept.iter().map(|&i| thresholds[i])).collect(),
        }
    }

    /// Returns the area under the curve; NaN without a positive or without a negative.
    pub fn area(&self) -> f64 {
        let (x, y) = (&self.false_positive_rates, &self.true_positive_rates);
        if x.len() < 2 {
            return f64::NAN;
        }
        x.windows(2).zip(y.windows(2)).map(|(x, y)| (x[1] - x[0]) * (y[0] + y[1]) / 2.0).sum()
    }
}

impl PrecisionRecallCurve {
    pub(super) fn of(samples: &[(f64, bool)]) -> PrecisionRecallCurve {
        let Cumulative { thresholds, positives, negatives } = Cumulative::of(samples);
        let precision = |(&positives, &negatives): (&u64, &u64)| positives as f64 / (positives + negatives) as f64;
        let precisions = positives.iter().zip(&negatives).rev().map(precision).chain([1.0]).collect();
        let recall = |rate: f64| if rate.is_nan() { 1.0 } else { rate };
        let recalls = rates(&positives).into_iter().rev().map(recall).chain([0.0]).collect();
        PrecisionRecallCurve { precisions, recalls, thresholds: thresholds.into_iter().rev().collect() }
    }

    /// Returns the average precision: the sum of the precisions, each times the rise in recall at
    /// its threshold.
    pub fn average_precision(&self) -> f64 {
        let falls = self.recalls.windows(2).map(|pair| pair[0] - pair[1]);
        falls.zip(&self.precisions).map(|(fall, precision)| fall * precision).sum()
    }
}
