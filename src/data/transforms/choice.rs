//! Transforms that choose among others.

use super::Transform;
use crate::data::annotations::Part;
use crate::data::{Image, Rng};
use crate::error::{Error, Result};

/// Applies a transform, or several in a tuple, with a probability (torchvision's `RandomApply`).
///
/// ```
/// use convnet::data::{ColorJitter, GaussianBlur, RandomApply};
///
/// let sometimes = RandomApply::new((ColorJitter::new().brightness(0.4), GaussianBlur::new(5)), 0.3);
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] when the probability is not between 0 and 1, and the
/// transform's errors.
#[derive(Clone, Copy, Debug)]
pub struct RandomApply<T> {
    transform: T,
    probability: f64,
}

impl<T: Transform> RandomApply<T> {
    /// Makes a transform with this probability; torchvision's default is 0.5.
    pub fn new(transform: T, probability: f64) -> RandomApply<T> {
        RandomApply { transform, probability }
    }
}

impl<T: Transform> Transform for RandomApply<T> {
    fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()> {
        if chance("random apply", self.probability, rng)? { self.transform.apply(image, rng) } else { Ok(()) }
    }

    fn apply_to_parts(&self, parts: &mut [Part<'_>], rng: &mut Rng) -> Result<()> {
        if chance("random apply", self.probability, rng)? { self.transform.apply_to_parts(parts, rng) } else { Ok(()) }
    }
}

/// Returns true with a probability, which is checked.
pub(super) fn chance(op: &'static str, probability: f64, rng: &mut Rng) -> Result<bool> {
    if (0.0..=1.0).contains(&probability) {
        return Ok(rng.chance(probability));
    }
    Err(Error::argument(op, format!("a probability is between 0 and 1, got {probability}")))
}

/// Applies one of several transforms, chosen at random (torchvision's `RandomChoice`).
///
/// ```
/// use convnet::data::{RandomChoice, RandomEqualize, RandomInvert, RandomSolarize};
///
/// let one = RandomChoice::new().push(RandomInvert::new(1.0)).push(RandomEqualize::new(1.0));
/// let weighted = RandomChoice::new().push_weighted(RandomInvert::new(1.0), 0.2).push_weighted(RandomSolarize::new(128.0, 1.0), 0.8);
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] when the weights are not numbers of at least 0 or are all
/// 0, and the chosen transform's errors.
#[derive(Default)]
pub struct RandomChoice {
    choices: Vec<(Box<dyn Transform>, f64)>,
}

impl RandomChoice {
    /// Makes an empty list, which leaves images as they are.
    pub fn new() -> RandomChoice {
        RandomChoice::default()
    }

    /// Appends a transform of weight 1.
    pub fn push(self, transform: impl Transform + 'static) -> RandomChoice {
        self.push_weighted(transform, 1.0)
    }

    /// Appends a transform of this weight; its probability is its part of the sum of all weights.
    pub fn push_weighted(mut self, transform: impl Transform + 'static, weight: f64) -> RandomChoice {
        self.choices.push((Box::new(transform), weight));
        self
    }

    /// Draws the transform to apply; `None` when there are none.
    fn choose(&self, rng: &mut Rng) -> Result<Option<&dyn Transform>> {
        let Some((last, _)) = self.choices.last() else { return Ok(None) };
        let sum: f64 = self.choices.iter().map(|(_, weight)| weight).sum();
        if self.choices.iter().any(|&(_, weight)| weight.is_nan() || weight < 0.0) || !(sum > 0.0 && sum.is_finite()) {
            let weights: Vec<f64> = self.choices.iter().map(|&(_, weight)| weight).collect();
            return Err(Error::argument("random choice", format!("weights must be at least 0, and one more than 0, got {weights:?}")));
        }
        let mut rest = rng.uniform(0.0, sum);
        for (transform, weight) in &self.choices {
            if rest < *weight {
                return Ok(Some(&**transform));
            }
            rest -= weight;
        }
        // Differences were rounded.
        Ok(Some(&**last))
    }
}

impl Transform for RandomChoice {
    fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()> {
        self.choose(rng)?.map_or(Ok(()), |transform| transform.apply(image, rng))
    }

    fn apply_to_parts(&self, parts: &mut [Part<'_>], rng: &mut Rng) -> Result<()> {
        self.choose(rng)?.map_or(Ok(()), |transform| transform.apply_to_parts(parts, rng))
    }
}

/// Applies several transforms in random order (torchvision's `RandomOrder`).
///
/// ```
/// use convnet::data::{GaussianBlur, RandomEqualize, RandomOrder};
///
/// let mixed = RandomOrder::new().push(GaussianBlur::new(3)).push(RandomEqualize::new(0.5));
/// ```
///
/// # Errors
/// Applying it gives the transforms' errors.
#[derive(Default)]
pub struct RandomOrder {
    steps: Vec<Box<dyn Transform>>,
}

impl RandomOrder {
    /// Makes an empty list, which leaves images as they are.
    pub fn new() -> RandomOrder {
        RandomOrder::default()
    }

    /// Appends a transform.
    pub fn push(mut self, step: impl Transform + 'static) -> RandomOrder {
        self.steps.push(Box::new(step));
        self
    }

    /// Returns the transforms in a random order.
    fn shuffled(&self, rng: &mut Rng) -> Vec<&dyn Transform> {
        let mut steps: Vec<&dyn Transform> = self.steps.iter().map(|step| &**step).collect();
        rng.shuffle(&mut steps);
        steps
    }
}

impl Transform for RandomOrder {
    fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()> {
        self.shuffled(rng).into_iter().try_for_each(|step| step.apply(image, rng))
    }

    fn apply_to_parts(&self, parts: &mut [Part<'_>], rng: &mut Rng) -> Result<()> {
        self.shuffled(rng).into_iter().try_for_each(|step| step.apply_to_parts(parts, rng))
    }
}
