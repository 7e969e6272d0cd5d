//! Convolutions and matrix products.

use super::Operator::General;
use super::elementwise::sizes;
use super::{Table, as_float};
use crate::error::Result;
use crate::onnx::element::Value;
use crate::onnx::import::node::{Call, Node};
use crate::ops::{Conv2dOptions, ConvTranspose2dOptions, PadMode};
use crate::tensor::Tensor;

pub(super) const TABLE: Table = &[
    ("Conv", General(|call| call.like_first(conv(call.node, call.tensor(0)?, call.tensor(1)?, call.optional_tensor(2))?))),
    ("ConvTranspose", General(conv_transpose)),
    ("MatMul", General(|call| call.like_first(mat_mul(call.tensor(0)?, call.tensor(1)?)?))),
    ("Gemm", General(gemm)),
];

/// The attributes that convolutions and pools share, for one or two dimensions of positions; in one
/// dimension the height is 1.
#[derive(Clone, Copy, Debug)]
pub(in crate::onnx::import) struct ConvOptions {
    pub(in crate::onnx::import) kernel: [usize; 2],
    pub(in crate::onnx::import) stride: [usize; 2],
    pub(in crate::onnx::import) dilation: [usize; 2],
    /// Top, left, bottom, right.
    pub(in crate::onnx::import) pads: [usize; 4],
    /// Padding that makes the output as large as the input divided by the stride, with the odd one
    /// at the end or at the start.
    pub(in crate::onnx::import) same: Option<SameEnd>,
    /// Whether there are two dimensions of positions.
    pub(in crate::onnx::import) planar: bool,
}

/// The side at which one more is padded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::onnx::import) enum SameEnd {
    Upper,
    Lower,
}

impl ConvOptions {
    /// Reads the attributes of a node whose kernel has this size.
    pub(in crate::onnx::import) fn new(node: &Node, kernel: &[usize]) -> Result<ConvOptions> {
        let planar = match kernel.len() {
            1 => false,
            2 => true,
            rank => return Err(node.error(format!("{rank} dimensions of positions are not supported; one and two are"))),
        };
        let list = |name: &str, default: usize, count: usize| -> Result<Vec<usize>> {
            let Some(values) = node.ints(name)?.filter(|values| !values.is_empty()) else { return Ok(vec![default; count]) };
            let sizes: Option<Vec<usize>> =
                values.iter().map(|&value| usize::try_from(value).ok().filter(|&size| size < 1 << 31)).collect();
            sizes
                .filter(|sizes| sizes.len() == count)
                .ok_or_else(|| node.error(format!("{name} {:?} are not {count} sizes", &values[..values.len().min(8)])))
        };
        let pair = |values: &[usize], filler: usize| if planar { [values[0], values[1]] } else { [filler, values[0]] };
        let rank = kernel.len();
        let pads = list("pads", 0, 2 * rank)?;
        let [top, left] = pair(&pads[..rank], 0);
        let [bottom, right] = pair(&pads[rank..], 0);
        let (mut pads, mut same) = ([top, left, bottom, right], None);
        match node.text("auto_pad", "NOTSET")? {
            "NOTSET" | "" => {}
            "VALID" => pads = [0; 4],
            "SAME_UPPER" => (pads, same) = ([0; 4], Some(SameEnd::Upper)),
            "SAME_LOWER" => (pads, same) = ([0; 4], Some(SameEnd::Lower)),
            other => return Err(node.error(format!("auto_pad {other:?} is not known"))),
        }
        Ok(ConvOptions {
            kernel: pair(kernel, 1),
            stride: pair(&list("strides", 1, rank)?, 1),
            dilation: pair(&list("dilations", 1, rank)?, 1),
            pads,
            same,
            planar,
        })
    }

    /// Returns the padding (top, left, bottom, right) for maps of this size.
    pub(in crate::onnx::import) fn pads_for(&self, map: [usize; 2]) -> [usize; 4] {
        let Some(end) = self.same else { return self.pads };
        let mut pads = [0; 4];
        for axis in 0..2 {
            let extent = self.kernel[axis].saturating_sub(1).saturating_mul(self.dilation[axis]) + 1;
            let stride = self.stride[axis].max(1);
            let covered = (map[axis].div_ceil(stride).saturating_sub(1)).saturating_mul(stride).saturating_add(extent);
            let total = covered.saturating_sub(map[axis]);
            let (small, large) = (total / 2, total.div_ceil(2));
            (pads[axis], pads[axis + 2]) = if end == SameEnd::Upper { (small, large) } else { (large, small) };
        }
        pads
    }

