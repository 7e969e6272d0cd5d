//! The one trait of layers, blocks and networks.

pub(crate) mod layer;
pub(crate) mod parameter;
pub(crate) mod visitor;

pub use layer::{Layer, LayerPath, TrainingMode, block};
pub use parameter::{Buffer, Parameter};
pub use visitor::{Item, Visit, Visitor};

use std::collections::HashSet;
use std::path::Path;

use super::inspect::receptive_field::{self, ReceptiveFields};
use super::inspect::summary::{self, Summary};
use super::layers::conv::Conv2d;
use super::layers::norm::BatchNorm2d;
use super::state::state_dict::{self, LoadReport, StateDict};
use crate::autograd::Gradients;
use crate::error::{Error, Result, short};
use crate::ops::Activation;
use crate::tensor::{DType, Tensor};

/// A layer, a block, or a whole network.
///
/// Two methods to write: what it computes, and what it consists of. The rest follows from these. State-dict keys are the names given to the
/// visitor, joined with dots.
///
/// `Option<M>` is a module, identity when `None`; a `Vec<M>` runs its modules, named `0`, `1`, …, one after the other; `Box<dyn Module>` and
/// `&dyn Module` are modules too. (Methods that take paths or shapes need a sized receiver: for `m: &dyn Module` write `(&m).save(path)`.)
///
/// ```
/// use convnet::nn::{Conv2d, Module, Visitor};
/// use convnet::{Result, Tensor, visit_fields};
///
/// /// A convolution and a shortcut around it.
/// struct Residual {
///     conv: Conv2d,
/// }
///
/// impl Module for Residual {
///     fn forward(&self, x: &Tensor) -> Result<Tensor> {
///         self.conv.forward(x)?.add(x)
///     }
///     fn visit(&self, v: &mut Visitor<'_>) {
///         visit_fields!(v, self; conv);
///     }
/// }
///
/// let block = Residual { conv: Conv2d::new(8, 8, 3).padding(1) };
/// assert_eq!(block.num_parameters(), 8 * 8 * 9 + 8);
/// ```
pub trait Module: Send + Sync {
    /// Runs the module. Shapes and errors are in each implementation's docs.
    ///
    /// # Errors
    /// As the implementation says; an error from a layer inside is an [`Error::Layer`] that names the layer's path.
    fn forward(&self, x: &Tensor) -> Result<Tensor>;

    /// Names this module's parameters, buffers and children, in order.
    fn visit(&self, visitor: &mut Visitor<'_>);

    /// The module's type, for printing.
    fn type_name(&self) -> &str {
        short_name(std::any::type_name::<Self>())
    }

    /// What this is to a [`Sequential`](super::Sequential), which runs some layers that stand side by side as one.
    fn part(&self) -> Part<'_> {
        Part::Other
    }

    /// The parameters, in order, each once.
    fn parameters(&self) -> Vec<Parameter> {
        self.named_parameters().into_iter().map(|(_, parameter)| parameter).collect()
    }

    /// The parameters with their paths, in order; one that is shared has the first of its paths.
    fn named_parameters(&self) -> Vec<(String, Parameter)> {
        visit_unique(self, |item| match item {
            Item::Parameter(parameter) => Some((parameter.key(), parameter.clone())),
            _ => None,
        })
    }

