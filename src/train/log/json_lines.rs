//! Logs as lines of JSON.

use std::path::PathBuf;

use super::record_file::{Format, Record, RecordFile};
use super::{LogValue, Logger, named_texts_and_scalars, seconds_since_1970};
use crate::error::Result;

const FORMAT: Format = Format { name: "log of JSON lines", start: b"{\"step\":", split };

/// A log as lines of JSON (<https://jsonlines.org>): for each call of [`log`](Logger::log) an
/// object with the step, the time in seconds since 1970, and the values by name.
///
/// Numbers have all their digits. JSON has no symbols for what is not finite: it is written as the
/// strings `"NaN"`, `"Infinity"` and `"-Infinity"`, as in Protocol Buffers' JSON. Scalars and texts
/// are written; images and histograms are left out.
///
/// A file that exists is continued by [`log`](Logger::log); a line that a killed process did not
/// complete is removed. A [`Trainer`](crate::train::Trainer) rewinds it first: to its checkpoint,
/// or to nothing when the run starts anew.
///
/// ```
/// use convnet::train::{JsonLines, LogValue, Logger};
///
/// # let dir = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(&dir).unwrap();
/// let mut log = JsonLines::new("runs/cifar/log.jsonl");
/// log.log(500, &[("train/loss", LogValue::Scalar(0.25)), ("note", LogValue::Text("warm-up \"done\""))])?;
/// let line = std::fs::read_to_string("runs/cifar/log.jsonl").unwrap();
/// let values: serde_json::Value = serde_json::from_str(&line).unwrap();
/// assert!(values["step"] == 500 && values["train/loss"] == 0.25 && values["note"] == "warm-up \"done\"");
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct JsonLines {
    file: RecordFile,
}

impl JsonLines {
    /// Logs to this file, which is created with the first values, as are the folders above it.
    pub fn new(path: impl Into<PathBuf>) -> JsonLines {
        JsonLines { file: RecordFile::new(path.into(), FORMAT) }
    }
}

impl Logger for JsonLines {
    fn log(&mut self, step: u64, values: &[(&str, LogValue<'_>)]) -> Result<()> {
        let values = named_texts_and_scalars(values, &["step", "time"])?;
        if values.is_empty() {
            return Ok(());
        }
        let mut line = format!("{{\"step\":{step},\"time\":{:.3}", seconds_since_1970());
        for (name, value) in values {
            let value = match value {
                LogValue::Scalar(value) if value.is_finite() => format!("{value:?}"),
                LogValue::Scalar(value) if value.is_nan() => "\"NaN\"".to_string(),
                LogValue::Scalar(value) => format!("\"{}Infinity\"", if value < 0.0 { "-" } else { "" }),
                LogValue::Text(text) => quoted(text),
                LogValue::Image(_) | LogValue::Histogram(_) => continue,
            };
            line.push_str(&format!(",{}:{value}", quoted(name)));
        }
        line.push_str("}\n");
        self.file.append(line.as_bytes())
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush()
    }

    fn rewind(&mut self, step: u64) -> Result<()> {
        self.file.rewind(step).map(drop)
    }
}

/// Returns a text in quotes, with what JSON escapes.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn split(bytes: &[u8]) -> Option<Record> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let number = bytes[..end].strip_prefix(FORMAT.start).and_then(|rest| rest.split(|byte| !byte.is_ascii_digit()).next());
    let step = number.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
    Some(Record { length: end + 1, step })
}
