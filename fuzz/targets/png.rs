#![no_main]

use convnet_fuzz::decode;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| decode(b"\x89PNG\r\n\x1a\n", bytes));
