//! Maps of what a class depends on, against PyTorch; `fixtures/inspection.py` made the numbers.

use std::sync::LazyLock;

use convnet::nn::*;
use convnet::{DType, Tensor, inspect, manual_seed, models};
use serde_json::Value;

static FIXTURE: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(include_str!("../fixtures/inspection.json")).unwrap());

fn filled(shape: &[usize], scale: f64, shift: f64) -> Tensor {
    let count = shape.iter().product::<usize>();
    Tensor::from_vec((0..count).map(|i| (i as f64 * 1.7 + shift).sin() * scale).collect::<Vec<f64>>(), shape).unwrap()
}

fn network() -> Sequential {
    let net = Sequential::new()
        .push_named("conv1", Conv2d::new(2, 4, 3).padding(1))
        .push(ReLU)
        .push_named("conv2", Conv2d::new(4, 3, 3).stride(2).padding(1))
        .push_named("relu2", ReLU)
        .push(Flatten)
        .push_named("fc", Linear::new(36, 5));
    for (shift, scale) in [0.4, 0.3, 0.5].into_iter().enumerate() {
        let parameters = &net.parameters()[2 * shift..][..2];
        parameters[0].set(&filled(&parameters[0].shape(), scale, shift as f64)).unwrap();
        parameters[1].set(&filled(&parameters[1].shape(), 0.1, shift as f64 + 0.5)).unwrap();
    }
    net.to_dtype(DType::F64).unwrap();
    net
}

fn picture() -> Tensor {
    filled(&[1, 2, 6, 7], 1.0, 0.3)
}

/// Maps are of f32, the network and the fixture of f64 with 8 decimals.
fn check(found: &Tensor, name: &str, shape: &[usize]) {
    let expected: Vec<f64> = FIXTURE[name].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    let expected = Tensor::from_vec(expected, shape).unwrap();
    let found = found.to_dtype(DType::F64).unwrap();
    assert_eq!(found.shape(), shape);
    assert!(approx::abs_diff_eq!(found, expected, epsilon = 3e-7), "{name}: {:?}", found.worst_difference(&expected));
}

#[test]
fn maps_are_those_of_pytorch() {
    let (net, x) = (network(), picture());
    check(&net.forward(&x).unwrap(), "logits", &[1, 5]);
    check(&inspect::grad_cam(&net, "conv2", &x, 3).unwrap(), "grad_cam", &[6, 7]);
    check(&inspect::grad_cam_plus_plus(&net, "relu2", &x, 3).unwrap(), "grad_cam_plus_plus", &[6, 7]);
    check(&inspect::saliency(&net, &x, 3).unwrap(), "saliency", &[6, 7]);
    let baseline = filled(&[1, 2, 6, 7], 0.0, 0.0).add_scalar(0.1);
    let parts = inspect::integrated_gradients(&net, &x, 3, Some(&baseline), 20).unwrap();
    check(&parts, "integrated_gradients", &[1, 2, 6, 7]);
    check(&inspect::occlusion(&net, &x, 3, 3, 2, 0.25).unwrap(), "occlusion", &[6, 7]);
    // A picture without the batch's dimension is the same picture.
    let single = x.reshape([2, 6, 7]).unwrap();
    check(&inspect::grad_cam(&net, "conv2", &single, 3).unwrap(), "grad_cam", &[6, 7]);
}

#[test]
fn smooth_gradient_is_the_saliency_of_the_mean_gradient() {
    let (net, x) = (network(), picture());
    check(&inspect::smooth_grad(&net, &x, 3, 2, 0.0, 0).unwrap(), "saliency", &[6, 7]);
    let noisy = |seed| inspect::smooth_grad(&net, &x, 3, 4, 0.3, seed).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(noisy(1), noisy(1));
    assert_ne!(noisy(1), noisy(2));
    // The gradient of a linear network is the same everywhere.
    convnet::manual_seed(0);
    let linear = Sequential::new().push(Flatten).push(Linear::new(12, 2));
    let x = Tensor::randn([1, 3, 2, 2]);
    let (smooth, plain) = (inspect::smooth_grad(&linear, &x, 1, 5, 0.5, 7).unwrap(), inspect::saliency(&linear, &x, 1).unwrap());
    super::assert_close(&smooth, &plain);
}

