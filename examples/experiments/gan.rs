//! # A network that invents digits
//!
//! Two networks play against each other (Goodfellow et al., *Generative Adversarial Nets*, 2014): a
//! generator makes pictures of random numbers, a discriminator tells them from real ones, and each
//! learns from the other's success. Radford, Metz and Chintala (*Unsupervised Representation
//! Learning with Deep Convolutional Generative Adversarial Networks*, 2015) found the layers with
//! which convolutional networks of this kind learn without collapsing: strides in place of pooling,
//! batch normalisation, leaky ReLU in the discriminator, Adam with a low rate and little momentum.
//! [`convnet::models::dcgan_generator`] and [`convnet::models::dcgan_discriminator`] are those
//! networks. Both also see the class that is wanted (Mirza and Osindero, *Conditional Generative
//! Adversarial Nets*, 2014): the generator as ten more numbers, the discriminator as ten more
//! channels, so that samples come with labels.
//!
//! First, the networks learn MNIST. `gan.png` shows a row of samples for the start and for each
//! epoch, always of the same random numbers, and real digits in the last row. How good they are is
//! measured by a classifier that has only seen real digits: the share of samples that it takes for
//! the class that was wanted.
//!
//! Second, a claim that is often heard: samples of a generator can enlarge a small training set.
//! Here a classifier learns from 50 digits of each class, with and without samples of a generator
//! that saw only the same 500 digits. Both take the same number of steps; with samples, half of
//! each batch is generated anew. What to look at: the difference of the two test accuracies beside
//! its spread over the seeds. A generator cannot know more than the digits it saw; what it can add
//! is a smooth path between them.

mod adversaries;

use adversaries::Gan;
use convnet::data::{Dataset, Image, Normalize, RandomSampler, Rng, Sampler, Subset};
use convnet::ops::Interpolation;
use convnet::prelude::*;
use convnet::train::accuracy;

use super::lab::{self, DigitData, Experiment, Lab, Pictures, ensure, of_each_class, plus_minus, say, spread, table};

pub const EXPERIMENT: Experiment = Experiment {
    name: "gan",
    claim: "a DCGAN learns to draw digits (Radford et al., 2015); its samples do or do not enlarge a small training set",
    run,
};

const CLASSES: usize = 10;

fn run(lab: &Lab) -> Result<String> {
    let digits = lab.digits()?;
    say(format_args!("learning {}, in rows of `gan.png` from the start to the last epoch, then real digits\n", digits.name));
    let recognised = invent(lab, &digits)?;

    let mut rows = vec![["seed", "without samples", "with samples", "difference"].map(String::from)];
    let mut columns = [vec![], vec![], vec![]];
    for seed in 0..lab.pick(2, 5) {
        let [without, with] = enlarge(lab, &digits, lab.seed + seed)?;
        let row = [without, with, with - without];
        rows.push([seed.to_string(), format!("{without:.4}"), format!("{with:.4}"), format!("{:+.4}", row[2])]);
        columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
    }
    let means = columns.each_ref().map(|column| plus_minus(column));
    let [without, with, difference] = &means;
    rows.push(["mean".to_string(), without.clone(), with.clone(), difference.clone()]);
    say("\nclassifiers that saw few digits of each class:\n");
    table(&rows);

    let bound = lab.pick(0.5, 0.9);
    ensure(recognised >= bound, format_args!("{recognised:.3} of the samples are recognised, expected at least {bound}"))?;
    let least = spread(&columns[0]).0.min(spread(&columns[1]).0);
    ensure(least > 0.5, format_args!("a classifier did not learn: {without} and {with}"))?;
    Ok(format!(
        "{:.1} % of samples recognised; few digits: accuracy {without} without samples, {with} with, difference {difference}",
        100.0 * recognised
    ))
}

/// Returns batches of digits with values in `[-1, 1]`.
fn batches(digits: impl Dataset<Sample = (Image, i64)> + 'static, batch: usize, seed: u64) -> DataLoader {
    DataLoader::new(digits, batch).shuffle(seed).drop_last(true).transform(Normalize::new([0.5], [0.5]))
}

