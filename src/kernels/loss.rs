//! Losses: fused and numerically stable.
//!
//! Cross entropy works on rows of logits, `[M, classes]`. The forward pass stores the maximum of
//! each row and the logarithm of its sum of exponentials, from which the backward pass computes the
//! softmax without another pass. The two are stored separately, since their sum would lose digits
//! if logits are large.

use super::reduce::{fold, fold_pairs};
use super::runtime::allocator::AlignedVec;
use super::runtime::parallel;
use super::runtime::simd::{Real, vectorize};

/// The number of elements that one task handles.
const GRAIN: usize = 4 * 1024;
/// The number of elementary operations per element; the exponential dominates.
const COST: usize = 16;

/// The target of the rows of logits.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a, T> {
    /// The correct class of each row; rows with the label `ignored` do not count. The other labels
    /// have been checked to be below the number of classes.
    Labels {
        /// One label for each row.
        labels: &'a [i64],
        /// The label of rows that do not count.
        ignored: i64,
    },
    /// The probabilities of the classes, `[M, classes]`.
    Probabilities(&'a [T]),
}

/// The inputs of a cross entropy besides the logits.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy<'a, T> {
    /// The number of classes, at least 1.
    pub classes: usize,
    /// The target of the rows.
    pub target: Target<'a, T>,
    /// A factor for each class.
    pub weight: Option<&'a [T]>,
    /// The share of the target that is spread evenly over the classes.
    pub smoothing: T,
}

/// The number of statistics of each row: its maximum, the logarithm of `Σ exp(x - maximum)`, and
/// its loss.
pub const STATISTICS: usize = 3;

