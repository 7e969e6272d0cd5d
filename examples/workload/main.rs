//! Runs one model or one operation, a stretch of steps at a time, on request: for timing this crate and another program in turn.
//!
//! ```sh
//! cargo run --release --example workload -- --model lenet5 --batch 64 --mode train --threads 2
//! cargo run --release --example workload -- --op "conv2d in=64 out=64 k=3 s=1 p=1 g=1" --batch 16 --size 56 --mode backward
//! ```
//!
//! It prints `ready` when warm. Then, for each line `N` on standard input, it runs N steps and prints the seconds they took. At the end of
//! input it prints one JSON line with the peak resident memory.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use convnet::autograd::BackwardOptions;
use convnet::nn::Module;
use convnet::ops::{Conv2dOptions, Pool2dOptions};
use convnet::optim::{Optimizer, Sgd};
use convnet::{MemoryFormat, Tensor, models, no_grad};

/// Runs steps of a model or an operation on request and tells how long they took.
#[derive(Parser)]
#[command(after_help = "Operations: conv2d in= out= k= [s= p= g=], max_pool2d c= k= [s= p=], batch_norm c=, relu c=, add c=")]
struct Options {
    /// A registered model
    #[arg(long, required_unless_present = "op", conflicts_with = "op")]
    model: Option<String>,
    /// An operation and its geometry
    #[arg(long)]
    op: Option<String>,
    /// Images in a step
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Height and width of the input, for operations and for models that take any size
    #[arg(long)]
    size: Option<usize>,
    /// What a step is
    #[arg(long, value_enum, default_value_t = Mode::Infer)]
    mode: Mode,
    /// Threads that compute
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Classes of the model [default: 10 for grey and 32×32 images, else 1000]
    #[arg(long)]
    classes: Option<usize>,
    /// Print where the time of the steps went on standard error, and write it to a file for chrome://tracing or Perfetto
    #[arg(long, num_args = 0..=1, value_name = "TRACE.json")]
    profile: Option<Option<PathBuf>>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    /// A model's forward pass, in evaluation
    Infer,
    /// A model's forward pass, cross-entropy, backward pass, and SGD with momentum 0.9 and weight decay 1e-4
    Train,
    /// An operation's forward pass
    Forward,
    /// All gradients of an operation; its input's too unless that has 3 channels
    Backward,
}

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;
type Step = Box<dyn FnMut() -> convnet::Result<()>>;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("workload: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Fallible<()> {
    convnet::set_num_threads(options.threads)?;
    convnet::manual_seed(0);
    let mut step = match (&options.model, &options.op) {
        (Some(name), _) => model_step(name, options)?,
        (None, Some(spec)) => op_step(spec, options)?,
        (None, None) => return Err("--model or --op, please".into()),
    };
    for _ in 0..3 {
        step()?;
    }
    let Some(trace) = &options.profile else { return serve(&mut step) };
    let (served, profile) = convnet::profile(|| serve(&mut step));
    eprintln!("{profile}");
    trace.as_ref().map_or(Ok(()), |path| profile.save_trace(path))?;
    served
}

/// Runs as many steps as each line of standard input asks for.
fn serve(step: &mut Step) -> Fallible<()> {
    let mut out = std::io::stdout();
    writeln!(out, "ready")?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let count: u64 = line.trim().parse().map_err(|_| format!("not a number of steps: {line:?}"))?;
        let start = Instant::now();
        for _ in 0..count {
            step()?;
        }
        writeln!(out, "{}", start.elapsed().as_secs_f64())?;
        out.flush()?;
    }
    let peak = peak_rss_mib().map_or("null".to_string(), |mib| format!("{mib:.1}"));
    writeln!(out, "{{\"peak_rss_mib\": {peak}}}")?;
    Ok(())
}

