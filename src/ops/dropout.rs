//! Dropout of elements, of whole channels, or of whole samples.

use rand::Rng;

use crate::error::{Error, Result};
use crate::kernels::dropout::mask;
use crate::profiling::hooks::operation;
use crate::tensor::compute::zip_with;
use crate::tensor::rng::with_generator;
use crate::tensor::{MemoryFormat, Tensor, with_float};

/// Drops the elements of `x` that a random mask selects, and scales the others up. The mask has the
/// shape `mask_shape`, which broadcasts to `x`'s.
fn drop_at_random(op: &'static str, x: &Tensor, p: f64, mask_shape: &[usize]) -> Result<Tensor> {
    let _op = operation(op);
    x.expect_float(op)?;
    if !(0.0..=1.0).contains(&p) {
        return Err(Error::argument(op, format!("expected a probability between 0 and 1, got {p}")));
    }
    if p == 0.0 || x.numel() == 0 {
        return Ok(x.clone());
    }
    // The mask is drawn in logical order, so that the memory format does not matter.
    let kept = Tensor::build(mask_shape, MemoryFormat::RowMajor, |out: &mut [u8]| {
        let mut key = [0; 32];
        with_generator(|generator| generator.fill_bytes(&mut key));
        mask(key, p, out);
    })?;
    let kept = if mask_shape == x.shape() { kept.to_format(x.memory_format())? } else { kept };
    let scale = if p == 1.0 { 0.0 } else { 1.0 / (1.0 - p) };
    // A product instead of a selection, so that NaN stays NaN.
    let apply = move |x: &Tensor, kept: &Tensor| -> Result<Tensor> {
        with_float!(x.dtype(), op, T => zip_with(op, x, kept, 1, |x: T, kept: u8| x * (T::from(kept) * scale as T)))
    };
    let y = apply(x, &kept)?;
    Ok(y.record(op, [x], move |grad, _wanted| Ok([Some(apply(grad, &kept)?)])))
}

impl Tensor {
    /// Drops each element with probability `p`, independently, and scales the others by
    /// `1 / (1 - p)` (Srivastava et al., 2014).
    ///
    /// This operation always drops; layers check whether they are in training mode. This thread's
    /// generator ([`manual_seed`](crate::manual_seed)) and the shape determine what is dropped.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`] unless the tensor is floating point, [`Error::Argument`] unless `p` is
    /// between 0 and 1.
    pub fn dropout(&self, p: f64) -> Result<Tensor> {
        drop_at_random("dropout", self, p, self.shape())
    }

    /// Drops whole channels of each sample with probability `p`, and scales the others by
    /// `1 / (1 - p)` (Tompson et al., 2015).
    ///
    /// # Shape
    /// `[N, C, ..]`; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::Shape`] when there is no channel dimension, [`Error::DType`] unless the tensor is
    /// floating point, [`Error::Argument`] unless `p` is between 0 and 1.
    pub fn dropout2d(&self, p: f64) -> Result<Tensor> {
        let &[n, c, ref rest @ ..] = self.shape() else {
            return Err(Error::shape("dropout2d", format!("expected [N, C, ..], got shape {:?}", self.shape())));
        };
        drop_at_random("dropout2d", self, p, &[&[n, c], vec![1; rest.len()].as_slice()].concat())
    }

    /// Drops whole samples with probability `p`, and scales the others by `1 / (1 - p)` (Huang et
    /// al., 2016), as torchvision's `stochastic_depth` does in mode `row`.
    ///
    /// # Shape
    /// `[N, ..]`; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::Shape`] when there is no dimension of samples, [`Error::DType`] unless the tensor
    /// is floating point, [`Error::Argument`] unless `p` is between 0 and 1.
    pub fn stochastic_depth(&self, p: f64) -> Result<Tensor> {
        let &[n, ref rest @ ..] = self.shape() else {
            return Err(Error::shape("stochastic_depth", format!("expected [N, ..], got shape {:?}", self.shape())));
        };
        drop_at_random("stochastic_depth", self, p, &[&[n], vec![1; rest.len()].as_slice()].concat())
    }
}
