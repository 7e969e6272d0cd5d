//! Losses that are made of other operations.

use super::Reduction;
use super::elementwise::same_shape;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

impl Reduction {
    /// Reduces the losses of elements or samples.
    fn reduce(self, losses: Tensor) -> Result<Tensor> {
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
    /// [`Error::Shape`] for a target of another shape, [`Error::Argument`] for a `delta` that is not
    /// positive, [`Error::DType`] unless the input is floating point.
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
    /// [`Error::Shape`] for a target of another shape, [`Error::Argument`] for a `delta` that is not
    /// positive, [`Error::DType`] unless the input is floating point.
    pub fn huber_loss_with(&self, target: &Tensor, delta: f64, reduction: Reduction) -> Result<Tensor> {
        if delta.is_nan() || delta <= 0.0 {
            return Err(Error::argument("huber_loss", format!("delta must be positive, got {delta}")));
        }
        self.smooth_l1_loss_with(target, delta, reduction)?.try_mul_scalar(delta)
    }

    /// Computes the Kullback-Leibler divergence of log-probabilities from target probabilities,
    /// `t · (ln t - x)`, 0 where `t` is 0.
    ///
    /// # Shape
    /// The target has the input's shape. Over a batch `[N, …]` the mathematical value is the sum
    /// divided by `N` (PyTorch's `batchmean`); [`Reduction::Mean`] divides by the number of
    /// elements.
    ///
    /// # Errors
    /// [`Error::Shape`] for a target of another shape, [`Error::DType`] unless the input is floating
    /// point.
    pub fn kl_div(&self, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
        same_shape("kl_div", self, target)?;
        let t = target.to_dtype(self.dtype())?;
        let is_zero = t.eq_scalar(0.0)?;
        let entropy = t.mul(&is_zero.where_(1.0, &t)?.ln()?)?;
        reduction.reduce(entropy.sub(&t.mul(self)?)?)
    }

    /// Computes the mean triplet loss of anchors: `max(0, |a - p| - |a - n| + margin)` with the
    /// distances to a positive and a negative example (PyTorch's `triplet_margin_loss`, with
    /// Euclidean distances, of which 1e-6 is added to each difference).
    ///
    /// # Shape
    /// All three are `[N, D]`; the result is `[]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ, [`Error::DType`] unless all are floating point.
    pub fn triplet_margin_loss(&self, positive: &Tensor, negative: &Tensor, margin: f64) -> Result<Tensor> {
        let distance = |other: &Tensor| {
            same_shape("triplet_margin_loss", self, other)?;
            self.sub(other)?.try_add_scalar(1e-6)?.norm(2.0, -1)
        };
        distance(positive)?.sub(&distance(negative)?)?.try_add_scalar(margin)?.try_relu()?.mean(..)
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
        same_shape("margin_ranking_loss", self, other)?;
        same_shape("margin_ranking_loss", self, target)?;
        let order = target.to_dtype(self.dtype())?.try_neg()?;
        order.mul(&self.sub(other)?)?.try_add_scalar(margin)?.try_relu()?.mean(..)
    }
}
