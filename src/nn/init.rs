//! Initial weights.
//!
//! Each function returns a new `f32` tensor drawn from this thread's generator
//! ([`manual_seed`](crate::manual_seed)) for
//! [`Parameter::set`](super::Parameter::set):
//!
//! ```
//! use convnet::nn::{Conv2d, init};
//!
//! let conv = Conv2d::new(3, 8, 3);
//! conv.weight.set(&init::kaiming_normal(conv.weight.shape(), init::Fan::Out, init::Gain::Relu)?)?;
//! # Ok::<(), convnet::Error>(())
//! ```
//!
//! Layers are initialised as in PyTorch. A new layer draws one number from the generator, the seed
//! of its weights, which are computed on first use: a network whose weights are loaded from a file
//! draws none.

use rand::Rng;
use rand::rngs::ChaCha8Rng;

use crate::error::{Error, Result};
use crate::nn::{Item, Module, Parameter, Visitor};
use crate::tensor::rng::{fill_normal, seeded, short_unit, with_generator};
use crate::tensor::shape::try_numel;
use crate::tensor::{DType, MemoryFormat, Tensor};

/// The quantity whose variance the initial weights preserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fan {
    /// The activations in the forward pass: divides by the number of inputs of a unit.
    In,
    /// The gradients in the backward pass: divides by the number of outputs of a unit.
    Out,
}

/// The factor by which weights are larger to compensate for the activation function that follows.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Gain {
    /// 1, for no activation or sigmoid.
    Linear,
    /// √2, for ReLU.
    Relu,
    /// √(2 / (1 + slope²)), for leaky ReLU.
    LeakyRelu(f64),
    /// 5/3, for tanh.
    Tanh,
    /// 3/4, for SELU.
    Selu,
    /// This number.
    Custom(f64),
}

impl Gain {
    /// Returns the factor.
    pub fn value(self) -> f64 {
        match self {
            Gain::Linear => 1.0,
            Gain::Relu => std::f64::consts::SQRT_2,
            Gain::LeakyRelu(slope) => (2.0 / (1.0 + slope * slope)).sqrt(),
            Gain::Tanh => 5.0 / 3.0,
            Gain::Selu => 0.75,
            Gain::Custom(value) => value,
        }
    }
}

/// Returns the numbers of inputs and outputs of a unit: for `[out, in, k…]`, `in·k…` and `out·k…`.
///
/// # Errors
/// [`Error::Shape`] with fewer than two dimensions.
pub fn fans(shape: impl AsRef<[usize]>) -> Result<(usize, usize)> {
    let shape = checked("fans", shape.as_ref())?;
    let &[out, inputs, ref kernel @ ..] = shape else {
        return Err(Error::shape("fans", format!("a weight has at least 2 dimensions, got shape {shape:?}")));
    };
    let taps = kernel.iter().try_fold(1usize, |n, &k| n.checked_mul(k));
    let fans = taps.and_then(|taps| Some((inputs.checked_mul(taps)?, out.checked_mul(taps)?)));
    fans.ok_or_else(|| Error::shape("fans", format!("shape {shape:?} is too large")))
}

/// Draws uniformly in ±gain·√(3 / fan) (He et al., 2015).
///
/// # Errors
/// [`Error::Shape`] with fewer than two dimensions.
pub fn kaiming_uniform(shape: impl AsRef<[usize]>, fan: Fan, gain: Gain) -> Result<Tensor> {
    let bound = 3f64.sqrt() * kaiming_std(shape.as_ref(), fan, gain)?;
    uniform(shape, -bound, bound)
}

/// Draws from a normal distribution with standard deviation gain / √fan (He et al., 2015).
///
/// # Errors
/// [`Error::Shape`] with fewer than two dimensions.
pub fn kaiming_normal(shape: impl AsRef<[usize]>, fan: Fan, gain: Gain) -> Result<Tensor> {
    let std = kaiming_std(shape.as_ref(), fan, gain)?;
    normal(shape, 0.0, std)
}

fn kaiming_std(shape: &[usize], fan: Fan, gain: Gain) -> Result<f64> {
    let (fan_in, fan_out) = fans(shape)?;
    let fan = if fan == Fan::In { fan_in } else { fan_out };
    Ok(gain.value() / (fan.max(1) as f64).sqrt())
}

