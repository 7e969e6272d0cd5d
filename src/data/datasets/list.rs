//! Pictures and targets that a CSV file lists.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::csv::Rows;
use super::folder::open_picture;
use crate::data::{Dataset, Image, Rng};
use crate::error::{Error, Result, clipped, short};
use crate::io::read_file;

/// Pictures and their targets, listed in a CSV file: a column with the path of each picture, then
/// one or several with its target.
///
/// | read by | target | from |
/// |---|---|---|
/// | [`class_labels`](ImageList::class_labels) | `i64` | a column of labels, 0 or more |
/// | [`class_names`](ImageList::class_names) | `i64` | a column of names, in order of which labels are given |
/// | [`numbers`](ImageList::numbers) | `f32` | a column of numbers |
/// | [`vectors`](ImageList::vectors) | `Vec<f32>` | columns of numbers |
/// | [`multi_labels`](ImageList::multi_labels) | `Vec<bool>` | columns of 0 and 1, or one with several names |
///
/// Paths are relative to the folder of the CSV file. Fields may be in quotes (RFC 4180); a first
/// row whose path has no extension, such as `path,label`, is a header.
/// [`options`](ImageList::options) change this. All files are looked up when the list is read, and
/// opened when samples are asked for.
///
/// ```
/// use convnet::data::{DataLoader, Dataset, ImageList};
///
/// # let picture = std::path::Path::new("tests/fixtures/images/rgb.png").canonicalize().unwrap();
/// # let folder = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(&folder).unwrap();
/// # for name in ["1.png", "2.png"] {
/// #     std::fs::copy(&picture, name).unwrap();
/// # }
/// std::fs::write("train.csv", "file,kind,hours\n1.png,dog,2.5\n2.png,cat,7\n")?;
/// let animals = ImageList::options().targets(["kind"]).class_names("train.csv")?;
/// assert!(animals.classes() == ["cat", "dog"] && animals.samples()[0].1 == 1);
/// let hours = ImageList::options().targets(["hours"]).numbers("train.csv")?;
/// let batch = DataLoader::new(hours, 2).epoch(0).next().expect("a batch")?;
/// assert_eq!(batch.labels.to_vec::<f32>()?, [2.5, 7.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ImageList<T = i64> {
    samples: Vec<(PathBuf, T)>,
    classes: Vec<String>,
    upright: bool,
}

impl ImageList<i64> {
    /// Returns settings, to be changed; their methods of these names read a list.
    pub fn options() -> ImageListOptions {
        ImageListOptions::default()
    }

    /// Reads a list of pictures and labels, whole numbers from 0.
    ///
    /// # Errors
    /// [`Error::Io`] when the list cannot be read; [`Error::Format`] with the line for a label that
    /// is no such number, a file that does not exist, and damage.
    pub fn class_labels(path: impl AsRef<Path>) -> Result<ImageList<i64>> {
        ImageList::options().class_labels(path)
    }

    /// Reads a list of pictures and names of classes. Labels are the positions of the names in
    /// order.
    ///
    /// # Errors
    /// [`Error::Io`] when the list cannot be read; [`Error::Format`] with the line for an empty
    /// name, a file that does not exist, and damage.
    pub fn class_names(path: impl AsRef<Path>) -> Result<ImageList<i64>> {
        ImageList::options().class_names(path)
    }

    /// Returns the label of each sample, for samplers and splits.
    pub fn labels(&self) -> Vec<i64> {
        self.samples.iter().map(|&(_, label)| label).collect()
    }
}

impl ImageList<f32> {
    /// Reads a list of pictures and a number each.
    ///
    /// # Errors
    /// [`Error::Io`] when the list cannot be read; [`Error::Format`] with the line for what is no
    /// finite number, a file that does not exist, and damage.
    pub fn numbers(path: impl AsRef<Path>) -> Result<ImageList<f32>> {
        ImageList::options().numbers(path)
    }
}

impl ImageList<Vec<f32>> {
    /// Reads a list of pictures and several numbers each, in all columns beside the path's.
    ///
    /// # Errors
    /// [`Error::Io`] when the list cannot be read; [`Error::Format`] with the line for what is no
    /// finite number, a file that does not exist, and damage.
    pub fn vectors(path: impl AsRef<Path>) -> Result<ImageList<Vec<f32>>> {
        ImageList::options().vectors(path)
    }
}

