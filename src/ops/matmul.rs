//! Matrix products.

use crate::error::{Error, Result};
use crate::kernels::gemm::{Layout, gemm, gemm_transposed};
use crate::kernels::runtime::parallel;
use crate::kernels::runtime::simd::Real;
use crate::profiling::hooks::{multiply_adds, operation};
use crate::tensor::compute::like_input;
use crate::tensor::shape::{broadcast_shapes, numel, strides, try_numel};
use crate::tensor::{MemoryFormat, Tensor, with_float};

/// Reports the number of multiply-adds of a product of these sizes to the profiler.
fn count(sizes: [usize; 3]) {
    multiply_adds(|| sizes.iter().fold(1, |count: u64, &size| count.saturating_mul(size as u64)));
}

/// Computes `[m, k] · [k, n]`, or `[m, k] · [n, k]ᵀ`, plus a bias `[n]`; without history.
fn product(op: &'static str, a: &Tensor, b: &Tensor, b_layout: Layout, bias: Option<&Tensor>) -> Result<Tensor> {
    let (m, k) = (a.shape()[0], a.shape()[1]);
    let n = b.shape()[if b_layout == Layout::Plain { 1 } else { 0 }];
    if try_numel(&[m, n]).is_none() {
        return Err(Error::shape(op, format!("a product of shape {:?} has more elements than memory can hold", [m, n])));
    }
    count([m, n, k]);
    Ok(with_float!(a.dtype(), op, T => Tensor::build(&[m, n], MemoryFormat::RowMajor, |c: &mut [T]| {
        gemm([m, n, k], a.data(), b.data(), b_layout, bias.map(|bias| bias.data()), c);
    })?))
}

/// Computes `[m, k]ᵀ · [m, n]`, without history.
fn product_transposed(op: &'static str, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (m, k, n) = (a.shape()[0], a.shape()[1], b.shape()[1]);
    count([m, n, k]);
    Ok(with_float!(a.dtype(), op, T => Tensor::build(&[k, n], MemoryFormat::RowMajor, |c: &mut [T]| {
        gemm_transposed([k, n, m], a.data(), b.data(), c);
    })?))
}

/// Splits a shape into the dimensions before the last two, and these two.
fn split(shape: &[usize]) -> (&[usize], [usize; 2]) {
    let (batch, matrix) = shape.split_at(shape.len() - 2);
    (batch, [matrix[0], matrix[1]])
}

/// Returns, for each index into `batch`, the index of the matrix that broadcasting selects from the
/// batch of shape `own`.
fn repeats(own: &[usize], batch: &[usize]) -> Vec<usize> {
    let mut matrices = vec![0];
    let mut matrix = strides(own, MemoryFormat::RowMajor);
    (0..own.len()).filter(|&axis| own[axis] == 1).for_each(|axis| matrix[axis] = 0);
    for (axis, &size) in batch.iter().enumerate() {
        let step = (axis + own.len()).checked_sub(batch.len()).map_or(0, |axis| matrix[axis]);
        let outer = std::mem::take(&mut matrices);
        for first in outer {
            matrices.extend((0..size).map(|i| first + i * step));
        }
    }
    matrices
}

/// Computes products of matrices `[batch.., _, _]`, both broadcast to `batch`. Each product is
/// `[m, n]`, and its sums have `k` terms.
fn batched(op: &'static str, batch: &[usize], [m, n, k]: [usize; 3], [a, b]: [&Tensor; 2], transpose: Transpose) -> Result<Tensor> {
    let shape = [batch, &[m, n]].concat();
    if try_numel(&shape).is_none() {
        return Err(Error::shape(op, format!("a product of shape {shape:?} has more elements than memory can hold")));
    }
    if numel(&shape) == 0 {
        return Ok(with_float!(a.dtype(), op, T => Tensor::build(&shape, MemoryFormat::RowMajor, |_: &mut [T]| {})?));
    }
    count([numel(batch), m * n, k]);
    let (a, b) = (a.to_format(MemoryFormat::RowMajor)?, b.to_format(MemoryFormat::RowMajor)?);
    let ((a_batch, [a_rows, a_columns]), (b_batch, [b_rows, b_columns])) = (split(a.shape()), split(b.shape()));
    let (a_at, b_at) = (repeats(a_batch, batch), repeats(b_batch, batch));
    let work = a_at.len().saturating_mul(2 * m * n * k);
    Ok(with_float!(a.dtype(), op, T => Tensor::build(&shape, MemoryFormat::RowMajor, |c: &mut [T]| {
        let (a, b) = (a.data::<T>(), b.data::<T>());
        parallel::chunks_mut(c, m * n, work, |i, c| {
            let (a_size, b_size) = (a_rows * a_columns, b_rows * b_columns);
            transpose.product([m, n, k], &a[a_at[i] * a_size..][..a_size], &b[b_at[i] * b_size..][..b_size], c);
        });
    })?))
}

