//! Matrix products.

use crate::error::{Error, Result};
use crate::kernels::gemm::{Layout, gemm, gemm_transposed};
use crate::tensor::compute::same_dtype;
use crate::tensor::{MemoryFormat, Tensor, with_float};

/// `[m, k] · [k, n]`, or `[m, k] · [n, k]ᵀ`, plus a bias `[n]`; without history.
fn product(op: &'static str, a: &Tensor, b: &Tensor, b_layout: Layout, bias: Option<&Tensor>) -> Result<Tensor> {
    let (m, k) = (a.shape()[0], a.shape()[1]);
    let n = b.shape()[if b_layout == Layout::Plain { 1 } else { 0 }];
    Ok(with_float!(a.dtype(), op, T => Tensor::build(&[m, n], MemoryFormat::RowMajor, |c: &mut [T]| {
        gemm([m, n, k], a.data(), b.data(), b_layout, bias.map(|bias| bias.data()), c);
    })))
}

/// `[m, k]ᵀ · [m, n]`, without history.
fn product_transposed(op: &'static str, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (m, k, n) = (a.shape()[0], a.shape()[1], b.shape()[1]);
    Ok(with_float!(a.dtype(), op, T => Tensor::build(&[k, n], MemoryFormat::RowMajor, |c: &mut [T]| {
        gemm_transposed([k, n, m], a.data(), b.data(), c);
    })))
}

impl Tensor {
    /// The matrix product.
    ///
    /// # Shape
    /// `[M, K] · [K, N]` gives `[M, N]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the inner sizes differ, [`Error::DType`] unless both have the same floating-point type.
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor> {
        self.expect_float("matmul")?;
        same_dtype("matmul", self, other)?;
        match (self.shape(), other.shape()) {
            (&[_, k], &[inner, _]) if k == inner => {}
            (a, b) => return Err(Error::shape("matmul", format!("cannot multiply {a:?} by {b:?}"))),
        }
        let y = product("matmul", self, other, Layout::Plain, None)?;
        let (a, b) = (other.is_recorded().then(|| self.detach()), self.is_recorded().then(|| other.detach()));
        Ok(y.record("matmul", [self, other], move |grad, _wanted| {
            let of_a = b.as_ref().map(|b| product("matmul", grad, b, Layout::Transposed, None)).transpose()?;
            let of_b = a.as_ref().map(|a| product_transposed("matmul", a, grad)).transpose()?;
            Ok([of_a, of_b])
        }))
    }

    /// A dense layer: `x · weightᵀ + bias`.
    ///
    /// # Shape
    /// `[N, in]` with a weight `[out, in]` and a bias `[out]` gives `[N, out]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the sizes do not fit, [`Error::DType`] unless all have the same floating-point type.
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        self.expect_float("linear")?;
        same_dtype("linear", self, weight)?;
        bias.map_or(Ok(()), |bias| same_dtype("linear", self, bias))?;
        let &[features_out, features_in] = weight.shape() else {
            return Err(Error::shape("linear", format!("expected a weight [out, in], got shape {:?}", weight.shape())));
        };
        if self.ndim() != 2 || self.shape()[1] != features_in {
            return Err(Error::shape("linear", format!("expected input [N, {features_in}], got shape {:?}", self.shape())));
        }
        if let Some(bias) = bias.filter(|bias| bias.shape() != [features_out]) {
            return Err(Error::shape("linear", format!("expected a bias [{features_out}], got shape {:?}", bias.shape())));
        }
        let y = product("linear", self, weight, Layout::Transposed, bias)?;
        let (x, w) = (weight.is_recorded().then(|| self.detach()), self.is_recorded().then(|| weight.detach()));
        let none = Tensor::scalar(0u8);
        Ok(y.record("linear", [self, weight, bias.unwrap_or(&none)], move |grad, wanted| {
            let of_x = w.as_ref().map(|w| product("linear", grad, w, Layout::Plain, None)).transpose()?;
            let of_w = x.as_ref().map(|x| product_transposed("linear", grad, x)).transpose()?;
            let of_bias = if wanted[2] { Some(grad.sum(0)?) } else { None };
            Ok([of_x, of_w, of_bias])
        }))
    }
}
