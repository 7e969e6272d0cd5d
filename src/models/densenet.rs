//! DenseNet (Huang, Liu, van der Maaten & Weinberger, *Densely Connected Convolutional Networks*,
//! 2016).
//!
//! The input of each layer of a block contains the maps of all layers before it, and the layer
//! appends a few new maps (the growth rate): features are reused instead of being computed again.
//! Between blocks a transition halves channels and size (the paper's DenseNet-BC, θ = 0.5, as
//! torchvision builds it).

use std::sync::Arc;

use super::options::ModelOptions;
use crate::autograd::is_grad_enabled;
use crate::error::Result;
use crate::nn::init::{Init, initialise};
use crate::nn::visit_with;
use crate::nn::{
    Activation, BatchNorm2d, Conv2d, Dropout, Linear, Module, block, bn_act, buffered_bn_act, checkpoint, conv_bn_relu, is_observed,
};
use crate::ops::{ConcatBuffer, Pool2dOptions};
use crate::tensor::Tensor;
use crate::tensor::meta::is_meta;
use crate::visit_fields;

/// The parameters that distinguish the networks of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DenseNetConfig {
    /// The number of maps that a layer adds, the paper's k.
    pub growth: usize,
    /// The number of layers in each of the four blocks.
    pub layers: [usize; 4],
    /// The number of output channels of the first convolution.
    pub stem: usize,
}

/// The configuration of [`densenet121`].
pub const DENSENET121: DenseNetConfig = DenseNetConfig { growth: 32, layers: [6, 12, 24, 16], stem: 64 };
/// The configuration of [`densenet161`].
pub const DENSENET161: DenseNetConfig = DenseNetConfig { growth: 48, layers: [6, 12, 36, 24], stem: 96 };
/// The configuration of [`densenet169`].
pub const DENSENET169: DenseNetConfig = DenseNetConfig { growth: 32, layers: [6, 12, 32, 32], stem: 64 };
/// The configuration of [`densenet201`].
pub const DENSENET201: DenseNetConfig = DenseNetConfig { growth: 32, layers: [6, 12, 48, 32], stem: 64 };

/// Creates the 121-layer network: 6, 12, 24 and 16 layers in a block, growth rate 32. See
/// [`DenseNet`].
pub fn densenet121(options: impl Into<ModelOptions>) -> DenseNet {
    DenseNet::new(&DENSENET121, options)
}

/// Creates the 161-layer network: 6, 12, 36 and 24 layers in a block, growth rate 48. See
/// [`DenseNet`].
pub fn densenet161(options: impl Into<ModelOptions>) -> DenseNet {
    DenseNet::new(&DENSENET161, options)
}

/// Creates the 169-layer network: 6, 12, 32 and 32 layers in a block, growth rate 32. See
/// [`DenseNet`].
pub fn densenet169(options: impl Into<ModelOptions>) -> DenseNet {
    DenseNet::new(&DENSENET169, options)
}

/// Creates the 201-layer network: 6, 12, 48 and 32 layers in a block, growth rate 32. See
/// [`DenseNet`].
pub fn densenet201(options: impl Into<ModelOptions>) -> DenseNet {
    DenseNet::new(&DENSENET201, options)
}

/// A 1×1 convolution to four times the growth rate, then a 3×3 convolution to the growth rate, each
/// after normalisation and ReLU.
///
/// # Shape
/// `[N, inputs, H, W]` to the new maps `[N, growth, H, W]`.
pub struct DenseLayer {
    /// Before `conv1`.
    pub norm1: BatchNorm2d,
    /// 1×1, inputs→4·growth.
    pub conv1: Conv2d,
    /// Before `conv2`.
    pub norm2: BatchNorm2d,
    /// 3×3, 4·growth→growth.
    pub conv2: Conv2d,
    /// Dropout of the new maps, if requested.
    pub dropout: Option<Dropout>,
}

impl DenseLayer {
    /// Creates a layer from `inputs` channels to `growth` new ones, with this probability of
    /// dropout.
    pub fn new(inputs: usize, growth: usize, dropout: f64) -> DenseLayer {
        let width = growth.saturating_mul(4);
        DenseLayer {
            norm1: BatchNorm2d::new(inputs),
            conv1: Conv2d::new(inputs, width, 1).bias(false),
            norm2: BatchNorm2d::new(width),
            conv2: Conv2d::new(width, growth, 3).padding(1).bias(false),
            dropout: (dropout != 0.0).then(|| Dropout::new(dropout)),
        }
    }

