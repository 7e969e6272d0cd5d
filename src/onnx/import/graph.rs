//! Checks a file's graph and lists its nodes in an order in which they can run: names become
//! numbers, functions are replaced by their bodies, and the initialisers are read.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::path::Path;

use prost::Message;

use super::node::Node;
use super::operators::{self, Operator};
use crate::onnx::element::{ElementType, Value};
use crate::onnx::proto::tensor_shape_proto::dimension;
use crate::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto, type_proto,
};
use crate::onnx::tensors;
use crate::weights::alloc_limit::{AllocLimit, Parsed, quoted};

/// The versions of ONNX's operators that are understood.
const VERSIONS: [i64; 2] = [7, 28];

/// Operators that have not changed since version 1, and are understood in all.
const UNCHANGED: &[&str] = &["Not"];

/// How deep functions may call each other, and graphs may be nested.
const DEEPEST: usize = 16;

/// What a node is charged of the file's memory, so that functions cannot multiply without end.
const NODE: usize = 1024;

/// What a default of a function is charged at each call, for its entry in the list of attributes.
const DEFAULT: usize = 64;

/// Where a value comes from.
#[derive(Clone)]
pub(super) enum Source {
    /// A step, or an input of the graph.
    Computed,
    /// An initialiser that is not trained, or what was computed from such.
    Constant(Value),
    /// A trained initialiser, by its number.
    Parameter(usize),
    /// A running statistic, by its number.
    Buffer(usize),
}

pub(super) struct Entry {
    pub(super) name: String,
    pub(super) source: Source,
}

/// One step of a run.
#[derive(Clone)]
pub(super) enum Step {
    Node(Node),
    /// Runs the first branch when the condition holds, else the second.
    If {
        node: Node,
        branches: Box<[Branch; 2]>,
    },
}

#[derive(Clone)]
pub(super) struct Branch {
    pub(super) steps: Vec<Step>,
    pub(super) outputs: Vec<Option<usize>>,
}

impl Step {
    pub(super) fn node(&self) -> &Node {
        match self {
            Step::Node(node) | Step::If { node, .. } => node,
        }
    }

    /// Returns the values that the step reads, branches included.
    pub(super) fn reads(&self) -> Vec<usize> {
        let mut reads: Vec<usize> = self.node().inputs.iter().flatten().copied().collect();
        if let Step::If { branches, .. } = self {
            for branch in branches.iter() {
                reads.extend(branch.steps.iter().flat_map(Step::reads));
                reads.extend(branch.outputs.iter().flatten());
            }
        }
        reads
    }
}

/// An input or output of a network.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ValueInfo {
    /// Its name in the file.
    pub name: String,
    /// The type of its elements; `None` when the file leaves it open.
    pub element: Option<ElementType>,
    /// Its dimensions, `None` for those of any size; `None` when the file leaves the shape open.
    pub shape: Option<Vec<Option<usize>>>,
}

impl ValueInfo {
    /// Returns the shape as messages show it.
    pub(super) fn sizes(&self) -> String {
        let sizes = self.shape.iter().flatten().map(|size| size.map_or("?".to_string(), |size| size.to_string()));
        format!("[{}]", sizes.collect::<Vec<_>>().join(", "))
    }
}

pub(super) struct Graph {
    pub(super) values: Vec<Entry>,
    pub(super) steps: Vec<Step>,
    pub(super) inputs: Vec<(ValueInfo, usize)>,
    pub(super) outputs: Vec<(ValueInfo, usize)>,
    pub(super) opset: i64,
    pub(super) producer: String,
    pub(super) metadata: Vec<(String, String)>,
}

/// The names that nodes can read: `None` for an input that the caller of a function left out.
struct Scope<'a> {
    names: HashMap<String, Option<usize>>,
    outer: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    fn find(&self, name: &str) -> Option<Option<usize>> {
        self.names.get(name).copied().or_else(|| self.outer?.find(name))
    }
}

struct Checker<'m> {
    functions: HashMap<(&'m str, &'m str, &'m str), &'m FunctionProto>,
    values: Vec<Entry>,
    folder: Option<&'m Path>,
    limit: &'m mut AllocLimit,
}

/// What nodes of one graph or function body share.
#[derive(Clone, Copy)]
struct Body<'a> {
    opsets: &'a [OperatorSetIdProto],
    /// The attributes of the call by name, for a function's body.
    attributes: Option<&'a HashMap<&'a str, &'a AttributeProto>>,
    depth: usize,
}

