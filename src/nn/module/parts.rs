//! Reaching, replacing and copying the parts of a network.
//!
//! [`Visitor`](super::Visitor) borrows a module only for the duration of a pass. Operations that
//! return references with the lifetime of the network, change it, or copy it use the receivers
//! here, which [`visit_fields!`](crate::visit_fields) fills from the same list of fields.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use super::visitor::{Visit, join};
use super::{Buffer, Module, Parameter};
use crate::error::{Error, Result};

/// Collects the child modules of a module, by name; see [`Module::parts`].
pub struct Parts<'m> {
    prefix: String,
    found: Vec<(String, &'m dyn Module)>,
}

impl<'m> Parts<'m> {
    /// Returns the children of `module`, with their names.
    pub(crate) fn of(module: &'m dyn Module) -> Vec<(String, &'m dyn Module)> {
        let mut parts = Parts { prefix: String::new(), found: vec![] };
        module.parts(&mut parts);
        parts.found
    }

    /// Adds all modules below `module` with their paths, parents before their children.
    pub(crate) fn all(module: &'m dyn Module, path: &str, found: &mut Vec<(String, &'m dyn Module)>) {
        for (name, part) in Parts::of(module) {
            let path = join(path, &name);
            found.push((path.clone(), part));
            Parts::all(part, &path, found);
        }
    }

    /// Returns the module at this path below `module`.
    pub(crate) fn find(module: &'m dyn Module, path: &str) -> Option<&'m dyn Module> {
        Parts::of(module).into_iter().find_map(|(name, part)| match below(path, &name)? {
            "" => Some(part),
            rest => Parts::find(part, rest),
        })
    }

    /// Adds a field: a module becomes a child of this name, anything else has no children.
    pub fn field<T: Visit>(&mut self, name: &str, field: &'m T) {
        field.part(name, self);
    }

    /// Adds a child module.
    pub fn module(&mut self, name: &str, module: &'m dyn Module) {
        self.found.push((join(&self.prefix, name), module));
    }

    /// Prepends a name to those of the children that `body` adds; see
    /// [`Visitor::group`](super::Visitor::group).
    pub fn group(&mut self, name: &str, _type_name: &str, body: impl FnOnce(&mut Self)) {
        with_prefix(self, |parts| &mut parts.prefix, name, body);
    }
}

/// Runs `body` with `name` added to the collector's prefix.
fn with_prefix<C>(collector: &mut C, prefix: fn(&mut C) -> &mut String, name: &str, body: impl FnOnce(&mut C)) {
    let outer = prefix(collector).clone();
    *prefix(collector) = join(&outer, name);
    body(collector);
    *prefix(collector) = outer;
}

/// Collects the child modules of a module, by name, for replacement; see [`Module::parts_mut`].
pub struct PartsMut<'m> {
    prefix: String,
    found: Vec<(String, &'m mut dyn Slot)>,
}

impl<'m> PartsMut<'m> {
    /// Replaces the module at this path by `new` and returns the old one; `None` when there is no
    /// module at the path.
    ///
    /// # Errors
    /// [`Error::Argument`] when the field or element accepts only modules of another type.
    pub(crate) fn replace<M: Module + ?Sized>(module: &mut M, path: &str, new: Box<dyn Module>) -> Result<Option<Box<dyn Module>>> {
        PartsMut::find_and_replace(module, path, &mut Some(new))
    }

    fn find_and_replace<M: Module + ?Sized>(
        module: &mut M,
        path: &str,
        new: &mut Option<Box<dyn Module>>,
    ) -> Result<Option<Box<dyn Module>>> {
        let mut parts = PartsMut { prefix: String::new(), found: vec![] };
        module.parts_mut(&mut parts);
        for (name, slot) in parts.found {
            let old = match below(path, &name) {
                None => None,
                Some("") => new.take().map(|new| slot.put(path, new)).transpose()?,
                Some(rest) => PartsMut::find_and_replace(slot, rest, new)?,
            };
            if old.is_some() {
                return Ok(old);
            }
        }
        Ok(None)
    }

    /// Adds a field: a module becomes a child of this name, anything else has no children.
    pub fn field<T: Visit>(&mut self, name: &str, field: &'m mut T) {
        field.part_mut(name, self);
    }

