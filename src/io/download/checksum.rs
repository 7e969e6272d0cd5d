//! Checksums that decide whether a download counts.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::io::gzip::GzipReader;

/// The hash that a downloaded file must have, in hexadecimal digits of either case.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Checksum {
    /// The sha256 of the file.
    File {
        /// 64 digits, or the first ones of them, which are then all that is compared; at least one.
        sha256: String,
    },
    /// The sha256 of what the file unpacks to, for gzip files of which there are several
    /// compressions.
    Unpacked {
        /// 64 digits.
        sha256: String,
        /// The number of bytes it unpacks to.
        length: u64,
    },
    /// The name that git gives the file, which the Hugging Face hub uses for small ones.
    #[cfg(feature = "hub")]
    GitBlob {
        /// 40 digits.
        sha1: String,
    },
}

impl Checksum {
    /// Returns what is wrong with a file, `None` when it is right.
    pub(crate) fn problem_of(&self, path: &Path) -> Result<Option<String>> {
        let kind = fs::metadata(path).map_err(Error::io(path))?.file_type();
        if !kind.is_file() {
            let found = if kind.is_dir() { "a directory" } else { "a device or a pipe" };
            return Err(Error::format(path, format!("expected a file or nothing here, this is {found}")));
        }
        self.problem(&mut File::open(path).map_err(Error::io(path))?, path)
    }

    pub(crate) fn problem(&self, file: &mut File, path: &Path) -> Result<Option<String>> {
        file.rewind().map_err(Error::io(path))?;
        let (name, wanted) = match self {
            Checksum::File { sha256 } | Checksum::Unpacked { sha256, .. } => ("sha256", sha256),
            #[cfg(feature = "hub")]
            Checksum::GitBlob { sha1 } => ("sha1 as a git blob", sha1),
        };
        let hashed = match self {
            Checksum::File { .. } => hash(Sha256::new(), file, u64::MAX),
            Checksum::Unpacked { length, .. } => {
                let mut magic = [0; 2];
                let packed = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
                file.rewind().map_err(Error::io(path))?;
                // One byte more than there should be shows a longer file without reading it all.
                let most = length.saturating_add(1);
                if packed { hash(Sha256::new(), GzipReader::new(BufReader::new(file)), most) } else { hash(Sha256::new(), file, most) }
            }
            #[cfg(feature = "hub")]
            Checksum::GitBlob { .. } => {
                let length = file.metadata().map_err(Error::io(path))?.len();
                hash(sha1::Sha1::new_with_prefix(format!("blob {length}\0")), file, u64::MAX)
            }
        };
        let found = match (hashed, self) {
            (Err(error), _) if error.raw_os_error().is_some() => return Err(Error::io(path)(error)),
            (Err(error), _) => return Ok(Some(format!("it does not unpack: {error}"))),
            (Ok((_, bytes)), Checksum::Unpacked { length, .. }) if bytes != *length => {
                let found = if bytes > *length { "more".to_string() } else { bytes.to_string() };
                return Ok(Some(format!("it unpacks to {found}, not to {length} bytes")));
            }
            (Ok((found, _)), _) => found,
        };
        // The first digits of a sha256 are enough, as torchvision publishes them.
        let is_file = matches!(self, Checksum::File { .. });
        let compared = if is_file && !wanted.is_empty() { found.get(..wanted.len()).unwrap_or(&found) } else { &found };
        Ok((!compared.eq_ignore_ascii_case(wanted)).then(|| format!("its {name} is {found}, expected {wanted}")))
    }
}

/// Returns the digest and the number of the first `most` bytes.
fn hash(mut hasher: impl Digest, reader: impl Read, most: u64) -> io::Result<(String, u64)> {
    let (mut bytes, mut reader) = (0, reader.take(most));
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                bytes += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect(), bytes))
}
