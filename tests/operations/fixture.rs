//! The cases of `tests/fixtures/ops.json` and their numbers; the script beside it says what they
//! are.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use convnet::{DType, MemoryFormat, Result, Tensor};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

pub struct Fixture {
    pub cases: Vec<Case>,
    /// Shapes at which the crate is compared with itself, without expected numbers.
    pub large: Vec<Large>,
    numbers: BTreeMap<String, Numbers>,
}

pub static FIXTURE: LazyLock<Fixture> = LazyLock::new(Fixture::load);

/// A stored tensor: its numbers, row by row, and its type there.
pub struct Numbers {
    pub values: Vec<f64>,
    pub shape: Vec<usize>,
    dtype: Dtype,
}

pub struct Case {
    pub key: String,
    pub op: String,
    pub name: String,
    pub args: Args,
    /// The tensors that get a gradient.
    pub inputs: Vec<String>,
    /// The tensors that get none.
    pub constants: Vec<String>,
    flags: Vec<String>,
}

pub struct Large {
    pub op: String,
    pub args: Args,
    tensors: BTreeMap<String, Value>,
}

impl Fixture {
    fn load() -> Fixture {
        let json: Value = serde_json::from_str(include_str!("../fixtures/ops.json")).expect("ops.json is JSON");
        let rows = |field: &str| json[field].as_array().expect("a list of cases").clone();
        let stored = SafeTensors::deserialize(include_bytes!("../fixtures/ops.safetensors")).expect("ops.safetensors is whole");
        let cases = rows("cases").into_iter().map(|row| Case {
            key: text(&row["key"]),
            op: text(&row["op"]),
            name: text(&row["name"]),
            args: Args(row["args"].clone()),
            inputs: texts(&row["inputs"]),
            constants: texts(&row["constants"]),
            flags: texts(&row["flags"]),
        });
        let large = rows("large").into_iter().map(|row| Large {
            op: text(&row["op"]),
            args: Args(row["args"].clone()),
            tensors: row["tensors"].as_object().expect("tensors by name").clone().into_iter().collect(),
        });
        let numbers = stored.iter().map(|(name, view)| {
            let values = numbers(view.dtype(), view.data());
            (name.to_string(), Numbers { values, shape: view.shape().to_vec(), dtype: view.dtype() })
        });
        Fixture { cases: cases.collect(), large: large.collect(), numbers: numbers.collect() }
    }

    pub fn numbers(&self, key: &str) -> Option<&Numbers> {
        self.numbers.get(key)
    }
}

fn numbers(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
        Dtype::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
        Dtype::I64 => bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as f64).collect(),
        Dtype::U8 => bytes.iter().map(|&b| f64::from(b)).collect(),
        other => panic!("no tensor is stored as {other:?}"),
    }
}

impl Numbers {
    /// The type a tensor of these numbers has in a run with this floating point type.
    pub fn dtype(&self, float: DType) -> DType {
        match self.dtype {
            Dtype::I64 => DType::I64,
            Dtype::U8 => DType::U8,
            _ => float,
        }
    }

    pub fn tensor(&self, float: DType) -> Tensor {
        tensor(&self.values, &self.shape, self.dtype(float))
    }
}

fn tensor(values: &[f64], shape: &[usize], dtype: DType) -> Tensor {
    match dtype {
        DType::F64 => Tensor::from_vec(values.to_vec(), shape),
        DType::F32 => Tensor::from_vec(values.iter().map(|&v| v as f32).collect(), shape),
        DType::I64 => Tensor::from_vec(values.iter().map(|&v| v as i64).collect(), shape),
        DType::U8 => Tensor::from_vec(values.iter().map(|&v| v as u8).collect(), shape),
    }
    .expect("as many values as the shape holds")
}

impl Case {
    pub fn label(&self) -> String {
        format!("{}: {}", self.op, self.name)
    }

    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }

    /// The stored numbers of one of this case's tensors.
    pub fn numbers(&self, name: &str) -> Option<&'static Numbers> {
        FIXTURE.numbers(&format!("{}.{name}", self.key))
    }

    /// Inputs, as leaves that want a gradient, and constants, 4-D ones in `format`.
    pub fn tensors(&self, float: DType, format: MemoryFormat) -> Result<Tensors> {
        let stored = |name: &String| self.numbers(name).unwrap_or_else(|| panic!("{} has no {name}", self.key)).tensor(float);
        let inputs = self.inputs.iter().map(|name| Ok((name.clone(), to_format(stored(name), format)?.with_grad())));
        let constants = self.constants.iter().map(|name| Ok((name.clone(), to_format(stored(name), format)?)));
        Ok(Tensors(inputs.chain(constants).collect::<Result<_>>()?))
    }
}

impl Large {
    pub fn label(&self) -> String {
        format!("{} of {}, {}", self.op, Value::from_iter(self.tensors.clone()), self.args.0)
    }

