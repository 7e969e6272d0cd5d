//! Losses of classifiers: cross entropy and negative log-likelihood.

use super::Reduction;
use crate::error::{Error, Result};
use crate::kernels::loss::{CrossEntropy, STATISTICS, Target};
use crate::kernels::runtime::simd::Real;
use crate::ops::options::option_setters;
use crate::profiling::hooks::operation;
use crate::tensor::compute::promote;
use crate::tensor::shape::try_numel;
use crate::tensor::{DType, Element, MemoryFormat, Tensor, with_float};

/// Options of [`Tensor::cross_entropy_with`].
#[derive(Clone, Debug)]
pub struct CrossEntropyOptions {
    /// A factor for each class, `[C]`.
    pub weight: Option<Tensor>,
    /// The label of samples to ignore; -100 by default.
    pub ignore_index: i64,
    /// The share of each target, from 0 to 1, that is spread evenly over all classes (Szegedy et
    /// al., 2016).
    pub label_smoothing: f64,
    /// How the losses of the samples are reduced.
    pub reduction: Reduction,
}

impl Default for CrossEntropyOptions {
    fn default() -> Self {
        CrossEntropyOptions { weight: None, ignore_index: -100, label_smoothing: 0.0, reduction: Reduction::Mean }
    }
}

option_setters!(CrossEntropyOptions, [], weight: Option<Tensor>, ignore_index: i64, label_smoothing: f64, reduction: Reduction);

/// Options of [`Tensor::nll_loss_with`].
#[derive(Clone, Debug)]
pub struct NllOptions {
    /// A factor for each class, `[C]`.
    pub weight: Option<Tensor>,
    /// The label of samples to ignore; -100 by default.
    pub ignore_index: i64,
    /// How the losses of the samples are reduced.
    pub reduction: Reduction,
}

impl Default for NllOptions {
    fn default() -> Self {
        NllOptions { weight: None, ignore_index: -100, reduction: Reduction::Mean }
    }
}

option_setters!(NllOptions, [], weight: Option<Tensor>, ignore_index: i64, reduction: Reduction);

/// A view of `[C]`, `[N, C]` or `[N, C, d1, ..]` as a matrix with a row for each sample.
#[derive(Clone)]
struct Samples {
    shape: Vec<usize>,
    /// The shape of the labels: the input's without the classes.
    labels: Vec<usize>,
    rows: usize,
    classes: usize,
}

impl Samples {
    fn new(op: &'static str, x: &Tensor) -> Result<Samples> {
        let fail = |expected| Error::shape(op, format!("expected {expected}, got shape {:?}", x.shape()));
        let axis = if x.ndim() == 1 { 0 } else { 1 };
        let &classes = x.shape().get(axis).ok_or_else(|| fail("[C], [N, C] or [N, C, d1, ..]"))?;
        if classes == 0 {
            return Err(fail("at least one class in [N, C, ..]"));
        }
        let mut labels = x.shape().to_vec();
        labels.remove(axis);
        let rows = try_numel(&labels).ok_or_else(|| fail("a shape that memory can hold"))?;
        Ok(Samples { shape: x.shape().to_vec(), labels, rows, classes })
    }

    /// Returns the shape as `[N, C, H, W]` when classes are not the last dimension.
    fn as_image(&self) -> Option<[usize; 4]> {
        match *self.shape {
            _ if self.rows == 0 => None,
            [_] | [_, _] => None,
            [n, c, h, w] => Some([n, c, h, w]),
            _ => Some([self.shape[0], self.classes, self.rows / self.shape[0], 1]),
        }
    }

    /// Returns a tensor of this shape as the matrix `[rows, classes]`.
    fn to_rows(&self, x: &Tensor) -> Result<Tensor> {
        let x = match self.as_image() {
            Some(_) if x.ndim() == 4 => x.to_format(MemoryFormat::ChannelsLast)?,
            Some(image) => x.with_shape(&image, MemoryFormat::RowMajor).to_format(MemoryFormat::ChannelsLast)?,
            None => x.detach(),
        };
        Ok(x.with_shape(&[self.rows, self.classes], MemoryFormat::RowMajor))
    }

    /// The inverse of [`to_rows`](Self::to_rows).
    fn to_shape(&self, rows: &Tensor) -> Result<Tensor> {
        Ok(match self.as_image() {
            Some(_) if self.shape.len() == 4 => rows.with_shape(&self.shape, MemoryFormat::ChannelsLast),
            Some(image) => rows
                .with_shape(&image, MemoryFormat::ChannelsLast)
                .to_format(MemoryFormat::RowMajor)?
                .with_shape(&self.shape, MemoryFormat::RowMajor),
            None => rows.with_shape(&self.shape, MemoryFormat::RowMajor),
        })
    }