/// Draws uniformly in ±gain·√(6 / (fan in + fan out)) (Glorot and Bengio, 2010).
///
/// # Errors
/// [`Error::Shape`] with fewer than two dimensions.
pub fn xavier_uniform(shape: impl AsRef<[usize]>, gain: Gain) -> Result<Tensor> {
    let bound = 3f64.sqrt() * xavier_std(shape.as_ref(), gain)?;
    uniform(shape, -bound, bound)
}

/// Draws from a normal distribution with standard deviation gain·√(2 / (fan in + fan out)) (Glorot
/// and Bengio, 2010).
///
/// # Errors
/// [`Error::Shape`] with fewer than two dimensions.
pub fn xavier_normal(shape: impl AsRef<[usize]>, gain: Gain) -> Result<Tensor> {
    let std = xavier_std(shape.as_ref(), gain)?;
    normal(shape, 0.0, std)
}

fn xavier_std(shape: &[usize], gain: Gain) -> Result<f64> {
    let (fan_in, fan_out) = fans(shape)?;
    Ok(gain.value() * (2.0 / ((fan_in as f64 + fan_out as f64).max(1.0))).sqrt())
}

/// Draws uniformly in `[low, high)`.
///
/// # Errors
/// [`Error::Shape`] when the shape has more elements than memory can hold.
pub fn uniform(shape: impl AsRef<[usize]>, low: f64, high: f64) -> Result<Tensor> {
    let shape = checked("uniform", shape.as_ref())?;
    with_generator(|generator| draw_uniform(generator, shape, low, high))
}

/// Draws from a normal distribution.
///
/// # Errors
/// [`Error::Shape`] when the shape has more elements than memory can hold.
pub fn normal(shape: impl AsRef<[usize]>, mean: f64, std: f64) -> Result<Tensor> {
    let shape = checked("normal", shape.as_ref())?;
    with_generator(|generator| draw_normal(generator, shape, |z| Some(mean + std * z)))
}

/// Draws from a normal distribution and draws numbers outside `[low, high]` again, as for
/// torchvision's Inception and GoogLeNet.
///
/// # Errors
/// [`Error::Argument`] when almost none of the distribution is inside the interval.
pub fn truncated_normal(shape: impl AsRef<[usize]>, mean: f64, std: f64, low: f64, high: f64) -> Result<Tensor> {
    let shape = checked("truncated_normal", shape.as_ref())?;
    let within = |z: f64| Some(mean + std * z).filter(|x| (low..=high).contains(x));
    with_generator(|generator| draw_normal(generator, shape, within)).map_err(|error| match error {
        Error::Value { .. } => {
            let message = format!("[{low}, {high}] holds next to nothing of a normal distribution with mean {mean} and deviation {std}");
            Error::argument("truncated_normal", message)
        }
        other => other,
    })
}

/// Fills a tensor with one value.
///
/// # Errors
/// [`Error::Shape`] when the shape has more elements than memory can hold.
pub fn constant(shape: impl AsRef<[usize]>, value: f64) -> Result<Tensor> {
    Tensor::try_full(checked("constant", shape.as_ref())?, value, DType::F32)
}

fn checked<'a>(op: &'static str, shape: &'a [usize]) -> Result<&'a [usize]> {
    match try_numel(shape) {
        Some(_) => Ok(shape),
        None => Err(Error::shape(op, format!("shape {shape:?} has more elements than memory can hold"))),
    }
}

fn draw_uniform(generator: &mut ChaCha8Rng, shape: &[usize], low: f64, high: f64) -> Result<Tensor> {
    Tensor::build(shape, MemoryFormat::RowMajor, |out: &mut [f32]| {
        out.iter_mut().for_each(|x| {
            let drawn = (low + (high - low) * short_unit(generator)) as f32;
            // Rounding may reach the upper bound.
            *x = if f64::from(drawn) >= high && low < high { drawn.next_down() } else { drawn };
        });
    })
}

/// Draws standard normal numbers and maps them by `accept`; draws again where that returns `None`.
/// Fails after 100,000 rejections in a row.
fn draw_normal(generator: &mut ChaCha8Rng, shape: &[usize], accept: impl Fn(f64) -> Option<f64>) -> Result<Tensor> {
    let mut buffer = [0.0; 256];
    let mut next = buffer.len();
    let mut draw = || {
        (0..100_000).find_map(|_| {
            if next == buffer.len() {
                fill_normal(generator, &mut buffer);
                next = 0;
            }
            next += 1;
            accept(buffer[next - 1])
        })
    };
    Tensor::try_build(shape, MemoryFormat::RowMajor, |out: &mut [f32]| {
        for x in out {
            *x = draw().ok_or_else(|| Error::value("normal", "no number of 100,000 is accepted"))? as f32;
        }
        Ok(())
    })
}

