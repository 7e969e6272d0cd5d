//! The visitor: one traversal for every operation on a whole network.
//!
//! A module names its parameters, buffers and children once, in [`Module::visit`]. Collecting
//! parameters, switching between training and evaluation, freezing, saving, loading and printing
//! are receivers of the visited items. The visitor knows the path at every point, and sets it in
//! each layer, for error messages.
//!
//! # Which pass sets the paths
//! A layer cannot distinguish a pass over the whole model from one over a part:
//! `model.layer1.parameters()` reaches it too, with a shorter path, which must not replace the
//! longer one. A pass is one over a part of a model that was visited before when every layer that
//! it visits already has a path, and these paths are those of the pass below one common prefix:
//! `layer1.0.conv1` and `layer1.0.bn1` where the pass has `0.conv1` and `0.bn1`. Such a pass leaves
//! all paths unchanged. Any other pass starts at a root and sets all of them. Consequences:
//!
//! - a part that is moved into another model gets its paths from the first pass over that model,
//!   unless the model consists of this part alone and uses the same names for it;
//! - [`Sequential::push`](crate::nn::Sequential::push) takes ownership, so it always sets the
//!   paths;
//! - a layer that occurs twice in a model has the first of its two paths;
//! - a layer that is added to a part later (`model.layer1.downsample = Some(..)`) makes a pass over
//!   this part look like one over a root: the next pass over the model, such as
//!   `model.parameters()`, corrects all paths.

use std::collections::HashSet;

use super::Module;
use super::layer::{Layer, LayerPath, TrainingMode};
use super::parameter::{Buffer, Parameter};
use super::parts::{Copier, Parts, PartsMut};
use crate::error::{Error, Result};

/// A visited item; the receiver also gets its path.
#[non_exhaustive]
pub enum Item<'a> {
    /// Start of a module; items up to the matching [`Leave`](Item::Leave) are inside it.
    Enter {
        /// The name of the module's type.
        type_name: &'a str,
    },
    /// End of a module.
    Leave,
    /// A leaf layer; follows the [`Enter`](Item::Enter) of the same path.
    Layer(&'a dyn Layer),
    /// A parameter.
    Parameter(&'a Parameter),
    /// A buffer.
    Buffer(&'a Buffer),
    /// A switch between training and evaluation.
    TrainingMode(&'a TrainingMode),
}

/// Traverses a module tree and passes each [`Item`] with its path to a receiver.
///
/// ```
/// use convnet::nn::{Item, Linear, Module, ReLU, Sequential, Visitor};
///
/// let net = Sequential::new().push(Linear::new(2, 3)).push(ReLU);
/// let mut names = vec![];
/// Visitor::walk(&net, &mut |path, item| {
///     if let Item::Parameter(_) = item {
///         names.push(path.to_string());
///     }
/// });
/// assert_eq!(names, ["0.weight", "0.bias"]);
/// ```
pub struct Visitor<'a> {
    path: String,
    receive: &'a mut dyn FnMut(&str, Item<'_>),
    purpose: Purpose,
}

/// What a pass does with each layer.
enum Purpose {
    /// Sets its path. Contains the addresses of layers whose path is set: a layer that occurs twice
    /// keeps its first path.
    Set(HashSet<usize>),
    /// Leaves its path unchanged.
    Leave,
    /// Checks whether all layers, whose addresses are collected here, have the paths of the pass
    /// below one prefix.
    Compare { prefix: Option<String>, met: HashSet<usize>, same: bool },
    /// Searches for the prefix of any layer.
    Find(Option<String>),
}

impl Purpose {
    /// Returns whether the remaining items cannot change the outcome.
    fn is_reached(&self) -> bool {
        match self {
            Purpose::Find(found) => found.is_some(),
            Purpose::Compare { same, .. } => !same,
            Purpose::Set(_) | Purpose::Leave => false,
        }
    }

    fn meet(&mut self, path: &str, layer_path: &LayerPath) {
        let address = std::ptr::from_ref(layer_path).addr();
        match self {
            Purpose::Set(met) => {
                if met.insert(address) {
                    layer_path.set(path);
                }
            }
            Purpose::Leave => {}
            Purpose::Compare { prefix, met, same } => {
                if met.insert(address) {
                    let current = layer_path.get();
                    match (current.as_deref().and_then(|current| prefix_of(current, path)), &prefix) {
                        (Some(found), Some(prefix)) => *same = found == prefix,
                        (Some(found), None) => *prefix = Some(found.to_string()),
                        (None, _) => *same = false,
                    }
                }
            }
            Purpose::Find(found) => {
                if let Some(current) = layer_path.get() {
                    *found = prefix_of(&current, path).map(str::to_string);
                }
            }
        }
    }
}

/// Returns `layer1.0` for `layer1.0.conv1` and `conv1`; `None` when the first path does not end
/// with the names of the second.
fn prefix_of<'a>(path: &'a str, end: &str) -> Option<&'a str> {
    if end.is_empty() {
        return Some(path);
    }
    let rest = path.strip_suffix(end)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_suffix('.') }
}

