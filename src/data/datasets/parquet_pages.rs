//! The pages of a column of a Parquet file, whose headers are checked before the crate `parquet`
//! acts on them: it reserves the memory that they claim.
//!
//! Read are the encodings and the compression that writers use by default. Others take more memory
//! than any header says: a gzip stream of a page may unfold to any length, the delta encodings of
//! texts repeat what comes before.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, Length};

use super::parquet_footer::Checker;

/// The most bytes of a page's header: it may hold the least and the greatest value of the page.
const LARGEST_HEADER: u64 = 64 << 10;
/// How many times as long as in the file the pages of a column may become; Snappy gets to 21.
const MOST_EXPANSION: u64 = 32;
/// What the pages of a column may take in any case, in bytes.
const ALWAYS_ALLOWED: u64 = 1 << 20;
/// Plain values, run lengths, and indices of a dictionary, by their numbers in the format.
const ENCODINGS: [i64; 5] = [0, 2, 3, 4, 8];

/// The part of a file that holds a column of a row group.
pub(super) struct Pages {
    shared: Arc<Shared>,
}

struct Shared {
    file: File,
    length: u64,
    end: u64,
    left: Mutex<Left>,
}

/// What further pages may claim.
struct Left {
    bytes: u64,
    values: u64,
    dictionary: u64,
}

impl Pages {
    /// Checks where a column of `rows` rows is.
    pub(super) fn new(file: File, chunk: &ColumnChunkMetaData, rows: usize) -> Result<Pages> {
        if !matches!(chunk.compression(), Compression::UNCOMPRESSED | Compression::SNAPPY) {
            let message = format!("the compression {} is not read; write the file with Snappy or without compression", chunk.compression());
            return Err(ParquetError::NYI(message));
        }
        let length = Length::len(&file);
        let (start, size) = chunk.byte_range();
        let end = start.checked_add(size).filter(|&end| end <= length);
        let end = end.ok_or_else(|| ParquetError::EOF("a column claims more bytes than the file has".into()))?;
        let bytes = ALWAYS_ALLOWED + MOST_EXPANSION.saturating_mul(size);
        let left = Mutex::new(Left { bytes, values: rows as u64, dictionary: rows as u64 });
        Ok(Pages { shared: Arc::new(Shared { file, length, end, left }) })
    }
}

impl Length for Pages {
    fn len(&self) -> u64 {
        self.shared.length
    }
}

impl ChunkReader for Pages {
    type T = HeaderReader;

    fn get_read(&self, start: u64) -> Result<HeaderReader> {
        Ok(HeaderReader { shared: Arc::clone(&self.shared), start, checked: None })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.shared.end) {
            return Err(ParquetError::EOF("a page ends beyond its column".into()));
        }
        self.shared.file.get_bytes(start, length)
    }
}

/// Reads the header of a page. It is checked when the first byte is asked for, since readers are
/// also made for pages whose header is known.
pub(super) struct HeaderReader {
    shared: Arc<Shared>,
    start: u64,
    checked: Option<Cursor<Vec<u8>>>,
}

impl Read for HeaderReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(checked) = &mut self.checked {
            return checked.read(buffer);
        }
        let size = self.shared.end.saturating_sub(self.start).min(LARGEST_HEADER);
        let mut bytes = Vec::with_capacity(size as usize);
        let mut file = &self.shared.file;
        file.seek(SeekFrom::Start(self.start))?;
        file.take(size).read_to_end(&mut bytes)?;
        let header = Header::of(&bytes).ok_or_else(|| io::Error::other("the header of a page is damaged, or longer than 64 KiB"))?;
        header.check(&mut self.shared.left.lock().unwrap_or_else(PoisonError::into_inner)).map_err(io::Error::other)?;
        self.checked.insert(Cursor::new(bytes)).read(buffer)
    }
}

/// What a page claims.
#[derive(Debug, Default, PartialEq)]
struct Header {
    bytes: i64,
    values: i64,
    dictionary: i64,
    unknown_encoding: Option<i64>,
}

