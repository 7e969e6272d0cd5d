//! The preprocessing of images for each model, as its published weights expect it.

use super::info;
use crate::data::{ImageClassification, ResizeFilter};
use crate::error::Result;

/// Inception's normalisation to [-1, 1].
const HALF: [f64; 3] = [0.5; 3];

/// The mean and standard deviation of CIFAR-10's training set.
const CIFAR: [[f64; 3]; 2] = [[0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]];

/// Returns the preprocessing of images for the model of this name: the `transforms()` of
/// torchvision's first weights (`IMAGENET1K_V1`), or timm's configuration where torchvision does
/// not have the model.
///
/// Most models scale the shorter side to 256 with a bilinear filter, and take the central 224×224
/// in ImageNet's normalisation. EfficientNets have other sizes and a bicubic filter. GoogLeNet's
/// published weights expect the range [-1, 1]; in torchvision the network converts, here the
/// preprocessing does. LeNet takes 28×28 grey images with MNIST's normalisation, the networks of
/// 1989 and 1998 grey images in the ranges of their papers, CIFAR's ResNets 32×32 images with
/// CIFAR's normalisation.
///
/// ```
/// use convnet::{data::Image, models};
///
/// let mut image = Image::new(3, 375, 500)?;
/// image.apply(&models::preprocessing("efficientnet_b4")?)?;
/// assert_eq!(image.shape(), [3, 380, 380]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) when no architecture has this name.
pub fn preprocessing(name: &str) -> Result<ImageClassification> {
    let [_, size, _] = info(name)?.input;
    let usual = ImageClassification::new(size);
    let cubic = |shorter| usual.clone().resize(shorter).interpolation(ResizeFilter::Bicubic);
    Ok(match name {
        "lenet5" => usual.resize(28).normalize([0.1307], [0.3081]),
        "lenet_1989" => usual.resize(16).normalize([0.5], [0.5]),
        // To -0.1 for black and 1.175 for white pixels.
        "lenet5_1998" => usual.resize(28).normalize([0.1 / 1.275], [1.0 / 1.275]),
        _ if name.starts_with("cifar_") => usual.resize(32).normalize(CIFAR[0], CIFAR[1]),
        "googlenet" => usual.normalize(HALF, HALF),
        "efficientnet_b0" | "efficientnet_b1" => cubic(256),
        // Published for a larger image than the network was trained with.
        "efficientnet_b2" => ImageClassification::new(288).resize(288).interpolation(ResizeFilter::Bicubic),
        "efficientnet_b3" => cubic(320),
        "efficientnet_b4" => cubic(384),
        _ if name.starts_with("efficientnet_") => cubic(size),
        // timm divides the size by the fraction that the crop covers.
        "mobilenet_v1" => cubic(256).normalize(HALF, HALF),
        "xception" => cubic(333).normalize(HALF, HALF),
        "seresnet50" => cubic(235),
        _ if name.starts_with("seresnet") => cubic(256),
        _ => usual,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Image;
    use crate::models::all;

    #[test]
    fn every_model_gets_an_image_of_its_published_shape() {
        for model in all() {
            let preprocessing = preprocessing(model.name).unwrap();
            let expected = if model.name == "efficientnet_b2" { [3, 288, 288] } else { model.input };
            assert_eq!(preprocessing.shape(), expected, "{}", model.name);
            let mut image = Image::new(3, 50, 60).unwrap();
            image.apply(&preprocessing).unwrap();
            assert_eq!(image.shape(), expected, "{}", model.name);
        }
        assert!(preprocessing("nonsense").is_err());
    }
}
