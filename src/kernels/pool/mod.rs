//! Pooling over channels-last maps, `[N, H, W, C]` in memory.
//!
//! [`Pooling`] describes sliding and adaptive windows alike: for each output position along an
//! axis, a [`Span`] of input positions. Every kernel iterates over a row of places (output
//! positions in the forward pass, input positions in the backward pass) and handles a block of `B`
//! channels at a time in registers. With fewer than `B` channels, a block extends into the next
//! place or the next row, whose own block is computed later and overwrites the overhang, so that
//! few channels (6 in LeNet) are vectorised too. The backward pass gathers: each input position
//! sums the gradients of the windows that cover it, so overlapping windows need neither locks nor
//! an order of threads.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::geometry::Window;
use super::runtime::nontemporal;
use super::runtime::parallel::{self, Disjoint};
use super::runtime::simd::{Real, Scalar, dispatch_light};
use crate::kernels::runtime::arrays::MapEach;

/// The approximate number of elements that one task handles.
const GRAIN: usize = 8 * 1024;
/// The largest number of channels in a block; used only with the longest vectors.
const WIDEST: usize = 64;
const WIDE: usize = 32;
const MIDDLE: usize = 16;
const NARROW: usize = 8;

/// The input positions that one output position covers along one axis.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// The first input position.
    start: usize,
    /// The number of positions inside the input.
    taps: usize,
    /// The number of positions by which an average divides.
    counted: usize,
}

/// The map from output positions to the input positions that they cover, and the reverse.
#[derive(Clone, Debug)]
pub struct Pooling {
    input: [usize; 2],
    output: [usize; 2],
    /// The distance between neighbouring taps.
    step: [usize; 2],
    spans: [Vec<Span>; 2],
    /// For each input position, the windows that may cover it.
    covers: [Vec<Range<usize>>; 2],
    /// The largest number of taps along each axis.
    widest: [usize; 2],
}

impl Pooling {
    /// Creates sliding windows; averages also divide by the number of padding positions if
    /// `padding_counts`.
    pub fn sliding(window: &Window, padding_counts: bool) -> Pooling {
        Pooling::new(window.input, window.output, window.dilation, |axis, at| {
            let taps = window.taps(axis, at);
            // PyTorch's divisor counts padding up to its end and nothing beyond.
            let padded = window.input[axis] + 2 * window.padding[axis] - at * window.stride[axis];
            let counted = if padding_counts { window.kernel[axis].min(padded) } else { taps.len() };
            let start = if taps.is_empty() { 0 } else { window.position(axis, at, taps.start) };
            Span { start, taps: taps.len(), counted }
        })
    }

    /// Creates adaptive windows, which divide the input among the output positions: from
    /// `⌊o·in/out⌋` to `⌈(o + 1)·in/out⌉`.
    pub fn adaptive(input: [usize; 2], output: [usize; 2]) -> Pooling {
        Pooling::new(input, output, [1, 1], |axis, at| {
            let (size, count) = (input[axis], output[axis]);
            let start = at * size / count;
            let taps = ((at + 1) * size).div_ceil(count) - start;
            Span { start, taps, counted: taps }
        })
    }

    fn new(input: [usize; 2], output: [usize; 2], step: [usize; 2], span: impl Fn(usize, usize) -> Span) -> Pooling {
        let spans = [0, 1].map_each(|axis| (0..output[axis]).map(|at| span(axis, at)).collect::<Vec<_>>());
        let covers = [0, 1].map_each(|axis| {
            let mut covers = vec![0..0; input[axis]];
            for (at, span) in spans[axis].iter().enumerate().filter(|(_, span)| span.taps > 0) {
                for cover in &mut covers[span.start..=span.start + (span.taps - 1) * step[axis]] {
                    *cover = if cover.start >= cover.end { at..at + 1 } else { cover.start..at + 1 };
                }
            }
            covers
        });
        let widest = [0, 1].map_each(|axis| spans[axis].iter().map(|span| span.taps).max().unwrap_or(0));
        Pooling { input, output, step, spans, covers, widest }
    }

