//! The graph of operations of a network, named by layer path.
//!
//! A [meta run](crate::tensor::meta) records the graph and, as a profile is active, the path of the
//! layer or block that called each operation. Only what depends on the network's input is listed,
//! so not the parameters.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::receptive_field::collect;
use super::summary::{dry_trace, dtype};
use crate::autograd::enable_grad;
use crate::error::Result;
use crate::nn::module::Module;
use crate::nn::module::visitor::Visitor;
use crate::profiling::hooks;
use crate::tensor::Tensor;
use crate::tensor::node::Node;

/// An operation, or a layer that is one.
pub(crate) struct GraphNode {
    /// A unique name, with slashes between the parts of the path: `layer1/0/conv1` for a layer,
    /// `layer1/0/add` for an operation between layers.
    pub(crate) name: String,
    /// The layer's type or the operation.
    pub(crate) op: String,
    /// The names of the nodes whose outputs it reads.
    pub(crate) inputs: Vec<String>,
    /// The shape of its output, where it is known.
    pub(crate) shape: Option<Arc<[usize]>>,
    /// The layer's description; empty for operations between layers.
    pub(crate) description: String,
}

/// Returns the operations of a network in evaluation for an input of this shape, in the order of
/// execution, the input first.
pub(crate) fn of(module: &dyn Module, input: &[usize]) -> Result<Vec<GraphNode>> {
    let (mut start, mut end) = (None, None);
    let (trace, _) = hooks::observe(|| {
        dry_trace(module, "graph", input, dtype(module), |x| {
            enable_grad(|| {
                let x = x.with_grad();
                start = x.node().cloned();
                let output = module.forward(&x)?;
                end = Some(output.clone());
                Ok(output)
            })
        })
    });
    let calls = trace?.calls;
    let root = Visitor::find_path(module).unwrap_or_default();
    let outputs: Vec<&Tensor> = calls.iter().map(|call| &call.output).chain(&end).collect();
    let mut graph = BTreeMap::new();
    outputs.iter().filter_map(|output| output.node()).for_each(|node| collect(node, &mut graph));
    let mut shapes: HashMap<u64, Arc<[usize]>> = HashMap::new();
    for edge in graph.values().flat_map(|node| &node.inputs) {
        edge.node.as_ref().map(|node| shapes.insert(node.number, Arc::clone(&edge.shape)));
    }
    for output in outputs {
        output.node().map(|node| shapes.insert(node.number, output.shape().into()));
    }
    let mut layers = HashMap::new();
    for call in &calls {
        // A layer that returns its input, such as dropout in evaluation, is no node.
        call.output.node().map(|node| layers.entry(node.number).or_insert((call.path.as_str(), call.layer.as_str())));
    }
    let leaves: HashSet<&str> = calls.iter().map(|call| call.path.as_str()).collect();
    let mut names = Names::default();
    // For each node the names of those that stand for it.
    let mut placed: HashMap<u64, Vec<String>> = HashMap::new();
    let mut nodes = Vec::new();
    for node in graph.values() {
        let is_input = start.as_ref().is_some_and(|start| start.number == node.number);
        let mut inputs: Vec<String> = Vec::new();
        for name in node.inputs.iter().filter_map(|edge| placed.get(&edge.node.as_ref()?.number)).flatten() {
            if !inputs.contains(name) {
                inputs.push(name.clone());
            }
        }
        if inputs.is_empty() && !is_input {
            continue;
        }
        let path = path_of(node, &root);
        let (name, op, description) = match layers.get(&node.number) {
            _ if is_input => ("input".to_string(), "Placeholder", ""),
            Some(&(path, layer)) => (path.replace('.', "/"), layer.split(' ').next().unwrap_or_default(), layer),
            None if !path.is_empty() && leaves.contains(path) => {
                // A step on the way to a layer's output: only the layer is shown.
                placed.insert(node.number, inputs);
                continue;
            }
            None if path.is_empty() => (op_of(node).to_string(), op_of(node), ""),
            None => (format!("{}/{}", path.replace('.', "/"), op_of(node)), op_of(node), ""),
        };
        let name = names.unique(if name.is_empty() { op.to_string() } else { name });
        placed.insert(node.number, vec![name.clone()]);
        let shape = if is_input { Some(input.into()) } else { shapes.get(&node.number).cloned() };
        nodes.push(GraphNode { name, op: op.to_string(), inputs, shape, description: description.to_string() });
    }
    Ok(nodes)
}

fn op_of(node: &Node) -> &'static str {
    node.origin.as_ref().map_or(node.op, |origin| origin.op)
}

/// Returns the path of the layer or block that called an operation, from the network's root.
fn path_of<'a>(node: &'a Node, root: &str) -> &'a str {
    let path = node.origin.as_ref().map_or("", |origin| &origin.path);
    path.strip_prefix(root).unwrap_or(path).trim_start_matches('.')
}

/// The names that are taken.
#[derive(Default)]
struct Names(HashMap<String, usize>);

impl Names {
    /// Returns a name that is not taken: this one, or with a number after it.
    fn unique(&mut self, wanted: String) -> String {
        let mut name = wanted.clone();
        while self.0.contains_key(&name) {
            let next = self.0.entry(wanted.clone()).or_default();
            *next += 1;
            name = format!("{wanted}_{next}");
        }
        self.0.insert(name.clone(), 0);
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Dropout, Linear, ReLU, Sequential};

    #[test]
    fn layer_that_runs_twice_has_two_nodes_and_one_that_does_nothing_has_none() {
        let net = Sequential::new().push(Linear::new(4, 4)).push(Dropout::new(0.5)).push(ReLU).push(Linear::new(4, 2));
        let names: Vec<String> = of(&net, &[1, 4]).unwrap().into_iter().map(|node| node.name).collect();
        assert_eq!(names, ["input", "0", "2", "3"]);
        let mut names = Names::default();
        assert_eq!(["a", "a", "a_1", "a"].map(|name| names.unique(name.to_string())), ["a", "a_1", "a_1_1", "a_2"]);
    }
}
