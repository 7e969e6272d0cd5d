//! Pictures and masks in two folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::folder::is_picture;
use crate::data::{Dataset, Image, Mask, Rng};
use crate::error::{Error, Result};

/// Pictures and their masks, with a class for each pixel, in two folders: `images/a.jpg` has the
/// mask `masks/a.png`.
///
/// A picture and its mask have one name apart from the extension. Masks are PNG files whose gray
/// samples or palette's indices are the classes: see [`Mask::open`]. Class 255 stands for pixels
/// that do not count. Files are read when samples are asked for; they come in the order of their
/// names. Names that begin with a dot are left out.
///
/// ```
/// use convnet::data::{Batch, CenterCrop, DataLoader, SegmentationFolder};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(&folder).unwrap();
/// # std::fs::create_dir_all("data/images").unwrap();
/// # std::fs::create_dir_all("data/masks").unwrap();
/// # convnet::data::Image::new(3, 20, 30)?.save("data/images/street.png")?;
/// # convnet::data::Image::new(1, 20, 30)?.save("data/masks/street.png")?;
/// let streets = SegmentationFolder::new("data")?.with_classes(["road", "car", "sky"]);
/// let loader = DataLoader::new(streets, 8).transform(CenterCrop::new([16, 16]));
/// let Batch { images, labels } = loader.epoch(0).next().expect("one batch")?;
/// assert!(images.shape() == [1, 3, 16, 16] && labels.shape() == [1, 16, 16]);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SegmentationFolder {
    /// Pictures and masks.
    samples: Vec<[PathBuf; 2]>,
    classes: Vec<String>,
}

impl SegmentationFolder {
    /// Lists the files of `images` and `masks` in a folder, without opening any.
    ///
    /// # Errors
    /// [`Error::Io`] when a folder cannot be read; [`Error::Format`] when there are no pictures,
    /// pictures have no mask or masks no picture (they are named), or two pictures share a name.
    pub fn new(root: impl AsRef<Path>) -> Result<SegmentationFolder> {
        let root = root.as_ref();
        SegmentationFolder::from_folders(root.join("images"), root.join("masks"))
    }

    /// Lists the files of two folders of any name, as [`new`](SegmentationFolder::new) does.
    ///
    /// # Errors
    /// See [`new`](SegmentationFolder::new).
    pub fn from_folders(images: impl AsRef<Path>, masks: impl AsRef<Path>) -> Result<SegmentationFolder> {
        let (images, masks) = (images.as_ref(), masks.as_ref());
        let pictures = by_stem(images, is_picture)?;
        let mut masks_by_stem = by_stem(masks, |path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")))?;
        if pictures.is_empty() {
            return Err(Error::format(
                images,
                "no pictures here; expected them with a PNG file of the same name each in the folder of masks",
            ));
        }
        let (mut samples, mut without) = (Vec::with_capacity(pictures.len()), Vec::new());
        for (stem, picture) in pictures {
            match masks_by_stem.remove(&stem) {
                Some(mask) => samples.push([picture, mask]),
                None => without.push(picture),
            }
        }
        if !without.is_empty() {
            return Err(Error::format(masks, format!("no mask (a PNG file of the same name) for {}", listed(&without))));
        }
        if !masks_by_stem.is_empty() {
            let others: Vec<PathBuf> = masks_by_stem.into_values().collect();
            return Err(Error::format(images, format!("no picture of the same name for {}", listed(&others))));
        }
        Ok(SegmentationFolder { samples, classes: Vec::new() })
    }

    /// Sets the classes' names, class by class. A mask with another class, except 255, is then an
    /// error.
    pub fn with_classes<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> SegmentationFolder {
        self.classes = names.into_iter().map(Into::into).collect();
        self
    }

    /// Returns the paths of the picture and the mask of each sample.
    pub fn samples(&self) -> &[[PathBuf; 2]] {
        &self.samples
    }

    fn check(&self, image: &Image, mask: &Mask) -> std::result::Result<(), String> {
        if mask.size() != image.size() {
            let [[height, width], [mask_height, mask_width]] = [image.size(), mask.size()];
            return Err(format!("the mask has {mask_width}×{mask_height} pixels, its picture {width}×{height}"));
        }
        let count = self.classes.len();
        let unknown = |&class: &u8| count > 0 && usize::from(class) >= count && class != Mask::IGNORE;
        match mask.classes().iter().copied().find(unknown) {
            Some(class) => Err(format!("class {class} is not in 0..={} (or {}, for pixels that do not count)", count - 1, Mask::IGNORE)),
            None => Ok(()),
        }
    }
}

fn listed(paths: &[PathBuf]) -> String {
    let mut list: Vec<String> = paths.iter().take(3).map(|path| path.display().to_string()).collect();
    if paths.len() > 3 {
        list.push(format!("… ({} in all)", paths.len()));
    }
    list.join(", ")
}

/// Returns the chosen files of a folder by their names without extensions.
fn by_stem(folder: &Path, chosen: impl Fn(&Path) -> bool) -> Result<BTreeMap<Vec<u8>, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let Some(stem) = path.file_stem().map(|stem| stem.as_encoded_bytes().to_vec()) else { continue };
        if stem.starts_with(b".") || !chosen(&path) || !path.is_file() {
            continue;
        }
        if let Some(other) = found.insert(stem, path.clone()) {
            let message = format!("has the name of {}, apart from the extension; rename or remove one", other.display());
            return Err(Error::format(path, message));
        }
    }
    Ok(found)
}

impl Dataset for SegmentationFolder {
    type Sample = (Image, Mask);

    fn len(&self) -> usize {
        self.samples.len()
    }

    fn get(&self, index: usize, _: &mut Rng) -> Result<(Image, Mask)> {
        let Some([picture, mask_path]) = self.samples.get(index) else {
            let message = format!("there is no sample {index}, the dataset has {}", self.samples.len());
            return Err(Error::argument("SegmentationFolder", message));
        };
        let (image, mask) = (Image::open(picture)?, Mask::open(mask_path)?);
        self.check(&image, &mask).map_err(|message| Error::format(mask_path, message))?;
        Ok((image, mask))
    }

    fn classes(&self) -> Vec<String> {
        self.classes.clone()
    }

    fn name(&self, index: usize) -> String {
        self.samples.get(index).map(|[picture, _]| picture.display().to_string()).unwrap_or_default()
    }
}
