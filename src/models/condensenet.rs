//! CondenseNet (Huang, Liu, van der Maaten & Weinberger, *CondenseNet: An Efficient DenseNet Using
//! Learned Group Convolutions*, 2017).
//!
//! A DenseNet with 1×1 convolutions that learn which of all the earlier maps they need
//! ([`LearnedGroupConv`]), a growth rate that doubles from block to block, and transitions that
//! only pool. After [conversion](CondenseNet::convert) it contains only grouped convolutions. Names
//! and numbers are those of the authors' implementation (github.com/ShichenLiu/CondenseNet).

use super::learned_group::{CondensedConv, GroupConv, LearnedGroupConv};
use super::options::ModelOptions;
use crate::error::Result;
use crate::nn::init::{Init, initialise};
use crate::nn::{Activation, BatchNorm2d, Conv2d, Linear, Module, Visitor, block, bn_act};
use crate::ops::Pool2dOptions;
use crate::tensor::Tensor;
use crate::visit_fields;

/// The parameters that distinguish the networks of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CondenseNetConfig {
    /// The number of layers and the growth rate of each block.
    pub blocks: &'static [(usize, usize)],
    /// The width of a layer's 1×1 convolution, in growth rates.
    pub bottleneck: usize,
    /// The number of groups of both convolutions, the paper's G.
    pub groups: usize,
    /// Each group finally keeps 1 / `condense_factor` of its inputs; the paper's C.
    pub condense_factor: usize,
    /// The stride of the first convolution.
    pub stride: usize,
}

/// The configuration of [`condensenet`], for ImageNet, with C = G = 4.
pub const CONDENSENET: CondenseNetConfig =
    CondenseNetConfig { blocks: &[(4, 8), (6, 16), (8, 32), (10, 64), (8, 128)], bottleneck: 4, groups: 4, condense_factor: 4, stride: 2 };
/// The configuration for ImageNet with C = G = 8.
pub const CONDENSENET_8: CondenseNetConfig = CondenseNetConfig { groups: 8, condense_factor: 8, ..CONDENSENET };
/// The configuration of the 86-layer network for CIFAR's 32×32 images, with C = G = 4.
pub const CONDENSENET_CIFAR: CondenseNetConfig =
    CondenseNetConfig { blocks: &[(14, 8), (14, 16), (14, 32)], bottleneck: 4, groups: 4, condense_factor: 4, stride: 1 };

/// Creates the 74-layer network for ImageNet with C = G = 4, in its trainable form. See
/// [`CondenseNet`].
pub fn condensenet(options: impl Into<ModelOptions>) -> CondenseNet {
    CondenseNet::new(&CONDENSENET, options)
}

/// Normalisation, ReLU, and a convolution without bias.
pub struct NormConv {
    /// Before `conv`.
    pub norm: BatchNorm2d,
    /// The convolution.
    pub conv: Conv2d,
}

impl Module for NormConv {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || self.conv.forward(&bn_act(&self.norm, x, Activation::Relu)?))
    }

    visit_fields!(norm, conv);
}

/// A learned group convolution, 1×1, and a grouped 3×3 convolution; the new maps are appended to
/// the input's.
///
/// # Shape
/// `[N, inputs, H, W]` to `[N, inputs + growth, H, W]`.
pub struct CondenseLayer {
    /// 1×1, inputs→bottleneck·growth.
    pub conv_1: GroupConv,
    /// 3×3, bottleneck·growth→growth.
    pub conv_2: NormConv,
}

impl Module for CondenseLayer {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || Tensor::cat(&[x, &self.conv_2.forward(&self.conv_1.forward(x)?)?], 1))
    }

    visit_fields!(conv_1, conv_2);
}

/// A sequence of layers; the input of each contains the maps of all layers before it. Named
/// `denselayer_1`, ….
pub struct CondenseBlock {
    /// The layers, in order.
    pub layers: Vec<CondenseLayer>,
}

impl Module for CondenseBlock {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || self.layers.forward(x))
    }

    visit_fields!(each layers => |i| format!("denselayer_{}", i + 1));
}

/// All layers of a CondenseNet except the classifier.
///
/// # Shape
/// `[N, 3, H, W]` to `[N, C, H / 32, W / 32]`, for CIFAR `[N, C, H / 4, W / 4]`.
pub struct CondenseFeatures {
    /// 3×3.
    pub init_conv: Conv2d,
    /// Named `denseblock_1`, …, with 2×2 average pooling between two blocks.
    pub blocks: Vec<CondenseBlock>,
    /// After the last block.
    pub norm_last: BatchNorm2d,
}

