//! Layer normalisation.

use super::{check_parameters, exceeds_f32, widened};
use crate::error::{Error, Result};
use crate::kernels::norm::layer;
use crate::kernels::runtime::allocator::{AlignedVec, catching};
use crate::kernels::runtime::arrays::MapEach;
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::shape::try_numel;
use crate::tensor::{DType, MemoryFormat, Tensor, with_float};

impl Tensor {
    /// Applies layer normalisation over the trailing dimensions `normalized_shape`; each position
    /// of the other dimensions has its own statistics.
    ///
    /// # Shape
    /// `[.., normalized_shape]`; weight and bias have `normalized_shape`. The result has the
    /// input's shape; row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] when the input does not end in `normalized_shape` or that is empty,
    /// [`Error::DType`] unless all are floating point, [`Error::MixedDTypes`] unless they have one
    /// type.
    pub fn layer_norm(&self, normalized_shape: &[usize], weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
        let observed = operation("layer_norm");
        observed.details(|| Details::new().int("dimensions", normalized_shape.len()).float("eps", eps));
        check_parameters("layer_norm", self, normalized_shape, &[("weight", weight), ("bias", bias)])?;
        let length = match try_numel(normalized_shape) {
            Some(length) if !normalized_shape.is_empty() && self.shape().ends_with(normalized_shape) => length,
            _ => {
                let message = format!("expected an input that ends in {normalized_shape:?}, got shape {:?}", self.shape());
                return Err(Error::shape("layer_norm", message));
            }
        };
        let rows = self.numel().checked_div(length).unwrap_or(0);
        let (x, shape) = (self.to_format(MemoryFormat::RowMajor)?, self.shape().to_vec());
        let row_major = |parameter: Option<&Tensor>| parameter.map(|parameter| parameter.to_format(MemoryFormat::RowMajor)).transpose();
        let [w, b] = [row_major(weight)?, row_major(bias)?];
        let none = Tensor::scalar(0u8);
        let (normalized, inputs) = (normalized_shape.to_vec(), [self, weight.unwrap_or(&none), bias.unwrap_or(&none)]);
        with_float!(self.dtype(), "layer_norm", T => {
            let new = || AlignedVec::<T>::try_uninit(rows);
            let [mut mean, mut rest, mut rstd] = [new()?, new()?, new()?];
            let y = Tensor::build(&shape, MemoryFormat::RowMajor, |y: &mut [T]| {
                let [w, b] = [&w, &b].map_each(|parameter| parameter.as_ref().map(Tensor::data));
                layer::forward(length, x.data(), w, b, eps, y, [&mut mean, &mut rest, &mut rstd]);
            })?;
            if length > 0 && exceeds_f32(self.dtype(), &rstd) {
                let (weight, bias) = (widened(weight)?, widened(bias)?);
                return self.to_dtype(DType::F64)?.layer_norm(normalized_shape, weight.as_ref(), bias.as_ref(), eps)?.to_dtype(DType::F32);
            }
            Ok(y.record("layer_norm", inputs, move |grad, wanted| {
                let grad = grad.to_format(MemoryFormat::RowMajor)?;
                let of_x = wanted[0].then(|| Tensor::build(&shape, MemoryFormat::RowMajor, |dx: &mut [T]| {
                    layer::backward(length, grad.data(), x.data(), w.as_ref().map(Tensor::data), [&mean, &rest, &rstd], dx);
                }));
                let of_x = of_x.transpose()?;
                if !wanted[1] && !wanted[2] {
                    return Ok([of_x, None, None]);
                }
                let mut sums = AlignedVec::<T>::try_uninit(2 * length)?;
                let (dw, db) = sums.split_at_mut(length);
                catching(|| layer::parameters_backward(length, grad.data(), x.data(), [&mean, &rest, &rstd], [&mut *dw, &mut *db]))?;
                let sum = |wanted: bool, sum: &[T]| {
                    wanted.then(|| Tensor::build(&normalized, MemoryFormat::RowMajor, |out: &mut [T]| out.copy_from_slice(sum))).transpose()
                };
                Ok([of_x, sum(wanted[1], dw)?, sum(wanted[2], db)?])
            }))
        })
    }
}
