//! Convolutions, dense layers, pooling, resampling.

use super::call::{Call, Done, Foldable, float, int, ints, text};
use super::graph::Attributes;
use super::reductions::over;
use super::shapes::numbers;

/// Returns padding as ONNX lists it: all starts, then all ends.
fn both_ends(padding: &[i64]) -> Vec<i64> {
    padding.repeat(2)
}

pub(super) fn convolution(call: &mut Call<'_>) -> Done {
    let (x, weight, bias, shape) = (call.x(0)?, call.x(1)?, call.optional(2)?, call.shape(1)?);
    let kernel: Vec<i64> = shape[2..].iter().map(|&size| size as i64).collect();
    let attributes = vec![
        ints("dilations", &call.ints("dilation")?),
        int("group", call.int("groups")?),
        ints("kernel_shape", &kernel),
        ints("pads", &both_ends(&call.ints("padding")?)),
        ints("strides", &call.ints("stride")?),
    ];
    call.done("Conv", &[&x, &weight, &bias], attributes)?;
    keep_foldable(call)
}

/// Notes that a normalisation may be folded into the last node.
fn keep_foldable(call: &mut Call<'_>) -> Done {
    let bias = if call.has(2) { Some(call.number(2)?) } else { None };
    let foldable = Foldable { node: call.emitter.graph.nodes.len() - 1, weight: call.number(1)?, bias };
    let output = call.step().outputs[0];
    call.emitter.foldable.insert(output, foldable);
    Ok(())
}

pub(super) fn transposed_convolution(call: &mut Call<'_>) -> Done {
    let (x, weight, bias, shape) = (call.x(0)?, call.x(1)?, call.optional(2)?, call.shape(1)?);
    let attributes = vec![
        ints("dilations", &call.ints("dilation")?),
        int("group", call.int("groups")?),
        ints("kernel_shape", &[shape[2] as i64, shape[3] as i64]),
        ints("output_padding", &call.ints("output_padding")?),
        ints("pads", &both_ends(&call.ints("padding")?)),
        ints("strides", &call.ints("stride")?),
    ];
    call.done("ConvTranspose", &[&x, &weight, &bias], attributes)
}

pub(super) fn linear(call: &mut Call<'_>) -> Done {
    let (x, weight, bias) = (call.x(0)?, call.x(1)?, call.optional(2)?);
    if call.shape(0)?.len() == 2 {
        call.done("Gemm", &[&x, &weight, &bias], vec![int("transB", 1)])?;
        return keep_foldable(call);
    }
    let transposed = call.part("Transpose", &[&weight], vec![ints("perm", &[1, 0])]);
    let product = call.part("MatMul", &[&x, &transposed], vec![]);
    if bias.is_empty() { call.is(product) } else { call.done("Add", &[&product, &bias], vec![]) }
}

fn max_windows(call: &Call<'_>) -> Done<Attributes> {
    Ok(vec![
        int("ceil_mode", call.int("ceil_mode")?),
        ints("dilations", &call.ints("dilation")?),
        ints("kernel_shape", &call.ints("kernel")?),
        ints("pads", &both_ends(&call.ints("padding")?)),
        ints("strides", &call.ints("stride")?),
    ])
}

pub(super) fn max_pool(call: &mut Call<'_>) -> Done {
    let (x, attributes) = (call.x(0)?, max_windows(call)?);
    call.done("MaxPool", &[&x], attributes)
}

pub(super) fn max_pool_with_indices(call: &mut Call<'_>) -> Done {
    let ([a, b], x, attributes) = (call.shapes(0)?, call.x(0)?, max_windows(call)?);
    if a[2..] != b[2..] {
        return Err("positions are counted in maps of one size; export with a fixed height and width".into());
    }
    let results = call.parts("MaxPool", &[&x], 2, attributes);
    // ONNX counts positions from the beginning of the batch.
    let map = call.integer((a[2] * a[3]) as i64)?;
    let positions = call.part("Mod", &[&results[1], &map], vec![]);
    let second = call.step().outputs[1];
    call.emitter.names[second] = Some(positions);
    call.is(results[0].clone())
}

pub(super) fn average_pool(call: &mut Call<'_>) -> Done {
    let (x, padding, kernel) = (call.x(0)?, call.ints("padding")?, call.ints("kernel")?);
    let (divisor, ceil_mode) = (call.int("divisor_override")?, call.int("ceil_mode")?);
    if divisor != 0 && ceil_mode != 0 {
        return Err("ONNX averages windows beyond the padding by their own sizes, so `divisor_override` needs `ceil_mode` off".into());
    }
    let count_include_pad = if divisor == 0 { call.int("count_include_pad")? } else { 1 };
    let attributes = vec![
        int("ceil_mode", ceil_mode),
        int("count_include_pad", count_include_pad),
        ints("kernel_shape", &kernel),
        ints("pads", &both_ends(&padding)),
        ints("strides", &call.ints("stride")?),
    ];
    if divisor == 0 {
        return call.done("AveragePool", &[&x], attributes);
    }
    // ONNX divides by the kernel's size.
    let factor = numbers(&[kernel[0] as f64 * kernel[1] as f64 / divisor as f64], &[], call.dtype(0)?)?;
    let (average, factor) = (call.part("AveragePool", &[&x], attributes), call.initialiser("factor", factor));
    call.done("Mul", &[&average, &factor], vec![])
}

