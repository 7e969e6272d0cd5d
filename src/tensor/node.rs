//! The node that a tensor carries: its history for `autograd`, opaque to this module.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::meta::NodeExtent;
use crate::error::Result;
use crate::tensor::shape::broadcasts_to;
use crate::tensor::{DType, Tensor};

/// The function that a backward pass runs at a node.
pub(crate) enum BackwardFn {
    /// Maps the output's gradient to the inputs' gradients; the flags say which of them are wanted.
    /// It owns the gradient, and may overwrite it when it holds the only handle.
    Gradients(Box<dyn GradientRule>),
    /// Computes the output again, recorded; the gradient goes to the node of that tensor. The
    /// closure owns its inputs.
    Replay(Box<dyn Fn() -> Result<Tensor> + Send + Sync>),
    /// Passes the gradient to the joint node, which is the only input, as the gradient of output
    /// `index` of `of`.
    Output { index: usize, of: usize },
    /// Maps the gradients of several outputs, `None` where one has none, to the inputs' gradients.
    /// Each output of the operation has a node with [`Output`](BackwardFn::Output), whose input
    /// this node is.
    Joint(JointRule),
}

/// The backward rule of an operation with several outputs.
pub(crate) type JointRule = Box<dyn Fn(&[Option<Tensor>], &[bool]) -> Result<Vec<Option<Tensor>>> + Send + Sync>;

/// The backward rule of an operation with one output; see [`BackwardFn::Gradients`]. (Behind
/// `dyn Fn` each closure would be compiled twice: such a pointer can also consume what it points
/// to.)
pub(crate) trait GradientRule: Send + Sync {
    fn run(&self, grad: Tensor, wanted: &[bool]) -> Result<Vec<Option<Tensor>>>;
}

impl<F: Fn(Tensor, &[bool]) -> Result<Vec<Option<Tensor>>> + Send + Sync> GradientRule for F {
    fn run(&self, grad: Tensor, wanted: &[bool]) -> Result<Vec<Option<Tensor>>> {
        self(grad, wanted)
    }
}

/// An input of a recorded operation: its node, if it has one, and the shape and dtype its gradient
/// must have.
pub(crate) struct Edge {
    pub(crate) node: Option<Arc<Node>>,
    pub(crate) shape: Arc<[usize]>,
    pub(crate) dtype: DType,
}

/// The context in which an operation was recorded: the operation that the user called, and the path
/// of the module that called it.
pub(crate) struct Origin {
    pub(crate) op: &'static str,
    pub(crate) path: Arc<str>,
}

/// One recorded operation, or a leaf (no inputs, no backward function).
pub(crate) struct Node {
    /// Increases with creation: an operation's number is greater than its inputs'.
    pub(crate) number: u64,
    /// The operation's name.
    pub(crate) op: &'static str,
    pub(crate) inputs: Vec<Edge>,
    /// `None` once a backward pass has used it.
    pub(crate) backward: Mutex<Option<BackwardFn>>,
    /// Set if a profile was active when the node was made.
    pub(crate) origin: Option<Box<Origin>>,
    /// Set in a meta run; `Global` otherwise.
    pub(crate) extent: NodeExtent,
    leaf: bool,
    /// Whether a backward pass keeps the gradient of this node's output.
    retains_grad: AtomicBool,
}

impl Edge {
    /// Returns the reason why a rule's gradient does not belong to this input, `None` when it does:
    /// when it has the input's shape, when the input's shape broadcasts to its shape, or when it
    /// has size 1 along dimensions in which it is constant.
    pub(crate) fn misfit(&self, gradient: &Tensor) -> Option<String> {
        if !gradient.dtype().is_float() {
            return Some(format!("a gradient of {}, expected f32 or f64", gradient.dtype()));
        }
        let (got, wanted) = (gradient.shape(), &*self.shape);
        let fits = broadcasts_to(wanted, got) || got.len() == wanted.len() && broadcasts_to(got, wanted);
        (!fits).then(|| format!("a gradient of shape {:?}, expected {:?}", gradient.shape(), self.shape))
    }
}

impl Node {
    pub(crate) fn new(op: &'static str, inputs: Vec<Edge>, backward: Option<BackwardFn>) -> Arc<Node> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let leaf = backward.is_none() && inputs.is_empty();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(Node {
            number,
            op,
            inputs,
            backward: Mutex::new(backward),
            origin: None,
            extent: NodeExtent::Global,
            leaf,
            retains_grad: AtomicBool::new(false),
        })
    }

    pub(crate) fn retain_grad(&self) {
        self.retains_grad.store(true, Ordering::Relaxed);
    }

    pub(crate) fn retains_grad(&self) -> bool {
        self.retains_grad.load(Ordering::Relaxed)
    }

    pub(crate) fn is_leaf(&self) -> bool {
        self.leaf
    }
}

thread_local! {
    /// The contents of dropped nodes, while an outer drop is in progress.
    static DROPPED: RefCell<Option<Vec<(Vec<Edge>, Option<BackwardFn>)>>> = const { RefCell::new(None) };
}

/// Drops a chain of nodes of any length in a loop: each dropped node moves its contents to the
/// queue of the outermost drop in progress.
impl Drop for Node {
    fn drop(&mut self) {
        if self.is_leaf() {
            return;
        }
        let held = (std::mem::take(&mut self.inputs), self.backward.get_mut().unwrap_or_else(PoisonError::into_inner).take());
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
