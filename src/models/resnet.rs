//! ResNet (He, Zhang, Ren & Sun, *Deep Residual Learning for Image Recognition*, 2015) and its
//! successors ResNeXt and Wide ResNet.
//!
//! A block computes a residual that is added to its input, so that a hundred layers train as easily
//! as ten: the shortcut passes gradients on unchanged. ResNeXt (Xie et al., 2016) splits a block's
//! 3×3 convolution into groups; Wide ResNet (Zagoruyko & Komodakis, 2016) widens it. As in
//! torchvision, a bottleneck's stride is in its 3×3 convolution ("ResNet v1.5"), not in the first
//! as in the paper.

use super::options::ModelOptions;
use crate::error::Result;
use crate::nn::init::{Init, initialise};
use crate::nn::{Activation, BatchNorm2d, Conv2d, Dropout, Item, Linear, Module, Sequential, Visitor};
use crate::nn::{block, conv_bn, conv_bn_add_relu, conv_bn_relu, scale_add_act};
use crate::ops::Pool2dOptions;
use crate::tensor::Tensor;
use crate::visit_fields;

/// A function that creates a layer for the end of a block's branch, with this many channels.
pub type Attention = fn(usize) -> Box<dyn Module>;

/// The paper's two types of blocks (fig. 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResNetBlock {
    /// [`BasicBlock`].
    Basic,
    /// [`Bottleneck`].
    Bottleneck,
}

/// The parameters that distinguish the networks of the family.
#[derive(Clone, Copy, Debug)]
pub struct ResNetConfig {
    /// The type of the blocks.
    pub block: ResNetBlock,
    /// The number of blocks in each of the four stages.
    pub layers: [usize; 4],
    /// The number of groups of a bottleneck's 3×3 convolution; basic blocks have one.
    pub groups: usize,
    /// The width of each group in the first stage's bottlenecks; 64 except for ResNeXt and Wide
    /// ResNet.
    pub width_per_group: usize,
    /// Creates the layer at the end of each block's branch, such as
    /// [`SqueezeExcite`](super::SqueezeExcite) or [`Cbam`](super::Cbam).
    pub attention: Option<Attention>,
}

const fn row(block: ResNetBlock, layers: [usize; 4], groups: usize, width_per_group: usize) -> ResNetConfig {
    ResNetConfig { block, layers, groups, width_per_group, attention: None }
}

/// The configuration of [`resnet18`].
pub const RESNET18: ResNetConfig = row(ResNetBlock::Basic, [2, 2, 2, 2], 1, 64);
/// The configuration of [`resnet34`].
pub const RESNET34: ResNetConfig = row(ResNetBlock::Basic, [3, 4, 6, 3], 1, 64);
/// The configuration of [`resnet50`].
pub const RESNET50: ResNetConfig = row(ResNetBlock::Bottleneck, [3, 4, 6, 3], 1, 64);
/// The configuration of [`resnet101`].
pub const RESNET101: ResNetConfig = row(ResNetBlock::Bottleneck, [3, 4, 23, 3], 1, 64);
/// The configuration of [`resnet152`].
pub const RESNET152: ResNetConfig = row(ResNetBlock::Bottleneck, [3, 8, 36, 3], 1, 64);
/// The configuration of [`resnext50_32x4d`].
pub const RESNEXT50_32X4D: ResNetConfig = row(ResNetBlock::Bottleneck, [3, 4, 6, 3], 32, 4);
/// The configuration of [`wide_resnet50_2`].
pub const WIDE_RESNET50_2: ResNetConfig = row(ResNetBlock::Bottleneck, [3, 4, 6, 3], 1, 128);

/// Creates the 18-layer network: basic blocks, 2, 2, 2 and 2 in a stage. See [`ResNet`].
pub fn resnet18(options: impl Into<ModelOptions>) -> ResNet {
    ResNet::new(&RESNET18, options)
}

/// Creates the 34-layer network: basic blocks, 3, 4, 6 and 3 in a stage. See [`ResNet`].
pub fn resnet34(options: impl Into<ModelOptions>) -> ResNet {
    ResNet::new(&RESNET34, options)
}

