//! The loss around a network.

use convnet::chart::Chart;
use convnet::models::CifarResNet;
use convnet::nn::Module;
use convnet::{Result, Tensor, no_grad};

/// Draws contours of the loss in the square of ±1 along two directions, and returns how much larger
/// the loss is at a distance of 0.5, as a mean over four sides.
pub fn surface(name: &str, net: &CifarResNet, images: &Tensor, labels: &Tensor, side: usize) -> Result<(Chart, f64)> {
    // Normalisation by the statistics of these pictures: running ones belong to the weights of the
    // centre, and far from it they would measure nothing but that.
    net.train();
    let weights: Vec<_> = net.parameters().into_iter().filter(|p| p.shape().len() > 1).collect();
    let start: Vec<Tensor> = weights.iter().map(|p| p.tensor().detach()).collect();
    let direction = || -> Result<Vec<Tensor>> {
        let normalised = |weight: &Tensor| {
            let noise = Tensor::randn(weight.shape());
            let norms = |tensor: &Tensor| -> Result<Tensor> {
                let filters = weight.shape()[0];
                let sizes: Vec<usize> = std::iter::once(filters).chain(weight.shape().iter().skip(1).map(|_| 1)).collect();
                tensor.reshape([filters, weight.numel() / filters])?.norm(2.0, 1)?.reshape(sizes)
            };
            noise.mul(&norms(weight)?.div(&norms(&noise)?)?)
        };
        start.iter().map(normalised).collect()
    };
    let (a, b) = (direction()?, direction()?);
    let at = |i: usize| 2.0 * i as f64 / (side - 1) as f64 - 1.0;
    let loss = |x: f64, y: f64| -> Result<f64> {
        for (i, weight) in weights.iter().enumerate() {
            weight.set(&start[i].add(&a[i].mul_scalar(x))?.add(&b[i].mul_scalar(y))?)?;
        }
        no_grad(|| Ok(f64::from(net.forward(images)?.cross_entropy(labels)?.item::<f32>()?)))
    };
    let mut values = vec![vec![0.0; side]; side];
    for (i, row) in values.iter_mut().enumerate() {
        for (j, value) in row.iter_mut().enumerate() {
            *value = loss(at(j), at(i))?;
        }
    }
    let sides = [(0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5)];
    let rise = sides.iter().map(|&(x, y)| loss(x, y)).sum::<Result<f64>>()? / 4.0 - loss(0.0, 0.0)?;
    let mut chart = Chart::new(format!("Loss around {name}")).x("first direction").y("second direction");
    chart = chart.x_range(-1.0, 1.0).y_range(-1.0, 1.0);
    // Six levels between the least and the largest loss: one surface is much flatter than the
    // other.
    let (least, most) = values.iter().flatten().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), &v| (least.min(v), most.max(v)));
    let levels = (1..=6).map(|k| ((least + (most - least) * f64::from(k) / 7.0) * 1000.0).round() / 1000.0);
    Ok((chart.contours("loss", &values, (-1.0, 1.0), (-1.0, 1.0), levels), rise))
}
