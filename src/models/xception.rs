//! Xception (Chollet, *Xception: Deep Learning with Depthwise Separable Convolutions*, 2016).
//!
//! The extreme form of Inception: each channel has its own window, and 1×1 convolutions do all the
//! mixing. An entry flow that reduces the size, a middle flow of eight equal blocks, an exit flow.
//! timm's `legacy_xception`, with its keys and initialisation.

use super::options::ModelOptions;
use crate::error::Result;
use crate::nn::init::{Init, initialise};
use crate::nn::visit_with;
use crate::nn::{
    Activation, BatchNorm2d, Conv2d, Dropout, Linear, Module, block, bn_act, conv_bn_act, conv_bn_add_act, conv_bn_relu, is_observed,
};
use crate::ops::Pool2dOptions;
use crate::tensor::Tensor;
use crate::visit_fields;

/// A depthwise 3×3 convolution followed directly by a 1×1 convolution.
pub struct SeparableConv2d {
    /// 3×3, depthwise.
    pub conv1: Conv2d,
    /// 1×1.
    pub pointwise: Conv2d,
}

impl SeparableConv2d {
    /// Creates a convolution from `inputs` to `outputs` channels that keeps the size.
    pub fn new(inputs: usize, outputs: usize) -> SeparableConv2d {
        SeparableConv2d {
            conv1: Conv2d::new(inputs, inputs, 3).padding(1).groups(inputs).bias(false),
            pointwise: Conv2d::new(inputs, outputs, 1).bias(false),
        }
    }
}

impl Module for SeparableConv2d {
    /// # Shape
    /// `[N, inputs, H, W]` to `[N, outputs, H, W]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || self.pointwise.forward(&self.conv1.forward(x)?))
    }

    visit_fields!(conv1, pointwise);
}

/// Computes `activation(bn(conv(x)))`.
fn separable_bn_act(conv: &SeparableConv2d, bn: &BatchNorm2d, x: &Tensor, activation: Activation) -> Result<Tensor> {
    if is_observed() {
        return bn_act(bn, &conv.forward(x)?, activation);
    }
    conv_bn_act(&conv.pointwise, bn, &conv.conv1.forward(x)?, activation)
}

/// Separable convolutions, each with ReLU before and normalisation after it, pooling when the
/// stride is 2, and a shortcut, with a 1×1 convolution where the shapes differ (Chollet, 2016, fig.
/// 5).
pub struct XceptionBlock {
    /// The shortcut's convolution.
    pub skip: Option<Conv2d>,
    /// The shortcut's normalisation.
    pub skipbn: Option<BatchNorm2d>,
    rep: Rep,
}

/// The main path, numbered as in timm's `Sequential`.
struct Rep {
    units: Vec<(SeparableConv2d, BatchNorm2d)>,
    stride: usize,
    relu_first: bool,
}

impl XceptionBlock {
    /// Creates a block with these output channels of its separable convolutions.
    pub fn new(inputs: usize, widths: &[usize], stride: usize) -> XceptionBlock {
        let mut channels = inputs;
        let mut unit = |&width: &usize| {
            let unit = (SeparableConv2d::new(channels, width), BatchNorm2d::new(width));
            channels = width;
            unit
        };
        let units = widths.iter().map(&mut unit).collect();
        let differs = channels != inputs || stride != 1;
        XceptionBlock {
            skip: differs.then(|| Conv2d::new(inputs, channels, 1).stride(stride).bias(false)),
            skipbn: differs.then(|| BatchNorm2d::new(channels)),
            rep: Rep { units, stride, relu_first: true },
        }
    }

    /// Sets whether the block starts with a ReLU; not needed after another one.
    pub fn relu_first(mut self, first: bool) -> XceptionBlock {
        self.rep.relu_first = first;
        self
    }
}

impl Module for XceptionBlock {
    /// # Shape
    /// `[N, inputs, H, W]` to `[N, last width, ⌈H / stride⌉, ⌈W / stride⌉]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || {
            let y = self.rep.forward(x)?;
            match (&self.skip, &self.skipbn) {
                (Some(conv), Some(bn)) => conv_bn_add_act(conv, bn, x, &y, Activation::Linear),
                _ => y.add(x),
            }
        })
    }

    visit_fields!(skip, skipbn, rep);
}

