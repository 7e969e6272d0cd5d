//! Clipping of gradients against PyTorch.

use convnet::Tensor;
use convnet::autograd::Gradients;
use convnet::nn::Parameter;
use convnet::optim::{clip_grad_norm, clip_grad_norm_with, clip_grad_value};

use super::{FIXTURE, Problem, assert_close, numbers};

fn check_clipped(name: &str, problem: &Problem, grads: &Gradients) {
    for (key, parameter) in &problem.parameters {
        let got = grads.get(&parameter.tensor()).unwrap().to_vec::<f64>().unwrap();
        assert_close(&format!("{name} {key}"), &got, &numbers(&FIXTURE["clip"][name]["gradients"][key]), 1e-12);
    }
}

#[test]
fn clipping_follows_pytorch() {
    let infinite = f64::INFINITY;
    let cases =
        [("norm_small", 0.5, 2.0), ("norm_large", 1e3, 2.0), ("norm_1", 0.5, 1.0), ("norm_3.5", 0.2, 3.5), ("norm_inf", 0.1, infinite)];
    for (name, limit, p) in cases {
        let problem = Problem::new::<f64>();
        let mut grads = problem.loss().backward().unwrap();
        let norm = match p {
            2.0 => clip_grad_norm(&problem.all(), &mut grads, limit).unwrap(),
            _ => clip_grad_norm_with(&problem.all(), &mut grads, limit, p).unwrap(),
        };
        assert_close(name, &[norm], &[FIXTURE["clip"][name]["norm"].as_f64().unwrap()], 1e-12);
        check_clipped(name, &problem, &grads);
    }
    let problem = Problem::new::<f64>();
    let mut grads = problem.loss().backward().unwrap();
    // A gradient that is shared is not overwritten.
    let held = grads.get(&problem.parameters["w2"].tensor()).unwrap().clone();
    let before = held.to_vec::<f64>().unwrap();
    clip_grad_value(&problem.all(), &mut grads, 0.05).unwrap();
    check_clipped("value", &problem, &grads);
    assert_eq!(held.to_vec::<f64>().unwrap(), before);
}

#[test]
fn clipping_treats_gradients_that_are_not_finite_as_pytorch_does() {
    let w = Parameter::new(Tensor::zeros([2]));
    let clip = |values: [f32; 2]| {
        let mut grads = Gradients::default();
        grads.insert(&w.tensor(), Tensor::from_vec(values.to_vec(), [2]).unwrap());
        let norm = clip_grad_norm(std::slice::from_ref(&w), &mut grads, 1.0).unwrap();
        (norm, grads.get(&w.tensor()).unwrap().to_vec::<f32>().unwrap())
    };
    let (norm, values) = clip([f32::INFINITY, 1.0]);
    assert!(norm == f64::INFINITY && values[0].is_nan() && values[1] == 0.0);
    let (norm, values) = clip([f32::NAN, 1.0]);
    assert!(norm.is_nan() && values.iter().all(|x| x.is_nan()));
    // Its squares would overflow in f32.
    let (norm, values) = clip([3e30, 4e30]);
    approx::assert_relative_eq!(norm, 5e30, max_relative = 1e-6);
    approx::assert_abs_diff_eq!(values[1], 0.8, epsilon = 1e-6);
    let mut grads = Gradients::default();
    grads.insert(&w.tensor(), Tensor::from_vec(vec![f32::NAN, f32::NEG_INFINITY], [2]).unwrap());
    clip_grad_value(std::slice::from_ref(&w), &mut grads, 2.0).unwrap();
    let values = grads.get(&w.tensor()).unwrap().to_vec::<f32>().unwrap();
    assert!(values[0].is_nan() && values[1] == -2.0);
    for bad in [-1.0, f64::NAN] {
        assert!(clip_grad_norm(&[], &mut grads, bad).unwrap_err().to_string().contains("limit"));
        assert!(clip_grad_value(&[], &mut grads, bad).unwrap_err().to_string().contains("limit"));
    }
    assert_eq!(clip_grad_norm(&[], &mut grads, 1.0).unwrap(), 0.0);
    for p in [0.0, -1.0, f64::NAN] {
        assert!(clip_grad_norm_with(&[], &mut grads, 1.0, p).unwrap_err().to_string().contains("p must be above 0"));
    }
    // Powers that overflow, and what is no number.
    let w = Parameter::new(Tensor::zeros([3]));
    let leaf = w.tensor();
    for (values, p, expected) in [([3e30f32, 4e30, 0.0], 100.0, 4e30), ([1.0, f32::NAN, 2.0], 3.0, f64::NAN), ([0.0; 3], 3.0, 0.0)] {
        grads.insert(&leaf, Tensor::from_slice(&values, [3]).unwrap());
        let norm = clip_grad_norm_with(std::slice::from_ref(&w), &mut grads, 1.0, p).unwrap();
        assert!(norm.is_nan() && expected.is_nan() || approx::relative_eq!(norm, expected, max_relative = 1e-6), "{norm} of {values:?}");
    }
}
