//! The cyclical schedule.

use super::{LrSchedule, Rates, check_positive};
use crate::error::{Error, Result};
use crate::optim::check_range;

/// The height of the cycles of [`CyclicLr`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CyclicMode {
    /// The same in each cycle.
    Triangular,
    /// Half of that of the cycle before.
    Triangular2,
    /// Multiplied by this factor at each step.
    ExpRange(f64),
}

/// Moves the rate up and down between two bounds along straight lines, and the momentum the other
/// way round (Smith, 2017); PyTorch's `CyclicLR`.
///
/// The optimiser's initial rate is not used.
///
/// ```
/// use convnet::optim::{CyclicLr, LrSchedule};
///
/// let schedule = CyclicLr::new(0.01, 0.1).step_size(500, 500);
/// assert_eq!(schedule.at(500, 0, 0.0)?.learning_rate, 0.1);
/// assert_eq!(schedule.at(1000, 0, 0.0)?.learning_rate, 0.01);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct CyclicLr {
    /// Lowest and highest, of all groups or of each.
    rates: Vec<[f64; 2]>,
    up: u64,
    down: u64,
    mode: CyclicMode,
    /// Lowest and highest.
    momentum: Option<[f64; 2]>,
}

impl CyclicLr {
    /// Makes a schedule between these rates with PyTorch's defaults: 2000 steps up and as many
    /// down, equal cycles, momentum between 0.8 and 0.9.
    pub fn new(base_learning_rate: f64, max_learning_rate: f64) -> CyclicLr {
        let rates = vec![[base_learning_rate, max_learning_rate]];
        CyclicLr { rates, up: 2000, down: 2000, mode: CyclicMode::Triangular, momentum: Some([0.8, 0.9]) }
    }

    /// Sets the lowest and the highest rate of each parameter group; otherwise all groups have the
    /// same.
    #[must_use]
    pub fn group_rates(self, rates: impl IntoIterator<Item = [f64; 2]>) -> CyclicLr {
        CyclicLr { rates: rates.into_iter().collect(), ..self }
    }

    /// Sets the numbers of steps in which the rate rises and falls.
    #[must_use]
    pub fn step_size(self, up: u64, down: u64) -> CyclicLr {
        CyclicLr { up, down, ..self }
    }

    /// Sets the height of the cycles.
    #[must_use]
    pub fn mode(self, mode: CyclicMode) -> CyclicLr {
        CyclicLr { mode, ..self }
    }

    /// Sets the bounds between which the momentum (Adam's first beta) cycles; `None` does not
    /// change it, which optimisers without momentum need.
    #[must_use]
    pub fn momentum(self, bounds: impl Into<Option<[f64; 2]>>) -> CyclicLr {
        CyclicLr { momentum: bounds.into(), ..self }
    }
}

impl LrSchedule for CyclicLr {
    fn check(&self) -> Result<()> {
        let op = "CyclicLr";
        check_positive(op, "the number of steps up", self.up)?;
        check_positive(op, "the number of steps down", self.down)?;
        self.rates.iter().flatten().try_for_each(|&rate| check_range(op, "a rate", rate, f64::INFINITY))?;
        if let CyclicMode::ExpRange(gamma) = self.mode {
            check_range(op, "gamma", gamma, f64::INFINITY)?;
        }
        self.momentum.into_iter().flatten().try_for_each(|momentum| check_range(op, "momentum", momentum, 1.0))
    }

    fn at(&self, step: u64, group: usize, _base: f64) -> Result<Rates> {
        let [low, high] = match self.rates[..] {
            [rates] => rates,
            _ => *self.rates.get(group).ok_or_else(|| {
                let count = self.rates.len();
                Error::argument(
                    "CyclicLr",
                    format!("there are bounds of {count} groups and none of group {group}; give one, or one for each group"),
                )
            })?,
        };
        let (step, total) = (step as f64, self.up as f64 + self.down as f64);
        let rise = self.up as f64 / total;
        let cycle = (1.0 + step / total).floor();
        let x = 1.0 + step / total - cycle;
        let height = if x <= rise { x / rise } else { (x - 1.0) / (rise - 1.0) };
        let scale = match self.mode {
            CyclicMode::Triangular => 1.0,
            CyclicMode::Triangular2 => (1.0 - cycle).exp2(),
            CyclicMode::ExpRange(gamma) => gamma.powf(step),
        };
        let momentum = self.momentum.map(|[low, high]| high - (high - low) * height * scale);
        Ok(Rates { learning_rate: low + (high - low) * height * scale, momentum })
    }
}
