//! MobileNetV3 (Howard et al., *Searching for MobileNetV3*, 2019): squeeze-and-excitation, the hard
//! swish, and widths found by search; in torchvision's layout.

use super::torchvision_start;
use crate::error::Result;
use crate::models::mbconv::{ConvNormActivation, MBConv, MBConvOptions, NormOptions, scaled_channels};
use crate::models::options::ModelOptions;
use crate::nn::init::initialise;
use crate::nn::{Activation, Dropout, Hardswish, Linear, Module, Sequential};
use crate::tensor::Tensor;
use crate::visit_fields;

/// MobileNetV3; see [`mobilenet_v3_large`] and [`mobilenet_v3_small`].
pub struct MobileNetV3 {
    /// The stem, the blocks, and a last 1×1 convolution.
    pub features: Sequential,
    /// Two dense layers.
    pub classifier: Sequential,
}

/// A row of the V3 paper's tables: input channels, kernel, expanded and output channels,
/// squeeze-and-excitation, hard swish, stride.
type V3Row = (usize, usize, usize, usize, bool, bool, usize);

/// The paper's table 1, for 224×224 pixels.
const V3_LARGE: [V3Row; 15] = [
    (16, 3, 16, 16, false, false, 1),  // [N, 16, 112, 112]
    (16, 3, 64, 24, false, false, 2),  // [N, 24, 56, 56]
    (24, 3, 72, 24, false, false, 1),  //
    (24, 5, 72, 40, true, false, 2),   // [N, 40, 28, 28]
    (40, 5, 120, 40, true, false, 1),  //
    (40, 5, 120, 40, true, false, 1),  //
    (40, 3, 240, 80, false, true, 2),  // [N, 80, 14, 14]
    (80, 3, 200, 80, false, true, 1),  //
    (80, 3, 184, 80, false, true, 1),  //
    (80, 3, 184, 80, false, true, 1),  //
    (80, 3, 480, 112, true, true, 1),  // [N, 112, 14, 14]
    (112, 3, 672, 112, true, true, 1), //
    (112, 5, 672, 160, true, true, 2), // [N, 160, 7, 7]
    (160, 5, 960, 160, true, true, 1), //
    (160, 5, 960, 160, true, true, 1), //
];

/// The paper's table 2, for 224×224 pixels.
const V3_SMALL: [V3Row; 11] = [
    (16, 3, 16, 16, true, false, 2),  // [N, 16, 56, 56]
    (16, 3, 72, 24, false, false, 2), // [N, 24, 28, 28]
    (24, 3, 88, 24, false, false, 1), //
    (24, 5, 96, 40, true, true, 2),   // [N, 40, 14, 14]
    (40, 5, 240, 40, true, true, 1),  //
    (40, 5, 240, 40, true, true, 1),  //
    (40, 5, 120, 48, true, true, 1),  // [N, 48, 14, 14]
    (48, 5, 144, 48, true, true, 1),  //
    (48, 5, 288, 96, true, true, 2),  // [N, 96, 7, 7]
    (96, 5, 576, 96, true, true, 1),  //
    (96, 5, 576, 96, true, true, 1),  //
];

/// Creates torchvision's MobileNetV3-Large, with its initialisation.
///
/// ```
/// use convnet::{models::mobilenet_v3_large, nn::Module};
///
/// assert_eq!(mobilenet_v3_large(1000).num_parameters(), 5_483_032);
/// ```
pub fn mobilenet_v3_large(options: impl Into<ModelOptions>) -> MobileNetV3 {
    MobileNetV3::large(1.0, options)
}

/// Creates torchvision's MobileNetV3-Small, with its initialisation.
pub fn mobilenet_v3_small(options: impl Into<ModelOptions>) -> MobileNetV3 {
    MobileNetV3::small(1.0, options)
}

impl MobileNetV3 {
    /// Creates MobileNetV3-Large with all widths multiplied by this factor, rounded to multiples
    /// of 8.
    pub fn large(width: f64, options: impl Into<ModelOptions>) -> MobileNetV3 {
        MobileNetV3::new(&V3_LARGE, 1280, width, options.into())
    }

    /// Creates MobileNetV3-Small with all widths multiplied by this factor, rounded to multiples
    /// of 8.
    pub fn small(width: f64, options: impl Into<ModelOptions>) -> MobileNetV3 {
        MobileNetV3::new(&V3_SMALL, 1024, width, options.into())
    }

    fn new(rows: &[V3Row], last: usize, width: f64, options: ModelOptions) -> MobileNetV3 {
        let (norm, scale) = (NormOptions::MOBILE, |channels| scaled_channels(channels, width));
        let mut outputs = scale(16);
        let stem = ConvNormActivation::new(options.input_channels, outputs, 3, 2, Activation::Hardswish, norm);
        let mut features = Sequential::new().push(stem); // [N, 16, 112, 112]
        for &(inputs, kernel, expanded, out, squeeze, hard_swish, stride) in rows {
            let expanded = scale(expanded);
            outputs = scale(out);
            features = features.push(MBConv::new(&MBConvOptions {
                inputs: scale(inputs),
                expanded,
                outputs,
                kernel,
                stride,
                activation: if hard_swish { Activation::Hardswish } else { Activation::Relu },
                squeeze: squeeze.then(|| (scaled_channels(expanded / 4, 1.0), Activation::Relu, Activation::Hardsigmoid)),
                norm,
                stochastic_depth: 0.0,
            }));
        }
        let (hidden, last) = (outputs.saturating_mul(6), scale(last));
        features = features.push(ConvNormActivation::new(outputs, hidden, 1, 1, Activation::Hardswish, norm)); // [N, 960 or 576, 7, 7]
        let classifier = Sequential::new()
            .push(Linear::new(hidden, last))
            .push(Hardswish)
            .push(Dropout::new(options.dropout_or(0.2)))
            .push(Linear::new(last, options.num_classes));
        initialise(MobileNetV3 { features, classifier }, torchvision_start)
    }
}

impl Module for MobileNetV3 {
    /// # Shape
    /// `[N, 3, H, W]` to logits `[N, num_classes]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // [N, 3, 224, 224]
        let x = self.features.forward(x)?; //       [N, 960 or 576, 7, 7]
        self.classifier.forward(&x.mean([2, 3])?) // [N, num_classes]
    }

    visit_fields!(features, classifier);
}
