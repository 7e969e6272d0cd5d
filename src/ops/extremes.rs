//! Tests of functions of one element and their gradients over the whole range of `f32` and `f64`,
//! against formulas in `f64` that are also exact at the limits.

use crate::autograd::registry::OPERATIONS;
use crate::error::Result;
use crate::kernels::elementwise::epilogue::Activation;
use crate::ops::{BceOptions, Reduction};
use crate::tensor::{DType, Tensor};

/// A function under test with its reference value and derivative.
struct Case {
    name: &'static str,
    function: fn(&Tensor) -> Result<Tensor>,
    value: fn(f64) -> f64,
    slope: fn(f64) -> f64,
}

/// Magnitudes from the least subnormal numbers to the greatest numbers; each is tested with both
/// signs.
const MAGNITUDES: [f64; 28] = [
    0.0,
    5e-324,
    1e-310,
    1.4e-45,
    1e-40,
    1.2e-38,
    1e-20,
    1e-8,
    1e-3,
    0.1,
    0.5,
    1.5,
    2.0,
    4.0,
    7.0,
    12.0,
    19.0,
    21.0,
    50.0,
    88.0,
    104.0,
    1e4,
    1e10,
    1e16,
    1e20,
    1e38,
    3.4e38,
    f64::INFINITY,
];

/// Computes `a · b`, where a factor that has become 0 takes precedence over an infinite one.
fn product(a: f64, b: f64) -> f64 {
    if a == 0.0 || b == 0.0 { 0.0 } else { a * b }
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn logistic_slope(x: f64) -> f64 {
    let u = (-x.abs()).exp();
    u / (1.0 + u) / (1.0 + u)
}

/// Returns `tanh(ln(1 + eˣ))` and its derivative.
fn tanh_softplus(x: f64) -> [f64; 2] {
    let softplus = x.max(0.0) + (-x.abs()).exp().ln_1p();
    [softplus.tanh(), product(softplus.cosh().powi(-2), logistic(x))]
}

/// Computes the normal distribution function, from its series near 0 and from its continued
/// fraction farther away.
fn normal(x: f64) -> f64 {
    let (z, density) = (x.abs(), normal_density(x));
    if z < 6.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= x * x / f64::from(2 * n + 1);
            sum += term;
        }
        return 0.5 + density * sum;
    }
    let fraction = (1..60).rev().fold(z, |rest, k| z + f64::from(k) / rest);
    let tail = density / fraction;
    if x < 0.0 { tail } else { 1.0 - tail }
}

