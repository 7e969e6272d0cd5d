//! Reads of whole files.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Error, Result};

/// Returns the content of a regular file, of which no more is read than its size.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    read_start(path, u64::MAX)
}

/// Returns the first bytes of a regular file, at most this number of them.
pub(crate) fn read_start(path: &Path, most: u64) -> Result<Vec<u8>> {
    let metadata = fs::metadata(path).map_err(Error::io(path))?;
    if metadata.is_dir() {
        return Err(Error::io(path)(io::Error::new(io::ErrorKind::IsADirectory, "is a directory, not a file")));
    }
    if !metadata.is_file() {
        return Err(Error::io(path)(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file")));
    }
    let most = metadata.len().min(most);
    let length = usize::try_from(most).map_err(|_| Error::format(path, "is larger than memory"))?;
    let mut bytes = vec![];
    bytes.try_reserve_exact(length).map_err(|_| Error::format(path, format!("its {length} bytes do not fit into memory")))?;
    File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)).map_err(Error::io(path))?;
    Ok(bytes)
}