impl ImageList<Vec<bool>> {
    /// Reads a list of pictures and several labels each: a column for each class with 1 or `true`
    /// where the picture has it, otherwise 0, -1 or `false`. The header names the classes.
    ///
    /// # Errors
    /// [`Error::Io`] when the list cannot be read; [`Error::Format`] with the line for other
    /// values, a file that does not exist, and damage.
    pub fn multi_labels(path: impl AsRef<Path>) -> Result<ImageList<Vec<bool>>> {
        ImageList::options().multi_labels(path)
    }
}

impl<T> ImageList<T> {
    /// Returns the path and the target of each sample.
    pub fn samples(&self) -> &[(PathBuf, T)] {
        &self.samples
    }
}

impl<T: Clone + Send + Sync> Dataset for ImageList<T> {
    type Sample = (Image, T);

    fn len(&self) -> usize {
        self.samples.len()
    }

    fn get(&self, index: usize, _: &mut Rng) -> Result<(Image, T)> {
        let Some((path, target)) = self.samples.get(index) else {
            return Err(Error::argument("ImageList", format!("there is no sample {index}, the dataset has {}", self.samples.len())));
        };
        Ok((open_picture(path, self.upright)?, target.clone()))
    }

    fn classes(&self) -> Vec<String> {
        self.classes.clone()
    }

    fn name(&self, index: usize) -> String {
        self.samples.get(index).map(|(path, _)| path.display().to_string()).unwrap_or_default()
    }
}

/// Settings of an [`ImageList`]; see there.
#[derive(Clone, Debug)]
pub struct ImageListOptions {
    root: Option<PathBuf>,
    delimiter: char,
    header: Option<bool>,
    path_column: Option<String>,
    target_columns: Option<Vec<String>>,
    classes: Option<Vec<String>>,
    label_separator: Option<char>,
    upright: bool,
}

impl Default for ImageListOptions {
    fn default() -> ImageListOptions {
        ImageListOptions {
            root: None,
            delimiter: ',',
            header: None,
            path_column: None,
            target_columns: None,
            classes: None,
            label_separator: None,
            upright: false,
        }
    }
}

/// A list before its targets are converted.
struct CsvTable {
    path: PathBuf,
    /// The names of the columns of targets, when there is a header.
    names: Vec<String>,
    rows: Vec<TableRow>,
}

struct TableRow {
    line: usize,
    picture: PathBuf,
    targets: Vec<String>,
}

impl ImageListOptions {
    /// Sets the folder that paths are relative to, in place of the CSV file's.
    pub fn root(mut self, folder: impl Into<PathBuf>) -> ImageListOptions {
        self.root = Some(folder.into());
        self
    }

    /// Sets what separates columns; a comma by default.
    pub fn delimiter(mut self, delimiter: char) -> ImageListOptions {
        self.delimiter = delimiter;
        self
    }

    /// Sets whether the first row names the columns. By default it does when its path has no
    /// extension.
    pub fn header(mut self, header: bool) -> ImageListOptions {
        self.header = Some(header);
        self
    }

    /// Sets the column of paths by its name in the header; the first one by default.
    pub fn path(mut self, column: impl Into<String>) -> ImageListOptions {
        self.path_column = Some(column.into());
        self
    }

