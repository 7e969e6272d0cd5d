//! Powers whose exponents are a tensor.

use crate::error::Result;
use crate::profiling::hooks::operation;
use crate::tensor::compute::{promote, zip_with};
use crate::tensor::{Tensor, with_float};

impl Tensor {
    /// Raises each element to the power of another tensor's element.
    ///
    /// # Shape
    /// The common shape of both, broadcast as NumPy does; dtypes promote first.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when the shapes do not broadcast,
    /// [`Error::DType`](crate::Error::DType) unless the result is floating point.
    pub fn pow_by(&self, exponent: &Tensor) -> Result<Tensor> {
        const NAME: &str = "pow_by";
        let _op = operation(NAME);
        let dtype = promote(self, exponent);
        let (base, power) = (self.cast(dtype)?.detach(), exponent.cast(dtype)?.detach());
        let y = with_float!(dtype, NAME, T => zip_with(NAME, &base, &power, 64, |x: T, p: T| x.powf(p))?);
        let result = y.detach();
        Ok(y.record(NAME, [self, exponent], move |grad, wanted| {
            with_float!(grad.dtype(), NAME, T => {
                // The function is constant in x where p is 0, and in p where x is 0 and p positive.
                let of_base = || {
                    let slope = zip_with(NAME, &base, &power, 64, |x: T, p: T| if p == 0.0 { 0.0 } else { p * x.powf(p - 1.0) })?;
                    slope.mul(grad)
                };
                let of_power = || {
                    let logarithm = zip_with(NAME, &base, &power, 64, |x: T, p: T| if x == 0.0 && p >= 0.0 { 0.0 } else { x.ln() })?;
                    logarithm.mul(&result)?.mul(grad)
                };
                Ok([wanted[0].then(of_base).transpose()?, wanted[1].then(of_power).transpose()?])
            })
        }))
    }
}
