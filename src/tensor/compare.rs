//! Comparisons of whole tensors: exact, and within tolerances by the traits of the `approx` crate.

use std::fmt;

use approx::{AbsDiffEq, RelativeEq};

use super::{Element, Tensor, with_dtype};
use crate::DType;
use crate::error::{Error, Result};

/// The element at which two tensors differ most; see [`Tensor::worst_difference`].
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The index of the element, a number for each dimension.
    pub index: Vec<usize>,
    /// The element of the tensor itself, as `f64`.
    pub left: f64,
    /// The element of the other tensor, as `f64`.
    pub right: f64,
}

/// Prints the index, both elements and their distance.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { index, left, right } = self;
        write!(f, "{left} and {right} at {index:?} differ by {:e}", (left - right).abs())
    }
}

/// Returns whether shape, dtype and all pairs of elements agree.
fn all<T: Element>(a: &Tensor, b: &Tensor, agree: impl Fn(T, T) -> bool) -> bool {
    let (Ok(a), Ok(b)) = (a.view::<T>(), b.view::<T>()) else { return false };
    a.shape() == b.shape() && a.iter().zip(&b).all(|(&a, &b)| agree(a, b))
}

/// Compares as [`all`] does, with elements of any type converted to `f64`.
fn all_f64(a: &Tensor, b: &Tensor, agree: impl Fn(f64, f64) -> bool) -> bool {
    with_dtype!(a.dtype(), T => all::<T>(a, b, |a, b| agree(wide(a), wide(b))))
}

fn wide<T: Element>(x: T) -> f64 {
    x.to_f64().expect("every element has a nearest f64")
}

/// Two tensors are equal when their shapes, dtypes and elements are, whatever their memory formats
/// and histories; NaN differs from NaN, as with numbers.
impl PartialEq for Tensor {
    fn eq(&self, other: &Tensor) -> bool {
        with_dtype!(self.dtype(), T => all::<T>(self, other, |a, b| a == b))
    }
}

/// Two tensors agree when their shapes and dtypes are equal and their elements differ by at most
/// `epsilon`; NaN agrees with nothing.
///
/// ```
/// use approx::{assert_abs_diff_eq, assert_relative_eq};
/// use convnet::Tensor;
///
/// let x = Tensor::from_vec(vec![1.0f32, 2.0], [2])?;
/// assert_abs_diff_eq!(x, &x + 1e-4, epsilon = 1e-3);
/// assert_relative_eq!(x, &x * 1.001, max_relative = 1e-2);
/// # Ok::<(), convnet::Error>(())
/// ```
impl AbsDiffEq for Tensor {
    type Epsilon = f64;

    /// Returns the machine epsilon of `f32`.
    fn default_epsilon() -> f64 {
        f64::from(f32::EPSILON)
    }

    fn abs_diff_eq(&self, other: &Tensor, epsilon: f64) -> bool {
        all_f64(self, other, |a, b| a.abs_diff_eq(&b, epsilon) || a == b)
    }
}

/// Two tensors agree as for [`AbsDiffEq`], except that elements may also differ by `max_relative`
/// times the larger of them.
impl RelativeEq for Tensor {
    /// Returns the machine epsilon of `f32`.
    fn default_max_relative() -> f64 {
        f64::from(f32::EPSILON)
    }

    fn relative_eq(&self, other: &Tensor, epsilon: f64, max_relative: f64) -> bool {
        all_f64(self, other, |a, b| a.relative_eq(&b, epsilon, max_relative))
    }
}

/// Asserts that two tensors agree as [`RelativeEq`](approx::RelativeEq) says, and shows the
/// elements that differ most otherwise (`torch.testing.assert_close`).
///
/// `epsilon` is the absolute tolerance, `max_relative` the relative one; each is the machine
/// epsilon of `f32` unless it is given.
///
/// ```
/// use convnet::{Tensor, assert_close};
///
/// let x = Tensor::from_vec(vec![1.0f32, 2.0], [2])?;
/// assert_close!(x, &x * 1.001, max_relative = 1e-2);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// ```should_panic
/// # use convnet::{Tensor, assert_close};
/// // "2 and 2.5 at [1] differ by 5e-1"
/// assert_close!(Tensor::from_vec(vec![1.0f32, 2.0], [2])?, Tensor::from_vec(vec![1.0f32, 2.5], [2])?, epsilon = 1e-3);
/// # Ok::<(), convnet::Error>(())
/// ```
#[macro_export]
macro_rules! assert_close {
    ($left:expr, $right:expr $(, $tolerance:ident = $value:expr)* $(,)?) => {
        $crate::Tensor::assert_close(&$left, &$right, $crate::Tolerance::default()$(.$tolerance($value))*)
    };
}

/// The tolerances of [`assert_close!`].
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    epsilon: f64,
    max_relative: f64,
}

#[doc(hidden)]
impl Tolerance {
    pub fn epsilon(self, epsilon: f64) -> Tolerance {
        Tolerance { epsilon, ..self }
    }

    pub fn max_relative(self, max_relative: f64) -> Tolerance {
        Tolerance { max_relative, ..self }
    }
}

impl Default for Tolerance {
    fn default() -> Tolerance {
        Tolerance { epsilon: Tensor::default_epsilon(), max_relative: Tensor::default_max_relative() }
    }
}

impl Tensor {
    /// Panics, with the elements that differ most, unless the tensors agree: [`assert_close!`].
    #[doc(hidden)]
    #[track_caller]
    pub fn assert_close(left: &Tensor, right: &Tensor, Tolerance { epsilon, max_relative }: Tolerance) {
        if left.relative_eq(right, epsilon, max_relative) {
            return;
        }
        let reason = match left.worst_difference(right) {
            Ok(Some(worst)) if left.dtype() == right.dtype() => worst.to_string(),
            Ok(_) if left.dtype() != right.dtype() => format!("{} and {}", left.dtype(), right.dtype()),
            Ok(_) => "both have NaN at the same place, which agrees with nothing".into(),
            Err(error) => error.to_string(),
        };
        panic!("tensors differ by more than epsilon = {epsilon:e} and max_relative = {max_relative:e}: {reason}");
    }

