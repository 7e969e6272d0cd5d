//! The weighted mean of numbers, such as the losses of batches.

/// A weighted mean: of batches' losses, each weighted by its number of samples.
///
/// ```
/// use convnet::train::Mean;
///
/// let mut loss = Mean::default();
/// loss.update(1.0, 64);
/// loss.update(3.0, 32); // the last, smaller batch
/// assert_eq!((loss.value(), loss.weight()), (160.0 / 96.0, 96.0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    /// Restores a mean from its [`sum`](Mean::sum) and [`weight`](Mean::weight), such as those in a
    /// checkpoint.
    pub fn from_parts(sum: f64, weight: f64) -> Mean {
        Mean { sum, weight }
    }

    /// Adds a value that stands for `samples` samples. A value that is not finite makes the mean
    /// so.
    pub fn update(&mut self, value: f64, samples: usize) {
        self.sum += value * samples as f64;
        self.weight += samples as f64;
    }

    /// Returns the mean; NaN before the first update.
    pub fn value(&self) -> f64 {
        self.sum / self.weight
    }

    /// Returns the sum of all values, each times its samples.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Returns the number of samples so far.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// Adds all that another mean has seen.
    pub fn merge(&mut self, other: &Mean) {
        self.sum += other.sum;
        self.weight += other.weight;
    }

    /// Forgets all values.
    pub fn reset(&mut self) {
        *self = Mean::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_means_are_the_mean_of_all() {
        let (mut a, mut b) = (Mean::default(), Mean::default());
        assert!(a.value().is_nan());
        a.update(2.0, 1);
        b.update(5.0, 2);
        a.merge(&b);
        assert_eq!(a, Mean::from_parts(12.0, 3.0));
        assert_eq!(a.value(), 4.0);
        a.reset();
        assert!(a.value().is_nan());
    }
}
