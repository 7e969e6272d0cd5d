use super::*;
use crate::autograd::gradcheck;

fn any(shape: &[usize], seed: usize) -> Tensor {
    let count: usize = shape.iter().product();
    Tensor::from_vec((0..count).map(|i| ((i * 7919 + seed * 131) % 1013) as f64 / 300.0 - 1.0).collect(), shape).unwrap()
}

/// Normalises by the plain formula: elements with the same `set` share statistics; `slot` gives
/// the index into weight and bias.
fn plain(x: &Tensor, set: impl Fn(usize) -> usize, slot: impl Fn(usize) -> usize, [weight, bias]: [&Tensor; 2], eps: f64) -> Vec<f64> {
    let (x, weight, bias) = (x.to_vec::<f64>().unwrap(), weight.to_vec::<f64>().unwrap(), bias.to_vec::<f64>().unwrap());
    let members = |at: usize| (0..x.len()).filter(|&other| set(other) == set(at)).map(|at| x[at]).collect::<Vec<_>>();
    let normalised = |at: usize| {
        let members = members(at);
        let mean = members.iter().sum::<f64>() / members.len() as f64;
        let var = members.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / members.len() as f64;
        (x[at] - mean) / (var + eps).sqrt() * weight[slot(at)] + bias[slot(at)]
    };
    (0..x.len()).map(normalised).collect()
}

fn close(found: &Tensor, expected: &[f64]) {
    let expected = Tensor::from_vec(expected.to_vec(), found.shape()).unwrap();
    // About ten terms near 1, summed in another order.
    crate::assert_close!(found, expected, epsilon = 1e-12, max_relative = 0.0);
}

const SHAPES: [&[usize]; 3] = [&[5, 4], &[3, 4, 2], &[2, 4, 2, 3]];

#[test]
fn every_normalisation_agrees_with_its_formula_in_either_memory_format() {
    let (w, b) = (any(&[4], 1), any(&[4], 2));
    for shape in SHAPES {
        let rest: usize = shape[2..].iter().product();
        let row_major = any(shape, 3);
        let formats =
            if shape.len() == 4 { vec![MemoryFormat::RowMajor, MemoryFormat::ChannelsLast] } else { vec![MemoryFormat::RowMajor] };
        for x in formats.into_iter().map(|format| row_major.to_format(format).unwrap()) {
            let channel = |at: usize| at / rest % 4;
            let expected = plain(&x, channel, channel, [&w, &b], 0.1);
            let trained = x.batch_norm_train(Some(&w), Some(&b), 0.1).unwrap();
            close(&trained.output, &expected);
            assert_eq!(trained.count, x.numel() / 4);
            close(&x.batch_norm(None, Some(&w), Some(&b), 0.1).unwrap(), &expected);
            close(&x.batch_norm(Some((&trained.mean, &trained.var)), Some(&w), Some(&b), 0.1).unwrap(), &expected);
            let expected = plain(&x, |at| at / rest / 2, channel, [&w, &b], 0.1);
            close(&x.group_norm(2, Some(&w), Some(&b), 0.1).unwrap(), &expected);
            let length: usize = shape[1..].iter().product();
            let (w, b) = (any(&shape[1..], 4), any(&shape[1..], 5));
            let expected = plain(&x, |at| at / length, |at| at % length, [&w, &b], 0.1);
            close(&x.layer_norm(&shape[1..], Some(&w), Some(&b), 0.1).unwrap(), &expected);
        }
    }
}

