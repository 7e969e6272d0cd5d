//! The 1cycle schedule.

use std::f64::consts::PI;

use crate::error::{Error, Result};
use crate::optim::check_range;
use crate::optim::lr_scheduler::{LrSchedule, Rates, check_positive};

/// The curve along which a rate changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anneal {
    /// Half a cosine wave.
    Cosine,
    /// A straight line.
    Linear,
}

impl Anneal {
    fn between(self, start: f64, end: f64, share: f64) -> f64 {
        match self {
            Anneal::Cosine => end + (start - end) / 2.0 * ((PI * share).cos() + 1.0),
            Anneal::Linear => start + (end - start) * share,
        }
    }
}

/// Raises the rate to a maximum and lowers it far below its start, and the momentum the other way
/// round (1cycle; Smith & Topin, 2018); PyTorch's `OneCycleLR`.
///
/// The optimiser's initial rate is not used. There are `total_steps` rates, for as many optimiser
/// steps; the step after the last repeats the last rate, further ones are an error.
#[derive(Clone, Debug, PartialEq)]
pub struct OneCycleLr {
    max_rates: Vec<f64>,
    total_steps: u64,
    pct_start: f64,
    anneal: Anneal,
    /// Lowest and highest.
    momentum: Option<[f64; 2]>,
    div_factor: f64,
    final_div_factor: f64,
    three_phase: bool,
}

impl OneCycleLr {
    /// Makes a schedule with PyTorch's defaults: a rise over 30 % of the steps, cosines, momentum
    /// between 0.85 and 0.95, start at a 25th of the maximum, end at a 10,000th of the start.
    pub fn new(max_learning_rate: f64, total_steps: u64) -> OneCycleLr {
        OneCycleLr {
            max_rates: vec![max_learning_rate],
            total_steps,
            pct_start: 0.3,
            anneal: Anneal::Cosine,
            momentum: Some([0.85, 0.95]),
            div_factor: 25.0,
            final_div_factor: 1e4,
            three_phase: false,
        }
    }

    /// Sets a maximum for each parameter group; otherwise all groups have the same.
    #[must_use]
    pub fn group_max_rates(self, rates: impl IntoIterator<Item = f64>) -> OneCycleLr {
        OneCycleLr { max_rates: rates.into_iter().collect(), ..self }
    }

    /// Sets the share of the steps in which the rate rises, in `[0, 1]`.
    #[must_use]
    pub fn pct_start(self, pct_start: f64) -> OneCycleLr {
        OneCycleLr { pct_start, ..self }
    }

    /// Sets the curve of the rates.
    #[must_use]
    pub fn anneal(self, anneal: Anneal) -> OneCycleLr {
        OneCycleLr { anneal, ..self }
    }

    /// Sets the bounds between which the momentum (Adam's first beta) cycles; `None` does not
    /// change it, which Adagrad needs.
    #[must_use]
    pub fn momentum(self, bounds: impl Into<Option<[f64; 2]>>) -> OneCycleLr {
        OneCycleLr { momentum: bounds.into(), ..self }
    }

    /// Sets the maximum over the first rate.
    #[must_use]
    pub fn div_factor(self, div_factor: f64) -> OneCycleLr {
        OneCycleLr { div_factor, ..self }
    }

    /// Sets the first rate over the last.
    #[must_use]
    pub fn final_div_factor(self, final_div_factor: f64) -> OneCycleLr {
        OneCycleLr { final_div_factor, ..self }
    }

    /// Sets whether to fall to the start in as many steps as the rise took, and only then below it.
    #[must_use]
    pub fn three_phase(self, three_phase: bool) -> OneCycleLr {
        OneCycleLr { three_phase, ..self }
    }
}

impl LrSchedule for OneCycleLr {
    fn check(&self) -> Result<()> {
        let op = "OneCycleLr";
        check_positive(op, "the number of steps", self.total_steps)?;
        self.max_rates.iter().try_for_each(|&rate| check_range(op, "the maximal rate", rate, f64::INFINITY))?;
        if !(0.0..=1.0).contains(&self.pct_start) {
            return Err(Error::argument(op, format!("pct_start must be in [0, 1], got {}", self.pct_start)));
        }
        for factor in [self.div_factor, self.final_div_factor] {
            if !(factor > 0.0 && factor.is_finite()) {
                return Err(Error::argument(op, format!("the division factors must be positive, got {factor}")));
            }
        }
        self.momentum.into_iter().flatten().try_for_each(|momentum| check_range(op, "momentum", momentum, 1.0))
    }

    fn at(&self, step: u64, group: usize, _base: f64) -> Result<Rates> {
        if step > self.total_steps {
            return Err(Error::argument(
                "OneCycleLr",
                format!("step {step} is past the {} steps of the cycle; `total_steps` has to cover the whole training", self.total_steps),
            ));
        }
        let max = match self.max_rates[..] {
            [rate] => rate,
            _ => *self.max_rates.get(group).ok_or_else(|| {
                Error::argument(
                    "OneCycleLr",
                    format!("there are {} maximal rates and none for group {group}; give one, or one for each group", self.max_rates.len()),
                )
            })?,
        };
        let first = max / self.div_factor;
        let last = first / self.final_div_factor;
        let [low, high] = self.momentum.unwrap_or([0.0; 2]);
        let (total, climb) = (self.total_steps as f64, self.pct_start * self.total_steps as f64);
        // Each phase: its last step, and the rate and momentum at its end.
        let two = [(climb - 1.0, max, low), (total - 1.0, last, high)];
        let three = [(climb - 1.0, max, low), (2.0 * climb - 2.0, first, high), (total - 1.0, last, high)];
        let phases: &[(f64, f64, f64)] = if self.three_phase { &three } else { &two };
        let step = step as f64;
        let (mut start, mut rate, mut momentum) = (0.0, first, high);
        for (index, &(end, next_rate, next_momentum)) in phases.iter().enumerate() {
            if step <= end || index + 1 == phases.len() {
                let share = if end > start { ((step - start) / (end - start)).min(1.0) } else { 1.0 };
                rate = self.anneal.between(rate, next_rate, share);
                momentum = self.anneal.between(momentum, next_momentum, share);
                break;
            }
            (start, rate, momentum) = (end, next_rate, next_momentum);
        }
        Ok(super::Rates { learning_rate: rate, momentum: self.momentum.map(|_| momentum) })
    }
}
