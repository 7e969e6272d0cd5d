//! Each layer, and initialisers.

use convnet::nn::*;
use convnet::ops::PadMode;
use convnet::{DType, Error, Result, Tensor, manual_seed, no_grad};

use super::{content, values};

#[test]
fn every_layer_gives_the_shapes_and_keys_that_pytorch_gives() {
    // As printed by torch.nn's layers of the same options for these inputs.
    let map = || Tensor::zeros([2, 12, 9, 8]);
    let bn_keys = "weight[12] bias[12] running_mean[12] running_var[12] num_batches_tracked[]";
    let conv = Conv2d::new(12, 8, [3, 5]).stride([2, 1]).padding([1, 2]).dilation([1, 2]).groups(4);
    let cases: Vec<(Box<dyn Module>, Tensor, &[usize], &str)> = vec![
        (Box::new(conv), map(), &[2, 8, 5, 4], "weight[8, 3, 3, 5] bias[8]"),
        (Box::new(Conv2d::new(12, 8, 3).bias(false)), map(), &[2, 8, 7, 6], "weight[8, 12, 3, 3]"),
        (Box::new(Conv1d::new(12, 6, 3).stride(2).padding(1).groups(3)), Tensor::zeros([2, 12, 9]), &[2, 6, 5], "weight[6, 4, 3] bias[6]"),
        (
            Box::new(ConvTranspose2d::new(12, 6, 3).stride(2).padding(1).output_padding(1).groups(3)),
            map(),
            &[2, 6, 18, 16],
            "weight[12, 2, 3, 3] bias[6]",
        ),
        (Box::new(Linear::new(8, 5)), map(), &[2, 12, 9, 5], "weight[5, 8] bias[5]"),
        (Box::new(BatchNorm1d::new(12)), Tensor::zeros([2, 12]), &[2, 12], bn_keys),
        (Box::new(BatchNorm1d::new(12)), Tensor::zeros([2, 12, 9]), &[2, 12, 9], bn_keys),
        (Box::new(BatchNorm2d::new(12)), map(), &[2, 12, 9, 8], bn_keys),
        (Box::new(BatchNorm2d::new(12).affine(false).track_running_stats(false)), map(), &[2, 12, 9, 8], ""),
        (Box::new(LayerNorm::new([9, 8])), map(), &[2, 12, 9, 8], "weight[9, 8] bias[9, 8]"),
        (Box::new(LayerNorm::new([8]).affine(false)), map(), &[2, 12, 9, 8], ""),
        (Box::new(GroupNorm::new(3, 12)), map(), &[2, 12, 9, 8], "weight[12] bias[12]"),
        (Box::new(LocalResponseNorm::new(5)), map(), &[2, 12, 9, 8], ""),
        (Box::new(Dropout::new(0.5)), map(), &[2, 12, 9, 8], ""),
        (Box::new(Dropout2d::new(0.5)), map(), &[2, 12, 9, 8], ""),
        (Box::new(Flatten), map(), &[2, 864], ""),
        (Box::new(Flatten::new(2, -1)), map(), &[2, 12, 72], ""),
        (Box::new(Identity), map(), &[2, 12, 9, 8], ""),
        (Box::new(Upsample::new(2)), map(), &[2, 12, 18, 16], ""),
        (Box::new(Upsample::to_size([5, 20]).bilinear(true)), map(), &[2, 12, 5, 20], ""),
        (Box::new(MaxPool2d::new(3)), map(), &[2, 12, 3, 2], ""),
        (Box::new(MaxPool2d::new(3).stride(2).padding(1).ceil_mode(true)), map(), &[2, 12, 5, 5], ""),
        (Box::new(MaxPool2d::new(2).dilation(2)), map(), &[2, 12, 4, 3], ""),
        (Box::new(AvgPool2d::new([2, 3]).stride(2).padding(1).count_include_pad(false)), map(), &[2, 12, 5, 4], ""),
        (Box::new(AvgPool2d::new(2).ceil_mode(true)), map(), &[2, 12, 5, 4], ""),
        (Box::new(AdaptiveAvgPool2d::new(1)), map(), &[2, 12, 1, 1], ""),
        (Box::new(AdaptiveMaxPool2d::new([3, 20])), map(), &[2, 12, 3, 20], ""),
        (Box::new(Maxout::new(4)), map(), &[2, 3, 9, 8], ""),
        (Box::new(ConvTranspose1d::new(12, 6, 3).stride(2).groups(3)), Tensor::zeros([2, 12, 9]), &[2, 6, 19], "weight[12, 2, 3] bias[6]"),
        (Box::new(MaxPool1d::new(3).stride(2).padding(1)), Tensor::zeros([2, 12, 9]), &[2, 12, 5], ""),
        (Box::new(AvgPool1d::new(2).ceil_mode(true)), Tensor::zeros([2, 12, 9]), &[2, 12, 5], ""),
        (Box::new(AdaptiveAvgPool1d::new(4)), Tensor::zeros([2, 12, 9]), &[2, 12, 4], ""),
        (Box::new(SpatialPyramidPooling::new([1, 2, 4])), map(), &[2, 252], ""),
        (Box::new(InstanceNorm2d::new(12)), map(), &[2, 12, 9, 8], ""),
        (Box::new(InstanceNorm1d::new(12).affine(true).track_running_stats(true)), Tensor::zeros([2, 12, 9]), &[2, 12, 9], bn_keys),
        (Box::new(PReLU::new(12)), map(), &[2, 12, 9, 8], "weight[12]"),
        (Box::new(PReLU::default()), map(), &[2, 12, 9, 8], "weight[1]"),
        (Box::new(PixelShuffle::new(2)), map(), &[2, 3, 18, 16], ""),
        (Box::new(PixelUnshuffle::new(3)), Tensor::zeros([2, 12, 9, 6]), &[2, 108, 3, 2], ""),
        (Box::new(ChannelShuffle::new(4)), map(), &[2, 12, 9, 8], ""),
        (Box::new(Pad::new([1, 2, 0, 3]).mode(PadMode::Reflect)), map(), &[2, 12, 12, 11], ""),
        (Box::new(Pad::new([-1, 2])), Tensor::zeros([2, 12, 9]), &[2, 12, 10], ""),
        (Box::new(Softmax::new(1)), map(), &[2, 12, 9, 8], ""),
        (Box::new(LogSoftmax::new(-1)), map(), &[2, 12, 9, 8], ""),
    ];
    for (layer, x, shape, keys) in cases {
        assert_eq!(layer.forward(&x).unwrap().shape(), shape, "{layer:?}");
        let found: Vec<String> = layer.state_dict().iter().map(|(name, t)| format!("{name}{:?}", t.shape())).collect();
        assert_eq!(found.join(" "), keys, "{layer:?}");
        assert_eq!(layer.summary(x.shape()).unwrap().rows.len(), 1, "{layer:?} reports its run");
        // Inputs of a rank or with channels that do not fit, and of another dtype, are errors or
        // results, never panics.
        for bad in [Tensor::zeros([]), Tensor::zeros([3]), Tensor::zeros([0, 0, 0, 0]), Tensor::zeros([2, 5, 9, 7]), Tensor::arange(6)] {
            if let Err(error) = layer.forward(&bad) {
                assert!(matches!(error, Error::Layer { .. }), "{layer:?}: {error}");
            }
        }
    }
}

