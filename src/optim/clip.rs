//! Gradient clipping.

use std::collections::HashSet;

use crate::autograd::Gradients;
use crate::autograd::gradients::{Scale, norm_of};
use crate::error::{Error, Result};
use crate::kernels::elementwise;
use crate::kernels::runtime::simd::Real;
use crate::nn::Parameter;
use crate::tensor::{DType, Tensor};

/// Scales all gradients by one factor so that their common Euclidean norm is at most `max_norm`;
/// returns the norm they had.
///
/// Computes what PyTorch's `clip_grad_norm_` with `error_if_nonfinite=False` does: the factor is
/// `min(1, max_norm / (norm + 1e-6))`. An infinite norm makes finite elements zero and infinite
/// ones NaN, a norm that is not a number makes every element NaN; check the returned norm to skip
/// such a step. Parameters without a gradient are ignored.
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
    clip_grad_norm_with(parameters, gradients, max_norm, 2.0)
}

/// Does what [`clip_grad_norm`] does with the `p`-norm of all gradients, `(Σ |g|ᵖ)^(1/p)`; `p`
/// infinite limits the greatest magnitude (the `norm_type` of PyTorch's `clip_grad_norm_`).
///
/// # Errors
/// [`Error::Argument`] when `max_norm` is negative or not a number and when `p` is not above 0.
pub fn clip_grad_norm_with(parameters: &[Parameter], gradients: &mut Gradients, max_norm: f64, p: f64) -> Result<f64> {
    check_limit("clip_grad_norm", max_norm)?;
    if p.is_nan() || p <= 0.0 {
        return Err(Error::argument("clip_grad_norm", format!("p must be above 0, or infinite, got {p}")));
    }
    let leaves = leaves(parameters)?;
    let all: Vec<&Tensor> = leaves.iter().filter_map(|leaf| gradients.get(leaf)).collect();
    let norm = if p == 2.0 { norm_of(all.into_iter())? } else { p_norm_of(&all, p)? };
    let factor = max_norm / (norm + 1e-6);
    // A factor that is not a number must be applied.
    if factor >= 1.0 {
        return Ok(norm);
    }
    for leaf in &leaves {
        gradients.map(leaf, Scale { factor })?;
    }
    Ok(norm)
}

/// Returns the `p`-norm of several tensors together, computed in f64.
fn p_norm_of(gradients: &[&Tensor], p: f64) -> Result<f64> {
    let full = gradients.iter().filter(|gradient| gradient.numel() > 0);
    let full = full.map(|gradient| gradient.to_dtype(DType::F64)).collect::<Result<Vec<Tensor>>>()?;
    let norm = |x: &Tensor, p: f64| x.norm(p, ..)?.item::<f64>();
    let mut largest = 0.0;
    for gradient in &full {
        let one = norm(gradient, f64::INFINITY)?;
        // Not `f64::max`, which loses NaN.
        largest = if one > largest || one.is_nan() { one } else { largest };
    }
    if p.is_infinite() || largest == 0.0 || !largest.is_finite() {
        return Ok(largest);
    }
    // As shares of the largest magnitude, whose powers do not overflow.
    let whole = Tensor::scalar(largest);
    let powers = full.iter().map(|gradient| Ok(norm(&gradient.div(&whole)?, p)?.powf(p)));
    Ok(largest * powers.sum::<Result<f64>>()?.powf(1.0 / p))
}

/// Limits every element of the gradients to `[-limit, limit]`, as PyTorch's `clip_grad_value_`; NaN
/// stays NaN.
///
/// # Errors
/// [`Error::Argument`] when `limit` is negative or not a number.
pub fn clip_grad_value(parameters: &[Parameter], gradients: &mut Gradients, limit: f64) -> Result<()> {
    check_limit("clip_grad_value", limit)?;
    for leaf in leaves(parameters)? {
        gradients.map(&leaf, Limit { limit })?;
    }
    Ok(())
}

fn check_limit(op: &'static str, limit: f64) -> Result<()> {
    if limit >= 0.0 {
        return Ok(());
    }
    Err(Error::argument(op, format!("the limit must be a number that is not negative, got {limit}")))
}

/// Returns each parameter's leaf, once.
fn leaves(parameters: &[Parameter]) -> Result<Vec<Tensor>> {
    let mut seen = HashSet::new();
    let mut leaves = parameters.iter().map(Parameter::leaf).collect::<Result<Vec<_>>>()?;
    leaves.retain(|leaf| leaf.node().is_some_and(|node| seen.insert(node.number)));
    Ok(leaves)
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
