//! How fast things run. Alone it prints a table of operations and models; with `--scaling` how a
//! model's time grows with the number of images and their size. It takes about a minute.
//!
//! With a model or an operation it runs a stretch of steps at a time, on request: for timing this
//! crate and another program in turn.
//!
//! ```sh
//! cargo run --release --example workload
//! cargo run --release --example workload -- --scaling --model resnet18
//! cargo run --release --example workload -- --model lenet5 --batch 64 --mode train --threads 2
//! cargo run --release --features onnx --example workload -- --model net.onnx --batch 16
//! cargo run --release --example workload -- --op "conv2d in=64 out=64 k=3 s=1 p=1 g=1" --batch 16 --size 56 --mode backward
//! cargo run --release --example workload -- --load jitter --data photos --batch 16 --threads 1
//! cargo run --release --example workload -- --load cifar --data cifar10/train --batch 128 --workers 1 --model cifar_resnet20 --mode train
//! ```
//!
//! With `--distributed` it trains the model for a number of steps on the ranks that `mpirun`
//! started, and prints their time, what they sent, and a digest of the parameters:
//!
//! ```sh
//! cargo build --release --features mpi --example workload
//! mpirun -n 2 target/release/examples/workload --model resnet18 --batch 16 --distributed --threads 1
//! ```
//!
//! For the models, operations and folders of pictures above it prints `ready` when warm. Then, for
//! each line `N` on standard input, it runs N steps and prints the seconds they took. At the end of
//! input it prints one JSON line with the peak resident memory.

#[cfg(feature = "mpi")]
mod distributed;
#[cfg(feature = "image")]
mod loading;
mod model;
mod operation;
mod peak;
mod scaling;
mod table;

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use model::Subject;
use operation::Operation;

/// Times a table of operations and models; or runs steps of one of them on request and prints how
/// long they took.
#[derive(Parser)]
#[command(
    group = clap::ArgGroup::new("subject").args(SUBJECTS).multiple(true),
    after_help = "Operations: conv2d in= out= k= [s= p= g=], max_pool2d c= k= [s= p=], avg_pool2d c= k= [s= p=], batch_norm c=, relu c=, add c="
)]
struct Options {
    /// A registered model, or, with the feature `onnx`, an ONNX file
    #[arg(long)]
    model: Option<String>,
    /// An operation and its geometry
    #[arg(long, conflicts_with = "model")]
    op: Option<String>,
    /// Load the pictures of --data, a folder of each class, and do this with them; with --model,
    /// the model takes the batches
    #[cfg(feature = "image")]
    #[arg(long, value_enum, requires = "data", conflicts_with_all = ["op", "size", "classes"])]
    load: Option<loading::Pipeline>,
    /// Folder of pictures for --load
    #[cfg(feature = "image")]
    #[arg(long, value_name = "DIR", requires = "load")]
    data: Option<PathBuf>,
    /// Threads that load pictures; 0 to load them between the steps
    #[cfg(feature = "image")]
    #[arg(long, default_value_t = 0, requires = "load")]
    workers: usize,
    /// Print how inference time grows with the number of images and with their size, of the model
    /// [default: resnet18]
    #[cfg_attr(feature = "image", arg(conflicts_with = "load"))]
    #[arg(long, conflicts_with_all = ["op", "batch", "size", "mode", "classes", "explain", "profile"])]
    scaling: bool,
    /// Images in a step
    #[arg(long, default_value_t = 1, requires = "subject")]
    batch: usize,
    /// Height and width of the input, for operations and for models that take any size
    #[arg(long, requires = "subject")]
    size: Option<usize>,
    /// What a step is
    #[arg(long, value_enum, default_value_t = Mode::Infer, requires = "subject")]
    mode: Mode,
    /// Threads that compute; 0 for one on each core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Classes of the model [default: 10 for grey and 32×32 images, else 1000]
    #[arg(long, requires = "subject")]
    classes: Option<usize>,
    /// Print which algorithm computes each convolution of a step, and why, on standard error
    #[arg(long, requires = "subject")]
    explain: bool,
    /// Print where the time of the steps went on standard error, and write it to a file for
    /// chrome://tracing or Perfetto
    #[arg(long, num_args = 0..=1, value_name = "TRACE.json", requires = "subject")]
    profile: Option<Option<PathBuf>>,
    /// Train on the ranks that `mpirun` started
    #[cfg(feature = "mpi")]
    #[cfg_attr(feature = "image", arg(conflicts_with = "load"))]
    #[arg(long, requires = "model", conflicts_with_all = ["mode", "explain", "profile", "scaling"])]
    distributed: bool,
    /// Timed steps with `--distributed`
    #[cfg(feature = "mpi")]
    #[arg(long, default_value_t = 50, requires = "distributed")]
    steps: usize,
    /// Parts of a batch with `--distributed`, a power of two
    #[cfg(feature = "mpi")]
    #[arg(long, default_value_t = 8, requires = "distributed")]
    shards: usize,
    /// Add gradients in the order that MPI prefers; the bits depend on the number of ranks
    #[cfg(feature = "mpi")]
    #[arg(long, requires = "distributed")]
    any_order: bool,
}

