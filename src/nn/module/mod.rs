//! The trait that layers, blocks and networks implement.

pub(crate) mod layer;
pub(crate) mod macros;
mod modes;
pub(crate) mod parameter;
mod parts;
mod queries;
pub(crate) mod visitor;
mod wrappers;

pub use layer::{Layer, LayerPath, TrainingMode, block};
pub(crate) use modes::{Modes, in_evaluation, keeping_modes};
pub use parameter::{Buffer, Parameter};
pub use parts::{Copier, Parts, PartsMut};
pub(crate) use queries::near_names;
pub use visitor::{Item, Visit, Visitor};

use std::any::Any;

use crate::autograd::Gradients;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// A layer, a block, or a whole network.
///
/// An implementation defines two things: what the module computes, and what it consists of, for
/// which [`visit_fields!`](crate::visit_fields) lists the fields. The rest follows from these.
/// State-dict keys are the names given to the visitor, joined with dots. Methods for state dicts,
/// summaries and paths of parts are in [`ModuleExt`](crate::nn::ModuleExt), which every module has.
///
/// `Option<M>` is a module, identity when `None`; a `Vec<M>` runs its modules, named `0`, `1`, …,
/// one after the other; `Box<M>`, `Box<dyn Module>`, `Arc<M>` and `Arc<dyn Module>` are modules
/// too.
///
/// ```
/// use convnet::nn::{Conv2d, Module};
/// use convnet::{Result, Tensor, visit_fields};
///
/// /// A convolution and a shortcut around it.
/// struct Residual {
///     conv: Conv2d,
/// }
///
/// impl Module for Residual {
///     fn forward(&self, x: &Tensor) -> Result<Tensor> {
///         x.apply(&self.conv)?.add(x)
///     }
///
///     visit_fields!(conv);
/// }
///
/// let block = Residual { conv: Conv2d::new(8, 8, 3).padding(1) };
/// assert_eq!(block.num_parameters(), 8 * 8 * 9 + 8);
/// ```
pub trait Module: AsModule + Any + Send + Sync {
    /// Runs the module. The docs of each implementation give shapes and errors.
    ///
    /// # Errors
    /// As documented by the implementation; an error from a layer inside is an
    /// [`Error::Layer`](crate::Error::Layer) with the layer's path.
    fn forward(&self, x: &Tensor) -> Result<Tensor>;

    /// Visits this module's parameters, buffers and children by name, in order.
    /// [`visit_fields!`](crate::visit_fields) writes it.
    fn visit(&self, visitor: &mut Visitor<'_>);

    /// Lists the child modules, for [`get`](crate::nn::ModuleExt::get) and
    /// [`named_modules`](crate::nn::ModuleExt::named_modules); none by default.
    /// [`visit_fields!`](crate::visit_fields) writes it.
    fn parts<'m>(&'m self, parts: &mut Parts<'m>) {
        let _ = parts;
    }

