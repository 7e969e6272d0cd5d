//! The windows of a pooling: which input positions each output position covers.

use crate::kernels::geometry::{Readers, Window};
use crate::kernels::runtime::arrays::MapEach;

/// The input positions that one output position covers along one axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// The first input position.
    pub(super) start: usize,
    /// The number of positions inside the input.
    pub(super) taps: usize,
    /// The number of positions by which an average divides.
    pub(super) counted: usize,
}

/// What an average over sliding windows divides by.
#[derive(Clone, Copy, Debug)]
pub enum Divisor {
    /// The number of positions inside the input.
    Taps,
    /// The number of positions, those of the padding included.
    Padded,
    /// A number that is given.
    Given(usize),
}

/// The map from output positions to the input positions that they cover, and the reverse.
#[derive(Clone, Debug)]
pub struct Pooling {
    pub(super) input: [usize; 2],
    pub(super) output: [usize; 2],
    /// The distance between neighbouring taps.
    pub(super) step: [usize; 2],
    pub(super) spans: [Vec<Span>; 2],
    /// For each input position, the windows that may cover it.
    pub(super) readers: [Readers; 2],
    /// The largest number of taps along each axis.
    pub(super) widest: [usize; 2],
}

impl Pooling {
    /// Creates sliding windows, whose averages have this divisor.
    pub fn sliding(window: &Window, divisor: Divisor) -> Pooling {
        Pooling::new(window.input, window.output, window.stride, window.dilation, |axis, at| {
            let taps = window.taps(axis, at);
            // PyTorch's divisor counts padding up to its end and nothing beyond.
            let padded = window.input[axis] + 2 * window.padding[axis] - at * window.stride[axis];
            let counted = match divisor {
                Divisor::Padded => window.kernel[axis].min(padded),
                Divisor::Taps => taps.len(),
                // The divisor is the product of both axes' numbers.
                Divisor::Given(divisor) => [divisor, 1][axis],
            };
            let start = if taps.is_empty() { 0 } else { window.position(axis, at, taps.start) };
            Span { start, taps: taps.len(), counted }
        })
    }

    /// Creates adaptive windows, which divide the input among the output positions: from
    /// `⌊o·in/out⌋` to `⌈(o + 1)·in/out⌉`.
    pub fn adaptive(input: [usize; 2], output: [usize; 2]) -> Pooling {
        Pooling::new(input, output, [1, 1], [1, 1], |axis, at| {
            let (size, count) = (input[axis], output[axis]);
            let start = at * size / count;
            let taps = ((at + 1) * size).div_ceil(count) - start;
            Span { start, taps, counted: taps }
        })
    }

    fn new(input: [usize; 2], output: [usize; 2], stride: [usize; 2], step: [usize; 2], span: impl Fn(usize, usize) -> Span) -> Pooling {
        let spans = [0, 1].map_each(|axis| (0..output[axis]).map(|at| span(axis, at)).collect::<Vec<_>>());
        let readers = [0, 1].map_each(|axis| {
            let spans = spans[axis].iter().map(|span| (span.start, span.taps));
            Readers::new(input[axis], stride[axis], step[axis], spans)
        });
        let widest = [0, 1].map_each(|axis| spans[axis].iter().map(|span| span.taps).max().unwrap_or(0));
        Pooling { input, output, step, spans, readers, widest }
    }

    /// Returns whether a byte can distinguish all positions in a window.
    pub fn fits_byte(&self) -> bool {
        self.widest[0] * self.widest[1] <= 1 + usize::from(u8::MAX)
    }

    /// Returns whether each row of the input belongs to at most one row of windows, and each
    /// column, except for the last few, to exactly one column of windows.
    pub(super) fn is_shared_out(&self) -> bool {
        let mut end = 0;
        let one_by_one = self.spans[1].iter().all(|span| {
            let follows = span.start == end && span.taps > 0;
            end = span.start + span.taps;
            follows
        });
        one_by_one && self.step == [1, 1] && (0..self.input[0]).all(|row| self.readers[0].range(row).len() <= 1)
    }

    /// Returns the number of elementary operations of a pass; `places` counts output positions
    /// times channels.
    pub(super) fn work(&self, places: usize) -> usize {
        places.saturating_mul(self.widest[0] * self.widest[1])
    }

    /// Returns the tap of window `at` that reads input position `position`, if there is one.
    #[inline(always)]
    pub(super) fn tap(&self, axis: usize, at: usize, position: usize) -> Option<usize> {
        let (span, step) = (self.spans[axis][at], self.step[axis]);
        let distance = position.wrapping_sub(span.start);
        let tap = if step == 1 { distance } else { distance / step };
        (tap < span.taps && tap * step == distance).then_some(tap)
    }
}
