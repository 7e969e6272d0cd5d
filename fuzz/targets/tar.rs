#![no_main]

use convnet::data::Cifar10;
use convnet_fuzz::{explained, read_file};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| if let Err(error) = read_file(bytes, "tar", |path| Cifar10::test(path)) {
    explained(&error);
});
