//! Pictures and labels in Parquet files.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::serialized_reader::SerializedPageReader;

use super::parquet_footer;
use super::parquet_pages::Pages;
use crate::data::{Dataset, Image, Rng};
use crate::error::{Error, Result, clipped, short};

/// Pictures and labels in one or several Parquet files, as Hugging Face `datasets` writes them:
/// `train-00000-of-00002.parquet` and the like.
///
/// The column of pictures holds the bytes of JPEG or PNG files (and of the others that
/// [`Image::decode`] reads), plain or as a structure with the fields `bytes` and `path`. The column
/// of labels holds whole numbers from 0, or -1 for no label, or names, which become classes in
/// order. The names of numbered classes are those that `datasets` keeps in the file. Pages may be
/// uncompressed, or compressed by Snappy.
///
/// Labels are read when the dataset is opened. Pictures are read when they are asked for, a whole
/// row group at once, of which the last few are kept: with [`shuffle`] over many row groups,
/// [`cached_groups`](ParquetImagesOptions::cached_groups) trades memory for time.
///
/// [`shuffle`]: crate::data::DataLoader::shuffle
///
/// ```
/// use convnet::data::{DataLoader, Dataset, ParquetImages};
///
/// let pictures = ParquetImages::open(["tests/fixtures/pictures.parquet"])?;
/// assert!(pictures.len() == 5 && pictures.classes() == ["cat", "dog"]);
/// let batch = DataLoader::new(pictures, 5).workers(2).epoch(0).next().expect("a batch")?;
/// assert_eq!(batch.images.shape(), [5, 3, 2, 3]);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Debug)]
pub struct ParquetImages {
    files: Vec<Source>,
    groups: Vec<Group>,
    labels: Vec<i64>,
    classes: Vec<String>,
    cached_groups: usize,
    cache: Mutex<VecDeque<(usize, Slot)>>,
}

/// The pictures of a row group once they are read; locked while they are, so that several workers
/// read a group once.
type Slot = Arc<Mutex<Option<Arc<Pictures>>>>;
type Pictures = Vec<Option<ByteArray>>;

#[derive(Debug)]
struct Source {
    path: PathBuf,
    metadata: ParquetMetaData,
    length: u64,
    image: usize,
    label: usize,
}

/// A row group: its file, its number there, and the first of its samples.
#[derive(Debug)]
struct Group {
    file: usize,
    number: usize,
    start: usize,
}

/// Settings of [`ParquetImages`]; see there.
#[derive(Clone, Debug)]
pub struct ParquetImagesOptions {
    image: String,
    label: String,
    cached_groups: usize,
}

enum Labels {
    Numbers(Vec<i64>),
    Names(Vec<ByteArray>),
}

impl ParquetImages {
    /// Opens files as one dataset, in the order given, with the columns `image` and `label`.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be read; [`Error::Format`] for one that is damaged, lacks
    /// the columns, or has rows without a label, and for files whose kinds of labels or names of
    /// classes differ.
    pub fn open<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<ParquetImages> {
        ParquetImages::options().open(paths)
    }

    /// Returns settings, to be changed and [opened](ParquetImagesOptions::open).
    pub fn options() -> ParquetImagesOptions {
        ParquetImagesOptions { image: "image".into(), label: "label".into(), cached_groups: 4 }
    }

    /// Returns the label of each sample, for samplers and splits.
    pub fn labels(&self) -> Vec<i64> {
        self.labels.clone()
    }

    /// Returns the row group of a sample, by its position in `groups`, and the sample's row there.
    fn place(&self, index: usize) -> (usize, usize) {
        let group = self.groups.partition_point(|group| group.start <= index) - 1;
        (group, index - self.groups[group].start)
    }

    fn pictures(&self, group: usize) -> Result<Arc<Pictures>> {
        let slot = {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            let found = cache.iter().position(|&(number, _)| number == group).and_then(|at| cache.remove(at));
            let entry = found.unwrap_or_else(|| (group, Slot::default()));
            let slot = Arc::clone(&entry.1);
            cache.push_back(entry);
            if cache.len() > self.cached_groups {
                cache.pop_front();
            }
            slot
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pictures) = &*slot {
            return Ok(Arc::clone(pictures));
        }
        let Group { file, number, .. } = self.groups[group];
        let source = &self.files[file];
        let pictures = source.read(number, source.image, |reader, rows| match reader {
            ColumnReader::ByteArrayColumnReader(reader) => values(reader, rows),
            _ => Err(ParquetError::General("the column of pictures is not binary".into())),
        })?;
        let pictures = Arc::new(pictures);
        *slot = Some(Arc::clone(&pictures));
        Ok(pictures)
    }
}

