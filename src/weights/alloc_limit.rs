//! How much memory a file may ask for.

use crate::error::short;

/// What went wrong, without the path that the caller adds.
pub(crate) type Parsed<T> = Result<T, String>;

/// Eight bytes for each byte of the file: the widest conversion is from `int8` to `i64`.
const PER_BYTE: usize = 8;

/// What any file may have on top, for what compresses or repeats well.
const CONSTANT: usize = 64 << 20;

/// Bytes that a file may still make this process allocate.
///
/// Compressed entries, overlapping views, expanded (stride 0) tensors and pickles that mention one
/// object a million times are all ways in which a small file asks for much memory. Whatever is
/// allocated on a file's word is taken from here first.
pub(crate) struct AllocLimit {
    left: usize,
    file: usize,
}

impl AllocLimit {
    /// For a file of this many bytes.
    pub(crate) fn new(file: usize) -> AllocLimit {
        AllocLimit { left: file.saturating_mul(PER_BYTE).saturating_add(CONSTANT), file }
    }

    /// Fails when less is left.
    pub(crate) fn take(&mut self, bytes: usize) -> Parsed<()> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(format!("asks for more memory than its {} bytes justify; it is damaged or hostile", self.file)),
        }
    }

    /// Returns what has been freed.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        self.left = self.left.saturating_add(bytes);
    }
}

/// A name from a file for a message: in quotes, escaped, no longer than a line.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", short(name))
}
