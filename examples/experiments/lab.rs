//! What all experiments share: options, data, tables, pictures.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use convnet::chart::Panels;
use convnet::data::{Batch, ColorMap, DataLoader, Dataset, Digits, Image, Mnist, Resize, ResizeFilter, Rng, Subset, Transform};
use convnet::nn::Module;
use convnet::ops::Interpolation;
use convnet::optim::{Adam, LrSchedule, OneCycleLr, Optimizer, Sgd};
use convnet::{Error, Result, Tensor, no_grad, train};

pub use super::common::data::{Pictures, first};
pub use super::common::program::say;

/// A row of the table of experiments.
pub struct Experiment {
    pub name: &'static str,
    /// What it tests, in one sentence.
    pub claim: &'static str,
    /// Runs it and returns the figure for the last line.
    pub run: fn(&Lab) -> Result<String>,
}

/// The options of a run.
#[derive(Args, Clone, Debug)]
pub struct Lab {
    /// Directory that has `mnist`, `cifar10`, `reviews`, `signals`, `faces`, `pictures` or some of
    /// them; without it, experiments use the embedded digits or data that they make
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Seed of weights, data and order
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Less data and fewer steps: seconds instead of minutes, with wider bounds on the figures
    #[arg(long)]
    pub quick: bool,
    /// Directory for pictures
    #[arg(long, value_name = "DIR", default_value = "out/experiments")]
    out: PathBuf,
}

/// Pictures of digits to train and to test on.
pub struct DigitData {
    pub train: Pictures,
    pub test: Pictures,
    /// Height and width: 28 for MNIST, 8 for the embedded digits.
    pub size: usize,
    pub name: &'static str,
}

impl Lab {
    /// Returns the first of the two in a quick run, else the second.
    pub fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Returns a folder or file of the data directory, if it is there. Says so if it is not.
    pub fn data(&self, name: &str) -> Option<PathBuf> {
        let path = self.data.as_ref().map(|dir| dir.join(name)).filter(|path| path.exists());
        if path.is_none() {
            say(format_args!("`{name}` is not in --data: embedded or generated data replace it, or this part is left out"));
        }
        path
    }

    /// Returns MNIST if the data directory has it, else the embedded digits.
    pub fn digits(&self) -> Result<DigitData> {
        Ok(match self.data("mnist") {
            Some(dir) => DigitData { train: Arc::new(Mnist::train(&dir)?), test: Arc::new(Mnist::test(&dir)?), size: 28, name: "MNIST" },
            None => DigitData { train: Arc::new(Digits::train()), test: Arc::new(Digits::test()), size: 8, name: "embedded digits" },
        })
    }

    /// Returns the path of an output file, in a directory that exists.
    pub fn output(&self, file: &str) -> Result<PathBuf> {
        fs::create_dir_all(&self.out).map_err(|source| Error::Io { path: self.out.clone(), source })?;
        Ok(self.out.join(file))
    }

    /// Saves a chart in the output directory, as SVG.
    pub fn chart(&self, file: &str, chart: impl Into<Panels>) -> Result<()> {
        let path = self.output(file)?;
        chart.into().save(&path)?;
        picture(&path);
        Ok(())
    }

    /// Saves a picture in the output directory.
    pub fn save(&self, file: &str, image: &Image) -> Result<()> {
        let path = self.output(file)?;
        image.save(&path)?;
        picture(&path);
        Ok(())
    }
}

/// Returns all pictures as one batch.
pub fn batch(pictures: &Pictures) -> Result<Batch> {
    only_batch(DataLoader::new(Arc::clone(pictures), pictures.len()))
}

fn only_batch(loader: DataLoader) -> Result<Batch> {
    loader.epoch(0).next().unwrap_or_else(|| Err(Error::msg("there are no pictures")))
}

