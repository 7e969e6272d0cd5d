use super::*;
use crate::nn::{Linear, ModuleExt, ReLU, Sequential, StateDict};
use crate::ops::ConvAlgorithm;
use crate::{DType, no_grad, with_algorithm};

/// A convolution and a normalisation that is not the identity.
fn layers() -> (Conv2d, BatchNorm2d) {
    crate::manual_seed(3);
    let (conv, bn) = (Conv2d::new(5, 8, 3).padding(1), BatchNorm2d::new(8).eps(1e-3));
    for parameter in [&bn.weight, &bn.bias].into_iter().flatten() {
        parameter.set(&Tensor::randn([8])).unwrap();
    }
    bn.running_mean.as_ref().unwrap().set(&Tensor::randn([8])).unwrap();
    bn.running_var.as_ref().unwrap().set(&Tensor::rand([8]).add_scalar(0.5)).unwrap();
    bn.eval();
    (conv, bn)
}

fn apart(conv: &Conv2d, bn: &BatchNorm2d, x: &Tensor, shortcut: Option<&Tensor>, activation: Activation) -> Tensor {
    let options = crate::ops::Conv2dOptions { padding: [1, 1], ..Default::default() };
    let y = x.conv2d(&conv.weight.tensor(), conv.bias.as_ref().map(|bias| bias.tensor()).as_ref(), options).unwrap();
    let y = bn.forward(&y).unwrap();
    activation.apply(shortcut.map_or(y.clone(), |shortcut| y.add(shortcut).unwrap())).unwrap()
}

/// Compares with a tolerance for the rounding errors of a sum of 45 products per element.
fn assert_close(found: &Tensor, expected: &Tensor) {
    let bound = if found.dtype() == DType::F32 { 1e-5 } else { 1e-13 };
    crate::assert_close!(found, expected, epsilon = bound, max_relative = bound);
}

fn check(conv: &Conv2d, bn: &BatchNorm2d, x: &Tensor) {
    let found = no_grad(|| conv_bn_act(conv, bn, x, Activation::Silu)).unwrap();
    assert_close(&found, &apart(conv, bn, x, None, Activation::Silu));
    assert!(!found.requires_grad());
}

#[test]
fn fused_layers_give_the_results_of_single_layers() {
    let (conv, bn) = layers();
    for dtype in [DType::F32, DType::F64] {
        conv.to_dtype(dtype).unwrap();
        bn.to_dtype(dtype).unwrap();
        for shape in [[2, 5, 6, 7], [1, 5, 1, 1], [0, 5, 4, 4]] {
            let x = Tensor::randn(shape).cast(dtype).unwrap();
            let shortcut = Tensor::randn([shape[0], 8, shape[2], shape[3]]).cast(dtype).unwrap();
            for activation in [Activation::Linear, Activation::Relu, Activation::Relu6, Activation::Hardswish, Activation::Sigmoid] {
                let found = no_grad(|| conv_bn_add_act(&conv, &bn, &x, &shortcut, activation)).unwrap();
                assert_close(&found, &apart(&conv, &bn, &x, Some(&shortcut), activation));
            }
            assert_close(&no_grad(|| conv_act(&conv, &x, Activation::Relu)).unwrap(), &conv.forward(&x).unwrap().relu());
        }
    }
}

#[test]
fn statistics_from_the_convolution_train_like_those_of_single_layers() {
    let (mut found, mut expected) = (vec![], vec![]);
    for (results, one_by_one) in [(&mut found, false), (&mut expected, true)] {
        for dtype in [DType::F32, DType::F64] {
            let (conv, bn) = layers();
            bn.train();
            conv.to_dtype(dtype).unwrap();
            bn.to_dtype(dtype).unwrap();
            let x = Tensor::randn([3, 5, 6, 7]).cast(dtype).unwrap().with_grad();
            let shortcut = Tensor::randn([3, 8, 6, 7]).cast(dtype).unwrap();
            let y = match one_by_one {
                true => bn.forward(&conv.forward(&x).unwrap()).unwrap().add(&shortcut).unwrap().relu(),
                false => conv_bn_add_relu(&conv, &bn, &x, &shortcut).unwrap(),
            };
            let gradients = y.mul(&shortcut).unwrap().sum(..).unwrap().backward().unwrap();
            let running = [&bn.running_mean, &bn.running_var].map(|buffer| buffer.as_ref().unwrap().tensor());
            results.extend([y.detach(), gradients.get(&x).unwrap().clone(), gradients.get(&conv.weight.tensor()).unwrap().clone()]);
            results.extend(running);
        }
    }
    found.iter().zip(&expected).for_each(|(found, expected)| assert_close(found, expected));
}

