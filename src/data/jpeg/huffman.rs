//! Bits and Huffman codes of entropy-coded data.

use super::Parsed;
use super::source::{Source, TRUNCATED};
use crate::data::pixels::reserved;
use crate::kernels::jpeg::present;

/// Codes up to this length are looked up at once, with the number that follows where it fits too.
const QUICK: u32 = 10;

/// What the next [`QUICK`] bits mean, in fields of a word.
#[derive(Clone, Copy, Default)]
struct Entry(u32);

impl Entry {
    const LONG: Entry = Entry(0);

    fn new(length: u32, symbol: u8, number: Option<i32>) -> Entry {
        let size = if number.is_some() { u32::from(symbol & 15) } else { 0 };
        Entry((length + size) | length << 6 | u32::from(symbol) << 10 | (number.unwrap_or(0) as u32) << 18)
    }

    /// The length of the code and of the number, if that is known.
    #[inline(always)]
    fn skip(self) -> u32 {
        self.0 & 63
    }

    /// The length of the code; 0 when it is longer than [`QUICK`].
    #[inline(always)]
    fn length(self) -> u32 {
        self.0 >> 6 & 15
    }

    #[inline(always)]
    fn symbol(self) -> u8 {
        (self.0 >> 10) as u8
    }

    /// The symbol's upper half.
    #[inline(always)]
    fn zeros(self) -> usize {
        (self.0 >> 14 & 15) as usize
    }

    /// The number after the code; 0 when it is not known or there is none.
    #[inline(always)]
    fn number(self) -> i32 {
        self.0 as i32 >> 18
    }
}

/// A Huffman table (T.81, annex C and F.2.2.3).
pub(super) struct Table {
    quick: Box<[Entry; 1 << QUICK]>,
    /// For each length: the largest code of it (-1 if none), and what to add to a code for its
    /// symbol's index.
    long: [(i32, i32); 17],
    symbols: Box<[u8]>,
}

