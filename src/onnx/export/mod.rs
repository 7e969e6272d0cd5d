//! Export: a network as an ONNX file.
//!
//! A network runs in evaluation and the operations that it runs are recorded (`profiling::record`),
//! twice with other inputs ([`plan`]). [`table`] says which ONNX operators an operation becomes,
//! [`write`] puts the graph into a file. So a module needs no code for its export: what its forward
//! pass computes with tensors is what is exported.

mod call;
mod graph;
mod norms;
mod plan;
mod pointwise;
mod reductions;
mod shapes;
mod table;
#[cfg(test)]
mod tests;
mod windows;
mod write;

use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

use call::{Call, Emitter};
use graph::{Graph, Port, Size};
use plan::{Plan, Refusal};
use table::Rule;

use crate::autograd::no_grad;
use crate::data::ImageClassification;
use crate::error::{Context, Error, Result};
use crate::nn::{Module, Visitor, in_evaluation};
use crate::profiling::record::record;
use crate::tensor::{DType, Tensor};

/// The name of errors.
const OP: &str = "onnx::export";

/// The operator sets that can be written, and ONNX's version of the file for each.
const OPSETS: &[(i64, i64)] =
    &[(17, 8), (18, 8), (19, 9), (20, 9), (21, 10), (22, 10), (23, 11), (24, 12), (25, 13), (26, 13), (27, 13), (28, 14)];

/// Writes a network as an ONNX file, with the default [options](Export): opset 17, any batch size,
/// the given height and width, normalisation as separate nodes.
///
/// The model runs twice, in evaluation, on inputs of the given shapes; its state does not change.
/// Parameters and buffers become initialisers under their state-dict keys, nodes are named by the
/// paths of layers and blocks. Everything that the forward pass computes with operations on tensors
/// is exported, in models of the registry and in modules of your own. Elements that it reads into
/// Rust (`to_vec`, `item`), and choices that it makes by them, cannot be: a second run with another
/// input finds them, and the export fails.
///
/// `inputs` has one shape for each input of the network: one, for [`Module::forward`]. The
/// dimension 0 is the batch.
///
/// ```
/// use convnet::{models, onnx};
///
/// let path = std::env::temp_dir().join(format!("lenet-{}.onnx", std::process::id()));
/// onnx::export(&models::lenet5(10), &[[1, 1, 28, 28]], &path)?;
/// # std::fs::remove_file(&path).map_err(convnet::Error::other)?;
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// [`Error::Argument`] for an operation that ONNX cannot express, and for tensors that depend on
/// the input and were not computed by operations; the message names the layer's path and the
/// operation. The errors of the forward pass; [`Error::Io`] when the file cannot be written.
pub fn export<M: Module + ?Sized, S: AsRef<[usize]>>(model: &M, inputs: &[S], path: impl AsRef<Path>) -> Result<()> {
    Export::new().write(model, inputs, path)
}

/// The options of an export to ONNX.
///
/// ```
/// use convnet::nn::{BatchNorm2d, Conv2d, ReLU, Sequential};
/// use convnet::onnx::Export;
///
/// let net = Sequential::new().push(Conv2d::new(3, 8, 3)).push(BatchNorm2d::new(8)).push(ReLU);
/// let path = std::env::temp_dir().join(format!("net-{}.onnx", std::process::id()));
/// Export::new().opset(20).fold(true).dynamic_size(true).write(&net, &[[1, 3, 64, 64]], &path)?;
/// # std::fs::remove_file(&path).map_err(convnet::Error::other)?;
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Export {
    opset: i64,
    fold: bool,
    dynamic_batch: bool,
    dynamic_size: bool,
    external: bool,
    dtype: Option<DType>,
    input_names: Vec<String>,
    output_names: Vec<String>,
    metadata: Vec<(String, String)>,
}

impl Default for Export {
    fn default() -> Export {
        Export::new()
    }
}

impl Export {
    /// Returns the default options.
    pub fn new() -> Export {
        Export {
            opset: 17,
            fold: false,
            dynamic_batch: true,
            dynamic_size: false,
            external: false,
            dtype: None,
            input_names: vec![],
            output_names: vec![],
            metadata: vec![],
        }
    }

    /// Sets the version of ONNX's operators (default: 17), 17 to 28. Newer ones have operators for
    /// `gelu` (20), `mish` (18) and circular padding (19).
    pub fn opset(mut self, version: i64) -> Export {
        self.opset = version;
        self
    }

    /// Sets whether batch normalisation is folded into the convolution or dense layer before it
    /// (default: false). The folded weights keep the layer's keys, and a layer without a bias gets
    /// one; normalisation that follows no such layer stays a node.
    pub fn fold(mut self, fold: bool) -> Export {
        self.fold = fold;
        self
    }

