//! Datasets: MNIST and Fashion-MNIST, embedded digits, folders of pictures.

mod digits;
#[cfg(feature = "download")]
mod download;
#[cfg(feature = "image")]
mod folder;
mod imagenet;
mod in_memory;
mod mnist;

pub use digits::Digits;
#[cfg(feature = "image")]
pub use folder::{ImageFolder, ImageFolderOptions};
pub use imagenet::IMAGENET_CLASSES;
pub use mnist::{FashionMnist, Mnist};
