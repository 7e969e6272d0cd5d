//! Loss and accuracy over many batches.

use crate::autograd::no_grad;
use crate::data::{Batch, DataLoader};
use crate::error::{Error, Result};
use crate::nn::{Module, in_evaluation};
use crate::tensor::Tensor;
use crate::train::number_of;

/// The mean loss and accuracy of a classifier, updated batch by batch.
///
/// ```
/// use convnet::{Tensor, train::Metrics};
///
/// let logits = Tensor::from_vec(vec![2.0f32, 1.0, 0.0, 3.0], [2, 2])?;
/// let labels = Tensor::from_vec(vec![0i64, 0], [2])?;
/// let mut metrics = Metrics::default();
/// metrics.add(&logits.cross_entropy(&labels)?, &logits, &labels)?;
/// assert_eq!((metrics.samples(), metrics.accuracy()), (2, 0.5));
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    batches: u64,
    samples: u64,
    correct: u64,
    loss: f64,
}

impl Metrics {
    /// Adds a batch: its mean loss (one element), logits `[N, C]` and labels `[N]`.
    ///
    /// # Errors
    /// [`Error::Training`] for a loss that is not a finite number: another step would spread it to
    /// all weights. [`Error::Shape`] and [`Error::DType`] when the tensors do not have the shapes
    /// and types above. Then nothing is counted.
    pub fn add(&mut self, loss: &Tensor, logits: &Tensor, labels: &Tensor) -> Result<()> {
        let &[count, _] = logits.shape() else {
            return Err(Error::shape("metrics", format!("expected logits [N, C], got {:?}", logits.shape())));
        };
        if labels.shape() != [count] {
            return Err(Error::shape("metrics", format!("logits {:?} want labels [{count}], got {:?}", logits.shape(), labels.shape())));
        }
        let loss = number_of(loss)?;
        if !loss.is_finite() {
            let batch = self.batches + 1;
            return Err(Error::Training(format!(
                "the loss of batch {batch} is {loss}; a lower learning rate, or a look at the data, may help"
            )));
        }
        let predicted = logits.argmax(1)?.to_vec::<i64>()?;
        let correct = predicted.iter().zip(labels.to_vec::<i64>()?).filter(|&(&predicted, label)| predicted == label).count();
        self.batches += 1;
        self.samples += count as u64;
        self.correct += correct as u64;
        self.loss += loss * count as f64;
        Ok(())
    }

    /// Returns the number of samples so far.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Returns the mean loss of a sample; NaN before the first.
    pub fn loss(&self) -> f64 {
        self.loss / self.samples as f64
    }

    /// Returns the share of samples whose largest logit is their label's; NaN before the first.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.samples as f64
    }
}

/// Computes cross-entropy and accuracy of a model on all batches of a loader, in evaluation mode
/// and without recording; afterwards each module has its former mode.
///
/// # Errors
/// The errors of the loader and the model, and [`Error::Training`] for a loss that is not a finite
/// number.
pub fn evaluate<M: Module + ?Sized>(model: &M, loader: &DataLoader) -> Result<Metrics> {
    let pass = || {
        let mut metrics = Metrics::default();
        for batch in loader.epoch(0) {
            let Batch { images, labels } = batch?;
            let logits = model.forward(&images)?;
            metrics.add(&logits.cross_entropy(&labels)?, &logits, &labels)?;
        }
        Ok(metrics)
    };
    in_evaluation(model.as_module(), || no_grad(pass))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Digits;
    use crate::nn::{BatchNorm2d, Dropout, Flatten, Linear, ModuleExt, Sequential};

    fn labels(values: &[i64]) -> Tensor {
        Tensor::from_slice(values, [values.len()]).unwrap()
    }

    #[test]
    fn frozen_parts_stay_in_evaluation_mode() {
        let model = Sequential::new().push(BatchNorm2d::new(1)).push(Flatten).push(Dropout::new(0.5)).push(Linear::new(64, 10));
        let [frozen, learning] = ["0", "2"].map(|path| model.try_get(path).unwrap());
        frozen.eval();
        evaluate(&model, &DataLoader::new(Digits::test(), 360)).unwrap();
        assert!(!frozen.is_training() && learning.is_training());
    }

    #[test]
    fn batches_count_by_their_samples() {
        let mut metrics = Metrics::default();
        assert!(metrics.accuracy().is_nan() && metrics.loss().is_nan());
        let right = Tensor::from_vec(vec![0.0f32, 1.0, 0.0, 1.0, 0.0, 1.0], [3, 2]).unwrap();
        metrics.add(&Tensor::scalar(1.0f32), &right, &labels(&[1, 1, 1])).unwrap();
        metrics.add(&Tensor::scalar(5.0f64), &right.narrow(0, 0, 1).unwrap(), &labels(&[0])).unwrap();
        assert_eq!((metrics.samples(), metrics.loss(), metrics.accuracy()), (4, 2.0, 0.75));
    }

    #[test]
    fn loss_that_is_not_finite_stops_with_the_batch_and_a_hint() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut metrics = Metrics::default();
            let logits = Tensor::zeros([1, 2]);
            metrics.add(&Tensor::scalar(1.0f32), &logits, &labels(&[0])).unwrap();
            let error = metrics.add(&Tensor::scalar(bad), &logits, &labels(&[0])).unwrap_err().to_string();
            assert!(error.contains("batch 2") && error.contains("learning rate"), "{error}");
            assert_eq!(metrics.samples(), 1);
        }
    }

    #[test]
    fn logits_and_labels_that_do_not_fit_are_refused() {
        let mut metrics = Metrics::default();
        let loss = Tensor::scalar(1.0f32);
        let error = metrics.add(&loss, &Tensor::zeros([2, 3]), &labels(&[0])).unwrap_err().to_string();
        assert!(error.contains("[2, 3]") && error.contains("[1]"), "{error}");
        let error = metrics.add(&loss, &Tensor::zeros([2]), &labels(&[0, 1])).unwrap_err().to_string();
        assert!(error.contains("[N, C]"), "{error}");
    }
}
