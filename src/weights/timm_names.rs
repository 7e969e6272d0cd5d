//! Other libraries' names for the same networks.
//!
//! timm builds EfficientNet and the MobileNets from numbered stages of blocks with named layers;
//! torchvision numbers all of them. The tables below give torchvision's name of each layer, by the
//! kind of block. timm's DenseNet has torchvision's names already.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result, short};
use crate::kernels::runtime::arrays::sort_by;
use crate::nn::StateDict;

/// timm's VGG: convolutions where torchvision has linear layers.
const VGG: &[(&str, &str)] = &[("pre_logits.fc1", "classifier.0"), ("pre_logits.fc2", "classifier.3"), ("head.fc", "classifier.6")];

/// The torchvision names of timm's layers in a block, where a layer is a convolution and its
/// normalisation.
type Block = &'static [(&'static str, &'static str)];

const SEPARABLE: Block = &[("conv_dw", "0.0"), ("bn1", "0.1"), ("conv_pw", "1.0"), ("bn2", "1.1")];
const SEPARABLE_SE: Block =
    &[("conv_dw", "0.0"), ("bn1", "0.1"), ("se.conv_reduce", "1.fc1"), ("se.conv_expand", "1.fc2"), ("conv_pw", "2.0"), ("bn2", "2.1")];
const INVERTED: Block = &[("conv_pw", "0.0"), ("bn1", "0.1"), ("conv_dw", "1.0"), ("bn2", "1.1"), ("conv_pwl", "2.0"), ("bn3", "2.1")];
const INVERTED_SE: Block = &[
    ("conv_pw", "0.0"),
    ("bn1", "0.1"),
    ("conv_dw", "1.0"),
    ("bn2", "1.1"),
    ("se.conv_reduce", "2.fc1"),
    ("se.conv_expand", "2.fc2"),
    ("conv_pwl", "3.0"),
    ("bn3", "3.1"),
];
/// MobileNetV2's last layer of a block is not wrapped.
const SEPARABLE_V2: Block = &[("conv_dw", "0.0"), ("bn1", "0.1"), ("conv_pw", "1"), ("bn2", "2")];
const INVERTED_V2: Block = &[("conv_pw", "0.0"), ("bn1", "0.1"), ("conv_dw", "1.0"), ("bn2", "1.1"), ("conv_pwl", "2"), ("bn3", "3")];

#[derive(Clone, Copy, PartialEq)]
enum Family {
    EfficientNet,
    MobileNetV2,
    MobileNetV3,
}

/// Renames a timm checkpoint of VGG, DenseNet, EfficientNet, MobileNetV2 or MobileNetV3 to
/// torchvision's names, and flattens weights that are 1×1 convolutions there and linear layers
/// here; the classifier `linear` of a CIFAR ResNet becomes `fc`. Any other state dict is returned
/// unchanged, also torchvision's and MobileNetV1's, whose names here are timm's.
///
/// timm's MobileNetV3 and EfficientNet may use another `eps` in normalisation than torchvision's;
/// that is no part of a checkpoint.
///
/// ```
/// use convnet::nn::StateDict;
/// use convnet::{Tensor, weights};
///
/// let timm = StateDict::from_iter([("pre_logits.fc1.weight", Tensor::zeros([8, 2, 3, 3]))]);
/// let renamed = weights::rename(timm)?;
/// assert_eq!(renamed.get("classifier.0.weight").unwrap().shape(), [8, 18]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// [`Error::StateDict`] when it is one of these networks and has a layer that torchvision's does
/// not have.
pub fn rename(state: StateDict) -> Result<StateDict> {
    let unreadable: Vec<(String, String)> = state.unreadable().map(|(name, reason)| (name.to_string(), reason.to_string())).collect();
    let keys = || state.keys().chain(unreadable.iter().map(|(name, _)| name.as_str()));
    let names: HashMap<String, String> = if state.contains_key("pre_logits.fc1.weight") {
        keys().map(|key| (key.to_string(), vgg(key))).collect()
    } else if state.contains_key("conv_stem.weight") && state.keys().any(|key| key.ends_with(".conv_pwl.weight")) {
        let blocks = Blocks::of(&state);
        keys().map(|key| Ok((key.to_string(), blocks.rename(key)?))).collect::<Result<_>>()?
    } else if is_cifar_resnet(&state) {
        return Ok(state.with_keys(|key| match key.strip_prefix("linear.") {
            Some(parameter) => format!("fc.{parameter}"),
            None => key.to_string(),
        }));
    } else {
        return Ok(state);
    };
    let mut renamed = StateDict::new();
    for (key, tensor) in state {
        let name = names.get(&key).unwrap_or(&key);
        // Only linear layers have this name, and their weights have two dimensions.
        let tensor = match *tensor.shape() {
            [out, ..] if name.starts_with("classifier.") && tensor.ndim() == 4 => tensor.reshape([out, tensor.numel() / out.max(1)])?,
            _ => tensor,
        };
        if renamed.insert(name.as_str(), tensor).is_some() {
            return Err(Error::StateDict(format!("two tensors are `{}` in torchvision's names", short(name))));
        }
    }
    for (name, reason) in unreadable {
        renamed.insert_unreadable(names.get(&name).unwrap_or(&name).as_str(), reason);
    }
    Ok(renamed)
}

/// Returns whether it is a residual network for CIFAR as in akamaster's `pytorch_resnet_cifar10`:
/// three stages, and a classifier `linear`.
fn is_cifar_resnet(state: &StateDict) -> bool {
    let has = |key| state.contains_key(key);
    has("linear.weight") && has("layer3.0.conv1.weight") && !has("layer4.0.conv1.weight") && !has("fc.weight")
}

