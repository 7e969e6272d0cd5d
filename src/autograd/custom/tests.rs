use super::*;
use crate::autograd::{BackwardOptions, checkpoint::checkpoint, gradcheck};
use crate::{DType, Error, profile};

/// Returns `exp(x)`, integers, and the sum of `x²`: outputs of different shapes and types.
fn split(x: &Tensor) -> Result<Vec<Tensor>> {
    CustomOp::new("split_test").apply_many(&[x], |x| {
        let x = x[0].clone();
        let outputs = vec![x.exp()?, Tensor::arange(2), x.square()?.sum(..)?];
        let backward = move |grads: &[Option<Tensor>], _: &[bool]| {
            assert!(grads[1].is_none(), "integers have no gradient");
            let mut sum = Tensor::try_full(x.shape(), 0.0, x.dtype())?;
            if let Some(grad) = &grads[0] {
                sum = sum.add(&grad.mul(&x.exp()?)?)?;
            }
            if let Some(grad) = &grads[2] {
                sum = sum.add(&grad.mul(&x.mul_scalar(2.0))?)?;
            }
            Ok(vec![Some(sum)])
        };
        Ok((outputs, backward))
    })
}

fn numbers() -> Tensor {
    Tensor::from_vec(vec![0.3f64, -1.2, 0.7], [3]).unwrap()
}

#[test]
fn several_outputs_pass_gradients_in_any_combination() {
    type Function = fn(&[Tensor]) -> Result<Tensor>;
    let functions: [Function; 5] = [
        |x| split(&x[0])?[0].square(),
        |x| split(&x[0])?[2].square(),
        |x| {
            let y = split(&x[0])?;
            y[0].mul(&y[2])?.add(&y[0])
        },
        |x| split(&split(&x[0].mul(&x[0])?)?[0])?[2].mul(&x[0]),
        |x| checkpoint(&[&x[0]], |x| split(&x[0])?[0].mul(&split(&x[0])?[2])),
    ];
    for function in functions {
        gradcheck(&[numbers()], Default::default(), function).unwrap();
    }
    let y = split(&numbers().with_grad()).unwrap();
    assert!(y[0].requires_grad() && !y[1].requires_grad() && y[2].requires_grad());
    assert!(!crate::no_grad(|| split(&numbers().with_grad())).unwrap()[0].requires_grad());
}

#[test]
fn second_pass_through_another_output_needs_retained_graph() {
    let x = numbers().with_grad();
    let y = split(&x).unwrap();
    let keep = BackwardOptions { retain_graph: true, ..Default::default() };
    let first = y[2].backward_with(keep).unwrap().get(&x).unwrap().to_vec::<f64>().unwrap();
    let second = y[2].backward().unwrap().get(&x).unwrap().to_vec::<f64>().unwrap();
    assert_eq!((&first, second), (&vec![0.6, -2.4, 1.4], first.clone()));
    assert!(y[0].sum(..).unwrap().backward().unwrap_err().to_string().contains("retain_graph"));
}

fn values(gradients: &crate::autograd::Gradients, tensor: &Tensor) -> Vec<f64> {
    gradients.get(tensor).expect("a kept gradient").to_vec().unwrap()
}

#[test]
fn outputs_of_one_operation_keep_their_gradients_in_each_pass_over_a_retained_graph() {
    let x = numbers().with_grad();
    let y = split(&x).unwrap();
    y[0].retain_grad();
    y[2].retain_grad();
    let loss = y[0].mul_scalar(3.0).sum(..).unwrap().add(&y[2].mul_scalar(5.0)).unwrap();
    let keep = || BackwardOptions { retain_graph: true, ..Default::default() };
    let first = loss.backward_with(keep()).unwrap();
    assert_eq!((values(&first, &y[0]), values(&first, &y[2])), (vec![3.0; 3], vec![5.0]));
    // The second pass starts at one output, so that the other one takes no part in it.
    let second = y[2].backward_with(keep()).unwrap();
    assert_eq!(values(&second, &y[2]), [1.0]);
    assert!(second.get(&y[0]).is_none());
    let third = loss.backward().unwrap();
    assert_eq!((values(&third, &y[0]), values(&third, &x)), (values(&first, &y[0]), values(&first, &x)));
}

