//! The residual networks for CIFAR's 32×32 images (He et al., 2015, §4.2): three stages of 16, 32
//! and 64 channels, n blocks each, 6n + 2 layers in total.
//!
//! At the start of a stage, the shortcut has no parameters (option A): it takes every other pixel,
//! and fills the new channels with zeros. Half of the zeros come before the channels and half
//! after, as in the most used implementation (akamaster's `pytorch_resnet_cifar10`); the paper does
//! not specify this.

use super::options::ModelOptions;
use crate::error::Result;
use crate::nn::init::{Init, initialise};
use crate::nn::{BatchNorm2d, Conv2d, Dropout, Linear, Module, Sequential, block, conv_bn_add_relu, conv_bn_relu};
use crate::ops::Pool2dOptions;
use crate::tensor::Tensor;
use crate::visit_fields;

/// Two 3×3 convolutions and a shortcut without parameters.
///
/// # Shape
/// `[N, inputs, H, W]` to `[N, outputs, ⌈H / stride⌉, ⌈W / stride⌉]`.
pub struct CifarBlock {
    /// 3×3, with the block's stride.
    pub conv1: Conv2d,
    /// After `conv1`.
    pub bn1: BatchNorm2d,
    /// 3×3.
    pub conv2: Conv2d,
    /// After `conv2`.
    pub bn2: BatchNorm2d,
    stride: usize,
    /// Number of zero channels before and after the shortcut's channels.
    zeros: [usize; 2],
}

impl CifarBlock {
    /// Creates a block from `inputs` to `outputs` channels, at least as many.
    pub fn new(inputs: usize, outputs: usize, stride: usize) -> CifarBlock {
        let new = outputs.saturating_sub(inputs);
        CifarBlock {
            conv1: Conv2d::new(inputs, outputs, 3).stride(stride).padding(1).bias(false),
            bn1: BatchNorm2d::new(outputs),
            conv2: Conv2d::new(outputs, outputs, 3).padding(1).bias(false),
            bn2: BatchNorm2d::new(outputs),
            stride,
            zeros: [new / 2, new - new / 2],
        }
    }

    /// Computes the shortcut, option A of the paper's §3.3.
    fn shortcut(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        if self.stride > 1 {
            // Pooling with a 1×1 window takes every `stride`-th pixel.
            x = x.max_pool2d(1, Pool2dOptions::new().stride(self.stride))?;
        }
        if self.zeros != [0, 0] {
            let (n, h, w) = (x.shape()[0], x.shape()[2], x.shape()[3]);
            let zeros = |channels| Tensor::try_full([n, channels, h, w], 0.0, x.dtype());
            let [before, behind] = [zeros(self.zeros[0])?, zeros(self.zeros[1])?];
            x = Tensor::cat(&[&before, &x, &behind], 1)?;
        }
        Ok(x)
    }
}

impl Module for CifarBlock {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || {
            let y = conv_bn_relu(&self.conv1, &self.bn1, x)?;
            conv_bn_add_relu(&self.conv2, &self.bn2, &y, &self.shortcut(x)?)
        })
    }

    visit_fields!(conv1, bn1, conv2, bn2, skip(stride, zeros));
}

/// A residual network for CIFAR, with Kaiming's normal initialisation by fan-out.
///
/// ```
/// use convnet::{Tensor, models::cifar_resnet20, nn::Module};
///
/// let model = cifar_resnet20(10);
/// assert_eq!(model.num_parameters(), 269_722);
/// assert_eq!(model.forward(&Tensor::randn([2, 3, 32, 32]))?.shape(), [2, 10]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct CifarResNet {
    /// 3×3.
    pub conv1: Conv2d,
    /// After `conv1`.
    pub bn1: BatchNorm2d,
    /// Blocks of 16 channels.
    pub layer1: Sequential,
    /// Blocks of 32 channels, at half the size.
    pub layer2: Sequential,
    /// Blocks of 64 channels, at a quarter of the size.
    pub layer3: Sequential,
    /// Before the classifier, if requested; the paper has none.
    pub dropout: Option<Dropout>,
    /// The classifier.
    pub fc: Box<dyn Module>,
}

/// Creates the network with n = 3: 20 layers, 0.27 million parameters. See [`CifarResNet`].
pub fn cifar_resnet20(options: impl Into<ModelOptions>) -> CifarResNet {
    CifarResNet::new(3, options)
}

/// Creates the network with n = 5: 32 layers, 0.46 million parameters. See [`CifarResNet`].
pub fn cifar_resnet32(options: impl Into<ModelOptions>) -> CifarResNet {
    CifarResNet::new(5, options)
}

/// Creates the network with n = 7: 44 layers, 0.66 million parameters. See [`CifarResNet`].
pub fn cifar_resnet44(options: impl Into<ModelOptions>) -> CifarResNet {
    CifarResNet::new(7, options)
}

/// Creates the network with n = 9: 56 layers, 0.85 million parameters. See [`CifarResNet`].
pub fn cifar_resnet56(options: impl Into<ModelOptions>) -> CifarResNet {
    CifarResNet::new(9, options)
}

/// Creates the network with n = 18: 110 layers, 1.7 million parameters. The paper trains it at a
/// tenth of the learning rate until the training error is below 80%. See [`CifarResNet`].
pub fn cifar_resnet110(options: impl Into<ModelOptions>) -> CifarResNet {
    CifarResNet::new(18, options)
}

impl CifarResNet {
    /// Creates a network with `n` blocks in each stage: 6n + 2 layers.
    pub fn new(n: usize, options: impl Into<ModelOptions>) -> CifarResNet {
        let options = options.into();
        let stage = |inputs: usize, outputs: usize, stride: usize| {
            (0..n).fold(Sequential::new(), |stage, i| {
                stage.push(if i == 0 { CifarBlock::new(inputs, outputs, stride) } else { CifarBlock::new(outputs, outputs, 1) })
            })
        };
        let dropout = options.dropout_or(0.0);
        let net = CifarResNet {
            conv1: Conv2d::new(options.input_channels, 16, 3).padding(1).bias(false),
            bn1: BatchNorm2d::new(16),
            layer1: stage(16, 16, 1),
            layer2: stage(16, 32, 2),
            layer3: stage(32, 64, 2),
            dropout: (dropout != 0.0).then(|| Dropout::new(dropout)),
            fc: Box::new(Linear::new(64, options.num_classes)),
        };
        initialise(net, |at| (at.layer == "Conv2d" && at.name == "weight").then(|| Init::kaiming_fan_out(at.shape)))
    }
}

impl Module for CifarResNet {
    /// # Shape
    /// `[N, 3, H, W]` to logits `[N, num_classes]`; any size, 32×32 in the paper.
    ///
    /// # Errors
    /// [`Error::Layer`](crate::Error::Layer) from the layer that cannot accept its input.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // [N, 3, 32, 32]
        let mut x = conv_bn_relu(&self.conv1, &self.bn1, x)?; // [N, 16, 32, 32]
        x = self.layer1.forward(&x)?; //                         [N, 16, 32, 32]
        x = self.layer2.forward(&x)?; //                         [N, 32, 16, 16]
        x = self.layer3.forward(&x)?; //                         [N, 64, 8, 8]
        x = x.mean([2, 3])?; //                                  [N, 64]
        self.fc.forward(&self.dropout.forward(&x)?) //           [N, num_classes]
    }

    visit_fields!(conv1, bn1, layer1, layer2, layer3, dropout, fc);
}
