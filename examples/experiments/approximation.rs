//! Networks as approximations of functions: width, depth, and the pieces of maxout.
//!
//! The claims. One hidden layer of any activation that is no polynomial comes as close as you want
//! to every continuous function, if it is wide enough (Cybenko, 1989; Hornik, 1991; Leshno et al.,
//! 1993). Of how many units that takes the theorem says nothing; with the same number of parameters
//! deeper networks can fold the line and make more linear pieces (Telgarsky, 2016). A maxout unit
//! is a maximum of linear functions: it approximates every convex function, and the difference of
//! two approximates every continuous one (Goodfellow et al., 2013).
//!
//! The program trains ReLU networks on three functions of one variable: first one hidden layer of 2
//! to 64 units, then networks of 1, 2 and 4 hidden layers with about 300 parameters each. Then it
//! trains a single maxout unit of 1 to 8 pieces on x². Best chords of that parabola have the root
//! mean square error 2 / (3√5 k²) for k pieces, so the error that theory permits stands beside the
//! measured one; a maximum of lines cannot do better.
//!
//! What to look at: whether the error falls with width (it does, until training rather than width
//! limits it), which depth wins for which function, and how close maxout comes to its bound.

use convnet::chart::Chart;
use convnet::nn::{Linear, Module, ReLU, Sequential};
use convnet::optim::{Adam, Optimizer};
use convnet::{Result, Tensor, manual_seed, no_grad};

use super::lab::{Experiment, Lab, ensure, plus_minus, say, spread, table};

pub const EXPERIMENT: Experiment = Experiment {
    name: "approximation",
    claim: "one wide hidden layer approximates any function of one variable; maxout approximates convex ones",
    run,
};

const FUNCTIONS: [(&str, fn(f64) -> f64); 3] = [
    ("sine", |x| (3.0 * std::f64::consts::PI * x).sin()),
    ("saw", |x| 4.0 * (2.0 * x - (2.0 * x).round()).abs() - 1.0),
    ("step", |x| if x.abs() < 0.5 { 1.0 } else { -1.0 }),
];
const POINTS: usize = 256;

/// A network of `depth` hidden layers of this width.
fn network(depth: usize, width: usize) -> Sequential {
    let first = Sequential::new().push(Linear::new(1, width)).push(ReLU);
    (1..depth).fold(first, |net, _| net.push(Linear::new(width, width)).push(ReLU)).push(Linear::new(width, 1))
}

fn grid(f: fn(f64) -> f64) -> Result<(Tensor, Tensor)> {
    let x: Vec<f64> = (0..POINTS).map(|i| -1.0 + (2 * i + 1) as f64 / POINTS as f64).collect();
    let y = x.iter().map(|&x| f(x) as f32).collect();
    Ok((Tensor::from_vec(x.iter().map(|&x| x as f32).collect(), [POINTS, 1])?, Tensor::from_vec(y, [POINTS, 1])?))
}

/// Trains on a grid of [-1, 1] by Adam with a falling rate; returns the root mean square error and
/// the values.
fn fit(model: &dyn Module, forward: &dyn Fn(&Tensor) -> Result<Tensor>, f: fn(f64) -> f64, steps: usize) -> Result<(f64, Vec<f32>)> {
    let (x, y) = grid(f)?;
    let mut optimizer = Adam::new(model.parameters(), 0.01);
    for step in 0..steps {
        optimizer.set_learning_rate(0, 0.01 * (1.0 - step as f64 / steps as f64))?;
        optimizer.step(&forward(&x)?.mse_loss(&y)?.backward()?)?;
    }
    let fitted = no_grad(|| forward(&x))?;
    let error = f64::from(fitted.mse_loss(&y)?.item::<f32>()?).sqrt();
    Ok((error, fitted.to_vec::<f32>()?))
}

