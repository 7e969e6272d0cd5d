//! One operation on images, forward or backward, from a line of text.

use std::collections::BTreeMap;
use std::error::Error;

use convnet::autograd::BackwardOptions;
use convnet::ops::{Conv2dOptions, Pool2dOptions};
use convnet::{MemoryFormat, Tensor, no_grad};

/// Operations of real networks: what they are, with the height and width of their input.
pub const OPERATIONS: [(&str, usize); 15] = [
    ("conv2d in=3 out=64 k=7 s=2 p=3", 224),
    ("conv2d in=64 out=64 k=3 p=1", 56),
    ("conv2d in=128 out=128 k=3 p=1", 28),
    ("conv2d in=256 out=256 k=3 p=1", 14),
    ("conv2d in=512 out=512 k=3 p=1", 7),
    ("conv2d in=64 out=256 k=1", 56),
    ("conv2d in=1024 out=256 k=1", 14),
    ("conv2d in=96 out=96 k=3 s=2 p=1 g=96", 112),
    ("conv2d in=144 out=144 k=3 p=1 g=144", 56),
    ("conv2d in=480 out=480 k=5 p=2 g=480", 14),
    ("conv2d in=128 out=128 k=3 p=1 g=32", 28),
    ("max_pool2d c=64 k=3 s=2 p=1", 112),
    ("batch_norm c=256", 56),
    ("relu c=256", 56),
    ("add c=256", 56),
];

/// Images to a step of each of them.
pub const BATCH: usize = 16;

type Run = Box<dyn Fn(&Tensor, &[Tensor]) -> convnet::Result<Tensor>>;

/// An operation with its operands.
pub struct Operation {
    x: Tensor,
    leaves: Vec<Tensor>,
    run: Run,
}

impl Operation {
    /// What `run` computes from `x` and `leaves`.
    pub fn new(x: Tensor, leaves: Vec<Tensor>, run: impl Fn(&Tensor, &[Tensor]) -> convnet::Result<Tensor> + 'static) -> Operation {
        Operation { x, leaves, run: Box::new(run) }
    }

    /// Parses an operation such as `conv2d in=64 out=64 k=3`, on `batch` images of `size` × `size`
    /// pixels.
    pub fn parse(spec: &str, batch: usize, size: usize) -> Result<Operation, Box<dyn Error>> {
        let (name, geometry) = words(spec)?;
        let get = |key: &str| geometry.get(key).copied();
        let need = |key: &str| get(key).ok_or_else(|| format!("{name} needs {key}="));
        let channels = get("in").or(get("c")).ok_or_else(|| format!("{name} needs in= or c="))?;
        let x = images(batch, channels, size)?;
        let square = |value: usize| [value, value];

        let operation = match name.as_str() {
            "conv2d" => {
                let groups = get("g").unwrap_or(1);
                let (out, k, width) = (need("out")?, need("k")?, channels / groups.max(1));
                let fan_in = (width * k * k).max(1) as f64;
                let weight = &Tensor::randn([out, width, k, k]) * (1.0 / fan_in.sqrt());
                let [stride, padding] = [get("s").unwrap_or(1), get("p").unwrap_or(0)].map(square);
                let options = Conv2dOptions { stride, padding, groups, ..Default::default() };
                Operation::new(x, vec![weight], move |x, w| x.conv2d(&w[0], None, options))
            }
            "max_pool2d" | "avg_pool2d" => {
                let k = need("k")?;
                let [stride, padding] = [get("s").unwrap_or(k), get("p").unwrap_or(0)].map(square);
                let options = Pool2dOptions { stride, padding, ..Default::default() };
                let pool = if name == "max_pool2d" { Tensor::max_pool2d } else { Tensor::avg_pool2d };
                Operation::new(x, vec![], move |x, _| pool(x, square(k), options))
            }
            "batch_norm" => Operation::new(x, vec![Tensor::ones([channels]), Tensor::zeros([channels])], |x, w| {
                Ok(x.batch_norm_train(Some(&w[0]), Some(&w[1]), 1e-5)?.output)
            }),
            "relu" => Operation::new(x, vec![], |x, _| Ok(x.relu())),
            "add" => Operation::new(x, vec![images(batch, channels, size)?], |x, other| x.add(&other[0])),
            _ => {
                let known = "conv2d, max_pool2d, avg_pool2d, batch_norm, relu and add";
                return Err(format!("no such operation: {name}; there are {known}").into());
            }
        };
        Ok(operation)
    }

    /// The operation itself.
    pub fn forward(self) -> impl FnMut() -> convnet::Result<()> {
        let Operation { x, leaves, run } = self;
        move || no_grad(|| run(&x, &leaves)).map(drop)
    }

    /// Computes all gradients; that of the first operand too, unless it is images of 3 channels,
    /// which are a network's input.
    pub fn backward(self) -> convnet::Result<impl FnMut() -> convnet::Result<()>> {
        let Operation { x, leaves, run } = self;
        let leaves: Vec<Tensor> = leaves.iter().map(Tensor::with_grad).collect();
        let x = if x.ndim() == 4 && x.shape()[1] == 3 { x } else { x.with_grad() };
        let y = run(&x, &leaves)?;
        let gradient = Tensor::randn(y.shape()).to_memory_format(y.memory_format())?;
        let walk = BackwardOptions { gradient: Some(gradient), retain_graph: true };
        Ok(move || y.backward_with(walk.clone()).map(drop))
    }
}

/// Random images, laid out as feature maps are.
pub fn images(batch: usize, channels: usize, size: usize) -> convnet::Result<Tensor> {
    Tensor::randn([batch, channels, size, size]).to_memory_format(MemoryFormat::ChannelsLast)
}

/// Splits `conv2d in=64 out=64 k=3` into a name and numbers.
fn words(spec: &str) -> Result<(String, BTreeMap<String, usize>), Box<dyn Error>> {
    let mut words = spec.split_whitespace();
    let name = words.next().ok_or("an empty operation")?;
    let mut geometry = BTreeMap::new();
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("expected key=number, got {word:?}"))?;
        if !["in", "c", "out", "k", "s", "p", "g"].contains(&key) {
            return Err(format!("unknown key {key:?}; there are in, c, out, k, s, p and g").into());
        }
        geometry.insert(key.to_string(), value.parse().map_err(|_| format!("expected a number in {word:?}"))?);
    }
    Ok((name.to_string(), geometry))
}
