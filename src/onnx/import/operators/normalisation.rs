//! Normalisations.

use super::Operator::General;
use super::Table;
use super::elementwise::sizes;
use crate::error::Result;
use crate::onnx::element::{ElementType, Value};
use crate::onnx::import::node::Call;
use crate::tensor::Tensor;

pub(super) const TABLE: Table = &[
    ("BatchNormalization", General(batch)),
    ("InstanceNormalization", General(instance)),
    ("GroupNormalization", General(group)),
    ("LayerNormalization", General(layer)),
    ("RMSNormalization", General(root_mean_square)),
    ("MeanVarianceNormalization", General(mean_variance)),
    ("LRN", General(local_response)),
    ("LpNormalization", General(lp)),
];

fn batch(call: &Call<'_>) -> Result<Vec<Value>> {
    let node = call.node;
    let [x, scale, bias, mean, var] = [call.tensor(0)?, call.tensor(1)?, call.tensor(2)?, call.tensor(3)?, call.tensor(4)?];
    let eps = node.float("epsilon", 1e-5)?;
    if !node.flag("training_mode", false)? {
        return call.like_first(x.batch_norm(Some((mean, var)), Some(scale), Some(bias), eps)?);
    }
    let momentum = node.float("momentum", 0.9)?;
    let batch = x.batch_norm_train(Some(scale), Some(bias), eps)?;
    let followed = |running: &Tensor, new: &Tensor| running.mul_scalar(momentum).add(&new.mul_scalar(1.0 - momentum));
    let element = call.value(0)?.element;
    Ok(vec![
        Value::of(batch.output, element)?,
        Value::of(followed(mean, &batch.mean)?, element)?,
        Value::of(followed(var, &batch.var)?, element)?,
    ])
}

fn instance(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let channels = x.shape().get(1).copied().unwrap_or(0);
    call.like_first(x.group_norm(channels, call.optional_tensor(1), call.optional_tensor(2), call.node.float("epsilon", 1e-5)?)?)
}

fn group(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let channels = x.shape().get(1).copied().unwrap_or(0);
    let groups = usize::try_from(call.node.int("num_groups", 0)?).unwrap_or(0);
    // Before version 21 scale and bias are those of groups.
    let of_channels = |parameter: &Tensor| match call.node.version < 21 && groups > 0 && parameter.numel() == groups {
        true => parameter.reshape([groups as i64, 1])?.expand([groups, channels / groups])?.reshape([-1i64]),
        false => Ok(parameter.clone()),
    };
    let (scale, bias) = (of_channels(call.tensor(1)?)?, of_channels(call.tensor(2)?)?);
    call.like_first(x.group_norm(groups, Some(&scale), Some(&bias), call.node.float("epsilon", 1e-5)?)?)
}

fn layer(call: &Call<'_>) -> Result<Vec<Value>> {
    let (x, eps) = (call.tensor(0)?, call.node.float("epsilon", 1e-5)?);
    let axis = call.axis(call.node.int("axis", -1)?, x.ndim())?;
    let shape = &x.shape()[axis..];
    let whole = |parameter: Option<&Tensor>| parameter.map(|parameter| parameter.expand(shape)).transpose();
    let (scale, bias) = (whole(call.optional_tensor(1))?, whole(call.optional_tensor(2))?);
    let mut values = call.like_first(x.layer_norm(shape, scale.as_ref(), bias.as_ref(), eps)?)?;
    if call.wants(1) || call.wants(2) {
        let axes: Vec<i64> = (axis as i64..x.ndim() as i64).collect();
        let mean = x.mean_keepdim(axes.as_slice())?;
        let deviation = x.var_with(axes.as_slice(), 0, true)?.add_scalar(eps).sqrt()?.recip()?;
        values.extend([Value::of(mean, ElementType::Float32)?, Value::of(deviation, ElementType::Float32)?]);
    }
    Ok(values)
}

/// Divides by the root of the mean square over an axis and those after it, and multiplies by a
/// scale.
fn root_mean_square(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let axis = call.axis(call.node.int("axis", -1)?, x.ndim())?;
    let axes: Vec<i64> = (axis as i64..x.ndim() as i64).collect();
    let mean = x.square()?.mean_keepdim(axes.as_slice())?;
    let factor = mean.add_scalar(call.node.float("epsilon", 1e-5)?).rsqrt()?;
    call.like_first(x.mul(&factor)?.mul(call.tensor(1)?)?)
}

/// Subtracts the mean over dimensions and divides by the standard deviation, plus 10⁻⁹.
fn mean_variance(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let axes = call.axes(call.node.ints("axes")?.unwrap_or(&[0, 2, 3]), x.ndim())?;
    let axes: Vec<i64> = axes.into_iter().map(|axis| axis as i64).collect();
    let deviation = x.var_with(axes.as_slice(), 0, true)?.sqrt()?.add_scalar(1e-9);
    call.like_first(x.sub(&x.mean_keepdim(axes.as_slice())?)?.div(&deviation)?)
}

fn local_response(call: &Call<'_>) -> Result<Vec<Value>> {
    let node = call.node;
    let size = usize::try_from(node.int("size", 0)?).unwrap_or(0);
    let (alpha, beta, bias) = (node.float("alpha", 1e-4)?, node.float("beta", 0.75)?, node.float("bias", 1.0)?);
    let x = call.tensor(0)?;
    if size % 2 == 1 || x.ndim() < 2 {
        return call.like_first(x.local_response_norm(size, alpha, beta, bias)?);
    }
    // A window of even size reaches farther to later channels, in PyTorch to earlier ones.
    call.like_first(x.flip(1)?.local_response_norm(size, alpha, beta, bias)?.flip(1)?)
}

fn lp(call: &Call<'_>) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let axis = call.axis(call.node.int("axis", -1)?, x.ndim())? as i64;
    let norm = match call.node.int("p", 2)? {
        1 => x.abs().sum_keepdim(axis)?,
        2 => x.square()?.sum_keepdim(axis)?.sqrt()?,
        p => return Err(call.node.error(format!("p {p} is not supported; 1 and 2 are"))),
    };
    let safe = norm.eq_scalar(0.0)?.where_(&Tensor::full([], 1.0, norm.dtype()), &norm)?;
    call.like_first(x.div(&safe)?.reshape(sizes(x))?)
}
