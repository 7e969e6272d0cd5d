//! Values and gradients of layers that compose other operations, against PyTorch 2.

use convnet::autograd::gradcheck;
use convnet::nn::*;
use convnet::ops::PadMode;
use convnet::{DType, Result, Tensor, no_grad};

use super::values;

/// `torch.arange(12.).reshape(1, 2, 6) ** 2 / 10 - 3`
fn sequence() -> Tensor {
    Tensor::from_vec((0..12).map(|i| (i * i) as f32 / 10.0 - 3.0).collect(), [1, 2, 6]).unwrap()
}

fn assert_close(y: &Result<Tensor>, shape: &[usize], expected: &[f64]) {
    let y = y.as_ref().unwrap();
    assert_eq!(y.shape(), shape);
    let y: Vec<f64> = values(y).into_iter().map(f64::from).collect();
    // A few f32 operations on values of this size; PyTorch's are printed with seven digits.
    approx::assert_relative_eq!(y[..], *expected, epsilon = 2e-6, max_relative = 2e-6);
}

/// Compares a layer's gradients with differences, in f64; `x` has the shape of its input.
fn check_gradients(layer: &dyn Module, x: &Tensor) {
    layer.to_dtype(DType::F64).unwrap();
    let x = x.to_dtype(DType::F64).unwrap();
    gradcheck(&[x], Default::default(), |x| layer.forward(&x[0])).unwrap();
}

#[test]
fn poolings_of_sequences_have_pytorchs_values() {
    let x = sequence();
    let y = MaxPool1d::new(3).stride(2).padding(1).ceil_mode(true).forward(&x);
    assert_close(&y, &[1, 2, 4], &[-2.9, -2.1, -0.5, -0.5, 1.9, 5.1, 9.1, 9.1]);
    let y = MaxPool1d::new(2).stride(1).dilation(3).forward(&x);
    assert_close(&y, &[1, 2, 3], &[-2.1, -1.4, -0.5, 5.1, 7.0, 9.1]);
    let y = AvgPool1d::new(3).stride(2).padding(1).forward(&x);
    assert_close(&y, &[1, 2, 3], &[-1.9666667, -2.5333333, -1.3333334, 0.8333333, 3.4666669, 7.0666671]);
    let y = AvgPool1d::new(4).padding(1).count_include_pad(false).ceil_mode(true).forward(&x);
    assert_close(&y, &[1, 2, 2], &[-2.8333333, -1.3333334, 1.9666667, 7.0666671]);
    let y = AdaptiveAvgPool1d::new(4).forward(&x);
    assert_close(&y, &[1, 2, 4], &[-2.95, -2.75, -1.75, -0.95, 1.25, 2.65, 6.05, 8.05]);
    let y = AvgPool1d::new(2).forward(&x.reshape([2, 6]).unwrap());
    assert_close(&y, &[2, 3], &[-2.95, -2.35, -0.95, 1.25, 4.25, 8.05]);
    for layer in [&MaxPool1d::new(2) as &dyn Module, &AvgPool1d::new(3).padding(1), &AdaptiveAvgPool1d::new(4)] {
        check_gradients(layer, &x);
    }
    let error = MaxPool1d::new(2).forward(&Tensor::zeros([1, 2, 3, 4])).unwrap_err().to_string();
    assert!(error.contains("expected [N, C, L] or [C, L], got shape [1, 2, 3, 4]"), "{error}");
}

