#![no_main]

use convnet::nn::StateDict;
use convnet_fuzz::{explained, read_file, visit};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| match read_file(bytes, "safetensors", |path| StateDict::load(path)) {
    Ok(state) => state.iter().for_each(|(_, tensor)| visit(tensor)),
    Err(error) => explained(&error),
});
