//! DCGAN (Radford, Metz & Chintala, *Unsupervised Representation Learning with Deep Convolutional
//! Generative Adversarial Networks*, 2015).
//!
//! A generator makes pictures of random numbers, and a discriminator tells them from real ones.
//! Each is trained against the other. The paper's rules for networks with which this succeeds:
//! strided convolutions in place of pooling, batch normalisation in all layers but the generator's
//! last and the discriminator's first, no dense layers between, ReLU in the generator and tanh at
//! its end, leaky ReLU in the discriminator. Kernels are 4×4 and names of fields are those of
//! PyTorch's example; the paper's kernels are 5×5.

use crate::error::{Error, Result};
use crate::nn::init::{Init, initialise};
use crate::nn::{BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, LeakyReLU, Module, ReLU, Sequential, Tanh, block};
use crate::tensor::Tensor;
use crate::visit_fields;

/// Sizes of [`dcgan_generator`] and [`dcgan_discriminator`], which belong together.
///
/// ```
/// use convnet::{Tensor, models::{DcganOptions, dcgan_discriminator, dcgan_generator}, nn::Module};
///
/// let options = DcganOptions::new(28).channels(1).latent(64).width(32);
/// let (generator, discriminator) = (dcgan_generator(options)?, dcgan_discriminator(options)?);
/// let pictures = generator.forward(&Tensor::randn([2, 64]))?;
/// assert_eq!(pictures.shape(), [2, 1, 28, 28]);
/// assert_eq!(discriminator.forward(&pictures)?.shape(), [2, 1]);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DcganOptions {
    size: usize,
    channels: usize,
    latent: usize,
    width: usize,
}

impl DcganOptions {
    /// Creates options for square pictures of this size with three channels, from 100 random
    /// numbers, with 64 maps beside the picture.
    pub fn new(size: usize) -> DcganOptions {
        DcganOptions { size, channels: 3, latent: 100, width: 64 }
    }

    /// Sets the channels of a picture (default: 3).
    pub fn channels(mut self, channels: usize) -> DcganOptions {
        self.channels = channels;
        self
    }

    /// Sets how many random numbers a picture is made of (default: 100).
    pub fn latent(mut self, latent: usize) -> DcganOptions {
        self.latent = latent;
        self
    }

    /// Sets the maps of the layer beside the picture (default: 64). Each halving of the size
    /// doubles them.
    pub fn width(mut self, width: usize) -> DcganOptions {
        self.width = width;
        self
    }

    /// Returns the size of the smallest maps, and the numbers of maps from the largest size to the
    /// smallest.
    fn stages(&self, op: &'static str) -> Result<(usize, Vec<usize>)> {
        let (mut size, mut widths) = (self.size, vec![]);
        while size > 4 && size.is_multiple_of(2) {
            size /= 2;
            widths.push(self.width.saturating_mul(1 << widths.len()));
        }
        if widths.is_empty() {
            return Err(Error::argument(op, format!("expected an even picture size of at least 6, got {}", self.size)));
        }
        Ok((size, widths))
    }
}

/// The generator of a DCGAN; see [`dcgan_generator`].
pub struct DcganGenerator {
    /// Transposed convolutions, normalisations and activations.
    pub main: Sequential,
    latent: usize,
}

/// The discriminator of a DCGAN; see [`dcgan_discriminator`].
pub struct DcganDiscriminator {
    /// Convolutions, normalisations and activations.
    pub main: Sequential,
}

/// Creates the generator: a transposed convolution from random numbers to maps of 4 to 7 pixels (or
/// the odd number at which halving the size ends), then one for each doubling of the size. Weights
/// of convolutions start normal with deviation 0.02, as in the paper.
///
/// # Errors
/// [`Error::Argument`] when the size is odd or below 6.
///
/// ```
/// use convnet::{models::{DcganOptions, dcgan_generator}, nn::Module};
///
/// // PyTorch's example, for pictures of 64×64 pixels.
/// assert_eq!(dcgan_generator(DcganOptions::new(64))?.num_parameters(), 3_576_704);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn dcgan_generator(options: DcganOptions) -> Result<DcganGenerator> {
    let (start, widths) = options.stages("dcgan_generator")?;
    let mut main = Sequential::new();
    let mut inputs = options.latent;
    for (i, &width) in widths.iter().rev().enumerate() {
        let up = if i == 0 { ConvTranspose2d::new(inputs, width, start).bias(false) } else { doubling(inputs, width) };
        main = main.push(up).push(BatchNorm2d::new(width)).push(ReLU);
        inputs = width;
    }
    let main = main.push(doubling(inputs, options.channels)).push(Tanh);
    Ok(DcganGenerator { main: narrow_start(main), latent: options.latent })
}

