//! Attention for convolutional networks: layers that compute a factor between 0 and 1 for each
//! channel, or position, of a feature map.
//!
//! They keep the shape, and so can be placed at the end of any block's branch:
//! [`ResNetConfig::attention`](super::ResNetConfig::attention) adds one to each residual block.
//! Names of fields are timm's.

use crate::error::Result;
use crate::nn::{Activation, BatchNorm2d, ChannelScale, Conv2d, Module, block, conv_act, conv_bn_act};
use crate::tensor::Tensor;
use crate::visit_fields;

/// Squeeze-and-excitation (Hu, Shen & Sun, *Squeeze-and-Excitation Networks*, 2017): two dense
/// layers compute a factor between 0 and 1 for each channel from the channels' means.
///
/// # Shape
/// `[N, C, H, W]`; the result has the input's shape.
///
/// ```
/// use convnet::{Tensor, models::SqueezeExcite, nn::Module};
///
/// let se = SqueezeExcite::new(256);
/// assert_eq!(se.fc1.weight.shape(), [16, 256, 1, 1]);
/// assert_eq!(se.forward(&Tensor::randn([2, 256, 7, 7]))?.shape(), [2, 256, 7, 7]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct SqueezeExcite {
    /// Channels→squeezed, 1×1.
    pub fc1: Conv2d,
    /// Squeezed→channels, 1×1.
    pub fc2: Conv2d,
    activation: Activation,
    gate: Activation,
}

impl SqueezeExcite {
    /// Creates the layer with a sixteenth of the channels in the middle, the paper's ratio, rounded
    /// to a multiple of eight as in timm.
    pub fn new(channels: usize) -> SqueezeExcite {
        SqueezeExcite::squeezed(channels, (channels.saturating_add(64) / 128 * 8).max(8))
    }

    /// Creates the layer with `squeezed` channels in the middle.
    pub fn squeezed(channels: usize, squeezed: usize) -> SqueezeExcite {
        let (activation, gate) = (Activation::Relu, Activation::Sigmoid);
        SqueezeExcite { fc1: Conv2d::new(channels, squeezed, 1), fc2: Conv2d::new(squeezed, channels, 1), activation, gate }
    }

    /// Sets the activation in the middle, and the one that computes the factors.
    pub fn activations(mut self, middle: Activation, gate: Activation) -> SqueezeExcite {
        (self.activation, self.gate) = (middle, gate);
        self
    }
}

impl Module for SqueezeExcite {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || x.mul(&self.scale(x)?))
    }

    visit_fields!(fc1, fc2, skip(activation, gate));

    fn as_channel_scale(&self) -> Option<&dyn ChannelScale> {
        Some(self)
    }
}

impl ChannelScale for SqueezeExcite {
    fn scale(&self, x: &Tensor) -> Result<Tensor> {
        let means = x.mean_keepdim([2, 3])?; //                       [N, C, 1, 1]
        let squeezed = conv_act(&self.fc1, &means, self.activation)?; // [N, squeezed, 1, 1]
        conv_act(&self.fc2, &squeezed, self.gate) //                     [N, C, 1, 1]
    }
}

/// CBAM's channel attention (Woo et al., 2018, fig. 2): like [`SqueezeExcite`], from the mean and
/// the maximum of each channel.
///
/// # Shape
/// `[N, C, H, W]`; the result has the input's shape.
pub struct ChannelAttention {
    /// Channels→squeezed, 1×1, without bias.
    pub fc1: Conv2d,
    /// Squeezed→channels, 1×1, without bias.
    pub fc2: Conv2d,
}

impl ChannelAttention {
    /// Creates the layer with a sixteenth of the channels in the middle, at least one.
    pub fn new(channels: usize) -> ChannelAttention {
        let squeezed = (channels.saturating_add(8) / 16).max(1);
        ChannelAttention { fc1: Conv2d::new(channels, squeezed, 1).bias(false), fc2: Conv2d::new(squeezed, channels, 1).bias(false) }
    }

    fn dense(&self, x: &Tensor) -> Result<Tensor> {
        self.fc2.forward(&conv_act(&self.fc1, x, Activation::Relu)?)
    }
}

