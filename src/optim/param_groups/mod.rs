//! Parameter groups, state and the update loop that all optimisers share.

use std::collections::HashSet;
use std::fmt;

use super::state::{self, OptimizerState, Reader};
use super::update_rule::{MAX_SLOTS, Progress, UpdateRule};
use crate::autograd::Gradients;
use crate::autograd::gradients::norm_of;
use crate::error::{Error, Result};
use crate::nn::Parameter;
use crate::optim::{Optimizer, check_range};
use crate::profiling::hooks::operation;
use crate::tensor::{Tensor, with_float};

struct Member {
    parameter: Parameter,
    steps: u64,
    slots: [Option<Tensor>; MAX_SLOTS],
    /// The number of a rule with a [`NUMBER`](UpdateRule::NUMBER).
    number: f64,
}

type Edit<R> = Box<dyn Fn(&mut R) + Send>;

struct Group<R> {
    options: R,
    /// The group's changes to the default options.
    edit: Option<Edit<R>>,
    members: Vec<Member>,
}

/// An optimiser with the options `R`; see [`Sgd`](super::Sgd), [`Adam`](super::Adam),
/// [`AdamW`](super::AdamW), [`NAdam`](super::NAdam), [`RAdam`](super::RAdam),
/// [`Adadelta`](super::Adadelta), [`Adagrad`](super::Adagrad), [`RmsProp`](super::RmsProp),
/// [`Lamb`](super::Lamb), [`Lars`](super::Lars), [`Lion`](super::Lion).
pub struct GroupedOptimizer<R> {
    defaults: R,
    groups: Vec<Group<R>>,
    known: HashSet<u64>,
    /// An error in the groups, which `step` reports.
    defect: Option<String>,
}

impl<R: UpdateRule> GroupedOptimizer<R> {
    pub(crate) fn with_options(parameters: impl IntoIterator<Item = Parameter>, defaults: R) -> Self {
        let mut optimizer = GroupedOptimizer { defaults, groups: vec![], known: HashSet::new(), defect: None };
        optimizer.push(parameters, None);
        optimizer
    }

    /// Adds a group of parameters with separate options: `edit` changes a copy of the optimiser's.
    ///
    /// Setters and `group` may come in any order: a setter changes every group, except for the
    /// options that its `edit` changed.
    ///
    /// ```
    /// use convnet::{Tensor, nn::Parameter, optim::Sgd};
    ///
    /// let (weight, bias) = (Parameter::new(Tensor::ones([3, 2])), Parameter::new(Tensor::zeros([3])));
    /// let optimizer = Sgd::new([weight], 0.1).weight_decay(5e-4).group([bias], |options| options.weight_decay = 0.0);
    /// ```
    #[must_use]
    pub fn group(mut self, parameters: impl IntoIterator<Item = Parameter>, edit: impl Fn(&mut R) + Send + 'static) -> Self {
        self.push(parameters, Some(Box::new(edit)));
        self
    }

    /// Returns the options of a group.
    pub fn options(&self, group: usize) -> Option<&R> {
        self.groups.get(group).map(|group| &group.options)
    }

    /// Changes the options of all groups, except those that a group's `edit` changed.
    pub(crate) fn set(mut self, change: impl Fn(&mut R)) -> Self {
        change(&mut self.defaults);
        for group in &mut self.groups {
            change(&mut group.options);
            if let Some(edit) = &group.edit {
                edit(&mut group.options);
            }
        }
        self
    }

    fn push(&mut self, parameters: impl IntoIterator<Item = Parameter>, edit: Option<Edit<R>>) {
        let mut options = self.defaults.clone();
        if let Some(edit) = &edit {
            edit(&mut options);
        }
        let (mut members, mut here) = (vec![], HashSet::new());
        for parameter in parameters {
            let leaf = parameter.leaf().unwrap_or_else(|error| {
                self.defect = Some(error.to_string());
                Tensor::scalar(0u8)
            });
            if let Some(leaf) = leaf.node().map(|node| node.number) {
                if self.known.contains(&leaf) {
                    self.defect = Some(format!("{parameter:?} is in two groups"));
                }
                // Two layers that share a parameter both name it.
                if !here.insert(leaf) {
                    continue;
                }
            }
            members.push(Member { parameter, steps: 0, slots: [const { None }; MAX_SLOTS], number: 1.0 });
        }
        self.known.extend(here);
        self.groups.push(Group { options, edit, members });
    }

    fn check_group(&self, group: usize) -> Result<()> {
        if group < self.groups.len() {
            return Ok(());
        }
        Err(Error::argument(R::NAME, format!("there are {} groups, numbered from 0, and no group {group}", self.groups.len())))
    }

