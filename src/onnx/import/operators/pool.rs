//! Pools of windows and of whole maps.

use super::Operator::{General, Unary};
use super::conv::{ConvOptions, padded};
use super::{Table, as_float};
use crate::error::Result;
use crate::onnx::element::{ElementType, Value};
use crate::onnx::import::node::Call;
use crate::ops::{Conv2dOptions, Pool2dOptions};
use crate::tensor::Tensor;
use crate::tensor::meta::is_meta;

pub(super) const TABLE: Table = &[
    ("MaxPool", General(max_pool)),
    ("AveragePool", General(average_pool)),
    ("LpPool", General(lp_pool)),
    ("GlobalAveragePool", Unary(global_average)),
    ("GlobalMaxPool", Unary(|x| x.max_keepdim(positions(x).as_slice()))),
    ("GlobalLpPool", General(global_lp)),
];

/// Returns the dimensions of positions.
fn positions(x: &Tensor) -> Vec<i64> {
    (2..x.ndim() as i64).collect()
}

fn global_average(x: &Tensor) -> Result<Tensor> {
    if x.ndim() == 4 { x.adaptive_avg_pool2d(1) } else { x.mean_keepdim(positions(x).as_slice()) }
}

fn global_lp(call: &Call<'_>) -> Result<Vec<Value>> {
    let (x, p) = (call.tensor(0)?, call.node.int("p", 2)? as f64);
    call.like_first(x.abs().pow(p)?.sum_keepdim(positions(x).as_slice())?.pow(1.0 / p)?)
}

/// A window that slides over the maps of the call's input, with the padding for their size.
struct Sliding {
    options: ConvOptions,
    pads: [usize; 4],
    /// Rows and columns at the end, beyond the padding, that the last windows reach with
    /// `ceil_mode`.
    beyond: [usize; 2],
    ceil_mode: bool,
    x: Tensor,
}

impl Sliding {
    fn new(call: &Call<'_>) -> Result<Sliding> {
        let node = call.node;
        let kernel = node.ints("kernel_shape")?.unwrap_or_default();
        let kernel: Option<Vec<usize>> =
            kernel.iter().map(|&size| usize::try_from(size).ok().filter(|size| (1..1 << 31).contains(size))).collect();
        let kernel = kernel.ok_or_else(|| node.error("a kernel without size"))?;
        let options = ConvOptions::new(node, &kernel)?;
        let x = options.to_planar(node, &as_float(call.tensor(0)?)?)?;
        let map = [x.shape()[2], x.shape()[3]];
        let (pads, ceil_mode) = (options.pads_for(map), node.flag("ceil_mode", false)?);
        let mut beyond = [0; 2];
        for axis in (0..2).filter(|_| ceil_mode) {
            let stride = options.stride[axis].max(1);
            let extent = (options.kernel[axis] - 1).saturating_mul(options.dilation[axis]) + 1;
            let room = map[axis] + pads[axis] + pads[axis + 2];
            let Some(free) = room.checked_sub(extent) else { continue };
            let mut last = free.div_ceil(stride) * stride;
            // No window starts in the padding at the end.
            if last >= map[axis] + pads[axis] {
                last -= stride;
            }
            beyond[axis] = (last + extent).saturating_sub(room);
        }
        Ok(Sliding { options, pads, beyond, ceil_mode, x })
    }

    /// Returns the options of this crate's pools when they can do it: equal padding on both sides,
    /// of at most half of the window.
    fn direct(&self) -> Option<Pool2dOptions> {
        let [top, left, bottom, right] = self.pads;
        let small = |pad: usize, axis: usize| 2 * pad <= self.options.kernel[axis];
        let fits = [top, left] == [bottom, right] && small(top, 0) && small(left, 1);
        let ConvOptions { stride, dilation, .. } = self.options;
        let plain = Pool2dOptions { stride, padding: [top, left], dilation, ceil_mode: self.ceil_mode, ..Default::default() };
        fits.then_some(plain)
    }

    /// Pads with everything that windows reach.
    fn whole(&self, x: &Tensor, value: f64) -> Result<Tensor> {
        let [top, left, bottom, right] = self.pads;
        padded(x, [top, left, bottom + self.beyond[0], right + self.beyond[1]], value)
    }

