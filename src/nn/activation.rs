//! Activation functions as layers.
//!
//! Those without options are written without parentheses, as PyTorch's names: `net.push(ReLU)`.

use super::module::Module;
use super::site::{Leaf, Site};
use super::visitor::Visitor;
use crate::error::Result;
use crate::tensor::Tensor;

/// The two traits of a layer without parameters.
macro_rules! stateless {
    ($($name:ident, |$layer:ident| $describe:expr, |$x:ident| $forward:expr;)*) => {$(
        impl Leaf for $name {
            fn describe(&self) -> String {
                let $layer = self;
                $describe
            }
        }

        impl Module for $name {
            fn forward(&self, $x: &Tensor) -> Result<Tensor> {
                let $layer = self;
                self.site.enter(self, $x, || $forward)
            }

            fn visit(&self, v: &mut Visitor<'_>) {
                v.layer(&self.site, self);
            }
        }
    )*};
}
pub(super) use stateless;

/// A layer without options: the type, and a constant of its name that is a new one wherever it is written.
macro_rules! plain {
    ($($(#[$doc:meta])* $name:ident, |$x:ident| $forward:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Default)]
            pub struct $name {
                site: Site,
            }

            #[doc = concat!("A new [`struct@", stringify!($name), "`].")]
            // Each use is a layer with a place of its own, which is the point.
            #[allow(non_upper_case_globals, clippy::declare_interior_mutable_const)]
            pub const $name: $name = $name { site: Site::new() };
        )*
        stateless! { $($name, |_layer| stringify!($name).to_string(), |$x| $forward;)* }
    };
}
pub(super) use plain;

plain! {
    /// [`Tensor::relu`] as a layer.
    ReLU, |x| Ok(x.relu());
    /// [`Tensor::tanh`] as a layer.
    Tanh, |x| x.tanh();
}

/// [`Tensor::leaky_relu`] as a layer.
#[derive(Debug)]
pub struct LeakyReLU {
    slope: f64,
    site: Site,
}

impl LeakyReLU {
    /// With this slope on the negative side; PyTorch's default is 0.01.
    pub fn new(slope: f64) -> LeakyReLU {
        LeakyReLU { slope, site: Site::new() }
    }
}

impl Default for LeakyReLU {
    fn default() -> LeakyReLU {
        LeakyReLU::new(0.01)
    }
}

stateless! {
    LeakyReLU, |layer| format!("LeakyReLU {}", layer.slope), |x| x.leaky_relu(layer.slope);
}
