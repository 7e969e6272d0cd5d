//! CIFAR-10 and CIFAR-100.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::in_memory::InMemory;
use crate::data::Image;
use crate::data::dataset::forward_dataset;
use crate::error::{Error, Result, clipped};
use crate::io::gzip::GzipReader;
use crate::io::read_file;
use crate::io::tar::Tar;
use crate::weights::pickle::{Plain, read_dict};

/// CIFAR-10: 50,000 and 10,000 colour pictures of 32×32 pixels in 10 classes (Krizhevsky, 2009).
///
/// Both distributions are read, the binary one and the one of Python pickles, from the archive
/// (`.tar.gz`) or from the folder that it unpacks to. Pickles go through the restricted reader of
/// [`weights`](crate::weights): nothing in them is run.
///
/// ```
/// use convnet::data::{Cifar10, DataLoader, Normalize, random_split};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(&folder).unwrap();
/// # std::fs::create_dir_all("data/cifar10/cifar-10-batches-bin").unwrap();
/// # for i in 1..6 {
/// #     std::fs::write(format!("data/cifar10/cifar-10-batches-bin/data_batch_{i}.bin"), [3; 20 * 3073]).unwrap();
/// # }
/// let (train, valid) = random_split(Cifar10::train("data/cifar10")?, [0.9, 0.1], 0)?;
/// let train = DataLoader::new(train, 30).shuffle(0).workers(1).transform(Normalize::new([0.491, 0.482, 0.447], [0.247, 0.243, 0.262]));
/// let batch = train.epoch(0).next().expect("many batches")?;
/// assert!(batch.images.shape() == [30, 3, 32, 32] && batch.labels.shape() == [30]);
/// # assert!(convnet::data::Dataset::len(&valid) == 10);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone)]
pub struct Cifar10(InMemory);

forward_dataset!([] Cifar10, (Image, i64), self => self.0);

/// CIFAR-100: 50,000 and 10,000 colour pictures of 32×32 pixels in 100 classes, which form 20
/// groups (Krizhevsky, 2009). Files are those of [`Cifar10`].
#[derive(Clone)]
pub struct Cifar100 {
    table: InMemory,
    /// The labels of groups while those of classes are in use, and the reverse.
    others: Labels,
}

forward_dataset!([] Cifar100, (Image, i64), self => self.table);

impl Cifar10 {
    /// Reads the training set.
    ///
    /// `path` is an archive, the folder of the batches (`cifar-10-batches-bin` or
    /// `cifar-10-batches-py`), or a folder in which one of these is.
    ///
    /// # Errors
    /// [`Error::Io`] when a file is missing or cannot be read, [`Error::Format`] when it is
    /// damaged, or a label exceeds 9.
    pub fn train(path: impl AsRef<Path>) -> Result<Cifar10> {
        CIFAR10.read(path.as_ref(), Part::Train).map(|(table, _)| Cifar10(table))
    }

    /// Reads the test set; see [`train`](Self::train).
    ///
    /// # Errors
    /// [`Error::Io`] when a file is missing or cannot be read, [`Error::Format`] when it is
    /// damaged.
    pub fn test(path: impl AsRef<Path>) -> Result<Cifar10> {
        CIFAR10.read(path.as_ref(), Part::Test).map(|(table, _)| Cifar10(table))
    }

    /// Returns the label of each sample, for samplers and splits.
    pub fn labels(&self) -> Vec<i64> {
        self.0.labels()
    }
}

impl Cifar100 {
    /// Reads the training set, with the labels of the 100 classes.
    ///
    /// `path` is an archive, the folder of its files (`cifar-100-binary` or `cifar-100-python`), or
    /// a folder in which one of these is.
    ///
    /// # Errors
    /// [`Error::Io`] when a file is missing or cannot be read, [`Error::Format`] when it is
    /// damaged, or a label is out of range.
    pub fn train(path: impl AsRef<Path>) -> Result<Cifar100> {
        CIFAR100.read(path.as_ref(), Part::Train).map(|(table, others)| Cifar100 { table, others })
    }

