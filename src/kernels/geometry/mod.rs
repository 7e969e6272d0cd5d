//! The geometry of a sliding window: validated once, then trusted by every kernel.

use std::ops::Range;

/// A window (kernel) that slides over the two spatial axes (height, width) of a map, and the
/// resulting sizes.
///
/// [`Window::new`] checks the parameters, so kernels may compute positions without overflow. The
/// fields are public only for reading; create windows with [`Window::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// The size of the input.
    pub input: [usize; 2],
    /// The number of windows along each axis, at least 1.
    pub output: [usize; 2],
    /// The number of taps along each axis.
    pub kernel: [usize; 2],
    /// The distance between neighbouring windows; if there is one window, at most the larger extent
    /// of the padded input and the dilated kernel.
    pub stride: [usize; 2],
    /// The number of positions added at both ends of each axis.
    pub padding: [usize; 2],
    /// The distance between neighbouring taps; 1 if there is one tap.
    pub dilation: [usize; 2],
}

impl Window {
    /// Validates the parameters and computes the output's size.
    ///
    /// With `ceil_mode` a last window may extend beyond the end if it starts inside the input or
    /// the padding before it (PyTorch's rule).
    ///
    /// # Errors
    /// Returns a message, to which the caller prepends the name of its operation, for a zero
    /// kernel, stride or dilation, a kernel larger than the padded input, or sizes that overflow.
    pub fn new(
        input: [usize; 2],
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
        dilation: [usize; 2],
        ceil_mode: bool,
    ) -> Result<Window, String> {
        for (name, sizes) in [("kernel", kernel), ("stride", stride), ("dilation", dilation)] {
            if sizes.contains(&0) {
                return Err(format!("{name} {} must not be zero", by(sizes)));
            }
        }
        let too_large =
            || format!("kernel {}, stride {}, padding {}, dilation {} overflow", by(kernel), by(stride), by(padding), by(dilation));
        let mut output = [0; 2];
        let mut padded = [0; 2];
        let mut extent = [0; 2];
        for axis in 0..2 {
            let sizes = sizes(input[axis], kernel[axis], stride[axis], padding[axis], dilation[axis]);
            (padded[axis], extent[axis]) = sizes.ok_or_else(too_large)?;
        }
        for axis in 0..2 {
            let overhang = if ceil_mode { stride[axis] - 1 } else { 0 };
            let windows = (padded[axis] + overhang).checked_sub(extent[axis]).map(|room| room / stride[axis] + 1);
            // A window that would start in the padding behind the input does not count.
            let starts_behind = |windows: usize| ceil_mode && (windows - 1) * stride[axis] >= input[axis] + padding[axis];
            output[axis] = windows.map_or(0, |windows| windows - usize::from(starts_behind(windows)));
        }
        if output.contains(&0) {
            let dilated = if dilation == [1, 1] { String::new() } else { format!(" (dilated to {})", by(extent)) };
            return Err(format!("kernel {}{dilated} is larger than the padded input {}", by(kernel), by(padded)));
        }
        // With one window, or one tap, the distance to the next does not matter. It is limited in
        // proportion to the input for kernels that compute with it or have one part for each
        // remainder.
        let (mut stride, mut dilation) = (stride, dilation);
        for axis in 0..2 {
            if output[axis] == 1 {
                stride[axis] = stride[axis].min(padded[axis].max(extent[axis]));
            }
            if kernel[axis] == 1 {
                dilation[axis] = 1;
            }
        }
        Ok(Window { input, output, kernel, stride, padding, dilation })
    }

    /// Returns the taps of window `at` along `axis` that are inside the input; empty if the window
    /// is entirely in the padding.
    pub fn taps(&self, axis: usize, at: usize) -> Range<usize> {
        let (start, dilation) = (at * self.stride[axis], self.dilation[axis]);
        let first = self.padding[axis].saturating_sub(start).div_ceil(dilation);
        let end = (self.input[axis] + self.padding[axis]).saturating_sub(start).div_ceil(dilation).min(self.kernel[axis]);
        first.min(end)..end
    }

