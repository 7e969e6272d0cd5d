//! Boxes of detectors: overlap, and suppression of those that overlap a better one.
//!
//! Boxes are `[left, top, right, bottom]`, as in torchvision's `ops` and in
//! [`data::Boxes`](crate::data::Boxes). Names and results are torchvision's.

use crate::error::{Error, Result};
use crate::kernels::runtime::allocator::catching;
use crate::kernels::runtime::simd::Real;
use crate::profiling::hooks::operation;
use crate::tensor::{DType, Element, MemoryFormat, Tensor, with_float};

/// Checks that the last dimension of a tensor holds the four sides of boxes.
fn expect_boxes(op: &'static str, boxes: &Tensor) -> Result<()> {
    match boxes.shape() {
        [.., _, 4] => Ok(()),
        shape => Err(Error::shape(op, format!("expected boxes [N, 4] (left, top, right, bottom), got shape {shape:?}"))),
    }
}

/// Returns one of the four sides, without its dimension.
fn side(boxes: &Tensor, at: usize) -> Result<Tensor> {
    boxes.narrow(-1, at, 1)?.squeeze(-1)
}

/// Computes the area of each box; negative when one of its pairs of sides is in the wrong order
/// (torchvision's `box_area`).
///
/// # Shape
/// `[N, 4]` to `[N]`; further dimensions before them are kept.
///
/// # Errors
/// [`Error::Shape`] unless the last dimension is 4.
///
/// ```
/// use convnet::{Tensor, ops::box_area};
///
/// let boxes = Tensor::from_vec(vec![0f32, 0.0, 3.0, 2.0], [1, 4])?;
/// assert_eq!(box_area(&boxes)?.to_vec::<f32>()?, [6.0]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn box_area(boxes: &Tensor) -> Result<Tensor> {
    expect_boxes("box_area", boxes)?;
    let boxes = &if boxes.dtype() == DType::U8 { boxes.to_dtype(DType::I64)? } else { boxes.clone() };
    side(boxes, 2)?.sub(&side(boxes, 0)?)?.mul(&side(boxes, 3)?.sub(&side(boxes, 1)?)?)
}

/// Computes for each pair of boxes the area of their intersection divided by that of their union
/// (torchvision's `box_iou`; Jaccard's index). Pairs of boxes without area give NaN. It is made of
/// differentiable operations.
///
/// # Shape
/// `[N, 4]` and `[M, 4]` to `[N, M]`; further dimensions before them broadcast. Boxes of integers
/// give `f32`.
///
/// # Errors
/// [`Error::Shape`] unless the last dimensions are 4.
///
/// ```
/// use convnet::{Tensor, ops::box_iou};
///
/// let a = Tensor::from_vec(vec![0f32, 0.0, 2.0, 2.0], [1, 4])?;
/// let b = Tensor::from_vec(vec![1f32, 0.0, 3.0, 2.0, 5.0, 5.0, 6.0, 6.0], [2, 4])?;
/// assert_eq!(box_iou(&a, &b)?.to_vec::<f32>()?, [2.0 / 6.0, 0.0]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn box_iou(boxes1: &Tensor, boxes2: &Tensor) -> Result<Tensor> {
    expect_boxes("box_iou", boxes1)?;
    expect_boxes("box_iou", boxes2)?;
    if !boxes1.dtype().is_float() && !boxes2.dtype().is_float() {
        return box_iou(&boxes1.to_dtype(DType::F64)?, &boxes2.to_dtype(DType::F64)?)?.to_dtype(DType::F32);
    }
    let dtype = boxes1.dtype().max(boxes2.dtype());
    let (rows, columns) = (boxes1.to_dtype(dtype)?.unsqueeze(-2)?, boxes2.to_dtype(dtype)?.unsqueeze(-3)?);
    // [N, 1] and [1, M]: width and height of each intersection.
    let along = |low: usize, high: usize| {
        let start = side(&rows, low)?.maximum(&side(&columns, low)?)?;
        side(&rows, high)?.minimum(&side(&columns, high)?)?.sub(&start)?.clamp(0.0, f64::INFINITY)
    };
    let intersection = along(0, 2)?.mul(&along(1, 3)?)?;
    let union = box_area(&rows)?.add(&box_area(&columns)?)?.sub(&intersection)?;
    intersection.div(&union)
}