    /// Reads the test set; see [`train`](Self::train).
    ///
    /// # Errors
    /// [`Error::Io`] when a file is missing or cannot be read, [`Error::Format`] when it is
    /// damaged.
    pub fn test(path: impl AsRef<Path>) -> Result<Cifar100> {
        CIFAR100.read(path.as_ref(), Part::Test).map(|(table, others)| Cifar100 { table, others })
    }

    /// Returns the dataset with the labels of the 20 groups (`coarse_labels`), such as `fish` and
    /// `trees`.
    pub fn coarse(self) -> Cifar100 {
        self.with_classes_of(&GROUPS)
    }

    /// Returns the dataset with the labels of the 100 classes (`fine_labels`), such as `trout` and
    /// `oak_tree`; these are in use at first.
    pub fn fine(self) -> Cifar100 {
        self.with_classes_of(&FINE)
    }

    /// Returns the label in use of each sample, for samplers and splits.
    pub fn labels(&self) -> Vec<i64> {
        self.table.labels()
    }

    fn with_classes_of(mut self, classes: &'static [&'static str]) -> Cifar100 {
        if self.table.classes.len() != classes.len() {
            std::mem::swap(&mut self.table.labels, &mut self.others.values);
            std::mem::swap(&mut self.table.classes, &mut self.others.classes);
        }
        self
    }
}

#[derive(Clone)]
struct Labels {
    values: Vec<u8>,
    classes: &'static [&'static str],
}

#[derive(Clone, Copy)]
enum Part {
    Train,
    Test,
}

/// A published dataset.
pub(super) struct Published {
    name: &'static str,
    /// Binary files, then pickles.
    forms: [Form; 2],
    /// The kinds of labels, in the order in which a binary record has them; the last is in use.
    labels: &'static [LabelKind],
}

/// A form in which the files are published.
struct Form {
    folder: &'static str,
    archive: &'static str,
    is_binary: bool,
    train: &'static [&'static str],
    test: &'static [&'static str],
}

struct LabelKind {
    /// The key in pickles.
    key: &'static str,
    classes: &'static [&'static str],
}