    /// Computes the new maps from all maps before, without keeping their concatenation or its
    /// normalised form, the largest tensors of the network, for backward (Pleiss et al.,
    /// *Memory-Efficient Implementation of DenseNets*, 2017). The input of the second convolution
    /// is kept; it is as narrow as the layer.
    fn forward_efficiently(self: &Arc<DenseLayer>, maps: &[Tensor]) -> Result<Tensor> {
        let layer = Arc::clone(self);
        let maps: Vec<&Tensor> = maps.iter().collect();
        let y = checkpoint(&maps, move |maps| {
            let maps: Vec<&Tensor> = maps.iter().collect();
            let y = bn_act(&layer.norm1, &Tensor::cat(&maps, 1)?, Activation::Relu)?;
            conv_bn_relu(&layer.conv1, &layer.norm2, &y)
        })?;
        self.finish(&y)
    }

    /// Computes the rest of the layer, from the second convolution on.
    fn finish(&self, y: &Tensor) -> Result<Tensor> {
        self.dropout.forward(&self.conv2.forward(y)?)
    }
}

impl Module for DenseLayer {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || {
            let y = bn_act(&self.norm1, x, Activation::Relu)?;
            self.finish(&conv_bn_relu(&self.conv1, &self.norm2, &y)?)
        })
    }

    visit_fields!(norm1, conv1, norm2, conv2, dropout);
}

/// A sequence of layers; the input of each contains the block's input and the maps of all layers
/// before it.
///
/// # Shape
/// `[N, inputs, H, W]` to `[N, inputs + layers·growth, H, W]`.
pub struct DenseBlock {
    /// Named `denselayer1`, `denselayer2`, ….
    pub layers: Vec<Arc<DenseLayer>>,
    /// Whether the backward pass recomputes the concatenations instead of training keeping every
    /// one.
    pub memory_efficient: bool,
}

impl DenseBlock {
    /// Creates a block with `layers` layers of this growth rate.
    pub fn new(inputs: usize, layers: usize, growth: usize, dropout: f64) -> DenseBlock {
        let layer = |i: usize| DenseLayer::new(inputs.saturating_add(i.saturating_mul(growth)), growth, dropout);
        DenseBlock { layers: (0..layers).map(layer).map(Arc::new).collect(), memory_efficient: false }
    }

    /// Runs without a concatenation in each layer, for inference; `None` when the layers have to
    /// run one by one.
    fn forward_buffered(&self, x: &Tensor) -> Result<Option<Tensor>> {
        let added: usize = self.layers.iter().map(|layer| layer.conv2.weight.shape()[0]).sum();
        let &[_, channels, _, _] = x.shape() else { return Ok(None) };
        if !x.dtype().is_float() {
            return Ok(None);
        }
        let mut maps = ConcatBuffer::new(x, channels.saturating_add(added))?;
        for layer in &self.layers {
            let Some(y) = buffered_bn_act(&layer.norm1, &maps, Activation::Relu)? else { return Ok(None) };
            maps.push(&layer.finish(&conv_bn_relu(&layer.conv1, &layer.norm2, &y)?)?)?;
        }
        Ok(Some(maps.finish()))
    }
}

impl Module for DenseBlock {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || {
            if !is_grad_enabled()
                && !is_meta()
                && let Some(y) = self.forward_buffered(x)?
            {
                return Ok(y);
            }
            if self.memory_efficient && is_grad_enabled() && !is_observed() {
                let mut maps = vec![x.clone()];
                for layer in &self.layers {
                    maps.push(layer.forward_efficiently(&maps)?);
                }
                return Tensor::cat(&maps.iter().collect::<Vec<_>>(), 1);
            }
            let mut maps = x.clone();
            for layer in &self.layers {
                maps = Tensor::cat(&[&maps, &layer.forward(&maps)?], 1)?;
            }
            Ok(maps)
        })
    }

    visit_fields!(each layers => |i| format!("denselayer{}", i + 1), skip memory_efficient);
}

/// The transition between two blocks: normalisation, ReLU, a 1×1 convolution, and 2×2 average
/// pooling.
///
/// # Shape
/// `[N, inputs, H, W]` to `[N, outputs, H / 2, W / 2]`.
pub struct Transition {
    /// Before `conv`.
    pub norm: BatchNorm2d,
    /// 1×1.
    pub conv: Conv2d,
}

impl Transition {
    /// Creates a transition from `inputs` to `outputs` channels.
    pub fn new(inputs: usize, outputs: usize) -> Transition {
        Transition { norm: BatchNorm2d::new(inputs), conv: Conv2d::new(inputs, outputs, 1).bias(false) }
    }
}

impl Module for Transition {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || {
            let y = bn_act(&self.norm, x, Activation::Relu)?;
            self.conv.forward(&y)?.avg_pool2d(2, Pool2dOptions::new())
        })
    }

    visit_fields!(norm, conv);
}

/// All layers of a DenseNet except the classifier.
///
/// # Shape
/// `[N, 3, H, W]` to `[N, C, H / 32, W / 32]`.
pub struct DenseFeatures {
    /// 7×7, stride 2.
    pub conv0: Conv2d,
    /// After `conv0`.
    pub norm0: BatchNorm2d,
    /// Named `denseblock1`, …, each but the last followed by its transition, `transition1`, ….
    pub blocks: Vec<(DenseBlock, Option<Transition>)>,
    /// After the last block.
    pub norm5: BatchNorm2d,
}