    /// Returns whether a byte can distinguish all positions in a window.
    pub fn fits_byte(&self) -> bool {
        self.widest[0] * self.widest[1] <= 1 + usize::from(u8::MAX)
    }

    /// Returns whether each row of the input belongs to at most one row of windows, and each
    /// column, except for the last few, to exactly one column of windows.
    fn is_shared_out(&self) -> bool {
        let mut end = 0;
        let one_by_one = self.spans[1].iter().all(|span| {
            let follows = span.start == end && span.taps > 0;
            end = span.start + span.taps;
            follows
        });
        one_by_one && self.step == [1, 1] && self.covers[0].iter().all(|rows| rows.len() <= 1)
    }

    /// Returns the number of elementary operations of a pass; `places` counts output positions
    /// times channels.
    fn work(&self, places: usize) -> usize {
        places.saturating_mul(self.widest[0] * self.widest[1])
    }

    /// Returns the tap of window `at` that reads input position `position`, if there is one.
    #[inline(always)]
    fn tap(&self, axis: usize, at: usize, position: usize) -> Option<usize> {
        let (span, step) = (self.spans[axis][at], self.step[axis]);
        let distance = position.wrapping_sub(span.start);
        let tap = if step == 1 { distance } else { distance / step };
        (tap < span.taps && tap * step == distance).then_some(tap)
    }
}

/// One row of places, processed a block of channels at a time.
trait Row {
    /// Whether to compile for blocks of all sizes, not only for the smallest.
    const FAST: bool;
    /// Returns whether everything that `place` reads and writes in blocks of `block` channels is
    /// inside its source and target.
    fn has_room(&self, place: usize, block: usize) -> bool;
    /// Computes `length ≤ B` channels of `place`, starting at channel `first`.
    fn run<S: Simd, const B: usize>(&mut self, simd: S, place: usize, first: usize, length: usize);
}

#[inline(always)]
fn run_blocks<S: Simd, const B: usize>(simd: S, places: usize, channels: usize, row: &mut impl Row) {
    for place in 0..places {
        if channels >= B {
            // The last block overlaps the previous one, so that all blocks have `B` channels.
            for first in (0..channels).step_by(B) {
                row.run::<S, B>(simd, place, first.min(channels - B), B);
            }
            continue;
        }
        if row.has_room(place, B) {
            row.run::<S, B>(simd, place, 0, B);
        } else {
            row.run::<S, B>(simd, place, 0, channels);
        }
    }
}

fn run_row<T: Real>(places: usize, channels: usize, row: &mut impl Row) {
    struct RowLoop<'a, R> {
        places: usize,
        channels: usize,
        row: &'a mut R,
    }
    impl<R: Row> WithSimd for RowLoop<'_, R> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let RowLoop { places, channels, row } = self;
            // Conditions in `const` blocks remove unused code before it is compiled.
            if const { S::IS_SCALAR || !R::FAST } {
                return run_blocks::<S, NARROW>(simd, places, channels, row);
            }
            if channels >= WIDE {
                // By itself, so that the branch is not compiled where the condition is false.
                #[allow(clippy::collapsible_if)]
                if const { size_of::<S::f32s>() > NARROW * size_of::<f32>() } {
                    if channels >= WIDEST {
                        return run_blocks::<S, WIDEST>(simd, places, channels, row);
                    }
                }
                run_blocks::<S, WIDE>(simd, places, channels, row);
            } else if const { size_of::<S::f32s>() > NARROW * size_of::<f32>() } || channels >= MIDDLE {
                run_blocks::<S, MIDDLE>(simd, places, channels, row);
            } else {
                run_blocks::<S, NARROW>(simd, places, channels, row);
            }
        }
    }
    dispatch_light::<T, _>(RowLoop { places, channels, row });
}

/// Runs `body(row, elements)` for each of the rows of `y`, which have `length` elements each; a
/// task handles several rows. `elements` is the row and all later rows of the task.
fn for_rows<T: Scalar>(y: &mut [T], length: usize, work: usize, body: impl Fn(usize, &mut [T]) + Sync) {
    if y.is_empty() {
        return;
    }
    let rows = (GRAIN / length).max(1);
    parallel::chunks_mut(y, rows * length, work, |task, y| {
        (0..y.len() / length).for_each(|i| body(task * rows + i, &mut y[i * length..]));
    });
}

