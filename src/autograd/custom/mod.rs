//! Operations that users define.

use std::sync::Arc;

use super::{checkpoint, no_grad, node_for, owning};
use crate::error::{Error, Result};
use crate::profiling::hooks;
use crate::tensor::Tensor;
use crate::tensor::meta::{NodeExtent, is_meta};
use crate::tensor::node::{BackwardFn, Edge, Node};
use crate::tensor::shape::broadcasts_to;

/// A differentiable operation whose forward and backward pass the user defines.
///
/// [`apply`](CustomOp::apply) runs the forward pass and, when an input requires a gradient, records
/// the backward pass that it returns, as the crate's own operations do. The forward pass gets the
/// inputs without history and records nothing. The backward pass is a closure: what it captures is
/// kept until a backward pass has used it, and dropped at once when nothing is recorded. It records
/// nothing either, so gradients of gradients are not available.
///
/// Only the tensors in `inputs` get gradients: pass each tensor that needs one there, parameters
/// included, instead of capturing it.
///
/// [`profile`](crate::profile()) shows the operation under its name;
/// [`gradcheck`](super::gradcheck) checks it:
///
/// ```
/// use convnet::autograd::{CustomOp, gradcheck};
/// use convnet::{DType, Result, Tensor};
///
/// /// `x · sigmoid(β·x)` for a learned `β` of shape `[1]` (Ramachandran et al., 2017).
/// fn swish(x: &Tensor, beta: &Tensor) -> Result<Tensor> {
///     CustomOp::new("swish").pointwise().apply([x, beta], |[x, beta]| {
///         let gate = x.mul(&beta)?.sigmoid()?;
///         let y = x.mul(&gate)?;
///         Ok((y, move |grad: &Tensor, wanted: [bool; 2]| {
///             let slope = gate.mul(&gate.neg().add_scalar(1.0))?;
///             // dy/dx = σ + β·x·σ' and dy/dβ = x²·σ'; the engine sums over broadcast dimensions.
///             let dx = gate.add(&beta.mul(&x)?.mul(&slope)?)?;
///             let of_x = wanted[0].then(|| grad.mul(&dx)).transpose()?;
///             let of_beta = wanted[1].then(|| grad.mul(&x.square()?.mul(&slope)?)).transpose()?;
///             Ok([of_x, of_beta])
///         }))
///     })
/// }
///
/// let x = Tensor::from_vec(vec![0.3f64, -1.2, 2.0], [3])?;
/// let beta = Tensor::from_vec(vec![1.5f64], [1])?;
/// gradcheck(&[x, beta], Default::default(), |inputs| swish(&inputs[0], &inputs[1]))?;
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CustomOp {
    name: &'static str,
    pointwise: bool,
}

impl CustomOp {
    /// Makes an operation that errors and profiles call `name`.
    pub const fn new(name: &'static str) -> CustomOp {
        CustomOp { name, pointwise: false }
    }

    /// Declares that each position of an output depends only on the same position of the inputs
    /// ([`Extent::Pointwise`](super::registry::Extent::Pointwise)). Without this,
    /// [`receptive_field`](crate::nn::ModuleExt::receptive_field) assumes that the operation reads
    /// its inputs as a whole.
    pub const fn pointwise(self) -> CustomOp {
        CustomOp { pointwise: true, ..self }
    }

    /// Runs an operation with one output.
    ///
    /// `forward` gets the inputs without history and returns the output and the backward pass. The
    /// backward pass gets the output's gradient, of the output's shape, and for each input a flag,
    /// whether its gradient is wanted; it returns a gradient for each input, `None` for one that is
    /// not wanted or is zero. A gradient has the input's shape, or a shape to which the input's
    /// shape broadcasts: the engine then sums over the broadcast dimensions. Its dtype is any
    /// floating-point one.
    ///
    /// An output that is not floating point has no gradient.
    ///
    /// # Errors
    /// Returns the errors of `forward`. The backward pass returns those of the closure, and
    /// [`Error::Backward`] when a gradient does not have such a shape or dtype.
    pub fn apply<const N: usize, B>(self, inputs: [&Tensor; N], forward: impl FnOnce([Tensor; N]) -> Result<(Tensor, B)>) -> Result<Tensor>
    where
        B: Fn(&Tensor, [bool; N]) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static,
    {
        let op = hooks::operation(self.name);
        let (y, backward) = no_grad(|| forward(inputs.map(Tensor::detach)))?;
        let y = y.detach();
        op.custom_result(&inputs, &[&y]);
        if !y.dtype().is_float() {
            return Ok(y);
        }
        let mut backward = Some(backward);
        let node = node_for(self.name, &inputs, &|| self.extent(), &mut || {
            let (backward, shapes) = (backward.take()?, inputs.map(|input| input.shape().to_vec()));
            Some(owning(move |grad: Tensor, wanted| {
                let gradients = backward(&grad, wanted)?;
                self.check(&gradients, &shapes)?;
                Ok(gradients)
            }))
        });
        Ok(y.with_node(node))
    }

