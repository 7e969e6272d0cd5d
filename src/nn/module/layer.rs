//! Where a layer stands in its network: its path for error messages, and who watches when it runs.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Module;
use super::visitor::Visitor;
use crate::error::{Error, Result};
use crate::profiling::hooks;
use crate::tensor::Tensor;

/// A layer that does its work itself: what error messages, printing and [`summary`](crate::nn::ModuleExt::summary) say of it.
pub trait Layer {
    /// What the layer is, as in `Conv2d 64→64, k3`.
    fn describe(&self) -> String;

    /// How many multiplications, each with its addition, take an input of this shape to this output. Zero for what the literature does not
    /// count: activations, normalisation, pooling.
    fn multiply_adds(&self, input: &[usize], output: &[usize]) -> u64 {
        let _ = (input, output);
        0
    }
}

/// A layer's place in a network. A leaf layer holds one and runs its forward inside [`scope`](LayerPath::scope). A walk over the network
/// ([`Visitor::layer`](crate::nn::Visitor::layer)), as `parameters()`, `eval()`, `push` and many others make, sets its path.
///
/// A walk over a part, as `model.layer1.parameters()` makes, leaves the paths from the whole model as they are. It counts as one over a part
/// when all layers that it meets have paths that end with those of the walk, below one common prefix; any other walk sets all paths. So a
/// part that is moved into another model gets its new paths from the first walk over that model. A layer in two places of a model has the
/// first of its two paths.
///
/// Threads may walk and run a network at the same time: a path is replaced as a whole, under a lock, and a layer that runs reads either the
/// old one or the new one. Only walks that start at different roots which share layers can leave paths of both.
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
    // `None` until a walk has passed.
    path: Mutex<Option<Arc<str>>>,
}

impl LayerPath {
    /// A place whose path is not known yet.
    pub const fn new() -> LayerPath {
        LayerPath { path: Mutex::new(None) }
    }

    /// The path from the root; empty before the first walk, and for a root.
    pub fn path(&self) -> String {
        self.get().as_deref().unwrap_or("").to_string()
    }

    /// The path; `None` before the first walk.
    pub(crate) fn get(&self) -> Option<Arc<str>> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, path: &str) {
        let mut current = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_deref() != Some(path) {
            *current = Some(path.into());
        }
    }

    /// Runs a layer's forward: an error that comes out says where and what the layer is, and a running summary or
    /// [profile](crate::profile()) hears of the call.
    ///
    /// # Errors
    /// What `body` returns, inside an [`Error::Layer`] unless it is one already.
    pub fn scope<L: Layer + ?Sized>(&self, layer: &L, x: &Tensor, body: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        let result = match if hooks::is_on() { self.get() } else { None } {
            Some(path) => hooks::within(path, body),
            None => body(),
        };
        if TRACING.get() || result.is_err() {
            return self.report(|| layer.describe(), |x, y| layer.multiply_adds(x, y), x, result);
        }
        result
    }

    #[cold]
    fn report(
        &self,
        describe: impl Fn() -> String,
        multiply_adds: impl Fn(&[usize], &[usize]) -> u64,
        x: &Tensor,
        result: Result<Tensor>,
    ) -> Result<Tensor> {
        let y = result.map_err(|error| self.locate(error, false, describe()))?;
        TRACE.with_borrow_mut(|trace| {
            if let Some(trace) = trace {
                let multiply_adds = multiply_adds(x.shape(), y.shape());
                trace.calls.push(Call { path: self.path(), layer: describe(), output: y.clone(), multiply_adds });
            }
        });
        Ok(y)
    }

    /// Puts the place around an error that has none yet.
    pub(crate) fn locate(&self, error: Error, is_block: bool, layer: String) -> Error {
        located(error, self.path(), is_block, layer)
    }
}

/// An error with the place of the layer or block that it comes from, unless it has that of one inside.
fn located(error: Error, path: String, is_block: bool, layer: String) -> Error {
    match error {
        error @ Error::Layer { .. } => error,
        error => Error::Layer { path, layer, is_block, source: Box::new(error) },
    }
}

/// With the path that it has now.
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

/// Runs the forward of a block, a module made of others. A [summary](crate::nn::Summary) then says what the block returns, a
/// [profile](crate::profile()) lists operations between the layers, such as the sum with a shortcut, under the block's path, and an error
/// from such an operation names the block: `layer1.0 (Residual): add: shapes [..] and [..] do not broadcast`. Errors from layers and
/// blocks inside keep their own place.
///
/// Blocks need not call this: a summary lists them all the same, then without an output, and what they do between layers belongs to the
/// block around them. Children of [`Sequential`](crate::nn::Sequential) and `Vec` are run so by these.
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
/// What `body` returns, inside an [`Error::Layer`] unless it is one already or the block's path is not known: a block without layers inside,
/// or in a network that no walk has passed, such as `eval()` or `parameters()`.
pub fn block<M: Module + ?Sized>(module: &M, body: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
    let result = if is_tracing() || hooks::is_on() { at_place(Visitor::find_path(module.as_module()), body) } else { body() };
    result.map_err(|error| locate_block(module.as_module(), error))
}

/// Puts the block's place around an error that has none yet, if it is known.
#[cold]
fn locate_block(module: &dyn Module, error: Error) -> Error {
    if let Error::Layer { .. } = error {
        return error;
    }
    match Visitor::find_path(module) {
        Some(path) => located(error, path, true, module.type_name().to_string()),
        None => error,
    }
}

/// Runs `body` at a path, if it is known, for those who listen.
#[cold]
fn at_place(path: Option<String>, body: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
    let Some(path) = path else { return body() };
    let y = if hooks::is_on() { hooks::within(path.as_str().into(), body)? } else { body()? };
    TRACE.with_borrow_mut(|trace| {
        if let Some(trace) = trace {
            trace.blocks.insert(path, y.shape().to_vec());
        }
    });
    Ok(y)
}

/// Whether a trace of the layers is taken: then each runs by itself, none as a part of another, and nothing that is worked out is kept, for a
/// trace is taken in a [meta run](crate::tensor::meta).
#[inline]
pub(crate) fn is_tracing() -> bool {
    TRACING.get()
}

/// One call of a leaf layer.
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) layer: String,
    pub(crate) output: Tensor,
    pub(crate) multiply_adds: u64,
}

/// What ran while a trace was taken.
#[derive(Default)]
pub(crate) struct Trace {
    /// The calls of leaf layers, in order.
    pub(crate) calls: Vec<Call>,
    /// By path, the shape of what blocks returned last.
    pub(crate) blocks: HashMap<String, Vec<usize>>,
}

impl Trace {
    /// Makes paths from the root to those from the part at `place`; paths outside it stay.
    pub(crate) fn make_relative(&mut self, place: &str) {
        let relative = |path: String| match path.strip_prefix(place) {
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

/// Runs `body` and returns what layers and blocks did on this thread.
pub(crate) fn trace<R>(body: impl FnOnce() -> R) -> (R, Trace) {
    /// Restores the trace around this one, on unwinding too.
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

/// A switch between training and evaluation, in layers that work differently in each. Starts in training.
#[derive(Debug)]
pub struct TrainingMode {
    training: AtomicBool,
}

impl TrainingMode {
    /// A switch in training position.
    pub const fn new() -> TrainingMode {
        TrainingMode { training: AtomicBool::new(true) }
    }

    /// Whether the layer trains.
    pub fn is_training(&self) -> bool {
        self.training.load(Ordering::Relaxed)
    }

    /// Switches to training or to evaluation.
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