struct MaxRow<'a, T, I, const KEEP: bool> {
    pooling: &'a Pooling,
    channels: usize,
    /// The input from the image's start to the end of the batch.
    x: &'a [T],
    rows: Span,
    y: &'a mut [T],
    at: &'a mut [I],
}

impl<T: Real, I: Scalar, const KEEP: bool> Row for MaxRow<'_, T, I, KEEP> {
    const FAST: bool = T::FAST && size_of::<I>() == 1;

    #[inline(always)]
    fn has_room(&self, place: usize, block: usize) -> bool {
        let from = furthest(self.pooling, self.rows, place) * self.channels;
        from + block <= self.x.len() && place * self.channels + block <= self.y.len()
    }

    #[inline(always)]
    fn run<S: Simd, const B: usize>(&mut self, simd: S, place: usize, first: usize, length: usize) {
        if const { !S::IS_SCALAR && Self::FAST } && length == B {
            return self.run_vectors::<S, B>(simd, place, first);
        }
        let (pooling, columns) = (self.pooling, self.pooling.spans[1][place]);
        let mut best = [T::neg_infinity(); B];
        let mut at = [I::zero(); B];
        for i in 0..self.rows.taps {
            let row = (self.rows.start + i * pooling.step[0]) * pooling.input[1];
            for j in 0..columns.taps {
                let from = (row + columns.start + j * pooling.step[1]) * self.channels + first;
                let tap = if KEEP { I::from(i * pooling.widest[1] + j).unwrap_or_default() } else { I::zero() };
                let x = &self.x[from..from + length];
                for ((best, at), &x) in best.iter_mut().zip(&mut at).zip(x) {
                    // A NaN wins, the last one if there are several; otherwise the first maximum
                    // wins (PyTorch's rule).
                    let wins = (x > *best) | x.is_nan();
                    *best = if wins { x } else { *best };
                    if KEEP {
                        *at = if wins { tap } else { *at };
                    }
                }
            }
        }
        let to = place * self.channels + first;
        self.y[to..to + length].copy_from_slice(&best[..length]);
        if KEEP {
            self.at[to..to + length].copy_from_slice(&at[..length]);
        }
    }
}

impl<T: Real, I: Scalar, const KEEP: bool> MaxRow<'_, T, I, KEEP> {
    /// Computes `run` for a whole block whose positions fit a byte: they are kept as numbers of
    /// type `T` during the search, lane by lane.
    #[inline(always)]
    fn run_vectors<S: Simd, const B: usize>(&mut self, simd: S, place: usize, first: usize) {
        let (pooling, columns, lanes) = (self.pooling, self.pooling.spans[1][place], T::lanes::<S>());
        let mut best = [T::neg_infinity(); B];
        let mut at = [T::zero(); B];
        for i in 0..self.rows.taps {
            let row = (self.rows.start + i * pooling.step[0]) * pooling.input[1];
            for j in 0..columns.taps {
                let from = (row + columns.start + j * pooling.step[1]) * self.channels + first;
                let x = &self.x[from..from + B];
                let tap = T::splat(simd, T::of((i * pooling.widest[1] + j) as f64));
                for v in (0..B).step_by(lanes) {
                    let leader = [read::<S, T>(&best[v..v + lanes]), read::<S, T>(&at[v..v + lanes])];
                    let [new_best, new_at] = T::vector_leader(simd, [read::<S, T>(&x[v..v + lanes]), tap], leader);
                    write::<S, T>(new_best, &mut best[v..v + lanes]);
                    if KEEP {
                        write::<S, T>(new_at, &mut at[v..v + lanes]);
                    }
                }
            }
        }
        let to = place * self.channels + first;
        self.y[to..to + B].copy_from_slice(&best);
        if KEEP {
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.at[to..to + B]);
            bytes.iter_mut().zip(at).for_each(|(byte, at)| *byte = at.to_byte());
        }
    }
}

