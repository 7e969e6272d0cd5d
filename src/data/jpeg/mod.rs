//! JPEG to pixels as libjpeg-turbo makes them, to the bit: baseline and progressive Huffman coding (ITU-T T.81), 8 bits a sample.
//!
//! Networks were trained on what that library decodes, by way of Pillow. T.81 leaves the inverse transform's rounding and the whole of
//! chroma upsampling open, and other decoders differ from it by up to 20 levels at coloured edges; so the arithmetic here is libjpeg's: its
//! accurate integer transform ([`idct`]), its triangle filter for chroma and its fixed-point colours ([`output`]).
//!
//! A file is walked once: tables and headers here, entropy-coded data in [`scan`], which fills each component's coefficients; they become
//! pixels when the last scan has ended. Files are not trusted: every length and index is checked, damaged and truncated ones are errors
//! where libjpeg warns and guesses, and the work that many scans may cause is limited.

mod huffman;
mod idct;
mod output;
mod scan;

use huffman::Table;
use scan::Scan;

use super::decode::{Pixels, check_size};

/// The place in a block, row by row, of each coefficient in the order of the file.
#[rustfmt::skip]
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Photographs have ten or so; each of them walks all blocks, however short it is.
const MOST_SCANS: usize = 100;

type Parsed<T> = Result<T, String>;

/// Decodes a file that starts as a JPEG does, to gray, red-green-blue, or cyan-magenta-yellow-black.
pub(super) fn decode(bytes: &[u8]) -> Parsed<Pixels> {
    let mut decoder = Decoder { bytes, at: 2, ..Decoder::default() };
    while decoder.segment()? {}
    let frame = decoder.frame.ok_or("it has no picture")?;
    if decoder.scans == 0 {
        return Err("it has no picture data".to_string());
    }
    output::pixels(frame, decoder.jfif, decoder.adobe)
}

#[derive(Default)]
struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    quantisation: [Option<[u16; 64]>; 4],
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    restart_interval: usize,
    jfif: bool,
    /// What Adobe's marker says of the colours.
    adobe: Option<u8>,
    frame: Option<Frame>,
    scans: usize,
}

/// The picture's geometry and coefficients.
struct Frame {
    progressive: bool,
    width: usize,
    height: usize,
    /// The largest sampling factors, horizontal and vertical.
    sampling: [usize; 2],
    /// Columns and rows of interleaved units.
    units: [usize; 2],
    components: Vec<Component>,
}

struct Component {
    id: u8,
    sampling: [usize; 2],
    table: usize,
    /// As of the component's first scan.
    quantisation: Option<[u16; 64]>,
    /// In samples, without what fills the last blocks.
    width: usize,
    height: usize,
    /// Columns and rows of blocks, with those that fill the last units.
    blocks: [usize; 2],
    coefficients: Vec<[i16; 64]>,
}

impl<'a> Decoder<'a> {
    fn byte(&mut self) -> Parsed<u8> {
        let byte = *self.bytes.get(self.at).ok_or("truncated: it ends before its end marker")?;
        self.at += 1;
        Ok(byte)
    }

    /// Reads up to the next marker and what belongs to it; false at the end.
    fn segment(&mut self) -> Parsed<bool> {
        // Whatever lies between segments is passed over, as libjpeg does.
        while self.byte()? != 0xFF {}
        let mut marker = self.byte()?;
        while marker == 0xFF {
            marker = self.byte()?;
        }
        match marker {
            0x00 | 0x01 | 0xD0..=0xD7 => {}
            0xD8 => return Err("a second picture starts within it".to_string()),
            0xD9 => return Ok(false),
            0xC0..=0xC2 => {
                let body = self.body()?;
                self.frame_header(body, marker == 0xC2)?;
            }
            0xC4 => {
                let body = self.body()?;
                self.huffman_tables(body)?;
            }
            0xC3 | 0xC5..=0xCF => return Err(format!("lossless, hierarchical or arithmetic coding (marker {marker:02X}) is not read")),
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
            0xE0 => self.jfif |= self.body()?.starts_with(b"JFIF\0"),
            0xEE => {
                if let [b'A', b'd', b'o', b'b', b'e', _, _, _, _, _, _, transform, ..] = *self.body()? {
                    self.adobe = Some(transform);
                }
            }
            _ => drop(self.body()?),
        }
        Ok(true)
    }

    /// What belongs to a marker, by the length in front of it.
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

    fn frame_header(&mut self, body: &[u8], progressive: bool) -> Parsed<()> {
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
        let component = |(id, [h, v], table): (u8, [usize; 2], usize)| Component {
            id,
            sampling: [h, v],
            table,
            quantisation: None,
            width: (width * h).div_ceil(sampling[0]),
            height: (height * v).div_ceil(sampling[1]),
            blocks: [units[0] * h, units[1] * v],
            // Zeroed memory costs nothing before it is written to: a file that ends here has cost little.
            coefficients: vec![[0; 64]; units[0] * h * units[1] * v],
        };
        let components = described.into_iter().map(component).collect();
        self.frame = Some(Frame { progressive, width, height, sampling, units, components });
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
            let index = frame.components.iter().position(|component| component.id == selector[0]);
            let index = index.ok_or("a scan is of a component that the picture does not have")?;
            if members.iter().any(|&(other, _, _)| other == index) {
                return Err("a scan has a component twice".to_string());
            }
            let component = &mut frame.components[index];
            let latest = self.quantisation[component.table];
            component.quantisation = component.quantisation.or(latest);
            members.push((index, usize::from(selector[1] >> 4), usize::from(selector[1] & 15)));
        }
        let scan = Scan {
            band: [usize::from(start), usize::from(end)],
            bits: [u32::from(approximation >> 4), u32::from(approximation & 15)],
            members,
            tables: [&self.dc, &self.ac],
            restart_interval: self.restart_interval,
        };
        let data = self.bytes.get(self.at..).unwrap_or_default();
        self.at += scan.run(frame, data)?;
        Ok(())
    }
}
