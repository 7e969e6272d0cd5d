//! Dropout layers, which are active in training only.

use crate::error::Result;
use crate::nn::module::Module;
use crate::nn::module::layer::{Layer, LayerPath, TrainingMode, is_tracing};
use crate::tensor::Tensor;
use crate::visit_fields;

macro_rules! dropout {
    ($($(#[$doc:meta])* $name:ident, $op:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            p: f64,
            training: TrainingMode,
            path: LayerPath,
        }

        impl $name {
            /// Creates the layer with this drop probability. Outside `[0, 1]`,
            /// [`forward`](Module::forward) returns an error in training.
            pub fn new(p: f64) -> $name {
                $name { p, training: TrainingMode::new(), path: LayerPath::new() }
            }
        }

        impl Layer for $name {
            fn describe(&self) -> String {
                format!("{} {}", stringify!($name), self.p)
            }
        }

        impl Module for $name {
            fn forward(&self, x: &Tensor) -> Result<Tensor> {
                self.path.scope(self, x, || if self.training.is_training() && self.p != 0.0 { x.$op(self.p) } else { Ok(x.clone()) })
            }

            visit_fields!(layer path, training, skip p);
        }
    )*};
}

dropout! {
    /// Sets each element to zero with probability `p` in training and scales the others by 1 / (1 −
    /// p); in evaluation returns its input (Srivastava et al., 2014).
    Dropout, dropout;
    /// Drops whole channels of `[N, C, H, W]` in training; otherwise like [`Dropout`] (Tompson et
    /// al., 2015).
    Dropout2d, dropout2d;
    /// Drops whole samples in training; otherwise like [`Dropout`]. On the branch of a residual
    /// block, this trains a shorter network for each sample (Huang et al., 2016).
    StochasticDepth, stochastic_depth;
}

impl StochasticDepth {
    /// Returns whether a block may skip the layer now: it would return its input, and no summary is
    /// traced.
    pub(crate) fn is_idle(&self) -> bool {
        !(is_tracing() || self.training.is_training() && self.p != 0.0)
    }
}
