//! The node that a tensor carries: what `autograd` made of its history, opaque to this floor.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::meta::NodeExtent;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// How a backward walk gets past a node.
pub(crate) enum BackwardFn {
    /// Maps the output's gradient to the inputs' gradients; the flags say which of them are wanted. It owns the gradient, and may overwrite it if
    /// it is the only one to hold it.
    Gradients(Box<dyn Fn(Tensor, &[bool]) -> Result<Vec<Option<Tensor>>> + Send + Sync>),
    /// Computes the output anew, recorded: its gradient belongs to the node of the one that comes back. Holds its inputs itself.
    Replay(Box<dyn Fn() -> Result<Tensor> + Send + Sync>),
}

/// An input of a recorded operation: its node, if it has one, and the shape and dtype its gradient must have.
pub(crate) struct Edge {
    pub(crate) node: Option<Arc<Node>>,
    pub(crate) shape: Arc<[usize]>,
    pub(crate) dtype: DType,
}

/// What was going on when an operation was recorded: the operation that the user called, and the path of the module that called it.
pub(crate) struct Origin {
    pub(crate) op: &'static str,
    pub(crate) path: Arc<str>,
}

/// One recorded operation, or a leaf (no inputs, no rule).
pub(crate) struct Node {
    /// Grows with creation: an operation's number is above its inputs'.
    pub(crate) number: u64,
    /// The operation's name.
    pub(crate) op: &'static str,
    pub(crate) inputs: Vec<Edge>,
    /// Gone once a backward walk has passed.
    pub(crate) rule: Mutex<Option<BackwardFn>>,
    /// Known while somebody watches operations run.
    pub(crate) origin: Option<Box<Origin>>,
    /// Known in a meta run; `Global` otherwise.
    pub(crate) extent: NodeExtent,
    leaf: bool,
}

impl Node {
    pub(crate) fn new(op: &'static str, inputs: Vec<Edge>, rule: Option<BackwardFn>) -> Arc<Node> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let leaf = rule.is_none() && inputs.is_empty();
        Arc::new(Node {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            op,
            inputs,
            rule: Mutex::new(rule),
            origin: None,
            extent: NodeExtent::Global,
            leaf,
        })
    }

    pub(crate) fn is_leaf(&self) -> bool {
        self.leaf
    }
}

thread_local! {
    /// What dropped nodes held, while an outer drop is at work.
    static DROPPED: RefCell<Option<Vec<(Vec<Edge>, Option<BackwardFn>)>>> = const { RefCell::new(None) };
}

/// A chain of nodes is dropped in a loop, however long it is: a node that goes hands what it held to the outermost drop under way.
impl Drop for Node {
    fn drop(&mut self) {
        if self.is_leaf() {
            return;
        }
        let held = (std::mem::take(&mut self.inputs), self.rule.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        let outermost = DROPPED.try_with(|dropped| match &mut *dropped.borrow_mut() {
            Some(queue) => {
                queue.push(held);
                false
            }
            none => {
                *none = Some(vec![held]);
                true
            }
        });
        if outermost != Ok(true) {
            return;
        }
        while let Some(held) = DROPPED.with_borrow_mut(|dropped| dropped.as_mut().and_then(Vec::pop)) {
            drop(held);
        }
        DROPPED.set(None);
    }
}
