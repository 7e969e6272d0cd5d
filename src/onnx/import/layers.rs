//! Nodes that run as layers of this crate: convolutions with the normalisation, addition and
//! activation that follow them, normalisations, dense layers. So they train and infer as in
//! built-in networks.

use std::collections::HashMap;

use super::graph::{Entry, Graph, Source, Step};
use super::node::Node;
use super::operators::{ConvOptions, Operator, padded};
use crate::error::Result;
use crate::nn::{Activation, BatchNorm2d, Buffer, Conv2d, ConvPadding, Linear, Module, Parameter, bn_act, conv_bn_act, conv_bn_add_act};
use crate::tensor::Tensor;

/// The initialisers that the network owns, by the numbers of [`Source`].
pub(super) struct State<'a> {
    pub(super) parameters: &'a [(String, Parameter)],
    pub(super) buffers: &'a [(String, Buffer)],
}

/// What a run does, in order.
pub(super) enum Action {
    Step(Step),
    Conv(Box<ConvAction>),
    Norm(Box<NormAction>),
    Dense { name: String, layer: Linear, input: usize, output: usize },
}

pub(super) struct ConvAction {
    pub(super) name: String,
    pub(super) conv: Conv2d,
    pub(super) norm: Option<(String, BatchNorm2d)>,
    activation: Activation,
    pub(super) input: usize,
    pub(super) shortcut: Option<usize>,
    pub(super) output: usize,
    /// Options whose padding depends on the size of the input.
    same: Option<ConvOptions>,
}

pub(super) struct NormAction {
    pub(super) name: String,
    pub(super) norm: BatchNorm2d,
    activation: Activation,
    pub(super) input: usize,
    pub(super) output: usize,
}

impl ConvAction {
    pub(super) fn run(&self, x: &Tensor, shortcut: Option<&Tensor>) -> Result<Tensor> {
        let with_padding;
        let x = match &self.same {
            Some(options) if x.ndim() == 4 => {
                with_padding = padded(x, options.pads_for([x.shape()[2], x.shape()[3]]), 0.0)?;
                &with_padding
            }
            _ => x,
        };
        match (&self.norm, shortcut) {
            (Some((_, norm)), Some(shortcut)) => conv_bn_add_act(&self.conv, norm, x, shortcut, self.activation),
            (Some((_, norm)), None) => conv_bn_act(&self.conv, norm, x, self.activation),
            (None, _) => match self.conv.fused(None, x, shortcut, self.activation)? {
                Some(y) => Ok(y),
                None => self.activation.apply_to_sum(Module::forward(&self.conv, x)?, shortcut),
            },
        }
    }
}

impl NormAction {
    /// Runs the layer on `[N, C]` and more dimensions; all after the second are positions.
    pub(super) fn run(&self, x: &Tensor) -> Result<Tensor> {
        match *x.shape() {
            [n, c, ..] if x.ndim() != 4 => {
                let maps = x.reshape([n, c, x.shape()[2..].iter().product(), 1])?;
                bn_act(&self.norm, &maps, self.activation)?.reshape(x.shape())
            }
            _ => bn_act(&self.norm, x, self.activation),
        }
    }
}

impl Action {
    /// Returns the values that the action reads.
    pub(super) fn reads(&self) -> Vec<usize> {
        match self {
            Action::Step(step) => step.reads(),
            Action::Conv(action) => [action.input].into_iter().chain(action.shortcut).collect(),
            Action::Norm(action) => vec![action.input],
            Action::Dense { input, .. } => vec![*input],
        }
    }
}

/// The steps of a graph while they are put together.
struct Fuser<'a> {
    values: &'a [Entry],
    steps: &'a [Step],
    state: State<'a>,
    /// The steps that read each value; an output of the graph counts as a step past the end.
    readers: HashMap<usize, Vec<usize>>,
    taken: Vec<bool>,
}

/// Puts neighbouring steps together.
pub(super) fn fuse(graph: &Graph, state: State<'_>) -> Result<Vec<Action>> {
    let mut readers: HashMap<usize, Vec<usize>> = HashMap::new();
    for (at, step) in graph.steps.iter().enumerate() {
        step.reads().into_iter().for_each(|slot| readers.entry(slot).or_default().push(at));
    }
    graph.outputs.iter().for_each(|&(_, slot)| readers.entry(slot).or_default().push(graph.steps.len()));
    let taken = vec![false; graph.steps.len()];
    let mut fuser = Fuser { values: &graph.values, steps: &graph.steps, state, readers, taken };
    let mut actions: Vec<Option<Action>> = graph.steps.iter().map(|_| None).collect();
    for at in 0..graph.steps.len() {
        if !fuser.taken[at] {
            let (last, action) = fuser.action(at)?;
            actions[last] = Some(action);
        }
    }
    Ok(actions.into_iter().flatten().collect())
}

