//! The distribution of a tensor's elements, for TensorBoard.

use super::protobuf::Message;
use crate::tensor::{DType, Tensor};

/// The number of buckets, of equal width; that of `tf.summary.histogram`.
const BUCKETS: usize = 30;

/// Counts of the finite elements.
struct Histogram {
    count: f64,
    sum: f64,
    sum_of_squares: f64,
    range: [f64; 2],
    buckets: Vec<f64>,
}

/// Returns the message `HistogramProto`; `None` when no element is finite.
pub(super) fn histogram_of(tensor: &Tensor) -> Option<Message> {
    let histogram = match tensor.dtype() {
        DType::F32 => Histogram::of(tensor.data::<f32>().iter().map(|&x| f64::from(x))),
        DType::F64 => Histogram::of(tensor.data::<f64>().iter().copied()),
        DType::I64 => Histogram::of(tensor.data::<i64>().iter().map(|&x| x as f64)),
        DType::U8 => Histogram::of(tensor.data::<u8>().iter().map(|&x| f64::from(x))),
    }?;
    let [min, max] = histogram.range;
    let limit = |i: usize| {
        if i + 1 == histogram.buckets.len() { max } else { min + (max / BUCKETS as f64 - min / BUCKETS as f64) * (i + 1) as f64 }
    };
    let limits: Vec<f64> = (0..histogram.buckets.len()).map(limit).collect();
    let message = Message::new().double(1, min).double(2, max).double(3, histogram.count);
    Some(message.double(4, histogram.sum).double(5, histogram.sum_of_squares).doubles(6, &limits).doubles(7, &histogram.buckets))
}

impl Histogram {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Option<Histogram> {
        let finite = values.filter(|value| value.is_finite());
        let range = |[min, max]: [f64; 2], value: f64| [min.min(value), max.max(value)];
        let range @ [min, max] = finite.clone().fold([f64::INFINITY, f64::NEG_INFINITY], range);
        if min > max {
            return None;
        }
        // Elements that are all equal have one bucket, without width.
        let mut buckets = vec![0.0; if min < max { BUCKETS } else { 1 }];
        // Halves, as the width of the range may be beyond the largest number.
        let scale = buckets.len() as f64 / (max / 2.0 - min / 2.0).max(f64::MIN_POSITIVE);
        let last = buckets.len() - 1;
        let (mut count, mut sum, mut sum_of_squares) = (0.0, 0.0, 0.0);
        for value in finite {
            let place = ((value / 2.0 - min / 2.0) * scale) as usize;
            buckets[place.min(last)] += 1.0;
            count += 1.0;
            sum += value;
            sum_of_squares += value * value;
        }
        Some(Histogram { count, sum, sum_of_squares, range, buckets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_element_is_counted_once() {
        let h = Histogram::of([0.0, 29.5, f64::NAN, 30.0, 15.0, f64::INFINITY, -0.0].into_iter()).unwrap();
        assert_eq!((h.count, h.sum, h.sum_of_squares, h.range), (5.0, 74.5, 29.5 * 29.5 + 900.0 + 225.0, [0.0, 30.0]));
        let mut expected = vec![0.0; BUCKETS];
        (expected[0], expected[15], expected[29]) = (2.0, 1.0, 2.0);
        assert_eq!(h.buckets, expected);
    }

    #[test]
    fn equal_extreme_and_missing_elements_are_no_special_cases() {
        assert_eq!(Histogram::of([3.0, 3.0].into_iter()).unwrap().buckets, [2.0]);
        let extreme = Histogram::of([f64::MIN, f64::MAX, 0.0].into_iter()).unwrap();
        assert_eq!((extreme.buckets[0], extreme.buckets[15], extreme.buckets[29]), (1.0, 1.0, 1.0));
        assert!(Histogram::of([f64::NAN].into_iter()).is_none());
        assert!(histogram_of(&Tensor::zeros([0])).is_none());
    }
}
