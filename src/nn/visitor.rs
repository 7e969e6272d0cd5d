//! The visitor: one walk over a network for everything that is done to all of it.
//!
//! A module names its parameters, buffers and children once, in [`Module::visit`]; collecting parameters, switching between training and
//! evaluation, freezing, saving, loading and printing are receivers of what the walk meets. The walk knows the path at every point, and
//! each layer learns its own from it, for error messages.

use super::module::Module;
use super::parameter::{Buffer, Parameter};
use super::site::{Leaf, Mode, Site};

/// What a walk over a module meets, with its path.
#[non_exhaustive]
pub enum Item<'a> {
    /// A module begins; what follows up to the matching [`Leave`](Item::Leave) is inside.
    Enter {
        /// The module's type.
        kind: &'a str,
    },
    /// A module ends.
    Leave,
    /// A layer that does its work itself; comes after the [`Enter`](Item::Enter) of the same path.
    Layer(&'a dyn Leaf),
    /// A parameter.
    Parameter(&'a Parameter),
    /// A buffer.
    Buffer(&'a Buffer),
    /// A switch between training and evaluation.
    Mode(&'a Mode),
}

/// Walks a module tree and hands each [`Item`] with its path to a receiver.
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
    /// What a search for a module's place has come to; `None` for walks that tell places.
    search: Option<Search>,
}

enum Search {
    Begun,
    Found(String),
}

impl Visitor<'_> {
    /// Walks `module` as the root.
    pub fn walk<M: Module + ?Sized>(module: &M, receive: &mut dyn FnMut(&str, Item<'_>)) {
        Visitor::walk_from("", module, receive);
    }

    /// Walks `module` as what stands at `path`.
    pub(crate) fn walk_from<M: Module + ?Sized>(path: &str, module: &M, receive: &mut dyn FnMut(&str, Item<'_>)) {
        Visitor { path: path.to_string(), receive, search: None }.inside(module);
    }

    /// The path of a module that does not know it itself: what a layer inside was told, without the layer's path from here. `None` when
    /// there is no layer inside, or no walk from the root has passed.
    pub(crate) fn place<M: Module + ?Sized>(module: &M) -> Option<String> {
        let mut search = Visitor { path: String::new(), receive: &mut |_, _| (), search: Some(Search::Begun) };
        search.inside(module);
        match search.search {
            Some(Search::Found(place)) => Some(place),
            _ => None,
        }
    }

    /// The path of the module that is being visited, empty for the root.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A parameter, buffer or child by its name; [`visit_fields!`](crate::visit_fields) calls this.
    pub fn field<T: Visit + ?Sized>(&mut self, name: &str, field: &T) {
        field.visit_as(name, self);
    }

    /// A parameter.
    pub fn parameter(&mut self, name: &str, parameter: &Parameter) {
        self.at(name, |v| (v.receive)(&v.path, Item::Parameter(parameter)));
    }

    /// A buffer.
    pub fn buffer(&mut self, name: &str, buffer: &Buffer) {
        self.at(name, |v| (v.receive)(&v.path, Item::Buffer(buffer)));
    }

    /// A child module.
    pub fn module<M: Module + ?Sized>(&mut self, name: &str, module: &M) {
        self.at(name, |v| v.inside(module));
    }

    /// The place of the visited module, which learns its path from this, and what it is.
    pub fn layer(&mut self, site: &Site, layer: &dyn Leaf) {
        if self.search.is_some() {
            let told = site.path();
            let place = told.strip_suffix(&self.path).map(|place| place.strip_suffix('.').unwrap_or(place));
            if let Some(place) = place {
                self.search = Some(Search::Found(place.to_string()));
            }
            return;
        }
        site.set_path(&self.path);
        (self.receive)(&self.path, Item::Layer(layer));
    }

    /// A child whose parent knows its place for it.
    pub(crate) fn child(&mut self, name: &str, site: &Site, module: &dyn Module) {
        self.at(name, |v| {
            if v.search.is_none() {
                site.set_path(&v.path);
            }
            v.inside(module);
        });
    }

    /// The switch between training and evaluation of the visited module.
    pub fn mode(&mut self, mode: &Mode) {
        (self.receive)(&self.path, Item::Mode(mode));
    }

    fn inside<M: Module + ?Sized>(&mut self, module: &M) {
        (self.receive)(&self.path, Item::Enter { kind: module.kind() });
        module.visit(self);
        (self.receive)(&self.path, Item::Leave);
    }

    fn at(&mut self, name: &str, body: impl FnOnce(&mut Self)) {
        if let Some(Search::Found(_)) = self.search {
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

/// What may stand in [`visit_fields!`](crate::visit_fields): parameters, buffers, modules, and options of these.
pub trait Visit {
    /// Shows itself to the visitor under this name.
    fn visit_as(&self, name: &str, visitor: &mut Visitor<'_>);
}

impl<M: Module + ?Sized> Visit for M {
    fn visit_as(&self, name: &str, visitor: &mut Visitor<'_>) {
        visitor.module(name, self);
    }
}

impl Visit for Parameter {
    fn visit_as(&self, name: &str, visitor: &mut Visitor<'_>) {
        visitor.parameter(name, self);
    }
}

impl Visit for Option<Parameter> {
    fn visit_as(&self, name: &str, visitor: &mut Visitor<'_>) {
        if let Some(parameter) = self {
            visitor.parameter(name, parameter);
        }
    }
}

impl Visit for Buffer {
    fn visit_as(&self, name: &str, visitor: &mut Visitor<'_>) {
        visitor.buffer(name, self);
    }
}

impl Visit for Option<Buffer> {
    fn visit_as(&self, name: &str, visitor: &mut Visitor<'_>) {
        if let Some(buffer) = self {
            visitor.buffer(name, buffer);
        }
    }
}

impl Visit for Mode {
    fn visit_as(&self, _name: &str, visitor: &mut Visitor<'_>) {
        visitor.mode(self);
    }
}

/// Names fields to a [`Visitor`]: `visit_fields!(v, self; conv1, bn1, body => "0")` visits each under its own name, or the one given.
///
/// ```
/// use convnet::nn::{Conv2d, Module, Parameter, Visitor};
/// use convnet::{Result, Tensor, visit_fields};
///
/// struct Scaled {
///     conv: Conv2d,
///     shortcut: Option<Conv2d>,
///     gain: Parameter,
/// }
///
/// impl Module for Scaled {
///     fn forward(&self, x: &Tensor) -> Result<Tensor> {
///         self.conv.forward(x)?.mul(&self.gain.tensor())?.add(&self.shortcut.forward(x)?)
///     }
///     fn visit(&self, v: &mut Visitor<'_>) {
///         visit_fields!(v, self; conv, shortcut => "downsample", gain);
///     }
/// }
///
/// let block = Scaled { conv: Conv2d::new(4, 4, 1), shortcut: None, gain: Parameter::new(Tensor::ones([1])) };
/// let names: Vec<String> = block.named_parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["conv.weight", "conv.bias", "gain"]);
/// ```
#[macro_export]
macro_rules! visit_fields {
    ($visitor:expr, $this:expr; $($field:ident $(=> $name:expr)?),* $(,)?) => {
        $($crate::visit_fields!(@one $visitor, $this, $field $(, $name)?);)*
    };
    (@one $visitor:expr, $this:expr, $field:ident) => {
        $crate::nn::Visitor::field($visitor, stringify!($field), &$this.$field)
    };
    (@one $visitor:expr, $this:expr, $field:ident, $name:expr) => {
        $crate::nn::Visitor::field($visitor, $name, &$this.$field)
    };
}
