//! Activation functions as layers.
//!
//! Layers without options are written without parentheses, like their names in PyTorch:
//! `net.push(ReLU)`.

use std::any::{Any, TypeId};

use crate::nn::module::Module;
use crate::nn::module::layer::LayerPath;
use crate::nn::module::macros::{plain, stateless};
use crate::ops::Activation;

plain! {
    /// [`Tensor::relu`](crate::Tensor::relu) as a layer.
    ReLU, |x| x.try_relu();
    /// [`Tensor::relu6`](crate::Tensor::relu6) as a layer.
    ReLU6, |x| x.relu6();
    /// [`Tensor::silu`](crate::Tensor::silu) as a layer.
    SiLU, |x| x.silu();
    /// [`Tensor::sigmoid`](crate::Tensor::sigmoid) as a layer.
    Sigmoid, |x| x.sigmoid();
    /// [`Tensor::tanh`](crate::Tensor::tanh) as a layer.
    Tanh, |x| x.tanh();
    /// [`Tensor::hardsigmoid`](crate::Tensor::hardsigmoid) as a layer.
    Hardsigmoid, |x| x.hardsigmoid();
    /// [`Tensor::hardswish`](crate::Tensor::hardswish) as a layer.
    Hardswish, |x| x.hardswish();
    /// [`Tensor::gelu`](crate::Tensor::gelu) as a layer.
    GELU, |x| x.gelu();
    /// [`Tensor::mish`](crate::Tensor::mish) as a layer (Misra, 2019).
    Mish, |x| x.mish();
    /// [`Tensor::selu`](crate::Tensor::selu) as a layer.
    SELU, |x| x.selu();
    /// [`Tensor::logsigmoid`](crate::Tensor::logsigmoid) as a layer.
    LogSigmoid, |x| x.logsigmoid();
}

/// Returns the activation that the layer applies, if it is one that other operations can fuse.
pub(crate) fn activation_of(layer: &dyn Module) -> Option<Activation> {
    let layer = (layer as &dyn Any).type_id();
    let known = [
        (TypeId::of::<ReLU>(), Activation::Relu),
        (TypeId::of::<ReLU6>(), Activation::Relu6),
        (TypeId::of::<SiLU>(), Activation::Silu),
        (TypeId::of::<Sigmoid>(), Activation::Sigmoid),
        (TypeId::of::<Hardsigmoid>(), Activation::Hardsigmoid),
        (TypeId::of::<Hardswish>(), Activation::Hardswish),
    ];
    known.into_iter().find(|(id, _)| *id == layer).map(|(_, activation)| activation)
}

/// [`Tensor::softplus_with`](crate::Tensor::softplus_with) as a layer.
///
/// ```
/// use convnet::{Tensor, prelude::*};
///
/// let x = Tensor::from_vec(vec![0.0f32, 30.0], [2])?;
/// assert_eq!(Softplus.forward(&x)?.to_vec::<f32>()?, [0.6931472, 30.0]);
/// assert_eq!(Softplus.beta(2.0).forward(&x)?.to_vec::<f32>()?, [0.3465736, 30.0]);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Debug)]
pub struct Softplus {
    beta: f64,
    threshold: f64,
    path: LayerPath,
}

/// A new [`struct@Softplus`] with PyTorch's defaults, β = 1 and a threshold of 20.
// Each use of the constant is a new layer with its own path, as intended.
#[allow(non_upper_case_globals, clippy::declare_interior_mutable_const)]
pub const Softplus: Softplus = Softplus { beta: 1.0, threshold: 20.0, path: LayerPath::new() };

impl Softplus {
    /// Sets β: the larger, the closer the result is to ReLU.
    pub fn beta(mut self, beta: f64) -> Softplus {
        self.beta = beta;
        self
    }

    /// Sets the value of `β · x` above which the result is `x` itself.
    pub fn threshold(mut self, threshold: f64) -> Softplus {
        self.threshold = threshold;
        self
    }

    /// Returns whether the layer is [`Tensor::softplus`](crate::Tensor::softplus), one operation.
    fn has_defaults(&self) -> bool {
        (self.beta, self.threshold) == (1.0, 20.0)
    }
}

impl Default for Softplus {
    fn default() -> Softplus {
        Softplus
    }
}

/// [`Tensor::leaky_relu`](crate::Tensor::leaky_relu) as a layer.
#[derive(Debug)]
pub struct LeakyReLU {
    slope: f64,
    path: LayerPath,
}

impl LeakyReLU {
    /// Creates the layer with this slope for negative inputs; PyTorch's default is 0.01.
    pub fn new(slope: f64) -> LeakyReLU {
        LeakyReLU { slope, path: LayerPath::new() }
    }
}

impl Default for LeakyReLU {
    fn default() -> LeakyReLU {
        LeakyReLU::new(0.01)
    }
}

