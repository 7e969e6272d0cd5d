//! Schedules of the learning rate by name.

use clap::{Args, ValueEnum};
use convnet::optim::{
    CosineAnnealingLr, CosineWarmRestarts, CyclicLr, ExponentialLr, LambdaLr, LinearWarmup, LrSchedule, MultiStepLr, OneCycleLr, Optimizer,
    PlateauMode, PolynomialLr, ReduceLrOnPlateau, StepLr,
};
use convnet::train::Every;

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
    /// Factor of the learning rate
    #[arg(long, default_value_t = 0.1)]
    pub gamma: f64,
    /// Lowest learning rate of a cosine or a cycle
    #[arg(long, default_value_t = 0.0)]
    pub min_lr: f64,
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
    pub fn build(&self, total: u64, run: Run) -> Box<dyn LrSchedule> {
        let rest = total.saturating_sub(self.warmup).max(1);
        let lr = run.rates.first().copied().unwrap_or_default();
        let schedule: Box<dyn LrSchedule> = match self.schedule {
            Shape::Constant => Box::new(LambdaLr::new(|_| 1.0)),
            Shape::Step => Box::new(StepLr::new(self.step_size).gamma(self.gamma)),
            Shape::MultiStep => Box::new(MultiStepLr::new(self.milestones.clone()).gamma(self.gamma)),
            Shape::Exponential => Box::new(ExponentialLr::new(self.gamma)),
            Shape::Cosine => Box::new(CosineAnnealingLr::new(self.min_lr).steps(rest)),
            Shape::CosineRestarts => Box::new(CosineWarmRestarts::new(self.step_size).minimum(self.min_lr)),
            Shape::Polynomial => Box::new(PolynomialLr::new(rest).power(self.power)),
            Shape::OneCycle => {
                let cycle = OneCycleLr::new(lr, rest).group_max_rates(run.rates);
                Box::new(if run.momentum { cycle } else { cycle.momentum(None) })
            }
            Shape::Cyclic => {
                let rates = run.rates.into_iter().map(|rate| [self.min_lr, rate]);
                let cycle = CyclicLr::new(self.min_lr, lr).group_rates(rates).momentum(None);
                Box::new(cycle.step_size(self.step_size, self.step_size))
            }
            Shape::Plateau => {
                let mode = if run.maximize { PlateauMode::Max } else { PlateauMode::Min };
                Box::new(ReduceLrOnPlateau::new().mode(mode).factor(self.gamma).patience(self.plateau_patience))
            }
        };
        if self.warmup > 0 { Box::new(LinearWarmup::new(self.warmup, schedule)) } else { schedule }
    }
}