/// Reads a vector from as many elements.
#[inline(always)]
fn read<S: Simd, T: Real>(x: &[T]) -> T::Vector<S> {
    bytemuck::pod_read_unaligned(bytemuck::cast_slice(x))
}

/// Writes a vector to as many elements.
#[inline(always)]
fn write<S: Simd, T: Real>(x: T::Vector<S>, out: &mut [T]) {
    bytemuck::cast_slice_mut(out).copy_from_slice(bytemuck::bytes_of(&x));
}

/// Returns the position in the image that the last tap of the window at column `place` reads.
#[inline(always)]
fn furthest(pooling: &Pooling, rows: Span, place: usize) -> usize {
    let last = |span: Span, axis: usize| span.start + span.taps.saturating_sub(1) * pooling.step[axis];
    last(rows, 0) * pooling.input[1] + last(pooling.spans[1][place], 1)
}

/// Computes the largest element of each window and its position in the window: `y, at: [N, outH,
/// outW, C]`, `x: [N, H, W, C]`.
///
/// A window that is entirely in the padding gives -∞.
pub fn max<T: Real, I: Scalar>(pooling: &Pooling, channels: usize, x: &[T], y: &mut [T], at: Option<&mut [I]>) {
    let (image, row) = (pooling.input[0] * pooling.input[1] * channels, pooling.output[1] * channels);
    let work = pooling.work(y.len());
    match at {
        None => for_rows(y, row, work, |index, y| {
            let (x, rows) = (&x[index / pooling.output[0] * image..], pooling.spans[0][index % pooling.output[0]]);
            run_row::<T>(pooling.output[1], channels, &mut MaxRow::<T, u8, false> { pooling, channels, x, rows, y, at: &mut [] });
        }),
        Some(at) => {
            assert_eq!(at.len(), y.len());
            let at = Disjoint::new(at);
            for_rows(y, row, work, |index, y| {
                let (x, rows) = (&x[index / pooling.output[0] * image..], pooling.spans[0][index % pooling.output[0]]);
                // SAFETY: each task has its own rows, and `y` ends with them.
                let at = unsafe { at.slice(index * row, y.len()) };
                run_row::<T>(pooling.output[1], channels, &mut MaxRow::<T, I, true> { pooling, channels, x, rows, y, at });
            });
        }
    }
}

struct AverageRow<'a, T> {
    pooling: &'a Pooling,
    channels: usize,
    x: &'a [T],
    rows: Span,
    y: &'a mut [T],
}

impl<T: Real> Row for AverageRow<'_, T> {
    const FAST: bool = T::FAST;

    #[inline(always)]
    fn has_room(&self, place: usize, block: usize) -> bool {
        let from = furthest(self.pooling, self.rows, place) * self.channels;
        from + block <= self.x.len() && place * self.channels + block <= self.y.len()
    }

    #[inline(always)]
    fn run<S: Simd, const B: usize>(&mut self, _: S, place: usize, first: usize, length: usize) {
        let (pooling, columns) = (self.pooling, self.pooling.spans[1][place]);
        let mut total = [T::zero(); B];
        for i in 0..self.rows.taps {
            let row = (self.rows.start + i * pooling.step[0]) * pooling.input[1];
            // Summing each row of the window first loses less precision for large windows.
            let mut sum = [T::zero(); B];
            for j in 0..columns.taps {
                let from = (row + columns.start + j * pooling.step[1]) * self.channels + first;
                sum.iter_mut().zip(&self.x[from..from + length]).for_each(|(sum, &x)| *sum += x);
            }
            total.iter_mut().zip(sum).for_each(|(total, sum)| *total += sum);
        }
        let count = T::of((self.rows.counted * columns.counted).max(1) as f64);
        let to = place * self.channels + first;
        self.y[to..to + length].iter_mut().zip(total).for_each(|(y, total)| *y = total / count);
    }
}

