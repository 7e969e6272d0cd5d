//! Kernels applied to tensors, without history; `autograd` and `ops` are built on them.

use super::meta::is_meta;
use super::shape::{broadcast, broadcast_shapes, formats_agree, numel, strides};
use super::{DType, Element, MemoryFormat, Tensor, with_dtype, with_float};
use crate::error::{Error, Result};
use crate::kernels::elementwise::{self, Binary, OntoLoop, PairLoop, Unary};
use crate::kernels::reduce;
use crate::kernels::runtime::allocator::{AlignedVec, catching};
use crate::kernels::runtime::arrays::sort_by;
use crate::kernels::runtime::simd::Scalar;

/// Applies `f` to each element; floating point only.
pub(crate) fn map<F: Unary>(op: &'static str, x: &Tensor, f: F) -> Result<Tensor> {
    Ok(with_float!(x.dtype(), op, T => Tensor::build(x.shape(), x.memory_format(), |y: &mut [T]| {
        elementwise::map(x.data::<T>(), y, F::COST, |x| f.apply(x));
    })?))
}

/// Applies `f` to each pair of elements of two floating-point tensors of one dtype, broadcast
/// together.
///
/// The result is channels-last when a 4-D operand with the result's shape is.
pub(crate) fn zip<F: Binary>(op: &'static str, a: &Tensor, b: &Tensor, f: F) -> Result<Tensor> {
    same_dtype(op, a, b)?;
    with_float!(a.dtype(), op, T => zip_with(op, a, b, F::COST, |a: T, b: T| -> T { f.apply(a, b) }))
}

/// Applies `f` to each pair of elements of the given types, broadcast together.
pub(crate) fn zip_with<A: Element, B: Element, Y: Element>(
    op: &'static str,
    a: &Tensor,
    b: &Tensor,
    cost: usize,
    f: impl Fn(A, B) -> Y + Copy + Sync,
) -> Result<Tensor> {
    zip_pairs(op, a, b, cost, &elementwise::pairs(f))
}

/// Applies `f` as [`zip_with`] does, compiled once for all functions of these types.
fn zip_pairs<A: Element, B: Element, Y: Element>(
    op: &'static str,
    a: &Tensor,
    b: &Tensor,
    cost: usize,
    f: &dyn PairLoop<A, B, Y>,
) -> Result<Tensor> {
    let shape = if a.shape() == b.shape() { a.shape().to_vec() } else { broadcast_shapes(op, a.shape(), b.shape())? };
    if super::shape::try_numel(&shape).is_none() {
        return Err(Error::shape(
            op,
            format!("shapes {:?} and {:?} broadcast to more elements than memory can hold", a.shape(), b.shape()),
        ));
    }
    let format = common_format(&shape, a, b);
    Tensor::build(&shape, format, |y: &mut [Y]| {
        let alike = |t: &Tensor| t.shape() == shape && (t.memory_format() == format || formats_agree(&shape));
        if alike(a) && alike(b) {
            return elementwise::zip(a.data(), b.data(), y, cost, f);
        }
        let walk = broadcast(&shape, format, [(a.shape(), a.memory_format()), (b.shape(), b.memory_format())]);
        elementwise::zip_broadcast(&walk, a.data(), b.data(), y, cost, f);
    })
}

/// Applies `f` to each pair of elements of tensors of one shape, as in backward passes. The result
/// has the type and the memory format of `a`, and overwrites it when no other handle shares its
/// elements.
pub(crate) fn zip_onto<A: Element, B: Element>(
    op: &'static str,
    a: Tensor,
    b: &Tensor,
    cost: usize,
    f: impl Fn(A, B) -> A + Copy + Sync,
) -> Result<Tensor> {
    zip_pairs_onto(op, a, b, cost, &elementwise::pairs_in_place(f))
}

/// Applies `f` as [`zip_onto`] does, compiled once for all functions of these types.
fn zip_pairs_onto<A: Element, B: Element>(
    op: &'static str,
    mut a: Tensor,
    b: &Tensor,
    cost: usize,
    f: &dyn OntoLoop<A, B>,
) -> Result<Tensor> {
    if a.shape() != b.shape() {
        return Err(Error::shape(op, format!("expected equal shapes, got {:?} and {:?}", a.shape(), b.shape())));
    }
    let b = b.to_format(a.memory_format())?;
    if let Some(target) = a.data_mut::<A>() {
        elementwise::zip_in_place(target, b.data(), cost, f);
        return Ok(a);
    }
    Tensor::build(a.shape(), a.memory_format(), |y: &mut [A]| elementwise::zip_copied(a.data(), b.data(), y, cost, f))
}

