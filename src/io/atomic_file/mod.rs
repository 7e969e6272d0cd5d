//! Atomic file replacement: write to a temporary file, fsync, rename.
//!
//! The temporary file is beside its target. Its name is random and it is created exclusively, so
//! that two writers never share one, not even in containers with equal process numbers. A writer
//! holds the system's advisory lock on its temporary file, which ends with the process: a temporary
//! file that can be locked is a leftover of a killed writer, and the next save to the same target
//! removes it. A file system without locks keeps its leftovers.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The number of random names to try, and of symbolic links to follow.
const ATTEMPTS: usize = 40;

/// The capacity of the buffer before the file.
const BUFFER: usize = 1 << 20;

/// Writes a file beside `path`, syncs it and renames it over `path`; a crash, or an error from
/// `write`, leaves what was there before.
///
/// The new file has the old one's permissions (and owner, where the system lets the process set
/// it). A symbolic link is kept: the file that it points to is replaced, or created. A path that is
/// neither a file nor a directory, such as `/dev/null` or a named pipe, is written to.
///
/// # Errors
/// [`Error::Io`] with the path when the file cannot be written.
pub(crate) fn write_atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let written = match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory, not a file")),
        Ok(found) if !found.is_file() => write_into(path, write),
        Ok(found) => end_of_links(path).and_then(|target| replace(&target, Some(&found), write)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => end_of_links(path).and_then(|target| replace(&target, None, write)),
        Err(error) => Err(error),
    };
    written.map_err(Error::io(path))
}

/// Writes into a device, a named pipe or a terminal.
fn write_into(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER, File::options().write(true).open(path)?);
    write(&mut out)?;
    out.flush()
}

/// Returns the path that symbolic links lead to, whether there is a file or not; `path` itself when
/// it is no link.
pub(crate) fn end_of_links(path: &Path) -> io::Result<PathBuf> {
    let mut end = path.to_path_buf();
    for _ in 0..ATTEMPTS {
        match fs::read_link(&end) {
            Ok(next) => end = folder_of(&end).join(next),
            Err(_) => return Ok(end),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

/// Returns the folder of a file, `.` when the path has none.
pub(crate) fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn replace(target: &Path, old: Option<&Metadata>, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let prefix = temporary_prefix(target)?;
    remove_leftovers(folder_of(target), |name| is_temporary(name, &prefix));
    let temporary = Temporary::create(folder_of(target), &prefix)?;
    if let Some(old) = old {
        // Before the first byte: content that only the owner may read is at no time readable by
        // others.
        keep_permissions(&temporary.file, old)?;
    }
    let mut out = BufWriter::with_capacity(BUFFER, &temporary.file);
    write(&mut out)?;
    out.flush()?;
    drop(out);
    temporary.rename(target)
}

/// Syncs a file, renames it and syncs its folder: after a crash at any instant, `to` is the old
/// file or the whole new one. A system that cannot sync folders may lose the new name in a crash.
pub(crate) fn sync_and_rename(file: &File, from: &Path, to: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(from, to)?;
    let _ = File::open(folder_of(to)).and_then(|folder| folder.sync_all());
    Ok(())
}

#[cfg(unix)]
fn keep_permissions(file: &File, old: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        // Only root may give files away; others may at least keep a group that they belong to.
        let _ = fchown(file, Some(old.uid()), Some(old.gid())).or_else(|_| fchown(file, None, Some(old.gid())));
    }
    if new.mode() == old.mode() { Ok(()) } else { file.set_permissions(old.permissions()) }
}

#[cfg(not(unix))]
fn keep_permissions(_file: &File, _old: &Metadata) -> io::Result<()> {
    Ok(())
}

/// Returns the start of the names of all temporary files of a target: the target's name, shortened
/// so that a file system takes the whole name.
fn temporary_prefix(target: &Path) -> io::Result<String> {
    let name = target.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file"))?;
    Ok(format!(".{}.", name.to_string_lossy().chars().take(48).collect::<String>()))
}

/// Returns whether a name is one that [`Temporary::create`] gives.
fn is_temporary(name: &str, prefix: &str) -> bool {
    let digits = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(".tmp"));
    digits.is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')))
}

/// Removes the temporary files that killed writers of such targets have left in a folder. Files
/// that are still being written are kept. `is_target` gets the first 48 characters of a target's
/// name.
pub(crate) fn remove_leftovers_of(folder: &Path, is_target: impl Fn(&str) -> bool) {
    let target = |name: &str| Some(name.strip_prefix('.')?.strip_suffix(".tmp")?.rsplit_once('.')?.0.to_string());
    remove_leftovers(folder, |name| target(name).is_some_and(|target| is_temporary(name, &format!(".{target}.")) && is_target(&target)));
}

/// Removes the temporary files of killed writers. Files that cannot be opened or locked are kept.
fn remove_leftovers(folder: &Path, is_temporary: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || !entry.file_name().to_str().is_some_and(&is_temporary) {
            continue;
        }
        let path = entry.path();
        // Some network file systems lock only files that are open for writing; a read-only file
        // opens only for reading.
        let opened = File::options().write(true).open(&path).or_else(|_| File::open(&path));
        if let Ok(file) = opened
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(&path);
        }
    }
}

/// A locked file with a unique name, removed on drop unless it was renamed.
struct Temporary {
    path: PathBuf,
    file: File,
    renamed: bool,
}

impl Temporary {
    fn create(folder: &Path, prefix: &str) -> io::Result<Temporary> {
        for _ in 0..ATTEMPTS {
            let path = folder.join(format!("{prefix}{:016x}.tmp", rand::random::<u64>()));
            let file = match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            };
            // Between creation and lock, another writer may take the file for a leftover: it holds
            // the lock then, or has removed the file.
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => continue,
                Ok(()) | Err(TryLockError::Error(_)) => {}
            }
            let temporary = Temporary { path, file, renamed: false };
            if temporary.path.exists() {
                return Ok(temporary);
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "no free name for a temporary file beside it"))
    }

    fn rename(mut self, target: &Path) -> io::Result<()> {
        sync_and_rename(&self.file, &self.path, target)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests;