impl Header {
    /// Reads the header at the start of `bytes`; of a field that is there twice, the greater value.
    fn of(bytes: &[u8]) -> Option<Header> {
        let mut header = Header::default();
        let number = |kind| matches!(kind, 4..=6);
        Checker { rest: bytes }.fields(1, &mut |checker, field, kind| match field {
            2 if number(kind) => {
                header.bytes = header.bytes.max(checker.number()?);
                Some(true)
            }
            // Data page, dictionary page, data page of version 2.
            5 | 7 | 8 if kind == 12 => {
                checker.fields(2, &mut |checker, inner, kind| {
                    let encoding = if field == 8 { 4 } else { 2 };
                    if !number(kind) || ![1, encoding].contains(&inner) {
                        return Some(false);
                    }
                    let value = checker.number()?;
                    if inner == encoding {
                        header.unknown_encoding = header.unknown_encoding.or(Some(value).filter(|value| !ENCODINGS.contains(value)));
                    } else if field == 7 {
                        header.dictionary = header.dictionary.max(value);
                    } else {
                        header.values = header.values.max(value);
                    }
                    Some(true)
                })?;
                Some(true)
            }
            _ => Some(false),
        })?;
        Some(header)
    }

    /// Checks the claims against what is left, and takes them off.
    fn check(&self, left: &mut Left) -> std::result::Result<(), String> {
        if let Some(encoding) = self.unknown_encoding {
            return Err(format!("encoding {encoding} is not read; write the file with plain or dictionary encoding"));
        }
        let claims = [
            (self.bytes, &mut left.bytes, "bytes of memory than 32 times the column's"),
            (self.values, &mut left.values, "values than its row group has rows"),
            (self.dictionary, &mut left.dictionary, "values in a dictionary than its row group has rows"),
        ];
        for (claim, left, what) in claims {
            let rest = u64::try_from(claim).ok().and_then(|claim| left.checked_sub(claim));
            *left = rest.ok_or_else(|| format!("a page claims more {what}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_of_page_headers_are_read_and_limited() {
        // Type 0, uncompressed 2³¹ - 1, compressed 1, data page of 3 plain values with run lengths.
        let data = [0x15, 0, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x15, 2, 0x2c, 0x15, 6, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0, 99];
        let header = Header::of(&data).unwrap();
        assert_eq!(header, Header { bytes: i64::from(i32::MAX), values: 3, ..Header::default() });
        // Type 2, 8 bytes, 8 bytes, dictionary page of 5 values in encoding 7.
        let dictionary = Header::of(&[0x15, 4, 0x15, 16, 0x15, 16, 0x4c, 0x15, 10, 0x15, 14, 0, 0]).unwrap();
        assert_eq!(dictionary, Header { bytes: 8, dictionary: 5, unknown_encoding: Some(7), ..Header::default() });
        // Version 2: values, nulls, rows, encoding 8.
        let second = Header::of(&[0x15, 6, 0x15, 16, 0x15, 16, 0x5c, 0x15, 10, 0x15, 2, 0x15, 10, 0x15, 16, 0, 0]).unwrap();
        assert_eq!(second, Header { bytes: 8, values: 5, ..Header::default() });
        for length in 0..21 {
            assert_eq!(Header::of(&data[..length]), None, "{length} bytes");
        }

        let mut left = Left { bytes: 100, values: 6, dictionary: 6 };
        assert!(header.check(&mut left).unwrap_err().contains("32 times"));
        assert!(dictionary.check(&mut left).unwrap_err().contains("encoding 7"));
        second.check(&mut left).unwrap();
        assert_eq!((left.bytes, left.values), (92, 1));
        assert!(second.check(&mut left).unwrap_err().contains("more values than"));
        let page = Header { dictionary: 7, ..Header::default() };
        assert!(page.check(&mut left).unwrap_err().contains("in a dictionary"));
        assert!(Header { values: -1, ..Header::default() }.check(&mut left).is_err());
    }
}
