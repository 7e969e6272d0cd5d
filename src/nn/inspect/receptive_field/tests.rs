//! Comparison of the reported fields with gradients.
//!
//! With positive weights and a positive input no two paths through a network cancel, and every ReLU
//! is active, so the pixels with a nonzero gradient are those that a unit depends on. Max pooling
//! passes a gradient to one pixel of a window only; over all channels of a layer, whose weights
//! differ, each pixel is the maximum for some channel.

use super::*;
use crate::autograd::{BackwardOptions, CustomOp};
use crate::nn::module::layer::trace;
use crate::nn::{AdaptiveAvgPool2d, AvgPool2d, Conv1d, Conv2d, ConvTranspose2d, ModuleExt, Sequential, Visitor, block};
use crate::ops::{ConvAlgorithm, Interpolation, with_algorithm};
use crate::tensor::{DType, Tensor};

fn hash(i: u64) -> u64 {
    let z = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

/// Returns a positive input, so small that no activation saturates.
fn image(shape: [usize; 4]) -> Tensor {
    let value = |i: u64| 1e-4 + 1e-3 * ((hash(i) >> 11) as f64 * 2f64.powi(-53));
    Tensor::from_vec((0..shape.iter().product::<usize>() as u64).map(value).collect::<Vec<f64>>(), shape).unwrap()
}

/// Gives each layer positive weights, one of which is much larger than the others for each output:
/// so the channels depend on different pixels at any depth, and the maximum of a window is
/// elsewhere in each channel. Switches to evaluation.
pub(crate) fn make_positive<M: Module + ?Sized>(model: &M) {
    for (path, parameter) in model.named_parameters() {
        let shape = parameter.shape();
        let value = match shape[..] {
            [_, ref inputs @ ..] if !inputs.is_empty() => {
                let taps: usize = inputs.iter().product();
                let largest = |output: usize| (hash(output as u64) >> 20) as usize % taps;
                let weight = |i: usize| if i % taps == largest(i / taps) { 1.0 } else { 0.01 / taps as f64 };
                Tensor::from_vec((0..parameter.numel()).map(weight).collect::<Vec<f64>>(), &shape).unwrap()
            }
            _ => Tensor::full(&shape, f64::from(u8::from(path.ends_with("weight"))), DType::F64),
        };
        parameter.set(&value).unwrap();
    }
    model.to_dtype(DType::F64).unwrap();
    model.eval();
}

/// Returns the rows and columns around all nonzero elements.
fn support(gradient: &Tensor) -> [Range<usize>; 2] {
    let &[_, _, height, width] = gradient.shape() else { panic!("an image's gradient has the image's shape") };
    let [mut rows, mut columns] = [NOTHING; 2];
    for (i, value) in gradient.to_vec::<f64>().unwrap().into_iter().enumerate() {
        if value != 0.0 {
            let (row, column) = (i / width % height, i % width);
            (rows, columns) = (around(rows, (row, row)), around(columns, (column, column)));
        }
    }
    [rows, columns].map(|(first, last)| if first > last { 0..0 } else { first..last + 1 })
}

/// Compares the fields of about `layers` layers at corners and in the middle; returns the number of
/// comparisons. Uses im2col, whose zeros are exact.
pub(crate) fn check<M: Module>(name: &str, model: &M, shape: [usize; 4], layers: usize) -> usize {
    with_algorithm(ConvAlgorithm::Im2col, || check_exactly(name, model, shape, layers))
}

fn check_exactly<M: Module>(name: &str, model: &M, shape: [usize; 4], layers: usize) -> usize {
    make_positive(model);
    let fields = model.receptive_field(shape).unwrap();
    let x = image(shape).with_grad();
    let (result, trace) = trace(|| model.forward(&x));
    result.unwrap();
    assert_eq!(fields.rows.len(), trace.calls.len(), "{name}");
    // Units differ where maps are resampled: in the tests' own networks, which are all named "net".
    let alike = name != "net";
    let step = (fields.rows.len() / layers).max(1);
    let mut compared = 0;
    for (row, call) in fields.rows.iter().zip(&trace.calls).rev().step_by(step) {
        // Rows have paths relative to the model; calls may have paths from an enclosing network.
        let same_layer = call.path == row.path || call.path.ends_with(&format!(".{}", row.path));
        assert!(same_layer && row.output == call.output.shape(), "{name}: {} and {}", row.path, call.path);
        let &[_, channels, height, width] = call.output.shape() else { continue };
        for place in [[0, 0], [height / 2, width / 2], [height - 1, width - 1]] {
            let mut one = vec![0.0; channels * height * width];
            (0..channels).for_each(|channel| one[(channel * height + place[0]) * width + place[1]] = 1.0);
            let gradient = Some(Tensor::from_vec(one, [1, channels, height, width]).unwrap());
            let gradients = call.output.backward_with(BackwardOptions { gradient, retain_graph: true }).unwrap();
            let found = support(gradients.get(&x).unwrap());
            assert_eq!(row.region(place), found, "{name} {} at {place:?}", row.path);
            // Where the edges clip nothing, the general numbers give the same box.
            for axis in (0..2).filter(|&axis| !found[axis].is_empty()) {
                let Range { start, end } = found[axis].clone();
                let first = row.offset[axis] + row.stride[axis] * place[axis] as f64;
                let pixel = |at: f64| (at - 1e-6).ceil().max(0.0) as usize;
                let in_general = pixel(first)..pixel(first + row.size[axis] as f64).min(shape[2 + axis]);
                assert!(in_general.start <= start && end <= in_general.end, "{name} {} at {place:?}", row.path);
                if alike && in_general.start > 0 && in_general.end < shape[2 + axis] {
                    assert_eq!(in_general, start..end, "{name} {} at {place:?}", row.path);
                }
            }
            compared += 1;
        }
    }
    compared
}

/// A module with a closure as its forward pass.
struct Net<F>(Sequential, F);

impl<F: Fn(&Sequential, &Tensor) -> Result<Tensor> + Send + Sync + 'static> Module for Net<F> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || (self.1)(&self.0, x))
    }
    fn visit(&self, v: &mut Visitor<'_>) {
        v.field("layers", &self.0);
    }
}

