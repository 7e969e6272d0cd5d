//! VGG (Simonyan & Zisserman, *Very Deep Convolutional Networks for Large-Scale Image Recognition*,
//! 2014).
//!
//! Only 3×3 convolutions: two of them have the receptive field of a 5×5 convolution, three that of
//! a 7×7 convolution, with fewer weights and more nonlinearities. Five stages, each followed by
//! pooling; the paper's table 1 defines the configurations A, B, D and E, known by their number of
//! layers with weights. The variants `_bn` normalise after each convolution, which came after the
//! paper.

use super::options::ModelOptions;
use crate::error::Result;
use crate::nn::init::{Init, initialise};
use crate::nn::visit_with;
use crate::nn::{Activation, BatchNorm2d, Conv2d, Dropout, Linear, Module, ReLU, Sequential, block, conv_act, conv_bn_relu};
use crate::ops::Pool2dOptions;
use crate::tensor::Tensor;
use crate::visit_fields;

/// The channels of the five stages.
const WIDTHS: [usize; 5] = [64, 128, 256, 512, 512];

/// A VGG network; see [`vgg16`].
pub struct Vgg {
    /// The convolutions.
    pub features: VggFeatures,
    /// Three dense layers with dropout.
    pub classifier: Sequential,
}

/// The convolutions of a [`Vgg`], numbered as in torchvision's `Sequential`, where ReLU and pooling
/// count too.
pub struct VggFeatures {
    stages: Vec<Vec<VggConv>>,
}

/// A convolution, with its normalisation in the `_bn` variants.
struct VggConv {
    conv: Conv2d,
    bn: Option<BatchNorm2d>,
}

impl Vgg {
    /// Creates a network with this many convolutions in each stage, with batch normalisation or
    /// without.
    pub fn new(depths: [usize; 5], batch_norm: bool, options: impl Into<ModelOptions>) -> Vgg {
        let options = options.into();
        let mut channels = options.input_channels;
        let mut conv = |width| {
            let conv = Conv2d::new(channels, width, 3).padding(1);
            channels = width;
            VggConv { conv, bn: batch_norm.then(|| BatchNorm2d::new(width)) }
        };
        let stages = WIDTHS.iter().zip(depths).map(|(&width, depth)| (0..depth).map(|_| conv(width)).collect()).collect();
        let dropout = options.dropout_or(0.5);
        let classifier = Sequential::new()
            .push(Linear::new(512 * 7 * 7, 4096))
            .push(ReLU)
            .push(Dropout::new(dropout))
            .push(Linear::new(4096, 4096))
            .push(ReLU)
            .push(Dropout::new(dropout))
            .push(Linear::new(4096, options.num_classes));
        // torchvision's initialisation: the paper initialised its deeper networks from the trained
        // shallowest one.
        initialise(Vgg { features: VggFeatures { stages }, classifier }, |at| match (at.layer, at.name) {
            ("Conv2d", "weight") => Some(Init::kaiming_fan_out(at.shape)),
            ("Linear", "weight") => Some(Init::Normal(0.01)),
            ("Conv2d" | "Linear", "bias") => Some(Init::Constant(0.0)),
            _ => None,
        })
    }
}

impl Module for Vgg {
    /// # Shape
    /// `[N, 3, H, W]` to logits `[N, num_classes]`; images of at least 32×32.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // [N, 3, 224, 224]
        let x = self.features.forward(x)?; //          [N, 512, 7, 7]
        let x = x.adaptive_avg_pool2d(7)?; //          the same; other sizes come to 7×7 here
        self.classifier.forward(&x.flatten(1, -1)?) // [N, num_classes]
    }

    visit_fields!(features, classifier);
}

impl Module for VggFeatures {
    /// # Shape
    /// `[N, 3, H, W]` to `[N, 512, ⌊H / 32⌋, ⌊W / 32⌋]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || {
            let mut x = x.clone();
            // [N, 3, 224, 224], then [N, 64, 112, 112], [N, 128, 56, 56], [N, 256, 28, 28], [N,
            // 512, 14, 14], [N, 512, 7, 7]
            for stage in &self.stages {
                for VggConv { conv, bn } in stage {
                    x = match bn {
                        Some(bn) => conv_bn_relu(conv, bn, &x)?,
                        None => conv_act(conv, &x, Activation::Relu)?,
                    };
                }
                x = x.max_pool2d(2, Pool2dOptions::new())?;
            }
            Ok(x)
        })
    }

    visit_with!(
        |VggFeatures { stages }, v| {
            let mut number = 0;
            for stage in stages {
                for VggConv { conv, bn } in stage {
                    v.field(&number.to_string(), conv);
                    if let Some(bn) = bn {
                        number += 1;
                        v.field(&number.to_string(), bn);
                    }
                    number += 2; // past the ReLU
                }
                number += 1; // past the pooling
            }
        },
        |copier| {
            let mut copy = |VggConv { conv, bn }: &VggConv| Ok(VggConv { conv: copier.field(conv)?, bn: copier.field(bn)? });
            VggFeatures { stages: stages.iter().map(|stage| stage.iter().map(&mut copy).collect()).collect::<Result<_>>()? }
        }
    );
}

macro_rules! variants {
    ($($(#[$doc:meta])* $name:ident, $depths:expr, $batch_norm:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name(options: impl Into<ModelOptions>) -> Vgg {
            Vgg::new($depths, $batch_norm, options)
        }
    )*};
}

variants! {
    /// Creates VGG-11, the paper's configuration A.
    vgg11, [1, 1, 2, 2, 2], false;
    /// Creates VGG-13, the paper's configuration B.
    vgg13, [2, 2, 2, 2, 2], false;
    /// Creates VGG-16, the paper's configuration D.
    ///
    /// ```
    /// use convnet::{models::vgg16, nn::Module};
    ///
    /// assert_eq!(vgg16(1000).num_parameters(), 138_357_544);
    /// ```
    vgg16, [2, 2, 3, 3, 3], false;
    /// Creates VGG-19, the paper's configuration E.
    vgg19, [2, 2, 4, 4, 4], false;
    /// Creates [`vgg11`] with batch normalisation.
    vgg11_bn, [1, 1, 2, 2, 2], true;
    /// Creates [`vgg13`] with batch normalisation.
    vgg13_bn, [2, 2, 2, 2, 2], true;
    /// Creates [`vgg16`] with batch normalisation.
    vgg16_bn, [2, 2, 3, 3, 3], true;
    /// Creates [`vgg19`] with batch normalisation.
    vgg19_bn, [2, 2, 4, 4, 4], true;
}
