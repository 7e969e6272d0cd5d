//! A reader of tar archives (POSIX ustar), entry by entry, without seeking.

use std::io::{self, Read};

const BLOCK: usize = 512;

/// An archive that is read from its start. An entry's content has to be read or skipped before the
/// next one.
pub(crate) struct Tar<R> {
    inner: R,
    /// The bytes of the current entry that have not been read, its filling included.
    left: u64,
}

/// A regular file in an archive.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) size: u64,
}

impl<R: Read> Tar<R> {
    pub(crate) fn new(inner: R) -> Tar<R> {
        Tar { inner, left: 0 }
    }

    /// Returns the next regular file, `None` at the end of the archive.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        loop {
            if io::copy(&mut (&mut self.inner).take(self.left), &mut io::sink())? != self.left {
                return Err(truncated());
            }
            self.left = 0;
            // Not `read_exact`, whose error at the end is also that of a decoder whose stream is
            // cut.
            let mut block = Vec::with_capacity(BLOCK);
            (&mut self.inner).take(BLOCK as u64).read_to_end(&mut block)?;
            if block.is_empty() {
                // Some writers leave out the two blocks of zeros.
                return Ok(None);
            }
            let header: [u8; BLOCK] = block.try_into().map_err(|_| truncated())?;
            if header == [0; BLOCK] {
                // Reading on to the end also makes a decoder check its checksum.
                io::copy(&mut self.inner, &mut io::sink())?;
                return Ok(None);
            }
            let size = size_in(&header)?;
            self.left = size.checked_next_multiple_of(BLOCK as u64).ok_or_else(damaged)?;
            if matches!(header[156], b'0' | 0) {
                return Ok(Some(Entry { name: name_in(&header), size }));
            }
        }
    }

    /// Reads the content of the current entry; the vector grows with the data.
    pub(crate) fn content(&mut self, entry: &Entry) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        (&mut self.inner).take(entry.size).read_to_end(&mut content)?;
        if content.len() as u64 != entry.size {
            return Err(truncated());
        }
        self.left -= entry.size;
        Ok(content)
    }
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends early")
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a tar archive, or a damaged one")
}

/// Returns the size in a header whose checksum is right.
fn size_in(header: &[u8; BLOCK]) -> io::Result<u64> {
    let blank = |(i, &byte): (usize, &u8)| if (148..156).contains(&i) { u64::from(b' ') } else { u64::from(byte) };
    let sum: u64 = header.iter().enumerate().map(blank).sum();
    if octal(&header[148..156]) != Some(sum) {
        return Err(damaged());
    }
    octal(&header[124..136]).ok_or_else(damaged)
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches([' ', '\0']), 8).ok()
}

fn name_in(header: &[u8; BLOCK]) -> String {
    let text = |field: &[u8]| String::from_utf8_lossy(field.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned();
    let (prefix, name) = (text(&header[345..500]), text(&header[..100]));
    if &header[257..262] == b"ustar" && header[262] == 0 && !prefix.is_empty() { format!("{prefix}/{name}") } else { name }
}
