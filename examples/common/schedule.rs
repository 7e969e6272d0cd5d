//! Schedules of the learning rate by name.

use clap::{Args, ValueEnum};
use convnet::optim::{
    Anneal, CosineAnnealingLr, CosineWarmRestarts, CyclicLr, CyclicMode, ExponentialLr, LambdaLr, LinearWarmup, LrSchedule, MultiStepLr,
    OneCycleLr, Optimizer, PlateauMode, PolynomialLr, ReduceLrOnPlateau, StepLr,
};
use convnet::train::Every;
use convnet::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    Constant,
    /// Multiplies by --gamma after every --step-size
    Step,
    /// Multiplies by --gamma at --milestones
    MultiStep,
    /// Multiplies by --gamma each time
    Exponential,
    Cosine,
    /// Cosines of --step-size, begun anew
    CosineRestarts,
    Polynomial,
    /// One rise and fall, up to the learning rate
    OneCycle,
    /// Up and down between --min-lr and the learning rate, --step-size each
    Cyclic,
    /// Multiplies by --gamma when --monitor has not improved for --plateau-patience epochs
    Plateau,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Unit {
    Step,
    Epoch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cycle {
    /// All cycles have the same height
    Triangular,
    /// Each cycle has half the height of the one before
    Triangular2,
    /// The height is multiplied by --gamma in each step
    ExpRange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Curve {
    Cosine,
    Linear,
}

/// The schedule of the learning rate.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Schedule")]
pub struct ScheduleOptions {
    /// Course of the learning rate
    #[arg(long, value_enum, default_value = "cosine")]
    pub schedule: Shape,
    /// What the schedule counts; a plateau counts epochs
    #[arg(long, value_enum, default_value = "step")]
    pub schedule_every: Unit,
    /// Steps or epochs of a linear rise before
    #[arg(long, default_value_t = 0)]
    pub warmup: u64,
    /// Length of a step or a period, in steps or epochs
    #[arg(long, default_value_t = 10)]
    pub step_size: u64,
    /// Steps or epochs at which the rate changes
    #[arg(long, action = clap::ArgAction::Set, value_delimiter = ',')]
    pub milestones: Vec<u64>,
    /// Factor of the learning rate, or of the height of cycles with --cycle-mode exp-range, which
    /// want one near 1, such as 0.999 [default: 0.1]
    #[arg(long)]
    pub gamma: Option<f64>,
    /// Lowest learning rate of a cosine or a cycle
    #[arg(long, default_value_t = 0.0)]
    pub min_lr: f64,
    /// Factor by which each period of cosines with restarts is longer than the one before
    #[arg(long, default_value_t = 1)]
    pub restart_factor: u64,
    /// Heights of the cycles of --schedule cyclic
    #[arg(long, value_enum, default_value = "triangular")]
    pub cycle_mode: Cycle,
    /// Steps or epochs down of a cycle [default: --step-size]
    #[arg(long)]
    pub step_size_down: Option<u64>,
    /// Lowest and highest momentum of a cycle, which falls while the rate rises [default: 0.85,0.95
    /// for one cycle of an optimiser with momentum, otherwise unchanged]
    #[arg(long, action = clap::ArgAction::Set, value_delimiter = ',', value_name = "LOW,HIGH")]
    pub cycle_momentum: Vec<f64>,
    /// Share of the rise in one cycle
    #[arg(long, default_value_t = 0.3)]
    pub pct_start: f64,
    /// The learning rate over the first rate of one cycle
    #[arg(long, default_value_t = 25.0)]
    pub div_factor: f64,
    /// The first rate of one cycle over its last
    #[arg(long, default_value_t = 1e4)]
    pub final_div_factor: f64,
    /// Curve of one cycle
    #[arg(long, value_enum, default_value = "cosine")]
    pub anneal: Curve,
    /// Let one cycle fall as long as it rises, to the first rate, and then to the last
    #[arg(
        long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false
    )]
    pub three_phase: bool,
    /// Exponent of a polynomial
    #[arg(long, default_value_t = 1.0)]
    pub power: f64,
    /// Epochs without an improvement that a plateau has
    #[arg(long, default_value_t = 10)]
    pub plateau_patience: u32,
}

