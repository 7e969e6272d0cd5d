//! Operations that move elements or change the shape.

use super::call::{Call, Done, int, ints, text};
use crate::tensor::{DType, Tensor};

/// A reshape for any size of the dynamic dimensions: 0 keeps the input's size, -1 is computed.
pub(super) fn reshape(call: &mut Call<'_>) -> Done {
    let (x, [in_a, in_b], [out_a, out_b]) = (call.x(0)?, call.shapes(0)?, call.output_shapes());
    let kept = |axis: usize| in_a.get(axis) == Some(&out_a[axis]) && in_b.get(axis) == Some(&out_b[axis]);
    let free: Vec<usize> = (0..out_a.len()).filter(|&axis| out_a[axis] != out_b[axis] && !kept(axis)).collect();
    let has_empty = out_a.contains(&0) || out_b.contains(&0);
    if free.len() > 1 || has_empty {
        let shape = call.sizes([&out_a, &out_b])?;
        return call.done("Reshape", &[&x, &shape], vec![int("allowzero", i64::from(has_empty))]);
    }
    let size = |axis: usize| match () {
        () if free.contains(&axis) => -1,
        () if out_a[axis] != out_b[axis] => 0,
        () => out_a[axis] as i64,
    };
    let shape = call.integers(&(0..out_a.len()).map(size).collect::<Vec<_>>())?;
    call.done("Reshape", &[&x, &shape], vec![])
}

pub(super) fn expand(call: &mut Call<'_>) -> Done {
    let (x, [out_a, out_b]) = (call.x(0)?, call.output_shapes());
    let shape = call.sizes([&out_a, &out_b])?;
    call.done("Expand", &[&x, &shape], vec![])
}

pub(super) fn permute(call: &mut Call<'_>) -> Done {
    let (x, order) = (call.x(0)?, call.ints("order")?);
    call.done("Transpose", &[&x], vec![ints("perm", &order)])
}

pub(super) fn concat(call: &mut Call<'_>) -> Done {
    let (axis, dtype, rank) = (call.int("axis")?, call.output_dtype(), call.output_shapes()[0].len());
    let mut inputs = vec![];
    for input in 0..call.step().inputs.len() {
        // Empty vectors are left out, as PyTorch does.
        if call.shape(input)?.len() == rank {
            inputs.push(call.x_as(input, dtype)?);
        }
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    call.done("Concat", &inputs, vec![int("axis", axis)])
}

/// A slice; its ends count from the end where they move with the size.
pub(super) fn narrow(call: &mut Call<'_>) -> Done {
    let (x, axis, starts, lengths) = (call.x(0)?, call.int("axis")?, call.int_of_both("start")?, call.int_of_both("length")?);
    let sizes = call.shapes(0)?.map(|shape| shape[axis as usize] as i64);
    let ends = [starts[0] + lengths[0], starts[1] + lengths[1]];
    let place = |[a, b]: [i64; 2]| {
        if a == b {
            Ok(a)
        } else if [a, b] == sizes {
            Ok(i64::MAX)
        } else if a - sizes[0] == b - sizes[1] {
            Ok(a - sizes[0])
        } else {
            Err(format!("its range depends on the input: {starts:?} with lengths {lengths:?} of {sizes:?} in two runs"))
        }
    };
    let (start, end) = (place(starts)?, place(ends)?);
    let (start, end, axes) = (call.integers(&[start])?, call.integers(&[end])?, call.integers(&[axis])?);
    call.done("Slice", &[&x, &start, &end, &axes], vec![])
}

pub(super) fn flip(call: &mut Call<'_>) -> Done {
    let (x, axes) = (call.x(0)?, call.ints("axes")?);
    if axes.is_empty() {
        return call.is(x);
    }
    let (start, end) = (call.integers(&vec![-1; axes.len()])?, call.integers(&vec![i64::MIN; axes.len()])?);
    let (step, axes) = (call.integers(&vec![-1; axes.len()])?, call.integers(&axes)?);
    call.done("Slice", &[&x, &start, &end, &axes, &step], vec![])
}

pub(super) fn pad(call: &mut Call<'_>) -> Done {
    let (x, dtype, rank) = (call.x(0)?, call.dtype(0)?, call.shape(0)?.len());
    let (sides, mode, value) = (call.ints("sides")?, call.text("mode")?, call.float("value")?);
    if mode == "wrap" && call.opset() < 19 {
        return Err("circular padding needs opset 19".to_string());
    }
    // Two numbers for each dimension from the last; ONNX lists all starts, then all ends.
    let side = |axis: usize, end: usize| sides.get(2 * (rank - 1 - axis) + end).copied().unwrap_or(0);
    let pads: Vec<i64> = (0..2).flat_map(|end| (0..rank).map(move |axis| (axis, end))).map(|(axis, end)| side(axis, end)).collect();
    let pads = call.integers(&pads)?;
    let value = if mode == "constant" { call.scalar(value, dtype)? } else { String::new() };
    call.done("Pad", &[&x, &pads, &value], vec![text("mode", mode)])
}

pub(super) fn select(call: &mut Call<'_>) -> Done {
    let (x, axis) = (call.x(0)?, call.int("axis")?);
    let mut index = call.tensor("index")?;
    let number = call.tensor_number("index").unwrap_or_default();
    if call.emitter.plan.first.values[number].shape.is_empty() {
        // A single index keeps the dimension.
        let one = call.integers(&[1])?;
        index = call.part("Reshape", &[&index, &one], vec![]);
    }
    call.done("Gather", &[&x, &index], vec![int("axis", axis)])
}

pub(super) fn gather(call: &mut Call<'_>) -> Done {
    let (x, index, axis) = (call.x(0)?, call.tensor("index")?, call.int("axis")?);
    call.done("GatherElements", &[&x, &index], vec![int("axis", axis)])
}

pub(super) fn scatter(call: &mut Call<'_>, reduction: &'static str) -> Done {
    let (x, index, values, axis) = (call.x(0)?, call.tensor("index")?, call.x(1)?, call.int("axis")?);
    call.done("ScatterElements", &[&x, &index, &values], vec![int("axis", axis), text("reduction", reduction)])
}

fn map(call: &mut Call<'_>) -> Done<(String, i64)> {
    let rank = call.shape(0)?.len();
    if rank != 4 {
        return Err(format!("ONNX has it for [N, C, H, W] only, not for {rank} dimensions"));
    }
    Ok((call.x(0)?, call.int("factor")?))
}

pub(super) fn pixel_shuffle(call: &mut Call<'_>) -> Done {
    let (x, factor) = map(call)?;
    call.done("DepthToSpace", &[&x], vec![int("blocksize", factor), text("mode", "CRD")])
}

/// ONNX puts the position inside a block before the channel; a selection reorders the channels.
pub(super) fn pixel_unshuffle(call: &mut Call<'_>) -> Done {
    let (x, factor) = map(call)?;
    let channels = call.shape(0)?[1] as i64;
    let blocks = call.part("SpaceToDepth", &[&x], vec![int("blocksize", factor)]);
    let square = factor * factor;
    let order: Vec<i64> = (0..channels * square).map(|at| at % square * channels + at / square).collect();
    let order = call.integers(&order)?;
    call.done("Gather", &[&blocks, &order], vec![int("axis", 1)])
}

/// Makes a tensor of f32 or f64 from numbers.
pub(super) fn numbers(values: &[f64], shape: &[usize], dtype: DType) -> Done<Tensor> {
    Tensor::from_slice(values, shape).and_then(|tensor| tensor.cast(dtype)).map_err(|error| error.to_string())
}
