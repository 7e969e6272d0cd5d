//! EfficientNet (Tan & Le, *EfficientNet: Rethinking Model Scaling for Convolutional Neural
//! Networks*, 2019).
//!
//! A base network, B0, found by search, and a rule that enlarges depth, width and image resolution
//! together; see [`compound_scaling`]. The blocks are [`MBConv`]s; in training each sample skips
//! some of them ([`StochasticDepth`]), later ones more often.
//!
//! [`StochasticDepth`]: crate::nn::StochasticDepth

use super::mbconv::{ConvNormActivation, MBConv, MBConvOptions, NormOptions, scaled_channels};
use super::options::ModelOptions;
use crate::error::Result;
use crate::nn::init::{Init, initialise};
use crate::nn::{Activation, Dropout, Linear, Module, Sequential};
use crate::tensor::Tensor;
use crate::visit_fields;

/// The paper's base for depth.
const ALPHA: f64 = 1.2;
/// The paper's base for width.
const BETA: f64 = 1.1;
/// The paper's base for resolution.
const GAMMA: f64 = 1.15;

/// The scale of a network relative to EfficientNet-B0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// The factor of the number of blocks in each stage, rounded up.
    pub depth: f64,
    /// The factor of the number of channels, rounded as [`scaled_channels`] does.
    pub width: f64,
    /// The factor of the image size, 224 pixels.
    pub resolution: f64,
}

/// Returns the scale of the compound-scaling rule (the paper's equation 3): depth `1.2^φ`, width
/// `1.1^φ`, resolution `1.15^φ`.
///
/// Computation grows in proportion to depth, and to the squares of width and resolution. The bases,
/// found by a grid search at φ = 1, satisfy α·β²·γ² ≈ 2, so that a network with φ + 1 takes about
/// twice the computation of one with φ.
///
/// ```
/// use convnet::models::compound_scaling;
///
/// let b2 = compound_scaling(1.0);
/// let work = b2.depth * b2.width.powi(2) * b2.resolution.powi(2);
/// assert!((work - 2.0).abs() < 0.1);
/// ```
///
/// The released networks use φ = 0, ½, 1, 2, 4, 5, 6, 7 with rounding: up to B3 they follow the
/// rule, larger ones were given less depth than the rule by hand. Their factors, without which
/// their checkpoints would not load, are in a table beside the builders.
pub fn compound_scaling(phi: f64) -> Scaling {
    Scaling { depth: ALPHA.powf(phi), width: BETA.powf(phi), resolution: GAMMA.powf(phi) }
}

/// A stage of the base network.
struct Stage {
    expansion: usize,
    kernel: usize,
    stride: usize,
    inputs: usize,
    outputs: usize,
    depth: usize,
}

const fn stage(expansion: usize, kernel: usize, stride: usize, inputs: usize, outputs: usize, depth: usize) -> Stage {
    Stage { expansion, kernel, stride, inputs, outputs, depth }
}

/// EfficientNet-B0 (the paper's table 1).
const BASE: [Stage; 7] = [
    stage(1, 3, 1, 32, 16, 1),   // [N, 16, 112, 112]
    stage(6, 3, 2, 16, 24, 2),   // [N, 24, 56, 56]
    stage(6, 5, 2, 24, 40, 2),   // [N, 40, 28, 28]
    stage(6, 3, 2, 40, 80, 3),   // [N, 80, 14, 14]
    stage(6, 5, 1, 80, 112, 3),  // [N, 112, 14, 14]
    stage(6, 5, 2, 112, 192, 4), // [N, 192, 7, 7]
    stage(6, 3, 1, 192, 320, 1), // [N, 320, 7, 7]
];

/// The probability that a sample skips the last block; for earlier blocks it is proportionally
/// lower.
const STOCHASTIC_DEPTH: f64 = 0.2;

/// EfficientNet; see [`efficientnet_b0`].
pub struct EfficientNet {
    /// The stem, seven stages, and a last 1×1 convolution.
    pub features: Sequential,
    /// Dropout and a dense layer.
    pub classifier: Sequential,
}

impl EfficientNet {
    /// Creates the base network at this scale, with dropout 0.2 unless the options set another
    /// value. The caller provides images of the scale's resolution.
    ///
    /// ```
    /// use convnet::{models::{EfficientNet, Scaling, efficientnet_b0}, nn::Module};
    ///
    /// let half = Scaling { depth: 1.0, width: 0.5, resolution: 1.0 };
    /// assert!(EfficientNet::new(half, 1000).num_parameters() < efficientnet_b0(1000).num_parameters() / 2);
    /// ```
    pub fn new(scaling: Scaling, options: impl Into<ModelOptions>) -> EfficientNet {
        EfficientNet::with_norm(scaling, NormOptions::DEFAULT, options.into())
    }

