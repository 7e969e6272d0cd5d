//! MobileNet, the first version (Howard et al., *MobileNets: Efficient Convolutional Neural
//! Networks for Mobile Vision Applications*, 2017): a plain stack of pairs of a depthwise and a 1×1
//! convolution, in timm's layout.

use crate::error::Result;
use crate::models::mbconv::scaled_channels;
use crate::models::options::ModelOptions;
use crate::nn::init::{Init, initialise};
use crate::nn::{Activation, BatchNorm2d, Conv2d, Dropout, Linear, Module, block, conv_bn_act};
use crate::tensor::Tensor;
use crate::visit_fields;

/// A depthwise and a 1×1 convolution, each with batch normalisation and ReLU6 (Howard et al., 2017,
/// fig. 3 right), with timm's keys.
pub struct DepthwiseSeparable {
    /// 3×3, depthwise.
    pub conv_dw: Conv2d,
    /// After the depthwise convolution.
    pub bn1: BatchNorm2d,
    /// 1×1.
    pub conv_pw: Conv2d,
    /// After the 1×1 convolution.
    pub bn2: BatchNorm2d,
}

impl DepthwiseSeparable {
    /// Creates a block from `inputs` to `outputs` channels.
    pub fn new(inputs: usize, outputs: usize, stride: usize) -> DepthwiseSeparable {
        DepthwiseSeparable {
            conv_dw: Conv2d::new(inputs, inputs, 3).stride(stride).padding(1).groups(inputs).bias(false),
            bn1: BatchNorm2d::new(inputs),
            conv_pw: Conv2d::new(inputs, outputs, 1).bias(false),
            bn2: BatchNorm2d::new(outputs),
        }
    }
}

impl Module for DepthwiseSeparable {
    /// # Shape
    /// `[N, inputs, H, W]` to `[N, outputs, ⌈H / stride⌉, ⌈W / stride⌉]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || {
            let x = conv_bn_act(&self.conv_dw, &self.bn1, x, Activation::Relu6)?;
            conv_bn_act(&self.conv_pw, &self.bn2, &x, Activation::Relu6)
        })
    }

    visit_fields!(conv_dw, bn1, conv_pw, bn2);
}

/// MobileNet (V1); see [`mobilenet_v1`].
pub struct MobileNetV1 {
    conv_stem: Conv2d,
    bn1: BatchNorm2d,
    /// Five stages.
    pub blocks: Vec<Vec<DepthwiseSeparable>>,
    dropout: Dropout,
    /// To the classes.
    pub classifier: Box<dyn Module>,
}

/// Channels, blocks and stride of V1's stages (the paper's table 1).
const V1_STAGES: [(usize, usize, usize); 5] = [(64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2)];

/// Creates timm's `mobilenetv1_100`, with its initialisation.
///
/// ```
/// use convnet::{models::mobilenet_v1, nn::Module};
///
/// assert_eq!(mobilenet_v1(1000).num_parameters(), 4_231_976);
/// ```
pub fn mobilenet_v1(options: impl Into<ModelOptions>) -> MobileNetV1 {
    MobileNetV1::with_width(1.0, options)
}

impl MobileNetV1 {
    /// Creates a network with all widths multiplied by this factor, rounded to multiples of 8.
    pub fn with_width(width: f64, options: impl Into<ModelOptions>) -> MobileNetV1 {
        let options = options.into();
        let stem = scaled_channels(32, width);
        let mut inputs = stem;
        let mut block = |outputs, stride| {
            let block = DepthwiseSeparable::new(inputs, outputs, stride);
            inputs = outputs;
            block
        };
        let mut stage = |(channels, depth, stride)| {
            let channels = scaled_channels(channels, width);
            (0..depth).map(|i| block(channels, if i == 0 { stride } else { 1 })).collect()
        };
        let model = MobileNetV1 {
            conv_stem: Conv2d::new(options.input_channels, stem, 3).stride(2).padding(1).bias(false),
            bn1: BatchNorm2d::new(stem),
            blocks: V1_STAGES.into_iter().map(&mut stage).collect(),
            dropout: Dropout::new(options.dropout_or(0.0)),
            classifier: Box::new(Linear::new(inputs, options.num_classes)),
        };
        initialise(model, |at| match (at.layer, at.name) {
            // Fan-out is the number of outputs that depend on one input: for a depthwise
            // convolution, the outputs of one group, which is one.
            ("Conv2d", "weight") if at.path.ends_with("conv_dw.weight") => Some(Init::kaiming_fan_out(&[1, 1, 3, 3])),
            ("Conv2d", "weight") => Some(Init::kaiming_fan_out(at.shape)),
            ("Linear", "weight") => Some(Init::Uniform(1.0 / (at.shape[0].max(1) as f64).sqrt())),
            ("Linear", "bias") => Some(Init::Constant(0.0)),
            _ => None,
        })
    }
}

impl Module for MobileNetV1 {
    /// # Shape
    /// `[N, 3, H, W]` to logits `[N, num_classes]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // [N, 3, 224, 224]
        let x = conv_bn_act(&self.conv_stem, &self.bn1, x, Activation::Relu6)?; // [N, 32, 112, 112]
        // [N, 64, 112, 112], [N, 128, 56, 56], [N, 256, 28, 28], [N, 512, 14, 14], [N, 1024, 7, 7]
        let x = self.blocks.forward(&x)?.mean([2, 3])?; //           [N, 1024]
        self.classifier.forward(&self.dropout.forward(&x)?)
    }

    visit_fields!(conv_stem, bn1, blocks, dropout, classifier);
}