/// The options that say what is timed.
const SUBJECTS: &[&str] = if cfg!(feature = "image") { &["model", "op", "load"] } else { &["model", "op"] };

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    /// A model's forward pass, in evaluation
    Infer,
    /// A model's forward pass, cross-entropy, backward pass, and SGD with momentum 0.9 and weight
    /// decay 1e-4
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
        // A pipe that the reader closed, as `head` does, is no error.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("workload: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Fallible<()> {
    convnet::set_num_threads(options.threads)?;
    convnet::manual_seed(0);
    #[cfg(feature = "mpi")]
    if let (Some(name), true) = (&options.model, options.distributed) {
        return distributed::print(name, options);
    }
    #[cfg(feature = "image")]
    if let (Some(pipeline), Some(dir)) = (options.load, &options.data) {
        return loading::serve(dir, pipeline, options);
    }
    let mut step = match (&options.model, &options.op) {
        (name, _) if options.scaling => return scaling::print(name.as_deref().unwrap_or("resnet18")),
        (Some(name), _) => model_step(name, options)?,
        (None, Some(spec)) => op_step(spec, options)?,
        (None, None) => return table::print(),
    };
    time(&mut step, options)
}

/// Runs a step until it is warm, then as the options say.
fn time(step: &mut Step, options: &Options) -> Fallible<()> {
    for _ in 0..3 {
        step()?;
    }
    if options.explain {
        let (ran, explanation) = convnet::explain(&mut *step);
        eprintln!("{explanation}");
        ran?;
    }
    let Some(trace) = &options.profile else { return serve(step) };
    let (served, profile) = convnet::profile(|| serve(step));
    eprintln!("{profile}");
    trace.as_ref().map_or(Ok(()), |path| profile.save_trace(path))?;
    served
}

/// Runs as many steps as each line of standard input asks for.
fn serve(step: &mut Step) -> Fallible<()> {
    let mut out = io::stdout();
    writeln!(out, "ready")?;
    out.flush()?;
    for line in io::stdin().lock().lines() {
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
    let subject = Subject::new(name, options.batch, options.size, options.classes)?;
    match options.mode {
        Mode::Infer => Ok(Box::new(subject.inference())),
        Mode::Train => Ok(Box::new(subject.training()?)),
        Mode::Forward | Mode::Backward => Err("a model has the modes infer and train".into()),
    }
}

fn op_step(spec: &str, options: &Options) -> Fallible<Step> {
    let operation = Operation::parse(spec, options.batch, options.size.unwrap_or(224))?;
    match options.mode {
        Mode::Forward => Ok(Box::new(operation.forward())),
        Mode::Backward => Ok(Box::new(operation.backward()?)),
        Mode::Infer | Mode::Train => Err("an operation has the modes forward and backward".into()),
    }
}

/// What computes: the instruction set and the threads.
fn machine() -> String {
    let threads = convnet::num_threads();
    format!("{}, {threads} thread{}", convnet::instruction_set(), if threads == 1 { "" } else { "s" })
}

/// The median.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The peak resident memory of this process, `VmHWM` in Linux's `/proc/self/status`.
fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}
