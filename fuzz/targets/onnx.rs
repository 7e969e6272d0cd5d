#![no_main]

use convnet::nn::ModuleExt;
use convnet::onnx;
use convnet_fuzz::{explained, read_file, visit};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| match read_file(bytes, "onnx", |path| onnx::import(path)) {
    Ok(network) => {
        network.preprocessing();
        network.classes();
        network.state_dict().iter().for_each(|(_, tensor)| visit(tensor));
    }
    Err(error) => explained(&error),
});
