//! Snapshots of optimisers and schedules.

use crate::error::{Error, Result, short};
use crate::tensor::{DType, Tensor};

/// The state of an optimiser or a schedule, as named tensors, so that a checkpoint can hold it next
/// to the weights.
///
/// Names read `sgd.param.3.momentum_buffer`, `adam.group.0.learning_rate`, `schedule.step`.
/// Parameters are counted over all groups. Numbers are tensors of shape `[]`: `f64`, so that
/// nothing is rounded, or `i64` for counts.
///
/// ```
/// use convnet::{Tensor, nn::Parameter};
/// use convnet::optim::{Optimizer, OptimizerState, Sgd};
///
/// let w = Parameter::new(Tensor::ones([2]));
/// let mut optimizer = Sgd::new([w.clone()], 0.1);
/// let entries: Vec<(String, Tensor)> = optimizer.state().into_iter().collect();
/// optimizer.load_state(&OptimizerState::from(entries))?;
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct OptimizerState {
    entries: Vec<(String, Tensor)>,
}

impl OptimizerState {
    /// Returns the tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.entries.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Returns names and tensors in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Returns the number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn push(&mut self, name: String, value: Tensor) {
        self.entries.push((name, value));
    }
}

impl From<Vec<(String, Tensor)>> for OptimizerState {
    fn from(entries: Vec<(String, Tensor)>) -> OptimizerState {
        OptimizerState { entries }
    }
}

impl FromIterator<(String, Tensor)> for OptimizerState {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(entries: I) -> OptimizerState {
        OptimizerState { entries: entries.into_iter().collect() }
    }
}

impl IntoIterator for OptimizerState {
    type Item = (String, Tensor);
    type IntoIter = std::vec::IntoIter<(String, Tensor)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

/// Takes the entries of a snapshot one by one, so that missing and left-over ones are both found.
pub(super) struct Reader<'a> {
    entries: std::collections::HashMap<&'a str, &'a Tensor>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(state: &'a OptimizerState) -> Result<Reader<'a>> {
        let mut entries = std::collections::HashMap::new();
        for (name, value) in state.iter() {
            if entries.insert(name, value).is_some() {
                return Err(Error::StateDict(format!("{} is there twice", short(name))));
            }
        }
        Ok(Reader { entries })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    pub(super) fn optional(&mut self, name: &str) -> Option<&'a Tensor> {
        self.entries.remove(name)
    }

    fn take(&mut self, name: &str) -> Result<&'a Tensor> {
        self.optional(name)
            .ok_or_else(|| Error::StateDict(format!("{name} is missing; the state is of another optimiser or of other parameters")))
    }

    /// Takes a number.
    pub(super) fn number(&mut self, name: &str) -> Result<f64> {
        let value = self.take(name)?;
        if value.dtype() != DType::F64 || value.numel() != 1 {
            return Err(Error::StateDict(format!("{name} should be one f64, got {value:?}")));
        }
        Ok(value.data::<f64>()[0])
    }

    /// Takes a number in place of `value`; the first failure is stored in `outcome`.
    pub(super) fn replace(&mut self, name: &str, value: &mut f64, outcome: &mut Result<()>) {
        match self.number(name) {
            Ok(number) => *value = number,
            Err(error) if outcome.is_ok() => *outcome = Err(error),
            Err(_) => {}
        }
    }

    /// Takes a count.
    pub(super) fn count(&mut self, name: &str) -> Result<u64> {
        let value = self.take(name)?;
        let count = (value.dtype() == DType::I64 && value.numel() == 1).then(|| value.data::<i64>()[0]);
        match count.map(u64::try_from) {
            Some(Ok(count)) => Ok(count),
            _ => Err(Error::StateDict(format!("{name} should be one i64 that is not negative, got {value:?}"))),
        }
    }

    /// Fails when entries are left.
    pub(super) fn finish(self) -> Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let mut names: Vec<&str> = self.entries.into_keys().collect();
        names.sort_unstable();
        let more = if names.len() > 5 { format!(", and {} more", names.len() - 5) } else { String::new() };
        let first: Vec<String> = names.into_iter().take(5).map(short).collect();
        let of = "; the state is of another optimiser or of other parameters";
        Err(Error::StateDict(format!("unexpected {}{more}{of}", first.join(", "))))
    }
}

/// Makes a tensor of a count.
pub(super) fn count(value: u64) -> Tensor {
    Tensor::scalar(i64::try_from(value).unwrap_or(i64::MAX))
}
