//! Reductions over one dimension, several, or all.

use crate::error::{Error, Result};
use crate::kernels::elementwise::{Binary, Unary};
use crate::kernels::reduce::{larger, position, smaller};
use crate::kernels::runtime::simd::{Real, Scalar};
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::compute::{map, reduce_with, zip, zip_with};
use crate::tensor::shape::{outer_axis_inner, resolve_dims};
use crate::tensor::{DType, Dims, MemoryFormat, Tensor, with_dtype, with_float};

/// Removes the reduced dimensions, which have size 1, from a reduced tensor.
fn drop_dims(kept: Tensor, axes: &[usize]) -> Result<Tensor> {
    let shape: Vec<usize> = kept.shape().iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, &n)| n).collect();
    Ok(kept.to_format(MemoryFormat::RowMajor)?.with_shape(&shape, MemoryFormat::RowMajor))
}

/// Returns the number of elements that a reduction over `axes` combines into one.
fn count(x: &Tensor, axes: &[usize]) -> f64 {
    axes.iter().map(|&axis| x.shape()[axis] as f64).product()
}

/// Element types with a least and a greatest value.
trait Bounded: Scalar {
    const LEAST: Self;
    const GREATEST: Self;
}

macro_rules! bounded {
    ($($type:ty: $least:expr, $greatest:expr;)*) => {$(
        impl Bounded for $type {
            const LEAST: Self = $least;
            const GREATEST: Self = $greatest;
        }
    )*};
}
bounded! {
    f32: f32::NEG_INFINITY, f32::INFINITY;
    f64: f64::NEG_INFINITY, f64::INFINITY;
    i64: i64::MIN, i64::MAX;
    u8: u8::MIN, u8::MAX;
}

/// Returns the sums over `axes`, which are kept with size 1; bytes are summed as i64.
fn sums(x: &Tensor, axes: &[usize]) -> Result<Tensor> {
    if x.dtype() == DType::U8 {
        return reduce_with(x, axes, 0i64, |sum, x: u8| sum + i64::from(x), i64::wrapping_add);
    }
    with_dtype!(x.dtype(), T => reduce_with(x, axes, T::default(), T::plus, T::plus))
}

/// Returns the gradient of `x`, whose maximum or minimum over `axes` is `extremum`: elements equal
/// to it share the incoming gradient evenly.
fn share_among_ties(op: &'static str, grad: &Tensor, x: &Tensor, extremum: &Tensor, axes: &[usize]) -> Result<Tensor> {
    with_float!(x.dtype(), op, T => {
        let winners = zip_with(op, x, extremum, 1, |x: T, y: T| u8::from(x == y))?;
        let number = reduce_with(&winners, axes, T::default(), |sum: T, won: u8| sum + T::from(won), T::plus)?;
        let share = zip_with(op, grad, &number, 1, |g: T, n: T| g / n)?;
        zip_with(op, &winners, &share, 1, |won: u8, share: T| share * T::from(won))
    })
}

/// Returns the greatest elements along the middle dimension of `[outer, n, inner]`, a view of `x`'s
/// memory. The result has the given shape and `x`'s memory format.
pub(super) fn max_over_middle(op: &'static str, x: &Tensor, view: [usize; 3], shape: &[usize]) -> Result<Tensor> {
    let _op = operation(op);
    let seen = x.with_shape(&view, MemoryFormat::RowMajor);
    let max = with_dtype!(x.dtype(), T => reduce_with(&seen, &[1], T::LEAST, larger, larger)?);
    let (format, x_shape) = (x.memory_format(), x.shape().to_vec());
    let y = max.with_shape(shape, format);
    let kept = x.is_recorded().then_some((seen, max));
    Ok(y.record(op, [x], move |grad, _wanted| {
        let (seen, max) = kept.as_ref().expect("kept when recorded");
        let grad = grad.to_format(format)?.with_shape(max.shape(), MemoryFormat::RowMajor);
        Ok([Some(share_among_ties(op, &grad, seen, max, &[1])?.with_shape(&x_shape, format))])
    }))
}

