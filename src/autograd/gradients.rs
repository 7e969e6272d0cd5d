//! The result of a backward pass: gradients by leaf, and arithmetic on all of them at once.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::kernels::runtime::simd::Real;
use crate::kernels::{elementwise, reduce};
use crate::tensor::{Tensor, compute, with_float};

/// The gradients that a backward pass computed, by leaf.
///
/// ```
/// use convnet::Tensor;
///
/// let x = Tensor::from_vec(vec![3.0f32], [1])?.with_grad();
/// let grads = (&x * &x).sum(..)?.backward()?;
/// assert_eq!(grads.get(&x).expect("x took part").item::<f32>()?, 6.0);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// Gradients of several batches are averaged by [`add`](Gradients::add) and
/// [`scale`](Gradients::scale):
///
/// ```
/// use convnet::{Tensor, autograd::Gradients};
///
/// let w = Tensor::from_vec(vec![1.0f32, 2.0], [2])?.with_grad();
/// let mut total = Gradients::default();
/// for x in [1.0, 3.0] {
///     total.add(&w.mul_scalar(x).sum(..)?.backward()?)?;
/// }
/// total.scale(0.5);
/// assert_eq!(total.get(&w).expect("w took part").to_vec::<f32>()?, [2.0, 2.0]);
/// assert_eq!(total.norm()?, 8f64.sqrt());
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    // Ordered by the leaves' numbers, so that sums over all gradients have a fixed order.
    by_leaf: BTreeMap<u64, Tensor>,
    /// Gradients of inner tensors marked by [`retain_grad`](Tensor::retain_grad).
    inner: BTreeMap<u64, Tensor>,
}

impl Gradients {
    /// Returns the gradient of a leaf, or of an inner tensor that was marked by
    /// [`retain_grad`](Tensor::retain_grad), with the tensor's shape; `None` when the tensor did
    /// not take part, or is neither.
    ///
    /// All other functions except [`remove`](Gradients::remove) concern leaves only.
    pub fn get(&self, tensor: &Tensor) -> Option<&Tensor> {
        let number = tensor.node()?.number;
        self.by_leaf.get(&number).or_else(|| self.inner.get(&number))
    }

    /// Removes and returns the gradient of a leaf or of a marked inner tensor.
    pub fn remove(&mut self, tensor: &Tensor) -> Option<Tensor> {
        let number = tensor.node()?.number;
        self.by_leaf.remove(&number).or_else(|| self.inner.remove(&number))
    }

    /// Replaces the gradient of a leaf. Does nothing for a tensor that does not require a gradient.
    pub fn insert(&mut self, leaf: &Tensor, gradient: Tensor) {
        if let Some(node) = leaf.node() {
            self.insert_number(node.number, gradient);
        }
    }

    pub(super) fn insert_number(&mut self, leaf: u64, gradient: Tensor) {
        self.by_leaf.insert(leaf, gradient);
    }

    pub(super) fn insert_inner(&mut self, node: u64, gradient: Tensor) {
        self.inner.insert(node, gradient);
    }

    /// Returns the number of leaves that have a gradient.
    pub fn len(&self) -> usize {
        self.by_leaf.len()
    }

    /// Returns whether no leaf has a gradient.
    pub fn is_empty(&self) -> bool {
        self.by_leaf.is_empty()
    }

