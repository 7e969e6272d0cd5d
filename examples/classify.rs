//! Classifies pictures with a network that was trained elsewhere.
//!
//! ```sh
//! cargo run --release --example classify -- --model resnet18 --weights resnet18-f37072fd.pth cat.jpg dog.png
//! ```
//!
//! The model can be an ONNX file (`--features onnx`, `--model net.onnx`), which has its weights in
//! it and, if `onnx::Export` wrote it with them, the preprocessing and the names of the classes.
//!
//! Weights are a checkpoint of the example `train`, or a `.pth` file of PyTorch, safetensors or
//! `.npz`, with torchvision's or timm's names.
//! Pictures are JPEG or PNG files; each is resized, cropped and normalised as the model's library
//! does it, or as the run did that wrote the checkpoint.

#[path = "common/program.rs"]
mod program;
#[path = "common/weights_file.rs"]
mod weights_file;

use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use convnet::data::{Batch, DataLoader, Dataset, IMAGENET_CLASSES, Image, ImageClassification, Rng};
use convnet::nn::Module;
use convnet::{Tensor, inspect, models, no_grad};
use program::say;

/// Classify pictures; prints the most probable classes first.
#[derive(Parser)]
struct Options {
    /// JPEG or PNG files
    #[arg(required = true)]
    pictures: Vec<PathBuf>,
    /// A registered architecture, such as resnet50, or, with the feature `onnx`, an ONNX file
    #[arg(long)]
    model: String,
    /// Weights of the architecture: a checkpoint of `train`, .pth, .safetensors or .npz
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// How many classes to print for each picture
    #[arg(long, default_value_t = 5)]
    top: usize,
    /// Text file with the name of a class on each line, in the order of labels [default: those in
    /// the checkpoint or the ONNX file, else ImageNet's 1,000]
    #[arg(long, value_name = "FILE", alias = "classes")]
    labels: Option<PathBuf>,
    /// Pictures that go through the network together
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Threads that compute; 0 for one on each core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Write Grad-CAM of each picture's most probable class: a PNG or JPEG file, or a folder for
    /// several pictures, with NAME-cam.png in it for each
    #[arg(long, value_name = "OUT")]
    cam: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

type Fallible<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    program::run(|| run(Options::parse()))
}

fn run(options: Options) -> Fallible<()> {
    convnet::set_num_threads(options.threads)?;
    let Network { model, preprocessing, names, batch: batch_size } = load(&options)?;
    let pictures = Pictures(options.pictures.clone());
    let loader = DataLoader::new(pictures, batch_size.unwrap_or(options.batch)).workers(1).transform(preprocessing.clone());

    let (start, mut in_network) = (Instant::now(), Duration::ZERO);
    let mut found = Vec::with_capacity(options.pictures.len());
    for batch in loader.epoch(0) {
        let Batch { images, .. } = batch?;
        let count = images.shape()[0];
        let start = Instant::now();
        let logits = no_grad(|| model.forward(&filled(images, batch_size)?))?;
        if logits.ndim() != 2 || logits.shape()[1] != names.len() {
            let message =
                format!("{} gives {:?}, not a number for each of {} classes (--labels)", options.model, logits.shape(), names.len());
            return Err(message.into());
        }
        let probabilities = logits.softmax(-1)?;
        in_network += start.elapsed();
        found.extend(most_probable(&probabilities, options.top)?.into_iter().take(count));
    }
    let count = found.len() as f64;
    let (all, in_network) = (start.elapsed().as_secs_f64() / count, in_network.as_secs_f64() / count);
    if let Some(out) = &options.cam {
        write_cams(&options, &*model, &preprocessing, &found, out)?;
    }

    let text = if options.json {
        let pictures = options.pictures.iter().zip(&found).map(|(path, top)| {
            let top: Vec<_> = top
                .iter()
                .map(|&(class, probability)| serde_json::json!({ "class": class, "name": names[class], "probability": probability }))
                .collect();
            serde_json::json!({ "path": path.to_string_lossy(), "top": top })
        });
        let result = serde_json::json!({
            "model": options.model,
            "pictures": pictures.collect::<Vec<_>>(),
            "seconds_per_picture": all,
            "seconds_per_picture_in_network": in_network,
        });
        format!("{result:#}\n")
    } else {
        let tables = options.pictures.iter().zip(&found).map(|(path, top)| {
            let rows = top.iter().map(|&(class, probability)| format!("  {:>7.3} %  {}\n", 100.0 * probability, names[class]));
            format!("{}\n{}", path.display(), rows.collect::<String>())
        });
        let times = format!("{:.1} ms per picture, {:.1} ms of it in the network\n", 1e3 * all, 1e3 * in_network);
        tables.chain([times]).collect::<Vec<_>>().join("\n")
    };
    say(text.trim_end());
    Ok(())
}

