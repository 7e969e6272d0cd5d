//! Zip archives as NumPy and PyTorch write them: stored or deflated entries, ZIP64, no encryption.
//!
//! Only the central directory is used, and only if it is consistent: it must end where the end
//! record starts, every entry must be before it, have a local header of the same name, overlap no
//! other, and have the promised checksum (if there is one). Cases in which a lenient reader would
//! guess are errors.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Read, Write};

use flate2::Crc;
use flate2::bufread::DeflateDecoder;

use super::alloc_limit::{AllocLimit, Parsed, quoted};

const LOCAL: &[u8; 4] = b"PK\x03\x04";
const CENTRAL: &[u8; 4] = b"PK\x01\x02";
const END: &[u8; 4] = b"PK\x05\x06";
const END_64: &[u8; 4] = b"PK\x06\x06";
const LOCATOR_64: &[u8; 4] = b"PK\x06\x07";
const END_SIZE: usize = 22;
const LOCATOR_SIZE: usize = 20;

/// Deflate cannot compress further than 1032 to 1.
const DEFLATE_LIMIT: usize = 1032;

/// The directory of an archive, and the archive's bytes.
pub(super) struct Archive<'a> {
    entries: Vec<Entry<'a>>,
    index: HashMap<&'a str, usize>,
}

struct Entry<'a> {
    name: &'a str,
    deflated: bool,
    checksum: u32,
    data: &'a [u8],
    /// Bytes when inflated.
    size: usize,
}

/// Returns `N` bytes at an offset.
fn at<const N: usize>(bytes: &[u8], offset: usize) -> Parsed<[u8; N]> {
    offset
        .checked_add(N)
        .and_then(|end| bytes.get(offset..end))
        .and_then(|found| found.try_into().ok())
        .ok_or_else(|| "the zip archive is truncated".to_string())
}

fn u16_at(bytes: &[u8], offset: usize) -> Parsed<usize> {
    at(bytes, offset).map(|b| usize::from(u16::from_le_bytes(b)))
}

fn u32_at(bytes: &[u8], offset: usize) -> Parsed<u64> {
    at(bytes, offset).map(|b| u64::from(u32::from_le_bytes(b)))
}

fn u64_at(bytes: &[u8], offset: usize) -> Parsed<u64> {
    at(bytes, offset).map(u64::from_le_bytes)
}

/// Checks a size or offset from the file, which must be inside it.
fn inside(bytes: &[u8], value: u64) -> Parsed<usize> {
    usize::try_from(value).ok().filter(|&value| value <= bytes.len()).ok_or_else(|| "the zip directory points outside the file".to_string())
}

impl<'a> Archive<'a> {
    /// Reads and checks the directory.
    pub(super) fn parse(bytes: &'a [u8]) -> Parsed<Archive<'a>> {
        let (start, end, count) = directory(bytes)?;
        let (mut entries, mut extents, mut position) = (vec![], vec![], start);
        while position < end {
            let (entry, extent, next) = entry(&bytes[..end], position, start)?;
            extents.push(extent);
            entries.push(entry);
            position = next;
        }
        if entries.len() as u64 != count {
            return Err(format!("the zip directory has {} entries and says {count}", entries.len()));
        }
        extents.sort_unstable();
        if extents.windows(2).any(|pair| pair[1].0 < pair[0].1) {
            return Err("entries of the zip archive overlap".to_string());
        }
        let mut index = HashMap::new();
        for (i, entry) in entries.iter().enumerate() {
            if index.insert(entry.name, i).is_some() {
                return Err(format!("the zip archive has two entries {}", quoted(entry.name)));
            }
        }
        Ok(Archive { entries, index })
    }

    /// Returns the entries' names in the directory's order, without folders.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.entries.iter().map(|entry| entry.name).filter(|name| !name.ends_with('/'))
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// Returns an entry's content, checked; inflated content is taken from the limit.
    pub(super) fn read(&self, name: &str, budget: &mut AllocLimit) -> Parsed<Cow<'a, [u8]>> {
        let entry =
            self.index.get(name).map(|&i| &self.entries[i]).ok_or_else(|| format!("the zip archive has no entry {}", quoted(name)))?;
        let content = if entry.deflated { Cow::Owned(inflate(entry, budget)?) } else { Cow::Borrowed(entry.data) };
        let mut crc = Crc::new();
        crc.update(&content);
        // PyTorch can be told to leave checksums out, and writes 0.
        if entry.checksum != 0 && crc.sum() != entry.checksum {
            return Err(format!("entry {} of the zip archive is damaged: its checksum differs", quoted(name)));
        }
        Ok(content)
    }
}

