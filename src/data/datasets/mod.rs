//! Datasets: MNIST, Fashion-MNIST, CIFAR, embedded digits, folders of pictures, files of series;
//! parts of datasets.

mod cifar;
#[cfg(feature = "image")]
mod csv;
mod digits;
#[cfg(feature = "download")]
mod download;
#[cfg(feature = "image")]
mod folder;
mod imagenet;
mod in_memory;
#[cfg(feature = "image")]
mod list;
mod mnist;
#[cfg(feature = "parquet")]
mod parquet_footer;
#[cfg(feature = "parquet")]
mod parquet_images;
#[cfg(feature = "parquet")]
mod parquet_pages;
#[cfg(feature = "image")]
mod segmentation;
mod series;
mod split;
mod tensors;

pub use cifar::{Cifar10, Cifar100};
pub use digits::Digits;
#[cfg(feature = "image")]
pub use folder::{ImageFolder, ImageFolderOptions};
pub use imagenet::IMAGENET_CLASSES;
#[cfg(feature = "image")]
pub use list::{ImageList, ImageListOptions};
pub use mnist::{FashionMnist, Mnist};
#[cfg(feature = "parquet")]
pub use parquet_images::{ParquetImages, ParquetImagesOptions};
#[cfg(feature = "image")]
pub use segmentation::SegmentationFolder;
pub use series::SeriesFile;
pub use split::{Concat, PartSize, PartSizes, Subset, k_folds, random_split, stratified_k_folds, stratified_split};
pub use tensors::{Cached, DatasetTensors, Map, TensorDataset};
