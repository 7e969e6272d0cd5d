//! Activation functions: what they do to a gradient on its way through many layers.
//!
//! The claims. A sigmoid's slope is at most 1/4, so a gradient loses most of its size in each layer
//! (Hochreiter, 1991; Glorot and Bengio, 2010). Xavier's initialisation keeps signals at their size
//! in layers without curvature and fits tanh; half of ReLU's inputs are lost, which Kaiming's
//! initialisation makes up for with weights larger by √2 (He et al., 2015). A ReLU whose inputs are
//! all negative gets no gradient and stays so: it is dead, and large learning rates kill (Maas et
//! al., 2013).
//!
//! The program draws every activation with its slope, computed by autograd. Then it sends a random
//! gradient backward through 4 to 32 dense layers without any training, and compares what arrives
//! behind the first layer with what left the last one. At last it trains a small dense network on
//! digits at several learning rates and counts units that no test picture activates.
//!
//! What to look at: the slope of the lines in the logarithmic charts of `activations.svg`. A
//! straight line down is a vanishing gradient, and only its rate differs between functions.

mod curves;

use convnet::chart::Chart;
use convnet::data::{Dataset, Normalize};
use convnet::nn::{Linear, Module, ReLU, Sequential, init};
use convnet::optim::{Optimizer, Sgd};
use convnet::{DType, Result, Tensor, inspect, manual_seed};

use super::lab::{Experiment, Lab, ensure, plus_minus, say, shuffled, spread, table, tensors};

pub const EXPERIMENT: Experiment = Experiment {
    name: "activations",
    claim: "a sigmoid loses the gradient of 32 layers, a ReLU from Kaiming's initialisation keeps it",
    run,
};

type Function = fn(&Tensor) -> Result<Tensor>;

/// Activations of the deep networks, with the outputs that a unit has before it.
const DEEP: &[(&str, Function, usize)] = &[
    ("sigmoid", Tensor::sigmoid, 1),
    ("tanh", Tensor::tanh, 1),
    ("relu", |x| Ok(x.relu()), 1),
    ("leaky_relu", |x| x.leaky_relu(0.1), 1),
    ("maxout", |x| x.maxout(2), 2),
];
const DEPTHS: [usize; 4] = [4, 8, 16, 32];
const INITIALISATIONS: [&str; 2] = ["Xavier", "Kaiming"];

fn run(lab: &Lab) -> Result<String> {
    curves::curves(lab)?;
    let (mut charts, sigmoid, relu) = depth(lab)?;
    charts.push(dead(lab)?);
    lab.chart("activations.svg", Chart::panels(&charts, 1))?;
    ensure(sigmoid < 1e-12, format_args!("{sigmoid:.1e} of a gradient passes 32 sigmoids"))?;
    ensure((0.1..10.0).contains(&relu), format_args!("{relu:.2} of a gradient passes 32 ReLUs from Kaiming's initialisation"))?;
    Ok(format!("through 32 layers from Kaiming's initialisation, {sigmoid:.0e} of a gradient passes sigmoids, {relu:.2} passes ReLUs"))
}

/// Returns the norm of the loss's gradient by the output of each layer, divided by that of the
/// last.
fn gradient_norms(f: Function, pieces: usize, initialisation: usize, depth: usize, width: usize) -> Result<Vec<f64>> {
    let mut h = Tensor::randn([64, width]).to_dtype(DType::F64)?;
    let mut outputs = vec![];
    for _ in 0..depth {
        let shape = [pieces * width, width];
        let xavier = || init::xavier_normal(shape, init::Gain::Linear);
        let weight = if initialisation == 0 { xavier()? } else { init::kaiming_normal(shape, init::Fan::In, init::Gain::Relu)? };
        h = f(&h.linear(&weight.to_dtype(DType::F64)?.with_grad(), None)?)?;
        h.retain_grad();
        outputs.push(h.clone());
    }
    let gradients = h.mul(&Tensor::randn([64, width]).to_dtype(DType::F64)?)?.sum(..)?.backward()?;
    let norm = |h: &Tensor| gradients.get(h).map_or(Ok(0.0), |g| g.norm(2.0, ..)?.item::<f64>());
    let norms = outputs.iter().map(norm).collect::<Result<Vec<f64>>>()?;
    let last = norms[depth - 1];
    Ok(norms.into_iter().map(|norm| norm / last).collect())
}

