//! IDX files: the format of MNIST and its relatives.
//!
//! A file has two zero bytes, a byte for the element type, a byte for the number of dimensions,
//! each dimension as a big-endian `u32`, then the elements, big-endian, the last dimension
//! contiguous. Files may be compressed with gzip, which is recognised by the content.
//!
//! A file is not trusted: it must be exactly as long as its header says, and allocations are
//! bounded by a limit and by what the file can contain.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

use crate::error::{Error, Result};
use crate::io::gzip::GzipReader;
use crate::tensor::Tensor;
use crate::tensor::shape::try_numel;

/// The largest tensor that [`read`] makes: 1 GiB. MNIST's largest relative, EMNIST, has 0.64 GB.
pub const DEFAULT_LIMIT: u64 = 1 << 30;

/// The largest ratio by which a deflate stream expands.
const MOST_EXPANSION: u64 = 1032;

/// Reads an IDX file, plain or gzip, as a tensor of the shape its header gives.
///
/// Unsigned bytes become `u8`, `float` and `double` become `f32` and `f64`; signed bytes, shorts
/// and ints become `i64`.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read or memory does not suffice, [`Error::Format`] when it
/// is not an IDX file, has more or less data than its header says, does not decompress, or makes a
/// tensor of more than [`DEFAULT_LIMIT`].
pub fn read(path: impl AsRef<Path>) -> Result<Tensor> {
    read_with_limit(path, DEFAULT_LIMIT)
}

/// Reads an IDX file as [`read`] does, with another bound on the bytes of the tensor. A signed byte
/// becomes an `i64` and counts 8.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read or memory does not suffice, [`Error::Format`] when it
/// is not an IDX file, is damaged, or makes a tensor of more than `limit` bytes.
pub fn read_with_limit(path: impl AsRef<Path>, limit: u64) -> Result<Tensor> {
    let path = path.as_ref();
    let Raw { shape, element, data } = Raw::read(path, limit)?;
    match element {
        ElementType::U8 => Tensor::from_vec(data, shape),
        ElementType::I8 => Tensor::from_vec(numbers(path, &data, |[byte]| i64::from(i8::from_be_bytes([byte])))?, shape),
        ElementType::I16 => Tensor::from_vec(numbers(path, &data, |bytes| i64::from(i16::from_be_bytes(bytes)))?, shape),
        ElementType::I32 => Tensor::from_vec(numbers(path, &data, |bytes| i64::from(i32::from_be_bytes(bytes)))?, shape),
        ElementType::F32 => Tensor::from_vec(numbers(path, &data, f32::from_be_bytes)?, shape),
        ElementType::F64 => Tensor::from_vec(numbers(path, &data, f64::from_be_bytes)?, shape),
    }
}

