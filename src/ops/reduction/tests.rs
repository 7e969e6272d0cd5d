use super::*;

fn vector(x: &[f32]) -> Tensor {
    Tensor::from_slice(x, [x.len()]).unwrap()
}

#[test]
fn nan_is_the_greatest_and_the_least_and_the_first_one_is_found() {
    let x = vector(&[1.0, f32::NAN, 7.0, f32::NAN]);
    assert!(x.max(0).unwrap().item::<f32>().unwrap().is_nan() && x.min(..).unwrap().item::<f32>().unwrap().is_nan());
    assert_eq!((x.argmax(0).unwrap().item::<i64>().unwrap(), x.argmin(..).unwrap().item::<i64>().unwrap()), (1, 1));
    // Long enough for several lanes and parts.
    let mut long = vec![0.0; 40_000];
    long[12_345] = f32::NAN;
    assert!(vector(&long).max(..).unwrap().item::<f32>().unwrap().is_nan());
}

#[test]
fn variance_beside_large_mean_keeps_its_digits() {
    let x: Vec<f32> = (0..9999).map(|i| 1e4 + 0.006 * ((i * 7919 % 9999) as f32 / 9999.0 - 0.5)).collect();
    let exact = |x: &[f32]| {
        let n = x.len() as f64;
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / (n - 1.0)
    };
    let found = f64::from(vector(&x).var(..).unwrap().item::<f32>().unwrap());
    // The deviations are exact; the remaining error is the rounding of about ten sums in f32.
    approx::assert_relative_eq!(found, exact(&x), max_relative = 1e-6);
    let y = vector(&x).with_grad();
    let gradient = y.var(..).unwrap().backward().unwrap().get(&y).unwrap().sum(..).unwrap().item::<f32>().unwrap();
    // Gradients sum to zero. They would not with the mean's rounding error, up to 5e-4, in each
    // of them.
    approx::assert_abs_diff_eq!(gradient, 0.0, epsilon = 1e-5);
}

#[test]
fn square_of_the_largest_numbers_has_a_gradient() {
    let x = vector(&[3.4e38, -3.4e38]).with_grad();
    let y = x.square().unwrap();
    let options = crate::autograd::BackwardOptions { gradient: Some(vector(&[1e-30, 0.25])), ..Default::default() };
    let gradient = y.backward_with(options).unwrap().get(&x).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(gradient, [2.0 * (1e-30 * 3.4e38), -1.7e38]);
}

/// The values and gradients are PyTorch's for `torch.tensor(3., requires_grad=True)`.
#[test]
fn tensor_without_dimensions_takes_dimension_0_and_the_last() {
    type Function = fn(&Tensor, isize) -> Result<Tensor>;
    let cases: [(&str, Function, f64, f64); 22] = [
        ("sum", |x, dim| x.sum(dim), 3.0, 1.0),
        ("sum over a list", |x, dim| x.sum([dim]), 3.0, 1.0),
        ("sum_keepdim", |x, dim| x.sum_keepdim(dim), 3.0, 1.0),
        ("mean", |x, dim| x.mean(dim), 3.0, 1.0),
        ("mean_keepdim", |x, dim| x.mean_keepdim(dim), 3.0, 1.0),
        ("max", |x, dim| x.max(dim), 3.0, 1.0),
        ("max_keepdim", |x, dim| x.max_keepdim(dim), 3.0, 1.0),
        ("min", |x, dim| x.min(dim), 3.0, 1.0),
        ("min_keepdim", |x, dim| x.min_keepdim(dim), 3.0, 1.0),
        ("logsumexp", |x, dim| x.logsumexp(dim), 3.0, 1.0),
        ("logsumexp_keepdim", |x, dim| x.logsumexp_keepdim(dim), 3.0, 1.0),
        ("var", |x, dim| x.var_with(dim, 0, false), 0.0, 0.0),
        ("unbiased var", |x, dim| x.var(dim), f64::NAN, f64::NAN),
        ("argmax", |x, dim| x.argmax(dim)?.to_dtype(DType::F64), 0.0, 0.0),
        ("argmax_keepdim", |x, dim| x.argmax_keepdim(dim)?.to_dtype(DType::F64), 0.0, 0.0),
        ("argmin", |x, dim| x.argmin(dim)?.to_dtype(DType::F64), 0.0, 0.0),
        ("softmax", |x, dim| x.softmax(dim), 1.0, 0.0),
        ("log_softmax", |x, dim| x.log_softmax(dim), 0.0, 0.0),
        ("squeeze", |x, dim| x.squeeze(dim), 3.0, 1.0),
        ("transpose", |x, dim| x.transpose(dim, 0), 3.0, 1.0),
        ("flip", |x, dim| x.flip(dim), 3.0, 1.0),
        ("flatten and unsqueeze", |x, dim| x.flatten(dim, 0)?.squeeze(0)?.unsqueeze(dim)?.squeeze(0), 3.0, 1.0),
    ];
    let same = |a: f64, b: f64| a == b || a.is_nan() && b.is_nan();
    for (name, f, value, slope) in cases {
        for dim in [0, -1] {
            let x = Tensor::scalar(3.0).with_grad();
            let y = f(&x, dim).unwrap_or_else(|error| panic!("{name} over {dim}: {error}"));
            assert!(y.ndim() == 0 && same(y.item().unwrap(), value), "{name} over {dim} gives {y:?}");
            if y.requires_grad() {
                let found = y.backward().unwrap().get(&x).unwrap().item::<f64>().unwrap();
                assert!(same(found, slope), "the gradient of {name} over {dim} is {found}");
            } else {
                assert_eq!(slope, 0.0, "{name} is not recorded");
            }
        }
        for dim in [1, -2] {
            let error = f(&Tensor::scalar(3.0), dim).unwrap_err().to_string();
            assert!(error.ends_with(&format!("dimension {dim} is outside a tensor with 0 dimensions")), "{name}: {error}");
        }
    }
    let scalar = Tensor::scalar(3.0);
    assert_eq!(scalar.sum([0, -1]).unwrap_err().to_string(), "sum: a dimension is named twice in [0, 0]");
    // These need the size of a dimension, and there is none, as in PyTorch.
    let refused = "dimension 0 is outside a tensor without dimensions";
    assert!(scalar.size(0).unwrap_err().to_string().contains(refused));
    assert!(scalar.narrow(0, 0, 1).unwrap_err().to_string().contains(refused));
    assert!(scalar.chunk(1, 0).unwrap_err().to_string().contains(refused));
    assert!(scalar.split(1, 0).unwrap_err().to_string().contains(refused));
    assert!(Tensor::cat(&[&scalar], 0).unwrap_err().to_string().contains(refused));
}

