//! JPEG and PNG files, from the fixtures of `tests/data/pictures.rs`.

use std::fs;
use std::path::Path;

use convnet::data::Image;
use convnet::nn::StateDict;

use crate::mutate;

/// The fixtures of a kind: those that are files, and odd ones.
pub fn fixtures(extension: &str, prefix: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/images"));
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    let mut files: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    for (name, file) in StateDict::load(folder.join("odd.safetensors")).unwrap() {
        if name.starts_with(prefix) && name.ends_with(" file") {
            files.push(file.to_vec().unwrap());
        }
    }
    files
}

fn read(file: &[u8]) -> bool {
    match Image::decode(file) {
        Ok(image) => {
            assert_eq!(image.pixels().len(), image.shape().iter().product::<usize>());
            assert!(image.is_bytes() && image.channels() == 3);
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// A pixel takes 18 bytes at most: one or three decoded, three of colour and three f32. A byte may
/// fill 128 blocks of 64 pixels, with 192 bytes of coefficients and samples each.
pub const PER_JPEG_BYTE: usize = 128 * (64 * 18 + 192);

#[test]
fn a_mutated_jpeg_is_a_picture_or_an_error_in_proportion() {
    let seeds = fixtures("jpg", "jpeg");
    mutate::run("JPEG", &seeds, PER_JPEG_BYTE, |_| {}, read);
}

/// A byte may fill 1032 bytes of pixels, of 8 pixels each that take 16 bytes.
pub const PER_PNG_BYTE: usize = 1032 * (1 + 8 * 16);

#[test]
fn a_mutated_png_is_a_picture_or_an_error_in_proportion() {
    let seeds = fixtures("png", "png");
    mutate::run("PNG", &seeds, PER_PNG_BYTE, with_right_checksums, read);
}

/// Rewrites the checksums of a PNG file's chunks.
pub fn with_right_checksums(file: &mut [u8]) {
    let mut at = 8;
    while let Some(&[a, b, c, d]) = file.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        let end = at + 8 + u32::from_be_bytes([a, b, c, d]) as usize;
        if file.len() < end + 4 {
            return;
        }
        let mut crc = flate2::Crc::new();
        crc.update(&file[at + 4..end]);
        file[end..end + 4].copy_from_slice(&crc.sum().to_be_bytes());
        at = end + 4;
    }
}
