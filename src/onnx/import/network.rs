//! A network that was read from an ONNX file.

use std::fmt;
use std::sync::Arc;

use super::graph::{Graph, Source, Step, ValueInfo};
use super::layers::{Action, State, fuse};
use super::node::{Call, Node};
use super::operators;
use crate::data::{ImageClassification, ResizeFilter};
use crate::error::{Context, Error, Result};
use crate::io::text_table;
use crate::nn::{Buffer, Copier, Layer, LayerPath, Module, Parameter, TrainingMode, Visitor};
use crate::onnx::element::{ElementType, Value, refuse_large};
use crate::tensor::Tensor;
use crate::tensor::meta::{is_meta, pause};

/// A network that [`import`](super::import) read from an ONNX file.
///
/// It is a [`Module`]: its parameters are the initialisers of floating point, under their names in
/// the file, so it trains, loads and saves state dicts, and changes its dtype as any other. In
/// evaluation under [`no_grad`](crate::no_grad), convolutions with the normalisation, addition and
/// activation that follow them run as one operation.
pub struct Network {
    graph: Arc<Graph>,
    parameters: Vec<(String, Parameter)>,
    buffers: Vec<(String, Buffer)>,
    pub(super) actions: Vec<Action>,
    /// The values that no later action reads, for each action.
    last_reads: Vec<Vec<usize>>,
    training: TrainingMode,
}

impl Network {
    pub(super) fn new(graph: Arc<Graph>, parameters: Vec<(String, Parameter)>, buffers: Vec<(String, Buffer)>) -> Result<Network> {
        let actions = fuse(&graph, State { parameters: &parameters, buffers: &buffers })?;
        let mut last_reads: Vec<Vec<usize>> = actions.iter().map(|_| vec![]).collect();
        let mut live: Vec<bool> = vec![false; graph.values.len()];
        graph.outputs.iter().for_each(|&(_, slot)| live[slot] = true);
        for (action, dead) in actions.iter().zip(&mut last_reads).rev() {
            for slot in action.reads() {
                if !std::mem::replace(&mut live[slot], true) {
                    dead.push(slot);
                }
            }
        }
        let network = Network { graph, parameters, buffers, actions, last_reads, training: TrainingMode::new() };
        network.eval();
        Ok(network)
    }