    /// Iterates over all gradients, in the order in which their leaves were made.
    /// [`Module::named_gradients`](crate::nn::Module::named_gradients) returns them with names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Tensor> {
        self.by_leaf.values()
    }

    /// Adds the gradients of another pass, leaf by leaf; a leaf that has none yet gets the other's.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::DType`] when two gradients of a leaf differ in shape or type;
    /// then nothing is changed. [`Error::OutOfMemory`] when memory cannot hold a sum; then each
    /// leaf has its earlier gradient or the sum.
    pub fn add(&mut self, other: &Gradients) -> Result<()> {
        for (leaf, gradient) in &other.by_leaf {
            let Some(sum) = self.by_leaf.get(leaf) else { continue };
            gradient.expect_dtype("Gradients::add", sum.dtype())?;
            if gradient.shape() != sum.shape() {
                let message = format!("two gradients of a leaf have shapes {:?} and {:?}", sum.shape(), gradient.shape());
                return Err(Error::shape("Gradients::add", message));
            }
        }
        for (&leaf, gradient) in &other.by_leaf {
            let Some(sum) = self.by_leaf.get_mut(&leaf) else {
                self.insert_number(leaf, gradient.clone());
                continue;
            };
            // A sum in place needs no memory; another is complete before it replaces the old one.
            let gradient = gradient.to_format(sum.memory_format())?;
            let old = if sum.is_unique() { std::mem::replace(sum, gradient.clone()) } else { sum.clone() };
            *sum = compute::accumulate(old, gradient)?;
        }
        Ok(())
    }

    /// Multiplies every gradient by a number, in place where the gradient is not shared.
    ///
    /// # Panics
    /// When a gradient that [`insert`](Gradients::insert) put here is not floating point, and when
    /// memory cannot hold a copy of a shared one.
    pub fn scale(&mut self, factor: f64) {
        for gradient in self.by_leaf.values_mut() {
            map(gradient, Scale { factor }).unwrap_or_else(|error| panic!("Gradients::scale: {error}"));
        }
    }

    /// Returns the Euclidean norm of all gradients together, computed in f64 and in a fixed order.
    ///
    /// # Errors
    /// [`Error::DType`] when a gradient that [`insert`](Gradients::insert) put here is not floating
    /// point.
    pub fn norm(&self) -> Result<f64> {
        norm_of(self.iter())
    }

    /// Applies `f` to the gradient of a leaf, if it has one; on an error the gradient is unchanged.
    pub(crate) fn map<F: elementwise::Unary>(&mut self, leaf: &Tensor, f: F) -> Result<()> {
        let gradient = leaf.node().and_then(|node| self.by_leaf.get_mut(&node.number));
        gradient.map_or(Ok(()), |gradient| map(gradient, f))
    }
}

/// Returns the Euclidean norm of several tensors together, in a fixed order of summation, so that
/// it does not depend on the number of threads.
pub(crate) fn norm_of<'a>(gradients: impl Iterator<Item = &'a Tensor>) -> Result<f64> {
    let mut sum = 0.0;
    for gradient in gradients {
        sum += with_float!(gradient.dtype(), "norm", T => reduce::sum_of_squares(gradient.data::<T>()));
    }
    Ok(sum.sqrt())
}

/// Multiplication by a number.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) factor: f64,
}

impl elementwise::Unary for Scale {
    #[inline(always)]
    fn apply<T: Real>(self, x: T) -> T {
        x * T::of(self.factor)
    }
}

/// Applies `f` to a gradient, in place when its memory is not shared. On an error the gradient is
/// unchanged.
fn map<F: elementwise::Unary>(gradient: &mut Tensor, f: F) -> Result<()> {
    with_float!(gradient.dtype(), "gradient", T => {
        if let Some(data) = gradient.data_mut::<T>() {
            elementwise::map_in_place(data, F::COST, |x| f.apply(x));
            return Ok(());
        }
    });
    *gradient = compute::map("gradient", gradient, f)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradients(x: &Tensor, factor: f64) -> Gradients {
        x.mul_scalar(factor).sum(..).unwrap().backward().unwrap()
    }

    #[test]
    fn add_and_scale_leave_shared_gradients_unchanged() {
        let (a, b) = (Tensor::ones([2]).with_grad(), Tensor::ones([3]).with_grad());
        let (mut total, other) = (gradients(&a, 1.0), gradients(&b, 2.0));
        total.add(&other).unwrap();
        total.add(&other).unwrap();
        total.scale(0.5);
        let value = |gradients: &Gradients, leaf: &Tensor| gradients.get(leaf).unwrap().to_vec::<f32>().unwrap();
        assert_eq!((value(&total, &a), value(&total, &b)), (vec![0.5; 2], vec![2.0; 3]));
        assert_eq!(value(&other, &b), [2.0; 3]);
        assert_eq!(total.iter().map(Tensor::numel).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(total.norm().unwrap(), (2.0f64 * 0.25 + 3.0 * 4.0).sqrt());
    }

    #[test]
    fn adding_unfit_gradients_fails_and_changes_nothing() {
        let (a, b) = (Tensor::ones([2]).with_grad(), Tensor::ones([3]).with_grad());
        let (mut total, mut wrong) = (gradients(&a, 1.0), gradients(&b, 1.0));
        wrong.insert(&a, Tensor::ones([1, 2]));
        let error = total.add(&wrong).unwrap_err().to_string();
        assert_eq!(error, "Gradients::add: two gradients of a leaf have shapes [2] and [1, 2]");
        wrong.insert(&a, Tensor::arange(2));
        assert!(total.add(&wrong).unwrap_err().to_string().contains("expected f32, got i64"));
        assert_eq!(total.len(), 1);
        assert!(wrong.norm().is_err());
    }
}
