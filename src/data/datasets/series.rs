//! Series of numbers in sktime's text format.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::TensorDataset;
use crate::error::{Error, Result, clipped, short};
use crate::io::read_file;
use crate::tensor::Tensor;

/// Series of numbers with a target each, from a `.ts` file: the format of sktime, in which the UCR
/// and UEA archives of time series and the archive for regression are published.
///
/// A file has comments (`#`), a header (`@problemName`, `@classLabel true cat dog`, …) and after
/// `@data` a line for each sample: numbers between commas, a `:` between channels and before the
/// target. Missing numbers (`?`) become NaN.
///
/// ```
/// use convnet::data::{DataLoader, SeriesFile};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(&folder).unwrap();
/// std::fs::write("train.ts", "@classLabel true up down\n@data\n1,2,3.5:up\n3,2,1:down\n2,4,8:up\n")?;
/// let file = SeriesFile::open("train.ts")?;
/// assert_eq!(file.series().shape(), [3, 1, 3]);
/// assert_eq!(file.classes(), ["up", "down"]);
/// let loader = DataLoader::new(file.by_class()?, 2);
/// let (series, labels) = loader.epoch(0).next().expect("a batch")?;
/// assert!(series.shape() == [2, 1, 3] && labels.to_vec::<i64>()? == [0, 1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SeriesFile {
    path: PathBuf,
    series: Tensor,
    // With the number of the line.
    targets: Vec<(usize, String)>,
    classes: Vec<String>,
}

impl SeriesFile {
    /// Reads a file, in which all series have the same channels and length.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::Format`] with the line for what is no
    /// number, for series of different shapes, and for files with time stamps, without targets or
    /// without samples.
    pub fn open(path: impl AsRef<Path>) -> Result<SeriesFile> {
        let path = path.as_ref();
        let wrong = |message: String| Error::format(path, clipped(&message));
        let bytes = read_file(path)?;
        let Parsed { values, shape, targets, mut classes } = parse(&String::from_utf8_lossy(&bytes)).map_err(wrong)?;
        if classes.is_empty() {
            classes = targets.iter().map(|(_, target)| target.clone()).collect();
            classes.sort();
            classes.dedup();
        }
        Ok(SeriesFile { path: path.to_path_buf(), series: Tensor::from_vec(values, shape)?, targets, classes })
    }

    /// Returns all series, `[N, channels, length]` of f32.
    pub fn series(&self) -> &Tensor {
        &self.series
    }

    /// Returns the names of the classes: those of the header in its order, or else the targets that
    /// occur, sorted.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Returns the classes of the series as positions in [`classes`](SeriesFile::classes), `[N]` of
    /// i64.
    ///
    /// # Errors
    /// [`Error::Format`] for a class that the header does not name.
    pub fn labels(&self) -> Result<Tensor> {
        let labels: HashMap<&str, i64> = self.classes.iter().map(String::as_str).zip(0..).collect();
        self.convert(|target| labels.get(target).copied().ok_or_else(|| format!("the header names no class `{}`", short(target))))
    }

    /// Returns the targets as numbers, `[N]` of f32, for regression.
    ///
    /// # Errors
    /// [`Error::Format`] for a target that is no finite number.
    pub fn numbers(&self) -> Result<Tensor> {
        self.convert(|target| {
            let number = f32::from_str(target).ok().filter(|number| number.is_finite());
            number.ok_or_else(|| format!("expected a number as target, got `{}`", short(target)))
        })
    }

    /// Returns a dataset of the series and their [`labels`](SeriesFile::labels).
    ///
    /// # Errors
    /// Those of `labels`.
    pub fn by_class(&self) -> Result<TensorDataset> {
        TensorDataset::new(self.series.clone(), self.labels()?)
    }

    /// Returns a dataset of the series and their [`numbers`](SeriesFile::numbers).
    ///
    /// # Errors
    /// Those of `numbers`.
    pub fn by_number(&self) -> Result<TensorDataset> {
        TensorDataset::new(self.series.clone(), self.numbers()?)
    }

    fn convert<T: crate::Element>(&self, convert: impl Fn(&str) -> Result<T, String>) -> Result<Tensor> {
        let one = |(line, target): &(usize, String)| {
            convert(target).map_err(|message| Error::format(&self.path, clipped(&format!("line {line}: {message}"))))
        };
        let values: Vec<T> = self.targets.iter().map(one).collect::<Result<_>>()?;
        Tensor::from_vec(values, [self.targets.len()])
    }
}

struct Parsed {
    values: Vec<f32>,
    /// Samples, channels, length.
    shape: [usize; 3],
    targets: Vec<(usize, String)>,
    classes: Vec<String>,
}

fn parse(text: &str) -> Result<Parsed, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parsed = Parsed { values: vec![], shape: [0; 3], targets: vec![], classes: vec![] };
    let mut in_data = false;
    for (number, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let result = if in_data { sample(line, number, &mut parsed) } else { header(line, &mut parsed.classes).map(|data| in_data = data) };
        result.map_err(|message| format!("line {number}: {message}"))?;
    }
    if parsed.targets.is_empty() {
        return Err(if in_data { "no samples after `@data`" } else { "no line `@data`; is this a file of sktime's format?" }.to_string());
    }
    parsed.shape[0] = parsed.targets.len();
    Ok(parsed)
}