    /// Sets whether the file takes any batch size, a dimension called `batch` (default: true).
    /// Otherwise it takes that of the given shapes.
    pub fn dynamic_batch(mut self, dynamic: bool) -> Export {
        self.dynamic_batch = dynamic;
        self
    }

    /// Sets whether the file takes maps of any `height` and `width` (default: false), and sequences
    /// `[N, C, L]` of any `length`. The export fails, and names the layer, when the network does
    /// not allow it: when it flattens maps into a dense layer, or pools them to more than one
    /// output by adaptive windows.
    pub fn dynamic_size(mut self, dynamic: bool) -> Export {
        self.dynamic_size = dynamic;
        self
    }

    /// Sets whether weights are in a separate file, the model's name with `.data` (default:
    /// false). Above 2 GiB they always are: a single ONNX file cannot be larger.
    pub fn external_data(mut self, external: bool) -> Export {
        self.external = external;
        self
    }

    /// Sets the element type of the inputs (default: that of the first parameter).
    pub fn dtype(mut self, dtype: DType) -> Export {
        self.dtype = Some(dtype);
        self
    }

    /// Sets the names of the inputs (default: `input`, or `input_0`, `input_1`, …).
    pub fn input_names<S: AsRef<str>>(mut self, names: impl IntoIterator<Item = S>) -> Export {
        self.input_names = names.into_iter().map(|name| name.as_ref().to_string()).collect();
        self
    }

    /// Sets the names of the outputs (default: `output`, or `output_0`, `output_1`, …).
    pub fn output_names<S: AsRef<str>>(mut self, names: impl IntoIterator<Item = S>) -> Export {
        self.output_names = names.into_iter().map(|name| name.as_ref().to_string()).collect();
        self
    }

    /// Adds an entry to the file's metadata.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Export {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// Adds the names of the classes to the metadata, as `classes`, a list in JSON.
    pub fn classes<S: AsRef<str>>(self, names: impl IntoIterator<Item = S>) -> Export {
        let names: Vec<String> = names.into_iter().map(|name| name.as_ref().to_string()).collect();
        self.metadata("classes", serde_json::json!(names).to_string())
    }

    /// Adds the preprocessing of images to the metadata, in JSON: `mean` and `std` of each channel,
    /// for pixels in `[0, 1]`; `size`, the height and width of the input; `resize`, the length to
    /// which the shorter side is scaled before the middle is cut out, and `interpolation`.
    pub fn preprocessing(self, preprocessing: &ImageClassification) -> Export {
        let [_, height, width] = preprocessing.shape();
        self.metadata("mean", serde_json::json!(preprocessing.mean()).to_string())
            .metadata("std", serde_json::json!(preprocessing.std()).to_string())
            .metadata("size", serde_json::json!([height, width]).to_string())
            .metadata("resize", preprocessing.shorter_side().to_string())
            .metadata("interpolation", format!("{:?}", preprocessing.filter()).to_lowercase())
    }

    /// Writes a network as an ONNX file, as [`export`] does.
    ///
    /// # Errors
    /// Those of [`export`], and [`Error::Argument`] for an opset that cannot be written.
    pub fn write<M: Module + ?Sized, S: AsRef<[usize]>>(&self, model: &M, inputs: &[S], path: impl AsRef<Path>) -> Result<()> {
        if inputs.len() != 1 {
            let message = format!("a module's forward pass takes one input, got {} shapes; use `write_with` for others", inputs.len());
            return Err(Error::argument(OP, message));
        }
        let model = model.as_module();
        self.write_with(model, inputs, path, |x| Ok(vec![model.forward(&x[0])?]))
    }

