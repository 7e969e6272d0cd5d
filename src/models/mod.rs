//! Architectures, one file for each paper, and a registry that builds classifiers of pictures by
//! name. Beside the registry are networks for other data: [`text_cnn`] for sentences,
//! [`signal_fcn`] for series, [`unet`], which classifies each pixel, [`dcgan_generator`] and
//! [`dcgan_discriminator`], which learn to make pictures.
//!
//! ```
//! use convnet::{models, nn::Module};
//!
//! let by_function = models::lenet5(10);
//! let by_name = models::create("lenet5", 10)?;
//! assert_eq!(by_function.num_parameters(), by_name.num_parameters());
//! # Ok::<(), convnet::Error>(())
//! ```

mod alexnet;
mod attention;
mod cifar_resnet;
mod condensenet;
mod dcgan;
mod densenet;
mod efficientnet;
mod googlenet;
mod head;
mod learned_group;
mod lenet;
mod lenet_history;
mod lenet_layers;
mod mbconv;
mod mobilenet;
mod nin;
mod options;
mod preprocessing;
mod published;
#[cfg(test)]
mod receptive_fields;
mod resnet;
mod seresnet;
mod signal_fcn;
mod text_cnn;
mod unet;
mod vgg;
mod xception;

pub use alexnet::{AlexNet, alexnet, alexnet_lrn};
pub use attention::{Cbam, ChannelAttention, SpatialAttention, SqueezeExcite};
pub use cifar_resnet::{CifarBlock, CifarResNet, cifar_resnet20, cifar_resnet32, cifar_resnet44, cifar_resnet56, cifar_resnet110};
pub use condensenet::{
    CONDENSENET, CONDENSENET_8, CONDENSENET_CIFAR, CondenseBlock, CondenseFeatures, CondenseLayer, CondenseNet, CondenseNetConfig,
    NormConv, condensenet,
};
pub use dcgan::{DcganDiscriminator, DcganGenerator, DcganOptions, dcgan_discriminator, dcgan_generator};
pub use densenet::{
    DENSENET121, DENSENET161, DENSENET169, DENSENET201, DenseBlock, DenseFeatures, DenseLayer, DenseNet, DenseNetConfig, Transition,
    densenet121, densenet161, densenet169, densenet201,
};
pub use efficientnet::{
    EfficientNet, Scaling, compound_scaling, efficientnet_b0, efficientnet_b1, efficientnet_b2, efficientnet_b3, efficientnet_b4,
    efficientnet_b5, efficientnet_b6, efficientnet_b7,
};
pub use googlenet::{BasicConv2d, GoogLeNet, GoogLeNetOutput, Inception, InceptionAux, InceptionWidths, PoolProjection, googlenet};
pub use head::replace_head;
pub use learned_group::{CondensedConv, GroupConv, LearnedGroupConv};
pub use lenet::{LeNet5, lenet5};
pub use lenet_history::{LeNet1989, LeNet1998, lenet_1989, lenet5_1998};
pub use lenet_layers::{RbfOutput, Subsampling, TableConv2d};
pub use mbconv::{ConvNormActivation, MBConv, MBConvOptions, NormOptions, scaled_channels};
pub use mobilenet::{
    DepthwiseSeparable, InvertedResidual, MobileNetV1, MobileNetV2, MobileNetV3, mobilenet_v1, mobilenet_v2, mobilenet_v3_large,
    mobilenet_v3_small,
};
pub use nin::{MlpConv, Nin, nin, nin_maxout};
pub use options::ModelOptions;
pub use preprocessing::preprocessing;
#[cfg(feature = "download")]
pub use published::pretrained;
pub use published::{PublishedWeights, published};
pub use resnet::{
    Attention, BasicBlock, Bottleneck, Projection, RESNET18, RESNET34, RESNET50, RESNET101, RESNET152, RESNEXT50_32X4D, ResNet,
    ResNetBlock, ResNetConfig, WIDE_RESNET50_2, resnet18, resnet34, resnet50, resnet101, resnet152, resnext50_32x4d, wide_resnet50_2,
};
pub use seresnet::{seresnet18, seresnet34, seresnet50};
pub use signal_fcn::{SignalFcn, signal_fcn};
pub use text_cnn::{TextCnn, TextCnnOptions, text_cnn};
pub use unet::{DoubleConv, Down, UNet, UNetOptions, Up, unet};
pub use vgg::{Vgg, VggFeatures, vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg19, vgg19_bn};
pub use xception::{SeparableConv2d, Xception, XceptionBlock, xception};