    /// Returns the inputs, without initialisers.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = &ValueInfo> {
        self.graph.inputs.iter().map(|(info, _)| info)
    }

    /// Returns the outputs.
    pub fn outputs(&self) -> impl ExactSizeIterator<Item = &ValueInfo> {
        self.graph.outputs.iter().map(|(info, _)| info)
    }

    /// Returns the version of ONNX's operators that the file uses.
    pub fn opset(&self) -> i64 {
        self.graph.opset
    }

    /// Returns the name and version of the program that wrote the file.
    pub fn producer(&self) -> &str {
        &self.graph.producer
    }

    /// Returns the file's metadata, as names and values.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.graph.metadata
    }

    /// Returns the names of the classes from the metadata, as
    /// [`Export::classes`](crate::onnx::Export::classes) writes them, if they are there.
    pub fn classes(&self) -> Option<Vec<String>> {
        serde_json::from_str(self.entry("classes")?).ok()
    }

    /// Returns the preprocessing of images from the metadata, as
    /// [`Export::preprocessing`](crate::onnx::Export::preprocessing) writes it. It is `None` when a
    /// part is missing or not of that form, for images that are not squares, and for sides of more
    /// than 4,096 pixels.
    pub fn preprocessing(&self) -> Option<ImageClassification> {
        let numbers = |key| serde_json::from_str::<Vec<f64>>(self.entry(key)?).ok();
        let (mean, std) = (numbers("mean")?, numbers("std")?);
        let [height, width] = serde_json::from_str(self.entry("size")?).ok()?;
        let shorter: usize = self.entry("resize")?.parse().ok()?;
        let filter = match self.entry("interpolation")? {
            "nearest" => ResizeFilter::Nearest,
            "bilinear" => ResizeFilter::Bilinear,
            "bicubic" => ResizeFilter::Bicubic,
            _ => return None,
        };
        let sides = 1..=4096;
        if height != width || !sides.contains(&height) || !sides.contains(&shorter) || mean.len() != std.len() || mean.is_empty() {
            return None;
        }
        Some(ImageClassification::new(height).resize(shorter).interpolation(filter).normalize(mean, std))
    }

    fn entry(&self, key: &str) -> Option<&str> {
        self.metadata().iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Runs the network with all its inputs, in the order of [`inputs`](Network::inputs), and
    /// returns all its outputs.
    ///
    /// Booleans and `uint8` are `u8`, all other integers are `i64`, and floating point of less than
    /// 32 bits is `f32`.
    ///
    /// # Errors
    /// [`Error::Argument`] for another number of inputs, [`Error::DType`] for another type,
    /// [`Error::Shape`] for another number of dimensions; otherwise those of the operators, with
    /// the node's name.
    pub fn run(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let expected = self.graph.inputs.len();
        if inputs.len() != expected {
            let names: Vec<&str> = self.inputs().map(|info| info.name.as_str()).collect();
            return Err(Error::argument("onnx", format!("expected {expected} inputs {names:?}, got {}", inputs.len())));
        }
        let mut slots: Vec<Option<Value>> = self.graph.values.iter().map(|_| None).collect();
        for (&x, (info, slot)) in inputs.iter().zip(&self.graph.inputs) {
            let element = info.element.unwrap_or_else(|| ElementType::of_dtype(x.dtype()));
            // A network in f64 takes f64.
            let widened = element.is_float() && x.dtype().is_float();
            if x.dtype() != element.dtype() && !widened {
                return Err(Error::argument("onnx", format!("input `{}` is {}, got {}", info.name, element.name(), x.dtype())));
            }
            if info.shape.as_ref().is_some_and(|shape| shape.len() != x.ndim()) {
                return Err(Error::shape("onnx", format!("input `{}` is {}, got shape {:?}", info.name, info.sizes(), x.shape())));
            }
            refuse_large(x, element).with_context(|| format!("input `{}`", info.name))?;
            slots[*slot] = Some(Value { tensor: x.clone(), element });
        }
        for (action, dead) in self.actions.iter().zip(&self.last_reads) {
            self.act(action, &mut slots).map_err(|error| self.with_other_sizes(inputs, error))?;
            dead.iter().for_each(|&slot| slots[slot] = None);
        }
        self.graph.outputs.iter().map(|&(_, slot)| Ok(self.read(&slots, slot)?.tensor)).collect()
    }

    /// Adds to an error which inputs do not have the sizes in the file, if there are some: a graph
    /// that was exported for one batch may take another, or fail somewhere.
    fn with_other_sizes(&self, inputs: &[&Tensor], error: Error) -> Error {
        let fits = |fixed: &Option<usize>, size: usize| fixed.is_none_or(|fixed| fixed == size);
        for (x, (info, _)) in inputs.iter().zip(&self.graph.inputs) {
            let wanted = info.shape.iter().flatten();
            if !wanted.zip(x.shape()).all(|(fixed, &size)| fits(fixed, size)) {
                let context = format!("input `{}` is {} in the file, got shape {:?}", info.name, info.sizes(), x.shape());
                return Error::Context { context, source: Box::new(error) };
            }
        }
        error
    }

    /// Returns a value that was computed, or a stored one.
    fn read(&self, slots: &[Option<Value>], slot: usize) -> Result<Value> {
        let stored = |tensor: Tensor| Value { element: ElementType::of_dtype(tensor.dtype()), tensor };
        match &self.graph.values[slot].source {
            Source::Constant(value) => Ok(value.clone()),
            Source::Parameter(number) => Ok(stored(self.parameters[*number].1.try_tensor()?)),
            Source::Buffer(number) => Ok(stored(self.buffers[*number].1.tensor())),
            Source::Computed => {
                let missing = || Error::argument("onnx", format!("value `{}` is not there yet", self.graph.values[slot].name));
                slots[slot].clone().ok_or_else(missing)
            }
        }
    }

    fn act(&self, action: &Action, slots: &mut [Option<Value>]) -> Result<()> {
        let (output, tensor) = match action {
            Action::Step(step) => return self.step(step, slots),
            Action::Conv(action) => {
                let x = self.read(slots, action.input)?;
                let shortcut = action.shortcut.map(|slot| self.read(slots, slot)).transpose()?;
                (action.output, action.run(&x.tensor, shortcut.as_ref().map(|shortcut| &shortcut.tensor))?)
            }
            Action::Norm(action) => (action.output, action.run(&self.read(slots, action.input)?.tensor)?),
            Action::Dense { layer, input, output, .. } => (*output, layer.forward(&self.read(slots, *input)?.tensor)?),
        };
        slots[output] = Some(Value { element: ElementType::of_dtype(tensor.dtype()), tensor });
        Ok(())
    }

    fn step(&self, step: &Step, slots: &mut [Option<Value>]) -> Result<()> {
        let (node, values) = match step {
            Step::Node(node) => (node, self.node(node, slots)?),
            Step::If { node, branches } => {
                let condition = self.read(slots, node.inputs[0].unwrap_or(0))?.scalar()?;
                let branch = &branches[usize::from(condition == 0.0)];
                branch.steps.iter().try_for_each(|step| self.step(step, slots))?;
                let values = branch.outputs.iter().map(|slot| match slot {
                    Some(slot) => self.read(slots, *slot),
                    None => Err(node.error("an output of the branch is missing")),
                });
                (node, values.collect::<Result<Vec<_>>>()?)
            }
        };
        store(node, values, slots)
    }

    /// Runs one node. A meta run computes shapes only, but what follows from shapes is computed.
    fn node(&self, node: &Node, slots: &[Option<Value>]) -> Result<Vec<Value>> {
        let inputs = node.inputs.iter().map(|slot| slot.map(|slot| self.read(slots, slot)).transpose()).collect::<Result<Vec<_>>>()?;
        let training = self.training.is_training();
        let run = || run_node(node, &inputs, training);
        let of_shapes = matches!(node.op.as_str(), "Shape" | "Size") || inputs.iter().flatten().all(|value| !value.element.is_float());
        if is_meta() && of_shapes { pause(run) } else { run() }
    }
}

