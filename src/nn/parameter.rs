//! Parameters and buffers: the only mutable things in a network.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A tensor that an optimiser changes; clones share it.
///
/// The current value is handed out as a leaf, the same leaf before and after an update, so that
/// [`Gradients::get`](crate::autograd::Gradients::get) finds its gradient by `parameter.tensor()`.
#[derive(Clone)]
pub struct Parameter {
    shared: Arc<Shared>,
}

struct Shared {
    state: RwLock<State>,
    frozen: AtomicBool,
}

struct State {
    value: Tensor,
    version: u64,
}

impl Parameter {
    /// A parameter with this initial value.
    pub fn new(value: Tensor) -> Parameter {
        let state = RwLock::new(State { value: value.with_grad(), version: 0 });
        Parameter { shared: Arc::new(Shared { state, frozen: AtomicBool::new(false) }) }
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current value: a leaf that wants a gradient, or a plain tensor while the parameter is frozen.
    pub fn tensor(&self) -> Tensor {
        let value = self.state().value.clone();
        if self.is_frozen() { value.detach() } else { value }
    }

    /// The leaf under which gradients are found, frozen or not.
    pub(crate) fn leaf(&self) -> Tensor {
        self.state().value.clone()
    }

    /// The size of each dimension.
    pub fn shape(&self) -> Vec<usize> {
        self.state().value.shape().to_vec()
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.state().value.numel()
    }

    /// Replaces the value.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shape differs.
    pub fn set(&self, value: &Tensor) -> Result<()> {
        self.update(|current| {
            if current.shape() != value.shape() {
                return Err(Error::shape("parameter", format!("expected shape {:?}, got {:?}", current.shape(), value.shape())));
            }
            *current = value.clone();
            Ok(())
        })
    }

    /// Lets `change` replace the value, or overwrite it in place when nobody else holds it. The leaf stays the same.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Tensor) -> Result<()>) -> Result<()> {
        let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        let node = state.value.node().cloned();
        let result = change(&mut state.value);
        let value = std::mem::replace(&mut state.value, Tensor::scalar(0u8));
        state.value = value.with_node(node);
        state.version += 1;
        result
    }

    /// Grows with each change of the value; what was derived from the value is current while the version is the same.
    pub(crate) fn version(&self) -> u64 {
        self.state().version
    }

    /// Whether gradients are switched off for this parameter.
    pub fn is_frozen(&self) -> bool {
        self.shared.frozen.load(Ordering::Relaxed)
    }

    /// Switches gradients off or on.
    pub fn set_frozen(&self, frozen: bool) {
        self.shared.frozen.store(frozen, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Parameter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Parameter({:?})", self.state().value)
    }
}