/// Creates the 50-layer network: bottlenecks, 3, 4, 6 and 3 in a stage. See [`ResNet`].
///
/// ```
/// use convnet::{models::resnet50, nn::Module};
///
/// assert_eq!(resnet50(1000).num_parameters(), 25_557_032);
/// ```
pub fn resnet50(options: impl Into<ModelOptions>) -> ResNet {
    ResNet::new(&RESNET50, options)
}

/// Creates the 101-layer network: bottlenecks, 3, 4, 23 and 3 in a stage. See [`ResNet`].
pub fn resnet101(options: impl Into<ModelOptions>) -> ResNet {
    ResNet::new(&RESNET101, options)
}

/// Creates the 152-layer network: bottlenecks, 3, 8, 36 and 3 in a stage. See [`ResNet`].
pub fn resnet152(options: impl Into<ModelOptions>) -> ResNet {
    ResNet::new(&RESNET152, options)
}

/// Creates ResNeXt-50 32×4d (Xie, Girshick, Dollár, Tu & He, *Aggregated Residual Transformations
/// for Deep Neural Networks*, 2016): 3×3 convolutions of 32 groups, 4 channels each in the first
/// stage. See [`ResNet`].
pub fn resnext50_32x4d(options: impl Into<ModelOptions>) -> ResNet {
    ResNet::new(&RESNEXT50_32X4D, options)
}

/// Creates Wide ResNet-50-2 (Zagoruyko & Komodakis, *Wide Residual Networks*, 2016): 3×3
/// convolutions of twice the width. See [`ResNet`].
pub fn wide_resnet50_2(options: impl Into<ModelOptions>) -> ResNet {
    ResNet::new(&WIDE_RESNET50_2, options)
}

/// A 1×1 convolution and normalisation that convert a block's input to the shape of its branch, for
/// the shortcut: option B of the paper's §3.3.
pub struct Projection {
    /// 1×1, with the block's stride.
    pub conv: Conv2d,
    /// After `conv`, for the block's output channels.
    pub bn: BatchNorm2d,
}

impl Projection {
    /// Creates a projection from `inputs` to `outputs` channels; `None` where the shapes are
    /// already equal.
    pub fn new(inputs: usize, outputs: usize, stride: usize) -> Option<Projection> {
        (inputs != outputs || stride != 1)
            .then(|| Projection { conv: Conv2d::new(inputs, outputs, 1).stride(stride).bias(false), bn: BatchNorm2d::new(outputs) })
    }
}

impl Module for Projection {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || conv_bn(&self.conv, &self.bn, x))
    }

    visit_fields!(conv => "0", bn => "1");
}

/// Computes `relu(attention(bn(conv(x))) + shortcut)`.
fn join(conv: &Conv2d, bn: &BatchNorm2d, attention: Option<&dyn Module>, x: &Tensor, shortcut: &Tensor) -> Result<Tensor> {
    match attention {
        None => conv_bn_add_relu(conv, bn, x, shortcut),
        Some(attention) => scale_add_act(attention, conv_bn(conv, bn, x)?, Some(shortcut), Activation::Relu),
    }
}

/// Two 3×3 convolutions and a shortcut (He et al., 2015, fig. 5 left).
///
/// # Shape
/// `[N, inputs, H, W]` to `[N, outputs, H / stride, W / stride]`.
///
/// ```
/// use convnet::{Tensor, models::{BasicBlock, Cbam}, nn::Module};
///
/// let block = BasicBlock::new(64, 128, 2).attention(Cbam::new(128));
/// assert_eq!(block.forward(&Tensor::randn([2, 64, 16, 16]))?.shape(), [2, 128, 8, 8]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct BasicBlock {
    /// 3×3, with the block's stride.
    pub conv1: Conv2d,
    /// After `conv1`.
    pub bn1: BatchNorm2d,
    /// 3×3.
    pub conv2: Conv2d,
    /// After `conv2`.
    pub bn2: BatchNorm2d,
    /// At the end of the branch; has timm's name, whatever the layer is.
    pub se: Option<Box<dyn Module>>,
    /// The shortcut's projection, where shapes differ.
    pub downsample: Option<Projection>,
}

