//! Datasets: MNIST, Fashion-MNIST, CIFAR, embedded digits, folders of pictures; parts of datasets.

mod cifar;
mod digits;
#[cfg(feature = "download")]
mod download;
#[cfg(feature = "image")]
mod folder;
mod imagenet;
mod in_memory;
mod mnist;
mod split;
mod tensors;

pub use cifar::{Cifar10, Cifar100};
pub use digits::Digits;
#[cfg(feature = "image")]
pub use folder::{ImageFolder, ImageFolderOptions};
pub use imagenet::IMAGENET_CLASSES;
pub use mnist::{FashionMnist, Mnist};
pub use split::{Concat, PartSize, PartSizes, Subset, k_folds, random_split, stratified_k_folds, stratified_split};
pub use tensors::{Cached, Map, TensorDataset};
