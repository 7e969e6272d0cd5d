//! Reading of networks.
//!
//! [`graph`] checks a file and lists its nodes in order; [`trained`] makes parameters of
//! initialisers; here, what depends on no input is computed once. [`layers`] puts nodes together
//! that run as one operation, and [`network`] runs them. [`operators`] are tables of functions on
//! tensors.

mod graph;
mod layers;
mod network;
mod node;
mod operators;
#[cfg(test)]
mod tests;
mod trained;

use std::path::Path;
use std::sync::Arc;

pub use graph::ValueInfo;
pub use network::Network;

use self::graph::{Graph, Source, Step};
use self::network::run_node;
use self::node::Node;
use self::operators::Operator;
use self::trained::adopt;
use super::element::Value;
use super::wire;
use crate::error::{Error, Result, clipped};
use crate::io::read_file;
use crate::tensor::meta;
use crate::weights::alloc_limit::{AllocLimit, Parsed};

/// Reads a network from an ONNX file.
///
/// Initialisers of floating point that operators multiply with or add, and tables, are its
/// parameters, under their names, running means and variances its buffers; all else that depends on
/// no input is computed once. The network is in evaluation, as exporters write it; a file that was
/// written for training, with separate normalisations, trains after
/// [`train`](crate::nn::Module::train). Functions in the file are replaced by their bodies. Data in
/// other files have to be in the model's folder or below.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; [`Error::Format`], with the path, when it is damaged
/// or asks for more memory than its length justifies, when its graph has cycles, missing values or
/// functions that call themselves, and for operators and types that are not supported.
pub fn import(path: impl AsRef<Path>) -> Result<Network> {
    let path = path.as_ref();
    let bytes = read_file(path)?;
    let folder = path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    parse(bytes, folder).map_err(|message| Error::format(path, clipped(&message)))
}

/// Reads a network from the content of an ONNX file, such as `include_bytes!` gives, as
/// [`import`] does.
///
/// # Errors
/// [`Error::Value`] for the reasons for which [`import`] returns [`Error::Format`], and for data in
/// other files.
pub fn import_bytes(bytes: impl Into<Vec<u8>>) -> Result<Network> {
    parse(bytes.into(), None).map_err(|message| Error::value("onnx", clipped(&message)))
}

fn parse(bytes: Vec<u8>, folder: Option<&Path>) -> Parsed<Network> {
    let length = bytes.len();
    let mut limit = AllocLimit::new(length);
    let model = wire::model(bytes.into(), &mut limit)?;
    let mut graph = graph::check(&model, folder, &mut limit)?;
    drop(model);
    let (parameters, buffers) = adopt(&mut graph);
    fold(&mut graph, length, &mut limit)?;
    Network::new(Arc::new(graph), parameters, buffers).map_err(|error| error.to_string())
}

/// Computes the steps that depend on constants alone. Their sizes are computed first, and taken
/// from the limit; steps that take longer than a file of `length` bytes justifies are left to runs.
fn fold(graph: &mut Graph, length: usize, limit: &mut AllocLimit) -> Parsed<()> {
    let (mut left, mut work) = (vec![], WORK.saturating_add(length.saturating_mul(WORK_PER_BYTE)));
    for step in std::mem::take(&mut graph.steps) {
        let constant = |slot: &Option<usize>| match slot.map(|slot| &graph.values[slot].source) {
            None => Some(None),
            Some(Source::Constant(value)) => Some(Some(value.clone())),
            Some(_) => None,
        };
        let inputs = match &step {
            Step::Node(node) if !matches!(node.operator, Operator::If) => node.inputs.iter().map(constant).collect::<Option<Vec<_>>>(),
            _ => None,
        };
        let (Some(inputs), Step::Node(node)) = (inputs, &step) else {
            left.push(step);
            continue;
        };
        let wrong = |error: Error| error.to_string();
        // What takes too long by its inputs alone is not even tried for its sizes.
        if cost(node, &inputs, &[]) > work {
            left.push(step);
            continue;
        }
        let sizes = meta::run(|| run_node(node, &inputs, false)).map_err(wrong)?;
        let bytes = memory(node, &inputs, &sizes);
        limit.take(bytes)?;
        let Some(rest) = work.checked_sub(cost(node, &inputs, &sizes)) else {
            limit.give_back(bytes);
            left.push(step);
            continue;
        };
        work = rest;
        let values = run_node(node, &inputs, false).map_err(wrong)?;
        if node.outputs.iter().skip(values.len()).any(Option::is_some) {
            return Err(format!("node `{}` ({}) has more outputs than its operator", node.name, node.op));
        }
        for (slot, value) in node.outputs.iter().zip(values) {
            if let Some(slot) = slot {
                graph.values[*slot].source = Source::Constant(value);
            }
        }
    }
    graph.steps = left;
    Ok(())
}

/// The element operations that constants of any file may take, and those for each byte of it.
const WORK: usize = 1 << 30;
const WORK_PER_BYTE: usize = 1 << 10;

/// Returns the elements of values together.
fn elements<'a>(values: impl Iterator<Item = &'a Value>) -> usize {
    values.map(|value| value.tensor.numel()).fold(0, usize::saturating_add)
}

/// Returns the bytes that a node's results take at most.
fn memory(node: &Node, inputs: &[Option<Value>], outputs: &[Value]) -> usize {
    let dimensions = inputs.iter().flatten().map(|value| value.tensor.ndim()).max().unwrap_or(0).max(3);
    match node.op.as_str() {
        // The elements decide on the size: a place for each.
        "NonZero" | "NonMaxSuppression" => elements(inputs.iter().flatten()).saturating_mul(8 * dimensions),
        _ => {
            let bytes = |value: &Value| value.tensor.numel().saturating_mul(value.tensor.dtype().size());
            outputs.iter().map(bytes).fold(0, usize::saturating_add)
        }
    }
}

/// Estimates the element operations of a node: its elements, and more for operators that combine
/// each with many others.
fn cost(node: &Node, inputs: &[Option<Value>], outputs: &[Value]) -> usize {
    let (read, made) = (elements(inputs.iter().flatten()), elements(outputs.iter()));
    let shape = |at: usize| inputs.get(at).and_then(Option::as_ref).map_or(&[][..], |value| value.tensor.shape());
    let combined = match node.op.as_str() {
        "MatMul" | "Gemm" | "MatMulInteger" | "QLinearMatMul" => shape(0).iter().copied().max().unwrap_or(1),
        "Conv" | "ConvInteger" => shape(1).iter().skip(1).product(),
        "ConvTranspose" => shape(1).iter().product(),
        // More than two operands make tensors on the way, of any size.
        "Einsum" if inputs.len() > 2 => usize::MAX,
        "Einsum" => shape(0).iter().product(),
        "QLinearConv" => shape(3).iter().skip(1).product(),
        // Boxes compare with each other, and a window may be as large as the map.
        "NonMaxSuppression" | "MaxPool" | "AveragePool" | "LpPool" | "LRN" => read,
        _ => 1,
    };
    read.saturating_add(made).saturating_mul(combined)
}