impl Visitor<'_> {
    /// Visits `module`. Paths that the receiver gets start at `module`. The layers' own paths are
    /// set too, unless `module` is a part of a model that was visited before.
    pub fn walk<M: Module + ?Sized>(module: &M, receive: &mut dyn FnMut(&str, Item<'_>)) {
        Visitor::walk_dyn(module.as_module(), receive);
    }

    fn walk_dyn(module: &dyn Module, receive: &mut dyn FnMut(&str, Item<'_>)) {
        let compare = Purpose::Compare { prefix: None, met: HashSet::new(), same: true };
        let purpose = match Visitor::run("", compare, module, &mut |_, _| ()) {
            Purpose::Compare { prefix: Some(_), same: true, .. } => Purpose::Leave,
            _ => Purpose::Set(HashSet::new()),
        };
        Visitor::run("", purpose, module, receive);
    }

    /// Sets the paths of all layers in `module`, whose own path is `path`, and overwrites existing
    /// ones.
    pub(crate) fn set_paths(path: &str, module: &dyn Module) {
        Visitor::run(path, Purpose::Set(HashSet::new()), module, &mut |_, _| ());
    }

    /// Finds the path of a module that does not store it: that of a layer inside, without the
    /// layer's path relative to the module. `None` when there is no layer inside, or none has been
    /// visited.
    pub(crate) fn find_path(module: &dyn Module) -> Option<String> {
        match Visitor::run("", Purpose::Find(None), module, &mut |_, _| ()) {
            Purpose::Find(found) => found,
            _ => None,
        }
    }

    fn run(path: &str, purpose: Purpose, module: &dyn Module, receive: &mut dyn FnMut(&str, Item<'_>)) -> Purpose {
        let mut visitor = Visitor { path: path.to_string(), receive, purpose };
        visitor.inside(module);
        visitor.purpose
    }

    /// Returns the path of the module that is being visited, empty for the root.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Visits a parameter, buffer or child by its name; [`visit_fields!`](crate::visit_fields)
    /// calls this.
    pub fn field<T: Visit>(&mut self, name: &str, field: &T) {
        field.visit_as(name, self);
    }

    /// Visits a parameter.
    pub fn parameter(&mut self, name: &str, parameter: &Parameter) {
        self.at(name, |v| (v.receive)(&v.path, Item::Parameter(parameter)));
    }

    /// Visits a buffer.
    pub fn buffer(&mut self, name: &str, buffer: &Buffer) {
        self.at(name, |v| (v.receive)(&v.path, Item::Buffer(buffer)));
    }

    /// Visits a child module.
    pub fn module<M: Module + ?Sized>(&mut self, name: &str, module: &M) {
        self.child_module(name, module.as_module());
    }

    fn child_module(&mut self, name: &str, module: &dyn Module) {
        self.at(name, |v| v.inside(module));
    }

    /// Visits children that share a name prefix in state dicts but do not form a module: names of
    /// what `body` visits are prefixed with `name`, and a summary lists the group as a module of
    /// this type.
    pub fn group(&mut self, name: &str, type_name: &str, body: impl FnOnce(&mut Self)) {
        self.at(name, |v| {
            (v.receive)(&v.path, Item::Enter { type_name });
            body(v);
            (v.receive)(&v.path, Item::Leave);
        });
    }

    /// Visits the path of the current leaf module, which the pass sets, and its [`Layer`]
    /// description.
    pub fn layer(&mut self, layer_path: &LayerPath, layer: &dyn Layer) {
        self.purpose.meet(&self.path, layer_path);
        (self.receive)(&self.path, Item::Layer(layer));
    }

    /// Visits a child and sets its path in a field that the parent holds.
    pub(crate) fn child(&mut self, name: &str, layer_path: &LayerPath, module: &dyn Module) {
        self.at(name, |v| {
            v.purpose.meet(&v.path, layer_path);
            v.inside(module);
        });
    }

    /// Visits the training switch of the current module.
    pub fn mode(&mut self, mode: &TrainingMode) {
        (self.receive)(&self.path, Item::TrainingMode(mode));
    }

    fn inside(&mut self, module: &dyn Module) {
        (self.receive)(&self.path, Item::Enter { type_name: module.type_name() });
        module.visit(self);
        (self.receive)(&self.path, Item::Leave);
    }

    fn at(&mut self, name: &str, body: impl FnOnce(&mut Self)) {
        if self.purpose.is_reached() {
            return;
        }
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        body(self);
        self.path.truncate(length);
    }
}

/// Joins two names: `outer.name`; the name alone below a root.
pub(crate) fn join(outer: &str, name: &str) -> String {
    if outer.is_empty() { name.to_string() } else { format!("{outer}.{name}") }
}

/// Types that [`visit_fields!`](crate::visit_fields) accepts: modules, parameters, buffers, options
/// of these, and the switch between training and evaluation.
pub trait Visit: Sized {
    /// Visits itself under this name.
    fn visit_as(&self, name: &str, visitor: &mut Visitor<'_>);

    /// Adds itself to the children of the module whose field it is, if it is a module.
    fn part<'m>(&'m self, name: &str, parts: &mut Parts<'m>) {
        let _ = (name, parts);
    }

    /// Adds itself to the replaceable children of the module whose field it is, if it is a module.
    fn part_mut<'m>(&'m mut self, name: &str, parts: &mut PartsMut<'m>) {
        let _ = (name, parts);
    }

    /// Copies itself for a copy of the module whose field it is.
    ///
    /// # Errors
    /// [`Error::Argument`] when a module inside cannot be copied; see [`Copier::field`].
    fn copy_field(&self, copier: &mut Copier) -> Result<Self>;
}

impl<M: Module> Visit for M {
    fn visit_as(&self, name: &str, visitor: &mut Visitor<'_>) {
        visitor.module(name, self);
    }

    fn part<'m>(&'m self, name: &str, parts: &mut Parts<'m>) {
        parts.module(name, self);
    }

    fn part_mut<'m>(&'m mut self, name: &str, parts: &mut PartsMut<'m>) {
        parts.module(name, self);
    }

    fn copy_field(&self, copier: &mut Copier) -> Result<M> {
        M::from_boxed(self.copy_with(copier)?).map_err(|copy| wrong_copy(self, &*copy))
    }
}