#[test]
fn without_class_the_predicted_one_is_explained() {
    let (net, x) = (network(), picture());
    let class = net.forward(&x).unwrap().argmax(..).unwrap().item::<i64>().unwrap() as usize;
    for (some, none) in [
        (inspect::grad_cam(&net, "conv2", &x, class), inspect::grad_cam(&net, "conv2", &x, None)),
        (inspect::saliency(&net, &x, class), inspect::saliency(&net, &x, None)),
        (inspect::occlusion(&net, &x, class, 3, 2, 0.0), inspect::occlusion(&net, &x, None, 3, 2, 0.0)),
        (inspect::smooth_grad(&net, &x, class, 2, 0.1, 0), inspect::smooth_grad(&net, &x, None, 2, 0.1, 0)),
        (inspect::integrated_gradients(&net, &x, class, None, 3), inspect::integrated_gradients(&net, &x, None, None, 3)),
    ] {
        assert_eq!(some.unwrap(), none.unwrap());
    }
}

#[test]
fn attributions_leave_the_model_as_it_was() {
    manual_seed(1);
    let model = models::create("resnet18", 4).unwrap();
    model.freeze("layer1").unwrap();
    let before = model.state_dict();
    let x = Tensor::randn([1, 3, 32, 32]);
    let heat = inspect::grad_cam(&model, "layer2.1", &x, 2).unwrap();
    assert_eq!(heat.shape(), [32, 32]);
    inspect::saliency(&model, &x, 2).unwrap();
    assert!(model.is_training());
    assert!(model.state_dict().iter().zip(before.iter()).all(|(a, b)| a.1 == b.1), "running estimates have changed");
}

#[test]
fn maps_that_make_no_sense_are_errors_with_help() {
    let (net, x) = (network(), picture());
    let message = |result: convnet::Result<Tensor>| result.unwrap_err().to_string();
    assert!(message(inspect::grad_cam(&net, "conv3", &x, 3)).contains("near names are conv1, conv2"));
    assert!(message(inspect::grad_cam(&net, "fc", &x, 3)).contains("expected a layer with an output [1, maps, h, w], got shape [1, 5]"));
    assert!(message(inspect::grad_cam(&net, "conv2", &x, 5)).contains("class 5 does not exist; the model has classes 0 to 4"));
    let pair = Tensor::cat(&[&x, &x], 0).unwrap();
    assert!(message(inspect::saliency(&net, &pair, 3)).contains("expected one picture"));
    assert!(message(inspect::occlusion(&net, &x, 3, 2, 3, 0.0)).contains("strides from 1 to the window's size"));
    assert!(message(inspect::smooth_grad(&net, &x, 3, 0, 0.1, 0)).contains("at least one sample"));
    assert!(message(inspect::integrated_gradients(&net, &x, 3, None, 0)).contains("1 to 1,000 steps"));
    assert!(message(inspect::integrated_gradients(&net, &x, 3, Some(&Tensor::zeros([1, 2, 3, 3])), 5)).contains("baseline"));
    let constant = Sequential::new().push(Conv2d::new(2, 5, 1)).push(AdaptiveAvgPool2d::new(1)).push(Flatten);
    assert!(message(inspect::saliency(&constant, &Tensor::zeros([1, 3, 2, 2]), 0)).contains("expected 2 input channels"));
    // A window larger than the picture covers all of it.
    assert_eq!(inspect::occlusion(&net, &x, 3, 100, 100, 0.0).unwrap().shape(), [6, 7]);
}
