//! Bits and Huffman codes of entropy-coded data.

use super::Parsed;

/// Codes up to this length are looked up at once.
const QUICK: u32 = 9;

/// A Huffman table (T.81, annex C and F.2.2.3).
pub(super) struct Table {
    /// Length and symbol by the next [`QUICK`] bits; length 0 where the code is longer.
    quick: Box<[(u8, u8); 1 << QUICK]>,
    /// For each length: the largest code of it (-1 if none), and what to add to a code for its symbol's index.
    long: [(i32, i32); 17],
    symbols: Box<[u8]>,
}

impl Table {
    /// From the number of codes of each length, and the symbols in order of their codes.
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

    #[inline]
    pub(super) fn decode(&self, bits: &mut Bits<'_>) -> Parsed<u8> {
        bits.fill();
        let (length, symbol) = self.quick[bits.peek(QUICK) as usize];
        if length > 0 {
            bits.skip(u32::from(length));
            return Ok(symbol);
        }
        for length in QUICK + 1..=16 {
            let code = bits.peek(length) as i32;
            let (last, offset) = self.long[length as usize];
            if code <= last {
                bits.skip(length);
                // A shorter code than this length's first cannot get here: it would have been found before.
                let symbol = usize::try_from(code + offset).ok().and_then(|index| self.symbols.get(index));
                return symbol.copied().ok_or_else(|| "picture data has a code that means nothing".to_string());
            }
        }
        Err("picture data has a code that means nothing".to_string())
    }
}

/// The bits of entropy-coded data up to a marker; zeros after it.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, from the highest one down.
    word: u64,
    count: u32,
    /// How many of those are beyond the data's end.
    beyond: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Bits<'a> {
        Bits { data, at: 0, word: 0, count: 0, beyond: 0 }
    }

    /// Makes sure of 48 bits at least: a code and what follows it.
    #[inline]
    fn fill(&mut self) {
        if self.count >= 48 {
            return;
        }
        while self.count <= 56 {
            let byte = match self.data.get(self.at) {
                Some(0xFF) => match self.data.get(self.at + 1) {
                    Some(0) => {
                        self.at += 2;
                        0xFF
                    }
                    _ => self.beyond_end(),
                },
                Some(&byte) => {
                    self.at += 1;
                    byte
                }
                None => self.beyond_end(),
            };
            self.word |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    fn beyond_end(&mut self) -> u8 {
        self.beyond += 8;
        0
    }

    /// The next bits; there have to be that many after a `fill`. At most 16.
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

    /// Takes a number of so many bits with its sign (T.81, F.2.2.1).
    #[inline]
    pub(super) fn signed(&mut self, size: u32) -> i32 {
        let bits = self.take(size) as i32;
        if size > 0 && bits < 1 << (size - 1) { bits - (1 << size) + 1 } else { bits }
    }

    /// That no bit beyond the end of the data was needed.
    #[inline]
    pub(super) fn check(&self) -> Parsed<()> {
        if self.beyond > self.count { Err("truncated: picture data ends too early".to_string()) } else { Ok(()) }
    }

    /// Passes the restart marker of this number (counted from 0 to 7 and round).
    pub(super) fn restart(&mut self, number: usize) -> Parsed<()> {
        self.check()?;
        // What is left in the word was before the marker, which a fill does not pass: padding, or nothing.
        (self.word, self.count, self.beyond) = (0, 0, 0);
        while self.data.get(self.at) == Some(&0xFF) && self.data.get(self.at + 1) == Some(&0xFF) {
            self.at += 1;
        }
        match self.data.get(self.at..self.at + 2) {
            Some(&[0xFF, marker]) if usize::from(marker) == 0xD0 + number % 8 => {
                self.at += 2;
                Ok(())
            }
            _ => Err("picture data is damaged: a restart marker is not where it should be".to_string()),
        }
    }

    /// Where the data ended: at a marker or at the file's end.
    pub(super) fn end(&self) -> usize {
        self.at
    }
}