impl Fuser<'_> {
    fn node(&self, at: usize) -> Option<&Node> {
        match self.steps.get(at) {
            Some(Step::Node(node)) if !self.taken[at] => Some(node),
            _ => None,
        }
    }

    /// Returns the parameter that an input of a node is.
    fn parameter(&self, node: &Node, input: usize) -> Option<Parameter> {
        match self.values[(*node.inputs.get(input)?)?].source {
            Source::Parameter(number) => Some(self.state.parameters[number].1.clone()),
            _ => None,
        }
    }

    fn buffer(&self, node: &Node, input: usize) -> Option<Buffer> {
        match self.values[(*node.inputs.get(input)?)?].source {
            Source::Buffer(number) => Some(self.state.buffers[number].1.clone()),
            _ => None,
        }
    }

    fn constant(&self, node: &Node, input: usize) -> Option<f64> {
        match &self.values[(*node.inputs.get(input)?)?].source {
            Source::Constant(value) => value.scalar().ok(),
            _ => None,
        }
    }

    /// Returns the action that begins with a step, and the step at which it runs: the last one that
    /// it takes in.
    fn action(&mut self, at: usize) -> Result<(usize, Action)> {
        let step = &self.steps[at];
        self.taken[at] = true;
        let Step::Node(node) = step else { return Ok((at, Action::Step(step.clone()))) };
        let made = match node.op.as_str() {
            "Conv" => self.conv(at, node)?,
            "BatchNormalization" => match (self.norm(node)?, node.inputs.first(), output(node)) {
                (Some(norm), Some(&Some(input)), Some(slot)) => {
                    let (last, activation, output) = self.activation(at, slot);
                    Some((last, Action::Norm(Box::new(NormAction { name: node.name.clone(), norm, activation, input, output }))))
                }
                _ => None,
            },
            "Gemm" => self.dense(node)?.map(|action| (at, action)),
            _ => None,
        };
        Ok(made.unwrap_or_else(|| (at, Action::Step(step.clone()))))
    }

    /// Returns the dense layer that a product with a transposed weight is.
    fn dense(&self, node: &Node) -> Result<Option<Action>> {
        let plain = node.float("alpha", 1.0)? == 1.0 && node.float("beta", 1.0)? == 1.0;
        let plain = plain && !node.flag("transA", false)? && node.flag("transB", false)?;
        let (Some(weight), Some(Some(input)), Some(output)) = (self.parameter(node, 1), node.inputs.first().copied(), output(node)) else {
            return Ok(None);
        };
        let has_bias = node.inputs.get(2).is_some_and(Option::is_some);
        let bias = self.parameter(node, 2);
        let &[outputs, inputs] = weight.dims() else { return Ok(None) };
        if !plain || has_bias != bias.is_some() || bias.as_ref().is_some_and(|bias| bias.dims() != [outputs]) {
            return Ok(None);
        }
        let mut layer = Linear::new(inputs, outputs).bias(has_bias);
        (layer.weight, layer.bias) = (weight, bias);
        Ok(Some(Action::Dense { name: node.name.clone(), layer, input, output }))
    }

    /// Returns the normalisation that a node is, if its state is the network's.
    fn norm(&self, node: &Node) -> Result<Option<BatchNorm2d>> {
        let parameters = (self.parameter(node, 1), self.parameter(node, 2));
        let buffers = (self.buffer(node, 3), self.buffer(node, 4));
        let ((Some(weight), Some(bias)), (Some(mean), Some(var))) = (parameters, buffers) else { return Ok(None) };
        let &[channels] = weight.dims() else { return Ok(None) };
        let alike = bias.dims() == [channels] && mean.dims() == [channels] && var.dims() == [channels];
        if !alike || node.flag("training_mode", false)? {
            return Ok(None);
        }
        let mut norm = BatchNorm2d::new(channels).eps(node.float("epsilon", 1e-5)?).momentum(1.0 - node.float("momentum", 0.9)?);
        (norm.weight, norm.bias) = (Some(weight), Some(bias));
        (norm.running_mean, norm.running_var, norm.num_batches_tracked) = (Some(mean), Some(var), None);
        Ok(Some(norm))
    }

    /// Returns a convolution with what follows it, when its weight is a parameter.
    fn conv(&mut self, at: usize, node: &Node) -> Result<Option<(usize, Action)>> {
        let (Some(weight), Some(Some(input)), Some(slot)) = (self.parameter(node, 1), node.inputs.first().copied(), output(node)) else {
            return Ok(None);
        };
        let &[outputs, inputs, h, w] = weight.dims() else { return Ok(None) };
        let groups = usize::try_from(node.int("group", 1)?).unwrap_or(0);
        let bias = self.parameter(node, 2);
        let has_bias = node.inputs.get(2).is_some_and(Option::is_some);
        let bias_fits = has_bias == bias.is_some() && bias.as_ref().is_none_or(|bias| bias.dims() == [outputs]);
        if groups == 0 || !outputs.is_multiple_of(groups) || !bias_fits || weight.numel() == 0 {
            return Ok(None);
        }
        let options = ConvOptions::new(node, &[h, w])?;
        let [top, left, bottom, right] = options.pads;
        let conv = Conv2d::new(inputs.saturating_mul(groups), outputs, [h, w]).stride(options.stride).dilation(options.dilation);
        let mut conv = conv.padding(ConvPadding::Sides([left, right, top, bottom])).groups(groups).bias(has_bias);
        (conv.weight, conv.bias) = (weight, bias);

        let (mut last, mut slot, mut norm, mut shortcut) = (at, slot, None, None);
        let mut next = self.only_reader(slot);
        if let Some((reader, found)) = next.and_then(|reader| Some((reader, self.node(reader)?)))
            && found.op == "BatchNormalization"
            && found.inputs.first() == Some(&Some(slot))
            && let Some(layer) = self.norm(found)?
            && let Some(made) = output(found)
        {
            norm = Some((found.name.clone(), layer));
            (last, slot) = (reader, made);
            self.taken[reader] = true;
            next = self.only_reader(slot);
        }
        if let Some((reader, found)) = next.and_then(|reader| Some((reader, self.node(reader)?)))
            && found.op == "Add"
            && let &[Some(a), Some(b)] = found.inputs.as_slice()
            && let Some(made) = output(found)
        {
            let other = if a == slot { b } else { a };
            if other != slot && matches!(self.values[other].source, Source::Computed) {
                shortcut = Some(other);
                (last, slot) = (reader, made);
                self.taken[reader] = true;
            }
        }
        let (of_activation, activation, output) = self.activation(last, slot);
        let same = options.same.map(|_| options);
        let action = ConvAction { name: node.name.clone(), conv, norm, activation, input, shortcut, output, same };
        Ok(Some((of_activation, Action::Conv(Box::new(action)))))
    }

    /// Returns the one step that reads a value, if there is no other.
    fn only_reader(&self, slot: usize) -> Option<usize> {
        match self.readers.get(&slot).map(Vec::as_slice) {
            Some(&[reader]) => Some(reader),
            _ => None,
        }
    }

    /// Takes the activation of a value that is made at the step `last`: the step that makes the
    /// result, the activation, and the result.
    fn activation(&mut self, last: usize, slot: usize) -> (usize, Activation, usize) {
        let none = (last, Activation::Linear, slot);
        match self.readers.get(&slot).cloned().unwrap_or_default()[..] {
            [reader] => {
                let found = self.node(reader).and_then(|node| Some((self.kind(node)?, output(node)?)));
                let Some((kind, made)) = found else { return none };
                self.taken[reader] = true;
                (reader, kind, made)
            }
            // `x · sigmoid(x)` and `x · hardsigmoid(x)`.
            [gate, product] => {
                let gated = self.node(gate).and_then(|node| Some((self.kind(node)?, output(node)?)));
                let whole = match gated {
                    Some((Activation::Sigmoid, made)) => Some((Activation::Silu, made)),
                    Some((Activation::Hardsigmoid, made)) => Some((Activation::Hardswish, made)),
                    _ => None,
                };
                let Some((kind, gate_slot)) = whole.filter(|&(_, made)| self.only_reader(made) == Some(product)) else { return none };
                let made = self.node(product).filter(|node| node.op == "Mul" && node.inputs.contains(&Some(gate_slot)));
                let Some(made) = made.and_then(output) else { return none };
                (self.taken[gate], self.taken[product]) = (true, true);
                (product, kind, made)
            }
            _ => none,
        }
    }

    /// Returns the activation that a node is.
    fn kind(&self, node: &Node) -> Option<Activation> {
        if let Operator::If = node.operator {
            return None;
        }
        let close = |value: f64, wanted: f64| (value - wanted).abs() < 1e-6;
        match node.op.as_str() {
            "Relu" => Some(Activation::Relu),
            "HardSwish" => Some(Activation::Hardswish),
            "Sigmoid" => Some(Activation::Sigmoid),
            "Swish" if node.float("alpha", 1.0).ok()? == 1.0 => Some(Activation::Silu),
            "HardSigmoid" if close(node.float("alpha", 0.2).ok()?, 1.0 / 6.0) && node.float("beta", 0.5).ok()? == 0.5 => {
                Some(Activation::Hardsigmoid)
            }
            "Clip" => {
                let bound = |at: usize, name: &str| match node.inputs.get(at) {
                    Some(Some(_)) => self.constant(node, at),
                    _ => node.float(name, f64::NAN).ok(),
                };
                (bound(1, "min")? == 0.0 && bound(2, "max")? == 6.0).then_some(Activation::Relu6)
            }
            _ => None,
        }
    }
}

/// Returns the one output of a node.
fn output(node: &Node) -> Option<usize> {
    let mut made = node.outputs.iter().flatten();
    let first = made.next().copied();
    if made.next().is_some() { None } else { first }
}
