//! MobileNets: networks for mobile phones, made of depthwise convolutions.
//!
//! A depthwise convolution combines neighbouring pixels within each channel, a 1×1 convolution
//! mixes the channels: together they need about an eighth of the computation of a full 3×3
//! convolution. [`mobilenet_v1`] (Howard et al., *MobileNets*, 2017) is a plain stack of such
//! pairs, in timm's layout; [`mobilenet_v2`] (Sandler et al., *Inverted Residuals and Linear
//! Bottlenecks*, 2018) has shortcuts between narrow maps and more channels inside the blocks;
//! [`mobilenet_v3_large`] and [`mobilenet_v3_small`] (Howard et al., *Searching for MobileNetV3*,
//! 2019) add squeeze-and-excitation and the hard swish, with widths found by search; the latter
//! three in torchvision's layout.

use super::mbconv::{ConvNormActivation, MBConv, MBConvOptions, NormOptions, scaled_channels};
use super::options::ModelOptions;
use crate::error::Result;
use crate::nn::init::{Init, ParamInfo, initialise};
use crate::nn::visit_with;
use crate::nn::{
    Activation, BatchNorm2d, Conv2d, Dropout, Hardswish, Linear, Module, Sequential, block, conv_bn, conv_bn_act, conv_bn_add_act,
};
use crate::tensor::Tensor;
use crate::visit_fields;

/// Returns torchvision's initialisation of mobile networks.
fn torchvision_start(at: ParamInfo<'_>) -> Option<Init> {
    match (at.layer, at.name) {
        ("Conv2d", "weight") => Some(Init::kaiming_fan_out(at.shape)),
        ("Linear", "weight") => Some(Init::Normal(0.01)),
        ("Conv2d" | "Linear", "bias") => Some(Init::Constant(0.0)),
        _ => None,
    }
}

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

/// MobileNetV2's block (Sandler et al., 2018, fig. 3): a 1×1 convolution to more channels, a
/// depthwise convolution, and a 1×1 convolution without activation to fewer channels, with a
/// shortcut where the shapes allow it.
pub struct InvertedResidual {
    branch: InvertedBranch,
    shortcut: bool,
}

/// The layers of the branch beside the shortcut; keys number only those that exist.
struct InvertedBranch {
    expand: Option<ConvNormActivation>,
    depthwise: ConvNormActivation,
    project: Conv2d,
    bn: BatchNorm2d,
}

impl InvertedResidual {
    /// Creates a block from `inputs` to `outputs` channels, with `inputs · expansion` in between.
    pub fn new(inputs: usize, outputs: usize, stride: usize, expansion: usize) -> InvertedResidual {
        let (hidden, norm) = (inputs.saturating_mul(expansion), NormOptions::DEFAULT);
        let branch = InvertedBranch {
            expand: (expansion != 1).then(|| ConvNormActivation::new(inputs, hidden, 1, 1, Activation::Relu6, norm)),
            depthwise: ConvNormActivation::depthwise(hidden, 3, stride, Activation::Relu6, norm),
            project: Conv2d::new(hidden, outputs, 1).bias(false),
            bn: BatchNorm2d::new(outputs),
        };
        InvertedResidual { branch, shortcut: stride == 1 && inputs == outputs }
    }
}

impl Module for InvertedResidual {
    /// # Shape
    /// `[N, inputs, H, W]` to `[N, outputs, ⌈H / stride⌉, ⌈W / stride⌉]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || self.branch.run(x, self.shortcut))
    }

    visit_fields!(branch => "conv", skip shortcut);
}

impl InvertedBranch {
    /// Runs the branch; `adds` is whether the input is added to the result.
    fn run(&self, x: &Tensor, adds: bool) -> Result<Tensor> {
        block(self, || {
            let y = self.expand.forward(x)?; //                     [N, hidden, H, W]
            let y = self.depthwise.forward(&y)?; //                 [N, hidden, H / stride, W / stride]
            // [N, outputs, H / stride, W / stride]
            match adds {
                true => conv_bn_add_act(&self.project, &self.bn, &y, x, Activation::Linear),
                false => conv_bn(&self.project, &self.bn, &y),
            }
        })
    }
}

