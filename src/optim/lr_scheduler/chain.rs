//! Schedules made of other schedules: one after the other, and one on top of the other.

use super::{LrSchedule, Rates};
use crate::error::{Error, Result};

/// Raises the rate linearly over the first steps to the first rate of another schedule, which then
/// runs from its own step 0; PyTorch's `LinearLR` and another one in a `SequentialLR`.
///
/// ```
/// use convnet::optim::{CosineAnnealingLr, LinearWarmup, LrSchedule};
///
/// let schedule = LinearWarmup::new(5, CosineAnnealingLr::new(0.0).steps(90)).start_factor(0.1);
/// assert!((schedule.at(0, 0, 1.0)?.learning_rate - 0.1).abs() < 1e-12);
/// assert!((schedule.at(5, 0, 1.0)?.learning_rate - 1.0).abs() < 1e-12);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LinearWarmup<S> {
    steps: u64,
    start_factor: f64,
    inner: S,
}

impl<S: LrSchedule> LinearWarmup<S> {
    /// Makes a warm-up of `steps` steps that starts at a third of the first rate of `inner`.
    pub fn new(steps: u64, inner: S) -> LinearWarmup<S> {
        LinearWarmup { steps, start_factor: 1.0 / 3.0, inner }
    }

    /// Sets the share of the inner schedule's first rate at which to begin, in `[0, 1]`.
    #[must_use]
    pub fn start_factor(self, start_factor: f64) -> LinearWarmup<S> {
        LinearWarmup { start_factor, ..self }
    }
}

impl<S: LrSchedule + Clone + 'static> LrSchedule for LinearWarmup<S> {
    fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.start_factor) {
            return Err(Error::argument("LinearWarmup", format!("the start factor must be in [0, 1], got {}", self.start_factor)));
        }
        self.inner.check()
    }

    fn at(&self, step: u64, group: usize, base: f64) -> Result<Rates> {
        if step >= self.steps {
            return self.inner.at(step - self.steps, group, base);
        }
        let first = self.inner.at(0, group, base)?;
        let factor = self.start_factor + (1.0 - self.start_factor) * step as f64 / self.steps as f64;
        Ok(Rates { learning_rate: first.learning_rate * factor, ..first })
    }

    /// The inner schedule gets no metric of the warm-up.
    fn observe(&mut self, step: u64, metric: Option<f64>) -> Result<()> {
        if step > self.steps { self.inner.observe(step - self.steps, metric) } else { Ok(()) }
    }

    fn set_steps(&mut self, steps: u64) {
        self.inner.set_steps(steps.saturating_sub(self.steps));
    }

    fn visit(&mut self, visitor: &mut dyn FnMut(&str, &mut f64)) {
        self.inner.visit(visitor);
    }
}

/// Runs one schedule after the other, each from its own step 0; PyTorch's `SequentialLR`.
///
/// ```
/// use convnet::optim::{CosineAnnealingLr, ExponentialLr, LrSchedule, SequentialLr};
///
/// let schedule = SequentialLr::new(ExponentialLr::new(0.9)).switch_at(20, CosineAnnealingLr::new(0.0).steps(80));
/// assert_eq!(schedule.at(20, 0, 0.1)?.learning_rate, 0.1);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SequentialLr {
    /// Each schedule with its first step.
    parts: Vec<(u64, Box<dyn LrSchedule>)>,
}

impl SequentialLr {
    /// Makes a sequence that begins with this schedule.
    pub fn new(first: impl LrSchedule + 'static) -> SequentialLr {
        SequentialLr { parts: vec![(0, Box::new(first))] }
    }

    /// Continues with another schedule from this step of the whole sequence on (PyTorch's
    /// milestones).
    #[must_use]
    pub fn switch_at(mut self, step: u64, next: impl LrSchedule + 'static) -> SequentialLr {
        self.parts.push((step, Box::new(next)));
        self
    }

    /// Returns the number of the part that has this step.
    fn part_at(&self, step: u64) -> usize {
        self.parts.iter().rposition(|&(start, _)| start <= step).unwrap_or(0)
    }
}