impl BasicBlock {
    /// Creates a block from `inputs` to `outputs` channels.
    pub fn new(inputs: usize, outputs: usize, stride: usize) -> BasicBlock {
        BasicBlock {
            conv1: Conv2d::new(inputs, outputs, 3).stride(stride).padding(1).bias(false),
            bn1: BatchNorm2d::new(outputs),
            conv2: Conv2d::new(outputs, outputs, 3).padding(1).bias(false),
            bn2: BatchNorm2d::new(outputs),
            se: None,
            downsample: Projection::new(inputs, outputs, stride),
        }
    }

    /// Adds a layer at the end of the branch.
    pub fn attention(mut self, layer: impl Module + 'static) -> BasicBlock {
        self.se = Some(Box::new(layer));
        self
    }
}

impl Module for BasicBlock {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || {
            let shortcut = self.downsample.forward(x)?;
            let y = conv_bn_relu(&self.conv1, &self.bn1, x)?;
            join(&self.conv2, &self.bn2, self.se.as_deref(), &y, &shortcut)
        })
    }

    visit_fields!(conv1, bn1, conv2, bn2, se, downsample);
}

/// A 1×1 convolution to fewer channels, a 3×3 convolution, a 1×1 convolution to more channels, and
/// a shortcut (He et al., 2015, fig. 5 right).
///
/// # Shape
/// `[N, inputs, H, W]` to `[N, outputs, H / stride, W / stride]`.
pub struct Bottleneck {
    /// 1×1, inputs→width.
    pub conv1: Conv2d,
    /// After `conv1`.
    pub bn1: BatchNorm2d,
    /// 3×3, width→width, with the block's stride and groups.
    pub conv2: Conv2d,
    /// After `conv2`.
    pub bn2: BatchNorm2d,
    /// 1×1, width→outputs.
    pub conv3: Conv2d,
    /// After `conv3`.
    pub bn3: BatchNorm2d,
    /// At the end of the branch; has timm's name, whatever the layer is.
    pub se: Option<Box<dyn Module>>,
    /// The shortcut's projection, where shapes differ.
    pub downsample: Option<Projection>,
}

impl Bottleneck {
    /// Creates a block from `inputs` through `width` to `outputs` channels, with the middle
    /// convolution in `groups` groups.
    pub fn new([inputs, width, outputs]: [usize; 3], stride: usize, groups: usize) -> Bottleneck {
        Bottleneck {
            conv1: Conv2d::new(inputs, width, 1).bias(false),
            bn1: BatchNorm2d::new(width),
            conv2: Conv2d::new(width, width, 3).stride(stride).padding(1).groups(groups).bias(false),
            bn2: BatchNorm2d::new(width),
            conv3: Conv2d::new(width, outputs, 1).bias(false),
            bn3: BatchNorm2d::new(outputs),
            se: None,
            downsample: Projection::new(inputs, outputs, stride),
        }
    }

    /// Adds a layer at the end of the branch.
    pub fn attention(mut self, layer: impl Module + 'static) -> Bottleneck {
        self.se = Some(Box::new(layer));
        self
    }
}

impl Module for Bottleneck {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || {
            let shortcut = self.downsample.forward(x)?;
            let mut y = conv_bn_relu(&self.conv1, &self.bn1, x)?;
            y = conv_bn_relu(&self.conv2, &self.bn2, &y)?;
            join(&self.conv3, &self.bn3, self.se.as_deref(), &y, &shortcut)
        })
    }

    visit_fields!(conv1, bn1, conv2, bn2, conv3, bn3, se, downsample);
}

/// A residual network for ImageNet, with torchvision's initialisation: Kaiming's normal by fan-out
/// for convolutions, PyTorch's for the rest.
///
/// ```
/// use convnet::{Tensor, models::resnet18, nn::Module};
///
/// let model = resnet18(10);
/// assert_eq!(model.forward(&Tensor::randn([2, 3, 64, 64]))?.shape(), [2, 10]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct ResNet {
    /// 7×7, stride 2.
    pub conv1: Conv2d,
    /// After `conv1`.
    pub bn1: BatchNorm2d,
    /// Blocks of 64 channels; bottlenecks output four times as many, in all stages.
    pub layer1: Sequential,
    /// Blocks of 128 channels, at half the size.
    pub layer2: Sequential,
    /// Blocks of 256 channels, at a quarter of the size.
    pub layer3: Sequential,
    /// Blocks of 512 channels, at an eighth of the size.
    pub layer4: Sequential,
    /// Before the classifier, if requested; torchvision has none.
    pub dropout: Option<Dropout>,
    /// The classifier.
    pub fc: Box<dyn Module>,
    block: ResNetBlock,
}