    fn with_norm(scaling: Scaling, norm: NormOptions, options: ModelOptions) -> EfficientNet {
        let channels = |channels| scaled_channels(channels, scaling.width);
        let depth = |depth: usize| (depth as f64 * scaling.depth).ceil() as usize;
        let total: usize = BASE.iter().map(|stage| depth(stage.depth)).sum();
        let stem = ConvNormActivation::new(options.input_channels, channels(32), 3, 2, Activation::Silu, norm);
        let mut features = Sequential::new().push(stem); // [N, 32, 112, 112]
        let mut position = 0;
        for stage in &BASE {
            let mut blocks = vec![];
            for i in 0..depth(stage.depth) {
                let outputs = channels(stage.outputs);
                let (inputs, stride) = if i == 0 { (channels(stage.inputs), stage.stride) } else { (outputs, 1) };
                blocks.push(MBConv::new(&MBConvOptions {
                    inputs,
                    expanded: scaled_channels(inputs, stage.expansion as f64),
                    outputs,
                    kernel: stage.kernel,
                    stride,
                    activation: Activation::Silu,
                    squeeze: Some(((inputs / 4).max(1), Activation::Silu, Activation::Sigmoid)),
                    norm,
                    stochastic_depth: STOCHASTIC_DEPTH * position as f64 / total as f64,
                }));
                position += 1;
            }
            features = features.push(blocks);
        }
        let (last, hidden) = (channels(320), channels(320).saturating_mul(4));
        features = features.push(ConvNormActivation::new(last, hidden, 1, 1, Activation::Silu, norm)); // [N, 1280, 7, 7]
        let classifier = Sequential::new().push(Dropout::new(options.dropout_or(0.2))).push(Linear::new(hidden, options.num_classes));
        initialise(EfficientNet { features, classifier }, |at| match (at.layer, at.name) {
            ("Conv2d", "weight") => Some(Init::kaiming_fan_out(at.shape)),
            ("Linear", "weight") => Some(Init::Uniform(1.0 / (at.shape[0].max(1) as f64).sqrt())),
            ("Conv2d" | "Linear", "bias") => Some(Init::Constant(0.0)),
            _ => None,
        })
    }
}

impl Module for EfficientNet {
    /// # Shape
    /// `[N, 3, H, W]` to logits `[N, num_classes]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // [N, 3, 224, 224]
        let x = self.features.forward(x)?; //       [N, 1280, 7, 7]
        self.classifier.forward(&x.mean([2, 3])?) // [N, num_classes]
    }

    visit_fields!(features, classifier);
}

macro_rules! variants {
    ($($(#[$doc:meta])* $name:ident, $width:expr, $depth:expr, $resolution:expr, $dropout:expr, $norm:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(options: impl Into<ModelOptions>) -> EfficientNet {
            let options: ModelOptions = options.into();
            let scaling = Scaling { depth: $depth, width: $width, resolution: $resolution / 224.0 };
            EfficientNet::with_norm(scaling, NormOptions::$norm, options.dropout(options.dropout_or($dropout)))
        }
    )*};
}

// Width, depth, resolution and dropout as released; the normalisation is torchvision's.
variants! {
    /// Creates torchvision's EfficientNet-B0, for 224×224 pixels, with its initialisation.
    ///
    /// ```
    /// use convnet::{models::efficientnet_b0, nn::Module};
    ///
    /// assert_eq!(efficientnet_b0(1000).num_parameters(), 5_288_548);
    /// ```
    efficientnet_b0, 1.0, 1.0, 224.0, 0.2, DEFAULT;
    /// Creates EfficientNet-B1, for 240×240 pixels; see [`efficientnet_b0`].
    efficientnet_b1, 1.0, 1.1, 240.0, 0.2, DEFAULT;
    /// Creates EfficientNet-B2, for 260×260 pixels; see [`efficientnet_b0`].
    efficientnet_b2, 1.1, 1.2, 260.0, 0.3, DEFAULT;
    /// Creates EfficientNet-B3, for 300×300 pixels; see [`efficientnet_b0`].
    efficientnet_b3, 1.2, 1.4, 300.0, 0.3, DEFAULT;
    /// Creates EfficientNet-B4, for 380×380 pixels; see [`efficientnet_b0`].
    efficientnet_b4, 1.4, 1.8, 380.0, 0.4, DEFAULT;
    /// Creates EfficientNet-B5, for 456×456 pixels; see [`efficientnet_b0`].
    efficientnet_b5, 1.6, 2.2, 456.0, 0.4, MOBILE;
    /// Creates EfficientNet-B6, for 528×528 pixels; see [`efficientnet_b0`].
    efficientnet_b6, 1.8, 2.6, 528.0, 0.5, MOBILE;
    /// Creates EfficientNet-B7, for 600×600 pixels; see [`efficientnet_b0`].
    efficientnet_b7, 2.0, 3.1, 600.0, 0.5, MOBILE;
}

#[cfg(test)]
mod tests {
    use approx::abs_diff_eq;

    use super::*;

    #[test]
    fn released_networks_up_to_b3_follow_the_rule_with_rounding() {
        let released = [(0.0, 1.0, 1.0, 224.0), (0.5, 1.0, 1.1, 240.0), (1.0, 1.1, 1.2, 260.0), (2.0, 1.2, 1.4, 300.0)];
        for (phi, width, depth, pixels) in released {
            let rule = compound_scaling(phi);
            // Tolerances of half of the last digit; resolutions are rounded to multiples of about
            // 20.
            assert!(abs_diff_eq!(rule.width, width, epsilon = 0.05), "{phi}: {rule:?}");
            assert!(abs_diff_eq!(rule.depth, depth, epsilon = 0.05), "{phi}: {rule:?}");
            assert!(abs_diff_eq!(rule.resolution * 224.0, pixels, epsilon = 4.0), "{phi}: {rule:?}");
        }
        assert!(abs_diff_eq!(ALPHA * BETA.powi(2) * GAMMA.powi(2), 2.0, epsilon = 0.1));
    }

    #[test]
    fn stochastic_depth_makes_training_random_but_not_evaluation() {
        crate::manual_seed(1);
        let net = efficientnet_b0(ModelOptions::new(3).dropout(0.0));
        let x = Tensor::randn([4, 3, 32, 32]);
        let run = || net.forward(&x).unwrap().to_vec::<f32>().unwrap();
        assert_ne!(run(), run());
        net.eval();
        assert_eq!(run(), run());
    }
}
