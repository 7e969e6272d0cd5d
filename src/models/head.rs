//! New classifier heads for trained models.

use super::RbfOutput;
use super::googlenet::InceptionAux;
use crate::error::{Error, Result};
use crate::nn::{Conv2d, Linear, Maxout, Module, ModuleExt};

/// Replaces the last layer of a registered model by a new one for this many classes, and returns
/// the old one: for fine-tuning on other classes.
///
/// The last layer is the last [`Linear`], [`RbfOutput`] or 1×1 [`Conv2d`]; the new one has the
/// default initialisation of its type. Auxiliary heads, which only GoogLeNet has, get a new last
/// layer too. [`replace`](ModuleExt::replace) replaces any other module.
///
/// ```
/// use convnet::{models, prelude::*};
///
/// let mut model = models::create("resnet18", 1000)?;
/// models::replace_head(&mut model, 7)?;
/// assert_eq!(model.forward(&Tensor::zeros([2, 3, 32, 32]))?.shape(), [2, 7]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// [`Error::Argument`] for zero classes, and when the model has no such layer or none that can be
/// replaced.
pub fn replace_head<M: Module + ?Sized>(model: &mut M, num_classes: usize) -> Result<Box<dyn Module>> {
    const OP: &str = "replace_head";
    if num_classes == 0 {
        return Err(Error::argument(OP, "a head needs at least one class, got 0"));
    }
    let modules = model.named_modules();
    // Maxout takes the largest of several maps for each class.
    let pieces = modules.last().and_then(|(_, last)| last.downcast_ref::<Maxout>()).map_or(1, Maxout::pieces);
    let head = modules.iter().rev().find_map(|(path, module)| {
        let outputs = num_classes.saturating_mul(pieces);
        let new: Box<dyn Module> = if let Some(old) = module.downcast_ref::<Linear>() {
            Box::new(Linear::new(old.weight.shape()[1], outputs).bias(old.bias.is_some()))
        } else if module.downcast_ref::<RbfOutput>().is_some() {
            Box::new(RbfOutput::new(outputs))
        } else {
            let old = module.downcast_ref::<Conv2d>()?;
            let &[_, inputs, 1, 1] = old.weight.shape().as_slice() else { return None };
            Box::new(Conv2d::new(inputs, outputs, 1).bias(old.bias.is_some()))
        };
        Some((path.clone(), new, model.parameters().first()?.dtype()))
    });
    let Some((path, new, dtype)) = head else {
        return Err(Error::argument(OP, format!("{} has no dense layer or 1×1 convolution that could be its head", model.type_name())));
    };
    let auxiliary = modules.iter().filter_map(|(path, module)| {
        let old = &module.downcast_ref::<InceptionAux>()?.fc2;
        Some((format!("{path}.fc2"), Linear::new(old.weight.shape()[1], num_classes)))
    });
    let auxiliary: Vec<_> = auxiliary.collect();
    for (path, layer) in auxiliary {
        layer.to_dtype(dtype)?;
        model.replace(&path, layer)?;
    }
    new.to_dtype(dtype)?;
    model.replace(&path, new)
}
