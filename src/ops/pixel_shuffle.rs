//! Exchange of channels for positions and for one another.

use crate::error::{Error, Result};
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::Tensor;

/// Splits a shape into the leading dimensions, channels, height and width; checks the factor.
fn parts<'a>(op: &'static str, shape: &'a [usize], factor: usize) -> Result<(&'a [usize], [usize; 3])> {
    let &[ref batch @ .., c, h, w] = shape else {
        return Err(Error::shape(op, format!("expected [.., C, H, W], got shape {shape:?}")));
    };
    if factor == 0 {
        return Err(Error::argument(op, "the factor must be at least 1"));
    }
    Ok((batch, [c, h, w]))
}

/// Reshapes to `inner` after the leading dimensions, reorders the last five dimensions, and merges
/// them into `map`.
fn rearrange(x: &Tensor, batch: &[usize], inner: [usize; 5], order: [usize; 5], map: [usize; 3]) -> Result<Tensor> {
    let dims: Vec<usize> = (0..batch.len()).chain(order.into_iter().map(|dim| batch.len() + dim)).collect();
    x.reshape([batch, &inner[..]].concat())?.permute(dims)?.reshape([batch, &map[..]].concat())
}

impl Tensor {
    /// Moves groups of `factor²` channels into squares of `factor × factor` pixels (Shi et al.,
    /// 2016): position `[c, h·factor + i, w·factor + j]` of the result is position
    /// `[c·factor² + i·factor + j, h, w]`.
    ///
    /// # Shape
    /// `[.., C·factor², H, W]` gives `[.., C, H·factor, W·factor]`; row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] for fewer than three dimensions or channels that `factor²` does not divide,
    /// [`Error::Argument`] for a factor of 0.
    pub fn pixel_shuffle(&self, factor: usize) -> Result<Tensor> {
        const OP: &str = "pixel_shuffle";
        let observed = operation(OP);
        observed.details(|| Details::new().int("factor", factor));
        let (batch, [c, h, w]) = parts(OP, self.shape(), factor)?;
        let Some(square) = factor.checked_mul(factor).filter(|&square| c.is_multiple_of(square)) else {
            return Err(Error::shape(OP, format!("{factor}² does not divide the {c} channels of shape {:?}", self.shape())));
        };
        let too_large = || Error::shape(OP, format!("shape {:?} times {factor} is larger than memory can hold", self.shape()));
        let (height, width) = h.checked_mul(factor).zip(w.checked_mul(factor)).ok_or_else(too_large)?;
        let out = c / square;
        let y = rearrange(self, batch, [out, factor, factor, h, w], [0, 3, 1, 4, 2], [out, height, width])?;
        observed.result(&[self], &[&y]);
        Ok(y)
    }

    /// Moves squares of `factor × factor` pixels into channels; the inverse of
    /// [`pixel_shuffle`](Tensor::pixel_shuffle).
    ///
    /// # Shape
    /// `[.., C, H·factor, W·factor]` gives `[.., C·factor², H, W]`; row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] for fewer than three dimensions or a height or width that the factor does
    /// not divide, [`Error::Argument`] for a factor of 0.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let x = Tensor::randn([1, 3, 8, 8]);
    /// let y = x.pixel_unshuffle(2)?;
    /// assert_eq!(y.shape(), [1, 12, 4, 4]);
    /// assert_eq!(y.pixel_shuffle(2)?, x);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn pixel_unshuffle(&self, factor: usize) -> Result<Tensor> {
        const OP: &str = "pixel_unshuffle";
        let observed = operation(OP);
        observed.details(|| Details::new().int("factor", factor));
        let (batch, [c, h, w]) = parts(OP, self.shape(), factor)?;
        if !h.is_multiple_of(factor) || !w.is_multiple_of(factor) {
            return Err(Error::shape(OP, format!("{factor} does not divide height and width of shape {:?}", self.shape())));
        }
        let too_large = || Error::shape(OP, format!("shape {:?} has more channels than memory can hold", self.shape()));
        let out = factor.checked_mul(factor).and_then(|square| c.checked_mul(square)).ok_or_else(too_large)?;
        let (height, width) = (h / factor, w / factor);
        let y = rearrange(self, batch, [c, height, factor, width, factor], [0, 2, 4, 1, 3], [out, height, width])?;
        observed.result(&[self], &[&y]);
        Ok(y)
    }

    /// Shuffles the channels of `groups` groups: the result has the first channel of each group,
    /// then the second of each, and so on (Zhang et al., *ShuffleNet*, 2017).
    ///
    /// # Shape
    /// `[N, C, ..]` with `C` divisible by the groups; the result has the input's shape.
    ///
    /// # Errors
    /// [`Error::Argument`] when the groups do not divide the channels, [`Error::Shape`] when there
    /// is no channel dimension.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let x = Tensor::from_vec(vec![1f32, 2.0, 3.0, 10.0, 20.0, 30.0], [1, 6, 1, 1])?;
    /// assert_eq!(x.channel_shuffle(2)?.to_vec::<f32>()?, [1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn channel_shuffle(&self, groups: usize) -> Result<Tensor> {
        let Some(&channels) = self.shape().get(1) else {
            return Err(Error::shape("channel_shuffle", format!("expected [N, C, ..], got shape {:?}", self.shape())));
        };
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(Error::argument("channel_shuffle", format!("{channels} channels do not divide into {groups} groups")));
        }
        let width = channels / groups;
        let order: Vec<i64> = (0..channels).map(|to| (to % groups * width + to / groups) as i64).collect();
        self.index_select(1, &Tensor::from_slice(&order, [channels])?)
    }
}