impl LrSchedule for SequentialLr {
    fn check(&self) -> Result<()> {
        for pair in self.parts.windows(2) {
            let (before, after) = (pair[0].0, pair[1].0);
            if before >= after {
                let message = format!("each switch must come after the one before, got steps {before} and {after}");
                return Err(Error::argument("SequentialLr", message));
            }
        }
        self.parts.iter().try_for_each(|(_, part)| part.check())
    }

    fn at(&self, step: u64, group: usize, base: f64) -> Result<Rates> {
        let (start, part) = &self.parts[self.part_at(step)];
        part.at(step - start, group, base)
    }

    /// The metric of a step is one of the schedule that set the rates before it.
    fn observe(&mut self, step: u64, metric: Option<f64>) -> Result<()> {
        let index = self.part_at(step.saturating_sub(1));
        let (start, part) = &mut self.parts[index];
        part.observe(step.saturating_sub(*start), metric)
    }

    /// Each schedule runs to the next switch, the last one to the end.
    fn set_steps(&mut self, steps: u64) {
        let mut end = steps;
        for (start, part) in self.parts.iter_mut().rev() {
            part.set_steps(end.saturating_sub(*start));
            end = *start;
        }
    }

    fn visit(&mut self, visitor: &mut dyn FnMut(&str, &mut f64)) {
        visit_parts(self.parts.iter_mut().map(|(_, part)| part), visitor);
    }
}

/// Applies several schedules at once: the rate of each is the initial rate of the next, so that
/// their factors multiply; PyTorch's `ChainedScheduler`.
///
/// A momentum is that of the last schedule that sets one.
///
/// ```
/// use convnet::optim::{ChainedLr, ExponentialLr, LrSchedule, MultiStepLr};
///
/// let schedule = ChainedLr::new(ExponentialLr::new(0.9)).and(MultiStepLr::new([10]));
/// assert!((schedule.at(10, 0, 1.0)?.learning_rate - 0.9f64.powi(10) * 0.1).abs() < 1e-15);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ChainedLr {
    parts: Vec<Box<dyn LrSchedule>>,
}

impl ChainedLr {
    /// Makes a chain of this schedule.
    pub fn new(first: impl LrSchedule + 'static) -> ChainedLr {
        ChainedLr { parts: vec![Box::new(first)] }
    }

    /// Adds a schedule.
    #[must_use]
    pub fn and(mut self, next: impl LrSchedule + 'static) -> ChainedLr {
        self.parts.push(Box::new(next));
        self
    }
}

impl LrSchedule for ChainedLr {
    fn check(&self) -> Result<()> {
        self.parts.iter().try_for_each(|part| part.check())
    }

    fn at(&self, step: u64, group: usize, base: f64) -> Result<Rates> {
        let mut rates = Rates { learning_rate: base, momentum: None };
        for part in &self.parts {
            let next = part.at(step, group, rates.learning_rate)?;
            rates = Rates { learning_rate: next.learning_rate, momentum: next.momentum.or(rates.momentum) };
        }
        Ok(rates)
    }

    fn observe(&mut self, step: u64, metric: Option<f64>) -> Result<()> {
        self.parts.iter_mut().try_for_each(|part| part.observe(step, metric))
    }

    fn set_steps(&mut self, steps: u64) {
        self.parts.iter_mut().for_each(|part| part.set_steps(steps));
    }

    fn visit(&mut self, visitor: &mut dyn FnMut(&str, &mut f64)) {
        visit_parts(self.parts.iter_mut(), visitor);
    }
}

/// Visits the numbers of several schedules, with names such as `1.best`.
fn visit_parts<'a>(parts: impl Iterator<Item = &'a mut Box<dyn LrSchedule>>, visitor: &mut dyn FnMut(&str, &mut f64)) {
    for (index, part) in parts.enumerate() {
        part.visit(&mut |name, value| visitor(&format!("{index}.{name}"), value));
    }
}
