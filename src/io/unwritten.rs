//! What to do about files that cannot be written.

use std::io::ErrorKind;

use crate::error::Error;

/// Adds what failed, and what to do about it, to the error of writing a file.
pub(crate) fn unwritten(what: &str, error: Error) -> Error {
    let kind = match &error {
        Error::Io { source, .. } => source.kind(),
        _ => ErrorKind::Other,
    };
    let advice = match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "; free space there or choose another disk, then resume from the last checkpoint"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => "; choose a folder that this user may write to",
        ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::AlreadyExists => {
            "; another file or folder is in its place: choose another name"
        }
        _ => "",
    };
    Error::Context { context: format!("{what}{advice}"), source: Box::new(error) }
}