    /// Brings a tensor to `[N, C, H, W]`.
    pub(in crate::onnx::import) fn to_planar(self, node: &Node, x: &Tensor) -> Result<Tensor> {
        match (x.ndim(), self.planar) {
            (4, true) => Ok(x.clone()),
            (3, false) => x.unsqueeze(2),
            _ => Err(node.error(format!("a kernel of {} dimensions does not fit input {:?}", 1 + usize::from(self.planar), x.shape()))),
        }
    }

    /// Undoes [`to_planar`](ConvOptions::to_planar).
    pub(in crate::onnx::import) fn to_own(self, y: Tensor) -> Result<Tensor> {
        if self.planar { Ok(y) } else { y.squeeze(2) }
    }
}

/// Pads maps `[N, C, H, W]` with a value.
pub(in crate::onnx::import) fn padded(x: &Tensor, [top, left, bottom, right]: [usize; 4], value: f64) -> Result<Tensor> {
    if [top, left, bottom, right] == [0; 4] {
        return Ok(x.clone());
    }
    x.pad_with([left, right, top, bottom].map(|side| side as isize), PadMode::Constant(value))
}

/// Reads the number of groups.
fn groups(node: &Node) -> Result<usize> {
    usize::try_from(node.int("group", 1)?).map_err(|_| node.error("a negative number of groups"))
}

/// Convolves as the node says.
pub(super) fn conv(node: &Node, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let options = ConvOptions::new(node, weight.shape().get(2..).unwrap_or_default())?;
    let (x, weight) = (options.to_planar(node, x)?, options.to_planar(node, weight)?);
    let [top, left, bottom, right] = options.pads_for([x.shape()[2], x.shape()[3]]);
    let ConvOptions { stride, dilation, .. } = options;
    let (x, padding) = match [top, left] == [bottom, right] {
        true => (x, [top, left]),
        false => (padded(&x, [top, left, bottom, right], 0.0)?, [0, 0]),
    };
    options.to_own(x.conv2d(&weight, bias, Conv2dOptions { stride, padding, dilation, groups: groups(node)? })?)
}

