//! Connectionist temporal classification (Graves et al., 2006): the likelihood of a sequence of
//! labels, summed over all its alignments with the steps of an input, and its gradient.
//!
//! An alignment passes through the labels with a blank before, between and behind them, and spends
//! one step or more on each position; it may skip a blank between two different labels. The sums
//! over alignments are taken position by position, from the first step on (`α` in the paper) and
//! from the last step back (`β`), as logarithms in `f64`. Sequences are independent tasks.

use super::runtime::allocator::AlignedVec;
use super::runtime::parallel;
use super::runtime::simd::Real;

/// The number of elementary operations for a position at a step: three exponentials, a logarithm.
const COST: usize = 64;

/// The lengths of a sequence, and where its labels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The number of steps that count, at most [`Ctc::steps`].
    pub steps: usize,
    /// The place of its first label among [`Ctc::labels`].
    pub first: usize,
    /// The number of its labels.
    pub labels: usize,
}

/// A batch of sequences.
#[derive(Clone, Copy, Debug)]
pub struct Ctc<'a> {
    /// The number of steps of the longest sequence.
    pub steps: usize,
    /// The number of classes, with the blank.
    pub classes: usize,
    /// The class of no label.
    pub blank: usize,
    /// The labels of all sequences; checked to be classes.
    pub labels: &'a [usize],
    /// One for each sequence.
    pub spans: &'a [Span],
}

impl<'a> Ctc<'a> {
    /// Computes the negative logarithm of the likelihood of each sequence from log-probabilities
    /// `[N, steps, classes]`; infinite where no alignment is possible.
    pub fn losses<T: Real>(&self, log_probs: &[T], losses: &mut [f64]) {
        assert!(losses.len() == self.spans.len() && log_probs.len() == losses.len() * self.steps * self.classes);
        parallel::chunks_mut(losses, 1, self.work(), |n, loss| loss[0] = self.sequence(log_probs, n).loss());
    }

    /// Computes the gradient `[N, steps, classes]` of the losses, each times its `scale`, with
    /// respect to logits of which the log-probabilities are the log-softmax: probabilities minus
    /// the expected shares of the labels. Steps that do not count, and sequences of scale 0, get 0.
    pub fn gradients<T: Real>(&self, log_probs: &[T], losses: &[f64], scales: &[f64], out: &mut [T]) {
        assert!(out.len() == log_probs.len() && out.len() == self.spans.len() * self.steps * self.classes);
        // Without sequences the other sizes may be any.
        parallel::chunks_mut(out, self.steps.saturating_mul(self.classes), self.work(), |n, out| {
            let sequence = self.sequence(log_probs, n);
            let (out, rest) = out.split_at_mut(sequence.log_probs.len());
            rest.fill(T::zero());
            match (losses[n], scales[n]) {
                (_, 0.0) => out.fill(T::zero()),
                (loss, scale) if loss.is_finite() => sequence.gradient(loss, scale, out),
                _ => out.fill(T::nan()),
            }
        });
    }

    fn work(&self) -> usize {
        let positions = |span: &Span| span.steps.saturating_mul(2 * span.labels.min(span.steps) + 1).saturating_mul(COST);
        self.spans.iter().fold(0, |work, span| work.saturating_add(positions(span)))
    }

    fn sequence<T>(&self, log_probs: &'a [T], n: usize) -> Sequence<'a, T> {
        let span = self.spans[n];
        let start = n * self.steps * self.classes;
        Sequence {
            log_probs: &log_probs[start..start + span.steps * self.classes],
            classes: self.classes,
            blank: self.blank,
            labels: &self.labels[span.first..span.first + span.labels],
        }
    }
}

/// One sequence, with the log-probabilities of its steps.
struct Sequence<'a, T> {
    log_probs: &'a [T],
    classes: usize,
    blank: usize,
    labels: &'a [usize],
}