#[test]
fn a_picture_or_sequence_without_a_batch_dimension_gives_what_it_gives_in_a_batch_of_one() {
    manual_seed(1);
    let (picture, sequence) = (Tensor::randn([4, 7, 6]), Tensor::randn([4, 9]));
    let pictures: [Box<dyn Module>; 10] = [
        Box::new(Pad::new([1, 2, 3, 0]).mode(PadMode::Circular)),
        Box::new(Conv2d::new(4, 6, 3).padding(ConvPadding::Same)),
        Box::new(Conv2d::new(4, 6, 3).padding([0, 1, 2, 0]).padding_mode(PadMode::Reflect)),
        Box::new(ConvTranspose2d::new(4, 2, 2).stride(2)),
        Box::new(MaxPool2d::new(2)),
        Box::new(AvgPool2d::new(2)),
        Box::new(SpatialPyramidPooling::new([1, 2])),
        Box::new(Upsample::new(2)),
        Box::new(InstanceNorm2d::new(4)),
        Box::new(Sequential::new().push(Conv2d::new(4, 4, 3)).push(ReLU).push(AdaptiveAvgPool2d::new(1))),
    ];
    let sequences: [Box<dyn Module>; 6] = [
        Box::new(Conv1d::new(4, 6, 3).padding(1)),
        Box::new(ConvTranspose1d::new(4, 2, 2).stride(2)),
        Box::new(MaxPool1d::new(2)),
        Box::new(AvgPool1d::new(2)),
        Box::new(AdaptiveAvgPool1d::new(4)),
        Box::new(InstanceNorm1d::new(4)),
    ];
    for (x, layers) in [(picture, &pictures[..]), (sequence, &sequences)] {
        for layer in layers {
            let of_batch = layer.forward(&x.unsqueeze(0).unwrap()).unwrap();
            assert_eq!(layer.forward(&x).unwrap(), of_batch.squeeze(0).unwrap(), "{layer:?}");
            // In evaluation, convolutions run with prepared weights.
            assert_eq!(no_grad(|| layer.forward(&x)).unwrap(), no_grad(|| layer.forward(&x.unsqueeze(0)?)).unwrap().squeeze(0).unwrap());
        }
    }
}

