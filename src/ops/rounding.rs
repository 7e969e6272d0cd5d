//! Functions of one element beyond the elementary ones: rounding, the sign, and `log1p`, `rsqrt`,
//! `erf`, `tan`, `atan`.

use crate::error::Result;
use crate::kernels::runtime::simd::Real;
use crate::ops::pointwise::{Pointwise, pointwise};
use crate::tensor::Tensor;

/// Defines a method for each function of one element.
macro_rules! functions {
    ($($(#[$doc:meta])* $method:ident: $function:ident;)*) => {
        impl Tensor {$(
            $(#[$doc])*
            ///
            /// # Shape
            /// Any; the result has the input's shape, dtype and memory format.
            ///
            /// # Errors
            /// [`Error::DType`](crate::Error::DType) unless the tensor is floating point.
            pub fn $method(&self) -> Result<Tensor> {
                pointwise(self, $function)
            }
        )*}
    };
}
functions! {
    /// Computes `ln(1 + x)`, exactly also where `x` is small.
    log1p: Log1p;
    /// Computes `1 / √x`: infinite at 0, NaN below.
    rsqrt: Rsqrt;
    /// Computes the error function, `2/√π ∫₀ˣ e^(-t²) dt`.
    erf: Erf;
    /// Computes the tangent of an angle in radians.
    tan: Tan;
    /// Computes the angle in radians, from -π/2 to π/2, whose tangent is `x`.
    atan: Atan;
    /// Returns -1, 0 or 1 by the sign of `x`. The gradient is 0.
    sign: Sign;
    /// Rounds down to a whole number. The gradient is 0.
    floor: Floor;
    /// Rounds up to a whole number. The gradient is 0.
    ceil: Ceil;
    /// Rounds to the nearest whole number, and to the even one half-way between two. The gradient
    /// is 0.
    round: Round;
    /// Rounds towards 0 to a whole number. The gradient is 0.
    trunc: Trunc;
}

#[derive(Clone, Copy)]
struct Log1p;

impl Pointwise for Log1p {
    const NAME: &'static str = "log1p";
    const COST: usize = 32;

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x.ln_1p()
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        grad / (T::one() + x)
    }
}

#[derive(Clone, Copy)]
struct Rsqrt;

impl Pointwise for Rsqrt {
    const NAME: &'static str = "rsqrt";
    const COST: usize = 4;
    const FROM_OUTPUT: bool = true;

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        T::one() / x.sqrt()
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, y: T) -> T {
        T::of(-0.5) * grad * y * y * y
    }
}

#[derive(Clone, Copy)]
struct Erf;

impl Pointwise for Erf {
    const NAME: &'static str = "erf";
    const COST: usize = 32;

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x.error_function()
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        grad * T::of(std::f64::consts::FRAC_2_SQRT_PI) * (-x * x).exp_fast()
    }
}

#[derive(Clone, Copy)]
struct Tan;

impl Pointwise for Tan {
    const NAME: &'static str = "tan";
    const COST: usize = 32;
    const FROM_OUTPUT: bool = true;

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x.tan()
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, y: T) -> T {
        grad * (T::one() + y * y)
    }
}

#[derive(Clone, Copy)]
struct Atan;

impl Pointwise for Atan {
    const NAME: &'static str = "atan";
    const COST: usize = 32;

    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x.atan()
    }
    #[inline(always)]
    fn gradient<T: Real>(self, grad: T, x: T) -> T {
        grad / (T::one() + x * x)
    }
}

/// Defines functions that are constant between jumps.
macro_rules! steps {
    ($($function:ident $name:literal: |$x:ident| $value:expr;)*) => {$(
        #[derive(Clone, Copy)]
        struct $function;

        impl Pointwise for $function {
            const NAME: &'static str = $name;
            const IS_STEP: bool = true;

            #[inline(always)]
            fn value<T: Real>(self, $x: T) -> T {
                $value
            }
            #[inline(always)]
            fn gradient<T: Real>(self, _: T, _: T) -> T {
                T::zero()
            }
        }
    )*};
}
steps! {
    Floor "floor": |x| x.floor();
    Ceil "ceil": |x| x.ceil();
    Trunc "trunc": |x| x.trunc();
    Round "round": |x| if (x - x.trunc()).abs() == T::of(0.5) { T::of(2.0) * (x / T::of(2.0)).round() } else { x.round() };
    Sign "sign": |x| {
        let below = if x < T::zero() { -T::one() } else { T::zero() };
        if x > T::zero() { T::one() } else { below }
    };
}
