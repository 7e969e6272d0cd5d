//! Functions that make tensors.

use rand::rngs::ChaCha8Rng;

use super::shape::try_numel;
use super::storage::Storage;
use super::{DType, Element, MemoryFormat, Tensor, rng, with_dtype};
use crate::error::{Error, Result};

impl Tensor {
    /// Makes a tensor of zeros, `f32`.
    ///
    /// # Panics
    /// When memory cannot hold the tensor, or its shape has more elements than can be addressed,
    /// where a size of 0 counts as 1. The same applies to all functions that return a tensor and no
    /// `Result`.
    #[track_caller]
    pub fn zeros(shape: impl AsRef<[usize]>) -> Tensor {
        Tensor::full(shape, 0.0, DType::F32)
    }

    /// Makes a tensor of ones, `f32`.
    #[track_caller]
    pub fn ones(shape: impl AsRef<[usize]>) -> Tensor {
        Tensor::full(shape, 1.0, DType::F32)
    }

    /// Makes a tensor with one value everywhere, rounded towards zero for integer types.
    #[track_caller]
    pub fn full(shape: impl AsRef<[usize]>, value: f64, dtype: DType) -> Tensor {
        or_panic(Tensor::try_full(shape, value, dtype))
    }

    /// Makes a tensor as [`full`](Tensor::full) does, with an error when memory cannot hold it.
    pub(crate) fn try_full(shape: impl AsRef<[usize]>, value: f64, dtype: DType) -> Result<Tensor> {
        with_dtype!(dtype, T => Tensor::build(shape.as_ref(), MemoryFormat::RowMajor, |out: &mut [T]| out.fill(value as T)))
    }

    /// Makes zeros with this tensor's shape, dtype and memory format.
    #[track_caller]
    pub fn zeros_like(&self) -> Tensor {
        self.full_like(0.0)
    }

    /// Makes ones with this tensor's shape, dtype and memory format.
    #[track_caller]
    pub fn ones_like(&self) -> Tensor {
        self.full_like(1.0)
    }

    /// Makes a tensor of one value with this tensor's shape, dtype and memory format.
    #[track_caller]
    pub fn full_like(&self, value: f64) -> Tensor {
        or_panic(self.try_full_like(value))
    }

    /// Makes a tensor as [`full_like`](Tensor::full_like) does, with an error when memory cannot
    /// hold it.
    pub(crate) fn try_full_like(&self, value: f64) -> Result<Tensor> {
        with_dtype!(self.dtype(), T => Tensor::build(self.shape(), self.format, |out: &mut [T]| out.fill(value as T)))
    }

    /// Makes the identity matrix `[n, n]`, `f32`.
    #[track_caller]
    pub fn eye(n: usize) -> Tensor {
        or_panic(Tensor::build(&[n, n], MemoryFormat::RowMajor, |out: &mut [f32]| {
            out.fill(0.0);
            out.iter_mut().step_by(n + 1).for_each(|x| *x = 1.0);
        }))
    }

    /// Makes the numbers `0, 1, …, n - 1` as `i64`, shape `[n]`.
    #[track_caller]
    pub fn arange(n: usize) -> Tensor {
        or_panic(Tensor::build(&[n], MemoryFormat::RowMajor, |out: &mut [i64]| {
            out.iter_mut().zip(0..).for_each(|(x, i)| *x = i);
        }))
    }

    /// Makes `n` numbers evenly spaced from `start` to `end`, both included, `f32`.
    #[track_caller]
    pub fn linspace(start: f64, end: f64, n: usize) -> Tensor {
        let step = if n > 1 { (end - start) / (n - 1) as f64 } else { 0.0 };
        or_panic(Tensor::build(&[n], MemoryFormat::RowMajor, |out: &mut [f32]| {
            out.iter_mut().enumerate().for_each(|(i, x)| *x = (start + step * i as f64) as f32);
        }))
    }

