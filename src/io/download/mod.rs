//! Downloads over HTTP, with checksums and limits, that trust neither servers nor the network.
//!
//! A file is written to `NAME.part` beside its target, and renamed only when its checksum is right:
//! a file with the final name is whole. An interrupted transfer continues where it stopped, at the
//! next attempt or the next run; a partial file that does not fit is discarded. Mirrors are tried
//! in turn.

mod checksum;
mod transfer;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use checksum::Checksum;
pub(crate) use transfer::failure;

use super::atomic_file::{end_of_links, folder_of, sync_and_rename};
use crate::error::{Error, Result};

/// The number of times that a mirror which breaks off, having sent something, is asked to continue.
const RESUMPTIONS: usize = 3;

/// A download of one file, from the first of several addresses that gives the right content.
///
/// ```
/// use convnet::data::{Checksum, Download};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(&folder).unwrap();
/// # std::fs::write("classes.txt", "abc").unwrap(); // so that no server is asked
/// let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".into();
/// let download = Download::new(["https://example.org/classes.txt", "https://mirror.example.org/classes.txt"], Checksum::File { sha256 });
/// download.size_limit(1 << 20).to("classes.txt")?; // at once, if it is there already
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Download {
    urls: Vec<String>,
    checksum: Checksum,
    pub(crate) limits: Limits,
}

/// Limits on what a server may send and how long it may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The most bytes to accept.
    pub(crate) size: u64,
    /// How long to wait for a connection.
    pub(crate) connect: Duration,
    /// How long to wait for the next bytes.
    pub(crate) stall: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { size: 1 << 30, connect: Duration::from_secs(15), stall: Duration::from_secs(30) }
    }
}

/// The setters of a type with `limits`.
macro_rules! limit_setters {
    () => {
        /// Sets the most bytes to accept; 1 GiB by default.
        pub fn size_limit(mut self, bytes: u64) -> Self {
            self.limits.size = bytes;
            self
        }

        /// Sets how long to wait for a connection; 15 s by default.
        pub fn connect_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.limits.connect = timeout;
            self
        }

        /// Sets how long to wait for the next bytes; 30 s by default.
        pub fn stall_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.limits.stall = timeout;
            self
        }
    };
}
#[cfg(feature = "hub")]
pub(crate) use limit_setters;

impl Download {
    /// Makes a download from these addresses, tried in order.
    pub fn new<U: Into<String>>(urls: impl IntoIterator<Item = U>, checksum: Checksum) -> Download {
        Download { urls: urls.into_iter().map(U::into).collect(), checksum, limits: Limits::default() }
    }

    limit_setters!();

    /// Fetches the file to `path`, unless `path` already has the right content. Makes the directory
    /// when there is none.
    ///
    /// # Errors
    /// [`Error::Download`] when no address gives the right content; the message says why for each.
    /// A transfer that was cut off leaves `path` with `.part` appended, where the next call
    /// continues. [`Error::Io`] when the file cannot be written, [`Error::Format`] when `path` is a
    /// directory, [`Error::Argument`] without addresses.
    pub fn to(&self, path: impl AsRef<Path>) -> Result<()> {
        // A symbolic link is kept: the file that it points to is written.
        let path = &end_of_links(path.as_ref()).map_err(Error::io(path.as_ref()))?;
        if self.is_done(path)? {
            return Ok(());
        }
        if self.urls.is_empty() {
            return Err(Error::argument("download", format!("no address to fetch {} from", path.display())));
        }
        let directory = folder_of(path);
        fs::create_dir_all(directory).map_err(Error::io(directory))?;
        let mut part = Part::open(path)?;
        // Another process may have finished, and renamed the opened file, before this one had the
        // lock.
        if self.is_done(path)? {
            let _ = fs::remove_file(&part.path);
            return Ok(());
        }
        self.fill(&mut part)?;
        sync_and_rename(&part.file, &part.path, path).map_err(Error::io(path))
    }

    fn is_done(&self, path: &Path) -> Result<bool> {
        Ok(path.exists() && self.checksum.problem_of(path)?.is_none())
    }

    /// Completes the partial file from the first mirror that can.
    fn fill(&self, part: &mut Part) -> Result<()> {
        if part.length()? > 0 && self.checksum.problem(&mut part.file, &part.path)?.is_none() {
            return Ok(());
        }
        let mut failures = Vec::new();
        for url in &self.urls {
            match self.fill_from(url, part) {
                Err(Error::Download { url, message }) => failures.push((url, message)),
                other => return other,
            }
        }
        let (url, mut message) = failures.swap_remove(0);
        failures.iter().for_each(|(url, other)| message += &format!("; {url}: {other}"));
        Err(Error::Download { url, message })
    }

    fn fill_from(&self, url: &str, part: &mut Part) -> Result<()> {
        let mut resumptions = 0;
        loop {
            let before = part.length()?;
            match self.transfer(url, part) {
                Ok(()) => {
                    let Some(problem) = self.checksum.problem(&mut part.file, &part.path)? else { return Ok(()) };
                    part.clear()?;
                    // The earlier part may be wrong: try once more from the start.
                    if before == 0 {
                        return Err(failure(url, format!("not the published file: {problem}")));
                    }
                }
                Err(error @ Error::Download { .. }) => {
                    resumptions += 1;
                    if part.length()? <= before || resumptions > RESUMPTIONS {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The partial file, locked against other processes.
pub(crate) struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    fn open(target: &Path) -> Result<Part> {
        let mut path = target.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(Error::io(&path))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let message = "another process is downloading this file";
                Err(Error::io(&path)(io::Error::new(io::ErrorKind::WouldBlock, message)))
            }
            // Without locks, the checksum still protects the result.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Part { path, file }),
        }
    }

    fn length(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(Error::io(&self.path))?.len())
    }

    fn clear(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(Error::io(&self.path))
    }
}

impl Drop for Part {
    /// Removes a file without progress. (After the renaming there is none of this name.)
    fn drop(&mut self) {
        if self.length().is_ok_and(|length| length == 0) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
