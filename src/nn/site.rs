//! Where a layer stands in its network: its path for error messages, and who watches when it runs.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A layer that does its work itself: what error messages, printing and [`summary`](super::Module::summary) say of it.
pub trait Leaf {
    /// What the layer is, as in `Conv2d 64→64, k3`.
    fn describe(&self) -> String;

    /// How many multiplications, each with its addition, take an input of this shape to this output. Zero for what the literature does not
    /// count: activations, normalisation, pooling.
    fn multiply_adds(&self, input: &[usize], output: &[usize]) -> u64 {
        let _ = (input, output);
        0
    }
}

/// A layer's place in a network. A leaf layer holds one and runs its forward inside [`enter`](Site::enter); it learns its path whenever a
/// walk from the root passes ([`Visitor::layer`](super::Visitor::layer)), as all of `parameters()`, `eval()`, `push` do.
///
/// ```
/// use convnet::nn::{Leaf, Module, Site, Visitor};
/// use convnet::{Result, Tensor};
///
/// struct Square {
///     site: Site,
/// }
///
/// impl Leaf for Square {
///     fn describe(&self) -> String {
///         "Square".into()
///     }
/// }
///
/// impl Module for Square {
///     fn forward(&self, x: &Tensor) -> Result<Tensor> {
///         self.site.enter(self, x, || x.mul(x))
///     }
///     fn visit(&self, v: &mut Visitor<'_>) {
///         v.layer(&self.site, self);
///     }
/// }
/// ```
pub struct Site {
    // `None` until a walk has passed.
    path: Mutex<Option<Arc<str>>>,
}

impl Site {
    /// A place whose path is not known yet.
    pub const fn new() -> Site {
        Site { path: Mutex::new(None) }
    }

    /// The path from the root, as far as a walk has told it; empty before, and for a root.
    pub fn path(&self) -> String {
        self.path.lock().unwrap_or_else(PoisonError::into_inner).as_deref().unwrap_or("").to_string()
    }

    pub(crate) fn set_path(&self, path: &str) {
        let mut current = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_deref() != Some(path) {
            *current = Some(path.into());
        }
    }

    /// Runs a layer's forward: an error that comes out says where and what the layer is, and a running summary hears of the call.
    ///
    /// # Errors
    /// What `body` returns, inside an [`Error::Layer`] unless it is one already.
    pub fn enter<L: Leaf + ?Sized>(&self, layer: &L, x: &Tensor, body: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        let result = body();
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
        let y = result.map_err(|error| self.locate(error, describe()))?;
        TRACE.with_borrow_mut(|calls| {
            if let Some(calls) = calls {
                calls.push(Call {
                    path: self.path(),
                    layer: describe(),
                    output: y.shape().to_vec(),
                    output_bytes: y.numel() * y.dtype().size(),
                    multiply_adds: multiply_adds(x.shape(), y.shape()),
                });
            }
        });
        Ok(y)
    }

    /// Puts the place around an error that has none yet.
    pub(crate) fn locate(&self, error: Error, layer: String) -> Error {
        match error {
            located @ Error::Layer { .. } => located,
            error => Error::Layer { path: self.path(), layer, source: Box::new(error) },
        }
    }
}

impl Default for Site {
    fn default() -> Site {
        Site::new()
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

/// One call of a leaf layer.
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) layer: String,
    pub(crate) output: Vec<usize>,
    pub(crate) output_bytes: usize,
    pub(crate) multiply_adds: u64,
}

thread_local! {
    static TRACING: Cell<bool> = const { Cell::new(false) };
    static TRACE: RefCell<Option<Vec<Call>>> = const { RefCell::new(None) };
}

/// Whether somebody wants to hear of each layer.
pub(crate) fn is_tracing() -> bool {
    TRACING.get()
}

/// Runs `body` and returns the calls of leaf layers on this thread, in order.
pub(crate) fn trace<R>(body: impl FnOnce() -> R) -> (R, Vec<Call>) {
    /// Restores the trace around this one, on unwinding too.
    struct Restore(Option<Vec<Call>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            TRACING.set(self.0.is_some());
            TRACE.set(self.0.take());
        }
    }
    let restore = Restore(TRACE.replace(Some(vec![])));
    TRACING.set(true);
    let result = body();
    let calls = TRACE.take().unwrap_or_default();
    drop(restore);
    (result, calls)
}

/// A switch between training and evaluation, in layers that work differently in each. Starts in training.
#[derive(Debug)]
pub struct Mode {
    training: AtomicBool,
}

impl Mode {
    /// A switch in training position.
    pub const fn new() -> Mode {
        Mode { training: AtomicBool::new(true) }
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

impl Default for Mode {
    fn default() -> Mode {
        Mode::new()
    }
}
