//! A layer's path in its network, for error messages, and the hooks that observe layers while they
//! run.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Module;
use super::visitor::Visitor;
use crate::error::{Error, Result};
use crate::profiling::{hooks, watch};
use crate::tensor::Tensor;

/// A layer without child modules: its description in error messages, in the printed tree and in a
/// [`summary`](crate::nn::ModuleExt::summary), and its cost.
pub trait Layer {
    /// Describes the layer, as in `Conv2d 64→64, k3`.
    fn describe(&self) -> String;

    /// Returns the number of multiplications, each with its addition, that the layer needs for
    /// these input and output shapes. Zero for what the literature does not count: activations,
    /// normalisation, pooling.
    fn multiply_adds(&self, input: &[usize], output: &[usize]) -> u64 {
        let _ = (input, output);
        0
    }
}

/// A layer's path in a network. A leaf layer holds one and runs its forward inside
/// [`scope`](LayerPath::scope). A visitor pass over the network
/// ([`Visitor::layer`](crate::nn::Visitor::layer)), as `parameters()`, `eval()`, `push` and many
/// others make, sets the path.
///
/// A pass over a part, as `model.layer1.parameters()` makes, keeps the paths from the whole model.
/// It counts as a pass over a part when all layers that it visits have paths that end with those of
/// the pass, below one common prefix; any other pass sets all paths. So a part that is moved into
/// another model gets its new paths from the first pass over that model. A layer that occurs twice
/// in a model has the first of its two paths.
///
/// Threads may visit and run a network at the same time: a path is replaced as a whole, under a
/// lock, and a layer that runs reads either the old one or the new one. Only passes that start at
/// different roots which share layers can leave a mixture of both roots' paths.
///
/// ```
/// use convnet::nn::{Layer, LayerPath, Module};
/// use convnet::{Result, Tensor, visit_fields};
///
/// struct Square {
///     path: LayerPath,
/// }
///
/// impl Layer for Square {
///     fn describe(&self) -> String {
///         "Square".into()
///     }
/// }
///
/// impl Module for Square {
///     fn forward(&self, x: &Tensor) -> Result<Tensor> {
///         self.path.scope(self, x, || x.mul(x))
///     }
///
///     visit_fields!(layer path);
/// }
/// ```
pub struct LayerPath {
    // `None` before the first visitor pass.
    path: Mutex<Option<Arc<str>>>,
}

impl LayerPath {
    /// Creates an unknown path, which the first visitor pass sets.
    pub const fn new() -> LayerPath {
        LayerPath { path: Mutex::new(None) }
    }

    /// Returns the path from the root; empty before the first visitor pass, and for a root.
    pub fn path(&self) -> String {
        self.get().as_deref().unwrap_or("").to_string()
    }

    /// Returns the path; `None` before the first visitor pass.
    pub(crate) fn get(&self) -> Option<Arc<str>> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, path: &str) {
        let mut current = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_deref() != Some(path) {
            *current = Some(path.into());
        }
    }

    /// Runs a layer's forward: adds the layer's path and description to an error, and reports the
    /// call to a running summary or [profile](crate::profile()).
    ///
    /// # Errors
    /// Those of `body`, inside an [`Error::Layer`] unless they are one already.
    pub fn scope<L: Layer + ?Sized>(&self, layer: &L, x: &Tensor, body: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        // This is compiled for each layer, what is rare only once.
        let observed = if hooks::is_on() || is_observed() { Some(self.begin()) } else { None };
        let result = body();
        if observed.is_none() && result.is_ok() {
            return result;
        }
        self.end(observed, &|| layer.describe(), &|x, y| layer.multiply_adds(x, y), x, result)
    }

    /// Reports the start of a call.
    #[cold]
    fn begin(&self) -> Box<Observed> {
        Box::new(Observed::begin(self.get()))
    }

    /// Reports the end of a call and its result.
    #[cold]
    fn end(
        &self,
        observed: Option<Box<Observed>>,
        describe: &dyn Fn() -> String,
        multiply_adds: &dyn Fn(&[usize], &[usize]) -> u64,
        x: &Tensor,
        result: Result<Tensor>,
    ) -> Result<Tensor> {
        let result = result.map_err(|error| self.locate(error, false, describe()));
        let Some(observed) = observed else { return result };
        observed.end(result, |trace, y| {
            let multiply_adds = multiply_adds(x.shape(), y.shape());
            trace.calls.push(Call { path: self.path(), layer: describe(), output: y.clone(), multiply_adds });
        })
    }

    /// Adds this path to an error that has none yet.
    pub(crate) fn locate(&self, error: Error, is_block: bool, layer: String) -> Error {
        located(error, self.path(), is_block, layer)
    }
}

