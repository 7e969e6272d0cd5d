#![no_main]

use convnet::data::idx;
use convnet_fuzz::{explained, read_file, visit};

/// Below the default limit, so that an input takes little time: 16 MiB of unpacked elements.
const LIMIT: u64 = 16 << 20;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| match read_file(bytes, "idx", |path| idx::read_with_limit(path, LIMIT)) {
    Ok(tensor) => visit(&tensor),
    Err(error) => explained(&error),
});