#[test]
fn unpooling_puts_maxima_where_pooling_found_them() {
    let x = Tensor::from_vec((0..40).map(|i| (i * 7 % 40) as f32 + 1.0).collect(), [1, 2, 5, 4]).unwrap();
    let (y, positions) = MaxPool2d::new([3, 2]).stride([2, 2]).forward_with_indices(&x).unwrap();
    assert_eq!(y, MaxPool2d::new([3, 2]).stride([2, 2]).forward(&x).unwrap());
    let up = MaxUnpool2d::new([3, 2]).stride([2, 2]).unpool(&y, &positions).unwrap();
    assert_eq!(up.shape(), x.shape());
    // Each element is that of `x` or 0, and the maxima are all there.
    let pairs: Vec<(f32, f32)> = up.to_vec().unwrap().into_iter().zip(x.to_vec().unwrap()).collect();
    assert!(pairs.iter().all(|&(up, x)| up == x || up == 0.0));
    assert_eq!(MaxPool2d::new([3, 2]).stride([2, 2]).forward(&up).unwrap(), y);
    let message = |unpool: MaxUnpool2d| unpool.unpool(&y, &positions).unwrap_err().to_string();
    assert!(message(MaxUnpool2d::new(1).padding(9)).contains("leaves no positions for maxima of shape [1, 2, 2, 2]"));
    let error = MaxPool2d::new(9).forward_with_indices(&x).unwrap_err().to_string();
    assert!(error.contains("MaxPool2d k9") && error.contains("larger than the padded input"), "{error}");
}

#[test]
fn transposed_convolution_of_sequences_has_pytorchs_values() {
    // nn.ConvTranspose1d(2, 2, 3, stride=2, padding=1, output_padding=1, groups=2)
    let layer = ConvTranspose1d::new(2, 2, 3).stride(2).padding(1).output_padding(1).groups(2);
    layer.weight.set(&Tensor::from_vec((0..6).map(|i| i as f32 - 2.0).collect(), [2, 1, 3]).unwrap()).unwrap();
    layer.bias.as_ref().unwrap().set(&Tensor::from_vec(vec![0.5f32, -1.0], [2]).unwrap()).unwrap();
    let expected = [
        3.5, 6.3, 3.4, 5.7, 3.1, 4.7, 2.6, 3.3, 1.9, 1.5, 1.0, 0.5, 0.1999998, 2.6999998, 2.8, 8.1, 5.8, 14.3, 9.2, 21.3, 13.0, 29.1, 17.2,
        26.3,
    ];
    assert_close(&layer.forward(&sequence()), &[1, 2, 12], &expected);
    check_gradients(&layer, &sequence());
}

#[test]
fn spatial_pyramid_pooling_is_the_maxima_of_each_grid_in_turn() {
    let x = Tensor::from_vec((0..18).map(|i| i as f32).collect(), [1, 2, 3, 3]).unwrap();
    let pool = SpatialPyramidPooling::new([1, 2]);
    // torch.cat([F.adaptive_max_pool2d(x, n).flatten(1) for n in (1, 2)], 1)
    assert_close(&pool.forward(&x), &[1, 10], &[8.0, 17.0, 4.0, 5.0, 7.0, 8.0, 13.0, 14.0, 16.0, 17.0]);
    check_gradients(&pool, &x);
    assert!(SpatialPyramidPooling::new([]).forward(&x).unwrap_err().to_string().contains("at least one grid"));
}

#[test]
fn prelu_has_pytorchs_values_and_gradients() {
    let prelu = PReLU::new(2);
    prelu.weight.set(&Tensor::from_vec(vec![0.5f32, -1.0], [2]).unwrap()).unwrap();
    let x = sequence().sub_scalar(2.0).with_grad();
    let y = prelu.forward(&x);
    assert_close(&y, &[1, 2, 6], &[-2.5, -2.45, -2.3, -2.05, -1.7, -1.25, 1.4, 0.0999999, 1.4, 3.1, 5.0, 7.1]);
    let gradients = y.unwrap().sum(..).unwrap().backward().unwrap();
    let dx = gradients.get(&x).unwrap().clone();
    assert_close(&Ok(dx), &[1, 2, 6], &[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0]);
    assert_close(&Ok(gradients.get(&prelu.weight.tensor()).unwrap().clone()), &[2], &[-24.5, -1.5]);
    check_gradients(&PReLU::new(2), &x);
    // The slope at 0 is the weight's, and infinite inputs leave the weight's gradient finite.
    let prelu = PReLU::default();
    let x = Tensor::from_vec(vec![0.0f32, f32::INFINITY], [2]).unwrap().with_grad();
    let gradients = prelu.forward(&x).unwrap().sum(..).unwrap().backward().unwrap();
    assert_eq!(values(gradients.get(&x).unwrap()), [0.25, 1.0]);
    assert_eq!(values(gradients.get(&prelu.weight.tensor()).unwrap()), [0.0]);
    assert!(PReLU::new(3).forward(&sequence()).unwrap_err().to_string().contains("expected 3 channels, got shape [1, 2, 6]"));
    assert!(PReLU::new(0).forward(&sequence()).is_err());
}

