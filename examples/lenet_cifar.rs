//! Trains LeNet-5 with 16 and 32 channels on CIFAR-10, or on the digits that come with the crate.
//!
//! ```sh
//! cargo run --release --example lenet_cifar                      # the digits
//! cargo run --release --example lenet_cifar -- data/cifar10 5    # CIFAR-10, five epochs
//! ```
use convnet::data::{Cifar10, Digits, IMAGENET_MEAN, IMAGENET_STD, Image, Normalize, RandomCrop};
use convnet::data::{RandomHorizontalFlip, RandomRotation, RandomVerticalFlip, Resize, Rng};
use convnet::prelude::*;
use convnet::train::{Step, Trainer, accuracy};

fn main() -> Result<()> {
    convnet::manual_seed(0);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let epochs = match arguments.get(1).map_or(Ok(5), |epochs| epochs.parse()) {
        Ok(epochs) if arguments.len() <= 2 => epochs,
        _ => return Err(Error::msg("expected `lenet_cifar [DIR [EPOCHS]]`, EPOCHS a number")),
    };
    let (train, valid) = match arguments.first() {
        Some(dir) => (DataLoader::new(Cifar10::train(dir)?, 128), DataLoader::new(Cifar10::test(dir)?, 250)),
        None => (DataLoader::new(Digits::train(), 128).transform(coloured), DataLoader::new(Digits::test(), 250).transform(coloured)),
    };

    let flips = (RandomHorizontalFlip::new(0.5), RandomVerticalFlip::new(0.5));
    let augment = (flips, RandomRotation::new(10.0), Resize::new([36, 36]), RandomCrop::new([32, 32]));
    let normalize = || Normalize::new(IMAGENET_MEAN, IMAGENET_STD);
    let train = train.shuffle(0).workers(1).transform((augment, normalize()));
    let valid = valid.transform((Resize::new([32, 32]), normalize()));

    let net = Sequential::new().push(Conv2d::new(3, 16, 5)).push(ReLU).push(MaxPool2d::new(2)); // [N, 16, 14, 14]
    let net = net.push(Conv2d::new(16, 32, 5)).push(ReLU).push(MaxPool2d::new(2)); //              [N, 32, 5, 5]
    let net = net.push(Flatten).push(Linear::new(800, 32)).push(ReLU).push(Linear::new(32, 10)); //  [N, 10]

    let optimizer = Adam::new(net.parameters(), 1e-3);
    let report = Trainer::new(&net, optimizer).epochs(epochs).fit(&train, &valid, |net, Batch { images, labels }| {
        let logits = net.forward(images)?;
        Ok(Step::new(logits.cross_entropy(labels)?).metric("accuracy", accuracy(&logits, labels)?))
    })?;
    let last = report.last().and_then(|metrics| metrics.get("valid/accuracy"));
    println!("accuracy: {:.4}", last.copied().unwrap_or(f64::NAN));
    Ok(())
}

/// Gives a grey picture the three channels of CIFAR's.
fn coloured(image: &mut Image, _: &mut Rng) -> Result<()> {
    let [_, height, width] = image.shape();
    let pixels = image.pixels().iter().flat_map(|&x| [x; 3]).collect();
    *image = Image::from_floats([3, height, width], pixels)?;
    Ok(())
}
