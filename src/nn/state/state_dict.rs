//! State dicts: a network's parameters and buffers by name.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use super::safetensors;
use crate::error::{Error, Result, clipped, short};
use crate::nn::module::Module;
use crate::nn::module::visitor::{Item, Visitor};
use crate::tensor::{DType, MemoryFormat, Tensor};

/// Tensors by name, in order of insertion.
///
/// ```
/// use convnet::nn::{Linear, ModuleExt};
///
/// let (a, b) = (Linear::new(2, 3), Linear::new(2, 3));
/// b.load_state_dict(&a.state_dict())?;
/// assert_eq!(a.state_dict().keys().collect::<Vec<_>>(), ["weight", "bias"]);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct StateDict {
    entries: Vec<(String, Tensor)>,
    index: HashMap<String, usize>,
    /// The reasons why tensors of the file could not be read, by name.
    unreadable: BTreeMap<String, String>,
}

impl StateDict {
    /// Creates a state dict without entries.
    pub fn new() -> StateDict {
        StateDict::default()
    }

    /// Adds a tensor, or replaces the one with that name in its position and returns the old one.
    /// The tensor's history is dropped.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) -> Option<Tensor> {
        let (name, tensor) = (name.into(), tensor.detach());
        self.unreadable.remove(&name);
        if let Some(&at) = self.index.get(&name) {
            return Some(std::mem::replace(&mut self.entries[at].1, tensor));
        }
        self.index.insert(name.clone(), self.entries.len());
        self.entries.push((name, tensor));
        None
    }

    /// Returns the tensor with this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.index.get(name).map(|&at| &self.entries[at].1)
    }

    /// Returns the tensor with this name, or the reason why there is none.
    ///
    /// # Errors
    /// [`Error::StateDict`] when the loaded file stores this tensor in an unsupported form, such as
    /// a dtype that does not exist here, and when there is no such name.
    pub fn try_get(&self, name: &str) -> Result<&Tensor> {
        self.get(name).ok_or_else(|| match self.unreadable.get(name) {
            Some(reason) => Error::StateDict(format!("tensor {} cannot be read: {reason}", short(name))),
            None => Error::StateDict(format!("has no tensor {}", short(name))),
        })
    }

    /// Returns the names of tensors of the loaded file that could not be read, each with the
    /// reason. They are not among [`keys`](Self::keys) and [`len`](Self::len) does not count them;
    /// [`remove`](Self::remove) removes one.
    pub fn unreadable(&self) -> impl Iterator<Item = (&str, &str)> {
        self.unreadable.iter().map(|(name, reason)| (name.as_str(), reason.as_str()))
    }

    /// Records that a file contains this tensor, and why it cannot be read.
    pub(crate) fn insert_unreadable(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        let name = name.into();
        if !self.contains_key(&name) {
            self.unreadable.insert(name, clipped(&reason.into()));
        }
    }

    /// Renames all keys; the order stays.
    pub(crate) fn with_keys(self, rename: impl Fn(&str) -> String) -> StateDict {
        let mut state: StateDict = self.entries.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect();
        for (name, reason) in self.unreadable {
            state.insert_unreadable(rename(&name), reason);
        }
        state
    }

    /// Checks that the state dict does not consist of unreadable tensors only.
    ///
    /// # Errors
    /// The reason for the first tensor when some could not be read and no other tensor exists.
    pub(crate) fn check_readable(&self) -> Result<(), String> {
        match self.unreadable.iter().next() {
            Some((name, reason)) if self.is_empty() => Err(format!("tensor {}: {reason}", short(name))),
            _ => Ok(()),
        }
    }

    /// Returns whether there is a tensor with this name.
    pub fn contains_key(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// Removes and returns a tensor; the order of the others stays.
    pub fn remove(&mut self, name: &str) -> Option<Tensor> {
        self.unreadable.remove(name);
        let at = self.index.remove(name)?;
        self.index.values_mut().filter(|other| **other > at).for_each(|other| *other -= 1);
        Some(self.entries.remove(at).1)
    }

    /// Returns the number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the names, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| name.as_str())
    }

    /// Returns names and tensors, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Compares with another state dict: names, shapes, dtypes, and values bit for bit, except that
    /// all NaN are equal.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when memory cannot hold the temporary data of the comparison.
    pub fn difference(&self, other: &StateDict) -> Result<StateDifference> {
        let mut difference = StateDifference::default();
        let only = |a: &StateDict, b: &StateDict| a.keys().filter(|key| !b.contains_key(key)).map(str::to_string).collect();
        (difference.only_here, difference.only_there) = (only(self, other), only(other, self));
        for (name, here) in self.iter() {
            let Some(there) = other.get(name) else { continue };
            if here.shape() != there.shape() || here.dtype() != there.dtype() {
                let form = |tensor: &Tensor| format!("{} {:?}", tensor.dtype(), tensor.shape());
                difference.misshapen.push(format!("{name}: {} and {}", form(here), form(there)));
            } else if !same_values(here, there)? {
                difference.changed.push(name.to_string());
            }
        }
        Ok(difference)
    }

    /// Writes a safetensors file, which Python's `safetensors` reads: writes a temporary file
    /// beside the target, syncs and renames it.
    ///
    /// After a crash the file is either the old one or the new one; the next save to the same path
    /// removes the temporary file of a killed process. The new file has the old one's permissions.
    /// A symbolic link is followed, also to a file that does not exist yet. Devices and named pipes
    /// are written to instead of replaced; writing to a pipe waits for a reader.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        safetensors::save(self, path.as_ref())
    }

    /// Reads a safetensors file. `F16` and `BF16` become `f32`; integers other than `U8` become
    /// `i64`, `BOOL` becomes `u8`.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Format`] when it is not a valid
    /// safetensors file or contains an unsupported dtype; both contain the path.
    pub fn load(path: impl AsRef<Path>) -> Result<StateDict> {
        safetensors::load(path.as_ref())
    }
}

