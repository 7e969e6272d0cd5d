//! Files of weights for registered models.

use std::path::Path;

use convnet::nn::{Module, ModuleExt, StateDict};
use convnet::train::Checkpoint;
use convnet::{Context as _, Result, weights};

/// Reads weights: a checkpoint of a run, whose averaged weights are taken when it has any; or a
/// file of PyTorch, safetensors or NumPy, with torchvision's or timm's names.
pub fn read(path: &Path) -> Result<StateDict> {
    let state = weights::load(path)?;
    if !state.iter().any(|(name, _)| name.starts_with("optimizer.")) {
        return weights::rename(state);
    }
    Checkpoint::load(path)?.validated_weights()
}

/// Loads weights into a model that has the same shapes.
pub fn load(model: &dyn Module, path: &Path) -> Result<()> {
    let context = || format!("{} has the weights of another model, or for other classes", path.display());
    model.load_state_dict(&read(path)?).map(|_| ()).with_context(context)
}
