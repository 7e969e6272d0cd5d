//! A schedule that lowers the rate when a metric stops improving.

use crate::error::{Error, Result};
use crate::optim::check_range;
use crate::optim::lr_scheduler::{LrSchedule, Rates};

/// The direction in which a metric improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlateauMode {
    /// Lower is better: a loss.
    Min,
    /// Higher is better: an accuracy.
    Max,
}

/// The reference of the threshold of an improvement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThresholdMode {
    /// Relative to the best metric so far.
    Relative,
    /// Absolute.
    Absolute,
}

/// Multiplies the rate by a factor when a metric has not improved for more than `patience` steps;
/// PyTorch's `ReduceLROnPlateau`.
///
/// Each step needs the metric: [`LrScheduler::step_with`](crate::optim::LrScheduler::step_with). A
/// metric that is not a number is no improvement.
#[derive(Clone, Debug, PartialEq)]
pub struct ReduceLrOnPlateau {
    mode: PlateauMode,
    factor: f64,
    patience: u32,
    threshold: f64,
    threshold_mode: ThresholdMode,
    cooldown: u32,
    min_learning_rate: f64,
    eps: f64,
    // Counts, as numbers that snapshots can hold.
    best: f64,
    bad_steps: f64,
    cooling: f64,
    reductions: f64,
}

impl ReduceLrOnPlateau {
    /// Makes a schedule with PyTorch's defaults: lower is better, factor 0.1, patience 10, relative
    /// threshold 1e-4, no cooldown, changes up to 1e-8 are not made.
    pub fn new() -> ReduceLrOnPlateau {
        ReduceLrOnPlateau {
            mode: PlateauMode::Min,
            factor: 0.1,
            patience: 10,
            threshold: 1e-4,
            threshold_mode: ThresholdMode::Relative,
            cooldown: 0,
            min_learning_rate: 0.0,
            eps: 1e-8,
            best: f64::INFINITY,
            bad_steps: 0.0,
            cooling: 0.0,
            reductions: 0.0,
        }
    }

    /// Sets the direction in which the metric improves.
    #[must_use]
    pub fn mode(self, mode: PlateauMode) -> ReduceLrOnPlateau {
        let best = if mode == PlateauMode::Min { f64::INFINITY } else { f64::NEG_INFINITY };
        ReduceLrOnPlateau { mode, best, ..self }
    }

    /// Sets the factor, in `[0, 1)`.
    #[must_use]
    pub fn factor(self, factor: f64) -> ReduceLrOnPlateau {
        ReduceLrOnPlateau { factor, ..self }
    }

    /// Sets how many steps without improvement are accepted.
    #[must_use]
    pub fn patience(self, patience: u32) -> ReduceLrOnPlateau {
        ReduceLrOnPlateau { patience, ..self }
    }

    /// Sets how large an improvement must be, and its reference.
    #[must_use]
    pub fn threshold(self, threshold: f64, threshold_mode: ThresholdMode) -> ReduceLrOnPlateau {
        ReduceLrOnPlateau { threshold, threshold_mode, ..self }
    }

    /// Sets how many steps after a reduction are not counted.
    #[must_use]
    pub fn cooldown(self, cooldown: u32) -> ReduceLrOnPlateau {
        ReduceLrOnPlateau { cooldown, ..self }
    }

    /// Sets the lowest rate.
    #[must_use]
    pub fn min_learning_rate(self, min_learning_rate: f64) -> ReduceLrOnPlateau {
        ReduceLrOnPlateau { min_learning_rate, ..self }
    }

    /// Sets the largest change of the rate that is not made.
    #[must_use]
    pub fn eps(self, eps: f64) -> ReduceLrOnPlateau {
        ReduceLrOnPlateau { eps, ..self }
    }

    fn improves(&self, metric: f64) -> bool {
        match (self.mode, self.threshold_mode) {
            (PlateauMode::Min, ThresholdMode::Relative) => metric < self.best * (1.0 - self.threshold),
            (PlateauMode::Min, ThresholdMode::Absolute) => metric < self.best - self.threshold,
            (PlateauMode::Max, ThresholdMode::Relative) => metric > self.best * (1.0 + self.threshold),
            (PlateauMode::Max, ThresholdMode::Absolute) => metric > self.best + self.threshold,
        }
    }
}

impl Default for ReduceLrOnPlateau {
    fn default() -> ReduceLrOnPlateau {
        ReduceLrOnPlateau::new()
    }
}

impl LrSchedule for ReduceLrOnPlateau {
    fn check(&self) -> Result<()> {
        check_range("ReduceLrOnPlateau", "the factor", self.factor, 1.0)?;
        check_range("ReduceLrOnPlateau", "the threshold", self.threshold, f64::INFINITY)?;
        check_range("ReduceLrOnPlateau", "the lowest rate", self.min_learning_rate, f64::INFINITY)?;
        check_range("ReduceLrOnPlateau", "eps", self.eps, f64::INFINITY)
    }

    fn at(&self, _step: u64, _group: usize, base: f64) -> Result<Rates> {
        let (mut learning_rate, mut left) = (base, self.reductions);
        while left >= 1.0 {
            let next = (learning_rate * self.factor).max(self.min_learning_rate);
            // Only a smaller rate continues: further reductions would change nothing either.
            if learning_rate - next > self.eps {
                (learning_rate, left) = (next, left - 1.0);
            } else {
                break;
            }
        }
        Ok(Rates { learning_rate, momentum: None })
    }

    fn observe(&mut self, _step: u64, metric: Option<f64>) -> Result<()> {
        let metric = metric.ok_or_else(|| Error::argument("ReduceLrOnPlateau", "a step needs a metric: use step_with"))?;
        if self.improves(metric) {
            self.best = metric;
            self.bad_steps = 0.0;
        } else {
            self.bad_steps += 1.0;
        }
        if self.cooling > 0.0 {
            self.cooling -= 1.0;
            self.bad_steps = 0.0;
        }
        if self.bad_steps > f64::from(self.patience) {
            self.reductions += 1.0;
            self.cooling = f64::from(self.cooldown);
            self.bad_steps = 0.0;
        }
        Ok(())
    }

    fn visit(&mut self, visitor: &mut dyn FnMut(&str, &mut f64)) {
        visitor("best", &mut self.best);
        visitor("bad_steps", &mut self.bad_steps);
        visitor("cooling", &mut self.cooling);
        visitor("reductions", &mut self.reductions);
    }
}