    fn check(&self, gradients: &Gradients) -> Result<()> {
        if let Some(defect) = &self.defect {
            return Err(Error::argument(R::NAME, defect.clone()));
        }
        let mut found = false;
        for group in &self.groups {
            group.options.check()?;
            for member in &group.members {
                let leaf = member.parameter.leaf()?;
                if let Some(gradient) = gradients.get(&leaf) {
                    found = true;
                    gradient.expect_float(R::NAME)?;
                    leaf.expect_float(R::NAME)?;
                    if gradient.shape() != leaf.shape() {
                        let message = format!("a gradient {:?} does not fit a parameter {:?}", gradient.shape(), leaf.shape());
                        return Err(Error::shape(R::NAME, message));
                    }
                }
            }
        }
        if found { Ok(()) } else { Err(Error::argument(R::NAME, self.why_nothing_is_found(gradients))) }
    }

    /// Returns the norm of the gradients of all parameters that a step changes.
    fn norm(&self, gradients: &Gradients) -> Result<f64> {
        let members = self.groups.iter().flat_map(|group| &group.members).filter(|member| !member.parameter.is_frozen());
        let leaves = members.map(|member| member.parameter.leaf()).collect::<Result<Vec<Tensor>>>()?;
        norm_of(leaves.iter().filter_map(|leaf| gradients.get(leaf)))
    }

    /// Returns the likely cause when no parameter has a gradient.
    fn why_nothing_is_found(&self, gradients: &Gradients) -> String {
        let parameters = || self.groups.iter().flat_map(|group| &group.members).map(|member| &member.parameter);
        let (all, frozen) = (parameters().count(), parameters().filter(|parameter| parameter.is_frozen()).count());
        if all == 0 {
            return "there are no parameters; give the optimiser those of the network, `net.parameters()`".into();
        }
        if frozen == all {
            return format!("all {all} parameters are frozen, so that none has a gradient; unfreeze some, or leave out this step");
        }
        let there = match gradients.len() {
            0 => "there are no gradients at all".to_string(),
            count => format!("the {count} gradients belong to other tensors"),
        };
        let frozen = if frozen == 0 { String::new() } else { format!(", {frozen} of them frozen,") };
        format!(
            "none of the {all} parameters{frozen} has a gradient: {there}. Was the optimiser made for another network than the one that the loss \
             comes from (built or loaded anew since), or does the loss not depend on these parameters (`no_grad`, `detach`)?"
        )
    }
}

impl<R: UpdateRule> Optimizer for GroupedOptimizer<R> {
    fn step(&mut self, gradients: &Gradients) -> Result<()> {
        let _op = operation(R::NAME);
        self.check(gradients)?;
        let norm = if self.groups.iter().any(|group| group.options.max_norm() < f64::INFINITY) { self.norm(gradients)? } else { 0.0 };
        for group in &mut self.groups {
            // Not a number for a norm that is not.
            let share = norm / group.options.max_norm();
            let clip = if share <= 1.0 { 1.0 } else { 1.0 / share };
            for member in &mut group.members {
                member.step(&group.options, gradients, clip)?;
            }
        }
        Ok(())
    }

    fn num_groups(&self) -> usize {
        self.groups.len()
    }

    fn parameters(&self) -> Vec<Parameter> {
        self.groups.iter().flat_map(|group| &group.members).map(|member| member.parameter.clone()).collect()
    }

    fn learning_rate(&self, group: usize) -> Result<f64> {
        self.check_group(group)?;
        Ok(*self.groups[group].options.clone().learning_rate())
    }

    fn set_learning_rate(&mut self, group: usize, learning_rate: f64) -> Result<()> {
        self.check_group(group)?;
        check_range(R::NAME, "learning rate", learning_rate, f64::INFINITY)?;
        *self.groups[group].options.learning_rate() = learning_rate;
        Ok(())
    }

    fn momentum_of(&self, group: usize) -> Result<Option<f64>> {
        self.check_group(group)?;
        Ok(self.groups[group].options.clone().momentum().copied())
    }

    fn set_momentum(&mut self, group: usize, momentum: f64) -> Result<()> {
        self.check_group(group)?;
        check_range(R::NAME, "momentum", momentum, 1.0)?;
        match self.groups[group].options.momentum() {
            Some(current) => *current = momentum,
            None => return Err(Error::argument(R::NAME, "this optimiser has no momentum")),
        }
        Ok(())
    }

