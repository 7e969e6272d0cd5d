//! Running cases and comparing what comes out; every failure of a test is collected and reported
//! with its operation and case.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};

use convnet::autograd::BackwardOptions;
use convnet::{DType, MemoryFormat, Tensor};

use super::fixture::{Args, Case, FIXTURE, Numbers, Tensors, to_format};
use super::run::{dtype, run};

pub type Check = Result<(), Box<dyn Error>>;

/// The numbers that count as equal to PyTorch's, relative to the largest magnitude of a tensor.
fn tolerance(float: DType) -> f64 {
    // f64: what different orders of summation leave, with room. f32: the same, and inputs are exact
    // in both.
    if float == DType::F64 { 1e-10 } else { 1e-5 }
}

/// Runs `check` on every case; fails with a list of all that failed.
pub fn every_case(check: impl Fn(&Case) -> Check) {
    every(FIXTURE.cases.iter().map(|case| (case.label(), case)), check);
}

/// Runs `check` on each labelled item, panics included; fails with a list of all that failed.
pub fn every<T>(items: impl IntoIterator<Item = (String, T)>, check: impl Fn(T) -> Check) {
    let mut count = 0;
    let failures: Vec<String> = items
        .into_iter()
        .filter_map(|(label, item)| {
            count += 1;
            let message = match catch_unwind(AssertUnwindSafe(|| check(item))) {
                Ok(Ok(())) => return None,
                Ok(Err(error)) => error.to_string(),
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned();
                    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                    format!("panicked: {}", text.unwrap_or_default())
                }
            };
            Some(format!("{label}: {message}"))
        })
        .collect();
    assert!(count > 0, "there was nothing to check");
    assert!(failures.is_empty(), "{} of {count} failed\n{}", failures.len(), failures.join("\n"));
}

/// The results of an operation: its output, and a gradient for each leaf among its tensors, by
/// name.
pub struct Outcome {
    pub output: Tensor,
    pub gradients: Vec<(String, Tensor)>,
}

/// Runs an operation forward and, if `upstream` has a gradient for its output, backward.
pub fn outcome(
    op: &str,
    args: &Args,
    tensors: &Tensors,
    upstream: impl FnOnce(&Tensor) -> convnet::Result<Option<Tensor>>,
) -> Result<Outcome, Box<dyn Error>> {
    let output = run(op, args, tensors)?;
    let Some(gradient) = upstream(&output)? else { return Ok(Outcome { output, gradients: vec![] }) };
    let found = output.backward_with(BackwardOptions { gradient: Some(gradient), retain_graph: false })?;
    let mut gradients = vec![];
    for (name, leaf) in tensors.0.iter().filter(|(_, tensor)| tensor.requires_grad()) {
        let gradient = found.get(leaf).cloned().unwrap_or_else(|| leaf.zeros_like());
        if gradient.shape() != leaf.shape() || gradient.dtype() != leaf.dtype() {
            return Err(format!("the gradient of {name} is {gradient:?}, for {leaf:?}").into());
        }
        gradients.push((name.clone(), gradient));
    }
    Ok(Outcome { output, gradients })
}

/// Runs a case with its 4-D tensors in one format and the upstream gradient in the other, and
/// compares with PyTorch.
pub fn agrees_with_pytorch(case: &Case, float: DType, inputs: MemoryFormat, from_above: MemoryFormat) -> Check {
    let tensors = case.tensors(float, inputs)?;
    let stored = case.numbers("upstream");
    let found = outcome(&case.op, &case.args, &tensors, |output| {
        stored.map(|upstream| to_format(upstream.tensor(output.dtype()), from_above)).transpose()
    })?;
    let expected = case.numbers("output").ok_or("has no expected output")?;
    let wanted = if case.op == "to_dtype" { dtype(&case.args) } else { expected.dtype(float) };
    if found.output.dtype() != wanted {
        return Err(format!("the output is {}, not {wanted}", found.output.dtype()).into());
    }
    compare("the output", expected, &found.output, tolerance(float))?;
    if stored.is_some() && found.gradients.len() != case.inputs.len() {
        return Err("not every input wants a gradient".into());
    }
    for (name, gradient) in &found.gradients {
        let expected = case.numbers(&format!("grad.{name}")).ok_or_else(|| format!("has no gradient of {name}"))?;
        compare(&format!("the gradient of {name}"), expected, gradient, tolerance(float))?;
    }
    Ok(())
}

/// Whether a tensor has the expected shape and, within `tolerance` of the largest magnitude, the
/// expected values; NaN is equal to NaN.
fn compare(what: &str, expected: &Numbers, found: &Tensor, tolerance: f64) -> Check {
    if found.shape() != expected.shape {
        return Err(format!("{what} has shape {:?}, not {:?}", found.shape(), expected.shape).into());
    }
    close(what, &expected.values, &values(found)?, tolerance)
}

/// Whether values agree within `tolerance` of the largest magnitude expected; integers, truth
/// values and infinities thus exactly.
pub fn close(what: &str, expected: &[f64], found: &[f64], tolerance: f64) -> Check {
    let largest = expected.iter().filter(|v| v.is_finite()).fold(0.0f64, |largest, v| largest.max(v.abs()));
    let agree = |a: f64, b: f64| a == b || a.is_nan() && b.is_nan() || approx::abs_diff_eq!(a, b, epsilon = tolerance * largest);
    match expected.iter().zip(found).position(|(&a, &b)| !agree(a, b)) {
        None if expected.len() == found.len() => Ok(()),
        None => Err(format!("{what} has {} elements, not {}", found.len(), expected.len()).into()),
        Some(at) => {
            let wrong = expected.iter().zip(found).filter(|&(&a, &b)| !agree(a, b)).count();
            let (wanted, got) = (expected[at], found[at]);
            Err(format!("{what}: element {at} is {got}, not {wanted} ({wrong} of {} differ)", expected.len()).into())
        }
    }
}

/// The elements row by row, as f64.
pub fn values(tensor: &Tensor) -> convnet::Result<Vec<f64>> {
    Ok(match tensor.dtype() {
        DType::F64 => tensor.to_vec::<f64>()?,
        DType::F32 => tensor.to_vec::<f32>()?.into_iter().map(f64::from).collect(),
        DType::I64 => tensor.to_vec::<i64>()?.into_iter().map(|v| v as f64).collect(),
        DType::U8 => tensor.to_vec::<u8>()?.into_iter().map(f64::from).collect(),
    })
}

/// The bits of an outcome.
pub fn bits(outcome: &Outcome) -> convnet::Result<Vec<u64>> {
    let mut bits = vec![];
    for tensor in std::iter::once(&outcome.output).chain(outcome.gradients.iter().map(|(_, gradient)| gradient)) {
        bits.extend(values(tensor)?.into_iter().map(f64::to_bits));
    }
    Ok(bits)
}
