//! Writing whole files.

use std::fs;
use std::path::Path;

use super::atomic_file::{folder_of, write_atomically};
use super::unwritten;
use crate::error::{Error, Result};

/// Writes a file, atomically; its folder is created where it is missing.
///
/// # Errors
/// [`Error::Io`] after `what` failed, with advice.
pub(crate) fn write_file(path: &Path, what: &str, content: &[u8]) -> Result<()> {
    let folder = folder_of(path);
    let created = fs::create_dir_all(folder).map_err(Error::io(folder));
    let written = created.and_then(|()| write_atomically(path, |out| out.write_all(content)));
    written.map_err(|error| unwritten(what, error))
}
