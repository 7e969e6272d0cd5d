//! Stopping when a metric no longer improves.

use crate::error::{Error, Result};
use crate::nn::StateDict;
use crate::tensor::{DType, Tensor};
use crate::train::lower_is_better;

/// Decides to stop training when a metric has not improved for some updates.
///
/// An improvement is a value that is better than the best so far by more than
/// [`min_delta`](EarlyStopping::min_delta): lower or higher, as [`lower_is_better`] judges by the
/// metric's name, unless [`minimize`](EarlyStopping::minimize) says otherwise.
/// A value that is not a number is none. These are the rules of Keras and of Lightning.
///
/// ```
/// use convnet::train::EarlyStopping;
///
/// let mut stopping = EarlyStopping::on("valid/loss").patience(2);
/// let losses = [0.9, 0.5, 0.6, 0.5, 0.4];
/// let stopped = losses.into_iter().position(|loss| stopping.update(loss));
/// assert_eq!((stopped, stopping.best()), (Some(3), Some(0.5)));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct EarlyStopping {
    metric: String,
    patience: u64,
    min_delta: f64,
    minimize: bool,
    best: Option<f64>,
    waited: u64,
}

impl EarlyStopping {
    /// Makes a rule for the metric of this name: a patience of 3, any improvement counts.
    pub fn on(metric: impl Into<String>) -> EarlyStopping {
        let metric = metric.into();
        EarlyStopping { minimize: lower_is_better(&metric), metric, patience: 3, min_delta: 0.0, best: None, waited: 0 }
    }

    /// Sets the number of updates in a row without an improvement after which to stop. Both 0 and 1
    /// stop at the first.
    #[must_use]
    pub fn patience(self, patience: u64) -> EarlyStopping {
        EarlyStopping { patience, ..self }
    }

    /// Sets the change that an improvement has to exceed; its sign is ignored.
    #[must_use]
    pub fn min_delta(self, min_delta: f64) -> EarlyStopping {
        EarlyStopping { min_delta: min_delta.abs(), ..self }
    }

    /// Sets whether lower values of the metric are better.
    #[must_use]
    pub fn minimize(self, minimize: bool) -> EarlyStopping {
        EarlyStopping { minimize, ..self }
    }

    /// Records the metric's next value; returns whether to stop.
    pub fn update(&mut self, value: f64) -> bool {
        let improves = match self.best {
            _ if value.is_nan() => false,
            None => true,
            Some(best) if self.minimize => value + self.min_delta < best,
            Some(best) => value - self.min_delta > best,
        };
        if improves {
            (self.best, self.waited) = (Some(value), 0);
        } else {
            self.waited += 1;
        }
        self.should_stop()
    }

    /// Returns whether the last update asked to stop.
    pub fn should_stop(&self) -> bool {
        self.waited >= self.patience.max(1)
    }

    /// Returns the name of the metric.
    pub fn metric(&self) -> &str {
        &self.metric
    }

    /// Returns the best value so far.
    pub fn best(&self) -> Option<f64> {
        self.best
    }

    /// Returns the number of updates since the best value.
    pub fn waited(&self) -> u64 {
        self.waited
    }

    /// Returns a snapshot for a checkpoint: the best value and the updates since, without the
    /// settings.
    pub fn state(&self) -> StateDict {
        let mut state = StateDict::new();
        state.insert("best", Tensor::scalar(self.best.unwrap_or(f64::NAN)));
        state.insert("waited", Tensor::scalar(i64::try_from(self.waited).unwrap_or(i64::MAX)));
        state
    }

    /// Restores a snapshot.
    ///
    /// # Errors
    /// [`Error::StateDict`] when the snapshot is not one of early stopping; then nothing has
    /// changed.
    pub fn load_state(&mut self, state: &StateDict) -> Result<()> {
        let (best, waited) = (state.try_get("best")?, state.try_get("waited")?);
        let fits = (best.dtype(), best.numel(), waited.dtype(), waited.numel()) == (DType::F64, 1, DType::I64, 1);
        let waited = if fits { u64::try_from(waited.data::<i64>()[0]).ok() } else { None };
        let Some(waited) = waited else {
            let message = "early stopping has one f64 `best` and one i64 `waited` that is not negative".to_string();
            return Err(Error::StateDict(message));
        };
        let best = best.data::<f64>()[0];
        (self.best, self.waited) = ((!best.is_nan()).then_some(best), waited);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stops_at(mut stopping: EarlyStopping, values: &[f64]) -> Option<usize> {
        values.iter().position(|&value| stopping.update(value))
    }

    /// Keras 3's rule: `wait` grows at each value that does not improve by more than `min_delta`,
    /// and training stops when it reaches the patience.
    #[test]
    fn stops_after_as_many_values_without_improvement_as_the_patience() {
        let on = || EarlyStopping::on("valid/loss");
        assert_eq!(stops_at(on().patience(2), &[1.0, 0.9, 0.95, 0.8, 0.9, 0.8]), Some(5));
        assert_eq!(stops_at(on().patience(1).minimize(false), &[0.1, 0.2, 0.2]), Some(2));
        assert_eq!(stops_at(on().patience(2).min_delta(-0.1), &[1.0, 0.95, 0.91, 0.5]), Some(2));
        assert_eq!(stops_at(on().patience(1).minimize(false).min_delta(0.1), &[0.5, 0.61, 0.7]), Some(2));
        assert_eq!(stops_at(on().patience(0), &[1.0, 0.9, 0.9]), Some(2));
        assert_eq!(stops_at(on().patience(2), &[f64::NAN, 1.0, f64::NAN, f64::NAN]), Some(3));
        assert_eq!(stops_at(on().patience(2), &[f64::INFINITY, 1.0, 0.5]), None);
    }

    #[test]
    fn direction_follows_from_the_name_unless_it_is_set() {
        for lower in ["loss", "valid/loss", "valid/loss_total", "valid/CrossEntropyLoss", "top1_error", "valid/mae", "RMSE", "perplexity"] {
            assert!(lower_is_better(lower), "{lower}");
            assert_eq!(stops_at(EarlyStopping::on(lower).patience(1), &[0.5, 0.4, 0.6]), Some(2), "{lower}");
        }
        for higher in ["accuracy", "valid/accuracy", "f1", "valid/r2", "loss/accuracy", "maestro"] {
            assert!(!lower_is_better(higher), "{higher}");
            assert_eq!(stops_at(EarlyStopping::on(higher).patience(1), &[0.5, 0.6, 0.4]), Some(2), "{higher}");
        }
        assert_eq!(stops_at(EarlyStopping::on("valid/accuracy").minimize(true).patience(1), &[0.5, 0.6]), Some(1));
    }

    #[test]
    fn snapshot_continues_and_one_that_does_not_fit_is_refused() {
        let mut stopping = EarlyStopping::on("accuracy").patience(2);
        let mut restored = stopping.clone();
        restored.load_state(&stopping.state()).unwrap();
        assert_eq!(restored, stopping);
        assert!(!stopping.update(0.5) && !stopping.update(0.4));
        restored.load_state(&stopping.state()).unwrap();
        assert_eq!((restored.best(), restored.waited(), restored.should_stop()), (Some(0.5), 1, false));
        assert!(restored.update(0.5) && restored.should_stop());
        let mut spoiled = stopping.state();
        spoiled.insert("waited", Tensor::scalar(-1i64));
        for state in [spoiled, StateDict::new()] {
            assert!(matches!(restored.load_state(&state), Err(Error::StateDict(_))));
        }
        assert_eq!(restored.waited(), 2);
    }
}
