//! A receiver of the outputs of layers, blocks and rectifiers while they run, for
//! [`inspect`](crate::inspect).
//!
//! A watcher belongs to one thread. While it is active, segments of
//! [`nn::checkpoint`](crate::nn::checkpoint()) run as if they were not in one, so that the outputs
//! inside have a graph, and layers run one by one, without fusion, if the watcher wants the outputs
//! of single layers. Without a watcher, a layer, a block or a rectifier costs one or two
//! thread-local checks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::error::Result;
use crate::tensor::Tensor;
use crate::tensor::meta::is_meta;

/// Receives what a network computes.
pub(crate) trait Watcher {
    /// Receives the output of the layer or block at this path, after those of the layers inside.
    /// The returned tensor takes its place; an error ends the forward pass.
    fn output(&self, path: &str, output: Tensor) -> Result<Tensor>;

    /// Returns whether each layer has to run by itself. Otherwise only outputs of blocks are
    /// reliable.
    fn splits(&self) -> bool;

    /// Receives the result of a rectifier that ran in the layer or block at this path.
    fn rectified(&self, path: &str, output: &Tensor) {
        let _ = (path, output);
    }
}

struct State {
    watcher: Rc<dyn Watcher>,
    /// The paths of the running layers and blocks, the innermost last.
    open: Vec<String>,
}

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static SPLITS: Cell<bool> = const { Cell::new(false) };
    static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
}

/// Returns whether a watcher is active on this thread and values are computed.
#[inline]
pub(crate) fn is_on() -> bool {
    ON.get() && !is_meta()
}

/// Returns whether a watcher wants the outputs of single layers.
#[inline]
pub(crate) fn splits() -> bool {
    SPLITS.get()
}

/// Runs `body` with this watcher on this thread, in place of an enclosing one.
pub(crate) fn watch<R>(watcher: Rc<dyn Watcher>, body: impl FnOnce() -> R) -> R {
    /// Restores the enclosing watcher, on unwinding too.
    struct Restore(Option<State>);
    impl Drop for Restore {
        fn drop(&mut self) {
            install(self.0.take());
        }
    }
    let _restore = Restore(install(Some(State { watcher, open: vec![] })));
    body()
}

/// Sets the watcher of this thread and returns the one before.
fn install(state: Option<State>) -> Option<State> {
    ON.set(state.is_some());
    SPLITS.set(state.as_ref().is_some_and(|state| state.watcher.splits()));
    STATE.replace(state)
}

/// A running layer or block, until it is dropped.
pub(crate) struct Open(());

impl Drop for Open {
    fn drop(&mut self) {
        STATE.with_borrow_mut(|state| state.as_mut().map(|state| state.open.pop()));
    }
}

/// Starts the layer or block at this path, unless it is already the innermost one: a parent may
/// have started it for the child, and then reports its output.
pub(crate) fn open(path: &str) -> Option<Open> {
    STATE.with_borrow_mut(|state| {
        let open = &mut state.as_mut()?.open;
        if open.last().is_some_and(|innermost| innermost == path) {
            return None;
        }
        open.push(path.to_string());
        Some(Open(()))
    })
}

/// Ends a layer or block with this output, and returns the tensor that takes its place.
pub(crate) fn close(opened: Open, output: Tensor) -> Result<Tensor> {
    let ended = STATE.with_borrow(|state| state.as_ref().map(|state| (Rc::clone(&state.watcher), state.open.last().cloned())));
    drop(opened);
    match ended {
        Some((watcher, Some(path))) => watcher.output(&path, output),
        _ => Ok(output),
    }
}

/// Reports the result of a rectifier.
#[inline]
pub(crate) fn rectified(output: &Tensor) {
    if is_on() {
        let innermost = STATE.with_borrow(|state| state.as_ref().map(|state| (Rc::clone(&state.watcher), state.open.last().cloned())));
        if let Some((watcher, path)) = innermost {
            watcher.rectified(path.as_deref().unwrap_or(""), output);
        }
    }
}
