//! Building blocks of mobile networks: a convolution with normalisation and activation, and the
//! inverted residual block.

use super::attention::SqueezeExcite;
use crate::error::Result;
use crate::nn::visit_with;
use crate::nn::{Activation, BatchNorm2d, Conv2d, Module, StochasticDepth, block, conv_bn_act, conv_bn_add_act, scale_add_act};
use crate::tensor::Tensor;
use crate::visit_fields;

/// The options of a network's batch normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormOptions {
    /// The number that is added to the variance.
    pub eps: f64,
    /// The weight of a new batch in the running estimates.
    pub momentum: f64,
}

impl NormOptions {
    /// PyTorch's defaults.
    pub const DEFAULT: NormOptions = NormOptions { eps: 1e-5, momentum: 0.1 };
    /// The options of MobileNetV3 and the larger EfficientNets.
    pub const MOBILE: NormOptions = NormOptions { eps: 1e-3, momentum: 0.01 };

    fn layer(self, channels: usize) -> BatchNorm2d {
        BatchNorm2d::new(channels).eps(self.eps).momentum(self.momentum)
    }
}

/// A convolution without bias that keeps the size (up to its stride), batch normalisation and
/// activation: torchvision's `Conv2dNormActivation`, with its keys `0` and `1`.
pub struct ConvNormActivation {
    /// The convolution.
    pub conv: Conv2d,
    /// The normalisation.
    pub bn: BatchNorm2d,
    activation: Activation,
}

impl ConvNormActivation {
    /// Creates a block from `inputs` to `outputs` channels.
    pub fn new(inputs: usize, outputs: usize, kernel: usize, stride: usize, activation: Activation, norm: NormOptions) -> Self {
        let conv = Conv2d::new(inputs, outputs, kernel).stride(stride).padding(kernel / 2).bias(false);
        ConvNormActivation { conv, bn: norm.layer(outputs), activation }
    }

    /// Creates a block with a depthwise convolution.
    pub fn depthwise(channels: usize, kernel: usize, stride: usize, activation: Activation, norm: NormOptions) -> Self {
        let conv = Conv2d::new(channels, channels, kernel).stride(stride).padding(kernel / 2).groups(channels).bias(false);
        ConvNormActivation { conv, bn: norm.layer(channels), activation }
    }
}

impl Module for ConvNormActivation {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || conv_bn_act(&self.conv, &self.bn, x, self.activation))
    }

    visit_fields!(conv => "0", bn => "1", skip activation);
}

/// The options of an [`MBConv`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MBConvOptions {
    /// Input channels.
    pub inputs: usize,
    /// Channels of the depthwise convolution; there is no expanding convolution when it is
    /// `inputs`.
    pub expanded: usize,
    /// Output channels.
    pub outputs: usize,
    /// The depthwise kernel's size.
    pub kernel: usize,
    /// The depthwise convolution's stride.
    pub stride: usize,
    /// The activation after the first two convolutions.
    pub activation: Activation,
    /// Bottleneck, activation and gate of squeeze-and-excitation, if any.
    pub squeeze: Option<(usize, Activation, Activation)>,
    /// The options of all normalisations.
    pub norm: NormOptions,
    /// The probability that a sample skips the block in training.
    pub stochastic_depth: f64,
}

/// An inverted residual block: a 1×1 convolution to more channels, a depthwise convolution,
/// squeeze-and-excitation, and a 1×1 convolution without activation to fewer channels, with a
/// shortcut where the shapes allow it. MobileNetV3's block (Howard et al., 2019, fig. 4) and
/// EfficientNet's (Tan & Le, 2019).
pub struct MBConv {
    branch: Branch,
    stochastic_depth: StochasticDepth,
    shortcut: bool,
}

/// The layers of the branch beside the shortcut; keys number only those that exist.
struct Branch {
    expand: Option<ConvNormActivation>,
    depthwise: ConvNormActivation,
    squeeze: Option<SqueezeExcite>,
    project: ConvNormActivation,
}

