//! Downloads of datasets.

use std::path::Path;

use super::cifar::{self, Published};
use super::mnist;
use crate::data::{Cifar10, Cifar100, FashionMnist, Mnist};
use crate::error::{Error, Result};
use crate::io::download::{Checksum, Download};

const MIRRORS_OF_MNIST: [&str; 2] =
    ["https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"];

const MIRRORS_OF_FASHION_MNIST: [&str; 2] = [
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
];

/// Checksums and lengths of the content: the four files exist in several compressions.
const MNIST: [(&str, &str, u64); 4] = [
    ("train-images", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", 47_040_016),
    ("train-labels", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", 60_008),
    ("t10k-images", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", 7_840_016),
    ("t10k-labels", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", 10_008),
];

/// Checksums of the compressed files, of which there is one version.
const FASHION_MNIST: [(&str, &str); 4] = [
    ("train-images", "08dc20ab1689590a0bcd66e874647b6ee8464e2d501b5a3f1f78831db19a3fdc"),
    ("train-labels", "b0197879cbda89f3dc7b894f9fd52b858e68ea4182b6947c9d8c2b67e5f18dcc"),
    ("t10k-images", "78dcbbfb5a27efaf1b6c1d616caca68560be8766c5bffcb2791df9273a534229"),
    ("t10k-labels", "42bd18137a62d5998cdeae52bf3a0676ac6b706f5cf8439b47bb5b151ae3dccf"),
];

/// The largest of the files, Fashion-MNIST's training images, has 26 MB.
const LARGEST: u64 = 64 << 20;

/// The sha256 of the archives, of which there is one version each.
const CIFAR10: &str = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd";
const CIFAR100: &str = "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec";

const MIRRORS_OF_CIFAR: [&str; 1] = ["https://www.cs.toronto.edu/~kriz/"];

/// The largest archive, that of CIFAR-10, has 170 MB.
const LARGEST_OF_CIFAR: u64 = 256 << 20;

impl Mnist {
    /// Fetches the missing ones of the four files into `dir` (12 MB), for [`train`](Self::train)
    /// and [`test`](Self::test) to read.
    ///
    /// # Errors
    /// [`Error::Download`] when no mirror gives the right content, [`Error::Io`] when a file cannot
    /// be written, [`Error::Format`] when `dir` has a file of another content whose name would be
    /// preferred.
    pub fn download(dir: impl AsRef<Path>) -> Result<()> {
        Mnist::download_from(dir, &MIRRORS_OF_MNIST)
    }

    /// Fetches the files as [`download`](Self::download) does, from addresses to which
    /// `train-images-idx3-ubyte.gz` and so on are appended.
    ///
    /// # Errors
    /// [`Error::Download`] when no mirror gives the right content, [`Error::Io`] when a file cannot
    /// be written, [`Error::Format`] when `dir` has a file of another content.
    pub fn download_from(dir: impl AsRef<Path>, mirrors: &[&str]) -> Result<()> {
        MNIST.iter().try_for_each(|&(stem, sha256, length)| {
            fetch("Mnist", dir.as_ref(), "MNIST", stem, mirrors, Checksum::Unpacked { sha256: sha256.into(), length })
        })
    }
}

impl FashionMnist {
    /// Fetches the missing ones of the four files into `dir` (31 MB), for [`train`](Self::train)
    /// and [`test`](Self::test) to read.
    ///
    /// # Errors
    /// [`Error::Download`] when no mirror gives the right content, [`Error::Io`] when a file cannot
    /// be written, [`Error::Format`] when `dir` has a file of another content whose name would be
    /// preferred.
    pub fn download(dir: impl AsRef<Path>) -> Result<()> {
        FashionMnist::download_from(dir, &MIRRORS_OF_FASHION_MNIST)
    }

    /// Fetches the files as [`download`](Self::download) does, from addresses to which
    /// `train-images-idx3-ubyte.gz` and so on are appended.
    ///
    /// # Errors
    /// [`Error::Download`] when no mirror gives the right content, [`Error::Io`] when a file cannot
    /// be written, [`Error::Format`] when `dir` has a file of another content.
    pub fn download_from(dir: impl AsRef<Path>, mirrors: &[&str]) -> Result<()> {
        FASHION_MNIST.iter().try_for_each(|&(stem, sha256)| {
            fetch("FashionMnist", dir.as_ref(), "FashionMNIST", stem, mirrors, Checksum::File { sha256: sha256.into() })
        })
    }
}

fn fetch(name: &str, dir: &Path, folder: &str, stem: &str, mirrors: &[&str], checksum: Checksum) -> Result<()> {
    let kind = if stem.ends_with("images") { "idx3-ubyte" } else { "idx1-ubyte" };
    let file = format!("{stem}-{kind}.gz");
    let target = dir.join(&file);
    if let Ok(found) = mnist::find(name, dir, folder, stem, kind) {
        let Some(problem) = checksum.problem_of(&found)? else { return Ok(()) };
        if found != target {
            return Err(Error::format(
                found,
                format!("not the published file, and in its place: {problem}. Remove it or take another directory"),
            ));
        }
    }
    let urls = mirrors.iter().map(|mirror| format!("{}/{file}", mirror.trim_end_matches('/')));
    Download::new(urls, checksum).size_limit(LARGEST).to(target)
}

impl Cifar10 {
    /// Fetches the archive `cifar-10-binary.tar.gz` (170 MB) into `dir`, for [`train`](Self::train)
    /// and [`test`](Self::test) to read, unless the dataset is there in one of the forms that they
    /// read.
    ///
    /// # Errors
    /// [`Error::Download`] when the server does not give the right content, [`Error::Io`] when the
    /// file cannot be written.
    pub fn download(dir: impl AsRef<Path>) -> Result<()> {
        Cifar10::download_from(dir, &MIRRORS_OF_CIFAR)
    }

    /// Fetches the archive as [`download`](Self::download) does, from addresses to which its name
    /// is appended.
    ///
    /// # Errors
    /// [`Error::Download`] when no mirror gives the right content, [`Error::Io`] when the file
    /// cannot be written.
    pub fn download_from(dir: impl AsRef<Path>, mirrors: &[&str]) -> Result<()> {
        fetch_archive(&cifar::CIFAR10, dir.as_ref(), CIFAR10, mirrors)
    }
}

impl Cifar100 {
    /// Fetches the archive `cifar-100-binary.tar.gz` (169 MB) into `dir`, for
    /// [`train`](Self::train) and [`test`](Self::test) to read, unless the dataset is there in one
    /// of the forms that they read.
    ///
    /// # Errors
    /// [`Error::Download`] when the server does not give the right content, [`Error::Io`] when the
    /// file cannot be written.
    pub fn download(dir: impl AsRef<Path>) -> Result<()> {
        Cifar100::download_from(dir, &MIRRORS_OF_CIFAR)
    }

    /// Fetches the archive as [`download`](Self::download) does, from addresses to which its name
    /// is appended.
    ///
    /// # Errors
    /// [`Error::Download`] when no mirror gives the right content, [`Error::Io`] when the file
    /// cannot be written.
    pub fn download_from(dir: impl AsRef<Path>, mirrors: &[&str]) -> Result<()> {
        fetch_archive(&cifar::CIFAR100, dir.as_ref(), CIFAR100, mirrors)
    }
}

fn fetch_archive(published: &Published, dir: &Path, sha256: &str, mirrors: &[&str]) -> Result<()> {
    if published.is_unpacked(dir) {
        return Ok(());
    }
    let file = published.binary_archive();
    let urls = mirrors.iter().map(|mirror| format!("{}/{file}", mirror.trim_end_matches('/')));
    Download::new(urls, Checksum::File { sha256: sha256.into() }).size_limit(LARGEST_OF_CIFAR).to(dir.join(file))
}