impl Module for ChannelAttention {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || x.mul(&self.scale(x)?))
    }

    visit_fields!(fc1, fc2);

    fn as_channel_scale(&self) -> Option<&dyn ChannelScale> {
        Some(self)
    }
}

impl ChannelScale for ChannelAttention {
    fn scale(&self, x: &Tensor) -> Result<Tensor> {
        let means = self.dense(&x.mean_keepdim([2, 3])?)?; //  [N, C, 1, 1]
        let largest = self.dense(&x.max_keepdim([2, 3])?)?; // [N, C, 1, 1]
        means.add(&largest)?.sigmoid()
    }
}

/// CBAM's spatial attention (Woo et al., 2018, fig. 2): a 7×7 convolution computes a factor between
/// 0 and 1 for each position from the mean and the maximum over the channels.
///
/// # Shape
/// `[N, C, H, W]`; the result has the input's shape.
pub struct SpatialAttention {
    /// 2→1 channels, 7×7.
    pub conv: Conv2d,
    /// After `conv`, for its single channel.
    pub bn: BatchNorm2d,
}

impl SpatialAttention {
    /// Creates the layer with the paper's 7×7 convolution.
    pub fn new() -> SpatialAttention {
        SpatialAttention { conv: Conv2d::new(2, 1, 7).padding(3).bias(false), bn: BatchNorm2d::new(1) }
    }

    /// Computes the factor of each position, which shows where the network looks.
    ///
    /// # Shape
    /// `[N, C, H, W]` to `[N, 1, H, W]`, between 0 and 1.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for an input of another rank.
    pub fn scale(&self, x: &Tensor) -> Result<Tensor> {
        let seen = Tensor::cat(&[&x.mean_keepdim(1)?, &x.max_keepdim(1)?], 1)?; // [N, 2, H, W]
        conv_bn_act(&self.conv, &self.bn, &seen, Activation::Sigmoid) //          [N, 1, H, W]
    }
}

impl Default for SpatialAttention {
    fn default() -> SpatialAttention {
        SpatialAttention::new()
    }
}

impl Module for SpatialAttention {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || x.mul(&self.scale(x)?))
    }

    // In timm the layer is a convolution with a normalisation inside.
    visit_fields!(conv => "conv.conv", bn => "conv.bn");
}

/// The convolutional block attention module (Woo, Park, Lee & Kweon, *CBAM: Convolutional Block
/// Attention Module*, 2018): channel attention, then spatial attention.
///
/// # Shape
/// `[N, C, H, W]`; the result has the input's shape.
///
/// ```
/// use convnet::models::{Cbam, RESNET18, ResNet, ResNetConfig};
/// use convnet::nn::{Module, ModuleExt};
///
/// let net = ResNet::new(&ResNetConfig { attention: Some(|channels| Box::new(Cbam::new(channels))), ..RESNET18 }, 10);
/// assert!(net.state_dict().contains_key("layer1.0.se.spatial.conv.conv.weight"));
/// ```
pub struct Cbam {
    /// Channel attention, which runs first.
    pub channel: ChannelAttention,
    /// Spatial attention.
    pub spatial: SpatialAttention,
}

impl Cbam {
    /// Creates the module with the paper's ratio of 16 and 7×7 convolution.
    pub fn new(channels: usize) -> Cbam {
        Cbam { channel: ChannelAttention::new(channels), spatial: SpatialAttention::new() }
    }
}

impl Module for Cbam {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || self.spatial.forward(&self.channel.forward(x)?))
    }

    visit_fields!(channel, spatial);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_multiplies_by_its_factors() {
        let x = Tensor::randn([2, 32, 5, 6]);
        let cbam = Cbam::new(32);
        cbam.eval();
        let channels = cbam.channel.scale(&x).unwrap();
        let seen = cbam.channel.forward(&x).unwrap();
        let positions = cbam.spatial.scale(&seen).unwrap();
        assert_eq!((channels.shape(), positions.shape()), (&[2, 32, 1, 1][..], &[2, 1, 5, 6][..]));
        assert_eq!(cbam.forward(&x).unwrap(), x.mul(&channels).unwrap().mul(&positions).unwrap());
        for factors in [channels, positions] {
            assert!(factors.to_vec::<f32>().unwrap().iter().all(|factor| (0.0..=1.0).contains(factor)));
        }
    }
}