#[test]
fn instance_norm_follows_pytorch() {
    let plain = InstanceNorm2d::new(2).forward(&sequence().reshape([1, 2, 2, 3]).unwrap());
    let expected = [
        -1.0304186, -0.9180095, -0.5807813, -0.0187348, 0.7681303, 1.779814, -1.3440858, -0.8979637, -0.3832074, 0.200183, 0.8522075,
        1.5728663,
    ];
    assert_close(&plain, &[1, 2, 2, 3], &expected);

    let norm = InstanceNorm1d::new(2).affine(true).track_running_stats(true);
    norm.weight.as_ref().unwrap().set(&Tensor::from_vec(vec![2.0f32, 0.5], [2]).unwrap()).unwrap();
    norm.bias.as_ref().unwrap().set(&Tensor::from_vec(vec![0.5f32, -1.0], [2]).unwrap()).unwrap();
    let batch = Tensor::cat(&[&sequence(), &(&(&sequence() * 2.0) - 1.0)], 0).unwrap();
    let expected = [
        -1.5608373, -1.3360189, -0.6615626, 0.4625304, 2.0362606, 4.059628, -1.6720428, -1.4489819, -1.1916038, -0.8999085, -0.5738963,
        -0.2135668, -1.5608472, -1.3360277, -0.6615682, 0.4625302, 2.0362678, 4.0596447, -1.6720432, -1.448982, -1.1916038, -0.8999084,
        -0.5738961, -0.2135665,
    ];
    assert_close(&norm.forward(&batch), &[2, 2, 6], &expected);
    assert_close(&Ok(norm.running_mean.as_ref().unwrap().tensor()), &[2], &[-0.3625, 0.6275001]);
    assert_close(&Ok(norm.running_var.as_ref().unwrap().tensor()), &[2], &[1.1374166, 3.447417]);
    assert_eq!(norm.num_batches_tracked.as_ref().unwrap().tensor().item::<i64>().unwrap(), 0);
    norm.eval();
    let expected = [
        -4.4460754, -4.2585468, -3.6959596, -2.7583151, -1.4456125, 0.2421477, -1.0074055, -0.6573268, -0.2533897, 0.2044057, 0.7160592,
        1.2815713,
    ];
    assert_close(&norm.forward(&sequence()), &[1, 2, 6], &expected);
    check_gradients(&InstanceNorm1d::new(2).affine(true), &batch);

    // The average of three batches, the unbiased variance of each channel of each sequence.
    let norm = InstanceNorm1d::new(1).track_running_stats(true).momentum(None);
    for (values, mean, var) in [([1.0f32, 3.0], 2.0, 2.0), ([4.0, 8.0], 4.0, 5.0), ([0.0, 0.0], 8.0 / 3.0, 10.0 / 3.0)] {
        norm.forward(&Tensor::from_slice(&values, [1, 1, 2]).unwrap()).unwrap();
        let estimates = [&norm.running_mean, &norm.running_var].map(|buffer| buffer.as_ref().unwrap().tensor());
        assert_close(&Ok(estimates[0].clone()), &[1], &[mean]);
        assert_close(&Ok(estimates[1].clone()), &[1], &[var]);
    }
    assert_eq!(norm.num_batches_tracked.as_ref().unwrap().tensor().item::<i64>().unwrap(), 3);
    let error = InstanceNorm2d::new(2).forward(&Tensor::ones([4, 2, 1, 1])).unwrap_err().to_string();
    assert!(error.contains("more than one position"), "{error}");
}

