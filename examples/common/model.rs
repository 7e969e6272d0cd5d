//! Registered models and their weights.

use std::path::Path;

use convnet::nn::{Module, ModuleExt, StateDict};
use convnet::train::Checkpoint;
use convnet::{Context as _, Result, models, weights};

/// Builds a registered model.
pub fn create(name: &str, classes: usize) -> Result<Box<dyn Module>> {
    models::create(name, classes)
}

/// Returns the shape of a model's input, `[C, H, W]`.
pub fn input(name: &str) -> Result<[usize; 3]> {
    Ok(models::info(name)?.input)
}

/// Reads weights: a checkpoint of a run, whose averaged weights are taken when it has any; or a
/// file of PyTorch, safetensors or NumPy, with torchvision's or timm's names.
pub fn read_weights(path: &Path) -> Result<StateDict> {
    let state = weights::load(path)?;
    if !state.iter().any(|(name, _)| name.starts_with("optimizer.")) {
        return weights::rename(state);
    }
    Checkpoint::load(path)?.validated_weights()
}

/// Loads weights into a model that has the same shapes.
pub fn load(model: &dyn Module, path: &Path) -> Result<()> {
    let state = read_weights(path)?;
    let context = || format!("{} has the weights of another model, or for other classes", path.display());
    model.load_state_dict(&state).map(|_| ()).with_context(context)
}
