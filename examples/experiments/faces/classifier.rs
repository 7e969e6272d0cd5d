//! A classifier of patches that becomes a detector.

use convnet::prelude::*;

/// A classifier of patches.
pub struct Classifier {
    convolutions: Sequential,
    dropout: Dropout,
    dense: Linear,
}

impl Classifier {
    pub fn new() -> Classifier {
        let block = |from, to, kernel| {
            Sequential::new().push(Conv2d::new(from, to, kernel)).push(BatchNorm2d::new(to)).push(ReLU).push(MaxPool2d::new(2))
        };
        let convolutions = block(1, 16, 5).push(block(16, 32, 3)); // [N, 16, 10, 10], [N, 32, 4, 4]
        Classifier { convolutions, dropout: Dropout::new(0.5), dense: Linear::new(32 * 4 * 4, 2) }
    }

    /// Makes the dense layer a convolution over maps of 4×4: its weights already have that order.
    pub fn into_detector(self) -> Result<Sequential> {
        let conv = Conv2d::new(32, 2, 4);
        conv.weight.set(&self.dense.weight.tensor().detach().reshape([2, 32, 4, 4])?)?;
        if let (Some(to), Some(from)) = (&conv.bias, &self.dense.bias) {
            to.set(&from.tensor().detach())?;
        }
        let detector = Sequential::new().push(self.convolutions).push(conv);
        detector.eval();
        Ok(detector)
    }
}

impl Module for Classifier {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.apply(&self.convolutions)?.flatten(1, -1)?.apply(&self.dropout)?.apply(&self.dense)
    }

    visit_fields!(convolutions, dropout, dense);
}
