#![no_main]

use convnet::data::Image;
use convnet_fuzz::{explained, read_file};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| match read_file(bytes, "picture", |path| Image::open_upright(path)) {
    Ok(image) => assert_eq!(image.pixels().len(), image.shape().iter().product::<usize>()),
    Err(error) => explained(&error),
});