#[test]
fn results_of_checkpoints_keep_their_gradients_and_tensors_inside_do_not() {
    let x = numbers().with_grad();
    let inside = Arc::new(std::sync::Mutex::new(vec![]));
    let seen = Arc::clone(&inside);
    let y = checkpoint(&[&x], move |x| {
        let y = split(&x[0])?;
        y[0].retain_grad();
        seen.lock().unwrap().push(y[0].clone());
        y[0].mul(&y[2])
    })
    .unwrap();
    y.retain_grad();
    let gradients = y.mul_scalar(2.0).sum(..).unwrap().backward().unwrap();
    assert_eq!(values(&gradients, &y), [2.0; 3]);
    assert!(gradients.get(&x).is_some());
    let inside = inside.lock().unwrap();
    assert!(!inside.is_empty() && inside.iter().all(|tensor| gradients.get(tensor).is_none()));
}

#[test]
fn gradients_that_do_not_fit_inputs_are_errors() {
    let x = numbers().with_grad();
    let gives = |gradients: Vec<Option<Tensor>>| {
        let forward = |x: &[Tensor]| Ok((vec![x[0].exp()?], move |_: &[Option<Tensor>], _: &[bool]| Ok(gradients.clone())));
        CustomOp::new("wrong").apply_many(&[&x], forward).unwrap()[0].sum(..).unwrap().backward()
    };
    let message = |gradients| gives(gradients).unwrap_err().to_string();
    assert!(message(vec![]).contains("wrong: backward returned 0 gradients for 1 inputs"), "{}", message(vec![]));
    let text = message(vec![Some(Tensor::ones([2]))]);
    assert!(text.contains("wrong: backward returned a gradient of shape [2], expected [3], for input 0"), "{text}");
    let text = message(vec![Some(Tensor::ones([1]))]);
    assert!(text.contains("wrong: backward returned a gradient of shape [1], expected [3], for input 0"), "{text}");
    assert!(message(vec![Some(Tensor::arange(3))]).contains("a gradient of i64"));
    assert!(gives(vec![None]).unwrap().get(&x).is_none());
    assert!(gives(vec![Some(Tensor::ones([2, 3]))]).unwrap().get(&x).unwrap().to_vec::<f64>().unwrap() == [2.0; 3]);
}

#[test]
fn captures_of_backward_are_kept_only_when_recorded() {
    let kept = |x: &Tensor| {
        let token = Arc::new(());
        let inside = Arc::clone(&token);
        let forward = |[x]: [Tensor; 1]| {
            Ok((x.exp()?, move |grad: &Tensor, _: [bool; 1]| {
                let _inside = &inside;
                Ok([Some(grad.clone())])
            }))
        };
        let y = CustomOp::new("token").apply([x], forward).unwrap();
        let before = Arc::strong_count(&token);
        if y.requires_grad() {
            y.sum(..).unwrap().backward().unwrap();
        }
        (before, Arc::strong_count(&token))
    };
    assert_eq!((kept(&numbers()), kept(&numbers().with_grad())), ((1, 1), (2, 1)));
}

#[test]
fn profile_shows_operation_under_its_name() {
    let x = numbers().with_grad();
    let (_, profile) = profile(|| split(&x).unwrap()[0].sum(..).unwrap().backward().unwrap());
    let row = profile.get("", "split_test").unwrap();
    assert_eq!((row.forward.calls, row.backward.calls), (1, 1));
    assert!(profile.get("", "exp").is_none(), "a part of the operation");
}

#[test]
fn errors_of_forward_pass_are_returned() {
    let forward = |_: [Tensor; 1]| {
        let backward = |grad: &Tensor, _: [bool; 1]| Ok([Some(grad.clone())]);
        Err::<(Tensor, _), _>(Error::value("picky", "not today")).map(|(y, ())| (y, backward))
    };
    assert!(CustomOp::new("picky").apply([&Tensor::zeros([1])], forward).unwrap_err().to_string().contains("not today"));
    assert_eq!(numbers().dtype(), DType::F64);
}
