//! Reverse-mode automatic differentiation.
//!
//! The graph is built while operations run: an operation on tensors that require gradients gives
//! its result a node, which refers to the inputs' nodes and holds a backward rule, a closure that
//! maps the result's gradient to the inputs' gradients. [`Tensor::backward`] visits the nodes from
//! the loss to the leaves in descending order of their numbers and sums the gradients that arrive
//! at each node. Rules return gradients and nothing else: summing, reducing broadcast dimensions
//! and skipping gradients that no tensor requires are done here, once for all operations. A
//! gradient that is constant along some dimensions, as that of a mean is, has size 1 there and is
//! expanded only where that is necessary.

mod backward;
mod checkpoint;
mod custom;
mod gradcheck;
pub(crate) mod gradients;
pub mod registry;

use std::cell::Cell;
use std::sync::Arc;

pub use backward::BackwardOptions;
pub(crate) use checkpoint::checkpoint;
pub use checkpoint::is_recomputing;
pub use custom::CustomOp;
pub use gradcheck::{GradCheck, gradcheck};
pub use gradients::Gradients;
use registry::Extent;

use crate::error::Result;
use crate::profiling::{hooks, record};
use crate::tensor::Tensor;
use crate::tensor::guard::with_value;
use crate::tensor::meta::{InputExtent, MOST_PLACES, NodeExtent, is_meta};
use crate::tensor::node::{BackwardFn, Node};

/// A function from the shape of an operation's output to the windows that the output's positions
/// read in each input.
type Extents<'a> = &'a dyn Fn(&[usize]) -> Vec<Option<InputExtent>>;

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(true) };
}

/// Runs `body` without recording: results carry no history, and nothing is kept for a backward
/// pass.
///
/// ```
/// use convnet::{Tensor, no_grad};
///
/// let w = Tensor::randn([3]).with_grad();
/// let y = no_grad(|| &w * 2.0);
/// assert!(!y.requires_grad());
/// ```
pub fn no_grad<R>(body: impl FnOnce() -> R) -> R {
    with_recording(false, body)
}

/// Runs `body` with recording enabled, even inside [`no_grad`].
pub fn enable_grad<R>(body: impl FnOnce() -> R) -> R {
    with_recording(true, body)
}

fn with_recording<R>(on: bool, body: impl FnOnce() -> R) -> R {
    with_value(&RECORDING, on, body)
}

/// Returns whether operations on this thread are recorded.
pub fn is_grad_enabled() -> bool {
    RECORDING.get()
}

impl Tensor {
    /// Returns a leaf with the same values that requires a gradient. [`Gradients::get`] returns the
    /// gradient for this leaf or a clone of it after [`backward`](Tensor::backward).
    ///
    /// A tensor that is not floating point cannot require a gradient: the result is then the same
    /// tensor without history.
    pub fn with_grad(&self) -> Tensor {
        if !self.dtype().is_float() {
            return self.detach();
        }
        self.detach().with_node(Some(Node::new("leaf", vec![], None)))
    }

    /// Returns whether a gradient flows through this tensor in a backward pass.
    pub fn requires_grad(&self) -> bool {
        self.node().is_some()
    }