impl<T: Real> Sequence<'_, T> {
    /// Returns the number of positions: the labels and the blanks around them.
    fn positions(&self) -> usize {
        2 * self.labels.len() + 1
    }

    /// Returns the class of a position.
    fn class(&self, position: usize) -> usize {
        if position.is_multiple_of(2) { self.blank } else { self.labels[position / 2] }
    }

    /// Returns whether an alignment may go from position `from` to the next but one: not from a
    /// blank, and not to the same label.
    fn skips(&self, from: usize) -> bool {
        self.class(from) != self.class(from + 2)
    }

    fn steps(&self) -> usize {
        self.log_probs.len() / self.classes
    }

    fn log_prob(&self, step: usize, position: usize) -> f64 {
        self.log_probs[step * self.classes + self.class(position)].to_f64().unwrap_or(f64::NAN)
    }

    /// Returns whether there are fewer steps than labels, so that no alignment is possible.
    fn is_too_long(&self) -> bool {
        self.labels.len() > self.steps()
    }

    fn loss(&self) -> f64 {
        if self.steps() == 0 {
            return if self.labels.is_empty() { 0.0 } else { f64::INFINITY };
        }
        if self.is_too_long() {
            return f64::INFINITY;
        }
        let mut rows = [AlignedVec::<f64>::uninit(self.positions()), AlignedVec::<f64>::uninit(self.positions())];
        self.begin(&mut rows[0]);
        for step in 1..self.steps() {
            let [before, after] = &mut rows;
            self.advance(step, before, after);
            rows.swap(0, 1);
        }
        -self.likelihood(&rows[0])
    }

    /// Fills the `α` of the first step: an alignment begins with the first blank or label.
    fn begin(&self, alpha: &mut [f64]) {
        alpha.fill(f64::NEG_INFINITY);
        for (position, alpha) in alpha.iter_mut().enumerate().take(2) {
            *alpha = self.log_prob(0, position);
        }
    }

    /// Computes the `α` of a step from those of the step before.
    fn advance(&self, step: usize, before: &[f64], after: &mut [f64]) {
        for (position, after) in after.iter_mut().enumerate() {
            let from = |back: usize| before[position - back];
            let one = if position >= 1 { from(1) } else { f64::NEG_INFINITY };
            let two = if position >= 2 && self.skips(position - 2) { from(2) } else { f64::NEG_INFINITY };
            *after = log_sum([from(0), one, two]) + self.log_prob(step, position);
        }
    }

    /// Returns the logarithm of the likelihood from the `α` of the last step: an alignment ends
    /// with the last label or the blank behind it.
    fn likelihood(&self, alpha: &[f64]) -> f64 {
        let last = alpha.len() - 1;
        log_sum([alpha[last], if last >= 1 { alpha[last - 1] } else { f64::NEG_INFINITY }, f64::NEG_INFINITY])
    }

    /// Computes the gradient of a finite loss, times `scale`. `β` does not contain its own step, so
    /// that classes of probability 0 need no special case.
    fn gradient(&self, loss: f64, scale: f64, out: &mut [T]) {
        let (steps, positions) = (self.steps(), self.positions());
        if steps == 0 {
            return;
        }
        let mut alphas = AlignedVec::<f64>::uninit(steps.saturating_mul(positions));
        self.begin(&mut alphas[..positions]);
        for step in 1..steps {
            let (before, after) = alphas.split_at_mut(step * positions);
            self.advance(step, &before[(step - 1) * positions..], &mut after[..positions]);
        }
        let (mut beta, mut earlier) = (AlignedVec::<f64>::uninit(positions), AlignedVec::<f64>::uninit(positions));
        beta.fill(f64::NEG_INFINITY);
        beta.iter_mut().rev().take(2).for_each(|beta| *beta = 0.0);
        let mut shares = AlignedVec::<f64>::uninit(self.classes);
        for step in (0..steps).rev() {
            shares.fill(0.0);
            for (position, (alpha, beta)) in alphas[step * positions..][..positions].iter().zip(&*beta).enumerate() {
                shares[self.class(position)] += (alpha + beta + loss).exp();
            }
            let row = step * self.classes..(step + 1) * self.classes;
            for ((out, x), share) in out[row.clone()].iter_mut().zip(&self.log_probs[row]).zip(&*shares) {
                *out = T::of(scale * (x.to_f64().unwrap_or(f64::NAN).exp() - share));
            }
            for (position, earlier) in earlier.iter_mut().enumerate() {
                let to = |ahead: usize| beta[position + ahead] + self.log_prob(step, position + ahead);
                let one = if position + 1 < positions { to(1) } else { f64::NEG_INFINITY };
                let two = if position + 2 < positions && self.skips(position) { to(2) } else { f64::NEG_INFINITY };
                *earlier = log_sum([to(0), one, two]);
            }
            std::mem::swap(&mut beta, &mut earlier);
        }
    }
}

/// Computes `ln(Σ eˣ)`; minus infinity when all terms are.
fn log_sum(terms: [f64; 3]) -> f64 {
    let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY && !terms.iter().any(|x| x.is_nan()) {
        return largest;
    }
    largest + terms.iter().map(|x| (x - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    /// Adds up the likelihoods of all alignments, one by one: every path of classes over the steps
    /// that gives the labels when repeated classes are merged and blanks left out.
    fn by_enumeration(log_probs: &[f64], classes: usize, blank: usize, labels: &[usize]) -> f64 {
        let steps = log_probs.len() / classes;
        let mut total = 0.0;
        for path in 0..classes.pow(steps as u32) {
            let class = |step: usize| path / classes.pow(step as u32) % classes;
            let is_new = |&step: &usize| class(step) != blank && (step == 0 || class(step) != class(step - 1));
            if (0..steps).filter(is_new).map(class).eq(labels.iter().copied()) {
                total += (0..steps).map(|step| log_probs[step * classes + class(step)]).sum::<f64>().exp();
            }
        }
        -total.ln()
    }

    #[test]
    fn loss_is_that_of_all_alignments_one_by_one() {
        const CLASSES: usize = 3;
        let log_probs: Vec<f64> = (0..5 * CLASSES).map(|i| -0.2 - (i * i % 7) as f64 / 3.0).collect();
        for blank in 0..CLASSES {
            let [a, b] = [(blank + 1) % CLASSES, (blank + 2) % CLASSES];
            for labels in [vec![], vec![a], vec![a, b], vec![a, a], vec![a, b, a], vec![b, b, b], vec![a, a, b, b], vec![a; 6]] {
                for steps in 1..=5 {
                    let spans = [Span { steps, first: 0, labels: labels.len() }];
                    let batch = Ctc { steps, classes: CLASSES, blank, labels: &labels, spans: &spans };
                    let mut loss = [0.0];
                    batch.losses(&log_probs[..steps * CLASSES], &mut loss);
                    // Some hundred roundings of f64.
                    let expected = by_enumeration(&log_probs[..steps * CLASSES], CLASSES, blank, &labels);
                    assert_relative_eq!(loss[0], expected, max_relative = 1e-13);
                }
            }
        }
    }

    #[test]
    fn log_sum_keeps_infinities_and_nan() {
        let none = f64::NEG_INFINITY;
        assert_eq!(log_sum([none; 3]), none);
        assert_eq!(log_sum([none, 2.5, none]), 2.5);
        assert!(log_sum([none, f64::NAN, none]).is_nan() && log_sum([1.0, f64::NAN, 2.0]).is_nan());
        assert_relative_eq!(log_sum([-1000.0, -1000.0, -1000.0]), 3f64.ln() - 1000.0, max_relative = 1e-15);
    }
}
