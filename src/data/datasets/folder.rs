//! Labelled pictures in one folder for each class.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::data::{Dataset, Image, Rng};
use crate::error::{Error, Result};

/// Pictures in one folder for each class (torchvision's `ImageFolder`): `root/cat/0001.jpg`,
/// `root/dog/any/where/below.png`.
///
/// Classes are the folders' names in order; labels are their positions. Samples come class by
/// class, within a class in torchvision's order: by the whole path of the folder, byte by byte
/// (`a-b/3.jpg` before `a/x/2.jpg`, since `-` is less than `/`), then by the file's name. Files
/// with the extensions of JPEG and PNG are samples, with the feature `image-formats` those of BMP,
/// GIF, TIFF and WebP too; they are read when they are asked for, on the loader's threads.
///
/// Names that begin with a dot (`.git`, the `._1.jpg` of macOS) are left out, unlike in
/// torchvision. Links are followed, and each of several links to one folder is; a link to an
/// enclosing folder is not.
///
/// Files that cannot be read end the epoch with an error that names them, or are left out or
/// replaced by the next one: [`DataLoader::on_error`](crate::data::DataLoader::on_error).
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
/// // The files are data/train/cat/rgb.png, data/train/dog/444.jpg and data/train/dog/rgb.jpg.
/// let train = ImageFolder::new("data/train")?;
/// assert!(train.len() == 3 && train.classes() == ["cat", "dog"]);
/// let loader = DataLoader::new(train, 32).shuffle(0).workers(2).transform((Resize::shorter(256), CenterCrop::new([224, 224])));
/// assert!(loader.epoch(0).next().expect("one batch")?.images.shape() == [3, 3, 224, 224]);
///
/// # std::fs::write("data/train/dog/broken.jpg", "not a picture").unwrap();
/// // Later, data/train/dog/broken.jpg has been added, which is no picture.
/// let train = ImageFolder::new("data/train")?;
/// let tolerant = DataLoader::new(train, 32).transform(Resize::new([32, 32])).on_error(convnet::data::OnError::Skip);
/// assert!(tolerant.epoch(0).next().expect("one batch")?.labels.shape() == [3]);
/// assert!(tolerant.failures()[0].to_string().contains("broken.jpg: neither a JPEG nor a PNG file"));
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ImageFolder {
    classes: Vec<String>,
    samples: Vec<(PathBuf, i64)>,
    upright: bool,
}

/// The greatest depth of nested folders.
const DEEPEST: usize = 64;

/// The most times that a folder may be found in a class by different links. Links to folders with
/// links multiply: a few dozen make more paths than can be visited.
const MOST_VISITS: usize = 1000;

/// The extensions of the formats that are read.
const EXTENSIONS: &[&str] =
    if cfg!(feature = "image-formats") { &["jpg", "jpeg", "png", "bmp", "gif", "tif", "tiff", "webp"] } else { &["jpg", "jpeg", "png"] };

/// Names the files that are samples, such as `.jpg, .jpeg or .png file`.
fn pictures() -> String {
    match EXTENSIONS {
        [others @ .., last] => format!(".{} or .{last} file", others.join(", .")),
        [] => "file".to_string(),
    }
}