#[cfg(test)]
mod tests {
    use crate::autograd::gradcheck;
    use crate::{DType, Tensor};

    /// `F.pixel_shuffle(torch.arange(16.).reshape(1, 8, 1, 2), 2)` and its like in PyTorch 2.
    #[test]
    fn pixels_are_where_pytorch_puts_them() {
        let x = Tensor::arange(16).reshape([1, 8, 1, 2]).unwrap();
        let y = x.pixel_shuffle(2).unwrap();
        assert_eq!(y.shape(), [1, 2, 2, 4]);
        assert_eq!(y.to_vec::<i64>().unwrap(), [0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15]);
        assert_eq!(y.pixel_unshuffle(2).unwrap(), x);
        assert_eq!(x.reshape([8, 1, 2]).unwrap().pixel_shuffle(2).unwrap().shape(), [2, 2, 4]);
    }

    #[test]
    fn gradients_agree_with_differences() {
        let x = Tensor::randn([2, 4, 2, 4]).to_dtype(DType::F64).unwrap();
        gradcheck(std::slice::from_ref(&x), Default::default(), |x| x[0].pixel_shuffle(2)).unwrap();
        gradcheck(std::slice::from_ref(&x), Default::default(), |x| x[0].pixel_unshuffle(2)).unwrap();
    }

    #[test]
    fn factors_that_do_not_fit_are_errors() {
        let x = Tensor::zeros([1, 6, 3, 4]);
        let message = |result: crate::Result<Tensor>| result.unwrap_err().to_string();
        assert_eq!(message(x.pixel_shuffle(2)), "pixel_shuffle: 2² does not divide the 6 channels of shape [1, 6, 3, 4]");
        assert_eq!(message(x.pixel_unshuffle(2)), "pixel_unshuffle: 2 does not divide height and width of shape [1, 6, 3, 4]");
        assert!(message(x.pixel_shuffle(0)).contains("at least 1"));
        assert!(message(x.pixel_shuffle(usize::MAX)).contains("does not divide"));
        assert!(message(Tensor::zeros([2, 2]).pixel_unshuffle(1)).contains("expected [.., C, H, W]"));
        assert!(message(Tensor::zeros([0, 1 << 40, 1]).pixel_shuffle(1 << 31)).contains("larger than memory"));
    }

    #[test]
    fn shuffle_requires_groups_that_divide_the_channels() {
        let error = |shape: &[usize], groups| Tensor::zeros(shape).channel_shuffle(groups).unwrap_err().to_string();
        assert!(error(&[1, 6, 1, 1], 4).contains("6 channels do not divide into 4 groups"));
        assert!(error(&[1, 6, 1, 1], 0).contains("0 groups"));
        assert!(error(&[6], 2).contains("[N, C, ..]"));
    }
}
