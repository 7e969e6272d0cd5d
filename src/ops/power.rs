//! Powers whose exponents are a tensor.

use crate::error::Result;
use crate::profiling::hooks::operation;
use crate::tensor::compute::{promote, zip_with};
use crate::tensor::{Tensor, with_float};

/// Computes `xᵖ` element by element.
pub(super) fn pow_by(x: &Tensor, exponent: &Tensor) -> Result<Tensor> {
    const NAME: &str = "pow_by";
    let _op = operation(NAME);
    let dtype = promote(x, exponent);
    let (base, power) = (x.cast(dtype)?.detach(), exponent.cast(dtype)?.detach());
    let y = with_float!(dtype, NAME, T => zip_with(NAME, &base, &power, 64, |x: T, p: T| x.powf(p))?);
    let result = y.detach();
    Ok(y.record(NAME, [x, exponent], move |grad, wanted| {
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