#[cold]
fn wrong_copy(module: &dyn Module, copy: &dyn Module) -> Error {
    let message =
        format!("the copy of a {} is a {}; `copy_with` has to return the module's own type", module.type_name(), copy.type_name());
    Error::argument("deep_clone", message)
}

impl Visit for Parameter {
    fn visit_as(&self, name: &str, visitor: &mut Visitor<'_>) {
        visitor.parameter(name, self);
    }

    fn copy_field(&self, copier: &mut Copier) -> Result<Parameter> {
        copier.parameter(self)
    }
}

impl Visit for Option<Parameter> {
    fn visit_as(&self, name: &str, visitor: &mut Visitor<'_>) {
        if let Some(parameter) = self {
            visitor.parameter(name, parameter);
        }
    }

    fn copy_field(&self, copier: &mut Copier) -> Result<Option<Parameter>> {
        self.as_ref().map(|parameter| copier.parameter(parameter)).transpose()
    }
}

impl Visit for Buffer {
    fn visit_as(&self, name: &str, visitor: &mut Visitor<'_>) {
        visitor.buffer(name, self);
    }

    fn copy_field(&self, copier: &mut Copier) -> Result<Buffer> {
        Ok(copier.buffer(self))
    }
}

impl Visit for Option<Buffer> {
    fn visit_as(&self, name: &str, visitor: &mut Visitor<'_>) {
        if let Some(buffer) = self {
            visitor.buffer(name, buffer);
        }
    }

    fn copy_field(&self, copier: &mut Copier) -> Result<Option<Buffer>> {
        Ok(self.as_ref().map(|buffer| copier.buffer(buffer)))
    }
}

impl Visit for TrainingMode {
    fn visit_as(&self, _name: &str, visitor: &mut Visitor<'_>) {
        visitor.mode(self);
    }

    fn copy_field(&self, _copier: &mut Copier) -> Result<TrainingMode> {
        Ok(self.clone())
    }
}
