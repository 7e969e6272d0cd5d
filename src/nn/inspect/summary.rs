//! A table of a network's layers and their costs.

use std::collections::HashMap;
use std::fmt;

use crate::autograd::no_grad;
use crate::error::{Error, Result};
use crate::io::text_table::{self, grouped};
use crate::kernels::runtime::arrays::MapEach;
use crate::nn::module::layer::{Call, Trace, trace};
use crate::nn::module::visitor::{Item, Visitor};
use crate::nn::module::{Module, in_evaluation};
use crate::tensor::meta;
use crate::tensor::shape::try_numel;
use crate::tensor::{DType, Tensor};

/// One call of a layer, or a block with everything inside.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SummaryRow {
    /// The path, empty for the network itself.
    pub path: String,
    /// Its description, as in `Conv2d 64→64, k3` for a layer and `Sequential` for a block.
    pub layer: String,
    /// The number of blocks that contain it.
    pub depth: usize,
    /// Whether it consists of the deeper rows after it. Its numbers are then their sums.
    pub is_block: bool,
    /// The shape of its output. `None` for a layer that did not run, and for a block that does not
    /// report it (by calling [`block`](crate::nn::block)).
    pub output: Option<Vec<usize>>,
    /// The number of its parameters; 0 in a layer's second and further calls, and where they were
    /// already counted under another path.
    pub parameters: usize,
    /// The number of multiplications, each with its addition.
    pub multiply_adds: u64,
    /// Bytes of its layers' outputs.
    pub activation_bytes: usize,
}

/// The result of [`ModuleExt::summary`](crate::nn::ModuleExt::summary); prints as a table.
///
/// Each block precedes the layers inside it, in execution order; layers that did not run, such as
/// heads for training, come last in their block.
///
/// ```
/// use convnet::nn::{Linear, Module, ModuleExt, ReLU, Sequential};
///
/// let net = Sequential::new().push(Linear::new(784, 100)).push(ReLU).push(Linear::new(100, 10));
/// let summary = net.summary([1, 784])?;
/// assert_eq!((summary.parameters, summary.multiply_adds), (79_510, 79_400));
/// println!("{summary}");
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// The network, its blocks and layers.
    pub rows: Vec<SummaryRow>,
    /// The shape of the input.
    pub input: Vec<usize>,
    /// The number of elements in all parameters, each counted once.
    pub parameters: usize,
    /// The number of elements in the parameters that are not frozen.
    pub trainable: usize,
    /// The number of multiplications, each with its addition, for the whole input.
    pub multiply_adds: u64,
    /// Bytes of the input.
    pub input_bytes: usize,
    /// Bytes of all layers' outputs together: what a forward pass writes, and approximately what
    /// training keeps.
    pub activation_bytes: usize,
    /// Bytes of the parameters.
    pub parameter_bytes: usize,
    /// Bytes of parameters and buffers.
    pub state_bytes: usize,
}

/// Summarises a module for an input of this shape and dtype; by default that in which it computes.
pub(crate) fn of(module: &dyn Module, input: &[usize], of_input: Option<DType>) -> Result<Summary> {
    let modules = Modules::of(module);
    let of_input = of_input.unwrap_or_else(|| dtype(module));
    let trace = dry_trace(module, "summary", input, of_input, |x| no_grad(|| module.forward(x)))?;
    let parameters = module.named_parameters();
    let bytes = |dims: &[usize], dtype: DType| dims.iter().product::<usize>() * dtype.size();
    let parameter_bytes: usize = parameters.iter().map(|(_, parameter)| bytes(&parameter.shape(), parameter.dtype())).sum();
    let buffer_bytes: usize = module.buffers().iter().map(|buffer| bytes(&buffer.shape(), buffer.tensor().dtype())).sum();
    let rows = modules.rows(trace, parameters.iter().map(|(path, parameter)| (path.as_str(), parameter.numel())));
    let whole = &rows[0];
    Ok(Summary {
        input: input.to_vec(),
        parameters: parameters.iter().map(|(_, parameter)| parameter.numel()).sum(),
        trainable: parameters.iter().filter(|(_, parameter)| !parameter.is_frozen()).map(|(_, parameter)| parameter.numel()).sum(),
        multiply_adds: whole.multiply_adds,
        input_bytes: bytes(input, of_input),
        activation_bytes: whole.activation_bytes,
        parameter_bytes,
        state_bytes: parameter_bytes + buffer_bytes,
        rows,
    })
}

