//! A limit on the memory that a file makes this process allocate.

use crate::error::short;

/// A result whose error lacks the path, which the caller adds.
pub(crate) type Parsed<T> = Result<T, String>;

/// Eight bytes for each byte of the file: the widest conversion is from `int8` to `i64`.
const PER_BYTE: usize = 8;

/// The bytes granted to any file in addition, for files that compress or repeat well.
const CONSTANT: usize = 64 << 20;

/// The bytes that a file may still make this process allocate.
///
/// Compressed entries, overlapping views, expanded (stride 0) tensors and pickles that mention one
/// object a million times are all ways in which a small file asks for much memory. Every allocation
/// whose size comes from a file is taken from here first.
pub(crate) struct AllocLimit {
    left: usize,
    file: usize,
    /// The other files whose bytes have been granted.
    #[cfg(feature = "onnx")]
    beside: std::collections::HashSet<std::path::PathBuf>,
}

impl AllocLimit {
    /// Makes the limit for a file of this many bytes.
    pub(crate) fn new(file: usize) -> AllocLimit {
        AllocLimit {
            left: file.saturating_mul(PER_BYTE).saturating_add(CONSTANT),
            file,
            #[cfg(feature = "onnx")]
            beside: Default::default(),
        }
    }

    /// Takes bytes from the limit; fails when less is left.
    pub(crate) fn take(&mut self, bytes: usize) -> Parsed<()> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(format!("asks for more memory than its {} bytes justify; it is damaged or hostile", self.file)),
        }
    }

    /// Adds what another file of this many bytes justifies, however often it is read.
    #[cfg(feature = "onnx")]
    pub(crate) fn add_file(&mut self, path: std::path::PathBuf, length: u64) {
        if self.beside.insert(path) {
            self.left = self.left.saturating_add(usize::try_from(length).unwrap_or(usize::MAX).saturating_mul(PER_BYTE));
        }
    }

    /// Gives back bytes that were freed.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        self.left = self.left.saturating_add(bytes);
    }
}

/// Formats a name from a file for a message: in quotes, escaped, no longer than a line.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", short(name))
}