    /// Runs an operation with any number of inputs and of outputs.
    ///
    /// This works as [`apply`](CustomOp::apply), except that the backward pass gets a gradient for
    /// each output: `None` where the result of the backward pass does not depend on it. It runs
    /// once, when the gradients of all outputs are complete.
    ///
    /// ```
    /// use convnet::autograd::{CustomOp, gradcheck};
    /// use convnet::{Result, Tensor};
    ///
    /// /// The sum and the difference of two tensors of one shape.
    /// fn butterfly(a: &Tensor, b: &Tensor) -> Result<Vec<Tensor>> {
    ///     CustomOp::new("butterfly").apply_many(&[a, b], |x| {
    ///         let shape = x[0].shape().to_vec();
    ///         let backward = move |grads: &[Option<Tensor>], _wanted: &[bool]| {
    ///             let zeros = || Tensor::zeros(&shape);
    ///             let sum = grads[0].clone().unwrap_or_else(zeros);
    ///             let difference = grads[1].clone().unwrap_or_else(zeros);
    ///             Ok(vec![Some(sum.add(&difference)?), Some(sum.sub(&difference)?)])
    ///         };
    ///         Ok((vec![x[0].add(&x[1])?, x[0].sub(&x[1])?], backward))
    ///     })
    /// }
    ///
    /// let inputs = [Tensor::from_vec(vec![0.3f64, -1.2], [2])?, Tensor::from_vec(vec![0.7f64, 0.1], [2])?];
    /// gradcheck(&inputs, Default::default(), |x| {
    ///     let outputs = butterfly(&x[0], &x[1])?;
    ///     outputs[0].mul(&outputs[1])
    /// })?;
    /// # Ok::<(), convnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns the errors of `forward`. The backward pass returns those of the closure, and
    /// [`Error::Backward`] when a gradient does not fit its input or when the closure returns
    /// another number of gradients than there are inputs.
    pub fn apply_many<B>(self, inputs: &[&Tensor], forward: impl FnOnce(&[Tensor]) -> Result<(Vec<Tensor>, B)>) -> Result<Vec<Tensor>>
    where
        B: Fn(&[Option<Tensor>], &[bool]) -> Result<Vec<Option<Tensor>>> + Send + Sync + 'static,
    {
        let op = hooks::operation(self.name);
        let plain: Vec<Tensor> = inputs.iter().map(|input| input.detach()).collect();
        let (outputs, backward) = no_grad(|| forward(&plain))?;
        op.custom_result(inputs, &outputs.iter().collect::<Vec<_>>());
        let mut backward = Some(backward);
        let joint = node_for(self.name, inputs, &|| self.extent(), &mut || {
            let shapes: Vec<Vec<usize>> = inputs.iter().map(|input| input.shape().to_vec()).collect();
            let backward = backward.take()?;
            Some(BackwardFn::Joint(Box::new(move |grads, wanted| {
                let gradients = backward(grads, wanted)?;
                self.check(&gradients, &shapes)?;
                Ok(gradients)
            })))
        });
        let of = outputs.len();
        let with_node = |(index, y): (usize, Tensor)| {
            let y = y.detach();
            let Some(joint) = joint.as_ref().filter(|_| y.dtype().is_float()) else { return y };
            if checkpoint::is_placeholder(joint) {
                return y.with_node(Some(Arc::clone(joint)));
            }
            let edge = Edge { node: Some(Arc::clone(joint)), ..y.edge() };
            let mut node = Node::new(self.name, vec![edge], (!is_meta()).then_some(BackwardFn::Output { index, of }));
            if let Some(node) = Arc::get_mut(&mut node) {
                node.extent = self.extent();
            }
            y.with_node(Some(node))
        };
        Ok(outputs.into_iter().enumerate().map(with_node).collect())
    }

    /// Checks that each gradient has its input's shape, or one to which that broadcasts. The
    /// crate's own rules may also return size 1 along dimensions in which a gradient is constant.
    fn check(self, gradients: &[Option<Tensor>], shapes: &[Vec<usize>]) -> Result<()> {
        for (index, (gradient, shape)) in gradients.iter().zip(shapes).enumerate() {
            let Some(got) = gradient.as_ref().map(Tensor::shape) else { continue };
            if !broadcasts_to(shape, got) {
                let message =
                    format!("{}: backward returned a gradient of shape {got:?}, expected {shape:?}, for input {index}", self.name);
                return Err(Error::Backward(message));
            }
        }
        Ok(())
    }

    fn extent(self) -> NodeExtent {
        if self.pointwise { NodeExtent::Pointwise } else { NodeExtent::Global }
    }
}

#[cfg(test)]
mod tests;
