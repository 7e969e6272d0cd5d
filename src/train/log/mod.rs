//! Logs of a run: values by name and step, as tables, lines of JSON and TensorBoard's event files.
//!
//! All of them keep whole records when the process is killed, and continue or rewind what an
//! earlier process wrote.

mod csv;
mod json_lines;
mod record_file;
mod tensorboard;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

pub use csv::CsvLog;
pub use json_lines::JsonLines;
pub use tensorboard::TensorBoard;

use crate::data::Image;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A value that is logged.
#[derive(Clone, Copy)]
pub enum LogValue<'a> {
    /// A number, such as a loss.
    Scalar(f64),
    /// A picture.
    Image(&'a Image),
    /// The distribution of a tensor's elements.
    Histogram(&'a Tensor),
    /// A text.
    Text(&'a str),
}

impl fmt::Debug for LogValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogValue::Scalar(value) => write!(f, "{value}"),
            LogValue::Image(image) => write!(f, "image {:?}", image.shape()),
            LogValue::Histogram(tensor) => write!(f, "histogram of {:?}", tensor.shape()),
            LogValue::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// Writes what a run reports. A [`Trainer`](super::Trainer) calls it; a loop written by hand can as
/// well.
///
/// ```
/// use convnet::train::{LogValue, Logger};
///
/// /// Keeps the scalars in memory.
/// #[derive(Default)]
/// struct Memory(Vec<(u64, String, f64)>);
///
/// impl Logger for Memory {
///     fn log(&mut self, step: u64, values: &[(&str, LogValue<'_>)]) -> convnet::Result<()> {
///         for (name, value) in values {
///             if let LogValue::Scalar(value) = value {
///                 self.0.push((step, name.to_string(), *value));
///             }
///         }
///         Ok(())
///     }
///
///     fn rewind(&mut self, step: u64) -> convnet::Result<()> {
///         self.0.retain(|(logged, ..)| *logged <= step);
///         Ok(())
///     }
/// }
///
/// let mut memory = Memory::default();
/// memory.log(1, &[("train/loss", LogValue::Scalar(0.5))])?;
/// memory.rewind(0)?;
/// assert!(memory.0.is_empty());
/// # Ok::<(), convnet::Error>(())
/// ```
pub trait Logger: Send {
    /// Writes values of one step, by names such as `train/loss`. A value of a kind that the log
    /// cannot hold is left out.
    ///
    /// # Errors
    /// When the log cannot be written.
    fn log(&mut self, step: u64, values: &[(&str, LogValue<'_>)]) -> Result<()>;

    /// Returns once everything so far is on disk.
    ///
    /// # Errors
    /// When the log cannot be written.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// Discards what was written for steps after this one: a run that was interrupted goes on from
    /// a checkpoint of this step. 0 begins anew.
    ///
    /// # Errors
    /// When the log cannot be written.
    fn rewind(&mut self, step: u64) -> Result<()>;
}

/// Returns the values that a text file can hold; of those with one name, the last.
///
/// # Errors
/// [`Error::Argument`] for a name that the file uses itself.
fn named_texts_and_scalars<'a>(values: &[(&'a str, LogValue<'a>)], reserved: &[&str]) -> Result<Vec<(&'a str, LogValue<'a>)>> {
    let mut kept: Vec<(&str, LogValue<'_>)> = Vec::new();
    for &(name, value) in values.iter().filter(|(_, value)| matches!(value, LogValue::Scalar(_) | LogValue::Text(_))) {
        if reserved.contains(&name) {
            return Err(Error::argument("log", format!("the log itself writes `{name}`: give the value another name")));
        }
        match kept.iter_mut().find(|(other, _)| *other == name) {
            Some(earlier) => earlier.1 = value,
            None => kept.push((name, value)),
        }
    }
    Ok(kept)
}

/// Returns the time in seconds since 1970; 0 when the clock is before.
fn seconds_since_1970() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
