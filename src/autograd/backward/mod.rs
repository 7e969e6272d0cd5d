//! The backward pass.

use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use super::checkpoint::is_placeholder;
use super::gradients::Gradients;
use crate::error::{Error, Result};
use crate::profiling::hooks;
use crate::tensor::node::{BackwardFn, Edge, Node};
use crate::tensor::{Tensor, compute};

/// Options of [`Tensor::backward_with`].
#[derive(Clone, Debug, Default)]
pub struct BackwardOptions {
    /// The gradient to start from, of the tensor's shape. When this is `None`, the tensor must have
    /// a single element, and the pass starts from one.
    pub gradient: Option<Tensor>,
    /// Whether to keep what the operations saved, so that another pass can use the same graph.
    pub retain_graph: bool,
}

/// A node, ordered by its number, so that a heap returns the newest first.
struct Newest(Arc<Node>);

impl PartialEq for Newest {
    fn eq(&self, other: &Self) -> bool {
        self.0.number == other.0.number
    }
}
impl Eq for Newest {}
impl PartialOrd for Newest {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Newest {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.number.cmp(&other.0.number)
    }
}

impl Tensor {
    /// Computes the gradient of this one-element tensor with respect to every leaf it was computed
    /// from.
    ///
    /// The pass frees what each operation saved as soon as it has used it; a second pass over the
    /// same graph needs [`retain_graph`](BackwardOptions::retain_graph) in the first.
    ///
    /// # Errors
    /// [`Error::Backward`] when the tensor has no history, has several elements, or has a graph
    /// that an earlier pass freed.
    pub fn backward(&self) -> Result<Gradients> {
        self.backward_with(BackwardOptions::default())
    }

    /// Computes gradients as [`backward`](Tensor::backward) does, from a given gradient or keeping
    /// the graph.
    ///
    /// # Errors
    /// [`Error::Backward`] when the tensor has no history, when it has several elements and no
    /// gradient is given, when an earlier pass freed its graph, or when the gradient's shape or
    /// dtype is not this tensor's.
    pub fn backward_with(&self, options: BackwardOptions) -> Result<Gradients> {
        let root = self.node().ok_or_else(|| Error::Backward(self.why_without_history()))?;
        let start = match options.gradient {
            Some(gradient) if gradient.shape() == self.shape() && gradient.dtype() == self.dtype() => gradient.detach(),
            Some(gradient) => return Err(Error::Backward(format!("the gradient {gradient:?} does not fit {self:?}"))),
            None if self.numel() == 1 => self.try_full_like(1.0)?,
            None => return Err(Error::Backward(format!("a tensor of shape {:?} needs a gradient to start from", self.shape()))),
        };
        super::no_grad(|| BackwardPass::new(None).run(root, start, options.retain_graph))
    }

    /// Computes gradients as [`backward`](Tensor::backward) does, from `scale` in place of one, and
    /// passes the gradient of each leaf to `ready` as soon as it is complete, with the number of
    /// the leaf's node. With gradient checkpoints in the graph, all are complete at the end only.
    ///
    /// # Errors
    /// Those of [`backward_with`](Tensor::backward_with), and those of `ready`.
    pub(crate) fn backward_by_leaf(&self, scale: f64, ready: &mut dyn FnMut(u64, Tensor) -> Result<()>) -> Result<()> {
        let root = self.node().ok_or_else(|| Error::Backward(self.why_without_history()))?;
        if self.numel() != 1 {
            return Err(Error::Backward(format!("a loss has one element, got shape {:?}", self.shape())));
        }
        let start = self.try_full_like(scale)?;
        let leaves = Leaves { uses: uses_of_leaves(root), ready };
        super::no_grad(|| BackwardPass::new(Some(leaves)).run(root, start, false)).map(drop)
    }
}

impl Tensor {
    /// Returns the message of the error for a tensor without history, with the likely causes.
    fn why_without_history(&self) -> String {
        if !self.dtype().is_float() {
            return format!("expected a loss of f32 or f64, got {}; integers have no gradient", self.dtype());
        }
        let here = if super::is_grad_enabled() { "" } else { ", as here" };
        format!(
            "nothing that this tensor was computed from wants a gradient. Likely causes: all parameters are frozen (`unfreeze`); the forward \
             pass ran inside `no_grad`{here}; the tensor was detached (`detach`); it comes from integers, or from a comparison or an index, \
             which have no gradient; no leaf was made with `with_grad`"
        )
    }
}

/// The sum of the gradients that have arrived at a node so far.
///
/// It stays as small as it arrived: it has size 1 along a dimension in which it is constant, as the
/// gradient of a mean is. A gradient of the whole shape that arrives absorbs it in one pass over
/// memory. Rules and users only get gradients of the whole shape.
struct GradBuffer {
    sum: Tensor,
    shape: Arc<[usize]>,
}

