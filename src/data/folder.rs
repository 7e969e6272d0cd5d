//! Labelled pictures in folders.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Dataset, Image};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Pictures in one folder for each class (torchvision's `ImageFolder`): `root/cat/0001.jpg`, `root/dog/any/where/below.png`.
///
/// Classes are the folders' names in order, labels count them. Samples come class by class, each in the order of folders and names. JPEG and
/// PNG files are taken, by their extension; they are read when they are asked for, on the loader's threads.
///
/// ```
/// use convnet::data::{CenterCrop, DataLoader, Dataset, ImageFolder, Resize};
///
/// # let pictures = std::path::Path::new("tests/fixtures/images").canonicalize().unwrap();
/// # let folder = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(&folder).unwrap();
/// # for (class, picture) in [("cat", "rgb.png"), ("dog", "rgb.jpg"), ("dog", "444.jpg")] {
/// #     std::fs::create_dir_all(format!("data/train/{class}")).unwrap();
/// #     std::fs::copy(pictures.join(picture), format!("data/train/{class}/{picture}")).unwrap();
/// # }
/// let train = ImageFolder::new("data/train")?; // data/train/cat/rgb.png, data/train/dog/444.jpg, data/train/dog/rgb.jpg
/// assert!(train.len() == 3 && train.classes() == ["cat", "dog"]);
/// let loader = DataLoader::new(train, 32).shuffle(0).workers(2).transform((Resize::shorter(256), CenterCrop::new([224, 224])));
/// assert!(loader.epoch(0).next().expect("one batch")?.images.shape() == [3, 3, 224, 224]);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ImageFolder {
    classes: Vec<String>,
    samples: Vec<(PathBuf, i64)>,
}

/// How deep folders may lie in each other.
const DEEPEST: usize = 64;

impl ImageFolder {
    /// The pictures below a folder, of which none is opened yet.
    ///
    /// # Errors
    /// [`Error::Io`] when a folder cannot be read; [`Error::Format`] when there are no classes, a class has no pictures, a folder's name is
    /// not Unicode, or folders lie too deep.
    pub fn new(root: impl AsRef<Path>) -> Result<ImageFolder> {
        let root = root.as_ref();
        let (folders, _) = entries(root)?;
        let mut classes = Vec::with_capacity(folders.len());
        for folder in folders {
            let name = folder.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| Error::format(&folder, "the name of a class has to be Unicode"))?.to_string();
            classes.push((name, folder));
        }
        classes.sort();
        if classes.is_empty() {
            return Err(Error::format(root, "no folders of classes here"));
        }
        let mut samples = Vec::new();
        for (label, (_, folder)) in (0i64..).zip(&classes) {
            let before = samples.len();
            let mut below = Vec::new();
            collect(folder, 0, &mut HashSet::new(), &mut below)?;
            // By folder, then by name.
            below.sort_by(|a, b| (a.parent(), a.file_name()).cmp(&(b.parent(), b.file_name())));
            samples.extend(below.into_iter().map(|path| (path, label)));
            if samples.len() == before {
                return Err(Error::format(folder, "a class without pictures: no .jpg, .jpeg or .png file here or below"));
            }
        }
        Ok(ImageFolder { classes: classes.into_iter().map(|(name, _)| name).collect(), samples })
    }

    /// The path and the label of each sample.
    pub fn samples(&self) -> &[(PathBuf, i64)] {
        &self.samples
    }
}

/// The folders and the files in a folder, links followed.
fn entries(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => folders.push(path),
            Ok(_) => files.push(path),
            // A link that leads nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(path)(error)),
        }
    }
    Ok((folders, files))
}

/// The pictures in a folder and below. Links may lead in a circle: no folder is entered twice.
fn collect(folder: &Path, depth: usize, seen: &mut HashSet<PathBuf>, found: &mut Vec<PathBuf>) -> Result<()> {
    if depth > DEEPEST {
        return Err(Error::format(folder, format!("more than {DEEPEST} folders in each other")));
    }
    if !seen.insert(fs::canonicalize(folder).map_err(Error::io(folder))?) {
        return Ok(());
    }
    let (folders, files) = entries(folder)?;
    let is_picture = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        ["jpg", "jpeg", "png"].iter().any(|known| extension.eq_ignore_ascii_case(known))
    };
    found.extend(files.into_iter().filter(is_picture));
    folders.iter().try_for_each(|folder| collect(folder, depth + 1, seen, found))
}

impl Dataset for ImageFolder {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn get(&self, index: usize) -> Result<(Tensor, i64)> {
        let mut image = Image::default();
        let label = self.load(index, &mut image)?;
        Ok((image.try_to_tensor()?, label))
    }

    fn load(&self, index: usize, image: &mut Image) -> Result<i64> {
        let Some((path, label)) = self.samples.get(index) else {
            return Err(Error::argument("ImageFolder", format!("there is no sample {index}, the dataset has {}", self.samples.len())));
        };
        image.read(path)?;
        Ok(*label)
    }

    fn classes(&self) -> Vec<String> {
        self.classes.clone()
    }
}