    /// Writes what `run` computes with a network, for several inputs or outputs. `run` is called
    /// twice, with tensors of the given shapes.
    ///
    /// ```
    /// use convnet::{models, onnx::Export};
    ///
    /// let net = models::googlenet(10);
    /// let path = std::env::temp_dir().join(format!("googlenet-{}.onnx", std::process::id()));
    /// let names = ["logits", "squares"];
    /// Export::new().output_names(names).write_with(&net, &[[1, 3, 64, 64]], &path, |x| {
    ///     let logits = net.forward(&x[0])?;
    ///     Ok(vec![logits.clone(), logits.square()?])
    /// })?;
    /// # use convnet::nn::Module;
    /// # std::fs::remove_file(&path).map_err(convnet::Error::other)?;
    /// # Ok::<(), convnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`export`] and of `run`.
    pub fn write_with<M: Module + ?Sized, S: AsRef<[usize]>>(
        &self,
        model: &M,
        inputs: &[S],
        path: impl AsRef<Path>,
        run: impl Fn(&[Tensor]) -> Result<Vec<Tensor>>,
    ) -> Result<()> {
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|shape| shape.as_ref().to_vec()).collect();
        let model = model.as_module();
        let version = OPSETS.iter().find(|(opset, _)| *opset == self.opset).map(|&(_, version)| version).ok_or_else(|| {
            let [(first, _), .., (last, _)] = OPSETS else { unreachable!("a list of several") };
            Error::argument(OP, format!("opset {first} to {last} can be written, got {}", self.opset))
        })?;
        let graph = self.graph(model, &shapes, &run)?;
        let header = write::Header { version, opset: self.opset, name: model.type_name(), metadata: &self.metadata };
        write::write(&header, graph, self.external, path.as_ref())
    }

    /// Records the network and makes the graph of the file.
    fn graph(&self, model: &dyn Module, shapes: &[Vec<usize>], run: &dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>) -> Result<Graph> {
        let dtype = self.dtype.unwrap_or_else(|| model.parameters().first().map_or(DType::F32, |parameter| parameter.dtype()));
        let [first, second] = [0, 1].map(|other| shapes.iter().map(|shape| self.varied(shape, other)).collect::<Vec<_>>());
        let recorded = |shapes: &[Vec<usize>], seed: u64| {
            let inputs = shapes.iter().zip(seed * 64..).map(|(shape, seed)| arbitrary(shape, dtype, seed)).collect::<Result<Vec<_>>>()?;
            in_evaluation(model, || no_grad(|| record(&inputs, |inputs| run(inputs))))
        };
        let one = recorded(&first, 1)?;
        let dynamic = if self.dynamic_size { ", to find what depends on height and width (`dynamic_size`)" } else { "" };
        let other = recorded(&second, 2).with_context(|| format!("{OP}: run with inputs of {second:?}{dynamic}"))?;
        // A part of a network knows its paths in the whole.
        let place = Visitor::find_path(model).unwrap_or_default();
        let relative = |path: &str| match path.strip_prefix(&place) {
            Some(rest) if rest.is_empty() || rest.starts_with('.') => rest.trim_start_matches('.').to_string(),
            _ => path.to_string(),
        };
        let [one, other] = [one, other].map(|mut recording| {
            recording.steps.iter_mut().for_each(|step| step.path = relative(&step.path).into());
            recording
        });
        self.emit(model, Plan::new(one, other).map_err(refused)?)
    }

    /// Returns the shape of an input for the first or the second recording.
    fn varied(&self, shape: &[usize], run: usize) -> Vec<usize> {
        let mut shape = shape.to_vec();
        if self.dynamic_batch
            && let Some(batch) = shape.first_mut()
        {
            // Not 1: networks treat a dimension of size 1 in other ways.
            *batch = (*batch).max(2) + run;
        }
        if self.dynamic_size && run == 1 && shape.len() > 2 {
            // Multiples of the usual strides, of other lengths for each side. A size of 1 stays: it
            // is repeated along that of another tensor.
            shape[2..].iter_mut().zip(1..).filter(|(size, _)| **size > 1).for_each(|(size, factor)| *size += 32 * factor);
        }
        shape
    }

    fn emit(&self, model: &dyn Module, plan: Plan) -> Result<Graph> {
        let plan = Rc::new(plan);
        let mut keys = HashMap::new();
        let mut add = |key: String, tensor: &Tensor| {
            keys.entry((tensor.storage_handle().as_ptr().addr(), tensor.shape().to_vec())).or_insert(key);
        };
        for (key, parameter) in model.named_parameters() {
            add(key, &parameter.try_tensor()?);
        }
        for (key, buffer) in model.named_buffers() {
            add(key, &buffer.tensor());
        }
        let mut emitter = Emitter {
            plan: Rc::clone(&plan),
            graph: Graph::default(),
            opset: self.opset,
            fold: self.fold,
            names: vec![None; plan.first.values.len()],
            keys,
            foldable: HashMap::new(),
        };
        let symbols = self.add_inputs(&mut emitter)?;
        for &numbers in &plan.steps {
            let step = &plan.first.steps[numbers[0]];
            let rule = if step.custom { None } else { table::rule(step.op) };
            let done = match rule {
                Some(Rule::Nodes(nodes)) => nodes(&mut Call::new(&mut emitter, numbers)),
                Some(Rule::Never(reason)) => Err(reason.to_string()),
                None if step.custom => {
                    Err("it is an operation of the user (`CustomOp`), which ONNX does not know; compute it with operations on tensors"
                        .into())
                }
                None => Err("there are no ONNX operators for it".into()),
            };
            done.map_err(|why| refused(Refusal { op: step.op.to_string(), path: step.path.to_string(), why }))?;
        }
        self.add_outputs(&mut emitter, &symbols)?;
        emitter.graph.sweep();
        Ok(emitter.graph)
    }

    /// Adds the inputs, and returns the names of their dynamic sizes by their sizes in both
    /// recordings.
    fn add_inputs(&self, emitter: &mut Emitter) -> Result<Vec<([usize; 2], String)>> {
        let plan = Rc::clone(&emitter.plan);
        let names = ports("input", &self.input_names, plan.first.inputs.len())?;
        let mut symbols: Vec<([usize; 2], String)> = vec![];
        for (wanted, &number) in names.iter().zip(&plan.first.inputs) {
            let [a, b] = plan.shapes(number);
            let dimension = |(axis, (&a, &b)): (usize, (&usize, &usize))| {
                if a == b {
                    return Size::Fixed(a);
                }
                let usual = match (axis, plan.shapes(number)[0].len()) {
                    (0, _) => "batch".to_string(),
                    (2, 3) => "length".to_string(),
                    (2, 4) => "height".to_string(),
                    (3, 4) => "width".to_string(),
                    _ => format!("{wanted}_size_{axis}"),
                };
                let known = symbols.iter().find(|(sizes, _)| *sizes == [a, b]).map(|(_, name)| name.clone());
                let taken = symbols.iter().any(|(_, name)| *name == usual);
                let name = known.unwrap_or_else(|| if taken { format!("{wanted}_{usual}") } else { usual });
                symbols.push(([a, b], name.clone()));
                Size::Named(name)
            };
            let sizes = a.iter().zip(b).enumerate().map(dimension).collect();
            let name = emitter.graph.value_name(wanted);
            emitter.names[number] = Some(name.clone());
            emitter.graph.inputs.push(Port { name, dtype: plan.first.values[number].dtype, sizes });
        }
        Ok(symbols)
    }

    fn add_outputs(&self, emitter: &mut Emitter, symbols: &[([usize; 2], String)]) -> Result<()> {
        let plan = Rc::clone(&emitter.plan);
        let names = ports("output", &self.output_names, plan.first.outputs.len())?;
        for (wanted, &number) in names.iter().zip(&plan.first.outputs) {
            let source = emitter.value(number, "").map_err(|why| refused(Refusal { op: "output".into(), path: String::new(), why }))?;
            let name = emitter.graph.value_name(wanted);
            if emitter.graph.rename_output(&source, &name) {
                emitter.names.iter_mut().flatten().filter(|known| **known == source).for_each(|known| known.clone_from(&name));
            }
            let [a, b] = plan.shapes(number);
            let dimension = |(axis, (&a, &b)): (usize, (&usize, &usize))| {
                let symbol = || symbols.iter().find(|(sizes, _)| *sizes == [a, b]).map(|(_, name)| name.clone());
                if a == b { Size::Fixed(a) } else { Size::Named(symbol().unwrap_or_else(|| format!("{name}_size_{axis}"))) }
            };
            let sizes = a.iter().zip(b).enumerate().map(dimension).collect();
            emitter.graph.outputs.push(Port { name: name.clone(), dtype: plan.first.values[number].dtype, sizes });
        }
        Ok(())
    }
}

