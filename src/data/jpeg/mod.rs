//! JPEG decoder that gives the pixels of libjpeg-turbo 3, to the bit: sequential and progressive
//! coding, with Huffman or arithmetic codes (ITU-T T.81), 8 bits a sample.
//!
//! Networks were trained on pixels from that library, by way of Pillow. T.81 does not fix the
//! rounding of the inverse transform or the upsampling of chroma, and other decoders differ by up
//! to 20 levels at coloured edges. The arithmetic here is therefore libjpeg's: its accurate integer
//! transform, its triangle filter for chroma and its fixed-point colours
//! ([`crate::kernels::jpeg`]).
//!
//! A file is read once: tables and headers here, entropy-coded data in [`scan`], which fills each
//! component's coefficients. Where a single scan has all of them, they become pixels row by row;
//! else after the last scan, estimated where scans are missing ([`smooth`]). [`output`] makes
//! pixels of samples. Files are not trusted: every length and index is checked, memory grows
//! with what the data can fill, and the work that many scans may cause is limited. Damaged data
//! gives the pixels that libjpeg guesses; truncated files are errors, as in Pillow.

mod arithmetic;
mod huffman;
mod output;
mod scan;
mod smooth;
mod source;

use arithmetic::{Arithmetic, Conditioning};
use huffman::Table;
use output::Output;
use scan::{Huffman, Member, Scan};
use smooth::Precision;

use super::pixels::{Pixels, check_size, zeroed};

/// The place in a block, row by row, of each coefficient in the order of the file.
#[rustfmt::skip]
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// The most scans that are read. Photographs have about ten; each scan visits all blocks, however
/// short it is.
const MOST_SCANS: usize = 100;

/// The most blocks of 64 samples for each byte: a block takes at least one bit in Huffman codes.
/// Arithmetic codes have no such limit; this one gives as many pixels for a byte as the best
/// compression of PNG files.
const HUFFMAN_BLOCKS_PER_BYTE: usize = 8;
const ARITHMETIC_BLOCKS_PER_BYTE: usize = 128;

/// The most blocks that all scans together may visit: a number for any file, and for each of its
/// bytes.
const WALKED_BLOCKS: usize = 1 << 22;
const WALKED_BLOCKS_PER_BYTE: usize = 64;

/// The places in the blocks of progressive frames: coefficients stay in the file's order, in which
/// their scans are searched for those that are not zero.
const FILE_ORDER: [u8; 64] = {
    let mut order = [0; 64];
    let mut k = 0;
    while k < 64 {
        order[k] = k as u8;
        k += 1;
    }
    order
};

type Parsed<T> = Result<T, String>;

/// Decodes a file that starts as a JPEG does, to gray, red-green-blue, or
/// cyan-magenta-yellow-black.
pub(super) fn decode(bytes: &[u8]) -> Parsed<Pixels> {
    let mut decoder = Decoder { bytes, at: 2, ..Decoder::default() };
    loop {
        match decoder.segment() {
            Ok(true) => {}
            Ok(false) => break,
            // A single scan's picture is complete without an end marker. (Pillow opens such files
            // by chance: when libjpeg has not read ahead beyond the end.)
            Err(error) if decoder.complete && error.starts_with("truncated") => break,
            Err(error) => return Err(error),
        }
    }
    let frame = decoder.frame.ok_or("it has no picture")?;
    if decoder.scans == 0 {
        return Err("it has no picture data".to_string());
    }
    output::finish(frame, decoder.scans)
}

/// Returns the width and height that a file states before its picture data.
pub(super) fn size(bytes: &[u8]) -> Parsed<[usize; 2]> {
    let mut decoder = Decoder { bytes, at: 2, ..Decoder::default() };
    while decoder.segment()? {
        if let Some(frame) = &decoder.frame {
            return Ok([frame.width, frame.height]);
        }
    }
    Err("it has no picture".to_string())
}

#[derive(Default)]
struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    quantisation: [Option<[u16; 64]>; 4],
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    conditioning: Conditioning,
    restart_interval: usize,
    jfif: bool,
    /// The colour transform of Adobe's marker.
    adobe: Option<u8>,
    frame: Option<Frame>,
    scans: usize,
    /// The number of blocks that the scans have visited.
    walked: usize,
    /// Whether a sequential scan of all components has ended before the file did.
    complete: bool,
}

