//! Activation functions.

use crate::error::Result;
use crate::kernels::elementwise::{Binary, Unary};
use crate::kernels::simd::Real;
use crate::tensor::compute::{map, map_with, zip, zip_with};
use crate::tensor::{Tensor, with_dtype};

impl Tensor {
    /// Rectifier: `x` where `x > 0`, else 0 (Nair and Hinton, 2010). NaN stays NaN.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    pub fn relu(&self) -> Tensor {
        let y = with_dtype!(self.dtype(), T => map_with(self, 1, |x: T| if x < T::default() { T::default() } else { x }));
        let kept = self.is_recorded().then(|| y.detach());
        y.record("relu", [self], move |grad, _wanted| {
            let y = kept.as_ref().expect("kept when recorded");
            Ok([Some(with_dtype!(y.dtype(), T => {
                zip_with("relu", grad, y, 1, |g: T, y: T| if y > T::default() { g } else { T::default() })?
            }))])
        })
    }

    /// Leaky rectifier: `x` where `x > 0`, else `slope · x` (Maas et al., 2013).
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`](crate::Error::DType) unless the tensor is floating point.
    pub fn leaky_relu(&self, slope: f64) -> Result<Tensor> {
        let y = map("leaky_relu", self, LeakyRelu { slope })?;
        let x = self.detach();
        Ok(y.record("leaky_relu", [self], move |grad, _wanted| Ok([Some(zip("leaky_relu", grad, &x, LeakyReluGrad { slope })?)])))
    }

    /// Hyperbolic tangent.
    ///
    /// # Shape
    /// Any; the result has the input's shape, dtype and memory format.
    ///
    /// # Errors
    /// [`Error::DType`](crate::Error::DType) unless the tensor is floating point.
    pub fn tanh(&self) -> Result<Tensor> {
        let y = map("tanh", self, Tanh)?;
        let kept = y.detach();
        Ok(y.record("tanh", [self], move |grad, _wanted| Ok([Some(zip("tanh", grad, &kept, TanhGrad)?)])))
    }
}

#[derive(Clone, Copy)]
struct LeakyRelu {
    slope: f64,
}

impl Unary for LeakyRelu {
    #[inline(always)]
    fn apply<T: Real>(self, x: T) -> T {
        if x > T::zero() { x } else { T::of(self.slope) * x }
    }
}

#[derive(Clone, Copy)]
struct LeakyReluGrad {
    slope: f64,
}

impl Binary for LeakyReluGrad {
    #[inline(always)]
    fn apply<T: Real>(self, grad: T, x: T) -> T {
        if x > T::zero() { grad } else { T::of(self.slope) * grad }
    }
}

#[derive(Clone, Copy)]
struct Tanh;

impl Unary for Tanh {
    const COST: usize = 16;

    #[inline(always)]
    fn apply<T: Real>(self, x: T) -> T {
        x.tanh()
    }
}

#[derive(Clone, Copy)]
struct TanhGrad;

impl Binary for TanhGrad {
    #[inline(always)]
    fn apply<T: Real>(self, grad: T, y: T) -> T {
        grad * (T::one() - y * y)
    }
}
