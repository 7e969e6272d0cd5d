//! Batch normalisation.

use std::cell::Cell;

use super::scale_and_shift;
use super::sync::{self, join_sum};
use crate::autograd::{is_recomputing, no_grad};
use crate::error::{Error, Result, batch_hint, channels_hint};
use crate::kernels::elementwise::epilogue::Activation;
use crate::nn::layers::prepared_cache::version;
use crate::nn::module::Module;
use crate::nn::module::layer::{Layer, LayerPath, TrainingMode, is_tracing};
use crate::nn::module::parameter::{Buffer, Parameter};
use crate::ops::{Moments, RunningNorm};
use crate::tensor::guard::with_value;
use crate::tensor::{DType, Tensor};
use crate::visit_fields;

thread_local! {
    /// Whether running estimates are plain averages; see [`average_statistics`].
    static AVERAGING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body` so that the batch normalisations that run on this thread in training average all
/// batches equally, whatever their momentum.
pub(crate) fn average_statistics<R>(body: impl FnOnce() -> R) -> R {
    with_value(&AVERAGING, true, body)
}

/// Returns the running mean, variance and number of batches of a normalisation, if it has them; as
/// [`scale_and_shift`] for a size that memory cannot hold.
pub(super) fn estimates(track: bool, channels: usize) -> [Option<Buffer>; 3] {
    if !track {
        return [const { None }; 3];
    }
    let [var, mean] = scale_and_shift(true, &[channels]);
    [mean.map(Buffer::of), var.map(Buffer::of), Some(Buffer::new(Tensor::scalar(0i64)))]
}

/// Counts a batch; returns the number of batches, at least 1.
pub(super) fn count_batch(tracked: &Option<Buffer>) -> Result<f64> {
    let mut batches = 1;
    if let Some(tracked) = tracked {
        tracked.update(|value| {
            *value = value.try_add_scalar(1.0)?;
            batches = value.cast(DType::I64)?.item::<i64>()?;
            Ok(())
        })?;
    }
    Ok(batches.max(1) as f64)
}

/// Moves a running estimate by a share of the way to `factor · batch`.
pub(super) fn follow(running: &Buffer, batch: &Tensor, share: f64, factor: f64) -> Result<()> {
    running.update(|value| {
        let batch = batch.cast(value.dtype())?.try_mul_scalar(share * factor)?;
        *value = value.try_mul_scalar(1.0 - share)?.add(&batch)?;
        Ok(())
    })
}

/// Batch normalisation of images `[N, C, H, W]`; see [`BatchNorm`].
pub type BatchNorm2d = BatchNorm<2>;

/// Batch normalisation of features `[N, C]` or sequences `[N, C, L]`; see [`BatchNorm`].
pub type BatchNorm1d = BatchNorm<1>;

/// Batch normalisation (Ioffe and Szegedy, 2015): normalises each channel to mean 0 and variance 1,
/// then multiplies by `weight` and adds `bias`.
///
/// Training uses the batch's own mean and biased variance, and updates the running estimates of the
/// mean and the unbiased variance. Evaluation uses the running estimates. They are updated under
/// [`no_grad`](crate::no_grad) too, as in PyTorch.
///
/// ```
/// use convnet::Tensor;
/// use convnet::nn::{BatchNorm2d, Module};
///
/// let bn = BatchNorm2d::new(3);
/// bn.forward(&Tensor::ones([4, 3, 8, 8]))?;
/// assert_eq!(bn.running_mean.as_ref().expect("tracked by default").tensor().to_vec::<f32>()?, [0.1, 0.1, 0.1]);
/// bn.eval();
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct BatchNorm<const SPATIAL: usize> {
    /// The factor of each channel, `[C]`; initially 1.
    pub weight: Option<Parameter>,
    /// The offset of each channel, `[C]`; initially 0.
    pub bias: Option<Parameter>,
    /// The running mean of each channel, `[C]`; initially 0.
    pub running_mean: Option<Buffer>,
    /// The running unbiased variance of each channel, `[C]`; initially 1.
    pub running_var: Option<Buffer>,
    /// The number of batches that the running estimates include: `i64`, shape `[]`.
    pub num_batches_tracked: Option<Buffer>,
    channels: usize,
    eps: f64,
    momentum: Option<f64>,
    training: TrainingMode,
    path: LayerPath,
}

impl<const SPATIAL: usize> BatchNorm<SPATIAL> {
    /// Creates the layer for this many channels, with eps 1e-5, momentum 0.1, weight and bias, and
    /// running estimates.
    pub fn new(channels: usize) -> Self {
        let norm = BatchNorm {
            weight: None,
            bias: None,
            running_mean: None,
            running_var: None,
            num_batches_tracked: None,
            channels,
            eps: 1e-5,
            momentum: Some(0.1),
            training: TrainingMode::new(),
            path: LayerPath::new(),
        };
        norm.affine(true).track_running_stats(true)
    }

    /// Sets the number that is added to the variance (default: 1e-5).
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// Sets the weight of a new batch in the running estimates (default: 0.1); `None` makes them
    /// the plain average of all batches.
    pub fn momentum(mut self, momentum: impl Into<Option<f64>>) -> Self {
        self.momentum = momentum.into();
        self
    }

    /// Sets whether the layer has weight and bias (default: true).
    pub fn affine(mut self, affine: bool) -> Self {
        [self.weight, self.bias] = scale_and_shift(affine, &[self.channels]);
        self
    }

    /// Sets whether the layer has running estimates (default: true); without them, evaluation uses
    /// the batch's statistics too.
    pub fn track_running_stats(mut self, track: bool) -> Self {
        [self.running_mean, self.running_var, self.num_batches_tracked] = estimates(track, self.channels);
        self
    }

    fn check(&self, x: &Tensor) -> Result<()> {
        let ranks = if SPATIAL == 2 { 4..=4 } else { 2..=3 };
        if !ranks.contains(&x.ndim()) {
            let wanted = if SPATIAL == 2 { "[N, C, H, W]" } else { "[N, C] or [N, C, L]" };
            return Err(Error::shape(
                "batch_norm",
                format!("expected {wanted}, got shape {:?}{}", x.shape(), batch_hint(x.shape(), *ranks.start())),
            ));
        }
        if x.shape()[1] != self.channels {
            let hint = channels_hint(x.shape(), self.channels);
            return Err(Error::shape("batch_norm", format!("expected {} channels, got shape {:?}{hint}", self.channels, x.shape())));
        }
        Ok(())
    }

    /// Computes `activation(bn(x) + residual)`; `moments` are those of `x`, if they are known.
    ///
    /// # Errors
    /// Those of [`forward`](Module::forward), and [`Error::Shape`] when the residual does not
    /// broadcast with the result.
    pub(crate) fn forward_fused(
        &self,
        x: &Tensor,
        moments: Option<Moments>,
        residual: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Tensor> {
        if is_tracing() {
            let y = self.path.scope(self, x, || self.run(x, moments, None, Activation::Linear))?;
            return activation.apply_to_sum(y, residual);
        }
        self.path.scope(self, x, || self.run(x, moments, residual, activation))
    }

    /// Returns the running mean and variance if the layer evaluates with them; `None` when it
    /// normalises with the batch's own statistics.
    fn estimates(&self) -> Option<(&Buffer, &Buffer)> {
        self.running_mean.as_ref().zip(self.running_var.as_ref()).filter(|_| !self.training.is_training())
    }

    /// Returns whether the layer normalises with the batch's own statistics.
    pub(crate) fn takes_statistics(&self) -> bool {
        self.estimates().is_none()
    }

    /// Implements `forward_fused`; runs inside the scope of the layer's path.
    fn run(&self, x: &Tensor, moments: Option<Moments>, residual: Option<&Tensor>, activation: Activation) -> Result<Tensor> {
        self.check(x)?;
        let [weight, bias] = Parameter::values([&self.weight, &self.bias])?;
        if let Some((mean, var)) = self.estimates() {
            let running = (mean.try_tensor()?, var.try_tensor()?);
            let y = x.batch_norm(Some((&running.0, &running.1)), weight.as_ref(), bias.as_ref(), self.eps)?;
            return activation.apply_to_sum(y, residual);
        }
        if let Some(join) = join_sum().filter(|_| self.training.is_training()) {
            let batch = sync::normalize(x, weight.as_ref(), bias.as_ref(), self.eps, &join)?;
            if batch.count > 1 {
                self.follow(&batch.mean, &batch.var, batch.count)?;
            }
            return activation.apply_to_sum(batch.output, residual);
        }
        if self.channels > 0 && x.numel() == self.channels {
            let message = format!(
                "expected more than one value per channel to take statistics of, got shape {:?}; use a larger batch, or running statistics (`eval()`)",
                x.shape()
            );
            return Err(Error::shape("batch_norm", message));
        }
        let fits = residual.is_none_or(|residual| residual.shape() == x.shape() && residual.dtype() == x.dtype());
        let (inside, activation_inside) = if fits { (residual, activation) } else { (None, Activation::Linear) };
        let batch = x.batch_norm_of(moments, weight.as_ref(), bias.as_ref(), self.eps, inside, activation_inside)?;
        // An empty batch has no statistics.
        if self.training.is_training() && batch.count > 1 {
            self.follow(&batch.mean, &batch.var, batch.count)?;
        }
        if fits { Ok(batch.output) } else { activation.apply_to_sum(batch.output, residual) }
    }

    /// Updates the running estimates with a batch of `count` values per channel with this mean and
    /// biased variance. Skips a batch that a checkpoint recomputes, since it is already included.
    fn follow(&self, mean: &Tensor, var: &Tensor, count: usize) -> Result<()> {
        if is_recomputing() {
            return Ok(());
        }
        let (Some(running_mean), Some(running_var)) = (&self.running_mean, &self.running_var) else { return Ok(()) };
        no_grad(|| {
            let batches = count_batch(&self.num_batches_tracked)?;
            let momentum = self.momentum.filter(|_| !AVERAGING.get());
            let share = momentum.unwrap_or(1.0 / batches);
            follow(running_mean, mean, share, 1.0)?;
            follow(running_var, var, share, count as f64 / (count as f64 - 1.0))
        })
    }
}

/// A batch normalisation that evaluates with running estimates: one factor and one offset per
/// channel.
pub(crate) struct Running<'a> {
    weight: Option<&'a Parameter>,
    bias: Option<&'a Parameter>,
    mean: &'a Buffer,
    var: &'a Buffer,
    eps: f64,
}

impl BatchNorm2d {
    pub(crate) fn path(&self) -> &LayerPath {
        &self.path
    }

    /// Returns the switch between training and evaluation, for a network that names the parameters
    /// itself.
    #[cfg(feature = "onnx")]
    pub(crate) fn mode(&self) -> &TrainingMode {
        &self.training
    }

    /// Returns this normalisation in a form that a preceding convolution with this many output
    /// channels can fold into its weights, if it evaluates with running estimates and all shapes
    /// are as expected.
    pub(crate) fn running(&self, channels: usize) -> Option<Running<'_>> {
        let (Self { weight, bias, .. }, (mean, var)) = (self, self.estimates()?);
        let fits = |parameter: &Parameter| parameter.dims() == [channels];
        let fit = mean.dims() == [channels] && var.dims() == [channels] && weight.iter().all(fits) && bias.iter().all(fits);
        let fit = fit && self.channels == channels;
        fit.then_some(Running { weight: weight.as_ref(), bias: bias.as_ref(), mean, var, eps: self.eps })
    }
}