/// Selects boxes by non-maximum suppression: from the greatest score to the least, a box is kept
/// unless it overlaps one that was kept by more than `iou_threshold` (torchvision's `nms`). Of
/// equal scores, the first counts as the greater.
///
/// # Shape
/// Boxes `[N, 4]` and scores `[N]` to the indices of the kept boxes, `[K]` of `i64`, in order of
/// falling scores.
///
/// # Errors
/// [`Error::Shape`] for shapes that do not fit, [`Error::DType`] unless both are floating point,
/// [`Error::Argument`] for a threshold that is not a number.
///
/// ```
/// use convnet::{Tensor, ops::nms};
///
/// let boxes = Tensor::from_vec(vec![0f32, 0.0, 4.0, 4.0, 0.0, 0.0, 4.0, 3.0, 5.0, 5.0, 9.0, 9.0], [3, 4])?;
/// let scores = Tensor::from_vec(vec![0.8f32, 0.9, 0.3], [3])?;
/// assert_eq!(nms(&boxes, &scores, 0.5)?.to_vec::<i64>()?, [1, 2]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn nms(boxes: &Tensor, scores: &Tensor, iou_threshold: f64) -> Result<Tensor> {
    suppressed("nms", boxes, scores, None, iou_threshold)
}

/// Selects boxes by non-maximum suppression in each class by itself (torchvision's
/// `batched_nms`): a box only suppresses those whose entry of `classes` is the same.
///
/// # Shape
/// Boxes `[N, 4]`, scores `[N]` and classes `[N]` of `i64` to the indices of the kept boxes, `[K]`
/// of `i64`, in order of falling scores.
///
/// # Errors
/// [`Error::Shape`] for shapes that do not fit, [`Error::DType`] unless boxes and scores are
/// floating point and classes `i64`, [`Error::Argument`] for a threshold that is not a number.
pub fn batched_nms(boxes: &Tensor, scores: &Tensor, classes: &Tensor, iou_threshold: f64) -> Result<Tensor> {
    suppressed("batched_nms", boxes, scores, Some(classes), iou_threshold)
}

fn suppressed(op: &'static str, boxes: &Tensor, scores: &Tensor, classes: Option<&Tensor>, threshold: f64) -> Result<Tensor> {
    let _op = operation(op);
    boxes.expect_float(op)?;
    scores.expect_float(op)?;
    expect_boxes(op, boxes)?;
    let fits = |tensor: &Tensor| boxes.ndim() == 2 && tensor.shape() == &boxes.shape()[..1];
    if !fits(scores) || !classes.is_none_or(fits) {
        let classes = classes.map(|classes| format!(" and classes of shape {:?}", classes.shape())).unwrap_or_default();
        let message =
            format!("expected boxes [N, 4] and one score for each, got {:?}, scores of shape {:?}", boxes.shape(), scores.shape());
        return Err(Error::shape(op, message + &classes));
    }
    if threshold.is_nan() {
        return Err(Error::argument(op, "the threshold of the overlap is NaN; it is a number from 0 to 1"));
    }
    let order = scores.argsort(0, true)?;
    let (boxes, order) = (boxes.to_format(MemoryFormat::RowMajor)?, order.data::<i64>());
    let classes = classes.map(|classes| classes.expect_dtype(op, DType::I64).map(|()| classes.data::<i64>())).transpose()?;
    let kept = with_float!(boxes.dtype(), op, T => catching(|| kept(boxes.data::<T>(), order, classes, threshold))?);
    let count = kept.len();
    Tensor::from_vec(kept, [count])
}

/// A box with its area and class.
#[derive(Clone, Copy)]
struct Candidate<T> {
    index: i64,
    sides: [T; 4],
    area: T,
    class: i64,
}

impl<T: Real> Candidate<T> {
    /// Computes the overlap with the arithmetic of torchvision, so that pairs at the threshold are
    /// decided alike.
    fn overlap(&self, other: &Candidate<T>) -> T {
        let [left, top, right, bottom] = self.sides;
        let larger = |a: T, b: T| if a < b { b } else { a };
        let smaller = |a: T, b: T| if b < a { b } else { a };
        let width = larger(T::zero(), smaller(right, other.sides[2]) - larger(left, other.sides[0]));
        let height = larger(T::zero(), smaller(bottom, other.sides[3]) - larger(top, other.sides[1]));
        let intersection = width * height;
        intersection / (self.area + other.area - intersection)
    }
}

