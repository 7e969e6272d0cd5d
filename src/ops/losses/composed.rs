//! Losses that are made of other operations.

use super::Reduction;
use super::elementwise::same_shape;
use crate::error::{Error, Result};
use crate::ops::options::option_setters;
use crate::tensor::Tensor;

/// Options of [`Tensor::triplet_margin_loss_with`].
#[derive(Clone, Copy, Debug)]
pub struct TripletOptions {
    /// How much nearer the positive example has to be; 1 by default.
    pub margin: f64,
    /// The exponent of the distances; 2 by default.
    pub p: f64,
    /// The number that is added to each difference; 1e-6 by default.
    pub eps: f64,
    /// Whether the distance between both examples counts where it is less than that to the negative
    /// one (Balntas et al., 2016).
    pub swap: bool,
    /// How the losses of the anchors are reduced.
    pub reduction: Reduction,
}

impl Default for TripletOptions {
    fn default() -> Self {
        TripletOptions { margin: 1.0, p: 2.0, eps: 1e-6, swap: false, reduction: Reduction::Mean }
    }
}

option_setters!(TripletOptions, [], margin: f64, p: f64, eps: f64, swap: bool, reduction: Reduction);

/// Options of [`Tensor::kl_div_with`].
#[derive(Clone, Copy, Debug, Default)]
pub struct KlDivOptions {
    /// Whether the target has the logarithms of its probabilities.
    pub log_target: bool,
    /// Whether the result is the sum divided by the size of the first dimension, whatever the
    /// reduction is (PyTorch's reduction `batchmean`).
    pub batch_mean: bool,
    /// How the divergences of the elements are reduced.
    pub reduction: Reduction,
}

option_setters!(KlDivOptions, [], log_target: bool, batch_mean: bool, reduction: Reduction);

impl Reduction {
    /// Reduces the losses of elements or samples.
    pub(super) fn reduce(self, losses: Tensor) -> Result<Tensor> {
        match self {
            Reduction::Mean => losses.mean(..),
            Reduction::Sum => losses.sum(..),
            Reduction::None => Ok(losses),
        }
    }
}

