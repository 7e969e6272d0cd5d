//! Max pooling with the positions of its maxima, and its partial inverse.

use super::Pool2dOptions;
use crate::error::{Error, Result};
use crate::ops::batch::batched;
use crate::profiling::hooks::operation;
use crate::tensor::{DType, Pair, Tensor};

impl Tensor {
    /// Computes [`max_pool2d`](Tensor::max_pool2d) and the positions of the maxima, `row · W +
    /// column` in the map of their channel (PyTorch's `return_indices`). Of equal elements the
    /// first one in row-major order counts.
    ///
    /// # Shape
    /// Both results have the shape and the memory format of `max_pool2d`'s; the positions are i64.
    ///
    /// # Errors
    /// As [`max_pool2d`](Tensor::max_pool2d).
    ///
    /// ```
    /// use convnet::{Tensor, ops::Pool2dOptions};
    ///
    /// let x = Tensor::from_vec(vec![1.0f32, 2.0, 0.0, 5.0, 4.0, 3.0, 0.0, 6.0], [1, 2, 4])?;
    /// let (y, positions) = x.max_pool2d_with_indices(2, Pool2dOptions::new())?;
    /// assert_eq!(y.to_vec::<f32>()?, [4.0, 6.0]);
    /// assert_eq!(positions.to_vec::<i64>()?, [4, 7]);
    /// assert_eq!(y.max_unpool2d(&positions, [2, 4])?.to_vec::<f32>()?, [0.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 6.0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn max_pool2d_with_indices(&self, kernel: impl Into<Pair>, options: Pool2dOptions) -> Result<(Tensor, Tensor)> {
        self.pool_with_indices(kernel.into().0, options)
    }

    fn pool_with_indices(&self, kernel: [usize; 2], options: Pool2dOptions) -> Result<(Tensor, Tensor)> {
        let mut found = None;
        let y = batched(self, 4, |x| {
            let observed = operation("max_pool2d_with_indices");
            observed.details(|| options.details(kernel));
            let (y, positions) = x.max_windows(kernel, options, true)?;
            let positions = positions.expect("asked for");
            observed.result(&[x], &[&y, &positions]);
            found = Some(positions);
            Ok(y)
        })?;
        let positions = found.expect("computed with the maxima");
        let positions = if self.ndim() == 3 { positions.squeeze(0)? } else { positions };
        Ok((y, positions))
    }

    /// Puts the maxima of a [max pooling](Tensor::max_pool2d_with_indices) back to their positions
    /// in maps of the given height and width, which are 0 elsewhere (Zeiler and Fergus, 2014;
    /// PyTorch's `max_unpool2d`, whose size without `output_size` is `(H − 1)·stride − 2·padding +
    /// kernel`). Where windows overlap, an element may be put there several times; then the last
    /// one counts.
    ///
    /// # Shape
    /// `[N, C, H, W]` with positions of the same shape, i64, gives `[N, C, outH, outW]`, and
    /// `[C, H, W]` gives `[C, outH, outW]`; row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of dimensions and for positions of another shape,
    /// [`Error::Value`] for a position outside of the map, [`Error::DType`] unless the tensor is
    /// floating point and the positions are i64.
    pub fn max_unpool2d(&self, positions: &Tensor, output: impl Into<Pair>) -> Result<Tensor> {
        self.unpool(positions, output.into().0)
    }

    fn unpool(&self, positions: &Tensor, [height, width]: [usize; 2]) -> Result<Tensor> {
        const OP: &str = "max_unpool2d";
        self.expect_float(OP)?;
        positions.expect_dtype(OP, DType::I64)?;
        let (outer, [h, w]) = match self.shape() {
            [outer @ .., h, w] if matches!(outer.len(), 1 | 2) => (outer, [h, w]),
            other => return Err(Error::shape(OP, format!("expected [N, C, H, W] or [C, H, W], got shape {other:?}"))),
        };
        if positions.shape() != self.shape() {
            let message = format!("positions of shape {:?} do not fit maxima of shape {:?}", positions.shape(), self.shape());
            return Err(Error::shape(OP, message));
        }
        let too_large = || Error::shape(OP, format!("maps of {height}×{width} have more elements than memory can hold"));
        let size = height.checked_mul(width).ok_or_else(too_large)?;
        // The planes of all channels in rows.
        let planes = |length: usize| [outer, &[length]].concat();
        let maxima = self.reshape(planes(h * w))?;
        let maps = Tensor::try_full(planes(size), 0.0, self.dtype())?;
        maps.scatter(-1, &positions.reshape(planes(h * w))?, &maxima)?.reshape([outer, &[height, width]].concat())
    }
}