/// Measures gradients by depth. Returns charts by layer, and what passes 32 layers of sigmoids and
/// of ReLUs from Kaiming's initialisation.
fn depth(lab: &Lab) -> Result<(Vec<Chart>, f64, f64)> {
    let (width, seeds) = (lab.pick(32, 128), 3);
    let mut rows = vec![["activation", "initialisation", "4 layers", "8", "16", "32"].map(String::from)];
    let (mut charts, mut figures) = (vec![], vec![]);
    for (index, initialisation) in INITIALISATIONS.iter().enumerate() {
        let title = format!("Gradient by layer, 32 layers, {initialisation}");
        let mut chart = Chart::new(title).x("layer").y("norm, last layer = 1").log_y().y_range(1e-25, 1e5);
        for (name, f, pieces) in DEEP {
            let mut cells = vec![];
            for depth in DEPTHS {
                // The mean of logarithms: the factors of the layers multiply.
                let mut logarithms = vec![0.0; depth];
                for seed in 0..seeds {
                    manual_seed(lab.seed + seed);
                    let norms = gradient_norms(*f, *pieces, index, depth, width)?;
                    logarithms.iter_mut().zip(norms).for_each(|(sum, norm)| *sum += norm.max(1e-300).ln() / seeds as f64);
                }
                let passes = logarithms[0].exp();
                cells.push(format!("{passes:.1e}"));
                if depth == 32 {
                    chart = chart.curve(*name, (1..).map(f64::from).zip(logarithms.iter().map(|l| l.exp())));
                    figures.push((*initialisation, *name, passes));
                }
            }
            let [a, b, c, d] = std::array::from_fn(|i| cells[i].clone());
            rows.push([name.to_string(), initialisation.to_string(), a, b, c, d]);
        }
        charts.push(chart);
    }
    say("gradient behind the first layer, as a part of that behind the last (geometric mean of 3 seeds)");
    table(&rows);
    let of = |name: &str| {
        figures.iter().find(|(initialisation, n, _)| (*initialisation, *n) == ("Kaiming", name)).map_or(f64::NAN, |figure| figure.2)
    };
    Ok((charts, of("sigmoid"), of("relu")))
}

/// Counts dead units by learning rate.
fn dead(lab: &Lab) -> Result<Chart> {
    let data = lab.digits()?;
    let limit = lab.pick(400, 4000).min(data.train.len());
    let normalise = || Normalize::new([0.1307], [0.3081]);
    let (images, labels) = tensors(&data.train, 0..limit, normalise())?;
    let (test, _) = tensors(&data.test, 0..300, normalise())?;
    let (images, test) = (images.flatten(1, -1)?, test.flatten(1, -1)?);
    let rates = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0];
    let mut rows = vec![["learning rate", "dead", "final loss"].map(String::from)];
    let mut points = vec![];
    for rate in rates {
        let (mut shares, mut losses) = (vec![], vec![]);
        for seed in 0..3 {
            manual_seed(lab.seed + seed);
            let mut net = Sequential::new();
            for (inputs, outputs) in [(images.shape()[1], 64), (64, 64), (64, 64), (64, 64)] {
                let layer = Linear::new(inputs, outputs);
                layer.weight.set(&init::kaiming_normal([outputs, inputs], init::Fan::In, init::Gain::Relu)?)?;
                net = net.push(layer).push(ReLU);
            }
            let net = net.push(Linear::new(64, 10));
            let mut optimizer = Sgd::new(net.parameters(), rate);
            let mut last = f64::NAN;
            for _ in 0..lab.pick(2, 5) {
                for (x, y) in shuffled(&images, &labels, 32)? {
                    let loss = net.forward(&x)?.cross_entropy(&y)?;
                    last = f64::from(loss.item::<f32>()?);
                    // A step from a loss that is not finite would leave no number to look at.
                    if last.is_finite() {
                        optimizer.step(&loss.backward()?)?;
                    }
                }
            }
            let counted = inspect::dead_relus(&net, || net.forward(&test))?;
            shares.push(counted.iter().map(|layer| layer.share()).sum::<f64>() / counted.len().max(1) as f64);
            losses.push(last);
        }
        rows.push([rate.to_string(), plus_minus(&shares), format!("{:.2}", spread(&losses).0)]);
        let (mean, deviation) = spread(&shares);
        points.push((rate, mean - deviation, mean, mean + deviation));
    }
    say(format_args!("\nshare of dead ReLUs after training on {limit} of {}, 3 seeds", data.name));
    table(&rows);
    ensure(points[5].2 > points[0].2 + 0.2, "the largest learning rate does not kill more ReLUs than the smallest")?;
    Ok(Chart::new("Dead ReLUs by learning rate (3 seeds)")
        .x("learning rate of SGD")
        .y("share of units")
        .log_x()
        .curve("dead", points.iter().map(|p| (p.0, p.2)))
        .band("dead", points.iter().map(|p| (p.0, p.1, p.3))))
}