/// Compares the fields after an operation, `forward`, on two maps with different fields: the second
/// convolution runs after it.
fn behind(shape: [usize; 4], forward: impl Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static) -> usize {
    let layers =
        Sequential::new().push(Conv2d::new(2, 4, 3).stride([2, 1]).padding([1, 0])).push(Conv2d::new(4, 4, [3, 5]).padding([1, 2]));
    let layers = layers.push(Conv2d::new(4, 3, 3).padding(1));
    let net = Net(layers, move |layers: &Sequential, x: &Tensor| {
        let layer = |i: usize| layers.child(i).expect("three layers");
        let a = layer(0).forward(x)?;
        let b = layer(1).forward(&a)?;
        layer(2).forward(&forward(&a, &b)?)
    });
    check("net", &net, shape, 3)
}

#[test]
fn fields_of_operations_between_layers_are_the_support_of_the_gradient() {
    let shape = [1, 2, 14, 13];
    let scaled = |size, mode| move |a: &Tensor, b: &Tensor| a.interpolate(size, mode)?.add(&b.interpolate(size, mode)?);
    let bilinear = |align_corners| Interpolation::Bilinear { align_corners };
    let mut compared = behind(shape, |a, b| a.add(b)?.mul(a));
    for (size, mode) in [
        ([14, 22], Interpolation::Nearest),
        ([5, 9], Interpolation::Nearest),
        ([14, 22], bilinear(false)),
        ([10, 7], bilinear(true)),
        ([3, 4], bilinear(false)),
        ([9, 15], Interpolation::NearestExact),
        ([10, 17], Interpolation::Bicubic { align_corners: true }),
    ] {
        compared += behind(shape, scaled(size, mode));
    }
    // Branches with different offsets, a shifted copy, a part of a map, a concatenation, a map that
    // is broadcast along an axis.
    compared += behind(shape, |a, b| a.add(&b.avg_pool2d([2, 2], Default::default())?.interpolate([7, 11], Interpolation::Nearest)?));
    compared += behind(shape, |a, b| b.pad([2, 1, 0, 3], 0.0)?.narrow(3, 1, 11)?.narrow(2, 1, 7)?.add(a));
    compared += behind(shape, |_, b| Tensor::cat(&[b, &b.softplus()?], 3));
    compared += behind(shape, |a, _| Tensor::cat(&[&a.mul(a)?, a], 2));
    compared += behind(shape, |a, b| a.add(&b.mean_keepdim(2)?));
    compared += behind(shape, |a, b| a.add(&b.mean_keepdim([2, 3])?));
    compared += behind(shape, move |a, b| a.add(&b.adaptive_avg_pool2d([3, 4])?.interpolate([7, 11], bilinear(false))?));
    compared += behind(shape, |a, b| a.add(&b.flip(2)?));
    // A channel shuffle, and one by indices.
    compared += behind(shape, |a, _| a.reshape([1, 2, 2, 7, 11])?.permute([0, 2, 1, 3, 4])?.reshape([1, 4, 7, 11]));
    compared += behind(shape, |a, b| a.add(&b.index_select(1, &Tensor::from_vec(vec![3i64, 1, 0, 2], [4])?)?));
    compared += behind(shape, |a, b| Tensor::cat(&[&a.narrow(1, 0, 2)?, &b.narrow(1, 1, 2)?], 1)?.softplus());
    assert_eq!(compared, 19 * 9);
}

