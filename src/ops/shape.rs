//! Operations that move elements or only name them anew.

use crate::error::{Error, Result};
use crate::kernels::elementwise::zip_broadcast;
use crate::tensor::shape::{broadcast, broadcast_shapes, resolve_dim, try_numel};
use crate::tensor::{Dim, MemoryFormat, ReshapeDims, Tensor, with_dtype};

impl Tensor {
    /// The same elements, in row-major order, under another shape; one size may be -1, to be worked out from the others.
    ///
    /// # Shape
    /// As asked; row-major. Elements are shared where the memory format allows, copied otherwise.
    ///
    /// # Errors
    /// [`Error::Shape`] when the numbers of elements differ.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// assert!(Tensor::zeros([2, 3, 4]).reshape([2, -1])?.shape() == [2, 12]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn reshape(&self, shape: impl ReshapeDims) -> Result<Tensor> {
        let shape = resolve_shape(self.shape(), &shape.sizes())?;
        let y = self.in_format(MemoryFormat::RowMajor).relabel(&shape, MemoryFormat::RowMajor);
        let x = self.shape().to_vec();
        Ok(y.record("reshape", [self], move |grad, _wanted| Ok([Some(grad.reshape(x.as_slice())?)])))
    }

    /// The dimensions `start` to `end`, both included, made one.
    ///
    /// # Shape
    /// `[N, C, H, W]` becomes `[N, C·H·W]` with `flatten(1, -1)`; row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] when a dimension does not exist or `end` comes before `start`.
    pub fn flatten(&self, start: impl Dim, end: impl Dim) -> Result<Tensor> {
        if self.ndim() == 0 {
            return self.reshape([1]);
        }
        let (start, end) = (resolve_dim("flatten", start, self.ndim())?, resolve_dim("flatten", end, self.ndim())?);
        if start > end {
            return Err(Error::argument("flatten", format!("dimension {start} comes after dimension {end}")));
        }
        let mut shape = self.shape().to_vec();
        let merged = shape[start..=end].iter().product();
        shape.splice(start..=end, [merged]);
        self.reshape(shape)
    }

    /// Repeats dimensions of size 1, and adds dimensions in front, until the tensor has this shape.
    ///
    /// # Errors
    /// [`Error::Shape`] when the tensor does not broadcast to it.
    pub fn expand(&self, shape: impl AsRef<[usize]>) -> Result<Tensor> {
        let shape = shape.as_ref();
        if broadcast_shapes("expand", self.shape(), shape)? != shape || try_numel(shape).is_none() {
            return Err(Error::shape("expand", format!("shape {:?} does not broadcast to {shape:?}", self.shape())));
        }
        if shape == self.shape() {
            return Ok(self.clone());
        }
        let format = if self.ndim() == 4 && shape.len() == 4 { self.memory_format() } else { MemoryFormat::RowMajor };
        let own = (self.shape(), self.memory_format());
        let y = with_dtype!(self.dtype(), T => Tensor::build(shape, format, |y: &mut [T]| {
            zip_broadcast(&broadcast(shape, format, [own, own]), self.data(), self.data(), y, 1, |x: T, _: T| x);
        }));
        Ok(y.record("expand", [self], |grad, _wanted| Ok([Some(grad.clone())])))
    }
}

/// Sizes with -1 replaced, for a tensor of shape `from`.
fn resolve_shape(from: &[usize], sizes: &[i128]) -> Result<Vec<usize>> {
    let fail = || Error::shape("reshape", format!("shape {from:?} does not reshape to {sizes:?}"));
    let total = try_numel(from).ok_or_else(fail)?;
    let known: Option<Vec<usize>> = sizes.iter().filter(|&&n| n != -1).map(|&n| usize::try_from(n).ok()).collect();
    let known = try_numel(&known.ok_or_else(fail)?).ok_or_else(fail)?;
    let free = sizes.iter().filter(|&&n| n == -1).count();
    let worked_out = match free {
        0 if known == total => 0,
        1 if known > 0 && total % known == 0 => total / known,
        _ => return Err(fail()),
    };
    Ok(sizes.iter().map(|&n| if n == -1 { worked_out } else { n as usize }).collect())
}