    /// Sets the columns of targets by their names in the header; by default all others.
    pub fn targets<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> ImageListOptions {
        self.target_columns = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the classes' names in the order of their labels. Other names and greater labels in the
    /// list are then errors.
    pub fn classes<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> ImageListOptions {
        self.classes = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Sets what separates the names of a picture's classes, for
    /// [`multi_labels`](ImageListOptions::multi_labels) in one column, as in `cat|dog`.
    pub fn label_separator(mut self, separator: char) -> ImageListOptions {
        self.label_separator = Some(separator);
        self
    }

    /// Sets whether pictures are turned as their orientation tag says; see
    /// [`Image::open_upright`](crate::data::Image::open_upright). Off by default.
    pub fn upright(mut self, upright: bool) -> ImageListOptions {
        self.upright = upright;
        self
    }

    /// Reads a list as [`ImageList::class_labels`] does.
    ///
    /// # Errors
    /// See there; also for labels that exceed the [`classes`](ImageListOptions::classes).
    pub fn class_labels(&self, path: impl AsRef<Path>) -> Result<ImageList<i64>> {
        let last = self.classes.as_ref().map_or(i64::MAX, |classes| classes.len() as i64 - 1);
        let label = |text: &str| {
            let label = text.parse().map_err(|_| format!("{} is not a label, a whole number from 0", quoted(text)))?;
            if (0..=last).contains(&label) { Ok(label) } else { Err(format!("label {label} is not in 0..={last}")) }
        };
        self.single(self.table(path.as_ref())?, label, self.classes.clone().unwrap_or_default())
    }

    /// Reads a list as [`ImageList::class_names`] does.
    ///
    /// # Errors
    /// See there; also for names that are not among the [`classes`](ImageListOptions::classes).
    pub fn class_names(&self, path: impl AsRef<Path>) -> Result<ImageList<i64>> {
        let table = self.table(path.as_ref())?;
        let classes = self.classes_or(table.rows.iter().flat_map(|row| row.targets.first()).map(String::as_str));
        let labels = positions(&classes);
        self.single(table, |name| labels.get(name).copied().ok_or_else(|| unknown_class(name)), classes.clone())
    }

    /// Reads a list as [`ImageList::numbers`] does.
    ///
    /// # Errors
    /// See there.
    pub fn numbers(&self, path: impl AsRef<Path>) -> Result<ImageList<f32>> {
        self.single(self.table(path.as_ref())?, number, Vec::new())
    }

    /// Reads a list as [`ImageList::vectors`] does.
    ///
    /// # Errors
    /// See there.
    pub fn vectors(&self, path: impl AsRef<Path>) -> Result<ImageList<Vec<f32>>> {
        self.list(self.table(path.as_ref())?, |fields| fields.iter().map(|field| number(field)).collect(), Vec::new())
    }

    /// Reads a list as [`ImageList::multi_labels`] does, or from one column of names when there is
    /// a [`label_separator`](ImageListOptions::label_separator).
    ///
    /// # Errors
    /// See there; also for names that are not among the [`classes`](ImageListOptions::classes).
    pub fn multi_labels(&self, path: impl AsRef<Path>) -> Result<ImageList<Vec<bool>>> {
        let table = self.table(path.as_ref())?;
        let Some(separator) = self.label_separator else {
            let classes = self.classes.clone().unwrap_or_else(|| table.names.clone());
            let columns = table.rows.first().map_or(0, |row| row.targets.len());
            if !classes.is_empty() && classes.len() != columns {
                return Err(Error::format(&table.path, format!("{columns} columns of labels for {} classes", classes.len())));
            }
            return self.list(table, |fields| fields.iter().map(|field| truth(field)).collect(), classes);
        };
        let split = |text: &str| text.split(separator).map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect::<Vec<_>>();
        let all: Vec<String> = table.rows.iter().flat_map(|row| row.targets.first()).flat_map(|text| split(text)).collect();
        let classes = self.classes_or(all.iter().map(String::as_str));
        let labels = positions(&classes);
        let flags = |text: &str| {
            let mut flags = vec![false; classes.len()];
            for name in split(text) {
                let label = *labels.get(name.as_str()).ok_or_else(|| unknown_class(&name))?;
                flags[label as usize] = true;
            }
            Ok(flags)
        };
        self.single(table, flags, classes.clone())
    }

    /// Returns the classes that were set, or those that are found, in order.
    fn classes_or<'a>(&self, found: impl Iterator<Item = &'a str>) -> Vec<String> {
        let found = || found.filter(|name| !name.is_empty()).collect::<BTreeSet<_>>().into_iter().map(String::from).collect();
        self.classes.clone().unwrap_or_else(found)
    }

    /// Makes a list of a table with one column of targets.
    fn single<T>(&self, table: CsvTable, convert: impl Fn(&str) -> Result<T, String>, classes: Vec<String>) -> Result<ImageList<T>> {
        if let Some(row) = table.rows.first().filter(|row| row.targets.len() != 1) {
            let message = format!(
                "line {}: {} columns of targets, this kind of list has one; `ImageList::options().targets([…])` chooses it by its name in the header",
                row.line,
                row.targets.len()
            );
            return Err(Error::format(&table.path, message));
        }
        self.list(table, |fields| convert(&fields[0]), classes)
    }

    fn list<T>(&self, table: CsvTable, convert: impl Fn(&[String]) -> Result<T, String>, classes: Vec<String>) -> Result<ImageList<T>> {
        let mut samples = Vec::with_capacity(table.rows.len());
        for TableRow { line, picture, targets } in table.rows {
            let target = convert(&targets).map_err(|message| Error::format(&table.path, clipped(&format!("line {line}: {message}"))))?;
            samples.push((picture, target));
        }
        Ok(ImageList { samples, classes, upright: self.upright })
    }

    /// Reads the rows, and looks the pictures up.
    fn table(&self, path: &Path) -> Result<CsvTable> {
        let wrong = |message: String| Error::format(path, clipped(&message));
        let bytes = read_file(path)?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
            wrong(format!("line {line} is not UTF-8; save the list in this encoding"))
        })?;
        let root = self.root.as_deref().or_else(|| path.parent()).unwrap_or(Path::new(""));
        let mut rows = Rows::new(text, self.delimiter).peekable();
        let mut names = None;
        if let Some(Ok(first)) = rows.peek()
            && self.header.unwrap_or_else(|| first.fields.first().is_some_and(|field| Path::new(field).extension().is_none()))
        {
            names = Some(first.fields.clone());
            rows.next();
        }
        let column = |name: &String| {
            let Some(names) = &names else { return Err(wrong(format!("column {} is asked for, but there is no header", quoted(name)))) };
            let found = names.iter().position(|other| other == name);
            found.ok_or_else(|| wrong(format!("no column {} in the header: {}", quoted(name), names.join(", "))))
        };
        let path_column = self.path_column.as_ref().map_or(Ok(0), column)?;
        let chosen: Option<Vec<usize>> = self.target_columns.as_ref().map(|names| names.iter().map(column).collect()).transpose()?;