#[test]
fn embedding_takes_the_rows_and_gives_padding_no_gradient() {
    let layer = Embedding::new(4, 2).padding_idx(1);
    assert_eq!(values(&layer.weight.tensor())[2..4], [0.0, 0.0]);
    assert!(values(&layer.weight.tensor())[..2].iter().all(|&x| x != 0.0));
    layer.weight.set(&Tensor::from_vec((0..8).map(|i| i as f32).collect(), [4, 2]).unwrap()).unwrap();
    let words = Tensor::from_vec(vec![3i64, 1, 3, 0], [2, 2]).unwrap();
    let y = layer.forward(&words).unwrap();
    assert_close(&Ok(y.clone()), &[2, 2, 2], &[6.0, 7.0, 2.0, 3.0, 6.0, 7.0, 0.0, 1.0]);
    let factors = Tensor::from_vec((0..8).map(|i| i as f32).collect(), [2, 2, 2]).unwrap();
    let gradients = y.mul(&factors).unwrap().sum(..).unwrap().backward().unwrap();
    assert_eq!(values(gradients.get(&layer.weight.tensor()).unwrap()), [6.0, 7.0, 0.0, 0.0, 0.0, 0.0, 4.0, 6.0]);

    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    assert!(message(layer.forward(&Tensor::scalar(4i64))).contains("index 4"));
    assert!(message(layer.forward(&Tensor::zeros([2]))).contains("expected i64, got f32"));
    assert!(message(Embedding::new(4, 2).padding_idx(4).forward(&words)).contains("the index 4 of the padding is not less than 4"));
    assert!(message(Embedding::new(1 << 40, 1 << 40).forward(&words)).contains("more than memory can hold"));
    assert_eq!(layer.forward(&Tensor::from_vec(Vec::<i64>::new(), [0, 3]).unwrap()).unwrap().shape(), [0, 3, 2]);
}

/// `nn.ReflectionPad2d((1, 2, 1, 0))`, `ReplicationPad2d`, `CircularPad2d` and `ConstantPad2d` with
/// 7 of `torch.arange(6.).reshape(1, 1, 2, 3)`.
#[test]
fn padding_layers_add_what_pytorchs_do() {
    let x = Tensor::from_vec((0..6).map(|i| i as f32).collect(), [1, 1, 2, 3]).unwrap();
    for (mode, expected) in [
        (PadMode::Reflect, [4.0, 3.0, 4.0, 5.0, 4.0, 3.0, 1.0, 0.0, 1.0, 2.0, 1.0, 0.0, 4.0, 3.0, 4.0, 5.0, 4.0, 3.0]),
        (PadMode::Replicate, [0.0, 0.0, 1.0, 2.0, 2.0, 2.0, 0.0, 0.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 4.0, 5.0, 5.0, 5.0]),
        (PadMode::Circular, [5.0, 3.0, 4.0, 5.0, 3.0, 4.0, 2.0, 0.0, 1.0, 2.0, 0.0, 1.0, 5.0, 3.0, 4.0, 5.0, 3.0, 4.0]),
        (PadMode::Constant(7.0), [7.0, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0, 0.0, 1.0, 2.0, 7.0, 7.0, 7.0, 3.0, 4.0, 5.0, 7.0, 7.0]),
    ] {
        let layer = Pad::new([1, 2, 1, 0]).mode(mode);
        assert_close(&layer.forward(&x), &[1, 1, 3, 6], &expected);
        check_gradients(&layer, &x);
    }
    let error = Sequential::new().push(Pad::new([4, 0]).mode(PadMode::Reflect)).forward(&x).unwrap_err().to_string();
    assert!(error.starts_with("0 (Pad [4, 0]): ") && error.contains("reflects more elements"), "{error}");
}

#[test]
fn summary_of_a_network_that_takes_integers_lists_its_layers() {
    let net = Sequential::new().push(Embedding::new(100, 8)).push(Flatten).push(Linear::new(40, 3));
    let summary = net.summary_of([2, 5], DType::I64).unwrap();
    assert_eq!((summary.parameters, summary.input_bytes, summary.rows.len()), (923, 80, 4));
    assert_eq!(summary.rows[1].output, Some(vec![2, 5, 8]));
    assert!(net.summary([2, 5]).unwrap_err().to_string().contains("expected i64, got f32"));
}