#[test]
fn gradients_agree_with_differences() {
    let settings = Default::default();
    let (w, b) = (any(&[4], 1), any(&[4], 2));
    let (mean, var) = (any(&[4], 6), any(&[4], 7).add_scalar(1.5));
    for shape in SHAPES {
        let inputs = [any(shape, 3), w.clone(), b.clone()];
        gradcheck(&inputs, settings, |t| t[0].batch_norm(None, Some(&t[1]), Some(&t[2]), 0.1)).unwrap();
        gradcheck(&inputs[..1], settings, |t| t[0].batch_norm(None, None, None, 0.1)).unwrap();
        gradcheck(&inputs, settings, |t| t[0].batch_norm(Some((&mean, &var)), Some(&t[1]), Some(&t[2]), 0.1)).unwrap();
        gradcheck(&inputs[2..], settings, |t| inputs[0].batch_norm(Some((&mean, &var)), None, Some(&t[0]), 0.1)).unwrap();
        gradcheck(&inputs, settings, |t| t[0].group_norm(2, Some(&t[1]), Some(&t[2]), 0.1)).unwrap();
        gradcheck(&inputs[..1], settings, |t| t[0].group_norm(1, None, None, 0.1)).unwrap();
        let inputs = [any(shape, 3), any(&shape[1..], 4), any(&shape[1..], 5)];
        gradcheck(&inputs, settings, |t| t[0].layer_norm(&shape[1..], Some(&t[1]), Some(&t[2]), 0.1)).unwrap();
        gradcheck(&inputs[..1], settings, |t| t[0].layer_norm(&shape[1..], None, None, 0.1)).unwrap();
    }
    let last = any(&[2, 4, 2, 3], 3).to_format(MemoryFormat::ChannelsLast).unwrap();
    gradcheck(&[last.clone(), w, b], settings, |t| t[0].batch_norm(None, Some(&t[1]), Some(&t[2]), 0.1)).unwrap();
    gradcheck(&[last], settings, |t| t[0].layer_norm(&[3], None, None, 0.1)).unwrap();
}

#[test]
fn empty_inputs_pass_where_pytorch_lets_them() {
    let w = Tensor::ones([3]).with_grad();
    let x = Tensor::zeros([0, 3, 4, 4]).with_grad();
    let output = x.batch_norm_train(Some(&w), None, 0.1).unwrap();
    assert_eq!((output.output.shape(), output.count), (x.shape(), 0));
    let gradients = output.output.sum(..).unwrap().backward().unwrap();
    assert_eq!(gradients.get(&w).unwrap().to_vec::<f32>().unwrap(), [0.0; 3]);
    assert_eq!(x.group_norm(3, Some(&w), None, 0.1).unwrap().shape(), x.shape());
    assert_eq!(x.layer_norm(&[4], None, None, 0.1).unwrap().shape(), x.shape());
    let none = Tensor::zeros([2, 0, 4]);
    assert_eq!(none.batch_norm(None, None, None, 0.1).unwrap().shape(), [2, 0, 4]);
    assert_eq!(Tensor::zeros([3, 0]).layer_norm(&[0], None, None, 0.1).unwrap().shape(), [3, 0]);
}

/// Returns the values and gradients of the three normalisations of `x` with their weights and
/// biases.
fn outcomes(x: &Tensor, [weight, bias, upstream]: [&Tensor; 3]) -> Vec<Vec<f64>> {
    type Norm = fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>;
    let norms: [Norm; 3] = [
        |x, w, b| x.batch_norm(None, Some(w), Some(b), 1e-5),
        |x, w, b| x.group_norm(2, Some(w), Some(b), 1e-5),
        |x, w, b| x.permute([0, 2, 1])?.layer_norm(&[4], Some(w), Some(b), 1e-5)?.permute([0, 2, 1]),
    ];
    let mut all = vec![];
    for norm in norms {
        let leaves = [x, weight, bias].map(|tensor| tensor.clone().with_grad());
        let y = norm(&leaves[0], &leaves[1], &leaves[2]).unwrap();
        let grads = y.mul(upstream).unwrap().sum(..).unwrap().backward().unwrap();
        all.push(y.to_dtype(DType::F64).unwrap().to_vec().unwrap());
        all.extend(leaves.iter().map(|leaf| grads.get(leaf).unwrap().to_dtype(DType::F64).unwrap().to_vec().unwrap()));
    }
    all
}