fn own_domain(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// Returns the version of ONNX's operators; of older ones than are understood when there are no
/// others than these.
fn version<'n>(opsets: &[OperatorSetIdProto], mut operators: impl Iterator<Item = &'n str>) -> Parsed<i64> {
    let version = opsets.iter().find(|set| own_domain(&set.domain)).map(|set| set.version);
    let version = version.ok_or("names no version of ONNX's operators")?;
    let [oldest, newest] = VERSIONS;
    match (oldest..=newest).contains(&version) || (1..oldest).contains(&version) && operators.all(|op| UNCHANGED.contains(&op)) {
        true => Ok(version),
        false => Err(format!(
            "uses operators of version {version}; versions {oldest} to {newest} are understood (`onnx.version_converter` converts)"
        )),
    }
}

fn info(info: &ValueInfoProto) -> Parsed<ValueInfo> {
    let name = info.name.clone();
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref().and_then(|kind| kind.value.as_ref()) else {
        return match info.r#type.as_ref().and_then(|kind| kind.value.as_ref()) {
            None => Ok(ValueInfo { name, element: None, shape: None }),
            Some(_) => Err(format!("value {} is no tensor; sequences, maps and sparse tensors are not supported", quoted(&name))),
        };
    };
    let size = |value: &Option<dimension::Value>| match value {
        Some(dimension::Value::DimValue(size)) => {
            usize::try_from(*size).map(Some).map_err(|_| format!("value {} has a dimension of size {size}", quoted(&name)))
        }
        _ => Ok(None),
    };
    let shape = tensor.shape.as_ref().map(|shape| shape.dim.iter().map(|dim| size(&dim.value)).collect::<Parsed<Vec<_>>>()).transpose()?;
    let element = if tensor.elem_type == 0 { None } else { Some(ElementType::of_code(tensor.elem_type)?) };
    Ok(ValueInfo { name, element, shape })
}

/// Checks a model; `folder` holds its external data.
pub(super) fn check(model: &ModelProto, folder: Option<&Path>, limit: &mut AllocLimit) -> Parsed<Graph> {
    let graph = model.graph.as_ref().ok_or("holds no graph")?;
    let opset = version(&model.opset_import, graph.node.iter().map(|node| node.op_type.as_str()))?;
    let functions = model.functions.iter().map(|f| ((f.domain.as_str(), f.name.as_str(), f.overload.as_str()), f)).collect();
    let mut checker = Checker { functions, values: vec![], folder, limit };
    let mut scope = Scope { names: HashMap::new(), outer: None };
    let stored: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let mut inputs = vec![];
    for input in graph.input.iter().filter(|input| !stored.contains(input.name.as_str())) {
        let slot = checker.define(&mut scope, &input.name)?;
        inputs.push((info(input)?, slot));
    }
    let body = Body { opsets: &model.opset_import, attributes: None, depth: 0 };
    let steps = checker.graph(graph, &mut scope, body)?;
    let mut outputs = vec![];
    for output in &graph.output {
        let slot = scope.find(&output.name).flatten().ok_or_else(|| format!("output {} is made by no node", quoted(&output.name)))?;
        outputs.push((info(output)?, slot));
    }
    let metadata = model.metadata_props.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect();
    let producer = format!("{} {}", model.producer_name, model.producer_version).trim().to_string();
    Ok(Graph { values: checker.values, steps, inputs, outputs, opset, producer, metadata })
}

impl<'m> Checker<'m> {
    fn add(&mut self, name: &str, source: Source) -> Parsed<usize> {
        self.limit.take(size_of::<Entry>() + name.len())?;
        self.values.push(Entry { name: name.to_string(), source });
        Ok(self.values.len() - 1)
    }

    /// Gives a name to a new value; one name has one value.
    fn define(&mut self, scope: &mut Scope<'_>, name: &str) -> Parsed<usize> {
        let slot = self.add(name, Source::Computed)?;
        self.alias(scope, name, Some(slot))?;
        Ok(slot)
    }

    fn alias(&mut self, scope: &mut Scope<'_>, name: &str, slot: Option<usize>) -> Parsed<()> {
        match scope.names.insert(name.to_string(), slot) {
            Some(_) => Err(format!("value {} is made twice", quoted(name))),
            None => Ok(()),
        }
    }

    fn graph(&mut self, graph: &'m GraphProto, scope: &mut Scope<'_>, body: Body<'_>) -> Parsed<Vec<Step>> {
        if !graph.sparse_initializer.is_empty() {
            return Err("has sparse initialisers, which are not supported; store them dense".to_string());
        }
        for tensor in &graph.initializer {
            let value =
                tensors::value(tensor, self.folder, self.limit).map_err(|why| format!("initialiser {}: {why}", quoted(&tensor.name)))?;
            let slot = self.add(&tensor.name, Source::Constant(value))?;
            self.alias(scope, &tensor.name, Some(slot))?;
        }
        let mut steps = vec![];
        self.nodes(&graph.node, scope, body, &mut steps)?;
        Ok(steps)
    }