impl Module for DenseFeatures {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || {
            // [N, 3, 224, 224]
            let pool = Pool2dOptions::new().stride(2).padding(1);
            let mut x = conv_bn_relu(&self.conv0, &self.norm0, x)?; // [N, 64, 112, 112]
            x = x.max_pool2d(3, pool)?; //                             [N, 64, 56, 56]
            for (block, transition) in &self.blocks {
                // densenet121: [N, 256, 56, 56], [N, 512, 28, 28], [N, 1024, 14, 14], [N, 1024, 7,
                // 7]
                x = block.forward(&x)?;
                // [N, 128, 28, 28], [N, 256, 14, 14], [N, 512, 7, 7]
                x = transition.forward(&x)?;
            }
            bn_act(&self.norm5, &x, Activation::Relu) // [N, 1024, 7, 7]
        })
    }

    visit_with!(
        |DenseFeatures { conv0, norm0, blocks, norm5 }, v| {
            v.field("conv0", conv0);
            v.field("norm0", norm0);
            let mut number = 0;
            for (block, transition) in blocks {
                number += 1;
                v.field(&format!("denseblock{number}"), block);
                if let Some(transition) = transition {
                    v.field(&format!("transition{number}"), transition);
                }
            }
            v.field("norm5", norm5);
        },
        |copier| {
            let (conv0, norm0, norm5) = (copier.field(conv0)?, copier.field(norm0)?, copier.field(norm5)?);
            let blocks = blocks.iter().map(|(block, transition)| Ok((copier.field(block)?, copier.field(transition)?)));
            DenseFeatures { conv0, norm0, blocks: blocks.collect::<Result<_>>()?, norm5 }
        }
    );
}

/// A densely connected network for ImageNet, with torchvision's initialisation: Kaiming's normal by
/// fan-in for convolutions, PyTorch's for the classifier, whose bias starts at 0.
///
/// [`ModelOptions`] sets the probability of dropout of each layer's new maps, as in the paper's §3;
/// by default there is none.
///
/// ```
/// use convnet::{Tensor, models::densenet121, nn::Module};
///
/// let model = densenet121(1000);
/// assert_eq!(model.num_parameters(), 7_978_856);
/// // In training, less memory for some more time:
/// let model = densenet121(1000).memory_efficient(true);
/// ```
pub struct DenseNet {
    /// Blocks and transitions.
    pub features: DenseFeatures,
    /// The classifier.
    pub classifier: Box<dyn Module>,
}

impl DenseNet {
    /// Creates the network of a configuration: one of the constants, or a custom one.
    pub fn new(config: &DenseNetConfig, options: impl Into<ModelOptions>) -> DenseNet {
        let options = options.into();
        let (mut channels, last) = (config.stem, config.layers.len() - 1);
        let blocks = config.layers.iter().enumerate().map(|(i, &layers)| {
            let block = DenseBlock::new(channels, layers, config.growth, options.dropout_or(0.0));
            channels = channels.saturating_add(layers.saturating_mul(config.growth));
            let transition = (i < last).then(|| Transition::new(channels, channels / 2));
            if transition.is_some() {
                channels /= 2;
            }
            (block, transition)
        });
        let blocks = blocks.collect();
        let features = DenseFeatures {
            conv0: Conv2d::new(options.input_channels, config.stem, 7).stride(2).padding(3).bias(false),
            norm0: BatchNorm2d::new(config.stem),
            blocks,
            norm5: BatchNorm2d::new(channels),
        };
        let net = DenseNet { features, classifier: Box::new(Linear::new(channels, options.num_classes)) };
        initialise(net, |at| match (at.layer, at.name) {
            ("Conv2d", "weight") => Some(Init::kaiming_fan_in(at.shape)),
            ("Linear", "bias") => Some(Init::Constant(0.0)),
            _ => None,
        })
    }

    /// Sets whether training keeps no concatenations for backward but recomputes each, with its
    /// normalisation and the layer's first convolution ([`checkpoint`](crate::nn::checkpoint())):
    /// torchvision's option of that name. The results are equal to those without it, bit for bit.
    pub fn memory_efficient(mut self, efficient: bool) -> DenseNet {
        for (block, _) in &mut self.features.blocks {
            block.memory_efficient = efficient;
        }
        self
    }
}

impl Module for DenseNet {
    /// # Shape
    /// `[N, 3, H, W]` to logits `[N, num_classes]`; images of at least 29×29, 224×224 in the paper.
    ///
    /// # Errors
    /// [`Error::Layer`](crate::Error::Layer) from the layer that cannot accept its input.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.features.forward(x)?; // [N, 1024, 7, 7]
        let x = x.mean([2, 3])?; //           [N, 1024]
        self.classifier.forward(&x) //        [N, num_classes]
    }

    visit_fields!(features, classifier);
}
