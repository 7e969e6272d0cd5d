//! Norms of vectors, what is normalised by them, and standard deviations.

use super::reduction::Extremum;
use crate::error::{Error, Result};
use crate::tensor::shape::{broadcast_shapes, resolve_dim, resolve_dims};
use crate::tensor::{Dim, Dims, Tensor};

impl Tensor {
    /// Computes the `p`-norm over dimensions, `(Σ |x|ᵖ)^(1/p)`; `p` infinite gives the greatest
    /// magnitude, 0 the number of elements that are not 0. The gradient at a vector of zeros is 0.
    ///
    /// # Shape
    /// As [`sum`](Tensor::sum).
    ///
    /// # Errors
    /// [`Error::Argument`] for a `p` that is negative or not a number and for a dimension that does
    /// not exist or is named twice, [`Error::DType`] unless the tensor is floating point.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let x = Tensor::from_vec(vec![3.0f32, 4.0], [2])?;
    /// assert_eq!(x.norm(2.0, ..)?.item::<f32>()?, 5.0);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn norm(&self, p: f64, dims: impl Dims) -> Result<Tensor> {
        self.norm_over(p, &resolve_dims("norm", &dims, self.ndim())?, false)
    }

    /// Computes [`norm`](Tensor::norm) and keeps the dimensions, with size 1.
    ///
    /// # Errors
    /// [`Error::Argument`] for a `p` that is negative or not a number and for a dimension that does
    /// not exist or is named twice, [`Error::DType`] unless the tensor is floating point.
    pub fn norm_keepdim(&self, p: f64, dims: impl Dims) -> Result<Tensor> {
        self.norm_over(p, &resolve_dims("norm", &dims, self.ndim())?, true)
    }

    fn norm_over(&self, p: f64, axes: &[usize], keepdim: bool) -> Result<Tensor> {
        self.expect_float("norm")?;
        if p.is_nan() || p < 0.0 {
            return Err(Error::argument("norm", format!("p must be 0 or more, got {p}")));
        }
        if p == 0.0 {
            return self.ne_scalar(0.0)?.to_dtype(self.dtype())?.sum_over(axes, keepdim);
        }
        if p == 1.0 {
            return self.try_abs()?.sum_over(axes, keepdim);
        }
        if p.is_infinite() {
            return self.try_abs()?.extremum_over(Extremum::Max, axes, keepdim);
        }
        let powers = if p == 2.0 { self.square()? } else { self.try_abs()?.pow(p)? };
        powers.sum_over(axes, keepdim)?.root_or_zero(p)
    }

    /// Computes `x^(1/p)` with a gradient of 0 where `x` is 0 and the root has no derivative.
    fn root_or_zero(&self, p: f64) -> Result<Tensor> {
        let is_zero = self.eq_scalar(0.0)?;
        is_zero.where_(0.0, &is_zero.where_(1.0, self)?.pow(1.0 / p)?)
    }

    /// Divides by the `p`-norm along a dimension, or by `eps` where that is greater
    /// (`torch.nn.functional.normalize`, whose default is a `p` of 2 and an `eps` of 1e-12).
    ///
    /// # Shape
    /// The input's.
    ///
    /// # Errors
    /// [`Error::Argument`] for a `p` that is negative or not a number and for a dimension that does
    /// not exist, [`Error::DType`] unless the tensor is floating point.
    pub fn normalize(&self, p: f64, dim: impl Dim, eps: f64) -> Result<Tensor> {
        let axis = resolve_dim("normalize", dim, self.ndim())?;
        self.div(&self.norm_keepdim(p, axis)?.clamp(eps, f64::INFINITY)?)
    }

    /// Computes the cosine of the angle between vectors along a dimension; norms are at least `eps`
    /// (PyTorch's default is 1e-8).
    ///
    /// # Shape
    /// The common shape of both, broadcast as NumPy does, without the dimension.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes do not broadcast, [`Error::Argument`] for a dimension that
    /// does not exist, [`Error::DType`] unless both are floating point.
    pub fn cosine_similarity(&self, other: &Tensor, dim: impl Dim, eps: f64) -> Result<Tensor> {
        let shape = broadcast_shapes("cosine_similarity", self.shape(), other.shape())?;
        let axis = resolve_dim("cosine_similarity", dim, shape.len())?;
        let (a, b) = (self.expand(&shape)?.normalize(2.0, axis, eps)?, other.expand(&shape)?.normalize(2.0, axis, eps)?);
        a.mul(&b)?.sum(axis)
    }

    /// Computes the unbiased standard deviation over dimensions, the root of
    /// [`var`](Tensor::var). The gradient of equal elements is 0.
    ///
    /// # Shape
    /// As [`sum`](Tensor::sum).
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist or is named twice, [`Error::DType`]
    /// unless the tensor is floating point.
    pub fn std(&self, dims: impl Dims) -> Result<Tensor> {
        self.var(dims)?.root_or_zero(2.0)
    }

    /// Computes [`std`](Tensor::std) and keeps the dimensions, with size 1.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist or is named twice, [`Error::DType`]
    /// unless the tensor is floating point.
    pub fn std_keepdim(&self, dims: impl Dims) -> Result<Tensor> {
        self.var_keepdim(dims)?.root_or_zero(2.0)
    }

    /// Computes the standard deviation over dimensions with a given correction, the root of
    /// [`var_with`](Tensor::var_with). The gradient of equal elements is 0.
    ///
    /// # Shape
    /// As [`sum`](Tensor::sum).
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist or is named twice, [`Error::DType`]
    /// unless the tensor is floating point.
    pub fn std_with(&self, dims: impl Dims, correction: usize, keepdim: bool) -> Result<Tensor> {
        self.var_with(dims, correction, keepdim)?.root_or_zero(2.0)
    }
}
