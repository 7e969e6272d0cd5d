//! What the table of operators works with: one operation of the network, and the nodes it becomes.

use std::collections::HashMap;
use std::rc::Rc;

use super::graph::{Attribute, Attributes, Graph};
use super::plan::Plan;
use crate::profiling::record::{Detail, Step};
use crate::tensor::{DType, Tensor};

/// The result of an export of one operation; an error says why it is not possible.
pub(super) type Done<T = ()> = Result<T, String>;

/// A node of a convolution or a dense layer, which a normalisation after it may be folded into.
#[derive(Clone)]
pub(super) struct Foldable {
    pub(super) node: usize,
    /// The numbers of the weight and the bias.
    pub(super) weight: usize,
    pub(super) bias: Option<usize>,
}

/// The state of an export.
pub(super) struct Emitter {
    pub(super) plan: Rc<Plan>,
    pub(super) graph: Graph,
    pub(super) opset: i64,
    pub(super) fold: bool,
    /// The names of values, by their numbers.
    pub(super) names: Vec<Option<String>>,
    /// State-dict keys by the address and the shape of a tensor.
    pub(super) keys: HashMap<(usize, Vec<usize>), String>,
    pub(super) foldable: HashMap<usize, Foldable>,
}

impl Emitter {
    /// Returns the name of a value; a constant becomes an initialiser.
    pub(super) fn value(&mut self, number: usize, path: &str) -> Done<String> {
        if let Some(name) = &self.names[number] {
            return Ok(name.clone());
        }
        if !self.plan.is_constant(number) {
            return Err("it reads a tensor that no exported operation has made".to_string());
        }
        let Some(tensor) = self.plan.first.values[number].constant.clone() else {
            return Err("it reads a tensor without elements".to_string());
        };
        let wanted = self.key(&tensor).unwrap_or_else(|| if path.is_empty() { "constant".to_string() } else { format!("{path}/constant") });
        let name = self.graph.initialiser(&wanted, tensor);
        self.names[number] = Some(name.clone());
        Ok(name)
    }

    /// Returns the state-dict key of a tensor, if it is a parameter or a buffer.
    pub(super) fn key(&self, tensor: &Tensor) -> Option<String> {
        self.keys.get(&(tensor.storage_handle().as_ptr().addr(), tensor.shape().to_vec())).cloned()
    }
}

/// One operation to export.
pub(super) struct Call<'e> {
    pub(super) emitter: &'e mut Emitter,
    plan: Rc<Plan>,
    numbers: [usize; 2],
}

pub(super) fn int(name: &'static str, value: i64) -> (&'static str, Attribute) {
    (name, Attribute::Int(value))
}

pub(super) fn ints(name: &'static str, values: &[i64]) -> (&'static str, Attribute) {
    (name, Attribute::Ints(values.to_vec()))
}

pub(super) fn float(name: &'static str, value: f64) -> (&'static str, Attribute) {
    (name, Attribute::Float(value as f32))
}

pub(super) fn text(name: &'static str, value: &'static str) -> (&'static str, Attribute) {
    (name, Attribute::Text(value))
}

/// The number of an element type in ONNX.
pub(super) fn type_number(dtype: DType) -> i64 {
    match dtype {
        DType::F32 => 1,
        DType::U8 => 2,
        DType::I64 => 7,
        DType::F64 => 11,
    }
}

/// ONNX's number of its truth values.
const BOOL: i64 = 9;

