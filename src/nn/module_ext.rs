//! Provided methods of every module: state dicts and files, summaries, and parts by path.

use std::path::Path;

use super::inspect::receptive_field::{self, ReceptiveFields};
use super::inspect::summary::{self, Summary};
use super::module::visitor::join;
use super::module::{Copier, Item, Module, Parts, PartsMut, Visit, Visitor, near_names};
use super::state::state_dict::{self, LoadReport, StateDict, StateDifference};
use crate::error::{Error, Result, short};
use crate::tensor::DType;

/// State dicts, files, summaries, parts by path, copies: methods of every [`Module`], `dyn Module`
/// too.
///
/// ```
/// use convnet::{models, prelude::*};
///
/// let mut model = models::create("resnet18", 1000)?;
/// model.replace("fc", Sequential::new().push(Dropout::new(0.2)).push(Linear::new(512, 7)))?;
/// assert_eq!(model.forward(&Tensor::zeros([2, 3, 32, 32]))?.shape(), [2, 7]);
/// assert!(model.get("layer4.1.conv2").is_some());
/// # Ok::<(), convnet::Error>(())
/// ```
pub trait ModuleExt: Module {
    /// Returns the values of all parameters and buffers by path. Later changes of the module do not
    /// change the result.
    ///
    /// # Panics
    /// When memory cannot hold a parameter whose initial value has not been drawn yet.
    fn state_dict(&self) -> StateDict {
        state_dict::of(self.as_module()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Sets all parameters and buffers from a state dict; values are converted to the dtype they
    /// have here.
    ///
    /// A missing `num_batches_tracked` is ignored, as in PyTorch, which did not always write it.
    ///
    /// # Errors
    /// [`Error::StateDict`] when keys are missing, unexpected, unreadable or of another shape, with
    /// the number and the first names of each kind ([`load_matching`](ModuleExt::load_matching)
    /// reports them all); then nothing is changed.
    fn load_state_dict(&self, state: &StateDict) -> Result<LoadReport> {
        state_dict::load_strict(self.as_module(), state)
    }

    /// Sets those parameters and buffers that a state dict has in the right shape, and reports the
    /// others: for a pretrained network with a new head.
    ///
    /// # Errors
    /// [`Error::StateDict`] when no key matches.
    fn load_matching(&self, state: &StateDict) -> Result<LoadReport> {
        state_dict::load_matching(self.as_module(), state)
    }

    /// Writes the state dict as a safetensors file: writes a temporary file beside the target,
    /// syncs and renames it, so that after a crash the file is either the old one or the new one
    /// (see [`StateDict::save`]).
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        state_dict::of(self.as_module())?.save(path)
    }

    /// Reads a safetensors file and [loads](ModuleExt::load_state_dict) it, strictly.
    /// [`weights::load`](crate::weights::load) reads files of other formats.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`] with the path, [`Error::StateDict`] when keys or shapes
    /// differ.
    fn load(&self, path: impl AsRef<Path>) -> Result<LoadReport> {
        self.load_state_dict(&StateDict::load(path)?)
    }

    /// Compares parameters and buffers with those of another module, which may be of another type.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when memory cannot hold initial values that have not been drawn yet.
    fn difference<M: Module + ?Sized>(&self, other: &M) -> Result<StateDifference> {
        state_dict::of(self.as_module())?.difference(&state_dict::of(other.as_module())?)
    }

    /// Lists every layer and block with output shape, parameters, multiply-adds and memory; see
    /// [`Summary`].
    ///
    /// The module runs in evaluation for an input of this shape, but only shapes are computed: no
    /// weights are drawn and no state changes, whatever the size. A `forward` that reads values
    /// reads zeros.
    ///
    /// # Errors
    /// Those of [`forward`](Module::forward); [`Error::Shape`] when the shape has more elements
    /// than memory can hold.
    fn summary(&self, input_shape: impl AsRef<[usize]>) -> Result<Summary> {
        summary::of(self.as_module(), input_shape.as_ref(), None)
    }

    /// Computes [`summary`](ModuleExt::summary) for an input of this dtype: `i64` for a network
    /// that starts with an [`Embedding`](crate::nn::Embedding). `summary` itself takes the dtype of
    /// the parameters.
    ///
    /// # Errors
    /// Those of [`forward`](Module::forward) for such an input.
    fn summary_of(&self, input_shape: impl AsRef<[usize]>, dtype: DType) -> Result<Summary> {
        summary::of(self.as_module(), input_shape.as_ref(), Some(dtype))
    }

    /// Computes the receptive field of each layer's units; see [`ReceptiveFields`]. No values are
    /// computed, as for a [`summary`](ModuleExt::summary).
    ///
    /// # Errors
    /// Those of [`forward`](Module::forward); [`Error::Shape`] unless the input is `[N, C, H, W]`
    /// or `[N, C, L]`.
    fn receptive_field(&self, input_shape: impl AsRef<[usize]>) -> Result<ReceptiveFields> {
        receptive_field::of(self.as_module(), input_shape.as_ref())
    }

    /// Returns the module at this path, such as `layer4.1.conv2`; `None` when there is none.
    /// [`try_get`](ModuleExt::try_get) returns the reason.
    ///
    /// Modules that implement [`visit`](Module::visit) by hand make their parts accessible only if
    /// they implement [`parts`](Module::parts) too.
    fn get(&self, path: &str) -> Option<&dyn Module> {
        Parts::find(self.as_module(), path)
    }

    /// Returns the module at this path.
    ///
    /// # Errors
    /// [`Error::Argument`] with similar names when there is none.
    fn try_get(&self, path: &str) -> Result<&dyn Module> {
        self.get(path).ok_or_else(|| nothing_at("get", self.as_module(), path))
    }

    /// Returns all modules inside this one, blocks and layers, with their paths; each after those
    /// that contain it.
    fn named_modules(&self) -> Vec<(String, &dyn Module)> {
        let mut found = vec![];
        Parts::all(self.as_module(), "", &mut found);
        found
    }

    /// Calls `function` with each module inside this one and its path, in the order of
    /// [`named_modules`](ModuleExt::named_modules).
    ///
    /// ```
    /// use convnet::prelude::*;
    ///
    /// let net = Sequential::new().push(Conv2d::new(3, 8, 3)).push(ReLU).push(Conv2d::new(8, 8, 3));
    /// net.for_each_module(|_, module| {
    ///     if let Some(bias) = module.downcast_ref::<Conv2d>().and_then(|conv| conv.bias.as_ref()) {
    ///         bias.set(&Tensor::zeros([8])).expect("the same shape");
    ///     }
    /// });
    /// ```
    fn for_each_module(&self, mut function: impl FnMut(&str, &dyn Module)) {
        for (path, module) in self.named_modules() {
            function(&path, module);
        }
    }

    /// Replaces the module at this path by `module`, and returns the old one.
    ///
    /// The position decides which modules it accepts: a child of a
    /// [`Sequential`](super::Sequential) or a field of type `Box<dyn Module>`, such as the heads of
    /// the crate's models, accepts any module; a field of another type accepts a module of that
    /// type. Like all new modules, the new one is in training until [`eval`](Module::eval) switches
    /// it.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is no such path, with similar names, or when the position
    /// accepts only another type; then nothing is changed.
    fn replace<M: Module>(&mut self, path: &str, module: M) -> Result<Box<dyn Module>> {
        // The paths in the layers start at the outermost model.
        let outer = Visitor::find_path(self.as_module()).unwrap_or_default();
        // A boxed module is replaced by the module inside.
        let new = Box::<dyn Module>::from_boxed(Box::new(module)).unwrap_or_else(|module| module);
        let Some(old) = PartsMut::replace(self, path, new)? else {
            return Err(nothing_at("replace", self.as_module(), path));
        };
        if let Some(new) = self.get(path) {
            Visitor::set_paths(&join(&outer, path), new);
        }
        Ok(old)
    }

    /// Copies the module. Parameters and buffers have the values of the original and are
    /// independent of it, frozen ones stay frozen, and what is shared inside is also shared inside
    /// the copy.
    ///
    /// # Errors
    /// [`Error::Argument`] when a module inside cannot be copied, since it implements
    /// [`visit`](Module::visit) by hand but not [`copy_with`](Module::copy_with);
    /// [`Error::OutOfMemory`] when memory cannot hold initial values that have not been drawn yet.
    fn deep_clone(&self) -> Result<Self>
    where
        Self: Sized,
    {
        self.copy_field(&mut Copier::default())
    }

    /// Copies a module of any type, such as those that [`get`](ModuleExt::get) returns; otherwise
    /// like [`deep_clone`](ModuleExt::deep_clone).
    ///
    /// # Errors
    /// [`Error::Argument`] or [`Error::OutOfMemory`], as for [`deep_clone`](ModuleExt::deep_clone).
    fn clone_boxed(&self) -> Result<Box<dyn Module>> {
        self.copy_with(&mut Copier::default())
    }
}

impl<M: Module + ?Sized> ModuleExt for M {}

/// Returns the error that explains why there is no module at a path.
fn nothing_at(op: &'static str, module: &dyn Module, path: &str) -> Error {
    let mut paths = vec![];
    Visitor::walk(module, &mut |path, item| {
        if matches!(item, Item::Enter { .. }) && !path.is_empty() {
            paths.push(path.to_string());
        }
    });
    if paths.iter().any(|known| known == path) {
        let message = format!(
            "the module at \"{path}\" is inside one that does not show its parts; list the fields of that one by `visit_fields!` in `impl Module`, \
             or implement `parts` and `parts_mut`"
        );
        return Error::argument(op, message);
    }
    Error::argument(op, format!("there is no module at path \"{}\"; {}", short(path), near_names(path, paths)))
}