    /// Finds the elements that differ most, for the message of a failing comparison; `None` when
    /// all are equal. A pair with one NaN differs most; two NaN count as equal here.
    ///
    /// ```
    /// use convnet::Tensor;
    ///
    /// let [a, b] = [[1.0f32, 2.0, 3.0], [1.0, 2.5, 3.0]].map(|x| Tensor::from_vec(x.to_vec(), [3]).unwrap());
    /// let worst = a.worst_difference(&b)?.expect("they differ");
    /// assert_eq!(worst.to_string(), "2 and 2.5 at [1] differ by 5e-1");
    /// assert_eq!(a.worst_difference(&a)?, None);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ.
    pub fn worst_difference(&self, other: &Tensor) -> Result<Option<Difference>> {
        if self.shape() != other.shape() {
            return Err(Error::shape("worst_difference", format!("shapes {:?} and {:?} differ", self.shape(), other.shape())));
        }
        let [a, b] = [self.detach().to_dtype(DType::F64)?, other.detach().to_dtype(DType::F64)?];
        let (a, b) = (a.view::<f64>()?, b.view::<f64>()?);
        let distance = |left: f64, right: f64| match (left - right).abs() {
            _ if left == right || left.is_nan() && right.is_nan() => 0.0,
            distance if distance.is_nan() => f64::INFINITY,
            distance => distance,
        };
        let mut worst = (0.0, None);
        for ((index, &left), &right) in a.indexed_iter().zip(&b) {
            let distance = distance(left, right);
            if distance > worst.0 {
                worst = (distance, Some((index, left, right)));
            }
        }
        Ok(worst.1.map(|(index, left, right)| Difference { index: ndarray::Dimension::slice(&index).to_vec(), left, right }))
    }
}

#[cfg(test)]
mod tests {
    use approx::{abs_diff_eq, relative_eq};

    use super::*;
    use crate::MemoryFormat;

    fn of(values: [f64; 2]) -> Tensor {
        Tensor::from_vec(values.to_vec(), [2]).unwrap()
    }

    #[test]
    fn tensors_are_equal_by_shape_dtype_and_elements_in_either_memory_format() {
        let x = Tensor::randn([2, 3, 4, 5]);
        let last = x.to_memory_format(MemoryFormat::ChannelsLast).unwrap();
        assert!(x == last && abs_diff_eq!(x, last, epsilon = 0.0));
        assert!(x != x.reshape([2, 3, 20]).unwrap() && x != x.to_dtype(DType::F64).unwrap() && x != &x + 1.0);
        assert!(of([f64::NAN, 0.0]) != of([f64::NAN, 0.0]));
    }

    #[test]
    fn tolerances_are_absolute_and_relative_and_nan_agrees_with_nothing() {
        let (a, b) = (of([1000.0, 1.0]), of([1001.0, 1.0]));
        assert!(abs_diff_eq!(a, b, epsilon = 1.0) && !abs_diff_eq!(a, b, epsilon = 0.5));
        assert!(relative_eq!(a, b, max_relative = 1e-2) && !relative_eq!(a, b, max_relative = 1e-4));
        let infinite = of([f64::INFINITY, 1.0]);
        assert!(abs_diff_eq!(infinite, infinite, epsilon = 0.0) && !relative_eq!(infinite, a, max_relative = 0.5));
        let nan = of([f64::NAN, 1.0]);
        assert!(!abs_diff_eq!(nan, nan, epsilon = 1.0) && !relative_eq!(nan, nan, max_relative = 1.0));
        assert!(!abs_diff_eq!(a, Tensor::zeros([3]).to_dtype(DType::F64).unwrap(), epsilon = 1e9));
    }

    #[test]
    fn failed_assertion_shows_the_worst_place_or_why_nothing_can_agree() {
        let message = |a: Tensor, b: Tensor| {
            let panicked = std::panic::catch_unwind(|| crate::assert_close!(a, b, epsilon = 0.5)).unwrap_err();
            panicked.downcast_ref::<String>().unwrap().clone()
        };
        assert!(message(of([1.0, 5.0]), of([1.25, 7.0])).ends_with("5 and 7 at [1] differ by 2e0"));
        assert!(message(of([1.0, 5.0]), Tensor::zeros([2])).ends_with("f64 and f32"));
        assert!(message(of([1.0, 5.0]), of([1.0, 5.0]).reshape([2, 1]).unwrap()).contains("shapes [2] and [2, 1] differ"));
        assert!(message(of([f64::NAN, 5.0]), of([f64::NAN, 5.0])).contains("NaN at the same place"));
        crate::assert_close!(of([1.0, 5.0]), of([1.25, 5.5]), epsilon = 0.5);
    }

    #[test]
    fn worst_difference_has_index_and_lone_nan_is_worst() {
        let worst = of([1.0, 5.0]).worst_difference(&of([1.5, 7.0])).unwrap().unwrap();
        assert_eq!(worst, Difference { index: vec![1], left: 5.0, right: 7.0 });
        let worst = of([f64::NAN, 5.0]).worst_difference(&of([1.5, 7.0])).unwrap().unwrap();
        assert_eq!(worst.index, [0]);
        assert!(of([0.0; 2]).worst_difference(&Tensor::zeros([3])).unwrap_err().to_string().contains("[2] and [3] differ"));
    }
}
