//! What the targets share: each one hands bytes to a reader of the public API, which has to return
//! a value or an error.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::{env, fs, process};

use convnet::data::Image;
use convnet::{Error, Tensor, weights};

/// Writes the bytes to a file that ends with `extension` and reads it. The file is the same in
/// every run of this process; its folder is `TMPDIR`, for which a file system in memory is fastest.
pub fn read_file<T>(bytes: &[u8], extension: &str, read: impl Fn(&Path) -> T) -> T {
    static STEM: LazyLock<PathBuf> = LazyLock::new(|| env::temp_dir().join(format!("convnet-fuzz-{}", process::id())));
    let path = STEM.with_extension(extension);
    fs::write(&path, bytes).expect("the temporary folder can be written to");
    read(&path)
}

/// Reads a file of weights, and every tensor in it.
pub fn load_weights(bytes: &[u8], extension: &str) {
    match read_file(bytes, extension, |path| weights::load(path)) {
        Ok(state) => state.iter().for_each(|(_, tensor)| visit(tensor)),
        Err(error) => explained(&error),
    }
}

/// Copies the tensor's elements out, so that every one is read.
pub fn visit(tensor: &Tensor) {
    assert_eq!(tensor.numel(), tensor.shape().iter().product::<usize>());
    let copied = tensor.to_dtype(convnet::DType::F64).and_then(|tensor| tensor.to_vec::<f64>());
    assert_eq!(copied.expect("a tensor has elements").len(), tensor.numel());
}

/// Checks that the error says something.
pub fn explained(error: &Error) {
    assert!(!error.to_string().is_empty());
}

/// Decodes a picture from its signature and the bytes that follow it.
pub fn decode(signature: &[u8], bytes: &[u8]) {
    // A seed that is a whole file keeps its one signature.
    let rest = bytes.strip_prefix(signature).unwrap_or(bytes);
    match Image::decode(&[signature, rest].concat()) {
        Ok(image) => assert_eq!(image.pixels().len(), image.shape().iter().product::<usize>()),
        Err(error) => explained(&error),
    }
}