    /// Draws standard normal numbers from this thread's generator, `f32`; see
    /// [`manual_seed`](crate::manual_seed).
    #[track_caller]
    pub fn randn(shape: impl AsRef<[usize]>) -> Tensor {
        Tensor::random(shape.as_ref(), rng::fill_normal)
    }

    /// Draws numbers uniform in `[0, 1)` from this thread's generator, `f32`.
    #[track_caller]
    pub fn rand(shape: impl AsRef<[usize]>) -> Tensor {
        Tensor::random(shape.as_ref(), |generator, out| {
            rng::fill_uniform(generator, out);
            // Rounding to f32 may reach 1.
            out.iter_mut().for_each(|x| *x = x.min(f64::from(1.0 - f32::EPSILON / 2.0)));
        })
    }

    /// Draws integers uniform in `0..bound` from this thread's generator, `i64`.
    ///
    /// # Panics
    /// When `bound` is not positive.
    #[track_caller]
    pub fn randint(bound: i64, shape: impl AsRef<[usize]>) -> Tensor {
        assert!(bound > 0, "randint: the bound must be at least 1, got {bound}");
        or_panic(Tensor::build(shape.as_ref(), MemoryFormat::RowMajor, |out: &mut [i64]| {
            rng::with_generator(|generator| out.iter_mut().for_each(|x| *x = rng::below(generator, bound as u64) as i64));
        }))
    }

    #[track_caller]
    fn random(shape: &[usize], fill: fn(&mut ChaCha8Rng, &mut [f64])) -> Tensor {
        let mut buffer = [0.0; 256];
        or_panic(Tensor::build(shape, MemoryFormat::RowMajor, |out: &mut [f32]| {
            rng::with_generator(|generator| {
                for out in out.chunks_mut(buffer.len()) {
                    fill(generator, &mut buffer[..out.len()]);
                    out.iter_mut().zip(&buffer).for_each(|(x, &value)| *x = value as f32);
                }
            });
        }))
    }

    /// Makes a tensor of a vector's elements, in row-major order, without copying them.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shape has another number of elements.
    ///
    /// ```
    /// use convnet::{DType, Tensor};
    ///
    /// let t = Tensor::from_vec(vec![1.0f64, 2.0], [2])?;
    /// assert_eq!(t.dtype(), DType::F64);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn from_vec<T: Element>(data: Vec<T>, shape: impl AsRef<[usize]>) -> Result<Tensor> {
        let shape = shape.as_ref();
        if try_numel(shape) != Some(data.len()) {
            return Err(Error::shape("from_vec", format!("shape {shape:?} does not hold {} elements", data.len())));
        }
        Ok(Tensor::from_storage(Storage::Owned(T::adopt(data)), shape, T::DTYPE, MemoryFormat::RowMajor))
    }

    /// Makes a tensor by copying a slice, in row-major order.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shape has another number of elements.
    pub fn from_slice<T: Element>(data: &[T], shape: impl AsRef<[usize]>) -> Result<Tensor> {
        let shape = shape.as_ref();
        if try_numel(shape) != Some(data.len()) {
            return Err(Error::shape("from_slice", format!("shape {shape:?} does not hold {} elements", data.len())));
        }
        Tensor::build(shape, MemoryFormat::RowMajor, |out: &mut [T]| out.copy_from_slice(data))
    }

    /// Makes a tensor of one value, shape `[]`.
    #[track_caller]
    pub fn scalar<T: Element>(value: T) -> Tensor {
        or_panic(Tensor::build(&[], MemoryFormat::RowMajor, |out: &mut [T]| out[0] = value))
    }
}

/// Returns the tensor that was built.
///
/// # Panics
/// When memory cannot hold the tensor; for functions that return no `Result`.
#[track_caller]
pub(crate) fn or_panic(built: Result<Tensor>) -> Tensor {
    // Not `unwrap_or_else`: the panic would name the closure's line, not the caller's.
    match built {
        Ok(tensor) => tensor,
        Err(error) => panic!("{error}"),
    }
}