impl<'e> Call<'e> {
    pub(super) fn new(emitter: &'e mut Emitter, numbers: [usize; 2]) -> Call<'e> {
        let plan = Rc::clone(&emitter.plan);
        Call { emitter, plan, numbers }
    }

    pub(super) fn step(&self) -> &Step {
        &self.plan.first.steps[self.numbers[0]]
    }

    /// Returns the value of an option in both recordings.
    fn both(&self, name: &str) -> Done<[&Detail; 2]> {
        let find = |step: &'_ Step| step.options.iter().position(|(option, _)| *option == name);
        let steps = [self.step(), &self.plan.second.steps[self.numbers[1]]];
        match steps.map(find) {
            [Some(a), Some(b)] => Ok([&steps[0].options[a].1, &steps[1].options[b].1]),
            _ => Err(format!("its `{name}` was not recorded")),
        }
    }

    fn option(&self, name: &str) -> Done<&Detail> {
        match self.both(name)? {
            [a, b] if a == b => Ok(a),
            [a, b] => Err(format!("its `{name}` depends on the input: {} and {} in two runs", plain(a), plain(b))),
        }
    }

    pub(super) fn int(&self, name: &str) -> Done<i64> {
        match self.option(name)? {
            Detail::Int(value) => Ok(*value),
            other => Err(format!("its `{name}` is {other:?}")),
        }
    }

    /// Returns an integer of both recordings.
    pub(super) fn int_of_both(&self, name: &str) -> Done<[i64; 2]> {
        match self.both(name)? {
            [Detail::Int(a), Detail::Int(b)] => Ok([*a, *b]),
            [other, _] => Err(format!("its `{name}` is {other:?}")),
        }
    }

    pub(super) fn ints(&self, name: &str) -> Done<Vec<i64>> {
        match self.option(name)? {
            Detail::Ints(values) => Ok(values.clone()),
            other => Err(format!("its `{name}` is {other:?}")),
        }
    }

    pub(super) fn float(&self, name: &str) -> Done<f64> {
        match self.option(name)? {
            Detail::Float(value) => Ok(*value),
            other => Err(format!("its `{name}` is {other:?}")),
        }
    }

    pub(super) fn text(&self, name: &str) -> Done<&'static str> {
        match self.option(name)? {
            Detail::Text(value) => Ok(value),
            other => Err(format!("its `{name}` is {other:?}")),
        }
    }

    /// Returns whether the operation has an optional input.
    pub(super) fn has(&self, input: usize) -> bool {
        let absent = |&number: &usize| {
            let value = &self.plan.first.values[number];
            value.dtype == DType::U8 && value.shape.is_empty()
        };
        self.step().inputs.get(input).is_some_and(|number| !absent(number))
    }

    /// Returns the number of an input's value.
    pub(super) fn number(&self, input: usize) -> Done<usize> {
        self.step().inputs.get(input).copied().ok_or_else(|| format!("it has no input {input}"))
    }

    /// Returns the number of a tensor that the operation reads besides its inputs.
    pub(super) fn tensor_number(&self, name: &str) -> Option<usize> {
        self.step().tensors.iter().find(|(known, _)| *known == name).map(|&(_, number)| number)
    }

    /// Returns the name of an input.
    pub(super) fn x(&mut self, input: usize) -> Done<String> {
        let number = self.number(input)?;
        self.named(number)
    }

    /// Returns the name of an optional input, empty when there is none.
    pub(super) fn optional(&mut self, input: usize) -> Done<String> {
        if self.has(input) { self.x(input) } else { Ok(String::new()) }
    }

    /// Returns the name of a tensor that the operation reads besides its inputs.
    pub(super) fn tensor(&mut self, name: &str) -> Done<String> {
        let number = self.tensor_number(name).ok_or_else(|| format!("its `{name}` was not recorded"))?;
        self.named(number)
    }

    pub(super) fn named(&mut self, number: usize) -> Done<String> {
        let (plan, shown) = (Rc::clone(&self.plan), self.emitter.names[number].is_some());
        if !shown
            && !plan.is_constant(number)
            && let Some(once) = plan.repeated(number)
        {
            let once = self.initialiser("constant", once);
            let sizes = self.sizes(plan.shapes(number))?;
            let name = self.part("Expand", &[&once, &sizes], vec![]);
            self.emitter.names[number] = Some(name.clone());
            return Ok(name);
        }
        let path = self.step().path.to_string();
        self.emitter.value(number, &path)
    }

    /// Returns the shapes of an input in both recordings.
    pub(super) fn shapes(&self, input: usize) -> Done<[Vec<usize>; 2]> {
        Ok(self.plan.shapes(self.number(input)?).map(<[usize]>::to_vec))
    }

    /// Returns the shape of an input; sizes may be dynamic.
    pub(super) fn shape(&self, input: usize) -> Done<Vec<usize>> {
        Ok(self.shapes(input)?[0].clone())
    }

    /// Returns the shapes of the output in both recordings.
    pub(super) fn output_shapes(&self) -> [Vec<usize>; 2] {
        self.plan.shapes(self.step().outputs[0]).map(<[usize]>::to_vec)
    }

    pub(super) fn dtype(&self, input: usize) -> Done<DType> {
        Ok(self.plan.first.values[self.number(input)?].dtype)
    }

    pub(super) fn output_dtype(&self) -> DType {
        self.plan.first.values[self.step().outputs[0]].dtype
    }

    pub(super) fn opset(&self) -> i64 {
        self.emitter.opset
    }

    /// Adds a node whose result is a part of the operation, and returns the result's name.
    pub(super) fn part(&mut self, op: &'static str, inputs: &[&str], attributes: Attributes) -> String {
        self.parts(op, inputs, 1, attributes).swap_remove(0)
    }

