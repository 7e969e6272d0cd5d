//! A gzip reader whose cost is in proportion to its output.
//!
//! A gzip file may consist of any number of members, and a deflate stream of any number of blocks,
//! all of them empty: without limits a small file costs seconds and a large one minutes before its
//! first byte.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// The number of members accepted beyond one for each [`MEMBER`] bytes of content.
const SPARE_MEMBERS: u64 = 1000;
/// The bytes of content for each member; writers of many members (bgzip) put up to 64 KiB into
/// each.
const MEMBER: u64 = 1024;
/// The bytes of a file accepted beyond twice its content: a header may have a name, a comment and
/// an extra field of 64 KiB each.
const SPARE_INPUT: u64 = 256 * 1024;

/// A reader of the content of all members of a gzip file. Members and blocks that hold next to
/// nothing are an error.
pub(crate) struct GzipReader<R> {
    /// Always there; an `Option` so that the decoder of the next member can take its input.
    decoder: Option<GzDecoder<Metered<R>>>,
    members: u64,
    produced: u64,
}

impl<R: BufRead> GzipReader<R> {
    pub(crate) fn new(inner: R) -> GzipReader<R> {
        let input = Metered { inner, consumed: 0, allowed: SPARE_INPUT };
        GzipReader { decoder: Some(GzDecoder::new(input)), members: 1, produced: 0 }
    }
}

impl<R: BufRead> Read for GzipReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            // The most input before the next bytes of content, however few of them there are.
            decoder.get_mut().allowed = SPARE_INPUT.saturating_add(self.produced.saturating_add(out.len() as u64).saturating_mul(2));
            let count = decoder.read(out)?;
            self.produced += count as u64;
            if count > 0 || out.is_empty() {
                return Ok(count);
            }
            if decoder.get_mut().fill_buf()?.is_empty() {
                return Ok(0);
            }
            self.members += 1;
            if self.members > SPARE_MEMBERS + self.produced / MEMBER {
                let message = format!("it has {} members or more for {} bytes of content", self.members, self.produced);
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            self.decoder = self.decoder.take().map(|decoder| GzDecoder::new(decoder.into_inner()));
        }
        Ok(0)
    }
}

/// A reader that fails after more input than allowed.
struct Metered<R> {
    inner: R,
    consumed: u64,
    allowed: u64,
}

impl<R: BufRead> Read for Metered<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(out.len());
        out[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Metered<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.consumed > self.allowed {
            let message = format!("its first {} bytes hold next to nothing", self.consumed);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.consumed += count as u64;
        self.inner.consume(count);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn member(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        GzipReader::new(packed).read_to_end(&mut content).map(|_| content)
    }

    /// Counts what is read from an endless repetition.
    struct Repeated<'a> {
        unit: &'a [u8],
        at: usize,
    }

    impl Read for Repeated<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            for byte in out.iter_mut() {
                *byte = self.unit[self.at % self.unit.len()];
                self.at += 1;
            }
            Ok(out.len())
        }
    }

    #[test]
    fn members_are_read_one_after_the_other_as_bgzip_and_concatenation_write_them() {
        let content: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for size in [2048, 65_280, 3_000_000] {
            let mut packed: Vec<u8> = content.chunks(size).flat_map(member).collect();
            packed.extend(member(&[]));
            assert!(unpack(&packed).unwrap() == content, "members of {size} bytes");
        }
        assert_eq!(unpack(&[member(b"a"), member(b""), member(b"bc")].concat()).unwrap(), b"abc");
    }

    #[test]
    fn damage_and_early_ends_are_errors() {
        let whole = member(&[7; 1000]);
        for length in 1..whole.len() {
            assert_eq!(unpack(&whole[..length]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "cut to {length}");
        }
        assert!(unpack(&[whole, b"garbage".to_vec()].concat()).is_err());
    }

    #[test]
    fn endless_empty_members_and_blocks_are_refused_after_little_input() {
        let empty = member(&[]);
        let mut input = Repeated { unit: &empty, at: 0 };
        let error = io::copy(&mut GzipReader::new(io::BufReader::with_capacity(64, &mut input)), &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("members") && input.at < 100_000, "{error} after {} bytes", input.at);
        // A member without end, of stored blocks of length 0.
        let mut input = Repeated { unit: &[0, 0, 0, 0xff, 0xff], at: 0 };
        let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
        let error = GzipReader::new(io::BufReader::new(header.chain(&mut input))).read(&mut [0; 4]).unwrap_err();
        assert!(error.to_string().contains("next to nothing") && input.at < 300_000, "{error} after {} bytes", input.at);
    }
}
