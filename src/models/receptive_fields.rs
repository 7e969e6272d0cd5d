//! Comparison of the reported receptive fields with the support of gradients, for the registered
//! networks.

use crate::nn::check_fields;

fn check(name: &str, [height, width]: [usize; 2], layers: usize) -> usize {
    let shape = [1, 3, height, width];
    match name {
        // Without the dense layers, which have a hundred million weights and depend on the whole
        // input.
        "vgg11" => check_fields(name, &super::vgg11(8).features, shape, layers),
        "alexnet" => check_fields(name, &super::alexnet(8).features, shape, layers),
        _ => check_fields(name, &super::create(name, 8).unwrap(), shape, layers),
    }
}

#[test]
fn fields_are_the_support_of_the_gradient() {
    let compared: usize = [
        ("resnet18", [97, 80], 6),
        ("vgg11", [64, 50], 5),
        ("googlenet", [96, 75], 4),
        ("mobilenet_v2", [80, 65], 4),
        ("densenet121", [64, 75], 4),
        ("cifar_resnet20", [32, 32], 5),
        ("xception", [75, 80], 4),
        ("alexnet", [100, 80], 4),
        ("nin", [70, 80], 4),
    ]
    .into_iter()
    .map(|(name, size, layers)| check(name, size, layers))
    .sum();
    assert!(compared >= 3 * 36, "{compared}");
}

#[test]
fn fields_after_squeeze_and_excitation_cover_the_input() {
    assert!(check("seresnet18", [64, 64], 5) >= 12);
    assert!(check("mobilenet_v3_small", [64, 64], 5) >= 12);
}
