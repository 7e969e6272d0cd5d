//! New running statistics of batch normalisations.

use std::collections::HashSet;

use crate::autograd::no_grad;
use crate::error::{Error, Result};
use crate::nn::{Buffer, Item, Module, Visitor, average_statistics, keeping_modes};
use crate::tensor::Tensor;

/// Recomputes the running statistics of all batch normalisations as the equal average over batches
/// of inputs; PyTorch's `update_bn`. For a model with averaged weights, whose running statistics
/// were taken with other weights.
///
/// The model runs in training mode, without recording; afterwards each module has its former mode.
/// A model without batch normalisation is not run.
///
/// # Errors
/// The errors of the batches and of the model, and [`Error::Argument`] when there is no batch; then
/// the statistics are those from before.
pub fn update_batch_norm(model: &dyn Module, batches: impl IntoIterator<Item = Result<Tensor>>) -> Result<()> {
    keeping_modes(model, || {
        model.train();
        with_new_statistics(model, || {
            let mut count = 0;
            for batch in batches {
                model.forward(&batch?)?;
                count += 1;
            }
            Ok(count)
        })
    })
}

/// Runs passes through the model, without recording, that take the running statistics of the layers
/// in training mode anew; `passes` returns their number. After an error they are those from before.
pub(super) fn with_new_statistics(model: &dyn Module, passes: impl FnOnce() -> Result<u64>) -> Result<()> {
    let statistics = running_statistics(model);
    if statistics.is_empty() {
        return Ok(());
    }
    let before: Vec<Tensor> = statistics.iter().map(|(_, buffer)| buffer.tensor()).collect();
    let outcome = no_grad(|| {
        average_statistics(|| {
            for (name, buffer) in &statistics {
                let value = if name.ends_with("running_var") { 1.0 } else { 0.0 };
                buffer.set(&buffer.tensor().try_full_like(value)?)?;
            }
            if passes()? > 0 { Ok(()) } else { Err(Error::argument("update_batch_norm", "there are no batches to take statistics of")) }
        })
    });
    if outcome.is_err() {
        statistics.iter().zip(&before).try_for_each(|((_, buffer), value)| buffer.set(value))?;
    }
    outcome
}

/// Returns the buffers of all batch normalisations in training mode: a mean, a variance and a count
/// below one path.
fn running_statistics(model: &dyn Module) -> Vec<(String, Buffer)> {
    let buffers = model.named_buffers();
    let names = ["running_mean", "running_var", "num_batches_tracked"];
    let layer = |name: &str| names.iter().find_map(|end| name.strip_suffix(end)).map(str::to_string);
    let counted: Vec<String> = buffers.iter().filter_map(|(name, _)| name.strip_suffix(names[2]).map(str::to_string)).collect();
    let mut training = HashSet::new();
    Visitor::walk(model, &mut |path, item| {
        if let Item::TrainingMode(mode) = item
            && mode.is_training()
        {
            training.insert(if path.is_empty() { String::new() } else { format!("{path}.") });
        }
    });
    let wanted = |layer: &String| counted.contains(layer) && training.contains(layer);
    buffers.into_iter().filter(|(name, _)| layer(name).is_some_and(|layer| wanted(&layer))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{BatchNorm1d, Dropout, ModuleExt, Sequential};

    /// The expected numbers are those of `torch.optim.swa_utils.update_bn` of PyTorch 2.15.
    #[test]
    fn running_statistics_are_those_of_pytorch() {
        let model = Sequential::new().push(BatchNorm1d::new(2).momentum(0.3)).push(Dropout::new(0.5));
        model.forward(&Tensor::ones([4, 2])).unwrap();
        model.eval();
        let before = model.state_dict();
        let batch = |values: [f32; 6]| Ok(Tensor::from_vec(values.to_vec(), [3, 2]).unwrap());
        let batches = [batch([1.0, 2.0, 3.0, 5.0, -1.0, 0.5]), batch([0.0, 4.0, 8.0, -2.0, 2.0, 1.0])];
        update_batch_norm(&model, batches).unwrap();
        assert!(!model.is_training());
        let state = model.state_dict();
        let value = |name: &str| state.get(name).unwrap().to_vec::<f32>().unwrap();
        // A few roundings of f32 apart.
        let close = |got: Vec<f32>, expected: [f32; 2]| got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6 * b);
        assert!(close(value("0.running_mean"), [2.166_666_5, 1.75]) && close(value("0.running_var"), [10.666_668, 7.125]));
        assert_eq!(state.get("0.num_batches_tracked").unwrap().item::<i64>().unwrap(), 2);
        // An error leaves the statistics as they were.
        model.load_state_dict(&before).unwrap();
        let failing = [batch([1.0; 6]), Err(Error::msg("no more"))];
        assert!(update_batch_norm(&model, failing).unwrap_err().to_string().contains("no more"));
        assert!(update_batch_norm(&model, []).unwrap_err().to_string().contains("no batches"));
        assert!(model.state_dict().difference(&before).unwrap().is_empty());
    }
}
