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
mod tests {
    use super::*;
    use crate::autograd::{BackwardOptions, checkpoint::checkpoint, gradcheck};
    use crate::{DType, Error, profile};

    /// Returns `exp(x)`, integers, and the sum of `x²`: outputs of different shapes and types.
    fn split(x: &Tensor) -> Result<Vec<Tensor>> {
        CustomOp::new("split_test").apply_many(&[x], |x| {
            let x = x[0].clone();
            let outputs = vec![x.exp()?, Tensor::arange(2), x.square()?.sum(..)?];
            let backward = move |grads: &[Option<Tensor>], _: &[bool]| {
                assert!(grads[1].is_none(), "integers have no gradient");
                let mut sum = Tensor::try_full(x.shape(), 0.0, x.dtype())?;
                if let Some(grad) = &grads[0] {
                    sum = sum.add(&grad.mul(&x.exp()?)?)?;
                }
                if let Some(grad) = &grads[2] {
                    sum = sum.add(&grad.mul(&x.mul_scalar(2.0))?)?;
                }
                Ok(vec![Some(sum)])
            };
            Ok((outputs, backward))
        })
    }

    fn numbers() -> Tensor {
        Tensor::from_vec(vec![0.3f64, -1.2, 0.7], [3]).unwrap()
    }

    #[test]
    fn several_outputs_pass_gradients_in_any_combination() {
        type Function = fn(&[Tensor]) -> Result<Tensor>;
        let functions: [Function; 5] = [
            |x| split(&x[0])?[0].square(),
            |x| split(&x[0])?[2].square(),
            |x| {
                let y = split(&x[0])?;
                y[0].mul(&y[2])?.add(&y[0])
            },
            |x| split(&split(&x[0].mul(&x[0])?)?[0])?[2].mul(&x[0]),
            |x| checkpoint(&[&x[0]], |x| split(&x[0])?[0].mul(&split(&x[0])?[2])),
        ];
        for function in functions {
            gradcheck(&[numbers()], Default::default(), function).unwrap();
        }
        let y = split(&numbers().with_grad()).unwrap();
        assert!(y[0].requires_grad() && !y[1].requires_grad() && y[2].requires_grad());
        assert!(!crate::no_grad(|| split(&numbers().with_grad())).unwrap()[0].requires_grad());
    }

    #[test]
    fn second_pass_through_another_output_needs_retained_graph() {
        let x = numbers().with_grad();
        let y = split(&x).unwrap();
        let keep = BackwardOptions { retain_graph: true, ..Default::default() };
        let first = y[2].backward_with(keep).unwrap().get(&x).unwrap().to_vec::<f64>().unwrap();
        let second = y[2].backward().unwrap().get(&x).unwrap().to_vec::<f64>().unwrap();
        assert_eq!((&first, second), (&vec![0.6, -2.4, 1.4], first.clone()));
        assert!(y[0].sum(..).unwrap().backward().unwrap_err().to_string().contains("retain_graph"));
    }

    fn values(gradients: &crate::autograd::Gradients, tensor: &Tensor) -> Vec<f64> {
        gradients.get(tensor).expect("a kept gradient").to_vec().unwrap()
    }

    #[test]
    fn outputs_of_one_operation_keep_their_gradients_in_each_pass_over_a_retained_graph() {
        let x = numbers().with_grad();
        let y = split(&x).unwrap();
        y[0].retain_grad();
        y[2].retain_grad();
        let loss = y[0].mul_scalar(3.0).sum(..).unwrap().add(&y[2].mul_scalar(5.0)).unwrap();
        let keep = || BackwardOptions { retain_graph: true, ..Default::default() };
        let first = loss.backward_with(keep()).unwrap();
        assert_eq!((values(&first, &y[0]), values(&first, &y[2])), (vec![3.0; 3], vec![5.0]));
        // The second pass starts at one output, so that the other one takes no part in it.
        let second = y[2].backward_with(keep()).unwrap();
        assert_eq!(values(&second, &y[2]), [1.0]);
        assert!(second.get(&y[0]).is_none());
        let third = loss.backward().unwrap();
        assert_eq!((values(&third, &y[0]), values(&third, &x)), (values(&first, &y[0]), values(&first, &x)));
    }

