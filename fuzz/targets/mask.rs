#![no_main]

use convnet::data::Mask;
use convnet_fuzz::{explained, read_file};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| match read_file(bytes, "png", |path| Mask::open(path)) {
    Ok(mask) => assert_eq!(mask.classes().len(), mask.size().iter().product::<usize>()),
    Err(error) => explained(&error),
});
