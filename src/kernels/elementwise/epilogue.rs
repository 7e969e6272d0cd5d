//! The epilogue of a convolution, applied to its sums while they are in the cache: bias, shortcut,
//! activation, statistics.

use pulp::Simd;

use crate::kernels::norm::moments::MomentAccumulator;
use crate::kernels::runtime::arrays::MapEach;
use crate::kernels::runtime::simd::{Real, for_pairs};

/// A pointwise nonlinearity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Activation {
    /// The identity.
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
    /// Returns whether the activation is a clamp.
    pub(crate) fn clamps(self) -> bool {
        matches!(self, Activation::Relu | Activation::Relu6)
    }

    /// Returns whether the activation is neither the identity nor a clamp: it is computed by
    /// [`map`](Self::map), once all sums are in memory.
    pub(crate) fn needs_map(self) -> bool {
        self != Activation::Linear && !self.clamps()
    }

    /// Returns the lower bound of a clamp.
    #[inline(always)]
    pub(crate) fn lowest<T: Real>(self) -> Option<T> {
        self.clamps().then(T::zero)
    }

    /// Returns the upper bound of a clamp.
    #[inline(always)]
    pub(crate) fn highest<T: Real>(self) -> Option<T> {
        (self == Activation::Relu6).then(|| T::of(6.0))
    }

    /// Clamps a vector; any other activation leaves it unchanged.
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

    /// Computes a clamp's gradient for a vector: `grad` where the derivative at `z` is 1, else
    /// zero. At NaN the derivative of ReLU is 1 and that of a clamp with two bounds is 0, as in
    /// [`chain`](Self::chain) and in PyTorch.
    #[inline(always)]
    pub(crate) fn chain_clamp<S: Simd, T: Real>(self, simd: S, z: T::Vector<S>, grad: T::Vector<S>) -> T::Vector<S> {
        match [self.lowest(), self.highest()].map_each(|bound| bound.map(|bound| T::splat(simd, bound))) {
            [Some(low), Some(high)] => T::vector_within(simd, z, [low, high], grad),
            [Some(low), None] => T::vector_unless_below(simd, z, low, grad),
            _ => grad,
        }
    }
}

/// The operation `y = activation(sum + bias + residual)`.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a, T> {
    /// An addend for each output channel.
    pub bias: Option<&'a [T]>,
    /// An addend for each output element, in the layout of the output.
    pub residual: Option<&'a [T]>,
    /// The activation.
    pub activation: Activation,
    /// The destination of the statistics of sums to which only a bias is added, for algorithms that
    /// compute them.
    pub accumulator: Option<MomentAccumulator<'a, T>>,
}

impl<T> Default for Epilogue<'_, T> {
    fn default() -> Self {
        Epilogue { bias: None, residual: None, activation: Activation::Linear, accumulator: None }
    }
}

impl<'a, T: Real> Epilogue<'a, T> {
    /// Returns an epilogue of at most a bias.
    pub fn bias(bias: Option<&'a [T]>) -> Self {
        Epilogue { bias, ..Default::default() }
    }

    /// Returns the epilogue of the output from element `at` on.
    pub(crate) fn from(&self, at: usize) -> Self {
        Epilogue { residual: self.residual.map(|residual| &residual[at..]), ..*self }
    }

    /// Returns the part that remains after a tile has added bias and residual and clamped its
    /// vectors: an activation that is not a clamp.
    pub(crate) fn remaining_activation(&self) -> Option<Activation> {
        self.activation.needs_map().then_some(self.activation)
    }

    /// Returns whether the epilogue is at most a bias and a clamp, which are applied to sums while
    /// they are in registers.
    pub(crate) fn fits_registers(&self) -> bool {
        self.residual.is_none() && self.remaining_activation().is_none()
    }

    /// Returns the activation to apply to sums in registers: the clamp if
    /// [`fits_registers`](Self::fits_registers), else none yet.
    pub(crate) fn clamp_in_registers(&self) -> Activation {
        if self.fits_registers() { self.activation } else { Activation::Linear }
    }

    /// Returns whether nothing remains after the bias has been added.
    pub(crate) fn is_plain(&self) -> bool {
        self.residual.is_none() && self.activation == Activation::Linear
    }

    /// Finishes elements that include their bias already, starting at element `at` of the output.
    /// Must be called where loops are vectorised already, like [`Activation::map`].
    #[inline(always)]
    pub(crate) fn finish(&self, at: usize, y: &mut [T]) {
        if let Some(residual) = self.residual {
            for_pairs(y, &residual[at..], |y, residual| *y += residual);
        }
        self.activation.map(y);
    }
}