use crate::error::{Error, Result};
use crate::nn::{Module, ModuleExt};

/// A registered architecture.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ModelInfo {
    /// Its name for [`create`].
    pub name: &'static str,
    /// The shape of one input, `[C, H, W]`.
    pub input: [usize; 3],
    /// The number of classes in the paper's data set.
    pub classes: usize,
    /// The paper that first described it.
    pub paper: &'static str,
    build: fn(usize) -> Box<dyn Module>,
}

/// Returns a row of the registry, for square images with three channels.
const fn row(name: &'static str, size: usize, paper: &'static str, build: fn(usize) -> Box<dyn Module>) -> ModelInfo {
    let classes = if size == 32 { 10 } else { 1000 };
    ModelInfo { name, input: [3, size, size], classes, paper, build }
}

impl ModelInfo {
    /// Returns the number of parameters with this number of [classes](ModelInfo::classes). It is
    /// counted in each call, without drawing weights.
    pub fn parameters(&self) -> usize {
        (self.build)(self.classes).num_parameters()
    }

    /// Returns the number of multiplications, each with its addition, for one
    /// [input](ModelInfo::input), as counted by [`summary`](ModuleExt::summary). Takes
    /// milliseconds, as no values are computed.
    ///
    /// # Errors
    /// None for a registered architecture; returns a `Result` because a summary does.
    ///
    /// ```
    /// let resnet50 = convnet::models::info("resnet50")?;
    /// assert_eq!((resnet50.parameters(), resnet50.multiply_adds()?), (25_557_032, 4_089_184_256));
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn multiply_adds(&self) -> Result<u64> {
        let [channels, height, width] = self.input;
        Ok((self.build)(self.classes).summary([1, channels, height, width])?.multiply_adds)
    }
}

const LENET5: &str = "LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition";
const VGG: &str = "Simonyan & Zisserman 2014, Very Deep Convolutional Networks for Large-Scale Image Recognition";
const NIN: &str = "Lin et al. 2013, Network in Network";
const MOBILENET_V3: &str = "Howard et al. 2019, Searching for MobileNetV3";
const EFFICIENTNET: &str = "Tan & Le 2019, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks";
const RESNET: &str = "He et al. 2015, Deep Residual Learning for Image Recognition";
const SENET: &str = "Hu et al. 2017, Squeeze-and-Excitation Networks";
const DENSENET: &str = "Huang et al. 2016, Densely Connected Convolutional Networks";