    /// Checks labels and returns them in the order of the rows.
    fn labels(&self, op: &'static str, target: &Tensor, ignored: i64) -> Result<Tensor> {
        if target.shape() != self.labels {
            let (x, got) = (&self.shape, target.shape());
            return Err(Error::shape(op, format!("input {x:?} wants labels of shape {:?}, got {got:?}", self.labels)));
        }
        let labels = target.to_format(MemoryFormat::RowMajor)?;
        let wrong = |&label: &i64| label != ignored && !(0..self.classes as i64).contains(&label);
        if let Some(mut at) = labels.data::<i64>().iter().position(wrong) {
            let (label, classes) = (labels.data::<i64>()[at], self.classes);
            let mut place = vec![0; self.labels.len()];
            for (place, &size) in place.iter_mut().zip(&self.labels).rev() {
                (*place, at) = (at % size, at / size);
            }
            return Err(Error::value(op, format!("label {label} at {place:?} is outside 0..{classes}, the input has {classes} classes")));
        }
        Ok(labels)
    }

    /// Checks class weights and returns them in the given dtype.
    fn weight(&self, op: &'static str, weight: Option<&Tensor>, dtype: DType) -> Result<Option<Tensor>> {
        let Some(weight) = weight else { return Ok(None) };
        weight.expect_float(op)?;
        if weight.shape() != [self.classes] {
            return Err(Error::shape(op, format!("expected a weight [{}], got shape {:?}", self.classes, weight.shape())));
        }
        Ok(Some(weight.cast(dtype)?))
    }

    /// Returns the factors of the rows' gradients.
    fn scale<T: Element + Real>(&self, grad: &Tensor, reduction: Reduction, denominator: f64) -> Result<Scale<T>> {
        Ok(match reduction {
            Reduction::None => Scale::Each(grad.to_format(MemoryFormat::RowMajor)?.to_vec()?),
            Reduction::Sum => Scale::Same(grad.item()?),
            Reduction::Mean => Scale::Same(T::of(grad.cast(DType::F64)?.item::<f64>()? / denominator)),
        })
    }

    /// Reduces the losses of the rows to the result.
    fn reduce<T: Element + Real>(&self, losses: impl Iterator<Item = T> + Clone, reduction: Reduction, denominator: f64) -> Result<Tensor> {
        let total = || losses.clone().map(|loss| loss.to_f64().unwrap_or(f64::NAN)).sum::<f64>();
        Ok(match reduction {
            Reduction::Mean => Tensor::scalar(T::of(total() / denominator)),
            Reduction::Sum => Tensor::scalar(T::of(total())),
            Reduction::None => Tensor::build(&self.labels, MemoryFormat::RowMajor, |y: &mut [T]| {
                y.iter_mut().zip(losses.clone()).for_each(|(y, loss)| *y = loss);
            })?,
        })
    }
}

/// The targets that [`Tensor::nll_loss`] takes.
const LABELS: &str = "class numbers, which are i64 (`labels.to_dtype(DType::I64)` converts)";

/// The targets that [`Tensor::cross_entropy`] takes.
const LABELS_OR_PROBABILITIES: &str =
    "class numbers, which are i64 (`labels.to_dtype(DType::I64)` converts), or f32 or f64 probabilities of the input's shape";

enum Scale<T> {
    Same(T),
    Each(Vec<T>),
}

impl<T: Copy> Scale<T> {
    fn of(&self, row: usize) -> T {
        match self {
            Scale::Same(scale) => *scale,
            Scale::Each(scales) => scales[row],
        }
    }
}

/// Returns the sum of the weights of the labels that are not ignored.
fn total_weight(labels: &[i64], ignored: i64, weight: Option<&Tensor>) -> Result<f64> {
    let counted = labels.iter().filter(|&&label| label != ignored);
    let weight = weight.map(|weight| weight.cast(DType::F64)?.to_vec::<f64>()).transpose()?;
    Ok(counted.map(|&label| weight.as_ref().map_or(1.0, |weight| weight[label as usize])).sum())
}

/// The checked operands of a cross entropy, in one dtype; rows are samples.
#[derive(Clone)]
struct Checked {
    samples: Samples,
    /// Labels as `i64`, or probabilities as rows.
    target: Tensor,
    weight: Option<Tensor>,
    ignored: i64,
    smoothing: f64,
}