/// Runs a node, and adds its name to an error.
pub(super) fn run_node(node: &Node, inputs: &[Option<Value>], training: bool) -> Result<Vec<Value>> {
    operators::run(&Call { node, inputs, training }).map_err(|source| match source {
        located @ Error::Argument { op: "onnx", .. } => located,
        source => Error::Context { context: format!("node `{}` ({})", node.name, node.op), source: Box::new(source) },
    })
}

/// Puts the results of a node where later ones read them.
pub(super) fn store(node: &Node, values: Vec<Value>, slots: &mut [Option<Value>]) -> Result<()> {
    if node.outputs.iter().skip(values.len()).any(Option::is_some) {
        return Err(node.error(format!("gives {} outputs, {} are read", values.len(), node.outputs.len())));
    }
    for (slot, value) in node.outputs.iter().zip(values) {
        if let Some(slot) = slot {
            slots[*slot] = Some(value);
        }
    }
    Ok(())
}

impl Module for Network {
    /// Runs a network with one input, and returns its first output.
    ///
    /// # Errors
    /// Those of [`run`](Network::run).
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut outputs = self.run(&[x])?;
        if outputs.is_empty() {
            return Err(Error::argument("onnx", "the network has no outputs"));
        }
        Ok(outputs.swap_remove(0))
    }

    fn visit(&self, visitor: &mut Visitor<'_>) {
        self.parameters.iter().for_each(|(name, parameter)| visitor.parameter(name, parameter));
        self.buffers.iter().for_each(|(name, buffer)| visitor.buffer(name, buffer));
        visitor.mode(&self.training);
        let mut layer = |name: &str, path: &LayerPath, layer: &dyn Layer, mode: Option<&TrainingMode>| {
            visitor.group(name, "Layer", |visitor| {
                visitor.layer(path, layer);
                mode.into_iter().for_each(|mode| visitor.mode(mode));
            });
        };
        for action in &self.actions {
            match action {
                Action::Step(_) => {}
                Action::Conv(action) => {
                    layer(&action.name, action.conv.path(), &action.conv, None);
                    if let Some((name, norm)) = &action.norm {
                        layer(name, norm.path(), norm, Some(norm.mode()));
                    }
                }
                Action::Norm(action) => layer(&action.name, action.norm.path(), &action.norm, Some(action.norm.mode())),
                Action::Dense { name, layer: dense, .. } => layer(name, dense.path(), dense, None),
            }
        }
    }

    fn copy_with(&self, copier: &mut Copier) -> Result<Box<dyn Module>> {
        let parameters = self.parameters.iter().map(|(name, parameter)| Ok((name.clone(), copier.field(parameter)?)));
        let parameters = parameters.collect::<Result<Vec<_>>>()?;
        let buffers = self.buffers.iter().map(|(name, buffer)| Ok((name.clone(), copier.field(buffer)?))).collect::<Result<Vec<_>>>()?;
        let copy = Network::new(Arc::clone(&self.graph), parameters, buffers)?;
        if self.is_training() {
            copy.train();
        }
        Ok(Box::new(copy))
    }
}

/// Prints the graph as a table: a line for each operator, with what it reads and makes.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![["operator", "name", "reads", "makes"].map(String::from)];
        let mut add = |step: &Step| {
            let node = step.node();
            let names = |slots: &[Option<usize>]| {
                let shown = slots.iter().flatten().map(|&slot| match &self.graph.values[slot].source {
                    Source::Parameter(number) => format!("{} {:?}", self.parameters[*number].0, self.parameters[*number].1.dims()),
                    Source::Constant(value) if value.tensor.numel() <= 8 => match value.floats() {
                        Ok(numbers) => format!("{numbers:?}"),
                        Err(_) => self.graph.values[slot].name.clone(),
                    },
                    _ => self.graph.values[slot].name.clone(),
                });
                shown.collect::<Vec<_>>().join(", ")
            };
            rows.push([node.op.clone(), node.name.clone(), names(&node.inputs), names(&node.outputs)]);
        };
        self.graph.steps.iter().for_each(&mut add);
        text_table::write(f, &rows, 4, &[1])
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Network({} operators, {} parameters)", self.graph.steps.len(), self.parameters.len())
    }
}
