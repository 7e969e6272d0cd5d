//! Activation functions as layers.
//!
//! Those without options are written without parentheses, as PyTorch's names: `net.push(ReLU)`.

use crate::error::Result;
use crate::nn::module::Module;
use crate::nn::module::layer::{Layer, LayerPath};
use crate::nn::module::visitor::Visitor;
use crate::tensor::Tensor;

/// The two traits of a layer without parameters, and what it is to its neighbours, if anything.
macro_rules! stateless {
    ($($name:ident, |$layer:ident| $describe:expr, |$x:ident| $forward:expr $(, $part:expr)?;)*) => {$(
        impl Layer for $name {
            fn describe(&self) -> String {
                let $layer = self;
                $describe
            }
        }

        impl Module for $name {
            fn forward(&self, $x: &Tensor) -> Result<Tensor> {
                let $layer = self;
                self.path.scope(self, $x, || $forward)
            }

            fn visit(&self, v: &mut Visitor<'_>) {
                v.layer(&self.path, self);
            }

            $(fn part(&self) -> crate::nn::Part<'_> {
                $part
            })?
        }
    )*};
}
pub(crate) use stateless;

/// A layer without options, and which [`Activation`](crate::nn::Activation) it is, if any: the type, and a constant of its name that is a new one wherever it is written.
macro_rules! plain {
    ($($(#[$doc:meta])* $name:ident $(is $activation:ident)?, |$x:ident| $forward:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Default)]
            pub struct $name {
                path: LayerPath,
            }

            #[doc = concat!("A new [`struct@", stringify!($name), "`].")]
            // Each use is a layer with a place of its own, which is the point.
            #[allow(non_upper_case_globals, clippy::declare_interior_mutable_const)]
            pub const $name: $name = $name { path: LayerPath::new() };
        )*
        stateless! {
            $($name, |_layer| stringify!($name).to_string(), |$x| $forward $(, crate::nn::Part::Activation(crate::nn::Activation::$activation))?;)*
        }
    };
}
pub(crate) use plain;

plain! {
    /// [`Tensor::relu`] as a layer.
    ReLU is Relu, |x| x.try_relu();
    /// [`Tensor::relu6`] as a layer.
    ReLU6 is Relu6, |x| x.relu6();
    /// [`Tensor::silu`] as a layer.
    SiLU is Silu, |x| x.silu();
    /// [`Tensor::sigmoid`] as a layer.
    Sigmoid is Sigmoid, |x| x.sigmoid();
    /// [`Tensor::tanh`] as a layer.
    Tanh, |x| x.tanh();
    /// [`Tensor::hardsigmoid`] as a layer.
    Hardsigmoid is Hardsigmoid, |x| x.hardsigmoid();
    /// [`Tensor::hardswish`] as a layer.
    Hardswish is Hardswish, |x| x.hardswish();
    /// [`Tensor::softplus`] as a layer.
    Softplus, |x| x.softplus();
    /// [`Tensor::gelu`] as a layer.
    GELU, |x| x.gelu();
}

/// [`Tensor::leaky_relu`] as a layer.
#[derive(Debug)]
pub struct LeakyReLU {
    slope: f64,
    path: LayerPath,
}

impl LeakyReLU {
    /// With this slope on the negative side; PyTorch's default is 0.01.
    pub fn new(slope: f64) -> LeakyReLU {
        LeakyReLU { slope, path: LayerPath::new() }
    }
}

impl Default for LeakyReLU {
    fn default() -> LeakyReLU {
        LeakyReLU::new(0.01)
    }
}

/// [`Tensor::elu`] as a layer.
#[derive(Debug)]
pub struct ELU {
    alpha: f64,
    path: LayerPath,
}

impl ELU {
    /// With this limit on the negative side; PyTorch's default is 1.
    pub fn new(alpha: f64) -> ELU {
        ELU { alpha, path: LayerPath::new() }
    }
}

impl Default for ELU {
    fn default() -> ELU {
        ELU::new(1.0)
    }
}

/// [`Tensor::softmax`] as a layer.
#[derive(Debug)]
pub struct Softmax {
    dim: isize,
    path: LayerPath,
}

impl Softmax {
    /// Along this dimension, negative to count from the end.
    pub fn new(dim: isize) -> Softmax {
        Softmax { dim, path: LayerPath::new() }
    }
}

/// [`Tensor::log_softmax`] as a layer.
#[derive(Debug)]
pub struct LogSoftmax {
    dim: isize,
    path: LayerPath,
}

impl LogSoftmax {
    /// Along this dimension, negative to count from the end.
    pub fn new(dim: isize) -> LogSoftmax {
        LogSoftmax { dim, path: LayerPath::new() }
    }
}

/// [`Tensor::maxout`] as a layer: the largest of `pieces` consecutive channels (Goodfellow et al., 2013).
///
/// # Shape
/// `[N, C, …]` gives `[N, C / pieces, …]`.
#[derive(Debug)]
pub struct Maxout {
    pieces: usize,
    path: LayerPath,
}

impl Maxout {
    /// Over this many channels each.
    pub fn new(pieces: usize) -> Maxout {
        Maxout { pieces, path: LayerPath::new() }
    }
}

stateless! {
    LeakyReLU, |layer| format!("LeakyReLU {}", layer.slope), |x| x.leaky_relu(layer.slope);
    ELU, |layer| format!("ELU {}", layer.alpha), |x| x.elu(layer.alpha);
    Softmax, |layer| format!("Softmax dim {}", layer.dim), |x| x.softmax(layer.dim);
    LogSoftmax, |layer| format!("LogSoftmax dim {}", layer.dim), |x| x.log_softmax(layer.dim);
    Maxout, |layer| format!("Maxout {}", layer.pieces), |x| x.maxout(layer.pieces);
}
