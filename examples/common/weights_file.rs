//! Files of weights for registered models, and how pictures are prepared for them.
#![allow(dead_code)] // Each example uses a part.

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use convnet::data::{ImageClassification, ResizeFilter};
use convnet::nn::{Module, ModuleExt, StateDict};
use convnet::train::Checkpoint;
use convnet::{Context as _, Result, models, weights};
use serde_json::{Value, json};

/// The note of a checkpoint that says how pictures were prepared.
pub const PREPROCESSING: &str = "preprocessing";

/// The note of a checkpoint with the names of the classes.
pub const CLASSES: &str = "classes";

/// The longest side that a note may ask for.
const LONGEST: u64 = 1 << 16;

/// The filters of a resize, by the names in notes.
const FILTERS: [(&str, ResizeFilter); 3] =
    [("nearest", ResizeFilter::Nearest), ("bilinear", ResizeFilter::Bilinear), ("bicubic", ResizeFilter::Bicubic)];

/// Weights that a file holds.
pub struct Weights {
    path: PathBuf,
    state: StateDict,
    preprocessing: Option<ImageClassification>,
    /// The names of the classes, where a checkpoint has them.
    pub classes: Option<Vec<String>>,
    /// Whether a run of this crate wrote the file.
    of_run: bool,
}

/// Reads weights: a checkpoint of a run, whose averaged weights are taken when it has any; or a
/// file of PyTorch, safetensors or NumPy, with torchvision's or timm's names.
pub fn read(path: &Path) -> Result<Weights> {
    let (state, path) = (weights::load(path)?, path.to_path_buf());
    if !state.iter().any(|(name, _)| name.starts_with("optimizer.")) {
        return Ok(Weights { path, state: weights::rename(state)?, preprocessing: None, classes: None, of_run: false });
    }
    let checkpoint = Checkpoint::load(&path)?;
    let preprocessing = checkpoint.get(PREPROCESSING).map(|note| preprocessing_of(note).context("the note `preprocessing` is damaged"));
    let names = |note: &Value| note.as_array()?.iter().map(|name| name.as_str().map(String::from)).collect();
    Ok(Weights {
        preprocessing: preprocessing.transpose().with_context(|| path.display().to_string())?,
        classes: checkpoint.get(CLASSES).and_then(names),
        state: checkpoint.validated_weights()?,
        of_run: true,
        path,
    })
}

impl Weights {
    /// Loads the weights into a model that has the same shapes.
    pub fn load_into(&self, model: &dyn Module) -> Result<()> {
        let context = || format!("{} has the weights of another model, or for other classes", self.path.display());
        model.load_state_dict(&self.state).map(|_| ()).with_context(context)
    }

    /// Returns how pictures are prepared for the weights: as the run did it, whose checkpoint says
    /// so; weights from elsewhere get what the published weights of the model get. `None` for a
    /// checkpoint that says nothing.
    pub fn preprocessing(&self, model: &str) -> Result<Option<ImageClassification>> {
        match &self.preprocessing {
            None if self.of_run => Ok(None),
            None => models::preprocessing(model).map(Some),
            Some(preprocessing) => Ok(Some(preprocessing.clone())),
        }
    }
}

/// Returns how pictures are prepared for the weights; as for the published weights of the model
/// where nothing else is known.
pub fn preprocessing(weights: Option<&Weights>, model: &str) -> Result<ImageClassification> {
    let of_weights = weights.map(|weights| weights.preprocessing(model)).transpose()?.flatten();
    of_weights.map_or_else(|| models::preprocessing(model), Ok)
}

/// Loads weights into a model that has the same shapes.
pub fn load(model: &dyn Module, path: &Path) -> Result<()> {
    read(path)?.load_into(model)
}

/// Describes a preparation of pictures, for the note of a checkpoint.
pub fn note_of(preprocessing: &ImageClassification) -> Value {
    let [_, size, _] = preprocessing.shape();
    json!({
        "size": size,
        "resize": preprocessing.shorter_side(),
        "filter": name_of(preprocessing.filter()),
        "mean": preprocessing.mean(),
        "std": preprocessing.std(),
    })
}

/// Returns the reader of an option whose value is the name of a filter.
pub fn filters() -> impl TypedValueParser<Value = ResizeFilter> {
    let filter = |name: String| FILTERS.iter().find(|(other, _)| *other == name).expect("a name of the table").1;
    PossibleValuesParser::new(FILTERS.map(|(name, _)| name)).map(filter)
}

/// Returns the name of a filter.
pub fn name_of(filter: ResizeFilter) -> &'static str {
    FILTERS.iter().find(|(_, other)| *other == filter).map_or("bilinear", |(name, _)| name)
}

/// Returns the preparation that a note describes.
fn preprocessing_of(note: &Value) -> Result<ImageClassification> {
    let missing = |name: &str| convnet::Error::msg(format!("`{name}` is missing or invalid"));
    let side = |name: &str| {
        let side = note[name].as_u64().filter(|side| (1..=LONGEST).contains(side));
        side.map(|side| side as usize).ok_or_else(|| missing(name))
    };
    let numbers = |name: &str| {
        let numbers: Option<Vec<f64>> = note[name].as_array().and_then(|numbers| numbers.iter().map(Value::as_f64).collect());
        numbers.ok_or_else(|| missing(name))
    };
    let filter = FILTERS.iter().find(|(name, _)| note["filter"].as_str() == Some(name)).ok_or_else(|| missing("filter"))?;
    let (mean, std) = (numbers("mean")?, numbers("std")?);
    if !matches!(mean.len(), 1 | 3) || mean.len() != std.len() {
        return Err(missing("mean` and `std"));
    }
    let preset = ImageClassification::new(side("size")?).resize(side("resize")?).interpolation(filter.1);
    Ok(preset.normalize(mean, std))
}