#[derive(Clone, Copy)]
struct Difference;

impl Binary for Difference {
    #[inline(always)]
    fn apply<T: Real>(self, a: T, b: T) -> T {
        a - b
    }
}

#[derive(Clone, Copy)]
struct Square;

impl Unary for Square {
    #[inline(always)]
    fn apply<T: Real>(self, x: T) -> T {
        x * x
    }
}

/// Computes the sum of squared deviations of `number` elements from their mean, given the sums of
/// the squared deviations and of the deviations from an approximate mean.
#[derive(Clone, Copy)]
struct Corrected {
    number: f64,
}

impl Binary for Corrected {
    #[inline(always)]
    fn apply<T: Real>(self, squares: T, error: T) -> T {
        // Rounding must not make the sum negative; NaN stays NaN.
        let corrected = squares - error * error / T::of(self.number);
        if corrected < T::zero() { T::zero() } else { corrected }
    }
}

/// `eᵃ⁻ᵇ`, where an infinite `b` counts as 0.
#[derive(Clone, Copy)]
struct ExpDifference;

impl Binary for ExpDifference {
    const COST: usize = 8;

    #[inline(always)]
    fn apply<T: Real>(self, a: T, b: T) -> T {
        (a - if b.abs() == T::infinity() { T::zero() } else { b }).exp_fast()
    }
}

/// The end of the order that a reduction selects.
#[derive(Clone, Copy)]
pub(super) enum Extremum {
    Max,
    Min,
}

impl Tensor {
    /// Records a reduction. `kept` is the result with the reduced dimensions at size 1; the rule
    /// gets the gradient in `kept`'s shape.
    fn finish_reduction(
        &self,
        op: &'static str,
        kept: Tensor,
        axes: &[usize],
        keepdim: bool,
        rule: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
    ) -> Result<Tensor> {
        let shape = kept.shape().to_vec();
        let y = if keepdim { kept } else { drop_dims(kept, axes)? };
        Ok(y.record(op, [self], move |grad, _wanted| Ok([Some(rule(&grad.reshape(shape.as_slice())?)?)])))
    }

    pub(super) fn sum_over(&self, axes: &[usize], keepdim: bool) -> Result<Tensor> {
        let observed = operation("sum");
        observed.details(|| Details::new().ints("axes", axes).flag("keepdim", keepdim));
        let format = self.memory_format();
        // The autograd engine expands the gradient to the input's shape.
        self.finish_reduction("sum", sums(self, axes)?, axes, keepdim, move |grad| grad.to_format(format))
    }

    fn mean_over(&self, axes: &[usize], keepdim: bool) -> Result<Tensor> {
        let observed = operation("mean");
        observed.details(|| Details::new().ints("axes", axes).flag("keepdim", keepdim));
        self.expect_float("mean")?;
        let y = self.sum_over(axes, keepdim)?.try_div_scalar(count(self, axes))?;
        observed.result(&[self], &[&y]);
        Ok(y)
    }

    pub(super) fn extremum_over(&self, which: Extremum, axes: &[usize], keepdim: bool) -> Result<Tensor> {
        let op = match which {
            Extremum::Max => "max",
            Extremum::Min => "min",
        };
        let observed = operation(op);
        observed.details(|| Details::new().ints("axes", axes).flag("keepdim", keepdim));
        if axes.iter().any(|&axis| self.shape()[axis] == 0) {
            return Err(Error::shape(op, format!("needs at least one element, got shape {:?} over dimensions {axes:?}", self.shape())));
        }
        let kept = with_dtype!(self.dtype(), T => match which {
            Extremum::Max => reduce_with(self, axes, T::LEAST, larger, larger)?,
            Extremum::Min => reduce_with(self, axes, T::GREATEST, smaller, smaller)?,
        });
        let saved = self.is_recorded().then(|| (self.detach(), kept.detach(), axes.to_vec()));
        self.finish_reduction(op, kept, axes, keepdim, move |grad| {
            let (x, y, axes) = saved.as_ref().expect("kept when recorded");
            share_among_ties(op, grad, x, y, axes)
        })
    }

