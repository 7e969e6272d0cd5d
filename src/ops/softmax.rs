//! Softmax and its logarithm.

use crate::error::Result;
use crate::kernels::softmax::{self, Kind};
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::meta::InputExtent;
use crate::tensor::shape::{outer_axis_inner, resolve_dim};
use crate::tensor::{Dim, Tensor, with_float};

/// Computes softmax or log-softmax over one dimension; the backward pass needs only the output.
fn normalise(op: &'static str, kind: Kind, x: &Tensor, dim: impl Dim) -> Result<Tensor> {
    let observed = operation(op);
    x.expect_float(op)?;
    let axis = resolve_dim(op, dim, x.ndim())?;
    observed.details(|| Details::new().int("axis", axis));
    let format = x.memory_format();
    let view = if x.ndim() == 0 { [1; 3] } else { outer_axis_inner(x.shape(), format, axis) };
    let y = with_float!(x.dtype(), op, T => Tensor::build(x.shape(), format, |y: &mut [T]| softmax::forward(kind, view, x.data(), y))?);
    let kept = x.is_recorded().then(|| y.detach());
    Ok(y.record_window(
        op,
        [x],
        |y| [InputExtent::along(y, axis)],
        move |grad, _wanted| {
            let y = kept.as_ref().expect("kept when recorded");
            let grad = grad.to_format(format)?;
            Ok([Some(with_float!(y.dtype(), op, T => Tensor::build(y.shape(), format, |out: &mut [T]| {
            softmax::backward(kind, view, y.data(), grad.data(), out);
        })?))])
        },
    ))
}

impl Tensor {
    /// Computes `eˣ / Σ eˣ` along a dimension: positive numbers whose sum is 1.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`](crate::Error::DType) unless the tensor is floating point,
    /// [`Error::Argument`](crate::Error::Argument) when there is no such dimension.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let p = Tensor::zeros([2, 4]).softmax(-1)?;
    /// assert_eq!(p.to_vec::<f32>()?, [0.25; 8]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn softmax(&self, dim: impl Dim) -> Result<Tensor> {
        normalise("softmax", Kind::Softmax, self, dim)
    }

    /// Computes the logarithm of [`softmax`](Tensor::softmax), without the digits lost by a
    /// logarithm taken afterwards.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`](crate::Error::DType) unless the tensor is floating point,
    /// [`Error::Argument`](crate::Error::Argument) when there is no such dimension.
    pub fn log_softmax(&self, dim: impl Dim) -> Result<Tensor> {
        normalise("log_softmax", Kind::LogSoftmax, self, dim)
    }
}
