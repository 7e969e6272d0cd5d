//! Common options of model builders.

/// Classes, input channels and dropout of a network. Builders accept a plain number of classes or
/// these options:
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
    /// Creates options for this many classes, three input channels, and the dropout of the
    /// network's paper.
    pub fn new(num_classes: usize) -> ModelOptions {
        ModelOptions { num_classes, input_channels: 3, dropout: None }
    }

    /// Sets the number of input channels.
    pub fn input_channels(mut self, channels: usize) -> ModelOptions {
        self.input_channels = channels;
        self
    }

    /// Sets the probability of dropout before the classifier.
    pub fn dropout(mut self, p: f64) -> ModelOptions {
        self.dropout = Some(p);
        self
    }

    /// Returns the dropout that was set, or else the network's default.
    pub(super) fn dropout_or(&self, default: f64) -> f64 {
        self.dropout.unwrap_or(default)
    }
}

impl From<usize> for ModelOptions {
    fn from(num_classes: usize) -> ModelOptions {
        ModelOptions::new(num_classes)
    }
}