    fn position_over(&self, op: &'static str, which: Extremum, dims: impl Dims, keepdim: bool) -> Result<Tensor> {
        let observed = operation(op);
        let axes = resolve_dims(op, &dims, self.ndim())?;
        let all = axes.len() == self.ndim();
        observed.details(|| Details::new().ints("axes", &axes).flag("keepdim", keepdim));
        if !all && axes.len() != 1 {
            return Err(Error::argument(op, format!("takes one dimension or all, got {axes:?} of {} dimensions", self.ndim())));
        }
        if axes.iter().any(|&axis| self.shape()[axis] == 0) {
            return Err(Error::shape(op, format!("needs at least one element, got shape {:?} over dimensions {axes:?}", self.shape())));
        }
        // Over all dimensions, positions count in row-major order.
        let x = if all { self.to_format(MemoryFormat::RowMajor)? } else { self.detach() };
        let format = x.memory_format();
        let view = if all { [1, self.numel(), 1] } else { outer_axis_inner(x.shape(), format, axes[0]) };
        let kept: Vec<usize> = x.shape().iter().enumerate().map(|(axis, &n)| if axes.contains(&axis) { 1 } else { n }).collect();
        let kept = Tensor::build(&kept, format, |y: &mut [i64]| {
            with_dtype!(x.dtype(), T => match which {
                Extremum::Max => position(view, x.data::<T>(), y, |x, best| x > best),
                Extremum::Min => position(view, x.data::<T>(), y, |x, best| x < best),
            });
        })?;
        let y = if keepdim { kept } else { drop_dims(kept, &axes)? };
        observed.result(&[self], &[&y]);
        Ok(y)
    }

    fn logsumexp_over(&self, axes: &[usize], keepdim: bool) -> Result<Tensor> {
        let observed = operation("logsumexp");
        observed.details(|| Details::new().ints("axes", axes).flag("keepdim", keepdim));
        let (max, sum, kept) = with_float!(self.dtype(), "logsumexp", T => {
            let max = reduce_with(self, axes, T::LEAST, larger, larger)?;
            let sum = sums(&zip("logsumexp", self, &max, ExpDifference)?, axes)?;
            let kept = zip_with("logsumexp", &sum, &max, 16, |sum: T, max: T| sum.ln() + if max.is_infinite() { 0.0 } else { max })?;
            (max, sum, kept)
        });
        let saved = self.is_recorded().then(|| (self.detach(), max, sum));
        self.finish_reduction("logsumexp", kept, axes, keepdim, move |grad| {
            // The gradient is the softmax. `e` to the power of `x` minus the result would lose
            // digits where the difference is large.
            let (x, max, sum) = saved.as_ref().expect("kept when recorded");
            zip("logsumexp", x, max, ExpDifference)?.mul(&grad.div(sum)?)
        })
    }

