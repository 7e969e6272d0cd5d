//! What happens to a convolution's sums before they leave the cache: bias, shortcut, activation, statistics.

use pulp::Simd;

use crate::kernels::norm::moments::MomentAccumulator;
use crate::kernels::runtime::simd::Real;

/// A pointwise nonlinearity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Activation {
    /// None.
    #[default]
    Linear,
    /// `max(x, 0)` ([`Tensor::relu`](crate::Tensor::relu)).
    Relu,
    /// `min(max(x, 0), 6)` ([`Tensor::relu6`](crate::Tensor::relu6)).
    Relu6,
    /// `x · sigmoid(x)` ([`Tensor::silu`](crate::Tensor::silu)), also called swish.
    Silu,
    /// `x · relu6(x + 3) / 6` ([`Tensor::hardswish`](crate::Tensor::hardswish)).
    Hardswish,
    /// `1 / (1 + e⁻ˣ)` ([`Tensor::sigmoid`](crate::Tensor::sigmoid)).
    Sigmoid,
    /// `relu6(x + 3) / 6` ([`Tensor::hardsigmoid`](crate::Tensor::hardsigmoid)).
    Hardsigmoid,
}

impl Activation {
    /// Whether it is a clamp.
    pub(crate) fn clamps(self) -> bool {
        matches!(self, Activation::Relu | Activation::Relu6)
    }

    /// Whether it is neither nothing nor a clamp.
    pub(crate) fn is_curve(self) -> bool {
        self != Activation::Linear && !self.clamps()
    }

    /// What a clamp raises smaller values to.
    #[inline(always)]
    pub(crate) fn lowest<T: Real>(self) -> Option<T> {
        self.clamps().then(T::zero)
    }

    /// What a clamp lowers larger values to.
    #[inline(always)]
    pub(crate) fn highest<T: Real>(self) -> Option<T> {
        (self == Activation::Relu6).then(|| T::of(6.0))
    }

    /// A clamp of a vector; any other activation leaves it.
    #[inline(always)]
    pub(crate) fn clamp<S: Simd, T: Real>(self, simd: S, mut x: T::Vector<S>) -> T::Vector<S> {
        if let Some(low) = self.lowest() {
            x = T::vector_raise(simd, x, T::splat(simd, low));
        }
        if let Some(high) = self.highest() {
            x = T::vector_lower(simd, x, T::splat(simd, high));
        }
        x
    }

    /// A clamp's gradient for a vector: `grad` where the derivative at `z` is 1, else zero. At NaN
    /// the rectifier has the derivative 1 and a clamp with two bounds 0, as [`chain`](Self::chain)
    /// has it and as in PyTorch.
    #[inline(always)]
    pub(crate) fn chain_clamp<S: Simd, T: Real>(self, simd: S, z: T::Vector<S>, grad: T::Vector<S>) -> T::Vector<S> {
        match [self.lowest(), self.highest()].map(|bound| bound.map(|bound| T::splat(simd, bound))) {
            [Some(low), Some(high)] => T::vector_within(simd, z, [low, high], grad),
            [Some(low), None] => T::vector_unless_below(simd, z, low, grad),
            _ => grad,
        }
    }
}

/// `y = activation(sum + bias + residual)`.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a, T> {
    /// An addend for each output channel.
    pub bias: Option<&'a [T]>,
    /// An addend for each output element, laid out as the output.
    pub residual: Option<&'a [T]>,
    /// What the sum goes through.
    pub activation: Activation,
    /// Where statistics of sums that get a bias and nothing else are left, for algorithms that take them.
    pub accumulator: Option<MomentAccumulator<'a, T>>,
}

impl<T> Default for Epilogue<'_, T> {
    fn default() -> Self {
        Epilogue { bias: None, residual: None, activation: Activation::Linear, accumulator: None }
    }
}

impl<'a, T: Real> Epilogue<'a, T> {
    /// A bias, if any, and nothing else.
    pub fn bias(bias: Option<&'a [T]>) -> Self {
        Epilogue { bias, ..Default::default() }
    }

    /// The epilogue of the output from element `at` on.
    pub(crate) fn from(&self, at: usize) -> Self {
        Epilogue { residual: self.residual.map(|residual| &residual[at..]), ..*self }
    }

    /// What is left of it for a tile that has added bias and residual and clamped its vectors: an activation that is more than a clamp.
    pub(crate) fn curve(&self) -> Option<Activation> {
        self.activation.is_curve().then_some(self.activation)
    }

    /// Whether it is no more than a bias and a clamp, which sums go through before they leave the registers.
    pub(crate) fn fits_registers(&self) -> bool {
        self.residual.is_none() && self.curve().is_none()
    }

    /// What sums go through before they leave the registers: the clamp if that is all, else nothing yet.
    pub(crate) fn clamp_in_registers(&self) -> Activation {
        if self.fits_registers() { self.activation } else { Activation::Linear }
    }

    /// Whether nothing is left to do once the bias is in.
    pub(crate) fn is_plain(&self) -> bool {
        self.residual.is_none() && self.activation == Activation::Linear
    }

    /// Finishes elements that have their bias already, the ones from `at` of the output on. Where loops are vectorised already, as
    /// [`Activation::map`].
    #[inline(always)]
    pub(crate) fn finish(&self, at: usize, y: &mut [T]) {
        if let Some(residual) = self.residual {
            y.iter_mut().zip(&residual[at..]).for_each(|(y, &residual)| *y += residual);
        }
        self.activation.map(y);
    }
}