/// The picture's geometry and coefficients.
struct Frame {
    progressive: bool,
    arithmetic: bool,
    /// Whether the first scan has all coefficients: they become pixels a row of units at a time.
    by_rows: bool,
    width: usize,
    height: usize,
    /// The largest sampling factors, horizontal and vertical.
    sampling: [usize; 2],
    /// Columns and rows of interleaved units.
    units: [usize; 2],
    /// The last row of units that the latest scan had data for.
    last_good_row: usize,
    components: Vec<Component>,
    /// Since the first scan.
    output: Option<Output>,
}

struct Component {
    id: u8,
    sampling: [usize; 2],
    table: usize,
    /// As of the component's first scan.
    quantisation: Option<[u16; 64]>,
    precision: Precision,
    /// In samples, without what fills the last blocks.
    width: usize,
    height: usize,
    /// Columns and rows of blocks, with those that fill the last units.
    blocks: [usize; 2],
    /// Of all blocks, or of a row of units; row by row, those of progressive frames in the file's
    /// order.
    coefficients: Vec<[i16; 64]>,
}

impl<'a> Decoder<'a> {
    fn byte(&mut self) -> Parsed<u8> {
        let byte = *self.bytes.get(self.at).ok_or("truncated: it ends before its end marker")?;
        self.at += 1;
        Ok(byte)
    }

    /// Reads the next marker and its segment; returns false at the end.
    fn segment(&mut self) -> Parsed<bool> {
        // Bytes between segments are passed over, as in libjpeg.
        while self.byte()? != 0xFF {}
        let mut marker = self.byte()?;
        while marker == 0xFF {
            marker = self.byte()?;
        }
        match marker {
            0x00 | 0x01 | 0xD0..=0xD7 => {}
            0xD8 => return Err("a second picture starts within it".to_string()),
            0xD9 => return Ok(false),
            0xC0..=0xC2 | 0xC9 | 0xCA => {
                let body = self.body()?;
                self.frame_header(body, matches!(marker, 0xC2 | 0xCA), marker > 0xC8)?;
            }
            0xCC => {
                let body = self.body()?;
                self.conditioning(body)?;
            }
            0xC4 => {
                let body = self.body()?;
                self.huffman_tables(body)?;
            }
            0xC3 | 0xC5..=0xCF => return Err(format!("lossless or hierarchical coding (marker {marker:02X}) is not read")),
            0xDA => {
                let body = self.body()?;
                self.scan(body)?;
            }
            0xDB => {
                let body = self.body()?;
                self.quantisation_tables(body)?;
            }
            0xDD => match *self.body()? {
                [high, low] => self.restart_interval = usize::from(u16::from_be_bytes([high, low])),
                _ => return Err("its restart interval is damaged".to_string()),
            },
            // The meaning of the colours is settled when the first scan starts.
            0xE0 if self.scans == 0 => self.jfif |= matches!(self.body()?, [b'J', b'F', b'I', b'F', 0, rest @ ..] if rest.len() >= 9),
            0xEE if self.scans == 0 => {
                if let [b'A', b'd', b'o', b'b', b'e', _, _, _, _, _, _, transform, ..] = *self.body()? {
                    self.adobe = Some(transform);
                }
            }
            0xDC | 0xE0..=0xEF | 0xFE => drop(self.body()?),
            _ => return Err(format!("a marker {marker:02X}, which has no meaning")),
        }
        Ok(true)
    }

