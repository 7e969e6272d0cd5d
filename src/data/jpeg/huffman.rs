//! Bits and Huffman codes of entropy-coded data.

use super::Parsed;
use super::source::{Source, TRUNCATED};

/// Codes up to this length are looked up at once.
const QUICK: u32 = 9;

/// A Huffman table (T.81, annex C and F.2.2.3).
pub(super) struct Table {
    /// Length and symbol by the next [`QUICK`] bits; length 0 where the code is longer.
    quick: Box<[(u8, u8); 1 << QUICK]>,
    /// For each length: the largest code of it (-1 if none), and what to add to a code for its
    /// symbol's index.
    long: [(i32, i32); 17],
    symbols: Box<[u8]>,
}

impl Table {
    /// Makes a table from the number of codes of each length, and the symbols in order of their
    /// codes.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Parsed<Table> {
        let mut table = Table { quick: Box::new([(0, 0); 1 << QUICK]), long: [(-1, 0); 17], symbols: symbols.into() };
        let (mut code, mut index) = (0u32, 0usize);
        for (length, &count) in (1u32..).zip(counts) {
            let first = code;
            for _ in 0..count {
                let symbol = *symbols.get(index).ok_or("a Huffman table has too few symbols")?;
                if code >= 1 << length {
                    return Err("a Huffman table has more codes than fit its lengths".to_string());
                }
                if length <= QUICK {
                    let shift = QUICK - length;
                    let range = (code << shift) as usize..((code + 1) << shift) as usize;
                    table.quick[range].fill((length as u8, symbol));
                }
                (code, index) = (code + 1, index + 1);
            }
            if count > 0 {
                table.long[length as usize] = (code as i32 - 1, index as i32 - i32::from(count) - first as i32);
            }
            code <<= 1;
        }
        Ok(table)
    }

    /// Returns the next symbol; 0 after 17 bits that are no code, as libjpeg does.
    #[inline]
    pub(super) fn decode(&self, bits: &mut Bits<'_>) -> u8 {
        bits.fill();
        let (length, symbol) = self.quick[bits.peek(QUICK) as usize];
        if length > 0 {
            bits.skip(u32::from(length));
            return symbol;
        }
        for length in QUICK + 1..=16 {
            let code = bits.peek(length) as i32;
            let (last, offset) = self.long[length as usize];
            if code <= last {
                bits.skip(length);
                // A code below this length's first one would have been found at a shorter length.
                return usize::try_from(code + offset).ok().and_then(|index| self.symbols.get(index)).copied().unwrap_or(0);
            }
        }
        bits.skip(17);
        0
    }

    /// Checks that the table has sizes of first coefficients only.
    pub(super) fn check_sizes(&self) -> Parsed<()> {
        if self.symbols.iter().any(|&size| size > 15) {
            Err("a Huffman table of first coefficients has too large sizes".to_string())
        } else {
            Ok(())
        }
    }
}

/// The bits of entropy-coded data up to a marker; zeros after it.
pub(super) struct Bits<'a> {
    source: Source<'a>,
    /// The next bits, from the highest one down.
    word: u64,
    count: u32,
    /// How many of these bits are beyond the end of the data.
    beyond: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Bits<'a> {
        Bits { source: Source::new(data), word: 0, count: 0, beyond: 0 }
    }

    /// Reads until there are at least 48 bits: a code and what follows it.
    #[inline]
    fn fill(&mut self) {
        if self.count >= 48 {
            return;
        }
        while self.count <= 56 {
            let byte = match self.source.byte() {
                Some(byte) => byte,
                None => {
                    self.beyond += 8;
                    0
                }
            };
            self.word |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// Returns the next bits, at most 16 and no more than are left of a `fill`.
    #[inline]
    fn peek(&self, count: u32) -> u32 {
        (self.word >> 32) as u32 >> (32 - count)
    }

    #[inline]
    fn skip(&mut self, count: u32) {
        self.word <<= count;
        self.count -= count;
    }

    /// Takes up to 16 bits.
    #[inline]
    pub(super) fn take(&mut self, count: u32) -> u32 {
        if count == 0 {
            return 0;
        }
        self.fill();
        let bits = self.peek(count);
        self.skip(count);
        bits
    }

    /// Takes a signed number of `count` bits (T.81, F.2.2.1).
    #[inline]
    pub(super) fn signed(&mut self, size: u32) -> i32 {
        let bits = self.take(size) as i32;
        if size > 0 && bits < 1 << (size - 1) { bits - (1 << size) + 1 } else { bits }
    }

    /// Returns whether bits beyond the end of the data were taken; an error when the file ends
    /// there.
    #[inline]
    pub(super) fn ran_out(&self) -> Parsed<bool> {
        let out = self.beyond > self.count;
        if out && self.source.truncated() { Err(TRUNCATED.to_string()) } else { Ok(out) }
    }

    /// Passes the next restart marker; returns whether data follows.
    pub(super) fn restart(&mut self) -> Parsed<bool> {
        // The remaining bits of the word come before the marker, which a fill does not pass.
        (self.word, self.count, self.beyond) = (0, 0, 0);
        self.source.restart()
    }

    /// Returns where the data ended: at a marker or at the end of the file.
    pub(super) fn end(&self) -> usize {
        self.source.end()
    }
}

/// The tables of sequential files without tables (T.81, annex K.3), such as the frames of motion
/// JPEG.
pub(super) fn standard_tables() -> [[(&'static [u8; 16], &'static [u8]); 2]; 2] {
    [[(&DC_LUMINANCE, &SIZES), (&DC_CHROMINANCE, &SIZES)], [(&AC_LUMINANCE.0, &AC_LUMINANCE.1), (&AC_CHROMINANCE.0, &AC_CHROMINANCE.1)]]
}

const SIZES: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
const DC_LUMINANCE: [u8; 16] = [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0];
const DC_CHROMINANCE: [u8; 16] = [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0];
#[rustfmt::skip]
const AC_LUMINANCE: ([u8; 16], [u8; 162]) = (
    [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125],
    [
        0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71,
        0x14, 0x32, 0x81, 0x91, 0xA1, 0x08, 0x23, 0x42, 0xB1, 0xC1, 0x15, 0x52, 0xD1, 0xF0, 0x24, 0x33, 0x62, 0x72,
        0x82, 0x09, 0x0A, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A, 0x34, 0x35, 0x36, 0x37,
        0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59,
        0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A, 0x83,
        0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0xA2, 0xA3,
        0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA, 0xC2, 0xC3,
        0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA, 0xE1, 0xE2,
        0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF1, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA,
    ],
);
#[rustfmt::skip]
const AC_CHROMINANCE: ([u8; 16], [u8; 162]) = (
    [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119],
    [
        0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22,
        0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xA1, 0xB1, 0xC1, 0x09, 0x23, 0x33, 0x52, 0xF0, 0x15, 0x62, 0x72, 0xD1,
        0x0A, 0x16, 0x24, 0x34, 0xE1, 0x25, 0xF1, 0x17, 0x18, 0x19, 0x1A, 0x26, 0x27, 0x28, 0x29, 0x2A, 0x35, 0x36,
        0x37, 0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58,
        0x59, 0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A,
        0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A,
        0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA,
        0xC2, 0xC3, 0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA,
        0xE2, 0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA,
    ],
);
