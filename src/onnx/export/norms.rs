//! Normalisation, and folding it into the operation before it.

use super::call::{Call, Done, Foldable, float, int, ints};
use super::reductions::{centred, over};
use super::shapes::numbers;
use crate::ops::RunningNorm;
use crate::tensor::{MemoryFormat, Tensor, with_float};

/// Returns an optional vector for each channel, or one of a number.
fn vector(call: &mut Call<'_>, input: usize, length: usize, otherwise: f64) -> Done<String> {
    if call.has(input) {
        return call.x(input);
    }
    let dtype = call.dtype(0)?;
    let tensor = numbers(&vec![otherwise; length], &[length], dtype)?;
    Ok(call.initialiser(if otherwise == 1.0 { "ones" } else { "zeros" }, tensor))
}

pub(super) fn batch(call: &mut Call<'_>) -> Done {
    let (eps, channels) = (call.float("eps")?, call.shape(0)?[1]);
    if call.tensor_number("mean").is_none() {
        return by_batch(call, eps);
    }
    if call.emitter.fold && folded(call, eps)? {
        return Ok(());
    }
    let (x, mean, var) = (call.x(0)?, call.tensor("mean")?, call.tensor("var")?);
    let (weight, bias) = (vector(call, 1, channels, 1.0)?, vector(call, 2, channels, 0.0)?);
    call.done("BatchNormalization", &[&x, &weight, &bias, &mean, &var], vec![float("epsilon", eps)])
}

/// Normalises with the batch's own statistics, for a layer without running ones.
fn by_batch(call: &mut Call<'_>, eps: f64) -> Done {
    if call.has(3) || call.int("linear")? == 0 {
        return Err("it is fused with an activation or a sum; apply them after it".to_string());
    }
    let (x, rank, dtype) = (call.x(0)?, call.shape(0)?.len() as i64, call.dtype(0)?);
    let axes: Vec<i64> = (0..rank).filter(|&axis| axis != 1).collect();
    let [deviations, _] = centred(call, &x, &axes)?;
    let squares = call.part("Mul", &[&deviations, &deviations], vec![]);
    let var = over(call, "ReduceMean", &squares, &axes, true)?;
    let eps = call.scalar(eps, dtype)?;
    let sum = call.part("Add", &[&var, &eps], vec![]);
    let root = call.part("Sqrt", &[&sum], vec![]);
    let y = call.part("Div", &[&deviations, &root], vec![]);
    let y = affine(call, y, rank as usize)?;
    call.is(y)
}

/// Multiplies by the weight and adds the bias of each channel, where there are any.
fn affine(call: &mut Call<'_>, mut y: String, rank: usize) -> Done<String> {
    for (input, op) in [(1, "Mul"), (2, "Add")] {
        if call.has(input) {
            let (vector, mut shape) = (call.x(input)?, vec![1; rank - 1]);
            shape[0] = -1;
            let shape = call.integers(&shape)?;
            let column = call.part("Reshape", &[&vector, &shape], vec![]);
            y = call.part(op, &[&y, &column], vec![]);
        }
    }
    Ok(y)
}

/// Folds a normalisation with running statistics into the convolution or dense layer before it, if
/// nothing else reads its result. The factors are computed in f64, as those of fused inference.
fn folded(call: &mut Call<'_>, eps: f64) -> Done<bool> {
    let (input, plan) = (call.number(0)?, std::rc::Rc::clone(&call.emitter.plan));
    let Some(Foldable { node, weight, bias }) = call.emitter.foldable.get(&input).cloned() else { return Ok(false) };
    let constant = |number: Option<usize>| match number {
        Some(number) if plan.is_constant(number) => plan.first.values[number].constant.clone(),
        _ => None,
    };
    let own = |call: &Call<'_>, at: usize| if call.has(at) { call.number(at).ok() } else { None };
    let numbers = [own(call, 1), own(call, 2), call.tensor_number("mean"), call.tensor_number("var"), Some(weight), bias];
    let all = numbers.iter().all(|number| number.is_none_or(|number| plan.is_constant(number)));
    let [scale, offset, Some(mean), Some(var), Some(filter), own_bias] = numbers.map(constant) else { return Ok(false) };
    if !all || plan.readers[input] != 1 {
        return Ok(false);
    }
    let norm = RunningNorm { weight: scale, bias: offset, mean, var, eps };
    let [filter, sums] = fold_into(&norm, &filter, own_bias.as_ref()).map_err(|error| error.to_string())?;
    // The names stay those of the convolution's state-dict keys, unless something else reads them.
    let place = &call.emitter.graph.nodes[node];
    let (old, old_bias) = (place.inputs[1].clone(), place.inputs.get(2).cloned());
    let bias_name = old_bias.clone().unwrap_or_else(|| match old.strip_suffix("weight") {
        Some(prefix) => format!("{prefix}bias"),
        None => format!("{old}_bias"),
    });
    let filter = replace(call, &old, plan.readers[weight], filter);
    let sums = match bias {
        Some(bias) => replace(call, &bias_name, plan.readers[bias], sums),
        None => call.emitter.graph.initialiser(&bias_name, sums),
    };
    let place = &mut call.emitter.graph.nodes[node];
    place.inputs.truncate(1);
    place.inputs.extend([filter, sums]);
    let name = place.outputs[0].clone();
    call.is(name)?;
    // Only one normalisation may be folded into an operation.
    call.emitter.foldable.remove(&input);
    Ok(true)
}

