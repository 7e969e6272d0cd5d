//! Gradient checkpointing: saves memory in training at the cost of a second forward pass (Chen, Xu,
//! Zhang & Guestrin, *Training Deep Nets with Sublinear Memory Cost*, 2016).
//!
//! A checkpointed part of a network keeps only its inputs for the backward pass, which runs the
//! part again when it needs the intermediate values. The results are equal to those without
//! checkpoints, bit for bit: dropout draws the same numbers again, running estimates of BatchNorm
//! are updated once per batch, convolutions use the same [algorithm](crate::with_algorithm), and
//! gradients are added up in the same order.

use std::sync::Arc;

use crate::autograd;
use crate::error::Result;
use crate::nn::module::visitor::Visitor;
use crate::nn::module::{Copier, Module, Parts, PartsMut};
use crate::ops::{algorithm, with_algorithm};
use crate::profiling::watch;
use crate::tensor::Tensor;

/// Computes `body(inputs)`, and computes it again in the backward pass instead of keeping
/// intermediate values.
///
/// Gradients reach the inputs, and all parameters and other tensors that `body` uses. Under
/// [`no_grad`](crate::no_grad) this is a plain call. Checkpoints may be nested.
///
/// The second run must do the same as the first: between the two, parameters keep their values and
/// layers their mode. A layer that changes its own state during `forward` has to check
/// [`is_recomputing`](autograd::is_recomputing). Tensors that leave `body` other than as its result
/// have no graph.
///
/// ```
/// use convnet::{Tensor, nn};
///
/// let w = Tensor::ones([2]).with_grad();
/// let x = Tensor::from_vec(vec![1f32, 2.0], [2])?.with_grad();
/// let captured = w.clone();
/// let y = nn::checkpoint(&[&x], move |inputs| inputs[0].mul(&captured)?.exp()?.mul(&captured))?;
/// let grads = y.sum(..)?.backward()?;
/// assert_eq!(grads.get(&x).expect("x took part").to_vec::<f32>()?, [1f32.exp(), 2f32.exp()]);
/// assert!(grads.get(&w).is_some());
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Those of `body`. The backward pass fails with [`Error::Backward`](crate::Error::Backward) when a
/// parameter has changed, when the second run uses other tensors or returns another shape, and when
/// it reaches a tensor that left `body` other than as its result.
pub fn checkpoint(inputs: &[&Tensor], body: impl Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static) -> Result<Tensor> {
    if watch::is_on() {
        let inputs: Vec<Tensor> = inputs.iter().map(|&input| input.clone()).collect();
        return body(&inputs);
    }
    let algorithm = algorithm();
    autograd::checkpoint(inputs, move |inputs| with_algorithm(algorithm, || body(inputs)))
}

/// A module that keeps only its input for the backward pass and no intermediate values; see
/// [`checkpoint`](checkpoint()).
///
/// State-dict keys, printing and everything else are the module's, as without the checkpoint.
///
/// ```
/// use convnet::nn::{Checkpoint, Conv2d, Module, ModuleExt, ReLU, Sequential};
///
/// let stage = || Sequential::new().push(Conv2d::new(8, 8, 3).padding(1)).push(ReLU);
/// let net = Sequential::new().push(Checkpoint::new(stage())).push(Checkpoint::new(stage()));
/// assert_eq!(net.state_dict().keys().last(), Some("1.0.bias"));
/// ```
pub struct Checkpoint<M: ?Sized> {
    module: Arc<M>,
}

impl<M: Module> Checkpoint<M> {
    /// Wraps this module.
    pub fn new(module: M) -> Checkpoint<M> {
        Checkpoint { module: Arc::new(module) }
    }
}

impl<M: ?Sized> Checkpoint<M> {
    /// Returns the module inside.
    pub fn module(&self) -> &M {
        &self.module
    }
}

/// Wraps a shared module of any type.
impl<M: Module + ?Sized> From<Arc<M>> for Checkpoint<M> {
    fn from(module: Arc<M>) -> Checkpoint<M> {
        Checkpoint { module }
    }
}

impl<M: ?Sized + 'static> Module for Checkpoint<M>
where
    Arc<M>: Module,
{
    /// # Shape
    /// Those of the module.
    ///
    /// # Errors
    /// Those of the module.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let module = Arc::clone(&self.module);
        checkpoint(&[x], move |inputs| module.forward(&inputs[0]))
    }

    fn visit(&self, v: &mut Visitor<'_>) {
        self.module.visit(v);
    }

    fn parts<'m>(&'m self, parts: &mut Parts<'m>) {
        self.module.parts(parts);
    }

    fn parts_mut<'m>(&'m mut self, parts: &mut PartsMut<'m>) {
        self.module.parts_mut(parts);
    }

    fn copy_with(&self, copier: &mut Copier) -> Result<Box<dyn Module>> {
        Ok(Box::new(Checkpoint { module: copier.field(&self.module)? }))
    }

    fn type_name(&self) -> &str {
        self.module.type_name()
    }
}
