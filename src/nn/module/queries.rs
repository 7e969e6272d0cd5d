//! What the default methods of [`Module`] compute: here once, for any module, instead of once for
//! each type.

use std::collections::HashSet;

use super::{Buffer, Item, Module, Parameter, Visitor};
use crate::autograd::Gradients;
use crate::error::{Error, Result, short};
use crate::tensor::{DType, Tensor};

pub(super) fn parameters(module: &dyn Module) -> Vec<Parameter> {
    module.named_parameters().into_iter().map(|(_, parameter)| parameter).collect()
}

pub(super) fn named_parameters(module: &dyn Module) -> Vec<(String, Parameter)> {
    visit_unique(module, |item| match item {
        Item::Parameter(parameter) => Some((parameter.key(), parameter.clone())),
        _ => None,
    })
}

pub(super) fn named_gradients<'g>(module: &dyn Module, gradients: &'g Gradients) -> Vec<(String, &'g Tensor)> {
    let named = module.named_parameters().into_iter();
    named.filter_map(|(name, parameter)| Some((name, gradients.get(&parameter.leaf().ok()?)?))).collect()
}

pub(super) fn buffers(module: &dyn Module) -> Vec<Buffer> {
    module.named_buffers().into_iter().map(|(_, buffer)| buffer).collect()
}

pub(super) fn named_buffers(module: &dyn Module) -> Vec<(String, Buffer)> {
    visit_unique(module, |item| match item {
        Item::Buffer(buffer) => Some((buffer.key(), buffer.clone())),
        _ => None,
    })
}

pub(super) fn num_parameters(module: &dyn Module) -> usize {
    module.parameters().iter().map(Parameter::numel).fold(0, usize::saturating_add)
}

pub(super) fn is_training(module: &dyn Module) -> bool {
    let mut training = false;
    Visitor::walk(module, &mut |_, item| {
        if let Item::TrainingMode(mode) = item {
            training |= mode.is_training();
        }
    });
    training
}

pub(super) fn to_dtype(module: &dyn Module, dtype: DType) -> Result<()> {
    if !dtype.is_float() {
        return Err(Error::DType { op: "to_dtype", expected: "a floating-point type, DType::F32 or DType::F64", got: dtype });
    }
    for parameter in module.parameters() {
        parameter.update(|value| {
            *value = value.cast(dtype)?;
            Ok(())
        })?;
    }
    for buffer in module.buffers().iter().filter(|buffer| buffer.tensor().dtype().is_float()) {
        buffer.set(&buffer.tensor().cast(dtype)?)?;
    }
    Ok(())
}

pub(super) fn not_copied(module: &dyn Module) -> Error {
    let message = format!("a {0} cannot be copied; list its fields by `visit_fields!` in `impl Module for {0}`", module.type_name());
    Error::argument("deep_clone", message)
}

/// Returns what `pick` selects from the visited items, with a key that identifies it: each key
/// once, with the first of its paths.
fn visit_unique<T>(module: &dyn Module, pick: impl Fn(Item<'_>) -> Option<(usize, T)>) -> Vec<(String, T)> {
    let (mut found, mut seen) = (vec![], HashSet::new());
    Visitor::walk(module, &mut |path, item| {
        if let Some((key, picked)) = pick(item)
            && seen.insert(key)
        {
            found.push((path.to_string(), picked));
        }
    });
    found
}

pub(super) fn set_training(module: &dyn Module, training: bool) {
    Visitor::walk(module, &mut |_, item| {
        if let Item::TrainingMode(mode) = item {
            mode.set_training(training);
        }
    });
}

pub(super) fn set_frozen(module: &dyn Module, op: &'static str, prefix: &str, frozen: bool) -> Result<usize> {
    let below = |path: &str| path.strip_prefix(prefix).is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with('.'));
    let (mut seen, mut exists, mut paths) = (HashSet::new(), prefix.is_empty(), vec![]);
    Visitor::walk(module, &mut |path, item| {
        let begins = matches!(item, Item::Enter { .. } | Item::Parameter(_));
        if begins && !path.is_empty() {
            paths.push(path.to_string());
        }
        if !below(path) {
            return;
        }
        exists |= begins;
        if let Item::Parameter(parameter) = item {
            parameter.set_frozen(frozen);
            seen.insert(parameter.key());
        }
    });
    if exists {
        return Ok(seen.len());
    }
    Err(Error::argument(op, format!("there is no module or parameter at path \"{}\"; {}", short(prefix), near_names(prefix, paths))))
}

/// Returns the part of an error message that lists similar paths.
pub(crate) fn near_names(wanted: &str, paths: Vec<String>) -> String {
    match nearest(wanted, paths).as_slice() {
        [] => "the network has no parts".to_string(),
        near => format!("near names are {}", near.join(", ")),
    }
}

/// Returns the five most similar paths, the best first.
fn nearest(wanted: &str, mut paths: Vec<String>) -> Vec<String> {
    // Longer than any path with a typing error.
    let wanted: Vec<char> = wanted.chars().take(200).collect();
    paths.sort_by_cached_key(|path| edits(&wanted, path));
    paths.dedup();
    paths.truncate(5);
    paths
}

/// Returns the number of characters to insert, delete or replace to turn one text into the other
/// (Levenshtein distance).
fn edits(from: &[char], to: &str) -> usize {
    let mut row: Vec<usize> = (0..=from.len()).collect();
    for (i, b) in to.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &a) in from.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[from.len()]
}