fn inflate(entry: &Entry<'_>, budget: &mut AllocLimit) -> Parsed<Vec<u8>> {
    let wrong = || format!("entry {} of the zip archive is damaged: it does not inflate to its size", quoted(entry.name));
    if entry.size / DEFLATE_LIMIT > entry.data.len() {
        return Err(wrong());
    }
    budget.take(entry.size)?;
    let mut content = vec![];
    content.try_reserve_exact(entry.size).map_err(|_| wrong())?;
    let mut decoder = DeflateDecoder::new(entry.data);
    // At most `size` bytes; the stream must end there as well.
    decoder.by_ref().take(entry.size as u64).read_to_end(&mut content).map_err(|_| wrong())?;
    let over = matches!(decoder.read(&mut [0]), Ok(0));
    if content.len() != entry.size || !over || decoder.total_in() != entry.data.len() as u64 {
        return Err(wrong());
    }
    Ok(content)
}

/// The start and end of the central directory, and its number of entries.
fn directory(bytes: &[u8]) -> Parsed<(usize, usize, u64)> {
    let last = bytes.len().checked_sub(END_SIZE).ok_or("too short for a zip archive")?;
    let end = (last.saturating_sub(usize::from(u16::MAX))..=last)
        .rev()
        .find(|&i| bytes[i..].starts_with(END) && u16_at(bytes, i + 20) == Ok(last - i))
        .ok_or("the zip archive has no end record; the file is truncated or damaged")?;
    let small = [u16_at(bytes, end + 10)? as u64, u32_at(bytes, end + 12)?, u32_at(bytes, end + 16)?];
    let locator = end.checked_sub(LOCATOR_SIZE).filter(|&i| bytes[i..].starts_with(LOCATOR_64));
    let (end, [count, size, offset]) = match locator {
        None => (end, small),
        Some(locator) => {
            let record = inside(bytes, u64_at(bytes, locator + 8)?)?;
            if !bytes[record..].starts_with(END_64) {
                return Err("the zip archive has no ZIP64 end record where it says".to_string());
            }
            let large = [u64_at(bytes, record + 32)?, u64_at(bytes, record + 40)?, u64_at(bytes, record + 48)?];
            let full = [u64::from(u16::MAX), u64::from(u32::MAX), u64::from(u32::MAX)];
            if (0..3).any(|i| small[i] != full[i] && small[i] != large[i]) {
                return Err("the zip archive's two end records contradict each other".to_string());
            }
            (record, large)
        }
    };
    let (offset, size) = (inside(bytes, offset)?, inside(bytes, size)?);
    if offset + size != end {
        return Err("the zip directory does not end at its end record".to_string());
    }
    Ok((offset, end, count))
}

/// Reads the entry at a position of the directory; returns it, its extent in the file, and the
/// position after it.
fn entry<'a>(bytes: &'a [u8], position: usize, directory: usize) -> Parsed<(Entry<'a>, (usize, usize), usize)> {
    if at(bytes, position)? != *CENTRAL {
        return Err("the zip directory is damaged".to_string());
    }
    let (flags, method, checksum) = (u16_at(bytes, position + 8)?, u16_at(bytes, position + 10)?, u32_at(bytes, position + 16)?);
    let mut sizes = [u32_at(bytes, position + 24)?, u32_at(bytes, position + 20)?, u32_at(bytes, position + 42)?];
    let name_end = position + 46 + u16_at(bytes, position + 28)?;
    let extra_end = name_end + u16_at(bytes, position + 30)?;
    let next = extra_end + u16_at(bytes, position + 32)?;
    let name = bytes.get(position + 46..name_end).ok_or("the zip directory is truncated")?;
    let extra = bytes.get(name_end..extra_end).filter(|_| next <= bytes.len()).ok_or("the zip directory is truncated")?;
    let text = std::str::from_utf8(name).map_err(|_| "a name in the zip directory is not UTF-8")?;
    widen(&mut sizes, extra)?;
    let fail = |what: &str| Err(format!("entry {} of the zip archive {what}", quoted(text)));
    if flags & 1 != 0 {
        return fail("is encrypted");
    }
    let deflated = match method {
        0 => false,
        8 => true,
        _ => return fail("is compressed in another way than deflate; write it stored or deflated"),
    };
    let [size, packed, local] = sizes;
    let (packed, local) = (inside(bytes, packed)?, inside(bytes, local)?);
    let (Ok(size), true) = (usize::try_from(size), deflated || size == packed as u64) else {
        return fail("has sizes that contradict each other");
    };
    if at(bytes, local)? != *LOCAL || u16_at(bytes, local + 8)? != method {
        return fail("has no local header where the directory says");
    }
    let local_name = local + 30 + u16_at(bytes, local + 26)?;
    let start = local_name + u16_at(bytes, local + 28)?;
    if bytes.get(local + 30..local_name) != Some(name) {
        return fail("has another name in its local header");
    }
    let end = start + packed;
    if end > directory {
        return fail("reaches into the zip directory");
    }
    let entry = Entry { name: text, deflated, checksum: checksum as u32, data: &bytes[start..end], size };
    Ok((entry, (local, end), next))
}

