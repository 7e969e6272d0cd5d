//! Optimisers by name.

use clap::{Args, ValueEnum};
use convnet::nn::{Module, Parameter};
use convnet::optim::{Adadelta, Adagrad, Adam, AdamW, Lamb, Lars, Lion, NAdam, Optimizer, RAdam, RmsProp, Sgd};
use convnet::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Algorithm {
    Sgd,
    Adam,
    Adamw,
    Nadam,
    Radam,
    Rmsprop,
    Adagrad,
    Adadelta,
    Lamb,
    Lars,
    Lion,
}

/// The optimiser and its settings.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Optimiser")]
pub struct OptimizerOptions {
    #[arg(long, value_enum, default_value = "sgd")]
    pub optimizer: Algorithm,
    /// Learning rate
    #[arg(long, default_value_t = 0.05)]
    pub lr: f64,
    /// Momentum of SGD, RMSprop and LARS
    #[arg(long, default_value_t = 0.9)]
    pub momentum: f64,
    /// Look ahead (SGD, LARS)
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub nesterov: bool,
    #[arg(long, default_value_t = 0.0)]
    pub weight_decay: f64,
    /// Let weight decay act on biases and normalisations too
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub decay_all: bool,
    /// Decays of Adam's averages and those of its relatives [default: the optimiser's]
    #[arg(long, action = clap::ArgAction::Set, value_delimiter = ',', value_name = "B1,B2")]
    pub betas: Vec<f64>,
    /// Added to denominators [default: the optimiser's]
    #[arg(long)]
    pub eps: Option<f64>,
    /// Adam with the largest average so far
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub amsgrad: bool,
    /// Learning rates of parts of the model, as multiples: `layer1=0.1,layer2=0.3`
    #[arg(long, action = clap::ArgAction::Set, value_delimiter = ',', value_name = "PREFIX=FACTOR", value_parser = rate)]
    pub rates: Vec<(String, f64)>,
}

/// Parameters with options in common.
struct Group {
    parameters: Vec<Parameter>,
    factor: f64,
    decay: bool,
}

impl OptimizerOptions {
    /// Makes the optimiser of a model's parameters, in groups by learning rate and weight decay.
    pub fn build(&self, model: &dyn Module) -> Result<Box<dyn Optimizer>> {
        let groups = self.groups(model)?;
        let (lr, decay, momentum) = (self.lr, self.weight_decay, self.momentum);
        let eps = |usual: f64| self.eps.unwrap_or(usual);
        let betas = |usual: f64| match self.betas[..] {
            [] => Ok((0.9, usual)),
            [first, second] => Ok((first, second)),
            _ => Err(Error::msg("--betas wants two numbers: 0.9,0.999")),
        };
        // All parameters are in groups, which change the common options.
        macro_rules! grouped {
            ($optimizer:expr) => {
                Box::new(groups.into_iter().fold($optimizer.weight_decay(decay), |optimizer, group| {
                    optimizer.group(group.parameters, move |options| {
                        options.learning_rate = lr * group.factor;
                        options.weight_decay = if group.decay { decay } else { 0.0 };
                    })
                }))
            };
        }
        let (b1, b2) = betas(if self.optimizer == Algorithm::Lion { 0.99 } else { 0.999 })?;
        Ok(match self.optimizer {
            Algorithm::Sgd => grouped!(Sgd::new([], lr).momentum(momentum).nesterov(self.nesterov)),
            Algorithm::Adam => grouped!(Adam::new([], lr).betas(b1, b2).eps(eps(1e-8)).amsgrad(self.amsgrad)),
            Algorithm::Adamw => grouped!(AdamW::new([], lr).betas(b1, b2).eps(eps(1e-8)).amsgrad(self.amsgrad)),
            Algorithm::Nadam => grouped!(NAdam::new([], lr).betas(b1, b2).eps(eps(1e-8))),
            Algorithm::Radam => grouped!(RAdam::new([], lr).betas(b1, b2).eps(eps(1e-8))),
            Algorithm::Rmsprop => grouped!(RmsProp::new([], lr).momentum(momentum).eps(eps(1e-8))),
            Algorithm::Adagrad => grouped!(Adagrad::new([], lr).eps(eps(1e-10))),
            Algorithm::Adadelta => grouped!(Adadelta::new([], lr).eps(eps(1e-6))),
            Algorithm::Lamb => grouped!(Lamb::new([], lr).betas(b1, b2).eps(eps(1e-6))),
            Algorithm::Lars => grouped!(Lars::new([], lr).momentum(momentum).nesterov(self.nesterov).eps(eps(1e-8))),
            Algorithm::Lion => grouped!(Lion::new([], lr).betas(b1, b2)),
        })
    }

    fn groups(&self, model: &dyn Module) -> Result<Vec<Group>> {
        let mut groups: Vec<Group> = Vec::new();
        let mut used = vec![false; self.rates.len()];
        for (name, parameter) in model.named_parameters() {
            if parameter.is_frozen() {
                continue;
            }
            // The longest prefix that fits.
            let fits =
                |prefix: &str| prefix.is_empty() || name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            let rates = self.rates.iter().enumerate().filter(|(_, (prefix, _))| fits(prefix));
            let rate = rates.max_by_key(|(_, (prefix, _))| prefix.len());
            let factor = rate.map_or(1.0, |(place, (_, factor))| {
                used[place] = true;
                *factor
            });
            let decay = self.decay_all || parameter.shape().len() > 1;
            match groups.iter_mut().find(|group| group.factor == factor && group.decay == decay) {
                Some(group) => group.parameters.push(parameter),
                None => groups.push(Group { parameters: vec![parameter], factor, decay }),
            }
        }
        match used.iter().position(|&used| !used) {
            Some(place) => Err(Error::msg(format!("--rates: the model trains no parameter below {:?}", self.rates[place].0))),
            None if groups.is_empty() => Err(Error::msg("there is nothing to train: all parameters are frozen")),
            None => Ok(groups),
        }
    }
}

fn rate(text: &str) -> std::result::Result<(String, f64), String> {
    let (prefix, factor) = text.split_once('=').ok_or("expected PREFIX=FACTOR")?;
    let factor = factor.parse().map_err(|_| format!("{factor:?} is not a number"))?;
    Ok((prefix.to_string(), factor))
}
