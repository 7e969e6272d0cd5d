//! The nodes, initialisers and names of the file that is being made.

use std::collections::{HashMap, HashSet};

use crate::tensor::{DType, Tensor};

/// An attribute of a node.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
    Text(&'static str),
}

pub(super) type Attributes = Vec<(&'static str, Attribute)>;

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) op: &'static str,
    pub(super) name: String,
    /// An empty name stands for an input that is left out.
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    pub(super) attributes: Attributes,
}

/// The size of a dimension of an input or an output.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Size {
    Fixed(usize),
    Named(String),
}

/// An input or an output of the graph.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) dtype: DType,
    pub(super) sizes: Vec<Size>,
}

#[derive(Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) initialisers: Vec<(String, Tensor)>,
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
    names: HashSet<String>,
    node_names: HashSet<String>,
    /// Initialisers of integers, by their numbers and whether they are a scalar.
    integers: HashMap<(Vec<i64>, bool), String>,
}

fn unique(names: &mut HashSet<String>, wanted: &str) -> String {
    let mut name = wanted.to_string();
    let mut number = 1;
    while name.is_empty() || !names.insert(name.clone()) {
        name = format!("{wanted}_{number}");
        number += 1;
    }
    name
}

impl Graph {
    /// Returns a name of a value that no other value has: this one, or this one with a number.
    pub(super) fn value_name(&mut self, wanted: &str) -> String {
        unique(&mut self.names, wanted)
    }

    /// Adds a node of a layer or block, and returns its outputs' names.
    pub(super) fn node(&mut self, op: &'static str, path: &str, inputs: &[String], outputs: usize, attributes: Attributes) -> Vec<String> {
        let wanted = if path.is_empty() { op.to_string() } else { format!("{path}/{op}") };
        let name = unique(&mut self.node_names, &wanted);
        let output = |number: usize| if number == 0 { format!("{name}_output") } else { format!("{name}_output{number}") };
        let outputs: Vec<String> = (0..outputs).map(|number| unique(&mut self.names, &output(number))).collect();
        // Inputs that are left out at the end are not listed.
        let inputs = &inputs[..inputs.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1)];
        self.nodes.push(Node { op, name, inputs: inputs.to_vec(), outputs: outputs.clone(), attributes });
        outputs
    }

    /// Adds an initialiser and returns its name.
    pub(super) fn initialiser(&mut self, wanted: &str, tensor: Tensor) -> String {
        let name = self.value_name(wanted);
        self.initialisers.push((name.clone(), tensor));
        name
    }

    /// Returns an initialiser of integers: a vector, or a scalar.
    pub(super) fn integers(&mut self, numbers: &[i64], is_scalar: bool) -> crate::Result<String> {
        let key = (numbers.to_vec(), is_scalar);
        if let Some(name) = self.integers.get(&key) {
            return Ok(name.clone());
        }
        let shape = [numbers.len()];
        let tensor = Tensor::from_slice(numbers, if is_scalar { &[] } else { &shape[..] })?;
        let name = self.initialiser(&format!("integers_{}", self.integers.len()), tensor);
        self.integers.insert(key, name.clone());
        Ok(name)
    }

    /// Gives a value the name of an output: renames it if a node made it and it is no output yet,
    /// else adds a node that copies it. Returns whether it is renamed.
    pub(super) fn rename_output(&mut self, source: &str, output: &str) -> bool {
        let is_output = self.outputs.iter().any(|port| port.name == source);
        let made = |node: &Node| node.outputs.iter().any(|name| name == source);
        if is_output || !self.nodes.iter().any(made) {
            let name = unique(&mut self.node_names, "Identity");
            let (inputs, outputs) = (vec![source.to_string()], vec![output.to_string()]);
            self.nodes.push(Node { op: "Identity", name, inputs, outputs, attributes: vec![] });
            return false;
        }
        for node in &mut self.nodes {
            for name in node.inputs.iter_mut().chain(&mut node.outputs).filter(|name| *name == source) {
                *name = output.to_string();
            }
        }
        true
    }

    /// Removes the initialisers that no node reads and no output is.
    pub(super) fn sweep(&mut self) {
        let read: HashSet<&String> =
            self.nodes.iter().flat_map(|node| &node.inputs).chain(self.outputs.iter().map(|port| &port.name)).collect();
        let used: Vec<bool> = self.initialisers.iter().map(|(name, _)| read.contains(name)).collect();
        let mut used = used.into_iter();
        self.initialisers.retain(|_| used.next().unwrap_or(true));
    }
}
