#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| convnet_fuzz::load_weights(bytes, "pth"));