impl<S: Into<String>> FromIterator<(S, Tensor)> for StateDict {
    fn from_iter<I: IntoIterator<Item = (S, Tensor)>>(entries: I) -> StateDict {
        let mut state = StateDict::new();
        for (name, tensor) in entries {
            state.insert(name, tensor);
        }
        state
    }
}

impl IntoIterator for StateDict {
    type Item = (String, Tensor);
    type IntoIter = std::vec::IntoIter<(String, Tensor)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl fmt::Debug for StateDict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

fn same_values(a: &Tensor, b: &Tensor) -> Result<bool> {
    let [a, b] = [a.to_format(MemoryFormat::RowMajor)?, b.to_format(MemoryFormat::RowMajor)?];
    // Only NaN differs from itself.
    let same = |a: &f64, b: &f64| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    Ok(match a.dtype() {
        DType::F32 => a.data::<f32>().iter().zip(b.data::<f32>()).all(|(&a, &b)| same(&a.into(), &b.into())),
        DType::F64 => a.data::<f64>().iter().zip(b.data::<f64>()).all(|(a, b)| same(a, b)),
        DType::I64 => a.data::<i64>() == b.data::<i64>(),
        DType::U8 => a.data::<u8>() == b.data::<u8>(),
    })
}

/// The differences between two state dicts; see [`StateDict::difference`]. Prints as a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StateDifference {
    /// Names that only the first has.
    pub only_here: Vec<String>,
    /// Names that only the second has.
    pub only_there: Vec<String>,
    /// Names of tensors of different shapes or dtypes, each with both: `fc.weight: f32 [10, 84] and
    /// f32 [100, 84]`.
    pub misshapen: Vec<String>,
    /// Names of tensors with different values.
    pub changed: Vec<String>,
}

impl StateDifference {
    /// Returns whether both state dicts are the same.
    pub fn is_empty(&self) -> bool {
        self.faults().next().is_none()
    }

    fn faults(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        [("only in the first", &self.only_here[..]), ("only in the second", &self.only_there)]
            .into_iter()
            .chain([("of different shapes or dtypes", &self.misshapen[..]), ("with different values", &self.changed)])
            .filter(|(_, names)| !names.is_empty())
    }
}

impl fmt::Display for StateDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no difference");
        }
        for (i, (what, names)) in self.faults().enumerate() {
            write!(f, "{}{} {what}: {}", if i == 0 { "" } else { "; " }, names.len(), listed(names, MOST_LISTED))?;
        }
        Ok(())
    }
}

/// The result of loading a state dict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// The number of tensors that were set.
    pub loaded: usize,
    /// Keys of the module that the state dict does not have.
    pub missing: Vec<String>,
    /// Keys of the state dict that the module does not have.
    pub unexpected: Vec<String>,
    /// Keys whose shapes differ, each with both shapes: `fc.weight: expected [10, 84], got [100,
    /// 84]`.
    pub misshapen: Vec<String>,
    /// Keys whose tensors the file stores in an unsupported form, each with the reason.
    pub unreadable: Vec<String>,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tensors loaded", self.loaded)?;
        for (what, keys) in self.faults() {
            write!(f, "; {} {what}: {}", keys.len(), listed(keys, MOST_LISTED))?;
        }
        Ok(())
    }
}

