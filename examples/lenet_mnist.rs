//! Trains LeNet-5 on MNIST, or on the digits that come with the crate.
//!
//! ```sh
//! cargo run --release --example lenet_mnist                      # MNIST if it is in data/mnist or data, else the embedded digits
//! cargo run --release --example lenet_mnist -- --data some/dir   # MNIST from there
//! ```

#[path = "common/program.rs"]
mod program;
#[path = "common/weights_file.rs"]
mod weights_file;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use convnet::data::{Batch, DataLoader, Dataset, Digits, Mnist, Normalize, Resize};
use convnet::models::lenet5;
use convnet::nn::{Module, ModuleExt};
use convnet::optim::{LrSchedule, OneCycleLr, Optimizer, Sgd};
use convnet::train::{Metrics, evaluate};
use convnet::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use program::say;

/// Where MNIST is looked for without `--data`.
const PLACES: [&str; 2] = ["data/mnist", "data"];

/// Train LeNet-5 on MNIST, or on the digits that come with the crate.
#[derive(Parser)]
struct Options {
    /// Directory with MNIST's four files, plain or gzip [default: data/mnist or data if they are
    /// there, else the embedded digits]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Passes over the training set [default: 5 for MNIST, 60 for the embedded digits]
    #[arg(long)]
    epochs: Option<u64>,
    /// Pictures in a batch [default: 64 for MNIST, 32 for the embedded digits]
    #[arg(long)]
    batch: Option<usize>,
    /// Highest learning rate of the cycle [default: 0.1 for MNIST, 0.02 for the embedded digits]
    #[arg(long)]
    lr: Option<f64>,
    /// Seed of the weights and of the order of the images
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads that compute; 0 for one on each core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// File to write the trained weights to (safetensors)
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Weights to start from: a checkpoint of `train`, .pth, .safetensors or .npz
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Fetch MNIST into data/mnist (or --data) first
    #[cfg(feature = "download")]
    #[arg(long)]
    download: bool,
}

fn main() -> ExitCode {
    program::run(|| run(&Options::parse()))
}

fn run(options: &Options) -> Result<()> {
    convnet::set_num_threads(options.threads)?;
    convnet::manual_seed(options.seed);
    if let Some(path) = &options.save {
        check_writable(path)?;
    }
    let Data { train, test, batch, epochs, lr } = Data::find(options)?;
    let train = train.shuffle(options.seed);
    let (epochs, lr) = (options.epochs.unwrap_or(epochs), options.lr.unwrap_or(lr));

    let model = lenet5(10);
    say(model.summary([batch, 1, 28, 28])?);
    if let Some(path) = &options.weights {
        weights_file::load(&model, path)?;
        say(format_args!("starting from {}", path.display()));
    }

    let mut optimizer = Sgd::new(model.parameters(), lr).momentum(0.9).weight_decay(5e-4);
    let mut schedule = OneCycleLr::new(lr, epochs.saturating_mul(train.len() as u64).max(1)).attach(&mut optimizer)?;

    say(format_args!("{} images, {} threads, seed {}\n", train.dataset().len(), convnet::num_threads(), options.seed));
    say("epoch      lr   train loss  accuracy   test loss  accuracy   images/s    time");
    let mut tested = None;
    for epoch in 0..epochs {
        let (start, lr) = (Instant::now(), optimizer.learning_rate(0)?);
        let bar = progress_bar(epoch + 1, epochs, train.dataset().len() as u64);
        let mut metrics = Metrics::default();
        for batch in train.epoch(epoch) {
            let Batch { images, labels } = batch?;
            let logits = model.forward(&images)?;
            let loss = logits.cross_entropy(&labels)?;
            metrics.add(&loss, &logits, &labels).map_err(|error| in_epoch(epoch + 1, error))?;
            optimizer.step(&loss.backward()?)?;
            schedule.step(&mut optimizer)?;

            bar.set_position(metrics.samples());
            bar.set_message(format!("loss {:.4}  accuracy {:.4}", metrics.loss(), metrics.accuracy()));
        }
        bar.finish_and_clear();
        let time = start.elapsed();
        let test = evaluate(&model, &test)?;
        say(format_args!(
            "{:>5} {lr:>7.4} {:>12.4} {:>9.4} {:>11.4} {:>9.4} {:>10.0} {:>6.1}s",
            epoch + 1,
            metrics.loss(),
            metrics.accuracy(),
            test.loss(),
            test.accuracy(),
            metrics.samples() as f64 / time.as_secs_f64(),
            time.as_secs_f64()
        ));
        if let Some(path) = &options.save {
            model.save(path)?;
        }
        tested = Some(test);
    }
    let tested = tested.map_or_else(|| evaluate(&model, &test), Ok)?;
    if let Some(path) = &options.save {
        say(format_args!("\nweights saved to {}", path.display()));
    }
    say(format_args!("\ntest accuracy: {:.4}", tested.accuracy()));
    Ok(())
}