fn model_step(name: &str, options: &Options) -> Fallible<Step> {
    let [channels, mut height, mut width] = models::info(name)?.input;
    let small = channels == 1 || height == 32;
    if let Some(size) = options.size.filter(|_| !small) {
        (height, width) = (size, size);
    }
    let classes = options.classes.unwrap_or(if small { 10 } else { 1000 });
    let model = models::create(name, classes)?;
    let x = input(options.batch, channels, height, width)?;
    match options.mode {
        Mode::Infer => {
            model.eval();
            Ok(Box::new(move || no_grad(|| model.forward(&x)).map(drop)))
        }
        Mode::Train => {
            model.train();
            let labels: Vec<i64> = (0..options.batch).map(|i| (i * 7919 % classes) as i64).collect();
            let labels = Tensor::from_slice(&labels, [options.batch])?;
            let mut optimizer = Sgd::new(model.parameters(), 1e-3).momentum(0.9).weight_decay(1e-4);
            Ok(Box::new(move || optimizer.step(&model.forward(&x)?.cross_entropy(&labels)?.backward()?)))
        }
        Mode::Forward | Mode::Backward => Err("a model has the modes infer and train".into()),
    }
}

fn op_step(spec: &str, options: &Options) -> Fallible<Step> {
    let size = options.size.unwrap_or(224);
    let (name, geometry) = parse(spec)?;
    let get = |key: &str| geometry.get(key).copied();
    let need = |key: &str| get(key).ok_or_else(|| format!("{name} needs {key}="));
    let channels = get("in").or(get("c")).ok_or_else(|| format!("{name} needs in= or c="))?;
    let x = input(options.batch, channels, size, size)?;
    let square = |value: usize| [value, value];

    let mut leaves: Vec<Tensor> = vec![];
    let forward: Box<dyn Fn(&Tensor, &[Tensor]) -> convnet::Result<Tensor>> = match name.as_str() {
        "conv2d" => {
            let groups = get("g").unwrap_or(1);
            let (out, k) = (need("out")?, need("k")?);
            let fan_in = (channels / groups.max(1) * k * k).max(1) as f64;
            leaves.push(&Tensor::randn([out, channels / groups.max(1), k, k]) * (1.0 / fan_in.sqrt()));
            let options = Conv2dOptions {
                stride: square(get("s").unwrap_or(1)),
                padding: square(get("p").unwrap_or(0)),
                groups,
                ..Default::default()
            };
            Box::new(move |x, leaves| x.conv2d(&leaves[0], None, options))
        }
        "max_pool2d" => {
            let k = need("k")?;
            let options =
                Pool2dOptions { stride: square(get("s").unwrap_or(k)), padding: square(get("p").unwrap_or(0)), ..Default::default() };
            Box::new(move |x, _| x.max_pool2d(square(k), options))
        }
        "batch_norm" => {
            leaves.extend([Tensor::ones([channels]), Tensor::zeros([channels])]);
            Box::new(|x, leaves| Ok(x.batch_norm_train(Some(&leaves[0]), Some(&leaves[1]), 1e-5)?.output))
        }
        "relu" => Box::new(|x, _| Ok(x.relu())),
        "add" => {
            leaves.push(input(options.batch, channels, size, size)?);
            Box::new(|x, leaves| x.add(&leaves[0]))
        }
        _ => return Err(format!("no such operation: {name}; there are conv2d, max_pool2d, batch_norm, relu and add").into()),
    };

    match options.mode {
        Mode::Forward => Ok(Box::new(move || no_grad(|| forward(&x, &leaves)).map(drop))),
        Mode::Backward => {
            let leaves: Vec<Tensor> = leaves.iter().map(Tensor::with_grad).collect();
            let x = if channels == 3 { x } else { x.with_grad() };
            let y = forward(&x, &leaves)?;
            let gradient = Tensor::randn(y.shape()).to_memory_format(y.memory_format())?;
            let walk = BackwardOptions { gradient: Some(gradient), retain_graph: true };
            Ok(Box::new(move || y.backward_with(walk.clone()).map(drop)))
        }
        Mode::Infer | Mode::Train => Err("an operation has the modes forward and backward".into()),
    }
}

/// `conv2d in=64 out=64 k=3` as a name and numbers.
fn parse(spec: &str) -> Fallible<(String, BTreeMap<String, usize>)> {
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

fn input(batch: usize, channels: usize, height: usize, width: usize) -> convnet::Result<Tensor> {
    Tensor::randn([batch, channels, height, width]).to_memory_format(MemoryFormat::ChannelsLast)
}

/// The most memory that this process has had, as Linux tells it.
fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}