    /// Adds the steps of nodes, each after those that it reads from.
    fn nodes(&mut self, nodes: &'m [NodeProto], scope: &mut Scope<'_>, body: Body<'_>, steps: &mut Vec<Step>) -> Parsed<()> {
        for at in order(nodes)? {
            self.limit.take(NODE)?;
            let node = &nodes[at];
            let place = |why: String| {
                if why.starts_with("node ") { why } else { format!("node {} ({}): {why}", quoted(label(node)), quoted(&node.op_type)) }
            };
            self.node(node, scope, body, steps).map_err(place)?;
        }
        Ok(())
    }

    fn node(&mut self, node: &'m NodeProto, scope: &mut Scope<'_>, body: Body<'_>, steps: &mut Vec<Step>) -> Parsed<()> {
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in &node.input {
            inputs.push(match name.as_str() {
                "" => None,
                name => scope.find(name).ok_or_else(|| format!("reads {}, which nothing makes", quoted(name)))?,
            });
        }
        if own_domain(&node.domain) && node.op_type == "Identity" {
            return match (inputs.as_slice(), node.output.as_slice()) {
                (&[input], [output]) => self.alias(scope, output, input),
                _ => Err("wants one input and one output".to_string()),
            };
        }
        let operator = if own_domain(&node.domain) { operators::find(&node.op_type) } else { None };
        let Some(operator) = operator else {
            let key = (node.domain.as_str(), node.op_type.as_str(), node.overload.as_str());
            let function = self.functions.get(&key).copied();
            let function = function.ok_or_else(|| {
                let domain = if own_domain(&node.domain) { String::new() } else { format!(" of domain {}", quoted(&node.domain)) };
                format!("operator {}{domain} is not supported", quoted(&node.op_type))
            })?;
            return self.call(node, function, &inputs, scope, body, steps);
        };
        let attributes = self.attributes(node, body.attributes)?;
        let mut outputs = Vec::with_capacity(node.output.len());
        for name in &node.output {
            outputs.push(if name.is_empty() { None } else { Some(self.add(name, Source::Computed)?) });
        }
        let made = Node {
            name: label(node).to_string(),
            op: node.op_type.clone(),
            version: version(body.opsets, std::iter::once(node.op_type.as_str()))?,
            attributes: if let Operator::If = operator { vec![] } else { attributes },
            inputs,
            outputs,
            operator,
        };
        let outputs = made.outputs.clone();
        if let Operator::If = operator {
            let branches = Box::new([self.branch(node, "then_branch", scope, body)?, self.branch(node, "else_branch", scope, body)?]);
            if made.inputs.first().is_none_or(Option::is_none) || branches.iter().any(|branch| branch.outputs.len() != made.outputs.len()) {
                return Err("wants a condition, and two branches with as many outputs as it has".to_string());
            }
            steps.push(Step::If { node: made, branches });
        } else {
            steps.push(Step::Node(made));
        }
        for (name, slot) in node.output.iter().zip(outputs).filter(|(name, _)| !name.is_empty()) {
            self.alias(scope, name, slot)?;
        }
        Ok(())
    }

    /// Returns the node's attributes, where those that refer to the function's have their values.
    /// Copies in the bodies of functions, which may be many, are taken from the limit.
    fn attributes(&mut self, node: &NodeProto, of_call: Option<&HashMap<&str, &AttributeProto>>) -> Parsed<Vec<AttributeProto>> {
        let mut found = vec![];
        for own in node.attribute.iter().filter(|attribute| attribute.g.is_none()) {
            let value = match own.ref_attr_name.as_str() {
                "" => Some(own),
                name => of_call.and_then(|given| given.get(name).copied()),
            };
            let Some(value) = value else { continue };
            if of_call.is_some() {
                self.limit.take(copied(value))?;
            }
            let mut value = AttributeProto { name: own.name.clone(), ..value.clone() };
            value.t = value.t.map(|tensor| tensors::with_data(tensor, self.folder, self.limit)).transpose()?;
            found.push(value);
        }
        Ok(found)
    }

