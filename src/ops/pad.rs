//! Padding by other values than a constant, and of any dimension.

use crate::error::{Error, Result};
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::Tensor;

/// The values that padding adds; see [`Tensor::pad_with`] and
/// [`Conv2d::padding_mode`](crate::nn::Conv2d::padding_mode).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PadMode {
    /// One value; `Constant(0.0)` is zero padding.
    Constant(f64),
    /// The elements next to the edge in reverse order, without the edge: `c b | a b c | b a`.
    Reflect,
    /// The element at the edge: `a a | a b c | c c`.
    Replicate,
    /// The elements at the other end: `b c | a b c | a b`.
    Circular,
}

impl Tensor {
    /// Pads dimensions as PyTorch's `pad` does. `padding` has two numbers for each padded
    /// dimension, before and after, from the last dimension to the front: `[left, right, top,
    /// bottom]` for images. Negative numbers remove elements.
    ///
    /// # Shape
    /// The input's shape, where each padded dimension is larger by the sum of its two numbers.
    ///
    /// # Errors
    /// [`Error::Argument`] for an odd number of paddings or more than the dimensions have,
    /// [`Error::Shape`] when more is removed than there is, when there are fewer elements than the
    /// mode needs (`Reflect` one more than it adds, `Circular` as many, `Replicate` one), or when
    /// memory cannot hold the result.
    ///
    /// ```
    /// use convnet::{Tensor, ops::PadMode};
    ///
    /// let x = Tensor::from_vec(vec![1.0f32, 2.0, 3.0], [3])?;
    /// assert_eq!(x.pad_with([2, 1], PadMode::Reflect)?.to_vec::<f32>()?, [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]);
    /// assert_eq!(x.pad_with([-1, 2], PadMode::Constant(0.0))?.to_vec::<f32>()?, [2.0, 3.0, 0.0, 0.0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn pad_with(&self, padding: impl AsRef<[isize]>, mode: PadMode) -> Result<Tensor> {
        self.pad_all(padding.as_ref(), mode)
    }

    fn pad_all(&self, padding: &[isize], mode: PadMode) -> Result<Tensor> {
        let observed = operation("pad");
        observed.details(|| {
            let (mode, value) = match mode {
                PadMode::Constant(value) => ("constant", value),
                PadMode::Reflect => ("reflect", 0.0),
                PadMode::Replicate => ("edge", 0.0),
                PadMode::Circular => ("wrap", 0.0),
            };
            Details::new().signed("sides", padding).float("value", value).text("mode", mode)
        });
        if !padding.len().is_multiple_of(2) || padding.len() / 2 > self.ndim() {
            let message = format!("expected two numbers for each of at most {} dimensions, got padding {padding:?}", self.ndim());
            return Err(Error::argument("pad", message));
        }
        let (mut y, mut rest) = (self.clone(), padding);
        if let (PadMode::Constant(value), &[left, right, top, bottom, ..]) = (mode, padding)
            && let [Ok(left), Ok(right), Ok(top), Ok(bottom)] = [left, right, top, bottom].map(usize::try_from)
        {
            // Height and width at once.
            (y, rest) = (y.pad([left, right, top, bottom], value)?, &padding[4..]);
        }
        let done = (padding.len() - rest.len()) / 2;
        for (at, sides) in rest.chunks_exact(2).enumerate() {
            y = pad_dimension(&y, self.ndim() - 1 - done - at, [sides[0], sides[1]], mode)?;
        }
        observed.result(&[self], &[&y]);
        Ok(y)
    }
}

