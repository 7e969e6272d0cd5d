//! Files that grow record by record, of which a killed process leaves whole records.
//!
//! Each record is written by one call, so that only the end of the last one can be missing. What is
//! missing there is noticed by the format's own framing, and the rest of that record is removed
//! before the next one is written.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::io::atomic_file::{folder_of, write_atomically};
use crate::io::read_file;

/// The first record of some bytes.
pub(super) struct Record {
    /// Its number of bytes.
    pub(super) length: usize,
    /// The step that it was written for; `None` for headers.
    pub(super) step: Option<u64>,
}

/// How a file is divided into records.
#[derive(Clone, Copy)]
pub(super) struct Format {
    /// What such a file is called in messages.
    pub(super) name: &'static str,
    /// The bytes with which every such file begins.
    pub(super) start: &'static [u8],
    /// Finds the first record; `None` when it is not complete.
    pub(super) split: fn(&[u8]) -> Option<Record>,
}

/// A file of records, opened for the first one.
pub(super) struct RecordFile {
    path: PathBuf,
    format: Format,
    open: Option<Open>,
}

struct Open {
    file: File,
    /// The bytes of all whole records.
    length: u64,
}

impl RecordFile {
    pub(super) fn new(path: PathBuf, format: Format) -> RecordFile {
        RecordFile { path, format, open: None }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Opens the file, creates it and its folder where they are missing, removes a record that is
    /// not complete, and returns the content.
    pub(super) fn open(&mut self) -> Result<Vec<u8>> {
        let folder = folder_of(&self.path);
        fs::create_dir_all(folder).map_err(|error| unwritten(folder, error))?;
        let mut bytes = if self.path.exists() { read_file(&self.path)? } else { Vec::new() };
        self.check_start(&bytes)?;
        bytes.truncate(records(self.format, &bytes).map(|(at, record)| at + record.length).last().unwrap_or(0));
        let mut file =
            File::options().create(true).truncate(false).write(true).open(&self.path).map_err(|error| unwritten(&self.path, error))?;
        let length = bytes.len() as u64;
        file.set_len(length).and_then(|()| file.seek(SeekFrom::End(0))).map_err(|error| unwritten(&self.path, error))?;
        self.open = Some(Open { file, length });
        Ok(bytes)
    }

    /// Refuses a file of another kind, which would be destroyed.
    fn check_start(&self, bytes: &[u8]) -> Result<()> {
        let start = self.format.start;
        if bytes.starts_with(start) || start.starts_with(bytes) {
            return Ok(());
        }
        let message = format!("is not a {} that this crate wrote, and is left as it is: choose another name for the log", self.format.name);
        Err(Error::format(&self.path, message))
    }

    /// Appends whole records.
    pub(super) fn append(&mut self, records: &[u8]) -> Result<()> {
        if self.open.is_none() {
            self.open()?;
        }
        let Some(Open { file, length }) = &mut self.open else { unreachable!("has just been opened") };
        if let Err(error) = file.write_all(records) {
            // Removes the part that was written.
            let _ = file.set_len(*length).and_then(|()| file.seek(SeekFrom::End(0)));
            return Err(unwritten(&self.path, error));
        }
        *length += records.len() as u64;
        Ok(())
    }

    /// Returns once all records are on disk.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.open.iter().try_for_each(|open| open.file.sync_data()).map_err(|error| unwritten(&self.path, error))
    }

    /// Replaces the content, atomically.
    pub(super) fn replace(&mut self, records: &[u8]) -> Result<()> {
        self.open = None;
        write_atomically(&self.path, |out| out.write_all(records)).map_err(unwritten_file)?;
        self.open().map(drop)
    }

    /// Removes the records of steps after this one, all records when it is 0, and returns what is
    /// left.
    pub(super) fn rewind(&mut self, step: u64) -> Result<Vec<u8>> {
        self.open = None;
        let bytes = self.open()?;
        let mut kept = Vec::new();
        for (at, record) in records(self.format, &bytes) {
            if step > 0 && record.step.is_none_or(|of| of <= step) {
                kept.extend_from_slice(&bytes[at..at + record.length]);
            }
        }
        if kept.len() < bytes.len() {
            self.replace(&kept)?;
        }
        Ok(kept)
    }
}

/// Returns where each whole record starts, and the record.
pub(super) fn records(format: Format, bytes: &[u8]) -> impl Iterator<Item = (usize, Record)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let record = (format.split)(bytes.get(at..)?)?;
        at += record.length;
        Some((at - record.length, record))
    })
}

/// Returns the error for a log that cannot be written, with what to do about it.
pub(super) fn unwritten(path: &Path, error: io::Error) -> Error {
    unwritten_file(Error::io(path)(error))
}

fn unwritten_file(error: Error) -> Error {
    crate::io::unwritten("the log cannot be written; what was logged so far is whole", error)
}
