//! Inputs without a batch dimension.

use std::borrow::Cow;

use crate::error::Result;
use crate::tensor::Tensor;

/// Runs an operation on batches, which have `rank` dimensions. If `x` has one dimension less, it is
/// a single picture or sequence: the operation runs on a batch of one, and the result loses the
/// batch dimension. Other ranks are passed on, for `run` to report.
pub(crate) fn batched(x: &Tensor, rank: usize, run: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let is_single = x.ndim() + 1 == rank;
    let batch = if is_single { Cow::Owned(x.unsqueeze(0)?) } else { Cow::Borrowed(x) };
    let y = run(&batch)?;
    if is_single { y.squeeze(0) } else { Ok(y) }
}
