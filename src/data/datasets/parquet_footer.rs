//! The footer of a Parquet file, checked before the crate `parquet` decodes it: the crate reserves
//! memory for as many items as a list claims, and recurses as deeply as the schema is nested.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::{Error, Result};

/// The greatest footer that is read: those of files with 100 000 row groups are smaller.
const LARGEST: u64 = 256 << 20;
/// The most columns and groups of a schema; its depth, that of a recursion, is no greater.
const MOST_SCHEMA_ELEMENTS: usize = 1000;
/// The depth of the values of a footer is 6 in the format's definition.
const DEEPEST: usize = 16;
/// The number of the field of a footer that holds the schema.
const SCHEMA: i64 = 2;

/// Returns the metadata at the end of a file, whose lists are no longer than their bytes, and the
/// file's length.
pub(super) fn read(path: &Path) -> Result<(Vec<u8>, u64)> {
    let wrong = |message: &str| Error::format(path, message);
    let mut file = File::open(path).map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    let mut end = [0; 8];
    if length < 12 {
        return Err(wrong("not a Parquet file: it has fewer than 12 bytes"));
    }
    file.seek(SeekFrom::Start(length - 8)).and_then(|_| file.read_exact(&mut end)).map_err(Error::io(path))?;
    let [a, b, c, d, magic @ ..] = end;
    if magic != *b"PAR1" {
        return Err(wrong("not a Parquet file, or a truncated or encrypted one: it does not end with `PAR1`"));
    }
    let size = u64::from(u32::from_le_bytes([a, b, c, d]));
    if size > length - 12 || size > LARGEST {
        return Err(wrong("the footer of the Parquet file claims more bytes than there are, or more than 256 MiB"));
    }
    let mut footer = vec![0; size as usize];
    file.seek(SeekFrom::Start(length - 8 - size)).and_then(|_| file.read_exact(&mut footer)).map_err(Error::io(path))?;
    Checker { rest: &footer }.structure(0).ok_or_else(|| wrong("the footer of the Parquet file is damaged"))?;
    Ok((footer, length))
}

/// Walks over values of Thrift's compact protocol
/// (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>).
pub(super) struct Checker<'a> {
    pub(super) rest: &'a [u8],
}

impl Checker<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn skip(&mut self, count: u64) -> Option<()> {
        self.rest = self.rest.get(usize::try_from(count).ok()?..)?;
        Some(())
    }

    /// Returns a number of 16 to 64 bits.
    pub(super) fn number(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Walks over a structure. `visit` gets the number and the kind of each field, and returns
    /// whether it has read the value.
    pub(super) fn fields(&mut self, depth: usize, visit: &mut dyn FnMut(&mut Self, i64, u8) -> Option<bool>) -> Option<()> {
        let mut field = 0i64;
        loop {
            let header = self.byte()?;
            if header == 0 {
                return Some(());
            }
            field = match header >> 4 {
                0 => self.number()?,
                step => field.checked_add(i64::from(step))?,
            };
            // A field's boolean is in its kind.
            if !visit(self, field, header & 15)? && !matches!(header & 15, 1 | 2) {
                let most = if depth == 0 && field == SCHEMA { MOST_SCHEMA_ELEMENTS } else { usize::MAX };
                self.value(header & 15, depth, most)?;
            }
        }
    }

    fn structure(&mut self, depth: usize) -> Option<()> {
        self.fields(depth, &mut |_, _, _| Some(false))
    }

    fn value(&mut self, kind: u8, depth: usize, most: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        match kind {
            1..=3 => self.skip(1),
            4..=6 => self.varint().map(|_| ()),
            7 => self.skip(8),
            8 => {
                let length = self.varint()?;
                self.skip(length)
            }
            9 | 10 => {
                let header = self.byte()?;
                let count = if header >> 4 == 15 { self.varint()? } else { u64::from(header >> 4) };
                if count > self.rest.len().min(most) as u64 {
                    return None;
                }
                (0..count).try_for_each(|_| self.value(header & 15, depth + 1, usize::MAX))
            }
            12 => self.structure(depth + 1),
            // The format has no maps.
            _ => None,
        }
    }
}
