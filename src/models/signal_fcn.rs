//! The fully convolutional network for series (Wang, Yan & Oates, *Time Series Classification from
//! Scratch with Deep Neural Networks: A Strong Baseline*, 2017).
//!
//! Three convolutions over time, without pooling between them, see the whole length at full
//! resolution; the mean over time makes one vector of it. Series of any length are possible, and
//! the classifier's weights, applied before the mean, say which moments raise a class's score.

use crate::error::Result;
use crate::nn::{BatchNorm1d, Conv1d, Linear, Module, block};
use crate::tensor::Tensor;
use crate::visit_fields;

/// The fully convolutional network for series; see [`signal_fcn`].
pub struct SignalFcn {
    /// Channels→128, 8 long.
    pub conv1: Conv1d,
    /// After `conv1`.
    pub bn1: BatchNorm1d,
    /// 128→256, 5 long.
    pub conv2: Conv1d,
    /// After `conv2`.
    pub bn2: BatchNorm1d,
    /// 256→128, 3 long.
    pub conv3: Conv1d,
    /// After `conv3`.
    pub bn3: BatchNorm1d,
    /// 128→outputs.
    pub fc: Linear,
}

/// Creates the network for series of `channels` channels. `outputs` are the classes, or the
/// numbers that a regression predicts.
///
/// # Shape
/// `[N, channels, L]` to `[N, outputs]`, for any length.
///
/// ```
/// use convnet::{Tensor, models::signal_fcn, nn::Module};
///
/// let model = signal_fcn(1, 2);
/// assert_eq!(model.num_parameters(), 264_962);
/// let series = Tensor::randn([4, 1, 150]);
/// assert_eq!(model.forward(&series)?.shape(), [4, 2]);
/// assert_eq!(model.class_maps(&series)?.shape(), [4, 2, 150]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn signal_fcn(channels: usize, outputs: usize) -> SignalFcn {
    SignalFcn {
        // A kernel of 8 wants 7 zeros to keep the length, 3 before and 4 after.
        conv1: Conv1d::new(channels, 128, 8).padding([3, 4]),
        bn1: BatchNorm1d::new(128),
        conv2: Conv1d::new(128, 256, 5).padding(2),
        bn2: BatchNorm1d::new(256),
        conv3: Conv1d::new(256, 128, 3).padding(1),
        bn3: BatchNorm1d::new(128),
        fc: Linear::new(128, outputs),
    }
}

impl SignalFcn {
    /// Computes the maps before the mean over time.
    ///
    /// # Shape
    /// `[N, channels, L]` to `[N, 128, L]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for an input of other dimensions or channels.
    pub fn features(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.bn1.forward(&self.conv1.forward(x)?)?.try_relu()?; //   [N, 128, L]
        let x = self.bn2.forward(&self.conv2.forward(&x)?)?.try_relu()?; //  [N, 256, L]
        self.bn3.forward(&self.conv3.forward(&x)?)?.try_relu() //            [N, 128, L]
    }

    /// Computes how much each moment of a series adds to each output: class-activation maps (Zhou
    /// et al., 2015). The mean of a map over time is the output less its bias.
    ///
    /// # Shape
    /// `[N, channels, L]` to `[N, outputs, L]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for an input of other dimensions or channels.
    pub fn class_maps(&self, x: &Tensor) -> Result<Tensor> {
        self.fc.weight.try_tensor()?.matmul(&self.features(x)?)
    }
}

impl Module for SignalFcn {
    /// # Shape
    /// `[N, channels, L]` to `[N, outputs]`.
    ///
    /// # Errors
    /// [`Error::Layer`](crate::Error::Layer) around [`Error::Shape`](crate::Error::Shape) for an
    /// input of other channels or of another rank.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || self.fc.forward(&self.features(x)?.mean(2)?))
    }

    visit_fields!(conv1, bn1, conv2, bn2, conv3, bn3, fc);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_of_class_maps_are_the_logits_less_the_bias() {
        crate::manual_seed(0);
        let (net, x) = (signal_fcn(2, 3), Tensor::randn([2, 2, 11]));
        net.eval();
        let logits = net.forward(&x).unwrap().to_vec::<f32>().unwrap();
        let maps = net.class_maps(&x).unwrap();
        assert_eq!(maps.shape(), [2, 3, 11]);
        let sums = maps.mean(2).unwrap().add(&net.fc.bias.as_ref().unwrap().tensor()).unwrap().to_vec::<f32>().unwrap();
        // The same sums in another order: some hundred roundings of numbers of about 1.
        assert!(logits.iter().zip(&sums).all(|(a, b)| (a - b).abs() < 1e-5), "{logits:?} {sums:?}");
    }

    #[test]
    fn any_length_is_possible_and_other_channels_are_an_error() {
        let net = signal_fcn(1, 2);
        for length in [1, 7, 24] {
            assert_eq!(net.forward(&Tensor::randn([3, 1, length])).unwrap().shape(), [3, 2]);
        }
        let message = |shape: &[usize]| net.forward(&Tensor::zeros(shape)).unwrap_err().to_string();
        assert!(message(&[3, 2, 9]).contains("Conv1d 1→128, k8: expected 1 input channels, got shape [3, 2, 9]"));
        assert!(message(&[9]).contains("expected [N, C, L] or [C, L], got shape [9]"));
    }
}
