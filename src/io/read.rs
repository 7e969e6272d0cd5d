//! Reads of whole files.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Error, Result};

/// Returns the content of a regular file, of which no more is read than its size.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let metadata = fs::metadata(path).map_err(Error::io(path))?;
    if metadata.is_dir() {
        return Err(Error::io(path)(io::Error::new(io::ErrorKind::IsADirectory, "is a directory, not a file")));
    }
    if !metadata.is_file() {
        return Err(Error::io(path)(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file")));
    }
    let length = usize::try_from(metadata.len()).map_err(|_| Error::format(path, "is larger than memory"))?;
    let mut bytes = vec![];
    bytes.try_reserve_exact(length).map_err(|_| Error::format(path, format!("its {length} bytes do not fit into memory")))?;
    File::open(path).and_then(|file| file.take(metadata.len()).read_to_end(&mut bytes)).map_err(Error::io(path))?;
    Ok(bytes)
}