impl Dataset for ParquetImages {
    type Sample = (Image, i64);

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn get(&self, index: usize, _: &mut Rng) -> Result<(Image, i64)> {
        let Some(&label) = self.labels.get(index) else {
            return Err(Error::argument("ParquetImages", format!("there is no sample {index}, the dataset has {}", self.labels.len())));
        };
        let (group, row) = self.place(index);
        let wrong = |message: &str| Error::format(self.name(index), message);
        let pictures = self.pictures(group)?;
        let bytes = pictures[row].as_ref().ok_or_else(|| wrong("the row has no bytes of a picture; `datasets` has to embed the files"))?;
        let image = Image::decode(bytes.data()).map_err(|error| wrong(&clipped(&error.to_string())))?;
        Ok((image, label))
    }

    fn classes(&self) -> Vec<String> {
        self.classes.clone()
    }

    /// Returns the path of the file and the row in it, from 0.
    fn name(&self, index: usize) -> String {
        if index >= self.labels.len() {
            return String::new();
        }
        let file = self.groups[self.place(index).0].file;
        let first = self.groups.iter().find(|group| group.file == file).map_or(0, |group| group.start);
        format!("{} (row {})", self.files[file].path.display(), index - first)
    }
}

impl ParquetImagesOptions {
    /// Sets the column of pictures; `image` by default.
    pub fn image(self, column: impl Into<String>) -> ParquetImagesOptions {
        ParquetImagesOptions { image: column.into(), ..self }
    }

    /// Sets the column of labels; `label` by default.
    pub fn label(self, column: impl Into<String>) -> ParquetImagesOptions {
        ParquetImagesOptions { label: column.into(), ..self }
    }

    /// Sets how many row groups are kept in memory, 1 or more; 4 by default.
    pub fn cached_groups(self, count: usize) -> ParquetImagesOptions {
        ParquetImagesOptions { cached_groups: count.max(1), ..self }
    }

    /// Opens files as [`ParquetImages::open`] does.
    ///
    /// # Errors
    /// See there.
    pub fn open<P: AsRef<Path>>(&self, paths: impl IntoIterator<Item = P>) -> Result<ParquetImages> {
        let (mut files, mut groups, mut all) = (Vec::new(), Vec::new(), Vec::<Labels>::new());
        let (mut start, mut classes) = (0, None);
        for path in paths {
            let source = self.source(path.as_ref())?;
            let mut rows_of_file = 0;
            for number in 0..source.metadata.num_row_groups() {
                let rows = usize::try_from(source.metadata.row_group(number).num_rows()).unwrap_or(usize::MAX);
                rows_of_file = rows.saturating_add(rows_of_file);
                // Memory stays in proportion to the files: each picture takes more than a byte.
                if rows_of_file as u64 > source.length {
                    return Err(Error::format(&source.path, "claims more rows than the file has bytes"));
                }
                let labels = source.labels(number)?;
                if all.first().is_some_and(|first| matches!(first, Labels::Names(_)) != matches!(labels, Labels::Names(_))) {
                    return Err(Error::format(&source.path, "labels are of another kind (numbers or names) than in the first file"));
                }
                if rows > 0 {
                    groups.push(Group { file: files.len(), number, start });
                }
                start += rows;
                all.push(labels);
            }
            let names = class_names(&source.metadata, &self.label);
            if *classes.get_or_insert_with(|| names.clone()) != names {
                return Err(Error::format(&source.path, "the names of the classes are not those of the first file"));
            }
            files.push(source);
        }
        if start == 0 {
            return Err(Error::argument("ParquetImages", "there are no rows in the files; give at least one file with pictures"));
        }
        let (labels, classes) = numbered(all, classes.flatten().unwrap_or_default());
        if let Some(at) = labels.iter().position(|&label| label < -1 || (!classes.is_empty() && label >= classes.len() as i64)) {
            let message = format!("label {} of sample {at} is not one of the {} classes, nor -1 for none", labels[at], classes.len());
            return Err(Error::format(&files[0].path, message));
        }
        Ok(ParquetImages { files, groups, labels, classes, cached_groups: self.cached_groups, cache: Mutex::default() })
    }

    fn source(&self, path: &Path) -> Result<Source> {
        let (footer, length) = parquet_footer::read(path)?;
        let metadata = guarded(path, || ParquetMetaDataReader::decode_metadata(&footer))?;
        let columns = metadata.file_metadata().schema_descr().columns();
        let find = |name: &str, field: &[&str]| {
            columns.iter().position(|column| {
                let parts = column.path().parts();
                column.max_rep_level() == 0 && parts.first().is_some_and(|first| first == name) && parts[1..] == *field
            })
        };
        let missing = |name: &str| {
            let known: Vec<String> = columns.iter().map(|column| column.path().string()).collect();
            Error::format(path, clipped(&format!("no column `{}`; there are {}", short(name), known.join(", "))))
        };
        let image = find(&self.image, &["bytes"]).or_else(|| find(&self.image, &[])).ok_or_else(|| missing(&self.image))?;
        let label = find(&self.label, &[]).ok_or_else(|| missing(&self.label))?;
        Ok(Source { path: path.to_path_buf(), metadata, length, image, label })
    }
}