impl Module for CondenseFeatures {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // [N, 3, 224, 224]
        block(self, || {
            let mut x = self.init_conv.forward(x)?; // [N, 16, 112, 112]
            for (i, block) in self.blocks.iter().enumerate() {
                if i > 0 {
                    x = x.avg_pool2d(2, Pool2dOptions::new())?;
                }
                // [N, 48, 112, 112], [N, 144, 56, 56], [N, 400, 28, 28], [N, 1040, 14, 14], [N,
                // 2064, 7, 7]
                x = block.forward(&x)?;
            }
            bn_act(&self.norm_last, &x, Activation::Relu)
        })
    }

    visit_fields!(init_conv, each blocks => |i| format!("denseblock_{}", i + 1), norm_last);
}

/// A CondenseNet, with the authors' initialisation: normal by fan-out for convolutions, PyTorch's
/// for the classifier, whose bias starts at 0.
///
/// The training loop calls [`set_progress`](CondenseNet::set_progress) before each batch or epoch,
/// and adds the group-lasso penalty to the loss. The first half of the training condenses, the
/// second tunes the remaining weights; then [`convert`](CondenseNet::convert) builds the network
/// for inference:
///
/// ```
/// use convnet::models::{CONDENSENET_CIFAR, CondenseNet};
/// use convnet::optim::{Optimizer, Sgd};
/// use convnet::{Tensor, nn::Module};
///
/// let mut model = CondenseNet::new(&CONDENSENET_CIFAR, 10);
/// let (images, labels) = (Tensor::randn([2, 3, 8, 8]), Tensor::from_vec(vec![3i64, 8], [2])?);
/// let mut optimizer = Sgd::new(model.parameters(), 0.1).momentum(0.9).weight_decay(1e-4);
/// for step in 0..2 {
///     model.set_progress(step as f64 / 2.0)?;
///     let loss = model.forward(&images)?.cross_entropy(&labels)?;
///     let loss = loss.add(&model.group_lasso()?.mul_scalar(1e-5))?;
///     optimizer.step(&loss.backward()?)?;
/// }
/// let before = model.num_parameters();
/// model.convert()?;
/// assert!(model.num_parameters() * 5 < before * 3);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// [`ModelOptions`] sets the probability of dropout before the 1×1 convolutions; by default there
/// is none. The authors' tool also reduces the classifier to half of its inputs, which changes the
/// logits; this one does not.
pub struct CondenseNet {
    /// Blocks and pooling.
    pub features: CondenseFeatures,
    /// The classifier.
    pub classifier: Box<dyn Module>,
}

impl CondenseNet {
    /// Creates the network of a configuration in its trainable form: one of the constants, or a
    /// custom one.
    pub fn new(config: &CondenseNetConfig, options: impl Into<ModelOptions>) -> CondenseNet {
        let (options, config) = (options.into(), *config);
        CondenseNet::build(&config, options, |inputs, outputs| {
            let conv = LearnedGroupConv::new(inputs, outputs, config.groups, config.condense_factor);
            GroupConv::Learned(conv.dropout(options.dropout_or(0.0)))
        })
    }

    /// Creates the network in the form that [`convert`](CondenseNet::convert) produces, to load
    /// weights saved after conversion.
    pub fn condensed(config: &CondenseNetConfig, options: impl Into<ModelOptions>) -> CondenseNet {
        CondenseNet::build(config, options.into(), |inputs, outputs| {
            GroupConv::Condensed(CondensedConv::new(inputs, outputs, config.groups, config.condense_factor))
        })
    }

    fn build(config: &CondenseNetConfig, options: ModelOptions, conv_1: impl Fn(usize, usize) -> GroupConv) -> CondenseNet {
        let stem = 2 * config.blocks.first().map_or(8, |&(_, growth)| growth);
        let mut channels = stem;
        let mut layer = |growth: usize| {
            let width = growth.saturating_mul(config.bottleneck);
            let conv = Conv2d::new(width, growth, 3).padding(1).groups(config.groups).bias(false);
            let layer = CondenseLayer { conv_1: conv_1(channels, width), conv_2: NormConv { norm: BatchNorm2d::new(width), conv } };
            channels = channels.saturating_add(growth);
            layer
        };
        let mut block = |&(layers, growth): &(usize, usize)| CondenseBlock { layers: (0..layers).map(|_| layer(growth)).collect() };
        let blocks = config.blocks.iter().map(&mut block).collect();
        let features = CondenseFeatures {
            init_conv: Conv2d::new(options.input_channels, stem, 3).stride(config.stride).padding(1).bias(false),
            blocks,
            norm_last: BatchNorm2d::new(channels),
        };
        let net = CondenseNet { features, classifier: Box::new(Linear::new(channels, options.num_classes)) };
        initialise(net, |at| match (at.layer, at.name) {
            ("Conv2d", "weight") => Some(Init::kaiming_fan_out(at.shape)),
            ("Linear", "bias") => Some(Init::Constant(0.0)),
            _ => None,
        })
    }

    /// Returns the convolutions that are still learning which inputs they use.
    pub fn learned_convs(&self) -> impl Iterator<Item = &LearnedGroupConv> {
        self.features.blocks.iter().flat_map(|block| &block.layers).filter_map(|layer| layer.conv_1.learned())
    }