/// Gives an initialiser that is read once other elements; otherwise makes another one.
fn replace(call: &mut Call<'_>, name: &str, readers: usize, tensor: Tensor) -> String {
    let found = call.emitter.graph.initialisers.iter_mut().find(|(known, _)| known == name);
    match found.filter(|_| readers == 1) {
        Some((_, old)) => {
            *old = tensor;
            name.to_string()
        }
        None => call.emitter.graph.initialiser(&format!("{name}_folded"), tensor),
    }
}

fn fold_into(norm: &RunningNorm, weight: &Tensor, bias: Option<&Tensor>) -> crate::Result<[Tensor; 2]> {
    let [scale, mut offset] = norm.factors()?;
    let weight = weight.to_format(MemoryFormat::RowMajor)?;
    let row = weight.numel() / scale.len().max(1);
    let mut values = weight.cast(crate::DType::F64)?.to_vec::<f64>()?;
    for (row, scale) in values.chunks_exact_mut(row.max(1)).zip(&scale) {
        row.iter_mut().for_each(|value| *value *= scale);
    }
    if let Some(bias) = bias {
        let bias = bias.cast(crate::DType::F64)?.to_vec::<f64>()?;
        offset.iter_mut().zip(bias).zip(&scale).for_each(|((offset, bias), scale)| *offset += bias * scale);
    }
    let channels = offset.len();
    with_float!(weight.dtype(), "onnx::export", T => {
        let narrowed = |values: Vec<f64>, shape: &[usize]| {
            Tensor::build(shape, MemoryFormat::RowMajor, |out: &mut [T]| out.iter_mut().zip(&values).for_each(|(out, &value)| *out = value as T))
        };
        Ok([narrowed(values, weight.shape())?, narrowed(offset, &[channels])?])
    })
}

pub(super) fn layer(call: &mut Call<'_>) -> Done {
    let (eps, dimensions, shape) = (call.float("eps")?, call.int("dimensions")?, call.shape(0)?);
    let normalised = &shape[shape.len() - dimensions as usize..];
    let (x, bias) = (call.x(0)?, call.optional(2)?);
    let weight = match call.has(1) {
        true => call.x(1)?,
        false => {
            let ones = numbers(&vec![1.0; normalised.iter().product()], normalised, call.dtype(0)?)?;
            call.initialiser("ones", ones)
        }
    };
    call.done("LayerNormalization", &[&x, &weight, &bias], vec![int("axis", -dimensions), float("epsilon", eps)])
}

/// A group is normalised as a channel of an instance normalisation.
pub(super) fn group(call: &mut Call<'_>) -> Done {
    let (eps, groups, shape) = (call.float("eps")?, call.int("groups")?, call.shape(0)?);
    let (x, channels) = (call.x(0)?, shape[1]);
    if groups as usize == channels && shape.len() > 2 {
        let (weight, bias) = (vector(call, 1, channels, 1.0)?, vector(call, 2, channels, 0.0)?);
        return call.done("InstanceNormalization", &[&x, &weight, &bias], vec![float("epsilon", eps)]);
    }
    let (apart, dtype) = (call.integers(&[0, groups, -1])?, call.dtype(0)?);
    let (ones, zeros) = (
        numbers(&vec![1.0; groups as usize], &[groups as usize], dtype)?,
        numbers(&vec![0.0; groups as usize], &[groups as usize], dtype)?,
    );
    let (ones, zeros) = (call.initialiser("ones", ones), call.initialiser("zeros", zeros));
    let split = call.part("Reshape", &[&x, &apart], vec![]);
    let normal = call.part("InstanceNormalization", &[&split, &ones, &zeros], vec![float("epsilon", eps)]);
    let whole = call.part("Shape", &[&x], vec![]);
    let y = call.part("Reshape", &[&normal, &whole], vec![]);
    let y = affine(call, y, shape.len())?;
    call.is(y)
}

/// ONNX centres a window of odd size as PyTorch does; one of even size, the other way round, so
/// that it is computed here as an average over channels.
pub(super) fn local_response(call: &mut Call<'_>) -> Done {
    let (x, dtype, channels) = (call.x(0)?, call.dtype(0)?, call.shape(0)?[1] as i64);
    let (size, alpha, beta, k) = (call.int("size")?, call.float("alpha")?, call.float("beta")?, call.float("k")?);
    if size % 2 == 1 {
        let attributes = vec![float("alpha", alpha), float("beta", beta), float("bias", k), int("size", size)];
        return call.done("LRN", &[&x], attributes);
    }
    let squares = call.part("Mul", &[&x, &x], vec![]);
    let rows = call.integers(&[0, 1, channels, -1])?;
    let rows = call.part("Reshape", &[&squares, &rows], vec![]);
    let (pads, zero) = (call.integers(&[0, 0, size / 2, 0, 0, 0, (size - 1) / 2, 0])?, call.scalar(0.0, dtype)?);
    let padded = call.part("Pad", &[&rows, &pads, &zero], vec![]);
    let means = call.part("AveragePool", &[&padded], vec![ints("kernel_shape", &[size, 1])]);
    let whole = call.part("Shape", &[&x], vec![]);
    let means = call.part("Reshape", &[&means, &whole], vec![]);
    let (alpha, k, beta) = (call.scalar(alpha, dtype)?, call.scalar(k, dtype)?, call.scalar(beta, dtype)?);
    let scaled = call.part("Mul", &[&means, &alpha], vec![]);
    let sum = call.part("Add", &[&scaled, &k], vec![]);
    let power = call.part("Pow", &[&sum, &beta], vec![]);
    call.done("Div", &[&x, &power], vec![])
}
