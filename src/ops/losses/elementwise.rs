//! Losses of pairs of elements: squared, absolute and Huber's error, binary cross entropy of
//! logits and of probabilities.

use super::Reduction;
use crate::error::{Error, Result};
use crate::kernels::elementwise::Binary;
use crate::kernels::loss::sum_pairs;
use crate::kernels::runtime::allocator::catching;
use crate::kernels::runtime::simd::Real;
use crate::ops::options::option_setters;
use crate::profiling::hooks::operation;
use crate::tensor::compute::{promote, zip};
use crate::tensor::meta::is_meta;
use crate::tensor::shape::broadcasts_to;
use crate::tensor::{DType, Tensor, with_float};

/// Options of [`Tensor::binary_cross_entropy_with_logits_with`].
#[derive(Clone, Debug, Default)]
pub struct BceOptions {
    /// A factor for each element; broadcasts to the input's shape.
    pub weight: Option<Tensor>,
    /// A factor for the positive part of each element's loss, for example for each class;
    /// broadcasts to the input's shape.
    pub pos_weight: Option<Tensor>,
    /// How the losses of the elements are reduced.
    pub reduction: Reduction,
}

option_setters!(BceOptions, [], weight: Option<Tensor>, pos_weight: Option<Tensor>, reduction: Reduction);

/// The loss of a prediction and its target.
trait Pair: Copy + Send + Sync + 'static {
    const COST: usize = 2;
    /// A factor of the derivatives that [`slope`](Pair::slope) and
    /// [`target_slope`](Pair::target_slope) leave out.
    const FACTOR: f64 = 1.0;

    fn loss<T: Real>(self, x: T, t: T) -> T;
    /// Returns the derivative with respect to the prediction, divided by [`FACTOR`](Pair::FACTOR).
    fn slope<T: Real>(self, x: T, t: T) -> T;
    /// Returns the derivative with respect to the target, divided by [`FACTOR`](Pair::FACTOR).
    fn target_slope<T: Real>(self, x: T, t: T) -> T {
        -self.slope(x, t)
    }
}

#[derive(Clone, Copy)]
struct Loss<P>(P);

impl<P: Pair> Binary for Loss<P> {
    const COST: usize = P::COST;

    #[inline(always)]
    fn apply<T: Real>(self, x: T, t: T) -> T {
        self.0.loss(x, t)
    }
}

#[derive(Clone, Copy)]
struct Slope<P> {
    pair: P,
    of_target: bool,
    scale: f64,
}

impl<P: Pair> Binary for Slope<P> {
    const COST: usize = P::COST;

    #[inline(always)]
    fn apply<T: Real>(self, x: T, t: T) -> T {
        T::of(P::FACTOR * self.scale) * if self.of_target { self.pair.target_slope(x, t) } else { self.pair.slope(x, t) }
    }
}

/// `(x - t)²`.
#[derive(Clone, Copy)]
struct Squared;

impl Pair for Squared {
    // Combined with the mean's divisor, so that twice a large difference does not overflow.
    const FACTOR: f64 = 2.0;

    #[inline(always)]
    fn loss<T: Real>(self, x: T, t: T) -> T {
        (x - t) * (x - t)
    }
    #[inline(always)]
    fn slope<T: Real>(self, x: T, t: T) -> T {
        x - t
    }
}

/// `|x - t|`.
#[derive(Clone, Copy)]
struct Absolute;

impl Pair for Absolute {
    #[inline(always)]
    fn loss<T: Real>(self, x: T, t: T) -> T {
        (x - t).abs()
    }
    #[inline(always)]
    fn slope<T: Real>(self, x: T, t: T) -> T {
        match (x > t, x < t) {
            (true, _) => T::one(),
            (_, true) => -T::one(),
            _ => T::zero(),
        }
    }
}

/// `(x - t)² / 2β` where the distance is below `β`, else `|x - t| - β/2`.
#[derive(Clone, Copy)]
struct Smooth {
    beta: f64,
}