/// Returns the dtype in which a network computes.
pub(crate) fn dtype(module: &dyn Module) -> DType {
    module.parameters().first().map_or(DType::F32, |parameter| parameter.dtype())
}

/// Records the calls of `forward`, in evaluation and without computing values, for an input of this
/// shape and dtype.
pub(crate) fn dry_trace(
    module: &dyn Module,
    op: &'static str,
    input: &[usize],
    dtype: DType,
    forward: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<Trace> {
    if try_numel(input).is_none() {
        return Err(Error::shape(op, format!("shape {input:?} has more elements than memory can hold")));
    }
    let (result, mut trace) = in_evaluation(module, || meta::run(|| trace(|| forward(&Tensor::full(input, 0.0, dtype)))));
    let output = result?.shape().to_vec();
    // Inside a larger model, the layers' paths start at its root.
    if let Some(place) = Visitor::find_path(module).filter(|place| !place.is_empty()) {
        trace.make_relative(&place);
    }
    trace.blocks.insert(String::new(), output);
    Ok(trace)
}

/// All modules of a network, the root first.
struct Modules {
    /// In the order of definition: path, description, whether it is a leaf layer.
    all: Vec<(String, String, bool)>,
    /// The index in `all` of each path.
    index: HashMap<String, usize>,
}

/// A row and those of the modules inside.
struct Node {
    row: SummaryRow,
    below: Vec<usize>,
}

impl Modules {
    fn of(module: &dyn Module) -> Modules {
        let mut modules = Modules { all: vec![], index: HashMap::new() };
        Visitor::walk(module, &mut |path, item| match item {
            Item::Enter { type_name } => {
                // A second module with the same path cannot be distinguished from the first.
                let next = modules.all.len();
                if *modules.index.entry(path.to_string()).or_insert(next) == next {
                    modules.all.push((path.to_string(), type_name.to_string(), false));
                }
            }
            Item::Layer(layer) => {
                if let Some(&at) = modules.index.get(path) {
                    (modules.all[at].1, modules.all[at].2) = (layer.describe(), true);
                }
            }
            _ => {}
        });
        modules
    }

    /// Returns the index of the module that contains a path; the root contains all.
    fn around(&self, path: &str) -> usize {
        let mut path = path;
        while let Some((outer, _)) = path.rsplit_once('.') {
            if let Some(&at) = self.index.get(outer) {
                return at;
            }
            path = outer;
        }
        0
    }

    fn rows<'a>(&self, trace: Trace, parameters: impl Iterator<Item = (&'a str, usize)>) -> Vec<SummaryRow> {
        let Trace { calls, mut blocks } = trace;
        let mut nodes: Vec<Node> = vec![];
        // The first row of each module.
        let mut placed: Vec<Option<usize>> = vec![None; self.all.len()];
        for Call { path, layer, output, multiply_adds } in calls {
            let at = self.index.get(&path).copied().filter(|&at| self.all[at].2);
            let bytes = output.numel() * output.dtype().size();
            let output = Some(output.shape().to_vec());
            // A layer that the visitor does not reach is listed under the root.
            let first = at.map(|at| self.place(at, &mut nodes, &mut placed));
            let node = match first {
                Some(first) if nodes[first].row.output.is_none() => first,
                _ => {
                    let around = self.place(self.around(&path), &mut nodes, &mut placed);
                    let (depth, next) = (nodes[around].row.depth + 1, nodes.len());
                    nodes[around].below.push(next);
                    nodes.push(Node { row: SummaryRow { depth, ..row(path, layer.clone(), false) }, below: vec![] });
                    next
                }
            };
            let row = &mut nodes[node].row;
            (row.layer, row.output, row.multiply_adds, row.activation_bytes) = (layer, output, multiply_adds, bytes);
        }
        // Layers that did not run, and blocks in which none did; but not empty positions, such as
        // an `Option` without a module.
        for (at, (path, _, is_layer)) in self.all.iter().enumerate() {
            if *is_layer || at == 0 || blocks.contains_key(path) {
                self.place(at, &mut nodes, &mut placed);
            }
        }
        for (path, count) in parameters {
            let owner = path.rsplit_once('.').map_or("", |(owner, _)| owner);
            let at = self.index.get(owner).copied().unwrap_or_else(|| self.around(path));
            let node = self.place(at, &mut nodes, &mut placed);
            nodes[node].row.parameters += count;
        }
        for node in nodes.iter_mut().filter(|node| node.row.is_block) {
            node.row.output = blocks.remove(&node.row.path);
        }
        let mut rows = vec![];
        if let Some(root) = placed[0] {
            flatten(&nodes, root, &mut rows);
        }
        rows
    }

    /// Returns the first row of a module; adds it below its parent if it does not exist yet.
    fn place(&self, at: usize, nodes: &mut Vec<Node>, placed: &mut [Option<usize>]) -> usize {
        if let Some(node) = placed[at] {
            return node;
        }
        let (path, what, is_layer) = &self.all[at];
        let around = (at > 0).then(|| self.place(self.around(path), nodes, placed));
        let depth = around.map_or(0, |around| nodes[around].row.depth + 1);
        let node = nodes.len();
        nodes.push(Node { row: SummaryRow { depth, ..row(path.clone(), what.clone(), !is_layer) }, below: vec![] });
        if let Some(around) = around {
            nodes[around].below.push(node);
        }
        placed[at] = Some(node);
        node
    }
}