fn numbers<const SIZE: usize, T>(path: &Path, data: &[u8], convert: impl Fn([u8; SIZE]) -> T) -> Result<Vec<T>> {
    let chunks = data.as_chunks().0;
    let mut numbers = Vec::new();
    numbers.try_reserve_exact(chunks.len()).map_err(|error| Error::io(path)(error.into()))?;
    numbers.extend(chunks.iter().map(|&bytes| convert(bytes)));
    Ok(numbers)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ElementType {
    U8,
    I8,
    I16,
    I32,
    F32,
    F64,
}

impl ElementType {
    fn from_code(code: u8) -> Option<ElementType> {
        Some(match code {
            0x08 => ElementType::U8,
            0x09 => ElementType::I8,
            0x0B => ElementType::I16,
            0x0C => ElementType::I32,
            0x0D => ElementType::F32,
            0x0E => ElementType::F64,
            _ => return None,
        })
    }

    /// Returns the number of bytes in the file.
    fn size(self) -> u64 {
        match self {
            ElementType::U8 | ElementType::I8 => 1,
            ElementType::I16 => 2,
            ElementType::I32 | ElementType::F32 => 4,
            ElementType::F64 => 8,
        }
    }

    /// Returns the number of bytes in the tensor, whose integers are `u8` or `i64`.
    fn size_in_memory(self) -> u64 {
        match self {
            ElementType::I8 | ElementType::I16 | ElementType::I32 => 8,
            ElementType::U8 | ElementType::F32 | ElementType::F64 => self.size(),
        }
    }
}

/// The content of a file, not yet converted.
pub(crate) struct Raw {
    pub(crate) shape: Vec<usize>,
    pub(crate) element: ElementType,
    pub(crate) data: Vec<u8>,
}

impl Raw {
    pub(crate) fn read(path: &Path, limit: u64) -> Result<Raw> {
        let wrong = |message: String| Error::format(path, message);
        let metadata = fs::metadata(path).map_err(Error::io(path))?;
        if !metadata.is_file() {
            // Checked before opening: opening a pipe would wait for its other end.
            let what = if metadata.is_dir() { "a directory" } else { "not a regular file" };
            return Err(wrong(format!("expected an IDX file, this is {what}")));
        }
        let mut file = File::open(path).map_err(Error::io(path))?;
        let mut magic = Vec::new();
        (&mut file).take(2).read_to_end(&mut magic).map_err(Error::io(path))?;
        let compressed = magic == [0x1f, 0x8b];
        let whole = io::Cursor::new(magic).chain(BufReader::with_capacity(64 * 1024, file));
        if compressed {
            let most = metadata.len().saturating_mul(MOST_EXPANSION);
            Raw::parse(path, &mut GzipReader::new(whole), limit, Length::AtMost(most))
        } else {
            Raw::parse(path, &mut { whole }, limit, Length::Exactly(metadata.len()))
        }
    }

    fn parse(path: &Path, reader: &mut impl Read, limit: u64, length: Length) -> Result<Raw> {
        let wrong = |message: String| Error::format(path, message);
        let mut start = [0; 4];
        read_header(path, reader, &mut start)?;
        let [0, 0, code, rank] = start else {
            return Err(wrong(format!("not an IDX file: it starts with {start:02x?}, not with two zero bytes")));
        };
        let Some(element) = ElementType::from_code(code) else {
            return Err(wrong(format!("not an IDX file: 0x{code:02x} is no element type (0x08, 0x09, 0x0b to 0x0e are)")));
        };
        let mut dims = vec![0; 4 * usize::from(rank)];
        read_header(path, reader, &mut dims)?;
        let shape: Vec<usize> = numbers(path, &dims, |bytes| u32::from_be_bytes(bytes) as usize)?;

        // The sizes besides a 0 are checked too: a sample of 2³² × 2³² cannot exist, not even in a
        // table of none.
        let sizes: Vec<usize> = shape.iter().copied().filter(|&size| size > 0).collect();
        let in_memory = try_numel(&sizes).and_then(|count| element.size_in_memory().checked_mul(count as u64));
        let Some(count) = try_numel(&shape).filter(|_| in_memory.is_some_and(|bytes| bytes <= limit)) else {
            let becomes = if element.size() == element.size_in_memory() { "" } else { " as i64" };
            return Err(wrong(format!("its header announces shape {shape:?}, which takes more than the limit of {limit} bytes{becomes}")));
        };
        let bytes = element.size() * count as u64;
        let header = 4 + dims.len() as u64;
        match length {
            Length::Exactly(length) if length != header + bytes => return Err(wrong(mismatch(&shape, bytes, length - header.min(length)))),
            Length::AtMost(most) if most < header + bytes => {
                return Err(wrong(format!(
                    "truncated: shape {shape:?} takes {bytes} bytes, a gzip file of this size holds at most {most}"
                )));
            }
            _ => {}
        }

        // The vector grows with the data: the header of a compressed file may promise any size.
        let mut data = Vec::new();
        if matches!(length, Length::Exactly(_)) {
            data.try_reserve_exact(bytes as usize).map_err(|error| Error::io(path)(error.into()))?;
        }
        reader.take(bytes).read_to_end(&mut data).map_err(read_error(path))?;
        if data.len() as u64 != bytes {
            return Err(wrong(mismatch(&shape, bytes, data.len() as u64)));
        }
        // Reading on to the end also makes the decoder check its checksum.
        if reader.read(&mut [0]).map_err(read_error(path))? != 0 {
            return Err(wrong(format!("oversized: it goes on after the {bytes} bytes of data that shape {shape:?} takes")));
        }
        data.shrink_to_fit();
        Ok(Raw { shape, element, data })
    }
}

/// What is known about the length of a file's content, header included, before it is read.
enum Length {
    Exactly(u64),
    AtMost(u64),
}

fn mismatch(shape: &[usize], wanted: u64, found: u64) -> String {
    let what = if found < wanted { "truncated" } else { "oversized" };
    format!("{what}: shape {shape:?} takes {wanted} bytes of data, the file has {found}")
}

fn read_header(path: &Path, reader: &mut impl Read, out: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    while filled < out.len() {
        match reader.read(&mut out[filled..]) {
            Ok(0) => return Err(Error::format(path, "truncated: the file ends within the IDX header")),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(path)(error)),
        }
    }
    Ok(())
}

/// Separates failures of the system, such as a lack of memory, from damage to the gzip stream.
fn read_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| match error.raw_os_error() {
        Some(_) => Error::io(path)(error),
        None if error.kind() == io::ErrorKind::OutOfMemory => Error::io(path)(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => Error::format(path, "truncated: the gzip stream ends early"),
        None => Error::format(path, format!("the gzip stream is damaged: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lack_of_memory_is_not_reported_as_damage() {
        let error = read_error(Path::new("train.gz"))(io::ErrorKind::OutOfMemory.into());
        assert!(matches!(&error, Error::Io { source, .. } if source.kind() == io::ErrorKind::OutOfMemory), "{error}");
        // The error of a vector that cannot grow.
        let error = read_error(Path::new("train.gz"))(Vec::<u8>::new().try_reserve(usize::MAX).unwrap_err().into());
        assert!(matches!(error, Error::Io { .. }), "{error}");
        let error = read_error(Path::new("train.gz"))(io::Error::new(io::ErrorKind::InvalidInput, "corrupt deflate stream"));
        assert!(matches!(error, Error::Format { .. }), "{error}");
    }
}