        let mut table = CsvTable { path: path.to_path_buf(), names: Vec::new(), rows: Vec::new() };
        let (mut columns, mut missing) = (names.as_ref().map(Vec::len), Vec::new());
        for row in rows {
            let row = row.map_err(wrong)?;
            let count = *columns.get_or_insert(row.fields.len());
            if row.fields.len() != count {
                return Err(wrong(format!("line {}: {} columns, the first row has {count}", row.line, row.fields.len())));
            }
            let mut fields = row.fields;
            let file = &fields[path_column];
            if file.is_empty() {
                return Err(wrong(format!("line {}: no path of a picture", row.line)));
            }
            let picture = root.join(file);
            if !picture.is_file() {
                missing.push((row.line, picture));
                continue;
            }
            let targets = match &chosen {
                Some(chosen) => chosen.iter().map(|&column| fields[column].clone()).collect(),
                None => {
                    fields.remove(path_column);
                    fields
                }
            };
            table.rows.push(TableRow { line: row.line, picture, targets });
        }
        if let Some((line, picture)) = missing.first() {
            let others = if missing.len() > 1 { format!(", and {} more are missing", missing.len() - 1) } else { String::new() };
            let message = format!(
                "line {line}: there is no file {}{others}; paths are relative to the list's folder, or to `root`",
                picture.display()
            );
            return Err(wrong(message));
        }
        if table.rows.is_empty() {
            return Err(wrong("lists no pictures".to_string()));
        }
        let names = names.unwrap_or_default();
        table.names = match chosen {
            Some(chosen) => chosen.into_iter().map(|column| names[column].clone()).collect(),
            None => names.into_iter().enumerate().filter(|&(column, _)| column != path_column).map(|(_, name)| name).collect(),
        };
        Ok(table)
    }
}

fn positions(classes: &[String]) -> HashMap<&str, i64> {
    classes.iter().map(String::as_str).zip(0..).collect()
}

fn quoted(text: &str) -> String {
    format!("`{}`", short(text))
}

fn unknown_class(name: &str) -> String {
    if name.is_empty() { "the name of the class is empty".to_string() } else { format!("{} is not one of the classes", quoted(name)) }
}

fn number(text: &str) -> Result<f32, String> {
    text.parse().ok().filter(|number: &f32| number.is_finite()).ok_or_else(|| format!("{} is not a finite number", quoted(text)))
}

fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "1.0" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "0.0" | "-1" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err(format!("{} is neither 0 nor 1; `label_separator` reads names of classes from one column", quoted(text))),
    }
}
