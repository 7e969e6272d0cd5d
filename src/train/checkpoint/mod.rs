//! Checkpoints: the whole state of a run in one file.
//!
//! # Format
//! A checkpoint is a safetensors file. Its tensors are named by section: `model.conv1.weight`,
//! `optimizer.sgd.param.0.momentum_buffer`, `schedule.schedule.step`,
//! `average.average.conv1.weight`. Its metadata has the key `convnet`, whose value is a JSON
//! object: `version`, and what [`Checkpoint::note`] added, such as `step`, `epoch`, `batch`,
//! `seed`. From Python:
//!
//! ```python
//! import json
//! from safetensors import safe_open
//! with safe_open("step-0000000500.safetensors", "pt") as file:
//!     notes = json.loads(file.metadata()["convnet"])
//!     model = {name[6:]: file.get_tensor(name) for name in file.keys() if name.startswith("model.")}
//! ```

mod directory;

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};

pub use directory::Checkpoints;

use crate::error::{Error, Result, short};
use crate::nn::StateDict;
use crate::nn::state::safetensors;
use crate::tensor::Tensor;

/// The version of the format that this release writes.
const VERSION: u64 = 1;

/// The key of the metadata that holds the notes.
const KEY: &str = "convnet";

/// Sections of named tensors and notes, read and written as one file.
///
/// ```
/// use convnet::prelude::*;
/// use convnet::train::Checkpoint;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(&dir).unwrap();
/// let model = Linear::new(4, 2);
/// let mut optimizer = Adam::new(model.parameters(), 1e-3);
/// let checkpoint = Checkpoint::new()
///     .with("model", model.state_dict())
///     .with("optimizer", optimizer.state())
///     .note("step", 500);
/// checkpoint.save("run.safetensors")?;
///
/// let loaded = Checkpoint::load("run.safetensors")?;
/// model.load_state_dict(&loaded.section("model")?)?;
/// optimizer.load_state(&loaded.section("optimizer")?.into_iter().collect())?;
/// assert_eq!(loaded.count("step")?, 500);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    tensors: StateDict,
    notes: Map<String, Value>,
}

impl Checkpoint {
    /// Makes a checkpoint without content.
    pub fn new() -> Checkpoint {
        Checkpoint::default()
    }

    /// Adds named tensors as a section; a state dict, or the state of an optimiser.
    #[must_use]
    pub fn with(mut self, section: &str, tensors: impl IntoIterator<Item = (String, Tensor)>) -> Checkpoint {
        for (name, tensor) in tensors {
            self.tensors.insert(format!("{section}.{name}"), tensor);
        }
        self
    }

    /// Adds a note: a number, a text, a list.
    #[must_use]
    pub fn note(mut self, key: &str, value: impl Into<Value>) -> Checkpoint {
        self.notes.insert(key.to_string(), value.into());
        self
    }

    /// Returns the tensors of a section; none when it was empty or is missing.
    ///
    /// # Errors
    /// [`Error::StateDict`] when the section's name has a dot.
    pub fn section(&self, section: &str) -> Result<StateDict> {
        if section.contains('.') {
            return Err(Error::StateDict(format!("the name of a section has no dot, got {}", short(section))));
        }
        let prefix = format!("{section}.");
        let tensors = self.tensors.iter();
        Ok(tensors.filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?.to_string(), tensor.clone()))).collect())
    }

    /// Returns the weights that a [`Trainer`](crate::train::Trainer) validates, for use after the
    /// run: the average of the weights, where the run has one, with the buffers that belong to it;
    /// else those of the model.
    ///
    /// # Errors
    /// [`Error::StateDict`] when the checkpoint has no section `model`.
    pub fn validated_weights(&self) -> Result<StateDict> {
        let (model, average) = (self.section("model")?, self.section("average")?);
        if model.is_empty() {
            return Err(Error::StateDict("the checkpoint has no section `model`; it is of another program".to_string()));
        }
        let averaged = |name: &str| average.get(&format!("average.{name}")).cloned();
        let weights = model.iter().map(|(name, own)| (name.to_string(), averaged(name).unwrap_or_else(|| own.clone())));
        Ok(weights.collect())
    }

    /// Returns a note.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.notes.get(key)
    }

    /// Returns a note that is a whole number and not negative.
    ///
    /// # Errors
    /// [`Error::StateDict`] when there is no such note.
    pub fn count(&self, key: &str) -> Result<u64> {
        let note = self.notes.get(key).and_then(Value::as_u64);
        note.ok_or_else(|| Error::StateDict(format!("the checkpoint has no number {}; it is of another program", short(key))))
    }

    /// Writes the checkpoint: beside the target, synced and renamed, so that after a crash the file
    /// is the old one or the new one.
    ///
    /// # Errors
    /// [`Error::Io`] with the path when it cannot be written; the old file is as it was then.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        safetensors::save_with_metadata(&self.tensors, &[(KEY, &self.notes())], path.as_ref())
    }

    /// Returns the bytes of the file.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        safetensors::to_bytes(&self.tensors, &[(KEY, &self.notes())], Path::new("a checkpoint"))
    }

    /// Returns the notes and the version as JSON.
    fn notes(&self) -> String {
        let mut notes = self.notes.clone();
        notes.insert("version".to_string(), VERSION.into());
        Value::Object(notes).to_string()
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Format`] when it is no checkpoint, or
    /// one of a newer version.
    pub fn load(path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        Checkpoint::of_parts(safetensors::load_with_metadata(path)?, path)
    }

    /// Reads the bytes of a checkpoint's file.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Checkpoint> {
        let path = Path::new("a checkpoint");
        Checkpoint::of_parts(safetensors::from_bytes(bytes, path)?, path)
    }

    fn of_parts((tensors, metadata): (StateDict, HashMap<String, String>), path: &Path) -> Result<Checkpoint> {
        let no_checkpoint = "not a checkpoint: it has weights, but nothing of a run; `load` of the model reads it";
        let notes = metadata.get(KEY).ok_or_else(|| Error::format(path, no_checkpoint))?;
        let Ok(Value::Object(notes)) = serde_json::from_str(notes) else {
            return Err(Error::format(path, "the notes of the checkpoint are damaged"));
        };
        match notes.get("version").and_then(Value::as_u64) {
            Some(version) if version <= VERSION => Ok(Checkpoint { tensors, notes }),
            Some(version) => {
                let message = format!(
                    "the checkpoint has version {version}, this program reads up to {VERSION}; a newer release of convnet reads it"
                );
                Err(Error::format(path, message))
            }
            None => Err(Error::format(path, "the checkpoint has no version")),
        }
    }
}
