//! What a convolution saves: parameters and multiplications.
//!
//! A unit of a dense layer has a weight for each number of its input, so a picture of 200×200
//! pixels in three colours costs 120,000 weights a unit, and one of 12 megapixels 36 million. A
//! kernel is used at every place: 10 filters of 3×3×3 have 280 parameters for a picture of any
//! size. Two savings are built on that. Inception (Szegedy et al., 2015) puts a 1×1 convolution
//! before a 5×5 one: 12,443,648 multiplications take the place of 120,422,400. MobileNet (Howard et
//! al., 2017) splits a convolution into one within each channel and a 1×1 one between channels.
//!
//! The price is that a unit sees only its receptive field. It grows by (k − 1)·d·j with each layer,
//! where j is the product of the strides before: the last table follows it by depth, and compares
//! it with the pixels whose gradient is not 0. Numbers come from the crate's own counters
//! (`summary` and `receptive_field`), and have to equal those of the papers.

use std::time::Instant;

use convnet::chart::Chart;
use convnet::nn::{Conv2d, Linear, MaxPool2d, Module, ModuleExt, ReLU, Sequential};
use convnet::{Result, Tensor, no_grad};

use super::lab::{Experiment, Lab, ensure, say, table};

pub const EXPERIMENT: Experiment = Experiment {
    name: "parameters",
    claim: "a convolution has thousands of times fewer parameters than a dense layer, and two tricks save most of its multiplications",
    run,
};

fn run(lab: &Lab) -> Result<String> {
    dense_against_convolution()?;
    say("");
    let (plain, reduced, faster) = inception(lab)?;
    say("");
    let shares = separable()?;
    say("");
    receptive_fields(lab)?;
    ensure(plain == 120_422_400 && reduced == 12_443_648, format_args!("{plain} and {reduced} multiplications"))?;
    ensure(faster > lab.pick(1.0, 2.0), format_args!("the reduced form is {faster:.1} times as fast"))?;
    Ok(format!(
        "280 parameters; {plain} against {reduced} multiplications, {faster:.1} times as fast; depthwise separable {:.1} to {:.1} % of plain",
        100.0 * shares[0],
        100.0 * shares[1]
    ))
}

fn dense_against_convolution() -> Result<()> {
    let mut rows = vec![["layer", "picture", "parameters", "a unit or filter"].map(String::from)];
    let dense = Linear::new(200 * 200 * 3, 10).num_parameters() as u64;
    // A unit for each number of the picture is more than memory holds; one of them has a weight for
    // each input, and a bias.
    let unit = |pixels: u64| 3 * pixels + 1;
    ensure(dense == 10 * unit(200 * 200), "a dense layer has another number of parameters")?;
    for (name, size, pixels) in [("dense, 10 units", "200×200", 200 * 200), ("dense, 10 units", "4000×3000", 12_000_000)] {
        rows.push([name.to_string(), size.to_string(), (10 * unit(pixels)).to_string(), unit(pixels).to_string()]);
    }
    let convolution = Conv2d::new(3, 10, 3).num_parameters();
    ensure(convolution == 280, format_args!("10 filters have {convolution} parameters"))?;
    rows.push(["convolution, 10 filters of 3×3×3".to_string(), "any".to_string(), convolution.to_string(), (convolution / 10).to_string()]);
    table(&rows);
    Ok(())
}

/// Returns the multiplications of a 5×5 convolution from 192 to 32 channels and of its form with a
/// reduction to 16 channels before, and how many times as fast the second is.
fn inception(lab: &Lab) -> Result<(u64, u64, f64)> {
    let plain = Sequential::new().push(Conv2d::new(192, 32, 5).padding(2));
    let reduced = Sequential::new().push(Conv2d::new(192, 16, 1)).push(Conv2d::new(16, 32, 5).padding(2));
    let x = Tensor::randn([1, 192, 28, 28]);
    let mut rows = vec![["Inception's branch, 28×28×192", "parameters", "multiplications", "ms"].map(String::from)];
    let mut measured = Vec::new();
    for (name, branch) in [("5×5 to 32 channels", &plain), ("1×1 to 16, then 5×5 to 32", &reduced)] {
        branch.eval();
        let summary = branch.summary(x.shape())?;
        let seconds = fastest(lab.pick(5, 50), || no_grad(|| branch.forward(&x)))?;
        rows.push([name.to_string(), summary.parameters.to_string(), summary.multiply_adds.to_string(), format!("{:.3}", 1e3 * seconds)]);
        measured.push((summary.multiply_adds, seconds));
    }
    table(&rows);
    Ok((measured[0].0, measured[1].0, measured[0].1 / measured[1].1))
}

