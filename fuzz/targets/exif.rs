#![no_main]

use convnet::Result;
use convnet::data::Image;
use convnet_fuzz::{explained, read_file};

/// Checks a picture, and that its header states its size.
fn check(image: Result<Image>, size: Result<[usize; 2]>) {
    match (image, size) {
        (Ok(image), size) => {
            assert_eq!(image.pixels().len(), image.shape().iter().product::<usize>());
            assert_eq!(size.expect("a picture that opens has a size"), image.size());
        }
        (Err(error), size) => {
            explained(&error);
            size.err().iter().for_each(explained);
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| read_file(bytes, "picture", |path| {
    check(Image::open_upright(path), Image::size_of_upright(path));
    check(Image::open(path), Image::size_of(path));
}));