/// Trains a classifier by cross-entropy with SGD, momentum 0.9, whose rate rises to `lr` and falls
/// to 0. Returns the mean loss of each epoch; the model is in evaluation at the end.
pub fn fit<M: Module + ?Sized>(model: &M, data: &DataLoader, epochs: u64, lr: f64) -> Result<Vec<f64>> {
    let mut optimizer = Sgd::new(model.parameters(), lr).momentum(0.9).weight_decay(5e-4);
    let mut schedule = OneCycleLr::new(lr, (epochs * data.len() as u64).max(1)).attach(&mut optimizer)?;
    model.train();
    let losses = (0..epochs).map(|epoch| {
        let mut sum = 0.0;
        for batch in data.epoch(epoch) {
            let Batch { images, labels } = batch?;
            let loss = model.forward(&images)?.cross_entropy(&labels)?;
            optimizer.step(&loss.backward()?)?;
            schedule.step(&mut optimizer)?;
            sum += f64::from(loss.item::<f32>()?);
        }
        Ok(sum / data.len().max(1) as f64)
    });
    let losses = losses.collect();
    model.eval();
    losses
}

/// Returns the share of pictures that a classifier gets right.
pub fn accuracy<M: Module + ?Sized>(model: &M, data: &DataLoader) -> Result<f64> {
    Ok(train::evaluate(model, data)?.accuracy())
}

/// Reads pictures into tensors `[N, C, H, W]` and `[N]`, each through a transform.
pub fn tensors(
    pictures: &Pictures,
    indices: impl IntoIterator<Item = usize>,
    transform: impl Transform + 'static,
) -> Result<(Tensor, Tensor)> {
    let subset = Subset::shared(Arc::clone(pictures), indices)?;
    let count = subset.len();
    let Batch { images, labels } = only_batch(DataLoader::new(subset, count).transform(transform))?;
    Ok((images, labels))
}

/// Returns the first pictures of each class, in this order, as many as `counts` says. Fewer if
/// there are no more.
pub fn of_each_class(pictures: &Pictures, order: &[usize], mut counts: [usize; 10]) -> Result<Vec<usize>> {
    let (mut rng, mut chosen) = (Rng::new(0), vec![]);
    for &index in order {
        if counts == [0; 10] {
            break;
        }
        let left = &mut counts[pictures.get(index, &mut rng)?.1 as usize];
        if *left > 0 {
            *left -= 1;
            chosen.push(index);
        }
    }
    Ok(chosen)
}

/// Returns an epoch of shuffled minibatches, drawn by this thread's generator.
pub fn shuffled(images: &Tensor, labels: &Tensor, size: usize) -> Result<Vec<(Tensor, Tensor)>> {
    let order = Tensor::rand([labels.numel()]).argsort(0, false)?;
    let batches = (0..labels.numel()).step_by(size).map(|start| {
        let chosen = order.narrow(0, start, size.min(labels.numel() - start))?;
        Ok((images.index_select(0, &chosen)?, labels.index_select(0, &chosen)?))
    });
    batches.collect()
}

/// Returns the share of pictures whose largest output is that of their class, in evaluation mode.
pub fn accuracy_of(model: &dyn Module, images: &Tensor, labels: &Tensor) -> Result<f64> {
    model.eval();
    let accuracy = train::accuracy(&predict(model, images)?, labels)?;
    model.train();
    Ok(accuracy)
}

/// Says where a picture is.
pub fn picture(path: &Path) {
    say(format_args!("picture: {}", path.display()));
}

/// Fails with a message unless a figure is as it should be.
pub fn ensure(holds: bool, message: impl Display) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::msg(message.to_string())) }
}

/// Returns mean and standard deviation (of a sample, not of a population).
pub fn spread(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, if values.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 })
}

/// Prints rows in columns, the first aligned left, the others right. The first row is the head.
pub fn table<const N: usize>(rows: &[[String; N]]) {
    let widths: [usize; N] = std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for (i, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(widths).enumerate();
        let cells: Vec<String> =
            cells.map(|(column, (cell, width))| if column == 0 { format!("{cell:width$}") } else { format!("{cell:>width$}") }).collect();
        say(cells.join("  ").trim_end());
        if i == 0 {
            say("─".repeat(widths.iter().sum::<usize>() + 2 * (N - 1)));
        }
    }
}