impl Module for InvertedBranch {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, false)
    }

    visit_with!(
        |InvertedBranch { expand, depthwise, project, bn }, v| {
            let mut number = 0;
            if let Some(expand) = expand {
                v.field("0", expand);
                number = 1;
            }
            v.field(&number.to_string(), depthwise);
            v.field(&(number + 1).to_string(), project);
            v.field(&(number + 2).to_string(), bn);
        },
        |copier| {
            let (expand, depthwise) = (copier.field(expand)?, copier.field(depthwise)?);
            InvertedBranch { expand, depthwise, project: copier.field(project)?, bn: copier.field(bn)? }
        }
    );

    fn type_name(&self) -> &str {
        "Sequential"
    }
}

/// MobileNetV2; see [`mobilenet_v2`].
pub struct MobileNetV2 {
    /// The stem, the blocks, and a last 1×1 convolution.
    pub features: Sequential,
    /// Dropout and a dense layer.
    pub classifier: Sequential,
}

/// Expansion, channels, blocks and stride of V2's stages (the paper's table 2).
const V2_STAGES: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),  // [N, 16, 112, 112]
    (6, 24, 2, 2),  // [N, 24, 56, 56]
    (6, 32, 3, 2),  // [N, 32, 28, 28]
    (6, 64, 4, 2),  // [N, 64, 14, 14]
    (6, 96, 3, 1),  // [N, 96, 14, 14]
    (6, 160, 3, 2), // [N, 160, 7, 7]
    (6, 320, 1, 1), // [N, 320, 7, 7]
];

/// Creates torchvision's MobileNetV2, with its initialisation.
///
/// ```
/// use convnet::{models::mobilenet_v2, nn::Module};
///
/// assert_eq!(mobilenet_v2(1000).num_parameters(), 3_504_872);
/// ```
pub fn mobilenet_v2(options: impl Into<ModelOptions>) -> MobileNetV2 {
    MobileNetV2::with_width(1.0, options)
}

impl MobileNetV2 {
    /// Creates a network with all widths multiplied by this factor, rounded to multiples of 8; the
    /// last convolution's only when the factor is above 1.
    pub fn with_width(width: f64, options: impl Into<ModelOptions>) -> MobileNetV2 {
        let options = options.into();
        let mut inputs = scaled_channels(32, width);
        let last = scaled_channels(1280, width.max(1.0));
        let unit = |inputs, outputs, kernel, stride| {
            ConvNormActivation::new(inputs, outputs, kernel, stride, Activation::Relu6, NormOptions::DEFAULT)
        };
        let mut features = Sequential::new().push(unit(options.input_channels, inputs, 3, 2)); // [N, 32, 112, 112]
        for (expansion, channels, depth, stride) in V2_STAGES {
            let outputs = scaled_channels(channels, width);
            for i in 0..depth {
                features = features.push(InvertedResidual::new(inputs, outputs, if i == 0 { stride } else { 1 }, expansion));
                inputs = outputs;
            }
        }
        features = features.push(unit(inputs, last, 1, 1)); // [N, 1280, 7, 7]
        let classifier = Sequential::new().push(Dropout::new(options.dropout_or(0.2))).push(Linear::new(last, options.num_classes));
        initialise(MobileNetV2 { features, classifier }, torchvision_start)
    }
}

impl Module for MobileNetV2 {
    /// # Shape
    /// `[N, 3, H, W]` to logits `[N, num_classes]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // [N, 3, 224, 224]
        let x = self.features.forward(x)?; //       [N, 1280, 7, 7]
        self.classifier.forward(&x.mean([2, 3])?) // [N, num_classes]
    }

    visit_fields!(features, classifier);
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ModuleExt;

    #[test]
    fn widths_are_scaled_and_the_scaled_networks_run() {
        let x = Tensor::randn([2, 1, 32, 32]);
        let options = ModelOptions::new(3).input_channels(1);
        let v1 = MobileNetV1::with_width(0.25, options);
        let v2 = MobileNetV2::with_width(0.5, options);
        let v3 = MobileNetV3::small(0.5, options);
        assert!(v1.num_parameters() < mobilenet_v1(options).num_parameters() / 8);
        for net in [&v1 as &dyn Module, &v2, &v3] {
            assert_eq!(net.forward(&x).unwrap().shape(), [2, 3]);
        }
    }

    #[test]
    fn weights_have_the_deviation_of_kaiming_initialisation() {
        let state = mobilenet_v2(10).state_dict();
        let weights = state.get("features.18.0.weight").unwrap().to_vec::<f32>().unwrap();
        let std = (weights.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>() / weights.len() as f64).sqrt();
        // For 409,600 weights, the standard error of the deviation is 1 / √(2n), 0.1 %.
        assert!((std / (2.0f64 / 1280.0).sqrt() - 1.0).abs() < 0.01, "{std}");
    }
}
