//! Implementations of [`Module`] for standard types that hold modules.

use std::sync::Arc;

use super::layer::block;
use super::parts::{Copier, Parts, PartsMut};
use super::visitor::Visitor;
use super::{ChannelScale, Module, downcast};
use crate::error::Result;
use crate::tensor::Tensor;

/// The identity when `None`.
impl<M: Module> Module for Option<M> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Some(module) => module.forward(x),
            None => Ok(x.clone()),
        }
    }

    fn visit(&self, visitor: &mut Visitor<'_>) {
        if let Some(module) = self {
            module.visit(visitor);
        }
    }

    fn parts<'m>(&'m self, parts: &mut Parts<'m>) {
        if let Some(module) = self {
            module.parts(parts);
        }
    }

    fn parts_mut<'m>(&'m mut self, parts: &mut PartsMut<'m>) {
        if let Some(module) = self {
            module.parts_mut(parts);
        }
    }

    fn copy_with(&self, copier: &mut Copier) -> Result<Box<dyn Module>> {
        Ok(Box::new(self.as_ref().map(|module| copier.field(module)).transpose()?))
    }

    fn from_boxed(module: Box<dyn Module>) -> Result<Option<M>, Box<dyn Module>> {
        downcast(module).or_else(|module| M::from_boxed(module).map(Some))
    }

    fn inner(&self) -> Option<&dyn Module> {
        self.as_ref().map(|module| module as &dyn Module)
    }

    fn as_channel_scale(&self) -> Option<&dyn ChannelScale> {
        self.as_ref()?.as_channel_scale()
    }

    fn type_name(&self) -> &str {
        self.as_ref().map_or("Identity", M::type_name)
    }
}

/// Runs its modules in order; they are named `0`, `1`, ….
impl<M: Module> Module for Vec<M> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || {
            let mut y = x.clone();
            for module in self {
                y = block(module, || module.forward(&y))?;
            }
            Ok(y)
        })
    }

    fn visit(&self, visitor: &mut Visitor<'_>) {
        for (i, module) in self.iter().enumerate() {
            visitor.module(&i.to_string(), module);
        }
    }

    fn parts<'m>(&'m self, parts: &mut Parts<'m>) {
        for (i, module) in self.iter().enumerate() {
            parts.module(&i.to_string(), module);
        }
    }

    fn parts_mut<'m>(&'m mut self, parts: &mut PartsMut<'m>) {
        for (i, module) in self.iter_mut().enumerate() {
            parts.module(&i.to_string(), module);
        }
    }

    fn copy_with(&self, copier: &mut Copier) -> Result<Box<dyn Module>> {
        Ok(Box::new(self.iter().map(|module| copier.field(module)).collect::<Result<Vec<M>>>()?))
    }
}

/// Delegates all methods of a pointer to a module to that module.
macro_rules! forwarding {
    () => {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            (**self).forward(x)
        }

        fn visit(&self, visitor: &mut Visitor<'_>) {
            (**self).visit(visitor);
        }

        fn parts<'m>(&'m self, parts: &mut Parts<'m>) {
            (**self).parts(parts);
        }

        fn inner(&self) -> Option<&dyn Module> {
            Some(&**self)
        }

        fn as_channel_scale(&self) -> Option<&dyn ChannelScale> {
            (**self).as_channel_scale()
        }

        fn type_name(&self) -> &str {
            (**self).type_name()
        }
    };
}

impl<M: Module> Module for Box<M> {
    forwarding!();

    fn parts_mut<'m>(&'m mut self, parts: &mut PartsMut<'m>) {
        (**self).parts_mut(parts);
    }

    fn copy_with(&self, copier: &mut Copier) -> Result<Box<dyn Module>> {
        Ok(Box::new(Box::new(copier.field(&**self)?)))
    }

    fn from_boxed(module: Box<dyn Module>) -> Result<Box<M>, Box<dyn Module>> {
        downcast(module).or_else(|module| M::from_boxed(module).map(Box::new))
    }
}

/// Holds any module.
impl Module for Box<dyn Module> {
    forwarding!();

    fn parts_mut<'m>(&'m mut self, parts: &mut PartsMut<'m>) {
        (**self).parts_mut(parts);
    }

    fn copy_with(&self, copier: &mut Copier) -> Result<Box<dyn Module>> {
        (**self).copy_with(copier)
    }

    fn from_boxed(module: Box<dyn Module>) -> Result<Box<dyn Module>, Box<dyn Module>> {
        downcast(module).or_else(Ok)
    }
}

/// A module that can occur in several places. Its parts can be replaced only while there is a
/// single `Arc`.
impl<M: Module> Module for Arc<M> {
    forwarding!();

    fn parts_mut<'m>(&'m mut self, parts: &mut PartsMut<'m>) {
        if let Some(module) = Arc::get_mut(self) {
            module.parts_mut(parts);
        }
    }

    fn copy_with(&self, copier: &mut Copier) -> Result<Box<dyn Module>> {
        Ok(Box::new(copier.shared(self, |copier| Ok(Arc::new(copier.field(&**self)?)))?))
    }

    fn from_boxed(module: Box<dyn Module>) -> Result<Arc<M>, Box<dyn Module>> {
        downcast(module).or_else(|module| M::from_boxed(module).map(Arc::new))
    }
}

/// A module of any type that can occur in several places.
impl Module for Arc<dyn Module> {
    forwarding!();

    fn parts_mut<'m>(&'m mut self, parts: &mut PartsMut<'m>) {
        if let Some(module) = Arc::get_mut(self) {
            module.parts_mut(parts);
        }
    }

    fn copy_with(&self, copier: &mut Copier) -> Result<Box<dyn Module>> {
        Ok(Box::new(copier.shared(self, |copier| Ok(Arc::from((**self).copy_with(copier)?)))?))
    }

    fn from_boxed(module: Box<dyn Module>) -> Result<Arc<dyn Module>, Box<dyn Module>> {
        downcast(module).or_else(|module| Ok(Arc::from(module)))
    }
}
