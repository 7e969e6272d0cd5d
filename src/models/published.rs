//! Addresses of the weights that torchvision publishes for its models.

use super::info;
use crate::error::{Error, Result};
#[cfg(feature = "download")]
use crate::nn::{Module, ModuleExt};
#[cfg(feature = "download")]
use crate::weights;

/// Weights that a library publishes for a registered architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishedWeights {
    /// The architecture, as in [`create`](super::create).
    pub name: &'static str,
    /// The address of the file.
    pub url: &'static str,
    /// The first eight digits of the file's sha256, with which the file's name ends.
    pub sha256: &'static str,
}

/// Returns the address of torchvision's weights for an architecture: the first ones
/// (`IMAGENET1K_V1`), trained on ImageNet's 1,000 classes, for which
/// [`preprocessing`](super::preprocessing) prepares images. `weights::download` (feature
/// `download`) downloads them, and `pretrained` builds the network with them.
///
/// ```
/// let published = convnet::models::published("resnet18")?;
/// assert_eq!(published.url, "https://download.pytorch.org/models/resnet18-f37072fd.pth");
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// [`Error::Argument`] when no architecture has this name, or torchvision has no weights for it.
pub fn published(name: &str) -> Result<&'static PublishedWeights> {
    let name = info(name)?.name;
    PUBLISHED.iter().find(|weights| weights.name == name).ok_or_else(|| {
        let known = PUBLISHED.iter().map(|weights| weights.name).collect::<Vec<_>>().join(", ");
        Error::argument("models", format!("torchvision publishes no weights of {name}; it has those of: {known}"))
    })
}

/// Builds an architecture with torchvision's [`published`] weights, which are fetched into
/// [`weights::cache_folder`](crate::weights::cache_folder) unless they are there already. It has
/// ImageNet's 1,000 classes; as every new network, it is in training mode.
///
/// ```no_run
/// use convnet::{models, nn::ModuleExt};
///
/// let model = models::pretrained("resnet18")?;
/// model.eval();
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Those of [`published`], [`weights::download`](crate::weights::download) and
/// [`weights::load`](crate::weights::load).
#[cfg(feature = "download")]
pub fn pretrained(name: &str) -> Result<Box<dyn Module>> {
    let published = published(name)?;
    let state = weights::load(weights::download(published.url, published.sha256)?)?;
    let model = super::create(published.name, 1000)?;
    model.load_state_dict(&state)?;
    Ok(model)
}

/// Returns a row of the table; the address ends with a dash, eight digits and `.pth`.
const fn row(name: &'static str, url: &'static str) -> PublishedWeights {
    let (start, _) = url.split_at(url.len() - ".pth".len());
    let (_, sha256) = start.split_at(start.len() - 8);
    PublishedWeights { name, url, sha256 }
}

// From `torchvision.models.get_model_weights`, torchvision 0.29.
#[rustfmt::skip]
static PUBLISHED: &[PublishedWeights] = &[
    row("alexnet", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"),
    row("vgg11", "https://download.pytorch.org/models/vgg11-8a719046.pth"),
    row("vgg13", "https://download.pytorch.org/models/vgg13-19584684.pth"),
    row("vgg16", "https://download.pytorch.org/models/vgg16-397923af.pth"),
    row("vgg19", "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"),
    row("vgg11_bn", "https://download.pytorch.org/models/vgg11_bn-6002323d.pth"),
    row("vgg13_bn", "https://download.pytorch.org/models/vgg13_bn-abd245e5.pth"),
    row("vgg16_bn", "https://download.pytorch.org/models/vgg16_bn-6c64b313.pth"),
    row("vgg19_bn", "https://download.pytorch.org/models/vgg19_bn-c79401a0.pth"),
    row("googlenet", "https://download.pytorch.org/models/googlenet-1378be20.pth"),
    row("mobilenet_v2", "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"),
    row("mobilenet_v3_small", "https://download.pytorch.org/models/mobilenet_v3_small-047dcff4.pth"),
    row("mobilenet_v3_large", "https://download.pytorch.org/models/mobilenet_v3_large-8738ca79.pth"),
    row("efficientnet_b0", "https://download.pytorch.org/models/efficientnet_b0_rwightman-7f5810bc.pth"),
    row("efficientnet_b1", "https://download.pytorch.org/models/efficientnet_b1_rwightman-bac287d4.pth"),
    row("efficientnet_b2", "https://download.pytorch.org/models/efficientnet_b2_rwightman-c35c1473.pth"),
    row("efficientnet_b3", "https://download.pytorch.org/models/efficientnet_b3_rwightman-b3899882.pth"),
    row("efficientnet_b4", "https://download.pytorch.org/models/efficientnet_b4_rwightman-23ab8bcd.pth"),
    row("efficientnet_b5", "https://download.pytorch.org/models/efficientnet_b5_lukemelas-1a07897c.pth"),
    row("efficientnet_b6", "https://download.pytorch.org/models/efficientnet_b6_lukemelas-24a108a5.pth"),
    row("efficientnet_b7", "https://download.pytorch.org/models/efficientnet_b7_lukemelas-c5b4e57e.pth"),
    row("resnet18", "https://download.pytorch.org/models/resnet18-f37072fd.pth"),
    row("resnet34", "https://download.pytorch.org/models/resnet34-b627a593.pth"),
    row("resnet50", "https://download.pytorch.org/models/resnet50-0676ba61.pth"),
    row("resnet101", "https://download.pytorch.org/models/resnet101-63fe2227.pth"),
    row("resnet152", "https://download.pytorch.org/models/resnet152-394f9c45.pth"),
    row("resnext50_32x4d", "https://download.pytorch.org/models/resnext50_32x4d-7cdf4587.pth"),
    row("wide_resnet50_2", "https://download.pytorch.org/models/wide_resnet50_2-95faca4d.pth"),
    row("densenet121", "https://download.pytorch.org/models/densenet121-a639ec97.pth"),
    row("densenet161", "https://download.pytorch.org/models/densenet161-8d451a50.pth"),
    row("densenet169", "https://download.pytorch.org/models/densenet169-b2777c0a.pth"),
    row("densenet201", "https://download.pytorch.org/models/densenet201-c1103571.pth"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_names_a_registered_model_and_ends_with_its_checksum() {
        for weights in PUBLISHED {
            assert_eq!(published(weights.name).unwrap(), weights);
            assert!(weights.url.ends_with(&format!("-{}.pth", weights.sha256)), "{weights:?}");
            assert!(weights.sha256.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')), "{weights:?}");
        }
        assert_eq!(PUBLISHED.iter().map(|weights| weights.name).collect::<BTreeSet<_>>().len(), PUBLISHED.len());
        assert_eq!(published("resnet18").unwrap().sha256, "f37072fd");
    }

    #[test]
    fn missing_weights_are_an_error_that_lists_the_available_ones() {
        let error = published("lenet5").unwrap_err().to_string();
        assert!(error.contains("no weights of lenet5") && error.contains("resnet18"), "{error}");
        assert!(published("nonsense").is_err());
    }
}
