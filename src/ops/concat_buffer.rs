//! Feature maps that grow by a few channels at a time, for inference: dense blocks without a
//! concatenation in each layer.
//!
//! The maps of all layers share one channels-last buffer that has room for the channels of the last
//! layer. Each layer reads the first channels of a pixel and appends new channels after them.

use super::fused_conv::RunningNorm;
use crate::error::{Error, Result};
use crate::kernels::concat_buffer;
use crate::kernels::elementwise::epilogue::Activation;
use crate::profiling::hooks::operation;
use crate::tensor::shape::try_numel;
use crate::tensor::{MemoryFormat, Tensor, with_float};

const OP: &str = "cat";

/// Feature maps in a buffer with room for more channels; the module describes it.
pub(crate) struct ConcatBuffer {
    maps: Tensor,
    used: usize,
}

impl ConcatBuffer {
    /// Starts with maps `[N, C, H, W]` and reserves room for `channels` channels in total.
    ///
    /// # Errors
    /// [`Error::Shape`] when `channels` is less than the maps have, or memory cannot hold the
    /// result; [`Error::DType`] unless the maps are floating point.
    pub(crate) fn new(first: &Tensor, channels: usize) -> Result<ConcatBuffer> {
        let &[n, _, h, w] = first.shape() else {
            return Err(Error::shape(OP, format!("expected [N, C, H, W], got shape {:?}", first.shape())));
        };
        let shape = [n, channels, h, w];
        if try_numel(&shape).is_none() {
            return Err(Error::shape(OP, format!("maps of shape {shape:?} have more elements than memory can hold")));
        }
        let maps = with_float!(first.dtype(), OP, T => Tensor::build(&shape, MemoryFormat::ChannelsLast, |_: &mut [T]| {})?);
        let mut buffer = ConcatBuffer { maps, used: 0 };
        buffer.push(first)?;
        Ok(buffer)
    }

    /// Returns the current number of channels.
    pub(crate) fn channels(&self) -> usize {
        self.used
    }

    /// Returns the whole buffer; channels that have not been added yet have arbitrary values.
    pub(crate) fn maps(&self) -> &Tensor {
        &self.maps
    }

    /// Appends channels.
    ///
    /// # Errors
    /// [`Error::Shape`] when the other sizes differ or there is no room, [`Error::DType`] when the
    /// dtype differs.
    pub(crate) fn push(&mut self, new: &Tensor) -> Result<()> {
        let _op = operation(OP);
        let room = self.maps.shape()[1] - self.used;
        let (&[n, _, h, w], &[m, added, rows, columns]) = (self.maps.shape(), new.shape()) else {
            return Err(Error::shape(OP, format!("expected [N, C, H, W], got shape {:?}", new.shape())));
        };
        if [n, h, w] != [m, rows, columns] || added > room {
            let maps = self.maps.shape();
            return Err(Error::shape(OP, format!("maps of shape {:?} do not fit into the last {room} of {maps:?}", new.shape())));
        }
        new.expect_dtype(OP, self.maps.dtype())?;
        let new = new.to_format(MemoryFormat::ChannelsLast)?;
        let (pitch, used) = (self.maps.shape()[1], self.used);
        with_float!(new.dtype(), OP, T => {
            let maps = self.maps.data_mut::<T>().expect("the buffer is not shared");
            concat_buffer::put(maps, pitch, used, new.data(), added);
        });
        self.used += added;
        Ok(())
    }

    /// Computes `activation(norm(maps so far))`; the normalisation has as many channels as the
    /// maps, and their dtype.
    ///
    /// # Errors
    /// [`Error::DType`] unless the maps are floating point.
    pub(crate) fn normalised(&self, norm: &RunningNorm, activation: Activation) -> Result<Tensor> {
        let _op = operation("batch_norm");
        let &[n, pitch, h, w] = self.maps.shape() else { unreachable!("made with four dimensions") };
        let [scale, offset] = norm.factors()?;
        Ok(with_float!(self.maps.dtype(), OP, T => {
            Tensor::build(&[n, self.used, h, w], MemoryFormat::ChannelsLast, |y: &mut [T]| {
                concat_buffer::affine(self.maps.data(), pitch, [&scale, &offset], activation, y);
            })?
        }))
    }

    /// Returns the maps, once all channels have been added.
    pub(crate) fn finish(self) -> Tensor {
        debug_assert_eq!(self.used, self.maps.shape()[1]);
        self.maps
    }
}
