//! Fine-tuning: a registered model gets a new head for the classes of a dataset, and the parts that
//! are not frozen are trained, each with a learning rate.
//!
//! ```sh
//! cargo run --release --example finetune     # a random body, a head for the embedded digits: shows the program, downloads nothing
//! cargo run --release --example finetune -- --model resnet50 --weights resnet50-0676ba61.pth --dataset folder --data flowers --flip 0.5
//! cargo run --release --features download --example finetune -- --model resnet18 --published --dataset folder --data flowers \
//!     --freeze conv1,bn1,layer1 --rates layer2=0.03,layer3=0.1,layer4=0.3 --lr 0.001 --save flowers.safetensors
//! ```
//!
//! Frozen parts keep their weights and the statistics of their normalisations. Even features of
//! random weights separate most digits.

#[path = "common/mod.rs"]
mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Parser};
use common::augment::AugmentOptions;
use common::data::{DataOptions, Source};
use common::loss::step_of;
use common::optimizer::OptimizerOptions;
use common::program::say;
use common::{config, weights_file};
use convnet::data::Dataset as _;
use convnet::nn::{Module, ModuleExt};
use convnet::ops::CrossEntropyOptions;
use convnet::optim::CosineAnnealingLr;
use convnet::train::{Every, Trainer};
use convnet::{Error, Result, models};

/// Options that differ from those of `train`.
const DEFAULTS: [&str; 2] = ["--optimizer=adam", "--lr=0.003"];

/// Fine-tune a registered model. Without other options: Adam with a rate of 0.003, on some of the
/// digits that come with the crate.
#[derive(Parser, Debug)]
struct Options {
    /// A registered architecture
    #[arg(long, default_value = "resnet18")]
    model: String,
    /// Weights to start from, with any head: .pth, .safetensors, .npz or a checkpoint
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Start from the weights that torchvision publishes, trained on ImageNet
    #[cfg(feature = "download")]
    #[arg(
        long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false
    )]
    published: bool,
    /// Number of classes of the weights
    #[arg(long, default_value_t = 1000)]
    classes: usize,
    /// Parts that are not trained, or `none` [default: all but the new head]
    #[arg(long, action = ArgAction::Set, value_delimiter = ',', value_name = "PREFIX")]
    freeze: Vec<String>,
    /// TOML file with options; those of the command line win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// File for the tuned weights (safetensors)
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Passes over the training pictures
    #[arg(long, default_value_t = 3)]
    epochs: u64,
    /// Threads that compute; 0 for one on each core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    #[command(flatten)]
    data: DataOptions,
    #[command(flatten)]
    augment: AugmentOptions,
    #[command(flatten)]
    optimizer: OptimizerOptions,
}

fn main() -> ExitCode {
    let (mut options, _) = config::parse_with::<Options>(&DEFAULTS);
    if options.data.dataset == Source::Digits {
        options.data.size.get_or_insert(32);
        options.data.limit.get_or_insert(640);
    }
    common::run(|| finetune(&options))
}

fn finetune(options: &Options) -> Result<()> {
    convnet::set_num_threads(options.threads)?;
    convnet::manual_seed(options.data.seed);
    let path = weights(options)?;
    let weights = path.as_deref().map(weights_file::read).transpose()?;
    let splits = options.data.open()?;
    // The body knows pictures that were prepared as for its weights.
    let target = options.data.target(&options.model, weights.as_ref())?;
    let (train, valid) = options.data.loaders(&splits, &target, &options.augment)?;
    let mut model = models::create(&options.model, options.classes)?;
    if let (Some(weights), Some(path)) = (&weights, &path) {
        weights.load_into(&model)?;
        say(format_args!("starting from {}", path.display()));
    }
    models::replace_head(&mut model, splits.classes.len())?;
    freeze(&model, &options.freeze)?;
    // The normalisations of frozen parts keep their running statistics in `fit`.
    model.eval();
    let trained: usize = model.parameters().iter().filter(|parameter| !parameter.is_frozen()).map(|parameter| parameter.numel()).sum();
    say(format_args!("{}: {trained} of {} parameters are trained", options.model, model.num_parameters()));

    let steps = options.epochs * train.len() as u64;
    let report = Trainer::new(&model, options.optimizer.build(&model)?)
        .schedule(CosineAnnealingLr::new(0.0).steps(steps.max(1)), Every::Step)
        .epochs(options.epochs)
        .seed(options.data.seed)
        .fit(&train, &valid, |model, batch| Ok(step_of(model.as_module(), batch, &CrossEntropyOptions::default())?.0))?;

    // What was saved loads into a model with the same head.
    let path = options.save.clone().unwrap_or_else(|| std::env::temp_dir().join(format!("finetuned-{}.safetensors", std::process::id())));
    model.save(&path)?;
    let restored = models::create(&options.model, splits.classes.len())?;
    restored.load(&path)?;
    say(format_args!("saved and loaded: {}", model.difference(&restored)?));
    if options.save.is_none() {
        std::fs::remove_file(&path).map_err(|source| Error::Io { path, source })?;
    } else if weights_file::note_of(&target.preprocessing) != weights_file::note_of(&models::preprocessing(&options.model)?) {
        let same: Vec<String> = target.options().iter().map(|(name, value)| format!("--{name}={}", config::text_of(value))).collect();
        say(format_args!("`evaluate` has to prepare pictures in the same way: {}", same.join(" ")));
    }
    let last = report.last().and_then(|metrics| metrics.get("valid/accuracy"));
    say(format_args!("accuracy: {:.4} on {} pictures", last.copied().unwrap_or(f64::NAN), splits.valid.len()));
    Ok(())
}

fn weights(options: &Options) -> Result<Option<PathBuf>> {
    #[cfg(feature = "download")]
    if options.published && options.weights.is_some() {
        return Err(Error::msg("--published and --weights: the run can start from one of them only"));
    }
    #[cfg(feature = "download")]
    if options.published {
        let published = models::published(&options.model)?;
        return convnet::weights::download(published.url, published.sha256).map(Some);
    }
    Ok(options.weights.clone())
}

/// Freezes the parts below prefixes; without any, all but the head, which has the last parameters.
fn freeze(model: &dyn Module, prefixes: &[String]) -> Result<()> {
    match prefixes {
        [] => {
            let parameters = model.named_parameters();
            let head = parameters.last().and_then(|(name, _)| name.rsplit_once('.')).map_or("", |(head, _)| head);
            model.freeze("")?;
            model.unfreeze(head).map(|_| ())
        }
        [none] if none == "none" => Ok(()),
        prefixes => prefixes.iter().try_for_each(|prefix| model.freeze(prefix).map(|_| ())),
    }
}
