//! Connectionist temporal classification: the loss of sequences whose labels have no positions, and
//! the reading of such a network's output.

use super::Reduction;
use crate::error::{Error, Result};
use crate::kernels::ctc::{Ctc, Span};
use crate::ops::options::option_setters;
use crate::profiling::hooks::operation;
use crate::tensor::{DType, MemoryFormat, Tensor, with_float};

/// Options of [`Tensor::ctc_loss_with`].
#[derive(Clone, Copy, Debug, Default)]
pub struct CtcOptions {
    /// The class that stands for no label; 0 by default.
    pub blank: usize,
    /// How the losses of the sequences are reduced. The mean first divides each by the number of
    /// its labels, or by 1 if it has none.
    pub reduction: Reduction,
    /// Whether an infinite loss, of a sequence with too few steps for its labels, counts as 0,
    /// without gradient.
    pub zero_infinity: bool,
}

option_setters!(CtcOptions, [], blank: usize, reduction: Reduction, zero_infinity: bool);

/// The checked lengths and labels of a batch.
#[derive(Clone)]
struct Batch {
    steps: usize,
    classes: usize,
    blank: usize,
    /// Whether the input has a dimension of sequences.
    batched: bool,
    labels: Vec<usize>,
    spans: Vec<Span>,
}

impl Batch {
    /// Checks log-probabilities and the lengths of sequences; there are no labels yet.
    fn new(op: &'static str, x: &Tensor, input_lengths: Option<&Tensor>, blank: usize) -> Result<Batch> {
        let (steps, count, classes) = match *x.shape() {
            [steps, count, classes] => (steps, count, classes),
            [steps, classes] => (steps, 1, classes),
            _ => return Err(Error::shape(op, format!("expected log-probabilities [T, N, C] or [T, C], got shape {:?}", x.shape()))),
        };
        if blank >= classes {
            return Err(Error::argument(op, format!("the blank is class {blank}, the input {:?} has {classes} classes", x.shape())));
        }
        let lengths = match input_lengths {
            Some(lengths) => lengths_of(op, "input", lengths, count, x)?,
            // A tensor, since `count` may be any number when the input has no elements.
            None => lengths_of(op, "input", &Tensor::try_full([count], steps as f64, DType::I64)?, count, x)?,
        };
        if let Some(at) = lengths.iter().position(|&length| length > steps) {
            let message = format!("input length {} at {at} is more than the {steps} steps of input {:?}", lengths[at], x.shape());
            return Err(Error::value(op, message));
        }
        let spans = lengths.into_iter().map(|steps| Span { steps, first: 0, labels: 0 }).collect();
        Ok(Batch { steps, classes, blank, batched: x.ndim() == 3, labels: vec![], spans })
    }

    /// Checks targets, in rows or one behind the other, and takes their labels.
    fn with_targets(mut self, op: &'static str, x: &Tensor, targets: &Tensor, lengths: &Tensor) -> Result<Batch> {
        targets.expect_dtype(op, DType::I64)?;
        let lengths = lengths_of(op, "target", lengths, self.spans.len(), x)?;
        let total = lengths.iter().fold(0usize, |sum, &length| sum.saturating_add(length));
        let targets = targets.to_format(MemoryFormat::RowMajor)?;
        // Where the labels of each sequence begin, and how many there is room for.
        let (stride, room) = match *targets.shape() {
            [rows, size] if self.batched && rows == self.spans.len() => (Some(size), size),
            [size] if !self.batched => (Some(size), size),
            [size] if size == total => (None, size),
            _ => {
                let message = format!(
                    "input {:?} wants targets [N, S], or all labels one behind the other, here [{total}]; got shape {:?}",
                    x.shape(),
                    targets.shape()
                );
                return Err(Error::shape(op, message));
            }
        };
        let targets = targets.data::<i64>();
        let mut behind = 0;
        for (n, (span, &length)) in self.spans.iter_mut().zip(&lengths).enumerate() {
            if length > room {
                return Err(Error::value(op, format!("target length {length} at {n} is more than the {room} labels of a row")));
            }
            let start = stride.map_or(behind, |stride| n * stride);
            (span.first, span.labels) = (self.labels.len(), length);
            behind += length;
            for &label in &targets[start..start + length] {
                match usize::try_from(label) {
                    Ok(class) if class < self.classes && class != self.blank => self.labels.push(class),
                    _ => {
                        let (classes, blank) = (self.classes, self.blank);
                        let message = format!("label {label} of sequence {n} is not in 0..{classes} without the blank, {blank}");
                        return Err(Error::value(op, message));
                    }
                }
            }
        }
        Ok(self)
    }

