//! The one error type.

use std::path::PathBuf;

use crate::DType;
use crate::kernels::runtime::allocator::OutOfMemory;

/// `std::result::Result` with [`Error`] by default.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate; each message states what was expected and what was given.
///
/// `Debug` prints the message too, since it is what a `main` that returns this error shows.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Shapes that do not fit an operation or each other.
    #[error("{op}: {message}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// What was expected and what was given.
        message: String,
    },
    /// An element type that an operation does not support.
    #[error("{op}: expected {expected}, got {got}{}", conversion(expected))]
    DType {
        /// The operation.
        op: &'static str,
        /// The supported types.
        expected: &'static str,
        /// The given type.
        got: DType,
    },
    /// An input whose floating-point type differs from that of what it is combined with.
    #[error(
        "{op}: the input is {input}, the {name} {dtype}; convert either, with `.to_dtype(DType::{dtype:?})` or `.to_dtype(DType::{input:?})`"
    )]
    MixedDTypes {
        /// The operation.
        op: &'static str,
        /// The type of the input.
        input: DType,
        /// The other operand: `weight`, `bias`, …
        name: &'static str,
        /// Its type.
        dtype: DType,
    },
    /// An argument outside its range.
    #[error("{op}: {message}")]
    Argument {
        /// The operation.
        op: &'static str,
        /// What was expected and what was given.
        message: String,
    },
    /// A value inside a tensor that an operation does not accept, such as a label out of range.
    #[error("{op}: {message}")]
    Value {
        /// The operation.
        op: &'static str,
        /// What was expected and what was found.
        message: String,
    },
    /// A backward pass that cannot run.
    #[error("backward: {0}")]
    Backward(String),
    /// Memory for a result, or for temporary data, that cannot be allocated;
    /// [`memory::set_limit`](crate::memory::set_limit) sets the limit.
    #[error("out of memory: {what}: {source}")]
    OutOfMemory {
        /// What the memory was for, such as `a tensor [1099511627776] of f32`.
        what: String,
        /// How much was requested, and why the request was refused.
        source: OutOfMemory,
    },
    /// An error from inside a network, with the path of the layer it comes from.
    #[error("{}: {}", place(path, layer), source.in_network(*is_block))]
    Layer {
        /// The path of the layer or block, such as `layer1.0.conv1`; empty for a root and before
        /// the first visitor pass over the network.
        path: String,
        /// Its description, such as `Conv2d 64→64, k3`; for a block, its type.
        layer: String,
        /// Whether it is a block; the message then contains the name of the failed operation.
        is_block: bool,
        /// The original error.
        source: Box<Error>,
    },
    /// A state dict that does not fit a module; the message counts the mismatched keys and names
    /// the first of each kind.
    #[error("state dict: {0}")]
    StateDict(String),
    /// A sample of a dataset that could not be read or transformed.
    #[error("sample {index}{}: {source}", in_brackets(name))]
    Sample {
        /// Its index in the dataset.
        index: usize,
        /// Its name, such as the path of its file; empty when it has none.
        name: String,
        /// The original error.
        source: Box<Error>,
    },
    /// A file whose content violates its format.
    #[error("{}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A download that failed.
    #[error("download of {url}: {message}")]
    Download {
        /// The address.
        url: String,
        /// The cause.
        message: String,
    },
    /// An error from a user's dataset, transform, module or operation; see [`Error::other`] and
    /// [`Error::msg`].
    #[error("{0}")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An error with a description of the failed action; see [`Context`].
    #[error("{context}: {source}")]
    Context {
        /// The failed action.
        context: String,
        /// The original error.
        source: Box<Error>,
    },
    /// Training that cannot continue, such as after a loss that is not a number.
    #[error("training: {0}")]
    Training(String),
}

impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Converts an error about scratch memory.
impl From<OutOfMemory> for Error {
    fn from(source: OutOfMemory) -> Error {
        Error::OutOfMemory { what: "scratch memory of an operation".to_string(), source }
    }
}

/// Formats the position of an error, as in `layer1.0.conv1 (Conv2d 64→64, k3)`.
fn place(path: &str, layer: &str) -> String {
    if path.is_empty() { layer.to_string() } else { format!("{path} ({layer})") }
}

