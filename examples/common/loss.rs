//! The loss of a classifier.

use convnet::models::GoogLeNet;
use convnet::nn::Module;
use convnet::ops::CrossEntropyOptions;
use convnet::{Result, Tensor};

/// Returns the logits of a batch and its loss, in training with the auxiliary heads of GoogLeNet.
pub fn logits_and_loss(model: &dyn Module, images: &Tensor, labels: &Tensor, options: &CrossEntropyOptions) -> Result<(Tensor, Tensor)> {
    match model.downcast_ref::<GoogLeNet>() {
        Some(network) if model.is_training() => {
            let output = network.forward_with_aux(images)?;
            let loss = output.loss_with(labels, options)?;
            Ok((output.logits, loss))
        }
        _ => {
            let logits = model.forward(images)?;
            let loss = logits.cross_entropy_with(labels, options)?;
            Ok((logits, loss))
        }
    }
}