/// A layer or block that runs while profiles, watchers or traces observe it.
struct Observed {
    // Reports the end to profiles when it is dropped.
    profiled: Option<hooks::Leave>,
    watched: Option<watch::Open>,
}

impl Observed {
    /// Reports the start to profiles and watchers, if the path is known.
    fn begin(path: Option<Arc<str>>) -> Observed {
        let profiled = if hooks::is_on() { path.clone().and_then(hooks::enter) } else { None };
        let watched = if watch::is_on() { path.as_deref().and_then(watch::open) } else { None };
        Observed { profiled, watched }
    }

    /// Reports the end to profiles and the result to watchers; `note` adds it to a trace.
    fn end(self, result: Result<Tensor>, note: impl FnOnce(&mut Trace, &Tensor)) -> Result<Tensor> {
        drop(self.profiled);
        let y = result?;
        TRACE.with_borrow_mut(|trace| {
            if let Some(trace) = trace {
                note(trace, &y);
            }
        });
        match self.watched {
            Some(watched) => watch::close(watched, y),
            None => Ok(y),
        }
    }
}

/// Adds the path of a layer or block to an error, unless it already has that of one inside.
fn located(error: Error, path: String, is_block: bool, layer: String) -> Error {
    match error {
        error @ Error::Layer { .. } => error,
        error => Error::Layer { path, layer, is_block, source: Box::new(error) },
    }
}

/// A clone starts with the current path.
impl Clone for LayerPath {
    fn clone(&self) -> LayerPath {
        LayerPath { path: Mutex::new(self.get()) }
    }
}

impl Default for LayerPath {
    fn default() -> LayerPath {
        LayerPath::new()
    }
}

impl fmt::Debug for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

/// Runs the forward of a block, a module made of other modules. A [summary](crate::nn::Summary)
/// then shows the block's output shape, a [profile](crate::profile()) lists operations between the
/// layers, such as the sum with a shortcut, under the block's path, and an error from such an
/// operation names the block: `layer1.0 (Residual): add: shapes [..] and [..] do not broadcast`.
/// Errors from layers and blocks inside keep their own path.
///
/// Blocks need not call this: a summary lists them anyway, but without an output, and operations
/// between their layers are then assigned to the enclosing block.
/// [`Sequential`](crate::nn::Sequential) and `Vec` run their children with it.
///
/// ```
/// use convnet::nn::{Conv2d, Module, ModuleExt, block};
/// use convnet::{Result, Tensor, visit_fields};
///
/// struct Residual {
///     conv: Conv2d,
/// }
///
/// impl Module for Residual {
///     fn forward(&self, x: &Tensor) -> Result<Tensor> {
///         block(self, || self.conv.forward(x)?.add(x))
///     }
///
///     visit_fields!(conv);
/// }
///
/// let summary = Residual { conv: Conv2d::new(8, 8, 3).padding(1) }.summary([1, 8, 5, 5])?;
/// assert_eq!(summary.rows[0].output.as_deref(), Some([1, 8, 5, 5].as_slice()));
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Those of `body`, inside an [`Error::Layer`] unless they are one already or the block's path is
/// unknown: in a block without layers inside, or in a network that no visitor pass, such as
/// `eval()` or `parameters()`, has reached.
pub fn block<M: Module + ?Sized>(module: &M, body: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
    block_at(None, module, body)
}

/// Runs a block whose parent knows its path, for blocks without layers inside.
pub(crate) fn block_at<M: Module + ?Sized>(path: Option<&LayerPath>, module: &M, body: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
    let block = if is_observed() || hooks::is_on() { begin_block(path, module.as_module()) } else { None };
    let result = body();
    if block.is_none() && result.is_ok() {
        return result;
    }
    end_block(module.as_module(), block, result)
}

/// A block whose path is known, while it runs observed.
struct ObservedBlock {
    path: Arc<str>,
    observed: Observed,
}