/// [`Tensor::elu`](crate::Tensor::elu) as a layer.
#[derive(Debug)]
pub struct ELU {
    alpha: f64,
    path: LayerPath,
}

impl ELU {
    /// Creates the layer with this limit for negative inputs; PyTorch's default is 1.
    pub fn new(alpha: f64) -> ELU {
        ELU { alpha, path: LayerPath::new() }
    }
}

impl Default for ELU {
    fn default() -> ELU {
        ELU::new(1.0)
    }
}

/// [`Tensor::celu`](crate::Tensor::celu) as a layer.
#[derive(Debug)]
pub struct CELU {
    alpha: f64,
    path: LayerPath,
}

impl CELU {
    /// Creates the layer with this limit for negative inputs; PyTorch's default is 1.
    pub fn new(alpha: f64) -> CELU {
        CELU { alpha, path: LayerPath::new() }
    }
}

impl Default for CELU {
    fn default() -> CELU {
        CELU::new(1.0)
    }
}

/// [`Tensor::clamp`](crate::Tensor::clamp) as a layer.
#[derive(Debug)]
pub struct Hardtanh {
    range: [f64; 2],
    path: LayerPath,
}

impl Hardtanh {
    /// Creates the layer with these bounds; PyTorch's defaults are -1 and 1.
    pub fn new(min: f64, max: f64) -> Hardtanh {
        Hardtanh { range: [min, max], path: LayerPath::new() }
    }
}

impl Default for Hardtanh {
    fn default() -> Hardtanh {
        Hardtanh::new(-1.0, 1.0)
    }
}

/// [`Tensor::glu`](crate::Tensor::glu) as a layer.
#[derive(Debug)]
pub struct GLU {
    dim: isize,
    path: LayerPath,
}

impl GLU {
    /// Creates the layer for this dimension; a negative one counts from the end. PyTorch's default
    /// is -1.
    pub fn new(dim: isize) -> GLU {
        GLU { dim, path: LayerPath::new() }
    }
}

/// [`Tensor::softmax`](crate::Tensor::softmax) as a layer.
#[derive(Debug)]
pub struct Softmax {
    dim: isize,
    path: LayerPath,
}

impl Softmax {
    /// Creates the layer for this dimension; a negative one counts from the end.
    pub fn new(dim: isize) -> Softmax {
        Softmax { dim, path: LayerPath::new() }
    }
}

/// [`Tensor::log_softmax`](crate::Tensor::log_softmax) as a layer.
#[derive(Debug)]
pub struct LogSoftmax {
    dim: isize,
    path: LayerPath,
}

impl LogSoftmax {
    /// Creates the layer for this dimension; a negative one counts from the end.
    pub fn new(dim: isize) -> LogSoftmax {
        LogSoftmax { dim, path: LayerPath::new() }
    }
}

/// [`Tensor::maxout`](crate::Tensor::maxout) as a layer: the maximum of `pieces` consecutive
/// channels (Goodfellow et al., 2013).
///
/// # Shape
/// `[N, C, …]` gives `[N, C / pieces, …]`.
#[derive(Debug)]
pub struct Maxout {
    pieces: usize,
    path: LayerPath,
}

impl Maxout {
    /// Creates the layer with this many input channels per output channel.
    pub fn new(pieces: usize) -> Maxout {
        Maxout { pieces, path: LayerPath::new() }
    }

    /// Returns the number of input channels per output channel.
    pub fn pieces(&self) -> usize {
        self.pieces
    }
}

stateless! {
    Softplus { beta, threshold },
        |layer| if layer.has_defaults() { "Softplus".to_string() } else { format!("Softplus β {}, threshold {}", layer.beta, layer.threshold) },
        |x| if layer.has_defaults() { x.softplus() } else { x.softplus_with(layer.beta, layer.threshold) };
    LeakyReLU { slope }, |layer| format!("LeakyReLU {}", layer.slope), |x| x.leaky_relu(layer.slope);
    ELU { alpha }, |layer| format!("ELU {}", layer.alpha), |x| x.elu(layer.alpha);
    CELU { alpha }, |layer| format!("CELU {}", layer.alpha), |x| x.celu(layer.alpha);
    Hardtanh { range }, |layer| format!("Hardtanh {} to {}", layer.range[0], layer.range[1]), |x| x.clamp(layer.range[0], layer.range[1]);
    GLU { dim }, |layer| format!("GLU dim {}", layer.dim), |x| x.glu(layer.dim);
    Softmax { dim }, |layer| format!("Softmax dim {}", layer.dim), |x| x.softmax(layer.dim);
    LogSoftmax { dim }, |layer| format!("LogSoftmax dim {}", layer.dim), |x| x.log_softmax(layer.dim);
    Maxout { pieces }, |layer| format!("Maxout {}", layer.pieces), |x| x.maxout(layer.pieces);
}