    /// Pairs each gradient with its parameter's path, in the order of [`named_parameters`](Module::named_parameters); parameters without
    /// a gradient are left out.
    fn named_gradients<'g>(&self, gradients: &'g Gradients) -> Vec<(String, &'g Tensor)> {
        let named = self.named_parameters().into_iter();
        named.filter_map(|(name, parameter)| Some((name, gradients.get(&parameter.leaf().ok()?)?))).collect()
    }

    /// The buffers, such as running statistics, in order, each once.
    fn buffers(&self) -> Vec<Buffer> {
        self.named_buffers().into_iter().map(|(_, buffer)| buffer).collect()
    }

    /// The buffers with their paths, in order, each once.
    fn named_buffers(&self) -> Vec<(String, Buffer)> {
        visit_unique(self, |item| match item {
            Item::Buffer(buffer) => Some((buffer.key(), buffer.clone())),
            _ => None,
        })
    }

    /// The number of elements in all parameters, each counted once.
    fn num_parameters(&self) -> usize {
        self.parameters().iter().map(Parameter::numel).fold(0, usize::saturating_add)
    }

    /// The values of all parameters and buffers by path. Later changes of the module do not reach it.
    ///
    /// # Panics
    /// When memory cannot hold a parameter whose initial value has not been drawn yet.
    fn state_dict(&self) -> StateDict {
        state_dict::of(self).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Sets all parameters and buffers from a state dict; values are converted to the dtype they have here.
    ///
    /// A missing `num_batches_tracked` is overlooked, as in PyTorch, which did not always write it.
    ///
    /// # Errors
    /// [`Error::StateDict`] when keys are missing, unexpected, unreadable or of another shape, with the number and the first names of each
    /// kind ([`load_matching`](Module::load_matching) reports them all); then nothing is changed.
    fn load_state_dict(&self, state: &StateDict) -> Result<LoadReport> {
        state_dict::load_strict(self, state)
    }

    /// Sets those parameters and buffers that a state dict has in the right shape, and reports the others: for a pretrained network under
    /// a new head.
    ///
    /// # Errors
    /// [`Error::StateDict`] when nothing fits.
    fn load_matching(&self, state: &StateDict) -> Result<LoadReport> {
        state_dict::load_matching(self, state)
    }

    /// Switches everything inside to training.
    fn train(&self) {
        set_training(self, true);
    }

    /// Switches everything inside to evaluation: BatchNorm uses its running statistics, Dropout passes its input on.
    fn eval(&self) {
        set_training(self, false);
    }

    /// Whether anything inside is switched to training.
    fn is_training(&self) -> bool {
        let mut training = false;
        Visitor::walk(self, &mut |_, item| {
            if let Item::TrainingMode(mode) = item {
                training |= mode.is_training();
            }
        });
        training
    }

    /// Switches gradients off for the parameters at or below a path, all for `""`. Returns how many there are.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is neither a module nor a parameter at this path, with the paths that are written most alike.
    fn freeze(&self, prefix: &str) -> Result<usize> {
        set_frozen(self, "freeze", prefix, true)
    }

    /// Switches gradients on again for the parameters at or below a path, all for `""`. Returns how many there are.
    ///
    /// # Errors
    /// As [`freeze`](Module::freeze).
    fn unfreeze(&self, prefix: &str) -> Result<usize> {
        set_frozen(self, "unfreeze", prefix, false)
    }

    /// Converts all parameters and floating-point buffers.
    ///
    /// # Errors
    /// [`Error::DType`] unless the dtype is floating point.
    fn to_dtype(&self, dtype: DType) -> Result<()> {
        if !dtype.is_float() {
            return Err(Error::DType { op: "to_dtype", expected: "a floating-point type, DType::F32 or DType::F64", got: dtype });
        }
        for parameter in self.parameters() {
            parameter.update(|value| {
                *value = value.cast(dtype)?;
                Ok(())
            })?;
        }
        for buffer in self.buffers().iter().filter(|buffer| buffer.tensor().dtype().is_float()) {
            buffer.set(&buffer.tensor().cast(dtype)?)?;
        }
        Ok(())
    }

    /// Writes the state dict as a safetensors file: beside the target, synced, then renamed, so that a crash leaves the old file or the new
    /// (see [`StateDict::save`]).
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    fn save(&self, path: impl AsRef<Path>) -> Result<()>
    where
        Self: Sized,
    {
        state_dict::of(self)?.save(path)
    }

    /// Reads a safetensors file and [loads](Module::load_state_dict) it, strictly. [`weights::load`](crate::weights::load) reads files of
    /// other kinds.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`] with the path, [`Error::StateDict`] when it does not fit.
    fn load(&self, path: impl AsRef<Path>) -> Result<LoadReport>
    where
        Self: Sized,
    {
        self.load_state_dict(&StateDict::load(path)?)
    }

    /// Lists every layer and block with output shape, parameters, multiply-adds and memory; see [`Summary`].
    ///
    /// The module runs in evaluation for an input of this shape, but nothing is computed: shapes alone are worked out, no weights are
    /// drawn and no state changes, whatever the size. A `forward` that looks at values sees zeros.
    ///
    /// # Errors
    /// What [`forward`](Module::forward) returns; [`Error::Shape`] when the shape has more elements than memory can hold.
    fn summary(&self, input_shape: impl AsRef<[usize]>) -> Result<Summary>
    where
        Self: Sized,
    {
        summary::of(self, input_shape.as_ref())
    }

    /// How much of the input each layer's units see; see [`ReceptiveFields`]. Nothing is computed, as for a [`summary`](Module::summary).
    ///
    /// # Errors
    /// What [`forward`](Module::forward) returns; [`Error::Shape`] unless the input is `[N, C, H, W]` or `[N, C, L]`.
    fn receptive_field(&self, input_shape: impl AsRef<[usize]>) -> Result<ReceptiveFields>
    where
        Self: Sized,
    {
        receptive_field::of(self, input_shape.as_ref())
    }
}