    /// Sets the fraction of the training that is done, from 0 to 1, and advances the learned group
    /// convolutions to the corresponding stage of condensation. See
    /// [`LearnedGroupConv::set_progress`].
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when `progress` is not between 0 and 1.
    pub fn set_progress(&self, progress: f64) -> Result<()> {
        self.learned_convs().try_for_each(|conv| conv.set_progress(progress))
    }

    /// Computes the sum of the group-lasso penalties of all learned group convolutions:
    /// [`LearnedGroupConv::lasso`].
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when groups or condensation factor do not divide
    /// the channels.
    pub fn group_lasso(&self) -> Result<Tensor> {
        let zero = Tensor::full([], 0.0, self.features.init_conv.weight.dtype());
        self.learned_convs().try_fold(zero, |sum, conv| sum.add(&conv.lasso()?))
    }

    /// Replaces all learned group convolutions by the equivalent grouped convolutions: the same
    /// logits, up to rounding, with a fraction of the weights and of the computation.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) before the last stage of condensation; then
    /// nothing is changed.
    pub fn convert(&mut self) -> Result<()> {
        let condensed: Vec<CondensedConv> = self.learned_convs().map(LearnedGroupConv::condensed).collect::<Result<_>>()?;
        let learned = self.features.blocks.iter_mut().flat_map(|block| &mut block.layers).filter(|layer| layer.conv_1.learned().is_some());
        for (layer, condensed) in learned.zip(condensed) {
            layer.conv_1 = GroupConv::Condensed(condensed);
        }
        // Sets the paths of the new layers.
        Visitor::walk(self, &mut |_, _| ());
        Ok(())
    }
}

impl Module for CondenseNet {
    /// # Shape
    /// `[N, 3, H, W]` to logits `[N, num_classes]`; images of at least 32×32, 224×224 in the paper
    /// (CIFAR: 4×4 and 32×32).
    ///
    /// # Errors
    /// [`Error::Layer`](crate::Error::Layer) from the layer that cannot accept its input,
    /// [`Error::Argument`](crate::Error::Argument) when groups or condensation factor do not divide
    /// the channels.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.features.forward(x)?; // [N, 2064, 7, 7]
        let x = x.mean([2, 3])?; //           [N, 2064]
        self.classifier.forward(&x) //        [N, num_classes]
    }

    visit_fields!(features, classifier);
}

#[cfg(test)]
mod tests {
    use approx::abs_diff_eq;

    use super::*;
    use crate::nn::ModuleExt;

    #[test]
    fn condensed_networks_have_the_sizes_of_the_paper() {
        // The paper's table: 4.8 and 2.9 million parameters, 529 and 274 million operations. Its
        // classifier has half of the inputs, and its operations include 11.0 million for the
        // elements of ReLUs and 1.7 million for those of poolings.
        for (config, parameters, work) in [(&CONDENSENET, 4.8, 529.0), (&CONDENSENET_8, 2.9, 274.0)] {
            let net = CondenseNet::condensed(config, 1000);
            let half = 1032 * 1000;
            let found = (net.num_parameters() - half) as f64 / 1e6;
            assert!(abs_diff_eq!(found, parameters, epsilon = 0.05), "{found} million parameters, in the paper {parameters}");
            let found = (net.summary([1, 3, 224, 224]).unwrap().multiply_adds - half as u64) as f64 / 1e6;
            assert!(abs_diff_eq!(found + 12.7, work, epsilon = 0.5), "{found} million multiply-adds, in the paper {work}");
        }
        let cifar = CondenseNet::condensed(&CONDENSENET_CIFAR, 10).num_parameters();
        assert!(abs_diff_eq!(cifar as f64 / 1e6, 0.52, epsilon = 0.01), "{cifar}");
    }

    #[test]
    fn network_is_converted_completely_after_its_last_stage_or_not_at_all() {
        let config = CondenseNetConfig { blocks: &[(2, 8), (1, 16)], stride: 1, ..CONDENSENET };
        let mut net = CondenseNet::new(&config, 5);
        let keys = |net: &CondenseNet| net.state_dict().keys().map(String::from).collect::<Vec<_>>();
        let before = keys(&net);
        net.set_progress(0.4).unwrap();
        let error = net.convert().unwrap_err().to_string();
        assert!(error.contains("in the last stage of condensation it would 4"), "{error}");
        assert_eq!(keys(&net), before);
        net.set_progress(0.5).unwrap();
        net.convert().unwrap();
        assert_eq!(keys(&net), keys(&CondenseNet::condensed(&config, 5)));
        assert_eq!(net.learned_convs().count(), 0);
        // After conversion there is nothing to learn or to convert.
        assert_eq!(net.group_lasso().unwrap().item::<f32>().unwrap(), 0.0);
        net.convert().unwrap();
        let error = net.forward(&Tensor::zeros([1, 4, 8, 8])).unwrap_err().to_string();
        assert!(error.starts_with("features.init_conv"), "{error}");
    }
}