    fn kernel(&self) -> Ctc<'_> {
        Ctc { steps: self.steps, classes: self.classes, blank: self.blank, labels: &self.labels, spans: &self.spans }
    }

    /// Returns the input as `[N, T, C]`.
    fn by_sequence(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.detach();
        if self.batched {
            x.permute([1, 0, 2])
        } else {
            Ok(x.to_format(MemoryFormat::RowMajor)?.with_shape(&self.shape(), MemoryFormat::RowMajor))
        }
    }

    /// The inverse of [`by_sequence`](Self::by_sequence).
    fn by_step(&self, x: &Tensor) -> Result<Tensor> {
        if self.batched { x.permute([1, 0, 2]) } else { Ok(x.with_shape(&[self.steps, self.classes], MemoryFormat::RowMajor)) }
    }

    /// Returns the shape of the losses.
    fn losses_shape(&self) -> Vec<usize> {
        if self.batched { vec![self.spans.len()] } else { vec![] }
    }

    fn shape(&self) -> [usize; 3] {
        [self.spans.len(), self.steps, self.classes]
    }

    /// Returns what the reduction divides the loss of each sequence by.
    fn divisors(&self, reduction: Reduction) -> impl Iterator<Item = f64> {
        let count = self.spans.len() as f64;
        self.spans.iter().map(move |span| if reduction == Reduction::Mean { span.labels.max(1) as f64 * count } else { 1.0 })
    }
}

/// Returns the lengths of the sequences.
fn lengths_of(op: &'static str, what: &str, lengths: &Tensor, count: usize, x: &Tensor) -> Result<Vec<usize>> {
    lengths.expect_dtype(op, DType::I64)?;
    if lengths.shape() != [count] && !(x.ndim() == 2 && lengths.ndim() == 0) {
        return Err(Error::shape(op, format!("input {:?} wants {what} lengths [{count}], got shape {:?}", x.shape(), lengths.shape())));
    }
    let checked = |(at, &length): (usize, &i64)| {
        usize::try_from(length).map_err(|_| Error::value(op, format!("{what} length {length} at {at} is negative")))
    };
    lengths.data::<i64>().iter().enumerate().map(checked).collect()
}