impl GradBuffer {
    /// Returns the sum, expanded to the node's shape.
    fn whole(self) -> Result<Tensor> {
        compute::repeat_to(&self.sum, &self.shape)
    }
}

/// The leaves of a graph, for a pass that passes on their gradients early.
struct Leaves<'r> {
    /// How many inputs of operations each leaf still is; empty when that is not known.
    uses: HashMap<u64, usize>,
    ready: &'r mut dyn FnMut(u64, Tensor) -> Result<()>,
}

/// Counts the inputs of operations that each leaf of a graph is. Returns nothing for a graph with
/// gradient checkpoints, whose inner operations are not recorded.
fn uses_of_leaves(root: &Arc<Node>) -> HashMap<u64, usize> {
    let mut uses = HashMap::new();
    let mut seen = HashSet::from([root.number]);
    let mut stack = vec![root];
    while let Some(node) = stack.pop() {
        if matches!(*node.backward.lock().unwrap_or_else(PoisonError::into_inner), Some(BackwardFn::Replay(_))) {
            return HashMap::new();
        }
        for source in node.inputs.iter().filter_map(|input| input.node.as_ref()) {
            if source.is_leaf() {
                *uses.entry(source.number).or_insert(0) += 1;
            } else if seen.insert(source.number) {
                stack.push(source);
            }
        }
    }
    uses
}

/// The state of a backward pass: the gradients of the nodes that it has not run yet.
struct BackwardPass<'r> {
    pending: HashMap<u64, GradBuffer>,
    /// The gradients of joint nodes, one for each output.
    pending_joint: HashMap<u64, Vec<Option<Tensor>>>,
    queue: BinaryHeap<Newest>,
    leaves: Option<Leaves<'r>>,
}

impl<'r> BackwardPass<'r> {
    fn new(leaves: Option<Leaves<'r>>) -> Self {
        BackwardPass { pending: HashMap::new(), pending_joint: HashMap::new(), queue: BinaryHeap::new(), leaves }
    }

    /// Runs the backward functions of all nodes that `root` was computed from, the newest first, so
    /// that a node's gradient is complete when its turn comes. Returns the gradients of the leaves,
    /// unless they are passed on early, and of the inner tensors that retain theirs.
    fn run(mut self, root: &Arc<Node>, start: Tensor, retain_graph: bool) -> Result<Gradients> {
        let mut gradients = Gradients::default();
        self.accumulate(root, GradBuffer { shape: start.shape().into(), sum: start })?;
        while let Some(Newest(node)) = self.queue.pop() {
            if let Some(of_outputs) = self.pending_joint.remove(&node.number) {
                with_backward(&node, retain_graph, |backward| run_joint(&node, backward, &of_outputs, &mut self))?;
                continue;
            }
            let Some(mut buffer) = self.pending.remove(&node.number) else {
                if node.is_leaf() {
                    continue; // Its gradient was passed on early.
                }
                return Err(Error::Backward(format!("{} has no gradient when its turn comes", node.op)));
            };
            if is_placeholder(&node) {
                return Err(Error::Backward("a tensor from inside a checkpoint has no graph; only the checkpoint's result has one".into()));
            }
            if node.is_leaf() {
                self.finish_leaf(&node, buffer, &mut gradients)?;
                continue;
            }
            if node.retains_grad() {
                let whole = buffer.whole()?;
                gradients.insert_inner(node.number, whole.clone());
                buffer = GradBuffer { shape: whole.shape().into(), sum: whole };
            }
            with_backward(&node, retain_graph, |backward| run_node(&node, backward, buffer, &mut self))?;
        }
        Ok(gradients)
    }

    /// Passes a leaf's gradient on, or puts it among the results.
    fn finish_leaf(&mut self, leaf: &Node, buffer: GradBuffer, gradients: &mut Gradients) -> Result<()> {
        let gradient = buffer.whole()?;
        match &mut self.leaves {
            Some(leaves) => (leaves.ready)(leaf.number, gradient),
            None => {
                gradients.insert_number(leaf.number, gradient);
                Ok(())
            }
        }
    }

    /// Adds a gradient to the sum at a node.
    fn accumulate(&mut self, to: &Arc<Node>, buffer: GradBuffer) -> Result<()> {
        let buffer = match self.pending.remove(&to.number) {
            Some(GradBuffer { sum, shape }) => GradBuffer { sum: compute::accumulate(sum, buffer.sum)?, shape },
            None => {
                self.queue.push(Newest(Arc::clone(to)));
                buffer
            }
        };
        self.pending.insert(to.number, buffer);
        Ok(())
    }