/// Pads one dimension.
fn pad_dimension(x: &Tensor, axis: usize, sides: [isize; 2], mode: PadMode) -> Result<Tensor> {
    let size = x.shape()[axis];
    let wrong = |why: &str| Error::shape("pad", format!("padding {sides:?} of dimension {axis} of shape {:?} {why}", x.shape()));
    let [before, after] = sides;
    let [add_before, add_after] = sides.map(|side| side.max(0).unsigned_abs());
    let [cut_before, cut_after] = sides.map(|side| side.min(0).unsigned_abs());
    let total =
        size.checked_add(add_before).and_then(|total| total.checked_add(add_after)).ok_or_else(|| wrong("is more than memory can hold"))?;
    let result =
        total.checked_sub(cut_before).and_then(|total| total.checked_sub(cut_after)).ok_or_else(|| wrong("removes more than there is"))?;
    if mode == PadMode::Circular && (before < 0 || after < 0) {
        // The elements that are removed are not repeated at the other end, as in PyTorch.
        let kept =
            size.checked_sub(cut_before).and_then(|kept| kept.checked_sub(cut_after)).ok_or_else(|| wrong("removes more than there is"))?;
        let kept = x.narrow(axis, cut_before, kept)?;
        return pad_dimension(&kept, axis, sides.map(|side| side.max(0)), mode);
    }
    let edge = |count: usize, of_end: bool| -> Result<Option<Tensor>> {
        if count == 0 {
            return Ok(None);
        }
        let piece = match mode {
            PadMode::Constant(value) => {
                let mut shape = x.shape().to_vec();
                shape[axis] = count;
                Tensor::try_full(shape, value, x.dtype())?
            }
            PadMode::Reflect if count < size => x.narrow(axis, if of_end { size - 1 - count } else { 1 }, count)?.flip(axis)?,
            PadMode::Reflect => return Err(wrong("reflects more elements than there are beside the edge")),
            PadMode::Replicate if size > 0 => {
                let mut shape = x.shape().to_vec();
                shape[axis] = count;
                x.narrow(axis, if of_end { size - 1 } else { 0 }, 1)?.expand(shape)?
            }
            PadMode::Replicate => return Err(wrong("repeats an element of an empty dimension")),
            PadMode::Circular if count <= size => x.narrow(axis, if of_end { 0 } else { size - count }, count)?,
            PadMode::Circular => return Err(wrong("repeats more elements than there are")),
        };
        Ok(Some(piece))
    };
    let (first, last) = (edge(add_before, false)?, edge(add_after, true)?);
    let mut y = x.clone();
    if first.is_some() || last.is_some() {
        let parts: Vec<&Tensor> = first.iter().chain([x]).chain(&last).collect();
        y = Tensor::cat(&parts, axis)?;
    }
    if result < total { y.narrow(axis, cut_before, result) } else { Ok(y) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::autograd::gradcheck;

    const MODES: [PadMode; 4] = [PadMode::Constant(2.0), PadMode::Reflect, PadMode::Replicate, PadMode::Circular];

    fn counting(shape: &[usize]) -> Tensor {
        Tensor::arange(shape.iter().product()).to_dtype(DType::F64).unwrap().reshape(shape).unwrap()
    }

    /// The expected values are PyTorch's of `F.pad(torch.arange(6.).reshape(1, 1, 2, 3), …)`.
    #[test]
    fn each_mode_has_pytorchs_values() {
        let x = counting(&[1, 1, 2, 3]);
        let cases: &[(PadMode, [isize; 4], &[f64])] = &[
            (PadMode::Reflect, [2, 1, 1, 0], &[5.0, 4.0, 3.0, 4.0, 5.0, 4.0, 2.0, 1.0, 0.0, 1.0, 2.0, 1.0, 5.0, 4.0, 3.0, 4.0, 5.0, 4.0]),
            (PadMode::Reflect, [1, -1, 0, 1], &[1.0, 0.0, 1.0, 4.0, 3.0, 4.0, 1.0, 0.0, 1.0]),
            (PadMode::Replicate, [2, 0, 0, 1], &[0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 3.0, 3.0, 4.0, 5.0, 3.0, 3.0, 3.0, 4.0, 5.0]),
            (PadMode::Replicate, [-1, 1, 1, 1], &[1.0, 2.0, 2.0, 1.0, 2.0, 2.0, 4.0, 5.0, 5.0, 4.0, 5.0, 5.0]),
            (PadMode::Circular, [1, 2, 1, 0], &[5.0, 3.0, 4.0, 5.0, 3.0, 4.0, 2.0, 0.0, 1.0, 2.0, 0.0, 1.0, 5.0, 3.0, 4.0, 5.0, 3.0, 4.0]),
            (PadMode::Circular, [-1, 1, 0, 1], &[1.0, 2.0, 1.0, 4.0, 5.0, 4.0, 1.0, 2.0, 1.0]),
            (PadMode::Constant(2.0), [1, 0, -1, 1], &[2.0, 3.0, 4.0, 5.0, 2.0, 2.0, 2.0, 2.0]),
            (PadMode::Constant(2.0), [-1, -1, 0, 0], &[1.0, 4.0]),
        ];
        for (mode, padding, expected) in cases {
            assert_eq!(x.pad_with(padding, *mode).unwrap().to_vec::<f64>().unwrap(), *expected, "{mode:?} {padding:?}");
        }
        assert_eq!(x.pad_with([0, 0, 0, 0, 1, 1, 0, 1], PadMode::Constant(1.0)).unwrap().shape(), [2, 3, 2, 3]);
        assert_eq!(x.pad_with([], MODES[1]).unwrap(), x);
    }

    #[test]
    fn gradients_agree_with_differences() {
        for mode in MODES {
            for padding in [&[2, 1, 1, 0][..], &[-1, 2], &[1, -2, -1, 1], &[0, 0, 1, 1, 1, 1]] {
                gradcheck(&[counting(&[2, 2, 3, 4])], Default::default(), |x| x[0].pad_with(padding, mode)).unwrap();
            }
        }
    }

    #[test]
    fn paddings_that_do_not_fit_are_errors() {
        let x = counting(&[2, 3]);
        let message = |padding: &[isize], mode| x.pad_with(padding, mode).unwrap_err().to_string();
        assert!(message(&[3, 0], MODES[1]).contains("reflects more elements than there are beside the edge"));
        assert!(message(&[4, 0], MODES[3]).contains("repeats more elements than there are"));
        assert!(message(&[-2, -2], MODES[0]).contains("removes more than there is"));
        assert!(message(&[1], MODES[0]).contains("two numbers for each of at most 2 dimensions"));
        assert!(message(&[0; 6], MODES[0]).contains("two numbers for each"));
        for mode in MODES {
            assert!(x.pad_with([isize::MAX, isize::MAX], mode).is_err());
            assert!(x.pad_with([isize::MIN, 1], mode).is_err());
        }
    }
}