    /// Returns the body of a segment, by the length in front of it.
    fn body(&mut self) -> Parsed<&'a [u8]> {
        let length = usize::from(u16::from_be_bytes([self.byte()?, self.byte()?]));
        let end = self.at + length.checked_sub(2).ok_or("a segment has no length")?;
        let body = self.bytes.get(self.at..end).ok_or("truncated: a segment is longer than the rest of the file")?;
        self.at = end;
        Ok(body)
    }

    fn quantisation_tables(&mut self, mut body: &[u8]) -> Parsed<()> {
        while let Some((&kind, rest)) = body.split_first() {
            let (wide, id) = (kind >> 4, usize::from(kind & 15));
            let size = if wide == 0 { 64 } else { 128 };
            let (values, rest) = rest.split_at_checked(size).ok_or("a quantisation table is too short")?;
            let mut table = [0; 64];
            for (i, &place) in ZIGZAG.iter().enumerate() {
                let value = if wide == 0 { u16::from(values[i]) } else { u16::from_be_bytes([values[2 * i], values[2 * i + 1]]) };
                table[usize::from(place)] = value;
            }
            *self.quantisation.get_mut(id).filter(|_| wide < 2).ok_or("a quantisation table has no such number")? = Some(table);
            body = rest;
        }
        Ok(())
    }

    fn huffman_tables(&mut self, mut body: &[u8]) -> Parsed<()> {
        while let Some((&kind, rest)) = body.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or("a Huffman table is too short")?;
            let size = counts.iter().map(|&count| usize::from(count)).sum();
            let (symbols, rest) = rest.split_at_checked(size).ok_or("a Huffman table is too short")?;
            let tables = match kind >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err("a Huffman table of no known kind".to_string()),
            };
            *tables.get_mut(usize::from(kind & 15)).ok_or("a Huffman table has no such number")? = Some(Table::new(counts, symbols)?);
            body = rest;
        }
        Ok(())
    }

    fn conditioning(&mut self, body: &[u8]) -> Parsed<()> {
        let (pairs, rest) = body.as_chunks::<2>();
        for &[index, value] in pairs {
            let bounds = [value & 15, value >> 4];
            match usize::from(index) {
                table @ 0..16 if bounds[0] <= bounds[1] => self.conditioning.dc[table] = bounds,
                table @ 16..32 => self.conditioning.ac[table - 16] = value,
                _ => return Err("a table of arithmetic coding is damaged".to_string()),
            }
        }
        if rest.is_empty() { Ok(()) } else { Err("a table of arithmetic coding is too short".to_string()) }
    }

    fn frame_header(&mut self, body: &[u8], progressive: bool, arithmetic: bool) -> Parsed<()> {
        if self.frame.is_some() {
            return Err("it has two pictures".to_string());
        }
        let &[precision, h0, h1, w0, w1, count, ref rest @ ..] = body else { return Err("its frame header is too short".to_string()) };
        let (height, width) = (usize::from(u16::from_be_bytes([h0, h1])), usize::from(u16::from_be_bytes([w0, w1])));
        if precision != 8 {
            return Err(format!("{precision} bits a sample are not read, only 8"));
        }
        check_size(width, height)?;
        if !matches!(count, 1 | 3 | 4) || rest.len() != 3 * usize::from(count) {
            return Err(format!("{count} components are not read, only 1, 3 and 4"));
        }
        let factors = |byte: u8| [usize::from(byte >> 4), usize::from(byte & 15)];
        let described: Vec<(u8, [usize; 2], usize)> = rest.chunks_exact(3).map(|c| (c[0], factors(c[1]), usize::from(c[2]))).collect();
        if described.iter().any(|&(_, [h, v], table)| !(1..=4).contains(&h) || !(1..=4).contains(&v) || table > 3) {
            return Err("its sampling factors or tables are out of range".to_string());
        }
        let largest = |i: usize| described.iter().map(|&(_, sampling, _)| sampling[i]).max().unwrap_or(1);
        let sampling = [largest(0), largest(1)];
        if described.iter().any(|&(_, [h, v], _)| sampling[0] % h != 0 || sampling[1] % v != 0) {
            return Err("its components are sampled in no whole proportion, which is not read".to_string());
        }
        let units = [width.div_ceil(8 * sampling[0]), height.div_ceil(8 * sampling[1])];
        let samples = |[h, v]: [usize; 2]| [(width * h).div_ceil(sampling[0]), (height * v).div_ceil(sampling[1])];
        let blocks: usize =
            described.iter().map(|&(_, factors, _)| samples(factors).map(|side| side.div_ceil(8)).iter().product::<usize>()).sum();
        let left = self.bytes.len() - self.at;
        if blocks > left.saturating_mul(if arithmetic { ARITHMETIC_BLOCKS_PER_BYTE } else { HUFFMAN_BLOCKS_PER_BYTE }) {
            return Err(format!("truncated: {left} bytes cannot hold a picture of {width}×{height} pixels"));
        }
        let component = |(id, [h, v], table): (u8, [usize; 2], usize)| {
            let [width, height] = samples([h, v]);
            Component {
                id,
                sampling: [h, v],
                table,
                quantisation: None,
                precision: Precision::default(),
                width,
                height,
                blocks: [units[0] * h, units[1] * v],
                coefficients: Vec::new(),
            }
        };
        let components = described.into_iter().map(component).collect();
        let by_rows = false;
        self.frame =
            Some(Frame { progressive, arithmetic, by_rows, width, height, sampling, units, last_good_row: 0, components, output: None });
        Ok(())
    }

    fn scan(&mut self, body: &[u8]) -> Parsed<()> {
        let frame = self.frame.as_mut().ok_or("picture data without a header")?;
        self.scans += 1;
        if self.scans > MOST_SCANS {
            return Err(format!("it has more than {MOST_SCANS} scans"));
        }
        let (&count, rest) = body.split_first().ok_or("a scan's header is too short")?;
        let count = usize::from(count);
        let (selectors, [start, end, approximation]) = match rest.split_last_chunk::<3>() {
            Some((selectors, &tail)) if selectors.len() == 2 * count && (1..=4).contains(&count) => (selectors, tail),
            _ => return Err("a scan's header has a wrong length".to_string()),
        };
        let mut members = Vec::with_capacity(count);
        for selector in selectors.chunks_exact(2) {
            let known = |&(index, component): &(usize, &Component)| {
                component.id == selector[0] && members.iter().all(|member: &Member| member.component != index)
            };
            let index = frame.components.iter().enumerate().find(known).map(|(index, _)| index);
            let index = index.ok_or("a scan is of a component that the picture does not have, or has it twice")?;
            let component = &mut frame.components[index];
            let latest = self.quantisation[component.table];
            component.quantisation = component.quantisation.or(latest);
            if component.quantisation.is_none() {
                return Err("a component has no quantisation table".to_string());
            }
            members.push(Member { component: index, dc: usize::from(selector[1] >> 4), ac: usize::from(selector[1] & 15) });
        }
        let scan = Scan {
            progressive: frame.progressive,
            band: [usize::from(start), usize::from(end)],
            bits: [u32::from(approximation >> 4), u32::from(approximation & 15)],
            members,
            restart_interval: self.restart_interval,
        };
        scan.check(frame)?;
        if frame.by_rows {
            return Err("a scan follows one that has the whole picture".to_string());
        }
        self.walked += scan.members.iter().map(|member| frame.components[member.component].blocks.iter().product::<usize>()).sum::<usize>();
        if self.walked > WALKED_BLOCKS.saturating_add(self.bytes.len().saturating_mul(WALKED_BLOCKS_PER_BYTE)) {
            return Err(format!("its scans walk more blocks than {} bytes justify", self.bytes.len()));
        }
        if frame.progressive {
            for member in &scan.members {
                frame.components[member.component].precision.update(self.scans, scan.band, scan.bits[1]);
            }
        }
        if self.scans == 1 {
            frame.by_rows = !frame.progressive && count == frame.components.len();
            for component in &mut frame.components {
                let rows = if frame.by_rows { component.sampling[1] } else { component.blocks[1] };
                component.coefficients = zeroed(component.blocks[0] * rows, [0; 64])?;
            }
            frame.output = Some(Output::new(frame, self.jfif, self.adobe)?);
        }
        let data = self.bytes.get(self.at..).unwrap_or_default();
        if frame.arithmetic {
            let mut coder = Arithmetic::new(&scan, self.conditioning, data);
            scan.run(frame, &mut coder)?;
            self.at += coder.end();
        } else {
            if self.scans == 1 && !frame.progressive {
                for (tables, standard) in [&mut self.dc, &mut self.ac].into_iter().zip(huffman::standard_tables()) {
                    for (table, (counts, symbols)) in tables.iter_mut().zip(standard) {
                        if table.is_none() {
                            *table = Some(Table::new(counts, symbols)?);
                        }
                    }
                }
            }
            let mut coder = Huffman::new(&scan, [&self.dc, &self.ac], data)?;
            scan.run(frame, &mut coder)?;
            self.at += coder.end();
        }
        self.complete = !frame.progressive && count == frame.components.len();
        Ok(())
    }
}
