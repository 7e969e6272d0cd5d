//! Networks to and from ONNX files.

mod export;
mod import;