/// Applies `f` to each element, from any dtype to any other.
pub(crate) fn map_with<X: Element, Y: Element>(x: &Tensor, cost: usize, f: impl Fn(X) -> Y + Copy + Sync) -> Result<Tensor> {
    Tensor::build(x.shape(), x.memory_format(), |y: &mut [Y]| elementwise::map(x.data(), y, cost, f))
}

/// Fails with [`Error::MixedDTypes`] unless a floating-point input and the tensor that it is
/// combined with have one dtype, and with [`Error::DType`] when that tensor is not floating point.
pub(crate) fn like_input(op: &'static str, x: &Tensor, name: &'static str, tensor: &Tensor) -> Result<()> {
    if tensor.dtype() == x.dtype() {
        return Ok(());
    }
    tensor.expect_float(op)?;
    Err(Error::MixedDTypes { op, input: x.dtype(), name, dtype: tensor.dtype() })
}

/// Fails with [`Error::DType`] unless both tensors have one dtype.
pub(crate) fn same_dtype(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    b.expect_dtype(op, a.dtype())
}

fn common_format(shape: &[usize], a: &Tensor, b: &Tensor) -> MemoryFormat {
    let asks = |t: &Tensor| t.memory_format() == MemoryFormat::ChannelsLast && t.shape() == shape;
    if asks(a) || asks(b) { MemoryFormat::ChannelsLast } else { MemoryFormat::RowMajor }
}

/// Returns `a + b` for gradients of one dtype, broadcast together; overwrites one that has the
/// sum's shape and format if no other handle shares its elements.
pub(crate) fn accumulate(mut a: Tensor, mut b: Tensor) -> Result<Tensor> {
    same_dtype("accumulate", &a, &b)?;
    let shape = broadcast_shapes("accumulate", a.shape(), b.shape())?;
    let format = common_format(&shape, &a, &b);
    let can_hold = |t: &mut Tensor| t.shape() == shape && t.memory_format() == format && t.is_unique();
    if !can_hold(&mut a) {
        std::mem::swap(&mut a, &mut b);
    }
    with_dtype!(a.dtype(), T => {
        if can_hold(&mut a) && let Some(target) = a.data_mut::<T>() {
            if b.shape() == shape && b.memory_format() == format {
                elementwise::zip_in_place(target, b.data::<T>(), 1, &elementwise::pairs_in_place(T::plus));
            } else {
                let walk = broadcast(&shape, format, [(&shape, format), (b.shape(), b.memory_format())]);
                elementwise::zip_broadcast_in_place(&walk, target, b.data::<T>(), 1, &elementwise::pairs_in_place(T::plus));
            }
            return Ok(a);
        }
        zip_with("accumulate", &a, &b, 1, T::plus)
    })
}

/// Returns the dimensions of the product of `map` and `gate`, and of its gradient, as
/// `[outer, repeats, inner]`, if the gate is `[outer, inner]` in memory: for example `[N, C, 1, 1]`
/// with channels-last maps.
pub(crate) fn repeated_rows(grad: &Tensor, map: &Tensor, gate: &Tensor) -> Option<[usize; 3]> {
    let (shape, format, dtype) = (grad.shape(), grad.memory_format(), grad.dtype());
    let fits = map.shape() == shape && map.memory_format() == format && map.dtype() == dtype && gate.dtype() == dtype;
    fits.then(|| broadcast(shape, format, [(shape, format), (gate.shape(), gate.memory_format())]).repeated_rows())?
}

/// Computes the gradients of `map` and `gate` from `grad`, the gradient of their product, in one
/// pass; overwrites `grad` when no other handle shares its elements.
pub(crate) fn gated_gradients(rows: [usize; 3], mut grad: Tensor, map: &Tensor, gate: &Tensor) -> Result<[Tensor; 2]> {
    let of_gate = with_dtype!(grad.dtype(), T => {
        let target = grad.make_mut()?;
        Tensor::build(gate.shape(), gate.memory_format(), |sums: &mut [T]| {
            reduce::product_gradients(rows, map.data(), gate.data(), target, sums);
        })?
    });
    Ok([grad, of_gate])
}

/// Returns the shape with size 1 for the dimensions `axes`.
fn kept(shape: &[usize], axes: &[usize]) -> Vec<usize> {
    shape.iter().enumerate().map(|(axis, &n)| if axes.contains(&axis) { 1 } else { n }).collect()
}

