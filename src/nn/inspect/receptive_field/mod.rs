//! Receptive fields: the part of the input that each unit of a network depends on.
//!
//! A [meta run](crate::tensor::meta) records the graph of operations. Every node that is not
//! pointwise knows, for each position of its output, the positions of its input that it reads.
//! Going through the nodes in the order of their numbers gives, for each position of each map, the
//! box of the input that it depends on; where branches meet, it is the smallest box around those of
//! the branches. So shortcuts, concatenations and any other operations between layers are handled
//! without extra information.
//!
//! The general sizes, strides and offsets follow Araujo et al. 2019, *Computing Receptive Fields of
//! Convolutional Neural Networks*.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::summary::{dry_trace, dtype};
use crate::autograd::enable_grad;
use crate::error::{Error, Result};
use crate::io::text_table;
use crate::kernels::runtime::arrays::MapEach;
use crate::nn::module::Module;
use crate::nn::module::layer::Call;
use crate::tensor::meta::{InputExtent, MOST_PLACES, NodeExtent, map_size};
use crate::tensor::node::{Edge, Node};

/// The receptive field of a layer's units in the network's input.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReceptiveField {
    /// The layer's path.
    pub path: String,
    /// The layer's description.
    pub layer: String,
    /// The shape of its output.
    pub output: Vec<usize>,
    /// Height and width of one unit's field, in pixels of the input and its padding: larger than
    /// the input where the field extends beyond it. After resampling and adaptive pooling, where
    /// units differ, the largest field; [`region`](ReceptiveField::region) gives that of each unit.
    pub size: [usize; 2],
    /// The distance in pixels between the fields of neighbouring units (the "jump"); 0 when all
    /// units have the same field. Not an integer after upsampling.
    pub stride: [f64; 2],
    /// The first row and column of the field of unit `[0, 0]`; negative in the padding.
    pub offset: [f64; 2],
    /// The first and last pixel of the field, for each position along height and width.
    seen: [Arc<[Seen]>; 2],
}

/// First and last pixel; the last is smaller than the first when the field is empty.
type Seen = (usize, usize);
const NOTHING: Seen = (usize::MAX, 0);

impl ReceptiveField {
    /// Returns the rows and the columns of the input that the units at this position of the layer's
    /// output depend on: the smallest box, clipped to the input. The box is empty for units beyond
    /// the output, and for those that depend on padding only.
    ///
    /// The box is exact, with one exception: when a unit depends on nothing through one of two
    /// branches in one direction, because it reads only padding there or because the branches are
    /// joined side by side, the range of that branch in the other direction still counts.
    pub fn region(&self, place: [usize; 2]) -> [Range<usize>; 2] {
        let seen = [0, 1].map_each(|axis| self.seen[axis].get(place[axis]).copied().unwrap_or(NOTHING));
        if seen.iter().any(|(first, last)| first > last) {
            return [0..0, 0..0];
        }
        seen.map(|(first, last)| first..last + 1)
    }
}

/// The result of [`ModuleExt::receptive_field`](crate::nn::ModuleExt::receptive_field), with a row
/// for each call of a layer; prints as a table.
///
/// A unit's field is a box, the same for all channels. It holds for evaluation: in training, batch
/// normalisation mixes the whole batch. The output of an operation over whole maps (a mean over
/// height and width, `flatten` and what follows it, layer or group normalisation, softmax, matrix
/// products) depends on everything that its input depends on, and so does every product with that
/// output, as after squeeze-and-excitation; softmax over channels is treated in the same way.
///
/// ```
/// use convnet::nn::{Conv2d, MaxPool2d, Module, ModuleExt, Sequential};
///
/// let net = Sequential::new().push(Conv2d::new(1, 6, 5).padding(2)).push(MaxPool2d::new(2)).push(Conv2d::new(6, 16, 5));
/// let fields = net.receptive_field([1, 1, 28, 28])?;
/// let last = &fields.rows[2];
/// assert_eq!((last.size, last.stride, last.offset), ([14, 14], [2.0, 2.0], [-2.0, -2.0]));
/// assert_eq!(last.region([0, 4]), [0..12, 6..20]);
/// println!("{fields}");
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReceptiveFields {
    /// The calls of layers in order. Layers whose result does not depend on the input are left out.
    pub rows: Vec<ReceptiveField>,
    /// The shape of the input.
    pub input: Vec<usize>,
}

impl ReceptiveFields {
    /// Returns the row of the last call of the layer at this path.
    pub fn get(&self, path: &str) -> Option<&ReceptiveField> {
        self.rows.iter().rfind(|row| row.path == path)
    }
}