/// What to train on, with the default number of epochs, batch size and learning rate.
struct Data {
    train: DataLoader,
    test: DataLoader,
    batch: usize,
    epochs: u64,
    lr: f64,
}

impl Data {
    fn find(options: &Options) -> Result<Data> {
        #[cfg(feature = "download")]
        if options.download {
            Mnist::download(options.data.as_deref().unwrap_or(Path::new(PLACES[0])))?;
        }
        if let Some(dir) = &options.data {
            return Data::mnist(dir, options);
        }
        for dir in PLACES {
            match Data::mnist(Path::new(dir), options) {
                // Without MNIST here, the next place is tried; a damaged file is reported.
                Err(Error::Io { source, .. }) if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                found => return found,
            }
        }
        say(format_args!(
            "No MNIST in {}: training on the 1,438 digits of 8×8 pixels that come with the crate, scaled to 28×28.\n\
             For MNIST, run once with `--features download` before `--example` and `-- --download` at the end, or put its four files\n\
             ({{train,t10k}}-{{images-idx3,labels-idx1}}-ubyte.gz) from https://storage.googleapis.com/cvdf-datasets/mnist/ into {}.\n",
            PLACES.join(" or "),
            PLACES[0]
        ));
        let batch = options.batch.unwrap_or(32);
        let loader = |digits| DataLoader::new(digits, batch).transform(Resize::new([28, 28]));
        let normalize = || Normalize::new([0.3], [0.35]);
        Ok(Data {
            train: loader(Digits::train()).transform(normalize()).workers(1),
            test: loader(Digits::test()).transform(normalize()),
            batch,
            epochs: 60,
            lr: 0.02,
        })
    }

    fn mnist(dir: &Path, options: &Options) -> Result<Data> {
        let loader = |mnist, batch| DataLoader::new(mnist, batch).transform(Normalize::new([0.1307], [0.3081])).workers(1);
        let (train, test) = (Mnist::train(dir)?, Mnist::test(dir)?);
        say(format_args!("MNIST from {}: {} images to train on, {} to test\n", dir.display(), train.len(), test.len()));
        let batch = options.batch.unwrap_or(64);
        Ok(Data { train: loader(train, batch), test: loader(test, 250), batch, epochs: 5, lr: 0.1 })
    }
}

fn progress_bar(epoch: u64, epochs: u64, images: u64) -> ProgressBar {
    let bar = ProgressBar::new(images);
    let style = ProgressStyle::with_template("epoch {prefix} {wide_bar} {pos}/{len}  {msg}  {per_sec} images  {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(format!("{epoch}/{epochs}"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Checks before the training that the weights can be written.
fn check_writable(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fail = |kind, message: &str| Err(Error::Io { path: path.into(), source: std::io::Error::new(kind, message) });
    if path.is_dir() {
        return fail(ErrorKind::IsADirectory, "cannot save here, it is a directory");
    }
    if !parent.is_dir() {
        return fail(ErrorKind::NotFound, "cannot save here, there is no such directory");
    }
    Ok(())
}

fn in_epoch(epoch: u64, error: Error) -> Error {
    match error {
        Error::Training(message) => Error::Training(format!("epoch {epoch}: {message}")),
        other => other,
    }
}