    /// Sums over dimensions; bytes are summed as i64.
    ///
    /// # Shape
    /// The input's without the dimensions; row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist or is named twice.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let x = Tensor::ones([2, 3, 4]);
    /// assert!(x.sum([0, -1])?.shape() == [3]);
    /// assert_eq!(x.sum(..)?.item::<f32>()?, 24.0);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn sum(&self, dims: impl Dims) -> Result<Tensor> {
        self.sum_over(&resolve_dims("sum", &dims, self.ndim())?, false)
    }

    /// Computes [`sum`](Tensor::sum) and keeps the dimensions, with size 1.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist or is named twice.
    pub fn sum_keepdim(&self, dims: impl Dims) -> Result<Tensor> {
        self.sum_over(&resolve_dims("sum", &dims, self.ndim())?, true)
    }

    /// Averages over dimensions; the mean of no elements is NaN.
    ///
    /// # Shape
    /// As [`sum`](Tensor::sum).
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist or is named twice, [`Error::DType`]
    /// unless the tensor is floating point.
    pub fn mean(&self, dims: impl Dims) -> Result<Tensor> {
        self.mean_over(&resolve_dims("mean", &dims, self.ndim())?, false)
    }

    /// Computes [`mean`](Tensor::mean) and keeps the dimensions, with size 1.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist or is named twice, [`Error::DType`]
    /// unless the tensor is floating point.
    pub fn mean_keepdim(&self, dims: impl Dims) -> Result<Tensor> {
        self.mean_over(&resolve_dims("mean", &dims, self.ndim())?, true)
    }

    /// Returns the greatest element over dimensions (`torch.amax`), or NaN if any element is NaN.
    /// Equal greatest elements share the gradient evenly.
    ///
    /// # Shape
    /// As [`sum`](Tensor::sum).
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist or is named twice, [`Error::Shape`]
    /// when a dimension to reduce has size 0.
    pub fn max(&self, dims: impl Dims) -> Result<Tensor> {
        self.extremum_over(Extremum::Max, &resolve_dims("max", &dims, self.ndim())?, false)
    }

    /// Computes [`max`](Tensor::max) and keeps the dimensions, with size 1.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist or is named twice, [`Error::Shape`]
    /// when a dimension to reduce has size 0.
    pub fn max_keepdim(&self, dims: impl Dims) -> Result<Tensor> {
        self.extremum_over(Extremum::Max, &resolve_dims("max", &dims, self.ndim())?, true)
    }

    /// Returns the least element over dimensions (`torch.amin`), or NaN if any element is NaN.
    /// Equal least elements share the gradient evenly.
    ///
    /// # Shape
    /// As [`sum`](Tensor::sum).
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist or is named twice, [`Error::Shape`]
    /// when a dimension to reduce has size 0.
    pub fn min(&self, dims: impl Dims) -> Result<Tensor> {
        self.extremum_over(Extremum::Min, &resolve_dims("min", &dims, self.ndim())?, false)
    }

    /// Computes [`min`](Tensor::min) and keeps the dimensions, with size 1.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist or is named twice, [`Error::Shape`]
    /// when a dimension to reduce has size 0.
    pub fn min_keepdim(&self, dims: impl Dims) -> Result<Tensor> {
        self.extremum_over(Extremum::Min, &resolve_dims("min", &dims, self.ndim())?, true)
    }

    /// Returns the position of the greatest element along one dimension or, with `..`, among all
    /// elements in row-major order; of equal elements, the first. NaN counts as greater than any
    /// number.
    ///
    /// # Shape
    /// The input's shape without the dimension; i64, row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] for several dimensions or one that does not exist, [`Error::Shape`] when
    /// it has size 0.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let logits = Tensor::from_vec(vec![0.1f32, 0.7, 0.2, 0.5, 0.3, 0.5], [2, 3])?;
    /// assert_eq!(logits.argmax(1)?.to_vec::<i64>()?, [1, 0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn argmax(&self, dims: impl Dims) -> Result<Tensor> {
        self.position_over("argmax", Extremum::Max, dims, false)
    }

    /// Computes [`argmax`](Tensor::argmax) and keeps the dimensions, with size 1.
    ///
    /// # Errors
    /// [`Error::Argument`] for several dimensions or one that does not exist, [`Error::Shape`] when
    /// it has size 0.
    pub fn argmax_keepdim(&self, dims: impl Dims) -> Result<Tensor> {
        self.position_over("argmax", Extremum::Max, dims, true)
    }

    /// Returns the position of the least element along one dimension or, with `..`, among all
    /// elements in row-major order; of equal elements, the first. NaN counts as less than any
    /// number.
    ///
    /// # Shape
    /// As [`argmax`](Tensor::argmax).
    ///
    /// # Errors
    /// [`Error::Argument`] for several dimensions or one that does not exist, [`Error::Shape`] when
    /// it has size 0.
    pub fn argmin(&self, dims: impl Dims) -> Result<Tensor> {
        self.position_over("argmin", Extremum::Min, dims, false)
    }

    /// Computes [`argmin`](Tensor::argmin) and keeps the dimensions, with size 1.
    ///
    /// # Errors
    /// [`Error::Argument`] for several dimensions or one that does not exist, [`Error::Shape`] when
    /// it has size 0.
    pub fn argmin_keepdim(&self, dims: impl Dims) -> Result<Tensor> {
        self.position_over("argmin", Extremum::Min, dims, true)
    }

    /// Computes `ln Σ eˣ` over dimensions without overflow; the result over no elements is -∞.
    ///
    /// # Shape
    /// As [`sum`](Tensor::sum).
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist or is named twice, [`Error::DType`]
    /// unless the tensor is floating point.
    pub fn logsumexp(&self, dims: impl Dims) -> Result<Tensor> {
        self.logsumexp_over(&resolve_dims("logsumexp", &dims, self.ndim())?, false)
    }

    /// Computes [`logsumexp`](Tensor::logsumexp) and keeps the dimensions, with size 1.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist or is named twice, [`Error::DType`]
    /// unless the tensor is floating point.
    pub fn logsumexp_keepdim(&self, dims: impl Dims) -> Result<Tensor> {
        self.logsumexp_over(&resolve_dims("logsumexp", &dims, self.ndim())?, true)
    }

    /// Computes the unbiased variance over dimensions; [`var_with`](Tensor::var_with) has other
    /// corrections.
    ///
    /// # Shape
    /// As [`sum`](Tensor::sum).
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist or is named twice, [`Error::DType`]
    /// unless the tensor is floating point.
    pub fn var(&self, dims: impl Dims) -> Result<Tensor> {
        self.var_with(dims, 1, false)
    }

    /// Computes [`var`](Tensor::var) and keeps the dimensions, with size 1.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist or is named twice, [`Error::DType`]
    /// unless the tensor is floating point.
    pub fn var_keepdim(&self, dims: impl Dims) -> Result<Tensor> {
        self.var_with(dims, 1, true)
    }

    /// Computes the variance over dimensions with a given correction: the sum of squared deviations
    /// divided by `n - correction`, as `torch.var` does. A correction of 1 makes the estimate
    /// unbiased; 0 gives the variance of the elements themselves. The result is NaN or infinite
    /// when no degree of freedom is left.
    ///
    /// A second pass takes the deviations from the mean and subtracts their own mean, which is the
    /// rounding error of the first mean. So a large mean costs no accuracy.
    ///
    /// # Shape
    /// As [`sum`](Tensor::sum).
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist or is named twice, [`Error::DType`]
    /// unless the tensor is floating point.
    pub fn var_with(&self, dims: impl Dims, correction: usize, keepdim: bool) -> Result<Tensor> {
        let observed = operation("var");
        self.expect_float("var")?;
        let axes = resolve_dims("var", &dims, self.ndim())?;
        observed.details(|| Details::new().ints("axes", &axes).flag("keepdim", keepdim).int("correction", correction));
        let number = count(self, &axes);
        let freedom = (number - correction as f64).max(0.0);
        let mean = sums(self, &axes)?.try_div_scalar(number)?;
        let deviations = zip("var", self, &mean, Difference)?;
        let error = sums(&deviations, &axes)?;
        let squares = sums(&map("var", &deviations, Square)?, &axes)?;
        let kept = zip("var", &squares, &error, Corrected { number })?.try_div_scalar(freedom)?;
        let saved = self.is_recorded().then(|| (self.detach(), mean, error));
        self.finish_reduction("var", kept, &axes, keepdim, move |grad| {
            let (x, mean, error) = saved.as_ref().expect("kept when recorded");
            x.sub(mean)?.sub(&error.try_div_scalar(number)?)?.mul(&grad.try_mul_scalar(2.0 / freedom)?)
        })
    }
}

#[cfg(test)]
mod tests;