/// Replaces sizes that do not fit 32 bits by those of the ZIP64 field, which has just these, in
/// this order.
fn widen(sizes: &mut [u64; 3], mut extra: &[u8]) -> Parsed<()> {
    let full = u64::from(u32::MAX);
    if sizes.iter().all(|&size| size != full) {
        return Ok(());
    }
    while !extra.is_empty() {
        let (id, length) = (u16_at(extra, 0)?, u16_at(extra, 2)?);
        let field = extra.get(4..4 + length).ok_or("the zip directory is damaged")?;
        if id == 1 {
            for (i, size) in sizes.iter_mut().filter(|size| **size == full).enumerate() {
                *size = u64_at(field, 8 * i)?;
            }
            return Ok(());
        }
        extra = &extra[4 + length..];
    }
    Err("the zip directory lacks a ZIP64 field".to_string())
}

/// An entry to be written, stored.
pub(super) struct NewEntry<'a> {
    pub(super) name: String,
    pub(super) size: usize,
    /// Writes `size` bytes, the same each time.
    pub(super) content: Box<dyn Fn(&mut dyn Write) -> io::Result<()> + 'a>,
}

/// Returns the archive's length, `None` when it or a name is too long for a plain archive.
pub(super) fn length(entries: &[NewEntry<'_>]) -> Option<u32> {
    u16::try_from(entries.len()).ok().filter(|&count| count < u16::MAX)?;
    let total = entries.iter().try_fold(END_SIZE, |total, entry| {
        u16::try_from(entry.name.len()).ok()?;
        total.checked_add(30 + 46 + 2 * entry.name.len())?.checked_add(entry.size)
    })?;
    u32::try_from(total).ok().filter(|&total| total < u32::MAX)
}

/// Writes entries that have a [`length`].
pub(super) fn write(out: &mut dyn Write, entries: &[NewEntry<'_>]) -> io::Result<()> {
    let (mut directory, mut offset) = (vec![], 0);
    for entry in entries {
        let mut crc = Checksum(Crc::new());
        (entry.content)(&mut crc)?;
        // Version 2.0, names in UTF-8, stored, 1 January 1980.
        let mut header = vec![];
        for x in [20u16, 0x800, 0, 0, 0x21] {
            header.extend(x.to_le_bytes());
        }
        for x in [crc.0.sum(), entry.size as u32, entry.size as u32, entry.name.len() as u32] {
            header.extend(x.to_le_bytes());
        }
        out.write_all(LOCAL)?;
        out.write_all(&header)?;
        out.write_all(entry.name.as_bytes())?;
        (entry.content)(out)?;
        directory.extend(CENTRAL);
        directory.extend(20u16.to_le_bytes());
        directory.extend(header);
        directory.extend([0; 10]);
        directory.extend((offset as u32).to_le_bytes());
        directory.extend(entry.name.as_bytes());
        offset += 30 + entry.name.len() + entry.size;
    }
    out.write_all(&directory)?;
    out.write_all(END)?;
    out.write_all(&[0; 4])?;
    for _ in 0..2 {
        out.write_all(&(entries.len() as u16).to_le_bytes())?;
    }
    out.write_all(&(directory.len() as u32).to_le_bytes())?;
    out.write_all(&(offset as u32).to_le_bytes())?;
    out.write_all(&[0; 2])
}

/// A sink that computes the checksum of its input.
struct Checksum(Crc);

impl Write for Checksum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
