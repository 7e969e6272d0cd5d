//! IDX files, plain and gzip.

use std::fs;
use std::io::{Read, Write};

use convnet::data::{Rng, idx};
use flate2::{Compression, read::DeflateDecoder, write::GzEncoder};

use crate::mutate;

/// A file of each element type, some without elements, one of many equal bytes.
fn plain() -> Vec<Vec<u8>> {
    let mut files = vec![];
    for (code, size) in [(8, 1), (9, 1), (0x0B, 2), (0x0C, 4), (0x0D, 4), (0x0E, 8)] {
        for dims in [&[5, 3, 4][..], &[7], &[0, 28, 28], &[]] {
            let mut random = Rng::for_sample(code, 0, dims.len() as u64);
            let mut file = vec![0, 0, code as u8, dims.len() as u8];
            dims.iter().for_each(|dim: &u32| file.extend(dim.to_be_bytes()));
            file.extend((0..dims.iter().product::<u32>() * size).map(|_| random.bits() as u8));
            files.push(file);
        }
    }
    // Of signed bytes, each of which becomes an i64.
    files.push([&[0, 0, 9, 2, 0, 0, 1, 0, 0, 0, 0, 100][..], &[0; 25_600]].concat());
    files
}

fn pack(content: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Each content in one member, stored and compressed, and in several.
fn packed() -> Vec<Vec<u8>> {
    let several = |file: &Vec<u8>| file.chunks(9).chain([&[][..]]).flat_map(|part| pack(part, Compression::best())).collect();
    let small = plain().into_iter().filter(|file| file.len() < 1000).collect::<Vec<_>>();
    let one = plain().into_iter().map(|file| pack(&file, Compression::best()));
    one.chain(small.iter().map(|file| pack(file, Compression::none()))).chain(small.iter().map(several)).collect()
}

fn reader() -> impl Fn(&[u8]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    move |file| {
        let path = folder.path().join("file");
        fs::write(&path, file).unwrap();
        match idx::read(&path) {
            Ok(tensor) => {
                assert!(tensor.numel() * tensor.dtype().size() <= idx::DEFAULT_LIMIT as usize);
                assert!(file.starts_with(&[0x1f, 0x8b]) || tensor.numel() <= file.len());
                true
            }
            Err(error) => {
                assert!(error.to_string().contains("file"), "{error}");
                false
            }
        }
    }
}

/// A byte as it is in the file, and as an i64.
const PER_BYTE: usize = 1 + 8;

#[test]
fn a_mutated_idx_file_is_a_tensor_or_an_error_in_proportion() {
    mutate::run("IDX", &plain(), PER_BYTE, |_| {}, reader());
}

/// A byte of a deflate stream makes 1032 at most; the vector that they go to may be three times as
/// large while it grows.
const PER_PACKED_BYTE: usize = 1032 * (3 + 8);

#[test]
fn a_mutated_gzip_of_idx_is_a_tensor_or_an_error_in_proportion() {
    mutate::run("IDX in gzip", &packed(), PER_PACKED_BYTE, with_right_checksum, reader());
}

/// Rewrites the last 8 bytes to what a single member without a name should end with.
fn with_right_checksum(file: &mut [u8]) {
    let Some(end) = file.len().checked_sub(8).filter(|&end| end > 10) else { return };
    let mut content = vec![];
    // The bytes unpacked before an error are used as they are.
    let _ = DeflateDecoder::new(&file[10..end]).take(1 << 20).read_to_end(&mut content);
    let mut crc = flate2::Crc::new();
    crc.update(&content);
    file[end..end + 4].copy_from_slice(&crc.sum().to_le_bytes());
    file[end + 4..].copy_from_slice(&crc.amount().to_le_bytes());
}