impl Source {
    /// Reads a column of a row group. The file is opened anew: threads that shared a handle would
    /// share its position.
    fn read<T>(
        &self,
        group: usize,
        column: usize,
        read: impl FnOnce(ColumnReader, usize) -> Result<Vec<T>, ParquetError>,
    ) -> Result<Vec<T>> {
        let file = File::open(&self.path).map_err(Error::io(&self.path))?;
        guarded(&self.path, || {
            let group = self.metadata.row_group(group);
            let rows = usize::try_from(group.num_rows())?;
            let chunk = group.columns().get(column).ok_or_else(|| ParquetError::General("a row group lacks a column".into()))?;
            let pages = SerializedPageReader::new(Arc::new(Pages::new(file, chunk, rows)?), chunk, rows, None)?;
            let values = read(get_column_reader(chunk.column_descr_ptr(), Box::new(pages)), rows)?;
            if values.len() == rows { Ok(values) } else { Err(ParquetError::General(format!("{} rows of {rows}", values.len()))) }
        })
    }

    fn labels(&self, group: usize) -> Result<Labels> {
        let none = || Error::format(&self.path, format!("a row of row group {group} has no label"));
        let kind = self.metadata.file_metadata().schema_descr().column(self.label).physical_type();
        if kind == parquet::basic::Type::BYTE_ARRAY {
            let names = self.read(group, self.label, |reader, rows| match reader {
                ColumnReader::ByteArrayColumnReader(reader) => values(reader, rows),
                _ => Err(ParquetError::General("the kind of the labels changes".into())),
            })?;
            return names.into_iter().collect::<Option<_>>().map(Labels::Names).ok_or_else(none);
        }
        let labels = self.read(group, self.label, |reader, rows| match reader {
            ColumnReader::Int32ColumnReader(reader) => Ok(values(reader, rows)?.into_iter().map(|label| label.map(i64::from)).collect()),
            ColumnReader::Int64ColumnReader(reader) => values(reader, rows),
            _ => Err(ParquetError::General("the labels are neither whole numbers nor names".into())),
        })?;
        labels.into_iter().collect::<Option<_>>().map(Labels::Numbers).ok_or_else(none)
    }
}

/// Reads the values of a column without repetition, `None` where there is none.
fn values<T: DataType>(mut reader: ColumnReaderImpl<T>, rows: usize) -> Result<Vec<Option<T::T>>, ParquetError> {
    let (mut all, mut levels, mut present) = (Vec::new(), Vec::new(), Vec::new());
    let mut most = 0;
    while all.len() < rows {
        levels.clear();
        present.clear();
        let wanted = (rows - all.len()).min(1024);
        let (records, count, _) = reader.read_records(wanted, Some(&mut levels), None, &mut present)?;
        if records == 0 {
            break;
        }
        if count == records {
            all.extend(present.drain(..).map(Some));
            continue;
        }
        // Some rows have no value: those whose level is less than the greatest.
        most = levels.iter().copied().fold(most, i16::max);
        let full = if count == 0 { i16::MAX } else { most };
        let mut rest = present.drain(..);
        all.extend(levels.iter().take(records).map(|&level| if level == full { rest.next() } else { None }));
    }
    Ok(all)
}

/// Calls the crate `parquet`, whose errors, and panics on damaged files, become errors.
fn guarded<T>(path: &Path, body: impl FnOnce() -> Result<T, ParquetError>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => result.map_err(|error| Error::format(path, clipped(&format!("the Parquet file cannot be read: {error}")))),
        Err(_) => Err(Error::format(path, "the Parquet file is damaged")),
    }
}

/// Returns the names that `datasets` keeps of a column of labels.
fn class_names(metadata: &ParquetMetaData, label: &str) -> Option<Vec<String>> {
    let entries = metadata.file_metadata().key_value_metadata()?;
    let json = entries.iter().find(|entry| entry.key == "huggingface")?.value.as_deref()?;
    let json: serde_json::Value = serde_json::from_str(json).ok()?;
    let names = json.get("info")?.get("features")?.get(label)?.get("names")?.as_array()?;
    names.iter().map(|name| name.as_str().map(String::from)).collect()
}

/// Returns the labels of all row groups, those of names by the names' order, and the classes.
fn numbered(all: Vec<Labels>, known: Vec<String>) -> (Vec<i64>, Vec<String>) {
    let names = || all.iter().flat_map(|labels| if let Labels::Names(names) = labels { names.as_slice() } else { &[] });
    let found: BTreeSet<&[u8]> = names().map(ByteArray::data).collect();
    let positions: HashMap<&[u8], i64> = found.iter().copied().zip(0..).collect();
    let label = |name: &ByteArray| positions[name.data()];
    let classes = if found.is_empty() { known } else { found.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect() };
    let labels = all.iter().flat_map(|labels| match labels {
        Labels::Numbers(numbers) => numbers.clone(),
        Labels::Names(names) => names.iter().map(label).collect(),
    });
    (labels.collect(), classes)
}