/// What a schedule has to know of the run.
pub struct Run {
    /// The learning rates of the optimiser's groups.
    pub rates: Vec<f64>,
    /// Whether the optimiser has a momentum.
    pub momentum: bool,
    /// Whether the metric that a plateau observes is better when it is higher.
    pub maximize: bool,
}

impl Run {
    pub fn of(optimizer: &dyn Optimizer, maximize: bool) -> Run {
        Run { rates: optimizer.learning_rates(), momentum: matches!(optimizer.momentum_of(0), Ok(Some(_))), maximize }
    }
}

impl ScheduleOptions {
    /// Returns what the schedule counts.
    pub fn every(&self) -> Every {
        match (self.schedule, self.schedule_every) {
            (Shape::Plateau, _) | (_, Unit::Epoch) => Every::Epoch,
            _ => Every::Step,
        }
    }

    /// Makes the schedule of a run of this many steps or epochs.
    pub fn build(&self, total: u64, run: Run) -> Result<Box<dyn LrSchedule>> {
        let momentum = match self.cycle_momentum[..] {
            [] => None,
            [low, high] => Some([low, high]),
            _ => return Err(Error::msg("--cycle-momentum wants two numbers: 0.85,0.95")),
        };
        let rest = total.saturating_sub(self.warmup).max(1);
        let lr = run.rates.first().copied().unwrap_or_default();
        let gamma = self.gamma.unwrap_or(0.1);
        let schedule: Box<dyn LrSchedule> = match self.schedule {
            Shape::Constant => Box::new(LambdaLr::new(|_| 1.0)),
            Shape::Step => Box::new(StepLr::new(self.step_size).gamma(gamma)),
            Shape::MultiStep => Box::new(MultiStepLr::new(self.milestones.clone()).gamma(gamma)),
            Shape::Exponential => Box::new(ExponentialLr::new(gamma)),
            Shape::Cosine => Box::new(CosineAnnealingLr::new(self.min_lr).steps(rest)),
            Shape::CosineRestarts => Box::new(CosineWarmRestarts::new(self.step_size).multiplier(self.restart_factor).minimum(self.min_lr)),
            Shape::Polynomial => Box::new(PolynomialLr::new(rest).power(self.power)),
            Shape::OneCycle => {
                let anneal = if self.anneal == Curve::Cosine { Anneal::Cosine } else { Anneal::Linear };
                let cycle = OneCycleLr::new(lr, rest).group_max_rates(run.rates).pct_start(self.pct_start).anneal(anneal);
                let cycle = cycle.div_factor(self.div_factor).final_div_factor(self.final_div_factor).three_phase(self.three_phase);
                Box::new(match momentum {
                    None if run.momentum => cycle,
                    bounds => cycle.momentum(bounds),
                })
            }
            Shape::Cyclic => {
                let rates = run.rates.into_iter().map(|rate| [self.min_lr, rate]);
                let mode = match self.cycle_mode {
                    Cycle::Triangular => CyclicMode::Triangular,
                    Cycle::Triangular2 => CyclicMode::Triangular2,
                    Cycle::ExpRange => {
                        let gamma = self.gamma.ok_or_else(|| Error::msg("--cycle-mode exp-range wants --gamma near 1, such as 0.999"))?;
                        CyclicMode::ExpRange(gamma)
                    }
                };
                let cycle = CyclicLr::new(self.min_lr, lr).group_rates(rates).momentum(momentum).mode(mode);
                Box::new(cycle.step_size(self.step_size, self.step_size_down.unwrap_or(self.step_size)))
            }
            Shape::Plateau => {
                let mode = if run.maximize { PlateauMode::Max } else { PlateauMode::Min };
                Box::new(ReduceLrOnPlateau::new().mode(mode).factor(gamma).patience(self.plateau_patience))
            }
        };
        Ok(if self.warmup > 0 { Box::new(LinearWarmup::new(self.warmup, schedule)) } else { schedule })
    }
}
