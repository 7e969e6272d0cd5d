#![no_main]

use convnet_fuzz::decode;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| decode(&[0xff, 0xd8], bytes));