    fn state(&self) -> OptimizerState {
        let mut state = OptimizerState::default();
        for (index, group) in self.groups.iter().enumerate() {
            group.options.clone().visit(&mut |name, value| {
                state.push(format!("{}.group.{index}.{name}", R::NAME), Tensor::scalar(*value));
            });
        }
        for (index, member) in self.groups.iter().flat_map(|group| &group.members).enumerate() {
            state.push(format!("{}.param.{index}.step", R::NAME), state::count(member.steps));
            if let Some(name) = R::NUMBER {
                state.push(format!("{}.param.{index}.{name}", R::NAME), Tensor::scalar(member.number));
            }
            for (name, slot) in R::SLOTS.iter().zip(&member.slots) {
                if let Some(slot) = slot {
                    state.push(format!("{}.param.{index}.{name}", R::NAME), slot.clone());
                }
            }
        }
        state
    }

    fn load_state(&mut self, state: &OptimizerState) -> Result<()> {
        let mut reader = Reader::new(state)?;
        let mut options = vec![];
        for (index, group) in self.groups.iter().enumerate() {
            let (mut loaded, mut outcome) = (group.options.clone(), Ok(()));
            let full = |name| format!("{}.group.{index}.{name}", R::NAME);
            loaded.visit(&mut |name, value| match name {
                // Snapshots of earlier versions do not have it, or have it under another name.
                "maximize" if !reader.has(&full(name)) => *value = 0.0,
                "eps" if !reader.has(&full(name)) && reader.has(&full("epsilon")) => reader.replace(&full("epsilon"), value, &mut outcome),
                _ => reader.replace(&full(name), value, &mut outcome),
            });
            outcome?;
            loaded.check().map_err(|error| Error::StateDict(format!("group {index}: {error}")))?;
            options.push(loaded);
        }
        let mut members = vec![];
        for (index, member) in self.groups.iter().flat_map(|group| &group.members).enumerate() {
            let steps = reader.count(&format!("{}.param.{index}.step", R::NAME))?;
            let number = match R::NUMBER {
                Some(name) => reader.number(&format!("{}.param.{index}.{name}", R::NAME))?,
                None => 1.0,
            };
            let mut slots = [const { None }; MAX_SLOTS];
            for (name, slot) in R::SLOTS.iter().zip(&mut slots) {
                let name = format!("{}.param.{index}.{name}", R::NAME);
                let Some(value) = reader.optional(&name) else { continue };
                let expected = member.parameter.leaf()?;
                if value.shape() != expected.shape() || value.dtype() != expected.dtype() {
                    return Err(Error::StateDict(format!("{name} is {value:?}, its parameter {expected:?}")));
                }
                *slot = Some(value.detach());
            }
            members.push((steps, slots, number));
        }
        reader.finish()?;
        for (group, options) in self.groups.iter_mut().zip(options) {
            group.options = options;
        }
        for (member, loaded) in self.groups.iter_mut().flat_map(|group| &mut group.members).zip(members) {
            (member.steps, member.slots, member.number) = loaded;
        }
        Ok(())
    }
}

impl Member {
    fn step<R: UpdateRule>(&mut self, options: &R, gradients: &Gradients, clip: f64) -> Result<()> {
        let Some(gradient) = gradients.get(&self.parameter.leaf()?) else { return Ok(()) };
        if self.parameter.is_frozen() {
            return Ok(());
        }
        let (steps, slots, number) = (&mut self.steps, &mut self.slots, &mut self.number);
        self.parameter.update(|value| {
            with_float!(value.dtype(), R::NAME, T => {
                let format = value.memory_format();
                let mut gradient = gradient.to_format(format)?.cast(value.dtype())?;
                if options.maximize() {
                    gradient = gradient.try_neg()?;
                }
                let mut fresh = false;
                for (slot, _) in slots.iter_mut().zip(options.needs()).filter(|(_, needed)| *needed) {
                    *slot = Some(match slot {
                        Some(state) => state.to_format(format)?.cast(value.dtype())?,
                        None => {
                            fresh = true;
                            value.try_full_like(options.initial())?
                        }
                    });
                }
                let mut state: [&mut [T]; MAX_SLOTS] = [&mut [], &mut [], &mut []];
                for ((slot, needed), state) in slots.iter_mut().zip(options.needs()).zip(&mut state) {
                    if let Some(slot) = slot.as_mut().filter(|_| needed) {
                        *state = slot.make_mut()?;
                    }
                }
                let mut progress = Progress { step: *steps + 1, fresh, number: *number, clip };
                options.update(&mut progress, value.make_mut()?, gradient.data(), state)?;
                (*steps, *number) = (progress.step, progress.number);
                Ok(())
            })
        })
    }
}

impl<R: UpdateRule> fmt::Debug for GroupedOptimizer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", R::NAME)?;
        for (index, group) in self.groups.iter().enumerate() {
            let comma = if index > 0 { "; " } else { "" };
            write!(f, "{comma}{} parameters, {:?}", group.members.len(), group.options)?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests;