    #[test]
    fn results_of_checkpoints_keep_their_gradients_and_tensors_inside_do_not() {
        let x = numbers().with_grad();
        let inside = Arc::new(std::sync::Mutex::new(vec![]));
        let seen = Arc::clone(&inside);
        let y = checkpoint(&[&x], move |x| {
            let y = split(&x[0])?;
            y[0].retain_grad();
            seen.lock().unwrap().push(y[0].clone());
            y[0].mul(&y[2])
        })
        .unwrap();
        y.retain_grad();
        let gradients = y.mul_scalar(2.0).sum(..).unwrap().backward().unwrap();
        assert_eq!(values(&gradients, &y), [2.0; 3]);
        assert!(gradients.get(&x).is_some());
        let inside = inside.lock().unwrap();
        assert!(!inside.is_empty() && inside.iter().all(|tensor| gradients.get(tensor).is_none()));
    }

    #[test]
    fn gradients_that_do_not_fit_inputs_are_errors() {
        let x = numbers().with_grad();
        let gives = |gradients: Vec<Option<Tensor>>| {
            let forward = |x: &[Tensor]| Ok((vec![x[0].exp()?], move |_: &[Option<Tensor>], _: &[bool]| Ok(gradients.clone())));
            CustomOp::new("wrong").apply_many(&[&x], forward).unwrap()[0].sum(..).unwrap().backward()
        };
        let message = |gradients| gives(gradients).unwrap_err().to_string();
        assert!(message(vec![]).contains("wrong: backward returned 0 gradients for 1 inputs"), "{}", message(vec![]));
        let text = message(vec![Some(Tensor::ones([2]))]);
        assert!(text.contains("wrong: backward returned a gradient of shape [2], expected [3], for input 0"), "{text}");
        let text = message(vec![Some(Tensor::ones([1]))]);
        assert!(text.contains("wrong: backward returned a gradient of shape [1], expected [3], for input 0"), "{text}");
        assert!(message(vec![Some(Tensor::arange(3))]).contains("a gradient of i64"));
        assert!(gives(vec![None]).unwrap().get(&x).is_none());
        assert!(gives(vec![Some(Tensor::ones([2, 3]))]).unwrap().get(&x).unwrap().to_vec::<f64>().unwrap() == [2.0; 3]);
    }

    #[test]
    fn captures_of_backward_are_kept_only_when_recorded() {
        let kept = |x: &Tensor| {
            let token = Arc::new(());
            let inside = Arc::clone(&token);
            let forward = |[x]: [Tensor; 1]| {
                Ok((x.exp()?, move |grad: &Tensor, _: [bool; 1]| {
                    let _inside = &inside;
                    Ok([Some(grad.clone())])
                }))
            };
            let y = CustomOp::new("token").apply([x], forward).unwrap();
            let before = Arc::strong_count(&token);
            if y.requires_grad() {
                y.sum(..).unwrap().backward().unwrap();
            }
            (before, Arc::strong_count(&token))
        };
        assert_eq!((kept(&numbers()), kept(&numbers().with_grad())), ((1, 1), (2, 1)));
    }

    #[test]
    fn profile_shows_operation_under_its_name() {
        let x = numbers().with_grad();
        let (_, profile) = profile(|| split(&x).unwrap()[0].sum(..).unwrap().backward().unwrap());
        let row = profile.get("", "split_test").unwrap();
        assert_eq!((row.forward.calls, row.backward.calls), (1, 1));
        assert!(profile.get("", "exp").is_none(), "a part of the operation");
    }

    #[test]
    fn errors_of_forward_pass_are_returned() {
        let forward = |_: [Tensor; 1]| {
            let backward = |grad: &Tensor, _: [bool; 1]| Ok([Some(grad.clone())]);
            Err::<(Tensor, _), _>(Error::value("picky", "not today")).map(|(y, ())| (y, backward))
        };
        assert!(CustomOp::new("picky").apply([&Tensor::zeros([1])], forward).unwrap_err().to_string().contains("not today"));
        assert_eq!(numbers().dtype(), DType::F64);
    }
}