    /// Returns the numbers of the maxima's elements, counted from the batch's beginning with rows
    /// one after the other, or columns; `found` has their positions in maps with the padding of
    /// [`whole`](Sliding::whole), or in those of the input.
    fn places(&self, found: &Tensor, whole: bool, by_columns: bool) -> Result<Tensor> {
        let (false, &[.., h, w], &[.., rows, columns]) = (is_meta(), self.x.shape(), found.shape()) else { return Ok(found.clone()) };
        let [top, left, _, right] = if whole { self.pads } else { [0; 4] };
        let width = left + w + right + if whole { self.beyond[1] } else { 0 };
        // The first element of a window with -∞ only may be padding.
        let inside = |at: usize, before: usize, size: usize| at.saturating_sub(before).min(size.saturating_sub(1));
        let place = |(window, at): (usize, i64)| {
            let [row, column] = [inside(at as usize / width, top, h), inside(at as usize % width, left, w)];
            let map = window / (rows * columns);
            (map * h * w + if by_columns { column * h + row } else { row * w + column }) as i64
        };
        Tensor::from_vec(found.to_vec::<i64>()?.into_iter().enumerate().map(place).collect(), found.shape())
    }

    /// Sums each window of padded maps.
    fn sums(&self, x: &Tensor) -> Result<Tensor> {
        let channels = x.shape()[1];
        let ConvOptions { kernel: [h, w], stride, dilation, .. } = self.options;
        let ones = Tensor::try_full([channels, 1, h, w], 1.0, x.dtype())?;
        x.conv2d(&ones, None, Conv2dOptions { stride, dilation, groups: channels, ..Default::default() })
    }
}

fn max_pool(call: &Call<'_>) -> Result<Vec<Value>> {
    let window = Sliding::new(call)?;
    let (ConvOptions { kernel, stride, dilation, .. }, direct) = (window.options, window.direct());
    let (x, options) = match direct {
        Some(options) => (window.x.clone(), options),
        None => (window.whole(&window.x, f64::NEG_INFINITY)?, Pool2dOptions { stride, dilation, ..Default::default() }),
    };
    let (y, places) = if call.wants(1) {
        let (y, found) = x.max_pool2d_with_indices(kernel, options)?;
        (y, Some(window.places(&found, direct.is_none(), call.node.flag("storage_order", false)?)?))
    } else {
        (x.max_pool2d(kernel, options)?, None)
    };
    let y = window.options.to_own(y)?;
    let mut values = call.number_like_first(y)?;
    if let Some(places) = places {
        values.push(Value { tensor: window.options.to_own(places)?, element: ElementType::Int64 });
    }
    Ok(values)
}

fn average_pool(call: &Call<'_>) -> Result<Vec<Value>> {
    let window = Sliding::new(call)?;
    let count_include_pad = call.node.flag("count_include_pad", false)?;
    let y = match window.direct().filter(|options| options.dilation == [1, 1]) {
        Some(options) => window.x.avg_pool2d(window.options.kernel, Pool2dOptions { count_include_pad, ..options })?,
        None => {
            // The number of elements that count in each window: what is beyond the padding does
            // not.
            let shape = [1, 1, window.x.shape()[2], window.x.shape()[3]];
            let ones = Tensor::try_full(shape, 1.0, window.x.dtype())?;
            let counted = if count_include_pad { padded(&ones, window.pads, 1.0)? } else { padded(&ones, window.pads, 0.0)? };
            let counted = padded(&counted, [0, 0, window.beyond[0], window.beyond[1]], 0.0)?;
            window.sums(&window.whole(&window.x, 0.0)?)?.div(&window.sums(&counted)?)?
        }
    };
    call.like_first(window.options.to_own(y)?)
}

fn lp_pool(call: &Call<'_>) -> Result<Vec<Value>> {
    let (window, p) = (Sliding::new(call)?, call.node.int("p", 2)? as f64);
    let sums = window.sums(&window.whole(&window.x.abs().pow(p)?, 0.0)?)?;
    // Sums of powers may be slightly below zero after a fast convolution.
    call.like_first(window.options.to_own(sums.relu().pow(1.0 / p)?)?)
}