/// Returns the names of the inputs or outputs.
fn ports(kind: &str, given: &[String], count: usize) -> Result<Vec<String>> {
    if given.is_empty() {
        return Ok(if count == 1 { vec![kind.to_string()] } else { (0..count).map(|number| format!("{kind}_{number}")).collect() });
    }
    let mut seen = std::collections::BTreeSet::new();
    if given.len() != count || !given.iter().all(|name| !name.is_empty() && seen.insert(name)) {
        return Err(Error::argument(OP, format!("expected {count} different names of {kind}s, got {given:?}")));
    }
    Ok(given.to_vec())
}

fn refused(Refusal { op, path, why }: Refusal) -> Error {
    let place = if path.is_empty() { String::new() } else { format!("{path}: ") };
    Error::argument(OP, format!("{place}operation `{op}` cannot be exported: {why}"))
}

/// Returns a tensor of arbitrary numbers, others for each seed: in ±√3 for floating-point types, so
/// that the variance is 1, and 0 or 1 for integers, which may be indices.
fn arbitrary(shape: &[usize], dtype: DType, seed: u64) -> Result<Tensor> {
    let count = crate::tensor::shape::try_numel(shape).ok_or_else(|| crate::tensor::shape::too_large(shape))?;
    // SplitMix64 (Steele et al., 2014).
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = state;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    };
    let mut number = || (next() >> 40) as f32 / (1 << 24) as f32;
    let spread = 2.0 * 3f32.sqrt();
    let values = (0..count).map(|_| if dtype.is_float() { (number() - 0.5) * spread } else { (number() * 2.0).floor() });
    Tensor::from_vec(values.collect::<Vec<f32>>(), shape)?.cast(dtype)
}