#[test]
fn fields_of_transposed_dilated_and_pooled_layers_are_the_support_of_the_gradient() {
    let up = |stride: usize, k: usize, dilation: usize| ConvTranspose2d::new(3, 3, k).stride(stride).dilation(dilation).padding(1);
    let net = Sequential::new()
        .push(Conv2d::new(2, 3, 3).dilation([2, 3]).padding([2, 1]))
        .push(AvgPool2d::new(3).stride(2).padding(1).ceil_mode(true))
        .push(up(2, 3, 1).output_padding(1))
        .push(Conv2d::new(3, 3, 3).stride(2))
        .push(up(3, 3, 2))
        .push(up(1, 4, 1))
        .push(AdaptiveAvgPool2d::new([7, 5]))
        .push(Conv2d::new(3, 3, [1, 2]));
    assert!(check("net", &net, [1, 2, 19, 17], 8) == 8 * 3);
}

#[test]
fn sequences_have_fields_and_inputs_without_columns_do_not() {
    let net = Sequential::new().push(Conv1d::new(2, 3, 5).stride(2)).push(Conv1d::new(3, 3, 3).padding(1));
    let fields = net.receptive_field([4, 2, 50]).unwrap();
    let last = fields.get("1").unwrap();
    assert_eq!((last.size, last.stride[1], last.offset[1]), ([1, 9], 2.0, -2.0));
    assert_eq!((last.region([0, 0]), last.region([0, 7]), last.region([1, 0])), ([0..1, 0..7], [0..1, 12..21], [0..0, 0..0]));
    for shape in [&[4, 2][..], &[4, 2, 0], &[1, 2, 3, 4, 5]] {
        assert!(net.receptive_field(shape).unwrap_err().to_string().contains("expected an input [N, C, H, W]"));
    }
    assert!(net.receptive_field([4, 7, 50]).unwrap_err().to_string().contains("expected 2 input channels"));
    let text = fields.to_string();
    assert!(text.contains("Conv1d 2→3, k5, s2") && text.contains("1×9"), "{text}");
}

#[test]
fn operations_of_users_read_one_position_or_the_whole_map() {
    let net = |op: CustomOp| {
        let layers = Sequential::new().push(Conv2d::new(2, 3, 3).padding(1)).push(Conv2d::new(3, 3, 3).padding(1));
        Net(layers, move |layers: &Sequential, x: &Tensor| {
            let layer = |i: usize| layers.child(i).expect("two layers");
            let doubled = op.apply([&layer(0).forward(x)?], |[x]| {
                Ok((x.mul_scalar(2.0), |grad: &Tensor, _: [bool; 1]| Ok([Some(grad.mul_scalar(2.0))])))
            })?;
            layer(1).forward(&doubled)
        })
    };
    assert_eq!(check("net", &net(CustomOp::new("double").pointwise()), [1, 2, 14, 13], 2), 2 * 3);
    let whole = net(CustomOp::new("double"));
    let fields = whole.receptive_field([1, 2, 14, 13]).unwrap();
    assert_eq!(fields.get("layers.0").unwrap().size, [3, 3]);
    assert_eq!(fields.get("layers.1").unwrap().region([5, 5]), [0..14, 0..13]);
    let summary = whole.summary([1, 2, 14, 13]).unwrap();
    let last = summary.rows.iter().find(|row| row.path == "layers.1").unwrap();
    assert_eq!((last.output.as_deref(), summary.parameters), (Some(&[1, 3, 14, 13][..]), 57 + 84));
}