/// Returns whether a file's extension is that of a format that is read.
pub(super) fn is_picture(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Reads a picture, turned as its orientation tag says when it is to be upright.
pub(super) fn open_picture(path: &Path, upright: bool) -> Result<Image> {
    if upright { Image::open_upright(path) } else { Image::open(path) }
}

impl ImageFolder {
    /// Lists the pictures below a folder, without opening any.
    ///
    /// # Errors
    /// [`Error::Io`] when a folder cannot be read; [`Error::Format`] when there are no classes,
    /// classes have no pictures (all of them are named), a folder's name is not Unicode, folders
    /// are nested too deeply, or links lead to one more than 1000 times.
    pub fn new(root: impl AsRef<Path>) -> Result<ImageFolder> {
        ImageFolder::options().open(root)
    }

    /// Returns settings, to be changed and [opened](ImageFolderOptions::open).
    pub fn options() -> ImageFolderOptions {
        ImageFolderOptions { allow_empty: false, is_valid_file: None, upright: false }
    }

    /// Returns the path and the label of each sample.
    pub fn samples(&self) -> &[(PathBuf, i64)] {
        &self.samples
    }

    /// Returns the height and width of each picture, for a
    /// [`BucketSampler`](crate::data::BucketSampler): the headers of all files are read, but
    /// nothing is decoded.
    ///
    /// ```
    /// use convnet::data::{BucketSampler, DataLoader, ImageFolder};
    ///
    /// # let pictures = std::path::Path::new("tests/fixtures/images").canonicalize().unwrap();
    /// # let folder = tempfile::tempdir().unwrap();
    /// # std::env::set_current_dir(&folder).unwrap();
    /// # std::fs::create_dir_all("data/train/cat").unwrap();
    /// # for picture in ["rgb.png", "rgb.jpg", "tiny.jpg"] {
    /// #     std::fs::copy(pictures.join(picture), format!("data/train/cat/{picture}")).unwrap();
    /// # }
    /// let train = ImageFolder::new("data/train")?; // pictures of several sizes
    /// let sampler = BucketSampler::new(train.sizes()?);
    /// for batch in DataLoader::new(train, 32).sampler(sampler).epoch(0) {
    ///     let images = batch?.images; // all of one size
    /// }
    /// # Ok::<(), convnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Image::size_of`], for the first file that has one.
    pub fn sizes(&self) -> Result<Vec<[usize; 2]>> {
        let size = if self.upright { Image::size_of_upright } else { Image::size_of };
        self.samples.iter().map(|(path, _)| size(path)).collect()
    }

    /// Returns the label of each sample, for samplers and splits.
    pub fn labels(&self) -> Vec<i64> {
        self.samples.iter().map(|&(_, label)| label).collect()
    }
}

/// Settings of an [`ImageFolder`].
///
/// ```
/// use convnet::data::{Dataset, ImageFolder};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(&folder).unwrap();
/// # std::fs::create_dir_all("data/train/cat").unwrap();
/// # std::fs::create_dir_all("data/train/dog").unwrap();
/// # for name in ["cat/1.jpg", "cat/1_mask.jpg"] {
/// #     std::fs::write(format!("data/train/{name}"), "").unwrap();
/// # }
/// let is_photo = |path: &std::path::Path| path.to_str().is_some_and(|path| path.ends_with(".jpg") && !path.ends_with("_mask.jpg"));
/// let train = ImageFolder::options().is_valid_file(is_photo).allow_empty(true).open("data/train")?;
/// assert!(train.len() == 1 && train.classes() == ["cat", "dog"]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct ImageFolderOptions {
    allow_empty: bool,
    is_valid_file: Option<Box<dyn Fn(&Path) -> bool>>,
    upright: bool,
}

impl ImageFolderOptions {
    /// Sets whether classes without pictures are accepted. They keep their labels. Off by default.
    pub fn allow_empty(self, allow_empty: bool) -> ImageFolderOptions {
        ImageFolderOptions { allow_empty, ..self }
    }

    /// Sets which files are samples, in place of those with the extension of a format that is read
    /// (see [`ImageFolder`]); called with each file's path.
    pub fn is_valid_file(self, is_valid_file: impl Fn(&Path) -> bool + 'static) -> ImageFolderOptions {
        ImageFolderOptions { is_valid_file: Some(Box::new(is_valid_file)), ..self }
    }

    /// Sets whether pictures are turned as their orientation tag says; see
    /// [`Image::open_upright`]. Off by default, as in torchvision.
    pub fn upright(self, upright: bool) -> ImageFolderOptions {
        ImageFolderOptions { upright, ..self }
    }