impl Tensor {
    /// Computes the mean of Huber's loss: `(x - t)² / 2` where the distance is below `delta`, else
    /// `delta · (|x - t| - delta / 2)`.
    ///
    /// # Shape
    /// The target has the input's shape; the result is `[]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for a target of another shape, [`Error::Argument`] for a `delta` that is
    /// not positive, [`Error::DType`] unless the input is floating point.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let x = Tensor::from_vec(vec![0.5f32, 3.0], [2])?;
    /// assert_eq!(x.huber_loss(&Tensor::zeros([2]), 1.0)?.item::<f32>()?, (0.125 + 2.5) / 2.0);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn huber_loss(&self, target: &Tensor, delta: f64) -> Result<Tensor> {
        self.huber_loss_with(target, delta, Reduction::Mean)
    }

    /// Computes [`huber_loss`](Tensor::huber_loss) with a reduction.
    ///
    /// # Errors
    /// [`Error::Shape`] for a target of another shape, [`Error::Argument`] for a `delta` that is
    /// not positive, [`Error::DType`] unless the input is floating point.
    pub fn huber_loss_with(&self, target: &Tensor, delta: f64, reduction: Reduction) -> Result<Tensor> {
        if delta.is_nan() || delta <= 0.0 {
            return Err(Error::argument("huber_loss", format!("delta must be positive, got {delta}")));
        }
        self.smooth_l1_loss_with(target, delta, reduction)?.try_mul_scalar(delta)
    }

    /// Computes the Kullback-Leibler divergence of log-probabilities from target probabilities,
    /// `t · (ln t - x)`, 0 where `t` is 0, and averages over all elements.
    ///
    /// # Shape
    /// The target has the input's shape. Over a batch `[N, …]` the mathematical value is the sum
    /// divided by `N`, which [`KlDivOptions::batch_mean`] of [`kl_div_with`](Tensor::kl_div_with)
    /// gives.
    ///
    /// # Errors
    /// [`Error::Shape`] for a target of another shape, [`Error::DType`] unless the input is
    /// floating point.
    pub fn kl_div(&self, target: &Tensor) -> Result<Tensor> {
        self.kl_div_with(target, &KlDivOptions::new())
    }

    /// Computes [`kl_div`](Tensor::kl_div) with options.
    ///
    /// # Errors
    /// [`Error::Shape`] for a target of another shape, [`Error::DType`] unless the input is
    /// floating point.
    ///
    /// ```
    /// use convnet::{Tensor, ops::KlDivOptions};
    ///
    /// let (student, teacher) = (Tensor::randn([8, 10]).log_softmax(1)?, Tensor::randn([8, 10]).log_softmax(1)?);
    /// let divergence = student.kl_div_with(&teacher, &KlDivOptions::new().log_target(true).batch_mean(true))?;
    /// assert!(divergence.item::<f32>()? > 0.0);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn kl_div_with(&self, target: &Tensor, options: &KlDivOptions) -> Result<Tensor> {
        let &KlDivOptions { log_target, batch_mean, reduction } = options;
        same_shape("kl_div", self, target)?;
        let t = target.to_dtype(self.dtype())?;
        let losses = if log_target {
            t.exp()?.mul(&t.sub(self)?)?
        } else {
            let is_zero = t.eq_scalar(0.0)?;
            t.mul(&is_zero.where_(1.0, &t)?.ln()?)?.sub(&t.mul(self)?)?
        };
        if !batch_mean {
            return reduction.reduce(losses);
        }
        let samples = losses.shape().first().copied().unwrap_or(1);
        losses.sum(..)?.div(&Tensor::try_full([], samples as f64, self.dtype())?)
    }

    /// Computes the mean triplet loss of anchors: `max(0, |a - p| - |a - n| + margin)` with the
    /// Euclidean distances to a positive and a negative example, PyTorch's `triplet_margin_loss`.
    ///
    /// # Shape
    /// All three are `[N, D]` or `[D]`; the result is `[]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ, [`Error::DType`] unless all are floating point.
    pub fn triplet_margin_loss(&self, positive: &Tensor, negative: &Tensor, margin: f64) -> Result<Tensor> {
        self.triplet_margin_loss_with(positive, negative, &TripletOptions::new().margin(margin))
    }

    /// Computes [`triplet_margin_loss`](Tensor::triplet_margin_loss) with options.
    ///
    /// # Shape
    /// All three are `[N, D]` or `[D]`; the result is `[]`, without reduction `[N]` or `[]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ, [`Error::Argument`] for a `p` that is negative or
    /// not a number, [`Error::DType`] unless all are floating point.
    pub fn triplet_margin_loss_with(&self, positive: &Tensor, negative: &Tensor, options: &TripletOptions) -> Result<Tensor> {
        let distance = |a: &Tensor, b: &Tensor| {
            same_shape("triplet_margin_loss", a, b)?;
            a.sub(b)?.try_add_scalar(options.eps)?.norm(options.p, -1)
        };
        let mut to_negative = distance(self, negative)?;
        if options.swap {
            to_negative = to_negative.minimum(&distance(positive, negative)?)?;
        }
        let losses = distance(self, positive)?.sub(&to_negative)?.try_add_scalar(options.margin)?.try_relu()?;
        options.reduction.reduce(losses)
    }

    /// Computes the mean ranking loss of pairs of scores: `max(0, -y · (x₁ - x₂) + margin)`, where
    /// `y` is 1 when the first should be greater and -1 when the second should.
    ///
    /// # Shape
    /// All three have one shape; the result is `[]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ, [`Error::DType`] unless the scores are floating
    /// point.
    pub fn margin_ranking_loss(&self, other: &Tensor, target: &Tensor, margin: f64) -> Result<Tensor> {
        self.margin_ranking_loss_with(other, target, margin, Reduction::Mean)
    }

    /// Computes [`margin_ranking_loss`](Tensor::margin_ranking_loss) with a reduction.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ, [`Error::DType`] unless the scores are floating
    /// point.
    pub fn margin_ranking_loss_with(&self, other: &Tensor, target: &Tensor, margin: f64, reduction: Reduction) -> Result<Tensor> {
        same_shape("margin_ranking_loss", self, other)?;
        same_shape("margin_ranking_loss", self, target)?;
        let order = target.to_dtype(self.dtype())?.try_neg()?;
        reduction.reduce(order.mul(&self.sub(other)?)?.try_add_scalar(margin)?.try_relu()?)
    }
}
