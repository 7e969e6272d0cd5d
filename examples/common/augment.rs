//! Augmentation of training pictures, and the preparation of all.

use clap::{Args, ValueEnum};
use convnet::data::{
    AugMix, AutoAugment, AutoAugmentPolicy, CenterCrop, ColorJitter, CutMix, DataLoader, Grayscale, Image, ImageClassification, MixUp,
    Normalize, RandAugment, RandomCrop, RandomErasing, RandomGrayscale, RandomHorizontalFlip, RandomResizedCrop, RandomRotation,
    RandomVerticalFlip, Resize, Rng, TrivialAugmentWide,
};
use convnet::{Error, Result};
use toml::Value;

use super::transforms::{self, NamedTransform};
use super::weights_file;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    Randaugment,
    TrivialAugment,
    AutoaugmentImagenet,
    AutoaugmentCifar10,
    AutoaugmentSvhn,
    Augmix,
}

/// Random changes of training pictures, in the order in which they are applied.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Augmentation")]
pub struct AugmentOptions {
    /// Cut out a rectangle of at least this share of the area and scale it to the input's size
    #[arg(long, value_name = "SHARE")]
    pub random_resized_crop: Option<f64>,
    /// Pad by this many pixels, then crop at random, in place of --random-resized-crop
    #[arg(long, value_name = "PIXELS", conflicts_with = "random_resized_crop")]
    pub crop_padding: Option<usize>,
    /// Probability of a flip from left to right
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub flip: f64,
    /// Probability of a flip from top to bottom
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub vertical_flip: f64,
    /// Largest angle of a rotation, in degrees
    #[arg(long, value_name = "DEGREES", default_value_t = 0.0)]
    pub rotation: f64,
    #[arg(long, action = clap::ArgAction::Set, value_delimiter = ',', value_name = "NAME[=VALUES]", value_parser = transforms::parse, help = transforms::help())]
    pub transform: Vec<NamedTransform>,
    /// Policy of changes of many kinds
    #[arg(long, value_enum)]
    pub policy: Option<Policy>,
    /// Number of changes and magnitude (0 to 30) of --policy randaugment [default: 2,9]
    #[arg(long, action = clap::ArgAction::Set, value_delimiter = ',', value_name = "N,M", requires = "policy")]
    pub randaugment: Vec<usize>,
    /// Largest changes of brightness, contrast, saturation and hue
    #[arg(long, action = clap::ArgAction::Set, value_delimiter = ',', value_name = "B,C,S,H")]
    pub color_jitter: Vec<f64>,
    /// Probability of taking the colours away
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub grayscale: f64,
    /// Probability of erasing a rectangle
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub erasing: f64,
    /// Mix pictures of a batch and their labels, with this α
    #[arg(long, value_name = "ALPHA")]
    pub mixup: Option<f64>,
    /// Put rectangles of other pictures of the batch into pictures, with this α; with --mixup too,
    /// each batch has one of both
    #[arg(long, value_name = "ALPHA")]
    pub cutmix: Option<f64>,
}

/// What a network's input looks like.
#[derive(Clone, Debug)]
pub struct Target {
    pub channels: usize,
    /// The scaling, the crop and the normalisation of pictures with `channels` channels.
    pub preprocessing: ImageClassification,
}

impl Target {
    /// Returns the height and the width.
    pub fn size(&self) -> usize {
        self.preprocessing.shape()[1]
    }

    /// Returns the options that ask for the preparation.
    pub fn options(&self) -> [(String, Value); 5] {
        let list = |values: &[f64]| Value::String(values.iter().map(f64::to_string).collect::<Vec<_>>().join(","));
        let side = |side: usize| Value::Integer(i64::try_from(side).unwrap_or(i64::MAX));
        let preset = &self.preprocessing;
        [
            ("size", side(self.size())),
            ("resize", side(preset.shorter_side())),
            ("filter", Value::String(weights_file::name_of(preset.filter()).to_string())),
            ("mean", list(preset.mean())),
            ("std", list(preset.std())),
        ]
        .map(|(name, value)| (name.to_string(), value))
    }

    /// Appends the preparation without random numbers.
    pub fn add_to(&self, loader: DataLoader) -> DataLoader {
        let loader = loader.transform(channels(self.channels)).transform(self.resize());
        loader.transform(CenterCrop::new([self.size(); 2])).transform(self.normalize())
    }

    fn resize(&self) -> Resize {
        Resize::shorter(self.preprocessing.shorter_side()).interpolation(self.preprocessing.filter())
    }