fn conv_transpose(call: &Call<'_>) -> Result<Vec<Value>> {
    let (node, weight) = (call.node, call.tensor(1)?);
    let options = ConvOptions::new(node, weight.shape().get(2..).unwrap_or_default())?;
    let (x, weight) = (options.to_planar(node, call.tensor(0)?)?, options.to_planar(node, weight)?);
    let ConvOptions { kernel, stride, dilation, planar, .. } = options;
    let pair = |name: &str| -> Result<Option<[usize; 2]>> {
        let Some(values) = node.ints(name)?.filter(|values| !values.is_empty()) else { return Ok(None) };
        let sizes: Vec<usize> = values.iter().filter_map(|&value| usize::try_from(value).ok().filter(|&size| size < 1 << 31)).collect();
        match (sizes.as_slice(), planar) {
            (&[h, w], true) => Ok(Some([h, w])),
            (&[w], false) => Ok(Some([usize::from(name == "output_shape"), w])),
            _ => Err(node.error(format!("{name} {values:?} does not fit the kernel"))),
        }
    };
    let extra = pair("output_padding")?.unwrap_or([0, 0]);
    let full = |axis: usize| {
        let steps = (x.shape()[2 + axis].max(1) - 1).saturating_mul(stride[axis]);
        steps.saturating_add((kernel[axis].max(1) - 1).saturating_mul(dilation[axis])).saturating_add(1 + extra[axis])
    };
    let full = [full(0), full(1)];
    let wanted = match pair("output_shape")? {
        Some(size) => Some(size),
        None => options.same.map(|_| [0, 1].map(|axis| x.shape()[2 + axis].saturating_mul(stride[axis]))),
    };
    let mut pads = options.pads;
    if let Some(wanted) = wanted {
        for axis in 0..2 {
            let total = full[axis].saturating_sub(wanted[axis]);
            let (small, large) = (total / 2, total.div_ceil(2));
            let upper = options.same == Some(SameEnd::Upper);
            (pads[axis], pads[axis + 2]) = if upper { (small, large) } else { (large, small) };
        }
    }
    let missing = [0, 1].map(|axis| wanted.map_or(0, |wanted| wanted[axis].saturating_sub(full[axis])));
    let symmetric = [pads[0], pads[1]] == [pads[2], pads[3]];
    let fits = extra.iter().zip(stride.iter().zip(dilation)).all(|(&extra, (&stride, dilation))| extra < stride.max(dilation));
    let (bias, plain) = (call.optional_tensor(2), ConvTranspose2dOptions { stride, dilation, groups: groups(node)?, ..Default::default() });
    if symmetric && fits && missing == [0, 0] {
        let direct = ConvTranspose2dOptions { padding: [pads[0], pads[1]], output_padding: extra, ..plain };
        return call.like_first(options.to_own(x.conv_transpose2d(&weight, bias, direct)?)?);
    }
    // The whole output, of which the padding is cut off; what the wanted shape has more is zeros
    // before the bias is added.
    let y = x.conv_transpose2d(&weight, None, plain)?;
    let start = |axis: usize| -(pads[axis] as isize);
    let end = |axis: usize| (extra[axis] + missing[axis]) as isize - pads[axis + 2] as isize;
    let y = y.pad_with([start(1), end(1), start(0), end(0)], PadMode::Constant(0.0))?;
    let y = match bias {
        Some(bias) if bias.shape() == [y.shape()[1]] => y.add(&bias.reshape([-1i64, 1, 1])?)?,
        Some(bias) => return Err(node.error(format!("bias {:?} is not one number for each of {} channels", bias.shape(), y.shape()[1]))),
        None => y,
    };
    call.like_first(options.to_own(y)?)
}

/// Multiplies matrices as NumPy's `matmul`; vectors are rows on the left and columns on the right.
pub(super) fn mat_mul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (x, y) = (as_float(a)?, as_float(b)?);
    let left = if a.ndim() == 1 { x.unsqueeze(0)? } else { x };
    let right = if b.ndim() == 1 { y.unsqueeze(1)? } else { y };
    // Many matrices times one are one product.
    let mut c = match (left.ndim(), right.ndim()) {
        (3.., 2) => {
            let mut shape = sizes(&left);
            let inner = shape.pop().unwrap_or(0);
            let rows: i64 = shape.iter().product();
            shape.push(right.shape()[1] as i64);
            left.reshape([rows, inner])?.matmul(&right)?.reshape(shape)?
        }
        _ => left.matmul(&right)?,
    };
    if b.ndim() == 1 {
        c = c.squeeze(-1)?;
    }
    if a.ndim() == 1 {
        c = c.squeeze(if b.ndim() == 1 { -1 } else { -2 })?;
    }
    if a.dtype().is_float() { Ok(c) } else { c.to_dtype(crate::DType::I64) }
}

fn gemm(call: &Call<'_>) -> Result<Vec<Value>> {
    let node = call.node;
    let turned = |x: &Tensor, flag: &str| -> Result<Tensor> {
        if x.ndim() != 2 {
            return Err(node.error(format!("expected a matrix, got shape {:?}", x.shape())));
        }
        if node.flag(flag, false)? { x.transpose(0, 1) } else { Ok(x.clone()) }
    };
    let (a, b) = (turned(call.tensor(0)?, "transA")?, turned(call.tensor(1)?, "transB")?);
    let (alpha, beta) = (node.float("alpha", 1.0)?, node.float("beta", 1.0)?);
    let scaled = |x: Tensor, factor: f64| if factor == 1.0 { x } else { x.mul_scalar(factor) };
    let product = scaled(mat_mul(&a, &b)?, alpha);
    let sum = match call.optional_tensor(2) {
        Some(c) => product.add(&scaled(c.clone(), beta))?,
        None => product,
    };
    call.like_first(sum)
}
