//! Instance normalisation.

use super::batch::{count_batch, estimates, follow};
use super::scale_and_shift;
use crate::autograd::{is_recomputing, no_grad};
use crate::error::{Error, Result, channels_hint};
use crate::nn::module::Module;
use crate::nn::module::layer::{Layer, LayerPath, TrainingMode};
use crate::nn::module::parameter::{Buffer, Parameter};
use crate::ops::batched;
use crate::tensor::Tensor;
use crate::tensor::shape::try_numel;
use crate::visit_fields;

/// Instance normalisation of images `[N, C, H, W]` or `[C, H, W]`; see [`InstanceNorm`].
pub type InstanceNorm2d = InstanceNorm<2>;

/// Instance normalisation of sequences `[N, C, L]` or `[C, L]`; see [`InstanceNorm`].
pub type InstanceNorm1d = InstanceNorm<1>;

/// Instance normalisation (Ulyanov et al., 2016): normalises each channel of each image to mean 0
/// and variance 1. By default, as in PyTorch, without weight and bias, and with the image's own
/// statistics in evaluation too.
///
/// ```
/// use convnet::Tensor;
/// use convnet::nn::{InstanceNorm2d, Module};
///
/// let norm = InstanceNorm2d::new(32).affine(true);
/// let y = norm.forward(&(&Tensor::randn([2, 32, 7, 7]) + 3.0))?;
/// assert!(y.mean([2, 3])?.abs().max(..)?.item::<f32>()? < 1e-5);
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct InstanceNorm<const SPATIAL: usize> {
    /// The factor of each channel, `[C]`; initially 1.
    pub weight: Option<Parameter>,
    /// The offset of each channel, `[C]`; initially 0.
    pub bias: Option<Parameter>,
    /// The running mean of each channel, `[C]`; initially 0.
    pub running_mean: Option<Buffer>,
    /// The running unbiased variance of each channel, `[C]`; initially 1.
    pub running_var: Option<Buffer>,
    /// The number of batches, counted where the momentum is `None`; PyTorch's instance
    /// normalisation has it in state dicts and does not count.
    pub num_batches_tracked: Option<Buffer>,
    channels: usize,
    eps: f64,
    momentum: Option<f64>,
    training: TrainingMode,
    path: LayerPath,
}

impl<const SPATIAL: usize> InstanceNorm<SPATIAL> {
    /// Creates the layer for this many channels, with eps 1e-5, without weight and bias and without
    /// running estimates.
    pub fn new(channels: usize) -> Self {
        InstanceNorm {
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
        }
    }

    /// Sets the number that is added to the variance (default: 1e-5).
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// Sets the weight of a new batch in the running estimates (default: 0.1); `None` makes them
    /// the plain average of all batches, as for [`BatchNorm`](super::BatchNorm) (PyTorch's instance
    /// normalisation leaves them as they are then).
    pub fn momentum(mut self, momentum: impl Into<Option<f64>>) -> Self {
        self.momentum = momentum.into();
        self
    }

    /// Sets whether the layer has weight and bias (default: false).
    pub fn affine(mut self, affine: bool) -> Self {
        [self.weight, self.bias] = scale_and_shift(affine, &[self.channels]);
        self
    }

    /// Sets whether training updates running estimates, which evaluation then uses instead of the
    /// image's statistics (default: false).
    pub fn track_running_stats(mut self, track: bool) -> Self {
        [self.running_mean, self.running_var, self.num_batches_tracked] = estimates(track, self.channels);
        self
    }

    fn run(&self, x: &Tensor) -> Result<Tensor> {
        const OP: &str = "instance_norm";
        let rank = SPATIAL + 2;
        if x.ndim() != rank {
            let wanted = if SPATIAL == 2 { "[N, C, H, W] or [C, H, W]" } else { "[N, C, L] or [C, L]" };
            return Err(Error::shape(OP, format!("expected {wanted}, got shape {:?}", x.shape())));
        }
        if x.shape()[1] != self.channels || try_numel(&[self.channels]).is_none() {
            let hint = channels_hint(x.shape(), self.channels);
            return Err(Error::shape(OP, format!("expected {} channels, got shape {:?}{hint}", self.channels, x.shape())));
        }
        let [weight, bias] = Parameter::values([&self.weight, &self.bias])?;
        let tracked = self.running_mean.as_ref().zip(self.running_var.as_ref());
        let training = self.training.is_training();
        if let Some((mean, var)) = tracked.filter(|_| !training) {
            return x.batch_norm(Some((&mean.try_tensor()?, &var.try_tensor()?)), weight.as_ref(), bias.as_ref(), self.eps);
        }
        let count: usize = x.shape()[2..].iter().product();
        if count == 1 {
            let message = format!("expected more than one position to take statistics of, got shape {:?}", x.shape());
            return Err(Error::shape(OP, message));
        }
        let y = x.group_norm(self.channels, weight.as_ref(), bias.as_ref(), self.eps)?;
        if let Some((mean, var)) = tracked.filter(|_| !is_recomputing() && x.shape()[0] > 0) {
            no_grad(|| -> Result<()> {
                let x = x.detach().reshape([x.shape()[0], self.channels, count])?;
                let share = match self.momentum {
                    Some(momentum) => momentum,
                    None => 1.0 / count_batch(&self.num_batches_tracked)?,
                };
                follow(mean, &x.mean([0, 2])?, share, 1.0)?;
                follow(var, &x.var(2)?.mean(0)?, share, 1.0)
            })?;
        }
        Ok(y)
    }
}

impl<const SPATIAL: usize> Layer for InstanceNorm<SPATIAL> {
    fn describe(&self) -> String {
        format!("InstanceNorm{SPATIAL}d {}", self.channels)
    }
}

impl<const SPATIAL: usize> Module for InstanceNorm<SPATIAL> {
    /// # Shape
    /// The result has the input's shape.
    ///
    /// # Errors
    /// [`Error::Layer`] around [`Error::Shape`] when the rank or the number of channels differs, or
    /// when statistics are computed from a single position.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.path.scope(self, x, || batched(x, SPATIAL + 2, |x| self.run(x)))
    }

    visit_fields!(layer path, training, weight, bias, running_mean, running_var, num_batches_tracked, skip(channels, eps, momentum));

    fn type_name(&self) -> &str {
        if SPATIAL == 2 { "InstanceNorm2d" } else { "InstanceNorm1d" }
    }
}
