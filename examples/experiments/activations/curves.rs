//! The functions and their slopes.

use convnet::chart::Chart;
use convnet::{DType, Result, Tensor};

use super::Function;
use crate::lab::Lab;

/// All activations, by family.
const FAMILIES: &[(&str, &[(&str, Function)])] = &[
    (
        "bounded",
        &[
            ("sigmoid", Tensor::sigmoid),
            ("hardsigmoid", Tensor::hardsigmoid),
            ("tanh", Tensor::tanh),
            ("hardtanh", |x| x.clamp(-1.0, 1.0)),
            ("relu6", Tensor::relu6),
        ],
    ),
    (
        "rectifiers",
        &[
            ("relu", |x| Ok(x.relu())),
            ("leaky_relu, 0.1", |x| x.leaky_relu(0.1)),
            // Its slope is learned, and begins at 0.25.
            ("prelu, 0.25", |x| x.leaky_relu(0.25)),
            ("elu", |x| x.elu(1.0)),
            ("selu", Tensor::selu),
            ("celu, 2", |x| x.celu(2.0)),
            ("maxout of x and -x", |x| x.maximum(&x.neg())),
        ],
    ),
    (
        "smooth",
        &[
            ("softplus", Tensor::softplus),
            ("logsigmoid", Tensor::logsigmoid),
            ("gelu", Tensor::gelu),
            ("gelu_tanh", Tensor::gelu_tanh),
            // Also GLU of two equal halves.
            ("silu", Tensor::silu),
            ("mish", Tensor::mish),
            ("hardswish", Tensor::hardswish),
        ],
    ),
];

/// Draws the functions and their slopes.
pub fn curves(lab: &Lab) -> Result<()> {
    let x = Tensor::linspace(-4.0, 4.0, 161).to_dtype(DType::F64)?.with_grad();
    let at = x.to_vec::<f64>()?;
    let mut charts = vec![];
    for (family, functions) in FAMILIES {
        let mut function = Chart::new(format!("Functions, {family}")).x("x").y("f(x)").y_range(-2.5, 4.0);
        let mut slope = Chart::new(format!("Slopes, {family}")).x("x").y("f'(x)").y_range(-1.2, 1.8);
        for (name, f) in *functions {
            let y = f(&x)?;
            let gradients = y.sum(..)?.backward()?;
            let slopes = gradients.get(&x).map_or(Ok(vec![]), Tensor::to_vec::<f64>)?;
            function = function.curve(*name, at.iter().copied().zip(y.to_vec::<f64>()?));
            slope = slope.curve(*name, at.iter().copied().zip(slopes));
        }
        charts.extend([function, slope]);
    }
    lab.chart("activations_curves.svg", Chart::panels(&charts, 2))
}
