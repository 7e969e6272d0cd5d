//! Convolutions prepared for inference: batch normalisation is folded into the weights, and these
//! are laid out for the kernel and one input size.

use super::conv::{Conv2dOptions, ConvCall, ConvPass};
use crate::error::Result;
use crate::kernels::conv::Prepared;
use crate::kernels::elementwise::epilogue::{Activation, Epilogue};
use crate::kernels::runtime::allocator::{AlignedVec, catching};
use crate::kernels::runtime::simd::Real;
use crate::profiling::hooks::operation;
use crate::tensor::{DType, Element, MemoryFormat, Tensor};

/// Batch normalisation with running statistics, all `[C]` and of the convolution's dtype.
pub(crate) struct RunningNorm {
    pub(crate) weight: Option<Tensor>,
    pub(crate) bias: Option<Tensor>,
    pub(crate) mean: Tensor,
    pub(crate) var: Tensor,
    pub(crate) eps: f64,
}

impl RunningNorm {
    /// Returns the factor and the offset for each channel that the normalisation is equivalent to.
    pub(crate) fn factors(&self) -> Result<[Vec<f64>; 2]> {
        let values = |tensor: &Tensor| tensor.cast(DType::F64)?.to_vec::<f64>();
        let mut scale: Vec<f64> = values(&self.var)?.iter().map(|var| 1.0 / (var + self.eps).sqrt()).collect();
        if let Some(weight) = &self.weight {
            scale.iter_mut().zip(values(weight)?).for_each(|(scale, weight)| *scale *= weight);
        }
        let mut offset = self.bias.as_ref().map_or_else(|| Ok(vec![0.0; scale.len()]), values)?;
        offset.iter_mut().zip(values(&self.mean)?).zip(&scale).for_each(|((offset, mean), scale)| *offset -= mean * scale);
        Ok([scale, offset])
    }
}

/// A convolution prepared for inputs of one shape and dtype, with the weights at the time of
/// preparation.
pub(crate) struct PreparedConv2d {
    pass: ConvCall,
    kernel: Kernel,
}

enum Kernel {
    F32(Weights<f32>),
    F64(Weights<f64>),
}

struct Weights<T> {
    prepared: Prepared<T>,
    bias: Option<AlignedVec<T>>,
}

impl PreparedConv2d {
    /// Prepares a convolution for inputs like `x`, with the algorithm set by
    /// [`with_algorithm`](super::with_algorithm).
    ///
    /// # Errors
    /// The errors of [`Tensor::conv2d`], mainly [`Error::Shape`](crate::Error::Shape) when sizes do
    /// not fit.
    pub(crate) fn new(
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        norm: Option<&RunningNorm>,
        options: Conv2dOptions,
    ) -> Result<PreparedConv2d> {
        let _op = operation("conv2d");
        let pass = ConvCall::of_conv2d(x, weight, bias, options)?;
        let kernel = match x.dtype() {
            DType::F64 => Kernel::F64(Weights::new(&pass, weight, bias, norm)?),
            _ => Kernel::F32(Weights::new(&pass, weight, bias, norm)?),
        };
        Ok(PreparedConv2d { pass, kernel })
    }

    /// Returns the result's shape.
    pub(crate) fn output_shape(&self) -> [usize; 4] {
        self.pass.output_shape()
    }

    /// Computes `activation(norm(conv(x)) + residual)`, channels-last and without history. The
    /// residual has the result's shape and dtype.
    pub(crate) fn run(&self, x: &Tensor, residual: Option<&Tensor>, activation: Activation) -> Result<Tensor> {
        let _op = operation(self.pass.op);
        self.pass.report(ConvPass::Forward, true, x.dtype());
        match &self.kernel {
            Kernel::F32(weights) => weights.run(&self.output_shape(), x, residual, activation),
            Kernel::F64(weights) => weights.run(&self.output_shape(), x, residual, activation),
        }
    }
}

impl<T: Real + Element> Weights<T> {
    fn new(pass: &ConvCall, weight: &Tensor, bias: Option<&Tensor>, norm: Option<&RunningNorm>) -> Result<Weights<T>> {
        let weight = weight.to_format(MemoryFormat::RowMajor)?;
        let (algorithm, geometry) = (pass.algorithm, &pass.geometry);
        let Some(norm) = norm else {
            return Ok(catching(|| {
                let bias = bias.map(|bias| AlignedVec::copy_of(bias.data()));
                Weights { prepared: Prepared::forward(algorithm, geometry, weight.data()), bias }
            })?);
        };
        // This happens once for many runs, so all of it is computed in f64: each number is rounded
        // only once.
        let wide = |x: T| x.to_f64().unwrap_or(f64::NAN);
        let [scale, mut offset] = norm.factors()?;
        if let Some(bias) = bias {
            offset.iter_mut().zip(bias.data::<T>()).zip(&scale).for_each(|((offset, &bias), scale)| *offset += wide(bias) * scale);
        }
        let mut folded = AlignedVec::try_uninit(weight.numel())?;
        folded.copy_from_slice(weight.data::<T>());
        let row = geometry.weights() / geometry.channels_out.max(1);
        for (row, scale) in folded.chunks_exact_mut(row.max(1)).zip(&scale) {
            row.iter_mut().for_each(|w| *w = T::of(wide(*w) * scale));
        }
        let mut bias = AlignedVec::try_uninit(offset.len())?;
        bias.iter_mut().zip(&offset).for_each(|(bias, &offset)| *bias = T::of(offset));
        Ok(Weights { prepared: catching(|| Prepared::forward(algorithm, geometry, &folded))?, bias: Some(bias) })
    }

    fn run(&self, output: &[usize], x: &Tensor, residual: Option<&Tensor>, activation: Activation) -> Result<Tensor> {
        let x = x.to_format(MemoryFormat::ChannelsLast)?;
        let residual = residual.map(|residual| residual.to_format(MemoryFormat::ChannelsLast)).transpose()?;
        Tensor::build(output, MemoryFormat::ChannelsLast, |y: &mut [T]| {
            let residual = residual.as_ref().map(|residual| residual.data());
            self.prepared.run(x.data(), Epilogue { residual, activation, ..Epilogue::bias(self.bias.as_deref()) }, y);
        })
    }
}
