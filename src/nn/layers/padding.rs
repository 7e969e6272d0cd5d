//! The padding of convolution layers, and padding as a layer.

use std::borrow::Cow;

use super::pair::Pair;
use crate::error::{Error, Result};
use crate::kernels::runtime::arrays::MapEach;
use crate::nn::module::layer::LayerPath;
use crate::nn::module::macros::stateless;
use crate::ops::PadMode;
use crate::tensor::Tensor;

/// The padding of [`Conv2d`](super::Conv2d): `1`, `[1, 2]` (height, width), `[left, right, top,
/// bottom]` or [`ConvPadding::Same`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConvPadding {
    /// The same on both sides: height, width.
    Both([usize; 2]),
    /// As much as makes the output as large as the input; where it cannot be the same on both
    /// sides, there is one more on the right or at the bottom. The stride has to be 1.
    Same,
    /// Left, right, top, bottom.
    Sides([usize; 4]),
}

impl From<[usize; 4]> for ConvPadding {
    fn from(sides: [usize; 4]) -> ConvPadding {
        ConvPadding::Sides(sides)
    }
}

impl From<Pair> for ConvPadding {
    fn from(both: Pair) -> ConvPadding {
        ConvPadding::Both(both.0)
    }
}

impl From<usize> for ConvPadding {
    fn from(both: usize) -> ConvPadding {
        Pair::from(both).into()
    }
}

impl From<[usize; 2]> for ConvPadding {
    fn from(both: [usize; 2]) -> ConvPadding {
        Pair::from(both).into()
    }
}

impl From<(usize, usize)> for ConvPadding {
    fn from(both: (usize, usize)) -> ConvPadding {
        Pair::from(both).into()
    }
}

/// The padding of [`Conv1d`](super::Conv1d): `1`, `[left, right]` or [`Conv1dPadding::Same`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conv1dPadding {
    /// The same at both ends.
    Both(usize),
    /// As much as makes the output as long as the input; where it cannot be the same at both ends,
    /// there is one more at the end. The stride has to be 1.
    Same,
    /// Before and after the sequence.
    Sides([usize; 2]),
}

impl Conv1dPadding {
    /// Returns the padding of the sequence as a map of height 1.
    pub(super) fn of_map(self) -> ConvPadding {
        match self {
            Conv1dPadding::Both(both) => ConvPadding::Both([0, both]),
            Conv1dPadding::Same => ConvPadding::Same,
            Conv1dPadding::Sides([left, right]) => ConvPadding::Sides([left, right, 0, 0]),
        }
    }
}

impl From<usize> for Conv1dPadding {
    fn from(both: usize) -> Conv1dPadding {
        Conv1dPadding::Both(both)
    }
}

impl From<[usize; 2]> for Conv1dPadding {
    fn from(sides: [usize; 2]) -> Conv1dPadding {
        Conv1dPadding::Sides(sides)
    }
}

/// [`Tensor::pad_with`](crate::Tensor::pad_with) as a layer, for maps, sequences and any other
/// dimensions: PyTorch's `ZeroPad2d`, `ConstantPad2d`, `ReflectionPad2d`, `ReplicationPad2d`,
/// `CircularPad2d` and those of one dimension.
///
/// ```
/// use convnet::nn::Pad;
/// use convnet::ops::PadMode;
/// use convnet::prelude::*;
///
/// let x = Tensor::from_vec(vec![1.0f32, 2.0, 3.0], [1, 1, 3])?;
/// assert_eq!(Pad::new([2, 1]).forward(&x)?.to_vec::<f32>()?, [0.0, 0.0, 1.0, 2.0, 3.0, 0.0]);
/// assert_eq!(Pad::new([2, 1]).mode(PadMode::Reflect).forward(&x)?.to_vec::<f32>()?, [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]);
/// // Left, right, top, bottom of maps; a negative number cuts off.
/// assert_eq!(Pad::new([1, 1, 2, -1]).forward(&Tensor::zeros([1, 3, 8, 8]))?.shape(), [1, 3, 9, 10]);
/// # Ok::<(), convnet::Error>(())
/// ```
#[doc(alias("ZeroPad1d", "ConstantPad1d", "ReflectionPad1d", "ReplicationPad1d", "CircularPad1d"))]
#[doc(alias("ZeroPad2d", "ConstantPad2d", "ReflectionPad2d", "ReplicationPad2d", "CircularPad2d"))]
#[derive(Debug)]
pub struct Pad {
    padding: Vec<isize>,
    mode: PadMode,
    path: LayerPath,
}

impl Pad {
    /// Creates the layer that adds zeros: two numbers for each dimension, before and after it, the
    /// last dimension first.
    pub fn new(padding: impl AsRef<[isize]>) -> Pad {
        Pad { padding: padding.as_ref().to_vec(), mode: PadMode::Constant(0.0), path: LayerPath::new() }
    }

    /// Sets what is added (default: zeros).
    pub fn mode(mut self, mode: PadMode) -> Pad {
        self.mode = mode;
        self
    }
}

stateless! {
    Pad { padding, mode }, |layer| format!("Pad {:?}", layer.padding), |x| x.pad_with(&layer.padding, layer.mode);
}

/// How a convolution layer pads maps, or sequences as maps of height 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Padding {
    pub(super) amount: ConvPadding,
    pub(super) mode: PadMode,
}

impl Default for Padding {
    /// No padding.
    fn default() -> Padding {
        Padding { amount: ConvPadding::Both([0, 0]), mode: PadMode::Constant(0.0) }
    }
}

impl Padding {
    /// Returns the input of the convolution proper, and the height and width of the zeros that the
    /// convolution itself puts on both sides. Other padding is added to the input.
    pub(super) fn add<'x>(
        &self,
        op: &'static str,
        x: &'x Tensor,
        kernel: [usize; 2],
        stride: [usize; 2],
        dilation: [usize; 2],
    ) -> Result<(Cow<'x, Tensor>, [usize; 2])> {
        let sides = match self.amount {
            ConvPadding::Both([h, w]) => [w, w, h, h],
            ConvPadding::Sides(sides) => sides,
            ConvPadding::Same if stride != [1, 1] => {
                return Err(Error::argument(op, format!("same padding needs stride 1, got stride {stride:?}")));
            }
            ConvPadding::Same => {
                let [h, w] = [0, 1].map_each(|axis| kernel[axis].saturating_sub(1).saturating_mul(dilation[axis]));
                [w / 2, w.div_ceil(2), h / 2, h.div_ceil(2)]
            }
        };
        let [left, right, top, bottom] = sides;
        if self.mode == PadMode::Constant(0.0) && left == right && top == bottom {
            return Ok((Cow::Borrowed(x), [top, left]));
        }
        // An input of another rank is reported by the checks that follow.
        if x.ndim() < 3 {
            return Ok((Cow::Borrowed(x), [0, 0]));
        }
        if sides.into_iter().any(|side| isize::try_from(side).is_err()) {
            return Err(Error::argument(op, format!("padding {sides:?} is too large")));
        }
        Ok((Cow::Owned(x.pad_with(sides.map_each(|side| side as isize), self.mode)?), [0, 0]))
    }
}