impl Running<'_> {
    pub(crate) fn versions(&self) -> [u64; 4] {
        [version(self.weight), version(self.bias), self.mean.version(), self.var.version()]
    }

    pub(crate) fn eps(&self) -> f64 {
        self.eps
    }

    /// Returns whether no parameter of the normalisation requires a gradient.
    pub(crate) fn is_frozen(&self) -> bool {
        self.weight.is_none_or(Parameter::is_frozen) && self.bias.is_none_or(Parameter::is_frozen)
    }

    /// Returns the values, if all have this dtype.
    pub(crate) fn values(&self, dtype: DType) -> Result<Option<RunningNorm>> {
        let value = |parameter: Option<&Parameter>| parameter.map(|parameter| Ok::<_, Error>(parameter.try_tensor()?.detach())).transpose();
        let norm = RunningNorm {
            weight: value(self.weight)?,
            bias: value(self.bias)?,
            mean: self.mean.try_tensor()?,
            var: self.var.try_tensor()?,
            eps: self.eps,
        };
        let alike = |tensor: &Tensor| tensor.dtype() == dtype;
        let all = norm.weight.iter().chain(&norm.bias).all(alike) && alike(&norm.mean) && alike(&norm.var);
        Ok(all.then_some(norm))
    }
}

impl<const SPATIAL: usize> Layer for BatchNorm<SPATIAL> {
    fn describe(&self) -> String {
        format!("BatchNorm{SPATIAL}d {}", self.channels)
    }
}

impl<const SPATIAL: usize> Module for BatchNorm<SPATIAL> {
    /// # Shape
    /// The result has the input's shape.
    ///
    /// # Errors
    /// [`Error::Layer`] around [`Error::Shape`] when the rank or the number of channels differs, or
    /// when statistics are computed from a single value per channel.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_fused(x, None, None, Activation::Linear)
    }

    visit_fields!(layer path, training, weight, bias, running_mean, running_var, num_batches_tracked, skip(channels, eps, momentum));

    fn type_name(&self) -> &str {
        if SPATIAL == 2 { "BatchNorm2d" } else { "BatchNorm1d" }
    }
}
