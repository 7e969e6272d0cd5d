//! SE-ResNet (Hu, Shen & Sun, *Squeeze-and-Excitation Networks*, 2017): residual networks whose
//! blocks scale their channels, as timm builds them, with its names and its initialisation: that of
//! torchvision's ResNet, and each block starts as the identity.

use super::attention::SqueezeExcite;
use super::options::ModelOptions;
use super::resnet::{RESNET18, RESNET34, RESNET50, ResNet, ResNetConfig};

fn with_se(config: &ResNetConfig, options: impl Into<ModelOptions>) -> ResNet {
    let config = ResNetConfig { attention: Some(|channels| Box::new(SqueezeExcite::new(channels))), ..*config };
    ResNet::new(&config, options).zero_init_residual()
}

/// Creates [`resnet18`](super::resnet18) with a [`SqueezeExcite`] in each block.
///
/// ```
/// use convnet::{models::seresnet18, nn::Module};
///
/// assert_eq!(seresnet18(1000).num_parameters(), 11_779_624);
/// ```
pub fn seresnet18(options: impl Into<ModelOptions>) -> ResNet {
    with_se(&RESNET18, options)
}

/// Creates [`resnet34`](super::resnet34) with a [`SqueezeExcite`] in each block.
pub fn seresnet34(options: impl Into<ModelOptions>) -> ResNet {
    with_se(&RESNET34, options)
}

/// Creates [`resnet50`](super::resnet50) with a [`SqueezeExcite`] in each block.
pub fn seresnet50(options: impl Into<ModelOptions>) -> ResNet {
    with_se(&RESNET50, options)
}
