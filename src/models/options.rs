//! What builders of networks leave open.

/// Classes, input channels and dropout of a network. Builders take a plain number of classes or this:
///
/// ```
/// use convnet::models::{ModelOptions, alexnet};
///
/// let plain = alexnet(10);
/// let grey = alexnet(ModelOptions::new(10).input_channels(1).dropout(0.2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelOptions {
    pub(super) num_classes: usize,
    pub(super) input_channels: usize,
    dropout: Option<f64>,
}

impl ModelOptions {
    /// For this many classes, colour pictures, and the dropout that the network's paper has.
    pub fn new(num_classes: usize) -> ModelOptions {
        ModelOptions { num_classes, input_channels: 3, dropout: None }
    }

    /// The channels of the pictures.
    pub fn input_channels(mut self, channels: usize) -> ModelOptions {
        self.input_channels = channels;
        self
    }

    /// The probability of dropout before the classifier.
    pub fn dropout(mut self, p: f64) -> ModelOptions {
        self.dropout = Some(p);
        self
    }

    /// The dropout that was asked for, or else the network's own.
    pub(super) fn dropout_or(&self, default: f64) -> f64 {
        self.dropout.unwrap_or(default)
    }
}

impl From<usize> for ModelOptions {
    fn from(num_classes: usize) -> ModelOptions {
        ModelOptions::new(num_classes)
    }
}