impl Module for Rep {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || {
            let mut x = if self.relu_first { x.try_relu()? } else { x.clone() };
            for (i, (conv, bn)) in self.units.iter().enumerate() {
                // The ReLU at the start of the next unit.
                let activation = if i + 1 < self.units.len() { Activation::Relu } else { Activation::Linear };
                x = separable_bn_act(conv, bn, &x, activation)?;
            }
            if self.stride == 1 {
                return Ok(x);
            }
            x.max_pool2d(3, Pool2dOptions::new().stride(self.stride).padding(1))
        })
    }

    visit_with!(
        |Rep { units, stride, relu_first }, v| {
            // Each unit is ReLU, convolution, normalisation; the first block starts with the
            // convolution.
            let mut number = usize::from(*relu_first);
            for (conv, bn) in units {
                v.field(&number.to_string(), conv);
                v.field(&(number + 1).to_string(), bn);
                number += 3;
            }
        },
        |copier| {
            let units = units.iter().map(|(conv, bn)| Ok((copier.field(conv)?, copier.field(bn)?)));
            Rep { units: units.collect::<Result<_>>()?, stride: *stride, relu_first: *relu_first }
        }
    );

    fn type_name(&self) -> &str {
        "Sequential"
    }
}

/// Xception; see [`xception`].
pub struct Xception {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    conv2: Conv2d,
    bn2: BatchNorm2d,
    /// Twelve, called `block1` to `block12`.
    pub blocks: Vec<XceptionBlock>,
    conv3: SeparableConv2d,
    bn3: BatchNorm2d,
    conv4: SeparableConv2d,
    bn4: BatchNorm2d,
    dropout: Dropout,
    /// 2048→classes.
    pub fc: Box<dyn Module>,
}

/// Creates timm's `legacy_xception`, with its initialisation.
///
/// ```
/// use convnet::{models::xception, nn::Module};
///
/// assert_eq!(xception(1000).num_parameters(), 22_855_952);
/// ```
pub fn xception(options: impl Into<ModelOptions>) -> Xception {
    let options = options.into();
    let mut blocks = vec![
        XceptionBlock::new(64, &[128, 128], 2).relu_first(false), // [N, 128, 74, 74]
        XceptionBlock::new(128, &[256, 256], 2),                  // [N, 256, 37, 37]
        XceptionBlock::new(256, &[728, 728], 2),                  // [N, 728, 19, 19]
    ];
    blocks.extend((0..8).map(|_| XceptionBlock::new(728, &[728; 3], 1))); // the same
    blocks.push(XceptionBlock::new(728, &[728, 1024], 2)); //                [N, 1024, 10, 10]
    let model = Xception {
        conv1: Conv2d::new(options.input_channels, 32, 3).stride(2).bias(false),
        bn1: BatchNorm2d::new(32),
        conv2: Conv2d::new(32, 64, 3).bias(false),
        bn2: BatchNorm2d::new(64),
        blocks,
        conv3: SeparableConv2d::new(1024, 1536),
        bn3: BatchNorm2d::new(1536),
        conv4: SeparableConv2d::new(1536, 2048),
        bn4: BatchNorm2d::new(2048),
        dropout: Dropout::new(options.dropout_or(0.0)),
        fc: Box::new(Linear::new(2048, options.num_classes)),
    };
    initialise(model, |at| (at.layer == "Conv2d").then(|| Init::kaiming_fan_out(at.shape)))
}

impl Module for Xception {
    /// # Shape
    /// `[N, 3, H, W]` to logits `[N, num_classes]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // [N, 3, 299, 299]
        let mut x = conv_bn_relu(&self.conv1, &self.bn1, x)?; //      [N, 32, 149, 149]
        x = conv_bn_relu(&self.conv2, &self.bn2, &x)?; //             [N, 64, 147, 147]
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        // [N, 1024, 10, 10]
        let x = separable_bn_act(&self.conv3, &self.bn3, &x, Activation::Relu)?; //  [N, 1536, 10, 10]
        let x = separable_bn_act(&self.conv4, &self.bn4, &x, Activation::Relu)?; //  [N, 2048, 10, 10]
        let x = x.mean([2, 3])?; //                                   [N, 2048]
        self.fc.forward(&self.dropout.forward(&x)?)
    }

    visit_fields!(conv1, bn1, conv2, bn2, each blocks => |i| format!("block{}", i + 1), conv3, bn3, conv4, bn4, dropout, fc);
}