/// A picture of one channel, row by row, with its class.
pub type Glyph = (Vec<f32>, i64);

/// Returns the first pictures of a set, at most this many.
pub fn glyphs(pictures: &Pictures, most: usize) -> Result<Vec<Glyph>> {
    let mut rng = Rng::new(0);
    (0..pictures.len().min(most)).map(|i| pictures.get(i, &mut rng).map(|(image, class)| (image.pixels().into_owned(), class))).collect()
}

/// Trains a network with Adam, whose rate rises to `rate` and falls again (Smith, 2018), and leaves
/// it in evaluation. `loss` gets the indices of the samples of a batch.
pub fn fit_by(
    net: &dyn Module,
    samples: usize,
    epochs: usize,
    batch: usize,
    rate: f64,
    seed: u64,
    loss: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<()> {
    fit_steps(net, samples, epochs * samples.div_ceil(batch), batch, rate, seed, loss)
}

/// Trains as [`fit_by`] does, for `steps` steps; the last epoch may be incomplete.
pub fn fit_steps(
    net: &dyn Module,
    samples: usize,
    steps: usize,
    batch: usize,
    rate: f64,
    seed: u64,
    loss: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<()> {
    net.train();
    let mut optimizer = Adam::new(net.parameters(), rate);
    let mut schedule = OneCycleLr::new(rate, steps as u64 + 1).attach(&mut optimizer)?;
    let mut order: Vec<i64> = (0..samples as i64).collect();
    let mut rng = Rng::new(seed);
    let per_epoch = samples.div_ceil(batch).max(1);
    for start in (0..steps).step_by(per_epoch) {
        rng.shuffle(&mut order);
        for indices in order.chunks(batch).take(steps - start) {
            let gradients = loss(&Tensor::from_slice(indices, [indices.len()])?)?.backward()?;
            optimizer.step(&gradients)?;
            schedule.step(&mut optimizer)?;
        }
    }
    net.eval();
    Ok(())
}

/// Runs a network without history over the first dimension of its input, in parts.
pub fn predict(net: &dyn Module, x: &Tensor) -> Result<Tensor> {
    let parts = x.split(250, 0)?.iter().map(|part| no_grad(|| net.forward(part))).collect::<Result<Vec<_>>>()?;
    Tensor::cat(&parts.iter().collect::<Vec<_>>(), 0)
}

/// Makes a picture of a map `[1, H, W]`, dark to bright, with squares of `factor` pixels.
pub fn enlarged(map: &Tensor, colors: ColorMap, factor: usize) -> Result<Image> {
    let size = [map.size(1)? * factor, map.size(2)? * factor];
    colors.paint(&map.unsqueeze(0)?.interpolate(size, Interpolation::Nearest)?.squeeze([0, 1])?)
}

/// Paints numbers of a square map, 0 in the middle of the colours.
pub fn signed(values: &[f64], side: usize, pixels: usize) -> Result<Image> {
    let largest = values.iter().fold(1e-12f64, |largest, value| largest.max(value.abs()));
    let colors = values.iter().flat_map(|value| ColorMap::Viridis.color(0.5 + 0.5 * value / largest)).collect();
    let mut image = Image::from_bytes([3, side, side], colors)?;
    image.apply(&Resize::new(pixels).interpolation(ResizeFilter::Nearest))?;
    Ok(image)
}

/// Formats mean and deviation, with three places.
pub fn plus_minus(values: &[f64]) -> String {
    let (mean, deviation) = spread(values);
    if values.len() == 1 { format!("{mean:.3}") } else { format!("{mean:.3} ± {deviation:.3}") }
}

/// Formats mean and deviation in percent.
pub fn percent(values: &[f64]) -> String {
    let (mean, deviation) = spread(values);
    if values.len() == 1 { format!("{:.1} %", 100.0 * mean) } else { format!("{:.1} ± {:.1} %", 100.0 * mean, 100.0 * deviation) }
}