    /// Adds a child module, which another module can replace if its type accepts it.
    pub fn module<M: Module>(&mut self, name: &str, module: &'m mut M) {
        self.found.push((join(&self.prefix, name), module));
    }

    /// Prepends a name to those of the children that `body` adds; see
    /// [`Visitor::group`](super::Visitor::group).
    pub fn group(&mut self, name: &str, _type_name: &str, body: impl FnOnce(&mut Self)) {
        with_prefix(self, |parts| &mut parts.prefix, name, body);
    }
}

/// A position for a module: a field, or an element of a list.
trait Slot: Module {
    /// Replaces the module at this position and returns the old one.
    fn put(&mut self, path: &str, new: Box<dyn Module>) -> Result<Box<dyn Module>>;
}

impl<M: Module> Slot for M {
    fn put(&mut self, path: &str, new: Box<dyn Module>) -> Result<Box<dyn Module>> {
        let new = M::from_boxed(new).map_err(|new| unaccepted(path, std::any::type_name::<M>(), &*new))?;
        Ok(Box::new(std::mem::replace(self, new)))
    }
}

#[cold]
fn unaccepted(path: &str, type_name: &str, new: &dyn Module) -> Error {
    let message = format!(
        "the place at {path:?} is for modules of type {}, got {}; a field of type `Box<dyn Module>` takes any",
        without_paths(type_name),
        new.type_name()
    );
    Error::argument("replace", message)
}

/// Returns a type's name, as in `Option<convnet::nn::layers::linear::Linear>`, without the paths.
fn without_paths(type_name: &str) -> String {
    let mut short = String::new();
    for word in type_name.split_inclusive(['<', '>', ',', ' ']) {
        short.push_str(word.rsplit("::").next().unwrap_or(word));
    }
    short
}

/// Returns the rest of `path` below the child `name`: empty for the child itself, `None` when the
/// path is not below it.
fn below<'p>(path: &'p str, name: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(name)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.').filter(|rest| !rest.is_empty()) }
}

/// Builds the parts of a copied module; see [`Module::copy_with`]. What is shared inside the
/// module, such as tied parameters, is also shared inside the copy.
#[derive(Default)]
pub struct Copier {
    parameters: HashMap<usize, Parameter>,
    buffers: HashMap<usize, Buffer>,
    modules: HashMap<usize, Box<dyn Any>>,
}

impl Copier {
    /// Copies a field: parameters and buffers start with the values of the original, and are
    /// independent of it afterwards.
    ///
    /// # Errors
    /// [`Error::Argument`] when a module inside cannot be copied, [`Error::OutOfMemory`] when a
    /// parameter's initial value has not been drawn yet and memory cannot hold it.
    pub fn field<T: Visit>(&mut self, field: &T) -> Result<T> {
        field.copy_field(self)
    }

    pub(super) fn parameter(&mut self, parameter: &Parameter) -> Result<Parameter> {
        if let Some(copy) = self.parameters.get(&parameter.key()) {
            return Ok(copy.clone());
        }
        let copy = Parameter::new(parameter.leaf()?.detach());
        copy.set_frozen(parameter.is_frozen());
        self.parameters.insert(parameter.key(), copy.clone());
        Ok(copy)
    }

    pub(super) fn buffer(&mut self, buffer: &Buffer) -> Buffer {
        self.buffers.entry(buffer.key()).or_insert_with(|| Buffer::new(buffer.tensor())).clone()
    }

    /// Returns the copy of a shared module; `copy` makes it on the first call.
    pub(super) fn shared<M: ?Sized + 'static>(
        &mut self,
        module: &Arc<M>,
        copy: impl FnOnce(&mut Copier) -> Result<Arc<M>>,
    ) -> Result<Arc<M>> {
        let key = Arc::as_ptr(module).cast::<()>().addr();
        if let Some(found) = self.modules.get(&key).and_then(|found| found.downcast_ref::<Arc<M>>()) {
            return Ok(Arc::clone(found));
        }
        let copy = copy(self)?;
        self.modules.insert(key, Box::new(Arc::clone(&copy)));
        Ok(copy)
    }
}