/// Returns the greatest over all outcomes of the largest error of `found`, relative to the
/// largest value of `exact`.
fn worst_error(x: &Tensor) -> f64 {
    let parameters = [any(&[4], 1), any(&[4], 2), any(x.shape(), 5)];
    let to = |dtype: DType| parameters.each_ref().map(|tensor| tensor.to_dtype(dtype).unwrap());
    let ([a, b, c], [d, e, f]) = (to(DType::F32), to(DType::F64));
    let found = outcomes(x, [&a, &b, &c]);
    let exact = outcomes(&x.to_dtype(DType::F64).unwrap(), [&d, &e, &f]);
    let largest =
        |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, |largest: f64, x| if x.abs() <= largest { largest } else { x.abs() });
    found
        .iter()
        .zip(&exact)
        .map(|(found, exact)| {
            let error = largest(&mut found.iter().zip(exact).map(|(found, exact)| found - exact));
            error / largest(&mut exact.iter().copied())
        })
        .fold(0.0, |worst, error| if error <= worst { worst } else { error })
}

#[test]
fn values_whose_squares_f32_cannot_hold_are_normalised() {
    for scale in [1e-30, 1e18, 1e25, 1e30, 1e38] {
        let x = any(&[3, 4, 5], 3).try_mul_scalar(scale).unwrap().to_dtype(DType::F32).unwrap();
        // A few roundings of f32, 6e-8 each.
        let error = worst_error(&x);
        assert!(error < 2e-6, "{error} at {scale}");
    }
    let x = Tensor::from_vec(vec![1e30f32, 2e30, 4e30, 9e30], [4, 1]).unwrap();
    let trained = x.batch_norm_train(None, None, 1e-5).unwrap();
    assert_eq!(trained.mean.item::<f32>().unwrap(), 4e30);
    assert!(trained.var.item::<f32>().unwrap().is_finite());
}

#[test]
fn large_mean_costs_no_digits_of_small_deviation() {
    let noise = any(&[3, 4, 50], 3).try_mul_scalar(0.006).unwrap();
    let x = noise.try_add_scalar(1e4).unwrap().to_dtype(DType::F32).unwrap();
    // The error of PyTorch 2.15 in layer_norm is 0.12.
    let error = worst_error(&x);
    assert!(error < 1e-5, "{error}");
}

#[test]
fn first_element_far_from_the_others_costs_no_digits() {
    let x: Vec<f32> = (0..768).map(|i| if i == 0 { 100.0 } else { ((i * 7919 % 1013) as f32 - 506.0) / 300.0 }).collect();
    let x = Tensor::from_vec(x, [1, 768]).unwrap();
    let y = x.layer_norm(&[768], None, None, 1e-5).unwrap().to_vec::<f32>().unwrap();
    let exact = x.to_dtype(DType::F64).unwrap().layer_norm(&[768], None, None, 1e-5).unwrap().to_vec::<f64>().unwrap();
    let error = y.iter().zip(&exact).skip(1).map(|(&y, exact)| (f64::from(y) - exact).abs()).fold(0.0, f64::max);
    // The error of PyTorch 2.15 is 5e-8; with deviations from the first element it would be
    // 1.5e-6.
    assert!(error < 2e-7, "{error}");
}

#[test]
fn bias_gradients_of_many_pixels_keep_the_precision_of_f32() {
    // The gradient that global average pooling and ReLU give: one number for each map, or zero.
    let [n, c, size] = [32, 64, 8];
    let number = |i: usize| ((i * 7919 + 13) % 1013) as f64 / 500.0 - 1.0;
    let upstream = (0..n * c * size * size).map(|i| if i * 31 % 7 < 4 { number(i / (size * size)) as f32 } else { 0.0 });
    let upstream = Tensor::from_vec(upstream.collect(), [n, c, size, size]).unwrap();
    crate::manual_seed(0);
    let bias = Tensor::zeros([c]).with_grad();
    let y = Tensor::randn([n, c, size, size]).batch_norm(None, None, Some(&bias), 1e-5).unwrap();
    let grads = y.mul(&upstream).unwrap().sum(..).unwrap().backward().unwrap();
    let exact = upstream.to_dtype(DType::F64).unwrap().sum([0, 2, 3]).unwrap().to_vec::<f64>().unwrap();
    let found = grads.get(&bias).unwrap().to_vec::<f32>().unwrap();
    let largest = exact.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    let error = found.iter().zip(&exact).map(|(&found, exact)| (f64::from(found) - exact).abs()).fold(0.0, f64::max) / largest;
    // The error of PyTorch 2.15 is 1.1e-7 here (5.4e-6 in channels-last); that of lanes summed
    // without blocks is 2.0e-6.
    assert!(error < 3e-7, "{error}");
}