/// Computes the average of each window: `y: [N, outH, outW, C]`, `x: [N, H, W, C]`.
pub fn average<T: Real>(pooling: &Pooling, channels: usize, x: &[T], y: &mut [T]) {
    let (image, row) = (pooling.input[0] * pooling.input[1] * channels, pooling.output[1] * channels);
    let work = pooling.work(y.len());
    for_rows(y, row, work, |index, y| {
        let (x, rows) = (&x[index / pooling.output[0] * image..], pooling.spans[0][index % pooling.output[0]]);
        run_row::<T>(pooling.output[1], channels, &mut AverageRow { pooling, channels, x, rows, y });
    });
}

/// The rule for an input position's part of a window's gradient.
trait Share<T> {
    /// See [`Row::FAST`].
    const FAST: bool;
    /// Adds to `sum` what the `B` elements of the gradient from `from` on contribute to tap `(i,
    /// j)` of window `(row, column)`.
    fn add<S: Simd, const B: usize>(&self, simd: S, sum: &mut [T; B], from: usize, window: [usize; 2], tap: [usize; 2]);
    /// Returns the length of the gradient.
    fn length(&self) -> usize;
}

/// Returns the `B` elements from `from` on.
#[inline(always)]
fn block<T, const B: usize>(x: &[T], from: usize) -> &[T; B] {
    x[from..].first_chunk().expect("a block lies within the elements")
}

struct MaxShare<'a, T, I> {
    pooling: &'a Pooling,
    grad: &'a [T],
    at: &'a [I],
}

impl<T: Real, I: Scalar> Share<T> for MaxShare<'_, T, I> {
    const FAST: bool = T::FAST && size_of::<I>() == 1;

    #[inline(always)]
    fn add<S: Simd, const B: usize>(&self, simd: S, sum: &mut [T; B], from: usize, _: [usize; 2], [i, j]: [usize; 2]) {
        let tap = i * self.pooling.widest[1] + j;
        let (grad, at) = (block::<T, B>(self.grad, from), block::<I, B>(self.at, from));
        if const { !S::IS_SCALAR && Self::FAST && B > 1 } {
            // Compared as numbers of type `T`, lane by lane.
            let (lanes, tap) = (T::lanes::<S>(), T::splat(simd, T::of(tap as f64)));
            let mut numbers = [T::zero(); B];
            numbers.iter_mut().zip(bytemuck::cast_slice::<I, u8>(at)).for_each(|(number, &at)| *number = T::of_byte(at));
            for v in (0..B).step_by(lanes) {
                let [at, grad, old] = [&numbers[v..v + lanes], &grad[v..v + lanes], &sum[v..v + lanes]].map_each(read::<S, T>);
                write::<S, T>(T::vector_add(simd, old, T::vector_where_equal(simd, [at, tap], grad)), &mut sum[v..v + lanes]);
            }
            return;
        }
        let tap = I::from(tap).unwrap_or_default();
        for ((sum, &grad), &at) in sum.iter_mut().zip(grad).zip(at) {
            *sum += if at == tap { grad } else { T::zero() };
        }
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.grad.len()
    }
}

struct AverageShare<'a, T> {
    pooling: &'a Pooling,
    grad: &'a [T],
}

impl<T: Real> Share<T> for AverageShare<'_, T> {
    const FAST: bool = T::FAST;

    #[inline(always)]
    fn add<S: Simd, const B: usize>(&self, _: S, sum: &mut [T; B], from: usize, [row, column]: [usize; 2], _: [usize; 2]) {
        let share = T::one() / T::of((self.pooling.spans[0][row].counted * self.pooling.spans[1][column].counted) as f64);
        sum.iter_mut().zip(block::<T, B>(self.grad, from)).for_each(|(sum, &grad)| *sum += grad * share);
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.grad.len()
    }
}

struct GatherRow<'a, T, S> {
    pooling: &'a Pooling,
    channels: usize,
    share: &'a S,
    /// The image and the input row within it.
    image: usize,
    position: usize,
    dx: &'a mut [T],
    /// Whether whole blocks are written with non-temporal stores.
    streamed: bool,
}

