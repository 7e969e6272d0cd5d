use super::*;
use crate::MemoryFormat;
use crate::autograd::{checkpoint, gradcheck};
use crate::kernels::runtime::allocator::requested;

#[test]
fn graph_of_100_000_operations_is_traversed_and_dropped_without_recursion() {
    let x = Tensor::ones([1]).with_grad();
    let mut y = x.clone();
    for _ in 0..100_000 {
        y = &y + 1.0;
    }
    let grads = y.backward().unwrap();
    assert_eq!(grads.get(&x).unwrap().item::<f32>().unwrap(), 1.0);
    let mut z = x.clone();
    for _ in 0..100_000 {
        z = &z * 1.0;
    }
    drop(z);
}

#[test]
fn second_pass_needs_retained_graph() {
    let x = Tensor::ones([2]).with_grad();
    let y = (&x * &x).sum(..).unwrap();
    let keep = BackwardOptions { retain_graph: true, ..Default::default() };
    assert_eq!(y.backward_with(keep).unwrap().len(), 1);
    assert_eq!(y.backward().unwrap().len(), 1);
    let error = y.backward().unwrap_err().to_string();
    assert!(error.contains("retain_graph"), "{error}");
}

#[test]
fn start_that_does_not_fit_is_rejected() {
    let x = Tensor::ones([2]).with_grad();
    assert!(x.backward().unwrap_err().to_string().contains("needs a gradient"));
    let wrong = BackwardOptions { gradient: Some(Tensor::ones([3])), ..Default::default() };
    assert!(x.backward_with(wrong).unwrap_err().to_string().contains("does not fit"));
    assert!(Tensor::ones([1]).backward().unwrap_err().to_string().contains("wants a gradient. Likely causes: all parameters are frozen"));
    assert!(crate::no_grad(|| Tensor::ones([1]).backward()).unwrap_err().to_string().contains("inside `no_grad`, as here"));
    assert!(Tensor::arange(1).backward().unwrap_err().to_string().contains("got i64; integers have no gradient"));
}

/// Returns maps of different numbers around one.
fn maps() -> Tensor {
    let [n, c, h, w] = [2, 3, 4, 5];
    Tensor::from_vec((0..n * c * h * w).map(|i| 0.5 + (i * 7919 % 101) as f64 / 101.0).collect(), [n, c, h, w]).unwrap()
}

#[test]
fn repeated_gradients_are_added_to_others_in_every_order() {
    let exp_anew = |x: &Tensor| checkpoint(&[x], |x| x[0].exp());
    // The operation that was recorded last passes its gradient on first.
    let functions: [(&str, &dyn Fn(&Tensor) -> Result<Tensor>); 10] = [
        ("small alone", &|x| x.mean([0, 2, 3])?.square()),
        ("small alone, to an operation", &|x| x.exp()?.adaptive_avg_pool2d([1, 1])?.square()),
        ("small first", &|x| {
            let large = x.square()?;
            x.mean_keepdim([2, 3])?.mul(&large)
        }),
        ("large first", &|x| {
            let small = x.mean_keepdim([2, 3])?;
            x.square()?.mul(&small)
        }),
        ("small, large, small", &|x| {
            let first = x.sum_keepdim([2, 3])?;
            let large = x.square()?;
            x.mean_keepdim(1)?.mul(&large)?.mul(&first)
        }),
        ("two of one shape", &|x| x.mean_keepdim([2, 3])?.mul(&x.sum_keepdim([2, 3])?)),
        ("two of two shapes", &|x| x.mean_keepdim([2, 3])?.mul(&x.mean_keepdim(1)?)),
        ("large ones that are the same tensor", &|x| {
            let small = x.mean(..)?;
            x.add(x)?.add(&small)?.square()
        }),
        ("to a checkpoint, alone", &|x| exp_anew(x)?.mean(1)?.square()),
        ("to a checkpoint, with a large one", &|x| {
            let y = exp_anew(x)?;
            checkpoint(&[&y], |y| y[0].mean_keepdim([2, 3])?.mul(&y[0]))
        }),
    ];
    for (name, function) in functions {
        for format in [MemoryFormat::RowMajor, MemoryFormat::ChannelsLast] {
            let checked = gradcheck(&[maps().to_format(format).unwrap()], Default::default(), |x| function(&x[0]));
            assert!(checked.is_ok(), "{name}, {format:?}: {}", checked.unwrap_err());
        }
    }
}

#[test]
fn repeated_gradient_is_expanded_at_leaf_and_stops_at_detached_tensor() {
    let x = maps().with_grad();
    let y = x.mean_keepdim([2, 3]).unwrap().mul(&x.detach()).unwrap().sum(..).unwrap();
    let gradients = y.backward().unwrap();
    let expected = maps().mean_keepdim([2, 3]).unwrap().expand([2, 3, 4, 5]).unwrap();
    let (found, expected) = (gradients.get(&x).unwrap().to_vec::<f64>().unwrap(), expected.to_vec::<f64>().unwrap());
    approx::assert_abs_diff_eq!(found[..], expected[..], epsilon = 1e-12);
}

#[test]
fn repeated_gradient_does_not_change_shared_tensors() {
    let (a, b) = (maps().with_grad(), maps().with_grad());
    let small = a.mean_keepdim([2, 3]).unwrap();
    let y = a.add(&b).unwrap().add(&small).unwrap();
    let start = maps();
    let options = BackwardOptions { gradient: Some(start.clone()), retain_graph: true };
    let gradients = [y.backward_with(options.clone()).unwrap(), y.backward_with(options).unwrap()];
    let mean = maps().mean_keepdim([2, 3]).unwrap();
    for gradients in gradients {
        assert_eq!(start.to_vec::<f64>().unwrap(), maps().to_vec::<f64>().unwrap());
        assert_eq!(gradients.get(&b).unwrap().to_vec::<f64>().unwrap(), maps().to_vec::<f64>().unwrap());
        assert_eq!(gradients.get(&a).unwrap().to_vec::<f64>().unwrap(), maps().add(&mean).unwrap().to_vec::<f64>().unwrap());
    }
}

#[test]
fn gradient_of_mean_is_added_in_place_to_whole_gradient() {
    let x = Tensor::ones([2, 8, 16, 16]).with_grad();
    let h = x.exp().unwrap();
    let gate = h.mean_keepdim([2, 3]).unwrap().square().unwrap();
    let loss = h.square().unwrap().sum(..).unwrap().add(&gate.sum(..).unwrap()).unwrap();
    let before = requested();
    loss.backward().unwrap();
    let (taken, whole) = (requested() - before, 4 * x.numel() as u64);
    assert!((whole..2 * whole).contains(&taken), "took {taken} bytes, of {whole} is the gradient itself");
}