#[test]
fn cached_weights_follow_every_change() {
    let (conv, bn) = layers();
    let x = Tensor::randn([1, 5, 4, 4]);
    check(&conv, &bn, &x);
    conv.weight.set(&Tensor::randn([8, 5, 3, 3])).unwrap();
    check(&conv, &bn, &x);
    let bias = conv.bias.as_ref().unwrap();
    bias.set(&bias.tensor().mul_scalar(2.0)).unwrap();
    check(&conv, &bn, &x);
    bn.running_var.as_ref().unwrap().set(&Tensor::full([8], 0.25, DType::F32)).unwrap();
    check(&conv, &bn, &x);
    let state: StateDict = Conv2d::new(5, 8, 3).state_dict();
    conv.load_state_dict(&state).unwrap();
    check(&conv, &bn, &x);
    bn.train();
    // The running estimates follow the batch, and the batch's statistics are used.
    no_grad(|| conv_bn(&conv, &bn, &x)).unwrap();
    bn.eval();
    check(&conv, &bn, &x);
    conv.freeze("").unwrap();
    check(&conv, &bn, &x);
    // Another normalisation after the same convolution.
    let other = layers().1;
    check(&conv, &other, &x);
    check(&conv, &bn, &x);
}

#[test]
fn other_size_algorithm_or_setting_uses_other_weights() {
    let (conv, bn) = layers();
    for size in [4, 5, 6, 7, 4] {
        check(&conv, &bn, &Tensor::randn([2, 5, size, size]));
    }
    let x = Tensor::randn([2, 5, 4, 4]);
    for algorithm in [ConvAlgorithm::Naive, ConvAlgorithm::Im2col, ConvAlgorithm::Direct] {
        with_algorithm(algorithm, || check(&conv, &bn, &x));
    }
    let conv = conv.stride(2);
    assert_eq!(no_grad(|| conv_bn(&conv, &bn, &x)).unwrap().shape(), [2, 8, 2, 2]);
}

#[test]
fn frozen_layers_in_evaluation_are_fused_while_recording_and_required_gradients_flow() {
    let (conv, bn) = layers();
    let x = Tensor::randn([1, 5, 4, 4]);
    assert!(conv_bn(&conv, &bn, &x).unwrap().requires_grad());
    conv.freeze("").unwrap();
    assert!(conv_bn(&conv, &bn, &x).unwrap().requires_grad(), "through the normalisation");
    bn.freeze("").unwrap();
    assert!(!conv_bn(&conv, &bn, &x).unwrap().requires_grad());
    assert!(conv_bn(&conv, &bn, &x.with_grad()).unwrap().requires_grad());
    assert!(conv_bn_add_relu(&conv, &bn, &x, &Tensor::randn([1, 8, 4, 4]).with_grad()).unwrap().requires_grad());
}

#[test]
fn misfits_are_reported_as_by_the_layers_themselves() {
    let (conv, bn) = layers();
    let message = |x: &Tensor, bn: &BatchNorm2d, shortcut: &Tensor| {
        let one = no_grad(|| conv_bn_add_relu(&conv, bn, x, shortcut)).unwrap_err().to_string();
        assert_eq!(one, conv_bn_add_relu(&conv, bn, x, shortcut).unwrap_err().to_string());
        one
    };
    let (x, shortcut) = (Tensor::zeros([1, 5, 4, 4]), Tensor::zeros([1, 8, 4, 4]));
    assert!(message(&Tensor::zeros([1, 4, 4, 4]), &bn, &shortcut).contains("expected 5 input channels"));
    assert!(message(&Tensor::zeros([5, 4, 4]), &bn, &shortcut).contains("expected [N, C, H, W]"));
    assert!(message(&x, &BatchNorm2d::new(7), &shortcut).contains("expected 7 channels"));
    assert!(message(&x, &bn, &Tensor::zeros([1, 8, 4, 3])).contains("[1, 8, 4, 3]"));
    assert!(message(&x.cast(DType::F64).unwrap(), &bn, &shortcut).contains("f64"));
    // The kernel does not take a shortcut of another dtype or one that broadcasts; the result
    // is the same without it.
    assert_eq!(no_grad(|| conv_bn_add_relu(&conv, &bn, &x, &shortcut.cast(DType::F64).unwrap())).unwrap().dtype(), DType::F64);
    assert_eq!(no_grad(|| conv_bn_add_relu(&conv, &bn, &x, &Tensor::ones([8, 1, 1]))).unwrap().shape(), [1, 8, 4, 4]);
}

#[test]
fn sequence_runs_neighbours_fused_and_lists_them_one_by_one() {
    crate::manual_seed(4);
    let (conv, bn) = layers();
    let plain = Conv2d::new(8, 3, 1);
    let x = Tensor::randn([2, 5, 4, 4]);
    let expected = apart(&conv, &bn, &x, None, Activation::Relu);
    let expected = plain.forward(&BatchNorm2d::new(8).forward(&expected).unwrap().relu()).unwrap().flatten(1, -1).unwrap();
    let net = Sequential::new().push(conv).push(Box::new(bn)).push(Some(ReLU)).push(BatchNorm2d::new(8)).push(ReLU).push(plain);
    let net = net.push(crate::nn::Flatten).push(ReLU).push(Linear::new(48, 2));
    Module::eval(net.child(1).unwrap());
    let last = net.child(8).unwrap().forward(&expected.relu()).unwrap();
    assert_close(&no_grad(|| net.forward(&x)).unwrap(), &last);
    // One row for the sequence, and one for each layer.
    assert_eq!(net.summary([2, 5, 4, 4]).unwrap().rows.len(), 1 + 9);
    let error = no_grad(|| net.forward(&Tensor::zeros([2, 4, 4, 4]))).unwrap_err().to_string();
    assert!(error.starts_with("0 (Conv2d 5→8, k3"), "{error}");
}