    /// Finds the pictures below a folder.
    ///
    /// # Errors
    /// [`Error::Io`] when a folder cannot be read, [`Error::Format`] when the folders are no
    /// dataset (see [`ImageFolder::new`]).
    pub fn open(&self, root: impl AsRef<Path>) -> Result<ImageFolder> {
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
            return Err(Error::format(root, "no folders of classes here; expected one for each class, with its pictures in it"));
        }
        let (mut samples, mut empty) = (Vec::new(), Vec::new());
        for (label, (name, folder)) in (0i64..).zip(&classes) {
            let before = samples.len();
            let mut traversal = Traversal { inside: vec![canonical(root)?], visits: HashMap::new(), found: Vec::new() };
            traversal.enter(folder)?;
            // Compared as text: as a `Path`, `a/x` would come before `a-b`.
            traversal.found.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
            samples.extend(traversal.found.into_iter().filter(|path| self.takes(path)).map(|path| (path, label)));
            if samples.len() == before {
                empty.push(name.as_str());
            }
        }
        if !empty.is_empty() && !self.allow_empty {
            let wanted = if self.is_valid_file.is_some() { "file that `is_valid_file` accepts".to_string() } else { pictures() };
            let message = format!(
                "no {wanted} for the classes {}; remove their folders, or keep the classes by `allow_empty` of `ImageFolder::options`",
                empty.join(", ")
            );
            return Err(Error::format(root, message));
        }
        Ok(ImageFolder { classes: classes.into_iter().map(|(name, _)| name).collect(), samples, upright: self.upright })
    }

    fn takes(&self, path: &Path) -> bool {
        if let Some(is_valid_file) = &self.is_valid_file {
            return is_valid_file(path);
        }
        is_picture(path)
    }
}

impl fmt::Debug for ImageFolderOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageFolderOptions(allow_empty {}, is_valid_file {})", self.allow_empty, self.is_valid_file.is_some())
    }
}

/// Returns the folder and the name of a file, as bytes.
fn sort_key(path: &Path) -> (Option<&[u8]>, Option<&[u8]>) {
    (path.parent().map(|folder| folder.as_os_str().as_encoded_bytes()), path.file_name().map(|name| name.as_encoded_bytes()))
}

fn canonical(folder: &Path) -> Result<PathBuf> {
    fs::canonicalize(folder).map_err(Error::io(folder))
}

/// Returns the folders and the files in a folder, links followed, without names that begin with a
/// dot.
fn entries(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => folders.push(path),
            Ok(_) => files.push(path),
            // A link to nothing, or to itself.
            Err(_) if path.is_symlink() => {}
            // Removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(path)(error)),
        }
    }
    Ok((folders, files))
}

/// The traversal of a class's folders.
struct Traversal {
    /// The folders from the root to the current one, without links.
    inside: Vec<PathBuf>,
    /// The number of times that each folder has been entered.
    visits: HashMap<PathBuf, usize>,
    found: Vec<PathBuf>,
}

impl Traversal {
    /// Collects the files in a folder and below. Links may form a circle: no folder is entered from
    /// inside itself.
    fn enter(&mut self, folder: &Path) -> Result<()> {
        if self.inside.len() > DEEPEST {
            return Err(Error::format(folder, format!("more than {DEEPEST} folders in each other")));
        }
        let place = canonical(folder)?;
        if self.inside.contains(&place) {
            return Ok(());
        }
        let visits = self.visits.entry(place.clone()).or_default();
        *visits += 1;
        if *visits > MOST_VISITS {
            return Err(Error::format(folder, format!("links lead to this folder more than {MOST_VISITS} times")));
        }
        let (folders, files) = entries(folder)?;
        self.found.extend(files);
        self.inside.push(place);
        folders.iter().try_for_each(|folder| self.enter(folder))?;
        self.inside.pop();
        Ok(())
    }
}

impl Dataset for ImageFolder {
    type Sample = (Image, i64);

    fn len(&self) -> usize {
        self.samples.len()
    }

    fn get(&self, index: usize, _: &mut Rng) -> Result<(Image, i64)> {
        let Some((path, label)) = self.samples.get(index) else {
            return Err(Error::argument("ImageFolder", format!("there is no sample {index}, the dataset has {}", self.samples.len())));
        };
        Ok((open_picture(path, self.upright)?, *label))
    }

    fn classes(&self) -> Vec<String> {
        self.classes.clone()
    }

    fn name(&self, index: usize) -> String {
        self.samples.get(index).map(|(path, _)| path.display().to_string()).unwrap_or_default()
    }
}
