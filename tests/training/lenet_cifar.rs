//! The network of `examples/lenet_cifar.rs` against PyTorch, step by step.

use convnet::data::{Batch, DataLoader, Dataset, IMAGENET_MEAN, IMAGENET_STD, Image, Normalize, Rng};
use convnet::prelude::*;
use convnet::train::{LogValue, Logger, Step, Trainer};

const BATCH: usize = 128;

/// SplitMix64 (Steele et al., 2014) of a number.
fn number(at: u64) -> u64 {
    let mut z = (at + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The pictures of `tests/fixtures/lenet_cifar.py`.
struct Patterns(usize);

impl Dataset for Patterns {
    type Sample = (Image, i64);

    fn len(&self) -> usize {
        self.0
    }

    fn get(&self, index: usize, _: &mut Rng) -> Result<(Image, i64)> {
        let (sample, pattern) = (index as u64, index as u64 % 10);
        let byte = |i: u64| (number((1 << 32) + 3072 * pattern + i) >> 59) + (number((1 << 40) + 3072 * sample + i) >> 57);
        // The bytes count by channel, row and column; an image has the channels of a pixel
        // together.
        let bytes = (0..3072).map(|i| byte(i % 3 * 1024 + i / 3) as u8).collect();
        let label = if sample.is_multiple_of(4) { sample / 10 % 10 } else { pattern };
        Ok((Image::from_bytes([3, 32, 32], bytes)?, label as i64))
    }
}

fn network() -> Sequential {
    let net = Sequential::new().push(Conv2d::new(3, 16, 5)).push(ReLU).push(MaxPool2d::new(2)); // [N, 16, 14, 14]
    let net = net.push(Conv2d::new(16, 32, 5)).push(ReLU).push(MaxPool2d::new(2)); //             [N, 32, 5, 5]
    let net = net.push(Flatten).push(Linear::new(800, 32)).push(ReLU).push(Linear::new(32, 10));
    let (mut start, mut bound) = (0, 0.0);
    for parameter in net.parameters() {
        let shape = parameter.shape();
        if shape.len() > 1 {
            bound = (shape[1..].iter().product::<usize>() as f64).powf(-0.5);
        }
        let count: usize = shape.iter().product();
        let uniform = |at: u64| (number(at) >> 40) as f64 / f64::from(1 << 24);
        let values = (start..start + count as u64).map(|at| ((2.0 * uniform(at) - 1.0) * bound) as f32).collect();
        parameter.set(&Tensor::from_vec(values, shape).unwrap()).unwrap();
        start += count as u64;
    }
    net
}

/// Keeps the loss of each step.
struct Losses<'a>(&'a mut Vec<f64>);

impl Logger for Losses<'_> {
    fn log(&mut self, _: u64, values: &[(&str, LogValue<'_>)]) -> Result<()> {
        for (name, value) in values {
            if let ("step/loss", LogValue::Scalar(loss)) = (*name, value) {
                self.0.push(*loss);
            }
        }
        Ok(())
    }

    fn rewind(&mut self, _: u64) -> Result<()> {
        Ok(())
    }
}

/// Trains for 100 steps; returns the loss of each.
fn losses_in(dtype: DType) -> Vec<f64> {
    let model = network();
    model.to_dtype(dtype).unwrap();
    let loader = DataLoader::new(Patterns(100 * BATCH), BATCH).workers(1).transform(Normalize::new(IMAGENET_MEAN, IMAGENET_STD));
    let mut losses = vec![];
    Trainer::new(&model, Adam::new(model.parameters(), 1e-3))
        .log(Losses(&mut losses))
        .log_every(1)
        .progress(false)
        .fit(&loader, None, |model, Batch { images, labels }| {
            Ok(Step::new(model.forward(&images.to_dtype(dtype)?)?.cross_entropy(labels)?))
        })
        .unwrap();
    losses
}

#[test]
fn lenet_on_pictures_of_cifar_has_the_losses_of_pytorch_for_100_steps() {
    let fixture: serde_json::Value = serde_json::from_str(include_str!("../fixtures/lenet_cifar.json")).unwrap();
    let expected: Vec<f64> = serde_json::from_value(fixture["losses"].clone()).unwrap();
    // Differences of rounding grow: PyTorch's own losses in f32 are up to 0.0023 off over the first
    // 40 steps, and up to 0.016 over all.
    for (dtype, steps, bound) in [(DType::F64, 100, 1e-6), (DType::F32, 40, 5e-3)] {
        let losses = losses_in(dtype);
        assert_eq!((losses.len(), expected.len()), (100, 100));
        for (step, (loss, expected)) in losses.iter().zip(&expected).enumerate().take(steps) {
            assert!((loss - expected).abs() < bound, "{dtype}, step {step}: {loss} instead of {expected}");
        }
    }
}