impl Table {
    /// Makes a table from the number of codes of each length, and the symbols in order of their
    /// codes.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Parsed<Table> {
        let mut table = Table { quick: Box::new([Entry::LONG; 1 << QUICK]), long: [(-1, 0); 17], symbols: symbols.into() };
        let (mut code, mut index) = (0u32, 0usize);
        for (length, &count) in (1u32..).zip(counts) {
            let first = code;
            for _ in 0..count {
                let symbol = *symbols.get(index).ok_or("a Huffman table has too few symbols")?;
                if code >= 1 << length {
                    return Err("a Huffman table has more codes than fit its lengths".to_string());
                }
                if length <= QUICK {
                    table.enter(code, length, symbol);
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

    /// Enters a short code for all bits that may follow it.
    fn enter(&mut self, code: u32, length: u32, symbol: u8) {
        let left = QUICK - length;
        let entries = &mut self.quick[(code << left) as usize..][..1 << left];
        let size = u32::from(symbol & 15);
        if size == 0 || size > left {
            entries.fill(Entry::new(length, symbol, None));
            return;
        }
        for (bits, entries) in (0..).zip(entries.chunks_exact_mut(1 << (left - size))) {
            entries.fill(Entry::new(length, symbol, Some(signed(bits, size))));
        }
    }

    #[inline(always)]
    fn entry(&self, window: Window) -> Entry {
        self.quick[window.peek(QUICK) as usize]
    }

    /// Returns the next symbol; 0 after 17 bits that are no code, as libjpeg does.
    #[inline]
    pub(super) fn decode(&self, bits: &mut Bits<'_>) -> u8 {
        bits.need(17);
        let entry = self.entry(bits.window);
        if entry.length() > 0 {
            bits.window.skip(entry.length());
            return entry.symbol();
        }
        self.decode_long(bits)
    }

    #[cold]
    fn decode_long(&self, bits: &mut Bits<'_>) -> u8 {
        for length in QUICK + 1..=16 {
            let code = bits.window.peek(length) as i32;
            let (last, offset) = self.long[length as usize];
            if code <= last {
                bits.window.skip(length);
                // A code below this length's first one would have been found at a shorter length.
                return usize::try_from(code + offset).ok().and_then(|index| self.symbols.get(index)).copied().unwrap_or(0);
            }
        }
        bits.window.skip(17);
        0
    }

    /// Returns the next symbol's size as a signed number of that many bits.
    #[inline]
    pub(super) fn decode_number(&self, bits: &mut Bits<'_>) -> i32 {
        bits.need(32);
        let entry = self.entry(bits.window);
        if entry.number() != 0 {
            bits.window.skip(entry.skip());
            return entry.number();
        }
        let size = u32::from(self.decode(bits) & 15);
        bits.signed(size)
    }

    /// Decodes the coefficients of a band, shifted by `low`, to the places that `order` has for
    /// them; those beyond the block go to its last place. Returns the upper half of the symbol that
    /// ends the band early.
    #[inline(always)]
    pub(super) fn decode_band(
        &self,
        bits: &mut Bits<'_>,
        [mut k, end]: [usize; 2],
        low: u32,
        order: &[u8; 64],
        block: &mut [i16; 64],
    ) -> Option<u32> {
        // As many quick codes as a fill has bits for.
        const AT_ONCE: u32 = 56 / QUICK;
        // A copy, which stays in registers.
        let mut window = bits.window;
        'fill: loop {
            window.fill(&bits.bytes);
            for _ in 0..AT_ONCE {
                let entry = self.entry(window);
                let mut number = entry.number();
                if number != 0 {
                    window.skip(entry.skip());
                    k += entry.zeros();
                } else {
                    bits.window = window;
                    let symbol = self.decode(bits);
                    let (zeros, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
                    number = bits.signed(size);
                    window = bits.window;
                    k += zeros;
                    if size == 0 {
                        if zeros < 15 {
                            return Some(zeros as u32);
                        }
                        k += 1;
                        if k > end {
                            return None;
                        }
                        continue 'fill;
                    }
                }
                block[usize::from(order[k.min(63)] & 63)] = (number << low) as i16;
                k += 1;
                if k > end {
                    bits.window = window;
                    return None;
                }
                if entry.number() == 0 {
                    continue 'fill;
                }
            }
        }
    }

    /// Decodes one more bit, at position `low`, of the coefficients of a band, and those that begin
    /// with it. `run` is the number of blocks to come that have no others, with this one.
    pub(super) fn refine_band(&self, bits: &mut Bits<'_>, [mut k, end]: [usize; 2], low: u32, run: &mut u32, block: &mut [i16; 64]) {
        let (one, present) = (1i16 << low, present(block));
        if *run == 0 {
            while k <= end {
                let symbol = self.decode(bits);
                let (zeros, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
                let mut value = 0;
                match (zeros, size) {
                    (15, 0) => {}
                    (_, 0) => {
                        *run = (1 << zeros) + bits.take(zeros);
                        break;
                    }
                    _ => value = if bits.take(1) == 1 { one } else { -one },
                }
                k = bits.correct([k, end], one, zeros, present, block);
                if value != 0 {
                    block[k.min(63)] = value;
                }
                k += 1;
            }
        }
        if *run > 0 {
            bits.correct([k, end], one, 64, present, block);
            *run -= 1;
        }
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
    /// The bytes up to the marker, without escapes, and [`PADDING`].
    bytes: Vec<u8>,
    window: Window,
}

/// The next bits.
#[derive(Clone, Copy, Default)]
struct Window {
    /// The place of the first byte that is not in the word.
    at: usize,
    /// The bits, from the highest one down. Below those that are ready are either zeros or the bits
    /// that follow.
    word: u64,
    /// The number of bits that are ready.
    count: u32,
}

impl Window {
    /// Makes at least 56 bits ready.
    #[inline(always)]
    fn fill(&mut self, bytes: &[u8]) {
        let next = bytes.get(self.at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |&bytes| u64::from_be_bytes(bytes));
        self.word |= next >> self.count;
        self.at += (63 - self.count as usize) / 8;
        self.count |= 56;
    }

    /// Returns the next bits, at least one and no more than are ready.
    #[inline(always)]
    fn peek(&self, count: u32) -> u32 {
        (self.word >> (64 - count)) as u32
    }

    /// Drops bits, no more than are ready.
    #[inline(always)]
    fn skip(&mut self, count: u32) {
        self.word <<= count;
        self.count -= count;
    }
}

/// Zeros after the bytes, so that a word can be read from the place of each.
const PADDING: [u8; 8] = [0; 8];

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Parsed<Bits<'a>> {
        let mut bits = Bits { source: Source::new(data), bytes: reserved(data.len() + PADDING.len())?, window: Window::default() };
        bits.read();
        Ok(bits)
    }

    /// Reads the data up to the next marker.
    fn read(&mut self) {
        self.bytes.clear();
        self.source.read_to_marker(&mut self.bytes);
        self.bytes.extend_from_slice(&PADDING);
        self.window = Window::default();
    }

    /// Makes at least `count` bits ready, at most 56.
    #[inline(always)]
    fn need(&mut self, count: u32) {
        if self.window.count < count {
            self.window.fill(&self.bytes);
        }
    }

    /// Takes up to 16 bits.
    #[inline]
    pub(super) fn take(&mut self, count: u32) -> u32 {
        if count == 0 {
            return 0;
        }
        self.need(count);
        let bits = self.window.peek(count);
        self.window.skip(count);
        bits
    }

    /// Takes a signed number of `size` bits.
    #[inline]
    pub(super) fn signed(&mut self, size: u32) -> i32 {
        signed(self.take(size), size)
    }

    /// Takes a bit for each coefficient that is not zero, as `present` says, and adds `one` to its
    /// absolute value where the bit is 1 and it does not have that bit yet. Stops at the zero after
    /// `zeros` ones or beyond the end, and returns its number.
    #[inline]
    fn correct(&mut self, [mut k, end]: [usize; 2], one: i16, mut zeros: u32, present: u64, block: &mut [i16; 64]) -> usize {
        // A copy, which stays in registers.
        let mut window = self.window;
        while k <= end {
            let before = (present >> k).trailing_zeros().min((end + 1 - k) as u32);
            if before > zeros {
                k += zeros as usize;
                break;
            }
            zeros -= before;
            k += before as usize;
            if k > end {
                break;
            }
            if window.count == 0 {
                window.fill(&self.bytes);
            }
            // Without a branch: half of the bits are 1.
            let value = &mut block[k];
            let is_one = (window.peek(1) as i16) & i16::from(*value & one == 0);
            let change = if *value >= 0 { one } else { -one };
            *value = value.wrapping_add(change & -is_one);
            window.skip(1);
            k += 1;
        }
        self.window = window;
        k
    }

    /// Returns whether bits beyond the end of the data were taken; an error when the file ends
    /// there.
    #[inline]
    pub(super) fn ran_out(&self) -> Parsed<bool> {
        let taken = 8 * self.window.at - self.window.count as usize;
        let out = taken > 8 * (self.bytes.len() - PADDING.len());
        if out && self.source.truncated() { Err(TRUNCATED.to_string()) } else { Ok(out) }
    }

    /// Passes the next restart marker; returns whether data follows.
    pub(super) fn restart(&mut self) -> Parsed<bool> {
        let follows = self.source.restart()?;
        self.read();
        Ok(follows)
    }

    /// Returns where the data ended: at a marker or at the end of the file.
    pub(super) fn end(&self) -> usize {
        self.source.end()
    }
}

/// Returns the signed number of `size` bits that `bits` stand for (T.81, F.2.2.1).
#[inline(always)]
fn signed(bits: u32, size: u32) -> i32 {
    let bits = bits as i32;
    if size > 0 && bits < 1 << (size - 1) { bits - (1 << size) + 1 } else { bits }
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
