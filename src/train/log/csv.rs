//! Logs as tables of comma-separated values (RFC 4180).

use std::path::PathBuf;

use super::record_file::{Format, Record, RecordFile, records};
use super::{LogValue, Logger, named_texts_and_scalars};
use crate::error::Result;

const FORMAT: Format = Format { name: "table of values by step", start: b"step,", split };

/// A log as a table of comma-separated values (RFC 4180): a row for each call of
/// [`log`](Logger::log), a column `step` and one for each name.
///
/// Numbers have all their digits; `NaN`, `inf` and `-inf` are written so, as `pandas` and `NumPy`
/// read them. A name that comes up later gets a column on the right, empty in the rows before; the
/// file is then replaced atomically. Scalars and texts are written; images and histograms are left
/// out.
///
/// A file that exists is continued by [`log`](Logger::log); the end of a row that a killed process
/// did not complete is removed. A [`Trainer`](crate::train::Trainer) rewinds it first: to its
/// checkpoint, or to nothing when the run starts anew.
///
/// ```
/// use convnet::train::{CsvLog, LogValue, Logger};
///
/// # let dir = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(&dir).unwrap();
/// let mut log = CsvLog::new("runs/cifar/log.csv");
/// log.log(1, &[("train/loss", LogValue::Scalar(2.3))])?;
/// log.log(2, &[("train/loss", LogValue::Scalar(2.25)), ("valid/accuracy", LogValue::Scalar(0.125))])?;
/// let table = std::fs::read_to_string("runs/cifar/log.csv").unwrap();
/// assert_eq!(table, "step,train/loss,valid/accuracy\r\n1,2.3,\r\n2,2.25,0.125\r\n");
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct CsvLog {
    file: RecordFile,
    /// The names of the columns after `step`.
    columns: Vec<String>,
}

impl CsvLog {
    /// Logs to this file, which is created with the first values, as are the folders above it.
    pub fn new(path: impl Into<PathBuf>) -> CsvLog {
        CsvLog { file: RecordFile::new(path.into(), FORMAT), columns: Vec::new() }
    }

    /// Adds columns to the rows that are there.
    fn widen(&mut self, names: Vec<String>) -> Result<()> {
        let bytes = self.file.open()?;
        let mut added = String::new();
        for name in &names {
            added.push(',');
            push_field(&mut added, name);
        }
        let mut table = Vec::new();
        for (i, (at, record)) in records(FORMAT, &bytes).enumerate() {
            let row = &bytes[at..at + record.length];
            table.extend_from_slice(row.strip_suffix(b"\r\n").or(row.strip_suffix(b"\n")).unwrap_or(row));
            let more = if i == 0 { added.clone() } else { ",".repeat(names.len()) };
            table.extend_from_slice(more.as_bytes());
            table.extend_from_slice(b"\r\n");
        }
        if table.is_empty() {
            self.file.append(format!("step{added}\r\n").as_bytes())?;
        } else {
            self.file.replace(&table)?;
        }
        self.columns.extend(names);
        Ok(())
    }

    fn read_columns(&mut self, bytes: &[u8]) {
        self.columns = match records(FORMAT, bytes).next() {
            Some((_, header)) => fields(&bytes[..header.length]).skip(1).collect(),
            None => Vec::new(),
        };
    }
}

impl Logger for CsvLog {
    fn log(&mut self, step: u64, values: &[(&str, LogValue<'_>)]) -> Result<()> {
        if !self.file.is_open() {
            let bytes = self.file.open()?;
            self.read_columns(&bytes);
        }
        let values = named_texts_and_scalars(values, &["step"])?;
        if values.is_empty() {
            return Ok(());
        }
        let is_new = |name: &&str| !self.columns.iter().any(|column| column == name);
        let new: Vec<String> = values.iter().map(|(name, _)| *name).filter(is_new).map(str::to_string).collect();
        if !new.is_empty() {
            self.widen(new)?;
        }
        let mut row = step.to_string();
        for column in &self.columns {
            row.push(',');
            match values.iter().find(|(name, _)| name == column) {
                Some((_, LogValue::Scalar(value))) => row.push_str(&format!("{value:?}")),
                Some((_, LogValue::Text(text))) => push_field(&mut row, text),
                _ => {}
            }
        }
        row.push_str("\r\n");
        self.file.append(row.as_bytes())
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush()
    }

    fn rewind(&mut self, step: u64) -> Result<()> {
        let bytes = self.file.rewind(step)?;
        self.read_columns(&bytes);
        Ok(())
    }
}

/// Appends a field, in quotes where RFC 4180 wants them.
fn push_field(row: &mut String, text: &str) {
    // A text with spaces around it is quoted as well: some readers trim it otherwise.
    if text.contains([',', '"', '\r', '\n']) || text.trim() != text {
        row.push('"');
        row.push_str(&text.replace('"', "\"\""));
        row.push('"');
    } else {
        row.push_str(text);
    }
}

/// Finds the end of the first row: a line feed outside of quotes.
fn split(bytes: &[u8]) -> Option<Record> {
    let mut quoted = false;
    let end = bytes.iter().position(|&byte| {
        quoted ^= byte == b'"';
        byte == b'\n' && !quoted
    })?;
    let step = bytes.split(|&byte| byte == b',').next().and_then(|step| std::str::from_utf8(step).ok()?.trim().parse().ok());
    Some(Record { length: end + 1, step })
}

/// Returns the fields of a row.
fn fields(row: &[u8]) -> impl Iterator<Item = String> {
    let row = row.strip_suffix(b"\r\n").or(row.strip_suffix(b"\n")).unwrap_or(row);
    let mut quoted = false;
    row.split(move |&byte| {
        quoted ^= byte == b'"';
        byte == b',' && !quoted
    })
    .map(|field| {
        let field = String::from_utf8_lossy(field);
        match field.strip_prefix('"').and_then(|field| field.strip_suffix('"')) {
            Some(quoted) => quoted.replace("\"\"", "\""),
            None => field.into_owned(),
        }
    })
}
