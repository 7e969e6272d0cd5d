//! Resampling layers.

use super::pair::{Pair, short};
use crate::error::{Error, Result};
use crate::nn::module::layer::LayerPath;
use crate::nn::module::macros::stateless;
use crate::ops::Interpolation;
use crate::tensor::Tensor;

/// [`Tensor::interpolate`](crate::Tensor::interpolate) as a layer; nearest neighbour by default.
///
/// ```
/// use convnet::Tensor;
/// use convnet::nn::{Module, Upsample};
///
/// assert!(Upsample::new(2).bilinear(false).forward(&Tensor::zeros([1, 3, 8, 8]))?.shape() == [1, 3, 16, 16]);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Debug)]
pub struct Upsample {
    target: Target,
    mode: Interpolation,
    path: LayerPath,
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Times([usize; 2]),
    Size([usize; 2]),
}

impl Upsample {
    /// Creates a layer that scales by an integer factor.
    pub fn new(factor: impl Into<Pair>) -> Upsample {
        Upsample { target: Target::Times(factor.into().0), mode: Interpolation::Nearest, path: LayerPath::new() }
    }

    /// Creates a layer that resamples to this size.
    pub fn to_size(size: impl Into<Pair>) -> Upsample {
        Upsample { target: Target::Size(size.into().0), mode: Interpolation::Nearest, path: LayerPath::new() }
    }

    /// Switches to bilinear interpolation that aligns the centres of the corner pixels or, for
    /// `false`, their outer corners.
    pub fn bilinear(mut self, align_corners: bool) -> Upsample {
        self.mode = Interpolation::Bilinear { align_corners };
        self
    }

    fn size(&self, x: &Tensor) -> Result<[usize; 2]> {
        let &[_, _, height, width] = x.shape() else {
            return Err(Error::shape("interpolate", format!("expected [N, C, H, W], got shape {:?}", x.shape())));
        };
        match self.target {
            Target::Size(size) => Ok(size),
            Target::Times([down, across]) => match (height.checked_mul(down), width.checked_mul(across)) {
                (Some(height), Some(width)) => Ok([height, width]),
                _ => Err(Error::argument("interpolate", format!("the factor {} is too large", short([down, across])))),
            },
        }
    }
}

stateless! {
    Upsample { target, mode },
        |layer| match layer.target {
            Target::Times(factor) => format!("Upsample times {}", short(factor)),
            Target::Size(size) => format!("Upsample to {}", short(size)),
        },
        |x| x.interpolate(layer.size(x)?, layer.mode);
}