impl<T: Real> CrossEntropy<'_, T> {
    /// Fills `statistics`, [`STATISTICS`] for each row.
    pub fn forward(&self, x: &[T], statistics: &mut [T]) {
        assert_eq!(x.len() * STATISTICS, statistics.len() * self.classes);
        let rows = (GRAIN / self.classes).max(1);
        parallel::chunks_mut(statistics, rows * STATISTICS, x.len() * COST, |task, statistics| {
            let x = x[task * rows * self.classes..].chunks_exact(self.classes);
            for ((row, x), statistics) in (task * rows..).zip(x).zip(statistics.chunks_exact_mut(STATISTICS)) {
                statistics.copy_from_slice(&self.row(row, x));
            }
        });
    }

    fn weight(&self, class: usize) -> T {
        self.weight.map_or(T::one(), |weight| weight[class])
    }

    /// Returns the label of a row that counts; `None` for other rows and for probabilities.
    fn label(&self, row: usize) -> Option<usize> {
        match self.target {
            Target::Labels { labels, ignored } if labels[row] != ignored => Some(labels[row] as usize),
            _ => None,
        }
    }

    /// Returns the share of each class from label smoothing.
    fn spread(&self) -> T {
        self.smoothing / T::of(self.classes as f64)
    }

    fn row(&self, row: usize, x: &[T]) -> [T; STATISTICS] {
        let larger = |a: T, b: T| if b > a { b } else { a };
        let label = self.label(row);
        if label.is_none() && matches!(self.target, Target::Labels { .. }) {
            return [T::zero(); STATISTICS];
        }
        let max = fold(x, T::neg_infinity(), larger, larger);
        let log_sum = fold(x, T::zero(), |sum, x| sum + (x - max).exp_fast(), |a, b| a + b).ln();
        let log_probability = |x: T| (x - max) - log_sum;
        let (sharp, spread) = (T::one() - self.smoothing, self.spread());
        let loss = match (label, self.target) {
            (Some(label), _) => {
                let own = sharp * self.weight(label) * log_probability(x[label]);
                if self.smoothing == T::zero() {
                    own
                } else {
                    own + spread * x.iter().enumerate().fold(T::zero(), |sum, (class, &x)| sum + self.weight(class) * log_probability(x))
                }
            }
            (None, Target::Probabilities(target)) => {
                let target = &target[row * self.classes..][..self.classes];
                let terms = x.iter().zip(target).enumerate();
                terms.fold(T::zero(), |sum, (class, (&x, &t))| sum + self.weight(class) * (sharp * t + spread) * log_probability(x))
            }
            (None, Target::Labels { .. }) => T::zero(),
        };
        [max, log_sum, -loss]
    }

    /// Computes the gradient of the logits; `scale(row)` is the gradient of that row's loss.
    pub fn backward(&self, x: &[T], statistics: &[T], scale: impl Fn(usize) -> T + Sync, dx: &mut [T]) {
        let (sharp, spread) = (T::one() - self.smoothing, self.spread());
        let total_weight = (0..self.classes).fold(T::zero(), |sum, class| sum + self.weight(class));
        self.each_row(x, statistics, dx, |row, x, [max, log_sum], dx| {
            let scale = scale(row);
            let softmax = |x: T| ((x - max) - log_sum).exp_fast();
            match (self.label(row), self.target) {
                (Some(label), _) => {
                    let own = sharp * self.weight(label);
                    let factor = scale * (own + spread * total_weight);
                    dx.iter_mut().zip(x).for_each(|(dx, &x)| *dx = factor * softmax(x));
                    dx[label] -= scale * own;
                    if self.smoothing != T::zero() {
                        dx.iter_mut().enumerate().for_each(|(class, dx)| *dx -= scale * spread * self.weight(class));
                    }
                }
                (None, Target::Probabilities(target)) => {
                    let target = &target[row * self.classes..][..self.classes];
                    let wanted = |(class, &t): (usize, &T)| self.weight(class) * (sharp * t + spread);
                    let total = target.iter().enumerate().map(wanted).fold(T::zero(), |a, b| a + b);
                    for ((dx, &x), t) in dx.iter_mut().zip(x).zip(target.iter().enumerate()) {
                        *dx = scale * (total * softmax(x) - wanted(t));
                    }
                }
                (None, Target::Labels { .. }) => dx.fill(T::zero()),
            }
        });
    }

    /// Computes the gradient of probabilities as targets.
    pub fn backward_target(&self, x: &[T], statistics: &[T], scale: impl Fn(usize) -> T + Sync, dt: &mut [T]) {
        let sharp = T::one() - self.smoothing;
        self.each_row(x, statistics, dt, |row, x, [max, log_sum], dt| {
            let factor = -scale(row) * sharp;
            dt.iter_mut().zip(x).enumerate().for_each(|(class, (dt, &x))| *dt = factor * self.weight(class) * ((x - max) - log_sum));
        });
    }

    fn each_row(&self, x: &[T], statistics: &[T], out: &mut [T], body: impl Fn(usize, &[T], [T; 2], &mut [T]) + Sync) {
        assert!(x.len() == out.len() && x.len() * STATISTICS == statistics.len() * self.classes);
        let rows = (GRAIN / self.classes).max(1);
        parallel::chunks_mut(out, rows * self.classes, x.len() * COST, |task, out| {
            vectorize!(T, {
                for (row, out) in (task * rows..).zip(out.chunks_exact_mut(self.classes)) {
                    let statistics = [statistics[row * STATISTICS], statistics[row * STATISTICS + 1]];
                    body(row, &x[row * self.classes..][..self.classes], statistics, out);
                }
            });
        });
    }
}

/// Computes `Σ f(a[i], b[i])` in `f64`, in parts of fixed size that are combined in order.
pub fn sum_pairs<T: Real>(a: &[T], b: &[T], cost: usize, f: impl Fn(T, T) -> T + Copy + Sync) -> f64 {
    assert_eq!(a.len(), b.len());
    let mut partial = AlignedVec::<f64>::uninit(a.len().div_ceil(GRAIN));
    parallel::chunks_mut(&mut partial, 1, a.len() * cost, |part, sum| {
        let range = part * GRAIN..a.len().min((part + 1) * GRAIN);
        let (a, b) = (&a[range.clone()], &b[range]);
        let add = |sum: f64, a, b| sum + f(a, b).to_f64().unwrap_or(f64::NAN);
        sum[0] = vectorize!(T, fold_pairs((a, b), 0.0, add, |a, b| a + b));
    });
    partial.iter().sum()
}