fn run(lab: &Lab) -> Result<String> {
    let seeds = lab.pick(1, 3);
    let steps = lab.pick(400, 4000);
    let fitted = |depth: usize, width: usize, f: fn(f64) -> f64| -> Result<(f64, f64, Vec<f32>)> {
        let (mut errors, mut values) = (vec![], vec![]);
        for seed in 0..seeds {
            manual_seed(lab.seed + seed);
            let net = network(depth, width);
            let (error, fit) = fit(&net, &|x| net.forward(x), f, steps)?;
            errors.push(error);
            values = fit;
        }
        let (mean, deviation) = spread(&errors);
        Ok((mean, deviation, values))
    };

    say("one hidden layer: root mean square error by width (mean of the seeds)");
    let widths = [2, 4, 8, 16, 32, 64];
    let mut rows = vec![["function", "2", "4", "8", "16", "32", "64"].map(String::from)];
    let mut by_width = Chart::new("One hidden layer").x("units").y("root mean square error").log_x().log_y();
    let mut improvement = f64::INFINITY;
    for (name, f) in FUNCTIONS {
        let errors = widths.iter().map(|&width| Ok(fitted(1, width, f)?.0)).collect::<Result<Vec<f64>>>()?;
        improvement = improvement.min(errors[0] / errors[5]);
        by_width = by_width.curve(name, widths.iter().map(|&w| w as f64).zip(errors.iter().copied()));
        let cells: [String; 6] = std::array::from_fn(|i| format!("{:.3}", errors[i]));
        let [a, b, c, d, e, g] = cells;
        rows.push([name.to_string(), a, b, c, d, e, g]);
    }
    table(&rows);

    say("\nabout 300 parameters: error by depth, mean and deviation");
    let shapes = [(1, 100), (2, 15), (4, 9)];
    let mut rows = vec![["function", "1 of 100", "2 of 15", "4 of 9"].map(String::from)];
    let x: Vec<f64> = grid(FUNCTIONS[0].1)?.0.to_vec::<f32>()?.into_iter().map(f64::from).collect();
    let mut saw = Chart::new("The saw and its fits").x("x").y("f(x)");
    saw = saw.curve("function", x.iter().map(|&x| (x, FUNCTIONS[1].1(x))));
    for (name, f) in FUNCTIONS {
        let mut cells = vec![];
        for (depth, width) in shapes {
            let (mean, deviation, values) = fitted(depth, width, f)?;
            cells.push(format!("{mean:.3} ± {deviation:.3}"));
            if name == "saw" {
                saw = saw.curve(format!("{depth} hidden"), x.iter().copied().zip(values.into_iter().map(f64::from)));
            }
        }
        let [a, b, c] = std::array::from_fn(|i| cells[i].clone());
        rows.push([name.to_string(), a, b, c]);
    }
    table(&rows);

    let (chart, ratio) = maxout(lab, steps)?;
    lab.chart("approximation.svg", Chart::panels(&[by_width, saw, chart], 1))?;
    ensure(improvement > lab.pick(1.2, 2.0), format_args!("64 units are only {improvement:.1} times as good as 2"))?;
    ensure((0.95..lab.pick(4.0, 1.5)).contains(&ratio), format_args!("maxout's error is {ratio:.2} of what theory permits"))?;
    Ok(format!(
        "64 units have at most 1/{improvement:.1} of the error of 2; 8 pieces of maxout on x²: {ratio:.2} of the least possible error"
    ))
}

/// Returns a layer whose maxout is a unit: lines with slopes in order, which touch x² and are all
/// used, moved at random by this deviation.
fn unit(pieces: usize, moved: f64) -> Result<Linear> {
    let layer = Linear::new(1, pieces);
    let slopes: Vec<f32> = (0..pieces).map(|i| (2 * i + 1) as f32 / pieces as f32 - 1.0).map(|slope| 2.0 * slope).collect();
    let random = |values: Vec<f32>, shape: &[usize]| Tensor::from_vec(values, shape)?.add(&Tensor::randn(shape).mul_scalar(moved));
    layer.weight.set(&random(slopes.clone(), &[pieces, 1])?)?;
    if let Some(bias) = &layer.bias {
        bias.set(&random(slopes.iter().map(|slope| -slope * slope / 4.0).collect(), &[pieces])?)?;
    }
    Ok(layer)
}

/// Fits x² by one maxout unit, and the sine by one and by the difference of two.
fn maxout(lab: &Lab, steps: usize) -> Result<(Chart, f64)> {
    let (square, sine): (fn(f64) -> f64, fn(f64) -> f64) = (|x| x * x, FUNCTIONS[0].1);
    let mut rows = vec![["pieces", "x², measured", "x², least possible", "sine, one unit", "sine, difference of two"].map(String::from)];
    let (mut measured, mut least, mut ratio) = (vec![], vec![], f64::INFINITY);
    for pieces in [1, 2, 3, 4, 6, 8] {
        let alone = |unit: &Linear, f: fn(f64) -> f64| fit(unit, &|x| unit.forward(x)?.maxout(pieces), f, steps).map(|(error, _)| error);
        // From the same start with every seed.
        let error = alone(&unit(pieces, 0.0)?, square)?;
        let bound = 2.0 / (3.0 * 5f64.sqrt() * (pieces * pieces) as f64);
        let [mut single, mut difference] = [vec![], vec![]];
        for seed in 0..lab.pick(1, 3) {
            manual_seed(lab.seed + seed);
            single.push(alone(&unit(pieces, 0.1)?, sine)?);
            let two = Sequential::new().push(unit(pieces, 0.1)?).push(unit(pieces, 0.1)?);
            let parts = [two.parameters()[0..2].to_vec(), two.parameters()[2..4].to_vec()];
            let part = |x: &Tensor, i: usize| x.linear(&parts[i][0].tensor(), Some(&parts[i][1].tensor()))?.maxout(pieces);
            difference.push(fit(&two, &|x| part(x, 0)?.sub(&part(x, 1)?), sine, steps)?.0);
        }
        let [a, b] = [error, bound].map(|value| format!("{value:.4}"));
        rows.push([pieces.to_string(), a, b, plus_minus(&single), plus_minus(&difference)]);
        measured.push((pieces as f64, error));
        least.push((pieces as f64, bound));
        ratio = error / bound;
    }
    say("\nmaxout: root mean square error by the number of pieces");
    table(&rows);
    let chart = Chart::new("One maxout unit on x²").x("pieces").y("root mean square error").log_x().log_y();
    Ok((chart.curve("least possible", least).points("measured", measured), ratio))
}