/// Returns the sizes of the input's and the output's map for adaptive pooling, which ONNX has for
/// one output only: with others, the windows depend on the size.
fn map_sizes(call: &mut Call<'_>) -> Done<[[usize; 2]; 2]> {
    let ([a, b], [output, _]) = (call.shapes(0)?, call.output_shapes());
    if a[2..] != b[2..] {
        return Err(format!(
            "ONNX has no adaptive pooling to {:?} of maps of any size; export with a fixed height and width",
            &output[2..]
        ));
    }
    Ok([[a[2], a[3]], [output[2], output[3]]])
}

/// Returns the windows' size where they all have one and do not overlap.
fn even([input, output]: [[usize; 2]; 2]) -> Option<[i64; 2]> {
    let size = |axis: usize| (output[axis] > 0 && input[axis] % output[axis] == 0).then(|| (input[axis] / output[axis]) as i64);
    Some([size(0)?, size(1)?])
}

/// The range that output `at` of an adaptive pooling reads.
fn share(at: usize, input: usize, output: usize) -> [usize; 2] {
    [at * input / output, ((at + 1) * input).div_ceil(output)]
}

pub(super) fn adaptive_average(call: &mut Call<'_>) -> Done {
    let (x, dtype) = (call.x(0)?, call.dtype(0)?);
    if call.ints("size")? == [1, 1] {
        return call.done("GlobalAveragePool", &[&x], vec![]);
    }
    let sizes @ [input, output] = map_sizes(call)?;
    if input == output {
        return call.is(x);
    }
    if let Some(kernel) = even(sizes) {
        return call.done("AveragePool", &[&x], vec![ints("kernel_shape", &kernel), ints("strides", &kernel)]);
    }
    // The average over each window is a product with a matrix for each axis.
    let matrix = |axis: usize| {
        let mut weights = vec![0.0; output[axis] * input[axis]];
        for at in 0..output[axis] {
            let [first, end] = share(at, input[axis], output[axis]);
            weights[at * input[axis] + first..at * input[axis] + end].fill(1.0 / (end - first) as f64);
        }
        numbers(&weights, &[output[axis], input[axis]], dtype)
    };
    let columns = matrix(1)?.transpose(0, 1).map_err(|error| error.to_string())?;
    let (rows, columns) = (call.initialiser("rows", matrix(0)?), call.initialiser("columns", columns));
    let narrow = call.part("MatMul", &[&x, &columns], vec![]);
    call.done("MatMul", &[&rows, &narrow], vec![])
}