impl Pair for Smooth {
    #[inline(always)]
    fn loss<T: Real>(self, x: T, t: T) -> T {
        let (d, beta, half) = ((x - t).abs(), T::of(self.beta), T::of(0.5));
        if d < beta { half * d * (d / beta) } else { d - half * beta }
    }
    #[inline(always)]
    fn slope<T: Real>(self, x: T, t: T) -> T {
        let (d, beta) = (x - t, T::of(self.beta));
        match (d >= beta, d <= -beta) {
            (true, _) => T::one(),
            (_, true) => -T::one(),
            _ => d / beta,
        }
    }
}

/// `-t · log σ(x) - (1 - t) · log (1 - σ(x))`, as
/// `t · max(-x, 0) + (1 - t) · max(x, 0) + log(1 + e^-|x|)`, which does not overflow.
#[derive(Clone, Copy)]
struct Logistic;

impl Pair for Logistic {
    const COST: usize = 32;

    #[inline(always)]
    fn loss<T: Real>(self, x: T, t: T) -> T {
        // A term with weight 0 is 0, also where `x` is infinite.
        let term = |weight: T, x: T| if weight == T::zero() || x < T::zero() { T::zero() } else { weight * x };
        term(t, -x) + term(T::one() - t, x) + (-x.abs()).exp().ln_1p()
    }
    #[inline(always)]
    fn slope<T: Real>(self, x: T, t: T) -> T {
        T::one() / (T::one() + (-x).exp()) - t
    }
    #[inline(always)]
    fn target_slope<T: Real>(self, x: T, _t: T) -> T {
        -x
    }
}

/// `-t · ln x - (1 - t) · ln (1 - x)` with logarithms of at least -100, and a slope that is finite
/// at probabilities of 0 and 1, as PyTorch's.
#[derive(Clone, Copy)]
struct Probability;

/// Returns a logarithm, or -100 where that is less.
#[inline(always)]
fn bounded<T: Real>(logarithm: T) -> T {
    if logarithm < T::of(-100.0) { T::of(-100.0) } else { logarithm }
}

impl Pair for Probability {
    const COST: usize = 48;

    #[inline(always)]
    fn loss<T: Real>(self, x: T, t: T) -> T {
        (t - T::one()) * bounded((-x).ln_1p()) - t * bounded(x.ln())
    }
    #[inline(always)]
    fn slope<T: Real>(self, x: T, t: T) -> T {
        // The least divisor is an f32 in PyTorch, whatever the dtype.
        (x - t) / ((T::one() - x) * x).max(T::of(f64::from(1e-12f32)))
    }
    #[inline(always)]
    fn target_slope<T: Real>(self, x: T, _t: T) -> T {
        bounded((-x).ln_1p()) - bounded(x.ln())
    }
}

/// Computes the loss of `pair` over two tensors of one shape.
fn pairwise(op: &'static str, x: &Tensor, target: &Tensor, pair: impl Pair, reduction: Reduction) -> Result<Tensor> {
    let _op = operation(op);
    same_shape(op, x, target)?;
    x.expect_float(op)?;
    target.expect_float(op)?;
    let dtype = promote(x, target);
    let (a, b) = (x.cast(dtype)?, target.cast(dtype)?.to_format(x.memory_format())?);
    let count = a.numel() as f64;
    let y = match reduction {
        Reduction::None => zip(op, &a, &b, Loss(pair))?,
        Reduction::Sum | Reduction::Mean if is_meta() => Tensor::try_full([], 0.0, dtype)?,
        Reduction::Sum | Reduction::Mean => with_float!(dtype, op, T => {
            let sum = catching(|| sum_pairs(a.data::<T>(), b.data::<T>(), Loss(pair).cost(), |x, t| pair.loss(x, t)))?;
            Tensor::scalar((if reduction == Reduction::Mean { sum / count } else { sum }) as T)
        }),
    };
    Ok(y.record(op, [x, target], move |grad, wanted| {
        let scale = match reduction {
            Reduction::None => 1.0,
            Reduction::Sum => grad.cast(DType::F64)?.item()?,
            Reduction::Mean => grad.cast(DType::F64)?.item::<f64>()? / count,
        };
        let gradient = |of_target: bool| {
            let slope = zip(op, &a, &b, Slope { pair, of_target, scale })?;
            if reduction == Reduction::None { slope.mul(grad) } else { Ok(slope) }
        };
        Ok([wanted[0].then(|| gradient(false)).transpose()?, wanted[1].then(|| gradient(true)).transpose()?])
    }))
}