impl<T: Real, G: Share<T>> Row for GatherRow<'_, T, G> {
    const FAST: bool = G::FAST;

    #[inline(always)]
    fn has_room(&self, place: usize, block: usize) -> bool {
        let last = |axis: usize, position: usize| self.pooling.covers[axis][position].end.saturating_sub(1);
        let [height, width] = self.pooling.output;
        let window = (self.image * height + last(0, self.position)) * width + last(1, place);
        window * self.channels + block <= self.share.length() && place * self.channels + block <= self.dx.len()
    }

    #[inline(always)]
    fn run<S: Simd, const B: usize>(&mut self, simd: S, place: usize, first: usize, length: usize) {
        if length < B {
            // The last places of the row, channel by channel.
            return (first..first + length).for_each(|channel| self.run::<S, 1>(simd, place, channel, 1));
        }
        let pooling = self.pooling;
        let mut sum = [T::zero(); B];
        for row in pooling.covers[0][self.position].clone() {
            let Some(i) = pooling.tap(0, row, self.position) else { continue };
            for column in pooling.covers[1][place].clone() {
                let Some(j) = pooling.tap(1, column, place) else { continue };
                let from = ((self.image * pooling.output[0] + row) * pooling.output[1] + column) * self.channels + first;
                self.share.add(simd, &mut sum, from, [row, column], [i, j]);
            }
        }
        let to = place * self.channels + first;
        let dx = &mut self.dx[to..to + B];
        if self.streamed { nontemporal::copy(&sum, dx) } else { dx.copy_from_slice(&sum) }
    }
}

/// A row of the input that belongs to one row of windows without overlap: a place is a window,
/// which writes its part to each of its positions.
struct ScatterRow<'a, T, S> {
    pooling: &'a Pooling,
    channels: usize,
    share: &'a S,
    /// The row of windows in its image, its index in the whole batch, and its tap that reads the
    /// input row.
    row: usize,
    row_of_batch: usize,
    tap: usize,
    dx: &'a mut [T],
}

impl<T: Real, G: Share<T>> Row for ScatterRow<'_, T, G> {
    const FAST: bool = G::FAST;

    #[inline(always)]
    fn has_room(&self, place: usize, block: usize) -> bool {
        let window = self.row_of_batch * self.pooling.output[1] + place;
        let span = self.pooling.spans[1][place];
        let last = span.start + span.taps.saturating_sub(1);
        window * self.channels + block <= self.share.length() && last * self.channels + block <= self.dx.len()
    }

    #[inline(always)]
    fn run<S: Simd, const B: usize>(&mut self, simd: S, place: usize, first: usize, length: usize) {
        if length < B {
            return (first..first + length).for_each(|channel| self.run::<S, 1>(simd, place, channel, 1));
        }
        let span = self.pooling.spans[1][place];
        let from = (self.row_of_batch * self.pooling.output[1] + place) * self.channels + first;
        for j in 0..span.taps {
            let mut part = [T::zero(); B];
            self.share.add(simd, &mut part, from, [self.row, place], [self.tap, j]);
            self.dx[(span.start + j) * self.channels + first..][..B].copy_from_slice(&part);
        }
    }
}

fn gather<T: Real>(pooling: &Pooling, channels: usize, dx: &mut [T], share: &(impl Share<T> + Sync)) {
    let [height, width] = pooling.input;
    let work = pooling.work(share.length()).max(dx.len());
    // With streamed stores no block may extend into another place, because their order of arrival
    // is not defined.
    let streamed = nontemporal::pays::<T>(dx.len()) && channels.is_multiple_of(MIDDLE);
    let shared_out = pooling.is_shared_out() && !streamed;
    for_rows(dx, width * channels, work, |index, dx| {
        let (image, position) = (index / height, index % height);
        if shared_out {
            let row = pooling.covers[0][position].start;
            let Some(tap) = pooling.spans[0].get(row).and_then(|_| pooling.tap(0, row, position)) else {
                return dx[..width * channels].fill(T::zero());
            };
            let row_of_batch = image * pooling.output[0] + row;
            run_row::<T>(pooling.output[1], channels, &mut ScatterRow { pooling, channels, share, row, row_of_batch, tap, dx });
            let end = pooling.spans[1].last().map_or(0, |span| span.start + span.taps);
            return dx[end * channels..width * channels].fill(T::zero());
        }
        run_row::<T>(width, channels, &mut GatherRow { pooling, channels, share, image, position, dx, streamed });
        if streamed {
            nontemporal::fence();
        }
    });
}

