//! Resizing. Images along height and width are [`Tensor::resample`]; of other tensors, and with
//! options that it does not have, each output position is a weighted sum of a few input positions,
//! one dimension after the other. [`grid_sample`] reads images at given positions.

use super::Operator::General;
use super::{Table, as_float};
use crate::error::Result;
use crate::onnx::element::Value;
use crate::onnx::import::node::{Call, Node};
use crate::ops::{Coordinates, GridFilter, GridPadding, GridSampleOptions, ResampleFilter, ResampleOptions, Rounding};
use crate::tensor::meta::{MOST_PLACES, is_meta};
use crate::tensor::{MemoryFormat, Tensor};

pub(super) const TABLE: Table = &[("GridSample", General(grid_sample)), ("Resize", General(resize)), ("Upsample", General(resize))];

/// [`Tensor::grid_sample`]; images have two dimensions of positions.
fn grid_sample(call: &Call<'_>) -> Result<Vec<Value>> {
    let node = call.node;
    let filter = match node.text("mode", "linear")? {
        "linear" | "bilinear" => GridFilter::Bilinear,
        "nearest" => GridFilter::Nearest,
        "cubic" | "bicubic" => GridFilter::Bicubic,
        mode => return Err(node.error(format!("mode {mode:?} is not known"))),
    };
    let padding = match node.text("padding_mode", "zeros")? {
        "zeros" => GridPadding::Zeros,
        "border" => GridPadding::Border,
        "reflection" => GridPadding::Reflection,
        mode => return Err(node.error(format!("padding_mode {mode:?} is not known"))),
    };
    let options = GridSampleOptions { filter, padding, align_corners: node.flag("align_corners", false)? };
    let x = as_float(call.tensor(0)?)?;
    call.like_first(x.grid_sample(&call.tensor(1)?.to_dtype(x.dtype())?, options)?)
}

/// The farthest place from which positions are counted.
const FARTHEST: f64 = (1u64 << 40) as f64;

/// The most positions along one dimension of a result.
const MOST_POSITIONS: usize = 1 << 31;

/// The ways in which output positions become places in the input.
const COORDINATES: &[&str] = &[
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
];

/// The attributes of an operator that resizes.
struct Attributes<'a> {
    mode: &'a str,
    coordinates: &'a str,
    nearest: &'a str,
    cubic: f64,
    exclude_outside: bool,
    antialias: bool,
    extrapolation: f64,
}

/// One dimension to resize.
struct Axis {
    axis: usize,
    input: usize,
    output: usize,
    scale: f64,
    /// The part of the input that is resized, for `tf_crop_and_resize`.
    roi: [f64; 2],
}