/// Reads a line of the header, and returns whether the samples begin after it.
fn header(line: &str, classes: &mut Vec<String>) -> Result<bool, String> {
    let mut words = line.split_whitespace();
    let key = words.next().unwrap_or("").to_ascii_lowercase();
    let value = words.next().unwrap_or("").to_ascii_lowercase();
    match (key.as_str(), value.as_str()) {
        ("@data", _) => return Ok(true),
        ("@timestamps", "true") => return Err("series with time stamps are not supported".to_string()),
        ("@classlabel" | "@targetlabel", "false") => return Err("the series have no targets".to_string()),
        ("@classlabel", _) => *classes = words.map(String::from).collect(),
        (key, _) if key.starts_with('@') => {}
        _ => return Err(format!("expected `#`, `@` or `@data`, got `{}`", short(line))),
    }
    Ok(false)
}

/// Reads a sample.
fn sample(line: &str, number: usize, parsed: &mut Parsed) -> Result<(), String> {
    let (channels, target) = line.rsplit_once(':').ok_or("expected numbers, `:` and a target")?;
    let mut count = 0;
    for channel in channels.split(':') {
        let before = parsed.values.len();
        for field in channel.split(',').map(str::trim) {
            let value = if field == "?" { Ok(f32::NAN) } else { f32::from_str(field) };
            let value = value.ok().filter(|value| !value.is_infinite());
            parsed.values.push(value.ok_or_else(|| format!("expected a number, got `{}`", short(field)))?);
        }
        let length = parsed.values.len() - before;
        let [_, _, wanted] = &mut parsed.shape;
        if *wanted == 0 {
            *wanted = length;
        } else if *wanted != length {
            return Err(format!("a series of {length} numbers, the first has {wanted}; series of different lengths are not supported"));
        }
        count += 1;
    }
    let [_, wanted, _] = &mut parsed.shape;
    if parsed.targets.is_empty() {
        *wanted = count;
    } else if *wanted != count {
        return Err(format!("{count} channels, the first series has {wanted}"));
    }
    parsed.targets.push((number, target.trim().to_string()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &str) -> Result<SeriesFile> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.ts");
        std::fs::write(&path, text).unwrap();
        SeriesFile::open(path)
    }

    #[test]
    fn channels_targets_and_missing_numbers_are_read() {
        let file = open("#note\n@PROBLEMNAME x\n@targetlabel true\n\n@data\r\n1, 2:3,-4e-1:0.5\r\n5,?:7,8:2\n").unwrap();
        assert_eq!(file.series().shape(), [2, 2, 2]);
        let values = file.series().to_vec::<f32>().unwrap();
        assert_eq!(values[..5], [1.0, 2.0, 3.0, -0.4, 5.0]);
        assert!(values[5].is_nan());
        assert_eq!(file.numbers().unwrap().to_vec::<f32>().unwrap(), [0.5, 2.0]);
        // Without names in the header, the targets are the names.
        assert_eq!(
            (file.classes(), file.labels().unwrap().to_vec::<i64>().unwrap()),
            (&["0.5".to_string(), "2".to_string()][..], vec![0, 1])
        );
    }

    #[test]
    fn what_is_wrong_is_an_error_with_its_line() {
        let message = |text: &str| open(text).unwrap_err().to_string();
        for (text, expected) in [
            ("", "no line `@data`"),
            ("@data\n# nothing\n", "no samples after `@data`"),
            ("1,2:3\n", "line 1: expected `#`, `@` or `@data`, got `1,2:3`"),
            ("@timeStamps true\n@data\n(0,1):2", "line 1: series with time stamps are not supported"),
            ("@classLabel false\n", "line 1: the series have no targets"),
            ("@data\n1,2,3\n", "line 2: expected numbers, `:` and a target"),
            ("@data\n1,x:a\n", "line 2: expected a number, got `x`"),
            ("@data\n1,inf:a\n", "line 2: expected a number, got `inf`"),
            ("@data\n:a\n", "line 2: expected a number, got ``"),
            ("@data\n1,2:a\n1:a\n", "line 3: a series of 1 numbers, the first has 2"),
            ("@data\n1:2,3:a\n", "line 2: a series of 2 numbers, the first has 1"),
            ("@data\n1:a\n1:2:a\n", "line 3: 2 channels, the first series has 1"),
        ] {
            assert!(message(text).contains(expected), "{}", message(text));
        }
        let file = open("@classLabel true a b\n@data\n1:a\n2:c\n").unwrap();
        assert!(file.labels().unwrap_err().to_string().contains("line 4: the header names no class `c`"));
        assert!(file.by_number().unwrap_err().to_string().contains("line 3: expected a number as target, got `a`"));
        assert!(SeriesFile::open("no such file").is_err());
    }
}
