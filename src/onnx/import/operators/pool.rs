//! Pools of windows and of whole maps.

use super::Operator::{General, Unary};
use super::conv::{ConvOptions, padded};
use super::{Table, as_float};
use crate::error::Result;
use crate::onnx::element::{ElementType, Value};
use crate::onnx::import::node::Call;
use crate::ops::{Conv2dOptions, Pool2dOptions};
use crate::tensor::meta::is_meta;
use crate::tensor::{DType, Tensor};

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

    /// Returns where in the input the maximum `y` of each window is, the first one of several: the
    /// number of the element with rows one after the other, or columns.
    fn places(&self, y: &Tensor, by_columns: bool) -> Result<Tensor> {
        if is_meta() {
            return Tensor::try_full(y.shape(), 0.0, DType::I64);
        }
        let (&[.., h, w], &[.., rows, columns]) = (self.x.shape(), y.shape()) else { return Ok(y.clone()) };
        let ConvOptions { kernel, stride, dilation, .. } = self.options;
        let x = self.x.to_dtype(DType::F64)?.to_vec::<f64>()?;
        // The positions of a window that are inside the map, along one dimension.
        let inside = |axis: usize, at: usize, size: usize| {
            let start = self.pads[axis].saturating_sub(at * stride[axis]).div_ceil(dilation[axis].max(1));
            let place = move |step: usize| at * stride[axis] + step * dilation[axis] - self.pads[axis];
            (start..kernel[axis]).map(place).take_while(move |&place| place < size)
        };
        let mut places = Vec::with_capacity(y.numel());
        for (channel, map) in x.chunks_exact((h * w).max(1)).enumerate() {
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                let mut best = (f64::NEG_INFINITY, 0);
                for (i, j) in inside(0, row, h).flat_map(|i| inside(1, column, w).map(move |j| (i, j))) {
                    if map[i * w + j] > best.0 {
                        best = (map[i * w + j], if by_columns { j * h + i } else { i * w + j });
                    }
                }
                places.push((channel * h * w + best.1) as i64);
            }
        }
        Tensor::from_vec(places, y.shape())
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
    let y = match window.direct() {
        Some(options) => window.x.max_pool2d(window.options.kernel, options)?,
        None => {
            let ConvOptions { kernel, stride, dilation, .. } = window.options;
            let plain = Pool2dOptions { stride, dilation, ..Default::default() };
            window.whole(&window.x, f64::NEG_INFINITY)?.max_pool2d(kernel, plain)?
        }
    };
    let places = if call.wants(1) { Some(window.places(&y, call.node.flag("storage_order", false)?)?) } else { None };
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
