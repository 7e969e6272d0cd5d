//! MNIST and the datasets in its format.

use std::io;
use std::path::{Path, PathBuf};

use super::in_memory::{DIGIT_CLASSES, InMemory};
use crate::data::Image;
use crate::data::dataset::forward_dataset;
use crate::data::idx::{self, ElementType, Raw};
use crate::error::{Error, Result};

/// MNIST: 60,000 and 10,000 handwritten digits of 28×28 pixels (LeCun, Bottou, Bengio and Haffner,
/// 1998).
///
/// ```
/// use convnet::data::{DataLoader, Mnist, Normalize};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(&folder).unwrap();
/// # std::fs::create_dir_all("data/mnist").unwrap();
/// # let images = [&[0, 0, 8, 3, 0, 0, 0, 64, 0, 0, 0, 28, 0, 0, 0, 28][..], &[0; 64 * 28 * 28]].concat();
/// # std::fs::write("data/mnist/train-images-idx3-ubyte", images).unwrap();
/// # std::fs::write("data/mnist/train-labels-idx1-ubyte", [&[0, 0, 8, 1, 0, 0, 0, 64][..], &[5; 64]].concat()).unwrap();
/// let train = Mnist::train("data/mnist")?;
/// let loader = DataLoader::new(train, 64).shuffle(0).workers(1).transform(Normalize::new([0.1307], [0.3081]));
/// let batch = loader.epoch(0).next().expect("many batches")?;
/// assert!(batch.images.shape() == [64, 1, 28, 28] && batch.labels.shape() == [64]);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone)]
pub struct Mnist(InMemory);

forward_dataset!([] Mnist, (Image, i64), self => self.0);

/// Fashion-MNIST: 60,000 and 10,000 pictures of clothes in MNIST's format (Xiao, Rasul and
/// Vollgraf, 2017).
#[derive(Clone)]
pub struct FashionMnist(InMemory);

forward_dataset!([] FashionMnist, (Image, i64), self => self.0);

impl Mnist {
    /// Reads the training set, from `train-images-idx3-ubyte` and `train-labels-idx1-ubyte` in
    /// `dir`.
    ///
    /// The files may be plain or gzip (`….gz`), may be called `train-images.idx3-ubyte`, and may be
    /// in torchvision's `MNIST/raw` below `dir`.
    ///
    /// # Errors
    /// [`Error::Io`] when a file is missing or cannot be read, [`Error::Format`] when it is
    /// damaged, a label exceeds 9, or there are not as many labels as images.
    pub fn train(dir: impl AsRef<Path>) -> Result<Mnist> {
        read("Mnist", dir.as_ref(), "MNIST", "train", &DIGIT_CLASSES).map(Mnist)
    }

    /// Reads the test set, from `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`; see
    /// [`train`](Self::train).
    ///
    /// # Errors
    /// [`Error::Io`] when a file is missing or cannot be read, [`Error::Format`] when it is
    /// damaged.
    pub fn test(dir: impl AsRef<Path>) -> Result<Mnist> {
        read("Mnist", dir.as_ref(), "MNIST", "t10k", &DIGIT_CLASSES).map(Mnist)
    }

    /// Returns the label of each sample, for samplers and splits.
    pub fn labels(&self) -> Vec<i64> {
        self.0.labels()
    }
}

impl FashionMnist {
    /// Reads the training set; files are named as [`Mnist::train`]'s, in `dir` or in
    /// `FashionMNIST/raw` below it.
    ///
    /// # Errors
    /// [`Error::Io`] when a file is missing or cannot be read, [`Error::Format`] when it is
    /// damaged.
    pub fn train(dir: impl AsRef<Path>) -> Result<FashionMnist> {
        read("FashionMnist", dir.as_ref(), "FashionMNIST", "train", &CLOTHES).map(FashionMnist)
    }

    /// Reads the test set; files are named as [`Mnist::test`]'s, in `dir` or in `FashionMNIST/raw`
    /// below it.
    ///
    /// # Errors
    /// [`Error::Io`] when a file is missing or cannot be read, [`Error::Format`] when it is
    /// damaged.
    pub fn test(dir: impl AsRef<Path>) -> Result<FashionMnist> {
        read("FashionMnist", dir.as_ref(), "FashionMNIST", "t10k", &CLOTHES).map(FashionMnist)
    }

    /// Returns the label of each sample, for samplers and splits.
    pub fn labels(&self) -> Vec<i64> {
        self.0.labels()
    }
}

/// Fashion-MNIST's classes.
const CLOTHES: [&str; 10] = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

fn read(name: &'static str, dir: &Path, folder: &str, part: &str, classes: &'static [&'static str]) -> Result<InMemory> {
    let labels_path = find(name, dir, folder, &format!("{part}-labels"), "idx1-ubyte")?;
    let images_path = find(name, dir, folder, &format!("{part}-images"), "idx3-ubyte")?;
    let labels = read_bytes(&labels_path, 1, "labels")?;
    let images = read_bytes(&images_path, 3, "images")?;

    let &[count, height, width] = &images.shape[..] else { unreachable!("the rank was checked") };
    if labels.data.len() != count {
        let message = format!("{count} images, but {} labels in {}", labels.data.len(), labels_path.display());
        return Err(Error::format(images_path, message));
    }
    if count > 0 && height * width == 0 {
        return Err(Error::format(images_path, format!("its images have no pixels: {height}×{width}")));
    }
    if let Some(index) = labels.data.iter().position(|&label| label > 9) {
        let message = format!("label {} of sample {index} is not in 0..=9", labels.data[index]);
        return Err(Error::format(labels_path, message));
    }
    Ok(InMemory { name, shape: [1, height, width], pixels: images.data, labels: labels.data, white: 255, classes })
}

fn read_bytes(path: &Path, rank: usize, what: &str) -> Result<Raw> {
    let raw = Raw::read(path, idx::DEFAULT_LIMIT)?;
    if raw.element != ElementType::U8 || raw.shape.len() != rank {
        let message = format!(
            "expected {what} as unsigned bytes with {rank} dimensions, the header says {:?} with shape {:?}",
            raw.element, raw.shape
        );
        return Err(Error::format(path, message));
    }
    Ok(raw)
}

/// Returns the first file of these names, plain before compressed. A directory of such a name (some
/// archives unpack that way) is passed over while there is a file.
pub(crate) fn find(name: &str, dir: &Path, folder: &str, stem: &str, kind: &str) -> Result<PathBuf> {
    let below = dir.join(folder).join("raw");
    let candidates: Vec<PathBuf> = [dir, &below]
        .into_iter()
        .flat_map(|dir| ["", ".gz"].into_iter().flat_map(move |end| ["-", "."].map(|dot| dir.join(format!("{stem}{dot}{kind}{end}")))))
        .collect();
    if let Some(path) = candidates.iter().find(|path| path.is_file()).or_else(|| candidates.iter().find(|path| path.exists())) {
        return Ok(path.clone());
    }
    let message = format!(
        "no {stem}-{kind} or {stem}-{kind}.gz here or in {folder}/raw below; `{name}::download` (feature `download`) fetches the dataset"
    );
    Err(Error::io(dir)(io::Error::new(io::ErrorKind::NotFound, message)))
}