/// Returns the call that converts to the expected type, if there is one.
fn conversion(expected: &str) -> &'static str {
    match expected {
        "f32" | "f32 or f64" | "f32 or u8" => "; convert with `.to_dtype(DType::F32)`",
        "f64" => "; convert with `.to_dtype(DType::F64)`",
        "i64" => "; convert with `.to_dtype(DType::I64)`",
        "u8" => "; convert with `.to_dtype(DType::U8)`",
        _ => "",
    }
}

impl Error {
    /// Returns the message of an error from inside a network, where dtypes are those of the
    /// network's input and weights. The operation's name is left out unless requested, since the
    /// layer's description already names it.
    fn in_network(&self, with_op: bool) -> String {
        let (op, message) = match self {
            Error::Shape { op, message } | Error::Argument { op, message } | Error::Value { op, message } => (op, message.clone()),
            Error::DType { op, expected: expected @ "f32 or f64", got: got @ DType::U8 } => {
                let scaled = "x.to_dtype(DType::F32)?.mul_scalar(1.0 / 255.0)";
                let advice = format!("convert the input; the bytes of a picture are usually scaled to 0..1: `{scaled}`");
                (op, format!("expected {expected}, got {got}; {advice}"))
            }
            Error::DType { op, expected, got } => (op, format!("expected {expected}, got {got}{}", conversion(expected))),
            Error::MixedDTypes { op, input, name, dtype } => {
                let of_input = format!("convert the input with `x.to_dtype(DType::{dtype:?})`");
                let of_network = format!("the network with `model.to_dtype(DType::{input:?})`");
                (op, format!("the input is {input}, the {name} {dtype}; {of_input} or {of_network}"))
            }
            other => return other.to_string(),
        };
        if with_op { format!("{op}: {message}") } else { message }
    }

    /// Wraps an error of any type, so that datasets, transforms, modules and operations outside
    /// this crate return their own. [`downcast_ref`](Error::downcast_ref) finds it again. An
    /// [`Error`] is returned unchanged.
    ///
    /// ```
    /// use convnet::Error;
    ///
    /// let error = "12a".parse::<u32>().map_err(Error::other).unwrap_err();
    /// assert_eq!(error.to_string(), "invalid digit found in string");
    /// assert!(error.downcast_ref::<std::num::ParseIntError>().is_some());
    /// ```
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        match error.into().downcast::<Error>() {
            Ok(error) => *error,
            Err(error) => Error::Other(error),
        }
    }

    /// Creates an error with this message.
    pub fn msg(message: impl std::fmt::Display) -> Error {
        Error::Other(message.to_string().into())
    }

    /// Finds the first error of type `E` in this error and its sources: the one that
    /// [`Error::other`] wrapped, inside the layer, the sample or the context that was added to it.
    pub fn downcast_ref<E: std::error::Error + 'static>(&self) -> Option<&E> {
        let mut error: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(current) = error {
            if let Some(found) = current.downcast_ref() {
                return Some(found);
            }
            error = match current.downcast_ref() {
                // The source of the wrapper is the wrapped error itself.
                Some(Error::Other(wrapped)) => Some(&**wrapped),
                _ => current.source(),
            };
        }
        None
    }

    pub(crate) fn shape(op: &'static str, message: impl Into<String>) -> Error {
        Error::Shape { op, message: message.into() }
    }

    pub(crate) fn argument(op: &'static str, message: impl Into<String>) -> Error {
        Error::Argument { op, message: message.into() }
    }

    pub(crate) fn value(op: &'static str, message: impl Into<String>) -> Error {
        Error::Value { op, message: message.into() }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { path, source }
    }

    pub(crate) fn format(path: impl Into<PathBuf>, message: impl Into<String>) -> Error {
        Error::Format { path: path.into(), message: message.into() }
    }
}

