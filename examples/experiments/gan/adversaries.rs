//! The generator and the discriminator, and a step of both.

use convnet::models::{DcganDiscriminator, DcganGenerator, DcganOptions, dcgan_discriminator, dcgan_generator};
use convnet::prelude::*;

use super::CLASSES;

/// A generator and its discriminator, with what they learn by.
pub struct Gan {
    pub generator: DcganGenerator,
    discriminator: DcganDiscriminator,
    optimizers: [Adam; 2],
    latent: usize,
}

impl Gan {
    pub fn new(size: usize, width: usize) -> Result<Gan> {
        let latent = 64;
        let options = DcganOptions::new(size).width(width);
        let generator = dcgan_generator(options.channels(1).latent(latent + CLASSES))?;
        let discriminator = dcgan_discriminator(options.channels(1 + CLASSES))?;
        // The paper's rate and momentum.
        let optimizers = [generator.parameters(), discriminator.parameters()].map(|p| Adam::new(p, 2e-4).betas(0.5, 0.999));
        Ok(Gan { generator, discriminator, optimizers, latent })
    }

    /// Makes a picture `[1, size, size]` in `[-1, 1]` for each label.
    pub fn sample(&self, noise: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let classes = labels.one_hot(CLASSES)?.to_dtype(DType::F32)?;
        self.generator.forward(&Tensor::cat(&[noise, &classes], 1)?)
    }

    pub fn noise(&self, count: usize) -> Tensor {
        Tensor::randn([count, self.latent])
    }

    /// Computes the loss of the discriminator's answers, of which all should be `real` or not.
    fn judged(&self, pictures: &Tensor, labels: &Tensor, real: f64) -> Result<Tensor> {
        let &[n, _, h, w] = pictures.shape() else { unreachable!("pictures are [N, C, H, W]") };
        let classes = labels.one_hot(CLASSES)?.to_dtype(DType::F32)?.reshape([n, CLASSES, 1, 1])?.expand([n, CLASSES, h, w])?;
        let logits = self.discriminator.forward(&Tensor::cat(&[pictures, &classes], 1)?)?;
        logits.binary_cross_entropy_with_logits(&Tensor::full([n, 1], real, DType::F32))
    }

    /// Takes a step of both networks.
    pub fn step(&mut self, real: &Tensor, labels: &Tensor) -> Result<()> {
        let samples = self.sample(&self.noise(labels.numel()), labels)?;
        let loss = self.judged(real, labels, 1.0)?.add(&self.judged(&samples.detach(), labels, 0.0)?)?;
        self.optimizers[1].step(&loss.backward()?)?;
        // The discriminator stays as it is while the generator learns from it.
        self.discriminator.freeze("")?;
        let loss = self.judged(&samples, labels, 1.0)?.backward()?;
        self.discriminator.unfreeze("")?;
        self.optimizers[0].step(&loss)
    }
}