    /// Checks a graph inside a node.
    fn branch(&mut self, node: &'m NodeProto, name: &str, outer: &Scope<'_>, body: Body<'_>) -> Parsed<Branch> {
        let graph = node.attribute.iter().find(|attribute| attribute.name == name).and_then(|attribute| attribute.g.as_ref());
        let graph = graph.ok_or_else(|| format!("has no {name}"))?;
        let body = deeper(body)?;
        let mut scope = Scope { names: HashMap::new(), outer: Some(outer) };
        let steps = self.graph(graph, &mut scope, body)?;
        let output =
            |name: &str| scope.find(name).ok_or_else(|| format!("output {} of {} is made by no node", quoted(name), quoted(&graph.name)));
        let outputs = graph.output.iter().map(|found| output(&found.name)).collect::<Parsed<Vec<_>>>()?;
        Ok(Branch { steps, outputs })
    }

    /// Adds the body of a function in place of its call.
    fn call(
        &mut self,
        node: &'m NodeProto,
        function: &'m FunctionProto,
        inputs: &[Option<usize>],
        scope: &mut Scope<'_>,
        body: Body<'_>,
        steps: &mut Vec<Step>,
    ) -> Parsed<()> {
        let depth = deeper(body)?.depth;
        let own = self.attributes(node, body.attributes)?;
        // Defaults also where the call names an attribute whose own value was not given.
        self.limit.take(DEFAULT.saturating_mul(function.attribute_proto.len()))?;
        let mut given = HashMap::new();
        for attribute in own.iter().chain(&function.attribute_proto) {
            given.entry(attribute.name.as_str()).or_insert(attribute);
        }
        let mut inner = Scope { names: HashMap::new(), outer: None };
        for (at, name) in function.input.iter().enumerate() {
            self.alias(&mut inner, name, inputs.get(at).copied().flatten())?;
        }
        let opsets = if function.opset_import.is_empty() { body.opsets } else { &function.opset_import };
        self.nodes(&function.node, &mut inner, Body { opsets, attributes: Some(&given), depth }, steps)?;
        for (name, own) in node.output.iter().zip(&function.output).filter(|(name, _)| !name.is_empty()) {
            let slot = inner.find(own).ok_or_else(|| format!("output {} of its function is made by no node", quoted(own)))?;
            self.alias(scope, name, slot)?;
        }
        Ok(())
    }
}

fn deeper(body: Body<'_>) -> Parsed<Body<'_>> {
    match body.depth < DEEPEST {
        true => Ok(Body { depth: body.depth + 1, ..body }),
        false => Err(format!("functions and graphs are nested more than {DEEPEST} deep; does a function call itself?")),
    }
}

/// Returns a name for messages: the node's, else that of its first output.
fn label(node: &NodeProto) -> &str {
    if node.name.is_empty() { node.output.first().map_or("", String::as_str) } else { &node.name }
}

/// Returns the bytes that a copy of an attribute takes, with its lists. Raw data are shared.
fn copied(attribute: &AttributeProto) -> usize {
    let shared = attribute.t.as_ref().map_or(0, |tensor| tensor.raw_data.len());
    size_of::<AttributeProto>().saturating_add((attribute.encoded_len().saturating_sub(shared)).saturating_mul(8))
}

/// Returns an order of the nodes in which each comes after those whose outputs it reads; the file's
/// own where it is one.
fn order(nodes: &[NodeProto]) -> Parsed<Vec<usize>> {
    let mut maker: HashMap<&str, usize> = HashMap::new();
    for (at, node) in nodes.iter().enumerate() {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            maker.insert(name, at);
        }
    }
    let (mut waiting, mut readers) = (vec![0usize; nodes.len()], vec![vec![]; nodes.len()]);
    for (at, node) in nodes.iter().enumerate() {
        let mut names = vec![];
        read_names(node, &mut names);
        for from in names.iter().filter_map(|name| maker.get(name)) {
            waiting[at] += 1;
            readers[*from].push(at);
        }
    }
    let mut ready: BinaryHeap<Reverse<usize>> = (0..nodes.len()).filter(|&at| waiting[at] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(at)) = ready.pop() {
        order.push(at);
        for &reader in &readers[at] {
            waiting[reader] -= 1;
            if waiting[reader] == 0 {
                ready.push(Reverse(reader));
            }
        }
    }
    match (0..nodes.len()).find(|&at| waiting[at] > 0) {
        Some(at) => Err(format!("node {} waits for its own output: the graph has a cycle", quoted(label(&nodes[at])))),
        None => Ok(order),
    }
}

/// Collects what a node reads, and what the graphs inside it read; these are nested no deeper than
/// the decoder allows.
fn read_names<'m>(node: &'m NodeProto, names: &mut Vec<&'m str>) {
    names.extend(node.input.iter().map(String::as_str));
    for graph in node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()) {
        graph.node.iter().for_each(|inner| read_names(inner, names));
        names.extend(graph.output.iter().map(|output| output.name.as_str()));
    }
}