#[test]
fn activations_are_those_of_tensors() {
    let x = Tensor::linspace(-4.0, 4.0, 33);
    let cases: Vec<(Box<dyn Module>, Result<Tensor>)> = vec![
        (Box::new(ReLU), Ok(x.relu())),
        (Box::new(LeakyReLU::new(0.2)), x.leaky_relu(0.2)),
        (Box::new(ELU::new(0.5)), x.elu(0.5)),
        (Box::new(GELU), x.gelu()),
        (Box::new(SiLU), x.silu()),
        (Box::new(Sigmoid), x.sigmoid()),
        (Box::new(Tanh), x.tanh()),
        (Box::new(Hardsigmoid), x.hardsigmoid()),
        (Box::new(Hardswish), x.hardswish()),
        (Box::new(Mish), x.mish()),
        (Box::new(SELU), x.selu()),
        (Box::new(CELU::new(0.5)), x.celu(0.5)),
        (Box::new(LogSigmoid), x.logsigmoid()),
        (Box::new(Hardtanh::default()), x.clamp(-1.0, 1.0)),
        (Box::new(ReLU6), x.relu6()),
        (Box::new(Softplus), x.softplus()),
        (Box::new(Softmax::new(0)), x.softmax(0)),
        (Box::new(LogSoftmax::new(0)), x.log_softmax(0)),
    ];
    for (layer, expected) in cases {
        assert_eq!(values(&layer.forward(&x).unwrap()), values(&expected.unwrap()), "{layer:?}");
    }
    let pairs = x.narrow(0, 0, 32).unwrap().reshape([4, 8]).unwrap();
    assert_eq!(values(&GLU::new(-1).forward(&pairs).unwrap()), values(&pairs.glu(1).unwrap()));
}

#[test]
fn training_and_evaluation_reach_every_layer_inside() {
    let net = Sequential::new().push(Sequential::new().push(Dropout::new(0.5))).push(Dropout2d::new(0.5));
    let x = Tensor::ones([1, 64, 4, 4]);
    assert!(net.is_training());
    assert!(values(&net.forward(&x).unwrap()).contains(&0.0));
    net.eval();
    assert!(!net.is_training());
    assert_eq!(values(&net.forward(&x).unwrap()), values(&x));
    net.train();
    assert!(values(&net.summary([1, 64, 4, 4]).map(|_| net.forward(&x).unwrap()).unwrap()).contains(&0.0), "summary puts it back");
}

fn assert_close(a: &[f32], b: &[f64]) {
    // A handful of f32 operations on values of this size.
    let a: Vec<f64> = a.iter().map(|&a| a.into()).collect();
    approx::assert_relative_eq!(a[..], *b, epsilon = 2e-6, max_relative = 2e-6);
}

#[test]
fn batch_norm_follows_pytorch() {
    // bn = torch.nn.BatchNorm2d(2); x = torch.arange(16.).reshape(2, 2, 2, 2) ** 2 / 10; bn(x); …;
    // bn(x * 2 - 3); …; bn.eval(); bn(x)
    let x = Tensor::from_vec((0..16).map(|i| (i * i) as f32 / 10.0).collect(), [2, 2, 2, 2]).unwrap();
    let statistics = |bn: &BatchNorm2d| -> (Vec<f32>, Vec<f32>, i64) {
        let of = |buffer: &Option<Buffer>| buffer.as_ref().unwrap().tensor();
        (values(&of(&bn.running_mean)), values(&of(&bn.running_var)), of(&bn.num_batches_tracked).item().unwrap())
    };
    let bn = BatchNorm2d::new(2);
    let y = values(&bn.forward(&x).unwrap());
    assert_close(&y[..3], &[-1.0200908184051514, -0.9986152052879333, -0.9341884255409241]);
    assert_close(&y[13..], &[0.7743202447891235, 1.1142657995224, 1.479392409324646]);
    let (mean, var, batches) = statistics(&bn);
    assert_close(&mean, &[0.4749999940395355, 1.0750000476837158]);
    assert_close(&var, &[3.378000020980835, 8.109428405761719]);
    assert_eq!(batches, 1);
    // Under no_grad too.
    let second = &(&x * 2.0) - 3.0;
    no_grad(|| bn.forward(&second)).unwrap();
    let (mean, var, batches) = statistics(&bn);
    assert_close(&mean, &[1.0774999856948853, 2.817500114440918]);
    assert_close(&var, &[12.952200889587402, 36.136199951171875]);
    assert_eq!(batches, 2);
    bn.eval();
    let y = values(&bn.forward(&x).unwrap());
    assert_close(&y[..3], &[-0.29939553141593933, -0.2716093957424164, -0.18825100362300873]);
    assert_close(&y[13..], &[2.342655658721924, 2.791806697845459, 3.27422833442688]);
    assert_eq!(statistics(&bn).2, 2, "evaluation changes nothing");

    let average = BatchNorm2d::new(2).momentum(None);
    average.forward(&x).unwrap();
    average.forward(&second).unwrap();
    assert_close(&statistics(&average).0, &[5.625, 14.625]);
    assert_close(&statistics(&average).1, &[61.95000076293945, 180.2357177734375]);
}

