//! Errors of predicted numbers: MAE, MSE, RMSE, R².

use super::{Metric, mismatch, numbers};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

const OP: &str = "regression score";

/// Returns the mean absolute error of one batch; NaN for no elements.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ.
pub fn mae(predictions: &Tensor, targets: &Tensor) -> Result<f64> {
    once(RegressionScore::mae(), predictions, targets)
}

/// Returns the root of the mean squared error of one batch; NaN for no elements.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ.
pub fn rmse(predictions: &Tensor, targets: &Tensor) -> Result<f64> {
    once(RegressionScore::rmse(), predictions, targets)
}

/// Returns the coefficient of determination of one batch; see [`RegressionScore::r2`].
///
/// # Errors
/// [`Error::Shape`] when the shapes differ.
///
/// ```
/// use convnet::{Tensor, train::metrics::r2_score};
///
/// let predictions = Tensor::from_vec(vec![2.5f64, 0.0, 2.0, 8.0], [4])?;
/// let targets = Tensor::from_vec(vec![3.0f64, -0.5, 2.0, 7.0], [4])?;
/// assert!((r2_score(&predictions, &targets)? - 0.948608137).abs() < 1e-9);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn r2_score(predictions: &Tensor, targets: &Tensor) -> Result<f64> {
    once(RegressionScore::r2(), predictions, targets)
}

fn once(mut metric: RegressionScore, predictions: &Tensor, targets: &Tensor) -> Result<f64> {
    metric.update(predictions, targets)?;
    Ok(metric.value())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Mae,
    Mse,
    Rmse,
    R2,
}

/// The error of predicted numbers: [`mae`](RegressionScore::mae), [`mse`](RegressionScore::mse),
/// [`rmse`](RegressionScore::rmse) or [`r2`](RegressionScore::r2).
///
/// # Shape
/// Predictions and targets of one shape, `[N, …]`, of any dtypes; `[N, 1]` fits `[N]`. Sums are
/// f64. A value that is not finite makes the score so.
#[derive(Clone, Debug, PartialEq)]
pub struct RegressionScore {
    kind: Kind,
    elements: u64,
    /// The sum of absolute or squared errors.
    sum: f64,
    samples: u64,
    /// For R², the sums of each output.
    outputs: Vec<Output>,
}

/// The sums of one output over all samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Output {
    /// The mean target.
    mean: f64,
    /// The sum of squared distances of the targets from their mean.
    spread: f64,
    /// The sum of squared errors.
    error: f64,
}

impl Output {
    /// Joins the sums of `n` samples with those of `m` others (Chan et al., 1979).
    fn join(self, n: u64, other: Output, m: u64) -> Output {
        if n == 0 || m == 0 {
            return if n == 0 { other } else { self };
        }
        let (n, m) = (n as f64, m as f64);
        let apart = other.mean - self.mean;
        Output {
            mean: self.mean + apart * m / (n + m),
            spread: self.spread + other.spread + apart * apart * n * m / (n + m),
            error: self.error + other.error,
        }
    }

    fn r2(self) -> f64 {
        match (self.error == 0.0, self.spread == 0.0) {
            (true, true) => 1.0,
            (false, true) => 0.0,
            _ => 1.0 - self.error / self.spread,
        }
    }
}

impl RegressionScore {
    fn of(kind: Kind) -> RegressionScore {
        RegressionScore { kind, elements: 0, sum: 0.0, samples: 0, outputs: vec![] }
    }

    /// Computes the mean absolute error over all elements.
    pub fn mae() -> RegressionScore {
        RegressionScore::of(Kind::Mae)
    }

    /// Computes the mean squared error over all elements.
    pub fn mse() -> RegressionScore {
        RegressionScore::of(Kind::Mse)
    }

    /// Computes the root of the mean squared error over all elements (scikit-learn averages the
    /// roots of several outputs).
    pub fn rmse() -> RegressionScore {
        RegressionScore::of(Kind::Rmse)
    }

    /// Computes R², `1 - Σ (y - ŷ)² / Σ (y - ȳ)²`: 1 is perfect, 0 is no better than the mean. With
    /// several outputs, targets `[N, …]`, it is the mean of theirs.
    ///
    /// As in scikit-learn, an output whose targets are all equal has 1 when it is perfect, else 0,
    /// and fewer than two samples have NaN.
    pub fn r2() -> RegressionScore {
        RegressionScore::of(Kind::R2)
    }

    fn join(&mut self, other: &RegressionScore) {
        self.elements += other.elements;
        self.sum += other.sum;
        self.outputs.resize(other.outputs.len(), Output::default());
        for (output, new) in self.outputs.iter_mut().zip(&other.outputs) {
            *output = output.join(self.samples, *new, other.samples);
        }
        self.samples += other.samples;
    }

    /// Returns the score of a batch by itself.
    fn read(kind: Kind, predictions: &Tensor, targets: &Tensor) -> Result<RegressionScore> {
        let trimmed = |x: &Tensor| match *x.shape() {
            [samples, 1] => vec![samples],
            ref shape => shape.to_vec(),
        };
        if trimmed(predictions) != trimmed(targets) || targets.ndim() == 0 {
            let message =
                format!("expected predictions and targets of one shape [N, …], got {:?} and {:?}", predictions.shape(), targets.shape());
            return Err(Error::shape(OP, message));
        }
        let samples = targets.shape()[0];
        let (predictions, targets) = (numbers(predictions)?, numbers(targets)?);
        let errors = || predictions.iter().zip(&targets).map(|(prediction, target)| prediction - target);
        let mut score = RegressionScore { elements: targets.len() as u64, samples: samples as u64, ..RegressionScore::of(kind) };
        score.sum = match kind {
            Kind::Mae => errors().map(f64::abs).sum(),
            Kind::Mse | Kind::Rmse => errors().map(|error| error * error).sum(),
            Kind::R2 => 0.0,
        };
        if kind == Kind::R2 && samples > 0 {
            let columns = targets.len() / samples;
            score.outputs = vec![Output::default(); columns];
            for (index, (&target, error)) in targets.iter().zip(errors()).enumerate() {
                let output = &mut score.outputs[index % columns];
                let single = Output { mean: target, spread: 0.0, error: error * error };
                *output = output.join((index / columns) as u64, single, 1);
            }
        }
        Ok(score)
    }
}

impl Metric for RegressionScore {
    fn update(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<()> {
        let batch = RegressionScore::read(self.kind, outputs, targets)?;
        if batch.samples == 0 {
            return Ok(());
        }
        if self.samples > 0 && self.outputs.len() != batch.outputs.len() {
            let (before, now) = (self.outputs.len(), batch.outputs.len());
            return Err(Error::shape(OP, format!("earlier batches had {before} outputs for each sample, this one {now}")));
        }
        self.join(&batch);
        Ok(())
    }

    fn value(&self) -> f64 {
        let mean = self.sum / self.elements as f64;
        match self.kind {
            Kind::Mae | Kind::Mse => mean,
            Kind::Rmse => mean.sqrt(),
            Kind::R2 if self.samples < 2 => f64::NAN,
            Kind::R2 => self.outputs.iter().map(|output| output.r2()).sum::<f64>() / self.outputs.len() as f64,
        }
    }

    fn merge(&mut self, other: &RegressionScore) -> Result<()> {
        let differ = self.samples > 0 && other.samples > 0 && self.outputs.len() != other.outputs.len();
        if differ || self.kind != other.kind {
            return Err(mismatch(OP));
        }
        if other.samples > 0 {
            self.join(other);
        }
        Ok(())
    }

    fn reset(&mut self) {
        *self = RegressionScore::of(self.kind);
    }
}
