//! Shows what a network consists of and what it sees in a picture.
//!
//! ```sh
//! cargo run --release --example inspect_model -- --model resnet18 --weights resnet18-f37072fd.pth --image cat.jpg --path layer3 --out seen
//! ```
//!
//! Prints the layers with shapes and costs, and histograms of weights, activations and gradients.
//! With `--image`, writes to the folder `--out`: the kernels of the first convolution, the feature
//! maps of the layer at `--path`, and Grad-CAM, Grad-CAM++, saliency and integrated gradients of
//! the class over the part of the picture that the network sees.

#[path = "common/program.rs"]
mod program;
#[path = "common/weights_file.rs"]
mod weights_file;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use convnet::data::Image;
use convnet::nn::{Conv2d, Module, ModuleExt};
use convnet::{Tensor, inspect, models, no_grad};
use program::say;

/// Print layers, shapes and histograms of a network; write its kernels, feature maps, and what it
/// sees in a picture.
#[derive(Parser)]
struct Options {
    /// A registered architecture, such as resnet50
    #[arg(long)]
    model: String,
    /// Its weights: a checkpoint of `train`, .pth, .safetensors or .npz [default: new ones]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Number of classes [default: the checkpoint's, or 1000]
    #[arg(long)]
    classes: Option<usize>,
    /// JPEG or PNG file
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Layer or block to look at, such as layer4 [default: the last one with maps]
    #[arg(long)]
    path: Option<String>,
    /// Class to explain [default: the most probable one]
    #[arg(long)]
    class: Option<usize>,
    /// Folder for pictures
    #[arg(long, value_name = "DIR", default_value = "out/inspected")]
    out: PathBuf,
    /// Intervals of the histograms
    #[arg(long, default_value_t = 40)]
    bins: usize,
}

type Fallible<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    program::run(|| run(&Options::parse()))
}

fn run(options: &Options) -> Fallible<()> {
    let weights = options.weights.as_deref().map(weights_file::read).transpose()?;
    let classes = options.classes.or_else(|| Some(weights.as_ref()?.classes.as_ref()?.len())).unwrap_or(1000);
    let model = models::create(&options.model, classes)?;
    if let Some(weights) = &weights {
        weights.load_into(&model)?;
    }
    model.eval();
    let [channels, height, width] = models::info(&options.model)?.input;
    say(model.summary([1, channels, height, width])?);
    print_histograms("weights", &inspect::weight_histograms(&model, options.bins)?);
    let Some(file) = &options.image else { return Ok(()) };

    let picture = Image::open(file)?;
    let preprocessing = weights_file::preprocessing(weights.as_ref(), &options.model)?;
    let mut input = picture.clone();
    input.apply(&preprocessing)?;
    let x = input.to_tensor().unsqueeze(0)?;
    let path = match &options.path {
        Some(path) => path.clone(),
        None => inspect::last_maps(&model, x.shape())?,
    };
    print_histograms("activations", &no_grad(|| inspect::activation_histograms(&model, options.bins, || model.forward(&x)))?);
    let logits = model.forward(&x)?;
    let likeliest = logits.argmax(..)?.item::<i64>()?;
    let class = options.class.unwrap_or(usize::try_from(likeliest)?);
    let gradients = logits.cross_entropy(&Tensor::from_vec(vec![i64::try_from(class)?], [1])?)?.backward()?;
    print_histograms("gradients of the cross-entropy", &inspect::gradient_histograms(&model, &gradients, options.bins)?);
    say(format_args!("class {class}; the most probable one is {likeliest}; maps of {path}"));

    fs::create_dir_all(&options.out).map_err(|error| format!("{}: {error}", options.out.display()))?;
    let save = |name: &str, image: Image| -> Fallible<()> {
        let file = options.out.join(format!("{name}.png"));
        image.save(&file)?;
        say(format_args!("wrote {}", file.display()));
        Ok(())
    };
    let modules = model.named_modules();
    if let Some(conv) = modules.iter().find_map(|(_, module)| module.downcast_ref::<Conv2d>()) {
        save("kernels", inspect::kernels(&conv.weight.tensor())?)?;
    }
    let output = no_grad(|| inspect::features(&model, &path, &x))?;
    if output.ndim() != 4 {
        return Err(format!("the output at {path} is {:?}, not maps; choose another --path", output.shape()).into());
    }
    save("feature_maps", inspect::feature_maps(&output)?)?;
    let seen = preprocessing.view(&picture, 2)?;
    let maps = [
        ("grad_cam", inspect::grad_cam(&model, &path, &x, class)?),
        ("grad_cam_plus_plus", inspect::grad_cam_plus_plus(&model, &path, &x, class)?),
        ("saliency", inspect::saliency(&model, &x, class)?),
        ("integrated_gradients", inspect::heat_of(&inspect::integrated_gradients(&model, &x, class, None, 32)?)?),
    ];
    for (name, heat) in &maps {
        save(name, seen.overlay(heat)?)?;
    }
    Ok(())
}

fn print_histograms(title: &str, all: &[(String, inspect::Histogram)]) {
    say(title);
    let longest = all.iter().map(|(path, _)| path.len()).max().unwrap_or(0);
    for (path, histogram) in all {
        say(format_args!("  {path:longest$} {histogram}"));
    }
    say("");
}
