//! Batch normalisation whose statistics are those of several ranks' batches together.

use std::cell::RefCell;
use std::sync::Arc;

use crate::autograd::CustomOp;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Adds up numbers over all ranks.
pub(crate) type JoinSum = Arc<dyn Fn(Vec<f64>) -> Result<Vec<f64>> + Send + Sync>;

thread_local! {
    static JOIN: RefCell<Option<JoinSum>> = const { RefCell::new(None) };
}

/// Runs `body` so that the batch normalisations that run on this thread in training take their
/// statistics over all ranks. All ranks have to run the same layers in the same order.
pub(crate) fn synchronized<R>(join: Option<JoinSum>, body: impl FnOnce() -> R) -> R {
    struct Restore(Option<JoinSum>);
    impl Drop for Restore {
        fn drop(&mut self) {
            JOIN.set(self.0.take());
        }
    }
    let _restore = Restore(JOIN.replace(join));
    body()
}

/// Returns the sum over all ranks, if normalisations are synchronised on this thread.
pub(super) fn join_sum() -> Option<JoinSum> {
    JOIN.with_borrow(Clone::clone)
}

/// The input normalised by the statistics of all ranks, and these.
pub(super) struct Synchronized {
    pub(super) output: Tensor,
    pub(super) mean: Tensor,
    /// The biased variance.
    pub(super) var: Tensor,
    /// The number of values of a channel.
    pub(super) count: usize,
}

/// Normalises each channel of `[N, C, …]` by the mean and the variance over all ranks (PyTorch's
/// `SyncBatchNorm`), then multiplies by `weight` and adds `bias`.
pub(super) fn normalize(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64, join: &JoinSum) -> Result<Synchronized> {
    let channels = x.shape()[1];
    let dims: Vec<isize> = (0..x.ndim() as isize).filter(|&dim| dim != 1).collect();
    let own = x.numel() / channels.max(1);
    let count = join(vec![own as f64])?[0];
    let mut by_channel = vec![1; x.ndim()];
    by_channel[1] = channels;
    let aligned = |values: &Tensor| values.reshape(&by_channel[..]);
    let mean_of = |x: &Tensor| over_ranks(&x.sum(&dims[..])?, join)?.try_mul_scalar(1.0 / count);
    let mean = mean_of(x)?;
    let centred = x.sub(&aligned(&mean)?)?;
    let var = mean_of(&centred.square()?)?;
    let mut output = centred.mul(&aligned(&var.try_add_scalar(eps)?.rsqrt()?)?)?;
    if let Some(weight) = weight {
        output = output.mul(&aligned(weight)?)?;
    }
    if let Some(bias) = bias {
        output = output.add(&aligned(bias)?)?;
    }
    Ok(Synchronized { output, mean: mean.detach(), var: var.detach(), count: count as usize })
}

/// Returns the sum of the ranks' tensors, whose gradient is the sum of the ranks' gradients.
fn over_ranks(x: &Tensor, join: &JoinSum) -> Result<Tensor> {
    CustomOp::new("sum_over_ranks").apply([x], |[x]| {
        let join = Arc::clone(join);
        let y = joined(&x, &join)?;
        Ok((y, move |grad: &Tensor, _: [bool; 1]| Ok([Some(joined(grad, &join)?)])))
    })
}

fn joined(x: &Tensor, join: &JoinSum) -> Result<Tensor> {
    let sums = join(x.to_dtype(DType::F64)?.to_vec()?)?;
    Tensor::from_vec(sums, x.shape())?.to_dtype(x.dtype())
}