pub(crate) fn of(module: &dyn Module, input: &[usize]) -> Result<ReceptiveFields> {
    const OP: &str = "receptive_field";
    let Some(size) = (if matches!(input.len(), 3 | 4) { map_size(input) } else { None }).filter(|_| !input.contains(&0)) else {
        return Err(Error::shape(OP, format!("expected an input [N, C, H, W] or [N, C, L], got shape {input:?}")));
    };
    let listed = |size: [usize; 2]| {
        if size.iter().all(|&size| size <= MOST_PLACES) {
            return Ok(size);
        }
        Err(Error::argument(OP, format!("places are listed one by one, at most {MOST_PLACES} along a side; a map has {size:?}")))
    };
    let size = listed(size)?;
    let mut start = None;
    let trace = dry_trace(module, OP, input, dtype(module), |x| {
        enable_grad(|| {
            let x = x.with_grad();
            start = x.node().cloned();
            module.forward(&x)
        })
    })?;
    let calls: Vec<Call> = trace.calls;
    let mut graph = BTreeMap::new();
    calls.iter().filter_map(|call| call.output.node()).for_each(|node| collect(node, &mut graph));
    let mut shapes: HashMap<u64, Arc<[usize]>> = HashMap::new();
    for call in &calls {
        call.output.node().map(|node| shapes.insert(node.number, call.output.shape().into()));
    }
    for edge in graph.values().flat_map(|node| &node.inputs) {
        edge.node.as_ref().map(|node| shapes.insert(node.number, Arc::clone(&edge.shape)));
    }
    let mut fields: HashMap<u64, Field> = HashMap::new();
    if let Some(start) = start {
        fields.insert(start.number, Field::of_input(size));
    }
    // Numbers increase from inputs to outputs.
    for node in graph.values() {
        let Some(shape) = shapes.get(&node.number) else { continue };
        map_size(shape).map(listed).transpose()?;
        let arriving = node.inputs.iter().filter_map(|edge| Some((edge, fields.get(&edge.node.as_ref()?.number)?)));
        let field = arriving.map(|(edge, field)| field.through(node, edge, shape)).reduce(Field::joined);
        if let Some(field) = field {
            fields.insert(node.number, field);
        }
    }
    let row = |call: Call| {
        let Field { axes } = fields.get(&call.output.node()?.number)?;
        let rounded = |axis: &Axis| (axis.last - axis.first + 1e-6).floor().max(0.0) as usize + 1;
        Some(ReceptiveField {
            path: call.path,
            layer: call.layer,
            output: call.output.shape().to_vec(),
            size: [0, 1].map_each(|axis| rounded(&axes[axis])),
            stride: [0, 1].map_each(|axis| axes[axis].stride),
            offset: [0, 1].map_each(|axis| axes[axis].first),
            seen: [0, 1].map_each(|axis| Arc::clone(&axes[axis].seen)),
        })
    };
    Ok(ReceptiveFields { rows: calls.into_iter().filter_map(row).collect(), input: input.to_vec() })
}

/// Adds a node and all nodes that it was computed from.
pub(super) fn collect(node: &Arc<Node>, graph: &mut BTreeMap<u64, Arc<Node>>) {
    let mut waiting = vec![Arc::clone(node)];
    while let Some(node) = waiting.pop() {
        if graph.insert(node.number, Arc::clone(&node)).is_none() {
            waiting.extend(node.inputs.iter().filter_map(|edge| edge.node.clone()));
        }
    }
}

/// The receptive fields of the units of one tensor.
#[derive(Clone)]
struct Field {
    axes: [Axis; 2],
}

#[derive(Clone)]
struct Axis {
    stride: f64,
    /// The first and last pixel of unit 0, ignoring the edges.
    first: f64,
    last: f64,
    seen: Arc<[Seen]>,
}

impl Field {
    fn of_input(size: [usize; 2]) -> Field {
        Field { axes: size.map(|size| Axis { stride: 1.0, first: 0.0, last: 0.0, seen: (0..size).map(|at| (at, at)).collect() }) }
    }

    /// Returns the field of `node`'s output, of this shape, through one of its inputs, whose field
    /// is `self`.
    fn through(&self, node: &Node, edge: &Edge, shape: &[usize]) -> Field {
        let (from, to) = (map_size(&edge.shape), map_size(shape));
        match &node.extent {
            NodeExtent::Windows(extents) => {
                let input = node.inputs.iter().position(|other| std::ptr::eq(other, edge));
                match input.and_then(|input| extents.get(input)?.as_ref()) {
                    Some(extent) => Field { axes: [0, 1].map_each(|axis| self.axes[axis].through(extent, axis)) },
                    None => self.gathered(to),
                }
            }
            NodeExtent::Pointwise => self.pointwise(edge.shape.len() == shape.len(), from, to),
            NodeExtent::Global => self.gathered(to),
        }
    }