impl<P: Pair> Loss<P> {
    fn cost(self) -> usize {
        P::COST
    }
}

pub(super) fn same_shape(op: &'static str, x: &Tensor, target: &Tensor) -> Result<()> {
    if x.shape() == target.shape() {
        return Ok(());
    }
    Err(Error::shape(op, format!("input {:?} wants a target of its shape, got {:?}", x.shape(), target.shape())))
}

impl Tensor {
    /// Computes the mean squared error.
    ///
    /// # Shape
    /// As [`mse_loss_with`](Tensor::mse_loss_with).
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ, [`Error::DType`] unless both are floating point.
    pub fn mse_loss(&self, target: &Tensor) -> Result<Tensor> {
        self.mse_loss_with(target, Reduction::Mean)
    }

    /// Computes the squared error, `(x - t)²`.
    ///
    /// # Shape
    /// Two tensors of one shape. They do not broadcast, because a column compared with a row is a
    /// mistake that training does not reveal. The result is `[]`; without reduction it has the
    /// inputs' shape and the prediction's memory format.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ, [`Error::DType`] unless both are floating point.
    pub fn mse_loss_with(&self, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
        pairwise("mse_loss", self, target, Squared, reduction)
    }

    /// Computes the mean absolute error.
    ///
    /// # Shape
    /// As [`mse_loss_with`](Tensor::mse_loss_with).
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ, [`Error::DType`] unless both are floating point.
    pub fn l1_loss(&self, target: &Tensor) -> Result<Tensor> {
        self.l1_loss_with(target, Reduction::Mean)
    }

    /// Computes the absolute error, `|x - t|`.
    ///
    /// # Shape
    /// As [`mse_loss_with`](Tensor::mse_loss_with).
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ, [`Error::DType`] unless both are floating point.
    pub fn l1_loss_with(&self, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
        pairwise("l1_loss", self, target, Absolute, reduction)
    }

    /// Computes the mean of the squared error near the target and of the absolute error at
    /// distances above 1 (Girshick, 2015).
    ///
    /// # Shape
    /// As [`mse_loss_with`](Tensor::mse_loss_with).
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ, [`Error::DType`] unless both are floating point.
    pub fn smooth_l1_loss(&self, target: &Tensor) -> Result<Tensor> {
        self.smooth_l1_loss_with(target, 1.0, Reduction::Mean)
    }

    /// Computes `(x - t)² / 2β` where `|x - t| < β`, else `|x - t| - β/2`; the absolute error when
    /// `β` is 0.
    ///
    /// # Shape
    /// As [`mse_loss_with`](Tensor::mse_loss_with).
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ, [`Error::Argument`] for a negative `β`,
    /// [`Error::DType`] unless both are floating point.
    pub fn smooth_l1_loss_with(&self, target: &Tensor, beta: f64, reduction: Reduction) -> Result<Tensor> {
        match beta {
            _ if beta > 0.0 => pairwise("smooth_l1_loss", self, target, Smooth { beta }, reduction),
            0.0 => pairwise("smooth_l1_loss", self, target, Absolute, reduction),
            _ => Err(Error::argument("smooth_l1_loss", format!("beta must not be negative, got {beta}"))),
        }
    }