/// Computes the gradient of [`max`]: each window's gradient goes to its maximum. `dx: [N, H, W,
/// C]`, `grad, at: [N, outH, outW, C]`.
pub fn max_backward<T: Real, I: Scalar>(pooling: &Pooling, channels: usize, grad: &[T], at: &[I], dx: &mut [T]) {
    assert_eq!(grad.len(), at.len());
    gather(pooling, channels, dx, &MaxShare { pooling, grad, at });
}

/// Computes the gradient of [`average`]. `dx: [N, H, W, C]`, `grad: [N, outH, outW, C]`.
pub fn average_backward<T: Real>(pooling: &Pooling, channels: usize, grad: &[T], dx: &mut [T]) {
    gather(pooling, channels, dx, &AverageShare { pooling, grad });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Generates a pooling, a number of images and a number of channels.
    fn any_case() -> impl Strategy<Value = (Pooling, usize, usize)> {
        let axis = || (1usize..9, 1usize..5, 1usize..4, 0usize..3, 1usize..3, 1usize..12);
        let channels = prop_oneof![1usize..20, 30usize..40, 60usize..70];
        (axis(), axis(), any::<[bool; 3]>(), 1usize..3, channels).prop_filter_map(
            "a window that fits",
            |(a, b, flags, images, channels)| {
                let [adaptive, ceil, padding_counts] = flags;
                let pooling = if adaptive {
                    Pooling::adaptive([a.0, b.0], [a.5, b.5])
                } else {
                    let padding = [a.3.min(a.1 / 2), b.3.min(b.1 / 2)];
                    Pooling::sliding(&Window::new([a.0, b.0], [a.1, b.1], [a.2, b.2], padding, [a.4, b.4], ceil).ok()?, padding_counts)
                };
                Some((pooling, images, channels))
            },
        )
    }

    /// Returns numbers with many ties and some NaN.
    fn values(length: usize) -> Vec<f64> {
        (0..length).map(|i| if i % 31 == 30 { f64::NAN } else { (i * 7919 % 17) as f64 - 8.0 }).collect()
    }

    /// Returns for each output element, in memory order, the input elements of its window by row,
    /// and the divisor.
    fn windows(pooling: &Pooling, images: usize, channels: usize) -> Vec<(Vec<usize>, usize)> {
        let ([h, w], [rows, columns]) = (pooling.input, pooling.output);
        let mut windows = vec![];
        for index in 0..images * rows * columns * channels {
            let [n, row, column, c] =
                [index / channels / columns / rows, index / channels / columns % rows, index / channels % columns, index % channels];
            let (a, b) = (pooling.spans[0][row], pooling.spans[1][column]);
            let mut inside = vec![];
            for i in 0..a.taps {
                for j in 0..b.taps {
                    let (y, x) = (a.start + i * pooling.step[0], b.start + j * pooling.step[1]);
                    assert!(y < h && x < w);
                    inside.push(((n * h + y) * w + x) * channels + c);
                }
            }
            windows.push((inside, a.counted * b.counted));
        }
        windows
    }

    fn bits(x: &[f64]) -> Vec<u64> {
        x.iter().map(|x| if x.is_nan() { 0 } else { x.to_bits() }).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 64 }))]

        #[test]
        fn max_pooling_and_its_gradient_agree_with_plain_loops((pooling, images, channels) in any_case()) {
            let x = values(images * pooling.input[0] * pooling.input[1] * channels);
            let windows = windows(&pooling, images, channels);
            let grad: Vec<f64> = (0..windows.len()).map(|i| (i % 5) as f64 + 1.0).collect();
            let (mut expected, mut expected_dx) = (vec![], vec![0.0; x.len()]);
            for ((inside, _), grad) in windows.iter().zip(&grad) {
                let mut winner = None;
                for &at in inside {
                    let best = winner.map_or(f64::NEG_INFINITY, |at: usize| x[at]);
                    if winner.is_none() || x[at] > best || x[at].is_nan() {
                        winner = Some(at);
                    }
                }
                expected.push(winner.map_or(f64::NEG_INFINITY, |at| x[at]));
                if let Some(at) = winner {
                    expected_dx[at] += grad;
                }
            }
            let mut y = vec![-1.0; windows.len()];
            max::<f64, u8>(&pooling, channels, &x, &mut y, None);
            prop_assert_eq!(bits(&y), bits(&expected));
            let mut bytes = vec![0u8; y.len()];
            max(&pooling, channels, &x, &mut y, Some(&mut bytes));
            prop_assert_eq!(bits(&y), bits(&expected));
            let mut dx = vec![-1.0; x.len()];
            max_backward(&pooling, channels, &grad, &bytes, &mut dx);
            prop_assert_eq!(&dx, &expected_dx);
            // Vectors of f32 have more lanes and overhang at other places.
            let single: Vec<f32> = x.iter().map(|&x| x as f32).collect();
            let (mut single_y, mut single_bytes) = (vec![-1f32; y.len()], vec![0u8; y.len()]);
            max(&pooling, channels, &single, &mut single_y, Some(&mut single_bytes));
            prop_assert_eq!(bits(&single_y.iter().map(|&y| f64::from(y)).collect::<Vec<_>>()), bits(&expected));
            prop_assert_eq!(&single_bytes, &bytes);
            let (single, mut single_dx) = (grad.iter().map(|&x| x as f32).collect::<Vec<_>>(), vec![-1f32; x.len()]);
            max_backward(&pooling, channels, &single, &single_bytes, &mut single_dx);
            prop_assert!(single_dx.iter().zip(&expected_dx).all(|(&a, &b)| f64::from(a) == b));
            let mut wide = vec![0i64; y.len()];
            max(&pooling, channels, &x, &mut y, Some(&mut wide));
            max_backward(&pooling, channels, &grad, &wide, &mut dx);
            prop_assert_eq!(&dx, &expected_dx);
        }

        #[test]
        fn average_pooling_and_its_gradient_agree_with_plain_loops((pooling, images, channels) in any_case()) {
            let x: Vec<f64> = (0..images * pooling.input[0] * pooling.input[1] * channels).map(|i| (i * 7919 % 17) as f64).collect();
            let windows = windows(&pooling, images, channels);
            let grad: Vec<f64> = (0..windows.len()).map(|i| (i % 5) as f64 + 1.0).collect();
            let mut y = vec![-1.0; windows.len()];
            average(&pooling, channels, &x, &mut y);
            // f32 uses other block sizes; the sums are exact in either type, and the quotients are
            // rounded once.
            let (single, mut single_y) = (x.iter().map(|&x| x as f32).collect::<Vec<_>>(), vec![-1f32; y.len()]);
            average(&pooling, channels, &single, &mut single_y);
            prop_assert!(single_y.iter().zip(&y).all(|(&single, &y)| single == y as f32));
            let mut expected_dx = vec![0.0; x.len()];
            for (((inside, divisor), grad), y) in windows.iter().zip(&grad).zip(&y) {
                // Sums of small integers are exact.
                prop_assert_eq!(*y, inside.iter().map(|&at| x[at]).sum::<f64>() / (*divisor).max(1) as f64);
                inside.iter().for_each(|&at| expected_dx[at] += grad / *divisor as f64);
            }
            let mut dx = vec![-1.0; x.len()];
            average_backward(&pooling, channels, &grad, &mut dx);
            let (single, mut single_dx) = (grad.iter().map(|&x| x as f32).collect::<Vec<_>>(), vec![-1f32; x.len()]);
            average_backward(&pooling, channels, &single, &mut single_dx);
            let single_dx: Vec<f64> = single_dx.into_iter().map(f64::from).collect();
            prop_assert!(approx::abs_diff_eq!(single_dx[..], expected_dx[..], epsilon = 1e-3));
            // Multiplication by a reciprocal: two roundings for each of at most 144 terms below 5.
            prop_assert!(approx::abs_diff_eq!(dx[..], expected_dx[..], epsilon = 1e-12));
        }
    }
}
