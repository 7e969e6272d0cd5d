//! Zip archives, right and wrong ones, for tests.

use std::io::Write;

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

/// An entry and what the archive says of it.
#[derive(Clone)]
pub struct Entry {
    pub name: String,
    /// In the local header.
    pub local_name: String,
    pub flags: u16,
    pub method: u16,
    pub checksum: u32,
    pub packed: u32,
    pub size: u32,
    /// Added to where the entry is; where it is said to be, when absent.
    pub offset: u32,
    /// Only in the directory.
    pub absent: bool,
    pub content: Vec<u8>,
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

pub fn stored(name: &str, content: &[u8]) -> Entry {
    Entry {
        name: name.into(),
        local_name: name.into(),
        flags: 0,
        method: 0,
        checksum: checksum(content),
        packed: content.len() as u32,
        size: content.len() as u32,
        offset: 0,
        absent: false,
        content: content.to_vec(),
    }
}

pub fn deflated(name: &str, content: &[u8]) -> Entry {
    let mut encoder = DeflateEncoder::new(vec![], Compression::fast());
    encoder.write_all(content).unwrap();
    let packed = encoder.finish().unwrap();
    Entry { method: 8, packed: packed.len() as u32, content: packed, ..stored(name, content) }
}

/// The header from the flags to the length of the extra field.
fn header(entry: &Entry, name: &str) -> Vec<u8> {
    let mut bytes = vec![];
    [entry.flags, entry.method, 0, 0x21].iter().for_each(|x| bytes.extend(x.to_le_bytes()));
    [entry.checksum, entry.packed, entry.size, name.len() as u32].iter().for_each(|x| bytes.extend(x.to_le_bytes()));
    bytes
}

pub fn archive(entries: &[Entry]) -> Vec<u8> {
    let (mut bytes, mut directory) = (vec![], vec![]);
    for entry in entries {
        let offset = entry.offset + if entry.absent { 0 } else { bytes.len() as u32 };
        directory.extend([b"PK\x01\x02\x14\0\x14\0".to_vec(), header(entry, &entry.name), vec![0; 10]].concat());
        directory.extend(offset.to_le_bytes());
        directory.extend(entry.name.as_bytes());
        if !entry.absent {
            bytes.extend([b"PK\x03\x04\x14\0".to_vec(), header(entry, &entry.local_name)].concat());
            bytes.extend(entry.local_name.as_bytes());
            bytes.extend(&entry.content);
        }
    }
    let start = bytes.len() as u32;
    bytes.extend(&directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    (0..2).for_each(|_| bytes.extend((entries.len() as u16).to_le_bytes()));
    bytes.extend((directory.len() as u32).to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0; 2]);
    bytes
}
