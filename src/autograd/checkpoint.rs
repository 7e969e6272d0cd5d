//! Gradient checkpointing (Chen et al., 2016) in the engine: graphs that are recorded when the
//! backward pass needs them.
//!
//! An *outline* runs a computation as if it were recorded, but keeps nothing for the backward pass:
//! results require gradients, so that operations take the same code paths as when they are
//! recorded, and all of them carry one placeholder instead of nodes. Only the last result gets a
//! node, which can run the computation again. When a backward pass reaches this node, the *replay*
//! runs, recorded this time, on the same inputs with the random numbers of the first run, and the
//! pass continues into the recorded graph. So gradients arrive everywhere in the same order as
//! without the checkpoint, also at parameters and captured tensors, and their sums have the same
//! bits.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use super::{enable_grad, is_grad_enabled};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::tensor::guard::with_value;
use crate::tensor::meta::is_meta;
use crate::tensor::node::{BackwardFn, Node};
use crate::tensor::rng;

/// The operation name of placeholders.
const INSIDE: &str = "inside a checkpoint";

/// Tensors with history, or leaves, that a computation used, by their nodes' numbers.
type Used = HashMap<u64, Tensor>;

/// How operations are recorded on this thread.
enum Scope {
    /// Records every operation.
    Plain,
    /// Gives all results the placeholder, and collects the tensors that come from outside.
    GraphOutline { placeholder: Arc<Node>, used: Used },
    /// Records, and removes from `missing` each tensor that the outline collected and that is used
    /// again.
    Replay { missing: Used, changed: bool },
}

thread_local! {
    static SCOPE: RefCell<Scope> = const { RefCell::new(Scope::Plain) };
    static RECOMPUTING: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether this thread is repeating a forward computation for a backward pass, as
/// [`nn::checkpoint`](crate::nn::checkpoint()) does.
///
/// A layer that changes its state in the forward pass, as BatchNorm does its running estimates,
/// must not change it again during the repetition.
pub fn is_recomputing() -> bool {
    RECOMPUTING.get()
}

/// Returns whether a node stands for the results of operations inside a checkpoint that are not
/// recorded.
pub(super) fn is_placeholder(node: &Node) -> bool {
    node.op == INSIDE
}

/// Registers an operation's inputs with the scope. Returns the placeholder, the node for the
/// operation's result if there is nothing to record.
pub(super) fn register(inputs: &[&Tensor]) -> Option<Arc<Node>> {
    SCOPE.with_borrow_mut(|scope| match scope {
        Scope::Plain => None,
        Scope::GraphOutline { placeholder, used } => {
            for input in inputs {
                if let Some(node) = input.node()
                    && !is_placeholder(node)
                {
                    used.entry(node.number).or_insert_with(|| (*input).clone());
                }
            }
            Some(Arc::clone(placeholder))
        }
        Scope::Replay { missing, changed } => {
            for input in inputs {
                if let Some(node) = input.node()
                    && let Some(before) = missing.remove(&node.number)
                {
                    *changed |= !before.shares_elements(input);
                }
            }
            None
        }
    })
}

/// Runs `body` in a scope and returns the final state of the scope; restores the enclosing scope,
/// on unwinding too.
fn within<R>(scope: Scope, body: impl FnOnce() -> R) -> (R, Scope) {
    struct Restore(Option<Scope>);
    impl Drop for Restore {
        fn drop(&mut self) {
            if let Some(around) = self.0.take() {
                SCOPE.set(around);
            }
        }
    }
    let mut restore = Restore(Some(SCOPE.replace(scope)));
    let result = body();
    let scope = SCOPE.replace(restore.0.take().expect("not restored yet"));
    (result, scope)
}

fn recomputing<R>(body: impl FnOnce() -> R) -> R {
    with_value(&RECOMPUTING, true, body)
}

/// Runs `body` on the inputs without keeping what its backward pass needs: the backward pass runs
/// it again.
pub(crate) fn checkpoint(inputs: &[&Tensor], body: impl Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static) -> Result<Tensor> {
    let inputs: Vec<Tensor> = inputs.iter().map(|&input| input.clone()).collect();
    // A meta run keeps nothing anyway.
    if !is_grad_enabled() || is_meta() {
        return body(&inputs);
    }
    let generator = rng::generator();
    let placeholder = Node::new(INSIDE, vec![], None);
    let stand_in = |input: &Tensor| input.detach().with_node(input.node().map(|_| Arc::clone(&placeholder)));
    let stand_ins: Vec<Tensor> = inputs.iter().map(stand_in).collect();
    let outline = Scope::GraphOutline { placeholder: Arc::clone(&placeholder), used: Used::new() };
    let (output, scope) = within(outline, || {
        let output = body(&stand_ins)?;
        register(&[&output]);
        Ok::<_, Error>(output)
    });
    drop(stand_ins);
    let (output, Scope::GraphOutline { used, .. }) = (output?, scope) else { unreachable!("scopes nest") };
    if !output.requires_grad() {
        return Ok(output);
    }
    let output = output.detach();
    // Inside another outline, the replay of that outline runs this function again.
    let outside: Vec<&Tensor> = inputs.iter().chain(used.values()).collect();
    if let Some(node) = register(&outside) {
        return Ok(output.with_node(Some(node)));
    }
    let (shape, dtype) = (output.shape().to_vec(), output.dtype());
    let replay = move || {
        let scope = Scope::Replay { missing: used.clone(), changed: false };
        let (again, scope) = recomputing(|| {
            let run = || {
                let again = body(&inputs)?;
                register(&[&again]);
                Ok::<_, Error>(again)
            };
            within(scope, || enable_grad(|| rng::with_generator_at(&generator, run)))
        });
        let (again, Scope::Replay { missing, changed }) = (again?, scope) else { unreachable!("scopes nest") };
        if changed {
            return Err(Error::Backward("checkpoint: a parameter has changed since the forward pass, which backward has to repeat".into()));
        }
        if !missing.is_empty() || !again.requires_grad() || again.shape() != shape || again.dtype() != dtype {
            let message = format!("checkpoint: the forward pass gave {dtype} {shape:?}, its repetition {again:?}, from other parameters");
            return Err(Error::Backward(format!("{message} or by other operations: both have to do the same")));
        }
        Ok(again)
    };
    Ok(output.with_node(Some(Node::new("checkpoint", vec![], Some(BackwardFn::Replay(Box::new(replay)))))))
}
