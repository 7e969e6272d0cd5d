//! Steps that load pictures from a folder, alone or for a model: decoding, augmentation, batches.

use std::fs;
use std::hint::black_box;
use std::path::Path;

use clap::ValueEnum;
use convnet::data::{
    Batch, CenterCrop, ColorJitter, Compose, DataLoader, Dataset, IMAGENET_MEAN, IMAGENET_STD, Image, ImageFolder, Normalize, RandomCrop,
    RandomHorizontalFlip, RandomResizedCrop, Resize, Subset,
};
use convnet::nn::Module;
use convnet::optim::{Optimizer, Sgd};
use convnet::{models, no_grad};

use super::{Fallible, Mode, Options, Step, time};

/// What is done with the pictures of a folder.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Pipeline {
    /// Decoding alone, from memory; a step is one picture
    Decode,
    /// RandomResizedCrop(224), RandomHorizontalFlip, Normalize
    Crop,
    /// The same with ColorJitter(0.4, 0.4, 0.4) before Normalize
    Jitter,
    /// The same with ColorJitter(0.4, 0.4, 0.4, 0.1)
    JitterHue,
    /// Resize(256), CenterCrop(224), Normalize
    Center,
    /// RandomCrop(32, padding 4), RandomHorizontalFlip, Normalize
    Cifar,
}

impl Pipeline {
    fn transforms(self) -> Compose {
        let jitter = ColorJitter::new().brightness(0.4).contrast(0.4).saturation(0.4);
        let cropped = || Compose::new().push(RandomResizedCrop::new(224)).push(RandomHorizontalFlip::new(0.5));
        let steps = match self {
            Pipeline::Decode => return Compose::new(),
            Pipeline::Crop => cropped(),
            Pipeline::Jitter => cropped().push(jitter),
            Pipeline::JitterHue => cropped().push(jitter.hue(0.1)),
            Pipeline::Center => Compose::new().push(Resize::shorter(256)).push(CenterCrop::new(224)),
            Pipeline::Cifar => Compose::new().push(RandomCrop::new(32).padding(4)).push(RandomHorizontalFlip::new(0.5)),
        };
        steps.push(Normalize::new(IMAGENET_MEAN, IMAGENET_STD))
    }
}

/// The samples of an epoch: pictures of a small folder come again and again.
const SAMPLES: usize = 1 << 17;

/// Loads pictures on request. For decoding, first prints the checksum (CRC-32) of all pixels, for
/// the comparison with another decoder.
pub fn serve(dir: &Path, pipeline: Pipeline, options: &Options) -> Fallible<()> {
    let mut step = match (&options.model, options.mode) {
        (None, _) if pipeline == Pipeline::Decode => {
            let (step, checksum) = decoding(dir)?;
            println!("pixels {checksum:08x}");
            step
        }
        (None, _) => batches(dir, pipeline, options, None)?,
        (Some(_), Mode::Forward | Mode::Backward) => return Err("a model has the modes infer and train".into()),
        (Some(name), _) => batches(dir, pipeline, options, Some(name))?,
    };
    time(&mut step, options)
}

/// Makes a step that decodes one picture after the other.
fn decoding(dir: &Path) -> Fallible<(Step, u32)> {
    let files = ImageFolder::new(dir)?.samples().iter().map(|(path, _)| fs::read(path)).collect::<Result<Vec<_>, _>>()?;
    let mut checksum = flate2::Crc::new();
    for file in &files {
        checksum.update(Image::decode(file)?.bytes().unwrap_or_default());
    }
    let mut turn = (0..files.len()).cycle();
    let step = move || turn.next().map_or(Ok(()), |next| Image::decode(&files[next]).map(|image| drop(black_box(image))));
    Ok((Box::new(step), checksum.sum()))
}

/// Makes a step that takes a batch of `dir` from a loader; with a model, the model takes it.
fn batches(dir: &Path, pipeline: Pipeline, options: &Options, model: Option<&str>) -> Fallible<Step> {
    let folder = ImageFolder::new(dir)?;
    let classes = folder.classes().len();
    let count = folder.len();
    let repeated = Subset::new(folder, (0..SAMPLES).map(|index| index % count))?;
    let loader = DataLoader::new(repeated, options.batch).shuffle(0).workers(options.workers).transform(pipeline.transforms());
    let (mut epoch, mut current) = (0, loader.epoch(0));
    let mut next = move || match current.next() {
        Some(batch) => batch,
        None => {
            epoch += 1;
            current = loader.epoch(epoch);
            current.next().expect("an epoch has samples")
        }
    };
    let Some(name) = model else {
        return Ok(Box::new(move || next().map(|batch| drop(black_box(batch)))));
    };
    let model = models::create(name, if pipeline == Pipeline::Cifar { classes } else { 1000 })?;
    if options.mode == Mode::Infer {
        model.eval();
        return Ok(Box::new(move || no_grad(|| model.forward(&next()?.images)).map(drop)));
    }
    model.train();
    let mut optimizer = Sgd::new(model.parameters(), 1e-3).momentum(0.9).weight_decay(1e-4);
    Ok(Box::new(move || {
        let Batch { images, labels } = next()?;
        optimizer.step(&model.forward(&images)?.cross_entropy(&labels)?.backward()?)
    }))
}