/// Draws the seed of a layer's weights from this thread's generator.
pub(super) fn layer_seed() -> u64 {
    with_generator(ChaCha8Rng::next_u64)
}

/// Returns a parameter with PyTorch's default for dense and convolutional layers, weight and bias
/// alike: uniform in ±1/√fan_in, which for the weight is Kaiming's bound with a = √5. `stream`
/// distinguishes the tensors of one layer.
pub(super) fn layer_default(shape: Vec<usize>, fan_in: usize, seed: u64, stream: u64) -> Parameter {
    let bound = if fan_in == 0 { 0.0 } else { 1.0 / (fan_in as f64).sqrt() };
    Parameter::lazy(shape, move |shape| {
        let mut generator = seeded(seed);
        generator.set_stream(stream);
        draw_uniform(&mut generator, shape, -bound, bound)
    })
}

/// Returns a parameter that is drawn from the standard normal distribution and then changed by
/// `adjust`.
pub(super) fn layer_normal(shape: Vec<usize>, adjust: impl Fn(&mut [f32]) + Send + Sync + 'static) -> Parameter {
    let seed = layer_seed();
    Parameter::lazy(shape, move |shape| {
        let mut values = draw_normal(&mut seeded(seed), shape, Some)?;
        adjust(values.make_mut()?);
        Ok(values)
    })
}

/// Returns a parameter that is filled with one value.
pub(super) fn layer_constant(shape: Vec<usize>, value: f64) -> Parameter {
    Parameter::lazy(shape, move |shape| Tensor::try_full(shape, value, DType::F32))
}

/// An initialisation that a network uses in place of the layer's default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Init {
    /// One value.
    Constant(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform in plus or minus this bound.
    Uniform(f64),
}

impl Init {
    /// Returns Kaiming's normal distribution for ReLU by the number of outputs, torchvision's
    /// choice for most networks.
    pub(crate) fn kaiming_fan_out(shape: &[usize]) -> Init {
        Init::Normal(kaiming_std(shape, Fan::Out, Gain::Relu).unwrap_or(0.0))
    }

    /// Returns Kaiming's normal distribution for ReLU by the number of inputs.
    pub(crate) fn kaiming_fan_in(shape: &[usize]) -> Init {
        Init::Normal(kaiming_std(shape, Fan::In, Gain::Relu).unwrap_or(0.0))
    }
}

/// A parameter as [`initialise`] passes it to its closure.
pub(crate) struct ParamInfo<'a> {
    /// The type of its layer, as in `Conv2d`.
    pub(crate) layer: &'a str,
    /// The path, as in `features.0.weight`.
    pub(crate) path: &'a str,
    /// The last name of the path, as in `weight`.
    pub(crate) name: &'a str,
    pub(crate) shape: &'a [usize],
}

/// Initialises all parameters as torchvision's models do after they are built; for `None`, a
/// parameter keeps its layer's default. Nothing is drawn yet: each weight is computed on first use,
/// from its own seed.
pub(crate) fn initialise<M: Module>(module: M, choose: impl Fn(ParamInfo<'_>) -> Option<Init>) -> M {
    let mut layer = String::new();
    Visitor::walk(&module, &mut |path, item| match item {
        Item::Enter { type_name } => layer = type_name.to_string(),
        Item::Parameter(parameter) => {
            let name = path.rsplit('.').next().unwrap_or(path);
            let Some(start) = choose(ParamInfo { layer: &layer, path, name, shape: &parameter.shape() }) else { return };
            let seed = layer_seed();
            let set = parameter.start_with(move |shape| {
                let mut generator = seeded(seed);
                match start {
                    Init::Constant(value) => Tensor::try_full(shape, value, DType::F32),
                    Init::Normal(std) => draw_normal(&mut generator, shape, |z| Some(std * z)),
                    Init::Uniform(bound) => draw_uniform(&mut generator, shape, -bound, bound),
                }
            });
            set.expect("the new value has the parameter's shape");
        }
        _ => {}
    });
    module
}