    /// Lists the child modules for [`replace`](crate::nn::ModuleExt::replace); otherwise like
    /// [`parts`](Module::parts). [`visit_fields!`](crate::visit_fields) writes it.
    fn parts_mut<'m>(&'m mut self, parts: &mut PartsMut<'m>) {
        let _ = parts;
    }

    /// Copies the module, with independent parameters and buffers; the result is of the same type.
    /// [`visit_fields!`](crate::visit_fields) writes it;
    /// [`deep_clone`](crate::nn::ModuleExt::deep_clone) calls it.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when this module or one inside does not
    /// implement it; otherwise those of [`Copier::field`].
    fn copy_with(&self, copier: &mut Copier) -> Result<Box<dyn Module>> {
        let _ = copier;
        Err(queries::not_copied(self.as_module()))
    }

    /// Converts a boxed module to this type: `Box<dyn Module>` accepts any module, other types only
    /// a module of the same type.
    ///
    /// # Errors
    /// Returns the module unchanged when it is of another type.
    fn from_boxed(module: Box<dyn Module>) -> Result<Self, Box<dyn Module>>
    where
        Self: Sized,
    {
        downcast(module)
    }

    /// Returns the wrapped module, for wrappers such as `Box`, `Arc` and `Option`.
    fn inner(&self) -> Option<&dyn Module> {
        None
    }

    /// Returns the module as one that scales channels, if it is one.
    fn as_channel_scale(&self) -> Option<&dyn ChannelScale> {
        None
    }

    /// Returns the name of the module's type, for printing.
    fn type_name(&self) -> &str {
        short_name(std::any::type_name::<Self>())
    }

    /// Returns the parameters, in order, each once.
    fn parameters(&self) -> Vec<Parameter> {
        queries::parameters(self.as_module())
    }

    /// Returns the parameters with their paths, in order; a shared one has the first of its paths.
    fn named_parameters(&self) -> Vec<(String, Parameter)> {
        queries::named_parameters(self.as_module())
    }

    /// Pairs each gradient with its parameter's path, in the order of
    /// [`named_parameters`](Module::named_parameters); parameters without a gradient are left out.
    fn named_gradients<'g>(&self, gradients: &'g Gradients) -> Vec<(String, &'g Tensor)> {
        queries::named_gradients(self.as_module(), gradients)
    }

    /// Returns the buffers, such as running statistics, in order, each once.
    fn buffers(&self) -> Vec<Buffer> {
        queries::buffers(self.as_module())
    }

    /// Returns the buffers with their paths, in order, each once.
    fn named_buffers(&self) -> Vec<(String, Buffer)> {
        queries::named_buffers(self.as_module())
    }

    /// Returns the number of elements in all parameters, each counted once.
    fn num_parameters(&self) -> usize {
        queries::num_parameters(self.as_module())
    }

    /// Switches the module and everything inside to training.
    fn train(&self) {
        queries::set_training(self.as_module(), true);
    }

    /// Switches the module and everything inside to evaluation: BatchNorm uses its running
    /// statistics, Dropout returns its input.
    fn eval(&self) {
        queries::set_training(self.as_module(), false);
    }

    /// Returns whether any module inside is in training.
    fn is_training(&self) -> bool {
        queries::is_training(self.as_module())
    }

    /// Switches gradients off for the parameters at or below a path, or for all with `""`. Returns
    /// their number.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when there is neither a module nor a parameter
    /// at this path; the message lists the most similar paths.
    fn freeze(&self, prefix: &str) -> Result<usize> {
        queries::set_frozen(self.as_module(), "freeze", prefix, true)
    }

    /// Switches gradients on again for the parameters at or below a path, or for all with `""`.
    /// Returns their number.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when there is neither a module nor a parameter
    /// at this path.
    fn unfreeze(&self, prefix: &str) -> Result<usize> {
        queries::set_frozen(self.as_module(), "unfreeze", prefix, false)
    }

    /// Converts all parameters and floating-point buffers to this dtype.
    ///
    /// # Errors
    /// [`Error::DType`](crate::Error::DType) unless the dtype is floating point.
    fn to_dtype(&self, dtype: DType) -> Result<()> {
        queries::to_dtype(self.as_module(), dtype)
    }
}

/// Converts a module to a trait object. Every [`Sized`] module implements it.
pub trait AsModule {
    /// Returns the module as a trait object.
    fn as_module(&self) -> &dyn Module;
}

impl<M: Module> AsModule for M {
    fn as_module(&self) -> &dyn Module {
        self
    }
}

impl dyn Module {
    /// Returns the module as the type `M`, looking inside `Box`, `Arc` and `Option`; `None` when it
    /// is of another type.
    ///
    /// ```
    /// use convnet::{models, prelude::*};
    ///
    /// let model = models::create("resnet18", 10)?;
    /// let conv: &Conv2d = model.try_get("layer1.0.conv1")?.downcast_ref().expect("a convolution");
    /// assert_eq!(conv.weight.shape(), [64, 64, 3, 3]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn downcast_ref<M: Module>(&self) -> Option<&M> {
        let mut module = self;
        loop {
            if let Some(found) = (module as &dyn Any).downcast_ref() {
                return Some(found);
            }
            module = module.inner()?;
        }
    }

    /// Returns the module without the `Box`, `Arc` and `Option` around it.
    pub(crate) fn unwrapped(&self) -> &dyn Module {
        let mut module = self;
        while let Some(inner) = module.inner() {
            module = inner;
        }
        module
    }
}

fn downcast<M: Module>(module: Box<dyn Module>) -> Result<M, Box<dyn Module>> {
    if (&*module as &dyn Any).is::<M>() {
        return Ok(*(module as Box<dyn Any>).downcast().expect("of the type that was just checked"));
    }
    Err(module)
}

impl Tensor {
    /// Runs a module on this tensor: `x.apply(&conv)?.apply(&bn)?.relu()` reads in execution order.
    ///
    /// # Errors
    /// Those of the module.
    pub fn apply<M: Module + ?Sized>(&self, module: &M) -> Result<Tensor> {
        module.forward(self)
    }
}

/// A layer that multiplies its input by factors computed from that input, as
/// [`SqueezeExcite`](crate::models::SqueezeExcite) does.
pub trait ChannelScale: Module {
    /// Computes the factors for an input, in a shape that broadcasts to the input's.
    ///
    /// # Errors
    /// Those of [`forward`](Module::forward).
    fn scale(&self, x: &Tensor) -> Result<Tensor>;
}

/// Returns the last segment of a type's path: `Conv2d` for `convnet::nn::conv::Conv2d`.
fn short_name(name: &str) -> &str {
    let plain = name.split('<').next().unwrap_or(name);
    plain.rsplit("::").next().unwrap_or(plain)
}
