//! Datasets, transforms, and the loader that turns them into batches.
//!
//! A [`Dataset`] is a table of samples, such as labelled images. A [`DataLoader`] makes batches of
//! them, shuffled anew each epoch, on its own threads while the network trains on the others;
//! [transforms](Transform) change each image on the way. All randomness flows from the loader's
//! seed: datasets and transforms draw from a generator derived from (seed, epoch, index), and so do
//! `Tensor::randn` and its like inside of them, so that the same seed gives the same bits whatever
//! the number of threads.
//!
//! ```
//! use convnet::data::{Batch, DataLoader, Dataset, Digits, Normalize};
//!
//! let train = Digits::train();
//! assert_eq!(train.len(), 1438);
//! let loader = DataLoader::new(train, 64).shuffle(0).workers(1).transform(Normalize::new([0.3], [0.4]));
//! for batch in loader.epoch(0) {
//!     let Batch { images, labels } = batch?; // [B, C, H, W] f32, [B] i64
//!     assert!(images.shape()[1..] == [1, 8, 8] && labels.shape() == &images.shape()[..1]);
//! }
//! # Ok::<(), convnet::Error>(())
//! ```

mod annotations;
mod collate;
mod dataset;
mod datasets;
#[cfg(feature = "image")]
mod decode;
mod drawing;
mod encode;
#[cfg(feature = "image-formats")]
mod formats;
pub mod idx;
mod image;
#[cfg(feature = "image")]
mod jpeg;
mod loader;
mod mixing;
#[cfg(feature = "image")]
mod orientation;
#[cfg(feature = "image")]
mod pixels;
#[cfg(feature = "image")]
mod png;
pub(crate) mod rng;
pub(crate) mod samplers;
mod transforms;

pub use annotations::{Boxes, KeyPoints, Mask, Part};
pub use collate::{Batch, Collate, Sequence, Sequences};
pub use dataset::Dataset;
pub use datasets::{
    Cached, Cifar10, Cifar100, Concat, DatasetTensors, Digits, FashionMnist, IMAGENET_CLASSES, Map, Mnist, PartSize, PartSizes, SeriesFile,
    Subset, TensorDataset, k_folds, random_split, stratified_k_folds, stratified_split,
};
#[cfg(feature = "image")]
pub use datasets::{ImageFolder, ImageFolderOptions, ImageList, ImageListOptions, SegmentationFolder};
#[cfg(feature = "parquet")]
pub use datasets::{ParquetImages, ParquetImagesOptions};
pub use drawing::ColorMap;
pub use image::Image;
pub use loader::{DataLoader, Epoch, OnError};
pub use mixing::{BatchTransform, CutMix, MixUp};
#[cfg(feature = "image")]
pub use pixels::{max_pixels, set_max_pixels};
pub use rng::Rng;
pub use samplers::{
    Batches, BucketSampler, DistributedSampler, RandomSampler, Sampler, SequentialSampler, StratifiedSampler, WeightedSampler,
};
pub use transforms::{
    Affine, AugMix, AutoAugment, AutoAugmentPolicy, Autocontrast, Blur, Brightness, CenterCrop, ColorJitter, Compose, Contrast, Crop,
    Degrees, Deterministic, Elastic, ElasticTransform, Equalize, Erase, Fill, GaussianBlur, Geometric, Geometry, Grayscale, HorizontalFlip,
    Hue, IMAGENET_MEAN, IMAGENET_STD, ImageClassification, Invert, Normalize, Pad, Padding, PaddingMode, Perspective, Posterize,
    RandAugment, RandomAdjustSharpness, RandomAffine, RandomApply, RandomAutocontrast, RandomChoice, RandomCrop, RandomEqualize,
    RandomErasing, RandomGrayscale, RandomHorizontalFlip, RandomInvert, RandomOrder, RandomPerspective, RandomPosterize, RandomResizedCrop,
    RandomRotation, RandomSolarize, RandomVerticalFlip, Resize, ResizeFilter, ResizedCrop, Rotate, Saturation, Sharpness, Solarize, Spread,
    Transform, TrivialAugmentWide, VerticalFlip, apply_geometry, five_crop, ten_crop,
};

#[cfg(feature = "download")]
pub use crate::io::download::{Checksum, Download};