const MODELS: &[ModelInfo] = &[
    ModelInfo { name: "lenet5", input: [1, 28, 28], classes: 10, paper: LENET5, build: |classes| Box::new(lenet5(classes)) },
    ModelInfo {
        name: "lenet_1989",
        input: [1, 16, 16],
        classes: 10,
        paper: "LeCun et al. 1989, Backpropagation Applied to Handwritten Zip Code Recognition",
        build: |classes| Box::new(lenet_1989(classes)),
    },
    ModelInfo { name: "lenet5_1998", input: [1, 28, 28], classes: 10, paper: LENET5, build: |classes| Box::new(lenet5_1998(classes)) },
    row("alexnet", 224, "Krizhevsky 2014, One Weird Trick for Parallelizing Convolutional Neural Networks", |n| Box::new(alexnet(n))),
    row("alexnet_lrn", 224, "Krizhevsky et al. 2012, ImageNet Classification with Deep Convolutional Neural Networks", |n| {
        Box::new(alexnet_lrn(n))
    }),
    row("vgg11", 224, VGG, |n| Box::new(vgg11(n))),
    row("vgg13", 224, VGG, |n| Box::new(vgg13(n))),
    row("vgg16", 224, VGG, |n| Box::new(vgg16(n))),
    row("vgg19", 224, VGG, |n| Box::new(vgg19(n))),
    row("vgg11_bn", 224, VGG, |n| Box::new(vgg11_bn(n))),
    row("vgg13_bn", 224, VGG, |n| Box::new(vgg13_bn(n))),
    row("vgg16_bn", 224, VGG, |n| Box::new(vgg16_bn(n))),
    row("vgg19_bn", 224, VGG, |n| Box::new(vgg19_bn(n))),
    row("nin", 224, NIN, |n| Box::new(nin(n))),
    row("nin_maxout", 224, NIN, |n| Box::new(nin_maxout(n))),
    row("googlenet", 224, "Szegedy et al. 2014, Going Deeper with Convolutions", |n| Box::new(googlenet(n))),
    row(
        "mobilenet_v1",
        224,
        "Howard et al. 2017, MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
        |n| Box::new(mobilenet_v1(n)),
    ),
    row("mobilenet_v2", 224, "Sandler et al. 2018, MobileNetV2: Inverted Residuals and Linear Bottlenecks", |n| Box::new(mobilenet_v2(n))),
    row("mobilenet_v3_small", 224, MOBILENET_V3, |n| Box::new(mobilenet_v3_small(n))),
    row("mobilenet_v3_large", 224, MOBILENET_V3, |n| Box::new(mobilenet_v3_large(n))),
    row("xception", 299, "Chollet 2016, Xception: Deep Learning with Depthwise Separable Convolutions", |n| Box::new(xception(n))),
    row("efficientnet_b0", 224, EFFICIENTNET, |n| Box::new(efficientnet_b0(n))),
    row("efficientnet_b1", 240, EFFICIENTNET, |n| Box::new(efficientnet_b1(n))),
    row("efficientnet_b2", 260, EFFICIENTNET, |n| Box::new(efficientnet_b2(n))),
    row("efficientnet_b3", 300, EFFICIENTNET, |n| Box::new(efficientnet_b3(n))),
    row("efficientnet_b4", 380, EFFICIENTNET, |n| Box::new(efficientnet_b4(n))),
    row("efficientnet_b5", 456, EFFICIENTNET, |n| Box::new(efficientnet_b5(n))),
    row("efficientnet_b6", 528, EFFICIENTNET, |n| Box::new(efficientnet_b6(n))),
    row("efficientnet_b7", 600, EFFICIENTNET, |n| Box::new(efficientnet_b7(n))),
    row("resnet18", 224, RESNET, |n| Box::new(resnet18(n))),
    row("resnet34", 224, RESNET, |n| Box::new(resnet34(n))),
    row("resnet50", 224, RESNET, |n| Box::new(resnet50(n))),
    row("resnet101", 224, RESNET, |n| Box::new(resnet101(n))),
    row("resnet152", 224, RESNET, |n| Box::new(resnet152(n))),
    row("resnext50_32x4d", 224, "Xie et al. 2016, Aggregated Residual Transformations for Deep Neural Networks", |n| {
        Box::new(resnext50_32x4d(n))
    }),
    row("wide_resnet50_2", 224, "Zagoruyko & Komodakis 2016, Wide Residual Networks", |n| Box::new(wide_resnet50_2(n))),
    row("cifar_resnet20", 32, RESNET, |n| Box::new(cifar_resnet20(n))),
    row("cifar_resnet32", 32, RESNET, |n| Box::new(cifar_resnet32(n))),
    row("cifar_resnet44", 32, RESNET, |n| Box::new(cifar_resnet44(n))),
    row("cifar_resnet56", 32, RESNET, |n| Box::new(cifar_resnet56(n))),
    row("cifar_resnet110", 32, RESNET, |n| Box::new(cifar_resnet110(n))),
    row("seresnet18", 224, SENET, |n| Box::new(seresnet18(n))),
    row("seresnet34", 224, SENET, |n| Box::new(seresnet34(n))),
    row("seresnet50", 224, SENET, |n| Box::new(seresnet50(n))),
    row("densenet121", 224, DENSENET, |n| Box::new(densenet121(n))),
    row("densenet161", 224, DENSENET, |n| Box::new(densenet161(n))),
    row("densenet169", 224, DENSENET, |n| Box::new(densenet169(n))),
    row("densenet201", 224, DENSENET, |n| Box::new(densenet201(n))),
    row("condensenet", 224, "Huang et al. 2017, CondenseNet: An Efficient DenseNet Using Learned Group Convolutions", |n| {
        Box::new(condensenet(n))
    }),
];

/// Returns every registered architecture.
pub fn all() -> &'static [ModelInfo] {
    MODELS
}

/// Returns the names of all registered architectures.
pub fn names() -> impl ExactSizeIterator<Item = &'static str> {
    MODELS.iter().map(|model| model.name)
}