    fn normalize(&self) -> Normalize {
        Normalize::new(self.preprocessing.mean(), self.preprocessing.std())
    }
}

impl AugmentOptions {
    /// Appends augmentation and preparation.
    pub fn add_to(&self, mut loader: DataLoader, target: &Target, classes: usize) -> Result<DataLoader> {
        let size = [target.size(); 2];
        loader = loader.transform(channels(target.channels));
        loader = match self.random_resized_crop {
            Some(share) => {
                let crop = RandomResizedCrop::new(size).scale([share, 1.0]);
                loader.transform(crop.interpolation(target.preprocessing.filter()))
            }
            None => {
                let loader = loader.transform(target.resize());
                match self.crop_padding.unwrap_or(0) {
                    0 if target.preprocessing.shorter_side() == target.size() => loader.transform(CenterCrop::new(size)),
                    padding => loader.transform(RandomCrop::new(size).padding(padding)),
                }
            }
        };
        if self.flip > 0.0 {
            loader = loader.transform(RandomHorizontalFlip::new(self.flip));
        }
        if self.vertical_flip > 0.0 {
            loader = loader.transform(RandomVerticalFlip::new(self.vertical_flip));
        }
        if self.rotation > 0.0 {
            loader = loader.transform(RandomRotation::new(self.rotation));
        }
        loader = self.transform.iter().fold(loader, |loader, transform| loader.transform(transform.build()));
        if !self.randaugment.is_empty() && self.policy != Some(Policy::Randaugment) {
            return Err(Error::msg("--randaugment is about --policy randaugment, and the policy is another one"));
        }
        loader = match self.policy {
            None => loader,
            Some(Policy::Randaugment) => match self.randaugment[..] {
                [] => loader.transform(RandAugment::new()),
                [count, magnitude] => loader.transform(RandAugment::new().num_ops(count).magnitude(magnitude)),
                _ => return Err(Error::msg("--randaugment wants the number of changes and their magnitude: 2,9")),
            },
            Some(Policy::TrivialAugment) => loader.transform(TrivialAugmentWide::new()),
            Some(Policy::AutoaugmentImagenet) => loader.transform(AutoAugment::new(AutoAugmentPolicy::ImageNet)),
            Some(Policy::AutoaugmentCifar10) => loader.transform(AutoAugment::new(AutoAugmentPolicy::Cifar10)),
            Some(Policy::AutoaugmentSvhn) => loader.transform(AutoAugment::new(AutoAugmentPolicy::Svhn)),
            Some(Policy::Augmix) => loader.transform(AugMix::new()),
        };
        match self.color_jitter[..] {
            [] => {}
            [brightness, contrast, saturation, hue] => {
                let jitter = ColorJitter::new().brightness(brightness).contrast(contrast).saturation(saturation).hue(hue);
                loader = loader.transform(jitter);
            }
            _ => return Err(Error::msg("--color-jitter wants four numbers, of brightness, contrast, saturation and hue: 0.4,0.4,0.4,0.1")),
        }
        if self.grayscale > 0.0 {
            loader = loader.transform(RandomGrayscale::new(self.grayscale));
        }
        loader = loader.transform(target.normalize());
        if self.erasing > 0.0 {
            loader = loader.transform(RandomErasing::new(self.erasing));
        }
        Ok(match (self.mixup, self.cutmix) {
            (Some(alpha), None) => loader.transform_batch(MixUp::new(alpha, classes)),
            (None, Some(alpha)) => loader.transform_batch(CutMix::new(alpha, classes)),
            (Some(mixup), Some(cutmix)) => {
                let (mixup, cutmix) = (MixUp::new(mixup, classes), CutMix::new(cutmix, classes));
                loader.transform_batch(
                    move |batch, rng: &mut Rng| {
                        if rng.chance(0.5) { mixup.apply(batch, rng) } else { cutmix.apply(batch, rng) }
                    },
                )
            }
            (None, None) => loader,
        })
    }
}

/// Makes grey pictures of coloured ones and the other way round.
fn channels(wanted: usize) -> impl Fn(&mut Image, &mut Rng) -> Result<()> {
    move |image, _| {
        let [own, height, width] = image.shape();
        match (own, wanted) {
            (3, 1) => image.apply(&Grayscale).map(|_| ()),
            (1, wanted) if wanted > 1 => {
                let repeat = |values: &[u8]| values.iter().flat_map(|&value| std::iter::repeat_n(value, wanted)).collect();
                *image = Image::from_bytes([wanted, height, width], repeat(image.to_bytes().bytes().unwrap_or_default()))?;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
