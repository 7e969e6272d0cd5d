//! Local response normalisation, as in AlexNet.

use super::{as_map, from_map, grad_map};
use crate::error::{Error, Result};
use crate::kernels::norm::local_response::Response;
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::{Tensor, with_float};

impl Tensor {
    /// Computes local response normalisation across channels (Krizhevsky et al., 2012):
    /// `x / (k + alpha / size · Σ x²)^beta`. The sum runs over the `size` channels around each one,
    /// as far as they exist. As in PyTorch `alpha` is divided by `size`; in the paper it is not.
    ///
    /// # Shape
    /// `[N, C, L]` or `[N, C, H, W]` (or more dimensions). The result has the input's shape; it is
    /// channels-last in four dimensions, else row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] for fewer than three dimensions, [`Error::Argument`] for a size of 0,
    /// [`Error::DType`] unless floating point.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let y = Tensor::ones([1, 3, 1, 1]).local_response_norm(3, 3.0, 1.0, 1.0)?;
    /// assert_eq!(y.to_vec::<f32>()?, [1.0 / 3.0, 0.25, 1.0 / 3.0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn local_response_norm(&self, size: usize, alpha: f64, beta: f64, k: f64) -> Result<Tensor> {
        const OP: &str = "local_response_norm";
        let observed = operation(OP);
        observed.details(|| Details::new().int("size", size).float("alpha", alpha).float("beta", beta).float("k", k));
        self.expect_float(OP)?;
        if self.ndim() < 3 {
            return Err(Error::shape(OP, format!("expected [N, C, L] or [N, C, H, W], got shape {:?}", self.shape())));
        }
        if size == 0 {
            return Err(Error::argument(OP, "the size must not be zero"));
        }
        let response = Response { size, alpha, beta, k };
        let (x, maps) = as_map(self)?;
        let shape = self.shape().to_vec();
        with_float!(self.dtype(), OP, T => {
            let format = x.memory_format();
            let y = Tensor::build(x.shape(), format, |y: &mut [T]| response.forward(maps.channels, x.data(), y))?;
            Ok(from_map(y, &shape)?.record(OP, [self], move |grad, _wanted| {
                let grad = grad_map(grad, x.shape())?;
                let dx = Tensor::build(x.shape(), format, |dx: &mut [T]| response.backward(maps.channels, grad.data(), x.data(), dx))?;
                Ok([Some(from_map(dx, &shape)?)])
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryFormat;
    use crate::autograd::gradcheck;

    fn any(shape: &[usize]) -> Tensor {
        let count: usize = shape.iter().product();
        Tensor::from_vec((0..count).map(|i| (i * 7919 % 1013) as f64 / 300.0 - 1.0).collect(), shape).unwrap()
    }

    #[test]
    fn values_agree_with_the_formula_and_gradients_with_differences() {
        for shape in [vec![2, 5, 3], vec![2, 1, 2, 2], vec![1, 9, 2, 3]] {
            let (x, channels) = (any(&shape), shape[1]);
            let rest: usize = shape[2..].iter().product();
            let values = x.to_vec::<f64>().unwrap();
            for (size, beta) in [(1, 0.75), (2, 0.5), (5, 0.75), (4, 1.3), (12, 2.0)] {
                let (alpha, k) = (0.3, 1.5);
                let plain = |at: usize| {
                    let c = at / rest % channels;
                    let window = c.saturating_sub(size / 2)..channels.min(c + (size - 1) / 2 + 1);
                    let squares: f64 = window.map(|other| values[at - c * rest + other * rest].powi(2)).sum();
                    values[at] / (k + alpha / size as f64 * squares).powf(beta)
                };
                let y = x.local_response_norm(size, alpha, beta, k).unwrap();
                let expected = Tensor::from_vec((0..x.numel()).map(plain).collect(), x.shape()).unwrap();
                // A few roundings: sums of at most 9 terms, and roots.
                let agree = approx::abs_diff_eq!(y, expected, epsilon = 1e-13);
                assert!(agree, "{shape:?}, size {size}: {:?}", y.worst_difference(&expected));
                gradcheck(std::slice::from_ref(&x), Default::default(), |x| x[0].local_response_norm(size, alpha, beta, k)).unwrap();
            }
        }
        let last = any(&[2, 4, 2, 3]).to_format(MemoryFormat::ChannelsLast).unwrap();
        gradcheck(&[last], Default::default(), |x| x[0].local_response_norm(3, 0.3, 0.75, 1.0)).unwrap();
    }

    #[test]
    fn empty_inputs_are_allowed_and_errors_say_what_is_wrong() {
        for shape in [[0, 4, 3], [2, 0, 3], [2, 4, 0]] {
            assert_eq!(Tensor::zeros(shape).local_response_norm(5, 1e-4, 0.75, 1.0).unwrap().shape(), shape);
        }
        let message = |shape: &[usize], size| Tensor::zeros(shape).local_response_norm(size, 1e-4, 0.75, 1.0).unwrap_err().to_string();
        assert_eq!(message(&[2, 4], 5), "local_response_norm: expected [N, C, L] or [N, C, H, W], got shape [2, 4]");
        assert_eq!(message(&[2, 4, 3], 0), "local_response_norm: the size must not be zero");
        let bytes = Tensor::full([1, 2, 3], 1.0, crate::DType::U8).local_response_norm(5, 1e-4, 0.75, 1.0);
        assert_eq!(
            bytes.unwrap_err().to_string(),
            "local_response_norm: expected f32 or f64, got u8; convert with `.to_dtype(DType::F32)`"
        );
    }
}
