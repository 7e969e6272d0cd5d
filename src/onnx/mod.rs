//! Networks as ONNX files, the exchange format of most frameworks.
//!
//! [`proto`] is the file's messages, generated from ONNX's description; [`wire`] decodes them within
//! limits. An ONNX file is a graph of operators on named values, with the weights among them as
//! initialisers.

// Each message and its functions, whether they are used here or not.
mod export;
#[allow(dead_code)]
mod proto;
mod wire;

pub use export::{Export, export};