/// Teaches the networks all digits, draws samples by epoch, and returns the share of samples that a
/// classifier of real digits recognises.
fn invent(lab: &Lab, digits: &DigitData) -> Result<f64> {
    let count = digits.train.len().min(20_000);
    let train = Subset::shared(digits.train.clone(), 0..count)?;
    let mut gan = Gan::new(digits.size, lab.pick(32, 24))?;
    let loader = batches(train.clone(), lab.pick(64, 32), lab.seed);
    // Two of each class.
    let labels = Tensor::from_vec((0..20).map(|i| i / 2).collect::<Vec<i64>>(), [20])?;
    let noise = gan.noise(20);
    let mut rows = vec![drawn(&gan, &noise, &labels)?];
    for epoch in 0..lab.pick(48, 7) {
        for batch in loader.epoch(epoch) {
            let Batch { images, labels } = batch?;
            gan.step(&images, &labels)?;
        }
        if !lab.quick || epoch % 12 == 11 {
            rows.push(drawn(&gan, &noise, &labels)?);
        }
    }
    rows.push(real(&digits.train, &labels)?);
    let picture = Image::grid(&rows.concat(), 20, 1)?;
    let size = picture.size().map(|side| side * if digits.size < 16 { 3 } else { 1 });
    lab.save("gan.png", &Image::from_tensor(&picture.to_tensor().unsqueeze(0)?.interpolate(size, Interpolation::Nearest)?.squeeze(0)?)?)?;

    let classifier = classifier(digits.size);
    train_classifier(&classifier, &batches(train, 64, lab.seed), lab.pick(8, 2), None)?;
    let labels = Tensor::from_vec((0..500).map(|i| i % 10).collect::<Vec<i64>>(), [500])?;
    gan.generator.eval();
    let samples = no_grad(|| gan.sample(&gan.noise(500), &labels))?;
    let real = tested(&classifier, &digits.test)?;
    let recognised = accuracy(&no_grad(|| classifier.forward(&samples))?, &labels)?;
    say(format_args!("a classifier recognises {:.1} % of real digits and {:.1} % of samples", 100.0 * real, 100.0 * recognised));
    Ok(recognised)
}

/// Learns from few digits of each class; returns the test accuracies of a classifier without and
/// with samples of a generator that saw the same digits.
fn enlarge(lab: &Lab, digits: &DigitData, seed: u64) -> Result<[f64; 2]> {
    manual_seed(seed);
    let order = RandomSampler::new(digits.train.len()).indices(&mut Rng::new(seed))?;
    let few = Subset::shared(digits.train.clone(), of_each_class(&digits.train, &order, [lab.pick(20, 50); CLASSES])?)?;
    let mut gan = Gan::new(digits.size, lab.pick(32, 16))?;
    let loader = batches(few, lab.pick(50, 20), seed);
    for epoch in 0..lab.pick(40, 60) {
        for batch in loader.epoch(epoch) {
            let Batch { images, labels } = batch?;
            gan.step(&images, &labels)?;
        }
    }
    gan.generator.eval();
    let mut accuracies = [0.0; 2];
    for (samples, accuracy) in [None, Some(&gan)].into_iter().zip(&mut accuracies) {
        // The same first weights for both.
        manual_seed(seed);
        let classifier = classifier(digits.size);
        train_classifier(&classifier, &loader, lab.pick(30, 40), samples)?;
        *accuracy = tested(&classifier, &digits.test)?;
    }
    Ok(accuracies)
}

/// A small network for digits of 28×28 or 8×8 pixels.
fn classifier(size: usize) -> Sequential {
    Sequential::new()
        .push(Conv2d::new(1, 16, 3).padding(1))
        .push(ReLU)
        .push(MaxPool2d::new(2))
        .push(Conv2d::new(16, 32, 3).padding(1))
        .push(ReLU)
        .push(MaxPool2d::new(2))
        .push(Flatten)
        .push(Linear::new(32 * (size / 4).pow(2), CLASSES))
}

/// Trains on digits; with a generator, half of each batch are its samples.
fn train_classifier(model: &Sequential, loader: &DataLoader, epochs: u64, samples: Option<&Gan>) -> Result<()> {
    let mut optimizer = Adam::new(model.parameters(), 1e-3);
    for epoch in 0..epochs {
        for batch in loader.epoch(epoch) {
            let Batch { mut images, mut labels } = batch?;
            if let Some(gan) = samples {
                let half = labels.numel() / 2;
                let wanted = Tensor::randint(CLASSES as i64, [half]);
                let made = no_grad(|| gan.sample(&gan.noise(half), &wanted))?;
                images = Tensor::cat(&[&images.narrow(0, half, labels.numel() - half)?, &made], 0)?;
                labels = Tensor::cat(&[&labels.narrow(0, half, labels.numel() - half)?, &wanted], 0)?;
            }
            optimizer.step(&model.forward(&images)?.cross_entropy(&labels)?.backward()?)?;
        }
    }
    Ok(())
}

fn tested(model: &Sequential, digits: &Pictures) -> Result<f64> {
    lab::accuracy(model, &DataLoader::new(digits.clone(), 500).transform(Normalize::new([0.5], [0.5])))
}

/// Returns a row of pictures of the generator's samples.
fn drawn(gan: &Gan, noise: &Tensor, labels: &Tensor) -> Result<Vec<Image>> {
    gan.generator.eval();
    let samples = no_grad(|| gan.sample(noise, labels))?.add_scalar(1.0).mul_scalar(0.5);
    gan.generator.train();
    samples.chunk(labels.numel(), 0)?.iter().map(|sample| Image::from_tensor(&sample.squeeze(0)?)).collect()
}

/// Returns a real digit for each label.
fn real(digits: &Pictures, labels: &Tensor) -> Result<Vec<Image>> {
    let mut rng = Rng::new(0);
    let mut next = 0;
    let mut row = vec![];
    for label in labels.to_vec::<i64>()? {
        loop {
            let (image, found) = digits.get(next, &mut rng)?;
            next += 1;
            if found == label {
                break row.push(image);
            }
        }
    }
    Ok(row)
}