    /// Adds a node with several results.
    pub(super) fn parts(&mut self, op: &'static str, inputs: &[&str], outputs: usize, attributes: Attributes) -> Vec<String> {
        let inputs: Vec<String> = inputs.iter().map(|name| name.to_string()).collect();
        let path = self.step().path.to_string();
        self.emitter.graph.node(op, &path, &inputs, outputs, attributes)
    }

    /// Adds the node whose result is the operation's.
    pub(super) fn done(&mut self, op: &'static str, inputs: &[&str], attributes: Attributes) -> Done {
        let name = self.part(op, inputs, attributes);
        self.is(name)
    }

    /// Makes a value the operation's result.
    pub(super) fn is(&mut self, name: String) -> Done {
        let output = self.step().outputs[0];
        self.emitter.names[output] = Some(name);
        Ok(())
    }

    /// Returns an initialiser of integers.
    pub(super) fn integers(&mut self, numbers: &[i64]) -> Done<String> {
        self.emitter.graph.integers(numbers, false).map_err(|error| error.to_string())
    }

    /// Returns an initialiser with one integer and no dimension.
    pub(super) fn integer(&mut self, number: i64) -> Done<String> {
        self.emitter.graph.integers(&[number], true).map_err(|error| error.to_string())
    }

    /// Returns an initialiser of one number.
    pub(super) fn scalar(&mut self, value: f64, dtype: DType) -> Done<String> {
        let tensor = Tensor::try_full([], value, dtype).map_err(|error| error.to_string())?;
        Ok(self.initialiser("constant", tensor))
    }

    /// Adds an initialiser below the layer's path.
    pub(super) fn initialiser(&mut self, name: &str, tensor: Tensor) -> String {
        let path = &self.step().path;
        let wanted = if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
        self.emitter.graph.initialiser(&wanted, tensor)
    }

    /// Converts a value to another element type.
    pub(super) fn cast(&mut self, name: String, from: DType, to: DType) -> String {
        if from == to { name } else { self.part("Cast", &[&name], vec![int("to", type_number(to))]) }
    }

    /// Returns an input as an element type.
    pub(super) fn x_as(&mut self, input: usize, dtype: DType) -> Done<String> {
        let (name, from) = (self.x(input)?, self.dtype(input)?);
        Ok(self.cast(name, from, dtype))
    }

    /// Converts a value to truth values.
    pub(super) fn truth(&mut self, name: &str) -> String {
        self.part("Cast", &[name], vec![int("to", BOOL)])
    }

    /// Returns a value of one integer: the size that is `sizes` in both recordings, taken from the
    /// shape of a value known so far; `None` when no value has it.
    fn dimension(&mut self, sizes: [usize; 2]) -> Option<String> {
        let plan = Rc::clone(&self.plan);
        let has = |number: usize| {
            let [a, b] = plan.shapes(number);
            let axis = a.iter().zip(b).position(|(&a, &b)| [a, b] == sizes)?;
            plan.twins[number]?;
            Some((self.emitter.names[number].clone()?, axis))
        };
        // Those of the operation itself first, so that graphs stay local.
        let candidates = self.step().inputs.iter().chain(&plan.first.inputs).copied();
        let (name, axis) = candidates.chain(0..plan.first.values.len()).find_map(has)?;
        Some(self.part("Shape", &[&name], vec![int("start", axis as i64), int("end", axis as i64 + 1)]))
    }

    /// Returns a vector of these sizes: numbers where both recordings agree.
    pub(super) fn sizes(&mut self, [a, b]: [&[usize]; 2]) -> Done<String> {
        if a == b {
            return self.integers(&a.iter().map(|&size| size as i64).collect::<Vec<_>>());
        }
        let mut parts = vec![];
        for (&a, &b) in a.iter().zip(b) {
            parts.push(match a == b {
                true => self.integers(&[a as i64])?,
                false => self.dimension([a, b]).ok_or_else(|| {
                    format!("a size that depends on the input's ({a} and {b} in two runs) is not that of another tensor; fix the batch and the sizes")
                })?,
            });
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Ok(self.part("Concat", &parts, vec![int("axis", 0)]))
    }
}

fn plain(detail: &Detail) -> String {
    match detail {
        Detail::Int(value) => value.to_string(),
        Detail::Ints(values) => format!("{values:?}"),
        Detail::Float(value) => value.to_string(),
        Detail::Text(value) => (*value).to_string(),
    }
}
