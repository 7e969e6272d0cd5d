//! How the time of a model's inference grows with the number of images and with their size.
//!
//! Each row is timed in turn with the one before, so that the ratio of the two does not depend on
//! what else the machine does.

use std::io::{Write, stdout};
use std::time::{Duration, Instant};

use convnet::nn::Module;
use convnet::{MemoryFormat, Tensor, no_grad};

use crate::model::Network;
use crate::{Fallible, machine, median};

const BATCHES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
const SIZES: [usize; 9] = [32, 64, 96, 128, 192, 224, 256, 384, 512];
/// The size that the batches are timed at.
const SIZE: usize = 224;

/// Samples of a row, unless they take too long together.
const SAMPLES: usize = 9;
const FEWEST: usize = 3;
const LONG: Duration = Duration::from_millis(2500);
/// What a sample takes at least, in seconds.
const SAMPLE: f64 = 0.02;

pub fn print(name: &str) -> Fallible<()> {
    let Network { model, channels, size: [height, _], fixed, .. } = Network::new(name, None)?;
    model.eval();
    // As elsewhere in this program, models for small images take no others.
    let size = if fixed { height } else { SIZE };
    writeln!(stdout(), "{name}, inference, {}", machine())?;
    writeln!(
        stdout(),
        "The ratio is the time for each pixel to that of the row before, both timed in turn: below 1 where images get cheaper together."
    )?;

    rows(&*model, channels, "images", BATCHES.map(|batch| [batch, size]))?;
    if !fixed {
        rows(&*model, channels, "size", SIZES.map(|size| [1, size]))?;
    }
    Ok(())
}

/// A table of cases, which are numbers of images and their sizes; one that the model refuses is a
/// row that says so.
fn rows<const N: usize>(model: &dyn Module, channels: usize, what: &str, cases: [[usize; 2]; N]) -> Fallible<()> {
    writeln!(stdout(), "\n{what:>8}{:>12}{:>14}{:>14}{:>8}", "ms", "ms per image", "ns per pixel", "ratio")?;
    let mut before: Option<Case> = None;
    for [batch, size] in cases {
        let x = Tensor::randn([batch, channels, size, size]).to_memory_format(MemoryFormat::ChannelsLast)?;
        let label = if what == "size" { size } else { batch };
        let mut case = match Case::new(model, x) {
            Ok(case) => case,
            Err(error) => {
                writeln!(stdout(), "{label:8}  {error}")?;
                continue;
            }
        };
        let ratio = case.sample_with(before.as_mut())?.map_or("-".to_string(), |ratio| format!("{ratio:.2}"));
        let seconds = median(std::mem::take(&mut case.seconds));
        let (of_image, of_pixel) = (seconds / batch as f64, seconds / case.pixels);
        writeln!(stdout(), "{label:8}{:12.3}{:14.3}{:14.2}{ratio:>8}", 1e3 * seconds, 1e3 * of_image, 1e9 * of_pixel)?;
        before = Some(case);
    }
    Ok(())
}

/// Inference on a batch.
struct Case<'a> {
    model: &'a dyn Module,
    x: Tensor,
    pixels: f64,
    /// Steps to a sample.
    steps: usize,
    /// For each sample, those of a step.
    seconds: Vec<f64>,
}

impl<'a> Case<'a> {
    /// Runs it until it is warm.
    fn new(model: &'a dyn Module, x: Tensor) -> convnet::Result<Case<'a>> {
        let pixels = (x.shape()[0] * x.shape()[2] * x.shape()[3]) as f64;
        let mut case = Case { model, x, pixels, steps: 1, seconds: vec![] };
        case.sample()?;
        let seconds = case.sample()?;
        case.steps = (SAMPLE / seconds).ceil().clamp(1.0, 1e4) as usize;
        Ok(case)
    }

    /// The seconds that a step takes now.
    fn sample(&mut self) -> convnet::Result<f64> {
        let start = Instant::now();
        for _ in 0..self.steps {
            no_grad(|| self.model.forward(&self.x))?;
        }
        Ok(start.elapsed().as_secs_f64() / self.steps as f64)
    }

    /// Takes samples in turn with another case; the ratio of the times for a pixel.
    fn sample_with(&mut self, mut other: Option<&mut Case>) -> convnet::Result<Option<f64>> {
        let mut ratios = vec![];
        let begin = Instant::now();
        while self.seconds.len() < FEWEST || (self.seconds.len() < SAMPLES && begin.elapsed() < LONG) {
            let seconds = self.sample()?;
            self.seconds.push(seconds);
            if let Some(other) = &mut other {
                ratios.push(seconds / self.pixels / (other.sample()? / other.pixels));
            }
        }
        Ok(other.map(|_| median(ratios)))
    }
}