    /// Computes the mean cross entropy of probabilities and targets in `[0, 1]`:
    /// `-t · ln x - (1 - t) · ln (1 - x)`, with logarithms of at least -100, as PyTorch does. The
    /// gradient `(x - t) / (x · (1 - x))` has a divisor of at least 1e-12: it is finite at
    /// probabilities of 0 and 1.
    ///
    /// Of logits, [`binary_cross_entropy_with_logits`](Tensor::binary_cross_entropy_with_logits) is
    /// the exact form.
    ///
    /// # Shape
    /// As [`mse_loss_with`](Tensor::mse_loss_with).
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ, [`Error::DType`] unless both are floating point.
    pub fn binary_cross_entropy(&self, target: &Tensor) -> Result<Tensor> {
        self.binary_cross_entropy_with(target, Reduction::Mean)
    }

    /// Computes [`binary_cross_entropy`](Tensor::binary_cross_entropy) with a reduction.
    ///
    /// # Shape
    /// As [`mse_loss_with`](Tensor::mse_loss_with).
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ, [`Error::DType`] unless both are floating point.
    pub fn binary_cross_entropy_with(&self, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
        pairwise("binary_cross_entropy", self, target, Probability, reduction)
    }

    /// Computes the mean cross entropy between logits and probabilities of the positive class:
    /// `-t · log σ(x) - (1 - t) · log (1 - σ(x))`.
    ///
    /// # Shape
    /// As [`binary_cross_entropy_with_logits_with`](Tensor::binary_cross_entropy_with_logits_with).
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ, [`Error::DType`] unless both are floating point.
    pub fn binary_cross_entropy_with_logits(&self, target: &Tensor) -> Result<Tensor> {
        self.binary_cross_entropy_with_logits_with(target, &BceOptions::default())
    }

    /// Computes the cross entropy between logits and probabilities of the positive class, with
    /// weights.
    ///
    /// # Shape
    /// Two tensors of one shape, and weights that broadcast to it. The result is `[]`; without
    /// reduction it has the inputs' shape. As in PyTorch, the mean divides by the number of
    /// elements, whatever their weights.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ or a weight does not broadcast, [`Error::DType`]
    /// unless all are floating point.
    pub fn binary_cross_entropy_with_logits_with(&self, target: &Tensor, options: &BceOptions) -> Result<Tensor> {
        const OP: &str = "binary_cross_entropy_with_logits";
        same_shape(OP, self, target)?;
        for (name, weight) in [("weight", &options.weight), ("pos_weight", &options.pos_weight)] {
            let Some(weight) = weight else { continue };
            weight.expect_float(OP)?;
            if !broadcasts_to(weight.shape(), self.shape()) {
                let message = format!("{name} of shape {:?} does not broadcast to input {:?}", weight.shape(), self.shape());
                return Err(Error::shape(OP, message));
            }
        }
        if options.weight.is_none() && options.pos_weight.is_none() {
            return pairwise(OP, self, target, Logistic, options.reduction);
        }
        // Weights are rare, so their terms are composed of other operations. A `pos_weight` of
        // `p` adds `(p - 1) · t · log(1 + e^-x)`.
        let mut y = pairwise(OP, self, target, Logistic, Reduction::None)?;
        if let Some(pos_weight) = &options.pos_weight {
            let positive = pairwise(OP, self, &self.try_full_like(1.0)?, Logistic, Reduction::None)?;
            let share = pos_weight.try_add_scalar(-1.0)?.mul(target)?;
            // A share of 0 of an infinite loss is 0.
            let none = share.eq_scalar(0.0)?.mul(&positive.eq_scalar(f64::INFINITY)?)?;
            let positive = none.where_(&positive.try_full_like(0.0)?, &positive)?;
            y = y.add(&share.mul(&positive)?)?;
        }
        if let Some(weight) = &options.weight {
            y = y.mul(weight)?;
        }
        options.reduction.reduce(y)
    }
}