pub(super) fn adaptive_max(call: &mut Call<'_>) -> Done {
    let mut x = call.x(0)?;
    if call.ints("size")? == [1, 1] {
        return call.done("GlobalMaxPool", &[&x], vec![]);
    }
    let sizes @ [input, output] = map_sizes(call)?;
    if input == output {
        return call.is(x);
    }
    if let Some(kernel) = even(sizes) {
        return call.done("MaxPool", &[&x], vec![ints("kernel_shape", &kernel), ints("strides", &kernel)]);
    }
    for axis in [0, 1] {
        let mut parts = vec![];
        for at in 0..output[axis] {
            let [first, end] = share(at, input[axis], output[axis]).map(|place| place as i64);
            let (start, end, axes) = (call.integers(&[first])?, call.integers(&[end])?, call.integers(&[axis as i64 + 2])?);
            let window = call.part("Slice", &[&x, &start, &end, &axes], vec![]);
            parts.push(over(call, "ReduceMax", &window, &[axis as i64 + 2], true)?);
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        x = call.part("Concat", &parts, vec![int("axis", axis as i64 + 2)]);
    }
    call.is(x)
}

/// Returns a factor as files hold it, in f32, from which every reader computes the outputs' sizes
/// of these inputs and outputs: ONNX Runtime multiplies in f32, ONNX's checker in f64, and 0.7 is a
/// little less in f32. A neighbour differs by no more than rounding.
fn stored_factor(factor: f64, sizes: [[usize; 2]; 2]) -> Option<f64> {
    let near = factor as f32;
    let fits = |factor: f32| {
        let right = |[input, output]: [usize; 2]| {
            let [narrow, wide] = [f64::from(input as f32 * factor), input as f64 * f64::from(factor)];
            narrow.floor() == output as f64 && wide.floor() == output as f64
        };
        sizes.into_iter().all(right)
    };
    [near, near.next_up(), near.next_down()].into_iter().find(|&factor| fits(factor)).map(f64::from)
}

/// A resize by the factors that the operation was given, or by those of the sizes if both
/// recordings have them; else to a fixed size, or to the size of another tensor.
pub(super) fn interpolate(call: &mut Call<'_>) -> Done {
    let (x, [in_a, in_b], [out_a, out_b]) = (call.x(0)?, call.shapes(0)?, call.output_shapes());
    let mut attributes = vec![text("coordinate_transformation_mode", call.text("coordinates")?)];
    match call.text("filter")? {
        "linear" => attributes.push(text("mode", "linear")),
        "cubic" => attributes.extend([float("cubic_coeff_a", call.float("a")?), text("mode", "cubic")]),
        rounding => attributes.extend([text("mode", "nearest"), text("nearest_mode", rounding)]),
    }
    let given = [call.float("height_factor")?, call.float("width_factor")?];
    let stored = |axis: usize, factor: f64| stored_factor(factor, [[in_a[axis], out_a[axis]], [in_b[axis], out_b[axis]]]);
    let mut factors = None;
    if given != [0.0, 0.0] {
        factors = stored(2, given[0]).zip(stored(3, given[1]));
        if factors.is_none() {
            return Err(format!("ONNX computes the size from the factors {given:?}, which here are given beside another size"));
        }
    } else if out_a[2..] != out_b[2..] {
        let factor = |axis: usize| {
            let [a, b] = [(in_a[axis], out_a[axis]), (in_b[axis], out_b[axis])].map(|(input, output)| output as f64 / input as f64);
            stored(axis, a).filter(|_| a == b)
        };
        factors = factor(2).zip(factor(3));
    }
    if let Some((height, width)) = factors {
        let scales = numbers(&[1.0, 1.0, height, width], &[4], crate::DType::F32)?;
        let scales = call.initialiser("scales", scales);
        return call.done("Resize", &[&x, "", &scales], attributes);
    }
    let sizes = call.sizes([&out_a, &out_b])?;
    call.done("Resize", &[&x, "", "", &sizes], attributes)
}

pub(super) fn grid_sample(call: &mut Call<'_>) -> Done {
    let (x, grid) = (call.x(0)?, call.x(1)?);
    // The names of filters changed with opset 20.
    let mode = match call.text("filter")? {
        "bilinear" if call.opset() >= 20 => "linear",
        "cubic" if call.opset() < 20 => "bicubic",
        filter => filter,
    };
    let mode = text("mode", mode);
    let attributes = vec![int("align_corners", call.int("align_corners")?), mode, text("padding_mode", call.text("padding")?)];
    call.done("GridSample", &[&x, &grid], attributes)
}

/// Returns the weight of a convolution that copies each tap of the kernel into a channel.
fn taps(call: &mut Call<'_>, channels: usize, kernel: &[i64]) -> Done<String> {
    let (count, dtype) = ((kernel[0] * kernel[1]) as usize, call.dtype(0)?);
    let mut weight = vec![0.0; channels * count * count];
    (0..channels * count).for_each(|row| weight[row * count + row % count] = 1.0);
    let weight = numbers(&weight, &[channels * count, 1, kernel[0] as usize, kernel[1] as usize], dtype)?;
    Ok(call.initialiser("taps", weight))
}

pub(super) fn unfold(call: &mut Call<'_>) -> Done {
    let (x, kernel, channels) = (call.x(0)?, call.ints("kernel")?, call.shape(0)?[1]);
    let weight = taps(call, channels, &kernel)?;
    let attributes = vec![
        ints("dilations", &call.ints("dilation")?),
        int("group", channels as i64),
        ints("kernel_shape", &kernel),
        ints("pads", &both_ends(&call.ints("padding")?)),
        ints("strides", &call.ints("stride")?),
    ];
    let patches = call.part("Conv", &[&x, &weight], attributes);
    let shape = call.integers(&[0, channels as i64 * kernel[0] * kernel[1], -1])?;
    call.done("Reshape", &[&patches, &shape], vec![])
}

pub(super) fn fold(call: &mut Call<'_>) -> Done {
    let (x, kernel, size) = (call.x(0)?, call.ints("kernel")?, call.ints("size")?);
    let (stride, padding, dilation) = (call.ints("stride")?, call.ints("padding")?, call.ints("dilation")?);
    let (rows, count) = (call.shape(0)?[1] as i64, kernel[0] * kernel[1]);
    let reach = |axis: usize| dilation[axis] * (kernel[axis] - 1) + 1;
    let places = [0, 1].map(|axis| (size[axis] + 2 * padding[axis] - reach(axis)) / stride[axis] + 1);
    let rest: Vec<i64> = (0..2).map(|axis| size[axis] + 2 * padding[axis] - reach(axis) - (places[axis] - 1) * stride[axis]).collect();
    let shape = call.integers(&[0, rows, places[0], places[1]])?;
    let maps = call.part("Reshape", &[&x, &shape], vec![]);
    let weight = taps(call, (rows / count) as usize, &kernel)?;
    let attributes = vec![
        ints("dilations", &dilation),
        int("group", rows / count),
        ints("kernel_shape", &kernel),
        ints("output_padding", &rest),
        ints("pads", &both_ends(&padding)),
        ints("strides", &stride),
    ];
    call.done("ConvTranspose", &[&maps, &weight], attributes)
}