/// Which of two matrices is read transposed, if any.
#[derive(Clone, Copy)]
enum Transpose {
    Neither,
    First,
    Second,
}

impl Transpose {
    fn product<T: Real>(self, [m, n, k]: [usize; 3], a: &[T], b: &[T], c: &mut [T]) {
        match self {
            Transpose::Neither => gemm([m, n, k], a, b, Layout::Plain, None, c),
            Transpose::First => gemm_transposed([m, n, k], a, b, c),
            Transpose::Second => gemm([m, n, k], a, b, Layout::Transposed, None, c),
        }
    }
}

impl Tensor {
    /// Computes the matrix product (`torch.matmul`).
    ///
    /// # Shape
    /// `[M, K] · [K, N]` gives `[M, N]`. Any dimensions before these are a batch,
    /// `[.., M, K] · [.., K, N]`, and broadcast as NumPy does. A vector is one row on the left and
    /// one column on the right, and adds no dimension to the result: `[K] · [K]` gives `[]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the inner sizes differ, batches do not broadcast, or an operand has no
    /// dimension; [`Error::DType`] unless both have the same floating-point type.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let y = Tensor::ones([5, 1, 2, 3]).matmul(&Tensor::ones([4, 3, 6]))?;
    /// assert!(y.shape() == [5, 4, 2, 6]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor> {
        let observed = operation("matmul");
        self.expect_float("matmul")?;
        like_input("matmul", self, "other factor", other)?;
        let fail = || Error::shape("matmul", format!("cannot multiply {:?} by {:?}", self.shape(), other.shape()));
        let (&[.., k], right) = (self.shape(), other.shape()) else { return Err(fail()) };
        let inner = if right.len() < 2 { right.first() } else { right.get(right.len() - 2) };
        if inner != Some(&k) {
            return Err(fail());
        }
        // Vectors become matrices; the dimension that this adds is removed at the end.
        let a = if self.ndim() == 1 { self.reshape([1, k])? } else { self.clone() };
        let b = if other.ndim() == 1 { other.reshape([k, 1])? } else { other.clone() };
        let ((a_batch, [m, _]), (b_batch, [_, n])) = (split(a.shape()), split(b.shape()));
        let batch = broadcast_shapes("matmul", a_batch, b_batch)?;
        let mut shape = batch.clone();
        shape.extend((self.ndim() > 1).then_some(m));
        shape.extend((other.ndim() > 1).then_some(n));
        let y = if b.ndim() == 2 {
            // With one matrix on the right, the batch only adds rows.
            let rows = try_numel(&a.shape()[..a.ndim() - 1]).ok_or_else(fail)?;
            matmul_2d(&if a.ndim() == 2 { a } else { a.reshape([rows, k])? }, &b)?
        } else {
            matmul_batched(&a, &b, &batch, [m, n, k])?
        };
        let y = if y.shape() == shape { y } else { y.reshape(shape)? };
        observed.result(&[self, other], &[&y]);
        Ok(y)
    }

    /// Applies a dense layer: `x · weightᵀ + bias` (`torch.nn.functional.linear`).
    ///
    /// # Shape
    /// `[.., in]` with a weight `[out, in]` and a bias `[out]` gives `[.., out]`, row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] when the sizes do not fit, [`Error::DType`] unless all are floating point,
    /// [`Error::MixedDTypes`] unless they have the same type.
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let observed = operation("linear");
        self.expect_float("linear")?;
        like_input("linear", self, "weight", weight)?;
        bias.map_or(Ok(()), |bias| like_input("linear", self, "bias", bias))?;
        let &[features_out, features_in] = weight.shape() else {
            return Err(Error::shape("linear", format!("expected a weight [out, in], got shape {:?}", weight.shape())));
        };
        if self.shape().last() != Some(&features_in) {
            return Err(Error::shape("linear", format!("expected input [.., {features_in}], got shape {:?}", self.shape())));
        }
        if let Some(bias) = bias.filter(|bias| bias.shape() != [features_out]) {
            return Err(Error::shape("linear", format!("expected a bias [{features_out}], got shape {:?}", bias.shape())));
        }
        let leading = &self.shape()[..self.ndim() - 1];
        if self.ndim() != 2 {
            let fail = || Error::shape("linear", format!("the result of {:?} has more elements than memory can hold", self.shape()));
            let rows = try_numel(leading).ok_or_else(fail)?;
            let y = self.reshape([rows, features_in])?.linear(weight, bias)?.reshape([leading, &[features_out]].concat())?;
            match bias {
                Some(bias) => observed.result(&[self, weight, bias], &[&y]),
                None => observed.result(&[self, weight], &[&y]),
            }
            return Ok(y);
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

/// Computes `[m, k] · [k, n]`.
fn matmul_2d(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let y = product("matmul", a, b, Layout::Plain, None)?;
    let (kept_a, kept_b) = (b.is_recorded().then(|| a.detach()), a.is_recorded().then(|| b.detach()));
    Ok(y.record("matmul", [a, b], move |grad, _wanted| {
        let of_a = kept_b.as_ref().map(|b| product("matmul", grad, b, Layout::Transposed, None)).transpose()?;
        let of_b = kept_a.as_ref().map(|a| product_transposed("matmul", a, grad)).transpose()?;
        Ok([of_a, of_b])
    }))
}

/// Computes `[.., m, k] · [.., k, n]`, both broadcast to `batch`.
fn matmul_batched(a: &Tensor, b: &Tensor, batch: &[usize], [m, n, k]: [usize; 3]) -> Result<Tensor> {
    let y = batched("matmul", batch, [m, n, k], [a, b], Transpose::Neither)?;
    let (kept_a, kept_b) = (b.is_recorded().then(|| a.detach()), a.is_recorded().then(|| b.detach()));
    let batch = batch.to_vec();
    Ok(y.record("matmul", [a, b], move |grad, _wanted| {
        let of_a = kept_b.as_ref().map(|b| batched("matmul", &batch, [m, k, n], [grad, b], Transpose::Second)).transpose()?;
        let of_b = kept_a.as_ref().map(|a| batched("matmul", &batch, [k, n, m], [a, grad], Transpose::First)).transpose()?;
        Ok([of_a, of_b])
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    #[test]
    fn products_refuse_operands_that_do_not_fit() {
        let ones = |shape: &[usize]| Tensor::ones(shape);
        let weight = ones(&[4, 3]);
        let doubles = ones(&[3]).to_dtype(DType::F64).unwrap();
        for (result, message) in [
            (ones(&[2, 3]).matmul(&ones(&[2, 3])), "matmul: cannot multiply [2, 3] by [2, 3]"),
            (ones(&[3]).matmul(&ones(&[2])), "matmul: cannot multiply [3] by [2]"),
            (ones(&[]).matmul(&ones(&[2])), "matmul: cannot multiply [] by [2]"),
            (ones(&[2]).matmul(&ones(&[])), "matmul: cannot multiply [2] by []"),
            (ones(&[2, 3, 4]).matmul(&ones(&[3, 4, 5])), "matmul: shapes [2] and [3] do not broadcast together"),
            (
                ones(&[2, 3]).matmul(&doubles),
                "matmul: the input is f32, the other factor f64; convert either, with `.to_dtype(DType::F64)` or `.to_dtype(DType::F32)`",
            ),
            (Tensor::arange(3).matmul(&ones(&[3])), "matmul: expected f32 or f64, got i64; convert with `.to_dtype(DType::F32)`"),
            (ones(&[2, 4]).linear(&weight, None), "linear: expected input [.., 3], got shape [2, 4]"),
            (ones(&[]).linear(&weight, None), "linear: expected input [.., 3], got shape []"),
            (ones(&[3]).linear(&ones(&[3]), None), "linear: expected a weight [out, in], got shape [3]"),
            (ones(&[3]).linear(&weight, Some(&ones(&[3]))), "linear: expected a bias [4], got shape [3]"),
            (
                ones(&[3]).linear(&weight, Some(&doubles)),
                "linear: the input is f32, the bias f64; convert either, with `.to_dtype(DType::F64)` or `.to_dtype(DType::F32)`",
            ),
        ] {
            assert_eq!(result.unwrap_err().to_string(), message);
        }
        let tall = Tensor::zeros([1 << 40, 0]);
        let error = tall.matmul(&Tensor::zeros([0, 1 << 40])).unwrap_err().to_string();
        assert!(error.contains("more elements than memory can hold"), "{error}");
    }
}