fn doubling(inputs: usize, outputs: usize) -> ConvTranspose2d {
    ConvTranspose2d::new(inputs, outputs, 4).stride(2).padding(1).bias(false)
}

/// Creates the discriminator, the generator's mirror image: a convolution for each halving of the
/// size, and one from the smallest maps to one number, the logit of the picture being real.
///
/// # Errors
/// [`Error::Argument`] when the size is odd or below 6.
///
/// ```
/// use convnet::{models::{DcganOptions, dcgan_discriminator}, nn::Module};
///
/// assert_eq!(dcgan_discriminator(DcganOptions::new(64))?.num_parameters(), 2_765_568);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn dcgan_discriminator(options: DcganOptions) -> Result<DcganDiscriminator> {
    let (start, widths) = options.stages("dcgan_discriminator")?;
    let mut main = Sequential::new();
    let mut inputs = options.channels;
    for (i, &width) in widths.iter().enumerate() {
        main = main.push(Conv2d::new(inputs, width, 4).stride(2).padding(1).bias(false));
        if i > 0 {
            main = main.push(BatchNorm2d::new(width));
        }
        main = main.push(LeakyReLU::new(0.2));
        inputs = width;
    }
    let main = main.push(Conv2d::new(inputs, 1, start).bias(false)).push(Flatten);
    Ok(DcganDiscriminator { main: narrow_start(main) })
}

fn narrow_start(main: Sequential) -> Sequential {
    initialise(main, |at| match at.layer {
        "Conv2d" | "ConvTranspose2d" => Some(Init::Normal(0.02)),
        _ => None,
    })
}

impl Module for DcganGenerator {
    /// # Shape
    /// Normal random numbers `[N, latent]` to pictures `[N, channels, size, size]` in `[-1, 1]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for an input of another shape.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let &[n, latent] = x.shape() else {
            return Err(Error::shape("dcgan_generator", format!("expected [N, {}], got shape {:?}", self.latent, x.shape())));
        };
        block(self, || self.main.forward(&x.reshape([n, latent, 1, 1])?))
    }

    visit_fields!(main, skip(latent));
}

impl Module for DcganDiscriminator {
    /// # Shape
    /// Pictures `[N, channels, size, size]` in `[-1, 1]` to logits `[N, 1]`.
    ///
    /// # Errors
    /// [`Error::Layer`] around [`Error::Shape`] for pictures of other channels, and for smaller
    /// ones.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || self.main.forward(x))
    }

    visit_fields!(main);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_networks_fit_together_at_every_even_size() {
        for size in [6, 8, 10, 28, 32, 48] {
            let options = DcganOptions::new(size).channels(1).latent(5).width(2);
            let pictures = dcgan_generator(options).unwrap().forward(&Tensor::randn([3, 5])).unwrap();
            assert_eq!(pictures.shape(), [3, 1, size, size]);
            assert!(pictures.to_vec::<f32>().unwrap().iter().all(|value| value.abs() <= 1.0));
            assert_eq!(dcgan_discriminator(options).unwrap().forward(&pictures).unwrap().shape(), [3, 1]);
        }
    }

    #[test]
    fn weights_of_convolutions_start_with_the_papers_deviation() {
        let net = dcgan_discriminator(DcganOptions::new(32)).unwrap();
        let weight = net.parameters()[1].tensor();
        assert_eq!(weight.shape(), [128, 64, 4, 4]);
        // 131,072 numbers: the deviation of the measured variance is 0.4 % of it.
        let variance = weight.var(..).unwrap().item::<f32>().unwrap();
        assert!((variance / 4e-4 - 1.0).abs() < 0.02, "{variance}");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let message = |size| dcgan_generator(DcganOptions::new(size)).err().unwrap().to_string();
        assert!(message(27).contains("even picture size of at least 6, got 27"));
        assert!(message(4).contains("got 4") && message(0).contains("got 0"));
        let generator = dcgan_generator(DcganOptions::new(8)).unwrap();
        let message = |shape: &[usize]| generator.forward(&Tensor::zeros(shape)).unwrap_err().to_string();
        assert!(message(&[2, 100, 1, 1]).contains("expected [N, 100], got shape [2, 100, 1, 1]"));
        assert!(message(&[2, 99]).contains("100 input channels"));
        assert!(dcgan_discriminator(DcganOptions::new(1 << 40).width(usize::MAX)).unwrap().forward(&Tensor::zeros([1, 3, 8, 8])).is_err());
    }
}
