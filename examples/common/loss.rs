//! The loss and accuracy of a classifier.

use convnet::data::Batch;
use convnet::models::GoogLeNet;
use convnet::nn::Module;
use convnet::ops::CrossEntropyOptions;
use convnet::train::{Step, accuracy};
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

/// Returns the step of a batch with its accuracy, the logits and the classes. Labels are classes,
/// or probabilities, which mixtures of pictures have.
#[allow(dead_code)] // Not every example trains.
pub fn step_of(model: &dyn Module, Batch { images, labels }: &Batch, options: &CrossEntropyOptions) -> Result<(Step, Tensor, Tensor)> {
    let (logits, loss) = logits_and_loss(model, images, labels, options)?;
    let classes = if labels.ndim() == 2 { labels.argmax(1)? } else { labels.clone() };
    Ok((Step::new(loss).metric("accuracy", accuracy(&logits, &classes)?), logits, classes))
}