impl Checked {
    fn kernel<T: Element + Real>(&self) -> CrossEntropy<'_, T> {
        CrossEntropy {
            classes: self.samples.classes,
            target: match self.target.dtype() {
                DType::I64 => Target::Labels { labels: self.target.data(), ignored: self.ignored },
                _ => Target::Probabilities(self.target.data()),
            },
            weight: self.weight.as_ref().map(|weight| weight.data()),
            smoothing: T::of(self.smoothing),
        }
    }
}

impl Tensor {
    /// Computes the mean cross entropy between logits and labels or probabilities:
    /// `-log softmax(x)[label]`.
    ///
    /// # Shape
    /// As [`cross_entropy_with`](Tensor::cross_entropy_with).
    ///
    /// # Errors
    /// [`Error::Value`] for a label that is neither a class nor -100, [`Error::Shape`] for shapes
    /// that do not fit, [`Error::DType`] unless logits are floating point and targets `i64` or
    /// floating point.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let logits = Tensor::zeros([2, 10]);
    /// let labels = Tensor::from_vec(vec![3i64, 7], [2])?;
    /// assert!((logits.cross_entropy(&labels)?.item::<f32>()? - 10f32.ln()).abs() < 1e-6);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn cross_entropy(&self, target: &Tensor) -> Result<Tensor> {
        self.cross_entropy_with(target, &CrossEntropyOptions::default())
    }

    /// Computes the cross entropy between logits and labels or probabilities, as PyTorch does, with
    /// class weights, a label to ignore and label smoothing.
    ///
    /// The mean over labels is weighted: the sum of the samples' losses is divided by the sum of
    /// the weights of their labels. The mean over probabilities divides by the number of samples.
    /// The mean over no samples, or over ignored samples only, is NaN.
    ///
    /// # Shape
    /// Logits `[N, C]` with `i64` labels `[N]`, `[N, C, d1, ..]` with `[N, d1, ..]`, `[C]` with
    /// `[]`; or floating-point probabilities of the logits' shape, which may require a gradient
    /// too. The result is `[]`; without reduction it has the labels' shape.
    ///
    /// # Errors
    /// [`Error::Value`] for a label that is neither a class nor ignored, [`Error::Shape`] for
    /// shapes that do not fit, [`Error::DType`] unless logits are floating point and targets `i64`
    /// or floating point, [`Error::Argument`] for a smoothing outside 0 to 1, or a label to ignore
    /// together with probabilities.
    pub fn cross_entropy_with(&self, target: &Tensor, options: &CrossEntropyOptions) -> Result<Tensor> {
        const OP: &str = "cross_entropy";
        let _op = operation(OP);
        self.expect_float(OP)?;
        let &CrossEntropyOptions { ignore_index: ignored, label_smoothing: smoothing, reduction, .. } = options;
        if !(0.0..=1.0).contains(&smoothing) {
            return Err(Error::argument(OP, format!("label smoothing must be between 0 and 1, got {smoothing}")));
        }
        let samples = Samples::new(OP, self)?;
        let dtype = if target.dtype().is_float() { promote(self, target) } else { self.dtype() };
        let weight = samples.weight(OP, options.weight.as_ref(), dtype)?;
        let (rows, denominator) = match target.dtype() {
            DType::I64 => {
                let labels = samples.labels(OP, target, ignored)?;
                let denominator = total_weight(labels.data(), ignored, weight.as_ref())?;
                (labels, denominator)
            }
            DType::U8 => return Err(Error::DType { op: OP, expected: LABELS_OR_PROBABILITIES, got: DType::U8 }),
            got if target.shape() != self.shape() && target.shape() == samples.labels => {
                return Err(Error::DType { op: OP, expected: LABELS_OR_PROBABILITIES, got });
            }
            _ if target.shape() != self.shape() => {
                let (x, got) = (self.shape(), target.shape());
                return Err(Error::shape(OP, format!("input {x:?} wants probabilities of its shape, got {got:?}")));
            }
            _ if ignored >= 0 => {
                return Err(Error::argument(OP, format!("a label to ignore ({ignored}) has no meaning among probabilities")));
            }
            _ => (samples.to_rows(&target.cast(dtype)?)?, samples.rows as f64),
        };
        let x = samples.to_rows(&self.cast(dtype)?)?;
        let checked = Checked { samples, target: rows, weight, ignored, smoothing };
        let (y, statistics) = with_float!(dtype, OP, T => {
            let statistics = Tensor::build(&[checked.samples.rows, STATISTICS], MemoryFormat::RowMajor, |statistics: &mut [T]| {
                checked.kernel::<T>().forward(x.data(), statistics);
            })?;
            let losses = statistics.data::<T>().chunks_exact(STATISTICS).map(|row| row[STATISTICS - 1]);
            (checked.samples.reduce(losses, reduction, denominator)?, statistics)
        });
        Ok(y.record(OP, [self, target], move |grad, wanted| {
            let Checked { samples, .. } = &checked;
            let gradient = |of_target: bool| -> Result<Tensor> {
                with_float!(x.dtype(), OP, T => {
                    let scale = samples.scale::<T>(&grad.cast(T::DTYPE)?, reduction, denominator)?;
                    let scale = |row| scale.of(row);
                    let rows = Tensor::build(x.shape(), MemoryFormat::RowMajor, |out: &mut [T]| {
                        if of_target {
                            checked.kernel().backward_target(x.data(), statistics.data(), scale, out);
                        } else {
                            checked.kernel().backward(x.data(), statistics.data(), scale, out);
                        }
                    })?;
                    samples.to_shape(&rows)
                })
            };
            Ok([wanted[0].then(|| gradient(false)).transpose()?, wanted[1].then(|| gradient(true)).transpose()?])
        }))
    }

    /// Computes the mean negative log-likelihood of labels under log-probabilities: `-x[label]`.
    ///
    /// # Shape
    /// As [`nll_loss_with`](Tensor::nll_loss_with).
    ///
    /// # Errors
    /// [`Error::Value`] for a label that is neither a class nor -100, [`Error::Shape`] for shapes
    /// that do not fit, [`Error::DType`] unless the input is floating point and labels are `i64`.
    pub fn nll_loss(&self, target: &Tensor) -> Result<Tensor> {
        self.nll_loss_with(target, &NllOptions::default())
    }

    /// Computes the negative log-likelihood of labels under log-probabilities, such as
    /// [`log_softmax`](Tensor::log_softmax) returns, as PyTorch does.
    ///
    /// # Shape
    /// `[N, C]` with `i64` labels `[N]`, `[N, C, d1, ..]` with `[N, d1, ..]`, `[C]` with `[]`. The
    /// result is `[]`; without reduction it has the labels' shape.
    ///
    /// # Errors
    /// [`Error::Value`] for a label that is neither a class nor ignored, [`Error::Shape`] for
    /// shapes that do not fit, [`Error::DType`] unless the input is floating point and labels are
    /// `i64`.
    pub fn nll_loss_with(&self, target: &Tensor, options: &NllOptions) -> Result<Tensor> {
        const OP: &str = "nll_loss";
        let _op = operation(OP);
        self.expect_float(OP)?;
        if target.dtype() != DType::I64 {
            return Err(Error::DType { op: OP, expected: LABELS, got: target.dtype() });
        }
        let &NllOptions { ignore_index: ignored, reduction, .. } = options;
        let samples = Samples::new(OP, self)?;
        let labels = samples.labels(OP, target, ignored)?;
        let weight = samples.weight(OP, options.weight.as_ref(), self.dtype())?;
        let denominator = total_weight(labels.data(), ignored, weight.as_ref())?;
        let y = with_float!(self.dtype(), OP, T => {
            let x = samples.to_rows(self)?;
            let (x, weight) = (x.data::<T>(), weight.as_ref().map(|weight| weight.data::<T>()));
            let losses = labels.data::<i64>().iter().enumerate().map(|(row, &label)| match label {
                _ if label == ignored => 0.0,
                _ => -weight.map_or(1.0, |weight| weight[label as usize]) * x[row * samples.classes + label as usize],
            });
            samples.reduce::<T>(losses, reduction, denominator)?
        });
        Ok(y.record(OP, [self], move |grad, _wanted| {
            Ok([Some(with_float!(grad.dtype(), OP, T => {
                let scale = samples.scale::<T>(grad, reduction, denominator)?;
                let weight = weight.as_ref().map(|weight| weight.data::<T>());
                let rows = Tensor::build(&[samples.rows, samples.classes], MemoryFormat::RowMajor, |dx: &mut [T]| {
                    dx.fill(0.0);
                    for (row, &label) in labels.data::<i64>().iter().enumerate().filter(|&(_, &label)| label != ignored) {
                        let weight = weight.map_or(1.0, |weight| weight[label as usize]);
                        dx[row * samples.classes + label as usize] = -weight * scale.of(row);
                    }
                })?;
                samples.to_shape(&rows)?
            }))])
        }))
    }
}