#[test]
fn convolutions_of_sequences_pad_as_pytorch_does() {
    // nn.Conv1d(2, 1, 4, padding="same", padding_mode=…, bias=False) of torch.arange(6.)
    let layer = || {
        let conv = Conv1d::new(2, 1, 4).bias(false);
        conv.weight.set(&Tensor::from_vec((0..8).map(|i| i as f32 - 3.0).collect(), [1, 2, 4]).unwrap()).unwrap();
        conv
    };
    let x = Tensor::from_vec((0..6).map(|i| i as f32).collect(), [1, 2, 3]).unwrap();
    for (mode, expected) in [
        (PadMode::Constant(0.0), [37.0, 22.0, 7.0]),
        (PadMode::Reflect, [38.0, 38.0, 30.0]),
        (PadMode::Replicate, [40.0, 42.0, 40.0]),
        (PadMode::Circular, [36.0, 34.0, 32.0]),
    ] {
        let same = layer().padding(Conv1dPadding::Same).padding_mode(mode);
        assert_close(&same.forward(&x), &[1, 1, 3], &expected);
        assert_close(&layer().padding([1, 2]).padding_mode(mode).forward(&x), &[1, 1, 3], &expected);
        assert_close(&same.forward(&x.squeeze(0).unwrap()), &[1, 3], &expected);
        check_gradients(&same, &x);
    }
    assert_eq!(layer().padding([3, 1]).stride(2).dilation(2).summary([1, 2, 5]).unwrap().rows[0].output, Some(vec![1, 1, 2]));
    let message = |conv: Conv1d| conv.forward(&x).unwrap_err().to_string();
    assert!(message(layer().padding(Conv1dPadding::Same).stride(2)).contains("same padding needs stride 1"));
    assert!(message(layer().padding(3).padding_mode(PadMode::Reflect)).contains("reflects more elements"));
    assert!(message(layer().padding([usize::MAX, 0])).contains("too large"));
}

#[test]
fn convolutions_pad_as_pytorch_does() {
    // nn.Conv2d(1, 1, (2, 3), padding="same", padding_mode=…, bias=False) of torch.arange(9.)
    let layer = || {
        let conv = Conv2d::new(1, 1, [2, 3]).bias(false);
        conv.weight.set(&Tensor::from_vec((0..6).map(|i| i as f32 - 2.0).collect(), [1, 1, 2, 3]).unwrap()).unwrap();
        conv
    };
    let x = Tensor::from_vec((0..9).map(|i| i as f32).collect(), [1, 1, 3, 3]).unwrap();
    let reflected = [20.0, 25.0, 22.0, 29.0, 34.0, 31.0, 2.0, 7.0, 4.0];
    let zeros = [18.0, 25.0, 10.0, 30.0, 34.0, 10.0, -6.0, -19.0, -22.0];
    let same = layer().padding(ConvPadding::Same).padding_mode(PadMode::Reflect);
    assert_close(&same.forward(&x), &[1, 1, 3, 3], &reflected);
    assert_close(&no_grad(|| same.forward(&x)), &[1, 1, 3, 3], &reflected);
    assert_close(&layer().padding(ConvPadding::Same).forward(&x), &[1, 1, 3, 3], &zeros);
    assert_close(&layer().padding([1, 1, 0, 1]).forward(&x), &[1, 1, 3, 3], &zeros);
    assert_eq!(layer().padding([0, 2, 1, 3]).stride(2).summary([1, 1, 3, 3]).unwrap().rows[0].output, Some(vec![1, 1, 3, 2]));
    check_gradients(&same, &x);
    let message = |conv: Conv2d| conv.forward(&x).unwrap_err().to_string();
    assert!(message(layer().padding(ConvPadding::Same).stride(2)).contains("same padding needs stride 1"));
    assert!(message(layer().padding(3).padding_mode(PadMode::Reflect)).contains("reflects more elements"));
    assert!(message(layer().padding([usize::MAX, 0, 0, 0])).contains("too large"));
}
