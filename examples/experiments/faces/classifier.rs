//! A classifier of patches that becomes a detector.

use convnet::ops::{PadMode, Pool2dOptions};
use convnet::prelude::*;

/// Subtracts the mean of the 9×9 pixels around each, and divides by their deviation, so that
/// neither brightness nor contrast of a place matters.
struct LocalContrast;

impl Module for LocalContrast {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let padded = x.pad_with([4; 4], PadMode::Reflect)?;
        let around = |x: &Tensor| x.avg_pool2d(9, Pool2dOptions::new().stride(1));
        let mean = around(&padded)?;
        let variance = around(&padded.square()?)?.sub(&mean.square()?)?.clamp(0.0, 1.0)?;
        x.sub(&mean)?.div(&variance.sqrt()?.mul_scalar(2.0).add_scalar(0.1))
    }

    visit_fields!();
}

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
        // [N, 1, 25, 25], [N, 16, 10, 10], [N, 32, 4, 4]
        let convolutions = Sequential::new().push(LocalContrast).push(block(1, 16, 5)).push(block(16, 32, 3));
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

/// Networks whose outputs are averaged: where one errs, the others seldom do.
pub struct Committee(pub Vec<Sequential>);

impl Module for Committee {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let outputs = self.0.iter().map(|net| net.forward(x)).collect::<Result<Vec<_>>>()?;
        Tensor::stack(&outputs.iter().collect::<Vec<_>>(), 0)?.mean(0)
    }

    visit_fields!(each 0 => |index| index.to_string());
}
