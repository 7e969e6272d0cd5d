//! Reverse-mode automatic differentiation.
//!
//! Define-by-run: an operation on tensors that want gradients makes its result carry a node, which knows the inputs' nodes and a rule, a closure
//! from the result's gradient to the inputs' gradients. [`Tensor::backward`] walks the nodes from the loss back to the leaves in the order of
//! their numbers, adding up what arrives at each. Rules return gradients and nothing else: sums, un-broadcasting and skipping what nobody
//! wants happen here, once. A gradient that repeats, as that of a mean does, is spread out here too, and no sooner than it has to be.

mod backward;
mod checkpoint;
mod gradcheck;
pub(crate) mod gradients;
pub mod registry;

use std::cell::Cell;

pub use backward::BackwardOptions;
pub(crate) use checkpoint::checkpoint;
pub use checkpoint::is_recomputing;
pub use gradcheck::{GradCheck, gradcheck};
pub use gradients::Gradients;

use crate::error::Result;
use crate::profiling::hooks;
use crate::tensor::Tensor;
use crate::tensor::guard::with_value;
use crate::tensor::meta::{InputExtent, MOST_PLACES, is_meta};
use crate::tensor::node::{BackwardFn, Node};

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(true) };
}

/// Runs `body` without recording: results carry no history, and nothing is kept for a backward pass.
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

/// Runs `body` with recording on, inside a [`no_grad`] too.
pub fn enable_grad<R>(body: impl FnOnce() -> R) -> R {
    with_recording(true, body)
}

fn with_recording<R>(on: bool, body: impl FnOnce() -> R) -> R {
    with_value(&RECORDING, on, body)
}

/// Whether operations on this thread record.
pub fn is_grad_enabled() -> bool {
    RECORDING.get()
}

impl Tensor {
    /// A leaf with these values that wants a gradient; the result of [`backward`](Tensor::backward) is asked for it by this tensor or a clone.
    ///
    /// A tensor that is not floating point wants no gradient: it comes back as it is.
    pub fn with_grad(&self) -> Tensor {
        if !self.dtype().is_float() {
            return self.detach();
        }
        self.detach().with_node(Some(Node::new("leaf", vec![], None)))
    }

    /// Whether a gradient will flow through this tensor.
    pub fn requires_grad(&self) -> bool {
        self.node().is_some()
    }

    /// Whether an operation on this tensor, here and now, has to keep what its backward needs.
    pub(crate) fn is_recorded(&self) -> bool {
        self.requires_grad() && is_grad_enabled()
    }

    /// This result of the operation `op` on `inputs`, with its rule recorded if any input wants a gradient.
    ///
    /// The rule gets the result's gradient (of this tensor's shape) and, for each input, whether its gradient is wanted. It returns one
    /// gradient for each input: of the input's shape or, for inputs that were broadcast, of the result's; of any floating dtype; `None` for
    /// what is not wanted. One that is the same all along some dimensions of the input may have size 1 there, if it has as many dimensions.
    /// It must hold on to nothing with history: keep `x.detach()`.
    pub(crate) fn record<const N: usize>(
        self,
        op: &'static str,
        inputs: [&Tensor; N],
        rule: impl Fn(&Tensor, [bool; N]) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static,
    ) -> Tensor {
        self.record_many(op, &inputs, move |grad, wanted| {
            let wanted = wanted.try_into().expect("as many flags as inputs");
            rule(grad, wanted).map(Vec::from)
        })
    }

    /// As [`record`](Tensor::record) for a number of inputs that only the caller knows.
    pub(crate) fn record_many(
        self,
        op: &'static str,
        inputs: &[&Tensor],
        rule: impl Fn(&Tensor, &[bool]) -> Result<Vec<Option<Tensor>>> + Send + Sync + 'static,
    ) -> Tensor {
        self.attach(op, inputs, move || BackwardFn::Gradients(Box::new(move |grad, wanted| rule(&grad, wanted))))
    }

    /// As [`record`](Tensor::record), with a rule that owns the gradient, so that it can use its memory for what it returns.
    pub(crate) fn record_owning<const N: usize>(
        self,
        op: &'static str,
        inputs: [&Tensor; N],
        rule: impl Fn(Tensor, [bool; N]) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static,
    ) -> Tensor {
        self.attach(op, &inputs, move || {
            BackwardFn::Gradients(Box::new(move |grad, wanted| {
                rule(grad, wanted.try_into().expect("as many flags as inputs")).map(Vec::from)
            }))
        })
    }

    fn attach(self, op: &'static str, inputs: &[&Tensor], rule: impl FnOnce() -> BackwardFn) -> Tensor {
        debug_assert!(registry::is_registered(op), "operation {op} is missing from the registry");
        if !is_grad_enabled() || !inputs.iter().any(|input| input.requires_grad()) {
            return self;
        }
        if let Some(node) = checkpoint::meet(inputs) {
            return self.with_node(Some(node));
        }
        let edges = inputs.iter().map(|input| input.edge()).collect();
        // Nobody walks back through a meta run, so what its rules would keep is let go.
        let rule = (!is_meta()).then(rule);
        let mut y = self.with_node(Some(Node::new(op, edges, rule)));
        if let Some(origin) = hooks::origin()
            && let Some(node) = y.node_mut()
        {
            node.origin = Some(origin);
        }
        y
    }

    /// As [`with_input_extent`](Tensor::with_input_extent), where each place of the output is one of the input, so many further.
    pub(crate) fn with_input_extent_shifted(self, shift: [isize; 2]) -> Tensor {
        let size = match *self.shape() {
            [_, _, .., height, width] if self.ndim() >= 4 => [height, width],
            [_, _, width] => [1, width],
            _ => return self,
        };
        self.with_input_extent(|| InputExtent::new(size, [1.0, 1.0], |axis, at| [at + shift[axis]; 2]))
    }

    /// As [`with_input_extent`](Tensor::with_input_extent), of an operation along one dimension: if that is no dimension of the map, it stays at its place.
    pub(crate) fn with_input_extent_all_channels(self, axis: usize) -> Tensor {
        let of_map = axis > 1 && axis + 2 >= self.ndim();
        if of_map { self } else { self.with_input_extent_shifted([0, 0]) }
    }

    /// This freshly recorded result, with the places that it was computed from; asked for in a meta run only,
    /// and of maps of up to [`MOST_PLACES`] a side.
    pub(crate) fn with_input_extent(mut self, reach: impl FnOnce() -> InputExtent) -> Tensor {
        let map = &self.shape()[self.ndim().min(2)..];
        if is_meta()
            && map.iter().all(|&size| size <= MOST_PLACES)
            && let Some(node) = self.node_mut()
        {
            node.reach = Some(Box::new(reach()));
        }
        self
    }
}
