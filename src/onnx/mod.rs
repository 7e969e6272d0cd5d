//! Networks as ONNX files, the exchange format of most frameworks (feature `onnx`).
//!
//! An ONNX file is a graph of operators on named values, with the weights among them as
//! initialisers. [`export()`] writes a module as one, [`Export`] has the options. [`import()`]
//! reads one (and [`import_bytes`] the content of one) as a [`Network`], which is a
//! [`Module`](crate::nn::Module) and runs graphs with several inputs and outputs:
//!
//! ```no_run
//! use convnet::{Tensor, no_grad, nn::Module, onnx};
//!
//! let network = onnx::import("resnet18.onnx")?;
//! println!("{network}");
//! let logits = no_grad(|| network.forward(&Tensor::zeros([1, 3, 224, 224])))?;
//! # Ok::<(), convnet::Error>(())
//! ```
// `proto` is the file's messages, generated from ONNX's description; `wire` decodes them within
// limits, `tensors` the tensors in them.

mod element;
mod export;
mod import;
// Each message and its functions, whether they are used here or not; names are those of ONNX.
#[allow(dead_code, clippy::enum_variant_names)]
mod proto;
mod tensors;
mod wire;

use std::path::Path;

pub use element::ElementType;
pub use export::{Export, export};
pub use import::{Network, ValueInfo, import, import_bytes};

use crate::error::{Error, Result, clipped};
use crate::io::read_file;
use crate::tensor::Tensor;
use crate::weights::alloc_limit::AllocLimit;

/// Reads one tensor from a file that holds nothing else, as the data of ONNX's own tests do
/// (`input_0.pb`).
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::Format`] when it is damaged or its element
/// type is not supported.
pub fn read_tensor(path: impl AsRef<Path>) -> Result<Tensor> {
    let path = path.as_ref();
    let bytes = read_file(path)?;
    let mut limit = AllocLimit::new(bytes.len());
    let value = wire::tensor(bytes.into(), &mut limit).and_then(|tensor| tensors::value(&tensor, path.parent(), &mut limit));
    value.map(|value| value.tensor).map_err(|message| Error::format(path, clipped(&message)))
}
