//! The container that runs modules in order.

use std::fmt;

use std::any::Any;

use super::fused::{bn_act, conv_act, conv_bn_act};
use crate::error::Result;
use crate::nn::inspect::display::tree;
use crate::nn::layers::{BatchNorm2d, Conv2d, activation_of};
use crate::nn::module::layer::{LayerPath, block, block_at, is_tracing};
use crate::nn::module::visitor::Visitor;
use crate::nn::module::{Copier, Module, Parts, PartsMut};
use crate::ops::Activation;
use crate::tensor::Tensor;

/// Runs its children in order. They are named `0`, `1`, … as in PyTorch, or by
/// [`push_named`](Sequential::push_named).
///
/// ```
/// use convnet::nn::{Flatten, Linear, Module, ModuleExt, ReLU, Sequential};
/// use convnet::Tensor;
///
/// let net = Sequential::new().push(Flatten).push(Linear::new(12, 5)).push(ReLU).push_named("fc", Linear::new(5, 2));
/// assert!(net.forward(&Tensor::zeros([8, 3, 2, 2]))?.shape() == [8, 2]);
/// assert_eq!(net.state_dict().keys().last(), Some("fc.bias"));
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Default)]
pub struct Sequential {
    children: Vec<Child>,
}

struct Child {
    name: String,
    /// Used for errors that come from the child itself, not from a layer inside.
    path: LayerPath,
    module: Box<dyn Module>,
}

impl Sequential {
    /// Creates a sequence without children, which returns its input.
    pub fn new() -> Sequential {
        Sequential::default()
    }

    /// Adds a child named by its index.
    ///
    /// # Panics
    /// When the name is already taken; see [`push_named`](Sequential::push_named).
    pub fn push(self, module: impl Module) -> Sequential {
        let name = self.children.len().to_string();
        self.push_named(name, module)
    }

    /// Adds a child with this name.
    ///
    /// # Panics
    /// When the name is empty, contains a dot, or is already taken: the children would have
    /// ambiguous keys in state dicts.
    pub fn push_named(mut self, name: impl Into<String>, module: impl Module) -> Sequential {
        let name = name.into();
        assert!(!name.is_empty() && !name.contains('.'), "a child's name is not empty and has no dot, got {name:?}");
        assert!(self.children.iter().all(|child| child.name != name), "there is a child named {name:?} already");
        let path = LayerPath::new();
        path.set(&name);
        let module: Box<dyn Module> = Box::new(module);
        Visitor::set_paths(&name, &*module);
        self.children.push(Child { name, path, module });
        self
    }

    /// Returns the number of children.
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// Returns whether there are no children.
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// Returns the child at this index; [`get`](crate::nn::ModuleExt::get) finds it by name or
    /// path.
    pub fn child(&self, index: usize) -> Option<&dyn Module> {
        self.children.get(index).map(|child| &*child.module)
    }

    /// Returns the children with their names, in order.
    pub fn children(&self) -> impl Iterator<Item = (&str, &dyn Module)> {
        self.children.iter().map(|child| (child.name.as_str(), &*child.module))
    }
}

/// A child that can run fused with its neighbours. A fused group is a convolution, a normalisation
/// and an activation, in this order; any of them may be missing. The result is that of the layers
/// run one after the other.
enum Part<'a> {
    Convolution(&'a Conv2d),
    Normalisation(&'a BatchNorm2d),
    Activation(Activation),
    Other,
}

impl Part<'_> {
    fn of(module: &dyn Module) -> Part<'_> {
        let module = module.unwrapped();
        let any: &dyn Any = module;
        if let Some(conv) = any.downcast_ref() {
            Part::Convolution(conv)
        } else if let Some(bn) = any.downcast_ref() {
            Part::Normalisation(bn)
        } else {
            activation_of(module).map_or(Part::Other, Part::Activation)
        }
    }
}

/// Runs as many of the next children as can be fused, if there is more than one, and returns the
/// result and their number. When layers are traced or watched, each runs by itself.
fn together(children: &[Child], x: &Tensor) -> Option<(Result<Tensor>, usize)> {
    let part = |index: usize| children.get(index).map_or(Part::Other, |child| Part::of(&*child.module));
    let activation = |index: usize| match part(index) {
        Part::Activation(activation) => (activation, 1),
        _ => (Activation::Linear, 0),
    };
    if is_tracing() {
        return None;
    }
    match (part(0), part(1)) {
        (Part::Convolution(conv), Part::Normalisation(bn)) => {
            let (activation, more) = activation(2);
            Some((conv_bn_act(conv, bn, x, activation), 2 + more))
        }
        (Part::Convolution(conv), Part::Activation(activation)) => Some((conv_act(conv, x, activation), 2)),
        (Part::Normalisation(bn), Part::Activation(activation)) => Some((bn_act(bn, x, activation), 2)),
        _ => None,
    }
}

impl Module for Sequential {
    /// # Errors
    /// Those of the first child that fails, with its path.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || {
            let (mut current, mut rest) = (None, &self.children[..]);
            while let Some(child) = rest.first() {
                let input = current.as_ref().unwrap_or(x);
                let locate = |error| child.path.locate(error, true, child.module.type_name().to_string());
                let (output, count) = match together(rest, input) {
                    Some((output, count)) => (output?, count),
                    None => (block_at(Some(&child.path), &child.module, || child.module.forward(input)).map_err(locate)?, 1),
                };
                (current, rest) = (Some(output), &rest[count..]);
            }
            Ok(current.unwrap_or_else(|| x.clone()))
        })
    }

    fn visit(&self, visitor: &mut Visitor<'_>) {
        for child in &self.children {
            visitor.child(&child.name, &child.path, &*child.module);
        }
    }

    fn parts<'m>(&'m self, parts: &mut Parts<'m>) {
        for child in &self.children {
            parts.module(&child.name, &*child.module);
        }
    }

    fn parts_mut<'m>(&'m mut self, parts: &mut PartsMut<'m>) {
        for child in &mut self.children {
            parts.module(&child.name, &mut child.module);
        }
    }

    fn copy_with(&self, copier: &mut Copier) -> Result<Box<dyn Module>> {
        let copy =
            |Child { name, path, module }: &Child| Ok(Child { name: name.clone(), path: path.clone(), module: copier.field(module)? });
        Ok(Box::new(Sequential { children: self.children.iter().map(copy).collect::<Result<_>>()? }))
    }
}

/// Prints the tree of modules, as PyTorch does.
impl fmt::Debug for Sequential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        tree(self, f)
    }
}

impl fmt::Debug for dyn Module + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        tree(self, f)
    }
}