    /// Returns the first window along `axis` whose taps are all in the padding, without iterating
    /// over the windows. The padding must be at most half of the dilated kernel.
    pub fn only_padding(&self, axis: usize) -> Option<usize> {
        let (input, stride, dilation) = (self.input[axis], self.stride[axis], self.dilation[axis]);
        // For the window that starts at `start`, the first tap behind the leading padding reads
        // position `(first + start) % dilation`. Starts from `input - first` to `dilation - first`
        // therefore have one tap before the input and the next one behind it. The next such range
        // begins more than `input` later, where only a last window that extends beyond the end may
        // start.
        let first = (dilation - self.padding[axis] % dilation) % dilation;
        let (at, last) = (input.saturating_sub(first).div_ceil(stride), self.output[axis] - 1);
        let found = (at <= last && at * stride < dilation - first).then_some(at);
        found.or_else(|| self.taps(axis, last).is_empty().then_some(last))
    }

    /// Returns the windows along `axis` that read each position of the input.
    pub fn readers(&self, axis: usize) -> Readers {
        let spans = (0..self.output[axis]).map(|at| {
            let taps = self.taps(axis, at);
            (if taps.is_empty() { 0 } else { self.position(axis, at, taps.start) }, taps.len())
        });
        Readers::new(self.input[axis], self.stride[axis], self.dilation[axis], spans)
    }

    /// Returns the input position that tap `tap` of window `at` reads along `axis`; only for taps
    /// in [`taps`](Window::taps).
    pub fn position(&self, axis: usize, at: usize, tap: usize) -> usize {
        at * self.stride[axis] + tap * self.dilation[axis] - self.padding[axis]
    }
}

/// For each position along an axis of the input, the windows that read it.
///
/// If window `o` reads a position by its tap `k`, so do all windows `o + i · step` whose taps
/// `k - i · step · stride / dilation` exist; where `step` is the least number for which these are
/// whole numbers.
#[derive(Clone, Debug)]
pub struct Readers {
    /// The first window, and one behind the last.
    ranges: Vec<Range<usize>>,
    step: usize,
}

impl Readers {
    /// Collects the readers of `input` positions, in time in proportion to the number of taps.
    /// `spans` gives each window's first position and its number of taps inside the input.
    pub fn new(input: usize, stride: usize, dilation: usize, spans: impl Iterator<Item = (usize, usize)>) -> Readers {
        let mut ranges = vec![0..0; input];
        for (at, (start, taps)) in spans.enumerate() {
            for tap in 0..taps {
                let range = &mut ranges[start + tap * dilation];
                *range = if range.end == 0 { at..at + 1 } else { range.start..at + 1 };
            }
        }
        Readers { ranges, step: dilation / greatest_common_divisor(stride, dilation) }
    }

    /// Returns the first window that may read a position, and one behind the last; each
    /// [`step`](Readers::step)-th of them does, unless windows are of different lengths.
    #[inline(always)]
    pub fn range(&self, position: usize) -> Range<usize> {
        self.ranges[position].clone()
    }

    /// Returns the distance from one window that reads a position to the next.
    #[inline(always)]
    pub fn step(&self) -> usize {
        self.step
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Returns the sizes of the padded input and the dilated kernel, if every position that kernels
/// compute fits.
fn sizes(input: usize, kernel: usize, stride: usize, padding: usize, dilation: usize) -> Option<(usize, usize)> {
    let padded = padding.checked_mul(2)?.checked_add(input)?;
    let extent = (kernel - 1).checked_mul(dilation)?.checked_add(1)?;
    let furthest = padded.checked_add(stride)?.checked_add(extent)?;
    isize::try_from(furthest).ok()?;
    Some((padded, extent))
}

/// Formats `[3, 5]` as `3×5`.
fn by([height, width]: [usize; 2]) -> String {
    format!("{height}×{width}")
}

#[cfg(test)]
mod tests;