/// Reports the start of a block.
#[cold]
fn begin_block(path: Option<&LayerPath>, module: &dyn Module) -> Option<ObservedBlock> {
    let path: Arc<str> = Visitor::find_path(module).map(Arc::from).or_else(|| path?.get())?;
    Some(ObservedBlock { observed: Observed::begin(Some(Arc::clone(&path))), path })
}

/// Reports the end of a block, and adds its path to an error.
#[cold]
fn end_block(module: &dyn Module, block: Option<ObservedBlock>, result: Result<Tensor>) -> Result<Tensor> {
    let result = match block {
        Some(ObservedBlock { path, observed }) => {
            observed.end(result, |trace, y| drop(trace.blocks.insert(path.to_string(), y.shape().to_vec())))
        }
        None => result,
    };
    result.map_err(|error| locate_block(module, error))
}

/// Adds the block's path, if it is known, to an error that has none yet.
fn locate_block(module: &dyn Module, error: Error) -> Error {
    if let Error::Layer { .. } = error {
        return error;
    }
    match Visitor::find_path(module) {
        Some(path) => located(error, path, true, module.type_name().to_string()),
        None => error,
    }
}

/// Returns whether the layers are being traced or [watched](watch) one by one. Then each layer runs
/// by itself, without fusion, and no result is cached, since a trace runs on the [meta
/// device](crate::tensor::meta), without values.
#[inline]
pub(crate) fn is_tracing() -> bool {
    TRACING.get() || watch::splits()
}

/// Returns whether blocks are being traced or watched, so that each has to report its output.
#[inline]
pub(crate) fn is_observed() -> bool {
    TRACING.get() || watch::is_on()
}

/// A call of a leaf layer.
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) layer: String,
    pub(crate) output: Tensor,
    pub(crate) multiply_adds: u64,
}

/// The calls recorded by a trace.
#[derive(Default)]
pub(crate) struct Trace {
    /// The calls of leaf layers, in order.
    pub(crate) calls: Vec<Call>,
    /// The shape that each block returned last, by path.
    pub(crate) blocks: HashMap<String, Vec<usize>>,
}

impl Trace {
    /// Removes the prefix `prefix` from all paths below it; other paths stay.
    pub(crate) fn make_relative(&mut self, prefix: &str) {
        let relative = |path: String| match path.strip_prefix(prefix) {
            Some("") => String::new(),
            Some(rest) => rest.strip_prefix('.').map(str::to_string).unwrap_or(path),
            None => path,
        };
        for call in &mut self.calls {
            call.path = relative(std::mem::take(&mut call.path));
        }
        self.blocks = self.blocks.drain().map(|(path, shape)| (relative(path), shape)).collect();
    }
}

thread_local! {
    static TRACING: Cell<bool> = const { Cell::new(false) };
    static TRACE: RefCell<Option<Trace>> = const { RefCell::new(None) };
}

/// Runs `body` and returns its result with the calls of layers and blocks on this thread.
pub(crate) fn trace<R>(body: impl FnOnce() -> R) -> (R, Trace) {
    /// Restores the enclosing trace, also when unwinding.
    struct Restore(Option<Trace>);
    impl Drop for Restore {
        fn drop(&mut self) {
            TRACING.set(self.0.is_some());
            TRACE.set(self.0.take());
        }
    }
    let restore = Restore(TRACE.replace(Some(Trace::default())));
    TRACING.set(true);
    let result = body();
    let trace = TRACE.take().unwrap_or_default();
    drop(restore);
    (result, trace)
}

/// A switch between training and evaluation, for layers that behave differently in each. Initially
/// in training.
#[derive(Debug)]
pub struct TrainingMode {
    training: AtomicBool,
}

impl TrainingMode {
    /// Creates a switch set to training.
    pub const fn new() -> TrainingMode {
        TrainingMode { training: AtomicBool::new(true) }
    }

    /// Returns whether the layer is in training.
    pub fn is_training(&self) -> bool {
        self.training.load(Ordering::Relaxed)
    }

    /// Switches to training (`true`) or to evaluation.
    pub fn set_training(&self, training: bool) {
        self.training.store(training, Ordering::Relaxed);
    }
}

impl Clone for TrainingMode {
    fn clone(&self) -> TrainingMode {
        TrainingMode { training: AtomicBool::new(self.is_training()) }
    }
}

impl Default for TrainingMode {
    fn default() -> TrainingMode {
        TrainingMode::new()
    }
}