/// A layer that multiplies its input by factors that it makes from it, as [`SqueezeExcite`](crate::models::SqueezeExcite) does.
pub trait ChannelScale: Module {
    /// The factors for an input, of a shape that broadcasts to the input's.
    ///
    /// # Errors
    /// As [`forward`](Module::forward).
    fn scale(&self, x: &Tensor) -> Result<Tensor>;
}

/// A layer that can run as one with its neighbours: a convolution, a normalisation and an activation, in this order and each but the first of
/// those there are optional, or a gate with the sum and the activation after it. The result is that of one after the other.
#[non_exhaustive]
pub enum Part<'a> {
    /// A two-dimensional convolution.
    Convolution(&'a Conv2d),
    /// Batch normalisation of images.
    Normalisation(&'a BatchNorm2d),
    /// A pointwise nonlinearity.
    Activation(Activation),
    /// A product with factors made from the input.
    ChannelScale(&'a dyn ChannelScale),
    /// Anything else.
    Other,
}

/// `convnet::nn::conv::Conv2d` as `Conv2d`.
fn short_name(name: &str) -> &str {
    let plain = name.split('<').next().unwrap_or(name);
    plain.rsplit("::").next().unwrap_or(plain)
}

/// What `pick` takes of what a walk meets, with a key to tell it by; each once, with the first of its paths.
fn visit_unique<T>(module: &(impl Module + ?Sized), pick: impl Fn(Item<'_>) -> Option<(usize, T)>) -> Vec<(String, T)> {
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

fn set_training(module: &(impl Module + ?Sized), training: bool) {
    Visitor::walk(module, &mut |_, item| {
        if let Item::TrainingMode(mode) = item {
            mode.set_training(training);
        }
    });
}

fn set_frozen(module: &(impl Module + ?Sized), op: &'static str, prefix: &str, frozen: bool) -> Result<usize> {
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
    let near = match nearest(prefix, paths).as_slice() {
        [] => "the network has no parts".to_string(),
        near => format!("near names are {}", near.join(", ")),
    };
    Err(Error::argument(op, format!("there is no module or parameter at path \"{}\"; {near}", short(prefix))))
}

/// The five paths that are written most alike, the best first.
fn nearest(wanted: &str, mut paths: Vec<String>) -> Vec<String> {
    // Longer than any path that is a slip of the pen.
    let wanted: Vec<char> = wanted.chars().take(200).collect();
    paths.sort_by_cached_key(|path| edits(&wanted, path));
    paths.dedup();
    paths.truncate(5);
    paths
}

/// How many characters have to be added, left out or replaced to turn one text into the other (Levenshtein's distance).
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

/// Identity when there is none.
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

    fn type_name(&self) -> &str {
        self.as_ref().map_or("Identity", M::type_name)
    }

    fn part(&self) -> Part<'_> {
        self.as_ref().map_or(Part::Other, M::part)
    }
}

/// One after the other, named `0`, `1`, ….
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
}

macro_rules! forwarding {
    ($($pointer:ty),*) => {$(
        impl<M: Module + ?Sized> Module for $pointer {
            fn forward(&self, x: &Tensor) -> Result<Tensor> {
                (**self).forward(x)
            }

            fn visit(&self, visitor: &mut Visitor<'_>) {
                (**self).visit(visitor);
            }

            fn type_name(&self) -> &str {
                (**self).type_name()
            }

            fn part(&self) -> Part<'_> {
                (**self).part()
            }
        }
    )*};
}
forwarding!(Box<M>, &M, std::sync::Arc<M>);
