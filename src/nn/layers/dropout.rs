//! Layers that forget, in training.

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
            /// With this probability of being dropped. Outside `[0, 1]`, [`forward`](Module::forward) fails in training.
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
    /// In training zeroes each element with probability `p` and scales the others by 1 / (1 − p); in evaluation returns its input
    /// (Srivastava et al., 2014).
    Dropout, dropout;
    /// As [`Dropout`], for whole channels of `[N, C, H, W]` (Tompson et al., 2015).
    Dropout2d, dropout2d;
    /// As [`Dropout`], for whole samples: on the branch of a residual block it trains a shorter network for each sample (Huang et al., 2016).
    StochasticDepth, stochastic_depth;
}

impl StochasticDepth {
    /// Whether a block may leave it out: it would return its input, and no summary is to list it.
    pub(crate) fn is_idle(&self) -> bool {
        !(is_tracing() || self.training.is_training() && self.p != 0.0)
    }
}