impl Tensor {
    /// Computes the mean loss of connectionist temporal classification (Graves et al., 2006):
    /// the negative log-likelihood of labels whose positions among the steps of the input are not
    /// known, summed over all alignments of labels and steps.
    ///
    /// # Shape
    /// As [`ctc_loss_with`](Tensor::ctc_loss_with).
    ///
    /// # Errors
    /// As for [`ctc_loss_with`](Tensor::ctc_loss_with).
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// // 12 steps, 2 sequences, 4 labels and the blank, class 0.
    /// let log_probs = Tensor::randn([12, 2, 5]).log_softmax(-1)?;
    /// let targets = Tensor::from_vec(vec![1i64, 3, 3, 4, 2, 0], [2, 3])?;
    /// let (input_lengths, target_lengths) = (Tensor::from_vec(vec![12i64, 10], [2])?, Tensor::from_vec(vec![3i64, 2], [2])?);
    /// let loss = log_probs.ctc_loss(&targets, &input_lengths, &target_lengths)?;
    /// assert!(loss.item::<f32>()? > 0.0);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn ctc_loss(&self, targets: &Tensor, input_lengths: &Tensor, target_lengths: &Tensor) -> Result<Tensor> {
        self.ctc_loss_with(targets, input_lengths, target_lengths, &CtcOptions::default())
    }

    /// Computes [`ctc_loss`](Tensor::ctc_loss) with another blank, reduction, or without infinite
    /// losses, as PyTorch's `ctc_loss` does.
    ///
    /// The input is the logarithm of probabilities, as [`log_softmax`](Tensor::log_softmax) returns
    /// it, and its gradient is, as PyTorch's, that of log-probabilities which stay normalised:
    /// `exp(x)` minus the expected number of times that an alignment is at a class, whose sum over
    /// the classes is 0. It is exact for what the log-probabilities are computed from, such as the
    /// logits of a log-softmax. An infinite loss has a gradient of NaN, unless it counts as 0.
    ///
    /// # Shape
    /// Log-probabilities `[T, N, C]` of `T` steps, `N` sequences and `C` classes with the blank.
    /// Targets, `i64`, are `[N, S]`, of which `target_lengths` labels of each row count, or
    /// `[Σ target_lengths]`, one behind the other. Both lengths are `[N]` of `i64`; the first
    /// `input_lengths` steps of each sequence count. Without `N`: `[T, C]`, `[S]`, `[]` and `[]`.
    /// The result is `[]`; without reduction it is `[N]`, or `[]` without `N`.
    ///
    /// # Errors
    /// [`Error::Value`] for a label that is no class or the blank, and for lengths that are
    /// negative or greater than the sizes of input and targets, [`Error::Shape`] for shapes that do
    /// not fit, [`Error::DType`] unless log-probabilities are floating point and the others `i64`,
    /// [`Error::Argument`] for a blank that is no class.
    pub fn ctc_loss_with(&self, targets: &Tensor, input_lengths: &Tensor, target_lengths: &Tensor, options: &CtcOptions) -> Result<Tensor> {
        const OP: &str = "ctc_loss";
        let _op = operation(OP);
        self.expect_float(OP)?;
        let &CtcOptions { blank, reduction, zero_infinity } = options;
        let batch = Batch::new(OP, self, Some(input_lengths), blank)?.with_targets(OP, self, targets, target_lengths)?;
        let x = batch.by_sequence(self)?;
        let losses = with_float!(x.dtype(), OP, T => Tensor::build(&[batch.spans.len()], MemoryFormat::RowMajor, |losses: &mut [f64]| {
            batch.kernel().losses(x.data::<T>(), losses);
        })?);
        let counted = |loss: f64| if zero_infinity && loss.is_infinite() { 0.0 } else { loss };
        let each = losses.data::<f64>().iter().copied().map(counted);
        let y = match reduction {
            Reduction::None => Tensor::from_vec(each.collect(), batch.losses_shape())?,
            // Without sequences the mean is that of no numbers.
            Reduction::Mean if batch.spans.is_empty() => Tensor::scalar(f64::NAN),
            Reduction::Sum | Reduction::Mean => {
                Tensor::scalar(each.zip(batch.divisors(reduction)).map(|(loss, by)| loss / by).sum::<f64>())
            }
        };
        let x = self.detach();
        Ok(y.cast(x.dtype())?.record(OP, [self], move |grad, _wanted| {
            let grads = grad.cast(DType::F64)?.to_vec::<f64>()?;
            let scale = |(n, (by, &loss)): (usize, (f64, &f64))| match reduction {
                _ if zero_infinity && loss.is_infinite() => 0.0,
                Reduction::None => grads[n],
                _ => grads[0] / by,
            };
            let losses = losses.data::<f64>();
            let scales: Vec<f64> = batch.divisors(reduction).zip(losses).enumerate().map(scale).collect();
            let x = batch.by_sequence(&x)?;
            let dx = with_float!(x.dtype(), OP, T => Tensor::build(&batch.shape(), MemoryFormat::RowMajor, |dx: &mut [T]| {
                batch.kernel().gradients(x.data(), losses, &scales, dx);
            })?);
            Ok([Some(batch.by_step(&dx)?)])
        }))
    }
}

/// Reads the labels of sequences from the output of a network that was trained with
/// [`ctc_loss`](Tensor::ctc_loss): the most probable class of each step, with repetitions merged
/// and blanks left out (Graves et al., 2006, best path decoding).
///
/// # Shape
/// Scores, such as log-probabilities, `[T, N, C]` and lengths `[N]` of `i64`, or `[T, C]` and `[]`;
/// without lengths all steps count. Returns the labels of each sequence.
///
/// # Errors
/// [`Error::Shape`] for shapes that do not fit, [`Error::DType`] for lengths that are not `i64`,
/// [`Error::Value`] for lengths that are negative or greater than `T`, [`Error::Argument`] for a
/// blank that is no class.
///
/// ```
/// use convnet::{DType, Tensor, ops::ctc_greedy_decode};
///
/// let best = Tensor::from_vec(vec![2i64, 2, 0, 2, 1, 1, 0], [7])?;
/// let scores = best.one_hot(3)?.to_dtype(DType::F32)?;
/// assert_eq!(ctc_greedy_decode(&scores, None, 0)?, [[2, 2, 1]]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn ctc_greedy_decode(scores: &Tensor, input_lengths: Option<&Tensor>, blank: usize) -> Result<Vec<Vec<i64>>> {
    let batch = Batch::new("ctc_greedy_decode", scores, input_lengths, blank)?;
    let best = scores.argmax(-1)?;
    let (best, count) = (best.data::<i64>(), batch.spans.len());
    let read = |(n, span): (usize, &Span)| {
        let mut classes: Vec<i64> = (0..span.steps).map(|step| best[step * count + n]).collect();
        classes.dedup();
        classes.retain(|&class| class != blank as i64);
        classes
    };
    Ok(batch.spans.iter().enumerate().map(read).collect())
}