fn row(path: String, layer: String, is_block: bool) -> SummaryRow {
    SummaryRow { path, layer, depth: 0, is_block, output: None, parameters: 0, multiply_adds: 0, activation_bytes: 0 }
}

/// Appends a row and those below it, and sums these into it. The recursion is as deep as the
/// modules are nested, like that of the visitor.
fn flatten(nodes: &[Node], at: usize, rows: &mut Vec<SummaryRow>) {
    let own = rows.len();
    rows.push(nodes[at].row.clone());
    for &below in &nodes[at].below {
        let start = rows.len();
        flatten(nodes, below, rows);
        let SummaryRow { parameters, multiply_adds, activation_bytes, .. } = rows[start];
        rows[own].parameters += parameters;
        rows[own].multiply_adds = rows[own].multiply_adds.saturating_add(multiply_adds);
        rows[own].activation_bytes = rows[own].activation_bytes.saturating_add(activation_bytes);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["module", "", "output shape", "parameters", "multiply-adds", "activations"];
        let mut table = vec![heads.map_each(String::from)];
        for row in &self.rows {
            let name = row.path.rsplit('.').next().unwrap_or_default();
            let [name, layer] = if row.depth == 0 { [row.layer.as_str(), ""] } else { [name, row.layer.as_str()] };
            let output = row.output.as_ref().map_or("-".to_string(), |shape| format!("{shape:?}"));
            let count = |n: u64| if n == 0 { "-".to_string() } else { grouped(n) };
            let bytes = if row.activation_bytes == 0 { "-".to_string() } else { mebibytes(row.activation_bytes) };
            let name = format!("{:1$}{name}", "", 2 * row.depth);
            table.push([name, layer.to_string(), output, count(row.parameters as u64), count(row.multiply_adds), bytes]);
        }
        text_table::write(f, &table, 3, &[1, table.len()])?;
        let frozen = self.parameters - self.trainable;
        let [all, trainable, frozen] = [self.parameters, self.trainable, frozen].map_each(|n| grouped(n as u64));
        writeln!(f, "parameters     {all} ({trainable} trainable, {frozen} frozen)")?;
        writeln!(f, "multiply-adds  {} for input {:?}", grouped(self.multiply_adds), self.input)?;
        let buffers = self.state_bytes - self.parameter_bytes;
        let [input, activations, parameters, buffers] =
            [self.input_bytes, self.activation_bytes, self.parameter_bytes, buffers].map_each(mebibytes);
        write!(f, "memory         input {input}, activations {activations}, parameters {parameters}, buffers {buffers}")
    }
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.2} MiB", bytes as f64 / (1 << 20) as f64)
}
