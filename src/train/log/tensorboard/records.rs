//! The framing of event files (TensorFlow's `TFRecord`): length, its checksum, data, its checksum.

use super::protobuf::find_integer;
use crate::train::log::record_file::{Format, Record};

/// Event files. The first record is the version, of 24 bytes.
pub(super) const FORMAT: Format = Format { name: "TensorBoard event file", start: &[24, 0, 0, 0, 0, 0, 0, 0], split };

/// The field of an event that has its step.
pub(super) const STEP: u64 = 2;

/// The field of an event that has a graph.
pub(super) const GRAPH: u64 = 4;

/// The bytes before and behind the data.
const HEADER: usize = 12;
const FOOTER: usize = 4;

/// CRC-32C (Castagnoli) of each byte.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

/// Masks a checksum, so that the checksum of data with checksums inside is as good as any.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// Returns the record around some data.
pub(super) fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend_from_slice(&masked(crc32c(&length)).to_le_bytes());
    record.extend_from_slice(data);
    record.extend_from_slice(&masked(crc32c(data)).to_le_bytes());
    record
}

/// Returns whether the first record is the event of a graph, as this crate writes it: after the
/// time, which takes nine bytes, there is the graph, without a step.
pub(super) fn is_graph(record: &[u8]) -> bool {
    const BYTES: u8 = 2;
    record.get(HEADER + 9) == Some(&((GRAPH as u8) << 3 | BYTES))
}

fn split(bytes: &[u8]) -> Option<Record> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    if masked(crc32c(length)) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let (data, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let checksum = rest.first_chunk::<FOOTER>()?;
    if masked(crc32c(data)) != u32::from_le_bytes(*checksum) {
        return None;
    }
    Some(Record { length: HEADER + data.len() + FOOTER, step: find_integer(data, STEP) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_rfc_3720() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(&std::array::from_fn::<u8, 32, _>(|i| i as u8)), 0x46DD_794E);
    }

    #[test]
    fn record_is_found_only_when_it_is_whole_and_undamaged() {
        let record = framed(&[1, 2, 3]);
        assert_eq!(split(&record).map(|record| record.length), Some(19));
        for at in 0..record.len() {
            assert!(split(&record[..at]).is_none());
            let mut damaged = record.clone();
            damaged[at] ^= 4;
            assert!(split(&damaged).is_none());
        }
    }
}