/// Writes, for each picture, the part that the network sees with the places that raise the score of
/// its most probable class.
fn write_cams(
    options: &Options,
    model: &dyn Module,
    preprocessing: &ImageClassification,
    found: &[Vec<(usize, f32)>],
    out: &Path,
) -> Fallible<()> {
    if options.pictures.len() > 1 {
        fs::create_dir_all(out).map_err(|error| format!("{}: {error}", out.display()))?;
    }
    let mut written = HashSet::new();
    for (path, top) in options.pictures.iter().zip(found) {
        let picture = Image::open(path)?;
        let mut input = picture.clone();
        input.apply(preprocessing)?;
        let x = input.to_tensor().unsqueeze(0)?;
        let layer = inspect::last_maps(model, x.shape())?;
        let heat = inspect::grad_cam(model, &layer, &x, top.first().map(|&(class, _)| class))?;
        let file = if options.pictures.len() > 1 { out.join(new_name(path, &mut written)) } else { out.to_path_buf() };
        preprocessing.view(&picture, 2)?.overlay(&heat)?.save(file)?;
    }
    Ok(())
}

/// Returns the name of a picture's Grad-CAM, with a number when the name is taken by another
/// picture's: those of `a/cat.jpg` and `b/cat.png` are `cat-cam.png` and `cat-2-cam.png`.
fn new_name(path: &Path, taken: &mut HashSet<String>) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut name = format!("{stem}-cam.png");
    let mut number = 1;
    while !taken.insert(name.clone()) {
        number += 1;
        name = format!("{stem}-{number}-cam.png");
    }
    name
}

fn read_names(path: &Path) -> Fallible<Vec<String>> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let names: Vec<String> = text.lines().map(|line| line.trim().to_string()).filter(|line| !line.is_empty()).collect();
    if names.is_empty() {
        return Err(format!("{}: no names of classes in it", path.display()).into());
    }
    Ok(names)
}

/// A network, with what its pictures and its results mean.
struct Network {
    model: Box<dyn Module>,
    preprocessing: ImageClassification,
    names: Vec<String>,
    /// The only size of batches that an ONNX file takes, if it was written for one.
    batch: Option<usize>,
}

/// Repeats the last image until the batch has this size.
fn filled(images: Tensor, size: Option<usize>) -> convnet::Result<Tensor> {
    let count = images.shape()[0];
    match size.filter(|&size| size > count) {
        Some(size) => {
            let last = images.narrow(0, count - 1, 1)?;
            Tensor::cat(&std::iter::once(&images).chain(std::iter::repeat_n(&last, size - count)).collect::<Vec<_>>(), 0)
        }
        None => Ok(images),
    }
}

fn load(options: &Options) -> Fallible<Network> {
    let names = options.labels.as_deref().map(read_names).transpose()?;
    let imagenet = || IMAGENET_CLASSES.map(String::from).to_vec();
    #[cfg(feature = "onnx")]
    if options.model.ends_with(".onnx") {
        if options.weights.is_some() {
            return Err("an ONNX file has its weights in it: leave --weights out".into());
        }
        let network = convnet::onnx::import(&options.model)?;
        // Without preprocessing in the file, that of most networks for ImageNet, in the size of the
        // input.
        let shape = network.inputs().next().and_then(|input| input.shape.clone()).unwrap_or_default();
        let side = shape.get(2).copied().flatten().unwrap_or(224);
        let usual = || ImageClassification::new(side).resize((side * 256).div_ceil(224));
        return Ok(Network {
            preprocessing: network.preprocessing().unwrap_or_else(usual),
            names: names.or_else(|| network.classes()).unwrap_or_else(imagenet),
            batch: shape.first().copied().flatten().filter(|&batch| batch > 0),
            model: Box::new(network),
        });
    }
    let path = options.weights.as_ref().ok_or("--weights is missing: the file with the weights of the model")?;
    let weights = weights_file::read(path)?;
    let names = names.or_else(|| weights.classes.clone()).unwrap_or_else(imagenet);
    let model = models::create(&options.model, names.len())?;
    weights.load_into(&model).map_err(|error| {
        let hint = if options.labels.is_none() { "\n(weights for other classes than ImageNet's need --labels)" } else { "" };
        format!("{error}{hint}")
    })?;
    model.eval();
    Ok(Network { model, preprocessing: weights_file::preprocessing(Some(&weights), &options.model)?, names, batch: None })
}

/// For each row of `[N, classes]`, the classes of the largest values, largest first.
fn most_probable(probabilities: &Tensor, top: usize) -> convnet::Result<Vec<Vec<(usize, f32)>>> {
    let classes = probabilities.shape()[1];
    let sorted = |row: &[f32]| {
        let mut row: Vec<(usize, f32)> = row.iter().copied().enumerate().collect();
        row.sort_by(|a, b| b.1.total_cmp(&a.1));
        row.truncate(top);
        row
    };
    Ok(probabilities.to_vec::<f32>()?.chunks_exact(classes).map(sorted).collect())
}

/// Files as a dataset, so that the loader reads and prepares the next batch while the network works
/// on this one.
struct Pictures(Vec<PathBuf>);

impl Dataset for Pictures {
    type Sample = (Image, i64);

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, index: usize, _: &mut Rng) -> convnet::Result<(Image, i64)> {
        Ok((Image::open(&self.0[index])?, 0))
    }
}