fn vgg(key: &str) -> String {
    let (layer, parameter) = key.rsplit_once('.').unwrap_or((key, ""));
    match VGG.iter().find(|(theirs, _)| *theirs == layer) {
        Some((_, ours)) => format!("{ours}.{parameter}"),
        None => key.to_string(),
    }
}

/// The facts about a whole network that renaming one of its keys needs.
struct Blocks {
    family: Family,
    /// By timm's `stage.block`: where it is in torchvision, and its layers' names there.
    blocks: HashMap<String, (String, Block)>,
    /// The number of the layer after the blocks.
    after: usize,
}

impl Blocks {
    fn of(state: &StateDict) -> Blocks {
        // `blocks.1.0.conv_pw.weight` has stage and block `1.0`.
        let id = |key: &str| {
            let rest = key.strip_prefix("blocks.")?;
            let mut dots = rest.match_indices('.').skip(1);
            dots.next().map(|(end, _)| rest[..end].to_string())
        };
        let mut ids: Vec<String> = state.keys().filter_map(id).collect::<HashSet<_>>().into_iter().collect();
        // By number, as the order of a state dict may be another.
        let key = |id: &String| (id.split('.').map(|part| part.parse().unwrap_or(usize::MAX)).collect::<Vec<_>>(), id.clone());
        sort_by(&mut ids, |a, b| key(a).cmp(&key(b)));
        let has = |id: &str, layer: &str| state.contains_key(&format!("blocks.{id}.{layer}.weight"));
        let family = if ids.iter().any(|id| has(id, "conv")) {
            Family::MobileNetV3
        } else if ids.iter().any(|id| has(id, "se.conv_reduce")) {
            Family::EfficientNet
        } else {
            Family::MobileNetV2
        };
        ids.retain(|id| !has(id, "conv"));
        let mut blocks = HashMap::new();
        for (i, id) in ids.iter().enumerate() {
            let layers = match (family, has(id, "conv_pwl"), has(id, "se.conv_reduce")) {
                (Family::MobileNetV2, false, _) => SEPARABLE_V2,
                (Family::MobileNetV2, true, _) => INVERTED_V2,
                (_, false, false) => SEPARABLE,
                (_, false, true) => SEPARABLE_SE,
                (_, true, false) => INVERTED,
                (_, true, true) => INVERTED_SE,
            };
            let (stage, block) = id.split_once('.').unwrap_or((id, "0"));
            let place = match family {
                Family::EfficientNet => {
                    format!("features.{}.{block}.block", stage.parse().map_or(usize::MAX, |s: usize| s.saturating_add(1)))
                }
                Family::MobileNetV2 => format!("features.{}.conv", i + 1),
                Family::MobileNetV3 => format!("features.{}.block", i + 1),
            };
            blocks.insert(id.clone(), (place, layers));
        }
        let stages = ids.iter().filter_map(|id| id.split('.').next()).collect::<HashSet<_>>().len();
        let after = 1 + if family == Family::EfficientNet { stages } else { ids.len() };
        Blocks { family, blocks, after }
    }

    fn rename(&self, key: &str) -> Result<String> {
        let unknown = || Error::StateDict(format!("`{}` has no counterpart in torchvision's network", short(key)));
        let (layer, parameter) = key.rsplit_once('.').ok_or_else(unknown)?;
        let after = self.after;
        let name = match (layer, self.family) {
            ("conv_stem", _) => "features.0.0".to_string(),
            ("bn1", _) => "features.0.1".to_string(),
            ("conv_head", Family::MobileNetV3) => "classifier.0".to_string(),
            ("conv_head", _) => format!("features.{after}.0"),
            ("bn2", Family::EfficientNet | Family::MobileNetV2) => format!("features.{after}.1"),
            ("classifier", Family::MobileNetV3) => "classifier.3".to_string(),
            ("classifier", _) => "classifier.1".to_string(),
            _ => self.inside(layer).ok_or_else(unknown)?,
        };
        Ok(format!("{name}.{parameter}"))
    }

    /// `blocks.1.0.conv_pw`
    fn inside(&self, layer: &str) -> Option<String> {
        let mut parts = layer.strip_prefix("blocks.")?.splitn(3, '.');
        let (stage, block, layer) = (parts.next()?, parts.next()?, parts.next()?);
        match (self.blocks.get(&format!("{stage}.{block}")), layer) {
            (Some((place, layers)), _) => {
                let (_, ours) = layers.iter().find(|(theirs, _)| *theirs == layer)?;
                Some(format!("{place}.{ours}"))
            }
            // MobileNetV3's last convolution stands among the blocks.
            (None, "conv") => Some(format!("features.{}.0", self.after)),
            (None, "bn1") => Some(format!("features.{}.1", self.after)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Tensor;

    #[test]
    fn unreadable_tensors_are_renamed_too() {
        let mut state = StateDict::new();
        state.insert("pre_logits.fc1.weight", Tensor::zeros([2, 3, 1, 1]));
        state.insert_unreadable("pre_logits.fc2.weight", "it is quantized");
        let renamed = rename(state).unwrap();
        assert_eq!(renamed.keys().collect::<Vec<_>>(), ["classifier.0.weight"]);
        assert_eq!(renamed.unreadable().collect::<Vec<_>>(), [("classifier.3.weight", "it is quantized")]);
    }
}