impl Attributes<'_> {
    /// Returns the place in the input of an output position.
    fn place(&self, axis: &Axis, at: usize) -> f64 {
        let (at, input, output) = (at as f64, axis.input as f64, axis.output as f64);
        let scale = axis.scale;
        match self.coordinates {
            "align_corners" if axis.output == 1 => 0.0,
            "align_corners" => at * (input - 1.0) / (scale * input - 1.0),
            "asymmetric" => at / scale,
            "pytorch_half_pixel" if axis.output == 1 => -0.5,
            "tf_half_pixel_for_nn" => (at + 0.5) / scale,
            "half_pixel_symmetric" => {
                let adjusted = output / (scale * input);
                input / 2.0 * (1.0 - adjusted) + (at + 0.5) / scale - 0.5
            }
            "tf_crop_and_resize" => {
                let [start, end] = axis.roi;
                match axis.output {
                    1 => 0.5 * (start + end) * (input - 1.0),
                    _ => start * (input - 1.0) + at * (end - start) * (input - 1.0) / (output - 1.0),
                }
            }
            _ => (at + 0.5) / scale - 0.5,
        }
    }

    /// Returns the first and the last position read for an output position; they may be outside the
    /// input.
    fn reach(&self, axis: &Axis, at: usize) -> [i64; 2] {
        // A file may name any place; the nearest position inside is read for those outside.
        let place = self.place(axis, at).clamp(-FARTHEST, FARTHEST);
        if self.mode == "nearest" {
            let nearest = match self.nearest {
                "floor" => place.floor(),
                "ceil" => place.ceil(),
                "round_prefer_ceil" => (place + 0.5).floor(),
                _ => (place - 0.5).ceil(),
            };
            return [nearest as i64; 2];
        }
        let reach = if self.mode == "cubic" { 2.0 } else { 1.0 } / self.stretch(axis);
        let first = (place - reach).floor() as i64 + 1;
        [first, ((place + reach).ceil() as i64 - 1).max(first)]
    }

    /// With antialiasing the kernel widens as the image shrinks.
    fn stretch(&self, axis: &Axis) -> f64 {
        if self.antialias { axis.scale.min(1.0) } else { 1.0 }
    }

    /// Returns the weight of input position `from` for an output position, before they are divided
    /// by their sum.
    fn weight(&self, axis: &Axis, at: usize, from: i64) -> f64 {
        if self.exclude_outside && !(0..axis.input as i64).contains(&from) {
            return 0.0;
        }
        let place = self.place(axis, at).clamp(-FARTHEST, FARTHEST);
        let distance = ((place - from as f64) * self.stretch(axis)).abs();
        if self.mode == "cubic" { cubic(distance, self.cubic) } else { (1.0 - distance).max(0.0) }
    }

    /// Resizes one dimension: for each of the positions that an output position reads, the first,
    /// the second and so on, all elements there are weighted and added. Lists hold one number for
    /// each output position, and are made within the limits of memory.
    fn along(&self, x: &Tensor, axis: &Axis) -> Result<Tensor> {
        let most = (0..axis.output).map(|at| self.reach(axis, at)).map(|[first, last]| last - first + 1).max().unwrap_or(0);
        let list = |value: &dyn Fn(usize) -> f64| {
            Tensor::build(&[axis.output], MemoryFormat::RowMajor, |out: &mut [f64]| {
                out.iter_mut().enumerate().for_each(|(at, out)| *out = value(at));
            })
        };
        let sums = if self.exclude_outside || self.antialias {
            Some(list(&|at| {
                let [first, last] = self.reach(axis, at);
                (first..=last).map(|from| self.weight(axis, at, from)).sum()
            })?)
        } else {
            None
        };
        let mut shape = vec![1i64; x.ndim()];
        shape[axis.axis] = axis.output as i64;
        let mut sum: Option<Tensor> = None;
        for tap in 0..most {
            let index = Tensor::build(&[axis.output], MemoryFormat::RowMajor, |out: &mut [i64]| {
                let from = |at: usize| (self.reach(axis, at)[0] + tap).clamp(0, axis.input as i64 - 1);
                out.iter_mut().enumerate().for_each(|(at, out)| *out = from(at));
            })?;
            let picked = x.index_select(axis.axis as i64, &index)?;
            if self.mode == "nearest" {
                return Ok(picked);
            }
            let mut weights = list(&|at| {
                let [first, last] = self.reach(axis, at);
                if first + tap <= last { self.weight(axis, at, first + tap) } else { 0.0 }
            })?;
            if let Some(sums) = &sums {
                weights = weights.div(sums)?;
            }
            let part = picked.mul(&weights.to_dtype(x.dtype())?.reshape(shape.as_slice())?)?;
            sum = Some(match sum {
                Some(sum) => sum.add(&part)?,
                None => part,
            });
        }
        let y = sum.map_or_else(|| x.narrow(axis.axis as i64, 0, 0), Ok)?;
        self.extrapolated(y, axis, shape)
    }

    /// Replaces what is outside the input, for `tf_crop_and_resize`.
    fn extrapolated(&self, y: Tensor, axis: &Axis, shape: Vec<i64>) -> Result<Tensor> {
        if self.coordinates != "tf_crop_and_resize" {
            return Ok(y);
        }
        let outside = |at: usize| u8::from(!(0.0..=axis.input as f64 - 1.0).contains(&self.place(axis, at)));
        let outside = Tensor::build(&[axis.output], MemoryFormat::RowMajor, |out: &mut [u8]| {
            out.iter_mut().enumerate().for_each(|(at, out)| *out = outside(at));
        })?;
        let outside = outside.reshape(shape)?;
        outside.where_(&Tensor::full([], self.extrapolation, y.dtype()), &y)
    }
}