#[test]
fn errors_say_what_is_wrong() {
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    let x = Tensor::zeros([2, 4, 3]);
    let (three, wide) = (Tensor::ones([3]), Tensor::ones([4]).cast(DType::F64).unwrap());
    let expected = "batch_norm: expected a weight [4] for input [2, 4, 3], got shape [3]";
    assert_eq!(message(x.batch_norm(None, Some(&three), None, 0.1)), expected);
    let expected = "batch_norm: expected a running mean [4] for input [2, 4, 3], got shape [3]";
    assert_eq!(message(x.batch_norm(Some((&three, &three)), None, None, 0.1)), expected);
    assert_eq!(
        message(x.batch_norm(None, None, Some(&wide), 0.1)),
        "batch_norm: the input is f32, the bias f64; convert either, with `.to_dtype(DType::F64)` or `.to_dtype(DType::F32)`"
    );
    let one = Tensor::zeros([1, 4, 1, 1]).batch_norm(None, None, None, 0.1);
    assert_eq!(
        message(one),
        "batch_norm: expected more than one value per channel when training, got shape [1, 4, 1, 1]; use a larger batch, or running statistics (`eval()`)"
    );
    let flat = Tensor::zeros([4]);
    assert_eq!(message(flat.batch_norm(None, None, None, 0.1)), "batch_norm: expected [N, C], [N, C, L] or [N, C, H, W], got shape [4]");
    let integers = Tensor::full([2, 4], 0.0, DType::I64);
    assert_eq!(
        message(integers.batch_norm(None, None, None, 0.1)),
        "batch_norm: expected f32 or f64, got i64; convert with `.to_dtype(DType::F32)`"
    );
    assert_eq!(message(flat.group_norm(2, None, None, 0.1)), "group_norm: expected [N, C, ..], got shape [4]");
    assert_eq!(message(x.group_norm(3, None, None, 0.1)), "group_norm: 3 groups do not divide the channels of shape [2, 4, 3]");
    assert_eq!(message(x.group_norm(0, None, None, 0.1)), "group_norm: 0 groups do not divide the channels of shape [2, 4, 3]");
    let alone = Tensor::zeros([1, 4]).group_norm(4, None, None, 0.1);
    assert_eq!(message(alone), "group_norm: expected more than one value per group, got shape [1, 4]");
    let hollow = Tensor::zeros([2, 4, 0]).group_norm(2, None, None, 0.1);
    assert_eq!(message(hollow), "group_norm: only the batch may be empty, got shape [2, 4, 0]");
    assert_eq!(message(x.layer_norm(&[4], None, None, 0.1)), "layer_norm: expected an input that ends in [4], got shape [2, 4, 3]");
    assert_eq!(message(x.layer_norm(&[], None, None, 0.1)), "layer_norm: expected an input that ends in [], got shape [2, 4, 3]");
    let expected = "layer_norm: expected a bias [3] for input [2, 4, 3], got shape [4]";
    assert_eq!(message(x.layer_norm(&[3], None, Some(&Tensor::ones([4])), 0.1)), expected);
}

#[test]
fn empty_batches_of_huge_maps_pass() {
    let x = Tensor::zeros([0, 2, 1 << 55, 3]);
    for y in [x.batch_norm(None, None, None, 0.1), x.group_norm(2, None, None, 0.1), x.layer_norm(&[1 << 55, 3], None, None, 0.1)] {
        assert_eq!(y.unwrap().shape(), x.shape());
    }
}
