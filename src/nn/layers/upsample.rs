//! Resampling layers.

use super::pair::{Pair, short};
use crate::nn::module::layer::LayerPath;
use crate::nn::module::macros::stateless;
use crate::ops::Interpolation;
use crate::tensor::Factors;

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
    Times([f64; 2]),
    Size([usize; 2]),
}

impl Upsample {
    /// Creates a layer that scales by a factor for height and width, `2` or `1.5`, or by one for
    /// each, `[2, 3]` or `[2.0, 1.5]`.
    pub fn new(factor: impl Into<Factors>) -> Upsample {
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

    /// Sets how pixels are computed (default: [`Interpolation::Nearest`]).
    pub fn mode(mut self, mode: Interpolation) -> Upsample {
        self.mode = mode;
        self
    }
}

stateless! {
    Upsample { target, mode },
        |layer| match layer.target {
            Target::Times([down, across]) if down == across => format!("Upsample times {down}"),
            Target::Times([down, across]) => format!("Upsample times {down}×{across}"),
            Target::Size(size) => format!("Upsample to {}", short(size)),
        },
        |x| match layer.target {
            Target::Times(factors) => x.interpolate_by(factors, layer.mode),
            Target::Size(size) => x.interpolate(size, layer.mode),
        };
}