impl MBConv {
    /// Creates a block with these options.
    pub fn new(options: &MBConvOptions) -> MBConv {
        let &MBConvOptions { inputs, expanded, outputs, kernel, stride, activation, squeeze, norm, stochastic_depth } = options;
        let branch = Branch {
            expand: (expanded != inputs).then(|| ConvNormActivation::new(inputs, expanded, 1, 1, activation, norm)),
            depthwise: ConvNormActivation::depthwise(expanded, kernel, stride, activation, norm),
            squeeze: squeeze.map(|(squeezed, activation, gate)| SqueezeExcite::squeezed(expanded, squeezed).activations(activation, gate)),
            project: ConvNormActivation::new(expanded, outputs, 1, 1, Activation::Linear, norm),
        };
        MBConv { branch, stochastic_depth: StochasticDepth::new(stochastic_depth), shortcut: stride == 1 && inputs == outputs }
    }
}

impl Module for MBConv {
    /// # Shape
    /// `[N, inputs, H, W]` to `[N, outputs, ⌈H / stride⌉, ⌈W / stride⌉]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || {
            // Unless the branch can be dropped, its last convolution also adds the shortcut.
            let adds = self.shortcut && self.stochastic_depth.is_idle();
            let y = self.branch.run(x, adds)?;
            if self.shortcut && !adds { self.stochastic_depth.forward(&y)?.add(x) } else { Ok(y) }
        })
    }

    visit_fields!(branch => "block", stochastic_depth, skip shortcut);
}

impl Branch {
    /// Runs the branch; `adds` is whether the input is added to the result.
    fn run(&self, x: &Tensor, adds: bool) -> Result<Tensor> {
        block(self, || {
            let mut y = self.expand.forward(x)?; //      [N, expanded, H, W]
            y = self.depthwise.forward(&y)?; //          [N, expanded, H / stride, W / stride]
            y = scale_add_act(&self.squeeze, y, None, Activation::Linear)?;
            let ConvNormActivation { conv, bn, activation } = &self.project;
            // [N, outputs, H / stride, W / stride]
            match adds {
                true => conv_bn_add_act(conv, bn, &y, x, *activation),
                false => self.project.forward(&y),
            }
        })
    }
}

impl Module for Branch {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, false)
    }

    visit_with!(
        |Branch { expand, depthwise, squeeze, project }, v| {
            let mut numbers = (0..).map(|n: usize| n.to_string());
            let mut next = || numbers.next().unwrap_or_default();
            if let Some(expand) = expand {
                v.field(&next(), expand);
            }
            v.field(&next(), depthwise);
            if let Some(squeeze) = squeeze {
                v.field(&next(), squeeze);
            }
            v.field(&next(), project);
        },
        |copier| {
            let (expand, depthwise) = (copier.field(expand)?, copier.field(depthwise)?);
            Branch { expand, depthwise, squeeze: copier.field(squeeze)?, project: copier.field(project)? }
        }
    );

    fn type_name(&self) -> &str {
        "Sequential"
    }
}

/// Returns the multiple of 8 nearest to `channels · width`, at least 8 and at most a tenth below
/// the exact value: the rounding of mobile networks.
pub fn scaled_channels(channels: usize, width: f64) -> usize {
    let exact = channels as f64 * width;
    let rounded = ((exact + 4.0) as usize / 8 * 8).max(8);
    // Extremely large widths saturate, and the layers report them.
    if (rounded as f64) < 0.9 * exact { rounded.saturating_add(8) } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_rounded_as_torchvision_rounds_them() {
        // Numbers from torchvision.models._utils._make_divisible(channels * width, 8).
        let cases = [(32, 1.0, 32), (24, 0.5, 16), (16, 0.25, 8), (18, 1.0, 24), (20, 1.0, 24), (112, 1.1, 120), (1280, 3.1, 3968)];
        for (channels, width, expected) in cases {
            assert_eq!(scaled_channels(channels, width), expected, "{channels} · {width}");
        }
    }

    #[test]
    fn excessive_width_is_reported_when_the_block_runs() {
        let channels = scaled_channels(32, f64::INFINITY);
        let block = ConvNormActivation::new(3, channels, 3, 1, Activation::Relu, NormOptions::DEFAULT);
        assert!(block.forward(&Tensor::zeros([1, 3, 8, 8])).is_err());
    }
}