    /// Returns the field after a pointwise operation from a map of size `from` to one of size `to`.
    /// A single row or column, such as the mean of a map, depends on everything that it was reduced
    /// from, and contributes to all positions that it is combined with.
    fn pointwise(&self, same_dims: bool, from: Option<[usize; 2]>, to: Option<[usize; 2]>) -> Field {
        let (Some(from), Some(to)) = (from, to) else { return self.gathered(to) };
        let fits = (0..2).all(|axis| from[axis] == to[axis] || from[axis] == 1 || to[axis] == 1);
        if !same_dims || !fits {
            return self.gathered(Some(to));
        }
        let spread = |axis: usize| if from[axis] == to[axis] { self.axes[axis].clone() } else { self.axes[axis].gathered(to[axis]) };
        Field { axes: [0, 1].map_each(spread) }
    }

    /// Returns a field in which each unit depends on everything that any of these units depends on.
    fn gathered(&self, size: Option<[usize; 2]>) -> Field {
        let size = size.unwrap_or([1, 1]);
        Field { axes: [0, 1].map_each(|axis| self.axes[axis].gathered(size[axis])) }
    }

    /// Joins the fields of two branches that meet.
    fn joined(self, other: Field) -> Field {
        let [(a, b), (c, d)] = {
            let ([a, c], [b, d]) = (self.axes, other.axes);
            [(a, b), (c, d)]
        };
        Field { axes: [a.joined(b), c.joined(d)] }
    }
}

impl Axis {
    fn through(&self, reach: &InputExtent, axis: usize) -> Axis {
        let (scale, step, places) = (reach.scale[axis], reach.step[axis], &reach.places[axis]);
        let count = self.seen.len() as isize;
        let see = |&[first, last]: &[isize; 2]| {
            // From the first to the last kernel element inside the map: a window may extend far
            // into the padding.
            let step = step.max(1);
            let before = usize::try_from(-first).unwrap_or(0).div_ceil(step).saturating_mul(step);
            let taps = (first.saturating_add_unsigned(before)..=last.min(count - 1)).step_by(step);
            taps.map(|at| self.seen[at as usize]).fold(NOTHING, around)
        };
        let seen = places.iter().map(see).collect();
        // The smallest and the largest offset of any unit from the position that the scale alone
        // gives.
        let shifts = |end: usize| places.iter().enumerate().map(move |(at, place)| place[end] as f64 - scale * at as f64);
        let [before, after] = [shifts(0).fold(f64::INFINITY, f64::min), shifts(1).fold(f64::NEG_INFINITY, f64::max)];
        let [first, last] = if places.is_empty() { [0.0, 0.0] } else { [before, after] };
        Axis { stride: self.stride * scale, first: self.first + self.stride * first, last: self.last + self.stride * last, seen }
    }

    fn gathered(&self, size: usize) -> Axis {
        let all = self.seen.iter().copied().fold(NOTHING, around);
        let [first, last] = if all.0 <= all.1 { [all.0 as f64, all.1 as f64] } else { [0.0, 0.0] };
        Axis { stride: 0.0, first, last, seen: vec![all; size].into() }
    }

    fn joined(self, other: Axis) -> Axis {
        let seen: Arc<[Seen]> = self.seen.iter().zip(other.seen.iter()).map(|(&a, &b)| around(a, b)).collect();
        let joined = Axis { stride: self.stride, first: self.first.min(other.first), last: self.last.max(other.last), seen };
        if (self.stride - other.stride).abs() <= 1e-9 * self.stride.abs() {
            return joined;
        }
        // Boxes with different strides have no common size; this is the size of all of them
        // together.
        let Axis { stride, first, last, .. } = joined.gathered(0);
        Axis { stride, first, last, seen: joined.seen }
    }
}

/// Returns the smallest range that contains both.
fn around(a: Seen, b: Seen) -> Seen {
    (a.0.min(b.0), a.1.max(b.1))
}

impl fmt::Display for ReceptiveFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pair = |[height, width]: [String; 2]| if height == width { height } else { format!("{height}×{width}") };
        let number = |n: f64| format!("{}", (n * 1e3).round() / 1e3);
        let mut table = vec![["module", "", "output shape", "size", "stride", "offset"].map_each(String::from)];
        for row in &self.rows {
            let [size, stride, offset] =
                [row.size.map_each(|n| n.to_string()), row.stride.map_each(number), row.offset.map_each(number)].map_each(pair);
            table.push([row.path.clone(), row.layer.clone(), format!("{:?}", row.output), size, stride, offset]);
        }
        text_table::write(f, &table, 3, &[1])?;
        write!(f, "pixels of input {:?}", self.input)
    }
}

#[cfg(test)]
pub(crate) mod tests;
