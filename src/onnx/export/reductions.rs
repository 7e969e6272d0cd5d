//! Reductions over dimensions, positions and sorting.

use super::call::{Call, Done, int, ints, type_number};
use crate::tensor::DType;

/// Adds a reduction over `axes`, which are an attribute before opset 18, except for sums, and then
/// an input.
pub(super) fn over(call: &mut Call<'_>, op: &'static str, x: &str, axes: &[i64], keepdim: bool) -> Done<String> {
    let keep = int("keepdims", i64::from(keepdim));
    if call.opset() >= 18 || op == "ReduceSum" {
        let axes = call.integers(axes)?;
        return Ok(call.part(op, &[x, &axes], vec![keep]));
    }
    Ok(call.part(op, &[x], vec![ints("axes", axes), keep]))
}

pub(super) fn reduce(call: &mut Call<'_>, op: &'static str) -> Done {
    let (axes, keepdim, dtype) = (call.ints("axes")?, call.int("keepdim")? != 0, call.output_dtype());
    // Sums of bytes are i64.
    let x = call.x_as(0, dtype)?;
    if axes.is_empty() {
        // ONNX would reduce over all dimensions; one element is its own sum, mean, extremum.
        return call.is(x);
    }
    let y = over(call, op, &x, &axes, keepdim)?;
    call.is(y)
}

/// The mean of squared deviations from the mean, scaled by the degrees of freedom.
pub(super) fn variance(call: &mut Call<'_>) -> Done {
    let (axes, keepdim, correction) = (call.ints("axes")?, call.int("keepdim")? != 0, call.int("correction")?);
    let (x, dtype, shapes) = (call.x(0)?, call.dtype(0)?, call.shapes(0)?);
    let [deviations, _] = centred(call, &x, &axes)?;
    let squares = call.part("Mul", &[&deviations, &deviations], vec![]);
    if axes.is_empty() {
        return Err("it has no dimensions to reduce".to_string());
    }
    let mean = over(call, "ReduceMean", &squares, &axes, keepdim)?;
    if correction == 0 {
        return call.is(mean);
    }
    let [count, other] = shapes.map(|shape| axes.iter().map(|&axis| shape[axis as usize] as f64).product::<f64>());
    if count != other {
        return Err(format!("the number of elements that it corrects by depends on the input ({count} and {other} in two runs)"));
    }
    let factor = call.scalar(count / (count - correction as f64).max(0.0), dtype)?;
    call.done("Mul", &[&mean, &factor], vec![])
}

/// Returns the deviations from the mean over `axes`, and the mean, with the dimensions kept.
pub(super) fn centred(call: &mut Call<'_>, x: &str, axes: &[i64]) -> Done<[String; 2]> {
    let mean = over(call, "ReduceMean", x, axes, true)?;
    Ok([call.part("Sub", &[x, &mean], vec![]), mean])
}

/// The greatest of each group of channels.
pub(super) fn maxout(call: &mut Call<'_>) -> Done {
    let (x, shapes, [output, _]) = (call.x(0)?, call.shapes(0)?, call.output_shapes());
    let pieces = shapes[0][1].checked_div(output[1]).unwrap_or(1);
    // [N, C, …] as [N, C / pieces, pieces, …]; 0 keeps a size.
    let split: Vec<Vec<usize>> = shapes.iter().map(|shape| [&[shape[0], output[1], pieces], &shape[2..]].concat()).collect();
    let split = call.sizes([&split[0], &split[1]])?;
    let apart = call.part("Reshape", &[&x, &split], vec![]);
    let y = over(call, "ReduceMax", &apart, &[2], false)?;
    call.is(y)
}

pub(super) fn cumulated(call: &mut Call<'_>) -> Done {
    let (dtype, axis) = (call.output_dtype(), call.int("axis")?);
    let (x, axis) = (call.x_as(0, dtype)?, call.integer(axis)?);
    call.done("CumSum", &[&x, &axis], vec![])
}

pub(super) fn position(call: &mut Call<'_>, op: &'static str) -> Done {
    let (mut x, axes, keepdim, rank) = (call.x(0)?, call.ints("axes")?, call.int("keepdim")?, call.shape(0)?.len());
    if let [axis] = axes[..] {
        return call.done(op, &[&x], vec![int("axis", axis), int("keepdims", keepdim)]);
    }
    // Over all dimensions, positions count in row-major order.
    let flat = call.integers(&[-1])?;
    x = call.part("Reshape", &[&x, &flat], vec![]);
    let place = call.part(op, &[&x], vec![int("axis", 0), int("keepdims", 0)]);
    if keepdim == 0 {
        return call.is(place);
    }
    let ones = call.integers(&vec![1; rank])?;
    call.done("Reshape", &[&place, &ones], vec![])
}

pub(super) fn sorted(call: &mut Call<'_>) -> Done {
    let (x, axis, descending) = (call.x(0)?, call.int("axis")?, call.int("descending")?);
    let size = call.shapes(0)?.map(|shape| [shape[axis as usize]]);
    let count = call.sizes([&size[0], &size[1]])?;
    let x = if call.dtype(0)? == DType::U8 { call.part("Cast", &[&x], vec![int("to", type_number(DType::I64))]) } else { x };
    let sorted = call.parts("TopK", &[&x, &count], 2, vec![int("axis", axis), int("largest", descending), int("sorted", 1)]);
    call.is(sorted[1].clone())
}