pub(super) static CIFAR10: Published = Published {
    name: "Cifar10",
    forms: [
        Form {
            folder: "cifar-10-batches-bin",
            archive: "cifar-10-binary.tar.gz",
            is_binary: true,
            train: &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
            test: &["test_batch.bin"],
        },
        Form {
            folder: "cifar-10-batches-py",
            archive: "cifar-10-python.tar.gz",
            is_binary: false,
            train: &["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"],
            test: &["test_batch"],
        },
    ],
    labels: &[LabelKind {
        key: "labels",
        classes: &["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    }],
};

pub(super) static CIFAR100: Published = Published {
    name: "Cifar100",
    forms: [
        Form {
            folder: "cifar-100-binary",
            archive: "cifar-100-binary.tar.gz",
            is_binary: true,
            train: &["train.bin"],
            test: &["test.bin"],
        },
        Form { folder: "cifar-100-python", archive: "cifar-100-python.tar.gz", is_binary: false, train: &["train"], test: &["test"] },
    ],
    labels: &[LabelKind { key: "coarse_labels", classes: &GROUPS }, LabelKind { key: "fine_labels", classes: &FINE }],
};

#[rustfmt::skip]
static GROUPS: [&str; 20] = [
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables", "household_electrical_devices",
    "household_furniture", "insects", "large_carnivores", "large_man-made_outdoor_things", "large_natural_outdoor_scenes",
    "large_omnivores_and_herbivores", "medium_mammals", "non-insect_invertebrates", "people", "reptiles", "small_mammals",
    "trees", "vehicles_1", "vehicles_2",
];

#[rustfmt::skip]
static FINE: [&str; 100] = [
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy", "bridge",
    "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud",
    "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox", "girl",
    "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man",
    "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear",
    "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
    "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider", "squirrel",
    "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor", "train",
    "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
];

const SIDE: usize = 32;
/// The bytes of a picture: a plane of red, of green, of blue.
const PIXELS: usize = 3 * SIDE * SIDE;

/// The most that an archive may unpack to. The largest, CIFAR-10 as pickles, has 186 MB.
const LARGEST: u64 = 1 << 29;

impl Form {
    fn files(&self, part: Part) -> &'static [&'static str] {
        match part {
            Part::Train => self.train,
            Part::Test => self.test,
        }
    }
}

impl Published {
    fn read(&self, path: &Path, part: Part) -> Result<(InMemory, Labels)> {
        let mut batches = Batches { published: self, pixels: Vec::new(), labels: vec![Vec::new(); self.labels.len()] };
        if path.is_file() {
            self.read_archive(path, part, &mut batches)?;
        } else if let Some((form, folder)) = self.find_folder(path, part) {
            for file in form.files(part) {
                let file = folder.join(file);
                batches.append(form, &file, &read_file(&file)?)?;
            }
        } else if let Some(archive) = self.forms.iter().map(|form| path.join(form.archive)).find(|archive| archive.is_file()) {
            self.read_archive(&archive, part, &mut batches)?;
        } else {
            let [binary, python] = &self.forms;
            let message = format!(
                "none of {}, {}, {} and {} is here; the archives are at https://www.cs.toronto.edu/~kriz/cifar.html, and \
                 `{}::download` (feature `download`) fetches the dataset",
                binary.folder, python.folder, binary.archive, python.archive, self.name
            );
            return Err(Error::io(path)(io::Error::new(io::ErrorKind::NotFound, message)));
        }
        Ok(batches.finish())
    }

    /// Returns whether both parts are in a folder, unpacked.
    #[cfg(feature = "download")]
    pub(super) fn is_unpacked(&self, path: &Path) -> bool {
        [Part::Train, Part::Test].into_iter().all(|part| self.find_folder(path, part).is_some())
    }

    /// Returns the name of the archive of binary files.
    #[cfg(feature = "download")]
    pub(super) fn binary_archive(&self) -> &'static str {
        self.forms[0].archive
    }

    /// Returns the folder that has the first file of a part. CIFAR-100's pickles have names that
    /// folders of pictures have too.
    fn find_folder(&self, path: &Path, part: Part) -> Option<(&Form, PathBuf)> {
        let places = self.forms.iter().flat_map(|form| [(form, path.to_path_buf()), (form, path.join(form.folder))]);
        places.into_iter().find(|(form, folder)| folder.join(form.files(part)[0]).is_file())
    }

    fn read_archive(&self, path: &Path, part: Part, batches: &mut Batches<'_>) -> Result<()> {
        let mut found = self.unpack(path, part).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::format(path, "truncated: the archive ends early; fetch it again"),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Error::format(path, format!("a damaged archive: {error}")),
            _ => Error::io(path)(error),
        })?;
        let missing = |form: &Form| form.files(part).iter().find(|file| !found.contains_key(&(form.folder, **file)));
        let Some(form) = self.forms.iter().find(|form| missing(form).is_none()) else {
            let [binary, python] = &self.forms;
            let message =
                format!("an archive without {}/{}, {}/{}", binary.folder, binary.files(part)[0], python.folder, python.files(part)[0]);
            return Err(Error::format(path, format!("{message} and the like: not {}, or a part of it is missing", self.name)));
        };
        for &file in form.files(part) {
            let content = found.remove(&(form.folder, file)).unwrap_or_default();
            batches.append(form, &path.join(form.folder).join(file), &content)?;
        }
        Ok(())
    }

    /// Returns the content of a part's files in an archive, by folder and name.
    fn unpack(&self, path: &Path, part: Part) -> io::Result<HashMap<(&'static str, &'static str), Vec<u8>>> {
        let mut file = File::open(path)?;
        let mut magic = Vec::new();
        (&mut file).take(2).read_to_end(&mut magic)?;
        let compressed = magic == [0x1f, 0x8b];
        let whole = io::Cursor::new(magic).chain(BufReader::with_capacity(1 << 16, file));
        let content: Box<dyn Read> = if compressed { Box::new(GzipReader::new(whole)) } else { Box::new(whole) };
        let mut tar = Tar::new(content.take(LARGEST));
        let mut found = HashMap::new();
        while let Some(entry) = tar.next()? {
            let wanted = self.forms.iter().flat_map(|form| form.files(part).iter().map(|&file| (form.folder, file)));
            let name = entry.name.strip_prefix("./").unwrap_or(&entry.name);
            if let Some(key) =
                wanted.into_iter().find(|(folder, file)| name.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')) == Some(*file))
            {
                found.insert(key, tar.content(&entry)?);
            }
        }
        Ok(found)
    }
}