impl ResNet {
    /// Creates the network of a configuration: one of the constants, or a custom one.
    pub fn new(config: &ResNetConfig, options: impl Into<ModelOptions>) -> ResNet {
        let options = options.into();
        let expansion = if config.block == ResNetBlock::Basic { 1 } else { 4 };
        let mut inputs = 64;
        let mut stage = |i: usize| {
            let planes: usize = 64 << i;
            let outputs = planes * expansion;
            let width = planes.saturating_mul(config.width_per_group) / 64;
            (0..config.layers[i]).fold(Sequential::new(), |stage, n| {
                let stride = if i > 0 && n == 0 { 2 } else { 1 };
                let from = std::mem::replace(&mut inputs, outputs);
                let se = config.attention.map(|attention| attention(outputs));
                match config.block {
                    ResNetBlock::Basic => stage.push(BasicBlock { se, ..BasicBlock::new(from, outputs, stride) }),
                    ResNetBlock::Bottleneck => {
                        let channels = [from, width.saturating_mul(config.groups), outputs];
                        stage.push(Bottleneck { se, ..Bottleneck::new(channels, stride, config.groups) })
                    }
                }
            })
        };
        let dropout = options.dropout_or(0.0);
        let net = ResNet {
            conv1: Conv2d::new(options.input_channels, 64, 7).stride(2).padding(3).bias(false),
            bn1: BatchNorm2d::new(64),
            layer1: stage(0),
            layer2: stage(1),
            layer3: stage(2),
            layer4: stage(3),
            dropout: (dropout != 0.0).then(|| Dropout::new(dropout)),
            fc: Box::new(Linear::new(inputs, options.num_classes)),
            block: config.block,
        };
        initialise(net, |at| (at.layer == "Conv2d" && at.name == "weight").then(|| Init::kaiming_fan_out(at.shape)))
    }

    /// Makes each block start as the identity: sets the weight of its branch's last normalisation
    /// to 0 (Goyal et al., 2017, §5.1). This is timm's default, not torchvision's.
    pub fn zero_init_residual(self) -> ResNet {
        let last = if self.block == ResNetBlock::Basic { ".bn2.weight" } else { ".bn3.weight" };
        Visitor::walk(&self, &mut |path, item| {
            if let Item::Parameter(weight) = item
                && path.ends_with(last)
            {
                weight.set(&Tensor::zeros(weight.shape())).expect("zeros have the weight's shape");
            }
        });
        self
    }
}

impl Module for ResNet {
    /// # Shape
    /// `[N, 3, H, W]` to logits `[N, num_classes]`; any size, 224×224 in the paper.
    ///
    /// # Errors
    /// [`Error::Layer`](crate::Error::Layer) from the layer that cannot accept its input.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // [N, 3, 224, 224]
        let pool = Pool2dOptions::new().stride(2).padding(1);
        let mut x = conv_bn_relu(&self.conv1, &self.bn1, x)?; // [N, 64, 112, 112]
        x = x.max_pool2d(3, pool)?; //                           [N, 64, 56, 56]
        x = self.layer1.forward(&x)?; //                         [N, 64, 56, 56], bottlenecks: [N, 256, 56, 56]
        x = self.layer2.forward(&x)?; //                         [N, 128, 28, 28]              [N, 512, 28, 28]
        x = self.layer3.forward(&x)?; //                         [N, 256, 14, 14]              [N, 1024, 14, 14]
        x = self.layer4.forward(&x)?; //                         [N, 512, 7, 7]                [N, 2048, 7, 7]
        x = x.mean([2, 3])?; //                                  [N, 512]                      [N, 2048]
        self.fc.forward(&self.dropout.forward(&x)?) //           [N, num_classes]
    }

    visit_fields!(conv1, bn1, layer1, layer2, layer3, layer4, dropout, fc, skip block);
}