impl LoadReport {
    fn faults(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        [("missing", &self.missing[..]), ("unexpected", &self.unexpected), ("misshapen", &self.misshapen), ("unreadable", &self.unreadable)]
            .into_iter()
            .filter(|(_, keys)| !keys.is_empty())
    }
}

/// The number of keys of a kind that a message lists; the report contains them all.
const MOST_LISTED: usize = 20;

/// Lists the first keys, at most `most` and a few lines of text, and the number of the others.
fn listed(keys: &[String], most: usize) -> String {
    const LONGEST: usize = 500;
    let mut text = String::new();
    for (index, key) in keys.iter().enumerate() {
        if index == most || text.len() > LONGEST {
            return format!("{text}, and {} more", keys.len() - index);
        }
        let comma = if index > 0 { ", " } else { "" };
        text.push_str(&format!("{comma}{}", clipped(key)));
    }
    text
}

/// Returns the state dict of a module. Fails when memory cannot hold a parameter that has not been
/// drawn yet.
pub(crate) fn of(module: &dyn Module) -> Result<StateDict> {
    let (mut state, mut outcome) = (StateDict::new(), Ok(()));
    Visitor::walk(module, &mut |path, item| {
        let value = match item {
            Item::Parameter(parameter) => parameter.leaf(),
            Item::Buffer(buffer) => Ok(buffer.tensor()),
            _ => return,
        };
        match value {
            Ok(value) => drop(state.insert(path, value)),
            Err(error) if outcome.is_ok() => outcome = Err(error),
            Err(_) => {}
        }
    });
    outcome.map(|()| state)
}

/// A parameter or buffer and the value it will have.
type Assignment<'a> = (Target, &'a Tensor);

enum Target {
    Parameter(crate::nn::Parameter),
    Buffer(crate::nn::Buffer),
}

/// Matches a state dict with a module; nothing is changed yet.
fn compare<'a>(module: &dyn Module, state: &'a StateDict) -> (Vec<Assignment<'a>>, LoadReport) {
    let (mut assignments, mut report, mut known) = (vec![], LoadReport::default(), std::collections::HashSet::new());
    Visitor::walk(module, &mut |path, item| {
        let (target, shape) = match item {
            Item::Parameter(parameter) => (Target::Parameter(parameter.clone()), parameter.shape()),
            Item::Buffer(buffer) => (Target::Buffer(buffer.clone()), buffer.shape()),
            _ => return,
        };
        known.insert(path.to_string());
        match state.get(path) {
            Some(value) if value.shape() == shape => assignments.push((target, value)),
            Some(value) => report.misshapen.push(format!("{path}: expected {shape:?}, got {:?}", value.shape())),
            None if state.unreadable.contains_key(path) => {
                report.unreadable.push(format!("{path}: {}", state.unreadable[path]));
            }
            None if path.rsplit('.').next() == Some("num_batches_tracked") => {}
            None => report.missing.push(path.to_string()),
        }
    });
    report.unexpected = state.keys().filter(|&key| !known.contains(key)).map(String::from).collect();
    report.loaded = assignments.len();
    (assignments, report)
}

fn assign(assignments: Vec<Assignment<'_>>) -> Result<()> {
    for (target, value) in assignments {
        match target {
            Target::Parameter(parameter) => parameter.set(&value.cast(parameter.dtype())?)?,
            Target::Buffer(buffer) => buffer.set(&value.cast(buffer.tensor().dtype())?)?,
        }
    }
    Ok(())
}

pub(crate) fn load_strict(module: &dyn Module, state: &StateDict) -> Result<LoadReport> {
    let (assignments, report) = compare(module, state);
    // Weights of another architecture: a few names are as informative as hundreds.
    let foreign = report.loaded == 0 && report.misshapen.is_empty() && !report.missing.is_empty() && !report.unexpected.is_empty();
    let most = if foreign { 3 } else { MOST_LISTED };
    let mut faults: Vec<String> = report.faults().map(|(what, keys)| format!("{} {what} ({})", keys.len(), listed(keys, most))).collect();
    if foreign {
        let keys = report.missing.len() + report.unreadable.len();
        faults.insert(
            0,
            format!(
                "none of {keys} keys fits; the state dict has keys such as {}",
                listed(&report.unexpected[..report.unexpected.len().min(3)], 3)
            ),
        );
    }
    if !faults.is_empty() {
        return Err(Error::StateDict(faults.join("; ")));
    }
    assign(assignments)?;
    Ok(report)
}

pub(crate) fn load_matching(module: &dyn Module, state: &StateDict) -> Result<LoadReport> {
    let (assignments, report) = compare(module, state);
    if assignments.is_empty() {
        return Err(Error::StateDict(format!("nothing fits: {report}")));
    }
    assign(assignments)?;
    Ok(report)
}