/// Returns the indices of the boxes that are kept, in the given order.
fn kept<T: Element + Real>(boxes: &[T], order: &[i64], classes: Option<&[i64]>, threshold: f64) -> Vec<i64> {
    let mut kept: Vec<Candidate<T>> = vec![];
    for &index in order {
        let sides: [T; 4] = std::array::from_fn(|side| boxes[4 * index as usize + side]);
        let area = (sides[2] - sides[0]) * (sides[3] - sides[1]);
        let candidate = Candidate { index, sides, area, class: classes.map_or(0, |classes| classes[index as usize]) };
        let suppresses = |other: &Candidate<T>| {
            other.class == candidate.class && other.overlap(&candidate).to_f64().is_some_and(|overlap| overlap > threshold)
        };
        if !kept.iter().any(suppresses) {
            kept.push(candidate);
        }
    }
    kept.into_iter().map(|candidate| candidate.index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxes(sides: &[f32]) -> Tensor {
        Tensor::from_slice(sides, [sides.len() / 4, 4]).unwrap()
    }

    #[test]
    fn equal_scores_keep_the_first_and_classes_do_not_meet() {
        let same = boxes(&[0.0, 0.0, 2.0, 2.0, 0.0, 0.0, 2.0, 2.0, 0.0, 0.0, 2.0, 2.0]);
        let scores = Tensor::ones([3]);
        assert_eq!(nms(&same, &scores, 0.5).unwrap().to_vec::<i64>().unwrap(), [0]);
        let classes = Tensor::from_vec(vec![0i64, 0, 7], [3]).unwrap();
        assert_eq!(batched_nms(&same, &scores, &classes, 0.5).unwrap().to_vec::<i64>().unwrap(), [0, 2]);
        // An overlap of exactly the threshold is no reason to suppress.
        assert_eq!(nms(&same, &scores, 1.0).unwrap().shape(), [3]);
        assert_eq!(nms(&boxes(&[]), &Tensor::zeros([0]), 0.5).unwrap().shape(), [0]);
    }

    #[test]
    fn overlaps_of_integers_are_exact_and_boxes_without_area_have_none() {
        let a = Tensor::from_vec(vec![200u8, 0, 250, 255], [1, 4]).unwrap();
        assert_eq!(box_area(&a).unwrap().to_vec::<i64>().unwrap(), [50 * 255]);
        let half = Tensor::from_vec(vec![225i64, 0, 275, 255], [1, 4]).unwrap();
        assert_eq!(box_iou(&a, &half).unwrap().to_vec::<f32>().unwrap(), [25.0 / 75.0]);
        let point = boxes(&[1.0, 1.0, 1.0, 1.0]);
        assert!(box_iou(&point, &point).unwrap().item::<f32>().unwrap().is_nan());
        assert_eq!(box_iou(&point, &boxes(&[0.0, 0.0, 3.0, 3.0])).unwrap().item::<f32>().unwrap(), 0.0);
    }

    #[test]
    fn errors_name_the_shapes() {
        let message = |result: Result<Tensor>| result.unwrap_err().to_string();
        let (three, scores) = (boxes(&[0.0; 12]), Tensor::zeros([2]));
        assert_eq!(
            message(nms(&three, &scores, 0.5)),
            "nms: expected boxes [N, 4] and one score for each, got [3, 4], scores of shape [2]"
        );
        let classes = Tensor::full([2], 0.0, DType::I64);
        assert!(message(batched_nms(&three, &Tensor::zeros([3]), &classes, 0.5)).ends_with("scores of shape [3] and classes of shape [2]"));
        assert!(message(batched_nms(&three, &Tensor::zeros([3]), &Tensor::zeros([3]), 0.5)).contains("i64"));
        assert!(message(nms(&three, &Tensor::zeros([3]), f64::NAN)).contains("is NaN"));
        assert!(message(box_iou(&three, &scores)).contains("expected boxes [N, 4] (left, top, right, bottom), got shape [2]"));
        assert!(message(nms(&Tensor::full([1, 4], 0.0, DType::I64), &Tensor::zeros([1]), 0.5)).contains("to_dtype"));
    }
}