#[test]
fn bytes_are_summed_without_wrapping() {
    let x = Tensor::from_vec(vec![200u8; 1000], [1000]).unwrap();
    assert_eq!(x.sum(..).unwrap().item::<i64>().unwrap(), 200_000);
}

#[test]
fn large_mean_costs_the_variance_no_accuracy() {
    let x = vector(&[1e6, 1e6 + 1.0, 1e6 + 2.0]);
    assert_eq!(x.var(..).unwrap().item::<f32>().unwrap(), 1.0);
}

#[test]
fn reductions_refuse_what_they_cannot_do() {
    let (x, none) = (Tensor::zeros([2, 3, 4]), Tensor::zeros([2, 0]));
    let integers = Tensor::arange(3);
    let huge = Tensor::zeros([0, 1 << 20, 1 << 30]);
    for (result, message) in [
        (x.sum(3), "sum: dimension 3 is outside a tensor with 3 dimensions"),
        (x.mean([1, -2]), "mean: a dimension is named twice in [1, 1]"),
        (integers.mean(0), "mean: expected f32 or f64, got i64; convert with `.to_dtype(DType::F32)`"),
        (integers.var(0), "var: expected f32 or f64, got i64; convert with `.to_dtype(DType::F32)`"),
        (integers.logsumexp(0), "logsumexp: expected f32 or f64, got i64; convert with `.to_dtype(DType::F32)`"),
        (none.max(1), "max: needs at least one element, got shape [2, 0] over dimensions [1]"),
        (none.min(..), "min: needs at least one element, got shape [2, 0] over dimensions [0, 1]"),
        (none.argmax(1), "argmax: needs at least one element, got shape [2, 0] over dimensions [1]"),
        (x.argmin([0, 1]), "argmin: takes one dimension or all, got [0, 1] of 3 dimensions"),
        (x.softmax(3), "softmax: dimension 3 is outside a tensor with 3 dimensions"),
        (integers.log_softmax(0), "log_softmax: expected f32 or f64, got i64; convert with `.to_dtype(DType::F32)`"),
    ] {
        assert_eq!(result.unwrap_err().to_string(), message);
    }
    assert!(matches!(huge.sum(0), Err(Error::OutOfMemory { .. })));
    assert_eq!(huge.sum(..).unwrap().item::<f32>().unwrap(), 0.0);
    assert_eq!(huge.softmax(0).unwrap().shape(), huge.shape());
    assert_eq!(none.logsumexp(1).unwrap().to_vec::<f32>().unwrap(), [f32::NEG_INFINITY; 2]);
}