#[test]
fn batch_norm_refuses_inputs_without_statistics() {
    let bn = Sequential::new().push_named("bn", BatchNorm2d::new(3));
    let single = Tensor::ones([1, 3, 1, 1]);
    let error = bn.forward(&single).unwrap_err().to_string();
    assert_eq!(
        error,
        "bn (BatchNorm2d 3): expected more than one value per channel to take statistics of, got shape [1, 3, 1, 1]; use a larger batch, or running statistics (`eval()`)"
    );
    bn.eval();
    assert!(bn.forward(&single).is_ok());
    bn.train();
    let before = content(&bn.state_dict());
    assert!(bn.forward(&Tensor::zeros([0, 3, 4, 4])).is_ok_and(|y| y.shape() == [0, 3, 4, 4]));
    assert_eq!(content(&bn.state_dict()), before, "an empty batch leaves the running estimates alone");
    let error = bn.forward(&Tensor::zeros([2, 4, 1, 1])).unwrap_err().to_string();
    assert!(error.contains("expected 3 channels, got shape [2, 4, 1, 1]"), "{error}");
}

#[test]
fn a_checkpoint_without_num_batches_tracked_loads() {
    let bn = BatchNorm2d::new(3);
    let mut state = bn.state_dict();
    state.remove("num_batches_tracked");
    assert_eq!(bn.load_state_dict(&state).unwrap().loaded, 4);
}

#[test]
fn a_network_computes_in_f64_after_to_dtype() {
    let net = Sequential::new().push(Conv2d::new(1, 2, 3)).push(BatchNorm2d::new(2)).push(ReLU);
    net.to_dtype(DType::F64).unwrap();
    let y = net.forward(&Tensor::full([2, 1, 5, 5], 1.0, DType::F64)).unwrap();
    assert_eq!(y.dtype(), DType::F64);
    let of = |name: &str| net.state_dict().get(name).unwrap().dtype();
    assert_eq!((of("1.running_var"), of("1.num_batches_tracked")), (DType::F64, DType::I64));
    assert_eq!(net.summary([2, 1, 5, 5]).unwrap().state_bytes, 8 * (18 + 2 + 2 + 2 + 2 + 2) + 8);
}

#[test]
fn fused_helpers_are_the_layers_one_after_the_other() {
    let (conv, bn) = (Conv2d::new(3, 4, 3).padding(1).bias(false), BatchNorm2d::new(4));
    let (x, shortcut) = (Tensor::randn([2, 3, 6, 6]), Tensor::randn([2, 4, 6, 6]));
    for training in [true, false] {
        if training {
            bn.train()
        } else {
            bn.eval()
        }
        let plain = bn.forward(&conv.forward(&x).unwrap()).unwrap();
        assert_eq!(values(&conv_bn(&conv, &bn, &x).unwrap()), values(&plain));
        assert_eq!(values(&conv_bn_relu(&conv, &bn, &x).unwrap()), values(&plain.relu()));
        assert_eq!(values(&conv_bn_add_relu(&conv, &bn, &x, &shortcut).unwrap()), values(&(&plain + &shortcut).relu()));
    }
}