/// Computes Keys' cubic kernel.
fn cubic(x: f64, a: f64) -> f64 {
    match x {
        ..1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        1.0..2.0 => a * (((x - 5.0) * x + 8.0) * x - 4.0),
        _ => 0.0,
    }
}

/// Returns the value of an attribute, which has to be one of those that are known.
fn known<'a>(node: &'a Node, name: &str, default: &'static str, all: &[&str]) -> Result<&'a str> {
    match node.text(name, default)? {
        value if all.contains(&value) => Ok(value),
        other => Err(node.error(format!("{name} {other:?} is not known; {} are", all.join(", ")))),
    }
}

impl<'a> Attributes<'a> {
    fn new(node: &'a Node, upsample: bool) -> Result<Attributes<'a>> {
        let coordinates = if upsample { "asymmetric" } else { "half_pixel" };
        let nearest = if upsample { "floor" } else { "round_prefer_floor" };
        Ok(Attributes {
            mode: match node.text("mode", "nearest")? {
                "bilinear" | "linear" => "linear",
                known @ ("nearest" | "cubic") => known,
                other => return Err(node.error(format!("mode {other:?} is not supported"))),
            },
            coordinates: known(node, "coordinate_transformation_mode", coordinates, COORDINATES)?,
            nearest: known(node, "nearest_mode", nearest, &["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])?,
            cubic: node.float("cubic_coeff_a", -0.75)?,
            exclude_outside: node.flag("exclude_outside", false)?,
            antialias: node.flag("antialias", false)?,
            extrapolation: node.float("extrapolation_value", 0.0)?,
        })
    }
}

/// Returns the dimensions to resize, by the scales or to the sizes that the call has.
fn resized(call: &Call<'_>, x: &Tensor, upsample: bool) -> Result<Vec<Axis>> {
    let node = call.node;
    let list = |at: usize| -> Result<Option<Vec<f64>>> {
        call.optional(at).filter(|value| value.tensor.numel() > 0).map(Value::floats).transpose()
    };
    let (roi, scales, sizes) = if upsample {
        let scales = list(1)?.or(node.floats("scales")?.map(|scales| scales.iter().map(|&scale| f64::from(scale)).collect()));
        (None, scales, None)
    } else {
        (list(1)?, list(2)?, list(3)?)
    };
    let axes = match node.ints("axes")? {
        Some(axes) => call.axes(axes, x.ndim())?,
        None => (0..x.ndim()).collect(),
    };
    let given = scales.as_ref().or(sizes.as_ref()).ok_or_else(|| node.error("has neither scales nor sizes"))?;
    if given.len() != axes.len() || given.iter().any(|value| !value.is_finite() || *value < 0.0) {
        return Err(node.error(format!("{} scales or sizes for {} dimensions", given.len(), axes.len())));
    }
    let policy = known(node, "keep_aspect_ratio_policy", "stretch", &["stretch", "not_larger", "not_smaller"])?;
    // One scale for all dimensions, by which they are at most, or at least, of the sizes.
    let common = sizes.as_ref().filter(|_| policy != "stretch").map(|sizes| {
        let scales = sizes.iter().zip(&axes).map(|(size, &axis)| size / x.shape()[axis] as f64);
        if policy == "not_larger" { scales.fold(f64::INFINITY, f64::min) } else { scales.fold(0.0, f64::max) }
    });
    let dimension = |at: usize, axis: usize| {
        let input = x.shape()[axis];
        let (output, scale) = match (&sizes, common) {
            (Some(_), Some(common)) => ((common * input as f64).round(), common),
            (Some(sizes), None) => (sizes[at], sizes[at] / input as f64),
            // In f32, as ONNX Runtime: 0.7 is a little less there, and 10 · 0.7 still is 7.
            _ => (f64::from((given[at] as f32 * input as f32).floor()), given[at]),
        };
        let part = |from: usize| roi.as_ref().and_then(|roi| roi.get(from)).copied();
        Axis { axis, input, output: output as usize, scale, roi: [part(at).unwrap_or(0.0), part(at + axes.len()).unwrap_or(1.0)] }
    };
    Ok(axes.iter().enumerate().map(|(at, &axis)| dimension(at, axis)).collect())
}

fn resize(call: &Call<'_>) -> Result<Vec<Value>> {
    let node = call.node;
    let upsample = node.op == "Upsample" || node.version < 11;
    let x = as_float(call.tensor(0)?)?;
    let attributes = Attributes::new(node, upsample)?;
    let mut axes = resized(call, &x, upsample)?;
    let cropped = attributes.coordinates == "tf_crop_and_resize";
    axes.retain(|axis| axis.output != axis.input || axis.scale != 1.0 || cropped);
    let mut shape = x.shape().to_vec();
    axes.iter().for_each(|axis| shape[axis.axis] = axis.output);
    if crate::tensor::shape::try_numel(&shape).is_none() || axes.iter().any(|axis| axis.output > MOST_POSITIONS) {
        return Err(node.error(format!("shape {shape:?} has more elements than memory can hold")));
    }
    if x.numel() == 0 {
        return Err(node.error(format!("cannot resize an empty tensor {:?}", x.shape())));
    }
    if is_meta() && axes.iter().any(|axis| axis.output > MOST_PLACES) {
        // Tables of positions take memory, also when only the shape is asked for.
        return call.number_like_first(Tensor::try_full(shape, 0.0, x.dtype())?);
    }
    let y = match direct(&x, &axes, &attributes) {
        Some(options) => x.resample([shape[2], shape[3]], options)?,
        None => axes.iter().try_fold(x, |x, axis| attributes.along(&x, axis))?,
    };
    call.number_like_first(y)
}

/// Returns the options of [`Tensor::resample`] that compute the same, if there are some: for
/// images, along height and width.
fn direct(x: &Tensor, axes: &[Axis], attributes: &Attributes<'_>) -> Option<ResampleOptions> {
    let maps = x.ndim() == 4 && !axes.is_empty() && axes.iter().all(|axis| axis.axis >= 2 && axis.output > 0);
    if !maps || attributes.exclude_outside || attributes.antialias {
        return None;
    }
    let coordinates = match attributes.coordinates {
        "half_pixel" => Coordinates::HalfPixel,
        // For an output of one position it reads another place.
        "pytorch_half_pixel" if axes.iter().all(|axis| axis.output > 1) => Coordinates::HalfPixel,
        "asymmetric" => Coordinates::Asymmetric,
        // The positions follow from the sizes here; ONNX's from the scale, which may not be their
        // ratio.
        "align_corners" if axes.iter().all(|axis| (axis.scale * axis.input as f64 - axis.output as f64).abs() < 1e-6) => {
            Coordinates::AlignCorners
        }
        _ => return None,
    };
    let filter = match attributes.mode {
        "linear" => ResampleFilter::Linear,
        "cubic" => ResampleFilter::Cubic { a: attributes.cubic },
        _ => ResampleFilter::Nearest(match attributes.nearest {
            "floor" => Rounding::Floor,
            "ceil" => Rounding::Ceil,
            "round_prefer_ceil" => Rounding::HalfUp,
            _ => Rounding::HalfDown,
        }),
    };
    let factor = |at: usize| axes.iter().find(|axis| axis.axis == at).map_or(1.0, |axis| axis.scale);
    // Without factors, positions follow from the ratio of the sizes, as PyTorch computes them.
    let given = axes.iter().any(|axis| axis.scale != axis.output as f64 / axis.input as f64);
    Some(ResampleOptions { filter, coordinates, factors: given.then(|| [factor(2), factor(3)]) })
}