/// Returns the registry's row for an architecture, without building it.
///
/// # Errors
/// [`Error::Argument`] when the name is unknown; the message lists the known ones.
pub fn info(name: &str) -> Result<&'static ModelInfo> {
    MODELS.iter().find(|model| model.name == name).ok_or_else(|| {
        let known = names().collect::<Vec<_>>().join(", ");
        Error::argument("models", format!("no architecture is called {name:?}; there are: {known}"))
    })
}

/// Builds an architecture by its name, with new weights.
///
/// # Errors
/// [`Error::Argument`] when the name is unknown (the message lists the known ones), or for zero
/// classes.
pub fn create(name: &str, num_classes: usize) -> Result<Box<dyn Module>> {
    let model = info(name)?;
    if num_classes == 0 {
        return Err(Error::argument("models", format!("{name} needs at least one class, got 0")));
    }
    Ok((model.build)(num_classes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::tensor::Tensor;

    #[test]
    fn names_are_unique() {
        assert_eq!(names().collect::<BTreeSet<_>>().len(), names().len());
    }

    #[test]
    fn lenet5_has_the_layers_of_the_paper() {
        let shapes: Vec<_> = lenet5(10).named_parameters().into_iter().map(|(name, p)| (name, p.shape().to_vec())).collect();
        let expected: [(&str, &[usize]); 10] = [
            ("conv1.weight", &[6, 1, 5, 5]),
            ("conv1.bias", &[6]),
            ("conv2.weight", &[16, 6, 5, 5]),
            ("conv2.bias", &[16]),
            ("fc1.weight", &[120, 400]),
            ("fc1.bias", &[120]),
            ("fc2.weight", &[84, 120]),
            ("fc2.bias", &[84]),
            ("fc3.weight", &[10, 84]),
            ("fc3.bias", &[10]),
        ];
        assert_eq!(shapes.len(), expected.len());
        for ((name, shape), (expected_name, expected_shape)) in shapes.iter().zip(expected) {
            assert_eq!((name.as_str(), shape.as_slice()), (expected_name, expected_shape));
        }
    }

    #[test]
    fn sizes_match_the_literature() {
        for (name, parameters) in [
            ("lenet5", 61_706),
            ("lenet_1989", 9_760),
            ("lenet5_1998", 60_000),
            ("alexnet", 61_100_840),
            ("vgg16", 138_357_544),
            ("resnet50", 25_557_032),
            ("densenet121", 7_978_856),
            ("mobilenet_v2", 3_504_872),
            ("efficientnet_b0", 5_288_548),
            ("cifar_resnet20", 269_722),
        ] {
            assert_eq!(info(name).unwrap().parameters(), parameters, "{name}");
        }
        // In millions, as in torchvision's documentation (GFLOPS there are multiply-adds), and to
        // its precision; b7 is its largest model.
        for (name, expected) in [
            ("alexnet", 710),
            ("vgg16", 15_470),
            ("googlenet", 1_500),
            ("resnet18", 1_810),
            ("resnet152", 11_510),
            ("densenet161", 7_730),
            ("mobilenet_v2", 300),
            ("mobilenet_v3_large", 220),
            ("efficientnet_b0", 390),
            ("efficientnet_b7", 37_750),
        ] {
            let found = info(name).unwrap().multiply_adds().unwrap() as f64 / 1e6;
            assert!(approx::relative_eq!(found, f64::from(expected), epsilon = 8.0, max_relative = 2e-3), "{name}: {found}");
        }
        assert!(all().iter().all(|model| model.parameters() > 0 && model.multiply_adds().unwrap() > 0));
    }

    #[test]
    fn error_for_an_unknown_name_lists_the_known_ones() {
        let error = create("lenet7", 10).err().unwrap().to_string();
        assert!(error.contains("lenet7") && error.contains("lenet5"), "{error}");
        let error = create("lenet5", 0).err().unwrap().to_string();
        assert!(error.contains("at least one class"), "{error}");
    }

    #[test]
    fn wrong_input_is_refused_by_the_layer_it_reaches() {
        let error = lenet5(10).forward(&Tensor::zeros([1, 3, 28, 28])).unwrap_err().to_string();
        assert!(error.contains("Conv2d") && error.contains("[1, 3, 28, 28]"), "{error}");
        let error = lenet5(10).forward(&Tensor::zeros([1, 1, 20, 20])).unwrap_err().to_string();
        assert!(error.contains("400"), "{error}");
    }
}