/// Adds a description of the failed action to an error, or converts a missing value to an error.
///
/// ```
/// use convnet::{Context, Result};
///
/// fn label(line: &str) -> Result<i64> {
///     let (_, label) = line.split_once(',').context("a line needs a comma")?;
///     label.parse().with_context(|| format!("label {label:?}"))
/// }
///
/// assert_eq!(label("3.png").unwrap_err().to_string(), "a line needs a comma");
/// assert_eq!(label("3.png,x").unwrap_err().to_string(), "label \"x\": invalid digit found in string");
/// ```
pub trait Context<T> {
    /// Adds `context` in front of the error's message.
    ///
    /// # Errors
    /// [`Error::Context`] around the error, which [`Error::other`] converts to an [`Error`];
    /// [`Error::Other`] for `None`.
    fn context(self, context: impl std::fmt::Display) -> Result<T>;

    /// Adds a message that is built only when there is an error; see [`context`](Context::context).
    ///
    /// # Errors
    /// [`Error::Context`] around the error; [`Error::Other`] for `None`.
    fn with_context<C: std::fmt::Display>(self, context: impl FnOnce() -> C) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Context<T> for Result<T, E> {
    fn context(self, context: impl std::fmt::Display) -> Result<T> {
        self.with_context(|| context)
    }

    fn with_context<C: std::fmt::Display>(self, context: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|error| Error::Context { context: context().to_string(), source: Box::new(Error::other(error)) })
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, context: impl std::fmt::Display) -> Result<T> {
        self.with_context(|| context)
    }

    fn with_context<C: std::fmt::Display>(self, context: impl FnOnce() -> C) -> Result<T> {
        self.ok_or_else(|| Error::msg(context()))
    }
}

/// Formats a name from a file for a message: escaped, and at most one line long.
pub(crate) fn short(name: &str) -> String {
    const LONGEST: usize = 80;
    let short: String = name.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    let dots = if name.chars().nth(LONGEST).is_some() { "…" } else { "" };
    format!("{short}{dots}")
}

fn in_brackets(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" ({name})") }
}

/// Shortens a message that quotes values from a file or a caller, such as a shape of a million
/// sizes: to a few lines, without control characters.
pub(crate) fn clipped(message: &str) -> String {
    const LONGEST: usize = 300;
    let plain = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut clipped: String = message.chars().take(LONGEST).map(plain).collect();
    if message.chars().nth(LONGEST).is_some() {
        clipped.push('…');
    }
    clipped
}

/// Returns a hint about inputs without a batch dimension; empty for other shapes.
pub(crate) fn batch_hint(shape: &[usize], wanted: usize) -> &'static str {
    if shape.len() + 1 == wanted { "; `x.unsqueeze(0)` makes a batch of one" } else { "" }
}

/// Returns a hint about images that have their channels last; empty for other shapes.
pub(crate) fn channels_hint(shape: &[usize], channels: usize) -> &'static str {
    match *shape {
        [_, _, _, last] if last == channels => "; channels come second: `x.permute([0, 3, 1, 2])` takes [N, H, W, C] there",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_users_are_found_below_layers_samples_and_contexts() {
        let own: Result<(), _> = Err(std::fmt::Error);
        let error = own.context("reading the table").unwrap_err();
        let error = Error::Sample { index: 3, name: String::new(), source: Box::new(error) };
        let error = Error::Layer { path: "a.b".into(), layer: "Mine".into(), is_block: true, source: Box::new(error) };
        assert!(error.to_string().starts_with("a.b (Mine): sample 3: reading the table: "), "{error}");
        assert!(error.downcast_ref::<std::fmt::Error>().is_some());
        assert!(error.downcast_ref::<std::io::Error>().is_none());
        let io = Error::io("x")(std::io::Error::other("gone"));
        assert!(io.downcast_ref::<std::io::Error>().is_some());
    }

    #[test]
    fn error_of_this_crate_is_not_wrapped_again() {
        let error = Error::other(Error::argument("pad", "no"));
        assert!(matches!(error, Error::Argument { .. }));
        let wrapped: Result<(), Error> = Err(error);
        assert!(matches!(wrapped.context("here").unwrap_err(), Error::Context { source, .. } if matches!(*source, Error::Argument { .. })));
        assert_eq!(None::<u8>.context("nothing there").unwrap_err().to_string(), "nothing there");
    }
}
