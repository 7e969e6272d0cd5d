//! Writes a registered network as an ONNX file, for ONNX Runtime, OpenVINO and others.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;
use convnet::nn::{Module, StateDict};
use convnet::onnx::Export;
use convnet::{Tensor, models, no_grad};

use crate::program::say;
use crate::weights_file;

#[derive(Args)]
pub struct ExportOptions {
    /// The network's name in the registry; `--example models` lists them.
    model: String,
    /// The file to write.
    out: PathBuf,
    /// Weights: a checkpoint of `train`, .pth, .safetensors or .npz; without them the network is
    /// new.
    #[arg(long)]
    weights: Option<PathBuf>,
    /// The number of classes; without it, the checkpoint's, or that of the paper's data set.
    #[arg(long)]
    classes: Option<usize>,
    /// The names of the classes, a line each, for the file's metadata; without them, the
    /// checkpoint's.
    #[arg(long)]
    labels: Option<PathBuf>,
    /// The version of ONNX's operators.
    #[arg(long, default_value_t = 17)]
    opset: i64,
    /// Folds batch normalisation into convolutions.
    #[arg(long)]
    fold: bool,
    /// Takes images of any height and width, if the network does.
    #[arg(long)]
    any_size: bool,
    /// Puts the weights into a separate file.
    #[arg(long)]
    external: bool,
    /// Also writes the network's outputs for two random batches, to compare another runtime with: a
    /// safetensors file with `input`, `output`, `input_1`, `output_1`.
    #[arg(long)]
    sample: Option<PathBuf>,
}

pub fn export(options: &ExportOptions) -> Result<(), Box<dyn Error>> {
    let info = models::info(&options.model)?;
    let labels = options.labels.as_ref().map(std::fs::read_to_string).transpose()?;
    let weights = options.weights.as_deref().map(weights_file::read).transpose()?;
    let of_checkpoint = || weights.as_ref()?.classes.clone();
    let labels: Option<Vec<String>> = labels.map(|text| text.lines().map(String::from).collect()).or_else(of_checkpoint);
    let classes = options.classes.or(labels.as_ref().map(Vec::len)).unwrap_or(info.classes);
    let model = models::create(&options.model, classes)?;
    let preprocessing = weights_file::preprocessing(weights.as_ref(), &options.model)?;
    let [channels, height, width] = preprocessing.shape();
    match &weights {
        Some(weights) => weights.load_into(&model)?,
        None => settle(&*model, [2, channels, height, width])?,
    }
    model.eval();
    let mut export = Export::new().opset(options.opset).fold(options.fold).dynamic_size(options.any_size).external_data(options.external);
    export = export.preprocessing(&preprocessing).metadata("model", options.model.as_str());
    if let Some(labels) = labels {
        export = export.classes(labels);
    }
    export.write(&model, &[[1, channels, height, width]], &options.out)?;
    say(format_args!("{}: {} parameters, input [batch, {channels}, {height}, {width}]", options.out.display(), model.num_parameters()));
    if let Some(path) = &options.sample {
        sample(&*model, [channels, height, width], options.any_size, path)?;
    }
    Ok(())
}

/// Takes the statistics of a new network's normalisations from random images, so that its
/// activations have the usual range.
fn settle(model: &dyn Module, shape: [usize; 4]) -> convnet::Result<()> {
    model.train();
    no_grad(|| model.forward(&Tensor::randn(shape))).map(|_| ())
}

/// Writes outputs for one image and for a batch of three; of another size if any is allowed.
fn sample(model: &dyn Module, [channels, height, width]: [usize; 3], any_size: bool, path: &Path) -> convnet::Result<()> {
    let mut state = StateDict::new();
    let more = if any_size { 32 } else { 0 };
    for (suffix, shape) in [("", [1, channels, height, width]), ("_1", [3, channels, height + more, width + 2 * more])] {
        let input = Tensor::randn(shape);
        let output = no_grad(|| model.forward(&input))?;
        state.insert(format!("input{suffix}"), input);
        state.insert(format!("output{suffix}"), output);
    }
    state.save(path)
}
