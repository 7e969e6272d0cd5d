//! AlexNet (Krizhevsky, Sutskever & Hinton, *ImageNet Classification with Deep Convolutional Neural
//! Networks*, 2012).
//!
//! Five convolutions and three dense layers: the network that started the wide use of deep learning
//! in computer vision. [`alexnet_lrn`] is the paper's: local response normalisation after the first
//! two convolutions, overlapping pooling (3×3, stride 2), and convolutions in two groups where the
//! paper's two GPUs did not exchange maps. [`alexnet`] is torchvision's, after Krizhevsky's *One
//! weird trick for parallelizing convolutional neural networks* (2014): narrower, without groups
//! and normalisation.

use super::options::ModelOptions;
use crate::error::Result;
use crate::nn::init::{Init, initialise};
use crate::nn::{Conv2d, Dropout, Linear, LocalResponseNorm, MaxPool2d, Module, ReLU, Sequential};
use crate::tensor::Tensor;
use crate::visit_fields;

/// AlexNet; see [`alexnet`] and [`alexnet_lrn`].
pub struct AlexNet {
    /// Five convolutions with pooling.
    pub features: Sequential,
    /// Three dense layers with dropout.
    pub classifier: Sequential,
}

fn classifier(options: ModelOptions) -> Sequential {
    let dropout = options.dropout_or(0.5);
    Sequential::new()
        .push(Dropout::new(dropout))
        .push(Linear::new(256 * 6 * 6, 4096))
        .push(ReLU)
        .push(Dropout::new(dropout))
        .push(Linear::new(4096, 4096))
        .push(ReLU)
        .push(Linear::new(4096, options.num_classes))
}

/// Creates torchvision's AlexNet, with PyTorch's initialisation of its layers.
///
/// ```
/// use convnet::{models::alexnet, nn::Module};
///
/// assert_eq!(alexnet(1000).num_parameters(), 61_100_840);
/// ```
pub fn alexnet(options: impl Into<ModelOptions>) -> AlexNet {
    let options = options.into();
    let features = Sequential::new() //                                              [N, 3, 224, 224]
        .push(Conv2d::new(options.input_channels, 64, 11).stride(4).padding(2)) //   [N, 64, 55, 55]
        .push(ReLU)
        .push(MaxPool2d::new(3).stride(2)) //                                        [N, 64, 27, 27]
        .push(Conv2d::new(64, 192, 5).padding(2)) //                                 [N, 192, 27, 27]
        .push(ReLU)
        .push(MaxPool2d::new(3).stride(2)) //                                        [N, 192, 13, 13]
        .push(Conv2d::new(192, 384, 3).padding(1)) //                                [N, 384, 13, 13]
        .push(ReLU)
        .push(Conv2d::new(384, 256, 3).padding(1)) //                                [N, 256, 13, 13]
        .push(ReLU)
        .push(Conv2d::new(256, 256, 3).padding(1)) //                                [N, 256, 13, 13]
        .push(ReLU)
        .push(MaxPool2d::new(3).stride(2)); //                                       [N, 256, 6, 6]
    AlexNet { features, classifier: classifier(options) }
}

/// Creates the paper's AlexNet, with the paper's initialisation: standard deviation 0.01, and
/// biases of 1 where that gives ReLUs positive inputs at first (second, fourth and fifth
/// convolution, hidden dense layers).
///
/// The first convolution pads by 2, as the paper's 55×55 maps of 224×224 pixels require. The
/// paper's α = 10⁻⁴ multiplies the sum over 5 channels; here α multiplies their mean, so it is
/// 5·10⁻⁴.
pub fn alexnet_lrn(options: impl Into<ModelOptions>) -> AlexNet {
    let options = options.into();
    let lrn = || LocalResponseNorm::new(5).alpha(5e-4).beta(0.75).k(2.0);
    let features = Sequential::new() //                                              [N, 3, 224, 224]
        .push(Conv2d::new(options.input_channels, 96, 11).stride(4).padding(2)) //   [N, 96, 55, 55]
        .push(ReLU)
        .push(lrn())
        .push(MaxPool2d::new(3).stride(2)) //                                        [N, 96, 27, 27]
        .push(Conv2d::new(96, 256, 5).padding(2).groups(2)) //                       [N, 256, 27, 27]
        .push(ReLU)
        .push(lrn())
        .push(MaxPool2d::new(3).stride(2)) //                                        [N, 256, 13, 13]
        .push(Conv2d::new(256, 384, 3).padding(1)) //                                [N, 384, 13, 13]
        .push(ReLU)
        .push(Conv2d::new(384, 384, 3).padding(1).groups(2)) //                      [N, 384, 13, 13]
        .push(ReLU)
        .push(Conv2d::new(384, 256, 3).padding(1).groups(2)) //                      [N, 256, 13, 13]
        .push(ReLU)
        .push(MaxPool2d::new(3).stride(2)); //                                       [N, 256, 6, 6]
    initialise(AlexNet { features, classifier: classifier(options) }, |at| match at.path {
        "features.4.bias" | "features.10.bias" | "features.12.bias" | "classifier.1.bias" | "classifier.4.bias" => {
            Some(Init::Constant(1.0))
        }
        _ if at.name == "bias" => Some(Init::Constant(0.0)),
        _ => Some(Init::Normal(0.01)),
    })
}

impl Module for AlexNet {
    /// # Shape
    /// `[N, 3, H, W]` to logits `[N, num_classes]`; images of at least 63×63.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.features.forward(x)?; //          [N, 256, 6, 6]
        let x = x.adaptive_avg_pool2d(6)?; //          the same; other sizes become 6×6 here
        self.classifier.forward(&x.flatten(1, -1)?) // [N, num_classes]
    }

    visit_fields!(features, classifier);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ModuleExt;

    #[test]
    fn paper_network_is_initialised_as_in_the_paper() {
        // This number of classes is also a number of maps.
        let state = alexnet_lrn(256).state_dict();
        let values = |name: &str| state.get(name).unwrap().to_vec::<f32>().unwrap();
        for (name, bias) in [("features.0", 0.0), ("features.4", 1.0), ("features.8", 0.0), ("classifier.1", 1.0), ("classifier.6", 0.0)] {
            assert!(values(&format!("{name}.bias")).iter().all(|&b| b == bias), "{name}");
            let weights = values(&format!("{name}.weight"));
            let std = (weights.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>() / weights.len() as f64).sqrt();
            // For 34,848 weights and more, the standard error of the deviation is 1 / √(2n), 0.4 %.
            assert!(approx::relative_eq!(std, 0.01, max_relative = 0.02), "{name}: {std}");
        }
    }

    #[test]
    fn options_reach_the_layers() {
        let net = alexnet(ModelOptions::new(7).input_channels(1).dropout(1.0));
        let x = Tensor::randn([2, 1, 63, 63]);
        assert_eq!(net.forward(&x).unwrap().shape(), [2, 7]);
        // When everything before the classifier is dropped, all samples have the same logits.
        let logits = net.forward(&x).unwrap().to_vec::<f32>().unwrap();
        assert_eq!(logits[..7], logits[7..]);
        net.eval();
        let logits = net.forward(&x).unwrap().to_vec::<f32>().unwrap();
        assert_ne!(logits[..7], logits[7..]);
    }
}