    /// Leaves with random values, the same for every type and format, and constants.
    pub fn tensors(&self, float: DType, format: MemoryFormat) -> Result<Tensors> {
        convnet::manual_seed(42);
        let make = |(name, recipe): (&String, &Value)| {
            let (kind, shape) = match recipe.as_object() {
                None => ("input", recipe),
                Some(fields) if fields.contains_key("labels") => ("labels", &recipe["shape"]),
                Some(fields) => fields.iter().map(|(kind, shape)| (kind.as_str(), shape)).next().expect("a kind"),
            };
            let shape = Vec::<usize>::read(shape).expect("a shape");
            let normal = || -> Result<Vec<f64>> { Ok(Tensor::randn(&shape).to_vec::<f32>()?.into_iter().map(f64::from).collect()) };
            let value = match kind {
                "input" => to_format(tensor(&normal()?, &shape, float), format)?.with_grad(),
                "constant" => to_format(tensor(&normal()?, &shape, float), format)?,
                "positive" => {
                    let values: Vec<f64> = normal()?.iter().map(|v| 0.25 + v.abs()).collect();
                    to_format(tensor(&values, &shape, float), format)?.with_grad()
                }
                "labels" => Tensor::randint(recipe["labels"].as_i64().expect("a number of classes"), &shape),
                "mask" => {
                    let values: Vec<f64> = normal()?.iter().map(|&v| f64::from(u8::from(v > 0.0))).collect();
                    to_format(tensor(&values, &shape, DType::U8), format)?
                }
                other => panic!("{other} is no kind of tensor"),
            };
            Ok((name.clone(), value))
        };
        Ok(Tensors(self.tensors.iter().map(make).collect::<Result<_>>()?))
    }
}

/// A tensor in the format, if it has four dimensions.
pub fn to_format(tensor: Tensor, format: MemoryFormat) -> Result<Tensor> {
    if tensor.ndim() == 4 { tensor.to_memory_format(format) } else { Ok(tensor) }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_string()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().map(|list| list.iter().map(text).collect()).unwrap_or_default()
}

/// The tensors of a case by name.
#[derive(Clone)]
pub struct Tensors(pub BTreeMap<String, Tensor>);

impl Tensors {
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// All of them in the order of their names.
    pub fn all(&self) -> Vec<&Tensor> {
        self.0.values().collect()
    }

    /// With other inputs of the same names, in the order of `names`.
    pub fn with(&self, names: &[String], inputs: &[Tensor]) -> Tensors {
        let mut tensors = self.clone();
        tensors.0.extend(names.iter().cloned().zip(inputs.iter().cloned()));
        tensors
    }
}

impl std::ops::Index<&str> for Tensors {
    type Output = Tensor;

    fn index(&self, name: &str) -> &Tensor {
        self.get(name).unwrap_or_else(|| panic!("the case has no tensor {name}"))
    }
}

/// The options of a case by their names in the Rust API.
pub struct Args(Value);

/// The dimensions of a reduction, in each form that `Dims` takes.
pub enum Axes {
    All,
    One(i64),
    Several(Vec<i64>),
}

/// What an option can be.
pub trait Arg: Sized {
    fn read(value: &Value) -> Option<Self>;
}

impl Arg for bool {
    fn read(value: &Value) -> Option<bool> {
        value.as_bool()
    }
}

impl Arg for f64 {
    fn read(value: &Value) -> Option<f64> {
        value.as_f64()
    }
}

impl Arg for i64 {
    fn read(value: &Value) -> Option<i64> {
        value.as_i64()
    }
}

impl Arg for usize {
    fn read(value: &Value) -> Option<usize> {
        value.as_u64()?.try_into().ok()
    }
}

impl<T: Arg> Arg for Vec<T> {
    fn read(value: &Value) -> Option<Vec<T>> {
        value.as_array()?.iter().map(T::read).collect()
    }
}

impl<T: Arg, const N: usize> Arg for [T; N] {
    fn read(value: &Value) -> Option<[T; N]> {
        Vec::read(value)?.try_into().ok()
    }
}

impl Args {
    pub fn is_empty(&self) -> bool {
        self.0.as_object().is_none_or(|options| options.is_empty())
    }

    pub fn get<T: Arg>(&self, name: &str) -> Option<T> {
        let value = self.0.get(name)?;
        Some(T::read(value).unwrap_or_else(|| panic!("{name} is {value}")))
    }

    pub fn number(&self, name: &str) -> f64 {
        self.get(name).unwrap_or_else(|| panic!("{name} is missing"))
    }

    pub fn size(&self, name: &str) -> usize {
        self.get(name).unwrap_or_else(|| panic!("{name} is missing"))
    }

    pub fn dim(&self, name: &str) -> i64 {
        self.get(name).unwrap_or_else(|| panic!("{name} is missing"))
    }

    pub fn pair(&self, name: &str) -> [usize; 2] {
        self.get(name).unwrap_or_else(|| panic!("{name} is missing"))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    pub fn axes(&self) -> Axes {
        match &self.0["dims"] {
            Value::Null => Axes::All,
            Value::Array(_) => Axes::Several(self.get("dims").expect("present")),
            _ => Axes::One(self.dim("dims")),
        }
    }

    pub fn keepdim(&self) -> bool {
        self.get("keepdim").unwrap_or(false)
    }
}
