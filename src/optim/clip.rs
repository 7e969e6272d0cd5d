//! Gradient clipping.

use std::collections::HashSet;

use crate::autograd::Gradients;
use crate::error::{Error, Result};
use crate::kernels::simd::Real;
use crate::kernels::{elementwise, reduce};
use crate::nn::Parameter;
use crate::tensor::{Element, Tensor, with_float};

/// Scales all gradients by one factor so that their common Euclidean norm is at most `max_norm`; returns the norm they had.
///
/// As PyTorch's `clip_grad_norm_` with `error_if_nonfinite=False`: the factor is `min(1, max_norm / (norm + 1e-6))`. An infinite norm
/// makes finite elements zero and infinite ones NaN, a norm that is not a number makes every element NaN; check what is returned to skip
/// such a step. Parameters without a gradient count for nothing.
///
/// # Errors
/// [`Error::Argument`] when `max_norm` is negative or not a number.
///
/// ```
/// use convnet::{Tensor, nn::Parameter, optim::clip_grad_norm};
///
/// let w = Parameter::new(Tensor::from_vec(vec![3.0f32, 4.0], [2])?);
/// let mut grads = w.tensor().mul(&w.tensor())?.sum(..)?.backward()?;
/// assert_eq!(clip_grad_norm(&[w.clone()], &mut grads, 1.0)?, 10.0);
/// let clipped = grads.get(&w.tensor()).expect("w took part").to_vec::<f32>()?;
/// assert!((clipped[0] - 0.6).abs() < 1e-6);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn clip_grad_norm(parameters: &[Parameter], gradients: &mut Gradients, max_norm: f64) -> Result<f64> {
    check_limit("clip_grad_norm", max_norm)?;
    let leaves = leaves(parameters)?;
    let mut squares = 0.0;
    for gradient in leaves.iter().filter_map(|leaf| gradients.get(leaf)) {
        squares += with_float!(gradient.dtype(), "clip_grad_norm", T => sum_of_squares::<T>(gradient));
    }
    let norm = squares.sqrt();
    let factor = max_norm / (norm + 1e-6);
    // A factor that is not a number has to get through.
    if factor >= 1.0 {
        return Ok(norm);
    }
    for leaf in &leaves {
        change(gradients, leaf, Scale { factor })?;
    }
    Ok(norm)
}

/// Limits every element of the gradients to `[-limit, limit]`, as PyTorch's `clip_grad_value_`; NaN stays NaN.
///
/// # Errors
/// [`Error::Argument`] when `limit` is negative or not a number.
pub fn clip_grad_value(parameters: &[Parameter], gradients: &mut Gradients, limit: f64) -> Result<()> {
    check_limit("clip_grad_value", limit)?;
    for leaf in leaves(parameters)? {
        change(gradients, &leaf, Limit { limit })?;
    }
    Ok(())
}

fn check_limit(op: &'static str, limit: f64) -> Result<()> {
    if limit >= 0.0 {
        return Ok(());
    }
    Err(Error::argument(op, format!("the limit must not be negative, got {limit}")))
}

/// Each parameter's leaf, once.
fn leaves(parameters: &[Parameter]) -> Result<Vec<Tensor>> {
    let mut seen = HashSet::new();
    let mut leaves = parameters.iter().map(Parameter::leaf).collect::<Result<Vec<_>>>()?;
    leaves.retain(|leaf| leaf.node().is_some_and(|node| seen.insert(node.number)));
    Ok(leaves)
}

/// In f64 and a fixed order, so that f32 squares cannot overflow and the number of threads does not matter.
fn sum_of_squares<T: Element + Into<f64>>(x: &Tensor) -> f64 {
    let add = |sum: f64, x: T| {
        let x: f64 = x.into();
        sum + x * x
    };
    let mut sum = [0.0];
    reduce::reduce([1, x.numel(), 1], x.data::<T>(), &mut sum, 0.0, add, |a, b| a + b);
    sum[0]
}

#[derive(Clone, Copy)]
struct Scale {
    factor: f64,
}

impl elementwise::Unary for Scale {
    #[inline(always)]
    fn apply<T: Real>(self, x: T) -> T {
        x * T::of(self.factor)
    }
}

#[derive(Clone, Copy)]
struct Limit {
    limit: f64,
}

impl elementwise::Unary for Limit {
    #[inline(always)]
    fn apply<T: Real>(self, x: T) -> T {
        let limit = T::of(self.limit);
        if x > limit {
            limit
        } else if x < -limit {
            -limit
        } else {
            x
        }
    }
}

/// Maps a leaf's gradient, in place when nobody else holds it.
fn change<F: elementwise::Unary>(gradients: &mut Gradients, leaf: &Tensor, f: F) -> Result<()> {
    fn run<T: Element + Real, F: elementwise::Unary>(mut gradient: Tensor, f: F) -> Result<Tensor> {
        if let Some(data) = gradient.data_mut::<T>() {
            elementwise::map_in_place(data, F::COST, |x| f.apply(x));
            return Ok(gradient);
        }
        Tensor::build(gradient.shape(), gradient.memory_format(), |out: &mut [T]| {
            elementwise::map(gradient.data(), out, F::COST, |x: T| f.apply(x));
        })
    }
    gradients.get(leaf).map_or(Ok(()), |gradient| gradient.expect_float("clip"))?;
    let Some(gradient) = gradients.remove(leaf) else { return Ok(()) };
    let changed = with_float!(gradient.dtype(), "clip", T => run::<T, F>(gradient, f)?);
    gradients.insert(leaf, changed);
    Ok(())
}