#[test]
fn initialisers_have_their_documented_spread() {
    manual_seed(11);
    let shape = [64, 32, 3, 3];
    let spread = |t: &Tensor| {
        let v = values(t);
        (v.iter().map(|x| f64::from(x * x)).sum::<f64>() / v.len() as f64).sqrt()
    };
    let (fan_in, fan_out) = (32.0 * 9.0f64, 64.0 * 9.0f64);
    let cases = [
        (init::kaiming_normal(shape, init::Fan::Out, init::Gain::Relu), (2.0 / fan_out).sqrt()),
        (init::kaiming_uniform(shape, init::Fan::In, init::Gain::LeakyRelu(5f64.sqrt())), (1.0 / (3.0 * fan_in)).sqrt()),
        (init::xavier_normal(shape, init::Gain::Linear), (2.0 / (fan_in + fan_out)).sqrt()),
        (init::xavier_uniform(shape, init::Gain::Tanh), 5.0 / 3.0 * (2.0 / (fan_in + fan_out)).sqrt()),
        (init::normal(shape, 0.0, 0.3), 0.3),
        (init::uniform(shape, -0.3, 0.3), 0.3 / 3f64.sqrt()),
        // The standard deviation of a normal distribution truncated at two deviations, as a share
        // of the original's.
        (init::truncated_normal(shape, 0.0, 0.1, -0.2, 0.2), 0.1 * 0.773_741_f64.sqrt()),
        (init::constant(shape, 0.7), 0.7),
    ];
    for (i, (tensor, expected)) in cases.into_iter().enumerate() {
        let found = spread(&tensor.unwrap());
        assert!(approx::relative_eq!(found, expected, max_relative = 0.02), "case {i}: {found} is not {expected}"); // 18,432 draws deviate by half a percent
    }
    assert!(values(&init::truncated_normal([1000], 0.0, 1.0, 0.5, 0.6).unwrap()).iter().all(|x| (0.5..=0.6).contains(x)));
    assert!(init::truncated_normal([2], 0.0, 1.0, 60.0, 61.0).unwrap_err().to_string().contains("next to nothing"));
    assert!(init::truncated_normal([2], 0.0, f64::NAN, -1.0, 1.0).is_err());
    assert!(init::kaiming_normal([3], init::Fan::In, init::Gain::Relu).unwrap_err().to_string().contains("at least 2 dimensions"));
    assert!(init::uniform([usize::MAX, 3], 0.0, 1.0).is_err());
}

#[test]
fn uniform_numbers_stay_below_their_upper_bound() {
    // f32 has four numbers in this interval: rounding would give the bound itself.
    let x = init::uniform([10_000], 4_194_304.0, 4_194_306.0).unwrap();
    assert!(values(&x).iter().all(|x| (4_194_304.0..4_194_306.0).contains(x)));
}

#[test]
fn parts_that_were_switched_off_can_be_switched_on_again() {
    let shapes = |module: &dyn Module| module.state_dict().iter().map(|(_, value)| value.shape().to_vec()).collect::<Vec<_>>();
    let layers: [[Box<dyn Module>; 2]; 8] = [
        [Box::new(Conv1d::new(4, 6, 3).bias(false).bias(true)), Box::new(Conv1d::new(4, 6, 3))],
        [Box::new(Conv2d::new(4, 6, 3).groups(2).bias(false).bias(true)), Box::new(Conv2d::new(4, 6, 3).groups(2))],
        [Box::new(ConvTranspose1d::new(4, 6, 3).bias(false).bias(true)), Box::new(ConvTranspose1d::new(4, 6, 3))],
        [Box::new(ConvTranspose2d::new(4, 6, 3).bias(false).bias(true)), Box::new(ConvTranspose2d::new(4, 6, 3))],
        [Box::new(Linear::new(4, 6).bias(false).bias(true)), Box::new(Linear::new(4, 6))],
        [Box::new(LayerNorm::new([4]).affine(false).affine(true)), Box::new(LayerNorm::new([4]))],
        [Box::new(GroupNorm::new(2, 4).affine(false).affine(true)), Box::new(GroupNorm::new(2, 4))],
        [
            Box::new(BatchNorm2d::new(4).affine(false).track_running_stats(false).affine(true).track_running_stats(true)),
            Box::new(BatchNorm2d::new(4)),
        ],
    ];
    for [again, plain] in layers {
        assert_eq!(shapes(&*again), shapes(&*plain));
        assert!(again.parameters().iter().all(|parameter| parameter.numel() > 0));
    }
}

#[test]
fn normalisations_that_memory_cannot_hold_are_errors_of_forward() {
    let layers: [Box<dyn Module>; 3] =
        [Box::new(LayerNorm::new([1 << 50])), Box::new(GroupNorm::new(1, 1 << 50)), Box::new(BatchNorm1d::new(1 << 50))];
    for layer in layers {
        assert!(layer.forward(&Tensor::zeros([0, 1 << 50])).is_err());
    }
}
