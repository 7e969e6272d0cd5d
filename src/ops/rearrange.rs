//! Rolling, repeating, triangles, one-hot vectors.

use crate::error::{Error, Result};
use crate::tensor::shape::{resolve_size, too_large, try_numel};
use crate::tensor::{DType, Dim, MemoryFormat, Tensor};

impl Tensor {
    /// Moves the elements along a dimension by `shift` places; those that leave at one end come in
    /// at the other.
    ///
    /// # Shape
    /// The input's.
    ///
    /// # Errors
    /// [`Error::Argument`] for a dimension that does not exist.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let x = Tensor::from_vec(vec![1i64, 2, 3, 4], [4])?;
    /// assert_eq!(x.roll(1, 0)?.to_vec::<i64>()?, [4, 1, 2, 3]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn roll(&self, shift: i64, dim: impl Dim) -> Result<Tensor> {
        let axis = resolve_size("roll", dim, self.shape())?;
        let size = self.shape()[axis];
        if size == 0 {
            return Ok(self.clone());
        }
        match shift.rem_euclid(size as i64) as usize {
            0 => Ok(self.clone()),
            shift => Tensor::cat(&[&self.narrow(axis, size - shift, shift)?, &self.narrow(axis, 0, size - shift)?], axis),
        }
    }

    /// Repeats the tensor along each dimension, as tiles; numbers in front add dimensions.
    ///
    /// # Shape
    /// The product of each size with its number of repeats.
    ///
    /// # Errors
    /// [`Error::Argument`] for fewer numbers than dimensions, [`Error::Shape`] when memory cannot
    /// hold the result.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let x = Tensor::from_vec(vec![1i64, 2], [2])?;
    /// assert_eq!(x.repeat([2, 2])?.to_vec::<i64>()?, [1, 2, 1, 2, 1, 2, 1, 2]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn repeat(&self, repeats: impl AsRef<[usize]>) -> Result<Tensor> {
        let repeats = repeats.as_ref();
        let Some(added) = repeats.len().checked_sub(self.ndim()) else {
            let message = format!("shape {:?} needs a number of repeats for each dimension, got {repeats:?}", self.shape());
            return Err(Error::argument("repeat", message));
        };
        let sizes: Vec<usize> = std::iter::repeat_n(1, added).chain(self.shape().iter().copied()).collect();
        let shape: Vec<usize> = sizes.iter().zip(repeats).map(|(size, count)| size.saturating_mul(*count)).collect();
        if try_numel(&shape).is_none() {
            return Err(too_large(&shape));
        }
        // Each dimension becomes two: the repeats and the elements.
        let apart: Vec<usize> = sizes.iter().flat_map(|&size| [1, size]).collect();
        let repeated: Vec<usize> = sizes.iter().zip(repeats).flat_map(|(&size, &count)| [count, size]).collect();
        self.reshape(apart)?.expand(repeated)?.reshape(shape)
    }

    /// Keeps the elements on and below a diagonal of each matrix, and sets the others to 0.
    /// Diagonal 0 is the main one, positive ones are above it.
    ///
    /// # Shape
    /// The input's, of at least two dimensions.
    ///
    /// # Errors
    /// [`Error::Shape`] for fewer than two dimensions.
    pub fn tril(&self, diagonal: i64) -> Result<Tensor> {
        self.triangle("tril", |row, column| column - row <= i128::from(diagonal))
    }

    /// Keeps the elements on and above a diagonal of each matrix, and sets the others to 0.
    /// Diagonal 0 is the main one, positive ones are above it.
    ///
    /// # Shape
    /// The input's, of at least two dimensions.
    ///
    /// # Errors
    /// [`Error::Shape`] for fewer than two dimensions.
    pub fn triu(&self, diagonal: i64) -> Result<Tensor> {
        self.triangle("triu", |row, column| column - row >= i128::from(diagonal))
    }

    fn triangle(&self, op: &'static str, keeps: impl Fn(i128, i128) -> bool) -> Result<Tensor> {
        let &[.., rows, columns] = self.shape() else {
            return Err(Error::shape(op, format!("expected a matrix or several, got shape {:?}", self.shape())));
        };
        if self.numel() == 0 {
            return Ok(self.clone());
        }
        let mask = Tensor::build(&[rows, columns], MemoryFormat::RowMajor, |mask: &mut [u8]| {
            for (at, kept) in mask.iter_mut().enumerate() {
                *kept = u8::from(keeps((at / columns) as i128, (at % columns) as i128));
            }
        })?;
        mask.where_(self, 0.0)
    }

    /// Returns a vector for each label that has 1 at the label's place and 0 elsewhere; i64, as
    /// PyTorch's.
    ///
    /// # Shape
    /// The input's with a last dimension of `classes`.
    ///
    /// # Errors
    /// [`Error::DType`] unless labels are `i64`, [`Error::Value`] for a label that is negative or
    /// not below `classes`.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let labels = Tensor::from_vec(vec![2i64, 0], [2])?;
    /// assert_eq!(labels.one_hot(3)?.to_vec::<i64>()?, [0, 0, 1, 1, 0, 0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn one_hot(&self, classes: usize) -> Result<Tensor> {
        let mut shape = self.shape().to_vec();
        shape.push(classes);
        if try_numel(&shape).is_none() {
            return Err(too_large(&shape));
        }
        let index = self.unsqueeze(-1)?;
        Tensor::try_full(&shape, 0.0, DType::I64)?.scatter(-1, &index, &Tensor::try_full(index.shape(), 1.0, DType::I64)?)
    }
}
