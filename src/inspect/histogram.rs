//! Histograms of weights, activations and gradients.

use std::fmt;
use std::rc::Rc;

use super::capture::{Mode, Recorder};
use super::network::Network;
use crate::autograd::Gradients;
use crate::error::{Error, Result};
use crate::nn::Module;
use crate::profiling::watch::{self, Watcher};
use crate::tensor::{DType, Tensor};

/// The distribution of the elements of a tensor.
///
/// ```
/// use convnet::{Tensor, inspect::Histogram};
///
/// let histogram = Histogram::of(&Tensor::from_vec(vec![0f32, 1.0, 1.5, 4.0], [4])?, 4)?;
/// assert_eq!((histogram.counts.as_slice(), histogram.mean), ([1, 2, 0, 1].as_slice(), 1.625));
/// assert_eq!(histogram.edges().collect::<Vec<_>>(), [0.0, 1.0, 2.0, 3.0, 4.0]);
/// println!("{histogram}");
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Histogram {
    /// The smallest finite element, 0 when there is none.
    pub min: f64,
    /// The largest finite element, 0 when there is none.
    pub max: f64,
    /// The mean of the finite elements.
    pub mean: f64,
    /// The standard deviation of the finite elements, with their number as divisor.
    pub std: f64,
    /// The number of elements in each of the equal intervals from `min` to `max`; each contains its
    /// lower edge, the last both.
    pub counts: Vec<u64>,
    /// The number of elements that are equal to 0.
    pub zeros: u64,
    /// The number of elements that are NaN or infinite.
    pub non_finite: u64,
}

impl Histogram {
    /// Counts the elements in `bins` equal intervals.
    ///
    /// # Errors
    /// [`Error::Argument`] for 0 intervals or more than 65,536.
    pub fn of(tensor: &Tensor, bins: usize) -> Result<Histogram> {
        if !(1..=65_536).contains(&bins) {
            return Err(Error::argument("histogram", format!("expected 1 to 65,536 intervals, got {bins}")));
        }
        let all = tensor.detach().to_dtype(DType::F64)?.to_vec::<f64>()?;
        let finite = || all.iter().copied().filter(|x| x.is_finite());
        let count = finite().count();
        let divisor = count.max(1) as f64;
        let (min, max) = match count {
            0 => (0.0, 0.0),
            _ => (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max)),
        };
        let mean = finite().sum::<f64>() / divisor;
        let std = (finite().map(|x| (x - mean).powi(2)).sum::<f64>() / divisor).sqrt();
        let mut counts = vec![0; bins];
        for x in finite() {
            let at = if max > min { (x - min) / (max - min) * bins as f64 } else { 0.0 };
            counts[(at as usize).min(bins - 1)] += 1;
        }
        let zeros = all.iter().filter(|&&x| x == 0.0).count() as u64;
        Ok(Histogram { min, max, mean, std, counts, zeros, non_finite: (all.len() - count) as u64 })
    }

    /// Returns the edges of the intervals, one more than there are intervals.
    pub fn edges(&self) -> impl Iterator<Item = f64> {
        let bins = self.counts.len();
        (0..=bins).map(move |i| self.min + (self.max - self.min) * i as f64 / bins as f64)
    }
}

/// Prints one line: the counts as bars, then range, mean and deviation.
impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let highest = self.counts.iter().copied().max().unwrap_or(0).max(1);
        let bars: String = self.counts.iter().map(|&count| BARS[(count * 8).div_ceil(highest) as usize]).collect();
        let Histogram { min, max, mean, std, .. } = self;
        write!(f, "|{bars}| {min:.4} to {max:.4}, mean {mean:.4}, deviation {std:.4}")?;
        if self.non_finite > 0 {
            write!(f, ", {} not finite", self.non_finite)?;
        }
        Ok(())
    }
}

/// Returns a histogram of each parameter, by path, with `bins` intervals.
///
/// # Errors
/// Those of [`Histogram::of`]; [`Error::OutOfMemory`] when memory cannot hold initial values that
/// have not been drawn yet.
pub fn weight_histograms<M: Module + ?Sized>(model: &M, bins: usize) -> Result<Vec<(String, Histogram)>> {
    let named = model.named_parameters().into_iter();
    named.map(|(path, parameter)| Ok((path, Histogram::of(&parameter.try_tensor()?, bins)?))).collect()
}

/// Returns a histogram of each parameter's gradient, by path, with `bins` intervals; parameters
/// without a gradient are left out.
///
/// # Errors
/// Those of [`Histogram::of`].
pub fn gradient_histograms<M: Module + ?Sized>(model: &M, gradients: &Gradients, bins: usize) -> Result<Vec<(String, Histogram)>> {
    let named = model.named_gradients(gradients).into_iter();
    named.map(|(path, gradient)| Ok((path, Histogram::of(gradient, bins)?))).collect()
}

/// Runs `body` and returns a histogram of the output of each layer that ran, by path, in execution
/// order, with `bins` intervals.
///
/// ```
/// use convnet::prelude::*;
/// use convnet::inspect;
///
/// let net = Sequential::new().push(Linear::new(4, 8)).push(ReLU);
/// let all = no_grad(|| inspect::activation_histograms(&net, 20, || net.forward(&Tensor::randn([16, 4]))))?;
/// assert_eq!((all[1].0.as_str(), all[1].1.min), ("1", 0.0));
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Those of `body` and of [`Histogram::of`].
pub fn activation_histograms<M: Module + ?Sized, T>(
    model: &M,
    bins: usize,
    body: impl FnOnce() -> Result<T>,
) -> Result<Vec<(String, Histogram)>> {
    let layers = Network::of(model).layers();
    let recorder = Recorder::new("activation_histograms", model, layers, Mode::Keep)?;
    watch::watch(Rc::clone(&recorder) as Rc<dyn Watcher>, body)?;
    recorder.calls().into_iter().map(|(path, output)| Ok((path, Histogram::of(&output, bins)?))).collect()
}