    /// Notes that an operation has added its gradient to a leaf's. The last one completes the sum.
    fn count_use(&mut self, to: &Node) -> Result<()> {
        let Some(leaves) = &mut self.leaves else { return Ok(()) };
        let Some(uses) = leaves.uses.get_mut(&to.number) else { return Ok(()) };
        *uses -= 1;
        if *uses > 0 {
            return Ok(());
        }
        match self.pending.remove(&to.number) {
            Some(buffer) => (leaves.ready)(to.number, buffer.whole()?),
            None => Ok(()),
        }
    }

    /// Sets the gradient of output `index` of a joint node that has `of` outputs.
    fn accumulate_joint(&mut self, joint: &Arc<Node>, index: usize, of: usize, gradient: Tensor) {
        let queue = &mut self.queue;
        let gradients = self.pending_joint.entry(joint.number).or_insert_with(|| {
            queue.push(Newest(Arc::clone(joint)));
            vec![None; of]
        });
        gradients[index] = Some(gradient);
    }
}

/// Runs `body` with a node's backward function, which is dropped afterwards unless the graph is
/// retained.
fn with_backward(node: &Node, retain_graph: bool, body: impl FnOnce(&BackwardFn) -> Result<()>) -> Result<()> {
    let again = || Error::Backward(format!("{} has run backward before; retain_graph keeps a graph for another pass", node.op));
    let mut slot = node.backward.lock().unwrap_or_else(PoisonError::into_inner);
    let backward = slot.take().ok_or_else(again)?;
    let passed = body(&backward);
    if retain_graph {
        *slot = Some(backward);
    }
    passed
}

/// Computes the gradients of a node's inputs from the node's gradient, and accumulates them.
fn run_node(node: &Node, backward: &BackwardFn, buffer: GradBuffer, pass: &mut BackwardPass) -> Result<()> {
    let rule = match backward {
        BackwardFn::Gradients(rule) => rule,
        BackwardFn::Replay(replay) => {
            let again = replay()?;
            return again.node().map_or(Ok(()), |node| pass.accumulate(node, buffer));
        }
        &BackwardFn::Output { index, of } => {
            let joint = node.inputs[0].node.as_ref().expect("an output's input is the joint node");
            pass.accumulate_joint(joint, index, of, buffer.whole()?);
            return Ok(());
        }
        BackwardFn::Joint(_) => unreachable!("a joint node receives the gradients of its outputs only"),
    };
    let _watched = hooks::backward(node);
    let returned = rule.run(buffer.whole()?, &wanted(node))?;
    accumulate_inputs(node, returned, pass)
}

/// Computes the gradients of an operation's inputs from those of its outputs, and accumulates them.
fn run_joint(node: &Node, backward: &BackwardFn, gradients: &[Option<Tensor>], pass: &mut BackwardPass) -> Result<()> {
    let BackwardFn::Joint(rule) = backward else { unreachable!("only outputs of a joint node pass it gradients") };
    let _watched = hooks::backward(node);
    let returned = rule(gradients, &wanted(node))?;
    accumulate_inputs(node, returned, pass)
}

/// Returns, for each input of a node, whether its gradient is wanted.
fn wanted(node: &Node) -> Vec<bool> {
    node.inputs.iter().map(|input| input.node.is_some()).collect()
}

/// Adds the gradients that a rule returned to those of the inputs that require one.
fn accumulate_inputs(node: &Node, returned: Vec<Option<Tensor>>, pass: &mut BackwardPass) -> Result<()> {
    let (op, given, inputs) = (node.op, returned.len(), node.inputs.len());
    if given != inputs {
        return Err(Error::Backward(format!("{op}: backward returned {given} gradients for {inputs} inputs")));
    }
    for (index, (input, returned)) in node.inputs.iter().zip(returned).enumerate() {
        let Some(source) = &input.node else { continue };
        if let Some(returned) = returned {
            if let Some(misfit) = input.misfit(&returned) {
                return Err(Error::Backward(format!("{op}: backward returned {misfit}, for input {index}")));
            }
            pass.accumulate(source, received(returned, input)?)?;
        }
        pass.count_use(source)?;
    }
    Ok(())
}

/// Converts the gradient that a rule returned for an input to the input's dtype, and sums it over
/// broadcast dimensions.
fn received(returned: Tensor, input: &Edge) -> Result<GradBuffer> {
    Ok(GradBuffer { sum: compute::sum_to(&returned.cast(input.dtype)?, &input.shape)?, shape: Arc::clone(&input.shape) })
}

#[cfg(test)]
mod tests;