/// Returns the shortest of several times, in seconds.
fn fastest(times: usize, mut body: impl FnMut() -> Result<Tensor>) -> Result<f64> {
    let mut fastest = f64::INFINITY;
    for _ in 0..times {
        let start = Instant::now();
        body()?;
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    Ok(fastest)
}

/// Returns the smallest and the largest share of the multiplications that the separable form needs.
fn separable() -> Result<[f64; 2]> {
    let mut rows = vec![["3×3 convolution", "plain", "depthwise separable", "share", "1/N + 1/9"].map(String::from)];
    let (mut low, mut high) = (f64::INFINITY, 0f64);
    for (size, inputs, outputs) in [(112, 32, 64), (56, 128, 128), (28, 256, 256), (14, 512, 512), (7, 1024, 1024)] {
        let plain = Conv2d::new(inputs, outputs, 3).padding(1).bias(false);
        let depthwise = Conv2d::new(inputs, inputs, 3).padding(1).groups(inputs).bias(false);
        let separable = Sequential::new().push(depthwise).push(Conv2d::new(inputs, outputs, 1).bias(false));
        let count = |module: &dyn Module| -> Result<u64> { Ok(module.summary([1, inputs, size, size])?.multiply_adds) };
        let (whole, parts) = (count(&plain)?, count(&separable)?);
        let (share, expected) = (parts as f64 / whole as f64, 1.0 / outputs as f64 + 1.0 / 9.0);
        ensure((share - expected).abs() < 1e-12, format_args!("a share of {share}, not {expected}"))?;
        (low, high) = (low.min(share), high.max(share));
        let name = format!("{size}×{size}, {inputs} to {outputs}");
        rows.push([name, whole.to_string(), parts.to_string(), format!("{share:.4}"), format!("{expected:.4}")]);
    }
    table(&rows);
    Ok([low, high])
}

/// Shows how far units see by depth, in stacks of convolutions.
fn receptive_fields(lab: &Lab) -> Result<()> {
    const DEPTH: usize = 6;
    type Stack = (&'static str, fn(usize) -> Conv2d, bool);
    let stacks: [Stack; 5] = [
        ("3×3", |_| Conv2d::new(1, 1, 3), false),
        ("5×5", |_| Conv2d::new(1, 1, 5), false),
        ("3×3, dilation 1, 2, 4, …", |i| Conv2d::new(1, 1, 3).dilation(1 << i), false),
        ("3×3, 2×2 pooling after each", |_| Conv2d::new(1, 1, 3), true),
        ("3×3, stride 2", |_| Conv2d::new(1, 1, 3).stride(2), false),
    ];
    let mut rows = vec![["depth", "1", "2", "3", "4", "5", "6", "seen by gradient"].map(String::from)];
    let mut chart = Chart::new("Receptive field by depth").x("convolutions").y("pixels on a side").log_y();
    for (at, &(name, layer, pooled)) in stacks.iter().enumerate() {
        let mut net = Sequential::new();
        let mut sizes = Vec::new();
        for i in 0..DEPTH {
            net = net.push(layer(i)).push(ReLU);
            if pooled {
                net = net.push(MaxPool2d::new(2));
            }
            let fields = net.receptive_field([1, 1, 256, 256])?;
            sizes.push(fields.rows.last().map_or(1, |field| field.size[0]));
        }
        let seen = seen_by_gradient(&layer, pooled)?;
        ensure(seen == sizes[2], format_args!("{name}: the gradient reaches {seen} pixels at depth 3, the counter says {}", sizes[2]))?;
        let points = (1..).map(f64::from).zip(sizes.iter().map(|&size| size as f64));
        // Strides and dilations of powers of 2 see equally far: markers on the other's line.
        chart = if at == stacks.len() - 1 { chart.points(name, points) } else { chart.curve(name, points) };
        let cells: Vec<String> =
            [name.to_string()].into_iter().chain(sizes.iter().map(usize::to_string)).chain([format!("{seen} at 3")]).collect();
        rows.extend(<[String; 8]>::try_from(cells));
    }
    table(&rows);
    lab.chart("parameters.svg", chart)
}

/// Returns the height of the area whose pixels have a gradient, for the middle unit of three
/// layers.
fn seen_by_gradient(layer: &dyn Fn(usize) -> Conv2d, pooled: bool) -> Result<usize> {
    let side = 128;
    let mut y = Tensor::ones([1, 1, side, side]).with_grad();
    let x = y.clone();
    for i in 0..3 {
        let conv = layer(i);
        conv.weight.set(&Tensor::ones(conv.weight.tensor().shape()))?;
        y = conv.forward(&y)?;
        // The mean sends a gradient to each pixel of its window, the maximum to one of them.
        y = if pooled { y.avg_pool2d(2, Default::default())? } else { y };
    }
    let [height, width] = [y.shape()[2], y.shape()[3]];
    let unit = y.narrow(2, height / 2, 1)?.narrow(3, width / 2, 1)?;
    let gradients = unit.sum(..)?.backward()?;
    let gradient = gradients.get(&x).map_or(Ok(vec![]), Tensor::to_vec::<f32>)?;
    Ok(gradient.chunks(side).filter(|row| row.iter().any(|&value| value != 0.0)).count())
}
