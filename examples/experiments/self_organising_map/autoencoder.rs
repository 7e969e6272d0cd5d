//! Autoencoders that compress digits to a few numbers.

use convnet::data::Rng;
use convnet::optim::{Adam, CosineAnnealingLr};
use convnet::prelude::*;

use crate::lab::{Lab, ensure, say, spread, table};

const HIDDEN: usize = 128;

/// Trains an autoencoder for each size of code; returns the figure.
pub fn compress(lab: &Lab, x: &Tensor, seen: &Tensor) -> Result<String> {
    let sizes: &[usize] = lab.pick(&[2, 16], &[2, 8, 32]);
    let pixels = x.shape()[1];
    let mut rows = vec![["autoencoder, code", "numbers / pixels", "PSNR in dB"].map(String::from)];
    let mut means = Vec::new();
    for &code in sizes {
        let mut psnr = Vec::new();
        for seed in lab.seed..lab.seed + 3 {
            convnet::manual_seed(seed);
            let model = Sequential::new()
                .push(Linear::new(pixels, HIDDEN))
                .push(ReLU)
                .push(Linear::new(HIDDEN, code))
                .push(Linear::new(code, HIDDEN))
                .push(ReLU)
                .push(Linear::new(HIDDEN, pixels))
                .push(Sigmoid);
            train(&model, x, lab.pick(30, 4), seed)?;
            let error = no_grad(|| model.forward(seen)?.mse_loss(seen))?.item::<f32>()?;
            psnr.push(-10.0 * f64::from(error).log10());
        }
        let (mean, deviation) = spread(&psnr);
        rows.push([code.to_string(), format!("{:.3}", code as f64 / pixels as f64), format!("{mean:.2} ± {deviation:.2}")]);
        means.push(mean);
    }
    say("");
    table(&rows);
    let (first, last) = (means[0], means[means.len() - 1]);
    ensure(last > first + lab.pick(2.0, 4.0), "a wide code restores hardly more than a narrow one")?;
    Ok(format!("PSNR {first:.1} dB with {} numbers, {last:.1} dB with {}", sizes[0], sizes[sizes.len() - 1]))
}

fn train(model: &Sequential, x: &Tensor, epochs: u64, seed: u64) -> Result<()> {
    let (mut rng, batch) = (Rng::new(seed), 128);
    let mut order: Vec<i64> = (0..x.shape()[0] as i64).collect();
    let mut optimizer = Adam::new(model.parameters(), 3e-3);
    let steps = epochs * (order.len() / batch) as u64;
    let mut schedule = LrScheduler::new(CosineAnnealingLr::new(0.0).steps(steps), &mut optimizer)?;
    for _ in 0..epochs {
        rng.shuffle(&mut order);
        for chosen in order.chunks_exact(batch) {
            let x = x.index_select(0, &Tensor::from_slice(chosen, [batch])?)?;
            optimizer.step(&model.forward(&x)?.mse_loss(&x)?.backward()?)?;
            schedule.step(&mut optimizer)?;
        }
    }
    Ok(())
}