/// The content of the files so far.
struct Batches<'a> {
    published: &'a Published,
    /// Pictures, `[H, W, C]`.
    pixels: Vec<u8>,
    /// Labels of each kind.
    labels: Vec<Vec<u8>>,
}

impl Batches<'_> {
    fn append(&mut self, form: &Form, path: &Path, content: &[u8]) -> Result<()> {
        let wrong = |message: String| Error::format(path, clipped(&message));
        let appended = if form.is_binary { self.append_binary(content) } else { self.append_pickle(content) };
        appended.map_err(wrong)
    }

    fn append_binary(&mut self, content: &[u8]) -> Result<(), String> {
        let kinds = self.labels.len();
        let record = kinds + PIXELS;
        if content.is_empty() || !content.len().is_multiple_of(record) {
            return Err(format!("{} bytes are not whole records of {record}: truncated, or another file", content.len()));
        }
        for record in content.chunks_exact(record) {
            let (labels, planes) = record.split_at(kinds);
            for (kind, &label) in labels.iter().enumerate() {
                self.push_label(kind, i64::from(label))?;
            }
            self.push_picture(planes);
        }
        Ok(())
    }

    fn append_pickle(&mut self, content: &[u8]) -> Result<(), String> {
        let mut entries: HashMap<String, Plain<'_>> = read_dict(content)?.into_iter().collect();
        let data = match entries.remove("data") {
            Some(Plain::Bytes { shape, data }) if shape.len() >= 2 && shape[1..].iter().product::<usize>() == PIXELS => data,
            Some(Plain::Bytes { shape, .. }) => return Err(format!("`data` has shape {shape:?}, expected [n, {PIXELS}]")),
            _ => return Err(format!("the pickle has no array of bytes `data` of shape [n, {PIXELS}]")),
        };
        let count = data.len() / PIXELS;
        for (kind, LabelKind { key, .. }) in self.published.labels.iter().enumerate() {
            let labels = match entries.remove(*key) {
                Some(Plain::Ints(labels)) if labels.len() == count => labels,
                Some(Plain::Ints(labels)) => return Err(format!("{count} pictures, but {} `{key}`", labels.len())),
                _ => return Err(format!("the pickle has no list of numbers `{key}`")),
            };
            labels.into_iter().try_for_each(|label| self.push_label(kind, label))?;
        }
        data.chunks_exact(PIXELS).for_each(|planes| self.push_picture(planes));
        Ok(())
    }

    fn push_label(&mut self, kind: usize, label: i64) -> Result<(), String> {
        let last = self.published.labels[kind].classes.len() - 1;
        match u8::try_from(label) {
            Ok(byte) if usize::from(byte) <= last => self.labels[kind].push(byte),
            _ => return Err(format!("label {label} of sample {} is not in 0..={last}", self.labels[kind].len())),
        }
        Ok(())
    }

    fn push_picture(&mut self, planes: &[u8]) {
        let (red, rest) = planes.split_at(SIDE * SIDE);
        let (green, blue) = rest.split_at(SIDE * SIDE);
        self.pixels.extend(red.iter().zip(green).zip(blue).flat_map(|((&red, &green), &blue)| [red, green, blue]));
    }

    /// Returns the dataset with the last kind of labels, and the first kind.
    fn finish(mut self) -> (InMemory, Labels) {
        let Published { name, labels, .. } = *self.published;
        let used = labels.len() - 1;
        let table = InMemory {
            name,
            shape: [3, SIDE, SIDE],
            pixels: self.pixels,
            labels: std::mem::take(&mut self.labels[used]),
            white: 255,
            classes: labels[used].classes,
        };
        (table, Labels { values: std::mem::take(&mut self.labels[0]), classes: labels[0].classes })
    }
}