/// Returns the reductions that fold the dimensions `axes` of `x`, which is not empty, one after the
/// other: `[outer, reduced, inner]` in memory order.
fn reductions(x: &Tensor, axes: &[usize]) -> Vec<[usize; 3]> {
    // The sizes in memory order, and whether they are reduced; neighbours of one kind are merged.
    let strides = strides(x.shape(), x.memory_format());
    let mut order: Vec<usize> = (0..x.ndim()).collect();
    sort_by(&mut order, |&a, &b| (strides[b], a).cmp(&(strides[a], b)));
    let mut runs: Vec<(usize, bool)> = vec![];
    for axis in order.into_iter().filter(|&axis| x.shape()[axis] != 1) {
        let reduced = axes.contains(&axis);
        match runs.last_mut() {
            Some((size, kind)) if *kind == reduced => *size *= x.shape()[axis],
            _ => runs.push((x.shape()[axis], reduced)),
        }
    }
    // One reduced run at a time, the innermost first; each makes the input of the next one smaller.
    let mut reductions = vec![];
    while let Some(at) = runs.iter().rposition(|&(_, reduced)| reduced) {
        let size = |runs: &[(usize, bool)]| runs.iter().map(|&(n, _)| n).product::<usize>();
        reductions.push([size(&runs[..at]), runs[at].0, size(&runs[at + 1..])]);
        runs.remove(at);
    }
    reductions
}

/// Folds over the dimensions `axes` (sorted), which remain with size 1. Reads memory in order in
/// either format.
pub(crate) fn reduce_with<T: Element, A: Element>(
    x: &Tensor,
    axes: &[usize],
    zero: A,
    add: impl Fn(A, T) -> A + Copy + Sync,
    join: impl Fn(A, A) -> A + Copy + Sync,
) -> Result<Tensor> {
    let kept = kept(x.shape(), axes);
    if x.numel() == 0 || is_meta() {
        return Tensor::build(&kept, x.memory_format(), |out: &mut [A]| out.fill(zero));
    }
    let mut current: Option<AlignedVec<A>> = None;
    for dims in reductions(x, axes) {
        current = Some(catching(|| {
            let mut y = AlignedVec::uninit(dims[0] * dims[2]);
            match &current {
                None => reduce::reduce(dims, x.data::<T>(), &mut y, zero, add, join),
                Some(partial) => reduce::reduce(dims, partial, &mut y, zero, join, join),
            }
            y
        })?);
    }
    Tensor::build(&kept, x.memory_format(), |out: &mut [A]| match &current {
        Some(result) => out.copy_from_slice(result),
        None => elementwise::map(x.data::<T>(), out, 1, |x| add(zero, x)),
    })
}

/// Repeats `x` along dimensions of size 1, and along new ones in front, up to `shape`; keeps the
/// format of `x` if both are 4-D.
pub(crate) fn repeat_to(x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if x.shape() == shape {
        return Ok(x.clone());
    }
    let format = if x.ndim() == 4 && shape.len() == 4 { x.memory_format() } else { MemoryFormat::RowMajor };
    let own = (x.shape(), x.memory_format());
    with_dtype!(x.dtype(), T => Tensor::build(shape, format, |y: &mut [T]| {
        if !y.is_empty() {
            let walk = broadcast(shape, format, [own, own]);
            elementwise::zip_broadcast(&walk, x.data(), x.data(), y, 1, &elementwise::pairs(|x: T, _: T| x));
        }
    }))
}

/// Sums `x` down to `shape`, from which it was broadcast; a dimension in which `x` has size 1 and
/// `shape` has more keeps size 1.
pub(crate) fn sum_to(x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if x.shape() == shape {
        return Ok(x.clone());
    }
    let extra = x.ndim() - shape.len();
    let axes: Vec<usize> = (0..x.ndim()).filter(|&axis| axis < extra || shape[axis - extra] == 1 && x.shape()[axis] != 1).collect();
    if axes.is_empty() {
        return Ok(x.clone());
    }
    let summed = with_dtype!(x.dtype(), T => reduce_with(x, &axes, T::default(), T::plus, T::plus)?);
    debug_assert_eq!(summed.numel(), numel(shape));
    let keeps_format = shape.len() == 4 && extra == 0;
    Ok(if keeps_format { summed } else { summed.to_format(MemoryFormat::RowMajor)?.with_shape(shape, MemoryFormat::RowMajor) })
}

/// Returns the wider dtype of both operands: u8 < i64 < f32 < f64, as PyTorch promotes.
pub(crate) fn promote(a: &Tensor, b: &Tensor) -> DType {
    a.dtype().max(b.dtype())
}