fn normal_density(x: f64) -> f64 {
    (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// Computes `2 · √(2/π) · (x + 0.044715 x³)`.
fn gelu_argument(x: f64) -> f64 {
    (8.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)
}

const CASES: &[Case] = &[
    Case { name: "relu", function: |x| Ok(x.relu()), value: |x| x.max(0.0), slope: |x| if x > 0.0 { 1.0 } else { 0.0 } },
    Case {
        name: "leaky_relu",
        function: |x| x.leaky_relu(0.25),
        value: |x| if x > 0.0 { x } else { 0.25 * x },
        slope: |x| if x > 0.0 { 1.0 } else { 0.25 },
    },
    Case { name: "relu6", function: |x| x.relu6(), value: |x| x.clamp(0.0, 6.0), slope: |x| if x > 0.0 && x < 6.0 { 1.0 } else { 0.0 } },
    Case {
        name: "elu",
        function: |x| x.elu(1.0),
        value: |x| if x > 0.0 { x } else { x.exp_m1() },
        slope: |x| if x > 0.0 { 1.0 } else { x.exp() },
    },
    Case { name: "gelu", function: |x| x.gelu(), value: |x| product(x, normal(x)), slope: |x| normal(x) + product(x, normal_density(x)) },
    Case {
        name: "gelu_tanh",
        function: |x| x.gelu_tanh(),
        value: |x| product(x, logistic(gelu_argument(x))),
        slope: |x| {
            let slope = (8.0 / std::f64::consts::PI).sqrt() * (1.0 + 3.0 * 0.044715 * x * x);
            logistic(gelu_argument(x)) + product(product(x, slope), logistic_slope(gelu_argument(x)))
        },
    },
    Case {
        name: "silu",
        function: |x| x.silu(),
        value: |x| product(x, logistic(x)),
        slope: |x| logistic(x) + product(x, logistic_slope(x)),
    },
    Case { name: "sigmoid", function: |x| x.sigmoid(), value: logistic, slope: logistic_slope },
    Case { name: "tanh", function: |x| x.tanh(), value: f64::tanh, slope: |x| x.cosh().powi(-2) },
    Case {
        name: "hardsigmoid",
        function: |x| x.hardsigmoid(),
        value: |x| (x + 3.0).clamp(0.0, 6.0) / 6.0,
        slope: |x| if x.abs() < 3.0 { 1.0 / 6.0 } else { 0.0 },
    },
    Case {
        name: "hardswish",
        function: |x| x.hardswish(),
        value: |x| product(x, (x + 3.0).clamp(0.0, 6.0) / 6.0),
        slope: |x| if x.abs() < 3.0 { x / 3.0 + 0.5 } else { f64::from(u8::from(x > 0.0)) },
    },
    Case {
        // Above 20 it is the identity, as in PyTorch.
        name: "softplus",
        function: |x| x.softplus(),
        value: |x| if x > 20.0 { x } else { x.max(0.0) + (-x.abs()).exp().ln_1p() },
        slope: |x| if x > 20.0 { 1.0 } else { logistic(x) },
    },
    Case {
        name: "mish",
        function: |x| x.mish(),
        value: |x| product(x, tanh_softplus(x)[0]),
        slope: |x| tanh_softplus(x)[0] + product(x, tanh_softplus(x)[1]),
    },
    Case { name: "abs", function: |x| Ok(x.abs()), value: f64::abs, slope: |x| if x == 0.0 { 0.0 } else { x.signum() } },
    Case { name: "exp", function: |x| x.exp(), value: f64::exp, slope: f64::exp },
    Case { name: "ln", function: |x| x.ln(), value: f64::ln, slope: |x| 1.0 / x },
    Case { name: "sqrt", function: |x| x.sqrt(), value: f64::sqrt, slope: |x| 0.5 / x.sqrt() },
    Case { name: "square", function: |x| x.square(), value: |x| x * x, slope: |x| 2.0 * x },
    Case { name: "sin", function: |x| x.sin(), value: f64::sin, slope: f64::cos },
    Case { name: "cos", function: |x| x.cos(), value: f64::cos, slope: |x| -x.sin() },
    Case { name: "tan", function: |x| x.tan(), value: f64::tan, slope: |x| 1.0 + x.tan() * x.tan() },
    Case { name: "atan", function: |x| x.atan(), value: f64::atan, slope: |x| 1.0 / (1.0 + x * x) },
    Case { name: "pow 0", function: |x| x.pow(0.0), value: |_| 1.0, slope: |_| 0.0 },
    Case { name: "pow 0.25", function: |x| x.pow(0.25), value: |x| x.powf(0.25), slope: |x| 0.25 * x.powf(-0.75) },
    Case { name: "pow 0.5", function: |x| x.pow(0.5), value: f64::sqrt, slope: |x| 0.5 / x.sqrt() },
    Case { name: "pow 1", function: |x| x.pow(1.0), value: |x| x, slope: |_| 1.0 },
    Case { name: "pow 2", function: |x| x.pow(2.0), value: |x| x * x, slope: |x| 2.0 * x },
    Case { name: "pow 3", function: |x| x.pow(3.0), value: |x| x * x * x, slope: |x| 3.0 * x * x },
    Case { name: "pow -1", function: |x| x.pow(-1.0), value: |x| 1.0 / x, slope: |x| -1.0 / (x * x) },
    Case { name: "pow -1.5", function: |x| x.pow(-1.5), value: |x| x.powf(-1.5), slope: |x| -1.5 * x.powf(-2.5) },
    Case { name: "recip", function: |x| x.recip(), value: |x| 1.0 / x, slope: |x| -1.0 / (x * x) },
    Case { name: "log1p", function: |x| x.log1p(), value: f64::ln_1p, slope: |x| 1.0 / (1.0 + x) },
    Case { name: "rsqrt", function: |x| x.rsqrt(), value: |x| 1.0 / x.sqrt(), slope: |x| -0.5 * (1.0 / x.sqrt()).powi(3) },
    Case {
        name: "erf",
        function: |x| x.erf(),
        value: |x| 2.0 * normal(x * std::f64::consts::SQRT_2) - 1.0,
        slope: |x| std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp(),
    },
    Case { name: "floor", function: |x| x.floor(), value: f64::floor, slope: |_| 0.0 },
    Case { name: "ceil", function: |x| x.ceil(), value: f64::ceil, slope: |_| 0.0 },
    Case { name: "trunc", function: |x| x.trunc(), value: f64::trunc, slope: |_| 0.0 },
    Case { name: "round", function: |x| x.round(), value: f64::round_ties_even, slope: |_| 0.0 },
    Case { name: "sign", function: |x| x.sign(), value: |x| if x == 0.0 { 0.0 } else { x.signum() }, slope: |_| 0.0 },
    Case {
        name: "clamp between bounds",
        function: |x| x.clamp(-1.0, 1.0),
        value: |x| x.clamp(-1.0, 1.0),
        slope: |x| if x.abs() < 1.0 { 1.0 } else { 0.0 },
    },
    Case {
        name: "clamp without an upper bound",
        function: |x| x.clamp(-1.0, f64::INFINITY),
        value: |x| x.max(-1.0),
        slope: |x| if x > -1.0 { 1.0 } else { 0.0 },
    },
    Case {
        name: "clamp without a lower bound",
        function: |x| x.clamp(f64::NEG_INFINITY, 1.0),
        value: |x| x.min(1.0),
        slope: |x| if x < 1.0 { 1.0 } else { 0.0 },
    },
];

/// Recorded operations without a [`Case`], grouped by reason.
const EXCEPTIONS: &[(&str, &[&str])] = &[
    (
        "arithmetic, a comparison or a choice, rounded once",
        &[
            "add",
            "add_scalar",
            "div",
            "div_scalar",
            "max",
            "maximum",
            "maxout",
            "min",
            "minimum",
            "mul",
            "mul_scalar",
            "neg",
            "sub",
            "sub_scalar",
            "to_dtype",
            "where_",
        ],
    ),
    ("elements are left out by chance, the others scaled", &["dropout", "dropout2d", "stochastic_depth"]),
    (
        "elements are moved or repeated",
        &["cat", "expand", "flip", "fold", "gather", "index_select", "narrow", "pad", "permute", "reshape", "to_memory_format", "unfold"],
    ),
    ("elements are written or added at indices", &["scatter", "scatter_add"]),
    ("a power, as that with one exponent", &["pow_by"]),
    (
        "a loss, tested at the ends of the range below",
        &["binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "l1_loss", "mse_loss", "nll_loss", "smooth_l1_loss"],
    ),
    (
        "a result depends on several elements",
        &[
            "adaptive_avg_pool2d",
            "adaptive_max_pool2d",
            "avg_pool2d",
            "batch_norm",
            "conv1d",
            "conv2d",
            "conv_transpose2d",
            "ctc_loss",
            "cumsum",
            "grid_sample",
            "group_norm",
            "interpolate",
            "layer_norm",
            "linear",
            "local_response_norm",
            "log_softmax",
            "logsumexp",
            "matmul",
            "max_pool2d",
            "prod",
            "softmax",
            "sum",
            "var",
        ],
    ),
];

#[test]
fn every_operation_has_a_case_or_a_reason_to_have_none() {
    let excepted: Vec<&str> = EXCEPTIONS.iter().flat_map(|(_, operations)| *operations).copied().collect();
    let recorded: Vec<&str> = OPERATIONS.iter().map(|&(operation, _)| operation).collect();
    for operation in &recorded {
        let has_case = CASES.iter().any(|case| case.name.split(' ').next() == Some(*operation));
        assert!(has_case != excepted.contains(operation), "{operation} needs either a case or a reason to have none");
    }
    let unknown: Vec<&&str> = excepted.iter().filter(|name| !recorded.contains(name)).collect();
    assert!(unknown.is_empty(), "not operations: {unknown:?}");
}

/// Returns the values of `f` at `x` and the gradient of their sum.
fn outcome(f: fn(&Tensor) -> Result<Tensor>, x: &[f64], dtype: DType) -> [Vec<f64>; 2] {
    let x = Tensor::from_slice(x, [x.len()]).unwrap().to_dtype(dtype).unwrap().with_grad();
    let y = f(&x).unwrap();
    let gradients = y.sum(..).unwrap().backward().unwrap();
    [&y, gradients.get(&x).unwrap()].map(|tensor| tensor.to_dtype(DType::F64).unwrap().to_vec().unwrap())
}

#[test]
fn functions_and_their_gradients_are_right_over_the_whole_range() {
    for dtype in [DType::F32, DType::F64] {
        let round = |x: f64| if dtype == DType::F32 { f64::from(x as f32) } else { x };
        let inputs: Vec<f64> = MAGNITUDES.iter().flat_map(|&x| [round(x), round(-x)]).collect();
        // Some units in the last place of f32 near 1. For f64 the functions are the standard
        // library's.
        let (relative, absolute) = if dtype == DType::F32 { (4e-6, 6e-7) } else { (1e-12, 2e-14) };
        for case in CASES {
            let [values, slopes] = outcome(case.function, &inputs, dtype);
            for (at, &x) in inputs.iter().enumerate() {
                for (what, found, exact) in [("value", values[at], (case.value)(x)), ("gradient", slopes[at], (case.slope)(x))] {
                    let exact = round(exact);
                    let same = found.is_nan() && exact.is_nan();
                    let close = approx::relative_eq!(found, exact, epsilon = absolute, max_relative = relative);
                    assert!(same || close, "{} of {} at {x:e} in {dtype} is {found:e}, not {exact:e}", what, case.name);
                }
            }
        }
    }
}

/// The expected gradients are PyTorch 2.15's: those on which its vectorised and scalar code agree,
/// else those of its vectorised code. `clamp` passes the gradient on.
#[test]
fn gradients_at_nan_do_not_depend_on_the_length() {
    let expected: [(&str, fn(&Tensor) -> Result<Tensor>, f64); 8] = [
        ("relu", |x| Ok(x.relu()), 1.0),
        ("relu6", |x| x.relu6(), 0.0),
        ("elu", |x| x.elu(1.0), f64::NAN),
        ("clamp", |x| x.clamp(-1.0, 1.0), 1.0),
        ("leaky_relu", |x| x.leaky_relu(0.25), 0.25),
        ("hardsigmoid", |x| x.hardsigmoid(), 0.0),
        ("hardswish", |x| x.hardswish(), f64::NAN),
        ("silu", |x| x.silu(), f64::NAN),
    ];
    for (name, function, slope) in expected {
        for (dtype, length) in [DType::F32, DType::F64].into_iter().flat_map(|dtype| [(dtype, 1), (dtype, 100)]) {
            let [values, slopes] = outcome(function, &vec![f64::NAN; length], dtype);
            assert!(values.iter().all(|y| y.is_nan()), "{name}");
            assert!(slopes.iter().all(|&found| found == slope || found.is_nan() && slope.is_nan()), "{name}: {slopes:?}");
        }
    }
    for bounds in [[f64::NAN, 1.0], [-1.0, f64::NAN]] {
        let x = Tensor::from_vec(vec![0.5, 7.0, -7.0], [3]).unwrap().with_grad();
        let y = x.clamp(bounds[0], bounds[1]).unwrap();
        assert!(y.to_vec::<f64>().unwrap().iter().all(|y| y.is_nan()));
        assert_eq!(y.sum(..).unwrap().backward().unwrap().get(&x).unwrap().to_vec::<f64>().unwrap(), [0.0; 3]);
    }
}

/// Expects what [`gradients_at_nan_do_not_depend_on_the_length`] does for the activations alone.
#[test]
fn gradients_at_nan_are_the_same_in_one_pass_with_a_normalisation() {
    for (activation, slope) in [(Activation::Relu, 1.0), (Activation::Relu6, 0.0)] {
        for (dtype, channels) in [DType::F32, DType::F64].into_iter().flat_map(|dtype| [(dtype, 1), (dtype, 100)]) {
            let bias = Tensor::zeros([channels]).to_dtype(dtype).unwrap().with_grad();
            // NaN comes either from the input, and then all normalised values are NaN, or from the
            // shortcut.
            let values = |value: f64| Tensor::full([4, channels], value, dtype);
            let of_bias = |x: &Tensor, shortcut: Option<&Tensor>| {
                let y = x.batch_norm_act(None, Some(&bias), 1e-5, shortcut, activation).unwrap().output;
                y.sum(..).unwrap().backward().unwrap().get(&bias).unwrap().to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap()
            };
            for found in [of_bias(&values(f64::NAN), None), of_bias(&values(1.0), Some(&values(f64::NAN)))] {
                assert!(found.iter().all(|&found| found == 4.0 * slope), "{activation:?} in {dtype}: {found:?}");
            }
        }
    }
}

#[test]
fn quotient_of_zero_has_finite_gradient_for_tiny_divisor() {
    let (a, b) = (Tensor::scalar(0f32).with_grad(), Tensor::scalar(1e-45f32).with_grad());
    let grads = a.div(&b).unwrap().backward().unwrap();
    let of_b = grads.get(&b).unwrap().item::<f32>().unwrap();
    assert!(of_b == 0.0 && of_b.is_sign_negative(), "{of_b}");
    assert_eq!(grads.get(&a).unwrap().item::<f32>().unwrap(), f32::INFINITY);
}

#[test]
fn losses_are_right_at_the_ends_of_the_range() {
    let (zero, far) = (Tensor::zeros([8192]), Tensor::full([8192], 3.4e38, DType::F32).with_grad());
    let of_far = far.mse_loss(&zero).unwrap().backward().unwrap().get(&far).unwrap().to_vec::<f32>().unwrap();
    approx::assert_relative_eq!(of_far[0], 8.300_781e34, max_relative = 1e-6);

    let infinite = f32::INFINITY;
    let x = Tensor::from_vec(vec![infinite, -infinite, infinite, -infinite], [4]).unwrap().with_grad();
    let target = Tensor::from_vec(vec![0f32, 0., 1., 1.], [4]).unwrap();
    for pos_weight in [None, Some(Tensor::full([4], 3.0, DType::F32))] {
        let factor = if pos_weight.is_some() { 3.0 } else { 1.0 };
        let options = BceOptions { pos_weight, reduction: Reduction::None, ..Default::default() };
        let y = x.binary_cross_entropy_with_logits_with(&target, &options).unwrap();
        assert_eq!(y.to_vec::<f32>().unwrap(), [infinite, 0., 0., infinite]);
        let grads = y.sum(..).unwrap().backward().unwrap();
        assert_eq!(grads.get(&x).unwrap().to_vec::<f32>().unwrap(), [1., 0., 0., -factor]);
    }
    let near = Tensor::full([1], 1e-30, DType::F32);
    let smooth = near.smooth_l1_loss_with(&Tensor::zeros([1]), 1e-29, Reduction::Mean).unwrap().item::<f32>().unwrap();
    approx::assert_relative_eq!(smooth, 5e-32, epsilon = 0.0, max_relative = 1e-6);
}

#[test]
fn standard_deviation_of_equal_elements_has_no_gradient() {
    let x = Tensor::ones([2, 4]).with_grad();
    for y in [x.std(1).unwrap(), x.std_with(1, 0, true).unwrap(), x.norm(2.0, 1).unwrap().sub(&x.std(1).unwrap()).unwrap()] {
        let grads = y.sum(..).unwrap().backward().unwrap();
        assert!(grads.get(&x).unwrap().to_vec::<f32>().unwrap().iter().all(|slope| slope.is_finite()), "{y}");
    }
}

#[test]
fn dimensions_are_kept_and_counted_from_the_end() {
    let x = Tensor::arange(6).to_dtype(DType::F32).unwrap().reshape([2, 3]).unwrap();
    for (kept, dropped) in [
        (x.norm_keepdim(2.0, 1), x.norm(2.0, 1)),
        (x.norm_keepdim(f64::INFINITY, 0), x.norm(f64::INFINITY, 0)),
        (x.std_keepdim(-1), x.std(-1)),
        (x.any_keepdim(0), x.any(0)),
        (x.all_keepdim(1), x.all(1)),
    ] {
        let (kept, dropped) = (kept.unwrap(), dropped.unwrap());
        assert!(kept.ndim() == 2 && kept.reshape(dropped.shape()).unwrap() == dropped);
    }
    let (least, at) = x.min_with_index(1).unwrap();
    assert_eq!((least.to_vec::<f32>().unwrap(), at.to_vec::<i64>().unwrap()), (vec![0.0, 3.0], vec![0, 0]));
    assert_eq!(x.permute([-1, 0]).unwrap(), x.transpose(0, 1).unwrap());
    assert_eq!(x.unsqueeze(0).unwrap().expand([4, -1, -1]).unwrap().shape(), [4, 2, 3]);
    for wrong in [x.permute([0, 0]), x.permute([0]), x.permute(..), x.expand([-1, 2, 3]), x.expand([-2, 3]), x.expand([2])] {
        assert!(wrong.is_err());
    }
}

#[test]
fn numbers_beside_integers_keep_the_dtype_where_it_holds_them() {
    let mask = Tensor::from_vec(vec![0u8, 1], [2]).unwrap();
    assert_eq!((1.0 - &mask).to_vec::<u8>().unwrap(), [1, 0]);
    assert_eq!((&mask + 1.0).to_vec::<u8>().unwrap(), (1.0 + &mask).to_vec::<u8>().unwrap());
    assert_eq!((0.5 + &mask).to_vec::<f32>().unwrap(), [0.5, 1.5]);
    assert_eq!(mask.masked_fill(&mask, 7.0).unwrap().to_vec::<u8>().unwrap(), [0, 7]);
    assert_eq!(mask.masked_fill(&mask, 300.0).unwrap().to_vec::<f32>().unwrap(), [0.0, 300.0]);
    let labels = Tensor::from_vec(vec![1i64, 2], [2]).unwrap();
    assert_eq!(labels.masked_fill(&mask, 1e30).unwrap().to_vec::<f32>().unwrap(), [1.0, 1e30]);
}

/// The probabilities and logarithms in f64 equal PyTorch 2.15's in f32: a logit of +∞, or only
/// logits of -∞, make the whole row NaN, and one logit of -∞ among others is a class without
/// probability.
#[test]
fn infinite_logits_are_classes_without_probability_or_make_the_row_nan() {
    let (low, high, nan) = (f64::NEG_INFINITY, f64::INFINITY, f64::NAN);
    let (p, q) = (1.0 / (1.0 + 1f64.exp()), 1.0 / (1.0 + (-1f64).exp()));
    let same = |found: &[f64], expected: &[f64]| {
        let close = |(a, b): (&f64, &f64)| a == b || a.is_nan() && b.is_nan() || approx::abs_diff_eq!(a, b, epsilon = 1e-6);
        found.len() == expected.len() && found.iter().zip(expected).all(close)
    };
    let wide = |tensor: &Tensor| tensor.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap();
    let rows = [[low, 0.0, 1.0], [high, 0.0, 1.0], [high, high, 1.0], [low, low, low], [high, low, 0.0], [nan, 0.0, 1.0]];
    for (dtype, row) in [DType::F32, DType::F64].into_iter().flat_map(|dtype| rows.map(|row| (dtype, row))) {
        let finite = row == rows[0];
        let or_nan = |expected: [f64; 3]| if finite { expected } else { [nan; 3] };
        // The dimension is the last one, or its columns are next to each other.
        for width in [1, 20] {
            let x = Tensor::from_slice(&row, [1, 3, 1]).unwrap().expand([1, 3, width]).unwrap().to_dtype(dtype).unwrap().with_grad();
            let column = |tensor: &Tensor| wide(&tensor.narrow(2, width - 1, 1).unwrap());
            let slope = |y: &Tensor| column(y.narrow(1, 1, 1).unwrap().sum(..).unwrap().backward().unwrap().get(&x).unwrap());
            let [softmax, log] = [x.softmax(1).unwrap(), x.log_softmax(1).unwrap()];
            assert!(same(&column(&softmax), &or_nan([0.0, p, q])), "softmax of {row:?}: {:?}", column(&softmax));
            assert!(same(&slope(&softmax), &or_nan([0.0, p * q, -p * q])), "softmax of {row:?}: {:?}", slope(&softmax));
            assert!(same(&column(&log), &or_nan([low, p.ln(), q.ln()])), "log_softmax of {row:?}: {:?}", column(&log));
            assert!(same(&slope(&log), &or_nan([0.0, q, -q])), "log_softmax of {row:?}: {:?}", slope(&log));
        }
        for (label, loss, slopes) in [(0i64, high, [-1.0, p, q]), (1, -p.ln(), [0.0, p - 1.0, q])] {
            let x = Tensor::from_slice(&row, [1, 3]).unwrap().to_dtype(dtype).unwrap().with_grad();
            let y = x.cross_entropy(&Tensor::from_slice(&[label], [1]).unwrap()).unwrap();
            let found = wide(y.backward().unwrap().get(&x).unwrap());
            assert!(same(&wide(&y), &[if finite { loss } else { nan }]), "cross_entropy of {row:?} at {label}: {:?}", wide(&y));
            assert!(same(&found, &or_nan(slopes)), "cross_entropy of {row:?} at {label}: {found:?}");
        }
    }
}