    /// Makes backward passes keep the gradient of this tensor, which is not a leaf, so that
    /// [`Gradients::get`] returns it.
    ///
    /// Does nothing for a tensor that does not require a gradient, and for one from inside a
    /// [checkpoint](crate::nn::checkpoint()), whose graph is recorded later.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let x = Tensor::from_vec(vec![3.0f32], [1])?.with_grad();
    /// let y = x.square()?;
    /// y.retain_grad();
    /// let grads = y.mul_scalar(5.0).backward()?;
    /// assert_eq!(grads.get(&y).expect("kept").item::<f32>()?, 5.0);
    /// assert_eq!(grads.get(&x).expect("a leaf").item::<f32>()?, 30.0);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn retain_grad(&self) {
        if let Some(node) = self.node().filter(|node| !node.is_leaf() && !is_recomputing()) {
            node.retain_grad();
        }
    }

    /// Returns whether an operation on this tensor must now keep what its backward pass needs.
    pub(crate) fn is_recorded(&self) -> bool {
        self.requires_grad() && is_grad_enabled()
    }

    /// Records this result of the operation `op` on `inputs`, with its backward rule, if any input
    /// requires a gradient.
    ///
    /// The rule gets the result's gradient (of this tensor's shape) and, for each input, whether
    /// its gradient is wanted. It returns one gradient for each input: of the input's shape or, for
    /// inputs that were broadcast, of the result's; of any floating dtype; `None` for what is not
    /// wanted. A gradient that is constant along some dimensions of the input may have size 1
    /// there, if it has as many dimensions. The rule must not capture tensors with history: capture
    /// `x.detach()`.
    pub(crate) fn record<const N: usize>(
        self,
        op: &'static str,
        inputs: [&Tensor; N],
        rule: impl Fn(&Tensor, [bool; N]) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static,
    ) -> Tensor {
        self.attach(op, &inputs, None, move || borrowing(rule))
    }

    /// Records an operation that the registry lists with [`Extent::Window`]; the rest is as in
    /// [`record`](Tensor::record). `extents` maps the result's shape to the windows that the
    /// result's positions read in each input, `None` for an input that is read as a whole. It is
    /// called only in meta runs, when the output has at most [`MOST_PLACES`] positions along each
    /// side.
    pub(crate) fn record_window<const N: usize>(
        self,
        op: &'static str,
        inputs: [&Tensor; N],
        extents: impl Fn(&[usize]) -> [Option<InputExtent>; N],
        rule: impl Fn(&Tensor, [bool; N]) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static,
    ) -> Tensor {
        self.attach(op, &inputs, Some(&|output| Vec::from(extents(output))), move || borrowing(rule))
    }

    /// Records an operation with any number of inputs; the rest is as in
    /// [`record_window`](Tensor::record_window).
    pub(crate) fn record_window_many(
        self,
        op: &'static str,
        inputs: &[&Tensor],
        extents: Extents<'_>,
        rule: impl Fn(&Tensor, &[bool]) -> Result<Vec<Option<Tensor>>> + Send + Sync + 'static,
    ) -> Tensor {
        self.attach(op, inputs, Some(extents), move || {
            BackwardFn::Gradients(Box::new(move |grad: Tensor, wanted: &[bool]| rule(&grad, wanted)))
        })
    }

    /// Records an operation whose rule owns the gradient, so that it can reuse the gradient's
    /// memory; the rest is as in [`record`](Tensor::record).
    pub(crate) fn record_owning<const N: usize>(
        self,
        op: &'static str,
        inputs: [&Tensor; N],
        rule: impl Fn(Tensor, [bool; N]) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static,
    ) -> Tensor {
        self.attach(op, &inputs, None, move || owning(rule))
    }

    /// Checks the operation against the registry, then attaches a node to its result when it is
    /// recorded.
    fn attach(self, op: &'static str, inputs: &[&Tensor], extents: Option<Extents<'_>>, rule: impl FnOnce() -> BackwardFn) -> Tensor {
        let mut rule = Some(rule);
        self.attach_with(op, inputs, extents, &mut || rule.take().map(|rule| rule()))
    }

    /// Does what [`attach`](Tensor::attach) does, compiled once for all rules. Calls `rule` at most
    /// once.
    fn attach_with(
        self,
        op: &'static str,
        inputs: &[&Tensor],
        extents: Option<Extents<'_>>,
        rule: &mut dyn FnMut() -> Option<BackwardFn>,
    ) -> Tensor {
        if cfg!(debug_assertions) {
            let extent = registry::extent(op).unwrap_or_else(|| panic!("operation {op} is missing from the registry"));
            let gives = extents.is_some();
            assert_eq!(gives, extent == Extent::Window, "{op} is registered as {extent:?}, windows given: {gives}");
        }
        if hooks::is_on() {
            record::differentiable(op, inputs, &self);
        }
        let node = node_for(op, inputs, &|| node_extent(op, self.shape(), extents), rule);
        if node.is_some() { self.with_node(node) } else { self }
    }
}

fn borrowing<const N: usize>(rule: impl Fn(&Tensor, [bool; N]) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static) -> BackwardFn {
    owning(move |grad, wanted| rule(&grad, wanted))
}

fn owning<const N: usize>(rule: impl Fn(Tensor, [bool; N]) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static) -> BackwardFn {
    BackwardFn::Gradients(Box::new(move |grad: Tensor, wanted: &[bool]| {
        let wanted = wanted.try_into().expect("as many flags as inputs");
        rule(grad, wanted).map(Vec::from)
    }))
}

/// Returns the node for an operation's result; `None` if the operation is not recorded. Calls
/// `rule` at most once.
///
/// In the first pass of a checkpoint this is the checkpoint's
/// [placeholder](checkpoint::is_placeholder). In a meta run the node has no rule, since there is no
/// backward pass, but it has the operation's extent.
fn node_for(
    op: &'static str,
    inputs: &[&Tensor],
    extent: &dyn Fn() -> NodeExtent,
    rule: &mut dyn FnMut() -> Option<BackwardFn>,
) -> Option<Arc<Node>> {
    if !is_grad_enabled() || !inputs.iter().any(|input| input.requires_grad()) {
        return None;
    }
    if let Some(placeholder) = checkpoint::register(inputs) {
        return Some(placeholder);
    }
    let rule = if is_meta() { None } else { rule() };
    let edges = inputs.iter().map(|input| input.edge()).collect();
    let mut node = Node::new(op, edges, rule);
    if let Some(origin) = hooks::origin()
        && let Some(node) = Arc::get_mut(&mut node)
    {
        node.origin = Some(origin);
    }
    if is_meta()
        && let Some(node) = Arc::get_mut(&mut node)
    {
        node.extent = extent();
    }
    Some(node)
}

/// Returns the part of its inputs that an operation with an output of this shape reads, by the
/// registry. Inputs count as read as a whole when the output has too many positions to list;
/// [`receptive_field`](crate::nn::ModuleExt::receptive_field) rejects such maps.
#[cold]
fn node_extent(op: &str, output: &[usize], extents: Option<Extents<'_>>) -> NodeExtent {
    let listed = output[output.len().min(2)..].iter().all(|&size| size <= MOST_PLACES);
    match (registry::extent(op), extents) {
        (Some(Extent::Pointwise), _) => NodeExtent::Pointwise,
        (Some(Extent::Window), Some(extents)) if listed => NodeExtent::Windows(extents(output)),
        _ => NodeExtent::Global,
    }
}
