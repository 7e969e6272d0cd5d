//! MobileNetV2 (Sandler et al., *MobileNetV2: Inverted Residuals and Linear Bottlenecks*, 2018):
//! shortcuts between narrow maps, and more channels inside the blocks; in torchvision's layout.

use super::torchvision_start;
use crate::error::Result;
use crate::models::mbconv::{ConvNormActivation, NormOptions, scaled_channels};
use crate::models::options::ModelOptions;
use crate::nn::init::initialise;
use crate::nn::visit_with;
use crate::nn::{Activation, BatchNorm2d, Conv2d, Dropout, Linear, Module, Sequential, block, conv_bn, conv_bn_add_act};
use crate::tensor::Tensor;
use crate::visit_fields;

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
